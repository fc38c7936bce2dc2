// SPDX-License-Identifier: Apache-2.0
/// @file The door of every softmax mixer: shapes, strides, overlaps and metadata, checked once and before anything is written.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/mixers/softmax/options.hpp>
#include <tokenmix/primitives/key_source.hpp>
#include <tokenmix/primitives/mask/mask.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// q (B, H, T, D) against a pair of views k (B or 1, Hk, S, D), v (B or 1, Hk, S, Dv).
template <class Q, class E>
void check_keys(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k, const tensor_view<const E, 4>& v,
                const char* k_name, const char* v_name) {
  check_input(k_name, k);
  check_input(v_name, v);
  check_same_extent(k_name, k, 3, "q", q, 3, "channels");
  check_head_groups("q", q, 1, k_name, k, 1);
  check_same_extent(v_name, v, 0, k_name, k, 0, "batch elements");
  check_same_extent(v_name, v, 1, k_name, k, 1, "heads");
  check_same_extent(v_name, v, 2, k_name, k, 2, "keys");
}

/// lse (B, H, T), if it is asked for.
template <class Lse>
void check_lse(const tensor_view<Lse, 3>& lse, const extents<3>& shape) {
  if (lse.data() == nullptr) return;
  check_view("lse", lse);
  check_shape("lse", lse, shape, "(B, H, T)");
  check_writable_strides("lse", lse);
}

/// Everything that does not depend on where keys come from.
template <class Q, class Sink, class Options>
void check_attention(const tensor_view<const Q, 4>& q, index_t most_keys, index_t extra_keys,
                     const tensor_view<const Sink, 1>& sinks, const Options& options) {
  const index_t B = q.extent(0);
  const index_t H = q.extent(1);
  const index_t T = q.extent(2);
  options.sequences.check(B, T, most_keys);
  const index_t keys = most_keys + extra_keys;
  const index_t sequences = options.sequences.count(B);
  mask_check(options.mask, sequences, H, T, keys);
  score_check(options.score, sequences, H, T, keys, q.extent(3));
  if constexpr (!std::is_same_v<decltype(options.rotary), no_rotary>) {
    options.rotary.check(q.extent(3));
    for (index_t i = 0; i < sequences; ++i) {
      sequence seq = options.sequences.at(i, T, most_keys);
      seq.keys += extra_keys;
      options.rotary.check(seq);
    }
  }
  if (sinks.data() != nullptr) {
    check_view("sinks", sinks);
    check_extent("sinks", sinks, 0, "heads", H, "q has that many");
  }
  check_lse(options.lse, {B, H, T});
}

/// extra_k (B or 1, Hk, P, D) and extra_v (B or 1, Hk, P, Dv).
template <class Q, class E>
void check_extra_keys(const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k,
                      const tensor_view<const E, 4>& v, const tensor_view<const E, 4>& extra_k,
                      const tensor_view<const E, 4>& extra_v) {
  check_keys(q, extra_k, extra_v, "extra_k", "extra_v");
  check_same_extent("extra_k", extra_k, 1, "k", k, 1, "heads");
  check_same_extent("extra_v", extra_v, 3, "v", v, 3, "channels");
  if (extra_k.extent(0) != 1) check_same_extent("extra_k", extra_k, 0, "k", k, 0, "batch elements");
}

/// out has its shape and shares no element with the inputs, nor does lse.
template <class O, class Options, class... Inputs>
void check_attention_output(const tensor_view<O, 4>& out, const extents<4>& expected, const Options& options,
                            const Inputs&... inputs) {
  static_assert(!std::is_const_v<O>, "out must be writable");
  check_output("out", out);
  check_shape("out", out, expected, "(B, H, T, Dv)");
  (check_overlap("out", out, "an input", inputs), ...);
  if (options.lse.data() == nullptr) return;
  (check_overlap("lse", options.lse, "an input", inputs), ...);
  check_overlap("lse", options.lse, "out", out);
}

/// Rows of T queries that a caller selects.
inline void check_rows(std::span<const index_t> rows, index_t queries) {
  for (std::size_t i = 0; i < rows.size(); ++i) {
    if (rows[i] < 0 || rows[i] >= queries) fail_value("rows[", i, "] is ", rows[i], ": q has ", queries, " queries");
  }
}

/// f(place, first, count) for every run of consecutive rows in a list; an empty list stands for 0 .. n - 1.
template <class F>
void for_each_run(std::span<const index_t> rows, index_t n, F&& f) {
  if (rows.empty()) {
    f(index_t{0}, index_t{0}, n);
    return;
  }
  for (index_t place = 0; place < n;) {
    const index_t first = rows[static_cast<std::size_t>(place)];
    index_t count = 1;
    while (place + count < n && rows[static_cast<std::size_t>(place + count)] == first + count) ++count;
    f(place, first, count);
    place += count;
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
