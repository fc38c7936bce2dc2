// SPDX-License-Identifier: Apache-2.0
/// @file Who computes which blocks of a staged scan.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/primitives/scan/detail/staged.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI::detail {

template <scan_kind Kind, class Problem, class Executor>
void run_staged(const Problem& p, Executor& on) {
  using scan_type = staged_scan<Kind, Problem>;
  using T = typename Problem::number;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t blocks = p.segments.total_blocks();
  const index_t lines = p.lines.outer * p.lines.width;
  const index_t all = lines * blocks;
  if (all == 0) return;
  constexpr index_t L = Problem::lanes;
  const index_t parts = workers == 1 ? 1 : std::min((all + L - 1) / L, 4 * workers);
  const auto for_each_part = [&](auto&& f) {
    on.for_each(parts, [&](index_t part, index_t /*worker*/) {
      scratch_frame frame;
      scan_type scan(p, frame);
      f(scan, part);
    });
  };
  if (workers == 1 || p.segments.most_blocks() * workers <= all) {
    const auto first = [&](index_t part) {  // parts begin where segments do
      const index_t i = part * all / parts;
      return i / blocks * blocks + p.segments.next_start(i % blocks);
    };
    for_each_part([&](scan_type& scan, index_t part) { scan.segments(first(part), first(part + 1)); });
    return;
  }
  scratch_frame frame;
  T* carries = frame.take<T>(all * scan_type::numbers);
  for_each_part(
      [&](scan_type& scan, index_t part) { scan.totals(part * all / parts, (part + 1) * all / parts, carries); });
  scan_type(p, frame).carries(carries);
  for_each_part(
      [&](scan_type& scan, index_t part) { scan.apply(part * all / parts, (part + 1) * all / parts, carries); });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
