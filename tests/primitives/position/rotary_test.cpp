// SPDX-License-Identifier: Apache-2.0
// Rotary embeddings against the formula in long double, to positions of 2^24: layouts, scalings, tables, types, strides, errors.
#include <gtest/gtest.h>
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/primitives/position/rotary_inside.hpp>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <random>
#include <thread>
#include <vector>

#include <reference/guarded.hpp>

namespace mix = tokenmix;
using mix::index_t;

namespace {

constexpr mix::rotary_layout layouts[] = {mix::rotary_layout::interleaved, mix::rotary_layout::half};

template <class E>
mix::tensor<E, 4> random_tensor(const mix::extents<4>& shape, unsigned seed) {
  mix::tensor<E, 4> x(shape);
  std::mt19937 random(seed);
  std::normal_distribution<float> number(0.0f, 2.0f);
  for (E& e : x) e = static_cast<E>(number(random));
  return x;
}

template <class E>
long double exact(E e) {
  return static_cast<long double>(static_cast<mix::accumulator_t<E>>(e));
}

/// One pair's angle. The frequency is 64 bits of a power and the position an integer, so the angle is good to 2^-63 of
/// itself: 2^-39 at 2^24.
long double angle(index_t position, index_t pair, index_t rotated, long double base = 10000) {
  return static_cast<long double>(position) *
         std::pow(base, -2.0L * static_cast<long double>(pair) / static_cast<long double>(rotated));
}

/// Two channels of one pair.
std::pair<index_t, index_t> channels_of(index_t pair, index_t rotated, mix::rotary_layout layout) {
  return layout == mix::rotary_layout::interleaved ? std::pair(2 * pair, 2 * pair + 1)
                                                   : std::pair(pair, pair + rotated / 2);
}

/// The largest |out - expected| of a call in ulps of E at the length of the pair, which is the scale of the pair's numbers.
/// angle_of(b, t, pair) in long double; a plain amplitude.
template <class E, class Angle>
double worst_ulps(const mix::tensor_view<const E, 4>& x, const mix::tensor_view<const E, 4>& out, index_t rotated,
                  mix::rotary_layout layout, Angle&& angle_of, long double amplitude = 1, long double sign = 1) {
  const int digits = std::is_same_v<E, float>           ? 24
                     : std::is_same_v<E, double>        ? 53
                     : std::is_same_v<E, mix::bfloat16> ? 8
                                                        : 11;
  double worst = 0;
  for (index_t b = 0; b < x.extent(0); ++b) {
    for (index_t t = 0; t < x.extent(2); ++t) {
      for (index_t i = 0; i < rotated / 2; ++i) {
        const long double phi = sign * angle_of(b, t, i);
        const long double c = amplitude * std::cos(phi), s = amplitude * std::sin(phi);
        const auto [first, second] = channels_of(i, rotated, layout);
        for (index_t h = 0; h < x.extent(1); ++h) {
          const long double u = exact(x(b, h, t, first)), v = exact(x(b, h, t, second));
          const long double length = amplitude * std::sqrt(u * u + v * v);
          if (length == 0) continue;
          const long double ulp = std::ldexp(1.0L, std::ilogb(length) - digits + 1);
          const long double error = std::max(std::abs(exact(out(b, h, t, first)) - (u * c - v * s)),
                                             std::abs(exact(out(b, h, t, second)) - (u * s + v * c)));
          worst = std::max(worst, static_cast<double>(error / ulp));
        }
      }
      for (index_t h = 0; h < x.extent(1); ++h) {
        for (index_t d = rotated; d < x.extent(3); ++d) {
          if (std::memcmp(&x(b, h, t, d), &out(b, h, t, d), sizeof(E)) != 0) return 1e300;  // a channel that stays
        }
      }
    }
  }
  return worst;
}

template <class E>
bool same_bits(const mix::tensor<E, 4>& a, const mix::tensor<E, 4>& b) {
  return std::memcmp(a.data(), b.data(), static_cast<std::size_t>(a.size()) * sizeof(E)) == 0;
}

template <class E>
class Rotary : public ::testing::Test {
 public:
  // Two ulps of the output at the length of the pair: tables rounded to T, a product and an fma; 16-bit types are rounded
  // once more from float and stay within one. Double tables carry the roundings of the double angle and of an addition of
  // angles: 2^-52 of the position's size on top.
  static double budget(index_t largest_position) {
    if constexpr (sizeof(E) == 8) return 4 + static_cast<double>(largest_position);
    return sizeof(E) == 4 ? 2.0 : 1.0;
  }
};
using elements = ::testing::Types<float, double, mix::bfloat16, mix::float16>;
TYPED_TEST_SUITE(Rotary, elements);

TYPED_TEST(Rotary, IsTheFormulaAtAnyPosition) {
  using E = TypeParam;
  double worst = 0;
  for (const mix::rotary_layout layout : layouts) {
    for (index_t D : {2, 6, 16, 30, 64, 128}) {
      for (index_t first : {index_t{0}, index_t{1}, index_t{31}, index_t{-40}, index_t{1000}, index_t{131072},
                            (index_t{1} << 24) - 70}) {
        const auto x = random_tensor<E>({2, 3, 70, D}, static_cast<unsigned>(D));
        mix::tensor<E, 4> out(x.shape());
        mix::rotary_embedding(x, out, {.first_position = first, .layout = layout});
        const double ulps =
            worst_ulps<E>(x, out, D, layout, [&](index_t, index_t t, index_t i) { return angle(first + t, i, D); });
        EXPECT_LE(ulps, this->budget(std::abs(first) + 70)) << "D " << D << " first " << first;
        worst = std::max(worst, ulps);
      }
    }
  }
  this->RecordProperty("worst_ulps", std::to_string(worst));
}

TYPED_TEST(Rotary, PartOfTheChannels) {
  using E = TypeParam;
  const auto x = random_tensor<E>({1, 2, 9, 40}, 1);
  for (const mix::rotary_layout layout : layouts) {
    for (index_t rotated : {0, 2, 14, 32, 40}) {
      mix::tensor<E, 4> out(x.shape());
      mix::rotary_embedding(x, out,
                            {.first_position = 5, .base = 500.0, .layout = layout, .rotated_channels = rotated});
      const auto of = [&](index_t, index_t t, index_t i) { return angle(5 + t, i, rotated, 500); };
      EXPECT_LE(worst_ulps<E>(x, out, rotated, layout, of), this->budget(14)) << rotated;
    }
  }
}

TYPED_TEST(Rotary, BackwardTurnsBack) {
  using E = TypeParam;
  const auto x = random_tensor<E>({2, 1, 40, 34}, 2);
  for (const mix::rotary_layout layout : layouts) {
    mix::tensor<E, 4> turned(x.shape()), back(x.shape());
    mix::rotary_embedding(x, turned,
                          {.first_position = 77, .layout = layout, .direction = mix::rotary_direction::backward});
    const auto of = [&](index_t, index_t t, index_t i) { return angle(77 + t, i, 34); };
    EXPECT_LE(worst_ulps<E>(x, turned, 34, layout, of, 1, -1), this->budget(120));
    mix::rotary_embedding(turned, back, {.first_position = 77, .layout = layout});
    // There and back: both budgets, and an ulp may double where the length's power of two is crossed.
    EXPECT_LE(worst_ulps<E>(x, back, 34, layout, [](index_t, index_t, index_t) { return 0.0L; }), 3 * this->budget(0));
  }
}

TYPED_TEST(Rotary, PositionsOfRowsAndBatches) {
  using E = TypeParam;
  const index_t B = 3, T = 11, D = 12;
  const auto x = random_tensor<E>({B, 2, T, D}, 3);
  mix::tensor<index_t, 2> all({B, T}), rows({1, T}), starts({B, 1}), one({1, 1}, 40);
  for (index_t b = 0; b < B; ++b) {
    starts(b, 0) = 1000 * b - 5;
    for (index_t t = 0; t < T; ++t) all(b, t) = (b * 7919 + t * 613) % 4099 - 50;
  }
  for (index_t t = 0; t < T; ++t) rows(0, t) = (t * 37) % 64;
  for (const auto& positions : {all.view(), rows.view(), starts.view(), one.view()}) {
    mix::tensor<E, 4> out(x.shape());
    // first_position is not looked at then
    mix::rotary_embedding(x, out, {.first_position = 123456, .positions = positions});
    const auto of = [&](index_t b, index_t t, index_t i) {
      const index_t batch = positions.extent(0) == 1 ? 0 : b;
      const index_t p = positions.extent(1) == 1 ? positions(batch, 0) + t : positions(batch, t);
      return angle(p, i, D);
    };
    EXPECT_LE(worst_ulps<E>(x, out, D, mix::rotary_layout::interleaved, of), this->budget(4100));
  }
}

TYPED_TEST(Rotary, BitsOfARowAreItsOwn) {
  // Whole tensor, single rows, a table, in place, strided: the same bits.
  using E = TypeParam;
  using T = mix::accumulator_t<E>;
  const index_t B = 2, H = 3, rows = 75, D = 22, first = 1003;
  const auto x = random_tensor<E>({B, H, rows, D}, 4);
  for (const mix::rotary_layout layout : layouts) {
    const mix::rotary_options options{.first_position = first, .layout = layout, .rotated_channels = 18};
    mix::tensor<E, 4> whole(x.shape());
    mix::rotary_embedding(x, whole, options);

    mix::tensor<E, 4> in_place = x;
    mix::rotary_embedding(in_place, in_place, options);
    EXPECT_TRUE(same_bits(whole, in_place));

    mix::tensor<E, 4> token_major({B, rows, H, D});
    const auto view = token_major.view().permuted({0, 2, 1, 3});
    mix::rotary_embedding(x, view, options);
    for (index_t b = 0; b < B; ++b) {
      for (index_t h = 0; h < H; ++h) {
        for (index_t t = 0; t < rows; ++t) {
          ASSERT_EQ(std::memcmp(view.row(b, h, t), whole.row(b, h, t), static_cast<std::size_t>(D) * sizeof(E)), 0);
        }
      }
    }

    mix::tensor<E, 4> by_row(x.shape());
    for (index_t t = 0; t < rows; ++t) {
      mix::rotary_embedding(x.slice(2, t, 1), by_row.slice(2, t, 1),
                            mix::rotary_options{.first_position = first + t, .layout = layout, .rotated_channels = 18});
    }
    EXPECT_TRUE(same_bits(whole, by_row));

    const auto table =
        mix::make_rotary_table<T>(D, 200, mix::rotary_options{.first_position = 950, .rotated_channels = 18});
    mix::tensor<E, 4> by_table(x.shape());
    mix::rotary_embedding(x, by_table, table, options);
    EXPECT_TRUE(same_bits(whole, by_table));

    // Inside a kernel rows are T: for float and double the same bits.
    if constexpr (std::is_same_v<E, T>) {
      const mix::rotary_inside inside{&table, layout};
      mix::tensor<E, 4> by_kernel(x.shape());
      for (index_t b = 0; b < B; ++b) {
        for (index_t h = 0; h < H; ++h) {
          for (index_t t = 0; t < rows; ++t) inside.rotate(x.row(b, h, t), by_kernel.row(b, h, t), D, first + t);
        }
      }
      EXPECT_TRUE(same_bits(whole, by_kernel));
    }
  }
}

struct threads {
  index_t count;
  index_t concurrency() const { return count; }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    std::vector<std::thread> all;
    for (index_t w = 0; w < count; ++w) {
      all.emplace_back([&, w] {
        for (index_t i = n - 1 - w; i >= 0; i -= count) task(i, w);
      });
    }
    for (std::thread& t : all) t.join();
  }
};

