// SPDX-License-Identifier: Apache-2.0
/// @file Scans: everything so far, along any axis, with any associative operation.
#pragma once

#include <tokenmix/primitives/scan/affine.hpp>
#include <tokenmix/primitives/scan/extremum.hpp>
#include <tokenmix/primitives/scan/log_sum_exp.hpp>
#include <tokenmix/primitives/scan/matrix_decay.hpp>
#include <tokenmix/primitives/scan/online_softmax.hpp>
#include <tokenmix/primitives/scan/plus.hpp>
#include <tokenmix/primitives/scan/scan.hpp>
#include <tokenmix/tensor.hpp>
