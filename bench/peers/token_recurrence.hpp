// SPDX-License-Identifier: Apache-2.0
// Linear mixers token by token, decently: a panel of the state stays in the first cache, value channels in the lanes.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/simd/math.hpp>

#include <cmath>
#include <vector>

namespace bench {

using tokenmix::index_t;

/// How a recurrence forgets and writes.
enum class forgets { nothing, per_head, per_key_channel, per_value_channel };

/// q, k, v, log decays and beta of one head, row by row without gaps.
struct token_rows {
  const float* q;      // (T, D)
  const float* k;      // (T, D)
  const float* v;      // (T, Dv)
  const float* decay;  // (T) or (T, D) or (T, Dv), log decays
  const float* beta;   // (T)
};

/// out (T, Dv) of one head from an empty state; D = Dv = width, a multiple of 64. `Delta`: values are solved for.
template <forgets Gate, bool Delta>
void token_recurrence(const token_rows& in, float* out, index_t tokens, index_t width, float scale,
                      std::vector<float>& state) {
  using namespace tokenmix::simd;
  constexpr index_t L = lanes<float>;
  constexpr index_t V = 64 / L <= 4 ? 64 / L : 4;
  constexpr index_t W = V * L;
  constexpr auto n = static_cast<std::size_t>(V);
  std::vector<float> factors(static_cast<std::size_t>(width));
  for (index_t c = 0; c < width; c += W) {
    state.assign(static_cast<std::size_t>(width * W), 0.0f);
    float* S = state.data();
    for (index_t t = 0; t < tokens; ++t) {
      const float* q = in.q + t * width;
      const float* k = in.k + t * width;
      batch<float> u[n], o[n], keep[n];
      float of_head = 1.0f;
      if constexpr (Gate == forgets::per_head) of_head = std::exp(in.decay[t]);
      if constexpr (Gate == forgets::per_key_channel) {
        for (index_t d = 0; d < width; d += L) store(&factors[static_cast<std::size_t>(d)], exp(load(in.decay + t * width + d)));
      }
      for (index_t v = 0; v < V; ++v) {
        u[v] = load(in.v + t * width + c + v * L);
        o[v] = batch<float>(0.0f);
        keep[v] = Gate == forgets::per_value_channel ? exp(load(in.decay + t * width + c + v * L)) : batch<float>(of_head);
      }
      const auto factor = [&](index_t d, index_t v) {
        return Gate == forgets::per_key_channel ? batch<float>(factors[static_cast<std::size_t>(d)]) : keep[v];
      };
      if constexpr (Delta) {
        batch<float> r[n];
        for (index_t v = 0; v < V; ++v) r[v] = batch<float>(0.0f);
        for (index_t d = 0; d < width; ++d) {
          for (index_t v = 0; v < V; ++v) {
            float* s = S + d * W + v * L;
            batch<float> x = load(s);
            if constexpr (Gate != forgets::nothing) store(s, x = x * factor(d, v));
            r[v] = fma(batch<float>(k[d]), x, r[v]);
          }
        }
        for (index_t v = 0; v < V; ++v) u[v] = (u[v] - r[v]) * batch<float>(in.beta[t]);
      }
      for (index_t d = 0; d < width; ++d) {
        for (index_t v = 0; v < V; ++v) {
          float* s = S + d * W + v * L;
          batch<float> x = load(s);
          if constexpr (Gate != forgets::nothing && !Delta) x = x * factor(d, v);
          x = fma(batch<float>(k[d]), u[v], x);
          store(s, x);
          o[v] = fma(batch<float>(q[d]), x, o[v]);
        }
      }
      for (index_t v = 0; v < V; ++v) store(out + t * width + c + v * L, o[v] * batch<float>(scale));
    }
  }
}

}  // namespace bench
