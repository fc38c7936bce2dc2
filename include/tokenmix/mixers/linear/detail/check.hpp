// SPDX-License-Identifier: Apache-2.0
/// @file The door of every linear mixer: shapes, strides, overlaps and metadata, checked once and before anything is written.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>

#include <algorithm>
#include <cassert>
#include <cmath>
#include <optional>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Views of numbers per token as views of rows with one channel, and per-token-and-channel views as they are.
template <class E>
tensor_view<const E, 4> with_channels(const tensor_view<const E, 3>& view) {
  return {view.data(),
          {view.extent(0), view.extent(1), view.extent(2), 1},
          {view.stride(0), view.stride(1), view.stride(2), 1}};
}
template <class E>
tensor_view<const E, 4> with_channels(const tensor_view<const E, 4>& view) {
  return view;
}

/// q (B, H, T, D), k (B, Hk, S, D), v (B, Hv, S, Dv): more query heads than key heads, or more value heads, or neither.
template <class Q, class E>
void check_tokens(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
                  bool same_tokens, const char* query_name = "q") {
  check_input(query_name, q);
  check_input("k", k);
  check_input("v", v);
  check_same_extent("k", k, 0, query_name, q, 0, "batch elements");
  check_same_extent("v", v, 0, "k", k, 0, "batch elements");
  if (same_tokens) check_same_extent("k", k, 2, query_name, q, 2, "tokens");
  check_same_extent("v", v, 2, "k", k, 2, "tokens");
  check_same_extent("k", k, 3, query_name, q, 3, "channels");
  check_head_groups(query_name, q, 1, "k", k, 1);
  check_head_groups("v", v, 1, "k", k, 1, "value");
  if (q.extent(1) != k.extent(1) && v.extent(1) != k.extent(1)) {
    fail_shape(query_name, " has ", q.extent(1), " heads, k has ", k.extent(1), ", v has ", v.extent(1), ": ",
               query_name, " or v must have as many heads as k");
  }
}

/// A view (B, heads, T, ...) of numbers that belong to the tokens of k, with heads that divide the heads of v.
template <class G, std::size_t R, class E>
void check_gate(const char* name, const tensor_view<const G, R>& gate, const tensor_view<const E, 4>& k,
                const tensor_view<const E, 4>& v) {
  check_view(name, gate);
  if constexpr (R == 4) check_channels_contiguous(name, gate);
  check_same_extent(name, gate, 0, "k", k, 0, "batch elements");
  check_head_groups("v", v, 1, name, gate, 1, "value", "gate");
  check_same_extent(name, gate, 2, "k", k, 2, "tokens");
}

/// The channels of a gate with a number per channel, and the heads of what its formula reads besides.
template <class G, std::size_t R, class T>
void check_gate_formula(const tensor_view<const G, R>& log_decay, index_t channels, const char* axis,
                        const tensor_view<const T, 1>& rate, const tensor_view<const T, 2>& bias, bool taken) {
  if constexpr (R == 4) check_extent("log_decay", log_decay, 3, "channels", channels, axis);
  if (!taken && rate.data() != nullptr) fail_value("rate is given: options.gate has no use for it");
  if (!taken && bias.data() != nullptr) fail_value("bias is given: options.gate has no use for it");
  if (taken && rate.data() == nullptr)
    fail_value("rate is a null pointer: options.gate needs one per head of log_decay");
  if (!taken) return;
  check_view("rate", rate);
  check_extent("rate", rate, 0, "heads", log_decay.extent(1), "log_decay has that many");
  if (bias.data() == nullptr) return;
  check_input("bias", bias);
  check_extent("bias", bias, 0, "heads", log_decay.extent(1), "log_decay has that many");
  check_extent("bias", bias, 1, "channels", R == 4 ? channels : 1, "log_decay has that many");
}

/// Of a rule whose log decays are left out.
template <class T>
void check_no_gate(const tensor_view<const T, 1>& rate, const tensor_view<const T, 2>& bias) {
  if (rate.data() != nullptr) fail_value("rate is given: without a log_decay there is no gate");
  if (bias.data() != nullptr) fail_value("bias is given: without a log_decay there is no gate");
}

/// The width of the features of q and k, which have maps for all heads.
template <class Feature>
index_t check_feature(const Feature& feature, index_t channels, index_t query_heads, index_t key_heads) {
  const index_t width = feature_width(key_feature(feature), channels);
  const index_t of_queries = feature_width(query_feature(feature), channels);
  if (of_queries != width)
    fail_shape("feature makes ", of_queries, " channels of q, ", width, " of k: they must be equal");
  check_feature_heads(query_feature(feature), "q", query_heads);
  check_feature_heads(key_feature(feature), "k", key_heads);
  return width;
}

/// The given scale, or 1 / sqrt(D).
template <class T>
T scale_or_root(const std::optional<double>& scale, index_t channels) {
  return static_cast<T>(scale ? *scale : 1 / std::sqrt(static_cast<double>(std::max<index_t>(channels, 1))));
}

inline void check_direction(order o) {
  if (o == order::bidirectional) fail_value("order is bidirectional: a rule with a gate or a delta has a direction");
}

