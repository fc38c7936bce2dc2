// SPDX-License-Identifier: Apache-2.0
/// @file Rows by a list of indices: read, or added up, or the largest kept.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/primitives/gather/check_indices.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI {

/// Rows by index.
///
///     out[m] = in[indices[m]]
///
/// Shapes     in: (N, D); indices: (M), in [0, N), any order, repetitions allowed; out: (M, D).
/// Aliasing   out shares no element with in.
/// Errors     shape_error; value_error with the entry for an index out of range; nothing is written then.
template <class E, executor Executor = calling_thread>
void gather(tensor_view<const E, 2> in,        // (N, D)
            std::span<const index_t> indices,  // (M)
            tensor_view<E, 2> out,             // (M, D)
            Executor&& on = {}) {
  detail::check_input("in", in);
  detail::check_output("out", out);
  const auto count = static_cast<index_t>(indices.size());
  detail::check_shape("out", tensor_view<const E, 2>(out), {count, in.extent(1)}, "(M, D)");
  detail::check_overlap("out", out, "in", in);
  detail::check_indices("indices", indices, "in", in.extent(0));
  detail::run_tasks(on, count, [&](index_t m) {
    std::copy_n(in.row(indices[static_cast<std::size_t>(m)]), in.extent(1), out.row(m));
  });
}

namespace detail {

/// Visits the rows of a list by their destination: combine(destination, first entry of order, last) for each that has any; the
/// entries of a destination are in ascending order.
template <class Executor, class Combine>
void for_each_destination(std::span<const index_t> indices, index_t rows, Executor& on, Combine&& combine) {
  scratch_frame frame;
  const auto count = static_cast<index_t>(indices.size());
  index_t* first = frame.take<index_t>(rows + 2);
  index_t* order = frame.take<index_t>(count);
  std::fill_n(first, rows + 2, index_t{0});
  for (const index_t to : indices) ++first[to + 2];
  for (index_t i = 2; i < rows + 2; ++i) first[i] += first[i - 1];
  for (index_t m = 0; m < count; ++m) order[first[indices[static_cast<std::size_t>(m)] + 1]++] = m;
  run_tasks(on, rows, [&](index_t to) {
    if (first[to] != first[to + 1]) combine(to, order + first[to], order + first[to + 1]);
  });
}

template <class E>
void check_scatter(const tensor_view<const E, 2>& in, std::span<const index_t> indices, const tensor_view<E, 2>& out) {
  check_input("in", in);
  check_output("out", out);
  const auto count = static_cast<index_t>(indices.size());
  check_extent("in", in, 0, "rows", count, "one for each index");
  check_same_extent("out", tensor_view<const E, 2>(out), 1, "in", in, 1, "channels");
  check_overlap("out", out, "in", in);
  check_indices("indices", indices, "out", out.extent(0));
}

}  // namespace detail

/// Adds rows to the rows that a list names.
///
///     out[n] = out[n] + in[m_1] + in[m_2] + ...      over the m with indices[m] = n, ascending
///
/// Shapes     in: (M, D); indices: (M), in [0, N), any order, repetitions allowed; out: (N, D), read and written.
/// Aliasing   out shares no element with in.
/// Numerics   each element is one chain of additions over ascending m, for any number of threads; rounded to a narrower type
///            once, at its end.
/// Cost       O(M + N) for the order, M D additions. Rows that no index names are neither read nor written.
/// Errors     shape_error; value_error with the entry for an index out of range; nothing is written then.
template <class E, executor Executor = calling_thread>
void scatter_add(tensor_view<const E, 2> in,        // (M, D)
                 std::span<const index_t> indices,  // (M)
                 tensor_view<E, 2> out,             // (N, D)
                 Executor&& on = {}) {
  using T = accumulator_t<E>;
  detail::check_scatter(in, indices, out);
  const index_t channels = in.extent(1);
  detail::for_each_destination(indices, out.extent(0), on, [&](index_t to, const index_t* first, const index_t* last) {
    scratch_frame frame;
    T* sum = frame.take<T>(channels);
    E* row = out.row(to);
    for (index_t d = 0; d < channels; ++d) sum[d] = static_cast<T>(row[d]);
    for (; first != last; ++first) {
      const E* add = in.row(*first);
      for (index_t d = 0; d < channels; ++d) sum[d] += static_cast<T>(add[d]);
    }
    for (index_t d = 0; d < channels; ++d) row[d] = static_cast<E>(sum[d]);
  });
}

/// Keeps the largest of the rows that a list sends to each place, element by element.
///
///     out[n] = max(out[n], in[m] for the m with indices[m] = n)
///
/// Shapes     as scatter_add.
/// Numerics   exact; NaN in a row that is sent, or in out where a row is sent, gives NaN.
/// Errors     as scatter_add.
template <class E, executor Executor = calling_thread>
void scatter_max(tensor_view<const E, 2> in,        // (M, D)
                 std::span<const index_t> indices,  // (M)
                 tensor_view<E, 2> out,             // (N, D)
                 Executor&& on = {}) {
  using T = accumulator_t<E>;
  detail::check_scatter(in, indices, out);
  detail::for_each_destination(indices, out.extent(0), on, [&](index_t to, const index_t* first, const index_t* last) {
    E* row = out.row(to);
    for (; first != last; ++first) {
      const E* other = in.row(*first);
      for (index_t d = 0; d < in.extent(1); ++d) {
        const T a = static_cast<T>(row[d]), b = static_cast<T>(other[d]);
        if (b > a || b != b) row[d] = other[d];
      }
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
