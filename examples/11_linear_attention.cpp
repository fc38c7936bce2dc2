// SPDX-License-Identifier: Apache-2.0
// Linear attention: a prompt goes in as one call, then token by token; one state, of a size that does not grow, is all that is kept.
//
// The same function does both: T = 1 is the step. A prompt that is cut at multiples of 16 tokens leaves the very same state.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <tokenmix/linear.hpp>

namespace mix = tokenmix;

constexpr mix::index_t H = 4, T = 100, D = 32, prompt = 64;

int main() {
  std::mt19937 random(11);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q({1, H, T, D}), k({1, H, T, D}), v({1, H, T, D});  // (B, H, T, D), (B, H, T, D), (B, H, T, Dv)
  mix::tensor<float, 3> log_decay({1, H, T}), beta({1, H, T});              // (B, H, T)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  for (float& g : log_decay) g = -0.1f * std::fabs(normal(random));
  for (float& b : beta) b = 1 / (1 + std::exp(normal(random)));

  // All tokens at once. Keys and queries are normalised inside the kernel.
  const auto rule = [&](mix::index_t first, mix::index_t count, mix::tensor<float, 4>& state, mix::tensor<float, 4>& out) {
    mix::gated_delta_rule(mix::gated_delta_inputs{.q = q.slice(2, first, count),
                                                  .k = k.slice(2, first, count),
                                                  .v = v.slice(2, first, count),
                                                  .log_decay = log_decay.slice(2, first, count),
                                                  .beta = beta.slice(2, first, count),
                                                  .initial_state = state},
                          out.slice(2, first, count),
                          mix::gated_delta_options{.feature = mix::l2_normalized{}, .final_state = state.view()});
  };
  mix::tensor<float, 4> whole({1, H, T, D}), out = whole;             // (B, H, T, Dv)
  mix::tensor<float, 4> state({1, H, D, D}), stepped = state, cut = state;  // (B, H, D, Dv), zero at the start
  rule(0, T, state, whole);

  // A prompt, then one token at a time; the state goes in and comes out in place.
  rule(0, prompt, stepped, out);
  for (mix::index_t t = prompt; t < T; ++t) rule(t, 1, stepped, out);
  float largest = 0;
  for (mix::index_t i = 0; i < out.size(); ++i) largest = std::max(largest, std::fabs(out.data()[i] - whole.data()[i]));

  // Two halves of a prompt, as two machines or two turns of a conversation would see it.
  rule(0, 48, cut, out);
  rule(48, T - 48, cut, out);
  const bool same = std::equal(cut.begin(), cut.end(), state.begin());

  std::cout << "state: " << state.size() * 4 / 1024 << " KiB, however long the sequence\n"
            << "prompt and steps differ from one call by " << largest << "\n"
            << "cut at 48 = 3 * 16 tokens: the state is " << (same ? "the same, bit for bit" : "another") << "\n";
  return largest < 1e-5f && same ? 0 : 1;
}
