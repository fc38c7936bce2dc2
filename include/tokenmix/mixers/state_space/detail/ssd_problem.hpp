// SPDX-License-Identifier: Apache-2.0
/// @file What the duals of a state space hand to their engine, and what they ask of a rule.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/mixers/state_space/delta.hpp>
#include <tokenmix/primitives/order.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Tokens of a chunk. Chunks begin at multiples of it from the start of the call.
inline constexpr index_t ssd_chunk_tokens = 64;

/// The state of one token ago that a rule may keep beside the matrix: its key and its value.
template <class T>
struct ssd_last_token {
  tensor_view<T, 3> key{};    // (n, H, N)
  tensor_view<T, 3> value{};  // (n, H, P)
};

/// The checked arguments that every rule has; heads stand before tokens.
template <class E, class T, class O>
struct ssd_problem {
  tensor_view<const E, 4> x;         // (B, H, T, P)
  tensor_view<const E, 4> B;         // (B, G, T, N)
  tensor_view<const E, 4> C;         // (B, G, T, N)
  tensor_view<const E, 4> gate;      // (B, H, T, P) or empty
  tensor_view<const T, 2> skip;      // (H, 1 or P) or empty
  tensor_view<O, 4> out;             // (B, H, T, P)
  tensor_view<const T, 4> initial;   // (n, H, P, N) or empty
  tensor_view<T, 4> final;           // (n, H, P, N) or empty
  ssd_last_token<const T> initial_last;
  ssd_last_token<T> final_last;
  order direction;

  bool reversed() const { return direction == order::reverse; }
  index_t heads() const { return x.extent(1); }
  index_t groups() const { return B.extent(1); }
  index_t channels() const { return x.extent(3); }
  index_t states() const { return B.extent(3); }
};

/// Numbers of a head's tokens:
///
///     S[t] = exp(log_decay[t]) (S[t-1] + before[t] x[t-1] key[t-1]') + own[t] x[t] key[t]'
///
/// `before` is there if the rule pends.
template <class T>
struct ssd_numbers {
  T* log_decay;
  T* own;
  T* before;
};

// A rule, for ssd_engine.hpp. One object serves one task.
//
//   using E, T, O
//   static constexpr bool shares      heads of a group have the same keys and queries
//   static constexpr bool pends       a token enters the state once more at the next token
//   const ssd_problem<E, T, O>& problem
//   void go_to(const sequence&, index_t first_head, index_t last_head)
//   void numbers(index_t head, index_t first, index_t count, const ssd_numbers<T>&)
//   void load(index_t head, index_t first, index_t count, T* keys, T* queries, index_t stride)      after numbers(), if not shared
//   void finish(index_t number)

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
