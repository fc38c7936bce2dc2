// SPDX-License-Identifier: Apache-2.0
// Each block gives what its formula says, and the same for a prompt at once, in pieces and token by token.
#include <cstdio>
#include <random>

#include "mamba2_block.hpp"
#include "mamba_block.hpp"
#include "reference.hpp"
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

blocks::vss_weights make_vss(random_weights& some, index_t C, index_t E, index_t N, index_t R) {
  const auto path = [&] {
    return blocks::vss_path{.select = some(R + 2 * N, E),
                            .delta = some(E, R),
                            .delta_bias = some.around(-2, E),
                            .log_a = some(E, N),
                            .skip = some.around(1, E)};
  };
  return {.norm = some.around(1, C),
          .norm_bias = some.around(0, C),
          .into = some(2 * E, C),
          .convolution = some(E, 9),
          .convolution_bias = some.around(0, E),
          .paths = {path(), path(), path(), path()},
          .out_norm = some.around(1, E),
          .out_norm_bias = some.around(0, E),
          .out = some(C, E)};
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

/// NaN if there is one: no comparison below lets it pass.
double largest_difference(const blocks::reference::matrix64& a, const blocks::reference::matrix64& b) {
  return (a - b).cwiseAbs().maxCoeff<Eigen::PropagateNaN>();
}

/// Budget: sums of some hundred products of about 1 in float.
constexpr double budget = 1e-5;

/// Whether a prompt, read at once and in pieces of any size, gives what the formula says.
template <class Block>
bool check(const char* name, const Block& block, const matrix& tokens, const blocks::reference::matrix64& expected) {
  double largest = 0;
  bool good = true;
  for (const index_t piece : {tokens.rows(), index_t{1}, index_t{3}, index_t{64}}) {
    const double difference = largest_difference(in_pieces(block, tokens, piece).template cast<double>(), expected);
    good &= difference <= budget * expected.cwiseAbs().maxCoeff();
    largest = std::max(largest, difference);
  }
  std::printf("%s: %td tokens, at once and in pieces, are within %.1e of the formula; the state is %td bytes\n", name,
              tokens.rows(), largest, block.make_state().bytes());
  return good;
}

}  // namespace

int main() {
  random_weights some;
  constexpr index_t C = 24, T = 150, rows = 9, columns = 13;
  const matrix tokens = some(T, C) * std::sqrt(static_cast<float>(C));  // (T, C)

  const blocks::mamba_weights mamba = make_mamba(some, C, 2 * C, 16, 3);
  bool good = check("Mamba", blocks::mamba_block(mamba), tokens, blocks::reference::mamba(mamba, tokens));

  const blocks::mamba2_weights mamba2 = make_mamba2(some, C, 6, 8, 16, 2);
  good &= check("Mamba-2", blocks::mamba2_block(mamba2), tokens, blocks::reference::mamba2(mamba2, tokens));

  const blocks::vss_weights vss = make_vss(some, C, 2 * C, 16, 3);
  const matrix image = tokens.topRows(rows * columns);  // (H W, C)
  const blocks::reference::matrix64 expected = blocks::reference::vss(vss, image, rows, columns);
  const matrix result = blocks::vss_block(vss)(image, rows, columns);
  const double difference = largest_difference(result.cast<double>(), expected);
  std::printf("VSS: %td x %td pixels are within %.1e of the formula\n", rows, columns, difference);
  good &= difference <= budget * expected.cwiseAbs().maxCoeff();
  return good ? 0 : 1;
}
