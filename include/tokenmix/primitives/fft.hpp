// SPDX-License-Identifier: Apache-2.0
/// @file What a mixer asks of a library of Fourier transforms; the libraries themselves are met in interop/.
#pragma once

#include <tokenmix/core/types.hpp>

#include <complex>
#include <concepts>
#include <memory>

namespace tokenmix::inline TOKENMIX_ABI {

/// A library of Fourier transforms of T: a policy, passed by value.
///
///     typename Fft::template plan<T>         transforms of one length; made by plan(n), used by one thread at a time
///     plan.forward(from, to)                 to[k] = sum over j of from[j] exp(-2 pi i j k / n)
///     plan.inverse(from, to)                 to[j] = sum over k of from[k] exp(+2 pi i j k / n): not divided by n
///     Fft::size(least)                       a length >= least that the library is good at
///     Fft::template direct_taps<T>()         filters of so many taps or fewer are quicker as sums of products
///
/// from and to are n complex numbers each, do not overlap and need no alignment beyond their type's; from stays as it is.
/// The result depends on n and the numbers alone, not on their address.
template <class Fft, class T>
concept fft_library =
    requires(typename Fft::template plan<T>& plan, const std::complex<T>* from, std::complex<T>* to, index_t n) {
      typename Fft::template plan<T>;
      requires std::constructible_from<typename Fft::template plan<T>, index_t>;
      plan.forward(from, to);
      plan.inverse(from, to);
      { Fft::size(n) } -> std::convertible_to<index_t>;
      { Fft::template direct_taps<T>() } -> std::convertible_to<index_t>;
    };

/// The least 2^a, 3 2^a or 5 2^a that is >= least and >= 4: what every library is good at.
constexpr index_t usual_fft_size(index_t least) {
  index_t best = 4;
  while (best < least) best *= 2;
  for (const index_t odd : {index_t{3}, index_t{5}}) {
    index_t n = odd * 2;
    while (n < least) n *= 2;
    if (n < best) best = n;
  }
  return best;
}

namespace detail {

/// The calling thread's plan for n numbers: the last one is kept, as scratch memory is.
template <class Plan>
Plan& plan_of_this_thread(index_t n) {
  struct slot {
    index_t n = -1;
    std::unique_ptr<Plan> plan;
  };
  thread_local slot kept;
  if (kept.n != n) {
    kept.n = -1;
    kept.plan = std::make_unique<Plan>(n);
    kept.n = n;
  }
  return *kept.plan;
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
