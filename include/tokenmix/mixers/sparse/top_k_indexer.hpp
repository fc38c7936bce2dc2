// SPDX-License-Identifier: Apache-2.0
/// @file The choice of keys for every query by an indexer, whose scores are cheaper than those of the attention.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/mixers/softmax/detail/attend.hpp>
#include <tokenmix/mixers/softmax/detail/check.hpp>
#include <tokenmix/primitives/gather/running_choice.hpp>

#include <algorithm>
#include <cstddef>
#include <limits>
#include <new>
#include <type_traits>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of an indexer: scores that are cheaper than those of the attention.
template <class E>
struct indexer_inputs {
  tensor_view<const E, 4> q{};                       // (B, Hi, T, Di)
  tensor_view<const E, 3> k{};                       // (B, S, Di)
  tensor_view<const accumulator_t<E>, 3> weights{};  // (B, Hi, T)
};

/// Options of top_k_indexer.
template <class Mask = all_keys>
struct top_k_indexer_options {
  Mask mask{};  ///< who sees whom; it is asked about head 0
};

namespace detail {

/// A mask whose answer for head 0 holds for all heads.
template <class Mask>
struct mask_of_head_0 {
  using is_mask = void;
  const Mask& mask;

  template <class Index>
  TOKENMIX_ALWAYS_INLINE auto operator()(Index where) const {
    where.head = 0;
    return mask_at(mask, where);
  }
  span run(query_block block, index_t key) const {
    block.head_first = 0;
    block.head_last = 1;
    return mask_run(mask, block, key);
  }
};

/// The scores of an indexer, leaf by leaf, and the choice by them.
template <class Problem>
class indexer {
 public:
  using T = typename Problem::T;
  static constexpr index_t L = simd::lanes<T>;

  indexer(const Problem& problem, const tensor_view<const T, 3>& weights, const tensor_view<index_t, 4>& indices,
          const tensor_view<index_t, 3>& counts)
      : problem_(problem), weights_(weights), indices_(indices), counts_(counts) {}

  template <class Executor>
  void run(Executor& on) const {
    const index_t B = problem_.q.extent(0), queries = problem_.q.extent(2);
    const auto at = [&](index_t b) { return whole_sequences::at(b, queries, problem_.source.most_keys()); };
    if (few_queries<Problem>(at(0))) {
      run_tasks(on, queries == 0 ? 0 : B, [&](index_t b) { choose_few(at(b)); });
      return;
    }
    const auto cut = tile_cut<T>::of(queries, 0, 0);
    run_tasks(on, B * cut.tiles, [&](index_t task) {
      const index_t tile = cut.tiles - 1 - task % cut.tiles, first = cut.first_row(tile);
      choose_tile(at(task / cut.tiles), first, cut.first_row(tile + 1) - first);
    });
  }

 private:
  static constexpr T all_scores = std::numeric_limits<T>::quiet_NaN();

  static TOKENMIX_ALWAYS_INLINE simd::batch<T> add(const simd::batch<T>& weight, const simd::batch<T>& x,
                                                   const simd::batch<T>& sum) {
    const simd::batch<T> zero(T(0));
    return simd::fma(weight, simd::select(x < zero, zero, x), sum);
  }

  void write(const sequence& seq, index_t row, running_choice<T>& choice, index_t list) const {
    const index_t n = choice.finish(list), most = indices_.extent(3);
    counts_(seq.batch, 0, row) = n;
    if (most == 0) return;
    index_t* to = indices_.row(seq.batch, 0, row);
    std::fill(std::copy_n(choice.keys(list), n, to), to + most, index_t{0});
  }

