// SPDX-License-Identifier: Apache-2.0
/// @file Mamba-3's state space: a trapezoid between two tokens, and a complex state as keys and queries that turn.
#pragma once

#include <tokenmix/mixers/state_space/detail/mamba3_rule.hpp>
#include <tokenmix/mixers/state_space/detail/ssd_engine.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// What a head of Mamba-3 remembers. All views are empty, or none; rotation's may be where nothing turns.
template <class T>
struct mamba3_state {
  tensor_view<T, 4> state{};  // (n, H, P, N)
  tensor_view<T, 3> angle{};  // (n, H, R), in [-pi, pi]
  tensor_view<T, 3> key{};    // (n, H, N): the last token's, biased and turned
  tensor_view<T, 3> value{};  // (n, H, P): the last token's x
};

/// The tensors of mamba3. skip has rank 1, (H), or 2, (H, P).
template <class E, class G, class T = accumulator_t<E>, std::size_t R = 1>
struct mamba3_inputs {
  tensor_view<const E, 4> x{};               // (B, T, H, P)
  tensor_view<const G, 3> delta{};           // (B, T, H)
  tensor_view<const G, 3> log_decay{};       // (B, T, H), <= 0: A delta
  tensor_view<const G, 3> trapezoid{};       // (B, T, H): lambda is its sigmoid; +infinity is the rule of Mamba-2
  tensor_view<const E, 4> B{};               // (B, T, G, N)
  tensor_view<const E, 4> C{};               // (B, T, G, N)
  tensor_view<const E, 4> rotation{};        // (B, T, Ha, R), 2 R <= N: radians per unit of delta; none if empty
  tensor_view<const T, 2> B_bias{};          // (H, N); zero if empty
  tensor_view<const T, 2> C_bias{};          // (H, N); zero if empty
  tensor_view<const T, R> skip{};            // (H) or (H, P): D; none if empty
  tensor_view<const E, 4> gate{};            // (B, T, H, P): z; none if empty
  tensor_view<const T, 1> delta_bias{};      // (H); zero if empty
  mamba3_state<const T> initial_state{};     // zero if empty
};

/// Options of mamba3: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class State = float>
struct mamba3_options {
  tokenmix::delta_form delta_form = tokenmix::delta_form::given;  ///< given or softplus
  tokenmix::delta_limits delta_limits{};                          ///< after that
  tokenmix::order order = tokenmix::order::forward;               ///< forward or reverse
  Sequences sequences{};                                          ///< whole_sequences, lengths or packed
  mamba3_state<State> final_state{};                              ///< output; each part may be the initial one
};

namespace detail {

/// All parts that have elements are there, or none.
template <class T>
void check_mamba3_state(const char* name, const mamba3_state<T>& s, const extents<4>& shape, index_t angles) {
  const auto& [n, H, P, N] = shape;
  const auto lacks = [](const auto& part, index_t size) { return size > 0 && part.data() == nullptr; };
  const bool any = s.state.data() != nullptr || s.angle.data() != nullptr || s.key.data() != nullptr ||
                   s.value.data() != nullptr;
  if (any && (lacks(s.state, n * H * P * N) || lacks(s.angle, n * H * angles) || lacks(s.key, n * H * N) ||
              lacks(s.value, n * H * P)))
    fail_value(name, " lacks a part: it has state, key and value, and angle if there is a rotation");
}

}  // namespace detail

/// The selective state space of Mamba-3, one input and one output per channel (SISO).
///
///     step[t]  = clamp(delta[t] + bias), or clamp(softplus(delta[t] + bias));  lambda[t] = sigmoid(trapezoid[t])
///     angle[t] = angle[t-1] + step[t] rotation[t]                                                         modulo 2 pi
///     k[t], q[t] = B[t] + B_bias, C[t] + C_bias, pairs (2 r, 2 r + 1) turned by angle[t][r]
///     S[t]     = a (S[t-1] + (1 - lambda[t]) step[t] x[t-1] k[t-1]') + lambda[t] step[t] x[t] k[t]',    a = exp(log_decay[t])
///     out[t]   = (S[t] q[t] + skip x[t]) silu(gate[t])
///
/// Before the first token there is no x and no k. B and C are normalised by the caller.
///
/// Shapes     x, gate, out: (B, T, H, P); delta, log_decay, trapezoid: (B, T, H); B, C: (B, T, G, N), H a multiple of G;
///            rotation: (B, T, Ha, R), H a multiple of Ha, 2 R <= N: the pairs behind do not turn. Any strides, last axes
///            contiguous but those of (B, T, H). State: (n, H, P, N), angle (n, H, R), key (n, H, N), value (n, H, P).
/// Aliasing   out and the final state share no element with an input; each final part may be the initial one itself.
/// Numerics   computed in float (double for double), u = 2^-24; |error| <= 12 u M + 8 u M1, M the recurrence on absolute values
///            of what is turned (a pair counts with its length) and M1 that with every token's part times its distance: the
///            angle is kept in one turn, and rounded once a token. Everything else as in ssd: exponents <= 0, a log decay of
///            -infinity is a reset after which neither state nor the last token is read.
/// Cost       as ssd, but products of keys and queries are computed for every head, 64 N operations per token and head, and R sines
///            and cosines. One token (T = 1) passes over the state once and allocates nothing.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Log decays above 0 are the caller's
///            error. |step rotation| is to stay below 10^4. Empty dimensions are legal.
/// Source     Lahoti et al. 2026 (Mamba-3), the exponential-trapezoidal rule and the rotary form of a complex state.
template <class E, class G, class State, std::size_t R, class O, class Sequences = whole_sequences,
          executor Executor = calling_thread>
