// SPDX-License-Identifier: Apache-2.0
/// @file Rotary embedding as an option of a kernel: q and k rows are turned while they are loaded.
#pragma once

#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/primitives/sequences.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// q and k come as they are.
struct no_rotary {};

/// q and k are turned by the angles of their positions in their own sequence, as rotary_embedding would before the call and with
/// the same bits for float and double (16-bit rows are not rounded in between). For keys that are kept unrotated: a
/// cache whose positions move, several scalings over the same keys. Every key is turned once per group of query tiles, so
/// keys that many queries see are better turned before.
template <class T>
struct rotary_inside {
  const rotary_table<T>* table = nullptr;  // (P, pairs) for every position of every sequence
  rotary_layout layout = rotary_layout::interleaved;

  void rotate(const T* from, T* to, index_t channels, index_t position) const {
    const index_t row = position - table->first_position;
    rotate_row(from, to, channels, table->cosine.row(row), table->sine.row(row), layout, 2 * table->pairs());
  }

  void check(index_t channels) const {
    if (table == nullptr) detail::fail_value("rotary.table is null");
    if (2 * table->pairs() > channels) {
      detail::fail_shape("rotary.table has ", table->pairs(), " pairs, q has ", channels, " channels: at most ",
                         channels / 2, " fit");
    }
  }

  void check(const sequence& seq) const {
    if (seq.queries == 0 || seq.keys == 0) return;
    const index_t first = std::min<index_t>(0, seq.first_position());
    if (!table->holds(first) || !table->holds(seq.keys - 1)) {
      detail::fail_value("sequence ", seq.number, " has positions ", first, " to ", seq.keys - 1,
                         ", rotary.table holds positions ", table->first_position, " to ",
                         table->first_position + table->positions() - 1);
    }
  }
};

}  // namespace tokenmix::inline TOKENMIX_ABI
