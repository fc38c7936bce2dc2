// SPDX-License-Identifier: Apache-2.0
/// @file Where a recurrence's states and outputs are, and how rows of outputs are written.
#pragma once

#include <tokenmix/mixers/linear/detail/chunk.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/simd/convert.hpp>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// Views may be empty: no initial state is zero, what is not wanted is not written.
template <class T, class O>
struct recurrence_result {
  tensor_view<O, 4> out;                    // (B, max(H, Hv), T, Dv)
  tensor_view<const T, 4> initial_state{};  // (n, Hv, D, Dv) for n sequences
  tensor_view<T, 4> final_state{};          // (n, Hv, D, Dv)
  tensor_view<const T, 3> initial_sum{};    // (n, Hk, D)
  tensor_view<T, 3> final_sum{};            // (n, Hk, D)
};

/// How many heads and channels there are, and in which order tokens are met.
struct recurrence_shape {
  index_t heads;        // of out
  index_t key_heads;    // Hk
  index_t value_heads;  // Hv
  index_t channels;     // Dv
  tokenmix::order order;

  index_t group() const { return value_heads / key_heads; }
  index_t readers() const { return heads / value_heads; }
};

/// The rows of out that one sequence has.
template <class O>
class output_rows {
 public:
  explicit output_rows(const tensor_view<O, 4>& out) : out_(out) {}

  void go_to(const sequence& seq, bool reversed) {
    batch_ = seq.batch;
    first_ = seq.query_row + (reversed ? seq.queries - 1 : 0);
    way_ = reversed ? -1 : 1;
  }

  /// The rows of a head from a token on, in the order in which tokens are met.
  token_rows<O> of(index_t head, index_t token) const {
    return {out_.row(batch_, head, first_ + way_ * token), way_ * out_.stride(2)};
  }

  /// Writes (tokens, stride) numbers, row by row times a factor if there are any.
  template <class T>
  void write(index_t head, index_t token, index_t tokens, index_t channel, index_t width, const T* from, index_t stride,
             const T* factors) const {
    constexpr index_t L = simd::lanes<T>;
    const token_rows<O> rows = of(head, token);
    for (index_t t = 0; t < tokens; ++t) {
      O* to = rows[t] + channel;
      const T* line = from + t * stride;
      const simd::batch<T> factor(factors == nullptr ? T(1) : factors[t]);
      for (index_t i = 0; i < width; i += L) {
        const simd::batch<T> x = simd::load(line + i) * factor;
        if (width - i >= L) {
          simd::store_as(to + i, x);
        } else {
          simd::store_as_n(to + i, x, width - i);
        }
      }
    }
  }

 private:
  const tensor_view<O, 4>& out_;
  index_t batch_ = 0;
  index_t first_ = 0;
  index_t way_ = 1;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
