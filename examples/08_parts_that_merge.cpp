// SPDX-License-Identifier: Apache-2.0
// Parts that merge: attention over some of the keys leaves a state (m, l, acc) behind, states of neighbours merge, and the
// merged state is read. That is how keys are spread over passes, sockets or machines.
//
// Parts that are whole leaves of 256 keys, merged as the tree would, give the bits of one call; other parts differ by rounding.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

constexpr mix::index_t H = 4, T = 10, S = 512, D = 32;

struct owned_state {
  mix::tensor<float, 3> m{{1, H, T}}, l{{1, H, T}};  // (B, H, T)
  mix::tensor<float, 4> acc{{1, H, T, D}};           // (B, H, T, Dv)
  mix::softmax_state<float> view() { return {.m = m, .l = l, .acc = acc}; }
};

int main() {
  std::mt19937 random(8);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q({1, H, T, D});                   // (B, H, T, D)
  mix::tensor<float, 4> k({1, H, S, D}), v({1, H, S, D});  // (B, H, S, D), (B, H, S, Dv)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  mix::tensor<float, 4> whole({1, H, T, D});  // (B, H, T, Dv)
  mix::softmax_attention(q, k, v, whole);

  // The first `split` keys, the others, and both together; the answer is how far that is from one call.
  const auto in_two_parts = [&](mix::index_t split) {
    owned_state left, right;
    const auto absorb = [&](mix::index_t first, mix::index_t count, owned_state& state) {
      mix::softmax_attention_state(
          mix::softmax_inputs<float, float>{.q = q, .k = k.slice(2, first, count), .v = v.slice(2, first, count)},
          state.view());
    };
    absorb(0, split, left);
    absorb(split, S - split, right);
    mix::merge(left.view(), right.view());
    mix::tensor<float, 4> out({1, H, T, D});  // (B, H, T, Dv)
    mix::tensor<float, 3> lse({1, H, T});     // (B, H, T): log of the sum of exponentials
    mix::finish(left.view(), out.view(), lse.view());
    float largest = 0;
    for (mix::index_t i = 0; i < out.size(); ++i) {
      largest = std::max(largest, std::fabs(out.data()[i] - whole.data()[i]));
    }
    return largest;
  };
  const float at_leaf = in_two_parts(256), elsewhere = in_two_parts(100);
  std::cout << "split after 256 keys: differs from one call by " << at_leaf
            << "\nsplit after 100 keys: differs from one call by " << elsewhere << "\n";
  return at_leaf == 0 && elsewhere < 1e-6f ? 0 : 1;
}
