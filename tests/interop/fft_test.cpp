// SPDX-License-Identifier: Apache-2.0
// Libraries of Fourier transforms behind one policy, against the sum in long double.
//
// Budget: 4 u log2(n) |x|_2 per number: a few roundings in every stage.
#include <tokenmix/interop/fft.hpp>
#if defined(TOKENMIX_TEST_WITH_FFTW)
#include <tokenmix/interop/fft_fftw.hpp>
#endif

#include <algorithm>
#include <complex>
#include <numbers>
#include <thread>
#include <vector>

#include <reference/cases.hpp>

namespace {

using cases::index_t;

template <class Library, class T>
void expect_transforms() {
  for (const index_t n : {4, 5, 6, 8, 10, 12, 16, 40, 64, 96, 160, 256, 500}) {
    typename Library::template plan<T> plan(n);
    const auto size = static_cast<std::size_t>(n);
    std::vector<std::complex<T>> x(size), forward(size), inverse(size), back(size);
    cases::random_numbers random(static_cast<std::uint64_t>(n));
    for (auto& e : x) e = {static_cast<T>(random.gaussian()), static_cast<T>(random.gaussian())};
    const auto kept = x;
    plan.forward(x.data(), forward.data());
    plan.inverse(x.data(), inverse.data());
    EXPECT_EQ(x, kept);
    plan.inverse(forward.data(), back.data());
    long double norm = 0;
    for (const auto& e : x) norm += std::norm(std::complex<long double>(e));
    const double gate =
        4 * reference::unit_roundoff<T>() * std::log2(static_cast<double>(n)) * std::sqrt(static_cast<double>(norm));
    for (std::size_t k = 0; k < size; ++k) {
      std::complex<long double> want = 0, want_inverse = 0;
      for (std::size_t j = 0; j < size; ++j) {
        const long double angle =
            2 * std::numbers::pi_v<long double> * static_cast<long double>(j * k % size) / static_cast<long double>(n);
        const std::complex<long double> e(x[j]);
        want += e * std::complex<long double>(std::cos(angle), -std::sin(angle));
        want_inverse += e * std::complex<long double>(std::cos(angle), std::sin(angle));
      }
      EXPECT_LE(static_cast<double>(std::abs(std::complex<long double>(forward[k]) - want)), gate) << n << ' ' << k;
      EXPECT_LE(static_cast<double>(std::abs(std::complex<long double>(inverse[k]) - want_inverse)), gate)
          << n << ' ' << k;
      EXPECT_LE(static_cast<double>(std::abs(std::complex<long double>(back[k]) / static_cast<long double>(n) -
                                             std::complex<long double>(x[k]))),
                2 * gate)
          << n << ' ' << k;
    }
    // Anywhere in memory, and by another plan: the same bits.
    std::vector<std::complex<T>> moved(size + 1), to(size + 3);
    std::copy(x.begin(), x.end(), moved.begin() + 1);
    typename Library::template plan<T> other(n);
    other.forward(moved.data() + 1, to.data() + 3);
    EXPECT_TRUE(std::equal(forward.begin(), forward.end(), to.begin() + 3)) << n;
  }
}

TEST(fft, eigen) {
  expect_transforms<mix::eigen_fft, float>();
  expect_transforms<mix::eigen_fft, double>();
}

#if defined(TOKENMIX_TEST_WITH_FFTW)
TEST(fft, fftw) {
  expect_transforms<mix::fftw_fft, float>();
  expect_transforms<mix::fftw_fft, double>();
}
#endif

TEST(fft, sizes) {
  for (index_t least = 0; least < 5000; ++least) {
    const index_t n = mix::usual_fft_size(least);
    EXPECT_GE(n, std::max<index_t>(least, 4));
    EXPECT_LE(n, std::max<index_t>(4, least + least / 3 + 1)) << least;
    index_t rest = n;
    while (rest % 2 == 0) rest /= 2;
    EXPECT_TRUE(rest == 1 || rest == 3 || rest == 5) << n;
    EXPECT_EQ(n % 2, 0);
  }
}

// A plan belongs to a thread, and a thread keeps its last one.
TEST(fft, plans_of_threads) {
  using plan = mix::eigen_fft::plan<float>;
  plan* const first = &mix::detail::plan_of_this_thread<plan>(16);
  EXPECT_EQ(first, &mix::detail::plan_of_this_thread<plan>(16));
  plan* other = nullptr;
  std::thread([&] { other = &mix::detail::plan_of_this_thread<plan>(16); }).join();
  EXPECT_NE(first, other);
}

}  // namespace