TEST(RotaryThreads, DoNotChangeBits) {
  for (const mix::extents<4>& shape :
       {mix::extents<4>{2, 3, 1, 16}, mix::extents<4>{1, 5, 100, 16}, mix::extents<4>{3, 1, 33, 16}}) {
    const auto x = random_tensor<float>(shape, 5);
    mix::tensor<index_t, 2> positions({shape[0], 1});
    for (index_t b = 0; b < shape[0]; ++b) positions(b, 0) = 31 * b;
    for (const auto& p : {mix::tensor_view<const index_t, 2>(positions), mix::tensor_view<const index_t, 2>()}) {
      mix::tensor<float, 4> one(shape);
      mix::rotary_embedding(x, one, {.positions = p});
      for (index_t n : {1, 2, 3, 7}) {
        mix::tensor<float, 4> many(shape, -1.0f);
        mix::rotary_embedding(x, many, {.positions = p}, threads{n});
        EXPECT_TRUE(same_bits(one, many)) << n;
      }
    }
  }
}

// ---- scalings: frequencies written out from the papers' code ------------------------------------------------------------------

double inverse_frequency(index_t i, index_t n, double base) {
  return 1.0 / std::pow(base, 2.0 * static_cast<double>(i) / static_cast<double>(n));
}

TEST(RotaryScaling, Linear) {
  for (index_t i = 0; i < 32; ++i) {
    EXPECT_NEAR(mix::linear_rotary_scaling{4}.frequency(i, 64, 1e4) * 4 / inverse_frequency(i, 64, 1e4), 1, 1e-15);
  }
}

