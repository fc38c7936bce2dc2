// SPDX-License-Identifier: Apache-2.0
// Masks that hold tables, through the kernel: dense truth values, documents, prefixes of given lengths, valid keys.
//
// Budget: the float gate. Keys that nobody sees hold NaN.
#include <mixers/softmax/mask_cases.hpp>

namespace {

using cases::index_t;

/// One shape, since tables have extents of their own.
template <class Mask>
void check(const cases::shape& size, const Mask& mask, const cases::plain_mask& sees, const std::string& name) {
  cases::check_mask_at(size, 17, mask, sees, name);
}

std::vector<std::array<index_t, 2>> sizes() {
  if (cases::reduced_sweep) return {{5, 40}, {70, 33}};
  return {{1, 1}, {1, 300}, {5, 40}, {40, 5}, {33, 65}, {70, 70}, {100, 257}, {20, 600}};
}

TEST(attention_mask_table, dense_truth_values) {
  cases::random_numbers random(1);
  for (const auto& [t, s] : sizes()) {
    for (int broadcast = 0; broadcast < 6; ++broadcast) {
      const index_t b = broadcast == 1 || broadcast == 5 ? 1 : 2, h = broadcast == 2 || broadcast == 5 ? 1 : 4;
      const index_t rows = broadcast == 3 ? 1 : t, columns = broadcast == 4 ? 1 : s;
      mix::tensor<char, 4> truth({b, h, rows, columns});
      const double density = random.one_of(std::vector<double>{0.02, 0.5, 0.98});
      for (char& x : truth) x = random.chance(density);
      const auto table = std::make_unique<bool[]>(static_cast<std::size_t>(truth.size()));
      for (index_t i = 0; i < truth.size(); ++i) table[static_cast<std::size_t>(i)] = truth.data()[i] != 0;
      const mix::dense_mask mask{mix::tensor_view<const bool, 4>(table.get(), truth.shape())};
      const auto sees = [=, &truth](const mix::index& w) {
        return truth(b == 1 ? 0 : w.batch, h == 1 ? 0 : w.head, rows == 1 ? 0 : w.query - (s - t),
                     columns == 1 ? 0 : w.key) != 0;
      };
      check({2, 4, 2, t, s, 16, 8}, mask, sees, "dense " + std::to_string(broadcast));
    }
  }
}

TEST(attention_mask_table, documents_of_one_sequence) {
  cases::random_numbers random(2);
  for (const auto& [t, s] : sizes()) {
    if (t > s) continue;
    mix::tensor<index_t, 2> ids({2, s});
    for (index_t b = 0; b < 2; ++b) {
      index_t id = 0;
      for (index_t i = 0; i < s; ++i) ids(b, i) = id += random.chance(0.07);
    }
    const auto sees = [&ids](const mix::index& w) {
      return w.key <= w.query && ids(w.batch, w.key) == ids(w.batch, w.query);
    };
    check({2, 4, 2, t, s, 16, 8}, mix::causal{} & mix::documents{.ids = ids}, sees, "documents");
  }
}

TEST(attention_mask_table, prefixes_and_valid_keys) {
  for (const auto& [t, s] : sizes()) {
    const std::vector<index_t> prefixes{s / 2, 1}, valid{s, s / 3};
    check(
        {2, 4, 2, t, s, 16, 8}, mix::prefix_lm{.lengths = prefixes} & mix::valid_keys{valid},
        [&](const mix::index& w) {
          const auto b = static_cast<std::size_t>(w.batch);
          return (w.key < prefixes[b] || w.key <= w.query) && w.key < valid[b];
        },
        "prefixes and valid keys");
  }
}

TEST(attention_mask_table, dilated_window) {
  for (index_t dilation : {1, 2, 3, 7, 64}) {
    for (const auto& [t, s] : sizes()) {
      check(
          {2, 4, 2, t, s, 16, 8}, mix::causal{} & mix::dilated{dilation},
          [=](const mix::index& w) { return w.key <= w.query && (w.query - w.key) % dilation == 0; },
          "dilated " + std::to_string(dilation));
    }
  }
}

}  // namespace
