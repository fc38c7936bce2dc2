// SPDX-License-Identifier: Apache-2.0
/// @file A selective scan of some channels along one path of rows: parameters laid into lanes, rows prepared in chunks.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/mixers/state_space/detail/selective_states.hpp>
#include <tokenmix/mixers/state_space/detail/selective_step.hpp>
#include <tokenmix/mixers/state_space/detail/step_size.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/transpose.hpp>

#include <algorithm>
#include <cassert>
#include <cstdint>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The type of B and C beside an A of type P: complex where A is.
template <class E, class P>
using selective_row_element = std::conditional_t<is_complex<P>, std::complex<accumulator_t<E>>, E>;

/// The rows that a scan visits, in its order: all from `first` on, or those that a list names.
struct selective_path {
  index_t first = 0;
  index_t tokens = 0;
  bool reversed = false;
  const std::int32_t* list = nullptr;

  index_t operator()(index_t i) const {
    const index_t at = reversed ? tokens - 1 - i : i;
    return list == nullptr ? first + at : static_cast<index_t>(list[at]);
  }
};

/// One sequence's operands. Views without data are absent.
template <class E, class P, class O>
struct selective_channels {
  using T = accumulator_t<E>;
  using row_element = selective_row_element<E, P>;

  tensor_view<const E, 2> x, delta, gate;          // (T, D)
  tensor_view<const row_element, 3> b, c;          // (T, G, N)
  tensor_view<const P, 2> A;                       // (D, N)
  tensor_view<const P, 2> constant_b, constant_c;  // (D, N)
  tensor_view<const T, 1> skip, bias;              // (D)
  tensor_view<const P, 2> initial;                 // (D, N)
  tensor_view<P, 2> final;                         // (D, N)
  tensor_view<O, 2> out;                           // (T, D)
  selective_path path;
  bool softplus = false;
  bool add = false;       ///< to what out holds
  index_t out_first = 0;  ///< the channel in out's first column

  static constexpr index_t L = simd::lanes<T>, W = planes<P>;
  static constexpr index_t chunk = 64;  ///< tokens: rows and parameters of a task's channels stay in the second cache

  /// Channels [first, last), all of one group.
  void run(index_t group, index_t first, index_t last) const {
    if constexpr (!is_complex<P>) {
      if (path.tokens == 1 && A.channels_contiguous() && initial.channels_contiguous() && final.channels_contiguous() &&
          constant_b.channels_contiguous() && constant_c.channels_contiguous())
        return step(group, first, last);
    }
    const index_t N = A.extent(1), blocks = (last - first + L - 1) / L;
    scratch_frame frame;
    const auto table = [&](bool taken) { return taken ? frame.take<T>(blocks * N * W * L) : nullptr; };
    const bool varying_b = constant_b.data() == nullptr, varying_c = constant_c.data() == nullptr;
    T *rate = table(true), *state = table(true), *of_b = table(!varying_b), *of_c = table(!varying_c);
    T* skips = frame.take<T>(blocks * L);
    T* biases = frame.take<T>(blocks * L);
    const index_t rows = std::min(chunk, path.tokens);
    T *deltas = frame.take<T>(rows * L), *written = frame.take<T>(rows * L), *y = frame.take<T>(rows * L);
    const turned_rows turned = room_to_turn(frame, rows);
    T* b_rows = varying_b ? frame.take<T>(rows * N * W) : nullptr;
    T* c_rows = varying_c ? frame.take<T>(rows * N * W) : nullptr;
    for (index_t i = 0; i < blocks; ++i) {
      const index_t at = first + i * L, n = std::min(L, last - at), table_at = i * N * W * L;
      into_lanes(A, at, n, rate + table_at);
      for (index_t s = 0; s < N; ++s)
        for (index_t l = 0; l < L; ++l)
          assert(!(rate[table_at + s * W * L + l] > T(0)) && "the real part of A is at most 0");
      if (!varying_b) into_lanes(constant_b, at, n, of_b + table_at);
      if (!varying_c) into_lanes(constant_c, at, n, of_c + table_at);
      if (initial.data() != nullptr) into_lanes(initial, at, n, state + table_at);
      take_lanes(skip, at, n, skips + i * L);
      take_lanes(bias, at, n, biases + i * L);
    }
    if (initial.data() == nullptr) std::fill_n(state, blocks * N * W * L, T(0));
    simd::lines_ahead ahead;
    for (index_t t = 0; t < path.tokens; t += chunk) {
      const index_t tokens = std::min(chunk, path.tokens - t);
      if (varying_b) take_rows(b, group, t, tokens, b_rows);
      if (varying_c) take_rows(c, group, t, tokens, c_rows);
      for (index_t i = 0; i < blocks; ++i) {
        const index_t at = first + i * L, n = std::min(L, last - at), table_at = i * N * W * L;
        prepare(t, tokens, at, n, biases + i * L, turned, deltas, written);
        const index_t lines = i + 1 < blocks ? ask_for(ahead, t, at + L) : ask_for(ahead, t + tokens, first);
        if (N == 0) std::fill_n(y, tokens * L, T(0));
        selective_states_of<P, T>({.tokens = tokens,
                                   .delta = deltas,
                                   .written = written,
                                   .rate = rate + table_at,
                                   .b = varying_b ? b_rows : of_b + table_at,
                                   .c = varying_c ? c_rows : of_c + table_at,
                                   .stride = N * W,
                                   .state = state + table_at,
                                   .y = y,
                                   .ahead = &ahead,
                                   .lines = lines},
                                  N, varying_b, varying_c);
        finish(t, tokens, at, n, skips + i * L, turned, y);
      }
    }
    if (final.data() == nullptr) return;
    for (index_t i = 0; i < blocks; ++i) {
      const index_t at = first + i * L, n = std::min(L, last - at);
      from_lanes(state + i * N * W * L, at, n);
    }
  }

