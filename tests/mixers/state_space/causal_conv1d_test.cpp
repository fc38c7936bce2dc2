// SPDX-License-Identifier: Apache-2.0
// causal_conv1d against its formula in both layouts, and the identities that it promises.
//
// Budget: (k + 1) u (|bias| + sum |weight x|). Identities and states: memcmp.
#include <reference/guarded.hpp>
#include <reference/strided.hpp>

#include "causal_conv_cases.hpp"

namespace {

using cases::conv_operands;
using cases::conv_shape;
using cases::index_t;

TEST(causal_conv1d, oracle) {
  cases::gate_record worst;
  std::uint64_t seed = 0;
  std::vector<conv_shape> shapes;
  for (index_t T : {0, 1, 2, 3, 4, 5, 15, 16, 17, 64, 131})
    for (index_t C : {1, 3, 16, 37}) shapes.push_back({2, T, C, 4, 1});
  for (index_t k : {1, 2, 3, 4, 5, 9, 33})
    for (index_t d : {1, 2, 7})
      for (index_t T : {1, 6, 90}) shapes.push_back({1, T, 19, k, d});
  shapes.push_back({0, 5, 5, 4, 1});
  shapes.push_back({2, 5, 0, 4, 1});
  for (const conv_shape& s : shapes) {
    ++seed;
    if (cases::reduced_sweep && seed % 3 != 0) continue;
    for (index_t axis : {1, 2}) {
      for (int variant = 0; variant < 5; ++variant) {
        conv_operands<float> x(s, seed, axis);
        x.has_bias = variant % 2 == 0;
        x.has_state = variant < 2;
        if (variant == 1 || variant == 3) x.options.order = mix::order::reverse;
        if (variant >= 3) x.options.window = mix::convolution_window::centered;
        x.run();
        x.expect_oracle(s.text() + " axis " + std::to_string(axis) + " variant " + std::to_string(variant), &worst);
      }
    }
  }
  std::printf("largest error: %.2f of the gate, %s\n", worst.worst, worst.where.c_str());
}

TEST(causal_conv1d, layouts_have_the_same_bits) {
  for (const conv_shape& s : {conv_shape{2, 75, 37, 4, 1}, conv_shape{1, 40, 21, 3, 5}, conv_shape{1, 2, 18, 4, 1}}) {
    conv_operands<float> rows(s, 3, 1), lines(s, 3, 2);
    for (index_t b = 0; b < s.batch; ++b)
      for (index_t c = 0; c < s.channels; ++c) {
        for (index_t t = 0; t < s.tokens; ++t) lines.x(b, c, t) = rows.x(b, t, c);
        for (index_t t = 0; t < s.span(); ++t) lines.initial(b, c, t) = rows.initial(b, t, c);
      }
    rows.run();
    lines.run();
    cases::expect_same_conv(lines, rows, s.text());
  }
}

// In place, reversed as flipped, on threads, cut anywhere with one state, step by step.
TEST(causal_conv1d, identities) {
  for (const conv_shape& s :
       {conv_shape{2, 45, 70, 4, 1}, conv_shape{1, 1500, 7, 4, 2}, conv_shape{1, 33, 300, 3, 1}}) {
    for (index_t axis : {1, 2}) {
      for (const auto order : {mix::order::forward, mix::order::reverse}) {
        const std::string label = s.text() + " axis " + std::to_string(axis);
        conv_operands<float> whole(s, 5, axis);
        whole.options.order = order;
        whole.run();
        const auto like = [&] {
          conv_operands<float> x(s, 5, axis);
          x.options.order = order;
          return x;
        };
        {
          auto x = like();
          auto options = x.options;
          options.final_state = x.initial;
          mix::causal_conv1d(x.inputs(), x.x.view(), options);
          x.out = x.x, x.final_state = x.initial;
          cases::expect_same_conv(x, whole, label + " in place");
        }
        for (index_t threads : {2, 5, 33}) {
          auto x = like();
          x.run(cases::delayed_threads(threads, 7));
          cases::expect_same_conv(x, whole, label + " on threads");
          x = like();
          auto options = x.options;
          options.final_state = x.initial;
          mix::causal_conv1d(x.inputs(), x.x.view(), options, cases::delayed_threads(threads, 8));
          x.out = x.x, x.final_state = x.initial;
          cases::expect_same_conv(x, whole, label + " in place on threads");
        }
        const auto time = static_cast<std::size_t>(axis);
        const auto cut = [&](const std::vector<index_t>& ends) {
          auto x = like();
          index_t first = 0;
          for (index_t end : ends) {
            auto in = x.inputs();
            auto options = x.options;
            const index_t from = order == mix::order::forward ? first : s.tokens - end;
            in.x = in.x.slice(time, from, end - first);
            options.final_state = x.initial;
            mix::causal_conv1d(in, x.out.slice(time, from, end - first), options);
            first = end;
          }
          x.final_state = x.initial;
          cases::expect_same_conv(x, whole, label + " cut");
        };
        std::vector<index_t> steps;
        for (index_t t = 1; t <= s.tokens; ++t) steps.push_back(t);
        cut(steps);
        cut({s.tokens / 3, s.tokens / 3, s.tokens / 3 + 2, s.tokens});
      }
      conv_operands<float> forward(s, 6, axis), reverse(s, 6, axis);
      const auto time = static_cast<std::size_t>(axis);
      const auto flip = [&](const auto& view) {
        auto strides = view.strides();
        auto* data = view.data() + (view.extent(time) - 1) * strides[time];
        strides[time] = -strides[time];
        return std::remove_cvref_t<decltype(view)>(data, view.shape(), strides);
      };
      reverse.options.order = mix::order::reverse;
      reverse.run();
      auto in = forward.inputs();
      auto options = forward.options;
      options.final_state = forward.final_state;
      if (axis == 1) {
        in.x = flip(in.x);
        mix::causal_conv1d(in, flip(forward.out.view()), options);
      } else {  // reversed time is not contiguous: channel by channel it is
        for (index_t b = 0; b < s.batch; ++b)
          for (index_t c = 0; c < s.channels; ++c) std::reverse(forward.x.row(b, c), forward.x.row(b, c) + s.tokens);
        mix::causal_conv1d(forward.inputs(), forward.out.view(), options);
        for (index_t b = 0; b < s.batch; ++b)
          for (index_t c = 0; c < s.channels; ++c)
            std::reverse(forward.out.row(b, c), forward.out.row(b, c) + s.tokens);
      }
      cases::expect_same_conv(reverse, forward, s.text() + " reversed");
    }
  }
}

// Sequences in one buffer with states anywhere in a pool.
TEST(causal_conv1d, packed_with_a_pool) {
  const std::vector<std::int32_t> offsets{1, 1, 2, 19, 21, 58}, pool{4, 0, 6, 3, 1};
  for (index_t axis : {1, 2}) {
    for (const auto order : {mix::order::forward, mix::order::reverse}) {
      const conv_shape s{1, 60, 21, 4, 1};
      conv_operands<float> x(s, 2, axis, 8), y = x;
      const auto time = static_cast<std::size_t>(axis);
      using packed = mix::packed<std::int32_t>;
      mix::causal_conv1d(x.inputs(), x.out.view(),
                         mix::causal_conv1d_options<mix::as_given, packed, float>{.axis = axis,
                                                                                  .order = order,
                                                                                  .sequences = packed{offsets},
                                                                                  .state_index = pool,
                                                                                  .final_state = x.final_state.view()});
      for (std::size_t i = 0; i < pool.size(); ++i) {
        const index_t first = offsets[i], count = offsets[i + 1] - offsets[i];
        auto in = y.inputs();
        auto options = y.options;
        in.x = in.x.slice(time, first, count);
        in.initial_state = in.initial_state.slice(0, pool[i], 1);
        options.order = order;
        options.final_state = y.final_state.slice(0, pool[i], 1);
        mix::causal_conv1d(in, y.out.slice(time, first, count), options);
      }
      cases::expect_same_conv(x, y, "packed, axis " + std::to_string(axis));
      // The pool in place, and sequences by lengths.
      mix::causal_conv1d(y.inputs(), y.out.view(),
                         mix::causal_conv1d_options<mix::as_given, packed, float>{.axis = axis,
                                                                                  .order = order,
                                                                                  .sequences = packed{offsets},
                                                                                  .state_index = pool,
                                                                                  .final_state = y.initial.view()});
      for (std::int32_t p : pool)
        cases::expect_same_bits<float, 3>(y.initial.slice(0, p, 1), x.final_state.slice(0, p, 1), "pool in place");
    }
  }
}

// One tap needs no state; a pool of empty ones is no error.
TEST(causal_conv1d, one_tap_with_a_pool) {
  conv_operands<float> x({2, 5, 18, 1, 1}, 4), y = x;
  const std::vector<std::int32_t> pool{1, 0};
  auto options = x.options;
  options.state_index = pool;
  options.final_state = x.final_state;
  mix::causal_conv1d(x.inputs(), x.out.view(), options);
  y.has_state = false;
  y.run();
  cases::expect_same_bits<float, 3>(x.out, y.out, "one tap");
}

TEST(causal_conv1d, lengths) {
  conv_operands<float> x({3, 20, 18, 4, 1}, 4), y = x;
  const std::vector<index_t> keys{7, 0, 20};
  mix::causal_conv1d(x.inputs(), x.out.view(),
                     mix::causal_conv1d_options<mix::as_given, mix::lengths, float>{
                         .sequences = {.keys = keys, .queries = keys}, .final_state = x.final_state.view()});
  for (index_t b = 0; b < 3; ++b) {
    auto in = y.inputs();
    in.x = in.x.slice(0, b, 1).slice(1, 0, keys[static_cast<std::size_t>(b)]);
    in.initial_state = in.initial_state.slice(0, b, 1);
    auto options = y.options;
    options.final_state = y.final_state.slice(0, b, 1);
    mix::causal_conv1d(in, y.out.slice(0, b, 1).slice(1, 0, keys[static_cast<std::size_t>(b)]), options);
  }
  cases::expect_same_conv(x, y, "lengths");
}

TEST(causal_conv1d, strides_and_guard_pages) {
  for (const conv_shape& s : {conv_shape{2, 21, 37, 4, 1}, conv_shape{2, 30, 9, 3, 2}}) {
    for (index_t axis : {1, 2}) {
      conv_operands<float> plain(s, 9, axis);
      plain.run();
      for (const auto& l : reference::layouts<3>()) {
        conv_operands<float> x(s, 9, axis);
        const reference::strided<float, 3> in(x.x, l), out(x.out.shape(), l), initial(x.initial, l),
            last(x.initial.shape(), l);
        auto inputs = x.inputs();
        auto options = x.options;
        inputs.x = in.view();
        inputs.initial_state = initial.view();
        options.final_state = last.view();
        mix::causal_conv1d(inputs, out.view(), options);
        cases::expect_same_bits<float, 3>(out.view(), plain.out, s.text() + " " + l.name);
        cases::expect_same_bits<float, 3>(last.view(), plain.final_state, s.text() + " " + l.name);
        EXPECT_TRUE(out.gaps_untouched() && last.gaps_untouched()) << l.name;
      }
      for (const auto side : {reference::flush::end, reference::flush::start}) {
        conv_operands<float> x(s, 9, axis);
        const reference::guarded_buffer<float> in(x.x.data(), x.x.size(), side),
            initial(x.initial.data(), x.initial.size(), side), weight(x.weight.data(), x.weight.size(), side),
            bias(x.bias.data(), x.bias.size(), side);
        reference::guarded_buffer<float> out(x.out.size(), side);
        mix::causal_conv1d(mix::causal_conv1d_inputs<float>{.x = {in.data(), x.x.shape()},
                                                            .weight = {weight.data(), x.weight.shape()},
                                                            .bias = {bias.data(), x.bias.shape()},
                                                            .initial_state = {initial.data(), x.initial.shape()}},
                           mix::tensor_view<float, 3>(out.data(), x.out.shape()), x.options);
        cases::expect_same_bits<float, 3>(mix::tensor_view<const float, 3>(out.data(), x.out.shape()), plain.out,
                                          s.text() + " between guard pages");
      }
    }
  }
}

// A NaN reaches the k tokens from its own on, in its channel and sequence.
TEST(causal_conv1d, nan_stays) {
  for (index_t axis : {1, 2}) {
    const conv_shape s{2, 40, 21, 4, 1};
    conv_operands<float> clean(s, 4, axis), x = clean;
    clean.run();
    x.at(x.x.view(), 1, 17, 20) = std::nanf("");
    x.run();
    for (index_t b = 0; b < 2; ++b)
      for (index_t t = 0; t < 40; ++t)
        for (index_t c = 0; c < 21; ++c) {
          const float got = x.at(x.out.view(), b, t, c);
          if (b == 1 && c == 20 && t >= 17 && t < 21) {
            EXPECT_TRUE(std::isnan(got));
          } else {
            EXPECT_TRUE(cases::same_bits(got, clean.at(clean.out.view(), b, t, c)));
          }
        }
  }
}

TEST(causal_conv1d, errors) {
  using options = mix::causal_conv1d_options<>;
  conv_operands<float> x({2, 5, 8, 4, 1}, 1);
  const auto good = x.inputs();
  const auto fails = [&](const mix::causal_conv1d_inputs<float>& in, const options& o, const std::string& message) {
    try {
      mix::causal_conv1d(in, x.out.view(), o);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  const mix::tensor<float, 2> none({8, 0}), few({7, 4});
  const mix::tensor<float, 1> bias({9});
  const mix::tensor<float, 3> state({2, 4, 8}), states({3, 3, 8});
  auto in = good;
  in.weight = none;
  fails(in, {}, "weight is (8, 0): a convolution has at least one tap");
  in.weight = few;
  fails(in, {}, "weight has 7 channels, expected 8: x has that many");
  in = good, in.bias = bias;
  fails(in, {}, "bias has 9 channels, expected 8");
  in = good, in.initial_state = state;
  fails(in, {}, "initial_state is (2, 4, 8), expected (states, (k - 1) dilation, C) = (2, 3, 8)");
  fails(good, {.axis = 2}, "weight has 8 channels, expected 5");
  fails(good, {.axis = 0}, "axis is 0: time is axis 1 or 2");
  fails(good, {.dilation = 0}, "dilation is 0: expected 1 or more");
  fails(good, {.dilation = index_t{1} << 62}, "span more than 2^30 tokens");
  fails(good, {.dilation = 2}, "initial_state is (2, 3, 8), expected (states, (k - 1) dilation, C) = (2, 6, 8)");
  fails(good, {.order = mix::order::bidirectional}, "order is bidirectional");
  fails(good, {.window = mix::convolution_window::centered},
        "initial_state is given: a centered convolution has no state");
  in = good, in.initial_state = states;
  fails(in, {}, "initial_state is (3, 3, 8), expected (states, (k - 1) dilation, C) = (2, 3, 8)");
  const std::vector<std::int32_t> short_list{0}, negative{1, -2}, beyond{0, 3}, twice{2, 2};
  fails(in, {.state_index = short_list}, "state_index has 1 entries, there are 2 sequences");
  fails(in, {.state_index = negative}, "state_index[1] is -2: indices are not negative");
  fails(in, {.state_index = beyond}, "state_index[1] is 3: there are 3 states");
  fails(in, {.state_index = twice}, "state_index[1] is 2, as is state_index[0]: sequences share no state");
  in.initial_state = {};
  fails(in, {.state_index = twice}, "state_index is given without");
  fails(good, {.final_state = x.final_state.slice(0, 0, 1)}, "final_state is (1, 3, 8)");
  fails(good, {.final_state = {x.x.data(), {2, 3, 8}}}, "final_state overlaps x");
  in = good, in.x = {x.x.data(), {2, 5, 8}, {80, 16, 2}};
  const mix::tensor<float, 3> large({2, 10, 16});
  in.x = {large.data(), {2, 5, 8}, {160, 16, 2}};
  fails(in, {}, "channels or time must be contiguous");
  in = good, in.x = {x.out.data(), {2, 5, 8}, {0, 8, 1}};
  fails(in, {}, "out overlaps x");
  in = good, in.x = x.out, in.initial_state = {};
  fails(in, {.window = mix::convolution_window::centered}, "out overlaps x: it must share no element with it");
  for (float e : x.out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
