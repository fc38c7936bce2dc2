// SPDX-License-Identifier: Apache-2.0
// Long convolutions against the sum they stand for: directly and through transforms, gates, both boundaries, either axis contiguous.
//
// Budget: direct, (L + 3) u of the terms' size; transforms, u log2(numbers) |taps|_2 |u|_2 |gate|, which is what roundings in
// every stage of three transforms may add up to; a 16-bit result is rounded once more. Identities: memcmp.
#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>

#include <limits>

#include <reference/cases.hpp>
#include <reference/guarded.hpp>
#include <reference/long_convolution_oracle.hpp>
#include <reference/strided.hpp>

namespace {

using cases::index_t;

/// Transforms for filters that would be quicker without.
struct transforms : mix::default_fft {
  template <class T>
  static constexpr index_t direct_taps() {
    return 16;
  }
};

struct shape {
  index_t B, T, C, G, L;
  index_t future = 0;
  bool gates = false;
  mix::boundary boundary = mix::boundary::zero;
  mix::order order = mix::order::forward;
  std::string text() const {
    return "B " + std::to_string(B) + " T " + std::to_string(T) + " C " + std::to_string(C) + " G " +
           std::to_string(G) + " L " + std::to_string(L) + " future " + std::to_string(future) +
           (gates ? " gates" : "") + (boundary == mix::boundary::circular ? " circular" : "") +
           (order == mix::order::reverse ? " reverse" : "");
  }
};

template <class E>
struct operands {
  using T = mix::accumulator_t<E>;
  shape s;
  mix::tensor<E, 3> x, pre, post, out;
  mix::tensor<T, 2> filters;
  mix::tensor<T, 1> skip;