 private:
  /// One token: parameters and states are read where they lie, once.
  void step(index_t group, index_t first, index_t last) const {
    const index_t N = A.extent(1);
    scratch_frame frame;
    const auto row = [&](const tensor_view<const row_element, 3>& from, const tensor_view<const P, 2>& constant) {
      T* const numbers = constant.data() == nullptr ? frame.take<T>(N) : nullptr;
      if (numbers != nullptr) take_rows(from, group, 0, 1, numbers);
      return numbers;
    };
    const T *const b_row = row(b, constant_b), *const c_row = row(c, constant_c);
    // What is absent is a row of zeros, or one that nobody reads.
    T* const zeros = initial.data() == nullptr ? frame.take<T>(N) : nullptr;
    if (zeros != nullptr) std::fill_n(zeros, N, T(0));
    T* const dropped = final.data() == nullptr ? frame.take<T>(N) : nullptr;
    const auto rows = [&]<class S>(S* same, const auto& view) {
      return same != nullptr ? selective_state_rows<S>{same, 0}
                             : selective_state_rows<S>{view.row(first), view.stride(0)};
    };
    const index_t channels = last - first, room = (channels + L - 1) / L * L;
    T* const numbers = frame.take<T>(3 * room);
    T *const deltas = numbers, *const written = deltas + room, *const y = written + room;
    alignas(64) T lanes[static_cast<std::size_t>(L)];
    const auto each = [&](auto&& f) {
      for (index_t i = 0; i < channels; i += L) f(i, first + i, std::min(L, channels - i));
    };
    const turned_rows turned = room_to_turn(frame, 1);
    each([&](index_t i, index_t at, index_t n) {
      take_lanes(bias, at, n, lanes);
      prepare(0, 1, at, n, lanes, turned, deltas + i, written + i);
    });
    selective_step<T>({.channels = channels,
                       .states = N,
                       .delta = deltas,
                       .written = written,
                       .A = {A.row(first), A.stride(0)},
                       .b = rows(b_row, constant_b),
                       .c = rows(c_row, constant_c),
                       .initial = rows(static_cast<const T*>(zeros), initial),
                       .final = rows(dropped, final),
                       .y = y});
    each([&](index_t i, index_t at, index_t n) {
      take_lanes(skip, at, n, lanes);
      finish(0, 1, at, n, lanes, turned, y + i);
    });
  }

