// SPDX-License-Identifier: Apache-2.0
// Attention takes (B, H, T, D): a tensor with three axes is a mistake, not a batch of one.
// expected: no match|no matching
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

void attend(mix::tensor_view<const float, 4> q, mix::tensor_view<float, 4> out) {  // (B, H, T, D)
  mix::softmax_attention(q, q, q, out);
}

#ifdef MUST_NOT_COMPILE
void attend(mix::tensor_view<const float, 3> q, mix::tensor_view<float, 3> out) {  // (H, T, D)
  mix::softmax_attention(q, q, q, out);
}
#endif
