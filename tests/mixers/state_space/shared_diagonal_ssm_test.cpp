// SPDX-License-Identifier: Apache-2.0
// One diagonal state for all channels (S5, LRU) against the recurrence, and the identities that it promises.
//
// Budget: u ((D + N + 8) A + 4 A1), A the sum of the absolute values of all terms, A1 that with every term times its distance in
// tokens: the products' chains, and a few roundings in every step after. Identities: memcmp.
#include <mixers/state_space/diagonal_cases.hpp>

namespace {

using cases::index_t;
using complex = std::complex<float>;

/// N = width, D = value_width. State: (n, H, N, 2) numbers.
struct shared_mixer {
  static constexpr bool splits_anywhere = true;
  bool resets = false;
  mix::readout readout = mix::readout::conjugate_pairs;

  struct parameters {
    mix::tensor<complex, 1> transition;
    mix::tensor<complex, 2> input, output;
    mix::tensor<float, 1> skip;
  };
  parameters of(index_t head, index_t D, index_t N) const {
    parameters p{mix::tensor<complex, 1>({N}), mix::tensor<complex, 2>({N, D}), mix::tensor<complex, 2>({D, N}),
                 mix::tensor<float, 1>({D})};
    for (index_t n = 0; n < N; ++n) p.transition(n) = cases::transition_at<complex>(n + 17 * head, resets);
    for (index_t i = 0; i < D * N; ++i) {
      p.input.data()[i] = cases::weight_at<complex>(i + head, 0.3);
      p.output.data()[i] = cases::weight_at<complex>(i + head, 0.7);
    }
    for (index_t d = 0; d < D; ++d) p.skip(d) = static_cast<float>(std::cos(static_cast<double>(d)));
    return p;
  }
  static std::vector<mix::extents<4>> inputs(const cases::linear_shape& s) {
    return {{s.batch, s.heads, s.tokens, s.value_width}};
  }
  static void fill(std::vector<mix::tensor<float, 4>>& in, cases::random_numbers& random) {
    cases::fill_random(in[0].view(), random);
  }
  static cases::state_parts initial(const cases::linear_shape& s, index_t n, cases::random_numbers& random) {
    cases::state_parts state(1, mix::tensor<double, 4>({n, s.heads, s.width, 2}));
    for (double& e : state[0]) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  void operator()(const cases::state_call& c) const {
    auto on = c.on;
    auto& all = (*c.state)[0];
    const index_t n = all.extent(0), D = c.out.extent(3), N = all.extent(2);
    for (index_t h = 0; h < all.extent(1); ++h) {
      const parameters p = of(h, D, N);
      mix::tensor<complex, 2> state({n, N});
      for (index_t i = 0; i < state.size(); ++i) state.data()[i] = cases::number_of<complex>(all.row(i / N, h, i % N));
      c.with_sequences([&](auto sequences) {
        mix::shared_diagonal_ssm(
            mix::shared_diagonal_ssm_inputs<float>{.x = cases::of_head(c.in[0], h),
                                                   .transition = p.transition,
                                                   .input = p.input,
                                                   .output = p.output,
                                                   .skip = p.skip,
                                                   .initial_state = state},
            cases::of_head(c.out, h),
            mix::shared_diagonal_ssm_options<float, decltype(sequences)>{
                .readout = readout, .order = c.order, .sequences = sequences, .final_state = state.view()},
            on);
      });
      for (index_t i = 0; i < state.size(); ++i) cases::put_number(state.data()[i], all.row(i / N, h, i % N));
    }
  }
  static void rescale(cases::state_parts&, const cases::state_parts&) {}
  cases::state_answer oracle(const cases::linear_shape& s, const std::vector<mix::tensor<float, 4>>& in,
                             const cases::state_parts& initial, bool reversed) const {
    const double u = 0x1p-24, factor = readout == mix::readout::real ? 1 : 2;
    const index_t D = s.value_width, N = s.width;
    const double roundings = static_cast<double>(D + N + 8);
    cases::state_answer a{{}, {}, initial, {initial[0]}};
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * D), 0);
    a.gate = a.out;
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        const parameters p = of(h, D, N);
        std::vector<std::complex<double>> state(static_cast<std::size_t>(N));
        std::vector<double> terms(static_cast<std::size_t>(N)), far(static_cast<std::size_t>(N));
        for (index_t n = 0; n < N; ++n) {
          const auto k = static_cast<std::size_t>(n);
          state[k] = {initial[0](b, h, n, 0), initial[0](b, h, n, 1)};
          terms[k] = std::abs(state[k]);
        }
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i;
          for (index_t n = 0; n < N; ++n) {
            const auto k = static_cast<std::size_t>(n);
            const std::complex<double> lambda(p.transition(n));
            const double keep = std::abs(lambda);
            state[k] = keep == 0 ? 0 : lambda * state[k];
            far[k] = keep * (far[k] + terms[k]);
            terms[k] *= keep;
            for (index_t d = 0; d < D; ++d) {
              const std::complex<double> term =
                  std::complex<double>(p.input(n, d)) * static_cast<double>(in[0](b, h, t, d));
              state[k] += term, terms[k] += std::abs(term);
            }
          }
          for (index_t d = 0; d < D; ++d) {
            const double direct = static_cast<double>(p.skip(d)) * static_cast<double>(in[0](b, h, t, d));
            double y = direct, all = std::abs(direct), all_far = 0;
            for (index_t n = 0; n < N; ++n) {
              const auto k = static_cast<std::size_t>(n);
              const std::complex<double> c(p.output(d, n));
              y += factor * (c * state[k]).real();
              all += factor * std::abs(c) * terms[k];
              all_far += factor * std::abs(c) * far[k];
            }
            const auto e = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * D + d);
            a.out[e] = y;
            a.gate[e] = u * (roundings * all + 4 * all_far);
          }
        }
        for (index_t n = 0; n < N; ++n) {
          const auto k = static_cast<std::size_t>(n);
          a.state[0](b, h, n, 0) = state[k].real(), a.state[0](b, h, n, 1) = state[k].imag();
          for (index_t part = 0; part < 2; ++part)
            a.state_gate[0](b, h, n, part) = u * (roundings * terms[k] + 4 * far[k]);
        }
      }
    }
    return a;
  }
};

