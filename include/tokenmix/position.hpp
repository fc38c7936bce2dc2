// SPDX-License-Identifier: Apache-2.0
/// @file Position embeddings of whole tensors, rows and kernels.
#pragma once

#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/primitives/position/rotary_inside.hpp>
#include <tokenmix/primitives/position/rotary_scaling.hpp>
#include <tokenmix/primitives/position/rotary_table.hpp>
