// SPDX-License-Identifier: Apache-2.0
/// @file What is done with tiles of queries: attend leaf by leaf, or take the sums first and weigh in a second pass.
#pragma once

#include <tokenmix/mixers/softmax/detail/finish.hpp>
#include <tokenmix/mixers/softmax/detail/plan.hpp>
#include <tokenmix/mixers/softmax/detail/query_lanes.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The tiles of one group, all of one head.
template <class T>
struct tile_group {
  query_tile<T>* tiles;
  index_t count;

  query_tile<T>* begin() const { return tiles; }
  query_tile<T>* end() const { return tiles + count; }
};

template <class Problem>
tile_group<typename Problem::T> load_group(const query_lanes<Problem>& lanes, const tile_cut<typename Problem::T>& cut,
                                           index_t group, scratch_frame& frame) {
  using T = typename Problem::T;
  const index_t first = cut.first_tile(group);
  const index_t count = cut.first_tile(group + 1) - first;
  query_tile<T>* tiles = frame.take<query_tile<T>>(count);
  for (index_t i = 0; i < count; ++i) {
    const index_t row = cut.first_row(first + i);
    tiles[i] = lanes.tile(row, cut.first_row(first + i + 1) - row, frame);
  }
  return {tiles, count};
}

/// Goes over the leaves in ascending order; on each, over the tiles that see something of it: visit(tile) after it was scored.
template <class Problem, class Visit>
void for_each_leaf(query_lanes<Problem>& lanes, tile_group<typename Problem::T>& group, Visit&& visit) {
  while (true) {
    index_t leaf = none_left;
    for (const auto& t : group) {
      if (t.leaf != none_left && (leaf == none_left || t.leaf < leaf)) leaf = t.leaf;
    }
    if (leaf == none_left) return;
    for (auto& t : group) {
      if (t.leaf != leaf) continue;
      lanes.score(t);
      if (!lanes.sees_nothing()) visit(t);
      lanes.advance(t);
    }
  }
}

/// Gives every tile of a group its tree of states (m, l, acc (channels, width)).
template <class Problem>
void plant_trees(const query_lanes<Problem>& lanes, tile_group<typename Problem::T>& group, index_t channels,
                 scratch_frame& frame) {
  using T = typename Problem::T;
  for (auto& t : group) {
    const index_t state = (channels + 2) * t.width;
    t.tree = leaf_tree<T>(lanes.last_leaf(), state, frame);
  }
}

/// The merged state of a tile; an empty one if the tile saw nothing.
template <class T, class Merge>
T* root_state(query_tile<T>& t, index_t channels, Merge&& merge) {
  if (T* state = t.tree.root(merge); state != nullptr) return state;
  T* state = t.tree.push(0, merge);
  std::fill(state, state + t.width, minus_infinity<T>);
  std::fill(state + t.width, state + (channels + 2) * t.width, T(0));
  return state;
}

/// One pass of softmax attention over a group: `finish(tile, m, l, acc)` gets the merged state of every tile. With channels = 0
/// no values are read and only m and l are computed.
template <class Problem, class Finish>
void softmax_pass(query_lanes<Problem>& lanes, tile_group<typename Problem::T>& group, index_t channels,
                  scratch_frame& frame, Finish&& finish) {
  using T = typename Problem::T;
  plant_trees(lanes, group, channels, frame);
  const auto merge_of = [&](index_t width) {
    return [width, channels](T* left, const T* right) { merge_columns(left, right, width, channels); };
  };
  for_each_leaf(lanes, group, [&](query_tile<T>& t) {
    T* m = t.tree.push(t.leaf, merge_of(t.width));
    T* l = m + t.width;
    T* acc = l + t.width;
    lanes.largest(t, m);
    std::fill(l, acc, T(0));
    bool started = false;
    lanes.weigh(
        t,
        [&](const strip& part, T* scores) {
          const index_t lane = part.vector * simd::lanes<T>;
          exponentials(scores, part.keys, part.vectors, t.width, m + lane, l + lane);
        },
        [&](index_t i, const key_chunk& chunk, const T* weights) {
          if (channels > 0) lanes.add_values(t, i, chunk, weights, acc, started);
          started = true;
        });
    if (channels > 0) lanes.mend(t, acc);
  });
  for (auto& t : group) {
    T* m = root_state(t, channels, merge_of(t.width));
    finish(t, m, m + t.width, m + 2 * t.width);
  }
}

