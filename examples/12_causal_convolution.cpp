// SPDX-License-Identifier: Apache-2.0
// A short causal convolution: a prompt goes in as one call, then token by token; its last three inputs are the state.
//
// One server holds the states of many conversations in a pool: every sequence of a call says which of them is its own. The
// layout of the data does not matter either: channels or time may be contiguous.
#include <algorithm>
#include <cstdint>
#include <iostream>
#include <random>
#include <tokenmix/state_space.hpp>
#include <vector>

namespace mix = tokenmix;

constexpr mix::index_t B = 2, T = 40, C = 24, k = 4, prompt = 30, slots = 5;

int main() {
  std::mt19937 random(12);
  std::normal_distribution<float> normal;
  mix::tensor<float, 3> x({B, T, C}), whole({B, T, C}), stepped({B, T, C});  // (B, T, C)
  mix::tensor<float, 2> weight({C, k});                                      // (C, k)
  mix::tensor<float, 1> bias({C});                                           // (C)
  std::generate(x.begin(), x.end(), [&] { return normal(random); });
  std::generate(weight.begin(), weight.end(), [&] { return normal(random); });
  std::generate(bias.begin(), bias.end(), [&] { return normal(random); });

  // All tokens at once.
  mix::causal_conv1d(mix::causal_conv1d_inputs<float>{.x = x, .weight = weight, .bias = bias}, whole.view(),
                     mix::causal_conv1d_options<mix::silu>{});

  // A prompt, then one token at a time. The two sequences keep their states in slots 3 and 1 of the pool.
  mix::tensor<float, 3> pool({slots, k - 1, C});  // (states, k - 1, C), zero at the start
  const std::vector<std::int32_t> slot{3, 1};
  const auto part = [&](mix::index_t first, mix::index_t count) {
    mix::causal_conv1d(
        mix::causal_conv1d_inputs<float>{
            .x = x.slice(1, first, count), .weight = weight, .bias = bias, .initial_state = pool},
        stepped.slice(1, first, count),
        mix::causal_conv1d_options<mix::silu>{.state_index = slot, .final_state = pool.view()});
  };
  part(0, prompt);
  for (mix::index_t t = prompt; t < T; ++t) part(t, 1);
  const bool same = std::equal(whole.begin(), whole.end(), stepped.begin());

  // The same numbers with time contiguous, overwritten in place.
  mix::tensor<float, 3> lines({B, C, T});  // (B, C, T)
  for (mix::index_t b = 0; b < B; ++b)
    for (mix::index_t t = 0; t < T; ++t)
      for (mix::index_t c = 0; c < C; ++c) lines(b, c, t) = x(b, t, c);
  mix::causal_conv1d(mix::causal_conv1d_inputs<float>{.x = lines, .weight = weight, .bias = bias}, lines.view(),
                     mix::causal_conv1d_options<mix::silu>{.axis = 2});
  bool same_lines = true;
  for (mix::index_t b = 0; b < B; ++b)
    for (mix::index_t t = 0; t < T; ++t)
      for (mix::index_t c = 0; c < C; ++c) same_lines = same_lines && lines(b, c, t) == whole(b, t, c);

  std::cout << "state: " << (k - 1) * C << " numbers per sequence\n"
            << "a prompt and " << T - prompt << " steps are " << (same ? "the same" : "not the same")
            << " as one call, bit for bit\n"
            << "time contiguous and in place: " << (same_lines ? "the same" : "not the same") << "\n";
  return same && same_lines ? 0 : 1;
}
