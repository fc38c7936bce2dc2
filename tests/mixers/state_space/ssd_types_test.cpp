// SPDX-License-Identifier: Apache-2.0
// ssd and mamba3 in other types, what they refuse, and one token without an allocation.
//
// Budget: as ssd_test and mamba3_test, in units of double; half a unit of bfloat16 on top of that where it is stored.
#include <reference/cases.hpp>
#include <reference/no_allocation.hpp>
#include <reference/ssd_oracle.hpp>

#include <tokenmix/state_space.hpp>

namespace {

using cases::index_t;
using mix::bfloat16;

template <class E>
double number(E x) {
  return static_cast<double>(static_cast<mix::accumulator_t<E>>(x));
}

TEST(ssd_types, bfloat16_storage) {
  const index_t T = 150, H = 3, P = 21, N = 10;
  const auto x = reference::normal<bfloat16>({1, T, H, P}, 1), B = reference::normal<bfloat16>({1, T, 1, N}, 2),
             C = reference::normal<bfloat16>({1, T, 1, N}, 3), z = reference::normal<bfloat16>({1, T, H, P}, 4);
  const auto delta = reference::uniform<bfloat16>({1, T, H}, 5, 0.0, 0.5);
  const mix::tensor<float, 1> A({H}, -0.7f), skip({H}, 0.3f);
  mix::tensor<bfloat16, 4> out({1, T, H, P});
  mix::ssd(mix::ssd_inputs{.x = x, .delta = delta, .A = A, .B = B, .C = C, .skip = skip, .gate = z}, out.view(),
           mix::ssd_options{});
  for (index_t h = 0; h < H; ++h) {
    reference::ssd_head head(static_cast<std::size_t>(P), static_cast<std::size_t>(N));
    for (index_t t = 0; t < T; ++t) {
      std::vector<double> values, k, q, of_k, of_q;
      for (index_t p = 0; p < P; ++p) values.push_back(number(x(0, t, h, p)));
      for (index_t n = 0; n < N; ++n) k.push_back(number(B(0, t, 0, n))), q.push_back(number(C(0, t, 0, n)));
      reference::turn_pairs(k, {}, of_k);
      reference::turn_pairs(q, {}, of_q);
      const double step = number(delta(0, t, h));
      head.token(-static_cast<double>(0.7f) * step, 0, step, values, k, q, of_k, of_q);
      for (index_t p = 0; p < P; ++p) {
        const auto e = static_cast<std::size_t>(p);
        const double gate = number(z(0, t, h, p)), silu = gate * reference::sigmoid(gate);
        const double want = (head.y[e] + static_cast<double>(0.3f) * values[e]) * silu;
        const double error =
            0x1p-24 * std::abs(silu) * (8 * (head.y_size[e] + std::abs(values[e])) + 2 * head.y_far[e]);
        EXPECT_LE(std::abs(number(out(0, t, h, p)) - want), 0x1p-8 * std::abs(want) + error)
            << h << " " << t << " " << p;
      }
    }
  }
}

/// Operands of mamba3 in type E: H heads that share B and C in pairs, and rotations of their own.
template <class E>
struct mamba3_operands {
  static constexpr index_t H = 4, G = 2, P = 11, N = 10, R = 4;
  using T = mix::accumulator_t<E>;
  mix::tensor<E, 4> x, B, C, rotation;
  mix::tensor<E, 3> delta, decay, trapezoid;

  explicit mamba3_operands(index_t tokens)
      : x(reference::normal<E>({1, tokens, H, P}, 1)),
        B(reference::normal<E>({1, tokens, G, N}, 2)),
        C(reference::normal<E>({1, tokens, G, N}, 3)),
        rotation(reference::normal<E>({1, tokens, H, R}, 4)),
        delta(reference::uniform<E>({1, tokens, H}, 5, 0.0, 0.5)),
        decay(reference::uniform<E>({1, tokens, H}, 6, -0.5, 0.0)),
        trapezoid(reference::normal<E>({1, tokens, H}, 7)) {}

