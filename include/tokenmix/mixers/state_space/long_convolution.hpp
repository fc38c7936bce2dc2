// SPDX-License-Identifier: Apache-2.0
/// @file Convolution along time with filters as long as the sequence, gates before and behind it: H3, Hyena, S4's first form.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/detail/convolution_line.hpp>
#include <tokenmix/mixers/state_space/long_filters.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/finite.hpp>
#include <tokenmix/simd/prefetch.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <cmath>
#include <complex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of a long convolution. Filters come as taps or made ready (spectra): one of the two.
template <class E, class W = accumulator_t<E>, class Fft = no_fft>
struct long_convolution_inputs {
  tensor_view<const E, 3> x{};          // (B, T, C)
  tensor_view<const W, 2> filters{};    // (G, L): channel c takes filter c / (C / G)
  long_filters_view<W, Fft> spectra{};  // long_filters::view()
  tensor_view<const W, 1> skip{};       // (C): weight of the token itself; none if empty
  tensor_view<const E, 3> pre_gate{};   // (B, T, C): x is times it first; none if empty
  tensor_view<const E, 3> post_gate{};  // (B, T, C): out is times it; none if empty
};

/// What lies before the first and behind the last token.
enum class boundary : unsigned char {
  zero,      ///< nothing
  circular,  ///< the sequence again
};

/// Options of long_convolution: use with designated initialisers; the order of the fields is API.
template <class Fft = no_fft, class Sequences = whole_sequences>
struct long_convolution_options {
  Fft fft{};                                         ///< the library that filters given as taps are transformed by
  tokenmix::order order = tokenmix::order::forward;  ///< forward or reverse
  Sequences sequences{};                             ///< whole_sequences, lengths or packed
  index_t future = 0;                                ///< taps that see later tokens: 0 is causal, (L - 1) / 2 centred
  tokenmix::boundary boundary = tokenmix::boundary::zero;
};

namespace detail {

/// Channels along tokens: the last axis contiguous, or the one before it.
template <class E>
void check_channels_or_time_contiguous(const char* name, const tensor_view<const E, 3>& view) {
  check_view(name, view);
  if (!view.channels_contiguous() && view.extent(1) > 1 && view.stride(1) != 1)
    fail_shape(name, " has strides ", shape_text<3>(view.strides()),
               ": the channels or the tokens must be contiguous (stride 1)");
}

/// The checked arguments, and the work on some channels of one sequence.
template <class E, class T, class F, class Fft, class O>
struct long_convolution_problem {
  const long_convolution_inputs<E, T, F>& in;
  long_filters_view<T, Fft> filters;
  tensor_view<O, 3> out;
  index_t future;
  bool reversed, circular;

  static constexpr index_t width = 64;                 ///< tokens that change places at a time
  static constexpr index_t channels = simd::lanes<T>;  ///< most channels of one task

  index_t lead() const { return lead_of_taps(filters.taps.extent(1)); }
  /// Results that a line makes of n tokens: whole blocks.
  index_t line_numbers(index_t n) const {
    if (filters.numbers == 0) return lead() + (n + direct_slack<T> - 1) / direct_slack<T> * direct_slack<T>;
    const index_t block = filters.numbers - lead();
    return std::max((n + block - 1) / block * block + lead(), lead() + n + simd::lanes<T>);
  }

