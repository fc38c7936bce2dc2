// SPDX-License-Identifier: Apache-2.0
/// @file The attention of one layer: grouped queries, rotary positions, all earlier tokens or a sliding window of them.
#pragma once

#include <algorithm>
#include <string>
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/softmax.hpp>

#include "hyper_parameters.hpp"
#include "layers.hpp"
#include "weights.hpp"

namespace language_model {

/// The keys and values of all tokens so far, or of those that a window can still see.
struct attention_memory {
  mix::kv_cache<float> cache;
  index_t length = 0;  // tokens read, those forgotten included

  index_t bytes() const { return cache.bytes(); }
};

class attention {
 public:
  using memory = attention_memory;

  /// A query sees `left` tokens before its own; mix::unlimited is all of them.
  attention(weights& from, const std::string& name, const hyper_parameters& p, index_t left)
      : q_(take_linear(from, name + ".q", p.width, p.query_heads * p.head_width)),
        k_(take_linear(from, name + ".k", p.width, p.key_heads * p.head_width)),
        v_(take_linear(from, name + ".v", p.width, p.key_heads * p.head_width)),
        out_(take_linear(from, name + ".out", p.query_heads * p.head_width, p.width)),
        query_heads_(p.query_heads),
        key_heads_(p.key_heads),
        head_width_(p.head_width),
        rope_base_(p.rope_base),
        left_(left) {}

  /// Room for `capacity` tokens, or for as many as a window looks back.
  memory make_memory(index_t capacity) const { return {make_cache(std::min(capacity, left_))}; }

  /// Mixes tokens that follow those in the memory with all that they see; the memory then holds them too.
  matrix operator()(const matrix& x, memory& past) const {  // (T, C)
    matrix q = q_(x);                                       // (T, H D)
    matrix k = k_(x);                                       // (T, Hk D)
    matrix v = v_(x);                                       // (T, Hk D)
    matrix y(q.rows(), q.cols());                           // (T, H D)

    const auto heads = [&](matrix& rows, index_t count) {  // (1, count, T, D)
      return blocks::as_heads(rows, 0, count, head_width_).permuted({0, 2, 1, 3});
    };
    const auto q_heads = heads(q, query_heads_), y_heads = heads(y, query_heads_);  // (1, H, T, D)
    const auto k_heads = heads(k, key_heads_), v_heads = heads(v, key_heads_);      // (1, Hk, T, D)

    const mix::rotary_options rotation{
        .first_position = past.length, .base = rope_base_, .layout = mix::rotary_layout::half};
    mix::rotary_embedding(q_heads, q_heads, rotation);
    mix::rotary_embedding(k_heads, k_heads, rotation);
    const auto attend = [&](const mix::kv_cache<float>& cache) {
      mix::softmax_attention(q_heads, cache, y_heads,
                             mix::softmax_options{.mask = mix::causal{} & mix::window{.left = left_}});
    };
    if (left_ == mix::unlimited) {
      past.cache.append(k_heads, v_heads);
      attend(past.cache);
    } else {
      mix::kv_cache<float> seen = make_cache(past.cache.length(0) + x.rows());
      append_last(seen, past.cache, left_);
      seen.append(k_heads, v_heads);
      attend(seen);
      past.cache.clear();
      append_last(past.cache, seen, left_);
    }
    past.length += x.rows();
    return out_(y);
  }

 private:
  mix::kv_cache<float> make_cache(index_t capacity) const {
    return {1, key_heads_, capacity, head_width_, head_width_};
  }

  /// Appends the last `count` tokens of a cache to another, or all if there are fewer.
  static void append_last(mix::kv_cache<float>& to, const mix::kv_cache<float>& from, index_t count) {
    const index_t length = from.length(0);
    count = std::min(count, length);
    to.append(from.keys().slice(2, length - count, count), from.values().slice(2, length - count, count));
  }

  linear q_, k_, v_, out_;
  index_t query_heads_, key_heads_, head_width_;
  double rope_base_;
  index_t left_;
};

}  // namespace language_model
