// SPDX-License-Identifier: Apache-2.0
// The linear family: prefill in useful work beside the FMA peak, steps in bytes of state beside the bandwidth; the same token
// by token, and softmax attention at the same shape.
#include "peers/token_recurrence.hpp"
#include "support/linear_lines.hpp"

#include <tokenmix/linear.hpp>
#include <tokenmix/softmax.hpp>

#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

enum class rule { linear, head_gate, key_gate, value_gate, delta, gated_delta, kimi_delta };

constexpr const char* name_of(rule r) {
  constexpr const char* names[] = {
      "linear",      "gate_per_head", "gate_per_key_channel", "gate_per_value_channel", "delta_rule",
      "gated_delta", "kimi_delta"};
  return names[static_cast<int>(r)];
}
constexpr bool solves(rule r) { return r == rule::delta || r == rule::gated_delta || r == rule::kimi_delta; }
constexpr forgets gate_of(rule r) {
  if (r == rule::head_gate || r == rule::gated_delta) return forgets::per_head;
  if (r == rule::key_gate || r == rule::kimi_delta) return forgets::per_key_channel;
  return r == rule::value_gate ? forgets::per_value_channel : forgets::nothing;
}

/// Operands of all rules at one shape. `by_token`: (B, T, H, D) in memory.
struct linear_tensors {
  attention_shape shape;
  mix::tensor<float, 4> q, k, v, out, gates, state;
  mix::tensor<float, 3> head_gate, beta;
  bool by_token;

  explicit linear_tensors(const attention_shape& s) : shape(s), by_token(s.Hk != s.H) {
    const mix::extents<4> rows = by_token ? mix::extents<4>{s.B, s.T, s.H, s.D} : mix::extents<4>{s.B, s.H, s.T, s.D};
    q = k = v = out = gates = mix::tensor<float, 4>(rows);
    state = mix::tensor<float, 4>({s.B, s.H, s.D, s.D});
    head_gate = beta = mix::tensor<float, 3>({s.B, s.H, s.T});
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.D));
    const float unit = 1 / std::sqrt(static_cast<float>(s.D));
    for (float& x : q) x = next();
    for (float& x : k) x = next() * unit;
    for (float& x : v) x = next();
    for (float& x : gates) x = -0.1f * std::abs(next());
    for (float& x : head_gate) x = -0.1f * std::abs(next());
    for (float& x : beta) x = 0.5f + 0.1f * std::tanh(next());
  }
  mix::tensor_view<const float, 4> rows(const mix::tensor<float, 4>& x) const {
    return by_token ? x.view().permuted({0, 2, 1, 3}) : x.view();
  }
  mix::tensor_view<float, 4> result() { return by_token ? out.view().permuted({0, 2, 1, 3}) : out.view(); }
};

/// A call of the library; a step goes from the state to itself.
void call(rule r, linear_tensors& x, bool step, const executor& on) {
  const auto q = x.rows(x.q), k = x.rows(x.k), v = x.rows(x.v), gates = x.rows(x.gates);
  const mix::tensor_view<const float, 3> head_gate = x.head_gate, beta = x.beta;
  const mix::tensor_view<const float, 4> s0 = step ? x.state.view() : mix::tensor_view<float, 4>();
  const mix::tensor_view<float, 4> s1 = step ? x.state.view() : mix::tensor_view<float, 4>();
  const auto out = x.result();
  const double scale = 1 / std::sqrt(static_cast<double>(x.shape.D));
  switch (r) {
    case rule::linear:
      mix::linear_attention(mix::linear_inputs{.q = q, .k = k, .v = v, .initial_state = s0}, out,
                            mix::linear_options{.scale = scale, .final_state = s1}, on);
      break;
    case rule::head_gate:
      mix::gated_linear_attention(
          mix::gated_linear_inputs{.q = q, .k = k, .v = v, .log_decay = head_gate, .initial_state = s0}, out,
          mix::gated_linear_options{.final_state = s1}, on);
      break;
    case rule::key_gate:
      mix::gated_linear_attention(
          mix::gated_linear_inputs{.q = q, .k = k, .v = v, .log_decay = gates, .initial_state = s0}, out,
          mix::gated_linear_options{.final_state = s1}, on);
      break;
    case rule::value_gate:
      mix::gated_linear_attention(
          mix::gated_linear_inputs{.q = q, .k = k, .v = v, .log_decay = gates, .initial_state = s0}, out,
          mix::gated_linear_options{.channels = mix::value_channels{}, .final_state = s1}, on);
      break;
    case rule::delta:
      mix::delta_rule(mix::delta_inputs{.q = q, .k = k, .v = v, .beta = beta, .initial_state = s0}, out,
                      mix::delta_options{.final_state = s1}, on);
      break;
    case rule::gated_delta:
      mix::gated_delta_rule(
          mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = head_gate, .beta = beta, .initial_state = s0},
          out, mix::gated_delta_options{.final_state = s1}, on);
      break;
    case rule::kimi_delta:
      mix::kimi_delta_attention(
          mix::gated_delta_inputs{.q = q, .k = k, .v = v, .log_decay = gates, .beta = beta, .initial_state = s0}, out,
          mix::gated_delta_options{.final_state = s1}, on);
      break;
  }
}