TEST(RotaryScaling, NtkKeepsTheFastestAndStretchesTheSlowest) {
  const mix::ntk_rotary_scaling s{8};
  EXPECT_EQ(s.frequency(0, 64, 1e4), 1.0);
  EXPECT_NEAR(s.frequency(31, 64, 1e4) * 8 / inverse_frequency(31, 64, 1e4), 1, 1e-14);
  EXPECT_NEAR(s.frequency(10, 64, 1e4) / inverse_frequency(10, 64, 1e4 * std::pow(8.0, 64.0 / 62.0)), 1, 1e-14);
  EXPECT_EQ(s.frequency(0, 2, 1e4), 1.0);
}

TEST(RotaryScaling, Llama3) {
  const mix::llama3_rotary_scaling s{};
  // Llama 3.1: base 500000, 128 channels. By wavelength, as the released code asks.
  int kept = 0, divided = 0, mixed = 0;
  for (index_t i = 0; i < 64; ++i) {
    const double f = inverse_frequency(i, 128, 5e5), wavelength = 2 * 3.14159265358979323846 / f;
    double want;
    if (wavelength < 8192 / 4.0) {
      want = f, ++kept;
    } else if (wavelength > 8192 / 1.0) {
      want = f / 8, ++divided;
    } else {
      const double smooth = (8192 / wavelength - 1) / (4 - 1);
      want = (1 - smooth) * f / 8 + smooth * f, ++mixed;
    }
    EXPECT_NEAR(s.frequency(i, 128, 5e5) / want, 1, 1e-13) << i;
  }
  EXPECT_GT(kept, 10);
  EXPECT_GT(divided, 10);
  EXPECT_GT(mixed, 3);
  EXPECT_EQ(s.amplitude(), 1.0);
}

