// SPDX-License-Identifier: Apache-2.0
/// @file The dual form of a state space: chunks of tokens as matrix products, channels in rows, tokens or states in lanes.
#pragma once

#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/linear/detail/panel.hpp>
#include <tokenmix/mixers/state_space/detail/ssd_decay.hpp>
#include <tokenmix/mixers/state_space/detail/ssd_problem.hpp>
#include <tokenmix/mixers/state_space/detail/ssd_step.hpp>
#include <tokenmix/primitives/online_softmax.hpp>
#include <tokenmix/simd/tile_product.hpp>
#include <tokenmix/simd/transpose.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// f(first lane, constant number of registers) for panels that cover lanes [from, until).
template <class T, class F>
TOKENMIX_ALWAYS_INLINE void for_each_panel(index_t from, index_t until, F&& f) {
  index_t left = (until - from + simd::lanes<T> - 1) / simd::lanes<T>;
  while (left > 0) {
    // As even as can be: five registers are 3 and 2.
    const index_t panels = (left + simd::max_tile_vectors - 1) / simd::max_tile_vectors;
    const index_t vectors = (left + panels - 1) / panels;
    simd::with_tile_vectors(vectors, [&](auto v) TOKENMIX_LAMBDA_INLINE { f(from, v); });
    from += vectors * simd::lanes<T>;
    left -= vectors;
  }
}

/// Some heads of a group, from the first token of a sequence to its last.
template <class Rule>
class ssd_engine {
 public:
  using E = typename Rule::E;
  using T = typename Rule::T;
  using O = typename Rule::O;
  static constexpr index_t C = ssd_chunk_tokens;
  static constexpr index_t L = simd::lanes<T>;
  static constexpr index_t line = C + L;  ///< of tokens in lanes: an odd number of cache lines

  ssd_engine(Rule&& rule, scratch_frame& frame)
      : rule_(std::move(rule)),
        p_(rule_.problem),
        P_(p_.channels()),
        N_(p_.states()),
        width_(whole_registers<T>(P_)),
        stride_(whole_registers<T>(N_) + L),
        keys_(frame.take<T>(C * stride_)),
        queries_(frame.take<T>(C * stride_)),
        x_(frame.take<T>(C * width_)),
        scaled_(frame.take<T>(C * width_)),
        y_(frame.take<T>(C * width_)) {}

  void run(const sequence& seq, index_t number, index_t first_head, index_t last_head) {
    if (first_head == last_head) return;
    seq_ = seq;
    rule_.go_to(seq, number, first_head, last_head);
    if (seq.keys == 1) {
      one_token(number, first_head, last_head);
      rule_.finish(number);
      return;
    }
    scratch_frame frame;
    const index_t heads = last_head - first_head;
    queries_t_ = frame.take<T>(N_ * line);
    scores_ = frame.take<T>((C + 1) * line);
    triangle_ = frame.take<T>((C + 1) * line);
    out_t_ = frame.take<T>(P_ * line);
    states_ = frame.take<T>(heads * P_ * stride_);
    last_keys_ = frame.take<T>(Rule::pends ? heads * stride_ : 0);
    last_values_ = frame.take<T>(Rule::pends ? heads * width_ : 0);
    for (index_t h = 0; h < heads; ++h) begin(number, first_head + h, h);
    for (index_t first = 0; first < seq.keys; first += C) {
      const index_t n = std::min(C, seq.keys - first);
      if constexpr (Rule::shares) load_keys(first_head, first, n);
      for (index_t h = 0; h < heads; ++h) {
        name_ahead(h + 1 < heads ? first_head + h + 1 : first_head, h + 1 < heads ? first : first + C);
        head_of_chunk(first_head + h, h, first, n);
      }
    }
    for (index_t h = 0; h < heads; ++h) end(number, first_head + h, h);
    rule_.finish(number);
  }

 private:
  template <class X>
  token_rows<const X> rows(const tensor_view<const X, 4>& view, index_t head) const {
    return rows_of_tokens(view, seq_.batch, head, seq_.key_row, seq_.keys, p_.reversed());
  }

  ssd_numbers<T> numbers() { return {log_decay_, own_, before_}; }

  // --- one token

  void one_token(index_t number, index_t first_head, index_t last_head) {
    for (index_t head = first_head; head < last_head; ++head) {
      rule_.numbers(head, 0, 1, numbers());
      if (!Rule::shares || head == first_head) rule_.load(head, 0, 1, keys_, queries_, stride_);
      load_channels(rows(p_.x, head), 0, 1, P_, 0, x_, width_);
      const bool forgets = log_decay_[0] == minus_infinity<T>;
      const bool has_last = Rule::pends && p_.initial_last.key.data() != nullptr && p_.initial_last.value.data() != nullptr;
      ssd_token<T> token{keys_, queries_, keys_ + stride_, scaled_, scaled_ + width_, std::exp(T(0)), nullptr, 0,
                         nullptr, 0};
      alignas(64) T keep[static_cast<std::size_t>(L)];
      simd::store(keep, simd::exp(simd::batch<T>(log_decay_[0])));
      token.keep = keep[0];
      for (index_t c = 0; c < width_; c += L)
        simd::store(scaled_ + c, simd::load(x_ + c) * simd::batch<T>(own_[0]));
      if constexpr (Rule::pends) {
        std::fill_n(keys_ + stride_, stride_, T(0));
        std::fill_n(scaled_ + width_, width_, T(0));
        if (has_last && !forgets) {
          std::copy_n(p_.initial_last.key.row(number, head), N_, keys_ + stride_);
          const T* value = p_.initial_last.value.row(number, head);
          for (index_t c = 0; c < P_; ++c) scaled_[width_ + c] = value[c] * before_[0];
        }
      }
      const bool reads = p_.initial.data() != nullptr && !forgets;
      if (reads) {
        token.from = p_.initial.row(number, head);
        token.from_stride = p_.initial.stride(2);
      }
      if (p_.final.data() != nullptr) {
        token.to = p_.final.row(number, head);
        token.to_stride = p_.final.stride(2);
      }
      if (reads) {
        ssd_step<T, Rule::pends, true>(token, P_, N_, y_);
      } else {
        ssd_step<T, false, false>(token, P_, N_, y_);
      }
      if constexpr (Rule::pends) keep_last(number, head, keys_, x_);
      write_rows(head, 0, 1);
    }
  }

  void keep_last(index_t number, index_t head, const T* key, const T* value) const {
    if (p_.final_last.key.data() != nullptr) std::copy_n(key, N_, p_.final_last.key.row(number, head));
    if (p_.final_last.value.data() != nullptr) std::copy_n(value, P_, p_.final_last.value.row(number, head));
  }

  // --- chunks

  void begin(index_t number, index_t head, index_t h) {
    T* state = states_ + h * P_ * stride_;
    std::fill_n(state, P_ * stride_, T(0));
    if (p_.initial.data() != nullptr)
      for (index_t p = 0; p < P_; ++p) std::copy_n(p_.initial.row(number, head, p), N_, state + p * stride_);
    if constexpr (Rule::pends) {
      T* key = last_keys_ + h * stride_;
      T* value = last_values_ + h * width_;
      std::fill_n(key, stride_, T(0));
      std::fill_n(value, width_, T(0));
      if (p_.initial_last.key.data() != nullptr) std::copy_n(p_.initial_last.key.row(number, head), N_, key);
      if (p_.initial_last.value.data() != nullptr) std::copy_n(p_.initial_last.value.row(number, head), P_, value);
    }
  }

  void end(index_t number, index_t head, index_t h) {
    const T* state = states_ + h * P_ * stride_;
    if (p_.final.data() != nullptr)
      for (index_t p = 0; p < P_; ++p) std::copy_n(state + p * stride_, N_, p_.final.row(number, head, p));
    if constexpr (Rule::pends) keep_last(number, head, last_keys_ + h * stride_, last_values_ + h * width_);
  }

  /// Keys as rows, queries in lanes, and their products: scores[s][t] = keys[s]' queries[t] where s <= t.
  void load_keys(index_t head, index_t first, index_t n) {
    rule_.load(head, first, n, keys_, queries_, stride_);
    simd::transpose_in(static_cast<const T*>(queries_), stride_, n, N_, queries_t_, line);
    for (index_t s = 0; s < n; s += L) {
      for_each_panel<T>(s, n, [&](index_t t, auto v) TOKENMIX_LAMBDA_INLINE {
        simd::tile_product<T, v>({keys_ + s * stride_, stride_, 1}, std::min(L, n - s), queries_t_ + t, line, N_,
                                 scores_ + s * line + t, line, false);
      });
    }
  }

  /// Names the rows of the head and chunk that come next, which are short and far apart.
  void name_ahead(index_t head, index_t first) {
    ahead_.clear();
    const index_t n = std::min(C, seq_.keys - first);
    const auto add = [&](const auto& view) {
      if (n <= 0 || view.data() == nullptr) return;
      const auto lines = rows(view, head);
      ahead_.add(lines[first], lines.step, n, view.extent(3));
    };
    add(p_.x);
    add(p_.gate);
    add(tensor_view<const O, 4>(p_.out));
  }

  /// f(first row, rows) for channels a few at a time, rows to come being asked for between.
  template <class F>
  TOKENMIX_ALWAYS_INLINE void some_channels(F&& f) {
    constexpr index_t together = 24;  // a multiple of every tile's rows
    for (index_t p = 0; p < P_; p += together) {
      ahead_.fetch(2 * lines_per_block);
      f(p, std::min(together, P_ - p));
    }
  }

  void head_of_chunk(index_t head, index_t h, index_t first, index_t n) {
    rule_.numbers(head, first, n, numbers());
    if constexpr (!Rule::shares) load_keys(head, first, n);
    load_channels(rows(p_.x, head), first, n, P_, 0, x_, width_);
    for (index_t from = 0; from < n;) {
      index_t until = from + 1;
      while (until < n && log_decay_[until] != minus_infinity<T>) ++until;
      segment(h, from, until - from);
      from = until;
    }
    write_rows(head, first, n);
  }

  /// Tokens [from, from + n) of the chunk, of which the first alone may be a reset.
  void segment(index_t h, index_t from, index_t n) {
    T* state = states_ + h * P_ * stride_;
    const T* x = x_ + from * width_;
    if (log_decay_[from] == minus_infinity<T>) {
      std::fill_n(state, P_ * stride_, T(0));
    } else if constexpr (Rule::pends) {
      const T* key = last_keys_ + h * stride_;
      const T* value = last_values_ + h * width_;
      for (index_t p = 0; p < P_; ++p) {
        const simd::batch<T> factor(value[p] * before_[from]);
        for (index_t i = 0; i < stride_; i += L)
          simd::store(state + p * stride_ + i,
                      simd::fma(factor, simd::load(key + i), simd::load(state + p * stride_ + i)));
      }
    }
    const T* weight = own_ + from;
    if constexpr (Rule::pends) {
      for (index_t t = 0; t < n; ++t) weight_[t] = t + 1 < n ? own_[from + t] + before_[from + t + 1] : own_[from + t];
      weight = weight_;
    }
    ssd_triangle(scores_ + from * line + from, log_decay_ + from, weight, own_ + from, n, line, sums_, triangle_,
                 from_start_, to_end_);
    for (index_t t = 0; t < n; ++t) to_end_[t] = to_end_[t] * weight[t];
    const bool finite = scale_rows_to(x, n, width_, to_end_, scaled_);

    for_each_panel<T>(0, n, [&](index_t t, auto v) TOKENMIX_LAMBDA_INLINE {
      some_channels([&](index_t p, index_t count) TOKENMIX_LAMBDA_INLINE {
        simd::tile_product<T, v>({state + p * stride_, stride_, 1}, count, queries_t_ + from + t, line, N_,
                                 out_t_ + p * line + t, line, false);
      });
    });
    for (index_t t = 0; t < n; t += L) {
      const simd::batch<T> factor = simd::load(from_start_ + t);
      for (index_t p = 0; p < P_; ++p)
        simd::store(out_t_ + p * line + t, simd::load(out_t_ + p * line + t) * factor);
    }
    if (finite) {
      for (index_t s = 0; s < n; s += L) {
        for_each_panel<T>(s, n, [&](index_t t, auto v) TOKENMIX_LAMBDA_INLINE {
          simd::tile_product<T, v>({x + s * width_, 1, width_}, P_, triangle_ + s * line + t, line, std::min(L, n - s),
                                   out_t_ + t, line, true);
        });
      }
    } else {
      add_seen(x, n);
    }
    simd::transpose_out(static_cast<const T*>(out_t_), line, n, P_, y_ + from * width_, width_);

    const index_t whole = whole_registers<T>(N_);
    scale_lines(state, P_, stride_, whole, from_start_[n - 1]);
    for_each_panel<T>(0, whole, [&](index_t i, auto v) TOKENMIX_LAMBDA_INLINE {
      some_channels([&](index_t p, index_t count) TOKENMIX_LAMBDA_INLINE {
        simd::tile_product<T, v>({scaled_ + p, 1, width_}, count, keys_ + from * stride_ + i, stride_, n,
                                 state + p * stride_ + i, stride_, true);
      });
    });
    if constexpr (Rule::pends) {
      std::copy_n(keys_ + (from + n - 1) * stride_, stride_, last_keys_ + h * stride_);
      std::copy_n(x + (n - 1) * width_, width_, last_values_ + h * width_);
    }
  }

