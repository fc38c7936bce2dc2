// SPDX-License-Identifier: Apache-2.0
// Not one byte outside the operands is touched: all of them end, or begin, at pages that nobody may touch.
//
// Budget: the float gate; a byte too far is a crash.
#include <mixers/softmax/softmax_cases.hpp>

#include <reference/guarded.hpp>

namespace {

using cases::index_t;
using reference::flush;
using reference::guarded_buffer;

/// Row-major copies flush against forbidden pages.
template <class E>
struct guarded_tensor {
  guarded_buffer<E> memory;
  mix::tensor_view<E, 4> view;

  guarded_tensor(const mix::tensor<E, 4>& from, flush side)
      : memory(from.data(), from.size(), side), view(memory.data(), from.shape()) {}
};

template <class E>
void check(const cases::shape& size, std::uint64_t seed, bool causal) {
  cases::operands<E> x(size, seed);
  auto problem = problem_of(x);
  if (causal) problem.mask = [](const mix::index& w) { return w.key <= w.query; };
  const auto expected = reference::softmax_attention(problem);
  for (const flush side : {flush::end, flush::start}) {
    guarded_tensor<E> q(x.q, side), k(x.k, side), v(x.v, side), out(x.out, side);
    guarded_buffer<float> lse(x.lse.size(), side);
    const mix::tensor_view<float, 3> lse_view(lse.data(), x.lse.shape());
    if (causal) {
      mix::softmax_attention(q.view, k.view, v.view, out.view,
                             mix::softmax_options{.mask = mix::causal{}, .lse = lse_view});
    } else {
      mix::softmax_attention(q.view, k.view, v.view, out.view, mix::softmax_options{.lse = lse_view});
    }
    const std::string label = size.text() + (side == flush::end ? " at the end" : " at the start");
    expect_within_gate<E, E, E>(out.view, x, expected, label);
    std::copy(lse.begin(), lse.end(), x.lse.begin());
    expect_lse_within_gate(x, expected, label);
  }
}

std::vector<index_t> sizes() {
  std::vector<index_t> all;
  for (index_t n = 0; n <= (cases::reduced_sweep ? 17 : 97); ++n) all.push_back(n);
  return all;
}

template <class E>
void sweep() {
  std::uint64_t seed = 1;
  for (index_t n : sizes()) {
    check<E>({1, 2, 1, 5, n, 12, 9}, ++seed, false);
    check<E>({1, 3, 1, 1, n, 9, 5}, ++seed, false);
    check<E>({1, 1, 1, n, 19, 10, 8}, ++seed, true);
    check<E>({1, 1, 1, n, n, 8, 7}, ++seed, true);
    check<E>({1, 2, 1, 9, 11, n, 3}, ++seed, true);
    check<E>({1, 2, 1, 1, 11, n, 3}, ++seed, false);
    check<E>({1, 2, 1, 9, 11, 3, n}, ++seed, true);
    check<E>({1, 2, 1, 1, 11, 3, n}, ++seed, false);
  }
  for (index_t s : {127, 128, 129, 193, 255, 256, 257, 320, 511, 513}) {
    check<E>({1, 2, 1, 17, s, 7, 5}, ++seed, true);
    check<E>({1, 2, 1, 1, s, 7, 5}, ++seed, false);
  }
}

TEST(attention_bounds, float_operands) { sweep<float>(); }
TEST(attention_bounds, bfloat16_operands) { sweep<mix::bfloat16>(); }

}  // namespace
