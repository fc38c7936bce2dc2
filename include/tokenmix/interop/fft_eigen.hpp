// SPDX-License-Identifier: Apache-2.0
/// @file Fourier transforms of Eigen's unsupported module (kissfft), which everybody who has Eigen has.
#pragma once

#include <tokenmix/primitives/fft.hpp>
#include <tokenmix/simd/batch.hpp>

#include <unsupported/Eigen/FFT>

namespace tokenmix::inline TOKENMIX_ABI {

/// Transforms by Eigen::FFT. Float and double; a plan keeps its tables, a thread its last plan.
///
/// Errors     lengths above 2^31 - 1 do not fit Eigen's int.
struct eigen_fft {
  template <class T>
  class plan {
   public:
    explicit plan(index_t n) : n_(static_cast<Eigen::Index>(n)) { fft_.SetFlag(Eigen::FFT<T>::Unscaled); }

    void forward(const std::complex<T>* from, std::complex<T>* to) { fft_.fwd(to, from, n_); }
    void inverse(const std::complex<T>* from, std::complex<T>* to) { fft_.inv(to, from, n_); }

   private:
    Eigen::Index n_;
    Eigen::FFT<T> fft_;
  };

  static constexpr index_t size(index_t least) { return usual_fft_size(least); }
  /// Measured: its transforms use no registers, sums of products do.
  template <class T>
  static constexpr index_t direct_taps() {
    return 48 * simd::lanes<T>;
  }
};

static_assert(fft_library<eigen_fft, float> && fft_library<eigen_fft, double>);

}  // namespace tokenmix::inline TOKENMIX_ABI
