// SPDX-License-Identifier: Apache-2.0
// From trained parameters to those of the recurrence: against the formulas in long double, for steps of any size.
//
// Budget: 4 u of the number's size: one rounding to T and those of double.
#include <tokenmix/state_space.hpp>

#include <numbers>

#include <reference/cases.hpp>

namespace {

using cases::index_t;
using complex = std::complex<float>;
using wide = std::complex<long double>;

wide widened(complex z) { return {static_cast<long double>(z.real()), static_cast<long double>(z.imag())}; }

void expect_close(complex got, wide want, const std::string& label) {
  const long double error = std::abs(widened(got) - want);
  EXPECT_LE(error, 4 * 0x1p-24L * std::abs(want) + 0x1p-149L) << label << ": " << got << ", expected " << want;
}

const std::vector<complex> eigenvalues{{-0.5f, 0}, {-0.5f, 3.14f}, {-1e-3f, 500}, {-3, -40}, {0, 2}, {-100, 1e-3f}};

TEST(discretization, zoh_and_bilinear) {
  const auto N = static_cast<index_t>(eigenvalues.size());
  const std::vector<double> steps{1e-12, 1e-7, 1e-3, 0.1, 1, 10, 100};
  const auto D = static_cast<index_t>(steps.size());
  mix::tensor<complex, 2> A({1, N}), B({D, N});
  mix::tensor<float, 1> log_step({D});
  for (index_t n = 0; n < N; ++n) A(0, n) = eigenvalues[static_cast<std::size_t>(n)];
  for (index_t d = 0; d < D; ++d) log_step(d) = static_cast<float>(std::log(steps[static_cast<std::size_t>(d)]));
  for (index_t i = 0; i < D * N; ++i) B.data()[i] = {1.0f + static_cast<float>(i), -0.5f};
  const auto held = mix::discretize(mix::zoh{}, A, log_step, B);
  const auto tustin = mix::discretize(mix::bilinear{}, A, log_step, B);
  for (index_t d = 0; d < D; ++d) {
    for (index_t n = 0; n < N; ++n) {
      const std::string label = "step " + std::to_string(d) + ", state " + std::to_string(n);
      const long double step = std::exp(static_cast<long double>(log_step(d)));
      const wide a = widened(A(0, n)), z = step * a, b = widened(B(d, n));
      // exp(z) - 1 by its series where it would cancel.
      wide grown = std::exp(z) - 1.0L;
      if (std::abs(z) < 0.1L) {
        wide term = z;
        grown = z;
        for (int k = 2; k < 20; ++k) grown += term *= z / static_cast<long double>(k);
      }
      // Angles of thousands lose what double has of them.
      const long double lost = std::abs(z.imag()) * 0x1p-53L;
      EXPECT_LE(std::abs(widened(held.transition(d, n)) - std::exp(z)),
                (4 * 0x1p-24L + lost) * std::abs(std::exp(z)) + 0x1p-149L)
          << label;
      EXPECT_LE(std::abs(widened(held.input(d, n)) - grown / a * b),
                4 * 0x1p-24L * std::abs(grown / a * b) + lost * std::abs(b / a))
          << label;
      expect_close(tustin.transition(d, n), (1.0L + z / 2.0L) / (1.0L - z / 2.0L), label + " bilinear");
      expect_close(tustin.input(d, n), step / (1.0L - z / 2.0L) * b, label + " bilinear");
      for (const complex t : {held.transition(d, n), tustin.transition(d, n)})
        EXPECT_LE(static_cast<double>(t.real()) * static_cast<double>(t.real()) +
                      static_cast<double>(t.imag()) * static_cast<double>(t.imag()),
                  1.0)
            << label;
    }
  }
}

TEST(discretization, no_transition_and_any_step) {
  mix::tensor<complex, 2> A({1, 2});
  mix::tensor<float, 1> log_step({2});
  A(0, 1) = {-1e4f, 1e4f};
  log_step(0) = std::log(0.25f);
  const auto p = mix::discretize(mix::zoh{}, A, log_step);
  EXPECT_EQ(p.transition(0, 0), complex(1));
  EXPECT_NEAR(static_cast<double>(p.input(0, 0).real()), 0.25, 1e-7);
  EXPECT_EQ(p.transition(1, 1), complex(0));
  EXPECT_LE(std::abs(p.input(1, 1) * complex(-1e4f, 1e4f) + 1.0f), 1e-6f);
}

TEST(discretization, shared_state) {
  const index_t N = 3, D = 4;
  mix::tensor<complex, 1> A({N});
  mix::tensor<float, 1> log_step({N}), nu({N}), theta({N});
  mix::tensor<complex, 2> B({N, D});
  for (index_t n = 0; n < N; ++n) {
    A(n) = eigenvalues[static_cast<std::size_t>(n + 1)];
    log_step(n) = -2.0f * static_cast<float>(n);
    nu(n) = -5.0f * static_cast<float>(n);
    theta(n) = -1.0f + static_cast<float>(n);
    for (index_t d = 0; d < D; ++d) B(n, d) = {1.0f + static_cast<float>(d), static_cast<float>(n)};
  }
  const auto p = mix::discretize_shared(mix::bilinear{}, A, log_step, B);
  const auto l = mix::lru(nu, theta, B);
  for (index_t n = 0; n < N; ++n) {
    const long double step = std::exp(static_cast<long double>(log_step(n)));
    const wide z = step * widened(A(n));
    const long double rate = std::exp(static_cast<long double>(nu(n))),
                      angle = std::exp(static_cast<long double>(theta(n)));
    expect_close(p.transition(n), (1.0L + z / 2.0L) / (1.0L - z / 2.0L), "S5");
    expect_close(l.transition(n), std::exp(wide(-rate, angle)), "LRU");
    for (index_t d = 0; d < D; ++d) {
      expect_close(p.input(n, d), step / (1.0L - z / 2.0L) * widened(B(n, d)), "S5");
      expect_close(l.input(n, d), std::sqrt(-std::expm1(-2 * rate)) * widened(B(n, d)), "LRU");
    }
  }
}

TEST(discretization, hippo) {
  const index_t N = 16;
  const auto lin = mix::s4d_lin(N), inv = mix::s4d_inv(N), legs = mix::s4d_legs(N);
  EXPECT_FLOAT_EQ(lin(3).imag(), static_cast<float>(3 * std::numbers::pi));
  EXPECT_FLOAT_EQ(inv(0).imag(), static_cast<float>(32 / std::numbers::pi * 31));
  EXPECT_FLOAT_EQ(inv(N - 1).imag(), static_cast<float>(32 / std::numbers::pi * (32.0 / 31 - 1)));
  double squares = 0, determinant = 0;
  for (index_t n = 0; n < N; ++n) {
    for (const auto* A : {&lin, &inv, &legs}) EXPECT_EQ((*A)(n).real(), -0.5f);
    EXPECT_GT(legs(n).imag(), n > 0 ? legs(n - 1).imag() : 0.0f);
    squares += std::pow(static_cast<double>(legs(n).imag()), 2);
    determinant += 2 * std::log(static_cast<double>(legs(n).imag()));
  }
  // The squares of a skew matrix's entries above the diagonal are those of its eigenvalues; the skew matrix of sqrt(a b) / 2
  // has the determinant product of a / 2 (that of the signs is 1).
  double entries = 0, product = 0;
  for (index_t i = 0; i < 2 * N; ++i) {
    product += std::log(static_cast<double>(2 * i + 1) / 2);
    for (index_t j = 0; j < i; ++j) entries += static_cast<double>((2 * i + 1) * (2 * j + 1)) / 4;
  }
  EXPECT_NEAR(squares, entries, 1e-6 * entries);
  EXPECT_NEAR(determinant, product, 1e-4);
  // One pair by hand.
  EXPECT_NEAR(static_cast<double>(mix::s4d_legs(1)(0).imag()), std::sqrt(3.0) / 2, 1e-7);
}

TEST(discretization, errors) {
  const mix::tensor<complex, 2> A({3, 2}), B({4, 1});
  const mix::tensor<float, 1> log_step({4});
  EXPECT_THROW(mix::discretize(mix::zoh{}, A, log_step), mix::shape_error);
  const mix::tensor<complex, 2> all({4, 2});
  EXPECT_THROW(mix::discretize(mix::zoh{}, all, log_step, B), mix::shape_error);
}

}  // namespace
