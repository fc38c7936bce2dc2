// SPDX-License-Identifier: Apache-2.0
/// @file Filters of a long convolution, and their spectra made once for many calls.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/mixers/state_space/detail/half_spectrum.hpp>
#include <tokenmix/primitives/fft.hpp>

#include <algorithm>
#include <complex>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI {

/// No library of transforms: every convolution is a sum of products.
struct no_fft {};

/// What a long convolution reads of filters: taps, and their spectra if there are any. A view: long_filters owns.
template <class T, class Fft = no_fft>
struct long_filters_view {
  using library = Fft;

  tensor_view<const T, 2> taps{};  // (G, L)
  const T* spectra = nullptr;      // (G, 4, line)
  const T* twiddles = nullptr;     // (2, line)
  index_t numbers = 0;             ///< of one transform of real numbers; 0: the sums are direct
};

namespace detail {

/// How many numbers lie before a block in which all taps but the first may reach: even, so that pairs stay pairs.
constexpr index_t lead_of_taps(index_t taps) { return taps / 2 * 2; }

}  // namespace detail

/// Filters made ready for sequences of up to `tokens` tokens (longer ones are cut into blocks, as are all that are much longer than
/// the filters).
///
///     const mix::long_filters filters(h, T, mix::eigen_fft{});
///     mix::long_convolution(mix::long_convolution_inputs{.x = x, .spectra = filters.view()}, out);
///
/// Shapes     filters: (G, L), any strides, last axis contiguous. They are copied.
/// Numerics   the transforms' length depends on L and tokens alone; the same filters give the same bits in every call.
/// Cost       one transform per filter; 2 numbers per number of a transform are kept, which is 2 to 4 times max(L, tokens).
/// Errors     shape_error if the last axis of filters is not contiguous; value_error if tokens < 0.
template <class T, class Fft = no_fft>
class long_filters {
 public:
  long_filters() = default;

  template <executor Executor = calling_thread>
  long_filters(const tensor_view<const T, 2>& filters,  // (G, L)
               index_t tokens, Fft = {}, Executor&& on = {}) {
    detail::check_input("filters", filters);
    if (tokens < 0) detail::fail_value("tokens is ", tokens, ": a length is not negative");
    const index_t G = filters.extent(0), L = filters.extent(1);
    taps_ = tensor<T, 2>({G, L});
    for (index_t g = 0; g < G; ++g) std::copy_n(filters.row(g), L, taps_.row(g));
    if constexpr (fft_library<Fft, T>) {
      if (L <= Fft::template direct_taps<T>() || tokens == 0 || G == 0) return;
      // Sequences much longer than the filter go in blocks of about 8 filters: shorter wastes more of a transform on the
      // numbers before a block, longer falls out of the caches.
      const index_t lead = detail::lead_of_taps(L);
      const index_t wanted = std::min(lead + tokens, std::max<index_t>(8 * lead, 4096));
      const index_t m = static_cast<index_t>(Fft::size((wanted + 1) / 2));
      numbers_ = 2 * m;
      const index_t line = detail::half_spectrum_line<T>(m);
      spectra_ = tensor<T, 1>({G * 4 * line + line});  // a register beyond the last line may be loaded
      twiddles_ = tensor<T, 1>({3 * line});
      detail::make_half_spectrum_twiddles(twiddles_.data(), m);
      detail::run_tasks(
          on, G,
          [&](scratch_frame& frame) {
            return std::pair(frame.template take<std::complex<T>>(m), frame.template take<std::complex<T>>(m));
          },
          [&](index_t g, const auto& places) {
            const auto [from, to] = places;
            T* const numbers = reinterpret_cast<T*>(from);
            std::copy_n(taps_.row(g), L, numbers);
            std::fill(numbers + L, numbers + numbers_, T(0));
            detail::plan_of_this_thread<typename Fft::template plan<T>>(m).forward(from, to);
            detail::make_half_spectrum(to, spectra_.data() + g * 4 * line, m);
          });
    }
  }

  long_filters_view<T, Fft> view() const { return {taps_, spectra_.data(), twiddles_.data(), numbers_}; }

 private:
  tensor<T, 2> taps_;
  tensor<T, 1> spectra_;
  tensor<T, 1> twiddles_;
  index_t numbers_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI
