// SPDX-License-Identifier: Apache-2.0
// Gated slot attention and ABC against their recurrences, and the identities that they promise.
//
// Budget: keys and values of slots 8 u A + 2 u A1 (see linear_cases.hpp); the error of a score is a relative one of its slot's
// weight, with 8 u for the softmax. Identities: none, memcmp.
#include <mixers/linear/state_identities.hpp>

namespace {

using cases::index_t;
using cases::infinity;

constexpr index_t slots = 11;

enum class kind { gated, abc };

/// Inputs: q, k, v, and log decays or logits of the slots. State: keys, values and, for ABC, masses.
template <kind Kind>
struct slot_mixer {
  static constexpr bool splits_anywhere = false;
  std::vector<double> of_slots{};  // log decays or logits are one of these

  static std::vector<mix::extents<4>> inputs(const cases::linear_shape& s) {
    return {{s.batch, s.heads, s.tokens, s.width},
            {s.batch, s.key_heads, s.tokens, s.width},
            {s.batch, s.key_heads, s.tokens, s.value_width},
            {s.batch, s.key_heads, s.tokens, slots}};
  }
  void fill(std::vector<mix::tensor<float, 4>>& in, cases::random_numbers& random) const {
    for (auto& x : in) cases::fill_random(x.view(), random);
    for (float& g : in[3]) {
      if (!of_slots.empty()) {
        g = static_cast<float>(random.one_of(of_slots));
      } else {
        g = Kind == kind::abc ? 2 * g : -0.4f * std::abs(g);
      }
    }
  }
  static cases::state_parts initial(const cases::linear_shape& s, index_t n, cases::random_numbers& random) {
    cases::state_parts state{mix::tensor<double, 4>({n, s.key_heads, s.width, slots}),
                             mix::tensor<double, 4>({n, s.key_heads, slots, s.value_width})};
    if (Kind == kind::abc) state.emplace_back(mix::extents<4>{n, s.key_heads, slots, 1});
    for (auto& part : state)
      for (double& e : part) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  void operator()(const cases::state_call& c) const {
    auto on = c.on;
    auto keys = cases::state_part<float, 4>((*c.state)[0]);
    auto values = cases::state_part<float, 4>((*c.state)[1]);
    c.with_sequences([&](auto sequences) {
      if constexpr (Kind == kind::gated) {
        mix::gated_slot_attention(
            mix::gated_slot_inputs{.q = c.in[0],
                                   .k = c.in[1],
                                   .v = c.in[2],
                                   .log_decay = c.in[3],
                                   .initial_keys = keys,
                                   .initial_values = values},
            c.out,
            mix::gated_slot_options{
                .order = c.order, .sequences = sequences, .final_keys = keys.view(), .final_values = values.view()},
            on);
      } else {
        auto mass = cases::state_part<double, 3>((*c.state)[2]);
        mix::abc_attention(mix::abc_inputs{.q = c.in[0],
                                           .k = c.in[1],
                                           .v = c.in[2],
                                           .logits = c.in[3],
                                           .initial_keys = keys,
                                           .initial_values = values,
                                           .initial_mass = mass},
                           c.out,
                           mix::abc_options{.order = c.order,
                                            .sequences = sequences,
                                            .final_keys = keys.view(),
                                            .final_values = values.view(),
                                            .final_mass = mass.view()},
                           on);
        cases::put_state_part(mass, (*c.state)[2]);
      }
    });
    cases::put_state_part(keys, (*c.state)[0]);
    cases::put_state_part(values, (*c.state)[1]);
  }
  static void rescale(cases::state_parts&, const cases::state_parts&) {}

  cases::state_answer oracle(const cases::linear_shape& s, const std::vector<mix::tensor<float, 4>>& in,
                             const cases::state_parts& initial, bool reversed) const {
    const double u = 0x1p-24;
    const double scale =
        static_cast<double>(static_cast<float>(1 / std::sqrt(std::max<double>(1, static_cast<double>(s.width)))));
    cases::state_answer a{{}, {}, initial, {initial[0], initial[1]}};
    const index_t D = s.width, Dv = s.value_width;
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * Dv), 0);
    a.gate = a.out;
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        const index_t kh = h * s.key_heads / s.heads;
        // Row m of S is the slot's key, then its value.
        const index_t W = D + Dv;
        std::vector<double> S(static_cast<std::size_t>(slots * W)), M = S, M1 = S, mass(slots, 0);
        const auto at = [&](index_t m, index_t c) { return static_cast<std::size_t>(m * W + c); };
        for (index_t m = 0; m < slots; ++m) {
          for (index_t c = 0; c < W; ++c) {
            S[at(m, c)] = c < D ? initial[0](b, kh, c, m) : initial[1](b, kh, m, c - D);
            M[at(m, c)] = std::abs(S[at(m, c)]);
          }
          if (Kind == kind::abc) mass[static_cast<std::size_t>(m)] = initial[2](b, kh, m, 0);
        }
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i;
          for (index_t m = 0; m < slots; ++m) {
            const double x = static_cast<double>(in[3](b, kh, t, m));
            double keep = std::exp(x), write = -std::expm1(x);
            if (Kind == kind::abc) {
              double& z = mass[static_cast<std::size_t>(m)];
              const double top = std::max(z, x);
              const double sum = top == -infinity ? top : top + std::log(std::exp(z - top) + std::exp(x - top));
              keep = sum == -infinity ? 1 : std::exp(z - sum);
              write = sum == -infinity ? 0 : std::exp(x - sum);
              z = sum;
            }
            for (index_t c = 0; c < W; ++c) {
              const std::size_t e = at(m, c);
              const double written = write * static_cast<double>(c < D ? in[1](b, kh, t, c) : in[2](b, kh, t, c - D));
              M1[e] = keep == 0 ? 0 : (M1[e] + M[e]) * keep;
              S[e] = (keep == 0 ? 0 : S[e] * keep) + written;
              M[e] = (keep == 0 ? 0 : M[e] * keep) + std::abs(written);
            }
          }
          std::vector<double> score(slots, 0), error(slots, 0);
          double largest = -infinity, total = 0, mean_error = 0;
          for (index_t m = 0; m < slots; ++m) {
            const auto e = static_cast<std::size_t>(m);
            for (index_t d = 0; d < D; ++d) {
              const double q = scale * static_cast<double>(in[0](b, h, t, d));
              score[e] += q * S[at(m, d)];
              error[e] += u * std::abs(q) * (8 * M[at(m, d)] + 2 * M1[at(m, d)]);
            }
            largest = std::max(largest, score[e]);
          }
          for (double& x : score) total += x = std::exp(x - largest);
          for (index_t m = 0; m < slots; ++m)
            mean_error += score[static_cast<std::size_t>(m)] / total * error[static_cast<std::size_t>(m)];
          for (index_t c = 0; c < Dv; ++c) {
            const auto o = static_cast<std::size_t>(((b * s.heads + h) * s.tokens + t) * Dv + c);
            for (index_t m = 0; m < slots; ++m) {
              const std::size_t e = at(m, D + c);
              const double p = score[static_cast<std::size_t>(m)] / total;
              a.out[o] += p * S[e];
              a.gate[o] += p * (u * (8 * M[e] + 2 * M1[e]) +
                                std::abs(S[e]) * (error[static_cast<std::size_t>(m)] + mean_error + 8 * u));
            }
          }
        }
        for (index_t m = 0; m < slots; ++m) {
          for (index_t c = 0; c < W; ++c) {
            double& state = c < D ? a.state[0](b, kh, c, m) : a.state[1](b, kh, m, c - D);
            double& gate = c < D ? a.state_gate[0](b, kh, c, m) : a.state_gate[1](b, kh, m, c - D);
            state = S[at(m, c)];
            gate = u * (8 * M[at(m, c)] + 2 * M1[at(m, c)]);
          }
        }
      }
    }
    return a;
  }
};

