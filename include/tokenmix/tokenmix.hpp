// SPDX-License-Identifier: Apache-2.0
/// @file Everything but the adapters to other libraries.
#pragma once

#include <tokenmix/mask.hpp>
#include <tokenmix/position.hpp>
#include <tokenmix/scan.hpp>
#include <tokenmix/score.hpp>
#include <tokenmix/softmax.hpp>
#include <tokenmix/tensor.hpp>
#include <tokenmix/version.hpp>
