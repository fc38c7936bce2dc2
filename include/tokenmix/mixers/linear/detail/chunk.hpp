// SPDX-License-Identifier: Apache-2.0
/// @file What a rule makes of a chunk of tokens: everything that does not depend on the value channels.
#pragma once

#include <tokenmix/core/tensor.hpp>
#include <tokenmix/mixers/linear/detail/panel.hpp>
#include <tokenmix/primitives/sequences.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Which part of the old state the first token of a chunk forgets: what it holds there does not survive, NaN included. A rule
/// that reads the state before the token's decay sees it once more; a token that forgets is then a chunk of its own.
enum class reset : unsigned char { none, all, rows, lanes };

/// The operands of n tokens with w writes each, W = n w, whose state S is (D, Dv). A write adds a key times a value row:
///
///     u[j]   = given[j] - erase[j] (read_scale[j] read_keys[j]' S + sum over i < j of overlaps[j][i] u[i])     if the rule solves
///     u[j]   = given[j]                                                                                       otherwise
///     out[t] = query_scale[t] queries[t]' S + sum over j < (t + 1) w of scores[t][j] u[j]
///     S      = keep S + sum over j of write_scale[j] write_keys[j] u[j]'
///
/// A rule that adds has one more value row x[t] per token, written as it is: write_keys begin with n keys of x, and
///
///     u[t]   = read_scale[t] read_keys[t]' S + sum over i < t of (added_overlaps[t][i] x[i] + overlaps[t][i] u[i])
///     out[t] = ... + sum over i <= t of added_scores[t][i] x[i]
///
/// Tokens that go by one by one (Rule::by_token) have one write each and no scores:
///
///     S[0]   = keep S, and then for every t
///     S[t]   = S[t-1] + write_scale[t] write_keys[t] u[t]'
///     out[t] = query_scale[t] queries[t]' S[t], or own[t] u[t] + queries[t]' S[t-1] if the rule reads before
///     S      = keep_after S[n]
///
/// Here S[t] lacks the decay since the first token: what reads it goes through that decay, what is written is divided by it.
/// Either sits in the scales or in the keys and queries. No bit of an output depends on later tokens. A token alone has
/// neither.
///
/// One token by itself of a rule that reads after (Rule::reads_after): out = queries' S, of the S that it leaves behind.
///
/// S is the state before the first token. Decay sits in the scales, in the keys and queries, or in both; overlaps and
/// scores carry the decay between their two tokens. A null scale is 1. What lies above a triangle's diagonal is not read.
template <class T>
struct chunk {
  index_t first = 0;       ///< token of the sequence, in the order in which tokens are met
  index_t tokens = 0;      ///< n
  index_t writes = 0;      ///< w
  index_t key_stride = 0;  ///< of rows of keys and queries
  const T* read_keys = nullptr;
  const T* read_scale = nullptr;
  const T* write_keys = nullptr;
  const T* write_scale = nullptr;
  const T* overlaps = nullptr;
  index_t overlap_stride = 0;
  const T* added_overlaps = nullptr;  ///< strides as those of overlaps and scores
  const T* added_scores = nullptr;
  const T* queries = nullptr;  ///< of the first query head; null if no output is wanted
  index_t query_heads = 1;     ///< heads that read this state
  index_t query_head_stride = 0;
  const T* query_scale = nullptr;
  const T* scores = nullptr;  ///< null: outputs read the state alone
  index_t score_stride = 0;
  index_t score_head_stride = 0;
  const T* row_factor = nullptr;  ///< (query head, token) factors of the outputs
  index_t row_factor_stride = 0;
  const T* keep = nullptr;        ///< number: (D); lanes: max_tile_vectors registers
  const T* keep_after = nullptr;  ///< as keep
  const T* own = nullptr;         ///< (query head, token) weights of tokens' own values
  index_t own_stride = 0;
  reset forget = reset::none;
  const T* forgotten = nullptr;  ///< rows: (D) log decays of the first token
};

/// The widest panel, in lanes.
template <class T>
inline constexpr index_t most_panel_width = simd::max_tile_vectors * simd::lanes<T>;

template <class T>
constexpr index_t whole_registers(index_t n) {
  return (n + simd::lanes<T> - 1) / simd::lanes<T> * simd::lanes<T>;
}

/// The most registers side by side that n registers can be cut into evenly: products of a chunk end where its lines do.
constexpr index_t even_vectors(index_t n) {
  index_t v = std::min(n, simd::max_tile_vectors);
  while (n % v != 0) --v;
  return v;
}

// A rule, for recurrence.hpp. One object serves one task; its rows live in the task's scratch frame.
//
//   using T                                       the computing type
//   static constexpr index_t chunk_tokens         C, the most tokens that load() is given
//   static constexpr index_t step_writes          what one token writes, w and x together; 0 if the rule's object decides
//   static constexpr bool by_token                tokens go through a panel one by one, not as products of chunks
//   static constexpr bool solves                  values are solved for
//   static constexpr bool adds                    tokens have a value row x besides
//   static constexpr bool reads_together          queries of the first head lie right behind the read keys
//   static constexpr bool reads_before            tokens read the state before their decay
//   static constexpr bool reads_after             outputs of a token alone are read from the state after it
//   index_t writes_per_token() const              w
//   static constexpr factor keep, erase           what kind of factors chunk::keep and the panel's erase are
//   static constexpr bool decays_lanes            decay per value channel, by token: panel_rows has keep
//   void go_to(const sequence&, index_t key_head)
//   void load(index_t first, index_t count, bool keys, bool queries)      the rows that all value heads of the key head share
//   void ahead(index_t first, index_t count, bool keys, bool queries, simd::lines_ahead&)      rows that load() will need
//   void ahead_of_values(index_t value_head, index_t channel, index_t width, index_t first, index_t count, simd::lines_ahead&)
//   const chunk<T>& head(index_t value_head, index_t from)      tokens [from, from + n): up to the next reset
//   void panel(index_t channel, index_t width, panel_rows<T>&)  of the head and tokens that head() was asked for last
//
// Chunks begin at multiples of C from the start of the call, so a call that is cut at such multiples has the same bits.

/// What a rule says about the value channels of one panel; rows are `width` (whole registers) apart, lanes beyond hold 0.
template <class T>
struct panel_rows {
  T* values = nullptr;  ///< to be filled: (W, width) the given part of what is written; or (n, width) x, and u behind
  T* erase_lanes = nullptr;      ///< (W, width) to be filled if erase is lanes
  const T* erase = nullptr;      ///< (W) numbers, or erase_lanes
  T* keep = nullptr;             ///< decays_lanes: (width) to be filled, as chunk::keep
  T* keep_after = nullptr;       ///< decays_lanes: (width) to be filled, if n > 1
  T* query_scale = nullptr;      ///< decays_lanes: (n, width) to be filled, if n > 1
  const T* forgotten = nullptr;  ///< decays_lanes: (width) log decays of the first token, if it is a reset
};

/// Rows of one head along time, in the order in which tokens are met.
template <class E>
struct token_rows {
  E* first = nullptr;
  index_t step = 0;
  E* operator[](index_t t) const { return first + t * step; }
};

/// The rows of a (B, H, T, ...) view that a sequence has.
template <class E, std::size_t R>
token_rows<const E> rows_of_tokens(const tensor_view<const E, R>& view, index_t batch, index_t head, index_t row,
                                   index_t tokens, bool reversed) {
  if (tokens == 0) return {};
  if (reversed) return {view.row(batch, head, row + tokens - 1), -view.stride(2)};
  return {view.row(batch, head, row), view.stride(2)};
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