  /// Tokens [first, first + n).
  mix::mamba3_inputs<E, E> inputs(index_t first, index_t n) const {
    return {.x = x.slice(1, first, n),
            .delta = delta.slice(1, first, n),
            .log_decay = decay.slice(1, first, n),
            .trapezoid = trapezoid.slice(1, first, n),
            .B = B.slice(1, first, n),
            .C = C.slice(1, first, n),
            .rotation = rotation.slice(1, first, n)};
  }
};

/// `stored` is half a unit of E where it has fewer digits than what is computed in.
template <class E>
void expect_mamba3(double unit, double stored) {
  const index_t T = 150;
  using operands = mamba3_operands<E>;
  const operands o(T);
  mix::tensor<E, 4> out(o.x.shape());
  mix::mamba3(o.inputs(0, T), out.view(), mix::mamba3_options<mix::whole_sequences, typename operands::T>{});
  for (index_t h = 0; h < o.H; ++h) {
    reference::ssd_head head(static_cast<std::size_t>(o.P), static_cast<std::size_t>(o.N));
    std::vector<double> angles(static_cast<std::size_t>(o.R), 0);
    const index_t g = h / (o.H / o.G);
    for (index_t t = 0; t < T; ++t) {
      const double step = number(o.delta(0, t, h)), lambda = number(o.trapezoid(0, t, h));
      std::vector<double> values, k, q, of_k, of_q;
      for (index_t p = 0; p < o.P; ++p) values.push_back(number(o.x(0, t, h, p)));
      for (index_t n = 0; n < o.N; ++n) k.push_back(number(o.B(0, t, g, n))), q.push_back(number(o.C(0, t, g, n)));
      for (index_t r = 0; r < o.R; ++r) angles[static_cast<std::size_t>(r)] += step * number(o.rotation(0, t, h, r));
      reference::turn_pairs(k, angles, of_k);
      reference::turn_pairs(q, angles, of_q);
      head.token(number(o.decay(0, t, h)), step * reference::sigmoid(-lambda), step * reference::sigmoid(lambda),
                 values, k, q, of_k, of_q);
      for (index_t p = 0; p < o.P; ++p) {
        const auto e = static_cast<std::size_t>(p);
        const double error = unit * (12 * head.y_size[e] + 8 * head.y_far[e]);
        EXPECT_LE(std::abs(number(out(0, t, h, p)) - head.y[e]), error + stored * std::abs(head.y[e]))
            << "head " << h << ", token " << t << ", channel " << p;
      }
    }
  }
}

TEST(ssd_types, mamba3_in_double) { expect_mamba3<double>(2 * 0x1p-53, 0); }  // the oracle rounds too
TEST(ssd_types, mamba3_in_16_bits) {
  expect_mamba3<bfloat16>(0x1p-24, 0x1p-8);
  expect_mamba3<mix::float16>(0x1p-24, 0x1p-11);
}

// Sequences behind one another, and padded ones: every one as alone, one without tokens and one of several chunks among them.
TEST(ssd_types, mamba3_packed_and_lengths) {
  using operands = mamba3_operands<bfloat16>;
  const operands o(150);
  const std::vector<index_t> offsets{0, 3, 3, 80, 150};
  mix::tensor<bfloat16, 4> packed(o.x.shape());
  mix::mamba3(o.inputs(0, 150), packed.view(), mix::mamba3_options<mix::packed<index_t>>{.sequences = {offsets}});
  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    const index_t first = offsets[i], n = offsets[i + 1] - first;
    mix::tensor<bfloat16, 4> alone({1, n, o.H, o.P}), padded({1, 150 - first, o.H, o.P}, cases::untouched<bfloat16>());
    mix::mamba3(o.inputs(first, n), alone.view(), mix::mamba3_options{});
    const std::vector<index_t> keys{n};
    mix::mamba3(o.inputs(first, 150 - first), padded.view(),
                mix::mamba3_options<mix::lengths>{.sequences = {keys, keys}});
    for (index_t t = 0; t < 150 - first; ++t)
      for (index_t h = 0; h < o.H; ++h)
        for (index_t p = 0; p < o.P; ++p) {
          const bfloat16 want = t < n ? alone(0, t, h, p) : cases::untouched<bfloat16>();
          EXPECT_TRUE(cases::same_bits(padded(0, t, h, p), want)) << i << " padded " << t;
          if (t < n) {
            EXPECT_TRUE(cases::same_bits(packed(0, first + t, h, p), want)) << i << " packed " << t;
          }
        }
  }
}

