// SPDX-License-Identifier: Apache-2.0
// A column-major Eigen matrix has no contiguous rows: it is refused, its transpose is taken.
// expected: pass m.transpose
#include <tokenmix/interop/eigen.hpp>

tokenmix::tensor_view<float, 2> look(Eigen::MatrixXf& m) {  // (D, T)
#ifdef MUST_NOT_COMPILE
  return tokenmix::eigen_view(m);
#else
  return tokenmix::eigen_view(m.transpose());
#endif
}
