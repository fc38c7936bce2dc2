// SPDX-License-Identifier: Apache-2.0
// RWKV-7 against the recurrence, against its published form with the state's values first; double and 16-bit storage.
//
// Budget: 2 delta_factor u |q| M sqrt(D / beta) (see linear_cases.hpp), with beta = 0.3, the least of -a'b; half a unit of a
// 16-bit output. Identities: none, memcmp.
#include <mixers/linear/low_rank_mixers.hpp>

namespace {

using cases::index_t;

const cases::rwkv7_mixer mixer;

TEST(rwkv7, decays_and_resets) {
  cases::gate_record worst;
  cases::expect_decay_sweep<float>(mixer, {1, 1, 1, 2, 0, 40, 33}, 1, &worst);
  for (index_t tokens : {1, 2, 15, 16, 17, 70, 300})
    cases::expect_oracle<float>(mixer, {1, 2, 1, 1, tokens, 33, 20}, 2, -0.05, &worst);
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

template <class E>
void types() {
  for (index_t tokens : {1, 2, 16, 17, 40})
    for (index_t width : {3, 17, 64}) cases::expect_oracle<E>(mixer, {1, 2, 1, 1, tokens, width, 71 - width}, 1);
  cases::expect_split<E>(mixer, {1, 2, 2, 2, 50, 20, 24}, 1);
  cases::expect_any_strides<E>(mixer, {2, 2, 2, 2, 20, 20, 24}, 3);
  cases::expect_within_bounds<E>(mixer, {1, 2, 2, 2, 18, 20, 37}, 3);
}

TEST(rwkv7, double_precision) { types<double>(); }
TEST(rwkv7, bfloat16_storage) { types<mix::bfloat16>(); }

// state' = state diag(w) + (state a) b' + v k';  out = state' r: as the kernels have it, values first.
TEST(rwkv7, published_form) {
  const index_t T = 40, D = 16;
  cases::linear_operands<float> x(mixer, {1, 1, 1, 1, T, D, D}, 3);
  const auto number = [](float e) { return static_cast<double>(e); };
  mix::rwkv7(mix::rwkv7_inputs{.r = x.call().q,
                               .k = x.call().k,
                               .v = x.call().v,
                               .a = x.call().b,
                               .b = x.call().a,
                               .log_decay = x.call().log_decay},
             x.out.view(), mix::rwkv_options{.final_state = x.final_state.view()});
  std::vector<double> S(static_cast<std::size_t>(D * D));
  const auto at = [&](index_t value, index_t key) -> double& { return S[static_cast<std::size_t>(value * D + key)]; };
  for (index_t t = 0; t < T; ++t) {
    for (index_t i = 0; i < D; ++i) {
      double sa = 0, out = 0;
      for (index_t j = 0; j < D; ++j) sa += at(i, j) * number(x.b(0, 0, t, j));
      for (index_t j = 0; j < D; ++j) {
        at(i, j) = at(i, j) * std::exp(number(x.log_decay(0, 0, t, j))) + sa * number(x.a(0, 0, t, j)) +
                   number(x.v(0, 0, t, i)) * number(x.k(0, 0, t, j));
        out += at(i, j) * number(x.q(0, 0, t, j));
      }
      EXPECT_NEAR(number(x.out(0, 0, t, i)), out, 1e-5);
    }
  }
  for (index_t i = 0; i < D; ++i)
    for (index_t j = 0; j < D; ++j) EXPECT_NEAR(number(x.final_state(0, 0, j, i)), at(i, j), 1e-5);
}

}  // namespace
