// SPDX-License-Identifier: Apache-2.0
/// @file What the tests of attention over chosen blocks share: who is chosen, in float64, and sequences in their forms.
#pragma once

#include <tokenmix/sparse.hpp>

#include <algorithm>
#include <cmath>
#include <string>
#include <vector>

#include <mixers/softmax/softmax_cases.hpp>
#include <reference/strided.hpp>

namespace cases {

inline sequence_list whole_sequences_of(const shape& size) {
  sequence_list all;
  for (index_t b = 0; b < size.batch; ++b) all.push_back({b, b, 0, size.queries, 0, size.keys});
  return all;
}

/// Which blocks the queries see: (sequence, H, T of it) of flags.
class block_table {
 public:
  block_table(const sequence_list& sequences, index_t heads) : heads_(heads) {
    for (const auto& s : sequences) rows_.emplace_back(static_cast<std::size_t>(heads * s.queries));
  }
  std::vector<char>& row(index_t sequence, index_t head, index_t query) {
    auto& of = rows_[static_cast<std::size_t>(sequence)];
    return of[static_cast<std::size_t>(query * heads_ + head)];
  }
  /// The count - 1 blocks with the largest scores (ties by index), and the block behind them: the query's own.
  void choose(index_t sequence, index_t head, index_t query, const std::vector<double>& score, index_t count) {
    std::vector<std::size_t> order(score.size());
    for (std::size_t j = 0; j < order.size(); ++j) order[j] = j;
    std::sort(order.begin(), order.end(),
              [&](std::size_t a, std::size_t b) { return score[a] != score[b] ? score[a] > score[b] : a < b; });
    auto& in = row(sequence, head, query);
    in.assign(score.size() + 1, 0);
    for (std::size_t i = 0; i < order.size() && i + 1 < static_cast<std::size_t>(count); ++i) in[order[i]] = 1;
    in.back() = 1;
  }
  /// The mask: keys of seen blocks up to the query.
  auto mask(index_t block) {
    return [this, block](const mix::index& w) {
      return w.key <= w.query && row(w.batch, w.head, w.query_row())[static_cast<std::size_t>(w.key / block)] != 0;
    };
  }

 private:
  index_t heads_;
  std::vector<std::vector<std::vector<char>>> rows_;
};

/// sum over d of a[d] b[d], in float64.
template <class A, class B>
double exact_dot(const A* a, const B* b, index_t n) {
  double sum = 0;
  for (index_t d = 0; d < n; ++d) sum += reference::exact<double>(a[d]) * reference::exact<double>(b[d]);
  return sum;
}

}  // namespace cases
