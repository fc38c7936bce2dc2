// SPDX-License-Identifier: Apache-2.0
// What happens to scores before the softmax, and where positions come in: score modifiers compose with |, from left to
// right; a lambda is one too; rotary_embedding turns queries and keys so that their products depend on distances alone.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <tokenmix/position.hpp>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

float largest_difference(const mix::tensor<float, 4>& a, const mix::tensor<float, 4>& b) {
  float largest = 0;
  for (mix::index_t i = 0; i < a.size(); ++i) largest = std::max(largest, std::fabs(a.data()[i] - b.data()[i]));
  return largest;
}

int main() {
  constexpr mix::index_t H = 4, T = 96, D = 32;
  const mix::extents<4> shape{1, H, T, D};
  std::mt19937 random(5);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q(shape), k(shape), v(shape);  // (B, H, T, D), (B, H, T, D), (B, H, T, Dv)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  mix::tensor<float, 4> out(shape), other(shape);  // (B, H, T, Dv)

  // A penalty per head that grows with distance, then scores bent into (-30, 30): with modifiers, and with a lambda that
  // takes a score and its index as plain numbers.
  const auto slopes = mix::alibi_slopes(H);
  const auto by_hand = [&](float score, mix::index where) {
    const auto slope = static_cast<float>(slopes[static_cast<std::size_t>(where.head)]);
    return 30 * std::tanh((score - slope * static_cast<float>(where.query - where.key)) / 30);
  };
  mix::softmax_attention(
      q, k, v, out,
      mix::softmax_options{.mask = mix::causal{}, .score = mix::alibi{slopes} | mix::softcap{30.f}, .scale = 0.125});
  mix::softmax_attention(q, k, v, other, mix::softmax_options{.mask = mix::causal{}, .score = by_hand, .scale = 0.125});
  const float from_lambda = largest_difference(out, other);

  // Rotary positions: all tokens moved by 1000 places give the same attention, but for rounding.
  const auto rotated = [&](const mix::tensor<float, 4>& x, mix::index_t first) {
    mix::tensor<float, 4> y(shape);  // (B, H, T, D)
    mix::rotary_embedding(x, y, {.first_position = first, .layout = mix::rotary_layout::half});
    return y;
  };
  mix::softmax_attention(rotated(q, 0), rotated(k, 0), v, out);
  mix::softmax_attention(rotated(q, 1000), rotated(k, 1000), v, other);
  const float from_moving = largest_difference(out, other);
  mix::softmax_attention(q, k, v, other);
  const float from_positions = largest_difference(out, other);

  std::cout << "alibi | softcap and the same as a lambda differ by   " << from_lambda
            << "\nrotated at 0, 1, ... and at 1000, 1001, ... differ by " << from_moving
            << "\nrotated and not rotated differ by                   " << from_positions << "\n";
  return from_lambda < 1e-5f && from_moving < 1e-5f && from_positions > 1e-2f ? 0 : 1;
}
