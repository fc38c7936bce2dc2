// SPDX-License-Identifier: Apache-2.0
// Not one byte outside the operands is touched: all of them end, or begin, at pages that nobody may touch.
//
// Budget: none, the results are compared with those in plain memory; a byte too far is a crash.
#include <primitives/scan/scan_cases.hpp>

#include <reference/guarded.hpp>

namespace {

using namespace cases;
using reference::flush;
using reference::guarded_buffer;

template <class E>
struct guarded_tensor {
  guarded_buffer<E> memory;
  mix::tensor_view<E, 2> view;

  guarded_tensor(const mix::tensor<E, 2>& from, flush side)
      : memory(from.data(), from.size(), side), view(memory.data(), from.shape()) {}
};

template <class E, class Scan>
void check(const mix::extents<2>& shape, index_t axis, Scan&& scan) {
  mix::extents<2> state_shape = shape;
  state_shape[static_cast<std::size_t>(axis)] = 1;
  const auto a = reference::uniform<E>(shape, 1), b = reference::uniform<E>(shape, 2);
  const auto h0 = reference::uniform<E>(state_shape, 3);
  for (const mix::order order : {mix::order::forward, mix::order::reverse}) {
    mix::tensor<E, 2> out(shape), h1(state_shape);
    scan(a.view(), b.view(), h0.view(), out.view(), h1.view(), order);
    for (const flush side : {flush::end, flush::start}) {
      guarded_tensor<E> ga(a, side), gb(b, side), gh(h0, side), gout(out, side), gh1(h1, side);
      scan(ga.view, gb.view, gh.view, gout.view, gh1.view, order);
      EXPECT_TRUE((reference::same_bits<E, 2>(gout.view, out))) << shape[0] << " " << shape[1] << " axis " << axis;
      EXPECT_TRUE((reference::same_bits<E, 2>(gh1.view, h1))) << shape[0] << " " << shape[1] << " axis " << axis;
    }
  }
}

template <class E, class T>
void sweep() {
  for (const index_t axis : {0, 1}) {
    const auto scan = [&](auto a, auto b, auto h0, auto out, auto h1, mix::order order) {
      mix::inclusive_scan(mix::affine<T>{}, mix::affine_view{.a = a, .b = b}, out,
                          mix::scan_options{.axis = axis, .order = order, .initial = h0, .final_state = h1});
    };
    for (index_t n = 0; n <= (reduced_sweep ? 17 : 67); ++n) {
      check<E>({n, 5}, axis, scan);
      check<E>({5, n}, axis, scan);
      check<E>({17, n}, axis, scan);
      check<E>({n, 33}, axis, scan);
    }
    check<E>({300, 19}, axis, scan);
    check<E>({19, 300}, axis, scan);
  }
}

TEST(bounds, float_operands) { sweep<float, float>(); }
TEST(bounds, float16_operands) { sweep<mix::float16, float>(); }

TEST(bounds, large_operands) {
  // As many as are streamed past the caches.
  const index_t T = 4200, D = 1003;
  const auto x = reference::uniform<float>({T, D}, 4);
  guarded_tensor<float> in(x, flush::end), out(x, flush::end);
  mix::inclusive_scan(mix::plus<float>{}, in.view, out.view, mix::scan_options{.axis = 0});
  mix::tensor<float, 2> last({T, 3});
  mix::inclusive_scan(mix::plus<float>{}, x.slice(1, D - 3, 3), last, mix::scan_options{.axis = 0});
  EXPECT_TRUE((reference::same_bits<float, 2>(out.view.slice(1, D - 3, 3), last)));
}

}  // namespace