template <class Inputs, class Options, class Call>
void expect_failure(const Inputs& in, const Options& options, Call&& call, const std::string& message) {
  mix::tensor<float, 4> out({1, 5, 4, 8}, cases::untouched<float>());
  try {
    call(in, out.view(), options);
    ADD_FAILURE() << "no error, expected: " << message;
  } catch (const std::invalid_argument& e) {
    EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
  }
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

TEST(ssd_types, errors) {
  const mix::tensor<float, 4> x({1, 5, 4, 8}), B({1, 5, 2, 6}), three({1, 5, 3, 6}), wide({1, 5, 2, 7}),
      angles({1, 5, 1, 4});
  const mix::tensor<float, 3> delta({1, 5, 4}), shorter({1, 4, 4});
  const mix::tensor<float, 1> A({4}, -1.0f), above({4}, 0.5f), five({5});
  mix::tensor<float, 4> state({1, 4, 8, 6}), turned({1, 4, 6, 8});
  using inputs = mix::ssd_inputs<float, float>;
  const auto fails = [&](const inputs& in, const mix::ssd_options<>& options, const std::string& message) {
    expect_failure(in, options, [](const auto& i, auto out, const auto& o) { mix::ssd(i, out, o); }, message);
  };
  const inputs good{.x = x, .delta = delta, .A = A, .B = B, .C = B};
  const auto with = [&](auto&& change) {
    inputs in = good;
    change(in);
    return in;
  };
  fails(with([&](inputs& in) { in.delta = shorter; }), {}, "delta is (1, 4, 4), expected (B, T, H) = (1, 5, 4)");
  fails(with([&](inputs& in) { in.B = in.C = three; }), {}, "B has 3 heads, x has 4");
  fails(with([&](inputs& in) { in.C = wide; }), {}, "C is (1, 5, 2, 7), B is (1, 5, 2, 6)");
  fails(with([&](inputs& in) { in.A = five; }), {}, "A is (5), expected (H) = (4)");
  fails(with([&](inputs& in) { in.A = above; }), {}, "A[0] is above 0");
  fails(with([&](inputs& in) { in.skip = five; }), {}, "skip is (5), expected (H) = (4)");
  fails(with([&](inputs& in) { in.delta_bias = five; }), {}, "delta_bias is (5), expected (H) = (4)");
  fails(with([&](inputs& in) { in.gate = B; }), {}, "gate is (1, 5, 2, 6), x is (1, 5, 4, 8)");
  fails(with([&](inputs& in) { in.initial_state = turned; }), {},
        "initial_state is (1, 4, 6, 8), expected (sequences, H, P, N) = (1, 4, 8, 6)");
  fails(good, {.final_state = turned.view()}, "final_state is (1, 4, 6, 8)");
  fails(good, {.order = mix::order::bidirectional}, "order is bidirectional");
  fails(good, {.delta_limits = {2, 1}}, "delta_limits are 2 and 1");

  using three_inputs = mix::mamba3_inputs<float, float>;
  const auto fails3 = [&](const three_inputs& in, const mix::mamba3_options<>& options, const std::string& message) {
    expect_failure(in, options, [](const auto& i, auto out, const auto& o) { mix::mamba3(i, out, o); }, message);
  };
  const three_inputs good3{.x = x, .delta = delta, .log_decay = delta, .trapezoid = delta, .B = B, .C = B};
  three_inputs in = good3;
  in.log_decay = shorter;
  fails3(in, {}, "log_decay is (1, 4, 4), expected (B, T, H) = (1, 5, 4)");
  in = good3;
  in.rotation = angles;
  fails3(in, {}, "rotation has 4 angles, B has 6 states");
  in = good3;
  in.initial_state.state = state;
  fails3(in, {}, "initial_state lacks a part");
  fails3(good3, {.final_state = {.state = state.view()}}, "final_state lacks a part");
}

TEST(ssd_types, one_token_allocates_nothing) {
  const mix::tensor<float, 4> x({2, 1, 4, 20}), B({2, 1, 2, 40}), angles({2, 1, 1, 10});
  const mix::tensor<float, 3> delta({2, 1, 4});
  const mix::tensor<float, 1> A({4}, -1.0f);
  mix::tensor<float, 4> out({2, 1, 4, 20}), state({2, 4, 20, 40});
  mix::tensor<float, 3> angle({2, 4, 10}), key({2, 4, 40}), value({2, 4, 20});
  const auto step = [&] {
    mix::ssd(mix::ssd_inputs<float, float>{.x = x, .delta = delta, .A = A, .B = B, .C = B, .initial_state = state},
             out.view(), mix::ssd_options<>{.final_state = state.view()});
  };
  const auto step3 = [&] {
    mix::mamba3(mix::mamba3_inputs<float, float>{.x = x,
                                                 .delta = delta,
                                                 .log_decay = delta,
                                                 .trapezoid = delta,
                                                 .B = B,
                                                 .C = B,
                                                 .rotation = angles,
                                                 .initial_state = {state, angle, key, value}},
                out.view(),
                mix::mamba3_options<>{.final_state = {state.view(), angle.view(), key.view(), value.view()}});
  };
  reference::expect_no_allocation(step, "ssd");
  reference::expect_no_allocation(step3, "mamba3");
}

}  // namespace
