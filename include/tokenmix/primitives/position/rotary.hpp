// SPDX-License-Identifier: Apache-2.0
/// @file Rotary position embedding of rows and of whole tensors.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/position/rotary_table.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/pairs.hpp>

#include <algorithm>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

namespace detail {

/// The two numbers of each pair, turned. Both orders of the products give the same bits for a plain and a turned-back sine.
template <class T>
TOKENMIX_ALWAYS_INLINE simd::pairs<T> rotate_pairs(const simd::pairs<T>& x, const simd::batch<T>& cosine,
                                                   const simd::batch<T>& sine) {
  return {simd::fma(x.first, cosine, -(x.second * sine)), simd::fma(x.second, cosine, x.first * sine)};
}

}  // namespace detail

/// Turns the pairs of one row by their angles.
///
///     (x, y) -> (x cos - y sin, x sin + y cos),   backward: (x cos + y sin, y cos - x sin)
///
/// Shapes     from, to: D channels; cosine, sine: rotated / 2. Channels from `rotated` on are copied.
/// Aliasing   to may be from; any other overlap is undefined.
/// Numerics   computed in T, |error| <= 3 u sqrt(x^2 + y^2) with tables that are rounded to T, then rounded to To. NaN stays in
///            its pair.
/// Cost       3 D operations.
/// Errors     preconditions: rotated is even and in [0, D]. Reads and writes D elements and no byte more.
/// Source     Su et al. 2021, RoFormer, equation (34).
template <class From, class To, class T>
void rotate_row(const From* from, To* to, index_t D, const T* cosine, const T* sine, rotary_layout layout,
                index_t rotated, rotary_direction direction = rotary_direction::forward) {
  constexpr index_t L = simd::lanes<T>;
  const index_t pairs = rotated / 2;
  const simd::batch<T> turn(direction == rotary_direction::forward ? T(1) : T(-1));
  if (layout == rotary_layout::half) {
    for (index_t i = 0; i < pairs; i += L) {
      const index_t n = std::min(L, pairs - i);
      if (n == L) {
        const simd::pairs<T> x{simd::load_as<T>(from + i), simd::load_as<T>(from + pairs + i)};
        const simd::pairs<T> y = detail::rotate_pairs(x, simd::load(cosine + i), simd::load(sine + i) * turn);
        simd::store_as(to + i, y.first);
        simd::store_as(to + pairs + i, y.second);
      } else {
        const simd::pairs<T> x{simd::load_as_n<T>(from + i, n), simd::load_as_n<T>(from + pairs + i, n)};
        const simd::pairs<T> y = detail::rotate_pairs(x, simd::load_n(cosine + i, n), simd::load_n(sine + i, n) * turn);
        simd::store_as_n(to + i, y.first, n);
        simd::store_as_n(to + pairs + i, y.second, n);
      }
    }
  } else {
    simd::batch<T> a, b;
    for (index_t i = 0; i < pairs; i += L) {
      const index_t n = std::min(L, pairs - i);
      if (n == L) {
        const simd::pairs<T> x = simd::separate(simd::load_as<T>(from + 2 * i), simd::load_as<T>(from + 2 * i + L));
        simd::join(detail::rotate_pairs(x, simd::load(cosine + i), simd::load(sine + i) * turn), a, b);
        simd::store_as(to + 2 * i, a);
        simd::store_as(to + 2 * i + L, b);
      } else {
        const index_t n_low = std::min(L, 2 * n);
        const index_t n_high = 2 * n - n_low;
        const From* upper = from + 2 * i + n_low;
        const simd::pairs<T> x =
            simd::separate(simd::load_as_n<T>(from + 2 * i, n_low), simd::load_as_n<T>(upper, n_high));
        simd::join(detail::rotate_pairs(x, simd::load_n(cosine + i, n), simd::load_n(sine + i, n) * turn), a, b);
        simd::store_as_n(to + 2 * i, a, n_low);
        simd::store_as_n(to + 2 * i + n_low, b, n_high);
      }
    }
  }
  if constexpr (std::is_same_v<From, To>) {
    if (from != to) std::copy(from + rotated, from + D, to + rotated);
  } else {
    simd::convert_row(from + rotated, to + rotated, D - rotated);
  }
}

namespace detail {

/// Where the rows of a call stand.
struct rotary_positions {
  tensor_view<const index_t, 2> positions;  // (B|1, T|1), or empty
  index_t first;
  bool given;