  explicit operands(const shape& size, std::uint64_t seed = 1)
      : s(size),
        x({s.B, s.T, s.C}),
        pre(x.shape()),
        post(x.shape()),
        out(x.shape(), cases::untouched<E>()),
        filters({s.G, s.L}),
        skip({s.C}) {
    cases::random_numbers random(seed);
    cases::fill_random(x.view(), random);
    cases::fill_random(pre.view(), random);
    cases::fill_random(post.view(), random);
    cases::fill_random(filters.view(), random);
    cases::fill_random(skip.view(), random);
    for (index_t g = 0; g < s.G; ++g)
      for (index_t l = 0; l < s.L; ++l)
        filters(g, l) *= static_cast<T>(std::exp(-3.0 * static_cast<double>(l) / static_cast<double>(s.L)));
  }
  mix::long_convolution_inputs<E> inputs() const {
    mix::long_convolution_inputs<E> in{.x = x, .filters = filters};
    if (s.gates) in.skip = skip, in.pre_gate = pre, in.post_gate = post;
    return in;
  }
  template <class Fft>
  void run(Fft fft) {
    mix::long_convolution(
        inputs(), out.view(),
        mix::long_convolution_options<Fft>{.fft = fft, .order = s.order, .future = s.future, .boundary = s.boundary});
  }
};

template <class E>
void expect_oracle(const operands<E>& x, bool by_transforms, cases::gate_record* record = nullptr) {
  using Real = reference::oracle_real<mix::accumulator_t<E>>;
  const shape& s = x.s;
  index_t failures = 0;
  for (index_t b = 0; b < s.B; ++b) {
    for (index_t c = 0; c < s.C; ++c) {
      reference::convolution_line<Real> line;
      const index_t g = c / (s.C / s.G);
      for (index_t l = 0; l < s.L; ++l) line.taps.push_back(reference::exact<Real>(x.filters(g, l)));
      for (index_t t = 0; t < s.T; ++t) {
        line.x.push_back(reference::exact<Real>(x.x(b, t, c)));
        if (s.gates) line.pre_gate.push_back(reference::exact<Real>(x.pre(b, t, c)));
        if (s.gates) line.post_gate.push_back(reference::exact<Real>(x.post(b, t, c)));
      }
      if (s.gates) line.skip = reference::exact<Real>(x.skip(c));
      line.future = s.future;
      line.circular = s.boundary == mix::boundary::circular;
      line.reversed = s.order == mix::order::reverse;
      const auto want = reference::long_convolution_oracle(line);
      const double u = reference::unit_roundoff<mix::accumulator_t<E>>();
      for (index_t t = 0; t < s.T; ++t) {
        const auto i = static_cast<std::size_t>(t);
        const double terms = static_cast<double>(want.terms[i]);
        const double numbers = static_cast<double>(2 * std::max(s.T, s.L) + 4096);
        double gate = 4 * u * terms;
        gate += by_transforms ? u * std::log2(numbers) * static_cast<double>(want.norms * want.gate[i])
                              : static_cast<double>(s.L) * u * terms;
        const double got = static_cast<double>(reference::exact<Real>(x.out(b, t, c)));
        if (sizeof(E) == 2) gate += reference::element_ulp<E>(got);
        const double error = std::abs(static_cast<double>(reference::exact<Real>(x.out(b, t, c)) - want.out[i]));
        if (record != nullptr) record->see(error / gate, s.text());
        if (!(error <= gate) && ++failures <= 3)
          ADD_FAILURE() << s.text() << ": out(" << b << ", " << t << ", " << c << ") is " << got << ", expected "
                        << static_cast<double>(want.out[i]) << ", gate " << gate;
      }
    }
  }
  EXPECT_EQ(failures, 0) << s.text();
}

std::vector<shape> shapes() {
  std::vector<shape> all{{0, 5, 3, 3, 40}, {2, 0, 3, 3, 40}, {2, 5, 0, 0, 40}, {1, 5, 3, 3, 0}, {1, 1, 1, 1, 1}};
  for (const auto& [T, L] : {std::pair<index_t, index_t>{7, 3},
                             {64, 64},
                             {65, 66},
                             {129, 129},
                             {200, 257},
                             {300, 256},
                             {333, 333},
                             {1000, 777},
                             {1000, 1000},
                             {90, 300},
                             {1537, 1500}})
    all.push_back({1, T, 3, 1, L}), all.push_back({2, T, 17, 17, L, L / 3, true});
  for (const index_t C : {15, 16, 18}) all.push_back({1, 301, C, C % 3 == 0 ? 3 : C, 301, 0, true});
  all.push_back({1, 9000, 2, 2, 340, 20, true});  // many blocks
  all.push_back({1, 9001, 1, 1, 1400});
  all.push_back({1, 4001, 1, 1, 4001});
  for (const mix::order order : {mix::order::forward, mix::order::reverse})
    for (const index_t L : {5, 40, 300, 700})
      all.push_back({1, 203, 5, 5, L, L / 2, true, mix::boundary::circular, order}),
          all.push_back({1, 203, 5, 5, L, L / 4, true, mix::boundary::zero, order});
  return all;
}

TEST(long_convolution, sum) {
  cases::gate_record direct, through;
  std::uint64_t seed = 0;
  for (const shape& s : shapes()) {
    if (cases::reduced_sweep && s.T > 1000) continue;
    operands<float> x(s, ++seed);
    x.run(mix::no_fft{});
    expect_oracle(x, false, &direct);
    x.run(transforms{});
    expect_oracle(x, true, &through);
  }
  std::printf("largest error, direct: %.2f of the gate, %s\n", direct.worst, direct.where.c_str());
  std::printf("largest error, transforms: %.2f of the gate, %s\n", through.worst, through.where.c_str());
}

TEST(long_convolution, types) {
  operands<double> d({1, 300, 9, 9, 290, 7, true});
  d.run(transforms{});
  expect_oracle(d, true);
  operands<mix::bfloat16> h({1, 300, 17, 17, 290, 7, true});
  h.run(transforms{});
  expect_oracle(h, true);
}

/// A call of filters made ready, with any operands.
template <class Sequences = mix::whole_sequences, class Executor = mix::calling_thread>
void call(const mix::long_convolution_inputs<float, float, transforms>& in, mix::tensor_view<float, 3> out,
          mix::order order = mix::order::forward, Sequences sequences = {}, Executor&& on = {}) {
  mix::long_convolution(
      in, out, mix::long_convolution_options<mix::no_fft, Sequences>{.order = order, .sequences = sequences}, on);
}

// Executors, strides, a contiguous time axis, in place, flipped, packed and with lengths: the same bits.
TEST(long_convolution, identities) {
  for (const index_t L : {9, 333}) {
    const operands<float> x({2, 333, 37, 37, L, 0, true});
    const mix::long_filters<float, transforms> filters(x.filters, 333);
    const mix::long_convolution_inputs<float, float, transforms> in{
        .x = x.x, .spectra = filters.view(), .skip = x.skip, .pre_gate = x.pre, .post_gate = x.post};
    mix::tensor<float, 3> want(x.x.shape()), got(x.x.shape());
    call(in, want.view());
    {
      operands<float> once = x;
      once.run(transforms{});
      cases::expect_same_bits<float, 3>(once.out, want, "filters as taps");
    }
    call(in, got.view(), mix::order::forward, mix::whole_sequences{}, cases::delayed_threads(5));
    cases::expect_same_bits<float, 3>(got, want, "threads");
    call(in, got.view(), mix::order::forward, mix::whole_sequences{}, cases::backwards{});
    cases::expect_same_bits<float, 3>(got, want, "backwards");
    got = x.x;
    auto here = in;
    here.x = got;
    call(here, got.view());
    cases::expect_same_bits<float, 3>(got, want, "in place");

    const auto layouts = reference::layouts<3>();
    for (std::size_t i = 0; i < layouts.size(); ++i) {
      const reference::strided<float, 3> a(x.x, layouts[i]), b(x.pre, layouts[(i + 1) % layouts.size()]),
          c(x.post, layouts[(i + 2) % layouts.size()]), o(x.x.shape(), layouts[(i + 3) % layouts.size()]);
      auto strided = in;
      strided.x = a.view(), strided.pre_gate = b.view(), strided.post_gate = c.view();
      call(strided, o.view());
      cases::expect_same_bits<float, 3>(o.view(), want, layouts[i].name);
      EXPECT_TRUE(o.gaps_untouched()) << layouts[i].name;
    }
    // (B, C, T) tensors seen as (B, T, C), between guard pages.
    const auto flipped_axes = [](const mix::tensor<float, 3>& from) {
      return reference::packed_copy<float, 3>(from.view().permuted({0, 2, 1}));
    };
    const auto xt = flipped_axes(x.x), pre = flipped_axes(x.pre), post = flipped_axes(x.post);
    for (const auto side : {reference::flush::end, reference::flush::start}) {
      const reference::guarded_buffer<float> a(xt.data(), xt.size(), side), b(pre.data(), pre.size(), side),
          c(post.data(), post.size(), side);
      reference::guarded_buffer<float> o(xt.size(), side);
      const auto seen = [&](const float* data) {
        return mix::tensor_view<const float, 3>(data, xt.shape()).permuted({0, 2, 1});
      };
      auto timed = in;
      timed.x = seen(a.data()), timed.pre_gate = seen(b.data()), timed.post_gate = seen(c.data());
      const auto result = mix::tensor_view<float, 3>(o.data(), xt.shape()).permuted({0, 2, 1});
      call(timed, result);
      cases::expect_same_bits<float, 3>(result, want, "time contiguous");
      const reference::guarded_buffer<float> d(x.x.data(), x.x.size(), side);
      timed.x = {d.data(), x.x.shape()};
      mix::tensor<float, 3> plain(x.x.shape());
      call(timed, plain.view());
      cases::expect_same_bits<float, 3>(plain, want, "x alone channels contiguous");
    }

    mix::tensor<float, 3> back(x.x.shape()), flipped(x.x.shape());
    call(in, back.view(), mix::order::reverse);
    const auto flip = [](const mix::tensor<float, 3>& v) {
      return mix::tensor_view<const float, 3>(v.row(0, v.extent(1) - 1), v.shape(), {v.stride(0), -v.stride(1), 1});
    };
    auto other = in;
    other.x = flip(x.x), other.pre_gate = flip(x.pre), other.post_gate = flip(x.post);
    call(other,
         mix::tensor_view<float, 3>(flipped.row(0, 332), flipped.shape(), {flipped.stride(0), -flipped.stride(1), 1}));
    cases::expect_same_bits<float, 3>(back, flipped, "reverse");

    const std::vector<std::int32_t> offsets{0, 0, 1, 70, 70, 331};
    const std::vector<index_t> lengths{200, 0};
    for (const mix::order order : {mix::order::forward, mix::order::reverse}) {
      const auto first = [&](index_t b, index_t t, index_t n) {
        auto part = in;
        part.x = x.x.slice(0, b, 1).slice(1, t, n), part.pre_gate = x.pre.slice(0, b, 1).slice(1, t, n),
        part.post_gate = x.post.slice(0, b, 1).slice(1, t, n);
        return part;
      };
      mix::tensor<float, 3> all({1, 333, 37}, cases::untouched<float>()), alone = all;
      call(first(0, 0, 333), all.view(), order, mix::packed<std::int32_t>{.offsets = offsets});
      for (std::size_t i = 0; i + 1 < offsets.size(); ++i)
        call(first(0, offsets[i], offsets[i + 1] - offsets[i]), alone.slice(1, offsets[i], offsets[i + 1] - offsets[i]),
             order);
      cases::expect_same_bits<float, 3>(all, alone, "packed");
      mix::tensor<float, 3> some({2, 333, 37}, cases::untouched<float>()), want_some = some;
      call(in, some.view(), order, mix::lengths{.keys = lengths, .queries = lengths});
      call(first(0, 0, 200), want_some.slice(0, 0, 1).slice(1, 0, 200), order);
      cases::expect_same_bits<float, 3>(some, want_some, "lengths");
    }
  }
}

// Filters made ready for sequences of any length, shorter or longer than those they meet.
TEST(long_convolution, ready_filters) {
  cases::random_numbers random(5);
  for (int n = 0; n < (cases::reduced_sweep ? 20 : 100); ++n) {
    shape s{1, random.integer(1, 700), 3, 3, random.integer(1, 900), 0, random.chance(0.5)};
    s.future = random.integer(0, s.L - 1);
    if (random.chance(0.4)) s.boundary = mix::boundary::circular;
    if (random.chance(0.4)) s.order = mix::order::reverse;
    operands<float> x(s, static_cast<std::uint64_t>(n));
    const mix::long_filters filters(x.filters, random.integer(0, 900), transforms{});
    mix::long_convolution_inputs<float, float, transforms> in{.x = x.x, .spectra = filters.view()};
    if (s.gates) in.skip = x.skip, in.pre_gate = x.pre, in.post_gate = x.post;
    mix::long_convolution(
        in, x.out.view(),
        mix::long_convolution_options<>{.order = s.order, .future = s.future, .boundary = s.boundary});
    expect_oracle(x, true);
  }
  EXPECT_THROW(mix::long_filters(mix::tensor<float, 2>({1, 4}), -1, transforms{}), mix::value_error);
}

// What is not finite reaches what depends on it and nothing else, through transforms too.
TEST(long_convolution, not_finite) {
  for (const mix::boundary boundary : {mix::boundary::zero, mix::boundary::circular}) {
    const shape s{2, 400, 5, 5, 270, 20, true, boundary};
    operands<float> clean(s), x(s);
    x.x(0, 100, 2) = std::numeric_limits<float>::quiet_NaN();
    x.x(0, 390, 2) = std::numeric_limits<float>::infinity();
    clean.x(0, 100, 2) = clean.x(0, 390, 2) = 0;
    clean.run(transforms{});
    x.run(transforms{});
    for (index_t b = 0; b < 2; ++b) {
      for (index_t t = 0; t < 400; ++t) {
        for (index_t c = 0; c < 5; ++c) {
          const bool circular = boundary == mix::boundary::circular;
          const bool sees_nan = t >= 80 && t < 350;
          const bool sees_infinity = t >= 370 || (circular && t < 240);
          const bool touched = b == 0 && c == 2 && (sees_nan || sees_infinity);
          if (!touched)
            EXPECT_TRUE(cases::same_bits(x.out(b, t, c), clean.out(b, t, c))) << b << ' ' << t << ' ' << c;
          else if (sees_nan)
            EXPECT_TRUE(std::isnan(x.out(b, t, c))) << t;
          else if (t == 390)  // its own skip and its own tap, of either sign
            EXPECT_FALSE(std::isfinite(x.out(b, t, c)));
          else
            EXPECT_TRUE(std::isinf(x.out(b, t, c))) << t;
        }
      }
    }
  }
}

// Hyena with two gates is H3 with other names; the operator of filters on both sides is the sum of two.
TEST(long_convolution, both_sides) {
  const index_t T = 150, L = 140;
  const operands<float> x({1, T, 4, 4, L}), y({1, T, 4, 4, L}, 2);
  mix::tensor<float, 2> both({4, 2 * L});
  for (index_t c = 0; c < 4; ++c)
    for (index_t l = 0; l < L; ++l) both(c, L - 1 - l) = y.filters(c, l), both(c, L + l) = x.filters(c, l);
  mix::tensor<float, 3> out({1, T, 4});
  mix::long_convolution(mix::long_convolution_inputs<float>{.x = x.x, .filters = both}, out.view(),
                        mix::long_convolution_options<transforms>{.future = L});
  for (index_t c = 0; c < 4; ++c) {
    for (index_t t = 0; t < T; ++t) {
      double want = 0, terms = 0;
      for (index_t s = 0; s < T; ++s) {
        const index_t far = s <= t ? t - s : s - t - 1;
        if (far >= L) continue;
        const double term = static_cast<double>((s <= t ? x : y).filters(c, far)) * static_cast<double>(x.x(0, s, c));
        want += term, terms += std::abs(term);
      }
      EXPECT_NEAR(static_cast<double>(out(0, t, c)), want, 1e-6 * (terms + 20)) << t << ' ' << c;
    }
  }
}

TEST(long_convolution, errors) {
  const operands<float> x({1, 20, 6, 3, 9, 0, true});
  mix::tensor<float, 3> out({1, 20, 6}, cases::untouched<float>());
  const auto fails = [&](const mix::long_convolution_inputs<float>& in, const mix::long_convolution_options<>& options,
                         const std::string& message) {
    try {
      mix::long_convolution(in, out.view(), options);
      ADD_FAILURE() << "no error, expected: " << message;
    } catch (const std::invalid_argument& e) {
      EXPECT_NE(std::string(e.what()).find(message), std::string::npos) << e.what();
    }
  };
  auto in = x.inputs();
  const mix::tensor<float, 2> five({5, 9});
  in.filters = five;
  fails(in, {}, "filters has 5 filters, x has 6 channels: the number of channels must be a multiple");
  in = x.inputs();
  const mix::tensor<float, 3> narrow({1, 20, 5});
  in.post_gate = narrow;
  fails(in, {}, "post_gate is (1, 20, 5), x is (1, 20, 6)");
  in = x.inputs();
  const mix::tensor<float, 1> seven({7});
  in.skip = seven;
  fails(in, {}, "skip is (7), expected (C) = (6)");
  fails(x.inputs(), {.future = 9}, "future is 9: expected 0 to 8");
  fails(x.inputs(), {.order = mix::order::bidirectional}, "order is bidirectional");
  in = x.inputs();
  const mix::tensor<float, 3> wide({1, 20, 12});
  in.x = mix::tensor_view<const float, 3>(wide.data(), {1, 20, 6}, {240, 12, 2});
  fails(in, {}, "the channels or the tokens must be contiguous");
  in = x.inputs();
  in.post_gate = out;
  fails(in, {}, "out overlaps post_gate");
  in = x.inputs();
  in.spectra.taps = x.filters;
  fails(in, {}, "filters and spectra are given");
  for (float e : out) EXPECT_TRUE(cases::same_bits(e, cases::untouched<float>()));
}

}  // namespace
