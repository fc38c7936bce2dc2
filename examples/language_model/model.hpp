// SPDX-License-Identifier: Apache-2.0
/// @file A decoder over bytes, as its file describes it: layers of attention or of Mamba-2 between embedding and head.
#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <variant>
#include <vector>

#include "attention.hpp"
#include "hyper_parameters.hpp"
#include "layers.hpp"
#include "mamba2.hpp"
#include "safetensors.hpp"
#include "weights.hpp"

namespace language_model {

using token = std::uint8_t;

/// What mixes tokens in a layer, and what it remembers of those that it has read. A new kind of layer is a class with a type
/// `memory`, make_memory(capacity) and x, memory -> y; it is named here and in layer::make_mixer.
using mixer = std::variant<attention, mamba2>;
using layer_memory = std::variant<attention::memory, mamba2::memory>;

/// What a model remembers: keys and values, of all tokens or of a window, and states.
struct memory {
  std::vector<layer_memory> layers;

  index_t bytes() const {
    index_t sum = 0;
    for (const auto& layer : layers) sum += std::visit([](const auto& past) { return past.bytes(); }, layer);
    return sum;
  }
};

/// x + mixer(norm(x)) and, if the mixer is attention, x + feed_forward(norm(x)): a Mamba-2 block is both in one.
class layer {
 public:
  layer(weights& from, const std::string& name, const hyper_parameters& p, const std::string& kind)
      : mixer_norm_(take_rms_norm(from, name + ".mixer_norm", p.width, p)), mixer_(make_mixer(from, name, p, kind)) {
    if (std::holds_alternative<attention>(mixer_)) {
      feed_forward_norm_ = take_rms_norm(from, name + ".feed_forward_norm", p.width, p);
      feed_forward_ = feed_forward(from, name + ".feed_forward", p);
    }
  }

  layer_memory make_memory(index_t capacity) const {
    return std::visit([&](const auto& mix) { return layer_memory(mix.make_memory(capacity)); }, mixer_);
  }

  void operator()(matrix& x, layer_memory& past) const {  // (T, C)
    std::visit([&]<class Mixer>(const Mixer& mix) { x += mix(mixer_norm_(x), std::get<typename Mixer::memory>(past)); },
               mixer_);
    if (feed_forward_) x += (*feed_forward_)((*feed_forward_norm_)(x));
  }

 private:
  static mixer make_mixer(weights& from, const std::string& name, const hyper_parameters& p, const std::string& kind) {
    if (kind == "full") return attention(from, name + ".mixer", p, mix::unlimited);
    if (kind == "window") return attention(from, name + ".mixer", p, p.window - 1);
    if (kind == "mamba2") return mamba2(from, name + ".mixer", p);
    from.file().fail(name, " is of the kind '", kind, "'; this program knows full, window and mamba2");
  }

  rms_norm mixer_norm_;
  mixer mixer_;
  std::optional<rms_norm> feed_forward_norm_;
  std::optional<feed_forward> feed_forward_;
};

class model {
 public:
  static model read(const std::filesystem::path& path) { return model(safetensors::read(path)); }

  explicit model(const safetensors& file) : model(weights(file), read_hyper_parameters(file)) {}

  const hyper_parameters& parameters() const { return parameters_; }

  /// Room for `capacity` tokens, none read yet.
  memory make_memory(index_t capacity) const {
    memory result;
    for (const layer& each : layers_) result.layers.push_back(each.make_memory(capacity));
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
        norm_(take_rms_norm(from, "norm", p.width, p)),
        head_(take_linear(from, "embedding", p.width, p.vocabulary)) {
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
