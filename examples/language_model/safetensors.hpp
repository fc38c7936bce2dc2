// SPDX-License-Identifier: Apache-2.0
/// @file Reads the safetensors format: named tensors behind a JSON header.
#pragma once

#include <bit>
#include <concepts>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <nlohmann/json.hpp>
#include <span>
#include <stdexcept>
#include <string>
#include <system_error>
#include <utility>
#include <vector>

namespace language_model {

/// The file cannot be read, is not what it says it is, or describes a model that this program cannot run.
struct file_error : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// [192, 384]
inline std::string text_of(std::span<const std::uint64_t> shape) {
  std::string text = "[";
  for (std::size_t axis = 0; axis < shape.size(); ++axis) text += (axis > 0 ? ", " : "") + std::to_string(shape[axis]);
  return text + "]";
}

/// A tensor as it lies in the file: little-endian elements, last axis contiguous, no gaps, at any alignment.
struct stored_tensor {
  std::string dtype;
  std::vector<std::uint64_t> shape;
  std::span<const std::byte> bytes;
};

/// A whole file in memory. It was checked from end to end when it was read: every tensor's elements lie inside the file, are
/// as many as its shape says, and belong to no other tensor.
///
/// The format: 8 bytes, little-endian: the header's length n; n bytes of JSON, {"name": {"dtype": "BF16", "shape": [256, 192],
/// "data_offsets": [begin, end]}, ..., "__metadata__": {"key": "text", ...}}; then the elements, to which the offsets refer.
class safetensors {
 public:
  static safetensors read(const std::filesystem::path& path) {
    std::error_code error;
    const std::uintmax_t size = std::filesystem::file_size(path, error);
    if (error) throw file_error(path.string() + ": " + error.message());
    std::vector<std::byte> content(static_cast<std::size_t>(size));
    std::ifstream stream(path, std::ios::binary);
    stream.read(reinterpret_cast<char*>(content.data()), static_cast<std::streamsize>(size));
    if (!stream) throw file_error(path.string() + ": cannot be read");
    return safetensors(path.string(), std::move(content));
  }

  /// `name` stands at the head of every message.
  safetensors(std::string name, std::vector<std::byte> content) : name_(std::move(name)), content_(std::move(content)) {
    static_assert(std::endian::native == std::endian::little, "elements are used as they lie in the file");
    constexpr std::size_t prefix = 8;
    const std::size_t size = content_.size();
    if (size < prefix) fail("has ", size, " bytes; the length of the header alone takes 8");
    std::uint64_t length = 0;
    std::memcpy(&length, content_.data(), prefix);
    if (length > size - prefix) fail("has ", size, " bytes; its header alone should have ", length);

    const auto header = std::span(content_).subspan(prefix, static_cast<std::size_t>(length));
    data_ = std::span(content_).subspan(prefix + header.size());
    parse(header);
    check_layout();
  }

  // Tensors refer to the content, so a copy would refer to the original's.
  safetensors(const safetensors&) = delete;
  safetensors& operator=(const safetensors&) = delete;
  safetensors(safetensors&&) = default;
  safetensors& operator=(safetensors&&) = default;
  ~safetensors() = default;

  const std::string& name() const { return name_; }
  const std::map<std::string, stored_tensor>& tensors() const { return tensors_; }

  const stored_tensor& tensor(const std::string& key) const {
    const auto found = tensors_.find(key);
    if (found == tensors_.end()) fail("has no tensor '", key, "'");
    return found->second;
  }

  const std::string& metadata(const std::string& key) const {
    const auto found = metadata_.find(key);
    if (found == metadata_.end()) fail("has no '", key, "' in its metadata");
    return found->second;
  }

  /// Throws a file_error: the file's name, then the parts.
  template <class... Parts>
  [[noreturn]] void fail(const Parts&... parts) const {
    throw file_error(((name_ + ": ") + ... + text(parts)));
  }

 private:
  using json = nlohmann::json;

  static const std::string& text(const std::string& part) { return part; }
  static const char* text(const char* part) { return part; }
  template <std::integral Number>
  static std::string text(Number part) {
    return std::to_string(part);
  }

  void parse(std::span<const std::byte> header) {
    const auto* first = reinterpret_cast<const char*>(header.data());
    json entries;
    try {
      entries = json::parse(first, first + header.size());
    } catch (const json::exception& error) {
      fail("its header is no JSON: ", error.what());
    }
    if (!entries.is_object()) fail("its header is a JSON ", entries.type_name(), ", expected an object");
    for (const auto& [key, entry] : entries.items()) {
      if (key == "__metadata__") {
        parse_metadata(entry);
      } else {
        tensors_.emplace(key, parse_tensor("tensor '" + key + "'", entry));
      }
    }
  }

