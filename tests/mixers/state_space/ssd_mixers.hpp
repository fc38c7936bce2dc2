// SPDX-License-Identifier: Apache-2.0
/// @file ssd and mamba3 as the tests of identities see them, each with its oracle.
#pragma once

#include <mixers/linear/state_identities.hpp>
#include <reference/ssd_oracle.hpp>

#include <tokenmix/state_space.hpp>

namespace cases {

inline constexpr double unit_of_float = 0x1p-24;

/// (B, H, T, D) as the (B, T, H, D) of the call.
inline mix::tensor_view<const float, 4> tokens_first(const mix::tensor_view<const float, 4>& x) {
  return x.permuted({0, 2, 1, 3});
}
/// (B, H, T, 1) as (B, T, H).
inline mix::tensor_view<const float, 3> number_per_head(const mix::tensor_view<const float, 4>& x) {
  return {x.data(), {x.extent(0), x.extent(2), x.extent(1)}, {x.stride(0), x.stride(2), x.stride(1)}};
}
inline std::vector<double> row_of(const mix::tensor_view<const float, 4>& x, index_t b, index_t h, index_t t) {
  std::vector<double> row;
  for (index_t i = 0; i < x.extent(3); ++i) row.push_back(static_cast<double>(x(b, h, t, i)));
  return row;
}
inline std::vector<double> row_of(const mix::tensor<double, 4>& x, index_t n, index_t h) {
  return {x.row(n, h), x.row(n, h) + x.extent(2) * x.extent(3)};
}
inline float number_of(index_t h, index_t i) {
  return static_cast<float>(std::sin(static_cast<double>(3 * h + i) + 0.5));
}
inline mix::tensor<float, 2> parameters(index_t H, index_t n) {
  mix::tensor<float, 2> x({H, n});
  for (index_t h = 0; h < H; ++h)
    for (index_t i = 0; i < n; ++i) x(h, i) = number_of(h, i);
  return x;
}

/// How a test's calls are made; skip of (H, P), bias and gate are always there.
struct ssd_choice {
  std::vector<double> decays{-0.02, -1, -0.3};  // A of heads in turn; of Mamba-3: what log decays are made of
  double least = 1e-3, most = 50;
  double steps = 1;  // typical size
};

/// Inputs: x, delta, B, C, gate.
struct ssd_mixer {
  static constexpr bool splits_anywhere = false;
  static constexpr index_t chunk = 64;
  ssd_choice choice{};

  float A(index_t h) const { return static_cast<float>(choice.decays[static_cast<std::size_t>(h) % choice.decays.size()]); }
  static std::vector<mix::extents<4>> inputs(const linear_shape& s) {
    const mix::extents<4> x{s.batch, s.heads, s.tokens, s.value_width}, k{s.batch, s.key_heads, s.tokens, s.width};
    return {x, {s.batch, s.heads, s.tokens, 1}, k, k, x};
  }
  void fill(std::vector<mix::tensor<float, 4>>& in, random_numbers& random) const {
    for (auto& x : in) fill_random(x.view(), random);
    for (float& d : in[1]) d *= static_cast<float>(choice.steps);
  }
  static state_parts initial(const linear_shape& s, index_t n, random_numbers& random) {
    state_parts state(1, mix::tensor<double, 4>({n, s.heads, s.value_width, s.width}));
    for (double& e : state[0]) e = static_cast<double>(static_cast<float>(random.gaussian()));
    return state;
  }
  void operator()(const state_call& c) const {
    auto on = c.on;
    const index_t H = c.out.extent(1), P = c.out.extent(3);
    auto state = state_part<float, 4>((*c.state)[0]);
    mix::tensor<float, 1> rates({H}), bias({H});
    for (index_t h = 0; h < H; ++h) rates(h) = A(h), bias(h) = number_of(h, 7);
    const auto skip = parameters(H, P);
    c.with_sequences([&](auto sequences) {
      mix::ssd(mix::ssd_inputs<float, float, float, 2>{.x = tokens_first(c.in[0]),
                                                       .delta = number_per_head(c.in[1]),
                                                       .A = rates,
                                                       .B = tokens_first(c.in[2]),
                                                       .C = tokens_first(c.in[3]),
                                                       .skip = skip,
                                                       .gate = tokens_first(c.in[4]),
                                                       .delta_bias = bias,
                                                       .initial_state = state},
               c.out.permuted({0, 2, 1, 3}),
               mix::ssd_options<decltype(sequences)>{.delta_form = mix::delta_form::softplus,
                                                     .delta_limits = {choice.least, choice.most},
                                                     .order = c.order,
                                                     .sequences = sequences,
                                                     .final_state = state.view()},
               on);
    });
    put_state_part(state, (*c.state)[0]);
  }
  static void rescale(state_parts&, const state_parts&) {}