  // Queries in the lanes.
  void choose_tile(const sequence& seq, index_t first, index_t count) const {
    scratch_frame frame;
    const index_t heads = problem_.heads(), width = (count + L - 1) / L * L;
    query_lanes<Problem> lanes(problem_, frame);
    auto* tiles = frame.take<query_tile<T>>(heads);
    T* weights = frame.take<T>(heads * width);
    T* sums = frame.take<T>(softmax_leaf_keys * width);
    std::fill_n(weights, heads * width, T(0));
    for (index_t h = 0; h < heads; ++h) {
      lanes.go_to(seq, h);
      tiles[h] = lanes.tile(first, count, frame);
      for (index_t r = 0; r < count; ++r) weights[h * width + r] = weights_(seq.batch, h, first + r);
    }
    running_choice<T> choice(count, indices_.extent(3), seq.keys, all_scores, frame);
    while (heads > 0 && tiles[0].leaf != none_left) {
      const index_t leaf = tiles[0].leaf;
      for (index_t h = 0; h < heads; ++h) {
        lanes.go_to(seq, h);
        tiles[h].leaf = leaf;
        lanes.score(tiles[h]);
        lanes.each_scored(tiles[h], [&](const key_chunk& chunk, const T* scores, const std::uint32_t* visible) {
          T* sum = sums + (chunk.key - leaf * softmax_leaf_keys) * width;
          if (h == 0) std::fill_n(sum, chunk.count * width, T(0));
          for (index_t v = 0; v < width; v += L) {
            const simd::batch<T> weight = simd::load(weights + h * width + v);
            for (index_t at = v; at < chunk.count * width; at += width) {
              simd::store(sum + at, add(weight, simd::load(scores + at), simd::load(sum + at)));
            }
          }
          if (h + 1 == heads) {
            simd::with_tile_vectors(width / L, [&](auto wide) TOKENMIX_LAMBDA_INLINE {
              choice.template take_columns<wide>(sum, chunk.count, chunk.key, visible);
            });
          }
        });
      }
      lanes.advance(tiles[0]);
    }
    for (index_t r = 0; r < count; ++r) write(seq, first + r, choice, r);
  }

  // Keys in the lanes, rows of several heads at a time. Blocks of rows may differ in the keys that they visit, but each visits all that
  // one of its queries sees.
  void choose_few(const sequence& seq) const {
    scratch_frame frame;
    const index_t blocks = few_rows::blocks(seq, problem_.group());
    auto* lanes = frame.take<key_lanes<Problem>*>(blocks);
    static_assert(std::is_trivially_destructible_v<key_lanes<Problem>>);
    for (index_t i = 0; i < blocks; ++i) {
      const few_rows rows = few_rows::at(seq, problem_.group(), i);
      lanes[i] = new (frame.take<std::byte>(sizeof(key_lanes<Problem>)))
          key_lanes<Problem>(problem_, seq, rows.key_head, rows.first, rows.count, frame);
    }
    T* sums = frame.take<T>(seq.queries * softmax_leaf_keys);
    T* largest = frame.take<T>(most_key_lane_rows);
    std::fill_n(largest, most_key_lane_rows, minus_infinity<T>);
    running_choice<T> choice(seq.queries, indices_.extent(3), seq.keys, all_scores, frame);
    const query_block all{seq.number, 0, 1, seq.first_position(), seq.keys, seq.queries, seq.keys};
    for (index_t leaf = blocks == 0 ? none_left : next_leaf(problem_.mask, all, 0); leaf != none_left;
         leaf = next_leaf(problem_.mask, all, (leaf + 1) * softmax_leaf_keys)) {
      std::fill_n(sums, seq.queries * softmax_leaf_keys, T(0));
      for (index_t i = 0; i < blocks; ++i) {
        const leaf_of_chunks chunks = lanes[i]->score(leaf, largest);
        for (index_t c = 0; c < chunks.count; ++c) {
          const key_chunk& chunk = chunks.chunks[static_cast<std::size_t>(c)];
          for (index_t r = 0; r < lanes[i]->rows(); ++r) {
            const index_t query = lanes[i]->query_row_of(r), head = lanes[i]->head_of(r);
            const T* scores = lanes[i]->scores_of(r, c);
            T* sum = sums + query * softmax_leaf_keys + chunk.key - leaf * softmax_leaf_keys;
            const simd::batch<T> weight(weights_(seq.batch, head, query));
            for (index_t j = 0; j < chunk.count; j += L) {
              const index_t n = std::min(L, chunk.count - j);
              simd::store_n(sum + j, add(weight, simd::load_n(scores + j, n), simd::load_n(sum + j, n)), n);
            }
            if (head + 1 < problem_.heads()) continue;
            const std::uint32_t* visible = chunk.visible == coverage::some ? lanes[i]->visible_of(r, c) : nullptr;
            choice.take_row(query, sum, chunk.count, chunk.key, visible);
          }
        }
      }
    }
    for (index_t t = 0; t < seq.queries; ++t) write(seq, t, choice, t);
  }

