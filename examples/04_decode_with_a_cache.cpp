// SPDX-License-Identifier: Apache-2.0
// Decoding with a cache: a prompt is read at once, then one token at a time is appended and attended from. In float the result
// has the bits of one call over the whole sequence, however the tokens arrive.
#include <algorithm>
#include <cstring>  // std::memcmp
#include <iostream>
#include <random>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

int main() {
  constexpr mix::index_t H = 8, Hk = 2, D = 64, tokens = 400, prompt = 300;
  std::mt19937 random(4);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q({1, H, tokens, D});   // (B, H, T, D)
  mix::tensor<float, 4> k({1, Hk, tokens, D});  // (B, Hk, S, D)
  mix::tensor<float, 4> v({1, Hk, tokens, D});  // (B, Hk, S, Dv)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  const mix::softmax_options options{.mask = mix::causal{} & mix::window{.left = 255}};

  mix::tensor<float, 4> whole({1, H, tokens, D});  // (B, H, T, Dv)
  mix::softmax_attention(q, k, v, whole, options);

  mix::kv_cache<float> cache(1, Hk, tokens, D, D);        // all its memory is allocated here
  mix::tensor<float, 4> step_by_step({1, H, tokens, D});  // (B, H, T, Dv)
  const auto absorb = [&](mix::index_t first, mix::index_t count) {
    cache.append(k.slice(2, first, count), v.slice(2, first, count));
    // The queries are the last `count` positions of the cache; out is a view with the strides of the whole.
    mix::softmax_attention(q.slice(2, first, count), cache, step_by_step.slice(2, first, count), options);
  };
  absorb(0, prompt);
  for (mix::index_t t = prompt; t < tokens; ++t) absorb(t, 1);

  const auto bytes = static_cast<std::size_t>(whole.size()) * sizeof(float);
  const bool same = std::memcmp(whole.data(), step_by_step.data(), bytes) == 0;
  std::cout << prompt << " tokens at once and " << tokens - prompt << " one by one, a cache of " << cache.bytes() / 1024
            << " KiB: " << (same ? "the same bits as one call\n" : "other bits than one call\n");
  return same ? 0 : 1;
}
