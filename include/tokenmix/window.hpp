// SPDX-License-Identifier: Apache-2.0
/// @file The door of the window family.
#pragma once

#include <tokenmix/cache/window_cache.hpp>
#include <tokenmix/mixers/window/chunked_attention.hpp>
#include <tokenmix/mixers/window/neighborhood_attention.hpp>
#include <tokenmix/mixers/window/shifted_window_attention.hpp>
#include <tokenmix/mixers/window/sliding_window_attention.hpp>
#include <tokenmix/primitives/axes.hpp>
#include <tokenmix/tensor.hpp>
