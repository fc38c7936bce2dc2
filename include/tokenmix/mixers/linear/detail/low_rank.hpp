// SPDX-License-Identifier: Apache-2.0
/// @file What the mixers with a transition of low rank check and run alike.
#pragma once

#include <tokenmix/mixers/linear/detail/check.hpp>
#include <tokenmix/mixers/linear/detail/low_rank_rule.hpp>
#include <tokenmix/mixers/linear/detail/run.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Everything but the gate.
template <class Q, class E, class T, class O, class Options, class G>
void check_low_rank(const char* query_name, const tensor_view<const Q, 4>& q, const tensor_view<const E, 4>& k,
                    const tensor_view<const E, 4>& v, const tensor_view<const E, 4>& a,
                    const tensor_view<const E, 4>& b, const tensor_view<const T, 4>& initial_state,
                    const tensor_view<O, 4>& out, const Options& options, const tensor_view<const G, 4>& log_decay) {
  check_direction(options.order);
  check_tokens(q, k, v, true, query_name);
  check_sequences(options.sequences, q.extent(0), q.extent(2), k.extent(2), true);
  check_input("a", a);
  check_same_shape("a", a, "k", k);
  check_input("b", b);
  check_same_shape("b", b, "k", k);
  check_results(out, {q.extent(0), std::max(q.extent(1), v.extent(1)), q.extent(2), v.extent(3)}, initial_state,
                options.final_state, {options.sequences.count(q.extent(0)), v.extent(1), k.extent(3), v.extent(3)}, q,
                k, v, a, b, log_decay);
}

/// With a log decay per key channel, or without.
template <bool Decays, class Problem, class O, class Sequences, class Executor>
void run_low_rank(const Problem& problem, const recurrence_result<typename Problem::T, O>& result,
                  const Sequences& sequences, Executor& on) {
  const recurrence_shape shape{std::max(problem.q.extent(1), problem.v.extent(1)), problem.k.extent(1),
                               problem.v.extent(1), problem.v.extent(3), problem.order};
  run_recurrence<typename Problem::T, O>(
      shape, result, sequences, problem.q.extent(0), problem.q.extent(2), problem.k.extent(2),
      [&](scratch_frame& frame) { return low_rank_rule<Problem, Decays>(problem, frame); }, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
