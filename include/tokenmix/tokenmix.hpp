// SPDX-License-Identifier: Apache-2.0
/// @file All doors at once; what needs a library of its own (interop/) is included by itself.
#pragma once

#include <tokenmix/linear.hpp>
#include <tokenmix/mask.hpp>
#include <tokenmix/position.hpp>
#include <tokenmix/scan.hpp>
#include <tokenmix/score.hpp>
#include <tokenmix/softmax.hpp>
#include <tokenmix/state_space.hpp>
#include <tokenmix/tensor.hpp>
#include <tokenmix/version.hpp>
