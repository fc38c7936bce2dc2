// SPDX-License-Identifier: Apache-2.0
// An Eigen expression that is not computed yet has no elements to look at.
// expected: has no memory to look at
#include <tokenmix/interop/eigen.hpp>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void look(matrix& m) {  // (T, D)
#ifdef MUST_NOT_COMPILE
  const auto sum = m + m;
#else
  const matrix sum = m + m;
#endif
  (void)tokenmix::eigen_view(sum);
}
