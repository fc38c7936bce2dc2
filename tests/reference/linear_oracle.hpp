// SPDX-License-Identifier: Apache-2.0
/// @file The recurrences of the linear family, token by token, in plain loops; and what their errors are measured by.
#pragma once

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <functional>
#include <limits>
#include <vector>

#include <reference/exact.hpp>

namespace tokenmix::reference {

/// Everything that a recurrence depends on, as numbers. Channels of queries and keys are those of the features.
template <class Real>
struct linear_problem {
  index_t sequences = 1, heads = 1, key_heads = 1, value_heads = 1, tokens = 0, width = 0, value_width = 0;
  std::vector<Real> q;            // (n, H, T, D), scaled
  index_t steps = 1;              // writes of one token
  std::vector<Real> k;            // (n, Hk, T, steps, D)
  std::vector<Real> v;            // (n, Hv, T, steps, Dv)
  std::vector<Real> a, b;         // (n, Hk, T, D) or empty: a times what b reads before the token is added
  std::vector<Real> initial;      // (n, Hv, D, Dv) or empty
  std::vector<Real> initial_sum;  // (n, Hk, D) or empty
  bool reversed = false;
  bool bidirectional = false;
  /// Log decay of an element of the state at a token: (sequence, value head, token, d, c). None if empty.
  std::function<Real(index_t, index_t, index_t, index_t, index_t)> log_decay;
  /// How much a token replaces: (sequence, value head, token, step, c). Values are written as they are if empty.
  std::function<Real(index_t, index_t, index_t, index_t, index_t)> beta;
  /// How much a token writes, where that is another number.
  std::function<Real(index_t, index_t, index_t, index_t, index_t)> write_beta;
  /// The weight of a token for itself, (key head, d), where outputs read the state before the token.
  std::function<Real(index_t, index_t)> bonus;
  /// What an output is divided by, of the sum of weights and the number of tokens seen. Nothing if empty.
  std::function<Real(Real, index_t)> divisor;
};

template <class Real>
struct linear_answer {
  std::vector<Real> out;          // (n, max(H, Hv), T, Dv)
  std::vector<Real> state;        // (n, Hv, D, Dv)
  std::vector<Real> sum;          // (n, Hk, D)
  std::vector<Real> magnitude;    // as out: A, the recurrence on absolute values (times 1 / divisor)
  std::vector<Real> distance;     // as out: A1, every token's part times its distance
  std::vector<Real> query_norm;   // (n, max(H, Hv), T)
  std::vector<Real> column_norm;  // as out: the largest norm that the column of the state had up to the token
  std::vector<Real> state_magnitude, state_distance, state_norm;  // as state; state_norm is of its column
};

/// The recurrence
///
///     S = decay S + a (b'S)';   for every step: u = beta (v - S'k) or v;   S = S + k u';   out = S'q / divisor(z'q)
///
/// or, with a bonus, out = (S before the token + bonus k v')'q.
/// A decay of exp(-infinity) sets the element to zero whatever it is.
template <class Real>
linear_answer<Real> linear_recurrence(const linear_problem<Real>& p) {
  const index_t H = p.heads, Hk = p.key_heads, Hv = p.value_heads, T = p.tokens, D = p.width, Dv = p.value_width;
  const index_t out_heads = std::max(H, Hv);
  linear_answer<Real> a;
  const auto size = [](index_t n) { return static_cast<std::size_t>(n); };
  const std::size_t outs = size(p.sequences * out_heads * T * Dv), states = size(p.sequences * Hv * D * Dv);
  for (auto* x : {&a.out, &a.magnitude, &a.distance, &a.column_norm}) x->assign(outs, Real(0));
  for (auto* x : {&a.state, &a.state_magnitude, &a.state_distance, &a.state_norm}) x->assign(states, Real(0));
  a.query_norm.assign(size(p.sequences * out_heads * T), Real(0));
  a.sum.assign(size(p.sequences * Hk * D), Real(0));

  for (index_t n = 0; n < p.sequences; ++n) {
    for (index_t h = 0; h < Hv; ++h) {
      const index_t kh = h / (Hv / Hk);
      std::vector<Real> S(size(D * Dv)), M(size(D * Dv)), M1(size(D * Dv)), z(size(D)), m(size(D)), m1(size(D));
      std::vector<Real> largest(size(Dv));
      for (index_t i = 0; i < D * Dv && !p.initial.empty(); ++i) {
        S[size(i)] = p.initial[size((n * Hv + h) * D * Dv + i)];
        M[size(i)] = std::abs(S[size(i)]);
      }
      for (index_t d = 0; d < D && !p.initial_sum.empty(); ++d) {
        z[size(d)] = p.initial_sum[size((n * Hk + kh) * D + d)];
        m[size(d)] = std::abs(z[size(d)]);
      }
      const auto see_norms = [&] {
        for (index_t c = 0; c < Dv; ++c) {
          Real square(0);
          for (index_t d = 0; d < D; ++d) square += S[size(d * Dv + c)] * S[size(d * Dv + c)];
          largest[size(c)] = std::max(largest[size(c)], std::sqrt(square));
        }
      };
      see_norms();
      index_t seen = 0;
      const auto absorb = [&](index_t t) {
        std::vector<Real> carried(size(Dv));
        const bool low_rank = !p.a.empty();
        for (index_t d = 0; d < D && low_rank; ++d) {
          for (index_t c = 0; c < Dv; ++c)
            carried[size(c)] += p.b[size(((n * Hk + kh) * T + t) * D + d)] * S[size(d * Dv + c)];
        }
        for (index_t d = 0; d < D; ++d) {
          for (index_t c = 0; c < Dv; ++c) {
            const std::size_t i = size(d * Dv + c);
            M1[i] += M[i];
            if (!p.log_decay) continue;
            const Real log = p.log_decay(n, h, t, d, c);
            const bool forget = log == -std::numeric_limits<Real>::infinity();
            for (Real* x : {&S[i], &M[i], &M1[i]}) *x = forget ? Real(0) : *x * std::exp(log);
          }
          m1[size(d)] += m[size(d)];
        }
        for (index_t d = 0; d < D && low_rank; ++d) {
          for (index_t c = 0; c < Dv; ++c)
            S[size(d * Dv + c)] += p.a[size(((n * Hk + kh) * T + t) * D + d)] * carried[size(c)];
        }
        see_norms();
        for (index_t step = 0; step < p.steps; ++step) {
          const Real* k = p.k.data() + (((n * Hk + kh) * T + t) * p.steps + step) * D;
          const Real* v = p.v.data() + (((n * Hv + h) * T + t) * p.steps + step) * Dv;
          for (index_t c = 0; c < Dv; ++c) {
            Real u = v[c];
            if (p.beta) {
              Real held(0);
              for (index_t d = 0; d < D; ++d) held += S[size(d * Dv + c)] * k[d];
              const Real erase = p.beta(n, h, t, step, c);
              u = (p.write_beta ? p.write_beta(n, h, t, step, c) : erase) * v[c] - erase * held;
            }
            for (index_t d = 0; d < D; ++d) {
              S[size(d * Dv + c)] += k[d] * u;
              M[size(d * Dv + c)] += std::abs(k[d] * u);
            }
          }
          see_norms();
        }
        const Real* k = p.k.data() + ((n * Hk + kh) * T + t) * p.steps * D;
        for (index_t d = 0; d < D; ++d) {
          z[size(d)] += k[d];
          m[size(d)] += std::abs(k[d]);
        }
        see_norms();
        ++seen;
      };
      const auto read = [&](index_t t) {
        const index_t readers = H > Hk ? H / Hk : 1;
        for (index_t g = 0; g < readers; ++g) {
          const index_t query_head = H > Hk ? h * readers + g : kh;
          const index_t out_head = H > Hk ? query_head : h;
          const Real* q = p.q.data() + (n * H + query_head) * T * D + t * D;
          const index_t row = (n * out_heads + out_head) * T + t;
          Real norm(0), weights(0), weight_magnitude(0), weight_distance(0);
          for (index_t d = 0; d < D; ++d) {
            norm += q[d] * q[d];
            weights += q[d] * z[size(d)];
            weight_magnitude += std::abs(q[d]) * m[size(d)];
            weight_distance += std::abs(q[d]) * m1[size(d)];
          }
          a.query_norm[size(row)] = std::sqrt(norm);
          const Real divisor = p.divisor ? p.divisor(weights, seen) : Real(1);
          for (index_t c = 0; c < Dv; ++c) {
            Real out(0), magnitude(0), distance(0);
            for (index_t d = 0; d < D; ++d) {
              const std::size_t i = size(d * Dv + c);
              out += q[d] * S[i];
              if (p.bonus) {
                const Real own = q[d] * p.bonus(kh, d) * p.k[size(((n * Hk + kh) * T + t) * D + d)] *
                                 p.v[size(((n * Hv + h) * T + t) * Dv + c)];
                out += own;
                magnitude += std::abs(own);
              }
              magnitude += std::abs(q[d]) * M[i];
              distance += std::abs(q[d]) * M1[i];
            }
            out /= divisor;
            if (p.divisor) {  // the error of a quotient: that of its parts
              magnitude = (magnitude + std::abs(out) * weight_magnitude) / std::abs(divisor);
              distance = (distance + std::abs(out) * weight_distance) / std::abs(divisor);
            }
            const std::size_t e = size(row * Dv + c);
            a.out[e] = out;
            a.magnitude[e] = magnitude;
            a.distance[e] = distance;
            a.column_norm[e] = largest[size(c)];
          }
        }
      };
      for (index_t i = 0; i < T; ++i) {
        const index_t t = p.reversed ? T - 1 - i : i;
        if (p.bonus) read(t);
        absorb(t);
        if (!p.bidirectional && !p.bonus) read(t);
      }
      for (index_t t = 0; t < T && p.bidirectional; ++t) read(t);
      for (index_t i = 0; i < D * Dv; ++i) {
        const std::size_t to = size((n * Hv + h) * D * Dv + i);
        a.state[to] = S[size(i)];
        a.state_magnitude[to] = M[size(i)];
        a.state_distance[to] = M1[size(i)];
        a.state_norm[to] = largest[size(i % std::max<index_t>(Dv, 1))];
      }
      for (index_t d = 0; d < D; ++d) a.sum[size((n * Hk + kh) * D + d)] = z[size(d)];
    }
  }
  return a;
}

}  // namespace tokenmix::reference
