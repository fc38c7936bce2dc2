// SPDX-License-Identifier: Apache-2.0
// Keys and values have one element type.
// expected: no match|no matching
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

void attend(mix::tensor_view<const float, 4> q,          // (B, H, T, D)
            mix::tensor_view<const mix::bfloat16, 4> k,  // (B, Hk, S, D)
            mix::tensor_view<float, 4> out) {            // (B, H, T, Dv)
  mix::softmax_attention(q, k, k, out);
#ifdef MUST_NOT_COMPILE
  mix::softmax_attention(q, k, q, out);
#endif
}
