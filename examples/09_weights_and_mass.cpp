// SPDX-License-Identifier: Apache-2.0
// The weights themselves: of some rows, as a mean over heads, or as the mass that each key takes over all queries. Only what
// is asked for is written; there is no T x S array behind it.
#include <algorithm>
#include <array>
#include <cmath>
#include <iostream>
#include <numeric>
#include <random>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

int main() {
  constexpr mix::index_t H = 4, Hk = 2, T = 50, D = 16;
  std::mt19937 random(9);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q({1, H, T, D});   // (B, H, T, D)
  mix::tensor<float, 4> k({1, Hk, T, D});  // (B, Hk, S, D), S = T
  for (auto* x : {&q, &k}) std::generate(x->begin(), x->end(), [&] { return normal(random); });

  // Rows 0 and 49 of each head.
  const std::array<mix::index_t, 2> rows{0, T - 1};
  mix::tensor<float, 4> weights({1, H, 2, T});  // (B, H, R, S)
  mix::softmax_attention_weights(q, k, weights.view(), mix::softmax_options{.mask = mix::causal{}, .rows = rows});
  const bool first_sees_itself = weights(0, 0, 0, 0) == 1 && weights(0, 0, 0, 1) == 0;

  // The mean over heads of every row.
  mix::tensor<float, 3> mean({1, T, T});  // (B, R, S)
  mix::softmax_attention_weights(q, k, mean.view(), mix::softmax_options{.mask = mix::causal{}});
  float of_heads = 0;
  for (mix::index_t h = 0; h < H; ++h) of_heads += weights(0, h, 1, 7) / static_cast<float>(H);

  // What each key takes of all queries together: T rows of weights that sum to one give T for each head.
  mix::tensor<float, 3> mass({1, H, T});  // (B, H, S)
  mix::attention_column_mass(q, k, mass.view(), mix::softmax_options{.mask = mix::causal{}});
  const float total = std::accumulate(mass.row(0, 0), mass.row(0, 0) + T, 0.f);
  const auto heaviest = std::max_element(mass.row(0, 0), mass.row(0, 0) + T) - mass.row(0, 0);

  std::cout << "key 7 takes " << mean(0, T - 1, 7) << " of the last query, as a mean over heads\nhead 0: all keys take "
            << total << " of " << T << " queries, key " << heaviest << " the most: " << mass(0, 0, heaviest) << "\n";
  return first_sees_itself && std::fabs(of_heads - mean(0, T - 1, 7)) < 1e-6f &&
                 std::fabs(total - static_cast<float>(T)) < 1e-4f
             ? 0
             : 1;
}
