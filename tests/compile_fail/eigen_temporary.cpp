// SPDX-License-Identifier: Apache-2.0
// The view of an Eigen matrix that nobody keeps would dangle.
// expected: this matrix is a temporary
#include <tokenmix/interop/eigen.hpp>

using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

void look(matrix& m) {  // (T, D)
  (void)tokenmix::eigen_view(m);
#ifdef MUST_NOT_COMPILE
  (void)tokenmix::eigen_view(matrix(m));
#endif
}
