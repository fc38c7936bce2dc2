// SPDX-License-Identifier: Apache-2.0
// Block-sparse masks through the kernel, as lists and as a matrix of blocks.
//
// Budget: the float gate. Keys that nobody sees hold NaN. The two forms of one pattern give the same bits.
#include <mixers/softmax/mask_cases.hpp>

namespace {

using cases::index_t;

TEST(attention_block_mask, lists_and_matrix_of_blocks) {
  cases::random_numbers random(3);
  for (const auto& [t, s] : {std::array<index_t, 2>{1, 300}, {64, 64}, {70, 90}, {33, 257}, {100, 40}, {130, 600}}) {
    for (const auto& [query_block, key_block] :
         {std::array<index_t, 2>{16, 16}, {64, 64}, {1, 1}, {7, 13}, {32, 300}}) {
      if (cases::reduced_sweep && query_block != 16) continue;
      const index_t rows = (t + query_block - 1) / query_block, columns = (s + key_block - 1) / key_block;
      const auto visible = std::make_unique<bool[]>(static_cast<std::size_t>(4 * rows * columns));
      const mix::tensor_view<bool, 4> matrix(visible.get(), {1, 4, rows, columns});
      mix::tensor<index_t, 3> offsets({1, 4, rows + 1});
      std::vector<index_t> lists;
      for (index_t h = 0; h < 4; ++h) {
        for (index_t i = 0; i < rows; ++i) {
          offsets(0, h, i) = static_cast<index_t>(lists.size());
          for (index_t j = 0; j < columns; ++j) {
            matrix(0, h, i, j) = random.chance(0.4);
            if (matrix(0, h, i, j)) lists.push_back(j);
          }
        }
        offsets(0, h, rows) = static_cast<index_t>(lists.size());
      }
      const auto sees = [&, rows_of_block = query_block, keys_of_block = key_block](const mix::index& w) {
        return matrix(0, w.head, w.query_row() / rows_of_block, w.key / keys_of_block);
      };
      const std::string name = "blocks of " + std::to_string(query_block) + " by " + std::to_string(key_block);
      const mix::block_pattern pattern{
          .query_block = query_block, .key_block = key_block, .offsets = offsets, .columns = lists};
      const mix::block_mask mask{.query_block = query_block, .key_block = key_block, .visible = matrix};
      cases::check_mask_at({2, 4, 2, t, s, 16, 8}, 5, pattern, sees, name + " as lists");
      cases::check_mask_at({2, 4, 2, t, s, 16, 8}, 5, mask, sees, name + " as a matrix");
      const cases::operands<> x({2, 4, 2, t, s, 16, 8}, 5);
      mix::tensor<float, 4> a(x.out.shape()), b(x.out.shape());
      mix::softmax_attention(x.q, x.k, x.v, a, mix::softmax_options{.mask = pattern});
      mix::softmax_attention(x.q, x.k, x.v, b, mix::softmax_options{.mask = mask});
      cases::expect_same_bits<float, 4>(a, b, name);
    }
  }
}

}  // namespace