TEST(RotaryScaling, Yarn) {
  // find_correction_range and linear_ramp_mask of the authors' code, for a Llama 2 stretched 16 times.
  const mix::yarn_rotary_scaling s{.factor = 16};
  const double pi = 3.14159265358979323846;
  const auto correction = [&](double rotations) {
    return 128 * std::log(4096 / (rotations * 2 * pi)) / (2 * std::log(1e4));
  };
  const double low = std::floor(correction(32)), high = std::ceil(correction(1));
  EXPECT_EQ(low, 20);
  EXPECT_EQ(high, 46);
  for (index_t i = 0; i < 64; ++i) {
    const double f = inverse_frequency(i, 128, 1e4);
    const double extrapolated = 1 - std::clamp((static_cast<double>(i) - low) / (high - low), 0.0, 1.0);
    EXPECT_NEAR(s.frequency(i, 128, 1e4) / (f / 16 * (1 - extrapolated) + f * extrapolated), 1, 1e-13) << i;
  }
  EXPECT_NEAR(s.amplitude(), 0.1 * std::log(16.0) + 1, 1e-15);
  EXPECT_EQ((mix::yarn_rotary_scaling{.factor = 16, .attention = 0.5}.amplitude()), 0.5);
  EXPECT_EQ(mix::yarn_rotary_scaling{}.amplitude(), 1.0);
}