  /// Elements [at, at + n) of a vector that may be absent; zeros in the other lanes.
  static void take_lanes(const tensor_view<const T, 1>& from, index_t at, index_t n, T* to) {
    if (from.data() != nullptr && from.channels_contiguous()) return simd::store(to, simd::load_n(from.row(at), n));
    for (index_t l = 0; l < L; ++l) to[l] = l < n && from.data() != nullptr ? from(at + l) : T(0);
  }

  /// Puts the rows of a register of channels from `at` on, of the chunk that begins at t, on a list of what is needed next: pieces
  /// of rows are too short for the hardware to foresee them. Returns how many lines a token should ask for.
  index_t ask_for(simd::lines_ahead& ahead, index_t t, index_t at) const {
    ahead.clear();
    const index_t tokens = std::min(chunk, path.tokens - t);
    if (tokens < 8 || path.list != nullptr) return 0;
    const index_t low = std::min(path(t), path(t + tokens - 1)), width = std::min(L, x.extent(1) - at);
    const auto ask = [&](const auto& view, index_t column) {
      if (view.channels_contiguous()) {
        ahead.add(view.row(low, column), view.stride(0), tokens, width);
      } else {
        ahead.add(view.row(low, column), view.stride(1), width, tokens);
      }
    };
    ask(x, at), ask(delta, at), ask(out, at - out_first);
    if (gate.data() != nullptr) ask(gate, at);
    return gate.data() != nullptr ? 4 : 3;
  }

  /// Channels [at, at + n) of a parameter, one per lane; the other lanes are zero.
  static void into_lanes(const tensor_view<const P, 2>& from, index_t at, index_t n, T* to) {
    const index_t N = from.extent(1);
    if constexpr (!is_complex<P>) {
      if (from.channels_contiguous()) {
        simd::batch<T> columns[static_cast<std::size_t>(L)];
        for (index_t s = 0; s < N; s += L) {
          const index_t states = std::min(L, N - s);
          simd::load_transposed_n(from.row(at, s), from.stride(0), n, states, columns);
          for (index_t i = 0; i < states; ++i) simd::store(to + (s + i) * L, columns[i]);
        }
        return;
      }
    }
    if (n < L) std::fill_n(to, N * W * L, T(0));
    for (index_t l = 0; l < n; ++l) {
      for (index_t s = 0; s < N; ++s) {
        if constexpr (is_complex<P>) {
          to[2 * s * L + l] = from(at + l, s).real();
          to[(2 * s + 1) * L + l] = from(at + l, s).imag();
        } else {
          to[s * L + l] = from(at + l, s);
        }
      }
    }
  }

  /// Channels [at, at + n) of the final state.
  void from_lanes(const T* from, index_t at, index_t n) const {
    const index_t N = final.extent(1);
    if constexpr (!is_complex<P>) {
      if (final.channels_contiguous()) {
        simd::batch<T> rows[static_cast<std::size_t>(L)];
        for (index_t s = 0; s < N; s += L) {
          const index_t states = std::min(L, N - s);
          for (index_t i = 0; i < L; ++i) rows[i] = i < states ? simd::load(from + (s + i) * L) : simd::batch<T>(T(0));
          simd::transpose(rows);
          for (index_t l = 0; l < n; ++l) simd::store_n(final.row(at + l, s), rows[l], states);
        }
        return;
      }
    }
    for (index_t l = 0; l < n; ++l) {
      for (index_t s = 0; s < N; ++s) {
        if constexpr (is_complex<P>) {
          final(at + l, s) = P(from[2 * s * L + l], from[(2 * s + 1) * L + l]);
        } else {
          final(at + l, s) = from[s * L + l];
        }
      }
    }
  }

  void take_rows(const tensor_view<const row_element, 3>& from, index_t group, index_t t, index_t tokens, T* to) const {
    const index_t N = from.extent(2);
    for (index_t i = 0; i < tokens; ++i, to += N * W) {
      const row_element* row = from.row(path(t + i), group);
      if constexpr (is_complex<P>) {
        for (index_t s = 0; s < N; ++s) to[2 * s] = row[s].real(), to[2 * s + 1] = row[s].imag();
      } else {
        index_t s = 0;
        for (; s + L <= N; s += L) simd::store(to + s, simd::load_as<T>(row + s));
        if (s < N) simd::store_n(to + s, simd::load_as_n<T>(row + s, N - s), N - s);
      }
    }
  }

