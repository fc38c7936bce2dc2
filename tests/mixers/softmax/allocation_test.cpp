// SPDX-License-Identifier: Apache-2.0
// No call allocates after the first of its kind: scratch is kept by the thread.
//
// Budget: zero calls of operator new.
#include <bench/support/allocations.hpp>
#include <mixers/softmax/softmax_cases.hpp>
#include <reference/no_allocation.hpp>

namespace {

using cases::index_t;
using reference::expect_no_allocation;

/// The calling thread under several worker numbers: what a pool would do, without its own allocations.
struct several_workers {
  static index_t concurrency() { return 4; }
  template <class Task>
  void for_each(index_t n, Task&& task) const {
    for (index_t i = 0; i < n; ++i) task(i, i % 4);
  }
};

TEST(allocation, the_counter_counts) {
  const bench::allocation_watch watch;
  ::operator delete(::operator new(1));  // a new-expression may be optimised away, a call may not
  ::operator delete[](::operator new[](1, std::align_val_t{64}), std::align_val_t{64});
  EXPECT_EQ(watch.calls(), 2u);
}

TEST(allocation, none_per_call) {
  for (const cases::shape& size : {cases::shape{1, 8, 2, 1, 3000, 64, 64}, cases::shape{2, 4, 2, 100, 700, 32, 48},
                                   cases::shape{64, 2, 2, 9, 9, 16, 16}, cases::shape{1, 2, 1, 3, 300, 80, 80}}) {
    cases::operands<> x(size, 1);
    const auto options = mix::softmax_options{.mask = mix::causal{}, .lse = x.lse.view()};
    expect_no_allocation([&] { mix::softmax_attention(x.q, x.k, x.v, x.out, options); }, size.text());
    const several_workers on;
    expect_no_allocation([&] { mix::softmax_attention(x.q, x.k, x.v, x.out, options, on); },
                         size.text() + " on workers");
  }
}

// Once the largest of a growing series has been met, smaller ones need nothing: every step of a decode.
TEST(allocation, none_per_step_of_a_decode) {
  cases::operands<> x({1, 4, 2, 1, 1500, 64, 64}, 2);
  const auto step = [&](index_t keys) {
    mix::softmax_attention(x.q, x.k.slice(2, 0, keys), x.v.slice(2, 0, keys), x.out,
                           mix::softmax_options{.mask = mix::causal{}});
  };
  step(1500);
  step(1500);
  const bench::allocation_watch watch;
  for (index_t keys = 1; keys <= 1500; ++keys) step(keys);
  EXPECT_EQ(watch.calls(), 0u);
}

// What is kept does not grow with T S: 4 times the tokens, not 16 times the memory.
TEST(allocation, scratch_has_no_term_in_queries_times_keys) {
  const auto bytes_for = [](index_t n) {
    std::size_t bytes = 0;
    std::thread([&] {
      cases::operands<> x({1, 1, 1, n, n, 16, 16}, 3);
      mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.mask = mix::causal{}});
      bytes = mix::scratch::of_this_thread().capacity();
    }).join();
    return bytes;
  };
  const std::size_t small = bytes_for(512), large = bytes_for(4096);
  EXPECT_GT(small, 0u);
  EXPECT_LE(large, 2 * small) << "8 times the tokens";
  EXPECT_LT(large, 4096u * 4096u) << "a quarter of one byte per pair";
}

}  // namespace
