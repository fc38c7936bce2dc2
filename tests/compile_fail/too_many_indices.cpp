// SPDX-License-Identifier: Apache-2.0
// A view is indexed by exactly as many numbers as it has axes.
// expected: no match|no matching
#include <tokenmix/core/tensor.hpp>

float read(tokenmix::tensor_view<const float, 2> view) {  // (T, D)
#ifdef MUST_NOT_COMPILE
  return view(0, 0, 0);
#endif
  return view(0, 0);
}
