// SPDX-License-Identifier: Apache-2.0
/// @file The door of the softmax family.
#pragma once

#include <tokenmix/cache/forget_gate_cache.hpp>
#include <tokenmix/cache/kv_cache.hpp>
#include <tokenmix/mask.hpp>
#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/softmax/column_mass.hpp>
#include <tokenmix/mixers/softmax/forgetting_attention.hpp>
#include <tokenmix/mixers/softmax/state.hpp>
#include <tokenmix/mixers/softmax/weights.hpp>
#include <tokenmix/position.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/score.hpp>
#include <tokenmix/tensor.hpp>
