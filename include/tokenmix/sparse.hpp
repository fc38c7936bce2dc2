// SPDX-License-Identifier: Apache-2.0
/// @file The door of the sparse family.
#pragma once

#include <tokenmix/mask.hpp>
#include <tokenmix/mixers/sparse/block_sparse_attention.hpp>
#include <tokenmix/mixers/sparse/gathered_attention.hpp>
#include <tokenmix/mixers/sparse/mixture_of_block_attention.hpp>
#include <tokenmix/mixers/sparse/native_sparse_attention.hpp>
#include <tokenmix/mixers/sparse/top_k_attention.hpp>
#include <tokenmix/mixers/sparse/top_k_indexer.hpp>
#include <tokenmix/primitives/gather/compact.hpp>
#include <tokenmix/primitives/gather/gather.hpp>
#include <tokenmix/primitives/gather/segments.hpp>
#include <tokenmix/primitives/gather/top_k.hpp>
#include <tokenmix/tensor.hpp>
