// SPDX-License-Identifier: Apache-2.0
// Mixers with gates, slots and scans of other kinds than one matrix state: useful work beside the FMA peak or the bandwidth; a
// decent token-by-token form and softmax attention at the same shape in the same program.
#include "peers/token_recurrence.hpp"
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/linear.hpp>
#include <tokenmix/softmax.hpp>

#include <string>
#include <vector>

namespace {

using namespace bench;
namespace mix = tokenmix;

/// Operands of all mixers at one shape; as many slots as channels.
struct variant_tensors {
  attention_shape shape;
  mix::tensor<float, 4> q, k, v, out, slots, write, features;
  mix::tensor<float, 3> log_decay, input_gate;
  mix::tensor<float, 2> query, channel_decay, bonus;

  explicit variant_tensors(const attention_shape& s)
      : shape(s),
        q({s.B, s.H, s.T, s.D}),
        k(q.shape()),
        v(q.shape()),
        out(q.shape()),
        slots(q.shape()),
        write(q.shape()),
        features({s.B, s.H, s.T, 16}),
        log_decay({s.B, s.H, s.T}),
        input_gate({s.B, s.H, s.T}),
        query({s.H, s.D}),
        channel_decay({s.H, s.D}),
        bonus({s.H, s.D}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.D));
    for (float& x : q) x = next();
    for (float& x : k) x = next();
    for (float& x : v) x = next();
    for (float& x : slots) x = -0.05f * std::abs(next());
    for (index_t i = 0; i < write.size(); ++i) write.data()[i] = 1 - std::exp(slots.data()[i]);
    for (float& x : features) x = next();
    for (float& x : log_decay) x = -0.02f * std::abs(next());
    for (float& x : input_gate) x = next();
    for (float& x : query) x = next();
    for (float& x : channel_decay) x = -0.1f * std::abs(next());
    for (float& x : bonus) x = next();
  }
};

double number(float x) { return static_cast<double>(x); }

/// The largest error of the last token of the last head, with weights computed as `weight(s)` in double, given up to a factor.
template <class Weight>
double error_of_mean(variant_tensors& x, Weight&& weight, bool absolute_sum) {
  const attention_shape& s = x.shape;
  const index_t b = s.B - 1, h = s.H - 1, t = s.T - 1;
  std::vector<double> weights(static_cast<std::size_t>(s.T));
  double sum = 0;
  for (index_t i = 0; i < s.T; ++i) sum += weights[static_cast<std::size_t>(i)] = weight(h, i);
  double largest = 0;
  for (index_t c = 0; c < s.D; ++c) {
    double want = 0;
    for (index_t i = 0; i < s.T; ++i) want += weights[static_cast<std::size_t>(i)] * number(x.v(b, h, i, c));
    want /= absolute_sum ? std::max(std::abs(sum), 1.0) : sum;
    const double error = std::abs(number(x.out(b, h, t, c)) - want);
    if (!(error <= largest)) largest = error;
  }
  return largest;
}

double dot(const variant_tensors& x, index_t h, index_t s) {
  double sum = 0;
  for (index_t d = 0; d < x.shape.D; ++d)
    sum += number(x.q(x.shape.B - 1, h, x.shape.T - 1, d)) * number(x.k(x.shape.B - 1, h, s, d));
  return sum / std::sqrt(static_cast<double>(x.shape.D));
}

double decay_from(const variant_tensors& x, index_t h, index_t s) {
  double sum = 0;
  for (index_t t = s + 1; t < x.shape.T; ++t) sum += number(x.log_decay(x.shape.B - 1, h, t));
  return sum;
}

/// RWKV-4 as published: token by token and channel by channel.
void rwkv4_by_token(variant_tensors& x) {
  const attention_shape& s = x.shape;
  for (index_t head = 0; head < s.B * s.H; ++head) {
    const index_t h = head % s.H;
    std::vector<float> aa(static_cast<std::size_t>(s.D)), bb = aa, pp(static_cast<std::size_t>(s.D), -1e38f);
    for (index_t t = 0; t < s.T; ++t) {
      const index_t row = (head * s.T + t) * s.D;
      for (index_t c = 0; c < s.D; ++c) {
        const auto i = static_cast<std::size_t>(c);
        const float k = x.k.data()[row + c], v = x.v.data()[row + c];
        float now = k + x.bonus(h, c), top = std::max(pp[i], now);
        float e1 = std::exp(pp[i] - top), e2 = std::exp(now - top);
        x.out.data()[row + c] = (e1 * aa[i] + e2 * v) / (e1 * bb[i] + e2);
        now = pp[i] + x.channel_decay(h, c);
        top = std::max(now, k);
        e1 = std::exp(now - top), e2 = std::exp(k - top);
        aa[i] = e1 * aa[i] + e2 * v;
        bb[i] = e1 * bb[i] + e2;
        pp[i] = top;
      }
    }
  }
}

