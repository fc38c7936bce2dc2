// SPDX-License-Identifier: Apache-2.0
// Double, and bfloat16 as storage with a float state. (float16: linear_float16_test.cpp.)
//
// Budget: the gate of linear_cases.hpp with the computing type's u, and half a unit of a 16-bit output.
#include <mixers/linear/identities.hpp>

namespace {

using cases::index_t;

struct gated {
  static constexpr bool solves = false, sums = false, decays_values = false;
  static index_t decay_channels(const cases::linear_shape& s) { return s.width; }
  static index_t beta_channels(const cases::linear_shape&) { return 0; }
  static double scale(const cases::linear_shape&) { return 0.25; }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }
  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    auto on = c.on;
    mix::gated_linear_attention(
        mix::gated_linear_inputs{
            .q = c.q, .k = c.k, .v = c.v, .log_decay = c.log_decay, .initial_state = c.initial_state},
        c.out,
        mix::gated_linear_options<mix::as_given, mix::given_log_decay, mix::key_channels, mix::whole_sequences,
                                  mix::accumulator_t<E>>{.scale = 0.25, .order = c.order, .final_state = c.final_state},
        on);
  }
};

struct gated_delta {
  static constexpr bool solves = true, sums = false, decays_values = false;
  static index_t decay_channels(const cases::linear_shape&) { return 1; }
  static index_t beta_channels(const cases::linear_shape&) { return 1; }
  static double scale(const cases::linear_shape&) { return 0.25; }
  template <class Real>
  static Real feature(Real x) {
    return x;
  }
  static double divisor(double, index_t) { return 1; }
  template <class E>
  void operator()(const cases::linear_call<E>& c) const {
    auto on = c.on;
    mix::gated_delta_rule(
        mix::gated_delta_inputs{.q = c.q,
                                .k = c.k,
                                .v = c.v,
                                .log_decay = cases::without_channels(c.log_decay),
                                .beta = cases::without_channels(c.beta),
                                .initial_state = c.initial_state},
        c.out,
        mix::gated_delta_options<mix::as_given, mix::given_log_decay, mix::whole_sequences, mix::accumulator_t<E>>{
            .scale = 0.25, .order = c.order, .final_state = c.final_state},
        on);
  }
};

template <class E>
class linear_types : public testing::Test {};
using element_types = testing::Types<mix::bfloat16, double>;
TYPED_TEST_SUITE(linear_types, element_types);

template <class E, class Mixer>
void check(const Mixer& mixer) {
  for (index_t tokens : {1, 2, 15, 16, 17, 40}) {
    for (index_t width : {3, 8, 17, 33, 64}) {
      const cases::linear_shape s{1, 2, 1, 1, tokens, width, 71 - width};
      cases::expect_oracle<E>(mixer, s, static_cast<std::uint64_t>(tokens));
      cases::expect_within_bounds<E>(mixer, s, 2);
    }
  }
  cases::expect_split<E>(mixer, {1, 2, 2, 2, 50, 20, 24}, 1);
  cases::expect_reverse_is_flipped<E>(mixer, {1, 2, 2, 2, 50, 20, 24}, 2);
  cases::expect_any_strides<E>(mixer, {2, 2, 2, 2, 20, 20, 24}, 3);
}

TYPED_TEST(linear_types, gated_linear_attention) { check<TypeParam>(gated{}); }
TYPED_TEST(linear_types, gated_delta_rule) { check<TypeParam>(gated_delta{}); }

// The state of a 16-bit prefill is float: what two halves hand on is not rounded to 16 bits.
TEST(linear_types_state, float_for_half) {
  const auto q = reference::normal<float>({1, 1, 32, 8}, 1);
  mix::tensor<mix::bfloat16, 4> x({1, 1, 32, 8}), out = x, parts = x;
  for (index_t i = 0; i < x.size(); ++i) x.data()[i] = mix::bfloat16(q.data()[i]);
  mix::tensor<float, 4> state({1, 1, 8, 8});
  mix::linear_attention(x, x, x, out);
  for (index_t first : {0, 16}) {
    mix::linear_attention(
        mix::linear_inputs{
            .q = x.slice(2, first, 16), .k = x.slice(2, first, 16), .v = x.slice(2, first, 16), .initial_state = state},
        parts.slice(2, first, 16), mix::linear_options{.final_state = state.view()});
  }
  cases::expect_same_bits<mix::bfloat16, 4>(parts, out, "two halves");
}

}  // namespace
