// SPDX-License-Identifier: Apache-2.0
/// @file One token: the state goes by once, from where it was to where it shall be.
#pragma once

#include <tokenmix/mixers/linear/detail/load.hpp>
#include <tokenmix/mixers/linear/detail/panel_work.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// A panel of a state in anybody's memory: rows `stride` apart, of which `channels` may be touched.
template <class T>
struct state_panel {
  T* data = nullptr;
  index_t stride = 0;
};

/// Rows of a state that are passed over before the next panel's: the panels side by side are met as they lie in memory.
inline constexpr index_t rows_per_pass = 32;

/// to[d] = keep from[d] + sum over j of keys[j][d] values[j], and read += query' from if `Reads`, in one pass. The number of
/// writes is `Writes`, or `writes` if that is 0.
template <class T, index_t Vectors, factor Keep, bool Reads, index_t Writes>
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
    if constexpr (Reads) sum[v] = simd::load(read + v * L);
    simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { value[j][v] = simd::load(values + j * W + v * L); });
    if constexpr (Keep == factor::lanes) kept[v] = keep.template at<Vectors>(0, v);
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      simd::batch<T> key[static_cast<std::size_t>(held)];
      simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { key[j] = simd::batch<T>(keys[j * key_stride + d]); });
      simd::batch<T> q, kept_row;
      if constexpr (Reads) q = simd::batch<T>(query[d]);
      if constexpr (Keep == factor::number) kept_row = keep.template at<Vectors>(d, 0);
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        constexpr bool all = std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors;
        simd::batch<T> s;
        if constexpr (all) {
          s = simd::in_register(simd::load(from + v * L));
        } else {
          s = simd::load_n(from + v * L, last);
        }
        if constexpr (Reads) sum[v] = simd::fma(q, s, sum[v]);
        if constexpr (Keep == factor::number) s = s * kept_row;
        if constexpr (Keep == factor::lanes) s = s * kept[v];
        simd::unroll<held>([&](auto j) TOKENMIX_LAMBDA_INLINE { s = simd::fma(key[j], value[j][v], s); });
        if constexpr (Writes == 0) {
          for (index_t j = 1; j < writes; ++j)
            s = simd::fma(simd::batch<T>(keys[j * key_stride + d]), simd::load(values + j * W + v * L), s);
        }
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
  if constexpr (Reads) {
    simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { simd::store(read + v * L, sum[v]); });
  }
}

/// reads[i] += keys[i]' from, in one pass.
template <class T, index_t Vectors, index_t Reads>
TOKENMIX_NOINLINE void read_rows(const T* from, index_t from_stride, index_t rows, index_t channels,
                                 const T* const (&keys)[static_cast<std::size_t>(Reads)], T* TOKENMIX_RESTRICT reads) {
  constexpr index_t L = simd::lanes<T>;
  const index_t last = channels - (Vectors - 1) * L;
  simd::batch<T> sum[static_cast<std::size_t>(Reads)][static_cast<std::size_t>(Vectors)];
  const T* key[static_cast<std::size_t>(Reads)];
  simd::unroll<Reads>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    key[i] = keys[i];
    simd::unroll<Vectors>([&](auto v)
                              TOKENMIX_LAMBDA_INLINE { sum[i][v] = simd::load(reads + (i * Vectors + v) * L); });
  });
  const auto pass = [&](auto whole) TOKENMIX_LAMBDA_INLINE {
    for (index_t d = 0; d < rows; ++d) {
      simd::batch<T> s[static_cast<std::size_t>(Vectors)];
      simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE {
        if constexpr (std::remove_reference_t<decltype(whole)>::value || v + 1 < Vectors) {
          s[v] = simd::in_register(simd::load(from + v * L));
        } else {
          s[v] = simd::load_n(from + v * L, last);
        }
      });
      simd::unroll<Reads>([&](auto i) TOKENMIX_LAMBDA_INLINE {
        const simd::batch<T> x(key[i][d]);
        simd::unroll<Vectors>([&](auto v) TOKENMIX_LAMBDA_INLINE { sum[i][v] = simd::fma(x, s[v], sum[i][v]); });
      });
      from += from_stride;
    }
  };
  if (last == L) {
    pass(std::true_type{});
  } else {
    pass(std::false_type{});
  }
  simd::unroll<Reads>([&](auto i) TOKENMIX_LAMBDA_INLINE {
    simd::unroll<Vectors>([&](auto v)
                              TOKENMIX_LAMBDA_INLINE { simd::store(reads + (i * Vectors + v) * L, sum[i][v]); });
  });
}