  index_t operator()(index_t b, index_t t) const {
    if (!given) return first + t;
    const index_t batch = positions.extent(0) == 1 ? 0 : b;
    return positions.extent(1) == 1 ? positions(batch, 0) + t : positions(batch, t);
  }
  /// Batch elements whose rows stand at different positions.
  index_t batches() const { return given ? positions.extent(0) : 1; }
};

template <class Scaling, class E>
rotary_positions rotary_positions_of(const rotary_options<Scaling>& options, const tensor_view<const E, 4>& x) {
  const auto& p = options.positions;
  if (p.data() == nullptr) return {p, options.first_position, false};
  check_view("positions", p);
  if (p.extent(0) != 1 && p.extent(0) != x.extent(0)) {
    fail_shape("positions has ", p.extent(0), " batches, expected 1 or ", x.extent(0), ": x has as many");
  }
  if (p.extent(1) != 1 && p.extent(1) != x.extent(2)) {
    fail_shape("positions has ", p.extent(1), " rows, expected 1 or ", x.extent(2), ": x has as many");
  }
  return {p, 0, true};
}

template <class E>
void check_rotary_tensors(const tensor_view<const E, 4>& x, const tensor_view<const E, 4>& out) {
  check_input("x", x);
  check_output("out", out);
  check_same_shape("out", out, "x", x);
  check_overlap("out", out, "x", x, aliasing::identical);
}

/// Where the angles of a task's rows lie.
template <class T>
struct rotary_block {
  static constexpr index_t rows = rotary_angles::period;  // as many as share a far part
  const T* cosine[static_cast<std::size_t>(rows)];
  const T* sine[static_cast<std::size_t>(rows)];
};

/// Turns all rows. angles_of(batch, first, last, use) calls use(block) with the angles of rows [first, last).
template <class E, class Angles, class Executor>
void rotate_rows(const tensor_view<const E, 4>& x, const tensor_view<E, 4>& out, index_t batches, rotary_layout layout,
                 index_t rotated, rotary_direction direction, Angles&& angles_of, Executor& on) {
  using block_type = rotary_block<accumulator_t<E>>;
  constexpr index_t rows = block_type::rows;
  const index_t heads = x.extent(1);
  const index_t T = x.extent(2);
  const index_t blocks = (T + rows - 1) / rows;
  // What stands at the same positions is turned with the same angles: heads, and batch elements that share positions.
  const index_t sharing = x.extent(0) / batches * heads;
  const index_t tasks_wanted = 2 * static_cast<index_t>(on.concurrency());
  const index_t parts = std::clamp<index_t>(tasks_wanted / (blocks * batches), 1, sharing);
  on.for_each(batches * blocks * parts, [&](index_t task, index_t /*worker*/) {
    const index_t part = task % parts;
    const index_t first_row = task / parts % blocks * rows;
    const index_t batch = task / parts / blocks;
    const index_t last_row = std::min(T, first_row + rows);
    angles_of(batch, first_row, last_row, [&](const block_type& angles) {
      // Rows inside heads: rows of a head lie next to each other as a rule, heads far apart.
      for (index_t i = part * sharing / parts; i < (part + 1) * sharing / parts; ++i) {
        const index_t b = batch + i / heads;
        const index_t h = i % heads;
        for (index_t t = first_row; t < last_row; ++t) {
          rotate_row(x.row(b, h, t), out.row(b, h, t), x.extent(3), angles.cosine[t - first_row],
                     angles.sine[t - first_row], layout, rotated, direction);
        }
      }
    });
  });
}

}  // namespace detail