using gated = slot_mixer<kind::gated>;
using abc = slot_mixer<kind::abc>;

TEST(gated_slot_attention, sizes) { cases::expect_state_sizes(gated{}); }
TEST(gated_slot_attention, identities) { cases::expect_state_identities(gated{}); }
TEST(abc_attention, sizes) { cases::expect_state_sizes(abc{}); }
TEST(abc_attention, identities) { cases::expect_state_identities(abc{}); }

TEST(gated_slot_attention, decays_of_any_size) {
  cases::gate_record worst;
  const std::vector<double> decays{0, -1e-6, -0.05, -1, -5, -20, -88, -200, -1e4, -infinity};
  std::uint64_t seed = 0;
  for (index_t tokens : {1, 15, 16, 17, 33, 100}) {
    for (double decay : decays) cases::expect_state_oracle(gated{{decay}}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
    cases::expect_state_oracle(gated{decays}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(abc_attention, logits_of_any_size) {
  cases::gate_record worst;
  std::uint64_t seed = 0;
  for (index_t tokens : {1, 15, 16, 17, 33, 100, 1000}) {
    for (const std::vector<double>& logits :
         {std::vector<double>{0}, {-infinity}, {-300, 0, 300}, {-1e4, 1e4, -infinity, 3}})
      cases::expect_state_oracle(abc{logits}, {1, 1, 1, 1, tokens, 12, 9}, ++seed, &worst);
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

// From nothing, the slots are prefix softmaxes: written out over all pairs. A logit of -infinity first: the slot is empty.
TEST(abc_attention, prefix_softmax) {
  const auto q = reference::normal<double>({1, 2, 30, 8}, 1), k = reference::normal<double>({1, 2, 30, 8}, 2),
             v = reference::normal<double>({1, 2, 30, 5}, 3);
  auto logits = reference::normal<double>({1, 2, 30, 4}, 4, 0, 3);
  logits(0, 0, 0, 1) = logits(0, 0, 1, 1) = logits(0, 1, 7, 2) = -infinity;
  mix::tensor<double, 4> out({1, 2, 30, 5});
  mix::abc_attention(mix::abc_inputs{.q = q, .k = k, .v = v, .logits = logits}, out.view(),
                     mix::abc_options<mix::whole_sequences, double>{.scale = 0.5});
  for (index_t h = 0; h < 2; ++h) {
    for (index_t t = 0; t < 30; ++t) {
      double total = 0, want[5] = {};
      for (index_t m = 0; m < 4; ++m) {
        double mass = 0, score = 0, value[5] = {};
        for (index_t s = 0; s <= t; ++s) {
          const double w = std::exp(logits(0, h, s, m));
          mass += w;
          for (index_t d = 0; d < 8; ++d) score += 0.5 * w * q(0, h, t, d) * k(0, h, s, d);
          for (index_t c = 0; c < 5; ++c) value[c] += w * v(0, h, s, c);
        }
        const double p = std::exp(mass == 0 ? 0 : score / mass);
        total += p;
        for (index_t c = 0; c < 5 && mass > 0; ++c) want[c] += p * value[c] / mass;
      }
      for (index_t c = 0; c < 5; ++c) EXPECT_NEAR(out(0, h, t, c), want[c] / total, 1e-13);
    }
  }
}

// Writes that are given; the gate's formula; NaN in a slot's state before its reset.
TEST(gated_slot_attention, writes_and_gates) {
  const auto q = reference::normal<float>({1, 2, 30, 8}, 1), k = reference::normal<float>({1, 2, 30, 8}, 2),
             v = reference::normal<float>({1, 2, 30, 5}, 3), raw = reference::normal<float>({1, 2, 30, 4}, 4, 1, 2);
  mix::tensor<float, 4> log_decay = raw, write = raw, out({1, 2, 30, 5}), given = out, made = out;
  for (index_t i = 0; i < raw.size(); ++i) {
    const double x = static_cast<double>(raw.data()[i]);
    log_decay.data()[i] = static_cast<float>(-std::log1p(std::exp(-x)) / 4);
    write.data()[i] = static_cast<float>(-std::expm1(-std::log1p(std::exp(-x)) / 4));
  }
  mix::gated_slot_attention(mix::gated_slot_inputs{.q = q, .k = k, .v = v, .log_decay = raw}, out.view(),
                            mix::gated_slot_options{.gate = mix::log_sigmoid_gate{4}});
  mix::gated_slot_attention(mix::gated_slot_inputs{.q = q, .k = k, .v = v, .log_decay = log_decay, .write = write},
                            given.view());
  for (index_t i = 0; i < out.size(); ++i) EXPECT_NEAR(out.data()[i], given.data()[i], 2e-6f);
  for (index_t h = 0; h < 2; ++h)
    for (index_t m = 0; m < 4; ++m) log_decay(0, h, 0, m) = static_cast<float>(-infinity);
  const mix::tensor<float, 4> keys({1, 2, 8, 4}, std::nanf("")), values({1, 2, 4, 5}, std::nanf(""));
  mix::gated_slot_attention(mix::gated_slot_inputs{.q = q,
                                                   .k = k,
                                                   .v = v,
                                                   .log_decay = log_decay,
                                                   .write = write,
                                                   .initial_keys = keys,
                                                   .initial_values = values},
                            out.view());
  mix::gated_slot_attention(mix::gated_slot_inputs{.q = q, .k = k, .v = v, .log_decay = log_decay, .write = write},
                            made.view());
  cases::expect_same_bits<float, 4>(out, made, "reset");
}

// Blocks of tokens whose scratch is used again: the same bits however a call is cut, and no more memory for more tokens.
TEST(gated_slot_attention, blocks_of_tokens) {
  const index_t T = 600;
  const auto q = reference::normal<float>({1, 4, T, 8}, 1), k = reference::normal<float>({1, 2, T, 8}, 2),
             v = reference::normal<float>({1, 2, T, 5}, 3);
  const auto log_decay = reference::uniform<float>({1, 2, T, 4}, 4, -0.5, 0);
  const auto run = [&](index_t first, index_t count, mix::order order, const mix::tensor_view<float, 4>& out,
                       mix::tensor<float, 4>& keys, mix::tensor<float, 4>& values, index_t threads) {
    cases::any_executor on(cases::delayed_threads(threads, 3));
    mix::gated_slot_attention(
        mix::gated_slot_inputs{.q = q.slice(2, first, count),
                               .k = k.slice(2, first, count),
                               .v = v.slice(2, first, count),
                               .log_decay = log_decay.slice(2, first, count),
                               .initial_keys = keys,
                               .initial_values = values},
        out, mix::gated_slot_options{.order = order, .final_keys = keys.view(), .final_values = values.view()}, on);
  };
  for (const mix::order order : {mix::order::forward, mix::order::reverse}) {
    mix::tensor<float, 4> whole({1, 4, T, 5}), parts = whole, keys({1, 2, 8, 4}), values({1, 2, 4, 5});
    mix::tensor<float, 4> part_keys = keys, part_values = values;
    run(0, T, order, whole.view(), keys, values, 1);
    for (const auto& [begin, end] : {std::pair<index_t, index_t>{0, 16}, {16, 320}, {320, T}}) {
      const index_t n = end - begin, first = order == mix::order::forward ? begin : T - end;
      run(first, n, order, parts.slice(2, first, n), part_keys, part_values, 1 + begin % 3 * 4);
    }
    cases::expect_same_bits<float, 4>(parts, whole, "parts");
    cases::expect_same_bits<float, 4>(part_keys, keys, "keys");
    cases::expect_same_bits<float, 4>(part_values, values, "values");
    // Without a final state, one call and many threads.
    mix::gated_slot_attention(mix::gated_slot_inputs{.q = q, .k = k, .v = v, .log_decay = log_decay}, parts.view(),
                              mix::gated_slot_options{.order = order},
                              cases::any_executor(cases::delayed_threads(5, 3)));
    cases::expect_same_bits<float, 4>(parts, whole, "threads");
  }
  const auto scratch_for = [](index_t n) {
    std::size_t bytes = 0;
    std::thread([&] {
      const mix::tensor<float, 4> x({2, 1, n, 8});
      mix::tensor<float, 4> out({2, 1, n, 8});
      mix::gated_slot_attention(mix::gated_slot_inputs{.q = x, .k = x, .v = x, .log_decay = x}, out.view());
      bytes = mix::scratch::of_this_thread().capacity();
    }).join();
    return bytes;
  };
  EXPECT_EQ(scratch_for(512), scratch_for(5000));
}

TEST(gated_slot_attention, errors) {
  const mix::tensor<float, 4> q({1, 2, 5, 8}), v({1, 2, 5, 6}), gate({1, 2, 5, 4}), other({1, 1, 5, 4});
  mix::tensor<float, 4> out({1, 2, 5, 6}, cases::untouched<float>()), keys({1, 2, 8, 5});
  const auto fails = [&](const mix::gated_slot_inputs<float, float, float>& in, const std::string& message) {
    try {
      mix::gated_slot_attention(in, out.view());
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const mix::shape_error& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  mix::gated_slot_inputs<float, float, float> in{.q = q, .k = q, .v = v, .log_decay = other};
  fails(in, "log_decay is (1, 1, 5, 4), expected (B, Hk, T, slots) = (1, 2, 5, 4)");
  in.log_decay = gate;
  in.initial_keys = keys;
  fails(in, "initial_keys is (1, 2, 8, 5), expected (sequences, Hk, D, slots) = (1, 2, 8, 4)");
  in.initial_keys = {};
  in.write = other;
  fails(in, "write is (1, 1, 5, 4), log_decay is (1, 2, 5, 4)");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
