// SPDX-License-Identifier: Apache-2.0
// What is written cannot be a view of const elements.
// expected: out must be writable
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

void attend(mix::tensor_view<const float, 4> q, mix::tensor_view<float, 4> out) {  // (B, H, T, D)
#ifdef MUST_NOT_COMPILE
  mix::softmax_attention(q, q, q, mix::tensor_view<const float, 4>(out));
#endif
  mix::softmax_attention(q, q, q, out);
}
