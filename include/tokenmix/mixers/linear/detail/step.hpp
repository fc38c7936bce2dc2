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

/// to[d] = keep from[d] + sum over j of keys[j][d] values[j], and read = query' from if `Reads`, in one pass; one write, or `writes`.
template <class T, index_t Vectors, factor Keep, bool Reads, bool OneWrite>
TOKENMIX_NOINLINE void pass_state(const T* from, index_t from_stride, T* to, index_t to_stride, index_t rows,
                                  index_t channels, const T* keys, index_t key_stride, index_t writes,
                                  const T* TOKENMIX_RESTRICT values, row_factors<T, Keep> keep, const T* query,
                                  T* TOKENMIX_RESTRICT read) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  simd::batch<T> value[static_cast<std::size_t>(Vectors)];
  simd::batch<T> kept[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    sum[v] = simd::batch<T>(T(0));
    value[v] = simd::load(values + v * L);
    if constexpr (Keep == factor::lanes) kept[v] = keep.template at<Vectors>(0, v);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      const simd::batch<T> key(keys[d]);
      simd::batch<T> q, kept_row;
      if constexpr (Reads) q = simd::batch<T>(query[d]);
      if constexpr (Keep == factor::number) kept_row = keep.template at<Vectors>(d, 0);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        constexpr bool all = std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors;
        simd::batch<T> s;
        if constexpr (all) {
          s = simd::load(from + v * L);
        } else {
          s = simd::load_n(from + v * L, last);
        }
        if constexpr (Reads) sum[v] = simd::fma(q, s, sum[v]);
        if constexpr (Keep == factor::number) s = s * kept_row;
        if constexpr (Keep == factor::lanes) s = s * kept[v];
        s = simd::fma(key, value[v], s);
        if constexpr (!OneWrite) {
          for (index_t j = 1; j < writes; ++j)
            s = simd::fma(simd::batch<T>(keys[j * key_stride + d]), simd::load(values + j * W + v * L), s);
        }
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

/// first = a' from, second = b' from, in one pass.
template <class T, index_t Vectors>
TOKENMIX_NOINLINE void read_twice(const T* from, index_t from_stride, index_t rows, index_t channels, const T* a,
                                  const T* b, T* TOKENMIX_RESTRICT first, T* TOKENMIX_RESTRICT second) {
  constexpr index_t L = simd::lanes<T>;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum_a[static_cast<std::size_t>(Vectors)];
  simd::batch<T> sum_b[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum_a[v] = sum_b[v] = simd::batch<T>(T(0)); });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      const simd::batch<T> of_a(a[d]);
      const simd::batch<T> of_b(b[d]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        simd::batch<T> s;
        if constexpr (std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors) {
          s = simd::load(from + v * L);
        } else {
          s = simd::load_n(from + v * L, last);
        }
        sum_a[v] = simd::fma(of_a, s, sum_a[v]);
        sum_b[v] = simd::fma(of_b, s, sum_b[v]);
      });
      from += from_stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    simd::store(first + v * L, sum_a[v]);
    simd::store(second + v * L, sum_b[v]);
  });
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
