// SPDX-License-Identifier: Apache-2.0
// The consumer's second file: the same headers and the same instantiations, to be linked with the first.
#include "all_headers.hpp"

float other_file(tokenmix::tensor_view<const float, 4> values) {
  tokenmix::tensor<float, 4> out(values.shape());  // (B, H, T, D)
  tokenmix::softmax_attention(values, values, values, out);
  return out(0, 1, 4, 7);
}
