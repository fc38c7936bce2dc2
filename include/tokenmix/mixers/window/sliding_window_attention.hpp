// SPDX-License-Identifier: Apache-2.0
/// @file Sliding-window attention: every token attends to the ones around it, and to a few that all attend to.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/window/detail/window_lattice.hpp>
#include <tokenmix/primitives/mask/first_keys.hpp>
#include <tokenmix/primitives/mask/window.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of sliding_window_attention, where four in a row are not enough.
template <class Q, class E, class Sink = accumulator_t<Q>>
struct sliding_window_inputs {
  tensor_view<const Q, 4> q{};         // (B, H, T, D)
  tensor_view<const E, 4> k{};         // (B, Hk, S, D)
  tensor_view<const E, 4> v{};         // (B, Hk, S, Dv)
  tensor_view<const Sink, 1> sinks{};  // (H) a logit per head that takes weight and gives no value; none if empty
  tensor_view<const Q, 4> global_q{};  // (B, H, T, D) of which the rows of global tokens are read; all three or none:
  tensor_view<const E, 4> global_k{};  // (B, Hk, S, D) for the queries of global tokens, else q, k and v
  tensor_view<const E, 4> global_v{};  // (B, Hk, S, Dv)
};

/// Options of sliding_window_attention: use with designated initialisers; the order of the fields is API.
template <class Score = plain_score, class Sequences = whole_sequences, class Lse = float>
struct sliding_window_options {
  index_t left = unlimited;  ///< keys before a query that it sees: W - 1 for a causal window of W tokens
  index_t right = 0;         ///< keys after it; 0 is a causal window
  index_t dilation = 1;      ///< positions from one key of a window to the next
  index_t first_keys = 0;    ///< keys at the start of a sequence that all queries see
  std::span<const index_t> global_tokens{};  ///< positions, ascending: seen by all queries, and seeing all keys
  Score score{};                             ///< as in softmax_options
  std::optional<double> scale{};             ///< of q.k; 1 / sqrt(D) if not given
  Sequences sequences{};                     ///< whole_sequences, lengths or packed
  tensor_view<Lse, 3> lse{};                 ///< (B, H, T), output; none if empty
};

namespace detail {

/// What a window without dilation and global tokens is as a mask.
inline auto sliding_window_mask(index_t left, index_t right, index_t first) {
  return window{.left = left, .right = right} | (first_keys{first} & window{.right = right == 0 ? 0 : unlimited});
}

}  // namespace detail

/// Sliding-window attention.
///
///     query p sees the keys s with  (p - s) % dilation == 0  and  p - left dilation <= s <= p + right dilation,
///                                   s < first_keys,  and  s in global_tokens;      each once
///     if right == 0, none with s > p;
///     the query of a global token sees all keys (those up to itself if right == 0), by global_q, global_k, global_v
///
/// first_keys are attention sinks (StreamingLLM); global_tokens with projections of their own are Longformer's. A window of
/// Longformer's w tokens to both sides is left = right = w / 2; an even window of W has left = W / 2, right = W / 2 - 1.
///
/// Shapes     q, global_q: (B, H, T, D); k, global_k: (B, Hk, S, D); v, global_v: (B, Hk, S, Dv); out: (B, H, T, Dv); any strides, last
///            axis contiguous. sinks: (H). lse: (B, H, T). Positions count in each sequence; queries are its last T.
/// Aliasing   out and lse share no element with an input; inputs may share memory.
/// Numerics   as softmax_attention. Without dilation and global tokens the bits of softmax_attention under
///            causal{} & (window{.left} | first_keys{n}), so that decoding over a cache's views gives those of the prompt.
/// Cost       2 (D + Dv) operations per visible pair, plus those of the borders: a register of L queries sees left + right + L keys.
///            With a dilation each class of tokens is a sequence of its own, whose rows are gathered. Scratch as softmax_attention.
/// Errors     shape_error and value_error as the messages say, among them global tokens that do not ascend; nothing is written then.
/// Source     Beltagy et al. 2020 (Longformer), section 3.1; Xiao et al. 2023 (StreamingLLM), section 3.2.
template <class Q, class E, class Sink, class O, class Score = plain_score, class Sequences = whole_sequences,
          class Lse = float, executor Executor = calling_thread>
