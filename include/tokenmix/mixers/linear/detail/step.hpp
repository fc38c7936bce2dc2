// SPDX-License-Identifier: Apache-2.0
/// @file One token: the state goes by once, from where it was to where it shall be.
#pragma once

#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/mixers/linear/detail/token_work.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A panel of a state in anybody's memory: rows `stride` apart, of which `channels` may be touched.
template <class T>
struct state_panel {
  T* data = nullptr;
  index_t stride = 0;
};

/// Rows of a state that are passed over before the next panel's: the panels side by side are met as they lie in memory.
inline constexpr index_t rows_per_pass = 32;

/// to[d] = keep from[d] + sum over j of keys[j][d] values[j], and read += query' from (before) or query' to (decayed), in one
/// pass. The number of writes is `Writes`, or `writes` if that is 0.
template <class T, index_t Vectors, factor Keep, reads Reads, index_t Writes>
TOKENMIX_NOINLINE void pass_state(const T* from, index_t from_stride, T* to, index_t to_stride, index_t rows,
                                  index_t channels, const T* keys, index_t key_stride, index_t writes,
                                  const T* TOKENMIX_RESTRICT values, row_factors<T, Keep> keep, const T* query,
                                  T* TOKENMIX_RESTRICT read) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum[static_cast<std::size_t>(Vectors)];
  constexpr index_t held = Writes == 0 ? 1 : Writes;  // rows of values in registers
  simd::batch<T> value[static_cast<std::size_t>(held)][static_cast<std::size_t>(Vectors)];
  simd::batch<T> kept[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    if constexpr (Reads != reads::nothing) sum[v] = simd::load(read + v * L);
    simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { value[j][v] = simd::load(values + j * W + v * L); });
    if constexpr (Keep == factor::lanes) kept[v] = keep.template at<Vectors>(0, v);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      simd::batch<T> key[static_cast<std::size_t>(held)];
      simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { key[j] = simd::batch<T>(keys[j * key_stride + d]); });
      simd::batch<T> q, kept_row;
      if constexpr (Reads != reads::nothing) q = simd::batch<T>(query[d]);
      if constexpr (Keep == factor::number) kept_row = keep.template at<Vectors>(d, 0);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        constexpr bool all = std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors;
        simd::batch<T> s;
        if constexpr (all) {
          s = simd::in_register(simd::load(from + v * L));
        } else {
          s = simd::load_n(from + v * L, last);
        }
        if constexpr (Reads == reads::before) sum[v] = simd::fma(q, s, sum[v]);
        if constexpr (Keep == factor::number) s = s * kept_row;
        if constexpr (Keep == factor::lanes) s = s * kept[v];
        simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { s = simd::fma(key[j], value[j][v], s); });
        if constexpr (Writes == 0) {
          for (index_t j = 1; j < writes; ++j)
            s = simd::fma(simd::batch<T>(keys[j * key_stride + d]), simd::load(values + j * W + v * L), s);
        }
        if constexpr (Reads == reads::decayed) sum[v] = simd::fma(q, s, sum[v]);
        if constexpr (all) {
          simd::store(to + v * L, s);
        } else {
          simd::store_n(to + v * L, s, last);
        }
      });
      from += from_stride;
      to += to_stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  if constexpr (Reads != reads::nothing) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(read + v * L, sum[v]); });
  }
}

/// first += a' from, second += b' from, in one pass.
template <class T, index_t Vectors>
TOKENMIX_NOINLINE void read_twice(const T* from, index_t from_stride, index_t rows, index_t channels, const T* a,
                                  const T* b, T* TOKENMIX_RESTRICT first, T* TOKENMIX_RESTRICT second) {
  constexpr index_t L = simd::lanes<T>;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum_a[static_cast<std::size_t>(Vectors)];
  simd::batch<T> sum_b[static_cast<std::size_t>(Vectors)];
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    sum_a[v] = simd::load(first + v * L);
    sum_b[v] = simd::load(second + v * L);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      const simd::batch<T> of_a(a[d]);
      const simd::batch<T> of_b(b[d]);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        simd::batch<T> s;
        if constexpr (std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors) {
          s = simd::in_register(simd::load(from + v * L));
        } else {
          s = simd::load_n(from + v * L, last);
        }
        sum_a[v] = simd::fma(of_a, s, sum_a[v]);
        sum_b[v] = simd::fma(of_b, s, sum_b[v]);
      });
      from += from_stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
    simd::store(first + v * L, sum_a[v]);
    simd::store(second + v * L, sum_b[v]);
  });
}

