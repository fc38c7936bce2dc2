// SPDX-License-Identifier: Apache-2.0
// Diagonal state-space models with complex states against their recurrence, and the identities that they promise.
//
// Budget: u (8 A + 4 A1), A the sum of the absolute values of all terms, A1 that with every term times its distance in tokens:
// a term meets a few roundings where it enters and two in every step after. Identities: memcmp.
#include <mixers/state_space/diagonal_cases.hpp>

namespace {

using cases::index_t;
using complex = std::complex<float>;
using mixer = cases::diagonal_mixer<complex>;

TEST(diagonal_ssm, sizes) {
  cases::gate_record worst;
  cases::expect_state_sizes(mixer{}, &worst);
  cases::expect_state_sizes(mixer{true, true, mix::readout::real}, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}
TEST(diagonal_ssm, identities) { cases::expect_state_identities(mixer{true, true}); }

TEST(diagonal_ssm, types) {
  const index_t T = 40, D = 21, N = 5;
  const auto p = mixer{}.of(0, D, N);
  const auto x = reference::normal<mix::bfloat16>({1, T, D}, 1);
  mix::tensor<float, 3> wide({1, T, D}), want({1, T, D});
  mix::tensor<mix::bfloat16, 3> out({1, T, D});
  for (index_t i = 0; i < x.size(); ++i) wide.data()[i] = static_cast<float>(x.data()[i]);
  mix::diagonal_ssm(
      mix::diagonal_ssm_inputs<mix::bfloat16, complex>{.x = x, .transition = p.transition, .output = p.output},
      out.view());
  mix::diagonal_ssm(mix::diagonal_ssm_inputs<float, complex>{.x = wide, .transition = p.transition, .output = p.output},
                    want.view());
  for (index_t i = 0; i < x.size(); ++i) EXPECT_TRUE(cases::same_bits(out.data()[i], mix::bfloat16(want.data()[i])));

  mix::tensor<std::complex<double>, 2> a({D, N}), c({D, N});
  mix::tensor<double, 3> x64({1, T, D}), out64({1, T, D});
  for (index_t i = 0; i < a.size(); ++i)
    a.data()[i] = std::complex<double>(p.transition.data()[i]), c.data()[i] = std::complex<double>(p.output.data()[i]);
  for (index_t i = 0; i < x.size(); ++i) x64.data()[i] = static_cast<double>(wide.data()[i]);
  mix::diagonal_ssm(mix::diagonal_ssm_inputs<double, std::complex<double>>{.x = x64, .transition = a, .output = c},
                    out64.view());
  for (index_t d = 0; d < D; ++d) {
    reference::diagonal_channel channel;
    channel.factor = 2;
    for (index_t n = 0; n < N; ++n) {
      channel.transition.push_back(a(d, n));
      channel.input.emplace_back(1.0);
      channel.output.push_back(c(d, n));
      channel.state.emplace_back(0.0);
    }
    channel.start();
    for (index_t t = 0; t < T; ++t) {
      const auto y = channel.step(x64(0, t, d));
      EXPECT_NEAR(out64(0, t, d), y.value, 0x1p-53 * (16 * y.terms + 8 * y.far_terms));
    }
  }
}

// A million tokens: |A| dt from 1e-6 to 1e4; without input no state grows, and inputs are forgotten as they should be.
TEST(diagonal_ssm, long_sequences) {
  const index_t D = 16, N = 2, T = cases::reduced_sweep ? 20000 : 1000000, part = T / 20;
  mix::tensor<complex, 2> A({D, N});
  mix::tensor<float, 1> log_step({D});
  for (index_t d = 0; d < D; ++d) {
    log_step(d) = static_cast<float>(std::log(1e-6) + static_cast<double>(d) * std::log(1e10) / 15);
    A(d, 0) = {-1, 3};
    A(d, 1) = {-0.5f, 100};
  }
  const auto p = mix::discretize(mix::zoh{}, A, log_step);
  mix::tensor<complex, 2> output({D, N}, complex(1));
  mix::tensor<complex, 3> state({1, D, N}, complex(0.6f, 0.8f));
  const mix::tensor<float, 3> x({1, part, D});
  mix::tensor<float, 3> out(x.shape());
  mix::tensor<float, 2> norms({D, N}, 1.0f);
  for (index_t i = 0; i < T / part; ++i) {
    mix::diagonal_ssm(
        mix::diagonal_ssm_inputs<float, complex>{
            .x = x, .transition = p.transition, .output = output, .initial_state = state},
        out.view(), mix::diagonal_ssm_options<complex>{.final_state = state.view()});
    for (index_t d = 0; d < D; ++d) {
      for (index_t n = 0; n < N; ++n) {
        const float norm = std::abs(state(0, d, n));
        ASSERT_LE(norm, std::max(norms(d, n), 1e-37f)) << d << ' ' << n;
        norms(d, n) = norm;
        const double t = static_cast<double>((i + 1) * part),
                     keep = static_cast<double>(std::abs(A(d, n).real())) * std::exp(static_cast<double>(log_step(d)));
        EXPECT_NEAR(static_cast<double>(norm), std::exp(-t * keep), 1e-7 * t * std::exp(-t * keep) + 1e-30)
            << d << ' ' << n;
      }
    }
  }
}

// A state of NaN is not read by a transition of 0; NaN in the padding of channels is not read at all.
TEST(diagonal_ssm, resets) {
  mix::tensor<complex, 2> transition({3, 2}, complex(0.5f, 0.1f)), output({3, 2}, complex(1));
  transition(1, 0) = transition(1, 1) = 0;
  mix::tensor<complex, 3> state({1, 3, 2}, complex(std::nanf(""), 1));
  mix::tensor<float, 3> x({1, 2, 3}, 1.0f), out(x.shape());
  x(0, 0, 1) = std::nanf("");
  mix::diagonal_ssm(
      mix::diagonal_ssm_inputs<float, complex>{
          .x = x, .transition = transition, .output = output, .initial_state = state},
      out.view());
  EXPECT_TRUE(std::isnan(out(0, 0, 1)));
  EXPECT_EQ(out(0, 1, 1), 4.0f);
  EXPECT_TRUE(std::isnan(out(0, 1, 0)));
}

TEST(diagonal_ssm, layouts) { cases::expect_diagonal_layouts<complex>(); }

TEST(diagonal_ssm, errors) {
  const mix::tensor<float, 3> x({2, 5, 4});
  const mix::tensor<complex, 2> a({4, 3}), narrow({4, 2});
  mix::tensor<float, 3> out({2, 5, 4}, cases::untouched<float>());
  mix::tensor<complex, 3> state({1, 4, 3});
  const auto fails = [&](const mix::diagonal_ssm_inputs<float, complex>& in,
                         const mix::diagonal_ssm_options<complex>& options, const std::string& message) {
    try {
      mix::diagonal_ssm(in, out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.x = x, .transition = a, .output = narrow}, {}, "output is (4, 2), expected (D, N) = (4, 3)");
  fails({.x = x, .transition = a, .input = narrow, .output = a}, {}, "input is (4, 2), expected (D, N) = (4, 3)");
  fails({.x = x, .transition = a, .output = a, .initial_state = state}, {},
        "initial_state is (1, 4, 3), expected (sequences, D, N) = (2, 4, 3)");
  fails({.x = x, .transition = a, .output = a}, {.final_state = state.view()},
        "final_state is (1, 4, 3), expected (sequences, D, N) = (2, 4, 3)");
  fails({.x = x, .transition = a, .output = a}, {.order = mix::order::bidirectional}, "order is bidirectional");
  const mix::tensor<complex, 2> apart({8, 6});
  fails({.x = x, .transition = mix::tensor_view<const complex, 2>(apart.data(), {4, 3}, {12, 2}), .output = a}, {},
        "transition has strides (12, 2): its states or its channels must be contiguous");
  fails({.x = out, .transition = mix::tensor_view<const complex, 2>(), .output = a}, {}, "transition is (0, 0)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
