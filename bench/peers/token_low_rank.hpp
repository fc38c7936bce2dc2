// SPDX-License-Identifier: Apache-2.0
// RWKV-6, RWKV-7 and products of delta steps token by token, decently: a panel of the state stays in the first cache.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/simd/math.hpp>

#include <cmath>
#include <vector>

namespace bench {

using tokenmix::index_t;

/// q, k, v, and what a rule takes besides, of one head, row by row without gaps.
struct low_rank_rows {
  const float* q;      // (T, D)
  const float* k;      // (T, D) or (T, n, D)
  const float* v;      // (T, D) or (T, n, D)
  const float* decay;  // (T, D), log decays; null: none
  const float* a;      // (T, D)
  const float* b;      // (T, D)
  const float* bonus;  // (D)
  const float* beta;   // (T, n)
};

/// A panel of values of one head, V registers wide.
template <index_t V>
struct token_panel {
  static constexpr index_t L = tokenmix::simd::lanes<float>;
  static constexpr auto n = static_cast<std::size_t>(V);
  using row = tokenmix::simd::batch<float>[n];

  static void zero(row& x) {
    for (index_t v = 0; v < V; ++v) x[v] = tokenmix::simd::batch<float>(0.0f);
  }
  static void take(const float* from, row& x) {
    for (index_t v = 0; v < V; ++v) x[v] = tokenmix::simd::load(from + v * L);
  }
  /// sum += key' S.
  static void read(const float* S, const float* key, index_t width, row& sum) {
    using namespace tokenmix::simd;
    for (index_t d = 0; d < width; ++d)
      for (index_t v = 0; v < V; ++v) sum[v] = fma(batch<float>(key[d]), load(S + (d * V + v) * L), sum[v]);
  }
};

/// out (T, Dv) of one head from an empty state; D = Dv = width, a multiple of 64.
///
/// `Bonus`: RWKV-6. `Steps` > 0: so many delta steps per token. Otherwise identity or diagonal plus low rank.
template <bool Bonus, index_t Steps, bool Decays>
void token_low_rank(const low_rank_rows& in, float* out, index_t tokens, index_t width, float scale,
                    std::vector<float>& state) {
  using namespace tokenmix::simd;
  constexpr index_t L = lanes<float>;
  constexpr index_t V = 64 / L <= 4 ? 64 / L : 4;
  constexpr index_t W = V * L;
  using panel = token_panel<V>;
  std::vector<float> factors(static_cast<std::size_t>(width), 1.0f);
  for (index_t c = 0; c < width; c += W) {
    state.assign(static_cast<std::size_t>(width * W), 0.0f);
    float* S = state.data();
    for (index_t t = 0; t < tokens; ++t) {
      const float* q = in.q + t * width;
      typename panel::row o, u, x;
      panel::zero(o);
      if constexpr (Decays) {
        for (index_t d = 0; d < width; d += L)
          store(&factors[static_cast<std::size_t>(d)], exp(load(in.decay + t * width + d)));
      }
      const auto factor = [&](index_t d) { return batch<float>(factors[static_cast<std::size_t>(d)]); };
      if constexpr (Steps > 0) {
        for (index_t i = 0; i < Steps; ++i) {
          const float* k = in.k + (t * Steps + i) * width;
          panel::zero(u);
          panel::read(S, k, width, u);
          panel::take(in.v + (t * Steps + i) * width + c, x);
          for (index_t v = 0; v < V; ++v) u[v] = (x[v] - u[v]) * batch<float>(in.beta[t * Steps + i]);
          for (index_t d = 0; d < width; ++d) {
            for (index_t v = 0; v < V; ++v) {
              float* s = S + d * W + v * L;
              const batch<float> e = fma(batch<float>(k[d]), u[v], load(s));
              store(s, e);
              if (i + 1 == Steps) o[v] = fma(batch<float>(q[d]), e, o[v]);
            }
          }
        }
      } else {
        const float* k = in.k + t * width;
        panel::take(in.v + t * width + c, x);
        if constexpr (Bonus) {
          batch<float> own(0.0f);
          for (index_t d = 0; d < width; d += L) own = fma(load(q + d) * load(in.bonus + d), load(k + d), own);
          const batch<float> weight(reduce_add(own));
          for (index_t v = 0; v < V; ++v) o[v] = weight * x[v];
        } else {
          panel::zero(u);
          panel::read(S, in.b + t * width, width, u);
        }
        for (index_t d = 0; d < width; ++d) {
          for (index_t v = 0; v < V; ++v) {
            float* s = S + d * W + v * L;
            batch<float> e = load(s);
            if constexpr (Bonus) o[v] = fma(batch<float>(q[d]), e, o[v]);
            if constexpr (Decays) e = e * factor(d);
            if constexpr (!Bonus) e = fma(batch<float>(in.a[t * width + d]), u[v], e);
            e = fma(batch<float>(k[d]), x[v], e);
            store(s, e);
            if constexpr (!Bonus) o[v] = fma(batch<float>(q[d]), e, o[v]);
          }
        }
      }
      for (index_t v = 0; v < V; ++v) store(out + t * width + c + v * L, o[v] * batch<float>(scale));
    }
  }
}

}  // namespace bench
