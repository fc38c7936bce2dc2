// SPDX-License-Identifier: Apache-2.0
// The filter of a diagonal state-space model against powers in long double; scan = steps = convolution.
//
// Budget: u (2 N + 6) times the sum of |output transition^l input|: two products and sums per state, a few roundings of the powers. The
// convolution by transforms has its own, relative to norms.
#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>

#include <reference/cases.hpp>

namespace {

using cases::index_t;
using complex = std::complex<float>;

/// Transforms for filters that would be quicker without.
struct transforms : mix::default_fft {
  template <class T>
  static constexpr index_t direct_taps() {
    return 16;
  }
};

struct model {
  mix::discrete_parameters<complex> p;
  mix::tensor<complex, 2> output;

  model(index_t D, index_t N, double slowest, double quickest) : output({D, N}) {
    const auto A = mix::s4d_lin(N);
    mix::tensor<float, 1> log_step({D});
    for (index_t d = 0; d < D; ++d) {
      const double part = D == 1 ? 0 : static_cast<double>(d) / static_cast<double>(D - 1);
      log_step(d) = static_cast<float>(std::log(slowest) * (1 - part) + std::log(quickest) * part);
    }
    p = mix::discretize(mix::zoh{}, mix::tensor_view<const complex, 2>(A.data(), {1, N}), log_step);
    cases::random_numbers random(9);
    for (complex& c : output) c = {static_cast<float>(random.gaussian()), static_cast<float>(random.gaussian())};
  }
};

TEST(diagonal_ssm_kernel, powers) {
  cases::gate_record worst;
  const index_t sizes[][3] = {{3, 1, 1}, {3, 5, 63}, {2, 4, 64}, {2, 32, 65},   {1, 2, 200},
                              {0, 2, 5}, {2, 0, 5},  {2, 3, 0},  {1, 3, 100000}};
  for (const auto& [D, N, L] : sizes) {
    const model m(D, N, 1e-6, 1e3);
    mix::tensor<float, 2> kernel({D, L});
    mix::diagonal_ssm_kernel(
        mix::diagonal_ssm_kernel_inputs<complex>{.transition = m.p.transition, .input = m.p.input, .output = m.output},
        kernel.view());
    for (index_t d = 0; d < D; ++d) {
      for (index_t l = 0; l < L; l += L > 1000 ? 997 : 1) {
        long double want = 0, size = 0;
        for (index_t n = 0; n < N; ++n) {
          using wide = std::complex<long double>;
          const wide a(m.p.transition(d, n)), b(m.p.input(d, n)), c(m.output(d, n));
          const long double angle = std::arg(a) * static_cast<long double>(l);
          const long double keep = std::pow(std::abs(a), static_cast<long double>(l));
          const wide term = 2.0L * c * b * wide(keep * std::cos(angle), keep * std::sin(angle));
          want += term.real(), size += std::abs(term);
        }
        const double error = static_cast<double>(std::abs(static_cast<long double>(kernel(d, l)) - want));
        const double gate = 0x1p-24 * static_cast<double>(2 * N + 6) * static_cast<double>(size) + 0x1p-140;
        worst.see(error / gate, std::to_string(N) + " states, tap " + std::to_string(l));
        EXPECT_LE(error, gate) << "channel " << d << ", tap " << l;
      }
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// T no power of two, filter as long as T: as a scan, as a scan in two halves, as steps, as a sum and by transforms.
TEST(diagonal_ssm_kernel, three_forms) {
  const index_t B = 2, T = 777, D = 19, N = 8;
  const model m(D, N, 1e-3, 1e-1);
  const auto x = reference::normal<float>({B, T, D}, 3);
  const auto skip = reference::normal<float>({D}, 4);
  mix::tensor<float, 3> scan(x.shape()), steps(x.shape()), sum(x.shape()), product(x.shape());
  mix::diagonal_ssm_inputs<float, complex> in{
      .x = x, .transition = m.p.transition, .input = m.p.input, .output = m.output, .skip = skip};
  mix::diagonal_ssm(in, scan.view());
  mix::tensor<complex, 3> state({B, D, N});
  in.initial_state = state;
  for (index_t t = 0; t < T; ++t) {
    in.x = x.slice(1, t, 1);
    mix::diagonal_ssm(in, steps.slice(1, t, 1), mix::diagonal_ssm_options<complex>{.final_state = state.view()});
  }
  cases::expect_same_bits<float, 3>(steps, scan, "steps");
  mix::tensor<float, 2> kernel({D, T});
  mix::diagonal_ssm_kernel(
      mix::diagonal_ssm_kernel_inputs<complex>{.transition = m.p.transition, .input = m.p.input, .output = m.output},
      kernel.view());
  const mix::long_convolution_inputs<float> convolved{.x = x, .filters = kernel, .skip = skip};
  mix::long_convolution(convolved, sum.view());
  mix::long_convolution(convolved, product.view(), mix::long_convolution_options{.fft = transforms{}});
  for (index_t b = 0; b < B; ++b) {
    for (index_t d = 0; d < D; ++d) {
      // What each of the three may be away from the exact numbers: the recurrence meets a rounding in every step.
      double taps = 0, tokens = 0;
      for (index_t t = 0; t < T; ++t) {
        taps += std::pow(static_cast<double>(kernel(d, t)), 2);
        tokens += std::pow(static_cast<double>(x(b, t, d)), 2);
      }
      const double gate = 0x1p-24 * 40 * (std::sqrt(taps) * std::sqrt(tokens) + 4);
      for (index_t t = 0; t < T; ++t) {
        EXPECT_NEAR(static_cast<double>(sum(b, t, d)), static_cast<double>(scan(b, t, d)), gate) << t << ' ' << d;
        EXPECT_NEAR(static_cast<double>(product(b, t, d)), static_cast<double>(scan(b, t, d)), gate) << t << ' ' << d;
      }
    }
  }
}

TEST(diagonal_ssm_kernel, executors_and_errors) {
  const model m(5, 3, 1e-3, 1e-1);
  const mix::diagonal_ssm_kernel_inputs<complex> in{.transition = m.p.transition, .output = m.output};
  mix::tensor<float, 2> kernel({5, 70}), other({5, 70}), narrow({4, 70});
  mix::diagonal_ssm_kernel(in, kernel.view());
  mix::diagonal_ssm_kernel(in, other.view(), {}, cases::delayed_threads(3));
  cases::expect_same_bits<float, 2>(other, kernel, "threads");
  try {
    mix::diagonal_ssm_kernel(in, narrow.view());
    ADD_FAILURE() << "no error";
  } catch (const mix::shape_error& e) {
    EXPECT_NE(std::string(e.what()).find("kernel is (4, 70), expected (D, L) = (5, 70)"), std::string::npos)
        << e.what();
  }
}

}  // namespace
