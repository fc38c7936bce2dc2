// SPDX-License-Identifier: Apache-2.0
/// @file What a model file's metadata says about its model.
#pragma once

#include <algorithm>
#include <charconv>
#include <cmath>
#include <sstream>
#include <string>
#include <tokenmix/core/types.hpp>
#include <vector>

#include "safetensors.hpp"

namespace language_model {

using tokenmix::index_t;

/// The letters are the library's: B batch, H query heads, Hk key/value heads, T tokens, D head width, N state size; further C for the width
/// of the model, F for the hidden width of its feed-forward block, V for the size of its vocabulary.
struct hyper_parameters {
  index_t vocabulary = 0;           ///< V: 256, tokens are bytes
  index_t width = 0;                ///< C
  index_t hidden = 0;               ///< F
  index_t query_heads = 0;          ///< H
  index_t key_heads = 0;            ///< Hk
  index_t head_width = 0;           ///< D
  index_t window = 0;               ///< tokens that a query of a "window" layer sees, its own included
  index_t context = 0;              ///< tokens per sequence in training
  double rope_base = 0;             ///< of the rotary embedding's angular frequencies
  float norm_epsilon = 0;           ///< of RMSNorm
  std::vector<std::string> layers;  ///< the kind of each layer: "full", "window" or "mamba2"

  // Of a "mamba2" layer; 0 in a model that has none.
  index_t state_heads = 0;        ///< H
  index_t state_head_width = 0;   ///< D: the layer is H D channels wide inside
  index_t state_size = 0;         ///< N, for each of those channels
  index_t convolution_width = 0;  ///< tokens that the layer's short convolution sees
};

namespace detail {

template <class Number>
Number parse_positive(const safetensors& file, const std::string& key) {
  const std::string& text = file.metadata(key);
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  const bool whole = error == std::errc() && end == text.data() + text.size();
  constexpr Number largest{1 << 20};  // far beyond any model, and products of three such numbers do not overflow
  if (!whole || !(value > 0 && value <= largest))
    file.fail("metadata says ", key, " is '", text, "', expected a positive number");
  return value;
}

}  // namespace detail

inline hyper_parameters read_hyper_parameters(const safetensors& file) {
  using detail::parse_positive;
  hyper_parameters p;
  p.vocabulary = parse_positive<index_t>(file, "vocabulary");
  p.width = parse_positive<index_t>(file, "width");
  p.hidden = parse_positive<index_t>(file, "hidden");
  p.query_heads = parse_positive<index_t>(file, "query_heads");
  p.key_heads = parse_positive<index_t>(file, "key_heads");
  p.head_width = parse_positive<index_t>(file, "head_width");
  p.window = parse_positive<index_t>(file, "window");
  p.context = parse_positive<index_t>(file, "context");
  p.rope_base = parse_positive<double>(file, "rope_base");
  p.norm_epsilon = parse_positive<float>(file, "norm_epsilon");
  std::istringstream kinds(file.metadata("layers"));
  for (std::string kind; kinds >> kind;) p.layers.push_back(kind);
  if (std::find(p.layers.begin(), p.layers.end(), "mamba2") != p.layers.end()) {
    p.state_heads = parse_positive<index_t>(file, "state_heads");
    p.state_head_width = parse_positive<index_t>(file, "state_head_width");
    p.state_size = parse_positive<index_t>(file, "state_size");
    p.convolution_width = parse_positive<index_t>(file, "convolution_width");
  }

  if (p.vocabulary != 256) file.fail("metadata says vocabulary is ", p.vocabulary, ", expected 256: tokens are bytes");
  if (p.head_width % 2 != 0)
    file.fail("metadata says head_width is ", p.head_width, ", expected an even number: channels rotate in pairs");
  if (p.rope_base <= 1) file.fail("metadata says rope_base is ", file.metadata("rope_base"), ", expected more than 1");
  if (p.query_heads % p.key_heads != 0) {
    file.fail("metadata says there are ", p.query_heads, " query_heads and ", p.key_heads,
              " key_heads, expected a multiple of them");
  }
  return p;
}

}  // namespace language_model