  /// Where rows (tokens, L) of operands whose time is contiguous are turned; none where channels are.
  struct turned_rows {
    T *x = nullptr, *delta = nullptr, *gate = nullptr;
    bool out = false;
  };

  turned_rows room_to_turn(scratch_frame& frame, index_t rows) const {
    const auto room = [&](const auto& view) { return view.channels_contiguous() ? nullptr : frame.take<T>(rows * L); };
    return {.x = room(x), .delta = room(delta), .gate = room(gate), .out = !out.channels_contiguous()};
  }

  /// The first of `tokens` rows of lanes in the order of memory, and from one to the next: those of a path may run against it.
  struct lines_of_path {
    index_t low, first, stride;
  };
  lines_of_path lines_of(index_t t, index_t tokens) const {
    if (path.reversed) return {path(t + tokens - 1), (tokens - 1) * L, -L};
    return {path(t), 0, L};
  }

  /// Rows t, t + 1, ... of channels [at, at + n), which are turned into `to` where their time is contiguous.
  struct row_reader {
    const selective_channels& of;
    const tensor_view<const E, 2>& view;
    const T* turned;
    index_t t, at, n;

    TOKENMIX_ALWAYS_INLINE simd::batch<T> operator()(index_t i) const {
      return turned != nullptr ? simd::load(turned + i * L) : simd::load_as_n<T>(view.row(of.path(t + i), at), n);
    }
  };
  row_reader reader(const tensor_view<const E, 2>& view, index_t t, index_t tokens, index_t at, index_t n,
                    T* turned) const {
    if (turned != nullptr && tokens > 0) {
      const auto lines = lines_of(t, tokens);
      simd::transpose_in(view.row(lines.low, at), view.stride(1), n, tokens, turned + lines.first, lines.stride);
    }
    return {*this, view, turned, t, at, n};
  }

  /// delta, with its bias and its softplus, and delta x.
  void prepare(index_t t, index_t tokens, index_t at, index_t n, const T* biases, const turned_rows& turned, T* deltas,
               T* written) const {
    const simd::batch<T> offset = simd::load(biases);
    const bool biased = bias.data() != nullptr;
    const row_reader x_at = reader(x, t, tokens, at, n, turned.x),
                     delta_at = reader(delta, t, tokens, at, n, turned.delta);
    for (index_t i = 0; i < tokens; ++i) {
      simd::batch<T> d = delta_at(i);
      if (biased) d = d + offset;
      if (softplus) d = step_softplus(d);
      simd::store(deltas + i * L, d);
      simd::store(written + i * L, d * x_at(i));
    }
  }

  /// out = (y + skip x) silu(gate), or that added to out. y is overwritten.
  void finish(index_t t, index_t tokens, index_t at, index_t n, const T* skips, const turned_rows& turned, T* y) const {
    const simd::batch<T> factor = simd::load(skips);
    const bool skipping = skip.data() != nullptr, gated = gate.data() != nullptr;
    const row_reader x_at = reader(x, t, skipping ? tokens : 0, at, n, turned.x),
                     gate_at = reader(gate, t, gated ? tokens : 0, at, n, turned.gate);
    for (index_t i = 0; i < tokens; ++i) {
      simd::batch<T> result = simd::load(y + i * L);
      if (skipping) result = simd::fma(factor, x_at(i), result);
      if (gated) result = result * step_silu(gate_at(i));
      if (turned.out) {
        simd::store(y + i * L, result);
        continue;
      }
      O* to = out.row(path(t + i), at - out_first);
      if constexpr (std::is_same_v<O, T>) {
        if (add) result = result + simd::load_n(to, n);
      }
      simd::store_as_n(to, result, n);
    }
    if (!turned.out) return;
    const auto lines = lines_of(t, tokens);
    simd::detail::transpose_out(y + lines.first, lines.stride, n, tokens, out.row(lines.low, at - out_first),
                                out.stride(1),
                                [](const simd::batch<T>& value, index_t) TOKENMIX_LAMBDA_INLINE { return value; });
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
