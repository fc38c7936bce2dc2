// SPDX-License-Identifier: Apache-2.0
/// @file Causal attention in three gated branches: compressed keys, selected blocks, a window.
#pragma once

#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/sparse/detail/block_tiles.hpp>
#include <tokenmix/mixers/sparse/detail/compressed_keys.hpp>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/mask/window.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of native_sparse_attention.
template <class Q, class E>
struct native_sparse_attention_inputs {
  tensor_view<const Q, 4> q{};                    // (B, H, T, D)
  tensor_view<const E, 4> k{};                    // (B, Hk, S, D)
  tensor_view<const E, 4> v{};                    // (B, Hk, S, Dv)
  tensor_view<const E, 4> compressed_k{};         // (B, Hk, Sc, D)
  tensor_view<const E, 4> compressed_v{};         // (B, Hk, Sc, Dv)
  tensor_view<const accumulator_t<Q>, 4> gate{};  // (B, H, T, 3) of the compressed, selected and window branch
};

/// Options of native_sparse_attention.
template <class Sequences = whole_sequences>
struct native_sparse_attention_options {
  index_t block = 64;             ///< keys of a block, >= 1
  index_t blocks = 16;            ///< selected blocks, those always taken included, >= 1
  index_t first = 1;              ///< blocks at the beginning that are always selected, >= 0
  index_t local = 2;              ///< blocks up to the query's own that are always selected, >= 1
  index_t window = 512;           ///< keys of the window, the query's own included, >= 1
  std::optional<double> scale{};  ///< of q.k; 1 / sqrt(D) if not given
  std::optional<index_t>
      length{};  ///< keys that a compressed key stands for, a multiple of stride; `block` if not given
  std::optional<index_t>
      stride{};           ///< keys from one compressed key to the next, a divisor of `block`; `length` if not given
  Sequences sequences{};  ///< whole_sequences, lengths or packed
};

namespace detail {

template <class Options>
block_choice check_block_choice(const Options& options, index_t channels) {
  const auto at_least = [](const char* name, index_t value, index_t least) {
    if (value < least) fail_value("options.", name, " is ", value, ", expected ", least, " or more");
  };
  at_least("block", options.block, 1);
  at_least("blocks", options.blocks, 1);
  at_least("first", options.first, 0);
  at_least("local", options.local, 1);
  at_least("window", options.window, 1);
  if (options.first > options.blocks || options.local > options.blocks - options.first) {
    fail_value("options.blocks is ", options.blocks, ", below options.first + options.local: ", options.first, " + ",
               options.local, " are always taken");
  }
  const index_t length = options.length.value_or(options.block), stride = options.stride.value_or(length);
  at_least("length", length, 1);
  at_least("stride", stride, 1);
  if (length % stride != 0) fail_value("options.length is ", length, ", no multiple of options.stride, ", stride);
  if (options.block % stride != 0) {
    fail_value("options.block is ", options.block, ", no multiple of options.stride, ", stride);
  }
  return {options.block, options.blocks, options.first, options.local, {length, stride}, scale_of(options, channels)};
}

template <class Sequences>
inline constexpr bool is_packed = false;
template <class I>
inline constexpr bool is_packed<packed<I>> = true;

/// Where the compressed keys of a sequence lie: from row first(i) on of its batch element. Those of packed sequences stand one
/// after the other.
class compressed_rows {
 public:
  template <class Sequences>
  compressed_rows(const Sequences& sequences, index_t batches, index_t queries, index_t keys, const compression& of,
                  scratch_frame& frame)
      : first_(frame.take<index_t>(sequences.count(batches))) {
    index_t before = 0;
    for (index_t i = 0; i < sequences.count(batches); ++i) {
      first_[i] = is_packed<Sequences> ? before : 0;
      before += of.count(sequences.at(i, queries, keys).keys);
    }
    needed_ = is_packed<Sequences> ? before : of.count(keys);
  }
  index_t first(index_t i) const { return first_[i]; }
  /// Rows that a batch element must have.
  index_t needed() const { return needed_; }

 private:
  index_t* first_;
  index_t needed_ = 0;
};

/// to[d] = gates[0] a[d] + gates[1] b[d] + gates[2] c[d]
template <class T, class O>
void add_gated(const T* gates, index_t gate_stride, const T* a, const T* b, const T* c, index_t channels, O* to) {
  const simd::batch<T> first(gates[0]), second(gates[gate_stride]), third(gates[2 * gate_stride]);
  for (index_t d = 0; d < channels; d += simd::lanes<T>) {
    const index_t n = std::min(simd::lanes<T>, channels - d);
    const simd::batch<T> sum = simd::fma(second, simd::load_n(b + d, n), third * simd::load_n(c + d, n));
    simd::store_as_n(to + d, simd::fma(first, simd::load_n(a + d, n), sum), n);
  }
}

}  // namespace detail