/// Recurrent sequences have as many queries as keys.
template <class Sequences>
void check_sequences(const Sequences& sequences, index_t batches, index_t queries, index_t keys, bool same_tokens) {
  sequences.check(batches, queries, keys);
  if (!same_tokens) return;
  for (index_t i = 0; i < sequences.count(batches); ++i) {
    const sequence seq = sequences.at(i, queries, keys);
    if (seq.queries != seq.keys) {
      fail_value("sequences: number ", i, " has ", seq.queries, " queries and ", seq.keys,
                 " keys: a recurrent mixer takes them together");
    }
  }
}

/// Where NDEBUG is not defined, ends the program if a beta of a sequence's token is outside [0, 2], where with keys of norm 1 a
/// transition I - beta k k' makes something grow. NaN is not looked at, nor what lies between sequences.
template <class W, class Sequences>
void assert_betas([[maybe_unused]] const tensor_view<const W, 4>& beta, [[maybe_unused]] const Sequences& sequences,
                  [[maybe_unused]] index_t batches) {
#if !defined(NDEBUG)
  for (index_t i = 0; i < sequences.count(batches); ++i) {
    const sequence seq = sequences.at(i, beta.extent(2), beta.extent(2));
    for (index_t h = 0; h < beta.extent(1); ++h) {
      for (index_t t = seq.key_row; t < seq.key_row + seq.keys; ++t) {
        for (index_t c = 0; c < beta.extent(3); ++c) {
          const auto b = simd::to<accumulator_t<W>>(beta(seq.batch, h, t, c));
          assert(!(b < 0 || b > 2) && "a beta is outside [0, 2]");
        }
      }
    }
  }
#endif
}

/// out (B, heads, T, Dv) and the states of n sequences; nothing overlaps, but a final state may be the initial one.
template <class O, class T, class... Inputs>
void check_results(const tensor_view<O, 4>& out, const extents<4>& shape, const tensor_view<const T, 4>& initial_state,
                   const tensor_view<T, 4>& final_state, const extents<4>& state_shape, const Inputs&... inputs) {
  static_assert(!std::is_const_v<O>, "out must be writable");
  check_output("out", out);
  check_shape("out", out, shape, "(B, H, T, Dv)");
  (check_overlap("out", out, "an input", inputs), ...);
  if (initial_state.data() != nullptr) {
    check_input("initial_state", initial_state);
    check_shape("initial_state", initial_state, state_shape, "(sequences, Hv, D, Dv)");
    check_overlap("out", out, "initial_state", initial_state);
  }
  if (final_state.data() == nullptr) return;
  check_output("final_state", final_state);
  check_shape("final_state", final_state, state_shape, "(sequences, Hv, D, Dv)");
  check_overlap("final_state", final_state, "out", out);
  (check_overlap("final_state", final_state, "an input", inputs), ...);
  if (initial_state.data() != nullptr)
    check_overlap("final_state", final_state, "initial_state", initial_state, aliasing::identical);
}

/// The sums of keys that a normaliser reads, (n, Hk, D).
template <class T, class... Others>
void check_sums(const tensor_view<const T, 3>& initial_sum, const tensor_view<T, 3>& final_sum, const extents<3>& shape,
                bool taken, const Others&... others) {
  if (!taken && initial_sum.data() != nullptr) fail_value("initial_sum is given: the normaliser takes no sum");
  if (!taken && final_sum.data() != nullptr) fail_value("final_sum is given: the normaliser takes no sum");
  if (initial_sum.data() != nullptr) {
    check_input("initial_sum", initial_sum);
    check_shape("initial_sum", initial_sum, shape, "(sequences, Hk, D)");
  }
  if (final_sum.data() == nullptr) return;
  check_output("final_sum", final_sum);
  check_shape("final_sum", final_sum, shape, "(sequences, Hk, D)");
  (check_overlap("final_sum", final_sum, "another operand", others), ...);
  if (initial_sum.data() != nullptr)
    check_overlap("final_sum", final_sum, "initial_sum", initial_sum, aliasing::identical);
}

/// out has its shape and shares no element with an input; for mixers whose states are checked part by part.
template <class O, class... Inputs>
void check_result_rows(const tensor_view<O, 4>& out, const extents<4>& shape, const Inputs&... inputs) {
  static_assert(!std::is_const_v<O>, "out must be writable");
  check_output("out", out);
  check_shape("out", out, shape, "(B, H, T, Dv)");
  (check_overlap("out", out, "an input", inputs), ...);
}

/// A part of a state: its shape, no overlap with what is written or read, and the final one may be the initial one.
template <class T, std::size_t R, class... Others>
void check_state_part(const char* initial_name, const tensor_view<const T, R>& initial, const char* final_name,
                      const tensor_view<T, R>& final, const extents<R>& shape, const char* letters,
                      const Others&... others) {
  if (initial.data() != nullptr) {
    check_view(initial_name, initial);
    if constexpr (R == 4) check_channels_contiguous(initial_name, initial);
    check_shape(initial_name, initial, shape, letters);
  }
  if (final.data() == nullptr) return;
  check_view(final_name, final);
  if constexpr (R == 4) check_channels_contiguous(final_name, final);
  check_shape(final_name, final, shape, letters);
  check_writable_strides(final_name, final);
  (check_overlap(final_name, final, "another operand", others), ...);
  if (initial.data() != nullptr) check_overlap(final_name, final, initial_name, initial, aliasing::identical);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
