// SPDX-License-Identifier: Apache-2.0
/// @file What ssd and its relatives check at the door, and how they see their operands.
#pragma once

#include <tokenmix/mixers/state_space/detail/ssd_problem.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// (B, T, H, D) as (B, H, T, D).
template <class View>
auto heads_first(const View& view) {
  return view.permuted({0, 2, 1, 3});
}

/// (H) or (H, P) as (H, 1) or (H, P).
template <class T, std::size_t R>
tensor_view<const T, 2> skip_rows(const tensor_view<const T, R>& skip) {
  if constexpr (R == 2) {
    return skip;
  } else {
    return {skip.data(), {skip.extent(0), 1}, {skip.stride(0), 1}};
  }
}

template <class T>
delta_steps<T> steps_of(delta_form form, const delta_limits& limits) {
  return {form, static_cast<T>(limits.least), static_cast<T>(limits.most)};
}

/// The numbers (B, T, H) of a head's tokens as a line, in the order in which tokens are met.
template <class G, class T>
void load_numbers(const tensor_view<const G, 3>& view, const sequence& seq, index_t head, index_t first, index_t count,
                  bool reversed, T* to) {
  const index_t row = reversed ? seq.key_row + seq.keys - 1 - first : seq.key_row + first;
  const index_t step = reversed ? -view.stride(1) : view.stride(1);
  const G* from = view.row(seq.batch, row, head);
  for (index_t t = 0; t < count; ++t) to[t] = static_cast<T>(from[t * step]);
  for (index_t t = count; t % simd::lanes<T> != 0; ++t) to[t] = T(0);
}

/// Step sizes.
template <class G, class T>
struct ssd_deltas {
  tensor_view<const G, 3> delta;  // (B, T, H)
  tensor_view<const T, 1> bias;   // (H) or empty
  delta_steps<T> step;

  void load(const sequence& seq, index_t head, index_t first, index_t count, bool reversed, T* to) const {
    load_numbers(delta, seq, head, first, count, reversed, to);
    const simd::batch<T> b(bias.data() == nullptr ? T(0) : bias(head));
    for (index_t t = 0; t < count; t += simd::lanes<T>) simd::store(to + t, step(simd::load(to + t), b));
  }
};

template <class T>
void check_delta(const tensor_view<const T, 1>& bias, index_t heads, const delta_limits& limits) {
  if (bias.data() != nullptr) {
    check_view("delta_bias", bias);
    check_shape("delta_bias", bias, {heads}, "(H)");
  }
  if (!(limits.least >= 0) || !(limits.most >= limits.least)) {
    fail_value("delta_limits are ", limits.least, " and ", limits.most, ": expected 0 <= least <= most");
  }
}

template <class E, class G, class T, std::size_t R>
void check_ssd_tokens(const tensor_view<const E, 4>& x, const tensor_view<const G, 3>& delta, const char* delta_name,
                      const tensor_view<const E, 4>& B, const tensor_view<const E, 4>& C,
                      const tensor_view<const E, 4>& gate, const tensor_view<const T, R>& skip) {
  check_input("x", x);
  check_view(delta_name, delta);
  check_input("B", B);
  check_input("C", C);
  check_shape(delta_name, delta, {x.extent(0), x.extent(1), x.extent(2)}, "(B, T, H)");
  check_same_extent("B", B, 0, "x", x, 0, "batch elements");
  check_same_extent("B", B, 1, "x", x, 1, "tokens");
  check_same_shape("C", C, "B", B);
  check_head_groups("x", x, 2, "B", B, 2, "all", "B's");
  if (gate.data() != nullptr) {
    check_input("gate", gate);
    check_same_shape("gate", gate, "x", x);
  }
  if (skip.data() == nullptr) return;
  check_view("skip", skip);
  if constexpr (R == 1) {
    check_shape("skip", skip, {x.extent(2)}, "(H)");
  } else {
    check_channels_contiguous("skip", skip);
    check_shape("skip", skip, {x.extent(2), x.extent(3)}, "(H, P)");
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