  state_answer oracle(const linear_shape& s, const std::vector<mix::tensor<float, 4>>& in, const state_parts& initial,
                      bool reversed) const {
    state_answer a{{}, {}, initial, {initial[0]}};
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * s.value_width), 0);
    a.gate = a.out;
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        reference::ssd_head head(static_cast<std::size_t>(s.value_width), static_cast<std::size_t>(s.width));
        head.S = row_of(initial[0], b, h);
        for (std::size_t i = 0; i < head.S.size(); ++i) head.size[i] = std::abs(head.S[i]);
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i, g = h / (s.heads / s.key_heads);
          const double step = std::clamp(reference::softplus(static_cast<double>(in[1](b, h, t, 0)) +
                                                             static_cast<double>(number_of(h, 7))),
                                         choice.least, choice.most);
          const auto x = row_of(in[0], b, h, t), z = row_of(in[4], b, h, t);
          auto k = row_of(in[2], b, g, t), q = row_of(in[3], b, g, t);
          std::vector<double> of_k, of_q;
          reference::turn_pairs(k, {}, of_k);
          reference::turn_pairs(q, {}, of_q);
          head.token(step * static_cast<double>(A(h)), 0, step, x, k, q, of_k, of_q);
          answer(a, head, x, z, ((b * s.heads + h) * s.tokens + t) * s.value_width, h, 8, 2);
        }
        put(a, 0, b * s.heads + h, head, 8, 2);
      }
    }
    return a;
  }

  static void answer(state_answer& a, const reference::ssd_head& head, const std::vector<double>& x,
                     const std::vector<double>& z, index_t at, index_t h, double near, double far) {
    for (std::size_t p = 0; p < x.size(); ++p) {
      const double skip = static_cast<double>(number_of(h, static_cast<index_t>(p))), silu = z[p] * reference::sigmoid(z[p]);
      const auto e = static_cast<std::size_t>(at) + p;
      a.out[e] = (head.y[p] + skip * x[p]) * silu;
      a.gate[e] = unit_of_float * std::abs(silu) * (near * (head.y_size[p] + std::abs(skip * x[p])) + far * head.y_far[p]);
    }
  }
  static void put(state_answer& a, std::size_t part, index_t place, const reference::ssd_head& head, double near,
                  double far) {
    const auto size = static_cast<index_t>(head.S.size());
    for (index_t i = 0; i < size; ++i) {
      const auto n = static_cast<std::size_t>(i);
      a.state[part].data()[place * size + i] = head.S[n];
      a.state_gate[part].data()[place * size + i] = unit_of_float * (near * head.size[n] + far * head.far[n]);
    }
  }
};

/// Inputs: x, delta, B, C, gate, log decay, trapezoid, rotation. State: the matrix, angles, key, value.
struct mamba3_mixer {
  static constexpr bool splits_anywhere = false;
  static constexpr index_t chunk = 64;
  ssd_choice choice{};

