// SPDX-License-Identifier: Apache-2.0
/// @file The kernels of a step: columns of a state that are read, or read and written, row by row where they lie.
#pragma once

#include <tokenmix/mixers/linear/detail/decay.hpp>
#include <tokenmix/mixers/linear/detail/panel.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A panel of a state in anybody's memory: rows `stride` apart.
template <class T>
struct state_panel {
  T* data = nullptr;
  index_t stride = 0;

  state_panel at(index_t row, index_t column) const { return {data + row * stride + column, stride}; }
};

/// Sums over the rows of a panel: `weights` are (rows) numbers each, `sums` are `stride` apart.
template <class T>
struct panel_sums {
  const T* const* weights;
  T* sums;
  index_t stride;
};

/// What a token writes to a panel: sum over j of keys[j][d] values[j].
template <class T>
struct panel_writes {
  const T* keys;
  index_t key_stride;
  const T* values;
  index_t value_stride;
  index_t count;
};

/// sums[r] += weights[r]' from for Sums rows of weights, in one pass. `channels` of the panel may be read.
template <class T, index_t Vectors, index_t Sums>
TOKENMIX_NOINLINE void read_panel(state_panel<const T> from, index_t rows, index_t channels,
                                  const panel_sums<T>& into) {
  constexpr index_t L = simd::lanes<T>;
  const index_t last = channels - (Vectors - 1) * L;
  const T* weights[static_cast<std::size_t>(Sums)];
  simd::batch<T> sum[static_cast<std::size_t>(Sums)][static_cast<std::size_t>(Vectors)];
  simd::unroll<Sums>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    weights[r] = into.weights[r];
    simd::unroll<Vectors>([&](auto v)
                              TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::load(into.sums + r * into.stride + v * L); });
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      simd::batch<T> weight[static_cast<std::size_t>(Sums)];
      simd::unroll<Sums>([&](auto r)
                             TOKENMIX_LAMBDA_INLINE { weight[r] = simd::in_register(simd::batch<T>(weights[r][d])); });
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        simd::batch<T> s;
        if constexpr (std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors) {
          s = simd::in_register(simd::load(from.data + v * L));
        } else {
          s = simd::load_n(from.data + v * L, last);
        }
        simd::unroll<Sums>([&](auto r) TOKENMIX_LAMBDA_INLINE { sum[r][v] = simd::fma(weight[r], s, sum[r][v]); });
      });
      from.data += from.stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  simd::unroll<Sums>([&](auto r) TOKENMIX_LAMBDA_INLINE {
    simd::unroll<Vectors>([&](auto v)
                              TOKENMIX_LAMBDA_INLINE { simd::store(into.sums + r * into.stride + v * L, sum[r][v]); });
  });
}

/// to[d] = keep from[d] + sum over j of keys[j][d] values[j], and, in the same pass, sums += weights' from (before) or weights'
/// to (decayed). The number of writes is `Writes`, or writes.count if that is 0.
///
/// Timed on Zen 4, a state in the caches, registers of 64 bytes: a line that is written and read by one FMA each takes 3.1 cycles,
/// by one more FMA one more cycle. It looks as if a store took the place of an FMA; no counter was there to say so.
template <class T, index_t Vectors, factor Keep, index_t Writes, reads Along>
TOKENMIX_NOINLINE void write_panel(state_panel<const T> from, state_panel<T> to, index_t rows, index_t channels,
                                   const panel_writes<T>& writes, row_factors<T, Keep> keep,
                                   [[maybe_unused]] const T* weights, [[maybe_unused]] T* sums) {
  constexpr index_t L = simd::lanes<T>;
  constexpr bool along = Along != reads::nothing;
  const index_t last = channels - (Vectors - 1) * L;
  constexpr index_t held = Writes == 0 ? 1 : Writes;  // rows of values in registers
  const panel_writes<T> w = writes;
  simd::batch<T> value[static_cast<std::size_t>(held)][static_cast<std::size_t>(Vectors)];
  simd::batch<T> kept[static_cast<std::size_t>(Vectors)];
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    if constexpr (along) sum[v] = simd::load(sums + v * L);
    simd::unroll<held>([&](auto j)
                           TOKENMIX_LAMBDA_INLINE { value[j][v] = simd::load(w.values + j * w.value_stride + v * L); });
    if constexpr (Keep == factor::lanes) kept[v] = keep.template at<Vectors>(0, v);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      simd::batch<T> key[static_cast<std::size_t>(held)];
      simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE {
        key[j] = simd::in_register(simd::batch<T>(w.keys[j * w.key_stride + d]));
      });
      simd::batch<T> weight;
      if constexpr (along) weight = simd::in_register(simd::batch<T>(weights[d]));
      simd::batch<T> kept_row;
      if constexpr (Keep == factor::number) kept_row = simd::in_register(keep.template at<Vectors>(d, 0));
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        constexpr bool all = std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors;
        simd::batch<T> s;
        if constexpr (all) {
          s = simd::in_register(simd::load(from.data + v * L));
        } else {
          s = simd::load_n(from.data + v * L, last);
        }
        if constexpr (Along == reads::before) sum[v] = simd::fma(weight, s, sum[v]);
        if constexpr (Keep == factor::number) s = s * kept_row;
        if constexpr (Keep == factor::lanes) s = s * kept[v];
        simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { s = simd::fma(key[j], value[j][v], s); });
        if constexpr (Writes == 0) {
          for (index_t j = 1; j < w.count; ++j) {
            s = simd::fma(simd::batch<T>(w.keys[j * w.key_stride + d]),
                          simd::load(w.values + j * w.value_stride + v * L), s);
          }
        }
        if constexpr (Along == reads::decayed) sum[v] = simd::fma(weight, s, sum[v]);
        if constexpr (all) {
          simd::store(to.data + v * L, s);
        } else {
          simd::store_n(to.data + v * L, s, last);
        }
      });
      from.data += from.stride;
      to.data += to.stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  if constexpr (along) simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(sums + v * L, sum[v]); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
