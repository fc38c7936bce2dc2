// SPDX-License-Identifier: Apache-2.0
/// @file A decoder-only transformer over bytes, as its file describes it.
#pragma once

#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "attention.hpp"
#include "hyper_parameters.hpp"
#include "layers.hpp"
#include "safetensors.hpp"
#include "weights.hpp"

namespace language_model {

using token = std::uint8_t;

/// What a model remembers of the tokens it has read: the keys and values of every layer.
struct memory {
  std::vector<mix::kv_cache<float>> layers;

  index_t bytes() const {
    index_t sum = 0;
    for (const auto& cache : layers) sum += cache.bytes();
    return sum;
  }
};

/// x + mixer(norm(x)), then x + feed_forward(norm(x)).
class layer {
 public:
  layer(weights& from, const std::string& name, const hyper_parameters& p, const std::string& kind)
      : mixer_norm_(from, name + ".mixer_norm", p),
        mixer_(make_mixer(from, name, p, kind)),
        feed_forward_norm_(from, name + ".feed_forward_norm", p),
        feed_forward_(from, name + ".feed_forward", p) {}

  void operator()(matrix& x, mix::kv_cache<float>& cache) const {  // (T, C)
    x += mixer_(mixer_norm_(x), cache);
    x += feed_forward_(feed_forward_norm_(x));
  }

 private:
  static attention make_mixer(weights& from, const std::string& name, const hyper_parameters& p,
                              const std::string& kind) {
    if (kind == "full") return attention(from, name + ".mixer", p, mix::unlimited);
    if (kind == "window") return attention(from, name + ".mixer", p, p.window - 1);
    from.file().fail(name, " is of the kind '", kind, "'; this program knows full and window");
  }

  rms_norm mixer_norm_;
  attention mixer_;
  rms_norm feed_forward_norm_;
  feed_forward feed_forward_;
};

class model {
 public:
  static model read(const std::filesystem::path& path) { return model(safetensors::read(path)); }

  explicit model(const safetensors& file) : model(weights(file), read_hyper_parameters(file)) {}

  const hyper_parameters& parameters() const { return parameters_; }

  /// Room for `capacity` tokens, none read yet.
  memory make_memory(index_t capacity) const {
    const hyper_parameters& p = parameters_;
    memory result;
    for (std::size_t i = 0; i < layers_.size(); ++i) {
      result.layers.emplace_back(index_t{1}, p.key_heads, capacity, p.head_width, p.head_width);
    }
    return result;
  }

  /// Reads tokens that follow those in the memory; row t holds the logits of the token after the t-th of them.
  matrix operator()(std::span<const token> tokens, memory& past) const {
    matrix x(static_cast<index_t>(tokens.size()), parameters_.width);  // (T, C)
    for (index_t t = 0; t < x.rows(); ++t) x.row(t) = embedding_.row(tokens[static_cast<std::size_t>(t)]);
    for (std::size_t i = 0; i < layers_.size(); ++i) layers_[i](x, past.layers[i]);
    return head_(norm_(x));  // (T, V)
  }

 private:
  model(weights from, const hyper_parameters& p)
      : parameters_(p),
        embedding_(from.take_matrix("embedding.weight", p.vocabulary, p.width)),
        norm_(from, "norm", p),
        head_(from, "embedding", p.width, p.vocabulary) {
    for (std::size_t i = 0; i < p.layers.size(); ++i) {
      layers_.emplace_back(from, "layers." + std::to_string(i), p, p.layers[i]);
    }
    from.check_all_taken();
  }

  hyper_parameters parameters_;
  matrix embedding_;  // (V, C)
  std::vector<layer> layers_;
  rms_norm norm_;
  linear head_;  // the embedding again, from width to vocabulary
};

}  // namespace language_model
