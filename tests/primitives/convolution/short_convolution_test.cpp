// SPDX-License-Identifier: Apache-2.0
// The kernels of short convolutions, over rows and along lines: every number of taps, every remainder, results past the caches.
//
// Budget: (k + 1) u (|bias| + sum |w x|). Rows and lines: the same bits.
#include <reference/cases.hpp>
#include <reference/convolution_oracle.hpp>

#include <tokenmix/primitives/convolution/lines.hpp>
#include <tokenmix/primitives/convolution/rows.hpp>
#include <tokenmix/primitives/feature_map.hpp>

namespace {

using cases::index_t;
namespace detail = tokenmix::detail;

constexpr index_t L = tokenmix::simd::lanes<float>;

/// T tokens of C channels behind `before` and in front of `ahead` others.
struct kernels {
  index_t T, C;
  detail::convolution_taps taps;
  index_t stride = (C + L - 1) / L * L;
  mix::tensor<float, 2> x = reference::normal<float>({taps.before() + T + taps.ahead, C}, 1);
  mix::tensor<float, 2> weight = mix::tensor<float, 2>({taps.count, stride});
  mix::tensor<float, 1> bias = mix::tensor<float, 1>({stride});
  mix::tensor<float, 2> out = mix::tensor<float, 2>({T, stride}, cases::untouched<float>());

  kernels(index_t tokens, index_t channels, const detail::convolution_taps& t) : T(tokens), C(channels), taps(t) {
    cases::random_numbers random(2);
    for (index_t c = 0; c < C; ++c) {
      bias(c) = static_cast<float>(random.gaussian());
      for (index_t j = 0; j < taps.count; ++j) weight(j, c) = static_cast<float>(random.gaussian());
    }
  }
  void rows(bool backwards, bool streams) {
    std::vector<const float*> table(static_cast<std::size_t>(detail::convolution_rows * taps.count));
    detail::convolve_rows<float>(
        taps, [&](index_t t) -> const float* { return x.row(t + taps.before()); },
        [&](index_t t) -> float* { return out.row(t); }, 0, T, C,
        detail::convolution_weights<float>{weight.data(), bias.data(), stride}, mix::as_given{}, backwards, streams,
        table.data());
    tokenmix::simd::fence_after_stream();
  }
  /// Channel c, as a line of its own; out(t, c) is written.
  void line(index_t c, bool backwards) {
    std::vector<float> from, to(static_cast<std::size_t>(T)), w;
    for (index_t t = 0; t < x.extent(0); ++t) from.push_back(x(t, c));
    for (index_t j = 0; j < taps.count; ++j) w.push_back(weight(j, c));
    detail::convolve_line<false, float>(from.data() + taps.before(), to.data(), 0, T, taps.count, -taps.before(),
                                        taps.dilation, w.data(), bias(c), mix::as_given{}, backwards);
    for (index_t t = 0; t < T; ++t) out(t, c) = to[static_cast<std::size_t>(t)];
  }
  void expect_oracle(const std::string& label) const {
    for (index_t c = 0; c < C; ++c) {
      std::vector<double> all, w;
      for (index_t t = 0; t < x.extent(0); ++t) all.push_back(static_cast<double>(x(t, c)));
      for (index_t j = 0; j < taps.count; ++j) w.push_back(static_cast<double>(weight(j, c)));
      const auto want = reference::short_convolution(all, w, static_cast<double>(bias(c)), taps.dilation, taps.before(),
                                                     std::vector<double>());
      for (index_t t = 0; t < T; ++t) {
        const auto& e = want[static_cast<std::size_t>(t + taps.before())];
        ASSERT_NEAR(static_cast<double>(out(t, c)), e.value,
                    static_cast<double>(taps.count + 1) * 0x1p-24 * e.magnitude)
            << label << " t" << t << " c" << c;
      }
    }
    for (index_t t = 0; t < T; ++t)
      for (index_t c = C; c < stride; ++c) ASSERT_TRUE(cases::same_bits(out(t, c), cases::untouched<float>())) << label;
  }
};

TEST(short_convolution, rows_and_lines) {
  for (index_t k : {1, 2, 3, 4, 5, 8}) {
    for (index_t d : {1, 3}) {
      for (index_t T : std::vector<index_t>{0, 1, 3, 4, 7, 9, 4 * L + 5, 9 * L}) {
        for (index_t C : std::vector<index_t>{1, L, 2 * L + 3}) {
          if (cases::reduced_sweep && (k == 3 || k == 8)) continue;
          for (index_t ahead : {index_t{0}, (k - 1) * d / 2}) {
            const std::string label = "k" + std::to_string(k) + " d" + std::to_string(d) + " T" + std::to_string(T) +
                                      " C" + std::to_string(C) + " ahead " + std::to_string(ahead);
            kernels plain(T, C, {k, d, ahead});
            plain.rows(false, false);
            plain.expect_oracle(label);
            for (int other = 0; other < 4; ++other) {
              kernels same(T, C, {k, d, ahead});
              if (other == 0) same.rows(true, false);
              if (other == 1) same.rows(false, true);
              for (index_t c = 0; c < C && other >= 2; ++c) same.line(c, other == 3);
              cases::expect_same_bits<float, 2>(same.out, plain.out, label + " way " + std::to_string(other));
            }
          }
        }
      }
    }
  }
}

}  // namespace
