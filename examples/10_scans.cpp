// SPDX-License-Identifier: Apache-2.0
// Scans: everything so far, along any axis, with any associative operation. Sums, a recurrence from token to token
// and in pieces, attention as a prefix scan, and an operation of one's own.
#include <algorithm>
#include <cmath>
#include <iostream>
#include <random>
#include <tokenmix/scan.hpp>

namespace mix = tokenmix;

constexpr mix::index_t B = 2, T = 300, D = 8;

// An operation of one's own: an identity, and what two neighbours make. This one remembers the last number that is
// not zero.
struct last_set {
  float identity = 0;
  float operator()(float before, float now) const { return now != 0 ? now : before; }
};

int main() {
  std::mt19937 random(10);
  std::normal_distribution<float> normal;
  mix::tensor<float, 3> x({B, T, D}), out({B, T, D});  // (B, T, D)
  std::generate(x.begin(), x.end(), [&] { return normal(random); });
  bool right = true;
  const auto expect = [&](const char* what, bool holds) {
    std::cout << what << (holds ? "\n" : ": no\n");
    right &= holds;
  };

  // Running sums along the tokens, the axis before the channels; then, from the last token back, along the channels.
  mix::inclusive_scan(mix::plus<float>{}, x, out);
  expect("the second sum has two terms", out(1, 1, 3) == x(1, 0, 3) + x(1, 1, 3));
  mix::exclusive_scan(mix::plus<float>{}, x, out, mix::scan_options{.axis = -1, .order = mix::order::reverse});
  expect("nothing comes before the last channel", out(1, 5, D - 1) == 0 && out(1, 5, D - 2) == x(1, 5, D - 1));

  // h = a h + b: a decay per channel, the same for all tokens (extent 1 repeats it), all tokens at once ...
  mix::tensor<float, 3> a({1, 1, D});  // (1, 1, D)
  for (mix::index_t d = 0; d < D; ++d) a(0, 0, d) = 0.9f - 0.1f * static_cast<float>(d);
  mix::tensor<float, 3> h({B, T, D});  // (B, T, D)
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = x}, h);

  // ... and in two calls, the second of which begins at the state with which the first one ends.
  mix::tensor<float, 3> state({B, 1, D}), in_two({B, T, D});  // (B, 1, D), (B, T, D)
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = x.slice(1, 0, 100)}, in_two.slice(1, 0, 100),
                      mix::scan_options{.final_state = state.view()});
  mix::inclusive_scan(mix::affine<float>{}, mix::affine_view{.a = a, .b = x.slice(1, 100, T - 100)},
                      in_two.slice(1, 100, T - 100), mix::scan_options{.initial = state.view()});
  float largest = 0;
  for (mix::index_t i = 0; i < h.size(); ++i) largest = std::max(largest, std::fabs(h.data()[i] - in_two.data()[i]));
  expect("two calls differ from one by rounding", largest < 1e-5f);

  // Attention of one query over all tokens so far: scores and values in, means out.
  mix::tensor<float, 3> scores({B, T, 1});  // (B, T, 1)
  std::generate(scores.begin(), scores.end(), [&] { return normal(random); });
  mix::inclusive_scan(mix::online_softmax<float>{}, mix::scored_view{.score = scores, .value = x}, out);
  const float w0 = std::exp(scores(0, 0, 0)), w1 = std::exp(scores(0, 1, 0));
  const float mean = (w0 * x(0, 0, 2) + w1 * x(0, 1, 2)) / (w0 + w1);
  expect("the second mean is of two values", std::fabs(out(0, 1, 2) - mean) < 1e-5f);

  mix::tensor<float, 1> rare({6}), filled({6});  // (T), (T)
  rare(1) = 5;
  rare(4) = 7;
  mix::inclusive_scan(last_set{}, rare, filled);
  expect("gaps are filled", filled(0) == 0 && filled(3) == 5 && filled(5) == 7);
  return right ? 0 : 1;
}
