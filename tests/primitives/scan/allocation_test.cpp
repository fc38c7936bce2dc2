// SPDX-License-Identifier: Apache-2.0
// No scan allocates after the first of its kind: scratch is kept by the thread.
//
// Budget: zero calls of operator new.
#include <atomic>
#include <cstdlib>
#include <new>

#include <primitives/scan/scan_cases.hpp>

namespace {

std::atomic<long> allocations{0};

void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  void* p = nullptr;
  if (posix_memalign(&p, alignment < sizeof(void*) ? sizeof(void*) : alignment, bytes == 0 ? 1 : bytes) != 0)
    std::abort();
  return p;
}
// Not inlined: g++ would see memory of operator new given to free.
__attribute__((noinline)) void released(void* p) { std::free(p); }

}  // namespace

void* operator new(std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new[](std::size_t bytes) { return counted(bytes, alignof(std::max_align_t)); }
void* operator new(std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
void* operator new[](std::size_t bytes, std::align_val_t a) { return counted(bytes, static_cast<std::size_t>(a)); }
void operator delete(void* p) noexcept { released(p); }
void operator delete[](void* p) noexcept { released(p); }
void operator delete(void* p, std::size_t) noexcept { released(p); }
void operator delete[](void* p, std::size_t) noexcept { released(p); }
void operator delete(void* p, std::align_val_t) noexcept { released(p); }
void operator delete[](void* p, std::align_val_t) noexcept { released(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { released(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { released(p); }

namespace {

using namespace cases;

template <class Scan>
void expect_none(const char* what, Scan&& scan) {
  scan();
  const long before = allocations.load();
  scan();
  EXPECT_EQ(allocations.load() - before, 0) << what;
}

TEST(allocation, none_after_the_first_call) {
  mix::tensor<float, 4> g({2, 1, 3, 1}), m({2, 1, 3, 20}), s({2, 1, 3, 20});
  expect_none("one step of a matrix state", [&] {
    mix::inclusive_scan(mix::matrix_decay<float>{}, mix::matrix_decay_view{.log_decay = g, .matrix = m}, m,
                        mix::scan_options{.axis = 1, .initial = s.view(), .final_state = s.view()});
  });
  mix::tensor<float, 2> x({40, 1000}), y({40, 1000});
  const std::vector<index_t> offsets{0, 0, 7, 40};
  expect_none("segments of rows", [&] {
    mix::inclusive_scan(mix::plus<float>{}, x, y,
                        mix::scan_options{.axis = 0, .offsets = std::span<const index_t>(offsets)});
  });
  expect_none("contiguous time", [&] { mix::exclusive_scan(mix::plus<float>{}, x, y, mix::scan_options{.axis = 1}); });
}

}  // namespace
