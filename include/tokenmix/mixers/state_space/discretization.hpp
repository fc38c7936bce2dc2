// SPDX-License-Identifier: Apache-2.0
/// @file From the parameters that diagonal state-space models are trained in to those of their recurrence.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <complex>

namespace tokenmix::inline TOKENMIX_ABI {

/// What a recurrence h[t] = transition h[t - 1] + input u[t] is made of; P is T or std::complex<T>.
template <class P>
struct discrete_parameters {
  tensor<P, 2> transition;  // (D, N)
  tensor<P, 2> input;       // (D, N)
};

namespace detail {

/// exp(z) - 1 without cancellation.
inline std::complex<double> complex_expm1(std::complex<double> z) {
  const double half = std::sin(z.imag() / 2);
  const double grown = std::expm1(z.real());
  // (1 + g) cos y - 1 = g cos y - 2 sin^2(y / 2)
  return {std::fma(grown, std::cos(z.imag()), -2 * half * half), (grown + 1) * std::sin(z.imag())};
}

/// A number of the unit disk, rounded to T and still in it: else a state could grow by rounding alone.
template <class T>
std::complex<T> rounded_in_disk(std::complex<double> z) {
  std::complex<T> r(static_cast<T>(z.real()), static_cast<T>(z.imag()));
  if (!(std::norm(z) <= 1 + 1e-12)) return r;
  const auto outside = [&] {
    const long double a = static_cast<long double>(r.real()), b = static_cast<long double>(r.imag());
    return a * a + b * b > 1;
  };
  while (outside()) {
    const bool real_is_larger = std::abs(r.real()) >= std::abs(r.imag());
    if (real_is_larger) {
      r.real(std::nextafter(r.real(), T(0)));
    } else {
      r.imag(std::nextafter(r.imag(), T(0)));
    }
  }
  return r;
}

}  // namespace detail

// A rule makes, of A (with a real part <= 0) and the step of one state, its transition and the factor of its input.

/// Inputs that stay what they are until the next one: transition = exp(step A), input = (exp(step A) - 1) / A B.
struct zoh {
  static std::complex<double> transition(std::complex<double> a, double step) {
    const double keep = std::exp(step * a.real()), angle = step * a.imag();
    return {keep * std::cos(angle), keep * std::sin(angle)};
  }
  static std::complex<double> input(std::complex<double> a, double step) {
    const std::complex<double> z = step * a;
    return z == 0.0 ? std::complex<double>(step) : step * (detail::complex_expm1(z) / z);
  }
};

/// The trapezoidal rule: transition = (1 + step A / 2) / (1 - step A / 2), input = step / (1 - step A / 2) B.
struct bilinear {
  static std::complex<double> transition(std::complex<double> a, double step) {
    const std::complex<double> half = step / 2 * a;
    return (1.0 + half) / (1.0 - half);
  }
  static std::complex<double> input(std::complex<double> a, double step) { return step / (1.0 - step / 2 * a); }
};

/// S4D: states of every channel from A, a step per channel given as its log, and B (1 if empty).
///
///     transition[d, n], input[d, n] = the rule's, of A[d, n] and exp(log_step[d]);   input times B[d, n]
///
/// Shapes     A, B: (D, N) or, repeated for all channels, (1, N). log_step: (D). One shared state (S5) is D = N states of one: see
///            shared_parameters.
/// Numerics   computed in double, rounded once; nothing cancels for small steps; |transition| <= 1 after rounding too where
///            the real part of A is <= 0. |A| step may be anything up to the largest double.
/// Errors     shape_error as the messages say.
/// Source     Gu et al. 2022 (S4D), section 3.1; Gu et al. 2022 (S4), equation 3.
template <class Rule, class T>
discrete_parameters<std::complex<T>> discretize(Rule,
                                                const tensor_view<const std::complex<T>, 2>& A,  // (D, N) or (1, N)
                                                const tensor_view<const T, 1>& log_step,         // (D)
                                                const tensor_view<const std::complex<T>, 2>& B = {}) {
  detail::check_view("A", A);
  detail::check_view("log_step", log_step);
  const index_t D = log_step.extent(0), N = A.extent(1);
  const auto check_rows = [&](const char* name, const tensor_view<const std::complex<T>, 2>& x) {
    if (x.extent(0) != D && x.extent(0) != 1)
      detail::fail_shape(name, " has ", x.extent(0), " channels, log_step has ", D, ": they must be equal, or 1");
    detail::check_extent(name, x, 1, "states", N, "A has that many");
  };
  check_rows("A", A);
  if (B.data() != nullptr) {
    detail::check_view("B", B);
    check_rows("B", B);
  }
  discrete_parameters<std::complex<T>> result{tensor<std::complex<T>, 2>({D, N}), tensor<std::complex<T>, 2>({D, N})};
  for (index_t d = 0; d < D; ++d) {
    const double step = std::exp(static_cast<double>(log_step(d)));
    for (index_t n = 0; n < N; ++n) {
      const std::complex<double> a(A(A.extent(0) == 1 ? 0 : d, n));
      std::complex<double> factor = Rule::input(a, step);
      if (B.data() != nullptr) factor *= std::complex<double>(B(B.extent(0) == 1 ? 0 : d, n));
      result.transition(d, n) = detail::rounded_in_disk<T>(Rule::transition(a, step));
      result.input(d, n) = std::complex<T>(static_cast<T>(factor.real()), static_cast<T>(factor.imag()));
    }
  }
  return result;
}

/// S5: one state of N numbers for all channels. transition: (N), input: (N, D).
template <class T>
struct shared_parameters {
  tensor<std::complex<T>, 1> transition;  // (N)
  tensor<std::complex<T>, 2> input;       // (N, D)
};

/// The same rules for a state that all channels write to and read.
///
/// Shapes     A, log_step: (N); B: (N, D).
/// Source     Smith et al. 2023 (S5), section 3.2.
template <class Rule, class T>
shared_parameters<T> discretize_shared(Rule, const tensor_view<const std::complex<T>, 1>& A,  // (N)
                                       const tensor_view<const T, 1>& log_step,               // (N)
                                       const tensor_view<const std::complex<T>, 2>& B) {      // (N, D)
  detail::check_view("A", A);
  detail::check_view("log_step", log_step);
  detail::check_view("B", B);
  const index_t N = A.extent(0), D = B.extent(1);
  detail::check_extent("log_step", log_step, 0, "states", N, "A has that many");
  detail::check_extent("B", B, 0, "states", N, "A has that many");
  shared_parameters<T> result{tensor<std::complex<T>, 1>({N}), tensor<std::complex<T>, 2>({N, D})};
  for (index_t n = 0; n < N; ++n) {
    const double step = std::exp(static_cast<double>(log_step(n)));
    const std::complex<double> a(A(n)), factor = Rule::input(a, step);
    result.transition(n) = detail::rounded_in_disk<T>(Rule::transition(a, step));
    for (index_t d = 0; d < D; ++d) {
      const std::complex<double> b = factor * std::complex<double>(B(n, d));
      result.input(n, d) = std::complex<T>(static_cast<T>(b.real()), static_cast<T>(b.imag()));
    }
  }
  return result;
}

/// The linear recurrent unit: transition = exp(-exp(nu) + i exp(theta)), input = sqrt(1 - |transition|^2) B.
///
/// Shapes     nu, theta: (N), logs both; B: (N, D). Read with readout::real.
/// Numerics   the normalisation is computed from exp(nu), not from the rounded transition: nothing cancels near the circle.
/// Source     Orvieto et al. 2023 (LRU), equations 7 and 8 and appendix A.
template <class T>
shared_parameters<T> lru(const tensor_view<const T, 1>& nu,                 // (N)
                         const tensor_view<const T, 1>& theta,              // (N)
                         const tensor_view<const std::complex<T>, 2>& B) {  // (N, D)
  detail::check_view("nu", nu);
  detail::check_view("theta", theta);
  detail::check_view("B", B);
  const index_t N = nu.extent(0), D = B.extent(1);
  detail::check_extent("theta", theta, 0, "states", N, "nu has that many");
  detail::check_extent("B", B, 0, "states", N, "nu has that many");
  shared_parameters<T> result{tensor<std::complex<T>, 1>({N}), tensor<std::complex<T>, 2>({N, D})};
  for (index_t n = 0; n < N; ++n) {
    const double rate = std::exp(static_cast<double>(nu(n))), angle = std::exp(static_cast<double>(theta(n)));
    const double gamma = std::sqrt(-std::expm1(-2 * rate));
    result.transition(n) =
        detail::rounded_in_disk<T>({std::exp(-rate) * std::cos(angle), std::exp(-rate) * std::sin(angle)});
    for (index_t d = 0; d < D; ++d) {
      const std::complex<double> b = gamma * std::complex<double>(B(n, d));
      result.input(n, d) = std::complex<T>(static_cast<T>(b.real()), static_cast<T>(b.imag()));
    }
  }
  return result;
}

/// What MEGA's damped moving average is made of: real, with its output weights.
template <class T>
struct damped_ema_parameters {
  tensor<T, 2> transition;  // (D, N)
  tensor<T, 2> input;       // (D, N)
  tensor<T, 2> output;      // (D, N)
};

/// The multi-dimensional damped exponential moving average of MEGA.
///
///     p = sigmoid(delta), a = sigmoid(alpha):   transition = 1 - p a,   input = p beta,   output = eta / sqrt(N)
///
/// Shapes     all (D, N), logits alpha and delta as the published weights hold them.
/// Numerics   computed in double, rounded once; 1 - p a = (1 - p) + p (1 - a) is a sum of positive numbers.
/// Source     Ma et al. 2023 (MEGA), section 3.1, and its published code (the root of N).
template <class T>
damped_ema_parameters<T> damped_ema(const tensor_view<const T, 2>& alpha,  // (D, N)
                                    const tensor_view<const T, 2>& delta,  // (D, N)
                                    const tensor_view<const T, 2>& beta,   // (D, N)
                                    const tensor_view<const T, 2>& eta) {  // (D, N)
  detail::check_view("alpha", alpha);
  detail::check_view("delta", delta);
  detail::check_view("beta", beta);
  detail::check_view("eta", eta);
  detail::check_same_shape("delta", delta, "alpha", alpha);
  detail::check_same_shape("beta", beta, "alpha", alpha);
  detail::check_same_shape("eta", eta, "alpha", alpha);
  const index_t D = alpha.extent(0), N = alpha.extent(1);
  const auto sigmoid = [](double x) { return 1 / (1 + std::exp(-x)); };
  damped_ema_parameters<T> result{tensor<T, 2>({D, N}), tensor<T, 2>({D, N}), tensor<T, 2>({D, N})};
  for (index_t d = 0; d < D; ++d) {
    for (index_t n = 0; n < N; ++n) {
      const double a = static_cast<double>(alpha(d, n)), l = static_cast<double>(delta(d, n)), p = sigmoid(l);
      result.transition(d, n) = static_cast<T>(std::min(1.0, sigmoid(-l) + p * sigmoid(-a)));
      result.input(d, n) = static_cast<T>(p * static_cast<double>(beta(d, n)));
      result.output(d, n) = static_cast<T>(static_cast<double>(eta(d, n)) / std::sqrt(static_cast<double>(N)));
    }
  }
  return result;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
