// SPDX-License-Identifier: Apache-2.0
// Which keys the window mixers ask their source for: of every 64 keys those from the first to the last that a tile of queries sees,
// once per tile, and no others.
#include <mixers/softmax/softmax_cases.hpp>
#include <tokenmix/window.hpp>

#include <numeric>

namespace {

using cases::index_t;
using counts = std::vector<index_t>;
using tokens = std::vector<index_t>;

/// A source that counts how often each row of k is asked for.
template <class Source>
struct counting : Source {
  counts* asked = nullptr;

  mix::row_run<float> keys(const mix::sequence& seq, index_t head, index_t position) const {
    mix::row_run<float> run = Source::keys(seq, head, position);
    run.count = 1;  // so that every row that is read is asked for
    ++(*asked)[static_cast<std::size_t>((run.data - this->k.data()) / this->k.stride(2))];
    return run;
  }
};

constexpr index_t width = 8;

/// What `attend` asks for when it goes through a source.
template <class Source, class Mask, class Sequences>
counts counted(const cases::operands<>& x, const Source& source, const Mask& mask, const Sequences& sequences) {
  counts asked(static_cast<std::size_t>(x.k.extent(2)), 0);
  const mix::softmax_options<Mask, mix::plain_score, Sequences> options{.mask = mask, .sequences = sequences};
  mix::tensor<float, 4> out(x.out.shape());
  mix::calling_thread on;
  mix::detail::attend(mix::tensor_view<const float, 4>(x.q), counting<Source>{source, &asked}, options,
                      mix::detail::attention_output<float, float, float>{out, {}, {}, false}, on);
  return asked;
}

/// What is to be asked for: queries and keys of one sequence in their order, and who sees whom.
template <class Sees>
void add_expected(const tokens& queries, const tokens& keys, const Sees& sees, counts& expected) {
  const auto T = static_cast<index_t>(queries.size()), S = static_cast<index_t>(keys.size());
  const auto cut = mix::detail::tile_cut<float>::of(T, S, 2 * width * static_cast<index_t>(sizeof(float)));
  for (index_t tile = 0; tile < cut.tiles; ++tile)
    for (index_t begin = 0; begin < S; begin += 64) {
      index_t first = S, last = -1;
      for (index_t j = begin; j < std::min(S, begin + 64); ++j)
        for (index_t i = cut.first_row(tile); i < cut.first_row(tile + 1); ++i)
          if (sees(queries[static_cast<std::size_t>(i)], keys[static_cast<std::size_t>(j)])) {
            first = std::min(first, j);
            last = j;
          }
      for (index_t j = first; j <= last; ++j) ++expected[static_cast<std::size_t>(keys[static_cast<std::size_t>(j)])];
    }
}

tokens range(index_t first, index_t end, index_t step = 1) {
  tokens t;
  for (; first < end; first += step) t.push_back(first);
  return t;
}

/// Something is seen, and something is not: else a test would count nothing.
void expect_counts(const counts& asked, const counts& expected, index_t all) {
  EXPECT_EQ(asked, expected);
  const index_t sum = std::accumulate(expected.begin(), expected.end(), index_t{0});
  EXPECT_GT(sum, 0);
  EXPECT_LT(sum, all);
}

index_t every_pair_of_tiles(index_t T) { return mix::detail::tile_cut<float>::of(T, T, 0).tiles * T; }

TEST(visited_keys, sliding_windows) {
  const index_t T = 700;
  const cases::operands<> x({1, 1, 1, T, T, width, width}, 1);
  for (const auto& [left, right, first] : {std::array<index_t, 3>{100, 0, 0}, {63, 0, 5}, {20, 30, 0}, {0, 0, 0}}) {
    const auto mask = mix::window{.left = left, .right = right} |
                      (mix::first_keys{first} & mix::window{.right = right == 0 ? 0 : mix::unlimited});
    counts expected(static_cast<std::size_t>(T), 0);
    add_expected(
        range(0, T), range(0, T),
        [&, l = left, r = right, f = first](index_t q, index_t k) {
          return (k >= q - l && k <= q + r) || (k < f && (r > 0 || k <= q));
        },
        expected);
    expect_counts(counted(x, mix::key_value_views<float>{{x.k, x.v, {}, {}}}, mask, mix::whole_sequences{}), expected,
                  every_pair_of_tiles(T));
  }
}

TEST(visited_keys, dilated_windows_with_keys_that_all_see) {
  const index_t T = 700, dilation = 3;
  const cases::operands<> x({1, 1, 1, T, T, width, width}, 1);
  for (const index_t right : {0, 4}) {
    const tokens seen{0, 1, 7, 300};
    mix::scratch_frame frame;
    const mix::detail::window_lattice lattice(mix::whole_sequences{}, 1, T, T, dilation, seen, frame);
    const index_t left = 40;
    counts expected(static_cast<std::size_t>(T), 0);
    for (index_t residue = 0; residue < dilation; ++residue) {
      // A token that all see stands before the keys of its class, and a second time among them, where nobody sees it.
      const tokens of_class = range(residue, T, dilation);
      tokens keys = seen;
      for (const index_t k : of_class) keys.push_back(std::find(seen.begin(), seen.end(), k) == seen.end() ? k : k + T);
      counts both(static_cast<std::size_t>(2 * T), 0);
      add_expected(
          of_class, keys,
          [&](index_t q, index_t k) {
            if (k >= T) return false;
            if (std::find(seen.begin(), seen.end(), k) != seen.end()) return right > 0 || k <= q;
            return k >= q - left * dilation && k <= q + right * dilation;
          },
          both);
      for (std::size_t k = 0; k < both.size(); ++k) expected[k % static_cast<std::size_t>(T)] += both[k];
    }
    const mix::detail::window_lattice_source<float> source{{x.k, x.v, {}, {}}, lattice};
    expect_counts(counted(x, source, mix::detail::window_lattice_mask{lattice, left, right}, lattice), expected,
                  every_pair_of_tiles(T));
  }
}

TEST(visited_keys, chunks) {
  const index_t T = 700;
  const cases::operands<> x({1, 1, 1, T, T, width, width}, 1);
  for (const index_t size : {50, 64, 200}) {
    const auto mask = mix::chunks{.size = size, .before = 1} & mix::causal{};
    counts expected(static_cast<std::size_t>(T), 0);
    add_expected(
        range(0, T), range(0, T), [&](index_t q, index_t k) { return k <= q && k / size >= q / size - 1; }, expected);
    expect_counts(counted(x, mix::key_value_views<float>{{x.k, x.v, {}, {}}}, mask, mix::whole_sequences{}), expected,
                  every_pair_of_tiles(T));
  }
}

TEST(visited_keys, neighborhoods) {
  const index_t rows = 13, columns = 18, window[2] = {5, 7};
  const cases::operands<> x({1, 1, 1, rows * columns, rows * columns, width, width}, 1);
  const mix::detail::grid_axis axis[3] = {
      {1, 1, 1, 1, false, 1}, {rows, window[0], 1, 1, false, 4}, {columns, window[1], 1, 1, false, 4}};
  mix::scratch_frame frame;
  const mix::detail::grid_tiles tiles(axis, frame);
  const auto near = [](index_t q, index_t k, index_t n, index_t w) {
    const index_t start = std::clamp<index_t>(q - w / 2, 0, n - w);
    return k >= start && k < start + w;
  };
  const auto sees = [&](index_t q, index_t k) {
    return near(q / columns, k / columns, rows, window[0]) && near(q % columns, k % columns, columns, window[1]);
  };
  counts expected(static_cast<std::size_t>(rows * columns), 0);
  for (index_t y = 0; y < rows; y += 4)
    for (index_t z = 0; z < columns; z += 4) {
      tokens queries, keys;
      for (index_t t = 0; t < rows * columns; ++t)
        if (t / columns / 4 == y / 4 && t % columns / 4 == z / 4) queries.push_back(t);
      // The box: what some query sees along one axis, whoever sees it along the other.
      for (index_t t = 0; t < rows * columns; ++t)
        if (std::any_of(queries.begin(), queries.end(),
                        [&](index_t q) { return near(q / columns, t / columns, rows, window[0]); }) &&
            std::any_of(queries.begin(), queries.end(),
                        [&](index_t q) { return near(q % columns, t % columns, columns, window[1]); }))
          keys.push_back(t);
      add_expected(queries, keys, sees, expected);
    }
  const mix::detail::grid_source<float> source{{x.k, x.v, {}, {}}, tiles};
  expect_counts(counted(x, source, mix::detail::grid_mask{tiles, 0}, mix::detail::grid_sequences{tiles}), expected,
                tiles.count() * rows * columns);
}

TEST(visited_keys, shifted_windows) {
  const index_t rows = 24, columns = 36, side = 12, shift = 5;  // windows of more keys than a register, a tile, or 64
  const cases::operands<> x({1, 1, 1, rows * columns, rows * columns, width, width}, 1);
  mix::scratch_frame frame;
  const mix::detail::shifted_windows windows({rows, side, shift}, {columns, side, shift}, frame);
  counts expected(static_cast<std::size_t>(rows * columns), 0);
  for (index_t y = 0; y < rows; y += side)
    for (index_t z = 0; z < columns; z += side) {
      tokens window;
      for (index_t i = 0; i < side * side; ++i)
        window.push_back((y + i / side + shift) % rows * columns + (z + i % side + shift) % columns);
      const auto sees = [&](index_t q, index_t k) {  // tokens of the first `shift` rows have been rolled to the end
        const bool last_rows = y + side == rows, last_columns = z + side == columns;
        return (!last_rows || (q / columns < shift) == (k / columns < shift)) &&
               (!last_columns || (q % columns < shift) == (k % columns < shift));
      };
      add_expected(window, window, sees, expected);
    }
  const mix::detail::shifted_window_source<float> source{{x.k, x.v, {}, {}}, windows};
  expect_counts(
      counted(x, source, mix::detail::shifted_window_mask{windows}, mix::detail::shifted_window_sequences{windows}),
      expected, windows.count() * every_pair_of_tiles(side * side));
}

}  // namespace