TEST(RotaryScaling, TurnsRowsByItsFrequencies) {
  const mix::yarn_rotary_scaling s{.factor = 4, .original_context = 64};
  const auto x = random_tensor<float>({1, 2, 50, 32}, 6);
  for (const mix::rotary_layout layout : layouts) {
    mix::tensor<float, 4> out(x.shape());
    mix::rotary_embedding(x, out, mix::rotary_options{.first_position = 200, .layout = layout, .scaling = s});
    const auto of = [&](index_t, index_t t, index_t i) {
      return static_cast<long double>(200 + t) * static_cast<long double>(s.frequency(i, 32, 1e4));
    };
    EXPECT_LE(worst_ulps<float>(x, out, 32, layout, of, static_cast<long double>(s.amplitude())), 2.0);
    const auto table = mix::make_rotary_table<float>(32, 250, mix::rotary_options{.scaling = s});
    mix::tensor<float, 4> by_table(x.shape());
    mix::rotary_embedding(x, by_table, table, {.first_position = 200, .layout = layout});
    EXPECT_TRUE(same_bits(out, by_table));
  }
}

// ---- edges ----------------------------------------------------------------------------------------------------------

TYPED_TEST(Rotary, NothingOutsideTheRowIsTouched) {
  using E = TypeParam;
  using T = mix::accumulator_t<E>;
  using mix::reference::guarded_buffer;
  for (const auto side : {mix::reference::flush::end, mix::reference::flush::start}) {
    for (index_t rotated = 0; rotated <= 70; rotated += 2) {
      for (index_t D : {rotated, rotated + 3}) {
        guarded_buffer<E> from(D, side), to(D, side);
        guarded_buffer<T> cosine(rotated / 2, side), sine(rotated / 2, side);
        for (index_t i = 0; i < D; ++i) from[i] = static_cast<E>(0.25f * static_cast<float>(i + 1));
        for (index_t i = 0; i < rotated / 2; ++i) cosine[i] = T(0), sine[i] = T(1);
        for (const mix::rotary_layout layout : layouts) {
          mix::rotate_row(from.data(), to.data(), D, cosine.data(), sine.data(), layout, rotated);
          for (index_t i = 0; i < rotated / 2; ++i) {
            const auto [first, second] = channels_of(i, rotated, layout);
            ASSERT_EQ(exact(to[first]), -exact(from[second])) << D << " " << rotated;
            ASSERT_EQ(exact(to[second]), exact(from[first])) << D << " " << rotated;
          }
          for (index_t i = rotated; i < D; ++i) ASSERT_EQ(exact(to[i]), exact(from[i])) << D << " " << rotated;
        }
      }
    }
  }
}

TYPED_TEST(Rotary, NanStaysInItsPair) {
  using E = TypeParam;
  auto x = random_tensor<E>({1, 1, 2, 38}, 7);
  for (const mix::rotary_layout layout : layouts) {
    for (index_t pair = 0; pair < 19; ++pair) {
      auto poisoned = x;
      const auto [first, second] = channels_of(pair, 38, layout);
      poisoned(0, 0, 1, first) = static_cast<E>(std::nanf(""));
      mix::tensor<E, 4> out(x.shape()), clean(x.shape());
      mix::rotary_embedding(poisoned, out, {.first_position = 3, .layout = layout});
      mix::rotary_embedding(x, clean, {.first_position = 3, .layout = layout});
      for (index_t t = 0; t < 2; ++t) {
        for (index_t d = 0; d < 38; ++d) {
          if (t == 1 && (d == first || d == second)) {
            EXPECT_TRUE(std::isnan(exact(out(0, 0, t, d))));
          } else {
            EXPECT_EQ(exact(out(0, 0, t, d)), exact(clean(0, 0, t, d)));
          }
        }
      }
    }
  }
}

