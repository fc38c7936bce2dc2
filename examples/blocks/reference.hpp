// SPDX-License-Identifier: Apache-2.0
/// @file What the blocks compute, in float64 and plain loops, one token after another.
#pragma once

#include <algorithm>
#include <numeric>
#include <vector>

#include "mamba2_block.hpp"
#include "mamba_block.hpp"
#include "vss_block.hpp"

namespace blocks::reference {

using matrix64 = Eigen::Matrix<double, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using vector64 = Eigen::VectorXd;

inline double silu(double x) { return x / (1 + std::exp(-x)); }
inline double softplus(double x) { return std::log1p(std::exp(x)); }

inline matrix64 project(const matrix& weight, const matrix64& x) { return x * weight.cast<double>().transpose(); }

/// Columns from `first` on, each convolved with its own taps over the tokens up to the present, then SiLU.
inline matrix64 convolve(const matrix64& x, index_t first, const matrix& taps, const row_vector& bias) {
  matrix64 y(x.rows(), taps.rows());
  for (index_t t = 0; t < y.rows(); ++t) {
    for (index_t c = 0; c < y.cols(); ++c) {
      double sum = static_cast<double>(bias[c]);
      for (index_t j = std::max<index_t>(0, taps.cols() - 1 - t); j < taps.cols(); ++j)
        sum += static_cast<double>(taps(c, j)) * x(t + j - (taps.cols() - 1), first + c);
      y(t, c) = silu(sum);
    }
  }
  return y;
}

/// The selective scan of Mamba over the rows of x in the given order; rows of the result stand as those of x.
template <class Weights>
matrix64 selective_scan(const Weights& w, const matrix64& x, const std::vector<index_t>& order) {
  const index_t E = x.cols(), N = w.log_a.cols(), R = w.delta.cols();
  matrix64 h = matrix64::Zero(E, N), y(x.rows(), E);
  for (const index_t t : order) {
    const matrix64 selected = project(w.select, x.row(t));          // (1, R + 2 N)
    const matrix64 delta = project(w.delta, selected.leftCols(R));  // (1, E)
    for (index_t e = 0; e < E; ++e) {
      const double step = softplus(delta(0, e) + static_cast<double>(w.delta_bias[e]));
      y(t, e) = static_cast<double>(w.skip[e]) * x(t, e);
      for (index_t n = 0; n < N; ++n) {
        const double a = -std::exp(static_cast<double>(w.log_a(e, n)));
        h(e, n) = std::exp(step * a) * h(e, n) + step * selected(0, R + n) * x(t, e);
        y(t, e) += selected(0, R + N + n) * h(e, n);
      }
    }
  }
  return y;
}

inline std::vector<index_t> ascending(index_t count) {
  std::vector<index_t> order(static_cast<std::size_t>(count));
  std::iota(order.begin(), order.end(), 0);
  return order;
}

inline matrix64 mamba(const mamba_weights& w, const matrix& tokens) {  // (T, C)
  const index_t E = w.skip.size();
  const matrix64 projected = project(w.into, tokens.cast<double>());  // (T, 2 E)
  const matrix64 x = convolve(projected, 0, w.convolution, w.convolution_bias);
  const matrix64 y = selective_scan(w, x, ascending(x.rows()));
  return project(w.out, y.cwiseProduct(projected.rightCols(E).unaryExpr(&silu)));
}

inline matrix64 normalized(matrix64 x, const row_vector& weight, const row_vector* bias, float epsilon) {
  for (index_t t = 0; t < x.rows(); ++t) {
    if (bias != nullptr) x.row(t).array() -= x.row(t).mean();
    x.row(t) /= std::sqrt(x.row(t).squaredNorm() / static_cast<double>(x.cols()) + static_cast<double>(epsilon));
    x.row(t).array() *= weight.cast<double>().array();
    if (bias != nullptr) x.row(t) += bias->cast<double>();
  }
  return x;
}

inline matrix64 mamba2(const mamba2_weights& w, const matrix& tokens) {  // (T, C)
  const index_t H = w.skip.size(), inner = w.norm.size(), D = inner / H, G = w.groups;
  const index_t channels = w.convolution.rows(), N = (channels - inner) / (2 * G);
  const matrix64 projected = project(w.into, tokens.cast<double>());  // (T, 2 H D + 2 G N + H)
  const matrix64 xbc = convolve(projected, inner, w.convolution, w.convolution_bias);
  matrix64 y(tokens.rows(), inner);
  for (index_t head = 0; head < H; ++head) {
    const index_t b = inner + head / (H / G) * N, c = b + G * N;
    matrix64 h = matrix64::Zero(N, D);
    for (index_t t = 0; t < y.rows(); ++t) {
      const double step = softplus(projected(t, inner + channels + head) + static_cast<double>(w.delta_bias[head]));
      const auto x = xbc.row(t).segment(head * D, D);
      h = std::exp(-step * std::exp(static_cast<double>(w.log_a[head]))) * h +
          step * xbc.row(t).segment(b, N).transpose() * x;
      y.row(t).segment(head * D, D) = xbc.row(t).segment(c, N) * h + static_cast<double>(w.skip[head]) * x;
    }
  }
  const matrix64 gated = y.cwiseProduct(projected.leftCols(inner).unaryExpr(&silu));
  return project(w.out, normalized(gated, w.norm, nullptr, w.norm_epsilon));
}

/// image: (rows * columns, C), row after row.
inline matrix64 vss(const vss_weights& w, const matrix& image, index_t rows, index_t columns) {
  const index_t E = w.out_norm.size();
  const matrix64 projected =
      project(w.into, normalized(image.cast<double>(), w.norm, &w.norm_bias, w.norm_epsilon));  // (T, 2 E)
  matrix64 x(image.rows(), E);
  for (index_t i = 0; i < rows; ++i) {
    for (index_t j = 0; j < columns; ++j) {
      for (index_t e = 0; e < E; ++e) {
        double sum = static_cast<double>(w.convolution_bias[e]);
        for (index_t tap = 0; tap < 9; ++tap) {
          const index_t from_i = i + tap / 3 - 1, from_j = j + tap % 3 - 1;
          if (from_i < 0 || from_i >= rows || from_j < 0 || from_j >= columns) continue;
          sum += static_cast<double>(w.convolution(e, tap)) * projected(from_i * columns + from_j, e);
        }
        x(i * columns + j, e) = silu(sum);
      }
    }
  }
  std::array<std::vector<index_t>, 4> orders;
  orders[0] = ascending(image.rows());
  for (index_t j = 0; j < columns; ++j)
    for (index_t i = 0; i < rows; ++i) orders[1].push_back(i * columns + j);
  for (const std::size_t p : {0u, 1u}) orders[p + 2].assign(orders[p].rbegin(), orders[p].rend());
  matrix64 y = matrix64::Zero(image.rows(), E);
  for (std::size_t p = 0; p < 4; ++p) y += selective_scan(w.paths[p], x, orders[p]);
  const matrix64 gate = projected.rightCols(E).unaryExpr(&silu);
  return image.cast<double>() +
         project(w.out, normalized(y, w.out_norm, &w.out_norm_bias, w.norm_epsilon).cwiseProduct(gate));
}

}  // namespace blocks::reference
