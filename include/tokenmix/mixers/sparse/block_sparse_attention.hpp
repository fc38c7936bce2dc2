// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention over the blocks of an index.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/primitives/mask/block_index.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// Softmax attention in which a block of queries sees the blocks of keys in its list, and within them what options.mask shows.
///
///     out[t] = softmax over the s with (s / key_block) in list(t / query_block) && mask(t, s) of scale q[t].k[s], times v[s]
///
/// The same as softmax_attention with `blocks & options.mask`, bit for bit.
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv); blocks.offsets: (B or 1, H or 1,
///            Tb + 1). An index comes from lists of your own, from a mask (block_index_of) or from scores of blocks
///            (block_index_of_scores).
/// Aliasing   out and lse share no element with an input.
/// Numerics   as softmax_attention; a query whose list is empty gives zeros.
/// Cost       2 (D + Dv) operations per pair of the blocks listed; keys of other blocks are never read. Blocks of 64 queries
///            and keys are the tiles of the kernel; those of a query block that no tile boundary meets are joined.
/// Errors     shape_error and value_error as softmax_attention and block_pattern: columns out of range, unsorted or repeated are
///            named with their entry; nothing is written then.
/// Source     Child et al. 2019; Zaheer et al. 2020, appendix D.
template <class Q, class E, class O, class Mask = all_keys, class Score = plain_score,
          class Sequences = whole_sequences, class Normalizer = softmax_weights, class Edit = no_edit,
          class Rotary = no_rotary, class Lse = float, executor Executor = calling_thread>
void block_sparse_attention(tensor_view<const Q, 4> q,                           // (B, H, T, D)
                            tensor_view<const E, 4> k,                           // (B, Hk, S, D)
                            tensor_view<const E, 4> v,                           // (B, Hk, S, Dv)
                            const block_pattern& blocks, tensor_view<O, 4> out,  // (B, H, T, Dv)
                            const softmax_options<Mask, Score, Sequences, Normalizer, Edit, Rotary, Lse>& options = {},
                            Executor&& on = {}) {
  const auto attend_with = [&](const auto& mask) {
    const softmax_options<std::remove_cvref_t<decltype(mask)>, Score, Sequences, Normalizer, Edit, Rotary, Lse> joined{
        .mask = mask,
        .score = options.score,
        .scale = options.scale,
        .sequences = options.sequences,
        .normalizer = options.normalizer,
        .edit = options.edit,
        .rotary = options.rotary,
        .lse = options.lse,
        .rows = options.rows};
    softmax_attention(q, k, v, out, joined, on);
  };
  if constexpr (std::is_same_v<Mask, all_keys>) {
    attend_with(blocks);
  } else {
    attend_with(blocks & options.mask);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
