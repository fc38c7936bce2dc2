// SPDX-License-Identifier: Apache-2.0
/// @file Elementary functions of registers: every lane gets the same bits wherever the function is used.
#pragma once

#include <tokenmix/simd/exponential.hpp>
#include <tokenmix/simd/gate_exponential.hpp>
#include <tokenmix/simd/logarithm.hpp>
#include <tokenmix/simd/sigmoidal.hpp>
#include <tokenmix/simd/trigonometric.hpp>
