// SPDX-License-Identifier: Apache-2.0
/// @file The door of the state-space family.
#pragma once

#include <tokenmix/mixers/state_space/selective_scan.hpp>
#include <tokenmix/mixers/state_space/selective_scan_2d.hpp>
#include <tokenmix/primitives/grid_paths.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/tensor.hpp>
