// SPDX-License-Identifier: Apache-2.0
/// @file Rows that are kept move together, and back to their places.
#pragma once

#include <tokenmix/core/check.hpp>

#include <algorithm>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

inline index_t count_kept(const tensor_view<const bool, 1>& keep) {
  index_t n = 0;
  for (index_t i = 0; i < keep.extent(0); ++i) n += keep(i) ? 1 : 0;
  return n;
}

}  // namespace detail

/// Copies the rows with keep[i] to the front of out, in their order; the rows of out behind them stay as they are.
///
///     out[number of kept rows before i] = in[i]      for the i with keep[i];    returns how many
///
/// Shapes     keep: (N), any stride; in: (N, D); out: (M, D), M at least the number of kept rows.
/// Aliasing   out shares no element with in.
/// Cost       one copy of what is kept; rows that are not are never read.
/// Errors     shape_error as the message says; nothing is written then.
template <class E>
index_t compact(tensor_view<const bool, 1> keep,  // (N)
                tensor_view<const E, 2> in,       // (N, D)
                tensor_view<E, 2> out)            // (M, D)
{
  detail::check_view("keep", keep);
  detail::check_input("in", in);
  detail::check_output("out", out);
  detail::check_same_extent("keep", keep, 0, "in", in, 0, "rows");
  detail::check_same_extent("out", tensor_view<const E, 2>(out), 1, "in", in, 1, "channels");
  detail::check_overlap("out", out, "in", in);
  const index_t kept = detail::count_kept(keep);
  if (out.extent(0) < kept) detail::fail_shape("out has ", out.extent(0), " rows, keep has ", kept, " that are true");
  index_t to = 0;
  for (index_t i = 0; i < keep.extent(0); ++i) {
    if (keep(i)) std::copy_n(in.row(i), in.extent(1), out.row(to++));
  }
  return kept;
}

/// The way back: rows from the front of in go to the places with keep[i], `fill` to the others.
///
///     out[i] = keep[i] ? in[number of kept rows before i] : fill       returns how many were kept
///
/// Shapes     keep: (N), any stride; in: (M, D), M at least the number of kept rows; out: (N, D).
/// Aliasing   out shares no element with in.
/// Errors     shape_error as the message says; nothing is written then.
template <class E>
index_t expand(tensor_view<const bool, 1> keep,  // (N)
               tensor_view<const E, 2> in,       // (M, D)
               tensor_view<E, 2> out,            // (N, D)
               std::type_identity_t<E> fill = E{}) {
  detail::check_view("keep", keep);
  detail::check_input("in", in);
  detail::check_output("out", out);
  detail::check_same_extent("keep", keep, 0, "out", tensor_view<const E, 2>(out), 0, "rows");
  detail::check_same_extent("out", tensor_view<const E, 2>(out), 1, "in", in, 1, "channels");
  detail::check_overlap("out", out, "in", in);
  const index_t kept = detail::count_kept(keep);
  if (in.extent(0) < kept) detail::fail_shape("in has ", in.extent(0), " rows, keep has ", kept, " that are true");
  index_t from = 0;
  for (index_t i = 0; i < keep.extent(0); ++i) {
    if (keep(i)) {
      std::copy_n(in.row(from++), in.extent(1), out.row(i));
    } else {
      std::fill_n(out.row(i), out.extent(1), fill);
    }
  }
  return kept;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
