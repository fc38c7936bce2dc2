// SPDX-License-Identifier: Apache-2.0
// Offsets beyond 2^31 and 2^32 elements: strides over sparse memory of which a few rows exist.
//
// Budget: none. memcmp with the same rows packed together: an offset that wraps reads zeros or crashes.
#include <sys/mman.h>

#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

/// Address space without memory behind it until it is touched.
class sparse_memory {
 public:
  explicit sparse_memory(std::size_t bytes) : bytes_(bytes) {
    void* p = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    memory_ = p == MAP_FAILED ? nullptr : p;
  }
  sparse_memory(const sparse_memory&) = delete;
  sparse_memory& operator=(const sparse_memory&) = delete;
  ~sparse_memory() {
    if (memory_ != nullptr) munmap(memory_, bytes_);
  }
  float* data() const { return static_cast<float*>(memory_); }

 private:
  void* memory_ = nullptr;
  std::size_t bytes_;
};

/// The elements of a tensor at given strides in sparse memory.
void place(const mix::tensor<float, 4>& from, const mix::tensor_view<float, 4>& to) {
  for (index_t a = 0; a < from.extent(0); ++a)
    for (index_t b = 0; b < from.extent(1); ++b)
      for (index_t c = 0; c < from.extent(2); ++c)
        for (index_t d = 0; d < from.extent(3); ++d) to(a, b, c, d) = from(a, b, c, d);
}

void check(const cases::shape& size, std::size_t axis, index_t stride) {
  const cases::operands<> x(size, 3);
  mix::tensor<float, 4> expected(x.out.shape());
  mix::softmax_attention(x.q, x.k, x.v, expected, mix::softmax_options{.mask = mix::causal{}});

  const auto bytes = static_cast<std::size_t>(stride) * 4 * sizeof(float);
  const auto spread = [&](const mix::tensor<float, 4>& from, const sparse_memory& memory) {
    auto strides = from.strides();
    // The wide axis jumps; the others stay packed in front of the first jump.
    strides[axis] = stride;
    for (std::size_t other = axis; other-- > 0;) strides[other] = from.strides()[other];
    return mix::tensor_view<float, 4>(memory.data(), from.shape(), strides);
  };
  const sparse_memory a(bytes), b(bytes), c(bytes), d(bytes);
  if (a.data() == nullptr || b.data() == nullptr || c.data() == nullptr || d.data() == nullptr) {
    GTEST_SKIP() << "no address space of " << bytes << " bytes four times";
  }
  const auto q = spread(x.q, a), k = spread(x.k, b), v = spread(x.v, c), out = spread(x.out, d);
  place(x.q, q);
  place(x.k, k);
  place(x.v, v);
  mix::softmax_attention(q, k, v, out, mix::softmax_options{.mask = mix::causal{}});
  cases::expect_same_bits<float, 4>(out, expected,
                                    "axis " + std::to_string(axis) + " stride " + std::to_string(stride));
}

TEST(attention_large_index, strides_beyond_32_bits) {
  for (const index_t stride : {(index_t{1} << 31) + 17, (index_t{1} << 32) + 5}) {
    check({3, 2, 2, 4, 4, 8, 8}, 0, stride);    // between batch elements
    check({1, 3, 3, 20, 20, 8, 8}, 1, stride);  // between heads
    check({1, 1, 1, 3, 3, 8, 8}, 2, stride);    // between tokens, few queries
  }
}

// A tile of queries and a chunk of keys whose rows lie far apart.
TEST(attention_large_index, tokens_far_apart) {
  const index_t stride = (index_t{1} << 31) / 10 + 3;  // the 11th row is beyond 2^31
  const cases::operands<> x({1, 1, 1, 24, 24, 8, 8}, 4);
  mix::tensor<float, 4> expected(x.out.shape());
  mix::softmax_attention(x.q, x.k, x.v, expected, mix::softmax_options{.mask = mix::causal{}});
  const auto bytes = static_cast<std::size_t>(stride) * 25 * sizeof(float);
  const sparse_memory a(bytes), b(bytes), c(bytes), d(bytes);
  if (a.data() == nullptr || b.data() == nullptr || c.data() == nullptr || d.data() == nullptr) GTEST_SKIP();
  const auto spread = [&](const sparse_memory& memory) {
    return mix::tensor_view<float, 4>(memory.data(), {1, 1, 24, 8}, {0, 0, stride, 1});
  };
  place(x.q, spread(a));
  place(x.k, spread(b));
  place(x.v, spread(c));
  mix::softmax_attention(spread(a), spread(b), spread(c), spread(d), mix::softmax_options{.mask = mix::causal{}});
  cases::expect_same_bits<float, 4>(spread(d), expected, "tokens far apart");
}

}  // namespace