template <rule R>
void token_by_token(linear_tensors& x, const executor& on) {
  const attention_shape& s = x.shape;
  on.for_each(s.B * s.H, [&](index_t head, index_t) {
    thread_local std::vector<float> state;
    const index_t rows = head * s.T * s.D;
    const bool per_head = gate_of(R) == forgets::per_head;
    const token_rows in{x.q.data() + rows, x.k.data() + rows, x.v.data() + rows,
                        per_head ? x.head_gate.data() + head * s.T : x.gates.data() + rows, x.beta.data() + head * s.T};
    token_recurrence<gate_of(R), solves(R)>(in, x.out.data() + rows, s.T, s.D, 1 / std::sqrt(static_cast<float>(s.D)),
                                            state);
  });
}

/// The largest error of the last head against the recurrence in double, from an empty state; relative to the largest output
/// where that is above 1: a sum over a million tokens is large.
double error_of(rule r, linear_tensors& x) {
  const attention_shape& s = x.shape;
  const auto q = x.rows(x.q), k = x.rows(x.k), v = x.rows(x.v), gates = x.rows(x.gates);
  const auto out = x.result();
  const index_t b = s.B - 1, h = s.H - 1, columns = s.T > 100000 ? 2 : 16;
  const auto number = [](float e) { return static_cast<double>(e); };
  std::vector<double> S(static_cast<std::size_t>(s.D * columns));
  double largest = 0.0, output = 1.0;
  for (index_t t = 0; t < s.T; ++t) {
    for (index_t c = 0; c < columns; ++c) {
      const index_t channel = c * s.D / columns;
      double read = 0.0, o = 0.0;
      for (index_t d = 0; d < s.D; ++d) {
        double& e = S[static_cast<std::size_t>(c * s.D + d)];
        if (gate_of(r) == forgets::per_head) e *= std::exp(number(x.head_gate(b, h, t)));
        if (gate_of(r) == forgets::per_key_channel) e *= std::exp(number(gates(b, h, t, d)));
        if (gate_of(r) == forgets::per_value_channel) e *= std::exp(number(gates(b, h, t, channel)));
        read += number(k(b, h, t, d)) * e;
      }
      const double u =
          solves(r) ? number(x.beta(b, h, t)) * (number(v(b, h, t, channel)) - read) : number(v(b, h, t, channel));
      for (index_t d = 0; d < s.D; ++d) {
        double& e = S[static_cast<std::size_t>(c * s.D + d)];
        e += number(k(b, h, t, d)) * u;
        o += number(q(b, h, t, d)) * e;
      }
      o /= std::sqrt(number(static_cast<float>(s.D)));
      output = std::max(output, std::abs(o));
      const double error = std::abs(number(out(b, h, t, channel)) - o);
      if (!(error <= largest)) largest = error;
    }
  }
  return largest / output;
}