/// Causal attention as the gated sum of three, which share q:
///
///     out[t] = gate[t][0] compressed[t] + gate[t][1] selected[t] + gate[t][2] window[t]
///     compressed: softmax attention over the compressed_k[i], compressed_v[i] that stand for keys up to t alone;
///                 i stands for keys [i stride, i stride + length)
///     selected:   over the keys up to t of `blocks` blocks: the first ones, the local ones, and then those with the largest
///                 importance; ties by index
///     window:     over the last `window` keys up to t
///     importance[j] = sum over the heads of a key head, the strides m of block j and the i that hold m of their weight of i in
///                 `compressed`
///
/// compressed_k and compressed_v come from a network of the caller's, or from segment_pool. With length = stride = block, as
/// they are if not given, a block's importance is its own weight; the paper's are 32, 16 and 64. There are no score modifiers: a
/// compressed key has no position.
///
/// Shapes     as in the inputs' comments; out: (B, H, T, Dv). Blocks are counted from key 0 of a sequence, queries from its
///            end. Sc: the compressed keys of S keys, (S - length) / stride + 1 or none; of packed sequences, those of all, one
///            sequence after the other.
/// Aliasing   out shares no element with an input.
/// Numerics   the compressed and the window branch as softmax_attention, the selected one as mixture_of_block_attention, summed
///            in float (double for double); a branch that sees nothing gives zeros. The same bits for any executor and batch
///            neighbours.
/// Cost       2 (D + Dv) operations per key of each branch and 2 D once more per compressed key; a block of selected keys is
///            read once for all rows of a panel that chose it. Scratch per worker: a panel of up to 1024 rows (or the heads of a
///            key head, if they are more) with four outputs and `blocks` indices per query; 32 rows of Sc weights.
/// Errors     shape_error and value_error as the messages say; nothing is written then.
/// Source     Yuan et al. 2025, Native sparse attention, equations 5 and 7 to 12.
template <class Q, class E, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void native_sparse_attention(const native_sparse_attention_inputs<Q, E>& inputs, tensor_view<O, 4> out,
                             const native_sparse_attention_options<Sequences>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<Q>;
  static_assert(std::is_same_v<T, accumulator_t<E>>, "q and k compute in different types");
  const auto& [q, k, v, ck, cv, gate] = inputs;
  detail::check_input("q", q);
  detail::check_keys(q, k, v, "k", "v");
  detail::check_same_extent("k", k, 0, "q", q, 0, "batch elements");
  const index_t B = q.extent(0), H = q.extent(1), queries = q.extent(2), keys = k.extent(2), Hk = k.extent(1);
  const index_t D = q.extent(3), Dv = v.extent(3);
  const detail::block_choice choice = detail::check_block_choice(options, D);
  options.sequences.check(B, queries, keys);
  detail::check_input("compressed_k", ck);
  detail::check_input("compressed_v", cv);
  scratch_frame frame;
  const detail::compressed_rows compressed(options.sequences, B, queries, keys, choice.compressed, frame);
  detail::check_shape("compressed_k", ck, {B, Hk, compressed.needed(), D}, "(B, Hk, compressed keys, D)");
  detail::check_shape("compressed_v", cv, {B, Hk, compressed.needed(), Dv}, "(B, Hk, compressed keys, Dv)");
  detail::check_view("gate", gate);
  detail::check_shape("gate", gate, {B, H, queries, 3}, "(B, H, T, 3)");
  detail::check_output("out", out);
  detail::check_shape("out", tensor_view<const O, 4>(out), {B, H, queries, Dv}, "(B, H, T, Dv)");
  const auto apart = [&](const auto&... in) { (detail::check_overlap("out", out, "an input", in), ...); };
  apart(q, k, v, ck, cv, gate);

  detail::run_panels(options.sequences, B, queries, keys, H, Hk, on, [&](const detail::query_panel& panel, index_t i) {
    const sequence& seq = panel.seq;
    const index_t group = panel.group, count = panel.count, row = seq.query_row + panel.first, h = panel.head();
    scratch_frame own;
    const auto branch = [&] { return tensor_view<T, 4>(own.take<T>(group * count * Dv), {1, group, count, Dv}); };
    const tensor_view<T, 4> weighed = branch(), selected = branch(), near = branch();
    const index_t n = choice.compressed.count(seq.keys);
    const auto compressed_keys = detail::part_of(ck, seq.batch, panel.key_head, 1, compressed.first(i), n);
    const auto compressed_values = detail::part_of(cv, seq.batch, panel.key_head, 1, compressed.first(i), n);
    {
      scratch_frame inner;
      const detail::chosen_blocks chosen = detail::choose_by_weights<T>(
          q, panel, row_run<E>{compressed_keys.data(), compressed_keys.stride(2), n}, choice, inner);
      detail::block_tiles<Q, E, plain_score> tiles(q, k, v, plain_score{}, choice.scale, panel, inner);
      tiles.attend(chosen, choice.block);
      tiles.write(detail::attention_output<T, T, T>{selected, {}, {}, false}, 0, 0, 0);
    }
    const auto part = detail::part_of(q, seq.batch, h, group, row, count);
    calling_thread alone;
    softmax_attention(part, compressed_keys, compressed_values, weighed,
                      softmax_options<detail::compressed_before>{.mask = {panel.position(0), choice.compressed},
                                                                 .scale = choice.scale},
                      alone);
    // Keys end at the last query, so that positions are as in the whole.
    const index_t end = std::max<index_t>(panel.position(count), 0);
    softmax_attention(part, detail::part_of(k, seq.batch, panel.key_head, 1, seq.key_row, end),
                      detail::part_of(v, seq.batch, panel.key_head, 1, seq.key_row, end), near,
                      softmax_options<mask_and<causal, window>>{.mask = causal{} & window{.left = options.window - 1},
                                                                .scale = choice.scale},
                      alone);
    for (index_t member = 0; member < group; ++member) {
      for (index_t r = 0; r < count; ++r) {
        detail::add_gated(&gate(seq.batch, h + member, row + r, 0), gate.stride(3), weighed.row(0, member, r),
                          selected.row(0, member, r), near.row(0, member, r), Dv,
                          out.row(seq.batch, h + member, row + r));
      }
    }
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
