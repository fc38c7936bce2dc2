// SPDX-License-Identifier: Apache-2.0
/// @file The attention of one layer: grouped queries, rotary positions, all earlier tokens or a sliding window of them.
#pragma once

#include <string>
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/softmax.hpp>

#include "hyper_parameters.hpp"
#include "layers.hpp"
#include "weights.hpp"

namespace language_model {

namespace mix = tokenmix;

/// The rows of a projection as heads, read and written in place: (T, heads D) as (1, heads, T, D).
inline mix::tensor_view<float, 4> as_heads(matrix& x, index_t head_width) {
  const index_t heads = x.cols() / head_width;
  return {x.data(), {1, heads, x.rows(), head_width}, {x.size(), head_width, x.cols(), 1}};
}

class attention {
 public:
  /// A query sees `left` tokens before its own; mix::unlimited is all of them.
  attention(weights& from, const std::string& name, const hyper_parameters& p, index_t left)
      : q_(from, name + ".q", p.width, p.query_heads * p.head_width),
        k_(from, name + ".k", p.width, p.key_heads * p.head_width),
        v_(from, name + ".v", p.width, p.key_heads * p.head_width),
        out_(from, name + ".out", p.query_heads * p.head_width, p.width),
        head_width_(p.head_width),
        rope_base_(p.rope_base),
        left_(left) {}

  /// Mixes tokens that follow those in the cache with all that they see; the cache then holds them too.
  matrix operator()(const matrix& x, mix::kv_cache<float>& cache) const {  // (T, C)
    matrix q = q_(x);                                                      // (T, H D)
    matrix k = k_(x);                                                      // (T, Hk D)
    matrix v = v_(x);                                                      // (T, Hk D)
    matrix y(q.rows(), q.cols());                                          // (T, H D)

    const auto q_heads = as_heads(q, head_width_);  // (1, H, T, D)
    const auto k_heads = as_heads(k, head_width_);  // (1, Hk, T, D)
    const auto v_heads = as_heads(v, head_width_);  // (1, Hk, T, D)
    const auto y_heads = as_heads(y, head_width_);  // (1, H, T, D)

    const mix::rotary_options rotation{
        .first_position = cache.length(0), .base = rope_base_, .layout = mix::rotary_layout::half};
    mix::rotary_embedding(q_heads, q_heads, rotation);
    mix::rotary_embedding(k_heads, k_heads, rotation);
    cache.append(k_heads, v_heads);
    mix::softmax_attention(q_heads, cache, y_heads,
                           mix::softmax_options{.mask = mix::causal{} & mix::window{.left = left_}});
    return out_(y);
  }

 private:
  linear q_, k_, v_, out_;
  index_t head_width_;
  double rope_base_;
  index_t left_;
};

}  // namespace language_model
