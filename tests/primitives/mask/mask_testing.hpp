// SPDX-License-Identifier: Apache-2.0
/// @file Compares a mask with a plain formula: pair by pair, register by register, run by run.
#pragma once

#include <tokenmix/mask.hpp>

#include <gtest/gtest.h>

#include <cstdint>
#include <functional>
#include <random>
#include <string>
#include <vector>

namespace tokenmix::testing {

/// B, H, T, S.
struct mask_shape {
  index_t batches = 1;
  index_t heads = 1;
  index_t queries = 0;
  index_t keys = 0;
};

inline std::string text_of(const mask_shape& s) {
  return "B " + std::to_string(s.batches) + " H " + std::to_string(s.heads) + " T " + std::to_string(s.queries) +
         " S " + std::to_string(s.keys);
}

/// What a mask's runs promise beside being right.
enum class exactness {
  correct,  ///< none and all are true; some may be anything
  none,     ///< and no key that nobody sees is in a run of some: the union of visible keys is exact
  full,     ///< and no key that everybody sees is in a run of some
};

/// The truth about all pairs of a shape: the plain formula, evaluated once.
class truth_table {
 public:
  template <class Plain>
  truth_table(const Plain& plain, const mask_shape& shape) : shape_(shape) {
    bits_.reserve(static_cast<std::size_t>(shape.batches * shape.heads * shape.queries * shape.keys));
    for (index_t b = 0; b < shape.batches; ++b) {
      for (index_t h = 0; h < shape.heads; ++h) {
        for (index_t row = 0; row < shape.queries; ++row) {
          for (index_t key = 0; key < shape.keys; ++key) {
            const index where{b, h, row + shape.keys - shape.queries, key, shape.queries, shape.keys};
            bits_.push_back(static_cast<bool>(plain(where)) ? 1 : 0);
          }
        }
      }
    }
  }
  bool operator()(index_t b, index_t h, index_t row, index_t key) const {
    return bits_[static_cast<std::size_t>(((b * shape_.heads + h) * shape_.queries + row) * shape_.keys + key)] != 0;
  }
  coverage of_block(const query_block& block, index_t key) const {
    const index_t shift = block.keys - block.queries;
    bool any = false, all = true;
    for (index_t h = block.head_first; h < block.head_last; ++h) {
      for (index_t q = block.query_first; q < block.query_last; ++q) {
        const bool seen = (*this)(block.batch, h, q - shift, key);
        any = any || seen;
        all = all && seen;
      }
    }
    return all ? coverage::all : any ? coverage::some : coverage::none;
  }

 private:
  mask_shape shape_;
  std::vector<unsigned char> bits_;
};

/// Lane i of an answer that may be the same for all lanes.
inline bool lane_of_answer(bool answer, index_t) { return answer; }
template <class T>
bool lane_of_answer(simd::lane_mask<T> answer, index_t i) {
  return ((simd::bits<T>(answer.value) >> i) & 1u) != 0;
}

template <class T>
using head_lanes_index = basic_index<simd::positions<T>, index_t, index_t>;
template <class T>
using head_query_lanes_index = basic_index<simd::positions<T>, simd::positions<T>, index_t>;

/// A mask behind calls, so that what checks it is compiled once; lane i of an answer is bit i.
class erased_mask {
 public:
  using is_mask = void;

  template <class Mask>
  explicit erased_mask(const Mask& mask)
      : float_lanes(mask),
        double_lanes(mask),
        pair_([&mask](const index& i) -> bool { return mask_at(mask, i); }),
        run_([&mask](const query_block& block, index_t key) {
          if constexpr (detail::has_runs<Mask>) {
            return mask.run(block, key);
          } else {
            return mask_run(mask, block, key);
          }
        }) {
    if constexpr (detail::has_words<Mask>)
      words_ = [&mask](const query_block& block, index_t key) { return mask.seen_by(block, key); };
  }

  template <class T>
  struct lanes {
    template <class Mask>
    explicit lanes(const Mask& mask)
        : queries(word<query_lanes_index<T>>(mask)),
          keys(word<key_lanes_index<T>>(mask)),
          heads(word<head_lanes_index<T>>(mask)),
          heads_and_queries(word<head_query_lanes_index<T>>(mask)) {}

