// SPDX-License-Identifier: Apache-2.0
/// @file Fourier transforms of FFTW 3, for users who link it: -lfftw3f for float, -lfftw3 for double.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/fft.hpp>
#include <tokenmix/simd/batch.hpp>

#include <fftw3.h>

#include <mutex>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// FFTW's planner is one for the whole process and serves one thread at a time.
inline std::mutex& fftw_planner() {
  static std::mutex planner;
  return planner;
}

template <class T>
struct fftw_names;

template <>
struct fftw_names<float> {
  using plan = fftwf_plan;
  using number = fftwf_complex;
  static plan make(int n, number* from, number* to, int sign) {
    return fftwf_plan_dft_1d(n, from, to, sign, FFTW_ESTIMATE | FFTW_UNALIGNED | FFTW_PRESERVE_INPUT);
  }
  static void execute(plan p, number* from, number* to) { fftwf_execute_dft(p, from, to); }
  static void destroy(plan p) { fftwf_destroy_plan(p); }
};

template <>
struct fftw_names<double> {
  using plan = fftw_plan;
  using number = fftw_complex;
  static plan make(int n, number* from, number* to, int sign) {
    return fftw_plan_dft_1d(n, from, to, sign, FFTW_ESTIMATE | FFTW_UNALIGNED | FFTW_PRESERVE_INPUT);
  }
  static void execute(plan p, number* from, number* to) { fftw_execute_dft(p, from, to); }
  static void destroy(plan p) { fftw_destroy_plan(p); }
};

}  // namespace detail

/// Transforms by FFTW, planned by estimate: a length always gets the same plan, and so the same bits.
struct fftw_fft {
  template <class T>
  class plan {
    using names = detail::fftw_names<T>;

   public:
    explicit plan(index_t n) {
      const std::lock_guard lock(detail::fftw_planner());
      // An estimate looks at no memory; the two places only have to differ.
      typename names::number places[2];
      forward_ = names::make(static_cast<int>(n), places, places + 1, FFTW_FORWARD);
      inverse_ = names::make(static_cast<int>(n), places, places + 1, FFTW_BACKWARD);
      if (forward_ == nullptr || inverse_ == nullptr) detail::fail_value("FFTW has no plan for ", n, " numbers");
    }
    plan(const plan&) = delete;
    plan& operator=(const plan&) = delete;
    ~plan() {
      const std::lock_guard lock(detail::fftw_planner());
      names::destroy(forward_);
      names::destroy(inverse_);
    }

    void forward(const std::complex<T>* from, std::complex<T>* to) { execute(forward_, from, to); }
    void inverse(const std::complex<T>* from, std::complex<T>* to) { execute(inverse_, from, to); }

   private:
    static void execute(typename names::plan p, const std::complex<T>* from, std::complex<T>* to) {
      names::execute(p, reinterpret_cast<typename names::number*>(const_cast<std::complex<T>*>(from)),
                     reinterpret_cast<typename names::number*>(to));
    }

    typename names::plan forward_;
    typename names::plan inverse_;
  };

  static constexpr index_t size(index_t least) { return usual_fft_size(least); }
  template <class T>
  static constexpr index_t direct_taps() {
    return 24 * simd::lanes<T>;
  }
};

static_assert(fft_library<fftw_fft, float> && fft_library<fftw_fft, double>);

}  // namespace tokenmix::inline TOKENMIX_ABI