  /// The distance of lines: whole cache lines, an odd number of them.
  static constexpr index_t distance_of_lines(index_t numbers) {
    constexpr index_t line = 64 / static_cast<index_t>(sizeof(T));
    return ((numbers + line - 1) / line | 1) * line;
  }
  /// (channels, width) numbers of a view, in lines of `width`.
  template <class X>
  static void load_tile(const tensor_view<const X, 3>& view, index_t batch, index_t row, index_t n, index_t first,
                        index_t count, T* tile) {
    if (view.channels_contiguous()) {
      simd::transpose_in(view.row(batch, row, first), view.stride(1), n, count, tile, width);
    } else {
      for (index_t c = 0; c < count; ++c) simd::convert_row(view.row(batch, row, first + c), tile + c * width, n);
    }
  }
  void store_tile(const T* tile, index_t batch, index_t row, index_t n, index_t first, index_t count) const {
    if (out.channels_contiguous()) {
      simd::transpose_out(tile, width, n, count, out.row(batch, row, first), out.stride(1));
    } else {
      for (index_t c = 0; c < count; ++c) simd::convert_row(tile + c * width, out.row(batch, row, first + c), n);
    }
  }
  /// Pieces of rows are too short for the hardware to foresee them.
  template <class X>
  static void ask_for_tile(const tensor_view<const X, 3>& view, index_t batch, index_t row, index_t n, index_t first,
                           index_t count) {
    if (n <= 0 || view.data() == nullptr || !view.channels_contiguous()) return;
    simd::lines_ahead ahead;
    ahead.add(view.row(batch, row, first), view.stride(1), n, count);
    ahead.fetch(n * (1 + count * static_cast<index_t>(sizeof(X)) / 64));
  }
  static void multiply_tiles(T* tile, const T* gate, index_t count) {
    for (index_t i = 0; i < count * width; i += simd::lanes<T>)
      simd::store(tile + i, simd::load(tile + i) * simd::load(gate + i));
  }

  void run(const sequence& seq, index_t first, index_t count) const {
    const index_t n = seq.keys;
    if (n == 0) return;
    scratch_frame frame;
    // Lines a power of two apart would share few places in the caches.
    const index_t step = distance_of_lines(line_numbers(n)), front = lead() - future;
    T* const lines = frame.take<T>(count * step);
    T* const tile = frame.take<T>(channels * width);
    T* const gate = frame.take<T>(channels * width);
    std::fill_n(tile, channels * width, T(0));
    std::fill_n(gate, channels * width, T(0));
    for (index_t t = 0; t < n; t += width) {
      const index_t now = std::min(width, n - t), next = seq.key_row + t + now, more = std::min(width, n - t - now);
      ask_for_tile(in.x, seq.batch, next, more, first, count);
      ask_for_tile(in.pre_gate, seq.batch, next, more, first, count);
      load_tile(in.x, seq.batch, seq.key_row + t, now, first, count, tile);
      if (in.pre_gate.data() != nullptr) {
        load_tile(in.pre_gate, seq.batch, seq.key_row + t, now, first, count, gate);
        multiply_tiles(tile, gate, count);
      }
      for (index_t c = 0; c < count; ++c) std::copy_n(tile + c * width, now, lines + c * step + front + t);
    }
    for (index_t c = 0; c < count; ++c) convolve(lines + c * step, step, n, front, first + c, frame);
    for (index_t t = 0; t < n; t += width) {
      const index_t now = std::min(width, n - t), next = seq.key_row + t + now, more = std::min(width, n - t - now);
      ask_for_tile(tensor_view<const O, 3>(out), seq.batch, next, more, first, count);
      ask_for_tile(in.post_gate, seq.batch, next, more, first, count);
      for (index_t c = 0; c < count; ++c) std::copy_n(lines + c * step + t, now, tile + c * width);
      if (in.post_gate.data() != nullptr) {
        load_tile(in.post_gate, seq.batch, seq.key_row + t, now, first, count, gate);
        multiply_tiles(tile, gate, count);
      }
      store_tile(tile, seq.batch, seq.key_row + t, now, first, count);
    }
  }

