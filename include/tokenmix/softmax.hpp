// SPDX-License-Identifier: Apache-2.0
/// @file The door of the softmax family.
#pragma once

#include <tokenmix/cache/kv_cache.hpp>
#include <tokenmix/mask.hpp>
#include <tokenmix/mixers/softmax/attention.hpp>
#include <tokenmix/mixers/softmax/column_mass.hpp>
#include <tokenmix/mixers/softmax/forgetting_attention.hpp>
#include <tokenmix/mixers/softmax/state.hpp>
#include <tokenmix/mixers/softmax/weights.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/primitives/position/rotary.hpp>
#include <tokenmix/primitives/score/alibi.hpp>
#include <tokenmix/primitives/score/composition.hpp>
#include <tokenmix/primitives/score/dense_bias.hpp>
#include <tokenmix/primitives/score/relative_embedding.hpp>
#include <tokenmix/primitives/score/softcap.hpp>
#include <tokenmix/primitives/score/swin_bias.hpp>
#include <tokenmix/primitives/score/t5_bias.hpp>
#include <tokenmix/primitives/score/temperature.hpp>
#include <tokenmix/primitives/score/toeplitz_bias.hpp>
#include <tokenmix/tensor.hpp>
