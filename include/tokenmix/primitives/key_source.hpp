// SPDX-License-Identifier: Apache-2.0
/// @file Where keys and values come from: runs of rows, found by sequence, head and position.
#pragma once

#include <tokenmix/core/scratch.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/primitives/sequences.hpp>
#include <tokenmix/simd/convert.hpp>
#include <tokenmix/simd/prefetch.hpp>

#include <algorithm>
#include <concepts>

namespace tokenmix::inline TOKENMIX_ABI {

/// `count` rows of stored elements, `stride` elements apart, channels contiguous.
template <class E>
struct row_run {
  const E* data = nullptr;
  index_t stride = 0;
  index_t count = 0;
};

/// Keys and values by position: the tiles read through this and through nothing else.
///
///     source.keys(seq, head, position)    the run of key rows from `position` on (at least one row)
///     source.values(seq, head, position)  the run of value rows
///
/// heads() is Hk, key_width() is D, value_width() is Dv; batches() and most_keys() bound what sequences may ask for, and
/// extra_keys() is how many keys each sequence has before its own.
template <class S>
concept key_source = requires(const S& s, const sequence& seq, index_t i) {
  typename S::stored_type;
  { s.keys(seq, i, i) } -> std::same_as<row_run<typename S::stored_type>>;
  { s.values(seq, i, i) } -> std::same_as<row_run<typename S::stored_type>>;
  { s.heads() } -> std::convertible_to<index_t>;
  { s.batches() } -> std::convertible_to<index_t>;
  { s.most_keys() } -> std::convertible_to<index_t>;
  { s.extra_keys() } -> std::convertible_to<index_t>;
  { s.key_width() } -> std::convertible_to<index_t>;
  { s.value_width() } -> std::convertible_to<index_t>;
};

/// The tensors that a source reads, and their extents; in which order it hands out their rows is up to the source.
///
/// P extra keys (a prefix, memory slots) may stand before all others, at positions 0 to P - 1. The extra views may have one
/// batch element for all sequences.
template <class E>
struct key_value_tensors {
  using stored_type = E;

  tensor_view<const E, 4> k{};        // (B, Hk, S, D)
  tensor_view<const E, 4> v{};        // (B, Hk, S, Dv)
  tensor_view<const E, 4> extra_k{};  // (B|1, Hk, P, D)
  tensor_view<const E, 4> extra_v{};  // (B|1, Hk, P, Dv)

  constexpr index_t batches() const { return k.extent(0); }
  constexpr index_t heads() const { return k.extent(1); }
  constexpr index_t most_keys() const { return k.extent(2); }
  constexpr index_t extra_keys() const { return extra_k.extent(2); }
  constexpr index_t key_width() const { return k.extent(3); }
  constexpr index_t value_width() const { return v.extent(3); }

 protected:
  /// The run of extra rows from a position on, position < P.
  static constexpr row_run<E> extra_run(const tensor_view<const E, 4>& extra, const sequence& seq, index_t head,
                                        index_t position) {
    return {extra.row(extra.extent(0) == 1 ? 0 : seq.batch, head, position), extra.stride(2),
            extra.extent(2) - position};
  }
};

/// Keys and values in views, the rows of a sequence one after the other.
template <class E>
struct key_value_views : key_value_tensors<E> {
  using key_value_tensors<E>::k;
  using key_value_tensors<E>::v;
  using key_value_tensors<E>::extra_k;
  using key_value_tensors<E>::extra_v;

  constexpr row_run<E> keys(const sequence& seq, index_t head, index_t position) const {
    return run(k, extra_k, seq, head, position);
  }
  constexpr row_run<E> values(const sequence& seq, index_t head, index_t position) const {
    return run(v, extra_v, seq, head, position);
  }
  /// What is going to be asked for, as a hint.
  constexpr row_run<E> keys_ahead(const sequence& seq, index_t head, index_t position) const {
    return keys(seq, head, position);
  }
  constexpr row_run<E> values_ahead(const sequence& seq, index_t head, index_t position) const {
    return values(seq, head, position);
  }

