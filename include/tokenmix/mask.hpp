// SPDX-License-Identifier: Apache-2.0
/// @file The door of the masks: every mask, the algebra & | !, spans, and render.
#pragma once

#include <tokenmix/primitives/mask/algebra.hpp>
#include <tokenmix/primitives/mask/all_keys.hpp>
#include <tokenmix/primitives/mask/axial.hpp>
#include <tokenmix/primitives/mask/big_bird.hpp>
#include <tokenmix/primitives/mask/block_index.hpp>
#include <tokenmix/primitives/mask/block_mask.hpp>
#include <tokenmix/primitives/mask/block_pattern.hpp>
#include <tokenmix/primitives/mask/causal.hpp>
#include <tokenmix/primitives/mask/chunks.hpp>
#include <tokenmix/primitives/mask/dense_mask.hpp>
#include <tokenmix/primitives/mask/dilated.hpp>
#include <tokenmix/primitives/mask/documents.hpp>
#include <tokenmix/primitives/mask/first_keys.hpp>
#include <tokenmix/primitives/mask/fixed_pattern.hpp>
#include <tokenmix/primitives/mask/log_sparse.hpp>
#include <tokenmix/primitives/mask/mask.hpp>
#include <tokenmix/primitives/mask/prefix_lm.hpp>
#include <tokenmix/primitives/mask/render.hpp>
#include <tokenmix/primitives/mask/spans.hpp>
#include <tokenmix/primitives/mask/valid_keys.hpp>
#include <tokenmix/primitives/mask/vertical_slash.hpp>
#include <tokenmix/primitives/mask/window.hpp>
