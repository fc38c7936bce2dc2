// SPDX-License-Identifier: Apache-2.0
/// @file Memory that ends (or begins) at a page nobody may touch: one byte too far is a crash.
#pragma once

#include <tokenmix/core/types.hpp>

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>

namespace tokenmix::reference {

/// Where the elements lie: their last byte before a forbidden page, or their first byte behind one.
enum class flush { end, start };

/// n objects flush against a forbidden page. Forbidden pages lie on both sides; `side` says which one is touched.
///
///     guarded_buffer<float> row(17, flush::end);
///     kernel(row.data(), 17);          // reading row.data()[17] is a crash
///
/// Every byte is 0xff at the start (NaN for floating types), so what was not written shows.
template <class T>
class guarded_buffer {
  static_assert(std::is_trivially_copyable_v<T>);

 public:
  explicit guarded_buffer(index_t n, flush side = flush::end) : size_(n) {
    const auto page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = static_cast<std::size_t>(n) * sizeof(T);
    const std::size_t middle = (bytes + page - 1) / page * page;
    bytes_ = middle + 2 * page;
    void* memory = mmap(nullptr, bytes_, PROT_NONE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) failed("mmap");
    memory_ = static_cast<std::byte*>(memory);
    if (middle > 0 && mprotect(memory_ + page, middle, PROT_READ | PROT_WRITE) != 0) failed("mprotect");
    data_ = memory_ + page + (side == flush::end ? middle - bytes : 0);
    if (middle > 0) std::memset(memory_ + page, 0xff, middle);
  }
  /// A copy of n elements.
  guarded_buffer(const T* from, index_t n, flush side = flush::end) : guarded_buffer(n, side) {
    if (n > 0) std::memcpy(data_, from, static_cast<std::size_t>(n) * sizeof(T));
  }
  guarded_buffer(guarded_buffer&& other) noexcept
      : memory_(std::exchange(other.memory_, nullptr)),
        data_(std::exchange(other.data_, nullptr)),
        bytes_(std::exchange(other.bytes_, 0)),
        size_(std::exchange(other.size_, 0)) {}
  guarded_buffer(const guarded_buffer&) = delete;
  guarded_buffer& operator=(const guarded_buffer&) = delete;
  guarded_buffer& operator=(guarded_buffer&&) = delete;
  ~guarded_buffer() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
  }

  T* data() { return reinterpret_cast<T*>(data_); }
  const T* data() const { return reinterpret_cast<const T*>(data_); }
  index_t size() const { return size_; }
  T& operator[](index_t i) { return data()[i]; }
  const T& operator[](index_t i) const { return data()[i]; }
  T* begin() { return data(); }
  T* end() { return data() + size_; }
  const T* begin() const { return data(); }
  const T* end() const { return data() + size_; }

 private:
  [[noreturn]] static void failed(const char* what) {
    std::perror(what);
    std::abort();
  }

  std::byte* memory_ = nullptr;
  std::byte* data_ = nullptr;
  std::size_t bytes_ = 0;
  index_t size_ = 0;
};

}  // namespace tokenmix::reference
