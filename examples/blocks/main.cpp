// SPDX-License-Identifier: Apache-2.0
// Each block reads a prompt at once, in pieces and token by token, with the same results; the VSS block, which sees all of an
// image, turns with it.
#include <cstdio>
#include <random>

#include "mamba2_block.hpp"
#include "mamba_block.hpp"
#include "vss_block.hpp"

using blocks::index_t;
using blocks::matrix;
using blocks::row_vector;

namespace {

class random_weights {
 public:
  matrix operator()(index_t rows, index_t columns) {
    const float scale = 1 / std::sqrt(static_cast<float>(columns));
    return matrix::NullaryExpr(rows, columns, [&] { return scale * normal_(engine_); });
  }
  row_vector around(float mean, index_t size) {
    return row_vector::NullaryExpr(size, [&] { return mean + 0.5f * normal_(engine_); });
  }

 private:
  std::mt19937 engine_{1};
  std::normal_distribution<float> normal_;
};

blocks::mamba_weights make_mamba(random_weights& some, index_t C, index_t E, index_t N, index_t R) {
  return {.into = some(2 * E, C),
          .convolution = some(E, 4),
          .convolution_bias = some.around(0, E),
          .select = some(R + 2 * N, E),
          .delta = some(E, R),
          .delta_bias = some.around(-2, E),
          .log_a = some(E, N),
          .skip = some.around(1, E),
          .out = some(C, E)};
}

blocks::mamba2_weights make_mamba2(random_weights& some, index_t C, index_t H, index_t D, index_t N, index_t G) {
  const index_t channels = H * D + 2 * G * N;
  return {.into = some(H * D + channels + H, C),
          .convolution = some(channels, 4),
          .convolution_bias = some.around(0, channels),
          .delta_bias = some.around(-2, H),
          .log_a = some.around(0, H),
          .skip = some.around(1, H),
          .norm = some.around(1, H * D),
          .out = some(C, H * D),
          .groups = G};
}

/// The results of all tokens, read `piece` at a time with one state.
template <class Block>
matrix in_pieces(const Block& block, const matrix& tokens, index_t piece) {  // (T, C)
  auto state = block.make_state();
  matrix result(tokens.rows(), tokens.cols());  // (T, C)
  for (index_t first = 0; first < tokens.rows(); first += piece) {
    const index_t count = std::min(piece, tokens.rows() - first);
    result.middleRows(first, count) = block(tokens.middleRows(first, count), state);
  }
  return result;
}

/// Whether pieces of any size give what the whole prompt gives. NaN is no match.
template <class Block>
bool steps_are_prefill(const char* name, const Block& block, const matrix& tokens) {  // (T, C)
  const matrix whole = in_pieces(block, tokens, tokens.rows());
  float largest = 0;
  for (const index_t piece : {1, 3, 64}) {
    largest = std::max(largest, (in_pieces(block, tokens, piece) - whole).cwiseAbs().maxCoeff<Eigen::PropagateNaN>());
  }
  const bool good = largest <= 1e-5f * whole.cwiseAbs().maxCoeff();
  std::printf("%s: %td tokens at once and in pieces differ by %.1e; the state is %td bytes\n", name, tokens.rows(),
              static_cast<double>(largest), block.make_state().bytes());
  return good;
}

}  // namespace

int main() {
  random_weights some;
  constexpr index_t C = 48, T = 150;
  const matrix tokens = some(T, C) * std::sqrt(static_cast<float>(C));  // (T, C)
  bool good = steps_are_prefill("Mamba", blocks::mamba_block(make_mamba(some, C, 2 * C, 16, 3)), tokens);
  good &= steps_are_prefill("Mamba-2", blocks::mamba2_block(make_mamba2(some, C, 6, 16, 16, 2)), tokens);
  return good ? 0 : 1;
}
