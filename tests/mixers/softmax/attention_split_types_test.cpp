// SPDX-License-Identifier: Apache-2.0
// One answer in any pieces of time and on any threads for double and for 16-bit storage, as for float.
//
// Budget: none. memcmp: storage types are widened exactly and computed as float.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

template <class E>
void split(const cases::shape& size) {
  const cases::operands<E> x(size, 1);
  const auto options = mix::softmax_options{.mask = mix::causal{}};
  mix::tensor<E, 4> whole(x.out.shape());
  mix::softmax_attention(x.q, x.k, x.v, whole, options);
  cases::delayed_threads on(3);
  const index_t past = size.keys - size.queries;
  for (index_t first = 0; first < size.queries;) {
    for (index_t count : {1, 2, 3, 5, 30}) {
      const index_t last = std::min(first + count, size.queries);
      mix::tensor<E, 4> part({size.batch, size.heads, last - first, size.value_width});
      mix::softmax_attention(x.q.slice(2, first, last - first), x.k.slice(2, 0, past + last),
                             x.v.slice(2, 0, past + last), part, options, on);
      cases::expect_same_bits<E, 4>(part, whole.slice(2, first, last - first),
                                    size.text() + " from " + std::to_string(first));
    }
    first += 17;
  }
}

TEST(attention_split_types, doubles) {
  split<double>({1, 4, 2, 130, 130, 16, 8});
  split<double>({1, 2, 1, 40, 800, 33, 9});
}

TEST(attention_split_types, bfloat16) {
  split<mix::bfloat16>({1, 4, 2, 130, 130, 16, 8});
  split<mix::bfloat16>({1, 2, 1, 40, 800, 33, 9});
}

TEST(attention_split_types, float16) { split<mix::float16>({1, 2, 1, 40, 800, 33, 9}); }

}  // namespace
