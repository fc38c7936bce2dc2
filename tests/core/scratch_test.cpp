// SPDX-License-Identifier: Apache-2.0
// Scratch memory: frames nest, nothing is handed out twice, and after the first use nothing is allocated.
#include <tokenmix/core/scratch.hpp>

#include <gtest/gtest.h>

#include <atomic>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>
#include <thread>
#include <vector>

namespace mix = tokenmix;
using mix::index_t;

static std::atomic<long> allocations{0};

static void* counted(std::size_t bytes, std::size_t alignment) {
  ++allocations;
  return std::aligned_alloc(alignment, (bytes + alignment - 1) / alignment * alignment);
}
// Not inlined, or g++ sees free() beside a new that it did not inline, and warns.
__attribute__((noinline)) static void freed(void* p) { std::free(p); }
void* operator new(std::size_t n) { return counted(n + (n == 0), alignof(std::max_align_t)); }
void* operator new[](std::size_t n) { return counted(n + (n == 0), alignof(std::max_align_t)); }
void* operator new(std::size_t n, std::align_val_t a) { return counted(n + (n == 0), static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a) { return counted(n + (n == 0), static_cast<std::size_t>(a)); }
void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return counted(n + (n == 0), static_cast<std::size_t>(a));
}
void operator delete(void* p) noexcept { freed(p); }
void operator delete[](void* p) noexcept { freed(p); }
void operator delete(void* p, std::size_t) noexcept { freed(p); }
void operator delete[](void* p, std::size_t) noexcept { freed(p); }
void operator delete(void* p, std::align_val_t) noexcept { freed(p); }
void operator delete[](void* p, std::align_val_t) noexcept { freed(p); }
void operator delete(void* p, std::size_t, std::align_val_t) noexcept { freed(p); }
void operator delete[](void* p, std::size_t, std::align_val_t) noexcept { freed(p); }

namespace {

// A call as mixers make them: its frame, what it takes, a call inside. Every byte is written and read again.
void call(mix::scratch& memory, int depth, index_t n) {
  mix::scratch_frame frame(memory);
  float* a = frame.take<float>(n);
  double* b = frame.take<double>(n / 2 + 1);
  unsigned char* c = frame.take<unsigned char>(n % 65);
  std::memset(a, depth, static_cast<std::size_t>(n) * sizeof(float));
  std::memset(b, depth + 1, static_cast<std::size_t>(n / 2 + 1) * sizeof(double));
  std::memset(c, depth + 2, static_cast<std::size_t>(n % 65));
  if (depth > 0) {
    call(memory, depth - 1, 2 * n + 1);
    call(memory, depth - 1, n / 3);
  }
  const auto all = [](const void* p, std::size_t bytes, int value) {
    for (std::size_t i = 0; i < bytes; ++i) {
      if (static_cast<const unsigned char*>(p)[i] != value) return false;
    }
    return true;
  };
  EXPECT_TRUE(all(a, static_cast<std::size_t>(n) * sizeof(float), depth));
  EXPECT_TRUE(all(b, static_cast<std::size_t>(n / 2 + 1) * sizeof(double), depth + 1));
  EXPECT_TRUE(all(c, static_cast<std::size_t>(n % 65), depth + 2));
}

TEST(scratch, frames_nest_and_nothing_is_handed_out_twice) {
  mix::scratch memory;
  for (index_t n : {1, 100, 3, 1000, 17, 5000}) call(memory, 4, n);
}

TEST(scratch, allocates_nothing_after_the_first_call) {
  mix::scratch memory;
  call(memory, 4, 1000);
  const std::size_t held = memory.capacity();
  const long before = allocations.load();
  for (int i = 0; i < 10; ++i) call(memory, 4, 1000);
  for (int i = 0; i < 10; ++i) call(memory, 3, 999);
  EXPECT_EQ(allocations.load(), before);
  EXPECT_EQ(memory.capacity(), held);
  EXPECT_GT(held, 0u);
}

TEST(scratch, memory_of_an_ended_frame_is_used_again) {
  mix::scratch memory;
  const auto first = [&] {
    mix::scratch_frame frame(memory);
    return reinterpret_cast<std::uintptr_t>(frame.take<float>(10));
  };
  const std::uintptr_t a = first();
  EXPECT_EQ(first(), a);
  mix::scratch_frame outer(memory);
  const auto b = reinterpret_cast<std::uintptr_t>(outer.take<float>(10));
  EXPECT_EQ(b, a);
  EXPECT_NE(first(), a);
}

TEST(scratch, everything_is_aligned_to_a_cache_line) {
  mix::scratch memory;
  mix::scratch_frame frame(memory);
  for (index_t n = 0; n < 200; ++n) {
    EXPECT_EQ(reinterpret_cast<std::uintptr_t>(frame.take<char>(n)) % 64, 0u);
  }
}

TEST(scratch, grows_in_few_steps) {
  mix::scratch memory;
  const long before = allocations.load();
  for (int i = 0; i < 10; ++i) {
    mix::scratch_frame frame(memory);
    for (int k = 0; k < 1000; ++k) frame.take<float>(1000);
  }
  EXPECT_LE(allocations.load() - before, 2 * 12);  // doubling: log2(1000) blocks, the list's own growth, one merge
}

TEST(scratch, release_frees) {
  mix::scratch memory;
  call(memory, 2, 100);
  memory.release();
  EXPECT_EQ(memory.capacity(), 0u);
  call(memory, 2, 100);
  EXPECT_GT(memory.capacity(), 0u);
}

TEST(scratch, each_thread_has_its_own) {
  mix::scratch* here = &mix::scratch::of_this_thread();
  mix::scratch* there = nullptr;
  std::thread([&] {
    there = &mix::scratch::of_this_thread();
    call(*there, 3, 500);
  }).join();
  EXPECT_NE(here, there);
  EXPECT_EQ(here, &mix::scratch::of_this_thread());
}

TEST(scratch, sizes_that_cannot_be_are_errors) {
  mix::scratch memory;
  mix::scratch_frame frame(memory);
  EXPECT_THROW(frame.take<float>(-1), mix::value_error);
  EXPECT_THROW(frame.take<float>(std::numeric_limits<index_t>::max()), mix::value_error);
  EXPECT_THROW(frame.take<double>(std::numeric_limits<index_t>::max() / 8), mix::value_error);
  EXPECT_THROW(frame.take<char>(std::numeric_limits<index_t>::min()), mix::value_error);
  *frame.take<float>(1) = 1.f;
}

#if defined(TOKENMIX_ADDRESS_SANITIZER)
TEST(scratch_death_test, a_sanitizer_sees_one_element_too_far_and_one_frame_too_late) {
  mix::scratch memory;
  {
    mix::scratch_frame frame(memory);
    frame.take<float>(1000);
  }
  volatile float* late = nullptr;
  {
    mix::scratch_frame frame(memory);
    volatile float* p = frame.take<float>(16);
    volatile float* q = frame.take<float>(3);
    EXPECT_NE(p[15], p[15]);  // NaN: not written yet
    EXPECT_DEATH(p[16] = 1.f, "use-after-poison");
    EXPECT_DEATH(q[3] = 1.f, "use-after-poison");
    late = p;
  }
  EXPECT_DEATH(late[0] = 1.f, "use-after-poison");
}
#endif

}  // namespace
