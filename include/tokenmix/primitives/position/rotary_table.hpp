// SPDX-License-Identifier: Apache-2.0
/// @file Cosines and sines of a rotary embedding: from integer positions, in double, each position's bits its own.
#pragma once

#include <tokenmix/core/check.hpp>
#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/arithmetic.hpp>
#include <tokenmix/primitives/position/rotary_scaling.hpp>

#include <cmath>
#include <cstdint>
#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which channels form the pairs that are rotated.
enum class rotary_layout : unsigned char {
  interleaved,  ///< (0, 1), (2, 3), ...: RoFormer, GPT-J
  half,         ///< (0, n/2), (1, n/2 + 1), ... of n rotated channels: GPT-NeoX, Llama as Hugging Face stores it
};

/// By the angle, or back by it: the transposed matrix, which is what the gradient takes.
enum class rotary_direction : unsigned char { forward, backward };

/// Options of rotary_embedding and make_rotary_table: use with designated initialisers; the order of the fields is API.
template <class Scaling = no_rotary_scaling>
struct rotary_options {
  index_t first_position =
      0;  ///< position of row 0; row t is at first_position + t. Not used where `positions` is given
  tensor_view<const index_t, 2> positions{};  // (B|1, T|1) positions of rows; extent 1 along T: of row 0, others follow
  double base = 10000;
  rotary_layout layout = rotary_layout::interleaved;
  std::optional<index_t> rotated_channels{};  ///< the first so many channels turn, the others stay; all D if not given
  Scaling scaling{};
  rotary_direction direction = rotary_direction::forward;
};

namespace detail {

/// Cosine and sine of any position from two tables: of multiples of 32, and of what is left.
///
/// That is one pair of libm calls per 32 positions instead of 32, all in double, and the answer for a position does not
/// depend on which other positions are asked for.
class rotary_angles {
 public:
  static constexpr index_t period = 32;

  /// Doubles of memory: frequencies, and cosines and sines of the first 32 positions.
  static index_t size(index_t pairs) { return pairs * (1 + 2 * period); }

  template <class Scaling>
  rotary_angles(const Scaling& scaling, index_t rotated, double base, double* memory)
      : pairs_(rotated / 2), amplitude_(scaling.amplitude()), frequency_(memory), near_(memory + pairs_) {
    for (index_t i = 0; i < pairs_; ++i) frequency_[i] = scaling.frequency(i, rotated, base);
  }

  index_t pairs() const { return pairs_; }

  /// The near part of a position has to be there before the position is asked for.
  void prepare(index_t position) {
    const index_t near = position & (period - 1);
    if ((prepared_ >> near & 1u) != 0) return;
    prepared_ |= std::uint32_t{1} << near;
    evaluate(near, near_ + 2 * near * pairs_);
  }
  bool complete() const { return prepared_ == ~std::uint32_t{0}; }

  /// far (2 pairs): the far part of a position, the same for 32 of them.
  void far_part(index_t position, double* far) const { evaluate(position & -period, far); }

  /// cosine, sine (pairs) of a position.
  template <class T>
  void combine(index_t position, const double* far, T* cosine, T* sine) const {
    const double* near = near_ + 2 * (position & (period - 1)) * pairs_;
    for (index_t i = 0; i < pairs_; ++i) {
      const double c = far[i], s = far[pairs_ + i], near_c = near[i], near_s = near[pairs_ + i];
      cosine[i] = static_cast<T>(amplitude_ * multiply_add(c, near_c, -product(s, near_s)));
      sine[i] = static_cast<T>(amplitude_ * multiply_add(s, near_c, product(c, near_s)));
    }
  }

 private:
  void evaluate(index_t position, double* values) const {
    for (index_t i = 0; i < pairs_; ++i) {
      const double angle = static_cast<double>(position) * frequency_[i];
      values[i] = std::cos(angle);
      values[pairs_ + i] = std::sin(angle);
    }
  }

  index_t pairs_;
  double amplitude_;
  double* frequency_;  // (pairs)
  double* near_;       // (32, 2, pairs)
  std::uint32_t prepared_ = 0;
};

template <class Scaling>
index_t rotated_channels_of(const rotary_options<Scaling>& options, index_t channels) {
  const index_t rotated = options.rotated_channels.value_or(channels);
  if (rotated < 0 || rotated > channels || rotated % 2 != 0) {
    fail_value("rotated_channels is ", rotated, ": it must be even and lie in [0, ", channels,
               "], the number of channels");
  }
  return rotated;
}

template <class Scaling>
void check_rotary_numbers(const rotary_options<Scaling>& options) {
  options.scaling.check();
  if (!(options.base > 1) || !std::isfinite(options.base)) {
    fail_value("base is ", options.base, ": it must be finite and larger than 1");
  }
}

}  // namespace detail

/// Cosines and sines of consecutive positions, to be computed once and used for many calls.
template <class T>
struct rotary_table {
  index_t first_position = 0;
  tensor<T, 2> cosine;  // (P, pairs)
  tensor<T, 2> sine;    // (P, pairs)

  index_t positions() const { return cosine.extent(0); }
  index_t pairs() const { return cosine.extent(1); }
  bool holds(index_t position) const { return position >= first_position && position - first_position < positions(); }
};

/// The table of positions [options.first_position, + positions) for rows of `channels` channels.
///
///     cosine[p][i] = a cos((first_position + p) theta_i),   theta_i = options.scaling.frequency(i, n, base),   a its amplitude
///
/// Shapes     (positions, n / 2) for n rotated channels.
/// Aliasing   none.
/// Numerics   angles from integer positions in double; |error| <= 2^-52 (|position| + 4), rounded to T: correctly rounded to
///            float but for rare ties up to position 2^24. The bits of a position do not depend on the others.
/// Cost       positions / 32 + 32 rows of libm sines and cosines, 4 multiplications each for the others; memory of the table.
/// Errors     value_error if positions < 0, or rotated_channels is odd or outside [0, channels], or base or scaling make no sense.
///            options.positions and options.direction are not looked at.
/// Source     Su et al. 2021, RoFormer, section 3.2.2.
template <class T, rotary_scaling Scaling = no_rotary_scaling>
rotary_table<T> make_rotary_table(index_t channels, index_t positions, const rotary_options<Scaling>& options = {}) {
  if (positions < 0) detail::fail_value("positions is ", positions, ": expected at least 0");
  detail::check_rotary_numbers(options);
  const index_t rotated = detail::rotated_channels_of(options, channels);
  const index_t pairs = rotated / 2;
  rotary_table<T> table{options.first_position, tensor<T, 2>({positions, pairs}), tensor<T, 2>({positions, pairs})};
  scratch_frame frame;
  detail::rotary_angles angles(options.scaling, rotated, options.base,
                               frame.take<double>(detail::rotary_angles::size(pairs)));
  double* far = frame.take<double>(2 * pairs);  // (2, pairs)
  for (index_t p = 0; p < positions; ++p) {
    const index_t position = options.first_position + p;
    angles.prepare(position);
    if (p == 0 || position % detail::rotary_angles::period == 0) angles.far_part(position, far);
    angles.combine(position, far, table.cosine.row(p), table.sine.row(p));
  }
  return table;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