/// An attention scan token by token.
void scan_by_token(variant_tensors& x) {
  const attention_shape& s = x.shape;
  const float scale = 1 / std::sqrt(static_cast<float>(s.D));
  for (index_t head = 0; head < s.B * s.H; ++head) {
    std::vector<float> acc(static_cast<std::size_t>(s.D));
    float m = -std::numeric_limits<float>::infinity(), l = 0;
    for (index_t t = 0; t < s.T; ++t) {
      const index_t row = (head * s.T + t) * s.D;
      float score = 0;
      for (index_t d = 0; d < s.D; ++d) score += x.query(head % s.H, d) * x.k.data()[row + d];
      score *= scale;
      const float top = std::max(m, score), keep = std::exp(m - top), enter = std::exp(score - top);
      m = top, l = l * keep + enter;
      for (index_t c = 0; c < s.D; ++c) {
        float& a = acc[static_cast<std::size_t>(c)];
        a = a * keep + enter * x.v.data()[row + c];
        x.out.data()[row + c] = a / l;
      }
    }
  }
}

/// The two recurrences of slots token by token, without the softmax between them.
void slots_by_token(variant_tensors& x) {
  const attention_shape& s = x.shape;
  std::vector<float> state, scores(static_cast<std::size_t>(s.T * s.D));
  for (index_t head = 0; head < s.B * s.H; ++head) {
    const index_t row = head * s.T * s.D;
    const float scale = 1 / std::sqrt(static_cast<float>(s.D));
    token_recurrence<forgets::per_value_channel, false>(
        {x.q.data() + row, x.k.data() + row, x.write.data() + row, x.slots.data() + row, nullptr}, scores.data(), s.T,
        s.D, scale, state);
    token_recurrence<forgets::per_key_channel, false>(
        {scores.data(), x.write.data() + row, x.v.data() + row, x.slots.data() + row, nullptr}, x.out.data() + row, s.T,
        s.D, 1, state);
  }
}

using call_of = void (*)(variant_tensors&, const executor&);
using verify_of = double (*)(variant_tensors&);

struct line_of_mixer {
  const char* name;
  call_of call;
  verify_of verify;
  double flops;  ///< per token and D^2; 0: counted in bytes of k, v and out
};

double not_verified(variant_tensors&) { return 0; }

