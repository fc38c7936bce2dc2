// SPDX-License-Identifier: Apache-2.0
/// @file The attention of one layer: grouped queries, rotary positions, all earlier tokens or a sliding window of them.
#pragma once

#include <string>
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/softmax.hpp>
#include <tokenmix/window.hpp>
#include <variant>

#include "hyper_parameters.hpp"
#include "layers.hpp"
#include "weights.hpp"

namespace language_model {

/// The keys and values of all tokens so far, or of those that a window can still see.
struct attention_memory {
  std::variant<mix::kv_cache<float>, mix::window_cache<float>> cache;

  index_t length() const {  // tokens read, those forgotten included
    return std::visit([](const auto& c) { return c.length(0); }, cache);
  }
  index_t bytes() const {
    return std::visit([](const auto& c) { return c.bytes(); }, cache);
  }
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

  /// Tokens of a prompt that a layer with a window takes at a time: few, since the memory has room for them beside the window.
  static constexpr index_t tokens_at_a_time = 16;

  /// Room for `capacity` tokens, or for as many as a window looks back and some new ones.
  memory make_memory(index_t capacity) const {
    if (left_ == mix::unlimited || capacity <= left_ + tokens_at_a_time)
      return {mix::kv_cache<float>(1, key_heads_, capacity, head_width_, head_width_)};
    return {mix::window_cache<float>(1, key_heads_, {.left = left_, .new_tokens = tokens_at_a_time}, head_width_,
                                     head_width_)};
  }

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
        .first_position = past.length(), .base = rope_base_, .layout = mix::rotary_layout::half};
    mix::rotary_embedding(q_heads, q_heads, rotation);
    mix::rotary_embedding(k_heads, k_heads, rotation);
    if (auto* const window = std::get_if<mix::window_cache<float>>(&past.cache)) {
      mix::sliding_window_attention<float>(q_heads, k_heads, v_heads, *window, y_heads);
    } else {
      auto& all = std::get<mix::kv_cache<float>>(past.cache);
      all.append(k_heads, v_heads);
      mix::softmax_attention(q_heads, all, y_heads,
                             mix::softmax_options{.mask = mix::causal{} & mix::window{.left = left_}});
    }
    return out_(y);
  }

 private:
  linear q_, k_, v_, out_;
  index_t query_heads_, key_heads_, head_width_;
  double rope_base_;
  index_t left_;
};

}  // namespace language_model
