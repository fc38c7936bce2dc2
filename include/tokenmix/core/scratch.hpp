// SPDX-License-Identifier: Apache-2.0
/// @file Scratch memory of a thread, kept between calls, handed out like a stack.
#pragma once

#include <tokenmix/core/aligned_array.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/types.hpp>

#include <cstddef>
#include <cstring>  // std::memset
#include <limits>
#include <new>
#include <type_traits>
#include <utility>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#define TOKENMIX_ADDRESS_SANITIZER 1
#elif defined(__has_feature)
#if __has_feature(address_sanitizer)
#define TOKENMIX_ADDRESS_SANITIZER 1
#endif
#endif
#if defined(TOKENMIX_ADDRESS_SANITIZER)
#include <sanitizer/asan_interface.h>
#endif

namespace tokenmix::inline TOKENMIX_ABI {

/// Memory that grows to the largest need met so far and is then reused: after the first call of a kind no allocation.
///
/// Memory is taken through `scratch_frame`s, which nest; what a frame took is given back when it ends. Under an
/// address sanitizer, what is not taken is forbidden, and what is taken holds NaN.
class scratch {
 public:
  static constexpr std::size_t alignment = detail::memory_alignment;

  scratch() = default;
  scratch(const scratch&) = delete;
  scratch& operator=(const scratch&) = delete;
  ~scratch() { release(); }

  /// The calling thread's own.
  static scratch& of_this_thread() {
    thread_local scratch instance;
    return instance;
  }

  /// Bytes held, used or not.
  std::size_t capacity() const {
    std::size_t bytes = 0;
    for (const block& b : blocks_) bytes += b.bytes;
    return bytes;
  }

  /// Frees everything; no frame may be open.
  void release() {
    for (block& b : blocks_) allow(b.memory.get(), b.bytes);
    blocks_.clear();
  }

 private:
  friend class scratch_frame;

  struct block {
    detail::aligned_bytes memory;
    std::size_t bytes;
    std::size_t used = 0;
  };

#if defined(TOKENMIX_ADDRESS_SANITIZER)
  static constexpr std::size_t gap = alignment;  // after everything taken
  static void forbid(std::byte* p, std::size_t n) { __asan_poison_memory_region(p, n); }
  static void allow(std::byte* p, std::size_t n) { __asan_unpoison_memory_region(p, n); }
  static void fill(std::byte* p, std::size_t n) { std::memset(p, 0xff, n); }
#else
  static constexpr std::size_t gap = 0;
  static void forbid(std::byte*, std::size_t) {}
  static void allow(std::byte*, std::size_t) {}
  static void fill(std::byte*, std::size_t) {}
#endif

  std::byte* take(std::size_t wanted) {
    const std::size_t bytes = ((wanted + alignment - 1) & ~(alignment - 1)) + gap;
    if (blocks_.empty() || blocks_.back().bytes - blocks_.back().used < bytes) {
      // At least as large as all before, so that a growing need is met in few steps.
      const std::size_t size = bytes + capacity();
      blocks_.push_back({detail::allocate_aligned(size), size});
      forbid(blocks_.back().memory.get(), size);
    }
    block& last = blocks_.back();
    std::byte* memory = last.memory.get() + last.used;
    last.used += bytes;
    allow(memory, wanted);
    fill(memory, wanted);
    return memory;
  }

  void give_back(block& b, std::size_t used) {
    forbid(b.memory.get() + used, b.bytes - used);
    b.used = used;
  }

  // One block that could have served the whole need replaces several, once nobody holds any. Frames end in
  // destructors, so this must not throw: where memory is short, the next take allocates.
  void merge_blocks() {
    const std::size_t bytes = capacity();
    release();
    void* memory = ::operator new[](bytes, std::align_val_t{alignment}, std::nothrow);
    if (memory == nullptr) return;
    blocks_.push_back({detail::aligned_bytes(static_cast<std::byte*>(memory)), bytes});  // room is left from before
    forbid(blocks_.back().memory.get(), bytes);
  }

  std::vector<block> blocks_;
  index_t frames_ = 0;
};

/// A scope in which scratch memory is taken. Frames of one owner end in the opposite order of their beginning.
class scratch_frame {
 public:
  explicit scratch_frame(scratch& owner = scratch::of_this_thread())
      : owner_(owner), blocks_(owner.blocks_.size()), used_(blocks_ == 0 ? 0 : owner.blocks_.back().used) {
    ++owner_.frames_;
  }
  scratch_frame(const scratch_frame&) = delete;
  scratch_frame& operator=(const scratch_frame&) = delete;
  ~scratch_frame() {
    if (--owner_.frames_ == 0 && owner_.blocks_.size() > 1) {
      owner_.merge_blocks();
      return;
    }
    for (std::size_t i = blocks_; i < owner_.blocks_.size(); ++i) owner_.give_back(owner_.blocks_[i], 0);
    if (blocks_ > 0) owner_.give_back(owner_.blocks_[blocks_ - 1], used_);
  }

  /// Room for n objects, not initialised, aligned to 64 bytes, until this frame ends.
  template <class T>
  T* take(index_t n) {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= scratch::alignment);
    constexpr index_t most = std::numeric_limits<index_t>::max() / 2 / static_cast<index_t>(sizeof(T));
    if (n < 0 || n > most) detail::fail_value("scratch memory for ", n, " objects was asked for");
    return reinterpret_cast<T*>(owner_.take(static_cast<std::size_t>(n) * sizeof(T)));
  }

 private:
  scratch& owner_;
  std::size_t blocks_;
  std::size_t used_;
};

}  // namespace tokenmix::inline TOKENMIX_ABI
