// SPDX-License-Identifier: Apache-2.0
/// @file Frequencies of a rotary embedding: the paper's, and the ways to stretch them over longer contexts.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <algorithm>
#include <cmath>
#include <concepts>
#include <numbers>
#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// A scaling is a value that gives the frequency of pair i, in radians per position, and the length of the rotated pairs.
///
///     s.frequency(pair, rotated, base)   pair in [0, rotated / 2); unscaled: base^(-2 pair / rotated)
///     s.amplitude()                      cosines and sines are multiplied by it
///     s.check()                          throws value_error if the numbers make no sense
template <class S>
concept rotary_scaling = requires(const S& s, index_t n, double base) {
  { s.frequency(n, n, base) } -> std::convertible_to<double>;
  { s.amplitude() } -> std::convertible_to<double>;
  s.check();
};

namespace detail {

inline double rotary_frequency(index_t pair, index_t rotated, double base) {
  return std::pow(base, -2.0 * static_cast<double>(pair) / static_cast<double>(rotated));
}

inline void check_rotary_number(const char* name, double value, double least) {
  if (!(value >= least) || !std::isfinite(value)) {
    fail_value(name, " is ", value, ": it must be finite and at least ", least);
  }
}

}  // namespace detail

/// base^(-2 i / D).   Su et al. 2021, RoFormer, section 3.2.2.
struct no_rotary_scaling {
  static double frequency(index_t pair, index_t rotated, double base) {
    return detail::rotary_frequency(pair, rotated, base);
  }
  static constexpr double amplitude() { return 1.0; }
  static constexpr void check() {}
};

/// Positions are divided by the factor.   Chen et al. 2023, Extending context window by positional interpolation, section 2.3.
struct linear_rotary_scaling {
  double factor = 1;

  double frequency(index_t pair, index_t rotated, double base) const {
    return detail::rotary_frequency(pair, rotated, base) / factor;
  }
  static constexpr double amplitude() { return 1.0; }
  void check() const { detail::check_rotary_number("scaling.factor", factor, 1e-6); }
};

/// The base becomes base * factor^(D / (D - 2)): the fastest pair keeps its frequency, the slowest one is divided by the factor.
///
/// Peng et al. 2023, YaRN, section 3.1 (NTK-aware interpolation).
struct ntk_rotary_scaling {
  double factor = 1;

  double frequency(index_t pair, index_t rotated, double base) const {
    if (rotated <= 2) return 1.0;
    const auto width = static_cast<double>(rotated);
    return detail::rotary_frequency(pair, rotated, base * std::pow(factor, width / (width - 2.0)));
  }
  static constexpr double amplitude() { return 1.0; }
  void check() const { detail::check_rotary_number("scaling.factor", factor, 1e-6); }
};

/// Pairs that turn often within the original context keep their frequency, those that turn seldom are divided by the factor,
/// and in between the two are mixed linearly over the pairs.
///
/// Peng et al. 2023, YaRN, section 3.2 and 3.3, with the ramp over pairs of the authors' code (jquesnelle/yarn), which is what
/// models were trained with: its ends are rounded outwards to whole pairs.
struct yarn_rotary_scaling {
  double factor = 1;
  double original_context = 4096;
  double fast_turns = 32;             ///< beta: pairs with at least so many turns keep their frequency
  double slow_turns = 1;              ///< alpha: pairs with at most so many turns are divided by the factor
  std::optional<double> attention{};  ///< length of the rotated pairs; 0.1 ln(factor) + 1 if not given

  double frequency(index_t pair, index_t rotated, double base) const {
    const double kept = detail::rotary_frequency(pair, rotated, base);
    const double low = std::max(std::floor(pair_of_turns(fast_turns, rotated, base)), 0.0);
    double high = std::min(std::ceil(pair_of_turns(slow_turns, rotated, base)), static_cast<double>(rotated - 1));
    if (low == high) high += 0.001;
    const double ramp = std::clamp((static_cast<double>(pair) - low) / (high - low), 0.0, 1.0);
    return kept / factor * ramp + kept * (1.0 - ramp);
  }
  double amplitude() const {
    if (attention) return *attention;
    return factor <= 1 ? 1.0 : 0.1 * std::log(factor) + 1.0;
  }
  void check() const {
    detail::check_rotary_number("scaling.factor", factor, 1e-6);
    detail::check_rotary_number("scaling.original_context", original_context, 1);
    detail::check_rotary_number("scaling.slow_turns", slow_turns, 1e-6);
    detail::check_rotary_number("scaling.fast_turns", fast_turns, slow_turns);
    if (attention) detail::check_rotary_number("scaling.attention", *attention, 1e-6);
  }

 private:
  /// The pair, as a real number, that turns so often within the original context.
  double pair_of_turns(double turns, index_t rotated, double base) const {
    return static_cast<double>(rotated) * std::log(original_context / (turns * 2.0 * std::numbers::pi)) /
           (2.0 * std::log(base));
  }
};

/// As YaRN, but the mix is linear in the number of turns, and lengths stay.   Grattafiori et al. 2024, Llama 3, with the formula of
/// the released code (meta-llama/llama-models, apply_scaling).
struct llama3_rotary_scaling {
  double factor = 8;
  double low_turns = 1;   ///< pairs with fewer turns are divided by the factor
  double high_turns = 4;  ///< pairs with more turns keep their frequency
  double original_context = 8192;

  double frequency(index_t pair, index_t rotated, double base) const {
    const double kept = detail::rotary_frequency(pair, rotated, base);
    const double turns = original_context * kept / (2.0 * std::numbers::pi);
    if (turns > high_turns) return kept;
    if (turns < low_turns) return kept / factor;
    const double smooth = (turns - low_turns) / (high_turns - low_turns);
    return (1.0 - smooth) * kept / factor + smooth * kept;
  }
  static constexpr double amplitude() { return 1.0; }
  void check() const {
    detail::check_rotary_number("scaling.factor", factor, 1e-6);
    detail::check_rotary_number("scaling.low_turns", low_turns, 1e-6);
    detail::check_rotary_number("scaling.original_context", original_context, 1);
    if (!(high_turns > low_turns) || !std::isfinite(high_turns)) {
      detail::fail_value("scaling.high_turns is ", high_turns, ": it must be larger than low_turns, which is ",
                         low_turns);
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
