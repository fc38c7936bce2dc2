// SPDX-License-Identifier: Apache-2.0
/// @file The kernel of a panel that goes through its tokens one by one: a few rows of the state in registers at a time.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/panel.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// What n tokens hand to a panel: keys and queries as rows of features, values and outputs as rows of the panel.
template <class T, factor Keep>
struct panel_tokens {
  index_t count;
  const T* keys;     // (n, key_stride)
  const T* queries;  // (query heads, n, key_stride)
  index_t key_stride;
  index_t query_heads;
  index_t query_head_stride;
  const T* values;                  // (n, width)
  row_factors<T, Keep> keep;        // number: (D); lanes: (width); or null
  row_factors<T, Keep> keep_after;  // as keep
  T* outputs;                       // (query heads, n, width): what rows of the state give is added
  index_t output_head_stride;
};

/// Rows of a state that are in registers while all tokens go by: with the token's value and output beside them.
constexpr index_t rows_in_registers(index_t vectors) {
#if defined(__AVX512F__) || defined(__aarch64__)
  return vectors > 2 ? 4 : 8;
#else
  return vectors > 2 ? 2 : vectors == 2 ? 4 : 8;
#endif
}

template <class T, index_t Rows, index_t Vectors, factor Keep, reads Reads>
TOKENMIX_ALWAYS_INLINE void advance_rows(const panel_tokens<T, Keep>& tokens, index_t first, T* state) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  simd::batch<T> s[static_cast<std::size_t>(Rows)][static_cast<std::size_t>(Vectors)];
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { s[r][v] = simd::load(state + r * W + v * L); });
  });
  const auto decay = [&](const row_factors<T, Keep>& by) TOKENMIX_LAMBDA_INLINE {
    if (Keep == factor::none || by.data == nullptr) return;
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        s[r][v] = s[r][v] * by.template at<Vectors>(Keep == factor::number ? first + r : 0, v);
      });
    });
  };
  decay(tokens.keep);
  for (index_t t = 0; t < tokens.count; ++t) {
    const T* key = tokens.keys + t * tokens.key_stride + first;
    const auto read = [&](index_t g) TOKENMIX_LAMBDA_INLINE {
      const T* query = tokens.queries + g * tokens.query_head_stride + t * tokens.key_stride + first;
      T* out = tokens.outputs + g * tokens.output_head_stride + t * W;
      simd::batch<T> o[static_cast<std::size_t>(Vectors)];
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { o[v] = simd::load(out + v * L); });
      simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
        const simd::batch<T> q(query[r]);
        simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { o[v] = simd::fma(q, s[r][v], o[v]); });
      });
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(out + v * L, o[v]); });
    };
    if constexpr (Reads == reads::before) {
      for (index_t g = 0; g < tokens.query_heads; ++g) read(g);
    }
    simd::batch<T> value[static_cast<std::size_t>(Vectors)];
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      value[v] = simd::in_register(simd::load(tokens.values + t * W + v * L));
    });
    simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
      const simd::batch<T> k(key[r]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { s[r][v] = simd::fma(k, value[v], s[r][v]); });
    });
    if constexpr (Reads == reads::decayed) {
      for (index_t g = 0; g < tokens.query_heads; ++g) read(g);
    }
  }
  decay(tokens.keep_after);
  simd::unroll<Rows>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(state + r * W + v * L, s[r][v]); });
  });
}

/// state[d] = keep[d] state[d]; then, t ascending: state[d] += keys[t][d] values[t], and outputs[g][t] += queries[g][t]' state,
/// of the state with that token or without it; then state[d] = keep_after[d] state[d].
///
/// A number of the outputs is one fma chain over ascending d, a number of the state one over ascending t.
template <class T, index_t Vectors, factor Keep, reads Reads>
TOKENMIX_NOINLINE void advance_panel(const panel_tokens<T, Keep>& tokens, index_t rows, T* TOKENMIX_RESTRICT state,
                                     simd::lines_ahead& ahead) {
  constexpr index_t R = rows_in_registers(Vectors);
  constexpr index_t W = Vectors * simd::lanes<T>;
  index_t row = 0;
  for (; row + R <= rows; row += R) {
    ahead.fetch(lines_per_block);
    advance_rows<T, R, Vectors, Keep, Reads>(tokens, row, state + row * W);
  }
  for (; row < rows; ++row) advance_rows<T, 1, Vectors, Keep, Reads>(tokens, row, state + row * W);
}

/// state[d] = keep[d] state[d] + key[d] value; then output += query' state and, if there is a next token, read += next' state,
/// in one pass.
template <class T, index_t Vectors, factor Keep, bool Next>
TOKENMIX_NOINLINE void write_and_read(const T* key, const T* value, row_factors<T, Keep> keep, index_t rows,
                                      T* TOKENMIX_RESTRICT state, const T* query, T* TOKENMIX_RESTRICT output,
                                      const T* next, T* TOKENMIX_RESTRICT read) {
  constexpr index_t L = simd::lanes<T>;
  constexpr auto n = static_cast<std::size_t>(Vectors);
  simd::batch<T> u[n], o[n], r[n], kept[n];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    u[v] = simd::load(value + v * L);
    o[v] = simd::load(output + v * L);
    if constexpr (Next) r[v] = simd::load(read + v * L);
    if constexpr (Keep == factor::lanes) kept[v] = keep.template at<Vectors>(0, v);
  });
  for (index_t d = 0; d < rows; ++d, state += Vectors * L) {
    const simd::batch<T> k(key[d]), q(query[d]);
    simd::batch<T> of_next, kept_row;
    if constexpr (Next) of_next = simd::batch<T>(next[d]);
    if constexpr (Keep == factor::number) kept_row = keep.template at<Vectors>(d, 0);
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      simd::batch<T> s = simd::load(state + v * L);
      if constexpr (Keep == factor::number) s = s * kept_row;
      if constexpr (Keep == factor::lanes) s = s * kept[v];
      s = simd::fma(k, u[v], s);
      simd::store(state + v * L, s);
      o[v] = simd::fma(q, s, o[v]);
      if constexpr (Next) r[v] = simd::fma(of_next, s, r[v]);
    });
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    simd::store(output + v * L, o[v]);
    if constexpr (Next) simd::store(read + v * L, r[v]);
  });
}

/// rows of a state *= a number per row, or a register per row of registers.
template <class T, index_t Vectors, factor Keep>
TOKENMIX_NOINLINE void decay_panel(row_factors<T, Keep> keep, index_t rows, T* state) {
  constexpr index_t L = simd::lanes<T>;
  for (index_t d = 0; d < rows; ++d) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
      T* at = state + (d * Vectors + v) * L;
      simd::store(at, simd::load(at) * keep.template at<Vectors>(Keep == factor::number ? d : 0, v));
    });
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
