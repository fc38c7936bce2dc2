// SPDX-License-Identifier: Apache-2.0
/// @file The door to tensors: views and storage, element types, and who runs the tiles.
#pragma once

#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/error.hpp>
#include <tokenmix/core/execution.hpp>
#include <tokenmix/core/tensor.hpp>
#include <tokenmix/core/types.hpp>