TEST(RotaryEdges, EmptyTensors) {
  for (const mix::extents<4>& shape : {mix::extents<4>{0, 2, 3, 4}, mix::extents<4>{2, 0, 3, 4},
                                       mix::extents<4>{2, 2, 0, 4}, mix::extents<4>{2, 2, 3, 0}}) {
    mix::tensor<float, 4> x(shape);
    mix::rotary_embedding(x, x);
  }
  EXPECT_EQ(mix::make_rotary_table<float>(16, 0).positions(), 0);
  EXPECT_EQ(mix::make_rotary_table<float>(0, 5).pairs(), 0);
}

template <class Error, class F>
void expect_error(F&& f, const std::string& part) {
  try {
    f();
    FAIL() << "no error, expected: " << part;
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(part), std::string::npos) << error.what() << "\nexpected: " << part;
  }
}

TEST(RotaryErrors, NameTheArgumentAndWriteNothing) {
  const auto x = random_tensor<float>({2, 1, 4, 8}, 8);
  mix::tensor<float, 4> out(x.shape(), 7.0f);
  mix::tensor<float, 4> other({2, 1, 4, 6});
  const auto shape = [&](auto&& f, const char* part) { expect_error<mix::shape_error>(f, part); };
  const auto value = [&](auto&& f, const char* part) { expect_error<mix::value_error>(f, part); };
  shape([&] { mix::rotary_embedding(x, other); }, "out is (2, 1, 4, 6), x is (2, 1, 4, 8)");
  shape([&] { mix::rotary_embedding(x.permuted({0, 1, 3, 2}), mix::tensor<float, 4>({2, 1, 8, 4}).view()); },
        "x has stride");
  mix::tensor<float, 4> buffer({2, 1, 5, 8});
  shape([&] { mix::rotary_embedding(buffer.slice(2, 0, 4), buffer.slice(2, 1, 4)); }, "out overlaps x");
  value([&] { mix::rotary_embedding(x, out, {.rotated_channels = 3}); }, "rotated_channels is 3");
  value([&] { mix::rotary_embedding(x, out, {.rotated_channels = 10}); }, "rotated_channels is 10");
  value([&] { mix::rotary_embedding(x, out, {.rotated_channels = -2}); }, "rotated_channels is -2");
  value([&] { mix::rotary_embedding(x, out, {.base = 1.0}); }, "base is 1");
  value([&] { mix::rotary_embedding(x, out, mix::rotary_options{.scaling = mix::linear_rotary_scaling{0}}); },
        "scaling.factor is 0");
  mix::tensor<index_t, 2> positions({3, 4}), too_many({2, 5});
  shape([&] { mix::rotary_embedding(x, out, {.positions = positions}); }, "positions has 3 batches, expected 1 or 2");
  shape([&] { mix::rotary_embedding(x, out, {.positions = too_many}); }, "positions has 5 rows, expected 1 or 4");
  const mix::tensor<float, 4> odd({1, 1, 1, 7});
  mix::tensor<float, 4> odd_out(odd.shape());
  value([&] { mix::rotary_embedding(odd, odd_out); }, "rotated_channels is 7");

  const auto table = mix::make_rotary_table<float>(8, 10);
  value([&] { mix::rotary_embedding(x, out, table, {.first_position = 7}); },
        "row 3 is at position 10, table holds positions 0 to 9");
  value([&] { mix::rotary_embedding(x, out, table, {.first_position = -1}); }, "row 0 is at position -1");
  shape([&] { mix::rotary_embedding(x, out, table, {.rotated_channels = 6}); }, "table has 4 pairs, expected 3");
  value([&] { (void)mix::make_rotary_table<float>(8, -1); }, "positions is -1");
  mix::rotary_inside{&table}.check(8);
  shape([&] { mix::rotary_inside{&table}.check(6); }, "rotary.table has 4 pairs, q has 6 channels");
  value([&] { mix::rotary_inside<float>{}.check(6); }, "rotary.table is null");
  for (float untouched : out) EXPECT_EQ(untouched, 7.0f);
}

}  // namespace
