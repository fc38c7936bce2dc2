// SPDX-License-Identifier: Apache-2.0
// Filters as long as the sequence: the operators of Hyena and H3 in three lines each, and a state-space model that is a scan, a step
// and a convolution at once.
#include <algorithm>
#include <cmath>
#include <complex>
#include <iostream>
#include <random>
#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>

namespace mix = tokenmix;

constexpr mix::index_t B = 2, T = 1000, D = 24, N = 16;

using sequence = mix::tensor<float, 3>;  // (B, T, D)
using complex = std::complex<float>;

// Hyena of order 2: the long filter between two gates. x1, x2 and v come from projections and short convolutions.
void hyena(const sequence& x1, const sequence& x2, const sequence& v, const mix::tensor<float, 2>& h,
           const mix::tensor<float, 1>& skip, sequence& y) {
  mix::long_convolution(
      mix::long_convolution_inputs<float>{.x = v, .filters = h, .skip = skip, .pre_gate = x1, .post_gate = x2},
      y.view(), mix::long_convolution_options{.fft = mix::eigen_fft{}});
}

// H3 (heads of one channel): the same with a state-space model as the filter. k comes from its shift convolution.
void h3(const sequence& q, const sequence& k, const sequence& v, const mix::diagonal_ssm_kernel_inputs<complex>& model,
        const mix::tensor<float, 1>& skip, sequence& y) {
  mix::tensor<float, 2> filters({D, T});  // (D, L)
  mix::diagonal_ssm_kernel(model, filters.view());
  hyena(k, q, v, filters, skip, y);
}

int main() {
  std::mt19937 random(13);
  std::normal_distribution<float> normal;
  sequence q({B, T, D}), k(q.shape()), v(q.shape()), y(q.shape());
  mix::tensor<float, 1> skip({D}), log_step({D});
  mix::tensor<complex, 2> C({D, N});  // (D, N)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  for (float& s : skip) s = normal(random);
  for (mix::index_t d = 0; d < D; ++d)
    log_step(d) = std::log(1e-3f) + static_cast<float>(d) / static_cast<float>(D - 1) * std::log(100.0f);
  for (complex& c : C) c = {normal(random), normal(random)};

  // S4D's initial transitions, the same for all channels, each with its own step.
  const auto A = mix::s4d_lin(N);  // (N)
  const auto discrete =
      mix::discretize(mix::zoh{}, mix::tensor_view<const complex, 2>(A.data(), {1, N}), log_step);  // (D, N)

  h3(q, k, v, {.transition = discrete.transition, .input = discrete.input, .output = C}, skip, y);

  // The same operator one token at a time: the state is all that is kept of the past.
  mix::tensor<complex, 3> state({B, D, N});  // (B, D, N)
  sequence u({B, 1, D}), out({B, 1, D});     // (B, 1, D)
  float largest = 0;
  for (mix::index_t t = 0; t < T; ++t) {
    for (mix::index_t b = 0; b < B; ++b)
      for (mix::index_t d = 0; d < D; ++d) u(b, 0, d) = k(b, t, d) * v(b, t, d);
    mix::diagonal_ssm(mix::diagonal_ssm_inputs<float, complex>{.x = u,
                                                               .transition = discrete.transition,
                                                               .input = discrete.input,
                                                               .output = C,
                                                               .skip = skip,
                                                               .initial_state = state},
                      out.view(), mix::diagonal_ssm_options<complex>{.final_state = state.view()});
    for (mix::index_t b = 0; b < B; ++b)
      for (mix::index_t d = 0; d < D; ++d)
        largest = std::max(largest, std::fabs(q(b, t, d) * out(b, 0, d) - y(b, t, d)));
  }
  std::cout << "a filter of " << T << " taps or a state of " << N << " numbers per channel: they differ by " << largest
            << "\n";
  return largest < 1e-3f ? 0 : 1;
}
