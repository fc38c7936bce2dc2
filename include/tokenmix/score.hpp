// SPDX-License-Identifier: Apache-2.0
/// @file Score modifiers: what happens to scores before the softmax, and their composition with |.
#pragma once

#include <tokenmix/primitives/score/alibi.hpp>
#include <tokenmix/primitives/score/composition.hpp>
#include <tokenmix/primitives/score/dense_bias.hpp>
#include <tokenmix/primitives/score/relative_embedding.hpp>
#include <tokenmix/primitives/score/score.hpp>
#include <tokenmix/primitives/score/softcap.hpp>
#include <tokenmix/primitives/score/swin_bias.hpp>
#include <tokenmix/primitives/score/t5_bias.hpp>
#include <tokenmix/primitives/score/temperature.hpp>
#include <tokenmix/primitives/score/toeplitz_bias.hpp>