/// The scored leaf's weights: weigh(tile, lane, register, index) where a pair is visible, else 0; use(i, chunk, weights) gets them.
template <class Problem, class Weigh, class Use>
void weights_of_leaf(query_lanes<Problem>& lanes, query_tile<typename Problem::T>& t, Weigh&& weigh, Use&& use) {
  using T = typename Problem::T;
  lanes.weigh(
      t, [](const strip&, T*) {},
      [&](index_t i, const key_chunk& chunk, T* values) {
        lanes.each_register(t, i, chunk, values,
                            [&](simd::batch<T> s, const query_lanes_index<T>& where, simd::mask<T> seen) {
                              const index_t lane = where.query.base - t.block.query_first;
                              return simd::select(seen, weigh(t, lane, s, where), simd::batch<T>(T(0)));
                            });
        lanes.clear_rest(t, i, chunk, values);
        use(i, chunk, values);
      });
}

/// One pass with weights that need no sum: weigh(register, index) of every visible pair, the values times it added up.
template <class Problem, class Weigh, class Finish>
void weighted_pass(query_lanes<Problem>& lanes, tile_group<typename Problem::T>& group, index_t channels,
                   scratch_frame& frame, Weigh&& weigh, Finish&& finish) {
  using T = typename Problem::T;
  plant_trees(lanes, group, channels, frame);
  const auto merge_of = [&](index_t width) {
    return [width, channels](T* left, const T* right) {
      add_states(left + 2 * width, right + 2 * width, channels * width);
    };
  };
  for_each_leaf(lanes, group, [&](query_tile<T>& t) {
    T* acc = t.tree.push(t.leaf, merge_of(t.width)) + 2 * t.width;
    bool started = false;
    weights_of_leaf(lanes, t, weigh, [&](index_t i, const key_chunk& chunk, const T* weights) {
      lanes.add_values(t, i, chunk, weights, acc, started);
      started = true;
    });
    lanes.mend(t, acc);
  });
  for (auto& t : group) {
    T* m = root_state(t, channels, merge_of(t.width));
    finish(t, m, m + t.width, m + 2 * t.width);
  }
}

/// What turns the scores of a group into softmax weights: exp(score - m) * factor.
template <class T>
struct row_sums {
  T* m;       // (tiles, width), 0 where nothing was seen
  T* factor;  // (tiles, width)
  index_t stride;

  TOKENMIX_ALWAYS_INLINE simd::batch<T> weight(index_t tile, index_t lane, const simd::batch<T>& score) const {
    const index_t at = tile * stride + lane;
    return simd::exp_nonpositive(score - simd::load(m + at)) * simd::load(factor + at);
  }
};

/// The first of two passes: the sums of every query. `finish(tile, m, l, reference)` writes what scores are taken
/// relative to, joins sinks and turns l into the factor. The group is left at its first leaf again.
template <class Problem, class Finish>
row_sums<typename Problem::T> take_sums(query_lanes<Problem>& lanes, tile_group<typename Problem::T>& group,
                                        scratch_frame& frame, Finish&& finish) {
  using T = typename Problem::T;
  constexpr index_t stride = query_lanes<Problem>::most_width;
  const row_sums<T> sums{frame.take<T>(group.count * stride), frame.take<T>(group.count * stride), stride};
  scratch_frame inner;
  softmax_pass(lanes, group, 0, inner, [&](query_tile<T>& t, T* m, T* l, const T* /*acc*/) {
    const index_t at = (&t - group.begin()) * stride;
    finish(t, m, l, sums.m + at);
    std::copy(l, l + t.width, sums.factor + at);
  });
  for (auto& t : group) lanes.rewind(t);
  return sums;
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