  void parse_metadata(const json& entry) {
    if (!entry.is_object()) fail("__metadata__ is a JSON ", entry.type_name(), ", expected an object");
    for (const auto& [key, value] : entry.items()) {
      if (!value.is_string())
        fail("__metadata__ holds a JSON ", value.type_name(), " as '", key, "', expected a string");
      metadata_.emplace(key, value.get<std::string>());
    }
  }

  stored_tensor parse_tensor(const std::string& tensor, const json& entry) const {
    if (!entry.is_object()) fail(tensor, " is a JSON ", entry.type_name(), ", expected an object");
    if (!entry.contains("dtype") || !entry["dtype"].is_string()) fail(tensor, " has no dtype");
    const auto dtype = entry["dtype"].get<std::string>();
    const std::vector<std::uint64_t> shape = parse_numbers(tensor, entry, "shape");
    const std::vector<std::uint64_t> offsets = parse_numbers(tensor, entry, "data_offsets");
    if (offsets.size() != 2) fail(tensor, " has ", offsets.size(), " data_offsets, expected begin and end");
    const std::uint64_t begin = offsets[0], end = offsets[1];
    if (begin > end || end > data_.size()) {
      fail(tensor, " has data_offsets ", text_of(offsets), "; the file holds ", data_.size(), " bytes of data");
    }

    std::uint64_t expected = element_size(tensor, dtype);
    for (const std::uint64_t extent : shape) {
      if (__builtin_mul_overflow(expected, extent, &expected))
        fail(tensor, " has shape ", text_of(shape), ": too large");
    }
    if (end - begin != expected) {
      fail(tensor, " is ", dtype, " ", text_of(shape), ", ", expected, " bytes, but has ", end - begin,
           " bytes of data");
    }
    return {dtype, shape, data_.subspan(static_cast<std::size_t>(begin), static_cast<std::size_t>(end - begin))};
  }

  std::vector<std::uint64_t> parse_numbers(const std::string& tensor, const json& entry, const char* key) const {
    if (!entry.contains(key) || !entry[key].is_array()) fail(tensor, " has no ", key);
    std::vector<std::uint64_t> numbers;
    for (const json& number : entry[key]) {
      if (!number.is_number_unsigned())
        fail(tensor, " has ", number.dump(), " in its ", key, ", expected whole numbers, 0 or more");
      numbers.push_back(number.get<std::uint64_t>());
    }
    return numbers;
  }

  std::uint64_t element_size(const std::string& tensor, const std::string& dtype) const {
    static constexpr std::pair<const char*, std::uint64_t> sizes[] = {
        {"BF16", 2}, {"F16", 2}, {"F32", 4}, {"F64", 8}, {"U8", 1},  {"I8", 1},  {"BOOL", 1},
        {"I16", 2},  {"U16", 2}, {"I32", 4}, {"U32", 4}, {"I64", 8}, {"U64", 8},
    };
    for (const auto& [known, size] : sizes) {
      if (dtype == known) return size;
    }
    fail(tensor, " has the unknown dtype '", dtype, "'");
  }

  /// The tensors lie side by side and fill the data: none overlaps another and nothing hides between them.
  void check_layout() const {
    std::map<const std::byte*, std::string> tensor_at;
    for (const auto& [key, tensor] : tensors_) {
      if (tensor.bytes.empty()) continue;
      const auto [other, is_first] = tensor_at.emplace(tensor.bytes.data(), key);
      if (!is_first) fail("tensor '", key, "' overlaps tensor '", other->second, "'");
    }
    const std::byte* reached = data_.data();
    for (const auto& [begin, key] : tensor_at) {
      if (begin < reached) fail("tensor '", key, "' overlaps the one before it");
      if (begin > reached) fail("no tensor holds the ", begin - reached, " bytes before tensor '", key, "'");
      reached = begin + tensors_.at(key).bytes.size();
    }
    const std::byte* const end = data_.data() + data_.size();
    if (reached != end) fail("no tensor holds the last ", end - reached, " of ", data_.size(), " bytes of data");
  }

  std::string name_;
  std::vector<std::byte> content_;
  std::span<const std::byte> data_;
  std::map<std::string, stored_tensor> tensors_;
  std::map<std::string, std::string> metadata_;
};

}  // namespace language_model