/// Rotary position embedding: the pairs of channels of each row are turned by angles that grow with the row's position.
///
///     (x, y) -> a (x cos phi - y sin phi, x sin phi + y cos phi),   phi = position * theta_i,   theta_i = base^(-2 i / n)
///
/// for pair i of the first n rotated channels, so that q.k depends on the distance of q and k alone. The scaling changes theta
/// and the amplitude a; backward turns by -phi (with the same a), which is what gradients take.
///
/// Shapes     x, out: (B, H, T, D), any strides, last axis contiguous. options.positions: (B|1, T|1).
/// Aliasing   out may be x itself; any other overlap is an error.
/// Numerics   angles from integer positions in double, turned in E's accumulator: |error| <= (3 u + 2^-52 |position|) a |(x, y)|
///            plus half an ulp of E for 16-bit types, to positions of 2^24 and beyond. The bits of a row depend on its position
///            and its numbers alone. A NaN stays in its pair.
/// Cost       3 B H T D operations; x read and out written once; T / 32 + 32 rows of sines and cosines per set of positions.
///            Workspace: 65 D / 2 doubles, and per thread D doubles and 32 D numbers.
/// Errors     shape_error if out is not shaped like x, or options.positions does not fit; value_error if rotated_channels is odd or
///            outside [0, D], or base or scaling make no sense. Nothing is written then.
/// Source     Su et al. 2021, RoFormer, section 3.2.2 and equation (34).
template <class E, rotary_scaling Scaling = no_rotary_scaling, executor Executor = calling_thread>
void rotary_embedding(tensor_view<const E, 4> x,                    // (B, H, T, D)
                      std::type_identity_t<tensor_view<E, 4>> out,  // (B, H, T, D)
                      const rotary_options<Scaling>& options = {}, Executor&& on = {}) {
  detail::check_rotary_tensors<E>(x, out);
  detail::check_rotary_numbers(options);
  const index_t rotated = detail::rotated_channels_of(options, x.extent(3));
  const detail::rotary_positions position_of = detail::rotary_positions_of(options, x);
  if (x.empty()) return;

  using T = accumulator_t<E>;
  const index_t pairs = rotated / 2;
  scratch_frame shared;
  detail::rotary_angles angles(options.scaling, rotated, options.base,
                               shared.take<double>(detail::rotary_angles::size(pairs)));
  for (index_t b = 0; b < position_of.batches(); ++b) {
    for (index_t t = 0; t < x.extent(2) && !angles.complete(); ++t) angles.prepare(position_of(b, t));
  }
  const auto angles_of = [&](index_t b, index_t first, index_t last, auto&& use) {
    scratch_frame frame;
    double* far = frame.take<double>(2 * pairs);  // (2, pairs)
    detail::rotary_block<T> block;
    T* memory = frame.take<T>(2 * (last - first) * pairs);  // (rows, 2, pairs)
    index_t far_position = position_of(b, first);
    angles.far_part(far_position, far);
    for (index_t t = first; t < last; ++t) {
      const index_t position = position_of(b, t);
      if ((position & -detail::rotary_angles::period) != (far_position & -detail::rotary_angles::period)) {
        far_position = position;
        angles.far_part(far_position, far);
      }
      T* cosine = memory + 2 * (t - first) * pairs;
      angles.combine(position, far, cosine, cosine + pairs);
      block.cosine[t - first] = cosine;
      block.sine[t - first] = cosine + pairs;
    }
    use(block);
  };
  detail::rotate_rows<E>(x, out, position_of.batches(), options.layout, rotated, options.direction, angles_of, on);
}

/// The same with angles from a table, which holds base and scaling: for decoding, where rows are few.
///
/// Shapes     x, out: (B, H, T, D); table: rotated channels / 2 pairs. options.positions: (B|1, T|1).
/// Aliasing   out may be x itself; any other overlap is an error.
/// Numerics   as above, with the same bits if the table was made with the same options.
/// Cost       3 B H T D operations; no workspace.
/// Errors     as above; value_error if a position is not in the table, or the table does not have as many pairs as are rotated.
///            options.base and options.scaling are not looked at.
/// Source     Su et al. 2021, RoFormer, section 3.2.2 and equation (34).
template <class E, rotary_scaling Scaling = no_rotary_scaling, executor Executor = calling_thread>
void rotary_embedding(tensor_view<const E, 4> x,                    // (B, H, T, D)
                      std::type_identity_t<tensor_view<E, 4>> out,  // (B, H, T, D)
                      const rotary_table<accumulator_t<E>>& table,  // (P, pairs)
                      const rotary_options<Scaling>& options = {}, Executor&& on = {}) {
  detail::check_rotary_tensors<E>(x, out);
  const index_t rotated = detail::rotated_channels_of(options, x.extent(3));
  if (table.pairs() != rotated / 2) {
    detail::fail_shape("table has ", table.pairs(), " pairs, expected ", rotated / 2, ": ", rotated,
                       " channels are rotated");
  }
  const detail::rotary_positions position_of = detail::rotary_positions_of(options, x);
  if (x.empty()) return;
  for (index_t b = 0; b < position_of.batches(); ++b) {
    for (index_t t = 0; t < x.extent(2); ++t) {
      if (!table.holds(position_of(b, t))) {
        detail::fail_value("row ", t, " is at position ", position_of(b, t), ", table holds positions ",
                           table.first_position, " to ", table.first_position + table.positions() - 1);
      }
    }
  }
  const auto angles_of = [&](index_t b, index_t first, index_t last, auto&& use) {
    detail::rotary_block<accumulator_t<E>> block;
    for (index_t t = first; t < last; ++t) {
      const index_t row = position_of(b, t) - table.first_position;
      block.cosine[t - first] = table.cosine.row(row);
      block.sine[t - first] = table.sine.row(row);
    }
    use(block);
  };
  detail::rotate_rows<E>(x, out, position_of.batches(), options.layout, rotated, options.direction, angles_of, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
