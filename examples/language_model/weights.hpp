// SPDX-License-Identifier: Apache-2.0
/// @file Takes a model's weights out of its file, by name and expected shape.
#pragma once

#include <cstring>
#include <set>
#include <string>
#include <tokenmix/core/dtype.hpp>
#include <tokenmix/core/types.hpp>

#include "../blocks/layers.hpp"
#include "safetensors.hpp"

namespace language_model {

using blocks::matrix;
using blocks::row_vector;
using tokenmix::index_t;

/// Widens bfloat16 weights to float, once, and keeps count of what was taken.
class weights {
 public:
  explicit weights(const safetensors& file) : file_(file) {}

  const safetensors& file() const { return file_; }

  matrix take_matrix(const std::string& name, index_t rows, index_t columns) {
    const stored_tensor& tensor = take(name, {static_cast<std::uint64_t>(rows), static_cast<std::uint64_t>(columns)});
    matrix values(rows, columns);
    widen(tensor, values.data());
    return values;
  }

  row_vector take_vector(const std::string& name, index_t size) {
    const stored_tensor& tensor = take(name, {static_cast<std::uint64_t>(size)});
    row_vector values(size);
    widen(tensor, values.data());
    return values;
  }

  /// A tensor that nobody took means that the file holds another model than its metadata says.
  void check_all_taken() const {
    for (const auto& [name, tensor] : file_.tensors()) {
      if (!taken_.contains(name)) file_.fail("tensor '", name, "' belongs to no layer that the metadata describes");
    }
  }

 private:
  const stored_tensor& take(const std::string& name, const std::vector<std::uint64_t>& shape) {
    const stored_tensor& tensor = file_.tensor(name);
    if (tensor.dtype != "BF16" || tensor.shape != shape) {
      file_.fail("tensor '", name, "' is ", tensor.dtype, " ", text_of(tensor.shape), ", expected BF16 ",
                 text_of(shape));
    }
    taken_.insert(name);
    return tensor;
  }

  static void widen(const stored_tensor& tensor, float* values) {
    tokenmix::bfloat16 stored;
    for (std::size_t at = 0; at < tensor.bytes.size(); at += sizeof stored) {
      std::memcpy(&stored, tensor.bytes.data() + at, sizeof stored);  // the file aligns nothing
      *values++ = static_cast<float>(stored);
    }
  }

  const safetensors& file_;
  std::set<std::string> taken_;
};

}  // namespace language_model
