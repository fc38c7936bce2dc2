// SPDX-License-Identifier: Apache-2.0
/// @file Softmax attention of every query over a list of keys of its own.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/mixers/sparse/detail/listed_keys.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of a gathered attention.
template <class Q, class E>
struct gathered_attention_inputs {
  tensor_view<const Q, 4> q{};              // (B, H, T, D)
  tensor_view<const E, 4> k{};              // (B, Hk, S, D)
  tensor_view<const E, 4> v{};              // (B, Hk, S, Dv)
  tensor_view<const index_t, 4> indices{};  // (B, 1 | Hi, T, n), ascending
  tensor_view<const index_t, 3> counts{};   // (B, 1 | Hi, T) tokens of each list; all if empty
};

/// Options of gathered_attention.
template <class Lse = float>
struct gathered_attention_options {
  index_t block = 1;              ///< tokens that an index stands for
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  tensor_view<Lse, 3> lse{};      ///< (B, H, T), output; none if empty
};

namespace detail {

template <class Q, class E>
void check_lists(const gathered_attention_inputs<Q, E>& in, index_t block) {
  const auto& [q, k, v, indices, counts] = in;
  if (block < 1) fail_value("options.block is ", block, ", expected 1 or more");
  check_input("indices", indices);
  const index_t B = q.extent(0), T = q.extent(2), S = k.extent(2), lists = indices.extent(1);
  check_shape("indices", indices, {B, lists, T, indices.extent(3)}, "(B, 1 or Hi, T, n)");
  const index_t stored = k.extent(1);
  if (lists != 1 && (stored == 0 || lists % stored != 0 || q.extent(1) % lists != 0)) {
    fail_shape("indices has ", lists, " heads, q has ", q.extent(1), ", k has ", stored,
               ": 1, or a multiple of those of k that divides those of q");
  }
  const bool ragged = counts.data() != nullptr;
  if (ragged) {
    check_view("counts", counts);
    check_shape("counts", counts, {B, lists, T}, "(B, 1 or Hi, T)");
  }
  const index_t blocks = S / block + (S % block != 0 ? 1 : 0);
  for (index_t b = 0; b < B; ++b) {
    for (index_t h = 0; h < lists; ++h) {
      for (index_t t = 0; t < T; ++t) {
        const index_t* list = indices.row(b, h, t);
        const index_t most = indices.extent(3) * block;
        const index_t count = ragged ? counts(b, h, t) : most;
        if (count < 0 || count > most) {
          fail_value("counts(", b, ", ", h, ", ", t, ") is ", count, ", expected 0 to ", most, ", the room of indices");
        }
        for (index_t n = 0; n * block < count; ++n) {
          if (list[n] < 0 || list[n] >= blocks) {
            fail_value("indices(", b, ", ", h, ", ", t, ", ", n, ") is ", list[n], ": k has ", blocks, " blocks of ",
                       block, " keys");
          }
          if (n > 0 && list[n] <= list[n - 1]) {
            fail_value("indices(", b, ", ", h, ", ", t, ", ", n, ") is ", list[n], " after ", list[n - 1],
                       ": the entries of a list ascend");
          }
          // Only the last block of k is shorter, and it can only be the last of a list.
          const index_t used = std::min(block, count - n * block);
          if (list[n] * block + used > S) {
            fail_value("counts(", b, ", ", h, ", ", t, ") is ", count, ": block ", list[n], " of k has ",
                       S - list[n] * block, " keys, ", used, " are counted");
          }
        }
      }
    }
  }
}

}  // namespace detail

/// Softmax attention in which every query takes the keys of its own list: tokens, or blocks of tokens.
///
///     out[t] = softmax over the s of list(t) of scale q[t].k[s], times v[s]
///     list(t) = the first counts[t] tokens of blocks indices[t][0], indices[t][1], ...
///
/// Shapes     q: (B, H, T, D); k: (B, Hk, S, D); v: (B, Hk, S, Dv); out: (B, H, T, Dv). indices: (B, 1 or Hi, T, n), where Hi is
///            a multiple of Hk that divides H: one list for all heads, for the heads of a key head, or for each. Entries behind
///            the counted ones are not read.
/// Aliasing   out and lse share no element with an input.
/// Numerics   as softmax_attention over the gathered keys; an empty list gives zeros and lse = -inf. The same bits for any
///            executor.
/// Cost       2 (D + Dv) operations per entry; each head reads its keys in runs of a block.
/// Errors     shape_error and value_error as the messages say, with the entry of a list that is out of range or does not
///            ascend, or of a count; nothing is written then.
/// Source     the gather-and-attend step of Yuan et al. 2025 (NSA), Lu et al. 2025 (MoBA) and DeepSeek-V3.2 (DSA).
template <class Q, class E, class O, class Lse = float, executor Executor = calling_thread>
void gathered_attention(const gathered_attention_inputs<Q, E>& inputs, tensor_view<O, 4> out,
                        const gathered_attention_options<Lse>& options = {}, Executor&& on = {}) {
  const auto& [q, k, v, indices, counts] = inputs;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  detail::check_lists(inputs, options.block);
  detail::check_lse(options.lse, {q.extent(0), q.extent(1), q.extent(2)});
  detail::check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, options, q, k, v, indices);
  detail::attend_lists(q, detail::listed_keys<E>{k, v, indices, options.block}, counts,
                       detail::scale_of(options, q.extent(3)), out, options.lse, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