 private:
  static constexpr row_run<E> run(const tensor_view<const E, 4>& own, const tensor_view<const E, 4>& extra,
                                  const sequence& seq, index_t head, index_t position) {
    const index_t before = extra.extent(2);
    if (position < before) return key_value_tensors<E>::extra_run(extra, seq, head, position);
    return {own.row(seq.batch, head, seq.key_row + position - before), own.stride(2), seq.keys - position};
  }
};

namespace detail {

/// The same source may be asked for what comes next, to be read later or never: keys_ahead(seq, head, position) and
/// values_ahead are runs as keys() and values() give them, empty where there are none. Sources without them get no hints.
template <class Source>
TOKENMIX_ALWAYS_INLINE auto keys_ahead(const Source& source, const sequence& seq, index_t head, index_t position,
                                       index_t count) {
  row_run<typename Source::stored_type> run;
  if constexpr (requires { source.keys_ahead(seq, head, position); }) {
    if (position < seq.keys) run = source.keys_ahead(seq, head, position);
  }
  run.count = std::min(run.count, count);
  return run;
}
template <class Source>
TOKENMIX_ALWAYS_INLINE auto values_ahead(const Source& source, const sequence& seq, index_t head, index_t position,
                                         index_t count) {
  row_run<typename Source::stored_type> run;
  if constexpr (requires { source.values_ahead(seq, head, position); }) {
    if (position < seq.keys) run = source.values_ahead(seq, head, position);
  }
  run.count = std::min(run.count, count);
  return run;
}

/// `count` rows as the kernel reads them: in place where they lie in one run of the computing type, else copied and widened.
///
/// run_at(position) is the run from a position on; `room` holds count * width elements.
template <class T, class RunAt>
TOKENMIX_ALWAYS_INLINE row_run<T> rows_of(RunAt&& run_at, index_t position, index_t count, index_t width, T* room) {
  auto run = run_at(position);
  using E = std::remove_cvref_t<decltype(*run.data)>;
  if constexpr (std::is_same_v<E, T>) {
    if (run.count >= count) return {run.data, run.stride, count};
  }
  for (index_t done = 0; done < count;) {
    const index_t n = std::min(run.count, count - done);
    for (index_t i = 0; i < n; ++i) simd::convert_row(run.data + i * run.stride, room + (done + i) * width, width);
    done += n;
    if (done < count) run = run_at(position + done);
  }
  return {room, width, count};
}

/// Rows that a kernel reads one by one: those of a run or, if there is a table, wherever it says.
template <class T>
struct placed_rows {
  row_run<T> run;
  const T* const* table = nullptr;  // (count)

  TOKENMIX_ALWAYS_INLINE const T* operator[](index_t i) const {
    return table != nullptr ? table[i] : run.data + i * run.stride;
  }
};

/// `count` rows: where they lie if they are of the computing type, else copied to `room` and widened, as rows_of does. `table`
/// has room for `count` rows.
template <class T, class RunAt>
TOKENMIX_ALWAYS_INLINE placed_rows<T> placed_rows_of(RunAt&& run_at, index_t position, index_t count, index_t width,
                                                     T* room, const T** table) {
  auto run = run_at(position);
  if constexpr (!std::is_same_v<std::remove_cvref_t<decltype(*run.data)>, T>) {
    return {rows_of(run_at, position, count, width, room), nullptr};
  } else {
    if (run.count >= count) return {{run.data, run.stride, count}, nullptr};
    for (index_t done = 0; done < count;) {
      const index_t n = std::min(run.count, count - done);
      for (index_t i = 0; i < n; ++i) {
        table[done + i] = run.data + i * run.stride;
        simd::prefetch_row(table[done + i], width);
      }
      done += n;
      if (done < count) run = run_at(position + done);
    }
    return {{}, table};
  }
}

}  // namespace detail

}  // namespace tokenmix::inline TOKENMIX_ABI
