// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of padded and packed sequences share.
#pragma once

#include <mixers/softmax/softmax_cases.hpp>

namespace cases {

inline constexpr float nan = std::numeric_limits<float>::quiet_NaN();

/// What masks are told in these tests: causal within a sequence, with something that depends on its number.
inline const auto mask_lambda = [](const auto& w) { return w.key <= w.query && (w.key + w.batch) % 5 != 4; };
inline bool mask_of_oracle(const mix::index& w) { return w.key <= w.query && (w.key + w.batch) % 5 != 4; }

/// Poisons rows of q, k and v that belong to no sequence.
inline void poison_outside(operands<>& x, const std::vector<reference::softmax_sequence>& sequences) {
  const auto& n = x.size;
  mix::tensor<char, 2> query({n.batch, n.queries}), key({n.batch, n.keys});
  for (const auto& s : sequences) {
    for (index_t t = 0; t < s.queries; ++t) query(s.batch, s.query_first + t) = 1;
    for (index_t j = 0; j < s.keys; ++j) key(s.batch, s.key_first + j) = 1;
  }
  for (index_t b = 0; b < n.batch; ++b) {
    for (index_t h = 0; h < n.heads; ++h)
      for (index_t t = 0; t < n.queries; ++t)
        for (index_t i = 0; i < n.width && !query(b, t); ++i) x.q(b, h, t, i) = nan;
    for (index_t h = 0; h < n.kv_heads; ++h)
      for (index_t s = 0; s < n.keys; ++s) {
        for (index_t i = 0; i < n.width && !key(b, s); ++i) x.k(b, h, s, i) = nan;
        for (index_t i = 0; i < n.value_width && !key(b, s); ++i) x.v(b, h, s, i) = nan;
      }
  }
}

template <class Sequences>
void check_sequences(const shape& size, const Sequences& option,
                     const std::vector<reference::softmax_sequence>& sequences, std::uint64_t seed,
                     const std::string& name) {
  const std::string label = name + " " + size.text() + " seed " + std::to_string(seed);
  for (bool masked : {false, true}) {
    operands<> x(size, seed);
    auto problem = problem_of(x);
    problem.sequences = sequences;
    if (sequences.empty()) problem.batch = 0;  // none at all is not the default of one per batch element
    poison_outside(x, sequences);
    if (masked) {
      problem.mask = mask_of_oracle;
      mix::softmax_attention(x.q, x.k, x.v, x.out,
                             mix::softmax_options{.mask = mask_lambda, .sequences = option, .lse = x.lse.view()});
    } else {
      mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.sequences = option, .lse = x.lse.view()});
    }
    auto expected = reference::softmax_attention(problem);
    if (sequences.empty()) {
      expected.written.assign(static_cast<std::size_t>(size.batch * size.heads * size.queries), 0);
      expected.out.assign(expected.written.size() * static_cast<std::size_t>(size.value_width), 0);
      expected.lse = expected.logit_mass = std::vector<double>(expected.written.size());
    }
    expect_within_gate<float, float, float>(x.out, x, expected, label);
    expect_lse_within_gate(x, expected, label);
  }
}

inline std::vector<index_t> length_choices() { return {0, 0, 1, 2, 7, 8, 15, 16, 17, 47, 48, 49, 63, 64, 65}; }

}  // namespace cases
