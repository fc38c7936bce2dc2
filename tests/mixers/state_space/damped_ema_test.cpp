// SPDX-License-Identifier: Apache-2.0
// Real states: MEGA's damped moving average against its formula, and the identities of the recurrence.
//
// Budget: u (8 A + 4 A1), as for complex states.
#include <mixers/state_space/diagonal_cases.hpp>

namespace {

using cases::index_t;
using mixer = cases::diagonal_mixer<float>;

TEST(damped_ema, sizes) {
  cases::gate_record worst;
  cases::expect_state_sizes(mixer{false, false, mix::readout::real}, &worst);
  cases::expect_state_sizes(mixer{true, true, mix::readout::real}, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}
TEST(damped_ema, identities) { cases::expect_state_identities(mixer{true, true, mix::readout::real}); }

TEST(damped_ema, layouts) { cases::expect_diagonal_layouts<float>(); }

// From MEGA's logits, as scan, as steps and as a convolution.
TEST(damped_ema, mega) {
  const index_t T = 50, D = 7, N = 16;
  const auto alpha = reference::normal<float>({D, N}, 1), delta = reference::normal<float>({D, N}, 2),
             beta = reference::normal<float>({D, N}, 3), eta = reference::normal<float>({D, N}, 4);
  const auto omega = reference::normal<float>({D}, 5);
  const auto x = reference::normal<float>({1, T, D}, 6);
  const auto p = mix::damped_ema(alpha, delta, beta, eta);
  mix::tensor<float, 3> scan({1, T, D}), steps({1, T, D}), convolution({1, T, D}), state({1, D, N});
  mix::diagonal_ssm_inputs<float, float> in{
      .x = x, .transition = p.transition, .input = p.input, .output = p.output, .skip = omega};
  mix::diagonal_ssm(in, scan.view(), mix::diagonal_ssm_options<float>{.readout = mix::readout::real});
  in.initial_state = state;
  for (index_t t = 0; t < T; ++t) {
    in.x = x.slice(1, t, 1);
    mix::diagonal_ssm(in, steps.slice(1, t, 1),
                      mix::diagonal_ssm_options<float>{.readout = mix::readout::real, .final_state = state.view()});
  }
  mix::tensor<float, 2> kernel({D, T});
  mix::diagonal_ssm_kernel(
      mix::diagonal_ssm_kernel_inputs<float>{.transition = p.transition, .input = p.input, .output = p.output},
      kernel.view(), {.readout = mix::readout::real});
  mix::long_convolution(mix::long_convolution_inputs<float>{.x = x, .filters = kernel, .skip = omega},
                        convolution.view());
  const auto sigmoid = [](float v) { return 1 / (1 + std::exp(-static_cast<double>(v))); };
  for (index_t d = 0; d < D; ++d) {
    std::vector<double> h(static_cast<std::size_t>(N));
    double terms = 0;
    for (index_t t = 0; t < T; ++t) {
      double y = static_cast<double>(omega(d)) * static_cast<double>(x(0, t, d));
      for (index_t n = 0; n < N; ++n) {
        double& state_n = h[static_cast<std::size_t>(n)];
        const double rate = sigmoid(delta(d, n));
        state_n = (1 - rate * sigmoid(alpha(d, n))) * state_n +
                  rate * static_cast<double>(beta(d, n)) * static_cast<double>(x(0, t, d));
        y += static_cast<double>(eta(d, n)) * state_n / std::sqrt(static_cast<double>(N));
        terms = std::max(terms, std::abs(y));
      }
      for (const auto* got : {&scan, &steps, &convolution})
        EXPECT_NEAR(static_cast<double>((*got)(0, t, d)), y, 3e-6 * (1 + terms)) << t << ' ' << d;
    }
  }
  cases::expect_same_bits<float, 3>(steps, scan, "steps");
}

}  // namespace
