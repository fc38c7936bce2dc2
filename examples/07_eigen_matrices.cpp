// SPDX-License-Identifier: Apache-2.0
// Eigen on both sides: projections are Eigen's products, attention reads and writes the same memory, no element is copied.
//
// X Wqkv is one row-major matrix (T, 3 H D). Heads lie next to each other in its rows, so a view with strides (and not a
// copy) makes it (1, H, T, D), three times.
#include <Eigen/Core>
#include <cmath>
#include <iostream>
#include <tokenmix/interop/eigen.hpp>
#include <tokenmix/softmax.hpp>

namespace mix = tokenmix;
using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;

int main() {
  constexpr mix::index_t T = 40, H = 4, D = 16, C = H * D;
  std::srand(7);
  const matrix x = matrix::Random(T, C);          // (T, C)
  const matrix w_qkv = matrix::Random(C, 3 * C);  // (C, 3 H D)
  const matrix w_out = matrix::Random(C, C);      // (H Dv, C)

  const matrix qkv = x * w_qkv;          // (T, 3 H D)
  matrix heads = matrix(T, C);           // (T, H Dv)
  const auto in_heads = [](auto view) {  // (T, H D) -> (1, H, T, D)
    using E = typename decltype(view)::element_type;
    return mix::tensor_view<E, 4>(view.data(), {1, H, T, D}, {0, D, view.stride(0), 1});
  };
  mix::softmax_attention(in_heads(mix::eigen_view(qkv.leftCols(C))),       // q
                         in_heads(mix::eigen_view(qkv.middleCols(C, C))),  // k
                         in_heads(mix::eigen_view(qkv.rightCols(C))),      // v
                         in_heads(mix::eigen_view(heads)));
  const matrix y = heads * w_out;  // (T, C)

  // The same in Eigen alone, with T x T weights. eigen_map is the way back: one head of the view as a matrix.
  float largest = 0;
  for (mix::index_t h = 0; h < H; ++h) {
    const auto part = [&](mix::index_t which) { return qkv.middleCols(which * C + h * D, D); };  // (T, D)
    matrix p = (part(0) * part(1).transpose() / std::sqrt(static_cast<float>(D))).array();       // (T, S)
    p = (p.colwise() - p.rowwise().maxCoeff().eval()).array().exp().matrix().eval();
    const matrix expected = p.rowwise().sum().cwiseInverse().asDiagonal() * p * part(2);  // (T, Dv)
    const auto view = in_heads(mix::eigen_view(heads));                                   // (1, H, T, Dv)
    largest = std::max(largest, (mix::eigen_map(view.part(0, h)) - expected).cwiseAbs().maxCoeff());
  }
  std::cout << "y is " << y.rows() << " x " << y.cols() << "; attention differs from Eigen alone by " << largest
            << "\n";
  return largest < 1e-4f ? 0 : 1;
}
