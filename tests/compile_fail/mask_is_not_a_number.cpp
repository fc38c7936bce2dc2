// SPDX-License-Identifier: Apache-2.0
// A mask is asked about pairs of tokens: a number cannot be asked.
// expected: cannot be used as a function|called object type
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;

void attend(mix::tensor_view<const float, 4> q, mix::tensor_view<float, 4> out) {  // (B, H, T, D)
#ifdef MUST_NOT_COMPILE
  mix::softmax_attention(q, q, q, out, mix::softmax_options{.mask = 511});
#else
  mix::softmax_attention(q, q, q, out, mix::softmax_options{.mask = mix::window{.left = 511}});
#endif
}