const line_of_mixer lines[] = {
    {"forgetting/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::forgetting_attention(mix::forgetting_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = x.log_decay},
                                 x.out.view(), mix::forgetting_options{}, on);
     },
     [](variant_tensors& x) {
       return error_of_mean(
           x, [&](index_t h, index_t s) { return std::exp(dot(x, h, s) + decay_from(x, h, s)); }, false);
     },
     4},
    {"forgetting/float/softmax_causal",
     [](variant_tensors& x, const executor& on) {
       mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mix::causal{}}, on);
     },
     not_verified, 4},
    {"mlstm/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::mlstm(mix::mlstm_inputs{.q = x.q, .k = x.k, .v = x.v, .input_gate = x.input_gate, .log_decay = x.log_decay},
                  x.out.view(), mix::mlstm_options{}, on);
     },
     [](variant_tensors& x) {
       return error_of_mean(
           x,
           [&](index_t h, index_t s) {
             return dot(x, h, s) * std::exp(number(x.input_gate(x.shape.B - 1, h, s)) + decay_from(x, h, s));
           },
           true);
     },
     4},
    {"mlstm/float/gate_per_head",
     [](variant_tensors& x, const executor& on) {
       mix::gated_linear_attention(mix::gated_linear_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = x.log_decay},
                                   x.out.view(), mix::gated_linear_options{}, on);
     },
     not_verified, 4},
    {"mlstm/float/recurrence",
     [](variant_tensors& x, const executor& on) {
       on.for_each(x.shape.B * x.shape.H, [&](index_t head, index_t) {
         thread_local std::vector<float> state;
         const index_t row = head * x.shape.T * x.shape.D;
         token_recurrence<forgets::per_head, false>(
             {x.q.data() + row, x.k.data() + row, x.v.data() + row, x.log_decay.data() + head * x.shape.T, nullptr},
             x.out.data() + row, x.shape.T, x.shape.D, 1, state);
       });
     },
     not_verified, 4},
    {"gated_slots/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::gated_slot_attention(mix::gated_slot_inputs{.q = x.q, .k = x.k, .v = x.v, .log_decay = x.slots},
                                 x.out.view(), mix::gated_slot_options{}, on);
     },
     not_verified, 8},
    {"gated_slots/float/recurrence", [](variant_tensors& x, const executor&) { slots_by_token(x); }, not_verified, 8},
    {"abc/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::abc_attention(mix::abc_inputs{.q = x.q, .k = x.k, .v = x.v, .logits = x.write}, x.out.view(),
                          mix::abc_options{}, on);
     },
     not_verified, 8},
    {"rwkv4/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::rwkv4(mix::rwkv4_inputs<float>{.k = x.k, .v = x.v, .log_decay = x.channel_decay, .bonus = x.bonus},
                  x.out.view(), mix::rwkv4_options<>{}, on);
     },
     not_verified, 0},
    {"rwkv4/float/recurrence", [](variant_tensors& x, const executor&) { rwkv4_by_token(x); }, not_verified, 0},
    {"attention_scan/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::attention_scan(mix::attention_scan_inputs<float, float>{.q = x.query, .k = x.k, .v = x.v}, x.out.view(),
                           mix::attention_scan_options<>{}, on);
     },
     [](variant_tensors& x) {
       return error_of_mean(
           x,
           [&](index_t h, index_t s) {
             double sum = 0;
             for (index_t d = 0; d < x.shape.D; ++d) sum += number(x.query(h, d)) * number(x.k(x.shape.B - 1, h, s, d));
             return std::exp(sum / std::sqrt(static_cast<double>(x.shape.D)));
           },
           false);
     },
     0},
    {"attention_scan/float/recurrence", [](variant_tensors& x, const executor&) { scan_by_token(x); }, not_verified, 0},
    {"taylor_153/float/tokenmix",
     [](variant_tensors& x, const executor& on) {
       mix::linear_attention(x.features, x.features, x.v, x.out,
                             mix::linear_options{.feature = mix::taylor_second_order{}, .normalizer = mix::clamped{}},
                             on);
     },
     not_verified, -1},
};

void add_line(const options& chosen, const line_of_mixer& line, const attention_shape& s, index_t threads, bool step) {
  const std::string name = std::string(step ? "step_" : "prefill_") + line.name;
  chosen.finish(benchmark::RegisterBenchmark(
                    name.c_str(),
                    [line, name, s, threads](benchmark::State& state) {
                      auto& data = tensors_of<variant_tensors>(s);
                      const executor on = executor_of(threads);
                      const double rows = static_cast<double>(s.B * s.H * s.T), D = static_cast<double>(s.D);
                      const std::string id = name + std::to_string(s.T) + '/' + std::to_string(s.D);
                      const auto call = [&] { line.call(data, on); };
                      const auto verify = [&] { return line.verify(data); };
                      if (line.flops == 0) {
                        measure(state, id, on, {"byte", 12 * rows * D}, call, verify, 1e-3,
                                [&] { return read_bandwidth(on, static_cast<std::size_t>(12 * rows * D)); });
                      } else {
                        const double flops = line.flops < 0 ? 4 * 153 * D : line.flops * D * D;
                        measure(state, id, on, {"flop", flops * rows}, call, verify, 1e-3,
                                [&] { return fma_peak<float>(on); });
                      }
                    })
                    ->ArgNames({"B", "H", "T", "D", "threads"})
                    ->Args({s.B, s.H, s.T, s.D, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t D : {64, 128}) {
      for (const index_t T : {2048, 8192}) {
        if (chosen.brief && (T > 2048 || D > 64)) continue;
        for (const line_of_mixer& line : lines) add_line(chosen, line, {1, 8, 8, T, T, D}, n, false);
      }
      for (const line_of_mixer& line : lines) add_line(chosen, line, {1, 8, 8, 1, 1, D}, n, true);
    }
  }
}

}  // namespace

int main(int argc, char** argv) { return bench::run(argc, argv, "gates, slots and scans", add_all); }
