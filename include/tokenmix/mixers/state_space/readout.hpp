// SPDX-License-Identifier: Apache-2.0
/// @file What a complex state is read as.
#pragma once

#include <tokenmix/config.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// How the output is made of C h.
enum class readout : unsigned char {
  conjugate_pairs,  ///< 2 Re(C h): the states that are kept stand for themselves and for their conjugates (S4D, S5)
  real,             ///< Re(C h): all states are kept (LRU), or they are real (EMA)
};

}  // namespace tokenmix::inline TOKENMIX_ABI
