// SPDX-License-Identifier: Apache-2.0
/// @file The door of the state-space family.
#pragma once

#include <tokenmix/mixers/state_space/mamba3.hpp>
#include <tokenmix/mixers/state_space/ssd.hpp>
#include <tokenmix/mixers/state_space/candidate.hpp>
#include <tokenmix/mixers/state_space/causal_conv1d.hpp>
#include <tokenmix/mixers/state_space/hgrn.hpp>
#include <tokenmix/mixers/state_space/min_gru.hpp>
#include <tokenmix/mixers/state_space/min_lstm.hpp>
#include <tokenmix/mixers/state_space/rg_lru.hpp>
#include <tokenmix/mixers/state_space/selective_scan.hpp>
#include <tokenmix/mixers/state_space/selective_scan_2d.hpp>
#include <tokenmix/primitives/grid_paths.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/tensor.hpp>
