// SPDX-License-Identifier: Apache-2.0
/// @file Inclusive and exclusive scans with any associative operation.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/primitives/scan/detail/run.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// All values so far, the present one included.
///
///     out[t] = initial * in[0] * in[1] * ... * in[t],   * being the operation, along one axis, for every line along it
///
/// with t counted from the start of its segment, or, in reverse order, from the segment's end.
///
/// Shapes     in: any number of axes, any strides; out: the same shape. Values of several components are structs of
///            views (affine_view, ...), whose parts other than the last may have extent 1 where they are repeated.
///            States: the same shape with one entry per segment along the scanned axis. Fast along the last axis, and
///            along any other if the last one is contiguous.
/// Aliasing   out may be in itself (or one of its parts), final_state may be initial itself; any other overlap is an error.
/// Numerics   computed in float for 16-bit elements. Chains of scan_block_steps = 128 steps, counted from the
///            segment's start, each from its own start; what comes before a block is the scan of the blocks' totals,
///            in blocks of 128 in turn, and is combined last: errors grow with log n; each operation states its
///            bound. The same bits for any executor, strides and neighbours, and for a step whatever comes after it.
///            A NaN stays in its line and its segment. Not one call but two, the second with the first's final state:
///            the same within the bound.
/// Cost       2 operations per element; in is read and out written once by one thread; where one line is shared
///            between threads, in is read twice and every 128 steps leave one value in scratch memory. Along contiguous
///            time squares of 16 x 16 (AVX-512, float) go through registers, transposed on the way in and out, of 16 lines or
///            of 16 blocks of one: from memory sums, extrema and affine maps run at the rate of a copy or nearly so, from the
///            second cache at a third of it: a square of 2 KiB read and written takes 96 shuffles. Fewer than 16 lines of less
///            than 16 blocks leave lanes empty. log_sum_exp runs at the rate of its exponentials and its logarithm.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty extents are legal: the
///            final state of an empty segment is its initial state, or the identity. Steps outside all segments are
///            not written.
/// Source     Blelloch 1990, Prefix sums and their applications, sections 1.2 and 1.5.
template <class Operation, class In, class Out, class I = std::int32_t, class Initial = no_state,
          class Final = no_state, executor Executor = calling_thread>
void inclusive_scan(const Operation& operation, const In& in, const Out& out,
                    const scan_options<I, Initial, Final>& options = {}, Executor&& on = {}) {
  detail::check_and_scan<detail::scan_kind::inclusive>(operation, detail::as_input(in), detail::as_output(out), options,
                                                       on);
}

/// All values before the present one.
///
///     out[t] = initial * in[0] * in[1] * ... * in[t - 1],   out[0] = initial, or the identity if there is none
///
/// final_state is what the inclusive scan ends with. Everything else is as for inclusive_scan.
template <class Operation, class In, class Out, class I = std::int32_t, class Initial = no_state,
          class Final = no_state, executor Executor = calling_thread>
void exclusive_scan(const Operation& operation, const In& in, const Out& out,
                    const scan_options<I, Initial, Final>& options = {}, Executor&& on = {}) {
  detail::check_and_scan<detail::scan_kind::exclusive>(operation, detail::as_input(in), detail::as_output(out), options,
                                                       on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
