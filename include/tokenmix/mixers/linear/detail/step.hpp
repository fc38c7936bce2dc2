// SPDX-License-Identifier: Apache-2.0
/// @file One token: the state goes by once, from where it was to where it shall be.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A panel of a state in anybody's memory: rows `stride` apart, of which `channels` may be touched.
template <class T>
struct state_panel {
  T* data = nullptr;
  index_t stride = 0;
};

/// to[d] = keep from[d] + sum over j of keys[j][d] values[j], and reads[i] = queries[i] from if `Reads`, in one pass.
template <class T, index_t Vectors, factor Keep, bool Reads>
TOKENMIX_NOINLINE void pass_state(const T* from, index_t from_stride, T* to, index_t to_stride, index_t rows,
                                  index_t channels, const T* keys, index_t key_stride, index_t writes,
                                  const T* TOKENMIX_RESTRICT values, row_factors<T, Keep> keep, const T* query,
                                  T* TOKENMIX_RESTRICT read) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  simd::batch<T> value[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    sum[v] = simd::batch<T>(T(0));
    value[v] = simd::load(values + v * L);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      const simd::batch<T> key(keys[d]);
      simd::batch<T> q;
      if constexpr (Reads) q = simd::batch<T>(query[d]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        constexpr bool all = decltype(whole)::value || v + 1 < Vectors;
        simd::batch<T> s;
        if constexpr (all) {
          s = simd::load(from + v * L);
        } else {
          s = simd::load_n(from + v * L, last);
        }
        if constexpr (Reads) sum[v] = simd::fma(q, s, sum[v]);
        if constexpr (Keep == factor::number) s = s * keep.template at<Vectors>(d, v);
        if constexpr (Keep == factor::lanes) s = s * keep.template at<Vectors>(0, v);
        s = simd::fma(key, value[v], s);
        for (index_t j = 1; j < writes; ++j)
          s = simd::fma(simd::batch<T>(keys[j * key_stride + d]), simd::load(values + j * W + v * L), s);
        if constexpr (all) {
          simd::store(to + v * L, s);
        } else {
          simd::store_n(to + v * L, s, last);
        }
      });
      from += from_stride;
      to += to_stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  if constexpr (Reads) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(read + v * L, sum[v]); });
  }
}

/// reads (rows, width) = keys (rows, D) from.
template <class T, index_t Vectors>
void read_panel(const T* keys, index_t key_stride, index_t rows, const T* from, index_t from_stride, index_t state_rows,
                index_t channels, T* reads) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  if (channels == W) {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, false);
  } else {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, false,
                                   channels - (Vectors - 1) * L);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
