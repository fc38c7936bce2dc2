// SPDX-License-Identifier: Apache-2.0
/// @file From checked operands to a problem, and to the kernel that suits its strides.
#pragma once

#include <tokenmix/primitives/scan/detail/blocks.hpp>
#include <tokenmix/primitives/scan/detail/check.hpp>
#include <tokenmix/primitives/scan/detail/rows.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Results of this size, with what they are made of, lie in the caches next to the core.
inline constexpr index_t bytes_in_inner_caches = index_t{512} << 10;

/// Strides of a view whose axes of extent 1 are repeated; the scanned axis of a state has one entry per segment.
template <class View, std::size_t R>
extents<R> strides_within(const View& view, const extents<R>& shape) {
  extents<R> strides = view.strides();
  for (std::size_t axis = 0; axis < R; ++axis) {
    if (view.extent(axis) == 1 && shape[axis] != 1) strides[axis] = 0;
  }
  return strides;
}

/// Final states of segments without steps.
template <class Problem>
void finish_empty_segments(const Problem& p) {
  if constexpr (Problem::final_state::given) {
    index_t at[Problem::views];
    for (index_t segment = 0; segment < p.segments.count; ++segment) {
      if (p.segments.steps(segment) > 0) continue;
      for (index_t outer = 0; outer < p.lines.outer; ++outer) {
        for (index_t line = 0; line < p.lines.width; ++line) {
          p.lines.offsets(outer, at);
          for (std::size_t v = 0; v < Problem::views; ++v) at[v] += line * p.lines.lane[v];
          if constexpr (Problem::initial_state::given) {
            p.store_final(at, segment, 1, p.load_initial(at, segment, 1));
          } else {
            p.store_final(at, segment, 1, Problem::identity(p.operation));
          }
        }
      }
    }
  }
}

template <scan_kind Kind, class Operation, class In, class Out, class I, class Initial, class Final, class Executor>
void check_and_scan(const Operation& operation, const In& in, const Out& out,
                    const scan_options<I, Initial, Final>& options, Executor& on) {
  const auto initial = input_state(options.initial);
  const auto final_state = output_state(options.final_state);
  using problem_type = scan_problem<Operation, In, Out, std::remove_const_t<decltype(initial)>,
                                    std::remove_const_t<decltype(final_state)>>;
  constexpr std::size_t R = problem_type::rank;
  static_assert(R > 0, "a scan needs an axis");
  static_assert(scan_operation<Operation, typename problem_type::E>,
                "an operation has an identity and a call operator on two values of the tensor's elements");

  const extents<R> shape = check_scan_input("in", in);
  const std::size_t axis = check_scan_axis(options.axis, R);
  check_scan_order(options.order);
  check_scan_output("out", out, shape, "the shape of in");
  check_parts_apart("out", out);
  check_scan_overlap("out", out, "in", in, aliasing::identical);
  check_scan_offsets(options.offsets, shape[axis]);
  const index_t segments = options.offsets.empty() ? 1 : static_cast<index_t>(options.offsets.size()) - 1;
  extents<R> state_shape = shape;
  state_shape[axis] = segments;
  constexpr const char* letters = "the shape of in with an entry per segment along the scanned axis";
  if constexpr (problem_type::initial_state::given) {
    check_scan_output("initial", initial, state_shape, letters);
    check_scan_overlap("out", out, "initial", initial, aliasing::none);
  }
  if constexpr (problem_type::final_state::given) {
    check_scan_output("final_state", final_state, state_shape, letters);
    check_parts_apart("final_state", final_state);
    check_scan_overlap("final_state", final_state, "in", in, aliasing::none);
    check_scan_overlap("final_state", final_state, "out", out, aliasing::none);
    if constexpr (problem_type::initial_state::given) {
      check_scan_overlap("final_state", final_state, "initial", initial, aliasing::identical);
    }
  }
  for (std::size_t i = 0; i < R; ++i) {
    if (i != axis && shape[i] == 0) return;
  }

  scratch_frame frame;
  problem_type p(operation);
  std::array<extents<R>, problem_type::views> strides;
  std::size_t v = 0;
  const auto take = [&](const auto& operand, auto& pointers, const extents<R>& within) {
    std::size_t k = 0;
    for (const auto& view : operand.views()) {
      pointers[k++] = view.data();
      strides[v++] = strides_within(view, within);
    }
  };
  take(in, p.in, shape);
  take(out, p.out, shape);
  if constexpr (problem_type::initial_state::given) take(initial, p.initial, state_shape);
  if constexpr (problem_type::final_state::given) take(final_state, p.final, state_shape);
  p.segments = scan_segments::of(segments, options.order, frame, [&](index_t i) {
    if (options.offsets.empty()) return i == 0 ? index_t{0} : shape[axis];
    return static_cast<index_t>(options.offsets[static_cast<std::size_t>(i)]);
  });

  // Rows are read as they lie where neighbours of every operand, or one repeated element, stand along one axis.
  constexpr std::size_t main = problem_type::in_parts - 1;
  const auto in_rows = [](const common_axis<problem_type::views>& a) {
    bool suits = a.strides[main] == 1;
    for (std::size_t i = 0; i < problem_type::in_parts; ++i) suits = suits && (a.strides[i] == 1 || a.strides[i] == 0);
    for (std::size_t i = 0; i < problem_type::out_parts; ++i) {
      suits = suits && a.strides[problem_type::first_out + i] == 1;
    }
    return suits;
  };
  p.lines = lines_of<problem_type::views, R>(shape, axis, strides, main, in_rows);
  finish_empty_segments(p);
  constexpr auto out_bytes = static_cast<index_t>(sizeof(typename problem_type::O) * problem_type::out_parts);
  p.large = product<R>(shape) * out_bytes > bytes_in_inner_caches;
  p.streams = product<R>(shape) * out_bytes >= bytes_past_caches;
  for (const auto* from : p.in) {
    for (const auto* to : p.out)
      p.streams = p.streams && static_cast<const void*>(from) != static_cast<const void*>(to);
  }
  if constexpr (problem_type::in_lanes) {
    common_axis<problem_type::views> last{p.lines.width, p.lines.lane};
    const auto along_time = [&](std::size_t i) { return std::abs(p.lines.step[i]) == 1; };
    const bool contiguous = along_time(main) && along_time(problem_type::first_out + problem_type::out_parts - 1);
    p.apart = !in_rows(last) || (contiguous && shape[axis] > 1);
    if (p.apart && p.lines.width < problem_type::lanes) {  // another axis may fill registers
      p.lines = lines_of<problem_type::views, R>(
          shape, axis, strides, main,
          [](const common_axis<problem_type::views>& a) { return a.extent >= problem_type::lanes; });
    }
    if (p.apart && few_lines(p)) {
      run_blocks<Kind>(p, on);
      return;
    }
  }
  run_rows<Kind>(p, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
