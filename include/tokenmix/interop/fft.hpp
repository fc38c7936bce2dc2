// SPDX-License-Identifier: Apache-2.0
/// @file The Fourier transforms that come with what is there: Eigen's. Those who have FFTW include interop/fft_fftw.hpp.
#pragma once

#include <tokenmix/interop/fft_eigen.hpp>

namespace tokenmix::inline TOKENMIX_ABI {

/// What examples and tests take where nothing else is asked for.
using default_fft = eigen_fft;

}  // namespace tokenmix::inline TOKENMIX_ABI
