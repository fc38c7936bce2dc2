// SPDX-License-Identifier: Apache-2.0
/// @file A fixed number of elements on the heap, aligned to a cache line, zero at the start.
#pragma once

#include <tokenmix/core/types.hpp>

#include <algorithm>
#include <cstddef>
#include <memory>
#include <new>
#include <utility>

namespace tokenmix::inline TOKENMIX_ABI::detail {

/// The alignment of all memory that the library allocates: a cache line, and the widest register.
inline constexpr std::size_t memory_alignment = 64;

struct aligned_delete {
  void operator()(std::byte* p) const { ::operator delete[](p, std::align_val_t{memory_alignment}); }
};
using aligned_bytes = std::unique_ptr<std::byte[], aligned_delete>;

inline aligned_bytes allocate_aligned(std::size_t bytes) {
  return aligned_bytes(static_cast<std::byte*>(::operator new[](bytes, std::align_val_t{memory_alignment})));
}

/// n objects of type E that live and die together. Unlike std::vector, a bool is a bool, and the size is exact, so
/// that an address sanitizer sees the end.
template <class E>
class aligned_array {
  static_assert(alignof(E) <= memory_alignment);

 public:
  aligned_array() = default;
  explicit aligned_array(std::size_t n) : bytes_(allocate(n)) {
    std::uninitialized_value_construct_n(data(), n);
    size_ = n;
  }
  aligned_array(std::size_t n, const E& value) : bytes_(allocate(n)) {
    std::uninitialized_fill_n(data(), n, value);
    size_ = n;
  }
  aligned_array(const aligned_array& other) : bytes_(allocate(other.size_)) {
    std::uninitialized_copy_n(other.data(), other.size_, data());
    size_ = other.size_;
  }
  aligned_array(aligned_array&& other) noexcept
      : bytes_(std::move(other.bytes_)), size_(std::exchange(other.size_, std::size_t{0})) {}
  aligned_array& operator=(aligned_array other) noexcept {
    swap(other);
    return *this;
  }
  ~aligned_array() { std::destroy_n(data(), size_); }

  E* data() { return reinterpret_cast<E*>(bytes_.get()); }
  const E* data() const { return reinterpret_cast<const E*>(bytes_.get()); }
  std::size_t size() const { return size_; }

  void swap(aligned_array& other) noexcept {
    bytes_.swap(other.bytes_);
    std::swap(size_, other.size_);
  }

 private:
  static aligned_bytes allocate(std::size_t n) { return n == 0 ? aligned_bytes() : allocate_aligned(n * sizeof(E)); }

  aligned_bytes bytes_;
  std::size_t size_ = 0;
};

}  // namespace tokenmix::inline TOKENMIX_ABI::detail
