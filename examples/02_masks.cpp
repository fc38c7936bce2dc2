// SPDX-License-Identifier: Apache-2.0
// Masks are values: they compose with & | !, a lambda is one too, and render() draws what they let through.
//
// One drawing is then compared with attention itself. All scores are equal and v is the identity matrix, so row t of the
// output holds 1 / n for each of the n keys that query t sees, and zeros elsewhere.
#include <iostream>
#include <string>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

constexpr mix::index_t T = 6;  // queries
constexpr mix::index_t S = 9;  // keys: the last query stands at the last key

template <class Mask>
bool attends_as_drawn(const Mask& mask) {
  const mix::tensor<float, 4> q({1, 1, T, 4});  // (B, H, T, D), zeros
  const mix::tensor<float, 4> k({1, 1, S, 4});  // (B, Hk, S, D), zeros
  mix::tensor<float, 4> v({1, 1, S, S});        // (B, Hk, S, Dv), Dv = S
  for (mix::index_t s = 0; s < S; ++s) v(0, 0, s, s) = 1;
  mix::tensor<float, 4> out({1, 1, T, S});  // (B, H, T, Dv)
  mix::softmax_attention(q, k, v, out, mix::softmax_options{.mask = mask});

  std::string attended;
  for (mix::index_t t = 0; t < T; ++t) {
    for (mix::index_t s = 0; s < S; ++s) attended += out(0, 0, t, s) > 0 ? '#' : '.';
    attended += '\n';
  }
  return attended == mix::render(mask, T, S);
}

int main() {
  const auto sliding = mix::causal{} & mix::window{.left = 2};
  const auto distant = mix::causal{} & !mix::window{.left = 2};
  const auto streaming = mix::causal{} & (mix::window{.left = 2} | mix::first_keys{1});
  const auto every_other = mix::causal{} & [](mix::index where) { return where.key % 2 == 0; };

  std::cout << "causal\n" << mix::render(mix::causal{}, T, S);
  std::cout << "\nthe last three tokens\n" << mix::render(sliding, T, S);
  std::cout << "\nall but the last three\n" << mix::render(distant, T, S);
  std::cout << "\nthe last three and an attention sink\n" << mix::render(streaming, T, S);
  std::cout << "\na lambda: keys with even positions\n" << mix::render(every_other, T, S);
  return attends_as_drawn(streaming) ? 0 : 1;
}