    std::function<std::uint32_t(const query_lanes_index<T>&)> queries;
    std::function<std::uint32_t(const key_lanes_index<T>&)> keys;
    std::function<std::uint32_t(const head_lanes_index<T>&)> heads;
    std::function<std::uint32_t(const head_query_lanes_index<T>&)> heads_and_queries;

   private:
    template <class Index, class Mask>
    static auto word(const Mask& mask) {
      return [&mask](const Index& where) -> std::uint32_t {
        const auto answer = mask_at(mask, where);
        if constexpr (std::is_same_v<decltype(answer), const bool>) {
          return answer ? ~std::uint32_t{0} : 0;
        } else {
          return simd::bits<T>(answer.value);
        }
      };
    }
  };

  bool operator()(const index& i) const { return pair_(i); }
  span run(const query_block& block, index_t key) const { return run_(block, key); }
  bool has_words() const { return words_ != nullptr; }
  std::uint64_t seen_by(const query_block& block, index_t key) const { return words_(block, key); }
  template <class T>
  const lanes<T>& of() const {
    if constexpr (std::is_same_v<T, float>) {
      return float_lanes;
    } else {
      return double_lanes;
    }
  }

 private:
  lanes<float> float_lanes;
  lanes<double> double_lanes;
  std::function<bool(const index&)> pair_;
  std::function<span(const query_block&, index_t)> run_;
  std::function<std::uint64_t(const query_block&, index_t)> words_;
};

inline bool bit(std::uint64_t word, index_t i) { return ((word >> i) & 1u) != 0; }

/// Registers with queries, keys or heads in the lanes, consecutive and scattered, reaching past the end of the sequence.
template <class T>
void expect_lanes(const erased_mask& mask, const truth_table& truth, const mask_shape& shape) {
  constexpr index_t lanes = simd::lanes<T>;
  const index_t shift = shape.keys - shape.queries;
  // 0 for a register that begins at `first`, otherwise a walk through [0, n) with that step.
  const auto position = [](index_t step, index_t first, index_t n, index_t i) {
    return step == 0 ? first + i : (first + step * i) % n;
  };
  const auto row_of = [&](index_t step, index_t first, index_t n, index_t offset) {
    if (step == 0) return simd::positions<T>::consecutive(first + offset);
    return simd::positions<T>::generate([&](index_t i) { return position(step, first, n, i) + offset; });
  };
  for (index_t b = 0; b < shape.batches; ++b) {
    for (index_t step : {index_t{0}, index_t{7}}) {
      for (index_t h = 0; h < shape.heads; ++h) {
        for (index_t first = 0; first < shape.queries; first += lanes - 1) {
          for (index_t key = 0; key < shape.keys; ++key) {
            const std::uint32_t word =
                mask.of<T>().queries({b, h, row_of(step, first, shape.queries, shift), key, shape.queries, shape.keys});
            for (index_t i = 0; i < lanes; ++i) {
              const index_t row = position(step, first, shape.queries, i);
              if (row >= shape.queries) continue;
              ASSERT_EQ(bit(word, i), truth(b, h, row, key)) << "queries in lanes: row " << row << " key " << key;
            }
          }
        }
        for (index_t first = 0; first < shape.keys; first += lanes - 1) {
          for (index_t row = 0; row < shape.queries; ++row) {
            const std::uint32_t word =
                mask.of<T>().keys({b, h, row + shift, row_of(step, first, shape.keys, 0), shape.queries, shape.keys});
            for (index_t i = 0; i < lanes; ++i) {
              const index_t key = position(step, first, shape.keys, i);
              if (key >= shape.keys) continue;
              ASSERT_EQ(bit(word, i), truth(b, h, row, key)) << "keys in lanes: row " << row << " key " << key;
            }
          }
        }
      }
    }
    // Heads in the lanes, as in a decode step of grouped queries: the lanes past the last head repeat it.
    for (index_t row = 0; row < shape.queries; ++row) {
      for (index_t key = 0; key < shape.keys; ++key) {
        const auto head = [&](index_t i) { return std::min(i, shape.heads - 1); };
        const std::uint32_t of_heads =
            mask.of<T>().heads({b, simd::positions<T>::generate(head), row + shift, key, shape.queries, shape.keys});
        // Heads and queries together: lane i has head i / 2 and, of two queries, the one numbered i % 2.
        const auto pair_row = [&](index_t i) { return std::min(row + i % 2, shape.queries - 1); };
        const std::uint32_t of_both = mask.of<T>().heads_and_queries(
            {b, simd::positions<T>::generate([&](index_t i) { return head(i / 2); }),
             simd::positions<T>::generate([&](index_t i) { return pair_row(i) + shift; }), key, shape.queries,
             shape.keys});
        for (index_t i = 0; i < lanes; ++i) {
          ASSERT_EQ(bit(of_heads, i), truth(b, head(i), row, key)) << "heads in lanes: row " << row << " key " << key;
          ASSERT_EQ(bit(of_both, i), truth(b, head(i / 2), pair_row(i), key)) << "heads and queries in lanes";
        }
      }
    }
  }
}

/// The runs and spans of one block.
inline void expect_runs(const erased_mask& mask, const truth_table& truth, const query_block& block,
                        exactness promised) {
  SCOPED_TRACE("batch " + std::to_string(block.batch) + " heads " + std::to_string(block.head_first) + " to " +
               std::to_string(block.head_last) + " positions " + std::to_string(block.query_first) + " to " +
               std::to_string(block.query_last));
  std::vector<coverage> exact(static_cast<std::size_t>(block.keys));
  for (index_t key = 0; key < block.keys; ++key) exact[static_cast<std::size_t>(key)] = truth.of_block(block, key);

  if (mask.has_words() && block.head_last == block.head_first + 1 && block.query_last - block.query_first <= 64) {
    for (index_t key = 0; key < block.keys; ++key) {
      const std::uint64_t word = mask.seen_by(block, key);
      for (index_t row = block.row_first(); row < block.row_last(); ++row)
        ASSERT_EQ(bit(word, row - block.row_first()), truth(block.batch, block.head_first, row, key))
            << "word of key " << key << ", row " << row;
    }
  }

  for (index_t key = 0; key < block.keys; ++key) {
    const span run = mask.run(block, key);  // the mask's own, not yet bounded by mask_run
    ASSERT_EQ(run.begin, key);
    ASSERT_GT(run.end, key);
    ASSERT_LE(run.end, block.keys);
    for (index_t k = run.begin; k < run.end; ++k) {
      const coverage is = exact[static_cast<std::size_t>(k)];
      if (run.visible != coverage::some) {
        ASSERT_EQ(run.visible, is) << "run from " << key << ", key " << k;
      } else {
        if (promised != exactness::correct) {
          ASSERT_NE(is, coverage::none) << "run from " << key << ", key " << k;
        }
        if (promised == exactness::full) {
          ASSERT_EQ(is, coverage::some) << "run from " << key << ", key " << k;
        }
      }
    }
  }

  index_t at = 0;
  coverage before = coverage::none;
  const auto expect_hidden = [&](index_t end) {
    for (; at < end; ++at)
      ASSERT_EQ(exact[static_cast<std::size_t>(at)], coverage::none) << "between spans, key " << at;
  };
  for (const span& s : spans(mask, block)) {
    ASSERT_NE(s.visible, coverage::none);
    ASSERT_LT(s.begin, s.end);
    ASSERT_GE(s.begin, at);
    ASSERT_LE(s.end, block.keys);
    if (s.begin == at && at > 0) {
      ASSERT_NE(s.visible, before) << "spans that touch have the same coverage";
    }
    expect_hidden(s.begin);
    for (at = s.begin; at < s.end; ++at) {
      const coverage is = exact[static_cast<std::size_t>(at)];
      if (s.visible == coverage::all) {
        ASSERT_EQ(is, coverage::all) << "key " << at;
      }
      if (promised != exactness::correct) {
        ASSERT_NE(is, coverage::none) << "key " << at;
      }
      if (promised == exactness::full) {
        ASSERT_EQ(is, s.visible) << "key " << at;
      }
    }
    before = s.visible;
  }
  expect_hidden(block.keys);
}

inline void expect_mask(const erased_mask& mask, const truth_table& truth, const mask_shape& shape, exactness promised,
                        std::mt19937& random) {
  const index_t shift = shape.keys - shape.queries;
  for (index_t b = 0; b < shape.batches; ++b) {
    for (index_t h = 0; h < shape.heads; ++h) {
      for (index_t row = 0; row < shape.queries; ++row) {
        for (index_t key = 0; key < shape.keys; ++key) {
          const bool answer = mask_at(mask, index{b, h, row + shift, key, shape.queries, shape.keys});
          ASSERT_EQ(answer, truth(b, h, row, key))
              << "batch " << b << " head " << h << " row " << row << " key " << key;
        }
      }
    }
  }
  if (shape.heads > 0 && shape.queries <= 40) {
    expect_lanes<float>(mask, truth, shape);
    expect_lanes<double>(mask, truth, shape);
  }
  if (::testing::Test::HasFatalFailure()) return;
  if (shape.batches == 0 || shape.heads == 0 || shape.queries == 0) return;

  const auto try_block = [&](index_t b, index_t h0, index_t h1, index_t row0, index_t row1) {
    expect_runs(mask, truth, query_block{b, h0, h1, row0 + shift, row1 + shift, shape.queries, shape.keys}, promised);
  };
  if (shape.queries <= 6) {  // every block of one head, and of all heads
    for (index_t b = 0; b < shape.batches; ++b) {
      for (index_t row0 = 0; row0 < shape.queries; ++row0) {
        for (index_t row1 = row0 + 1; row1 <= shape.queries; ++row1) {
          for (index_t h = 0; h < shape.heads; ++h) try_block(b, h, h + 1, row0, row1);
          try_block(b, 0, shape.heads, row0, row1);
          if (::testing::Test::HasFatalFailure()) return;
        }
      }
    }
  }
  const auto draw = [&](index_t low, index_t high) {
    return std::uniform_int_distribution<index_t>(low, high)(random);
  };
  for (int i = 0; i < 12; ++i) {
    const index_t h = draw(0, shape.heads - 1), row = draw(0, shape.queries - 1);
    try_block(draw(0, shape.batches - 1), h, draw(h + 1, shape.heads), row, draw(row + 1, shape.queries));
    if (::testing::Test::HasFatalFailure()) return;
  }
}

/// Everything about a mask at one shape. `plain` is the formula, written for a plain index and independently of the mask.
template <class Mask, class Plain>
void expect_mask(const Mask& mask, const Plain& plain, const mask_shape& shape, exactness promised,
                 std::mt19937& random) {
  SCOPED_TRACE(text_of(shape));
  mask_check(mask, shape.batches, shape.heads, shape.queries, shape.keys);
  expect_mask(erased_mask(mask), truth_table(plain, shape), shape, promised, random);
}

/// Every small shape, random ones up to 40, and a few large: T < S, T = S and T > S. make(shape) gives {mask, plain formula}
/// through a call of f(mask, plain).
template <class Make>
void sweep_shapes(exactness promised, const Make& make, index_t batches = 1, index_t heads = 1) {
  std::mt19937 random(20240611);
  const auto at = [&](index_t queries, index_t keys) {
    const mask_shape shape{batches, heads, queries, keys};
    make(shape, random,
         [&](const auto& mask, const auto& plain) { expect_mask(mask, plain, shape, promised, random); });
    return ::testing::Test::HasFailure();
  };
#ifdef TOKENMIX_REDUCED_SWEEP
  constexpr index_t smallest = 4, trials = 6;
#else
  constexpr index_t smallest = 6, trials = 30;
#endif
  for (index_t queries = 0; queries <= smallest; ++queries) {
    for (index_t keys = 0; keys <= smallest; ++keys) {
      if (at(queries, keys)) return;
    }
  }
  std::uniform_int_distribution<index_t> extent(1, 40);
  for (index_t i = 0; i < trials; ++i) {
    const index_t a = extent(random), b = extent(random);
    if (at(a, i % 3 == 0 ? a : b)) return;
  }
  for (const auto& [queries, keys] : {std::pair<index_t, index_t>{1, 300}, {130, 200}, {150, 70}, {129, 129}}) {
    if (at(queries, keys)) return;
  }
}

}  // namespace tokenmix::testing
