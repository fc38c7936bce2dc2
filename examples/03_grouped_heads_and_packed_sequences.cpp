// SPDX-License-Identifier: Apache-2.0
// Grouped heads and packed sequences: four query heads share two key heads, and three sequences of different lengths stand
// one after the other in one buffer. Neither needs a copy, and no sequence sees another.
//
// Each sequence and head is then computed on its own, through slices of the same buffers: the bits are the same.
#include <algorithm>
#include <array>
#include <cstdint>
#include <iostream>
#include <random>
#include <span>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

int main() {
  constexpr mix::index_t H = 4, Hk = 2, D = 16;
  const std::array<std::int32_t, 4> offsets{0, 5, 6, 13};  // sequences of 5, 1 and 7 tokens

  std::mt19937 random(3);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q({1, H, 13, D});   // (B, H, T, D)
  mix::tensor<float, 4> k({1, Hk, 13, D});  // (B, Hk, S, D)
  mix::tensor<float, 4> v({1, Hk, 13, D});  // (B, Hk, S, Dv)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });

  mix::tensor<float, 4> out({1, H, 13, D});  // (B, H, T, Dv)
  mix::softmax_attention(
      q, k, v, out,
      mix::softmax_options{.mask = mix::causal{},  // causal within each sequence
                           .sequences = mix::packed{.offsets = std::span<const std::int32_t>(offsets)}});

  for (std::size_t i = 0; i + 1 < offsets.size(); ++i) {
    const mix::index_t first = offsets[i], T = offsets[i + 1] - first;
    for (mix::index_t h = 0; h < H; ++h) {
      const auto alone = [&](const auto& x, mix::index_t head) {  // (1, 1, T, D), a view
        return x.slice(1, head, 1).slice(2, first, T);
      };
      const mix::index_t shared = h / (H / Hk);      // the key head of query head h
      mix::tensor<float, 4> expected({1, 1, T, D});  // (B, H, T, Dv)
      mix::softmax_attention(alone(q, h), alone(k, shared), alone(v, shared), expected,
                             mix::softmax_options{.mask = mix::causal{}});
      if (!std::equal(expected.begin(), expected.end(), out.row(0, h, first))) return 1;
    }
  }
  std::cout << "3 packed sequences, 4 heads on 2: the bits of 12 calls of their own\n";
}
