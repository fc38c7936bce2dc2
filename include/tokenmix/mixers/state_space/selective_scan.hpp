// SPDX-License-Identifier: Apache-2.0
/// @file The selective scan of Mamba: a diagonal state space per channel whose step size, input and output depend on the token.
#pragma once

#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tasks.hpp>
#include <tokenmix/mixers/state_space/delta.hpp>
#include <tokenmix/mixers/state_space/detail/check.hpp>
#include <tokenmix/mixers/state_space/detail/selective_channels.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// The tensors of selective_scan. P, the type of A, is the computing type of E or complex numbers of it; B and C are of type E,
/// or of A's where A is complex. Views that are left out are absent.
template <class E, class P = accumulator_t<E>>
struct selective_scan_inputs {
  tensor_view<const E, 3> x{};                                    // (B, T, D)
  tensor_view<const E, 3> delta{};                                // (B, T, D)
  tensor_view<const P, 2> A{};                                    // (D, N), real parts <= 0
  tensor_view<const detail::selective_row_element<E, P>, 4> B{};  // (B, T, G, N), D a multiple of G
  tensor_view<const detail::selective_row_element<E, P>, 4> C{};  // (B, T, G, N)
  tensor_view<const P, 2> constant_B{};                           // (D, N), instead of B
  tensor_view<const P, 2> constant_C{};                           // (D, N), instead of C
  tensor_view<const accumulator_t<E>, 1> skip{};                  // (D)
  tensor_view<const E, 3> gate{};                                 // (B, T, D)
  tensor_view<const accumulator_t<E>, 1> delta_bias{};            // (D)
  tensor_view<const P, 3> initial_state{};                        // (n, D, N)
};

/// Options of selective_scan: use with designated initialisers; the order of the fields is API.
template <class Sequences = whole_sequences, class P = float>
struct selective_scan_options {
  tokenmix::delta_form delta_form = tokenmix::delta_form::given;  ///< given, >= 0 with its bias, or softplus
  tokenmix::order order = tokenmix::order::forward;               ///< forward or reverse
  Sequences sequences{};                                          ///< whole_sequences, lengths or packed
  tensor_view<P, 3> final_state{};                                ///< (n, D, N), output; may be the initial state
};

namespace detail {

/// How the channels of a group are cut into tasks. No choice made here changes a bit of the result.
struct selective_cut {
  index_t width;     // of a group
  index_t channels;  // of a task
  index_t parts;     // of a group

  /// `groups` of all sequences. A task has enough channels for long runs of a row, few enough that their parameters and
  /// states stay in the first caches, and fewer where workers would have nothing to do.
  template <class T>
  static selective_cut of(index_t width, index_t groups, index_t workers) {
    constexpr index_t most = 256, least = 2 * simd::lanes<T>;
    index_t channels = most;
    if (workers > 1) {
      const index_t wanted = (2 * workers + groups - 1) / std::max<index_t>(groups, 1);
      channels = std::clamp((width / std::max<index_t>(wanted, 1) + least - 1) / least * least, least, most);
    }
    return {width, channels, (width + channels - 1) / channels};
  }

  struct part {
    index_t group, first, last;  // channels [first, last)
  };
  part at(index_t task) const {
    const index_t group = task / parts, begin = group * width, first = begin + task % parts * channels;
    return {group, first, std::min(first + channels, begin + width)};
  }
};

}  // namespace detail

