// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention from its formula, in plain loops; and once more in the online form, to check the first.
#pragma once

#include <algorithm>
#include <cmath>
#include <functional>
#include <limits>
#include <type_traits>
#include <vector>

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/index.hpp>

#include <reference/exact.hpp>

namespace tokenmix::reference {

/// Rows [query_first, query_first + queries) and [key_first, key_first + keys) of one batch element are one sequence.
struct softmax_sequence {
  index_t number = 0;  ///< what masks see as index.batch
  index_t batch = 0;
  index_t query_first = 0;
  index_t queries = 0;
  index_t key_first = 0;
  index_t keys = 0;
};

/// How scores become weights.
enum class weighting { softmax, softmax_off_by_one, sigmoid, relu_squared, laplace, score };

/// Everything that an attention depends on, as numbers without storage types or strides.
template <class Real>
struct softmax_problem {
  index_t batch = 0, heads = 0, kv_heads = 0, queries = 0, keys = 0, width = 0, value_width = 0;
  std::vector<Real> q;  // (B, H, T, D)
  std::vector<Real> k;  // (B, Hk, S, D)
  std::vector<Real> v;  // (B, Hk, S, Dv)
  Real scale = 1;

  std::function<bool(const tokenmix::index&)> mask;         ///< empty: every key is visible
  std::function<Real(Real, const tokenmix::index&)> score;  ///< empty: scores stay as they are
  std::function<Real(Real, const tokenmix::index&)> edit;   ///< empty: weights stay as they are
  std::vector<softmax_sequence> sequences;                  ///< empty: every batch element is one sequence
  std::vector<Real> sinks;                                  // (H), or empty

  index_t extra = 0, extra_batch = 1;
  std::vector<Real> extra_k;  // (extra_batch, Hk, P, D): keys before all others
  std::vector<Real> extra_v;  // (extra_batch, Hk, P, Dv)