TEST(shared_diagonal_ssm, sizes) {
  cases::gate_record worst;
  cases::expect_state_sizes(shared_mixer{}, &worst);
  cases::expect_state_sizes(shared_mixer{true, mix::readout::real}, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}
TEST(shared_diagonal_ssm, identities) {
  cases::expect_state_identities(shared_mixer{true});
  cases::expect_state_executors(shared_mixer{}, {1, 1, 1, 1, 700, 80, 40}, 7);  // one sequence by many threads
}

TEST(shared_diagonal_ssm, bfloat16) {
  const index_t T = 70, D = 21, N = 5;
  const auto p = shared_mixer{}.of(0, D, N);
  const auto x = reference::normal<mix::bfloat16>({1, T, D}, 1);
  mix::tensor<float, 3> wide({1, T, D}), want({1, T, D});
  mix::tensor<mix::bfloat16, 3> out({1, T, D});
  for (index_t i = 0; i < x.size(); ++i) wide.data()[i] = static_cast<float>(x.data()[i]);
  mix::shared_diagonal_ssm(
      mix::shared_diagonal_ssm_inputs<mix::bfloat16>{
          .x = x, .transition = p.transition, .input = p.input, .output = p.output},
      out.view());
  mix::shared_diagonal_ssm(
      mix::shared_diagonal_ssm_inputs<float>{
          .x = wide, .transition = p.transition, .input = p.input, .output = p.output},
      want.view());
  for (index_t i = 0; i < x.size(); ++i) EXPECT_TRUE(cases::same_bits(out.data()[i], mix::bfloat16(want.data()[i])));
}

// One channel's shared state is its own: a recurrent unit of one channel and the same as a diagonal model.
TEST(shared_diagonal_ssm, one_channel) {
  const index_t T = 200, N = 12;
  mix::tensor<float, 1> nu({N}), theta({N});
  for (index_t n = 0; n < N; ++n) nu(n) = -0.5f * static_cast<float>(n), theta(n) = -1 + 0.2f * static_cast<float>(n);
  const mix::tensor<complex, 2> B({N, 1}, complex(0.5f, -1)), C({1, N}, complex(0.25f, 0.5f));
  const auto p = mix::lru(nu, theta, B);
  const auto x = reference::normal<float>({1, T, 1}, 1);
  mix::tensor<float, 3> shared(x.shape()), own(x.shape());
  mix::shared_diagonal_ssm(
      mix::shared_diagonal_ssm_inputs<float>{.x = x, .transition = p.transition, .input = p.input, .output = C},
      shared.view(), mix::shared_diagonal_ssm_options<>{.readout = mix::readout::real});
  mix::diagonal_ssm(
      mix::diagonal_ssm_inputs<float, complex>{
          .x = x,
          .transition = mix::tensor_view<const complex, 2>(p.transition.data(), {1, N}),
          .input = mix::tensor_view<const complex, 2>(p.input.data(), {1, N}),
          .output = C},
      own.view(), mix::diagonal_ssm_options<complex>{.readout = mix::readout::real});
  for (index_t t = 0; t < T; ++t)
    EXPECT_NEAR(static_cast<double>(shared(0, t, 0)), static_cast<double>(own(0, t, 0)), 2e-5) << t;
}

TEST(shared_diagonal_ssm, errors) {
  const mix::tensor<float, 3> x({2, 5, 4});
  const mix::tensor<complex, 1> a({3});
  const mix::tensor<complex, 2> in({3, 4}), read({4, 3});
  mix::tensor<float, 3> out({2, 5, 4}, cases::untouched<float>());
  mix::tensor<complex, 2> state({1, 3});
  const auto fails = [&](const mix::shared_diagonal_ssm_inputs<float>& inputs,
                         const mix::shared_diagonal_ssm_options<>& options, const std::string& message) {
    try {
      mix::shared_diagonal_ssm(inputs, out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails({.x = x, .transition = a, .input = read, .output = read}, {}, "input is (4, 3), expected (N, D) = (3, 4)");
  fails({.x = x, .transition = a, .input = in, .output = in}, {}, "output is (3, 4), expected (D, N) = (4, 3)");
  fails({.x = x, .transition = a, .input = in, .output = read}, {.final_state = state.view()},
        "final_state is (1, 3), expected (sequences, N) = (2, 3)");
  fails({.x = x, .transition = a, .input = in, .output = read}, {.order = mix::order::bidirectional},
        "order is bidirectional");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
