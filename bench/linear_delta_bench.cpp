// SPDX-License-Identifier: Apache-2.0
// Linear mixers with more than a gate: RWKV-6 and 7, identity and diagonal plus low rank, products of delta steps; prefill in
// useful work beside the FMA peak and beside the gated delta rule, steps in bytes of state; the same token by token.
#include "peers/token_low_rank.hpp"
#include "support/linear_lines.hpp"

#include <tokenmix/linear.hpp>

#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

enum class rule { gated_delta, rwkv6, rwkv7, identity_low_rank, product2, product4 };

constexpr const char* name_of(rule r) {
  constexpr const char* names[] = {"gated_delta",       "rwkv6",           "rwkv7",
                                   "identity_low_rank", "delta_product_2", "delta_product_4"};
  return names[static_cast<int>(r)];
}
constexpr index_t steps_of(rule r) { return r == rule::product2 ? 2 : r == rule::product4 ? 4 : 1; }
constexpr bool is_product(rule r) { return steps_of(r) > 1; }
constexpr bool decays(rule r) { return r == rule::rwkv6 || r == rule::rwkv7; }

/// Operands of all rules at one shape.
struct rule_tensors {
  attention_shape shape;
  mix::tensor<float, 4> q, a, b, out, gates, state, beta;
  mix::tensor<float, 5> k, v;
  mix::tensor<float, 3> head_gate;
  mix::tensor<float, 2> bonus;

  explicit rule_tensors(const attention_shape& s) : shape(s) {
    const index_t n = s.S / s.T;  // steps
    q = a = b = out = gates = mix::tensor<float, 4>({s.B, s.H, s.T, s.D});
    k = v = mix::tensor<float, 5>({s.B, s.H, s.T, n, s.D});
    state = mix::tensor<float, 4>({s.B, s.H, s.D, s.D});
    beta = mix::tensor<float, 4>({s.B, s.H, s.T, n});
    head_gate = mix::tensor<float, 3>({s.B, s.H, s.T});
    bonus = mix::tensor<float, 2>({s.H, s.D});
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.D));
    const float unit = 1 / std::sqrt(static_cast<float>(s.D));
    for (float& x : q) x = next();
    for (float& x : k) x = next() * unit;
    for (float& x : v) x = next();
    for (float& x : b) x = next() * unit;
    for (index_t i = 0; i < a.size(); ++i) a.data()[i] = -0.5f * b.data()[i];
    for (float& x : gates) x = -0.1f * std::abs(next());
    for (float& x : head_gate) x = -0.1f * std::abs(next());
    for (float& x : beta) x = 0.5f + 0.1f * std::tanh(next());
    for (float& x : bonus) x = next();
  }
  // Of rules with one step: rank 4.
  mix::tensor_view<const float, 4> rows(const mix::tensor<float, 5>& x) const {
    return {x.data(), {shape.B, shape.H, shape.T, shape.D}, {x.stride(0), x.stride(1), x.stride(2), 1}};
  }
};

/// A call of the library; a step goes from the state to itself.
void call(rule r, rule_tensors& x, bool step, const executor& on) {
  const mix::tensor_view<const float, 4> q = x.q, a = x.a, b = x.b, gates = x.gates, k = x.rows(x.k), v = x.rows(x.v);
  const mix::tensor_view<const float, 4> s0 = step ? x.state.view() : mix::tensor_view<float, 4>();
  const mix::tensor_view<float, 4> s1 = step ? x.state.view() : mix::tensor_view<float, 4>();
  const mix::tensor_view<const float, 3> head_gate = x.head_gate;
  const mix::tensor_view<const float, 3> beta(x.beta.data(), head_gate.shape());  // of rules with one step
  const auto out = x.out.view();
  const double scale = 1 / std::sqrt(static_cast<double>(x.shape.D));
  switch (r) {
    case rule::gated_delta:
      mix::gated_delta_rule(
          mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = head_gate, .beta = beta, .initial_state = s0},
          out, mix::gated_delta_options{.final_state = s1}, on);
      break;
    case rule::rwkv6:
      mix::rwkv6(
          mix::rwkv6_inputs{.r = q, .k = k, .v = v, .log_decay = gates, .bonus = x.bonus.view(), .initial_state = s0},
          out, mix::rwkv_options{.scale = scale, .final_state = s1}, on);
      break;
    case rule::rwkv7:
      mix::rwkv7(mix::rwkv7_inputs{.r = q, .k = k, .v = v, .a = b, .b = a, .log_decay = gates, .initial_state = s0},
                 out, mix::rwkv_options{.scale = scale, .final_state = s1}, on);
      break;
    case rule::identity_low_rank:
      mix::generalized_delta_rule(
          mix::generalized_delta_inputs{.q = q, .k = k, .v = v, .a = a, .b = b, .initial_state = s0}, out,
          mix::generalized_delta_options{.final_state = s1}, on);
      break;
    case rule::product2:
    case rule::product4:
      mix::delta_product(
          mix::delta_product_inputs{
              .q = q, .k = x.k.view(), .v = x.v.view(), .beta = x.beta.view(), .initial_state = s0},
          out, mix::delta_product_options{.final_state = s1}, on);
      break;
  }
}