  const Problem& problem_;
  tensor_view<const T, 3> weights_;
  tensor_view<index_t, 4> indices_;
  tensor_view<index_t, 3> counts_;
};

}  // namespace detail

/// For every query the k visible keys that an indexer scores highest: one list for all heads of gathered_attention.
///
///     score[t][s] = sum over j of weights[j][t] relu(q[j][t].k[s])         ties by index, NaN last
///
/// With one head, weights of 1 and q scaled by nothing it ranks by a low-dimensional product where that is positive.
///
/// Shapes     q: (B, Hi, T, Di); k: (B, S, Di); weights: (B, Hi, T); indices: (B, 1, T, k), ascending, k <= S; counts: (B, 1, T):
///            less than k where fewer keys are visible; entries behind the counted ones are 0.
/// Aliasing   the outputs share no memory with an input.
/// Numerics   products are fma chains over ascending channels, heads are added in ascending order, in float (double for double). The
///            same bits for any executor.
/// Cost       2 Hi Di operations per visible pair, a comparison, and the lists of top_k_attention. Scratch per worker: the queries
///            of all heads and the scores of 256 keys for up to 64 queries, and their lists.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     DeepSeek-AI 2025, DeepSeek-V3.2-Exp, equation 1 (lightning indexer).
template <class E, class Mask = all_keys, executor Executor = calling_thread>
void top_k_indexer(const indexer_inputs<E>& inputs, tensor_view<index_t, 4> indices,  // (B, 1, T, k)
                   tensor_view<index_t, 3> counts,                                    // (B, 1, T)
                   const top_k_indexer_options<Mask>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  const auto& [q, k, weights] = inputs;
  detail::check_input("q", q);
  detail::check_input("k", k);
  detail::check_view("weights", weights);
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  detail::check_same_extent("k", k, 2, "q", q, 3, "channels");
  const index_t B = q.extent(0), H = q.extent(1), queries = q.extent(2), keys = k.extent(1);
  if (H == 0) detail::fail_shape("q has 0 heads: the scores of an indexer are sums over its heads");
  detail::check_shape("weights", weights, {B, H, queries}, "(B, Hi, T)");
  detail::check_output("indices", indices);
  const index_t most = indices.extent(3);
  detail::check_shape("indices", tensor_view<const index_t, 4>(indices), {B, 1, queries, most}, "(B, 1, T, k)");
  if (most > keys) detail::fail_shape("indices has room for ", most, " keys, k has ", keys, ": k is at most S");
  detail::check_view("counts", tensor_view<const index_t, 3>(counts));
  detail::check_shape("counts", tensor_view<const index_t, 3>(counts), {B, 1, queries}, "(B, 1, T)");
  detail::check_writable_strides("counts", tensor_view<const index_t, 3>(counts));
  detail::check_overlap("counts", counts, "indices", indices);
  mask_check(options.mask, B, 1, queries, keys);

  const tensor_view<const E, 4> one_head(k.data(), {B, 1, keys, k.extent(2)},
                                         {k.stride(0), k.stride(0), k.stride(1), k.stride(2)});
  const key_value_views<E> source{{one_head, one_head, {}, {}}};
  const detail::mask_of_head_0<Mask> mask{options.mask};
  const plain_score score{};
  const no_rotary rotary{};
  using problem_type =
      detail::score_problem<T, E, key_value_views<E>, detail::mask_of_head_0<Mask>, plain_score, no_rotary>;
  const problem_type problem{q, source, mask, score, rotary, T(1)};
  detail::indexer<problem_type>(problem, weights, indices, counts).run(on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
