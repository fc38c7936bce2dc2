// SPDX-License-Identifier: Apache-2.0
// What a selective scan promises besides its formula: same bits however it is cut, laid out and shared; resets; errors; complex A.
//
// Budget: memcmp; for a complex A 16 u A + 4 u A1.
#include <bench/support/allocations.hpp>
#include <mixers/state_space/selective_cases.hpp>
#include <reference/guarded.hpp>

#include <limits>
#include <span>

namespace {

using cases::index_t;
using operands = cases::selective_operands<float, float>;
using whole_options = mix::selective_scan_options<>;

const float nan = std::numeric_limits<float>::quiet_NaN();
const float infinity = std::numeric_limits<float>::infinity();

TEST(selective_scan_identities, complex) {
  for (const bool constant : {false, true}) {
    cases::selective_operands<float, std::complex<float>> o({1, 70, 19, 1, 5}, 3);
    o.constant = constant;
    o.expect_oracle();
    // Without softplus: step sizes are positive as they are given.
    cases::selective_operands<float, std::complex<float>> plain({1, 70, 19, 1, 5}, 4, 1, false);
    plain.constant = constant;
    plain.expect_oracle(mix::order::reverse);
  }
}

// Tokens one by one, in two parts at any place, and all at once.
TEST(selective_scan_identities, split_anywhere) {
  operands o({1, 130, 35, 1, 17}, 1);
  const auto whole = o.result();
  const auto whole_state = o.final;
  for (const index_t step : {1, 7, 64, 129}) {
    auto state = o.initial;
    mix::tensor<float, 3> out(o.out.shape());
    for (index_t t = 0; t < 130; t += step) {
      const index_t n = std::min<index_t>(step, 130 - t);
      auto in = o.inputs();
      in.x = o.x.slice(1, t, n), in.delta = o.delta.slice(1, t, n), in.gate = o.gate.slice(1, t, n);
      in.B = o.B.slice(1, t, n), in.C = o.C.slice(1, t, n);
      in.initial_state = state;
      mix::selective_scan(in, out.slice(1, t, n), {.delta_form = o.delta_form(), .final_state = state.view()});
    }
    EXPECT_TRUE(reference::same_bits<float>(out.view(), whole.view())) << step;
    EXPECT_TRUE(reference::same_bits<float>(state.view(), whole_state.view())) << step;
  }
}

TEST(selective_scan_identities, threads_strides_and_neighbours) {
  operands o({3, 70, 530, 2, 16}, 2);
  const auto want = o.result();
  const whole_options options{.delta_form = o.delta_form()};
  mix::tensor<float, 3> out(o.out.shape());
  for (const index_t n : {2, 5}) {
    cases::delayed_threads threads(n);
    mix::selective_scan(o.inputs(), out.view(), options, threads);
    EXPECT_TRUE(reference::same_bits<float>(out.view(), want.view())) << n;
  }
  cases::backwards backwards;
  mix::selective_scan(o.inputs(), out.view(), options, backwards);
  EXPECT_TRUE(reference::same_bits<float>(out.view(), want.view()));
  const auto layouts3 = reference::layouts<3>();
  const auto layouts4 = reference::layouts<4>();
  for (std::size_t i = 0; i < layouts3.size(); ++i) {
    const auto& l = layouts3[i];
    const auto& l4 = layouts4[i % layouts4.size()];
    const reference::strided<float, 3> x(o.x, l), delta(o.delta, l), gate(o.gate, l), to(o.out, l);
    const reference::strided<float, 4> B(o.B, l4), C(o.C, l4);
    auto in = o.inputs();
    in.x = x.view(), in.delta = delta.view(), in.gate = gate.view(), in.B = B.view(), in.C = C.view();
    mix::selective_scan(in, to.view(), options);
    EXPECT_TRUE((reference::same_bits<float, 3>(to.view(), want.view()))) << l.name;
    EXPECT_TRUE(to.gaps_untouched()) << l.name;
  }
  // NaN in one batch element and one channel stays there.
  o.x(1, 5, 7) = nan;
  mix::selective_scan(o.inputs(), out.view(), options);
  for (index_t b = 0; b < 3; ++b)
    for (index_t t = 0; t < 70; ++t)
      for (index_t c = 0; c < 530; ++c) {
        if (b == 1 && c == 7 && t >= 5)
          ASSERT_TRUE(std::isnan(out(b, t, c)));
        else
          ASSERT_TRUE(cases::same_bits(out(b, t, c), want(b, t, c)));
      }
}

// Tensors (B, D, T), given as their permuted views: any of the four, any order, pieces of a sequence, other types.
template <class E>
void expect_same_bits_of_lines(index_t tokens, index_t channels, mix::order order) {
  using T = mix::accumulator_t<E>;
  cases::selective_operands<E, T> o({2, tokens, channels, 1, 16}, 13);
  const auto want = o.result(order);
  const auto want_state = o.final;
  reference::layout<3> lines = reference::packed_layout<3>();
  std::swap(lines.order[1], lines.order[2]);
  reference::layout<3> sliced = lines;
  sliced.before = {1, 3, 2}, sliced.after = {0, 5, 1}, sliced.reversed = {true, false, true};
  for (const auto& l : {lines, sliced}) {
    const reference::strided<E, 3> x(o.x, l), delta(o.delta, l), gate(o.gate, l);
    for (int which = 1; which < 16; ++which) {
      auto in = o.inputs();
      if (which & 1) in.x = x.view();
      if (which & 2) in.delta = delta.view();
      if (which & 4) in.gate = gate.view();
      const mix::tensor<E, 3> poison(o.x.shape(), cases::untouched<E>());
      const reference::strided<E, 3> to(poison, which & 8 ? l : reference::packed_layout<3>());
      mix::selective_scan(in, to.view(),
                          mix::selective_scan_options<mix::whole_sequences, T>{
                              .delta_form = o.delta_form(), .order = order, .final_state = o.final.view()});
      EXPECT_TRUE((reference::same_bits<E, 3>(to.view(), want.view()))) << which << " of " << tokens;
      EXPECT_TRUE((reference::same_bits<T, 3>(o.final.view(), want_state.view()))) << which << " of " << tokens;
      EXPECT_TRUE(to.gaps_untouched()) << which;
    }
  }
}

TEST(selective_scan_identities, contiguous_time) {
  for (const auto order : {mix::order::forward, mix::order::reverse}) {
    for (const index_t tokens : {1, 2, 64, 97}) expect_same_bits_of_lines<float>(tokens, 35, order);
    expect_same_bits_of_lines<double>(70, 16, order);
    expect_same_bits_of_lines<mix::bfloat16>(81, 21, order);
  }
}

TEST(selective_scan_identities, contiguous_time_of_packed_sequences) {
  operands o({1, 150, 19, 1, 16}, 14);
  reference::layout<3> lines = reference::packed_layout<3>();
  std::swap(lines.order[1], lines.order[2]);
  const reference::strided<float, 3> x(o.x, lines), delta(o.delta, lines), gate(o.gate, lines), to(o.out, lines);
  const std::vector<std::int32_t> offsets{0, 70, 70, 71, 140};
  const mix::selective_scan_options<mix::packed<>> options{.delta_form = o.delta_form(), .sequences = {offsets}};
  auto in = o.inputs();
  in.initial_state = {};
  mix::tensor<float, 3> want(o.out.shape(), cases::untouched<float>());
  mix::selective_scan(in, want.view(), options);
  in.x = x.view(), in.delta = delta.view(), in.gate = gate.view();
  mix::selective_scan(in, to.view(), options);
  EXPECT_TRUE((reference::same_bits<float, 3>(to.view(), want.view())));
}

TEST(selective_scan_identities, packed_and_lengths) {
  operands o({1, 150, 19, 1, 16}, 4);
  const std::vector<std::int32_t> offsets{0, 70, 70, 71, 140};
  for (const auto order : {mix::order::forward, mix::order::reverse}) {
    mix::tensor<float, 3> initial({4, 19, 16}), final({4, 19, 16}), out(o.out.shape(), cases::untouched<float>());
    reference::fill_normal(initial.view(), 5);
    auto in = o.inputs();
    in.initial_state = initial;
    mix::selective_scan(
        in, out.view(),
        mix::selective_scan_options<mix::packed<>>{
            .delta_form = o.delta_form(), .order = order, .sequences = {offsets}, .final_state = final.view()});
    for (index_t s = 0; s < 4; ++s) {
      const index_t first = offsets[static_cast<std::size_t>(s)], n = offsets[static_cast<std::size_t>(s) + 1] - first;
      mix::tensor<float, 3> alone({1, n, 19}), state({1, 19, 16});
      in.x = o.x.slice(1, first, n), in.delta = o.delta.slice(1, first, n), in.gate = o.gate.slice(1, first, n);
      in.B = o.B.slice(1, first, n), in.C = o.C.slice(1, first, n);
      in.initial_state = initial.slice(0, s, 1);
      mix::selective_scan(in, alone.view(),
                          whole_options{.delta_form = o.delta_form(), .order = order, .final_state = state.view()});
      EXPECT_TRUE(reference::same_bits<float>(alone.view(), out.slice(1, first, n)));
      EXPECT_TRUE(reference::same_bits<float>(state.view(), final.slice(0, s, 1)));
    }
    for (index_t t = 140; t < 150; ++t)
      for (index_t c = 0; c < 19; ++c) ASSERT_TRUE(cases::same_bits(out(0, t, c), cases::untouched<float>()));
  }
  // What lies beyond a length holds NaN and is not written.
  const std::vector<index_t> keys{100};
  const auto want = o.result();
  for (index_t t = 100; t < 150; ++t)
    for (index_t c = 0; c < 19; ++c) o.x(0, t, c) = o.delta(0, t, c) = nan;
  mix::tensor<float, 3> out(o.out.shape(), cases::untouched<float>());
  mix::selective_scan(
      o.inputs(), out.view(),
      mix::selective_scan_options<mix::lengths>{.delta_form = o.delta_form(), .sequences = {keys, keys}});
  EXPECT_TRUE(reference::same_bits<float>(out.slice(1, 0, 100), want.slice(1, 0, 100)));
  EXPECT_TRUE(cases::same_bits(out(0, 100, 0), cases::untouched<float>()));
}

TEST(selective_scan_identities, reversed_is_flipped) {
  operands o({2, 70, 19, 1, 16}, 6), flipped = o;
  for (index_t b = 0; b < 2; ++b)
    for (index_t t = 0; t < 70; ++t) {
      const auto row = [&](const auto& from, auto& to, index_t n) {
        std::copy_n(from.row(b, 69 - t), n, to.row(b, t));
      };
      row(o.x, flipped.x, 19), row(o.delta, flipped.delta, 19), row(o.gate, flipped.gate, 19);
      row(o.B, flipped.B, 16), row(o.C, flipped.C, 16);
    }
  const auto want = flipped.result(), got = o.result(mix::order::reverse);
  for (index_t b = 0; b < 2; ++b)
    for (index_t t = 0; t < 70; ++t)
      for (index_t c = 0; c < 19; ++c) ASSERT_TRUE(cases::same_bits(got(b, t, c), want(b, 69 - t, c)));
}

// A rate of -infinity, or a step that underflows, forgets NaN.
TEST(selective_scan_identities, resets_do_not_read_the_state) {
  operands o({1, 3, 19, 1, 16}, 8, 1, false);
  const auto clean = o.result();
  for (index_t n = 0; n < 16; ++n) {
    o.A(3, n) = -infinity;
    o.A(4, n) = -1e4f;
    o.initial(0, 3, n) = nan;
    o.initial(0, 4, n) = infinity;
  }
  o.delta(0, 0, 3) = 0.5f, o.delta(0, 0, 4) = 1;
  const auto got = o.result();
  for (index_t t = 0; t < 3; ++t) {
    EXPECT_TRUE(std::isfinite(got(0, t, 3)) && std::isfinite(got(0, t, 4))) << t;
    EXPECT_TRUE(cases::same_bits(got(0, t, 5), clean(0, t, 5)));
  }
}

TEST(selective_scan_identities, a_state_never_grows_by_itself) {
  operands o({1, 4000, 19, 1, 16}, 9, 1e-4, false);
  for (float& e : o.x) e = 0;
  for (index_t t = 0; t < 4000; t += 500) {
    auto in = o.inputs();
    in.x = o.x.slice(1, t, 500), in.delta = o.delta.slice(1, t, 500), in.B = o.B.slice(1, t, 500);
    in.C = o.C.slice(1, t, 500);
    mix::selective_scan(in, o.out.slice(1, t, 500), {.final_state = o.final.view()});
    for (index_t i = 0; i < o.final.size(); ++i)
      ASSERT_LE(std::abs(o.final.data()[i]), std::abs(o.initial.data()[i])) << t;
    o.initial = o.final;
  }
}

TEST(selective_scan_identities, nothing_outside_is_touched) {
  operands o({1, 3, 19, 1, 5}, 10);
  const auto want = o.result();
  for (const auto side : {reference::flush::end, reference::flush::start}) {
    const auto guard = [&](const auto& t) {
      return reference::guarded_buffer<float>(static_cast<const float*>(t.data()), t.size(), side);
    };
    auto x = guard(o.x), delta = guard(o.delta), gate = guard(o.gate), A = guard(o.A), B = guard(o.B), C = guard(o.C),
         skip = guard(o.skip), bias = guard(o.bias), initial = guard(o.initial);
    reference::guarded_buffer<float> out(o.out.size(), side), final(o.final.size(), side);
    mix::selective_scan(mix::selective_scan_inputs<float>{.x = {x.data(), o.x.shape()},
                                                          .delta = {delta.data(), o.x.shape()},
                                                          .A = {A.data(), o.A.shape()},
                                                          .B = {B.data(), o.B.shape()},
                                                          .C = {C.data(), o.C.shape()},
                                                          .skip = {skip.data(), o.skip.shape()},
                                                          .gate = {gate.data(), o.x.shape()},
                                                          .delta_bias = {bias.data(), o.bias.shape()},
                                                          .initial_state = {initial.data(), o.initial.shape()}},
                        mix::tensor_view<float, 3>(out.data(), o.x.shape()),
                        {.delta_form = o.delta_form(), .final_state = {final.data(), o.final.shape()}});
    EXPECT_EQ(std::memcmp(out.data(), want.data(), static_cast<std::size_t>(want.size()) * sizeof(float)), 0);
  }
}

TEST(selective_scan_identities, a_step_allocates_nothing) {
  operands o({2, 1, 70, 1, 16}, 11);
  const auto call = [&] {
    mix::selective_scan(o.inputs(), o.out.view(), {.delta_form = o.delta_form(), .final_state = o.initial.view()});
  };
  call();
  call();
  const bench::allocation_watch watch;
  for (int n = 0; n < 5; ++n) call();
  EXPECT_EQ(watch.calls(), 0u);
}

TEST(selective_scan_identities, errors) {
  operands o({2, 3, 6, 2, 4}, 12);
  const mix::tensor<float, 3> narrow({2, 3, 5});
  const mix::tensor<float, 4> groups({2, 3, 4, 4});
  const auto fails = [&](auto change, const whole_options& options, const std::string& message) {
    auto in = o.inputs();
    change(in);
    try {
      mix::selective_scan(in, o.out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  fails([&](auto& in) { in.delta = narrow; }, {}, "delta is (2, 3, 5), x is (2, 3, 6)");
  fails([&](auto& in) { in.B = groups; }, {}, "B has 4 groups, x has 6 channels");
  fails([&](auto& in) { in.constant_B = o.A; }, {}, "B and constant_B are both given");
  fails([&](auto& in) { in.gate = narrow; }, {}, "gate is (2, 3, 5), x is (2, 3, 6)");
  fails([&](auto& in) { in.x = o.out; }, {}, "out overlaps x");
  const mix::tensor<float, 3> wide({2, 6, 12});
  fails([&](auto& in) { in.x = {wide.data(), {2, 3, 6}, {72, 24, 2}}; }, {},
        "x has strides (72, 24, 2): channels or time must be contiguous");
  fails([](auto&) {}, {.order = mix::order::bidirectional}, "order is bidirectional");
  fails([](auto&) {}, {.final_state = o.final.slice(0, 0, 1)}, "final_state is (1, 6, 4), expected (sequences, D, N)");
  for (const float e : o.out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
