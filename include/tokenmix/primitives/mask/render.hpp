// SPDX-License-Identifier: Apache-2.0
/// @file Draws a mask, as text or as an image.
#pragma once

#include <tokenmix/core/error.hpp>
#include <tokenmix/primitives/mask/mask.hpp>

#include <string>

namespace tokenmix::inline TOKENMIX_ABI {

/// Which picture of a mask.
struct render_options {
  index_t batch = 0;    ///< the sequence
  index_t head = 0;     ///< the query head
  index_t batches = 0;  ///< B and H of the tensors that the mask is made for, if it has a table for each batch element
  index_t heads = 0;    ///<   or head; otherwise as many as it takes to have `batch` and `head`
  char visible = '#';   ///< in text
  char hidden = '.';
};

namespace detail {

/// Calls at(row, key, visible) for every pair, row by row, and row_done() after each row.
template <class M, class At, class RowDone>
void for_each_pair(const M& mask, index_t queries, index_t keys, const render_options& options, At&& at,
                   RowDone&& row_done) {
  if (queries < 0) fail_value("queries is ", queries, ", expected 0 or more");
  if (keys < 0) fail_value("keys is ", keys, ", expected 0 or more");
  if (options.batch < 0) fail_value("render_options.batch is ", options.batch, ", expected 0 or more");
  if (options.head < 0) fail_value("render_options.head is ", options.head, ", expected 0 or more");
  const index_t batches = std::max(options.batches, options.batch + 1);
  const index_t heads = std::max(options.heads, options.head + 1);
  mask_check(mask, batches, heads, queries, keys);
  for (index_t row = 0; row < queries; ++row) {
    for (index_t key = 0; key < keys; ++key) {
      const index where{options.batch, options.head, row + (keys - queries), key, queries, keys};
      at(row, key, mask_at(mask, where));
    }
    row_done();
  }
}

}  // namespace detail

/// A mask as text: one line per query, one character per key.
///
///     std::cout << render(causal{} & (window{.left = 2} | first_keys{1}), 6, 6);
///
///     #.....
///     ##....
///     ###...
///     ####..
///     #.###.
///     #..###
///
/// Shapes     T = queries lines of S = keys characters and a line feed.
/// Cost       T S questions to the mask.
/// Errors     value_error if an extent or a number in the options is negative; what the mask itself finds wrong with B, H, T, S.
template <mask_callable M>
std::string render(const M& mask, index_t queries, index_t keys, const render_options& options = {}) {
  std::string text;
  detail::for_each_pair(
      mask, queries, keys, options,
      [&](index_t, index_t, bool visible) { text += visible ? options.visible : options.hidden; },
      [&] { text += '\n'; });
  return text;
}

/// A mask as a black and white image: a binary PBM file (P4), visible pairs black. Otherwise as render().
///
///     std::ofstream("mask.pbm", std::ios::binary) << render_image(causal{} & window{.left = 511}, 4096, 4096);
///
/// Shapes     keys wide, queries high; rows are padded to whole bytes.
template <mask_callable M>
std::string render_image(const M& mask, index_t queries, index_t keys, const render_options& options = {}) {
  std::string image = "P4\n" + std::to_string(keys) + " " + std::to_string(queries) + "\n";
  unsigned byte = 0;
  index_t bits = 0;
  const auto put = [&] {
    image += static_cast<char>(static_cast<unsigned char>(byte << (8 - bits)));
    byte = 0;
    bits = 0;
  };
  detail::for_each_pair(
      mask, queries, keys, options,
      [&](index_t, index_t, bool visible) {
        byte = (byte << 1) | (visible ? 1u : 0u);
        if (++bits == 8) put();
      },
      [&] {
        if (bits > 0) put();
      });
  return image;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
