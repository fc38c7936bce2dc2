// SPDX-License-Identifier: Apache-2.0
/// @file The LinearAttention operator of ONNX: packed heads as views, and the mixer that its rule names.
#pragma once

#include <tokenmix/mixers/linear/delta_rule.hpp>
#include <tokenmix/mixers/linear/gated_delta_rule.hpp>
#include <tokenmix/mixers/linear/gated_linear_attention.hpp>
#include <tokenmix/mixers/linear/linear_attention.hpp>

#include <optional>

namespace tokenmix::inline TOKENMIX_ABI {

/// The operator's attribute update_rule.
enum class onnx_update_rule : unsigned char { linear, gated, delta, gated_delta };

/// The operator's inputs, heads packed into the last axis. All tensors are of one type but the states.
template <class E, class State = accumulator_t<E>>
struct onnx_linear_attention_inputs {
  tensor_view<const E, 3> query{};           // (B, T, Hq Dk)
  tensor_view<const E, 3> key{};             // (B, T, Hkv Dk)
  tensor_view<const E, 3> value{};           // (B, T, Hkv Dv)
  tensor_view<const State, 4> past_state{};  // (B, Hkv, Dk, Dv); zero if empty
  tensor_view<const E, 3> decay{};           // (B, T, Hkv Dk) or (B, T, Hkv): logs, <= 0; of the gated rules
  tensor_view<const E, 3> beta{};            // (B, T, Hkv) or (B, T, 1); of the delta rules
};

/// The operator's attributes and its second output.
template <class State = float>
struct onnx_linear_attention_options {
  index_t q_num_heads = 0;
  index_t kv_num_heads = 0;
  onnx_update_rule update_rule = onnx_update_rule::gated_delta;
  double scale = 0;                       ///< of query; 1 / sqrt(Dk) if 0
  tensor_view<State, 4> present_state{};  ///< (B, Hkv, Dk, Dv); may be the past state; none if empty
};

namespace detail {

/// (B, T, H D) as (B, H, T, D).
template <class E>
tensor_view<E, 4> unpacked_heads(const char* name, const tensor_view<E, 3>& packed, index_t heads) {
  check_view(name, tensor_view<const E, 3>(packed));
  check_channels_contiguous(name, tensor_view<const E, 3>(packed));
  if (heads <= 0 || packed.extent(2) % heads != 0)
    fail_shape(name, " has ", packed.extent(2), " channels for ", heads, " heads: they must be a multiple");
  const index_t D = packed.extent(2) / heads;
  return {packed.data(), {packed.extent(0), heads, packed.extent(1), D}, {packed.stride(0), D, packed.stride(1), 1}};
}

/// (B, T, H) as (B, H, T).
template <class E>
tensor_view<const E, 3> numbers_of_heads(const tensor_view<const E, 3>& packed) {
  return {packed.data(),
          {packed.extent(0), packed.extent(2), packed.extent(1)},
          {packed.stride(0), packed.stride(2), packed.stride(1)}};
}

}  // namespace detail

/// The LinearAttention operator of ONNX, opset 27: views onto linear_attention, gated_linear_attention, delta_rule and
/// gated_delta_rule, with nothing copied.
///
///     linear        S[t] = S[t-1] + k[t] v[t]'
///     gated         S[t] = exp(decay[t]) S[t-1] + k[t] v[t]'
///     delta         S[t] = S[t-1] + beta[t] k[t] (v[t] - S[t-1]' k[t])'
///     gated_delta   S[t] = exp(decay[t]) S[t-1] + beta[t] k[t] (v[t] - (exp(decay[t]) S[t-1])' k[t])'
///     output[t]     = scale S[t]' q[t]
///
/// Shapes     query: (B, T, Hq Dk); key: (B, T, Hkv Dk); value: (B, T, Hkv Dv); output: (B, T, Hq Dv); the last axis contiguous;
///            Hq a multiple of Hkv. decay: (B, T, Hkv Dk) or (B, T, Hkv); beta: (B, T, Hkv) or (B, T, 1). States:
///            (B, Hkv, Dk, Dv). Where Dk is 1 a decay is per head.
/// Aliasing   output and present_state share no element with an input; present_state may be past_state itself.
/// Numerics   as the mixer of the rule. States are float for 16-bit inputs, which is finer than the operator asks for.
/// Cost       as the mixer of the rule.
/// Errors     value_error if an input of the rule is missing or one that it does not have is given; shape_error and
///            value_error as the mixer's; nothing is written then.
/// Source     ONNX operators, LinearAttention, version 27.
template <class E, class State, class O, executor Executor = calling_thread>
void onnx_linear_attention(const onnx_linear_attention_inputs<E, State>& inputs,
                           tensor_view<O, 3> output,  // (B, T, Hq Dv)
                           const onnx_linear_attention_options<accumulator_t<E>>& options, Executor&& on = {}) {
  static_assert(std::is_same_v<State, accumulator_t<E>>, "a state is kept in the computing type");
  const index_t Hq = options.q_num_heads, Hkv = options.kv_num_heads;
  const auto q = detail::unpacked_heads("query", inputs.query, Hq);
  const auto k = detail::unpacked_heads("key", inputs.key, Hkv);
  const auto v = detail::unpacked_heads("value", inputs.value, Hkv);
  const auto out = detail::unpacked_heads("output", output, Hq);
  const bool gated =
      options.update_rule == onnx_update_rule::gated || options.update_rule == onnx_update_rule::gated_delta;
  const bool delta =
      options.update_rule == onnx_update_rule::delta || options.update_rule == onnx_update_rule::gated_delta;
  // An input that is given has three axes, be they empty; one that is not has none of the batch.
  const auto check_presence = [](const char* name, const tensor_view<const E, 3>& view, bool wanted) {
    const bool given = view.data() != nullptr || view.extent(2) != 0;
    if (given && !wanted) detail::fail_value(name, " is given: update_rule has no use for it");
    if (!given && wanted) detail::fail_value(name, " is missing: update_rule needs it");
  };
  check_presence("decay", inputs.decay, gated);
  check_presence("beta", inputs.beta, delta);
  const bool per_key = gated && inputs.decay.extent(2) != Hkv;
  const double scale =
      options.scale != 0 ? options.scale : 1 / std::sqrt(static_cast<double>(std::max<index_t>(k.extent(3), 1)));
  const auto beta = detail::numbers_of_heads(inputs.beta);
  const auto head_decay = detail::numbers_of_heads(inputs.decay);
  const auto key_decay = per_key ? detail::unpacked_heads("decay", inputs.decay, Hkv) : tensor_view<const E, 4>();
  const auto& s0 = inputs.past_state;
  const auto& s1 = options.present_state;
  using T = accumulator_t<E>;

  const auto run_gated = [&](const auto& decay) {
    constexpr std::size_t R = std::remove_cvref_t<decltype(decay)>::rank;
    if (delta) {
      gated_delta_rule(
          gated_delta_inputs<E, E, E, R, E, 3>{
              .q = q, .k = k, .v = v, .log_decay = decay, .beta = beta, .initial_state = s0},
          out, gated_delta_options<as_given, given_log_decay, whole_sequences, T>{.scale = scale, .final_state = s1},
          on);
    } else {
      gated_linear_attention(
          gated_linear_inputs<E, E, E, R>{.q = q, .k = k, .v = v, .log_decay = decay, .initial_state = s0}, out,
          gated_linear_options<as_given, given_log_decay, key_channels, whole_sequences, T>{.scale = scale,
                                                                                            .final_state = s1},
          on);
    }
  };
  if (per_key) {
    run_gated(key_decay);
  } else if (gated) {
    run_gated(head_decay);
  } else if (delta) {
    delta_rule(delta_inputs<E, E, E, 3>{.q = q, .k = k, .v = v, .beta = beta, .initial_state = s0}, out,
               delta_options<as_given, whole_sequences, T>{.scale = scale, .final_state = s1}, on);
  } else {
    linear_attention(linear_inputs<E, E>{.q = q, .k = k, .v = v, .initial_state = s0}, out,
                     linear_options<as_given, unnormalized, whole_sequences, T>{.scale = scale, .final_state = s1}, on);
  }
}

}  // namespace tokenmix::inline TOKENMIX_ABI
