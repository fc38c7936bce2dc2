// SPDX-License-Identifier: Apache-2.0
/// @file Mamba-2's state space duality: a matrix state per head that decays by one number per token.
#pragma once

#include <tokenmix/mixers/state_space/detail/ssd_check.hpp>
#include <tokenmix/mixers/state_space/detail/ssd_engine.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of ssd. skip has rank 1, (H), or 2, (H, P).
template <class E, class G, class T = accumulator_t<E>, std::size_t R = 1>
struct ssd_inputs {
  tensor_view<const E, 4> x{};              // (B, T, H, P)
  tensor_view<const G, 3> delta{};          // (B, T, H)
  tensor_view<const T, 1> A{};              // (H), <= 0: -exp(A_log) of the published weights
  tensor_view<const E, 4> B{};              // (B, T, G, N)
  tensor_view<const E, 4> C{};              // (B, T, G, N)
  tensor_view<const T, R> skip{};           // (H) or (H, P): D; none if empty
  tensor_view<const E, 4> gate{};           // (B, T, H, P): z; none if empty
  tensor_view<const T, 1> delta_bias{};     // (H): dt_bias; zero if empty
  tensor_view<const T, 4> initial_state{};  // (n, H, P, N) for n sequences; zero if empty
};

/// Options of ssd: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct ssd_options {
  tokenmix::delta_form delta_form = tokenmix::delta_form::given;  ///< given or softplus
  tokenmix::delta_limits delta_limits{};                          ///< after that: dt_limit
  tokenmix::order order = tokenmix::order::forward;               ///< forward or reverse
  Sequences sequences{};                                          ///< whole_sequences, lengths or packed
  tensor_view<State, 4> final_state{};  ///< (n, H, P, N), output; may be the initial state
};

namespace detail {

/// See ssd_problem.hpp for what a rule is.
template <class Element, class G, class Computed, class Output>
struct ssd_rule {
  using E = Element;
  using T = Computed;
  using O = Output;
  static constexpr bool shares = true;
  static constexpr bool pends = false;

  const ssd_problem<E, T, O>& problem;
  ssd_deltas<G, T> deltas;
  tensor_view<const T, 1> A;
  sequence seq{};

  void go_to(const sequence& s, index_t /*number*/, index_t /*first_head*/, index_t /*last_head*/) { seq = s; }
  void finish(index_t /*number*/) {}

  void numbers(index_t head, index_t first, index_t count, const ssd_numbers<T>& to) {
    deltas.load(seq, head, first, count, problem.reversed(), to.own);
    for (index_t t = 0; t < count; t += simd::lanes<T>)
      simd::store(to.log_decay + t, simd::load(to.own + t) * simd::batch<T>(A(head)));
  }

  void load(index_t head, index_t first, index_t count, T* keys, T* queries, index_t stride) {
    const index_t group = head / (problem.heads() / problem.groups());
    const auto rows = [&](const tensor_view<const E, 4>& view) {
      return rows_of_tokens(view, seq.batch, group, seq.key_row, seq.keys, problem.reversed());
    };
    load_channels(rows(problem.B), first, count, problem.states(), 0, keys, stride);
    load_channels(rows(problem.C), first, count, problem.states(), 0, queries, stride);
  }
};

}  // namespace detail

/// The selective state space of Mamba-2.
///
///     step[t] = clamp(delta[t] + bias), or clamp(softplus(delta[t] + bias))
///     S[t]    = exp(step[t] A) S[t-1] + step[t] x[t] B[t]'                          of a head; B and C of its group
///     out[t]  = (S[t] C[t] + skip x[t]) silu(gate[t])
///
/// Shapes     x, gate, out: (B, T, H, P); delta: (B, T, H); A, delta_bias: (H); B, C: (B, T, G, N), H a multiple of G; skip:
///            (H) or (H, P). Any strides, the last axis of x, B, C, gate and out contiguous. States: (n, H, P, N), the layout
///            of the published models.
/// Aliasing   out and final_state share no element with an input; final_state may be the initial state itself.
/// Numerics   computed in float (double for double), u = 2^-24; the state is kept in that type. |error| <= 8 u M + 2 u M1, M the
///            recurrence on absolute values and M1 that with every token's part times its distance, for steps of any size:
///            every exponent taken is <= 0 and a sum from its own anchor. Without input no number of the state grows. A
///            step A of -infinity is a reset: the state is not read, NaN included. The same bits for any executor, batch
///            neighbours and strides, reversed as flipped, packed as alone, and for a sequence cut into calls at multiples of 64
///            tokens, the last of more than one.
/// Cost       chunks of 64 tokens: 4 N P + 64 P operations per token and head, and 64 N per token and group, of which
///            products of keys and queries are computed once. One token (T = 1) passes over the state once and allocates nothing.
/// Errors     shape_error and value_error as the messages say, an A above 0 among them; nothing is written then. Empty
///            dimensions are legal.
/// Source     Dao and Gu 2024 (Mamba-2), section 6 and listing 1; skip before the gate as in its kernels.
template <class E, class G, class State, std::size_t R, class O, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void ssd(const ssd_inputs<E, G, State, R>& inputs, tensor_view<O, 4> out,
         const ssd_options<Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<State, T>, "A, skip, bias and state are of the computing type");
  static_assert(R == 1 || R == 2, "skip is (H) or (H, P)");
  const auto& [x, delta, A, B, C, skip, gate, bias, initial_state] = inputs;
  detail::check_direction(options.order);
  detail::check_ssd_tokens(x, delta, "delta", B, C, gate, skip);
  const index_t H = x.extent(2), P = x.extent(3), N = B.extent(3);
  detail::check_view("A", A);
  detail::check_shape("A", A, {H}, "(H)");
  for (index_t h = 0; h < H; ++h)
    if (A(h) > T(0)) detail::fail_value("A[", h, "] is above 0: a state space decays");
  detail::check_delta(bias, H, options.delta_limits);
  detail::check_sequences(options.sequences, x.extent(0), x.extent(1), x.extent(1), true);
  const index_t n = options.sequences.count(x.extent(0));
  detail::check_result_rows(out, x.shape(), x, delta, A, B, C, skip, gate, bias, initial_state);
  detail::check_state_part("initial_state", initial_state, "final_state", options.final_state, {n, H, P, N},
                           "(sequences, H, P, N)", out, x, delta, A, B, C, skip, gate, bias);
  if (initial_state.data() != nullptr) detail::check_overlap("out", out, "initial_state", initial_state);

  const detail::ssd_problem<E, T, O> problem{detail::heads_first(x),
                                             detail::heads_first(B),
                                             detail::heads_first(C),
                                             detail::heads_first(gate),
                                             detail::skip_rows(skip),
                                             detail::heads_first(out),
                                             initial_state,
                                             options.final_state,
                                             {},
                                             {},
                                             options.order};
  const detail::ssd_deltas<G, T> deltas{delta, bias, detail::steps_of<T>(options.delta_form, options.delta_limits)};
  detail::run_ssd(
      problem, options.sequences,
      [&](scratch_frame&) { return detail::ssd_rule<E, G, T, O>{problem, deltas, A}; }, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
