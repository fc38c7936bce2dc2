// SPDX-License-Identifier: Apache-2.0
/// @file The door of the state-space family.
#pragma once

#include <tokenmix/mixers/state_space/ssd.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/tensor.hpp>
