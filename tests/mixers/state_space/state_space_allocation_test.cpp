// SPDX-License-Identifier: Apache-2.0
// No step allocates, and no call after the first of its kind: scratch and plans are kept by the thread.
//
// Budget: zero calls of operator new.
#include <tokenmix/interop/fft.hpp>
#include <tokenmix/state_space.hpp>

#include <reference/cases.hpp>
#include <reference/no_allocation.hpp>

namespace {

using cases::index_t;
using reference::expect_no_allocation;
using complex = std::complex<float>;

/// Transforms for filters that would be quicker without.
struct transforms : mix::default_fft {
  template <class T>
  static constexpr index_t direct_taps() {
    return 16;
  }
};

TEST(state_space_allocation, none_per_step_or_call) {
  for (const index_t T : {1, 300}) {
    const index_t B = 2, D = 20, N = 6;
    const auto x = reference::normal<float>({B, T, D}, 1);
    const mix::tensor<complex, 2> per_channel({D, N}, complex(0.5f, 0.25f)), input({N, D}, complex(0.1f));
    const mix::tensor<complex, 1> shared({N}, complex(0.5f, 0.25f));
    mix::tensor<float, 3> out(x.shape());
    mix::tensor<complex, 3> state({B, D, N});
    mix::tensor<complex, 2> one({B, N});
    expect_no_allocation(
        [&] {
          mix::diagonal_ssm(
              mix::diagonal_ssm_inputs<float, complex>{
                  .x = x, .transition = per_channel, .output = per_channel, .initial_state = state},
              out.view(), mix::diagonal_ssm_options<complex>{.final_state = state.view()});
        },
        "diagonal, " + std::to_string(T));
    expect_no_allocation(
        [&] {
          mix::shared_diagonal_ssm(
              mix::shared_diagonal_ssm_inputs<float>{
                  .x = x, .transition = shared, .input = input, .output = per_channel, .initial_state = one},
              out.view(), mix::shared_diagonal_ssm_options<>{.final_state = one.view()});
        },
        "shared, " + std::to_string(T));
    for (const index_t L : {20, 300}) {
      const auto taps = reference::normal<float>({D, L}, 2);
      const mix::long_filters<float, transforms> filters(taps, T);
      expect_no_allocation(
          [&] {
            mix::long_convolution(
                mix::long_convolution_inputs<float, float, transforms>{.x = x, .spectra = filters.view()}, out.view());
          },
          "convolution, " + std::to_string(T) + ", taps " + std::to_string(L));
    }
  }
}

}  // namespace