  static index_t pairs(index_t N) { return N / 2 - (N > 8 ? 1 : 0); }
  static std::vector<mix::extents<4>> inputs(const linear_shape& s) {
    auto in = ssd_mixer::inputs(s);
    in.push_back({s.batch, s.heads, s.tokens, 1});
    in.push_back({s.batch, s.heads, s.tokens, 1});
    in.push_back({s.batch, s.key_heads, s.tokens, pairs(s.width)});
    return in;
  }
  void fill(std::vector<mix::tensor<float, 4>>& in, random_numbers& random) const {
    for (auto& x : in) fill_random(x.view(), random);
    for (float& d : in[1]) d *= static_cast<float>(choice.steps);
    for (float& d : in[5]) {
      const double decay = random.one_of(choice.decays);
      d = static_cast<float>(std::isinf(decay) ? decay : decay * std::abs(static_cast<double>(d)));
    }
  }
  static state_parts initial(const linear_shape& s, index_t n, random_numbers& random) {
    state_parts state;
    state.emplace_back(mix::extents<4>{n, s.heads, s.value_width, s.width});
    state.emplace_back(mix::extents<4>{n, s.heads, pairs(s.width), 1});
    state.emplace_back(mix::extents<4>{n, s.heads, s.width, 1});
    state.emplace_back(mix::extents<4>{n, s.heads, s.value_width, 1});
    for (auto& part : state)
      for (double& e : part) e = static_cast<double>(static_cast<float>(random.uniform(-3, 3)));
    return state;
  }
  void operator()(const state_call& c) const {
    auto on = c.on;
    const index_t H = c.out.extent(1), P = c.out.extent(3), N = c.in[2].extent(3);
    auto state = state_part<float, 4>((*c.state)[0]);
    auto angle = state_part<float, 3>((*c.state)[1]), key = state_part<float, 3>((*c.state)[2]),
         value = state_part<float, 3>((*c.state)[3]);
    mix::tensor<float, 1> bias({H});
    for (index_t h = 0; h < H; ++h) bias(h) = number_of(h, 7);
    const auto skip = parameters(H, P), biases = parameters(H, N);
    c.with_sequences([&](auto sequences) {
      mix::mamba3(mix::mamba3_inputs<float, float, float, 2>{.x = tokens_first(c.in[0]),
                                                             .delta = number_per_head(c.in[1]),
                                                             .log_decay = number_per_head(c.in[5]),
                                                             .trapezoid = number_per_head(c.in[6]),
                                                             .B = tokens_first(c.in[2]),
                                                             .C = tokens_first(c.in[3]),
                                                             .rotation = tokens_first(c.in[7]),
                                                             .B_bias = biases,
                                                             .C_bias = biases,
                                                             .skip = skip,
                                                             .gate = tokens_first(c.in[4]),
                                                             .delta_bias = bias,
                                                             .initial_state = {state, angle, key, value}},
                  c.out.permuted({0, 2, 1, 3}),
                  mix::mamba3_options<decltype(sequences)>{
                      .delta_form = mix::delta_form::softplus,
                      .delta_limits = {choice.least, choice.most},
                      .order = c.order,
                      .sequences = sequences,
                      .final_state = {state.view(), angle.view(), key.view(), value.view()}},
                  on);
    });
    put_state_part(state, (*c.state)[0]);
    put_state_part(angle, (*c.state)[1]);
    put_state_part(key, (*c.state)[2]);
    put_state_part(value, (*c.state)[3]);
  }
  static void rescale(state_parts& got, const state_parts& want) {
    const double turn = 2 * std::numbers::pi;
    for (index_t i = 0; i < got[1].size(); ++i)
      got[1].data()[i] += turn * std::round((want[1].data()[i] - got[1].data()[i]) / turn);
  }