  void convolve(T* line, index_t step, index_t n, index_t front, index_t channel, scratch_frame&) const {
    const index_t L = filters.taps.extent(1), G = filters.taps.extent(0), C = out.extent(2);
    const index_t group = channel / (C / G);
    const T* const taps = filters.taps.row(group);
    const T skip = in.skip.data() == nullptr ? T(0) : in.skip(channel);
    T* const body = line + front;
    if (reversed) std::reverse(body, body + n);
    scratch_frame frame;
    const auto pad = [&] {
      for (index_t i = 0; i < front; ++i) line[i] = circular ? body[n - 1 - (front - 1 - i) % n] : T(0);
      for (index_t i = front + n; i < step; ++i) line[i] = circular && i < lead() + n ? body[(i - front) % n] : T(0);
    };
    if constexpr (fft_library<Fft, T>) {
      if (filters.numbers > 0) {
        // A transform would spread what is not finite over the whole channel: it is taken out and added afterwards.
        index_t strange = 0;
        index_t* places = nullptr;
        T* values = nullptr;
        if (!simd::all_finite(body, n)) {
          places = frame.take<index_t>(n);
          values = frame.take<T>(n);
          for (index_t t = 0; t < n; ++t) {
            if (std::isfinite(body[t])) continue;
            places[strange] = t;
            values[strange++] = body[t];
            body[t] = T(0);
          }
        }
        pad();
        const index_t m = filters.numbers / 2;
        auto* const z = frame.take<std::complex<T>>(m);
        auto* const results = frame.take<std::complex<T>>(m);
        convolve_by_transforms(line, n, filters.spectra + group * 4 * half_spectrum_line<T>(m), filters.twiddles,
                               filters.numbers, lead(), future, skip,
                               plan_of_this_thread<typename Fft::template plan<T>>(m), z, results);
        for (index_t i = 0; i < strange; ++i) add_token(line, n, places[i], values[i], taps, L, skip);
        if (reversed) std::reverse(line, line + n);
        return;
      }
    }
    pad();
    convolve_directly(line, n, taps, L, lead(), future, skip);
    if (reversed) std::reverse(line, line + n);
  }

  /// What one token adds to all results.
  void add_token(T* line, index_t n, index_t at, T value, const T* taps, index_t L, T skip) const {
    if (in.skip.data() != nullptr) line[at] += skip * value;
    index_t l = std::max<index_t>(0, future - at);
    if (!circular) {
      add_multiple(line + at - future + l, taps + l, value,
                   std::max<index_t>(0, std::min(L - l, n - (at - future + l))));
      return;
    }
    for (l = 0; l < L; ++l) line[(at - future % n + n + l) % n] += taps[l] * value;
  }
};

}  // namespace detail