  weighting weights = weighting::softmax;
  Real parameter = 0;  ///< sigmoid: bias; relu_squared: factor; laplace: mean
  Real deviation = 1;  ///< laplace
};

template <class Real>
struct softmax_answer {
  std::vector<Real> out;          // (B, H, T, Dv)
  std::vector<Real> magnitude;    // (B, H, T, Dv): A = sum over keys of |weight| |v|
  std::vector<Real> sensitivity;  // (B, H, T, Dv): sum over keys of |d weight / d score| * logit mass * |v|
  std::vector<Real> lse;          // (B, H, T)
  std::vector<Real> logit_mass;   // (B, H, T): S = sum over keys of weight * (scale * sum |q k| + what a modifier adds)
  std::vector<char> written;      // (B, H, T): whether the row belongs to a sequence
  std::vector<Real> weights;      // (B, H, T, S): only if asked for
};

/// One query's weights over the keys of its sequence, extra keys first.
template <class Real>
struct softmax_row {
  std::vector<Real> weight;
  std::vector<Real> slope;  ///< |d weight / d score|
  std::vector<Real> mass;   ///< scale * sum |q k| + what a modifier adds to the score's size
  std::vector<Real> value_row;
  std::vector<char> visible;
  Real sink_mass = 0;  ///< the sink's weight times its size: the difference to it is rounded as well
  Real lse = -std::numeric_limits<Real>::infinity();
};

/// The sequences of a problem, written out.
template <class Real>
std::vector<softmax_sequence> sequences_of(const softmax_problem<Real>& p) {
  if (!p.sequences.empty()) return p.sequences;
  std::vector<softmax_sequence> all;
  for (index_t b = 0; b < p.batch; ++b) all.push_back({b, b, 0, p.queries, 0, p.keys});
  return all;
}

/// Key or value row of a sequence, extra keys first.
template <class Real>
const Real* key_row(const softmax_problem<Real>& p, const softmax_sequence& s, index_t kv_head, index_t key,
                    bool value) {
  const index_t width = value ? p.value_width : p.width;
  if (key < p.extra) {
    const index_t b = p.extra_batch == 1 ? 0 : s.batch;
    return (value ? p.extra_v : p.extra_k).data() + ((b * p.kv_heads + kv_head) * p.extra + key) * width;
  }
  const index_t row = (s.batch * p.kv_heads + kv_head) * p.keys + s.key_first + key - p.extra;
  return (value ? p.v : p.k).data() + row * width;
}

/// What masks and modifiers are told about query row t and a key of a sequence.
template <class Real>
tokenmix::index index_of(const softmax_problem<Real>& p, const softmax_sequence& s, index_t head, index_t t,
                         index_t key) {
  const index_t keys = s.keys + p.extra;
  tokenmix::index where;
  where.batch = s.number;
  where.head = head;
  where.query = t + keys - s.queries;
  where.key = key;
  where.queries = s.queries;
  where.keys = keys;
  return where;
}

/// The weights of query t (row of its sequence) under one head, before any edit.
template <class Real>
softmax_row<Real> softmax_row_of(const softmax_problem<Real>& p, const softmax_sequence& s, index_t head, index_t t) {
  constexpr Real infinity = std::numeric_limits<Real>::infinity();
  const index_t keys = s.keys + p.extra;
  const index_t kv_head = head / (p.heads / p.kv_heads);
  const auto n = static_cast<std::size_t>(keys);
  softmax_row<Real> row;
  row.weight.assign(n, 0);
  row.slope.assign(n, 0);
  row.mass.assign(n, 0);
  row.visible.assign(n, 0);
  std::vector<Real> score(n, -infinity);

  const Real* q = p.q.data() + ((s.batch * p.heads + head) * p.queries + s.query_first + t) * p.width;
  for (index_t key = 0; key < keys; ++key) {
    const tokenmix::index where = index_of(p, s, head, t, key);
    if (p.mask && !p.mask(where)) continue;
    const auto j = static_cast<std::size_t>(key);
    row.visible[j] = 1;
    const Real* k = key_row(p, s, kv_head, key, false);
    Real sum = 0, mass = 0;
    for (index_t i = 0; i < p.width; ++i) {
      sum += q[i] * k[i];
      mass += std::abs(q[i] * k[i]);
    }
    const Real raw = p.scale * sum;
    score[j] = p.score ? p.score(raw, where) : raw;
    row.mass[j] = std::abs(p.scale) * mass;
    if (std::isfinite(score[j])) row.mass[j] += std::max(Real(0), std::abs(score[j]) - std::abs(raw));
  }

  if (p.weights == weighting::softmax || p.weights == weighting::softmax_off_by_one) {
    Real largest = -infinity;
    for (Real x : score) largest = std::max(largest, x);
    Real sink = -infinity;
    if (!p.sinks.empty()) sink = p.sinks[static_cast<std::size_t>(head)];
    const Real zero = p.weights == weighting::softmax_off_by_one ? Real(0) : -infinity;
    largest = std::max(largest, std::max(sink, zero));
    if (largest == -infinity) return row;
    Real total = std::exp(sink - largest) + std::exp(zero - largest);
    for (Real x : score) total += std::exp(x - largest);
    for (std::size_t j = 0; j < n; ++j) row.slope[j] = row.weight[j] = std::exp(score[j] - largest) / total;
    row.lse = largest + std::log(total);
    if (std::isfinite(sink)) row.sink_mass = std::exp(sink - largest) / total * std::abs(sink);
    return row;
  }
  for (std::size_t j = 0; j < n; ++j) {
    if (!row.visible[j]) continue;
    const Real x = score[j];
    switch (p.weights) {
      case weighting::sigmoid:
        row.weight[j] = 1 / (1 + std::exp(-(x + p.parameter)));
        row.slope[j] = row.weight[j] * (1 / (1 + std::exp(x + p.parameter)));
        break;
      case weighting::relu_squared:
        row.weight[j] = x > 0 ? p.parameter * x * x : Real(0);
        row.slope[j] = x > 0 ? std::abs(2 * p.parameter * x) : Real(0);
        break;
      case weighting::laplace: {
        const Real z = (x - p.parameter) / (p.deviation * std::sqrt(Real(2)));
        row.weight[j] = std::erfc(-z) / 2;
        row.slope[j] = std::exp(-z * z) / (p.deviation * std::sqrt(Real(2) * std::acos(Real(-1))));
        break;
      }
      default:
        row.weight[j] = x;
        row.slope[j] = 1;
    }
  }
  return row;
}

/// The formula: scores, weights, edited weights, weighted sum of values.
template <class Real>
softmax_answer<Real> softmax_attention(const softmax_problem<Real>& p, bool keep_weights = false) {
  const auto rows = static_cast<std::size_t>(p.batch * p.heads * p.queries);
  const auto elements = rows * static_cast<std::size_t>(p.value_width);
  softmax_answer<Real> answer;
  answer.out.assign(elements, 0);
  answer.magnitude.assign(elements, 0);
  answer.sensitivity.assign(elements, 0);
  answer.lse.assign(rows, -std::numeric_limits<Real>::infinity());
  answer.logit_mass.assign(rows, 0);
  answer.written.assign(rows, 0);
  const index_t columns = p.keys + p.extra;
  if (keep_weights) answer.weights.assign(rows * static_cast<std::size_t>(columns), 0);

  for (const softmax_sequence& s : sequences_of(p)) {
    for (index_t head = 0; head < p.heads; ++head) {
      const index_t kv_head = head / (p.heads / p.kv_heads);
      for (index_t t = 0; t < s.queries; ++t) {
        const index_t at = (s.batch * p.heads + head) * p.queries + s.query_first + t;
        const softmax_row<Real> row = softmax_row_of(p, s, head, t);
        const auto r = static_cast<std::size_t>(at);
        answer.written[r] = 1;
        answer.lse[r] = row.lse;
        answer.logit_mass[r] = row.sink_mass;
        for (index_t key = 0; key < s.keys + p.extra; ++key) {
          const auto j = static_cast<std::size_t>(key);
          if (!row.visible[j]) continue;
          const Real weight = p.edit ? p.edit(row.weight[j], index_of(p, s, head, t, key)) : row.weight[j];
          answer.logit_mass[r] += row.weight[j] * row.mass[j];
          if (keep_weights) {
            const index_t column = key < p.extra ? key : key + s.key_first;
            answer.weights[static_cast<std::size_t>(at * columns + column)] = weight;
          }
          const Real* v = key_row(p, s, kv_head, key, true);
          for (index_t i = 0; i < p.value_width; ++i) {
            const auto e = static_cast<std::size_t>(at * p.value_width + i);
            answer.out[e] += weight * v[i];
            answer.magnitude[e] += std::abs(weight * v[i]);
            answer.sensitivity[e] += row.slope[j] * row.mass[j] * std::abs(v[i]);
          }
        }
      }
    }
  }
  return answer;
}

/// The same attention written independently: one pass over the keys with a running maximum, nothing shared with the above
/// but the problem itself. Softmax weights only, without edits.
template <class Real>
void online_softmax_attention(const softmax_problem<Real>& p, std::vector<Real>& out /* (B, H, T, Dv) */,
                              std::vector<Real>& lse /* (B, H, T) */) {
  const index_t group = p.heads / p.kv_heads;
  out.assign(static_cast<std::size_t>(p.batch * p.heads * p.queries * p.value_width), 0);
  lse.assign(static_cast<std::size_t>(p.batch * p.heads * p.queries), -std::numeric_limits<Real>::infinity());
  std::vector<softmax_sequence> list = p.sequences;
  if (list.empty())
    for (index_t b = 0; b < p.batch; ++b) list.push_back({b, b, 0, p.queries, 0, p.keys});

  for (const softmax_sequence& s : list) {
    const index_t total = p.extra + s.keys;
    for (index_t t = 0; t < s.queries; ++t) {
      for (index_t kv_head = 0; kv_head < p.kv_heads; ++kv_head) {
        for (index_t member = 0; member < group; ++member) {
          const index_t head = kv_head * group + member;
          const index_t query_row = ((s.batch * p.heads) + head) * p.queries + s.query_first + t;
          bool any = false;
          Real m = 0, l = 0;
          std::vector<Real> acc(static_cast<std::size_t>(p.value_width), 0);
          const auto absorb = [&](Real x, const Real* value) {
            if (x == -std::numeric_limits<Real>::infinity()) return;
            if (!any || x > m) {
              const Real shrink = any ? std::exp(m - x) : Real(0);
              l = l * shrink + 1;
              for (std::size_t i = 0; i < acc.size(); ++i) acc[i] = acc[i] * shrink + (value ? value[i] : Real(0));
              m = x;
              any = true;
            } else {
              const Real grown = std::exp(x - m);
              l += grown;
              if (value)
                for (std::size_t i = 0; i < acc.size(); ++i) acc[i] += grown * value[i];
            }
          };
          if (!p.sinks.empty()) absorb(p.sinks[static_cast<std::size_t>(head)], nullptr);
          if (p.weights == weighting::softmax_off_by_one) absorb(0, nullptr);
          for (index_t key = 0; key < total; ++key) {
            const bool is_extra = key < p.extra;
            const index_t source_batch = is_extra ? (p.extra_batch == 1 ? 0 : s.batch) : s.batch;
            const index_t source_rows = is_extra ? p.extra : p.keys;
            const index_t source_row = is_extra ? key : s.key_first + (key - p.extra);
            const index_t flat = (source_batch * p.kv_heads + kv_head) * source_rows + source_row;
            const std::vector<Real>& keys = is_extra ? p.extra_k : p.k;
            const std::vector<Real>& values = is_extra ? p.extra_v : p.v;
            const tokenmix::index where{s.number, head, total - s.queries + t, key, s.queries, total};
            if (p.mask && !p.mask(where)) continue;
            Real dot = 0;
            for (index_t i = p.width; i-- > 0;)
              dot += p.q[static_cast<std::size_t>(query_row * p.width + i)] *
                     keys[static_cast<std::size_t>(flat * p.width + i)];
            Real x = dot * p.scale;
            if (p.score) x = p.score(x, where);
            absorb(x, values.data() + flat * p.value_width);
          }
          if (!any) continue;
          lse[static_cast<std::size_t>(query_row)] = m + std::log(l);
          for (std::size_t i = 0; i < acc.size(); ++i)
            out[static_cast<std::size_t>(query_row * p.value_width) + i] = acc[i] / l;
        }
      }
    }
  }
}

}  // namespace tokenmix::reference