  state_answer oracle(const linear_shape& s, const std::vector<mix::tensor<float, 4>>& in, const state_parts& initial,
                      bool reversed) const {
    state_answer a{{}, {}, initial, initial};
    a.out.assign(static_cast<std::size_t>(s.batch * s.heads * s.tokens * s.value_width), 0);
    a.gate = a.out;
    const double tokens = static_cast<double>(s.tokens);
    for (index_t b = 0; b < s.batch; ++b) {
      for (index_t h = 0; h < s.heads; ++h) {
        reference::ssd_head head(static_cast<std::size_t>(s.value_width), static_cast<std::size_t>(s.width));
        head.S = row_of(initial[0], b, h);
        head.last_k = row_of(initial[2], b, h);
        head.last_x = row_of(initial[3], b, h);
        std::vector<double> angles = row_of(initial[1], b, h), travelled(angles.size(), 0);
        const auto pairs = [&](std::size_t i) { return i / 2 < angles.size() ? i ^ 1u : i; };
        for (std::size_t i = 0; i < head.S.size(); ++i)
          head.size[i] = std::hypot(head.S[i], pairs(i % head.N) == i % head.N ? 0 : head.S[i - i % head.N + pairs(i % head.N)]);
        for (std::size_t i = 0; i < head.N; ++i)
          head.last_length[i] = std::hypot(head.last_k[i], pairs(i) == i ? 0 : head.last_k[pairs(i)]);
        for (index_t i = 0; i < s.tokens; ++i) {
          const index_t t = reversed ? s.tokens - 1 - i : i, g = h / (s.heads / s.key_heads);
          const double step = std::clamp(reference::softplus(static_cast<double>(in[1](b, h, t, 0)) +
                                                             static_cast<double>(number_of(h, 7))),
                                         choice.least, choice.most);
          const double lambda = static_cast<double>(in[6](b, h, t, 0));
          const auto x = row_of(in[0], b, h, t), z = row_of(in[4], b, h, t), rates = row_of(in[7], b, g, t);
          auto k = row_of(in[2], b, g, t), q = row_of(in[3], b, g, t);
          for (std::size_t n = 0; n < k.size(); ++n) {
            k[n] += static_cast<double>(number_of(h, static_cast<index_t>(n)));
            q[n] += static_cast<double>(number_of(h, static_cast<index_t>(n)));
          }
          for (std::size_t r = 0; r < angles.size(); ++r) {
            angles[r] += step * rates[r];
            travelled[r] += std::abs(step * rates[r]);
          }
          std::vector<double> of_k, of_q;
          reference::turn_pairs(k, angles, of_k);
          reference::turn_pairs(q, angles, of_q);
          head.token(static_cast<double>(in[5](b, h, t, 0)), step * reference::sigmoid(-lambda),
                     step * reference::sigmoid(lambda), x, k, q, of_k, of_q);
          ssd_mixer::answer(a, head, x, z, ((b * s.heads + h) * s.tokens + t) * s.value_width, h, 12, 8);
        }
        // What is kept stands at its own angle, which was rounded at every token.
        const index_t place = b * s.heads + h;
        ssd_mixer::put(a, 0, place, head, 12 + 8 * tokens, 8);
        for (std::size_t r = 0; r < angles.size(); ++r) {
          const auto e = place * static_cast<index_t>(angles.size()) + static_cast<index_t>(r);
          a.state[1].data()[e] = angles[r];
          a.state_gate[1].data()[e] = unit_of_float * (4 + 4 * tokens + 2 * travelled[r]);
        }
        for (std::size_t n = 0; n < head.N; ++n) {
          const auto e = place * s.width + static_cast<index_t>(n);
          a.state[2].data()[e] = head.last_k[n];
          a.state_gate[2].data()[e] = unit_of_float * (8 + 8 * tokens) * head.last_length[n];
        }
        for (std::size_t p = 0; p < head.P; ++p) {
          a.state[3].data()[place * s.value_width + static_cast<index_t>(p)] = head.last_x[p];
          a.state_gate[3].data()[place * s.value_width + static_cast<index_t>(p)] = 0;
        }
      }
    }
    return a;
  }
};

}  // namespace cases