// Useful work: four operations per element of the state and token, whatever the rule; a delta rule needs six.
double items(const attention_shape& s) { return static_cast<double>(s.B * s.H * s.T) * static_cast<double>(s.D * s.D); }

template <rule R>
void add_prefill(const options& chosen, const std::string& name, const attention_shape& s, index_t threads,
                 void (*function)(linear_tensors&, const executor&)) {
  add_prefill_line<linear_tensors>(chosen, name, s, threads, 4.0 * items(s), function,
                                   [](linear_tensors& data) { return error_of(R, data); });
}

template <rule R>
void whole(linear_tensors& data, const executor& on) {
  call(R, data, false, on);
}

template <rule R>
void add_rule(const options& chosen, const attention_shape& s, index_t threads) {
  const std::string family = std::string("prefill_") + name_of(R) + "/float/";
  add_prefill<R>(chosen, family + "tokenmix", s, threads, whole<R>);
  attention_shape by_token = s;
  by_token.Hk = 1;  // another key among the kept tensors: rows of all heads side by side
  add_prefill<R>(chosen, family + "by_token", by_token, threads, whole<R>);
  add_prefill<R>(chosen, family + "recurrence", s, threads, token_by_token<R>);
}

// Softmax attention over the same tokens, in the same unit, so that the table shows who is ahead at which length.
void add_softmax(const options& chosen, const attention_shape& s, index_t threads) {
  add_prefill_line<linear_tensors>(
      chosen, "prefill_softmax_causal/float/tokenmix", s, threads, 4.0 * items(s),
      [](linear_tensors& data, const executor& on) {
        mix::softmax_attention(data.rows(data.q), data.rows(data.k), data.rows(data.v), data.result(),
                               mix::softmax_options{.mask = mix::causal{}}, on);
      },
      [](linear_tensors& data) {
        return largest_error(data.rows(data.q), data.rows(data.k), data.rows(data.v),
                             mix::tensor_view<float, 4>(data.result()), {visible_keys::kind::causal});
      });
}

template <rule R>
void add_step(const options& chosen, index_t heads, index_t width, index_t threads) {
  add_step_line<linear_tensors>(
      chosen, std::string("step_") + name_of(R) + "/float/tokenmix", {1, heads, heads, 1, 1, width}, threads,
      [](linear_tensors& data, const executor& on) { call(R, data, true, on); },
      [](linear_tensors& data) { return error_of(R, data); });
}

template <rule R>
void add_all_of(const options& chosen, index_t threads) {
  for (const index_t D : {64, 128}) {
    for (const index_t T : {2048, 8192}) {
      if (chosen.brief && (T > 2048 || D > 64)) continue;
      add_rule<R>(chosen, {1, 8, 8, T, T, D}, threads);
    }
    for (const index_t heads : {8, 64}) add_step<R>(chosen, heads, D, threads);
  }
}

// One head over a million tokens: blocks of time are all that several workers can share.
template <rule R>
void add_long(const options& chosen, index_t threads) {
  const index_t T = index_t{1} << 20;
  add_prefill<R>(chosen, std::string("long_") + name_of(R) + "/float/tokenmix", {1, 1, 1, T, T, 128}, threads,
                 whole<R>);
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    add_all_of<rule::linear>(chosen, n);
    add_all_of<rule::head_gate>(chosen, n);
    add_all_of<rule::key_gate>(chosen, n);
    add_all_of<rule::value_gate>(chosen, n);
    add_all_of<rule::delta>(chosen, n);
    add_all_of<rule::gated_delta>(chosen, n);
    add_all_of<rule::kimi_delta>(chosen, n);
    for (const index_t T : {512, 2048, 8192}) {
      if (!chosen.brief || T < 8192) add_softmax(chosen, {1, 8, 8, T, T, 64}, n);
    }
    if (chosen.brief) continue;
    add_long<rule::linear>(chosen, n);
    add_long<rule::head_gate>(chosen, n);
    add_long<rule::key_gate>(chosen, n);
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "linear mixers", add_all); }
