// SPDX-License-Identifier: Apache-2.0
/// @file The door of the linear family.
#pragma once

#include <tokenmix/mixers/linear/abc_attention.hpp>
#include <tokenmix/mixers/linear/attention_scan.hpp>
#include <tokenmix/mixers/linear/delta_product.hpp>
#include <tokenmix/mixers/linear/delta_rule.hpp>
#include <tokenmix/mixers/linear/gated_delta_rule.hpp>
#include <tokenmix/mixers/linear/gated_linear_attention.hpp>
#include <tokenmix/mixers/linear/gated_slot_attention.hpp>
#include <tokenmix/mixers/linear/generalized_delta_rule.hpp>
#include <tokenmix/mixers/linear/kimi_delta_attention.hpp>
#include <tokenmix/mixers/linear/linear_attention.hpp>
#include <tokenmix/mixers/linear/mlstm.hpp>
#include <tokenmix/mixers/linear/retention.hpp>
#include <tokenmix/mixers/linear/rwkv4.hpp>
#include <tokenmix/mixers/linear/rwkv6.hpp>
#include <tokenmix/mixers/linear/rwkv7.hpp>
#include <tokenmix/mixers/softmax/forgetting_attention.hpp>
#include <tokenmix/primitives/feature_map.hpp>
#include <tokenmix/primitives/feature_map_projected.hpp>
#include <tokenmix/primitives/feature_map_taylor.hpp>
#include <tokenmix/primitives/gate.hpp>
#include <tokenmix/primitives/order.hpp>
#include <tokenmix/tensor.hpp>