/// The selective scan, in every channel d with its group g = d / (D / G):
///
///     delta'[t] = delta[t] + delta_bias, then its softplus if options.delta_form says so
///     h[t][n]   = exp(delta'[t] A[d][n]) h[t - 1][n] + delta'[t] B[t][g][n] x[t]
///     y[t]      = sum over n of C[t][g][n] h[t][n]         for a complex A: twice the real part of that sum
///     out[t]    = (y[t] + skip x[t]) silu(gate[t])
///
/// A is discretised exactly (zero-order hold), B by Euler's rule, delta B, as the published model does.
///
/// Shapes     x, delta, gate, out: (B, T, D), each with contiguous channels or with contiguous time: a tensor (B, D, T) is given as
///            permuted({0, 2, 1}) and read in place. B, C: (B, T, G, N), last axis contiguous. A, constant_B, constant_C: (D, N).
///            skip, delta_bias: (D). States: (n, D, N), n sequences. Other strides as they are.
/// Aliasing   out and final_state share no element with an input; final_state may be initial_state itself.
/// Numerics   computed in float (double for double), u = 2^-24: |error| <= 8 u A + 4 u A1 before the gate, A the recurrence on
///            absolute values, A1 that with every part times its distance and the exponents that it decayed by; twice that for a
///            complex A. Exponents delta A are to be <= 0 (asserted of A in debug builds): the state then never grows by itself. A
///            decay below the least normal number, that of delta A = -infinity included, is 0 and does not read the old state.
///            The same bits for any executor, batch neighbours, strides and split into calls, reversed as flipped, packed as alone.
/// Cost       an exponential, 2 multiplications and 2 fused ones per state and token; every operand read once (x twice, if there
///            is a skip). Workspace 2 N 256 numbers and 64 tokens per thread. One token reads A and the states once, where they
///            lie if N is contiguous in them, and allocates nothing. A complex A takes a scalar sine and cosine more.
/// Errors     shape_error and value_error as the messages say; nothing is written then. Empty dimensions are legal.
/// Source     Gu and Dao 2023 (Mamba), algorithm 2 and equation 4.
template <class E, class P, class O, class Sequences = whole_sequences, executor Executor = calling_thread>
void selective_scan(const selective_scan_inputs<E, P>& inputs, tensor_view<O, 3> out,
                    const selective_scan_options<Sequences, std::type_identity_t<P>>& options = {},
                    Executor&& on = {}) {
  using T = accumulator_t<E>;
  static_assert(std::is_same_v<P, T> || std::is_same_v<P, std::complex<T>>,
                "A is of the computing type, or of complex numbers of it");
  static_assert(!std::is_const_v<O>, "out must be writable");
  const auto& [x, delta, A, B, C, constant_B, constant_C, skip, gate, bias, initial] = inputs;
  const auto& final = options.final_state;
  if (options.order == order::bidirectional)
    detail::fail_value("order is bidirectional: a selective scan has a direction");
  detail::check_rows_or_lines("x", x);
  detail::check_rows_or_lines("delta", delta);
  detail::check_same_shape("delta", delta, "x", x);
  detail::check_view("A", A);
  const index_t D = x.extent(2), N = A.extent(1);
  detail::check_extent("A", A, 0, "channels", D, "x has that many");
  detail::check_rows_or_constant("B", B, "constant_B", constant_B, {D, N}, "(D, N)");
  detail::check_rows_or_constant("C", C, "constant_C", constant_C, {D, N}, "(D, N)");
  const index_t G = constant_B.data() == nullptr ? B.extent(2) : constant_C.data() == nullptr ? C.extent(2) : 1;
  if (G == 0 ? D != 0 : D % G != 0)
    detail::fail_shape(constant_B.data() == nullptr ? "B" : "C", " has ", G, " groups, x has ", D,
                       " channels: the number of channels must be a multiple of the number of groups");
  const extents<4> rows{x.extent(0), x.extent(1), G, N};
  if (constant_B.data() == nullptr) detail::check_shape("B", B, rows, "(B, T, G, N)");
  if (constant_C.data() == nullptr) detail::check_shape("C", C, rows, "(B, T, G, N)");
  detail::check_optional("skip", skip, {D}, "(D)");
  detail::check_optional("delta_bias", bias, {D}, "(D)");
  if (gate.data() != nullptr) {
    detail::check_rows_or_lines("gate", gate);
    detail::check_same_shape("gate", gate, "x", x);
  }
  options.sequences.check(x.extent(0), x.extent(1), x.extent(1));
  const index_t n = options.sequences.count(x.extent(0));
  for (index_t i = 0; i < n; ++i) {
    const sequence seq = options.sequences.at(i, x.extent(1), x.extent(1));
    if (seq.queries != seq.keys || seq.query_row != seq.key_row)
      detail::fail_value("sequences: number ", i, " has ", seq.queries, " queries and ", seq.keys,
                         " keys: a recurrent mixer takes them together");
  }
  detail::check_rows_or_lines("out", tensor_view<const O, 3>(out));
  detail::check_writable_strides("out", tensor_view<const O, 3>(out));
  detail::check_same_shape("out", out, "x", x);
  detail::check_optional("initial_state", initial, {n, D, N}, "(sequences, D, N)");
  const auto apart = [&](const char* name, const auto& written) {
    const auto from = [&](const char* other, const auto& read) { detail::check_overlap(name, written, other, read); };
    from("x", x), from("delta", delta), from("A", A), from("B", B), from("C", C), from("constant_B", constant_B);
    from("constant_C", constant_C), from("skip", skip), from("delta_bias", bias), from("gate", gate);
  };
  apart("out", out);
  detail::check_overlap("out", out, "initial_state", initial);
  if (final.data() != nullptr) {
    detail::check_view("final_state", final);
    detail::check_shape("final_state", final, {n, D, N}, "(sequences, D, N)");
    detail::check_writable_strides("final_state", final);
    apart("final_state", final);
    detail::check_overlap("final_state", final, "out", out);
    detail::check_overlap("final_state", final, "initial_state", initial, detail::aliasing::identical);
  }

  if (D == 0) return;
  const auto cut = detail::selective_cut::of<T>(D / G, n * G, on.concurrency());
  const index_t tasks = G * cut.parts;
  detail::run_tasks(on, n * tasks, [&](index_t task) {
    const index_t number = task / tasks;
    const sequence seq = options.sequences.at(number, x.extent(1), x.extent(1));
    const auto part = cut.at(task % tasks);
    const auto of = [&](const auto& view, index_t i) {
      return view.data() == nullptr ? decltype(view.part(i)){} : view.part(i);
    };
    detail::selective_channels<E, P, O>{
        .x = x.part(seq.batch),
        .delta = delta.part(seq.batch),
        .gate = of(gate, seq.batch),
        .b = of(B, seq.batch),
        .c = of(C, seq.batch),
        .A = A,
        .constant_b = constant_B,
        .constant_c = constant_C,
        .skip = skip,
        .bias = bias,
        .initial = of(initial, number),
        .final = of(final, number),
        .out = out.part(seq.batch),
        .path = {.first = seq.key_row, .tokens = seq.keys, .reversed = options.order == order::reverse},
        .softplus = options.delta_form == delta_form::softplus}
        .run(part.group, part.first, part.last);
  });
}

}  // namespace tokenmix::inline TOKENMIX_ABI