/// A convolution of every channel with its filter along time, its input and its output multiplied by gates.
///
///     u[t]   = pre_gate[t] x[t]                                                                  in every channel
///     out[t] = post_gate[t] (sum over l of filter[l] u[t + future - l]  +  skip u[t])
///
/// What lies outside the sequence is zero, or the sequence again (boundary::circular); in reverse order u[t - future + l].
/// With `future` = 0 it is causal. A bidirectional operator of a forward filter k0 and a backward one k1 (S4's: token t sees
/// k0[t - s] u[s] for s <= t and k1[s - t - 1] u[s] for s > t) is one filter: k1 flipped, then k0, with future = length of k1.
/// Operators in the literature are one call each, with a short convolution before it where they have one:
///
///     Hyena    y = x2 * (h conv (x1 * v) + D (x1 * v)):     {.x = v, .filters = h, .skip = D, .pre_gate = x1, .post_gate = x2}
///     H3       y = q * (K conv (k * v) + D (k * v)):        {.x = v, .filters = K, .skip = D, .pre_gate = k, .post_gate = q}
///     S4, S4D  y = K conv u + D u:                          {.x = u, .filters = K, .skip = D}
///
/// Shapes     x, gates, out: (B, T, C), any strides, the last axis contiguous or the one before it, a (B, C, T) tensor seen
///            through permuted(). filters: (G, L), C a multiple of G, any L; skip: (C).
/// Aliasing   out may be x itself; any other overlap is an error.
/// Numerics   computed in float (double for double). Filters of the library's direct_taps or fewer, and all of them with no_fft: one fma chain
///            per result, |error| <= (L + 3) u sum |filter| |u|. Longer ones by transforms of at least T + L - 1 real numbers, or
///            in blocks: |error| <= u log2(transform) |filter|_2 |u|_2 (norms over the taps and over the block) times the
///            gate: an error relative to the channel's size, not to the result's. A token that is not finite reaches the results that see it and
///            no other, as in the sum. A filter that is not finite spoils its channels. The same bits for any executor, batch neighbours and
///            strides; in reverse as flipped; packed as alone where filters are made ready once (they fix the transform).
/// Cost       two complex transforms of half the length per channel and block; x, gates and out once. Filters given as taps
///            are transformed in every call, which allocates. Scratch: the line of a register of channels.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Gu et al. 2022 (S4), section 3; Fu et al. 2023 (H3), section 3; Poli et al. 2023 (Hyena), section 3.
template <class E, class W, class F, class O, class Fft = no_fft, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void long_convolution(const long_convolution_inputs<E, W, F>& inputs, tensor_view<O, 3> out,  // (B, T, C)
                      const long_convolution_options<Fft, Sequences>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<W, T>, "filters are given in the computing type");
  static_assert(std::is_same_v<F, no_fft> || fft_library<F, T>, "the spectra are of a library of transforms");
  static_assert(std::is_same_v<Fft, no_fft> || fft_library<Fft, T>, "options.fft is a library of transforms");
  static_assert(!std::is_const_v<O>, "out must be writable");
  const bool ready = inputs.spectra.taps.data() != nullptr;
  const tensor_view<const T, 2> taps = ready ? inputs.spectra.taps : inputs.filters;
  detail::check_channels_or_time_contiguous("x", inputs.x);
  const index_t T_ = inputs.x.extent(1), C = inputs.x.extent(2);
  if (ready && inputs.filters.data() != nullptr) detail::fail_value("filters and spectra are given: one of the two");
  detail::check_input("filters", taps);
  const index_t G = taps.extent(0), L = taps.extent(1);
  if (G == 0 ? C != 0 : C % G != 0)
    detail::fail_shape("filters has ", G, " filters, x has ", C,
                       " channels: the number of channels must be a multiple of the number of filters");
  if (options.future < 0 || options.future > std::max<index_t>(L - 1, 0))
    detail::fail_value("future is ", options.future, ": expected 0 to ", std::max<index_t>(L - 1, 0),
                       ", one less than the taps");
  if (options.order == order::bidirectional)
    detail::fail_value("order is bidirectional: give one filter with taps on both sides, and future");
  const auto check_gate = [&](const char* name, const tensor_view<const E, 3>& gate) {
    if (gate.data() == nullptr) return;
    detail::check_channels_or_time_contiguous(name, gate);
    detail::check_same_shape(name, gate, "x", inputs.x);
    detail::check_overlap("out", tensor_view<const O, 3>(out), name, gate);
  };
  detail::check_channels_or_time_contiguous("out", tensor_view<const O, 3>(out));
  detail::check_writable_strides("out", tensor_view<const O, 3>(out));
  detail::check_same_shape("out", tensor_view<const O, 3>(out), "x", inputs.x);
  check_gate("pre_gate", inputs.pre_gate);
  check_gate("post_gate", inputs.post_gate);
  if (inputs.skip.data() != nullptr) {
    detail::check_input("skip", inputs.skip);
    detail::check_shape("skip", inputs.skip, {C}, "(C)");
    detail::check_overlap("out", tensor_view<const O, 3>(out), "skip", inputs.skip);
  }
  detail::check_overlap("out", tensor_view<const O, 3>(out), "x", inputs.x, detail::aliasing::identical);
  detail::check_overlap("out", tensor_view<const O, 3>(out), "filters", taps);
  options.sequences.check(inputs.x.extent(0), T_, T_);

  const index_t n = options.sequences.count(inputs.x.extent(0));
  const auto run = [&](const auto& filters) {
    const bool circular = options.boundary == boundary::circular;
    const detail::long_convolution_problem<E, T, F, typename std::decay_t<decltype(filters)>::library, O> problem{
        inputs, filters, out, options.future, options.order == order::reverse, circular};
    const index_t blocks = (C + problem.channels - 1) / problem.channels;
    detail::run_tasks(on, n * blocks, [&](index_t task) {
      const index_t first = task % blocks * problem.channels;
      problem.run(options.sequences.at(task / blocks, T_, T_), first, std::min(problem.channels, C - first));
    });
  };
  if (ready) {
    run(inputs.spectra);
    return;
  }
  // Taps that no token is far enough from are not transformed.
  const index_t used = options.boundary == boundary::zero ? std::min(L, T_ + options.future) : L;
  if constexpr (fft_library<Fft, T>) {
    if (used > Fft::template direct_taps<T>() && n > 0 && C > 0) {
      const long_filters<T, Fft> filters(taps.slice(1, 0, used), T_, options.fft, on);
      run(filters.view());
      return;
    }
  }
  run(long_filters_view<T, no_fft>{.taps = taps.slice(1, 0, used)});
}

}  // namespace tokenmix::inline TOKENMIX_ABI