  /// The product with the triangle where values are not finite: a token's value is added for tokens from it on alone.
  TOKENMIX_NOINLINE void add_seen(const T* x, index_t n) {
    const simd::batch<T> lane = simd::iota<T>();
    for (index_t s = 0; s < n; ++s) {
      for (index_t t = s / L * L; t < n; t += L) {
        const auto sees = lane >= simd::batch<T>(static_cast<T>(s - t));
        const simd::batch<T> weights = simd::load(triangle_ + s * line + t);
        for (index_t p = 0; p < P_; ++p) {
          T* at = out_t_ + p * line + t;
          const simd::batch<T> sum = simd::load(at);
          simd::store(at, simd::select(sees, simd::fma(simd::batch<T>(x[s * width_ + p]), weights, sum), sum));
        }
      }
    }
  }

  /// out = (y + skip x) silu(gate).
  void write_rows(index_t head, index_t first, index_t n) {
    const auto results = rows(tensor_view<const O, 4>(p_.out), head);
    const bool gated = p_.gate.data() != nullptr;
    const auto gates = gated ? rows(p_.gate, head) : token_rows<const E>{};
    const T* skip = p_.skip.data() == nullptr ? nullptr : p_.skip.row(head);
    const bool of_channels = skip != nullptr && p_.skip.extent(1) != 1;
    for (index_t t = 0; t < n; ++t) {
      O* to = const_cast<O*>(results[first + t]);
      for (index_t c = 0; c < P_; c += L) {
        const index_t valid = std::min(L, P_ - c);
        simd::batch<T> y = simd::load(y_ + t * width_ + c);
        if (skip != nullptr) {
          const simd::batch<T> factor = of_channels ? simd::load_n(skip + c, valid) : simd::batch<T>(skip[0]);
          y = simd::fma(factor, simd::load(x_ + t * width_ + c), y);
        }
        if (gated) {
          const simd::batch<T> z = simd::load_as_n<T>(gates[first + t] + c, valid);
          y = y * (z * simd::sigmoid(z));
        }
        simd::store_as_n(to + c, y, valid);
      }
    }
  }

  Rule rule_;
  const ssd_problem<E, T, O>& p_;
  index_t P_;
  index_t N_;
  index_t width_;   // of rows of values
  index_t stride_;  // of rows of keys and states
  T* keys_;         // (C, stride)
  T* queries_;      // (C, stride)
  T* x_;            // (C, width)
  T* scaled_;       // (C, width)
  T* y_;            // (C, width)
  T* queries_t_ = nullptr;  // (N, line)
  T* scores_ = nullptr;     // (C, line)
  T* triangle_ = nullptr;   // (C, line)
  T* out_t_ = nullptr;      // (P, line)
  T* states_ = nullptr;     // (heads, P, stride)
  T* last_keys_ = nullptr;    // (heads, stride)
  T* last_values_ = nullptr;  // (heads, width)
  sequence seq_;
  simd::lines_ahead ahead_;
  alignas(64) T log_decay_[static_cast<std::size_t>(C + L)];
  alignas(64) T own_[static_cast<std::size_t>(C + L)];
  alignas(64) T before_[static_cast<std::size_t>(C + L)];
  alignas(64) T weight_[static_cast<std::size_t>(C + L)];
  alignas(64) T sums_[static_cast<std::size_t>(C + L)];
  alignas(64) T from_start_[static_cast<std::size_t>(C + L)];
  alignas(64) T to_end_[static_cast<std::size_t>(C + L)];
};

/// Runs a rule over all sequences; heads of a group are dealt out where there are more workers than groups.
template <class E, class T, class O, class Sequences, class MakeRule, class Executor>
void run_ssd(const ssd_problem<E, T, O>& problem, const Sequences& sequences, MakeRule&& make_rule, Executor& on) {
  const index_t G = problem.groups(), H = problem.heads(), tokens = problem.x.extent(2);
  const index_t groups = sequences.count(problem.x.extent(0)) * G;
  if (groups == 0 || H == 0) return;
  const index_t each = H / G;
  const index_t workers = std::max<index_t>(1, on.concurrency());
  const index_t splits = workers == 1 ? 1 : std::min(each, (workers + groups - 1) / groups);
  using engine = ssd_engine<std::invoke_result_t<MakeRule&, scratch_frame&>>;
  run_tasks(
      on, groups * splits, [&](scratch_frame& frame) { return engine(make_rule(frame), frame); },
      [&](index_t task, engine& e) {
        const index_t group = task / splits, split = task % splits, number = group / G;
        const index_t first = group % G * each;
        e.run(sequences.at(number, tokens, tokens), number, first + split * each / splits,
              first + (split + 1) * each / splits);
      });
}

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
