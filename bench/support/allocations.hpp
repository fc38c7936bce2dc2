// SPDX-License-Identifier: Apache-2.0
/// @file Counts what operator new hands out. Replaces it, so exactly one source file of a program includes this.
#pragma once

#include <malloc.h>  // malloc_usable_size

#include <algorithm>
#include <atomic>
#include <cstddef>
#include <cstdlib>
#include <new>

#include <tokenmix/config.hpp>

namespace bench {

/// How often memory was asked for, how much is held, and the most held since `peak` was last set.
struct allocation_counts {
  std::atomic<std::size_t> calls{0};
  std::atomic<std::size_t> live{0};
  std::atomic<std::size_t> peak{0};
};
inline allocation_counts allocations;

/// What one call took: the most that was held at a time, beyond what was held before.
class allocation_watch {
 public:
  allocation_watch() : calls_(allocations.calls), live_(allocations.live) { allocations.peak = live_; }
  std::size_t calls() const { return allocations.calls - calls_; }
  std::size_t peak_bytes() const { return std::max<std::size_t>(allocations.peak, live_) - live_; }

 private:
  std::size_t calls_;
  std::size_t live_;
};

namespace detail {
inline void* counted(void* memory) noexcept {
  if (memory == nullptr) return nullptr;
  allocations.calls.fetch_add(1, std::memory_order_relaxed);
  const std::size_t bytes = malloc_usable_size(memory);
  const std::size_t live = allocations.live.fetch_add(bytes, std::memory_order_relaxed) + bytes;
  std::size_t peak = allocations.peak.load(std::memory_order_relaxed);
  while (live > peak && !allocations.peak.compare_exchange_weak(peak, live, std::memory_order_relaxed)) {
  }
  return memory;
}
inline void* allocate(std::size_t bytes) noexcept { return counted(std::malloc(bytes == 0 ? 1 : bytes)); }
inline void* allocate(std::size_t bytes, std::align_val_t alignment) noexcept {
  const auto a = static_cast<std::size_t>(alignment);
  return counted(std::aligned_alloc(a, std::max(a, (bytes + a - 1) / a * a)));
}
inline void* or_throw(void* memory) {
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
inline void give_back(void* memory) noexcept {
  if (memory == nullptr) return;
  allocations.live.fetch_sub(malloc_usable_size(memory), std::memory_order_relaxed);
  std::free(memory);
}
}  // namespace detail

}  // namespace bench

// Not inlined: g++ 12 otherwise sees malloc meet delete and warns.
TOKENMIX_NOINLINE void* operator new(std::size_t n) { return bench::detail::or_throw(bench::detail::allocate(n)); }
TOKENMIX_NOINLINE void* operator new[](std::size_t n) { return bench::detail::or_throw(bench::detail::allocate(n)); }
TOKENMIX_NOINLINE void* operator new(std::size_t n, const std::nothrow_t&) noexcept {
  return bench::detail::allocate(n);
}
TOKENMIX_NOINLINE void* operator new[](std::size_t n, const std::nothrow_t&) noexcept {
  return bench::detail::allocate(n);
}
TOKENMIX_NOINLINE void* operator new(std::size_t n, std::align_val_t a) {
  return bench::detail::or_throw(bench::detail::allocate(n, a));
}
TOKENMIX_NOINLINE void* operator new[](std::size_t n, std::align_val_t a) {
  return bench::detail::or_throw(bench::detail::allocate(n, a));
}
TOKENMIX_NOINLINE void* operator new(std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return bench::detail::allocate(n, a);
}
TOKENMIX_NOINLINE void* operator new[](std::size_t n, std::align_val_t a, const std::nothrow_t&) noexcept {
  return bench::detail::allocate(n, a);
}
TOKENMIX_NOINLINE void operator delete(void* p) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete[](void* p) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete(void* p, std::size_t) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete[](void* p, std::size_t) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete(void* p, std::align_val_t) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete[](void* p, std::align_val_t) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete(void* p, std::size_t, std::align_val_t) noexcept { bench::detail::give_back(p); }
TOKENMIX_NOINLINE void operator delete[](void* p, std::size_t, std::align_val_t) noexcept {
  bench::detail::give_back(p);
}
