// SPDX-License-Identifier: Apache-2.0
// The first attention: queries, keys and values, a mask, one call. The answer is known without computing it.
//
// Everything is zero but one channel of the values, so all scores are equal and every query takes the plain mean of the
// values it sees. Under a causal mask, token 7 sees tokens 0 to 7.

#include <iostream>
#include <tokenmix/softmax.hpp>
namespace mix = tokenmix;

int main() {
  mix::tensor<float, 4> q({1, 8, 512, 64}), out({1, 8, 512, 64});  // (B, H, T, D), (B, H, T, Dv)
  mix::tensor<float, 4> k({1, 2, 512, 64}), v({1, 2, 512, 64});    // (B, Hk, S, D), (B, Hk, S, Dv)
  for (mix::index_t t = 0; t < 512; ++t) v(0, 0, t, 0) = static_cast<float>(t);
  mix::softmax_attention(q, k, v, out, mix::softmax_options{.mask = mix::causal{}});
  std::cout << out(0, 0, 7, 0) << "\n";  // 3.5: all scores are equal, so token 7 takes the mean of 0, 1, ..., 7
  return out(0, 0, 7, 0) == 3.5f ? 0 : 1;
}
