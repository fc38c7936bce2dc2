// SPDX-License-Identifier: Apache-2.0
/// @file Attention the unfused way, in Eigen: a matrix product, a softmax of every row, a matrix product.
#pragma once

#include "../support/executor.hpp"
#include "../support/inputs.hpp"

#include <Eigen/Core>

#include <algorithm>
#include <cmath>
#include <vector>

namespace bench {

/// Scores of a block of queries stand in memory between the steps. A block is a whole head, unless there are more threads
/// than heads: then heads are cut so that no thread is idle. Each block computes only the keys that one of its queries sees,
/// each softmax only the keys that its query sees, and the division is made on the result, not on the weights: as good as
/// the unfused way gets with Eigen's products. Grouped heads (few queries, decode) are one product per key head.
class unfused_eigen {
 public:
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  using rows = Eigen::Map<const matrix>;

  unfused_eigen(const attention_shape& shape, const executor& on)
      : shape_(shape), on_(on), scores_(static_cast<std::size_t>(on.concurrency())) {
    Eigen::setNbThreads(1);  // threads are the executor's
    const index_t heads = shape.B * shape.Hk;
    blocks_ = on.concurrency() <= heads ? 1 : (4 * on.concurrency() + heads - 1) / heads;
    blocks_ = std::min(blocks_, rows_per_group() == shape.T ? shape.T : index_t{1});
  }

  void operator()(const float* q, const float* k, const float* v, float* out, const visible_keys& sees) {
    const index_t per_group = rows_per_group(), S = shape_.S, D = shape_.D;
    on_.for_each(shape_.B * shape_.Hk * blocks_, [&](index_t task, index_t worker) {
      const index_t group = task / blocks_;
      const index_t first = per_group * (task % blocks_) / blocks_;
      const index_t last = per_group * (task % blocks_ + 1) / blocks_;
      const index_t key = sees.begin(first), keys = sees.end(last - 1, S) - key;
      const rows queries(q + (group * per_group + first) * D, last - first, D);           // (T, D)
      const rows block_keys(k + (group * S + key) * D, keys, D);                          // (S, D)
      const rows values(v + (group * S + key) * D, keys, D);                              // (S, D)
      Eigen::Map<matrix> result(out + (group * per_group + first) * D, last - first, D);  // (T, D)
      std::vector<float>& memory = scores_[static_cast<std::size_t>(worker)];
      memory.resize(std::max(memory.size(), static_cast<std::size_t>((last - first) * (keys + 1))));
      Eigen::Map<matrix> scores(memory.data(), last - first, keys);                           // (T, S)
      Eigen::Map<Eigen::VectorXf> sums(memory.data() + (last - first) * keys, last - first);  // (T)
      scores.noalias() = queries * block_keys.transpose();
      const float scale = 1.0f / std::sqrt(static_cast<float>(D));
      for (index_t t = first; t < last; ++t) {
        const index_t begin = sees.begin(t) - key, end = sees.end(t, S) - key;
        auto row = scores.row(t - first);
        auto seen = row.segment(begin, end - begin);
        const float most = seen.maxCoeff();
        seen = ((seen.array() - most) * scale).exp();
        sums[t - first] = seen.sum();
        row.head(begin).setZero();
        row.tail(keys - end).setZero();
      }
      result.noalias() = scores * values;
      result.array().colwise() /= sums.array();
    });
  }

  /// What stands in memory between the steps.
  double workspace_bytes() const {
    double bytes = 0.0;
    for (const std::vector<float>& s : scores_) bytes += static_cast<double>(s.size() * sizeof(float));
    return bytes;
  }

 private:
  // Query heads that share a key head lie one after the other, so that a decode step's are rows of one product.
  index_t rows_per_group() const { return shape_.T * (shape_.H / shape_.Hk); }

  attention_shape shape_;
  executor on_;
  std::vector<std::vector<float>> scores_;  // of every worker
  index_t blocks_ = 1;
};

}  // namespace bench
