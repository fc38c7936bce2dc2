// SPDX-License-Identifier: Apache-2.0
/// @file The state of softmax attention over a part of the keys: parts merge, and a merged state is read.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/simd/convert.hpp>

#include <cmath>

namespace tokenmix::inline TOKENMIX_ABI {

/// What softmax attention over some keys leaves behind for every query, as views of memory that the caller owns:
///
///     m = max of the scores,   l = sum of exp(score - m),   acc = sum of exp(score - m) v
///
/// The empty state is m = -inf, l = 0, acc = 0.
template <class T>
struct softmax_state {
  tensor_view<T, 3> m{};    // (B, H, T)
  tensor_view<T, 3> l{};    // (B, H, T)
  tensor_view<T, 4> acc{};  // (B, H, T, Dv)
};

namespace detail {

template <class T>
void check_state(const char* name, const softmax_state<T>& state) {
  const std::string of(name);
  const extents<4>& shape = state.acc.shape();
  check_output((of + ".acc").c_str(), state.acc);
  check_view((of + ".m").c_str(), state.m);
  check_view((of + ".l").c_str(), state.l);
  check_shape((of + ".m").c_str(), state.m, {shape[0], shape[1], shape[2]}, "(B, H, T) of acc");
  check_shape((of + ".l").c_str(), state.l, {shape[0], shape[1], shape[2]}, "(B, H, T) of acc");
}

template <class T, class F>
void for_each_row(const softmax_state<T>& state, F&& f) {
  for (index_t b = 0; b < state.acc.extent(0); ++b) {
    for (index_t h = 0; h < state.acc.extent(1); ++h) {
      for (index_t t = 0; t < state.acc.extent(2); ++t) f(b, h, t);
    }
  }
}

}  // namespace detail

/// Merges the state of later keys into the state of earlier ones:
///
///     m' = max(m, n),   l' = l exp(m - m') + k exp(n - m'),   acc' likewise
///
/// Shapes     m, l: (B, H, T); acc: (B, H, T, Dv), the same in both.
/// Aliasing   right shares no element with left.
/// Numerics   an empty state is the identity, bit for bit; exp(0) is 1. Merging the states of aligned powers of two of
///            leaves (softmax_leaf_keys keys each, counted from the sequence's start) in their tree gives the bits of one call.
/// Cost       2 multiplications per element of acc.
/// Errors     shape_error if the shapes differ or overlap.
/// Source     Milakov and Gimelshein 2018, section 3.1.
template <class T>
void merge(const softmax_state<T>& left, const softmax_state<T>& right) {
  detail::check_state("left", left);
  detail::check_state("right", right);
  detail::check_same_shape("right.acc", right.acc, "left.acc", left.acc);
  detail::check_overlap("left.acc", left.acc, "right.acc", right.acc);
  constexpr index_t L = simd::lanes<T>;
  const index_t channels = left.acc.extent(3);
  detail::for_each_row(left, [&](index_t b, index_t h, index_t t) {
    alignas(64) T sums[4][static_cast<std::size_t>(L)];
    std::fill_n(sums[0], L, left.m(b, h, t));
    std::fill_n(sums[1], L, left.l(b, h, t));
    std::fill_n(sums[2], L, right.m(b, h, t));
    std::fill_n(sums[3], L, right.l(b, h, t));
    detail::merge_sums<T>(sums[0], sums[1], sums[2], sums[3], L, [&](index_t, const detail::merge_factors<T>& f) {
      T* a = left.acc.row(b, h, t);
      const T* other = right.acc.row(b, h, t);
      for (index_t c = 0; c < channels; c += L) {
        const index_t n = std::min(L, channels - c);
        simd::store_n(a + c, simd::fma(simd::load_n(a + c, n), f.left, simd::load_n(other + c, n) * f.right), n);
      }
    });
    left.m(b, h, t) = sums[0][0];
    left.l(b, h, t) = sums[1][0];
  });
}

/// Reads a state: out = acc / l, zeros where no key was seen; lse = m + log l, -inf there.
///
/// Shapes     out: (B, H, T, Dv); lse: (B, H, T) or empty.
/// Aliasing   out may be state.acc (of the same type); nothing else overlaps.
/// Errors     shape_error if the shapes differ.
template <class T, class O, class Lse = T>
void finish(const softmax_state<T>& state, tensor_view<O, 4> out, tensor_view<Lse, 3> lse = {}) {
  detail::check_state("state", state);
  detail::check_output("out", out);
  detail::check_shape("out", out, state.acc.shape(), "(B, H, T, Dv) of the state");
  detail::check_overlap("out", out, "state.acc", state.acc, detail::aliasing::identical);
  if (lse.data() != nullptr) detail::check_shape("lse", lse, state.m.shape(), "(B, H, T) of the state");
  constexpr index_t L = simd::lanes<T>;
  const index_t channels = out.extent(3);
  detail::for_each_row(state, [&](index_t b, index_t h, index_t t) {
    const T l = state.l(b, h, t);
    const simd::batch<T> factor(l == T(0) ? T(0) : T(1) / l);
    const T* acc = state.acc.row(b, h, t);
    O* to = out.row(b, h, t);
    for (index_t c = 0; c < channels; c += L) {
      const index_t n = std::min(L, channels - c);
      simd::store_as_n(to + c, simd::fma(simd::load_n(acc + c, n), factor, simd::batch<T>(T(0))), n);
    }
    if (lse.data() != nullptr) {
      lse(b, h, t) = static_cast<Lse>(l == T(0) ? detail::minus_infinity<T> : state.m(b, h, t) + std::log(l));
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