template <rule R>
void token_by_token(rule_tensors& x, const executor& on) {
  const attention_shape& s = x.shape;
  constexpr index_t n = steps_of(R);
  on.for_each(s.B * s.H, [&](index_t head, index_t) {
    thread_local std::vector<float> state;
    const index_t rows = head * s.T * s.D;
    const low_rank_rows in{
        x.q.data() + rows, x.k.data() + n * rows, x.v.data() + n * rows,       x.gates.data() + rows,
        x.a.data() + rows, x.b.data() + rows,     x.bonus.data() + head * s.D, x.beta.data() + head * s.T * n};
    token_low_rank<R == rule::rwkv6, is_product(R) ? n : 0, decays(R)>(in, x.out.data() + rows, s.T, s.D,
                                                                       1 / std::sqrt(static_cast<float>(s.D)), state);
  });
}

/// The largest error of the last head against the recurrence in double, from an empty state.
double error_of(rule r, rule_tensors& x) {
  const attention_shape& s = x.shape;
  const index_t e = s.B - 1, h = s.H - 1, columns = 16;
  const auto number = [](float f) { return static_cast<double>(f); };
  std::vector<double> S(static_cast<std::size_t>(s.D * columns));
  double largest = 0.0;
  for (index_t t = 0; t < s.T; ++t) {
    for (index_t c = 0; c < columns; ++c) {
      const index_t channel = c * s.D / columns;
      double* column = S.data() + c * s.D;
      double carried = 0.0, o = 0.0;
      for (index_t d = 0; d < s.D; ++d) {
        carried += number(x.b(e, h, t, d)) * column[d];
        const double own = number(x.k(e, h, t, 0, d)) * number(x.v(e, h, t, 0, channel));
        if (r == rule::rwkv6) o += number(x.q(e, h, t, d)) * (column[d] + number(x.bonus(h, d)) * own);
        if (decays(r)) column[d] *= std::exp(number(x.gates(e, h, t, d)));
        if (r == rule::gated_delta) column[d] *= std::exp(number(x.head_gate(e, h, t)));
      }
      for (index_t i = 0; i < steps_of(r); ++i) {
        double u = number(x.v(e, h, t, i, channel));
        if (is_product(r) || r == rule::gated_delta) {
          for (index_t d = 0; d < s.D; ++d) u -= number(x.k(e, h, t, i, d)) * column[d];
          u *= number(x.beta(e, h, t, i));
        }
        for (index_t d = 0; d < s.D; ++d) column[d] += number(x.k(e, h, t, i, d)) * u;
      }
      for (index_t d = 0; d < s.D; ++d) {
        if (r == rule::rwkv7 || r == rule::identity_low_rank) column[d] += number(x.a(e, h, t, d)) * carried;
        if (r != rule::rwkv6) o += number(x.q(e, h, t, d)) * column[d];
      }
      const double error = std::abs(number(x.out(e, h, t, channel)) - o / std::sqrt(static_cast<double>(s.D)));
      if (!(error <= largest)) largest = error;
    }
  }
  return largest;
}

// Useful work as in linear_bench: four operations per element of the state and token, or step of a product.
double items(rule r, const attention_shape& s) {
  return static_cast<double>(s.B * s.H * s.T * steps_of(r)) * static_cast<double>(s.D * s.D);
}

template <rule R>
void add_prefill(const options& chosen, const attention_shape& s, index_t threads) {
  const auto add = [&](const char* who, auto function) {
    add_prefill_line<rule_tensors>(chosen, std::string("prefill_") + name_of(R) + "/float/" + who, s, threads,
                                   4.0 * items(R, s), function, [](rule_tensors& data) { return error_of(R, data); });
  };
  add("tokenmix", [](rule_tensors& data, const executor& on) { call(R, data, false, on); });
  if constexpr (R != rule::gated_delta)
    add("recurrence", [](rule_tensors& data, const executor& on) { token_by_token<R>(data, on); });
}

template <rule R>
void add_step(const options& chosen, index_t heads, index_t width, index_t threads) {
  add_step_line<rule_tensors>(
      chosen, std::string("step_") + name_of(R) + "/float/tokenmix", {1, heads, heads, 1, steps_of(R), width}, threads,
      [](rule_tensors& data, const executor& on) { call(R, data, true, on); },
      [](rule_tensors& data) { return error_of(R, data); });
}

template <rule R>
void add_all_of(const options& chosen, index_t threads) {
  for (const index_t D : {64, 128}) {
    for (const index_t T : {2048, 8192}) {
      if (chosen.brief && (T > 2048 || D > 64)) continue;
      add_prefill<R>(chosen, {1, 8, 8, T, T * steps_of(R), D}, threads);
    }
    for (const index_t heads : {8, 64}) add_step<R>(chosen, heads, D, threads);
  }
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    add_all_of<rule::gated_delta>(chosen, n);
    add_all_of<rule::rwkv6>(chosen, n);
    add_all_of<rule::rwkv7>(chosen, n);
    add_all_of<rule::identity_low_rank>(chosen, n);
    add_all_of<rule::product2>(chosen, n);
    add_all_of<rule::product4>(chosen, n);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "linear mixers with more than a gate", add_all); }