void sliding_window_attention(const sliding_window_inputs<Q, E, Sink>& inputs, tensor_view<O, 4> out,
                              const sliding_window_options<Score, Sequences, Lse>& options, Executor&& on = {}) {
  using namespace detail;
  const auto& [q, k, v, sinks, global_q, global_k, global_v] = inputs;
  const auto& tokens = options.global_tokens;
  if (options.left < 0) fail_value("left is ", options.left, ", expected 0 or more keys, or tokenmix::unlimited");
  if (options.right < 0) fail_value("right is ", options.right, ", expected 0 or more keys, or tokenmix::unlimited");
  if (options.dilation < 1) fail_value("dilation is ", options.dilation, ", expected 1 or more");
  if (options.first_keys < 0) fail_value("first_keys is ", options.first_keys, ", expected 0 or more keys");
  for (std::size_t i = 0; i < tokens.size(); ++i) {
    const index_t least = i == 0 ? 0 : tokens[i - 1] + 1;
    if (tokens[i] < least)
      fail_value("global_tokens[", i, "] is ", tokens[i], ", expected ", least, " or more: positions ascend from 0");
  }
  const bool causal = options.right == 0;
  const auto straight = sliding_window_mask(options.left, options.right, options.first_keys);
  const softmax_options<std::remove_cv_t<decltype(straight)>, Score, Sequences, softmax_weights, no_edit, no_rotary,
                        Lse>
      told{.mask = straight,
           .score = options.score,
           .scale = options.scale,
           .sequences = options.sequences,
           .lse = options.lse};
  const bool own_projections = global_q.data() != nullptr || global_k.data() != nullptr || global_v.data() != nullptr;
  if (options.dilation == 1 && tokens.empty()) {
    if (own_projections) fail_value("global_q, global_k or global_v is given without global_tokens");
    softmax_attention(softmax_inputs<Q, E, Sink>{.q = q, .k = k, .v = v, .sinks = sinks}, out, told, on);
    return;
  }

  check_input("q", q);
  check_keys(q, k, v, "k", "v");
  check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  check_attention(q, k.extent(2), 0, sinks, told);
  check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, told, q, k, v);
  if constexpr (reads_query<Score>) {
    fail_value("score reads the query: that goes with neither a dilation nor global tokens");
  } else {
    if (own_projections) {
      check_input("global_q", global_q);
      check_same_shape("global_q", global_q, "q", q);
      check_keys(q, global_k, global_v, "global_k", "global_v");
      check_same_shape("global_k", global_k, "k", k);
      check_same_shape("global_v", global_v, "v", v);
      check_attention_output(out, {q.extent(0), q.extent(1), q.extent(2), v.extent(3)}, told, global_q, global_k,
                             global_v);
    }
    scratch_frame frame;
    const index_t most = std::min(options.first_keys, k.extent(2));
    auto* const seen = frame.take<index_t>(most + static_cast<index_t>(tokens.size()));
    for (index_t i = 0; i < most; ++i) seen[i] = i;
    const auto* const end = std::copy(std::lower_bound(tokens.begin(), tokens.end(), most), tokens.end(), seen + most);

    const auto attend_with = [&](const auto& rows, const auto& source, const auto& mask, const auto& score,
                                 const auto& sequences) {
      const softmax_options<std::remove_cvref_t<decltype(mask)>, std::remove_cvref_t<decltype(score)>,
                            std::remove_cvref_t<decltype(sequences)>, softmax_weights, no_edit, no_rotary, Lse>
          how{.mask = mask, .score = score, .scale = options.scale, .sequences = sequences, .lse = options.lse};
      attend(rows, source, how, attention_output<O, Lse, Sink>{out, options.lse, sinks, false}, on);
    };
    constexpr bool plain = std::is_same_v<Score, plain_score>;
    const window_lattice lattice(options.sequences, q.extent(0), q.extent(2), k.extent(2), options.dilation,
                                 std::span<const index_t>(seen, end), frame);
    const window_lattice_source<E> near{{k, v, {}, {}}, lattice};
    const window_lattice_mask sight{lattice, std::min(options.left, unlimited), std::min(options.right, unlimited)};
    if constexpr (plain) {
      attend_with(q, near, sight, plain_score{}, lattice);
    } else {
      attend_with(q, near, sight, window_lattice_score<Score>{options.score, lattice}, lattice);
    }
    if (tokens.empty()) return;
    const global_queries<Sequences> far{options.sequences, q.extent(0), q.extent(2), k.extent(2), tokens};
    const global_query_source<E, Sequences> all{
        {{own_projections ? global_k : k, own_projections ? global_v : v, {}, {}}}, far};
    const global_query_mask<Sequences> sight_of_all{far, causal};
    const auto& rows = own_projections ? global_q : q;
    if constexpr (plain) {
      attend_with(rows, all, sight_of_all, plain_score{}, far);
    } else {
      attend_with(rows, all, sight_of_all, global_query_score<Score, Sequences>{options.score, far}, far);
    }
  }
}

/// The same with the usual four tensors.
template <class Q, class E, class O, class Score = plain_score, class Sequences = whole_sequences, class Lse = float,
          executor Executor = calling_thread>
void sliding_window_attention(tensor_view<const Q, 4> q,  // (B, H, T, D)
                              tensor_view<const E, 4> k,  // (B, Hk, S, D)
                              tensor_view<const E, 4> v,  // (B, Hk, S, Dv)
                              tensor_view<O, 4> out,      // (B, H, T, Dv)
                              const sliding_window_options<Score, Sequences, Lse>& options, Executor&& on = {}) {
  sliding_window_attention(sliding_window_inputs<Q, E>{.q = q, .k = k, .v = v}, out, options, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
