// SPDX-License-Identifier: Apache-2.0
// A view of const elements hands out nothing that can be written.
// expected: read-only|const-qualified type
#include <tokenmix/core/tensor.hpp>

void write(tokenmix::tensor_view<const float, 2> view) {  // (T, D)
#ifdef MUST_NOT_COMPILE
  view(0, 0) = 1.f;
#endif
  (void)view;
}
