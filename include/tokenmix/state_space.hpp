// SPDX-License-Identifier: Apache-2.0
/// @file The door of the state-space family.
#pragma once

#include <tokenmix/mixers/state_space/candidate.hpp>
#include <tokenmix/mixers/state_space/causal_conv1d.hpp>
#include <tokenmix/mixers/state_space/diagonal_ssm.hpp>
#include <tokenmix/mixers/state_space/diagonal_ssm_kernel.hpp>
#include <tokenmix/mixers/state_space/discretization.hpp>
#include <tokenmix/mixers/state_space/hgrn.hpp>
#include <tokenmix/mixers/state_space/hippo.hpp>
#include <tokenmix/mixers/state_space/long_convolution.hpp>
#include <tokenmix/mixers/state_space/long_filters.hpp>
#include <tokenmix/mixers/state_space/mamba3.hpp>
#include <tokenmix/mixers/state_space/min_gru.hpp>
#include <tokenmix/mixers/state_space/min_lstm.hpp>
#include <tokenmix/mixers/state_space/readout.hpp>
#include <tokenmix/mixers/state_space/rg_lru.hpp>
#include <tokenmix/mixers/state_space/selective_scan.hpp>
#include <tokenmix/mixers/state_space/selective_scan_2d.hpp>
#include <tokenmix/mixers/state_space/shared_diagonal_ssm.hpp>
#include <tokenmix/mixers/state_space/ssd.hpp>
#include <tokenmix/primitives/fft.hpp>
#include <tokenmix/primitives/grid_paths.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/tensor.hpp>