void mamba3(const mamba3_inputs<E, G, State, R>& inputs, tensor_view<O, 4> out,
            const mamba3_options<Sequences, accumulator_t<E>>& options = {}, Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<State, T>, "biases, skip and state are of the computing type");
  static_assert(R == 1 || R == 2, "skip is (H) or (H, P)");
  const auto& [x, delta, log_decay, trapezoid, B, C, rotation, B_bias, C_bias, skip, gate, bias, initial] = inputs;
  const auto& final = options.final_state;
  detail::check_direction(options.order);
  detail::check_ssd_tokens(x, delta, "delta", B, C, gate, skip);
  const index_t H = x.extent(2), P = x.extent(3), N = B.extent(3);
  const auto check_numbers = [&](const char* name, const tensor_view<const G, 3>& view) {
    detail::check_view(name, view);
    detail::check_shape(name, view, delta.shape(), "(B, T, H)");
  };
  check_numbers("log_decay", log_decay);
  check_numbers("trapezoid", trapezoid);
  const bool turns = rotation.data() != nullptr;
  if (turns) {
    detail::check_input("rotation", rotation);
    detail::check_same_extent("rotation", rotation, 0, "x", x, 0, "batch elements");
    detail::check_same_extent("rotation", rotation, 1, "x", x, 1, "tokens");
    detail::check_head_groups("x", x, 2, "rotation", rotation, 2, "all", "rotation's");
    if (2 * rotation.extent(3) > N)
      detail::fail_shape("rotation has ", rotation.extent(3), " angles, B has ", N, " states: a pair of them for an angle");
  }
  const auto check_bias = [&](const char* name, const tensor_view<const T, 2>& view) {
    if (view.data() == nullptr) return;
    detail::check_input(name, view);
    detail::check_shape(name, view, {H, N}, "(H, N)");
  };
  check_bias("B_bias", B_bias);
  check_bias("C_bias", C_bias);
  detail::check_delta(bias, H, options.delta_limits);
  detail::check_sequences(options.sequences, x.extent(0), x.extent(1), x.extent(1), true);
  const index_t n = options.sequences.count(x.extent(0));
  detail::check_mamba3_state("initial_state", initial, {n, H, P, N}, rotation.extent(3));
  detail::check_mamba3_state("final_state", final, {n, H, P, N}, rotation.extent(3));
  detail::check_result_rows(out, x.shape(), x, delta, log_decay, trapezoid, B, C, rotation, B_bias, C_bias, skip, gate,
                            bias, initial.state, initial.angle, initial.key, initial.value);
  const auto check_part = [&](const char* initial_name, const auto& part, const char* final_name, const auto& final_part,
                              const auto& shape, const char* letters, const auto&... others) {
    detail::check_state_part(initial_name, part, final_name, final_part, shape, letters, out, x, delta, log_decay,
                             trapezoid, B, C, rotation, B_bias, C_bias, skip, gate, bias, others...);
  };
  check_part("initial_state.state", initial.state, "final_state.state", final.state, extents<4>{n, H, P, N},
             "(sequences, H, P, N)", initial.angle, initial.key, initial.value, final.key);
  check_part("initial_state.angle", initial.angle, "final_state.angle", final.angle,
             extents<3>{n, H, rotation.extent(3)}, "(sequences, H, R)", initial.state, initial.key, initial.value,
             final.state);
  check_part("initial_state.key", initial.key, "final_state.key", final.key, extents<3>{n, H, N}, "(sequences, H, N)",
             initial.state, initial.angle, initial.value, final.angle);
  check_part("initial_state.value", initial.value, "final_state.value", final.value, extents<3>{n, H, P},
             "(sequences, H, P)", initial.state, initial.angle, initial.key, final.state, final.angle, final.key);
  if (initial.key.data() != nullptr) {
    detail::check_channels_contiguous("initial_state.key", initial.key);
    detail::check_channels_contiguous("initial_state.value", initial.value);
  }
  if (final.key.data() != nullptr) {
    detail::check_channels_contiguous("final_state.key", final.key);
    detail::check_channels_contiguous("final_state.value", final.value);
  }

  const detail::ssd_problem<E, T, O> problem{detail::heads_first(x),
                                             detail::heads_first(B),
                                             detail::heads_first(C),
                                             detail::heads_first(gate),
                                             detail::skip_rows(skip),
                                             detail::heads_first(out),
                                             initial.state,
                                             final.state,
                                             {initial.key, initial.value},
                                             {final.key, final.value},
                                             options.order};
  const detail::mamba3_gates<E, G, T> gates{
      {delta, bias, detail::steps_of<T>(options.delta_form, options.delta_limits)},
      log_decay,
      trapezoid,
      detail::heads_first(rotation),
      B_bias,
      C_bias,
      turns ? initial.angle : tensor_view<const T, 3>{},
      turns ? final.angle : tensor_view<T, 3>{}};
  detail::run_ssd(
      problem, options.sequences,
      [&](scratch_frame& frame) { return detail::mamba3_rule<E, G, T, O>(problem, gates, frame); }, on);
}

}  // namespace tokenmix::inline TOKENMIX_ABI