/// reads (rows, width) = or += keys (rows, D) from.
template <class T, index_t Vectors>
void read_panel(const T* keys, index_t key_stride, index_t rows, const T* from, index_t from_stride, index_t state_rows,
                index_t channels, T* reads, bool accumulate) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  if (channels == W) {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, accumulate);
  } else {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, accumulate,
                                   channels - (Vectors - 1) * L);
  }
}

/// One panel of a head that takes a step.
template <class T>
struct step_panel {
  index_t vectors;
  index_t channel;
  index_t width;
  state_panel<const T> from;  ///< null: zero
  state_panel<T> to;          ///< null: not wanted; may be `from`
  panel_rows<T> rows;
  T* written;  // (x and w, most width) values as they enter the state
  T* reads;    // (w, most width)
  T* outputs;  // (query heads, most width)
};

/// One token and all panels that a task has of one head.
template <class Rule, class O>
class token_step {
 public:
  using T = typename Rule::T;

  explicit token_step(Rule& rule) : rule_(rule) {}

  /// `panels` have their first five fields.
  void run(const chunk<T>& c, const output_rows<O>& out, index_t first_head, step_panel<T>* panels, index_t count,
           bool keys, bool queries) {
    scratch_frame frame;
    D_ = rule_.features();
    for (index_t p = 0; p < count; ++p) prepare(c, panels[p], keys, frame);
    // A state that is read before it forgets is not read as it is written.
    const bool forgets_later = Rule::reads_before && keys && c.forget != reset::none;
    const bool one_pass = !forgets_later && (!Rule::solves || reads_after) && keys && queries && c.query_heads == 1 &&
                          panels[0].to.data != nullptr;
    const bool read_together = Rule::solves && !reads_after && c.query_heads == 1 && c.writes == 1;
    if (read_together) {
      each_block(panels, count, [&](auto vectors, const step_panel<T>& p, index_t d, index_t rows) {
        read_twice<T, vectors>(p.from.data + d * p.from.stride, p.from.stride, rows, p.width, c.read_keys + d,
                               c.queries + d, p.reads, p.outputs);
      });
    }
    for (index_t i = 0; i < count; ++i) {
      simd::with_tile_vectors(panels[i].vectors,
                              [&](auto vectors) { read<vectors>(c, panels[i], read_together, one_pass); });
    }
    if (one_pass) pass<reads_after ? reads::decayed : reads::before>(c, panels, count);
    if (!one_pass && reads_after) {
      pass<reads::nothing>(c, panels, count);
      for (index_t i = 0; i < count; ++i) {
        simd::with_tile_vectors(panels[i].vectors, [&](auto vectors) {
          read_outputs<vectors>(c, panels[i], {panels[i].to.data, panels[i].to.stride});
        });
      }
    }
    for (index_t i = 0; queries && i < count; ++i) {
      simd::with_tile_vectors(panels[i].vectors, [&](auto vectors) { finish<vectors>(c, out, first_head, panels[i]); });
    }
    for (index_t i = 0; forgets_later && i < count; ++i) forget(c, panels[i], frame);
    if (!one_pass && !reads_after && keys && count > 0 && panels[0].to.data != nullptr)
      pass<reads::nothing>(c, panels, count);
  }

 private:
  // Outputs are read from the state as it is written: it needs a place.
  static constexpr bool reads_after = Rule::by_token && !Rule::reads_before;

  void prepare(const chunk<T>& c, step_panel<T>& p, bool keys, scratch_frame& frame) {
    const index_t W = p.vectors * simd::lanes<T>;
    p.rows = take_panel_rows(rule_, 1, W, frame);
    const index_t written = c.writes + (Rule::adds ? 1 : 0);
    T* room = frame.take<T>((written + c.writes + c.query_heads) * W);
    p.written = room;
    p.reads = room + written * W;
    p.outputs = p.reads + c.writes * W;
    std::fill_n(p.reads, (c.writes + c.query_heads) * W, T(0));
    if (keys) rule_.panel(p.channel, W, p.rows);
    if (reads_after && p.to.data == nullptr) p.to = {frame.take<T>(D_ * W), W};
    if (p.from.data == nullptr) {
      T* zeros = frame.take<T>(W);
      std::fill_n(zeros, W, T(0));
      p.from = {zeros, 0};
    } else if (keys && !Rule::reads_before) {
      forget(c, p, frame);
    }
  }

