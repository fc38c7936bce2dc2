// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of masks in the kernel share: lengths, poison where nobody looks, and the comparison with the oracle.
#pragma once

#include <functional>
#include <memory>

#include <mixers/softmax/softmax_cases.hpp>

namespace cases {

using plain_mask = std::function<bool(const mix::index&)>;

/// The shapes of (T, S) that alignments and tile borders make a difference for.
inline std::vector<std::array<index_t, 2>> lengths_of_both() {
  if (reduced_sweep) return {{1, 1}, {1, 40}, {5, 3}, {17, 17}, {20, 70}, {70, 20}, {33, 300}};
  std::vector<std::array<index_t, 2>> all;
  for (index_t t : {1, 2, 3, 5, 16, 17, 31, 64, 65, 100})
    for (index_t s : {1, 2, 5, 16, 17, 63, 64, 65, 100, 257}) all.push_back({t, s});
  all.push_back({300, 300});
  all.push_back({40, 800});
  all.push_back({520, 40});
  return all;
}

/// Fills keys and values that no query of any head sees with NaN.
inline void poison_unseen(operands<>& x, const plain_mask& sees) {
  const auto& n = x.size;
  for (index_t b = 0; b < n.batch; ++b)
    for (index_t kv = 0; kv < n.kv_heads; ++kv)
      for (index_t s = 0; s < n.keys; ++s) {
        bool seen = false;
        for (index_t h = kv * (n.heads / n.kv_heads); h < (kv + 1) * (n.heads / n.kv_heads); ++h)
          for (index_t t = 0; t < n.queries; ++t)
            seen = seen || sees({b, h, t + n.keys - n.queries, s, n.queries, n.keys});
        if (seen) continue;
        for (index_t i = 0; i < n.width; ++i) x.k(b, kv, s, i) = std::numeric_limits<float>::quiet_NaN();
        for (index_t i = 0; i < n.value_width; ++i) x.v(b, kv, s, i) = std::numeric_limits<float>::quiet_NaN();
      }
}

/// Compares the kernel under `mask` with the oracle under `sees`, the same written again as a plain function. Keys and values
/// that nobody sees hold NaN, so a mask that is off by one is never within the float gate.
template <class Mask>
void check_mask_at(const shape& size, std::uint64_t seed, const Mask& mask, const plain_mask& sees,
                   const std::string& name) {
  operands<> x(size, seed);
  auto problem = problem_of(x);  // before the poison: the oracle must not meet it even by mistake
  problem.mask = sees;
  poison_unseen(x, sees);
  mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mask, .lse = x.lse.view()});
  const auto expected = reference::softmax_attention(problem);
  const std::string label = name + " " + size.text();
  expect_within_gate<float, float, float>(x.out, x, expected, label);
  expect_lse_within_gate(x, expected, label);
}

/// The same at all of lengths_of_both().
template <class Mask>
void check_mask(const Mask& mask, const plain_mask& sees, const std::string& name) {
  std::uint64_t seed = 1;
  for (const auto& [t, s] : lengths_of_both()) {
    check_mask_at({2, 4, 2, t, s, 16, 8}, ++seed, mask, sees, name);
    check_mask_at({1, 3, 3, t, s, 8, 17}, ++seed, mask, sees, name);
    if (testing::Test::HasFailure()) return;
  }
}

}  // namespace cases
