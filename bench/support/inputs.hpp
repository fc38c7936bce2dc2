// SPDX-License-Identifier: Apache-2.0
/// @file What the attention benchmarks compute on: random tensors, visible runs, sampled rows of a float64 reference.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/tensor.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <limits>
#include <memory>
#include <vector>

namespace bench {

using tokenmix::index_t;

/// Which keys a query sees, for T = S: the same three cases as masks of tokenmix, of oneDNN and of PyTorch.
struct visible_keys {
  enum class kind { all, causal, window };
  kind which = kind::all;
  index_t window = 0;  // tokens, the query's own included; causal

  index_t begin(index_t query) const { return which == kind::window ? std::max<index_t>(0, query + 1 - window) : 0; }
  index_t end(index_t query, index_t keys) const { return which == kind::all ? keys : query + 1; }

  /// Pairs of one head that are computed: useful work counts these and no others.
  double pairs(index_t queries, index_t keys) const {
    double sum = 0.0;
    for (index_t t = 0; t < queries; ++t) sum += static_cast<double>(end(t, keys) - begin(t));
    return sum;
  }
};

struct attention_shape {
  index_t B, H, Hk, T, S, D;
  auto operator<=>(const attention_shape&) const = default;
};

/// About normally distributed numbers, quickly: the sum of four uniform ones, variance 1.
class normal_numbers {
 public:
  explicit normal_numbers(std::uint64_t seed) : state_(seed * 0x9e3779b97f4a7c15u + 1u) {}

  float operator()() {
    state_ ^= state_ << 13;
    state_ ^= state_ >> 7;
    state_ ^= state_ << 17;
    const std::uint64_t sum =
        (state_ & 0xffffu) + ((state_ >> 16) & 0xffffu) + ((state_ >> 32) & 0xffffu) + (state_ >> 48);
    return (static_cast<float>(sum) - 131070.0f) * (1.7320508f / 65536.0f);
  }

 private:
  std::uint64_t state_;
};

/// q, k, v of one shape, and the place for the result.
template <class E>
struct attention_tensors {
  attention_shape shape;
  tokenmix::tensor<E, 4> q;    // (B, H, T, D)
  tokenmix::tensor<E, 4> k;    // (B, Hk, S, D)
  tokenmix::tensor<E, 4> v;    // (B, Hk, S, D)
  tokenmix::tensor<E, 4> out;  // (B, H, T, D)

  explicit attention_tensors(const attention_shape& s)
      : shape(s),
        q({s.B, s.H, s.T, s.D}),
        k({s.B, s.Hk, s.S, s.D}),
        v({s.B, s.Hk, s.S, s.D}),
        out({s.B, s.H, s.T, s.D}) {
    normal_numbers next(static_cast<std::uint64_t>(s.T * 131 + s.S * 17 + s.D));
    for (E& x : q) x = static_cast<E>(next());
    for (E& x : k) x = static_cast<E>(next());
    for (E& x : v) x = static_cast<E>(next());
  }
};

/// The last tensors made are kept, since the repetitions of interleaved benchmarks come back to them.
template <class Tensors>
Tensors& tensors_of(const attention_shape& shape) {
  constexpr std::size_t most = 8;
  static std::vector<std::unique_ptr<Tensors>> kept;
  for (auto& t : kept) {
    if (t->shape == shape) return *t;
  }
  const bool large = static_cast<double>(shape.B * shape.S * shape.D) * static_cast<double>(shape.H) > 3e7;
  if (kept.size() == most || large) kept.clear();
  kept.push_back(std::make_unique<Tensors>(shape));
  return *kept.back();
}

/// The largest error of sampled rows against the formula in double. Rows of the first and last head and of some between,
/// the first and last query and some between; every channel.
template <class Q, class E, class O>
double largest_error(tokenmix::tensor_view<const Q, 4> q,  // (B, H, T, D)
                     tokenmix::tensor_view<const E, 4> k,  // (B, Hk, S, D)
                     tokenmix::tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                     tokenmix::tensor_view<O, 4> out,      // (B, H, T, Dv)
                     const visible_keys& sees) {
  const index_t B = q.extent(0), H = q.extent(1), Hk = k.extent(1), T = q.extent(2), S = k.extent(2), D = q.extent(3);
  const index_t Dv = v.extent(3);
  const double scale = 1.0 / std::sqrt(static_cast<double>(D));
  double largest = 0.0;
  std::vector<double> weights(static_cast<std::size_t>(S));
  std::vector<double> row(static_cast<std::size_t>(Dv));
  const auto number = [](auto x) { return static_cast<double>(static_cast<float>(x)); };
  for (index_t sample = 0; sample < 9; ++sample) {
    const index_t head = (B * H - 1) * sample / 8;  // 0 .. B H - 1
    const index_t t = (sample * 5 % 9) * (T - 1) / 8;
    const index_t b = head / H, h = head % H;
    const index_t first = sees.begin(t), last = sees.end(t, S);
    double most = -std::numeric_limits<double>::infinity();
    for (index_t s = first; s < last; ++s) {
      double sum = 0.0;
      for (index_t d = 0; d < D; ++d) sum += number(q(b, h, t, d)) * number(k(b, h * Hk / H, s, d));
      weights[static_cast<std::size_t>(s)] = sum * scale;
      most = std::max(most, sum * scale);
    }
    double total = 0.0;
    std::fill(row.begin(), row.end(), 0.0);
    for (index_t s = first; s < last; ++s) {
      const double weight = std::exp(weights[static_cast<std::size_t>(s)] - most);
      total += weight;
      for (index_t d = 0; d < Dv; ++d) row[static_cast<std::size_t>(d)] += weight * number(v(b, h * Hk / H, s, d));
    }
    for (index_t d = 0; d < Dv; ++d) {
      const double error = std::abs(number(out(b, h, t, d)) - row[static_cast<std::size_t>(d)] / total);
      if (!(error <= largest)) largest = error;  // NaN counts
    }
  }
  return largest;
}

/// What an implementation may differ from float64 by before it is not timed: values are about 1, weighted means no larger.
template <class O>
constexpr double tolerated_error() {
  return sizeof(O) == 2 ? 2e-2 : 2e-5;
}

}  // namespace bench