  // Reads from now on what is left of the state; the caller's own stays as it is.
  void forget(const chunk<T>& c, step_panel<T>& p, scratch_frame& frame) {
    if (c.forget == reset::none) return;
    const index_t W = p.vectors * simd::lanes<T>;
    if (c.forget == reset::all) {
      T* zeros = frame.take<T>(W);
      std::fill_n(zeros, W, T(0));
      p.from = {zeros, 0};
    } else {
      T* copy = frame.take<T>(D_ * W);
      load_channels<T, T>({p.from.data, p.from.stride}, 0, D_, p.width, 0, copy, W);
      forget_state(c, p.rows, D_, W, copy);
      p.from = {copy, W};
    }
  }

  // f(vectors, panel, first row, rows) for some rows of every panel at a time.
  template <class F>
  void each_block(step_panel<T>* panels, index_t count, F&& f) {
    const index_t together = count == 1 ? std::max<index_t>(D_, 1) : rows_per_pass;
    for (index_t d = 0; d < D_; d += together) {
      for (index_t i = 0; i < count; ++i) {
        simd::with_tile_vectors(panels[i].vectors,
                                [&](auto vectors) { f(vectors, panels[i], d, std::min(together, D_ - d)); });
      }
    }
  }

  // What is read in passes of its own, and what is written.
  template <index_t V>
  void read(const chunk<T>& c, step_panel<T>& p, bool read_together, bool one_pass) {
    constexpr index_t W = V * simd::lanes<T>;
    if constexpr (Rule::solves) {
      if (!read_together) {
        read_panel<T, V>(c.read_keys, c.key_stride, c.writes, p.from.data, p.from.stride, D_, p.width, p.reads, false);
      }
      solve_writes<T, V, Rule::erase>(c.overlaps, c.overlap_stride, c.writes, p.reads, c.read_scale, {p.rows.erase},
                                      p.rows.values + (Rule::adds ? W : 0));
    }
    if constexpr (Rule::by_token) {
      for (index_t g = 0; g < c.query_heads; ++g) begin_outputs<T, V>(c, g, p.rows.values, p.outputs + g * W);
    }
    if (!read_together && !one_pass && !reads_after) read_outputs<V>(c, p, p.from);
    if (c.write_scale == nullptr) {
      p.written = p.rows.values;
    } else {
      const index_t written = c.writes + (Rule::adds ? 1 : 0);
      std::copy_n(p.rows.values, written * W, p.written);
      scale_rows<T, V, factor::number>(p.written, written, {c.write_scale});
    }
  }

  template <index_t V>
  void read_outputs(const chunk<T>& c, const step_panel<T>& p, state_panel<const T> state) {
    for (index_t g = 0; g < c.query_heads; ++g) {
      read_panel<T, V>(c.queries + g * c.query_head_stride, c.key_stride, 1, state.data, state.stride, D_, p.width,
                       p.outputs + g * V * simd::lanes<T>, true);
    }
  }

  template <index_t V>
  void finish(const chunk<T>& c, const output_rows<O>& out, index_t first_head, const step_panel<T>& p) {
    constexpr index_t W = V * simd::lanes<T>;
    for (index_t g = 0; g < c.query_heads; ++g) {
      T* o = p.outputs + g * W;
      if (c.scores != nullptr) {
        add_triangle<T, V>(c.scores + g * c.score_head_stride, c.score_stride, 1, c.writes,
                           p.rows.values + (Rule::adds ? W : 0), c.query_scale, o);
        if constexpr (Rule::adds) {
          add_triangle<T, V>(c.added_scores + g * c.score_head_stride, c.score_stride, 1, 1, p.rows.values, nullptr, o);
        }
      }
      out.write(first_head + g, c.first, 1, p.channel, p.width, o, W,
                c.row_factor == nullptr ? nullptr : c.row_factor + g * c.row_factor_stride);
    }
  }

  template <reads Reads>
  void pass(const chunk<T>& c, step_panel<T>* panels, index_t count) {
    each_block(panels, count, [&](auto vectors, const step_panel<T>& p, index_t d, index_t rows) {
      row_factors<T, Rule::keep> keep = keep_of<Rule>(c, p.rows);
      if constexpr (Rule::keep == factor::number) keep.data += d;
      pass_state<T, vectors, Rule::keep, Reads, Rule::step_writes>(
          p.from.data + d * p.from.stride, p.from.stride, p.to.data + d * p.to.stride, p.to.stride, rows, p.width,
          c.write_keys + d, c.key_stride, c.writes, p.written, keep, c.queries + d, p.outputs);
    });
  }

  Rule& rule_;
  index_t D_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