/// reads (rows, width) = keys (rows, D) from.
template <class T, index_t Vectors>
void read_panel(const T* keys, index_t key_stride, index_t rows, const T* from, index_t from_stride, index_t state_rows,
                index_t channels, T* reads) {
  constexpr index_t L = simd::lanes<T>;
  constexpr index_t W = Vectors * L;
  if (channels == W) {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, false);
  } else {
    simd::tile_product<T, Vectors>({keys, key_stride, 1}, rows, from, from_stride, state_rows, reads, W, false,
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
  T* reads;    // (w, width)
  T* outputs;  // (query heads, width), right behind
};

/// One token and all panels that a task has of one head.
template <class Rule, class O>
class token_step {
 public:
  using T = typename Rule::T;

  explicit token_step(Rule& rule) : rule_(rule) {}

  /// `panels` have their first five fields.
  void run(const chunk<T>& c, const output_rows<O>& out, index_t first_head, step_panel<T>* panels, index_t count) {
    scratch_frame frame;
    D_ = rule_.features();
    for (index_t p = 0; p < count; ++p) prepare(c, panels[p], frame);
    // A state that is read before it forgets is not read as it is written.
    const bool forgets_later = Rule::reads_before && c.forget != reset::none;
    const bool one_pass = !forgets_later && !Rule::solves && c.query_heads == 1 && panels[0].to.data != nullptr;
    const bool read_together = Rule::solves && c.query_heads == 1 && read_at_once(c, panels, count);
    for (index_t i = 0; i < count; ++i) {
      simd::with_tile_vectors(panels[i].vectors,
                              [&](auto vectors) { read<vectors>(c, panels[i], read_together, one_pass); });
    }
    if (one_pass) pass<true>(c, panels, count);
    for (index_t i = 0; i < count; ++i) {
      simd::with_tile_vectors(panels[i].vectors, [&](auto vectors) { finish<vectors>(c, out, first_head, panels[i]); });
    }
    for (index_t i = 0; forgets_later && i < count; ++i) forget(c, panels[i], frame);
    if (!one_pass && panels[0].to.data != nullptr) pass<false>(c, panels, count);
  }

 private:
  // All that is read, in one pass, if it is a number of rows that registers can hold.
  bool read_at_once(const chunk<T>& c, step_panel<T>* panels, index_t count) {
    bool done = false;
    const auto attempt = [&](auto reads) {
      if (c.writes + 1 != reads) return;
      each_block(panels, count, [&](auto vectors, const step_panel<T>& p, index_t d, index_t rows) {
        const T* keys[static_cast<std::size_t>(reads())];
        for (index_t i = 0; i < c.writes; ++i) keys[i] = c.read_keys + i * c.key_stride + d;
        keys[c.writes] = c.queries + d;
        read_rows<T, vectors, reads>(p.from.data + d * p.from.stride, p.from.stride, rows, p.width, keys, p.reads);
      });
      done = true;
    };
    attempt(std::integral_constant<index_t, 2>{});
    if constexpr (Rule::step_writes == 0) {
      attempt(std::integral_constant<index_t, 3>{});
      attempt(std::integral_constant<index_t, 5>{});
    }
    return done;
  }

  void prepare(const chunk<T>& c, step_panel<T>& p, scratch_frame& frame) {
    const index_t W = p.vectors * simd::lanes<T>;
    p.rows = take_panel_rows(rule_, 1, W, frame);
    const index_t written = c.writes + (Rule::adds ? 1 : 0);
    T* room = frame.take<T>((written + c.writes + c.query_heads) * W);
    p.written = room;
    p.reads = room + written * W;
    p.outputs = p.reads + c.writes * W;
    std::fill_n(p.reads, (c.writes + c.query_heads) * W, T(0));
    rule_.panel(c, p.channel, W, p.rows);
    if (p.from.data == nullptr) {
      T* zeros = frame.take<T>(W);
      std::fill_n(zeros, W, T(0));
      p.from = {zeros, 0};
    } else if (!Rule::reads_before) {
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
        read_panel<T, V>(c.read_keys, c.key_stride, c.writes, p.from.data, p.from.stride, D_, p.width, p.reads);
      }
      solve_writes<T, V, Rule::erase>(c.overlaps, c.overlap_stride, c.writes, p.reads, c.read_scale, {p.rows.erase},
                                      p.rows.values + (Rule::adds ? W : 0));
    }
    for (index_t g = 0; !read_together && !one_pass && g < c.query_heads; ++g) {
      read_panel<T, V>(c.queries + g * c.query_head_stride, c.key_stride, 1, p.from.data, p.from.stride, D_, p.width,
                       p.outputs + g * W);
    }
    if (c.write_scale == nullptr) {
      p.written = p.rows.values;
    } else {
      const index_t written = c.writes + (Rule::adds ? 1 : 0);
      std::copy_n(p.rows.values, written * W, p.written);
      scale_rows<T, V, factor::number>(p.written, written, {c.write_scale});
    }
  }

  template <index_t V>
  void finish(const chunk<T>& c, const output_rows<O>& out, index_t first_head, const step_panel<T>& p) {
    constexpr index_t W = V * simd::lanes<T>;
    for (index_t g = 0; g < c.query_heads; ++g) {
      T* o = p.outputs + g * W;
      if (c.scores != nullptr) {
        if constexpr (Rule::decays_lanes) scale_rows<T, V, factor::lanes>(o, 1, {p.rows.from_start});
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

  template <bool Reads>
  void pass(const chunk<T>& c, step_panel<T>* panels, index_t count) {
    const auto run = [&](auto writes) {
      each_block(panels, count, [&](auto vectors, const step_panel<T>& p, index_t d, index_t rows) {
        row_factors<T, Rule::keep> keep = keep_of<Rule>(c, p.rows);
        if constexpr (Rule::keep == factor::number) keep.data += d;
        pass_state<T, vectors, Rule::keep, Reads, writes>(
            p.from.data + d * p.from.stride, p.from.stride, p.to.data + d * p.to.stride, p.to.stride, rows, p.width,
            c.write_keys + d, c.key_stride, c.writes, p.written, keep, c.queries + d, p.outputs);
      });
    };
    if constexpr (Rule::step_writes > 0) {
      run(std::integral_constant<index_t, Rule::step_writes>{});
    } else if (c.writes == 2) {
      run(std::integral_constant<index_t, 2>{});
    } else if (c.writes == 4) {
      run(std::integral_constant<index_t, 4>{});
    } else {
      run(std::integral_constant<index_t, 0>{});
    }
  }

  Rule& rule_;
  index_t D_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
