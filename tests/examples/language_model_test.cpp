// SPDX-License-Identifier: Apache-2.0
// The language model: its logits against PyTorch's, prefill against decode, and what broken files are told.
#include <gtest/gtest.h>

#include <algorithm>
#include <cstring>
#include <filesystem>
#include <functional>
#include <nlohmann/json.hpp>
#include <random>
#include <string>
#include <vector>

#include "../../examples/language_model/model.hpp"
#include "../../examples/language_model/sampler.hpp"

namespace {

namespace lm = language_model;
using lm::index_t;
using nlohmann::json;
using bytes = std::vector<std::byte>;

#ifdef TOKENMIX_REDUCED_SWEEP
constexpr bool reduced = true;  // an unoptimised program takes seconds for a pass through a model
#else
constexpr bool reduced = false;
#endif

const std::filesystem::path folder = TOKENMIX_EXAMPLES_DIR "/language_model";

// --- Files, taken apart and put together ------------------------------------------------------------------------------

struct file_parts {
  json header;
  bytes data;
};

bytes to_bytes(const std::string& text) {
  bytes result(text.size());
  std::memcpy(result.data(), text.data(), text.size());
  return result;
}

bytes with_length(std::uint64_t length, const std::string& rest) {
  bytes result(8 + rest.size());
  std::memcpy(result.data(), &length, 8);
  std::memcpy(result.data() + 8, rest.data(), rest.size());
  return result;
}

bytes join(const std::string& header, const bytes& data) {
  return with_length(header.size(), header + std::string(reinterpret_cast<const char*>(data.data()), data.size()));
}

bytes join(const file_parts& parts) { return join(parts.header.dump(), parts.data); }

file_parts read_parts(const std::filesystem::path& path) {
  std::ifstream stream(path, std::ios::binary);
  const std::string text(std::istreambuf_iterator<char>(stream), {});
  std::uint64_t length = 0;
  std::memcpy(&length, text.data(), 8);
  const auto size = static_cast<std::size_t>(length);
  return {json::parse(text.substr(8, size)), to_bytes(text.substr(8 + size))};
}

// --- The two models of the example, with PyTorch's logits ---------------------------------------------------------------

struct shipped {
  file_parts parts;
  lm::model model;
  std::vector<lm::token> tokens;  // (T)
  lm::matrix logits;              // (T, V)
};

shipped read_shipped(const std::string& suffix) {
  const auto file = lm::safetensors::read(folder / ("reference_logits" + suffix + ".safetensors"));
  const lm::stored_tensor& tokens = file.tensor("tokens");
  const lm::stored_tensor& logits = file.tensor("logits");
  EXPECT_EQ(tokens.dtype, "U8");
  EXPECT_EQ(logits.dtype, "F32");
  EXPECT_EQ(logits.shape, (std::vector<std::uint64_t>{tokens.shape.at(0), 256}));
  const auto path = folder / ("model" + suffix + ".safetensors");
  shipped result{read_parts(path), lm::model::read(path), std::vector<lm::token>(tokens.bytes.size()),
                 lm::matrix(static_cast<index_t>(tokens.shape.at(0)), 256)};
  std::memcpy(result.tokens.data(), tokens.bytes.data(), tokens.bytes.size());
  std::memcpy(result.logits.data(), logits.bytes.data(), logits.bytes.size());
  return result;
}

const shipped& transformer() {
  static const shipped result = read_shipped("");
  return result;
}

const shipped& hybrid() {
  static const shipped result = read_shipped("_hybrid");
  return result;
}

// --- What is said about files -------------------------------------------------------------------------------------------

/// What the reader says about a file; nothing if it takes it.
std::string complaint(const bytes& content) {
  try {
    const lm::safetensors file("some.safetensors", content);
    return "";
  } catch (const lm::file_error& error) {
    return error.what();
  }
}

/// What the model says about a shipped file after a change to it.
std::string model_complaint(const std::function<void(file_parts&)>& change, const shipped& which = transformer()) {
  file_parts parts = which.parts;
  change(parts);
  try {
    const lm::model model(lm::safetensors("some.safetensors", join(parts)));
    return "";
  } catch (const lm::file_error& error) {
    return error.what();
  }
}

// --- Logits -----------------------------------------------------------------------------------------------------------

/// NaN if there is one in either: no comparison below lets it pass.
float largest_difference(const lm::matrix& a, const lm::matrix& b) {
  return (a - b).cwiseAbs().maxCoeff<Eigen::PropagateNaN>();
}

/// The logits of all tokens, read in pieces of the given size.
lm::matrix logits_in_pieces(const lm::model& model, std::span<const lm::token> tokens, std::size_t piece) {
  lm::matrix logits(static_cast<index_t>(tokens.size()), 256);  // (T, V)
  lm::memory memory = model.make_memory(logits.rows());
  for (std::size_t first = 0; first < tokens.size(); first += piece) {
    const auto part = tokens.subspan(first, std::min(piece, tokens.size() - first));
    logits.middleRows(static_cast<index_t>(first), static_cast<index_t>(part.size())) = model(part, memory);
  }
  return logits;
}

// Budget: the weights are the same numbers on both sides, and PyTorch computed in float64. In float a sum of 192 to 384
// products is wrong by some 1e-6 of its size; six or eight layers and logits of up to some tens leave a few 1e-5 at most.
TEST(language_model, logits_are_pytorchs) {
  for (const shipped* which : {&transformer(), &hybrid()}) {
    const auto& [parts, model, tokens, expected] = *which;
    ASSERT_GT(static_cast<index_t>(tokens.size()), model.parameters().window) << "or windows would not matter";
    EXPECT_LE(largest_difference(logits_in_pieces(model, tokens, tokens.size()), expected), 1e-4f);
  }
}

/// How far the logits of the first tokens are from PyTorch's after a change to the file.
float difference_after(const shipped& which, const std::function<void(file_parts&)>& change, std::size_t count) {
  file_parts parts = which.parts;
  change(parts);
  const lm::model model(lm::safetensors("some.safetensors", join(parts)));
  const std::span<const lm::token> tokens(which.tokens.data(), count);
  return largest_difference(logits_in_pieces(model, tokens, count), which.logits.topRows(static_cast<index_t>(count)));
}

TEST(language_model, the_logits_would_show_a_wrong_window_rotation_norm_or_grouping) {
  for (const auto& [key, value] : {std::pair("layers", "full full full full full full"),
                                   {"window", "127"},
                                   {"rope_base", "9990.0"},
                                   {"norm_epsilon", "1e-3"}}) {
    const auto change = [&](file_parts& f) { f.header["__metadata__"][key] = value; };
    EXPECT_GE(difference_after(transformer(), change, transformer().tokens.size()), 1e-3f) << key;
  }
}

// Every tensor of a Mamba-2 layer reaches the logits: its first rows or elements, set to zero, change them.
TEST(language_model, the_logits_would_show_a_wrong_part_of_a_state_space_layer) {
  for (const char* tensor : {"into.weight", "convolution.weight", "convolution.bias", "delta_bias", "log_a", "skip",
                             "norm.weight", "out.weight"}) {
    const auto change = [&](file_parts& f) {
      const auto offsets = f.header["layers.1.mixer." + std::string(tensor)]["data_offsets"];
      const auto first = f.data.begin() + offsets[0].get<std::ptrdiff_t>();
      std::fill(first, f.data.begin() + (offsets[0].get<std::ptrdiff_t>() + offsets[1].get<std::ptrdiff_t>()) / 2,
                std::byte{0});
    };
    EXPECT_GE(difference_after(hybrid(), change, 48), 1e-3f) << tensor;
    if (reduced) break;
  }
}

// Budget: attention and the projections have the same bits either way; the states are summed in chunks or token by token.
TEST(language_model, prefill_and_decode_agree) {
  for (const shipped* which : {&transformer(), &hybrid()}) {
    const lm::matrix at_once = logits_in_pieces(which->model, which->tokens, which->tokens.size());
    for (const std::size_t piece : {7u, 1u, 128u}) {
      if (reduced && piece != 7) continue;
      EXPECT_LE(largest_difference(logits_in_pieces(which->model, which->tokens, piece), at_once), 5e-5f) << piece;
    }
  }
}

// Layers of full attention remember every token, a window what it looks back on and the tokens it takes at a time, a state space its
// state.
TEST(language_model, the_memory_is_as_large_as_what_can_still_matter) {
  const lm::hyper_parameters& p = transformer().model.parameters();
  const index_t token = p.key_heads * 2 * p.head_width * 4;
  EXPECT_EQ(transformer().model.make_memory(10).bytes(), 6 * 10 * token);
  const index_t more = lm::attention::tokens_at_a_time - 1;
  EXPECT_EQ(transformer().model.make_memory(1000).bytes(), (2 * 1000 + 4 * (p.window + more)) * token);

  const lm::hyper_parameters& h = hybrid().model.parameters();
  const index_t inner = h.state_heads * h.state_head_width;
  const index_t state = inner * h.state_size + (inner + 2 * h.state_size) * (h.convolution_width - 1);
  const auto states = std::count(h.layers.begin(), h.layers.end(), "mamba2");
  const auto windows = std::count(h.layers.begin(), h.layers.end(), "window");
  EXPECT_EQ(states + windows, static_cast<index_t>(h.layers.size()));
  const index_t expected = states * state * 4 + windows * (h.window + more) * h.key_heads * 2 * h.head_width * 4;
  EXPECT_EQ(hybrid().model.make_memory(1000).bytes(), expected);
  EXPECT_EQ(hybrid().model.make_memory(1000000).bytes(), expected);
}

// --- Sampling ---------------------------------------------------------------------------------------------------------

TEST(language_model_sampler, same_seed_same_tokens) {
  const auto draw = [](std::uint64_t seed) {
    lm::sampler sampler(seed, 1.0);
    lm::row_vector logits = transformer().logits.row(20);
    std::vector<lm::token> drawn(50);
    std::generate(drawn.begin(), drawn.end(), [&] { return sampler(logits * 0.2f); });
    return drawn;
  };
  EXPECT_EQ(draw(7), draw(7));
  EXPECT_NE(draw(7), draw(8));
}

TEST(language_model_sampler, temperature_zero_takes_the_likeliest) {
  lm::sampler sampler(3, 0.0);
  lm::row_vector logits = transformer().logits.row(20);
  index_t likeliest = 0;
  logits.maxCoeff(&likeliest);
  for (int i = 0; i < 10; ++i) EXPECT_EQ(sampler(logits), likeliest);
}

// Three tokens among 256, at temperature 2: weights 4 : 2 : 1. A count of n draws has a deviation of at most sqrt(n) / 2.
TEST(language_model_sampler, frequencies_follow_the_logits_and_the_temperature) {
  lm::row_vector logits = lm::row_vector::Constant(256, -std::numeric_limits<float>::infinity());
  logits[10] = 2 * std::log(4.0f);
  logits[200] = 2 * std::log(2.0f);
  logits[255] = 0;
  lm::sampler sampler(11, 2.0);
  constexpr int n = 70000;
  std::vector<int> count(256);
  for (int i = 0; i < n; ++i) ++count[sampler(logits)];
  const double tolerance = 5 * std::sqrt(n) / 2;
  EXPECT_NEAR(count[10], n * 4 / 7, tolerance);
  EXPECT_NEAR(count[200], n * 2 / 7, tolerance);
  EXPECT_NEAR(count[255], n * 1 / 7, tolerance);
  EXPECT_EQ(count[10] + count[200] + count[255], n);
}

// --- Broken files (numerics.md's untrusted input) ---------------------------------------------------------------------

void expect_parts(const std::string& said, std::initializer_list<const char*> parts) {
  EXPECT_FALSE(said.empty()) << "the file was taken";
  for (const char* part : parts) EXPECT_NE(said.find(part), std::string::npos) << said << "\n  does not say: " << part;
}

json entry(const char* dtype, std::vector<std::uint64_t> shape, std::vector<std::uint64_t> offsets) {
  return {{"dtype", dtype}, {"shape", shape}, {"data_offsets", offsets}};
}

/// Two tensors, 24 bytes of data.
file_parts small_file() {
  return {{{"__metadata__", {{"a", "b"}}}, {"x", entry("F32", {2, 2}, {0, 16})}, {"y", entry("BF16", {4}, {16, 24})}},
          bytes(24, std::byte{7})};
}

TEST(safetensors, reads_what_is_there) {
  const lm::safetensors file("some.safetensors", join(small_file()));
  EXPECT_EQ(file.tensors().size(), 2u);
  EXPECT_EQ(file.metadata("a"), "b");
  EXPECT_EQ(file.tensor("y").dtype, "BF16");
  EXPECT_EQ(file.tensor("y").bytes.size(), 8u);
  EXPECT_THROW(file.tensor("z"), lm::file_error);
  EXPECT_EQ(complaint(join("{}", {})), "");
  EXPECT_EQ(complaint(join({{{"empty", entry("F32", {0, 5}, {0, 0})}, {"scalar", entry("U8", {}, {0, 1})}}, bytes(1)})),
            "");
}

TEST(safetensors, a_file_cut_anywhere_is_refused) {
  const bytes whole = join(small_file());
  ASSERT_EQ(complaint(whole), "");
  for (std::size_t size = 0; size < whole.size(); ++size) {
    EXPECT_NE(complaint(bytes(whole.begin(), whole.begin() + static_cast<std::ptrdiff_t>(size))), "")
        << size << " bytes";
  }
  expect_parts(complaint({}), {"some.safetensors", "0 bytes"});
  expect_parts(complaint(bytes(whole.begin(), whole.end() - 1)), {"tensor 'y'", "[16, 24]", "23 bytes"});
}

TEST(safetensors, header_length_stays_in_the_file) {
  for (const std::uint64_t length :
       {std::uint64_t{3}, std::uint64_t{1} << 40, ~std::uint64_t{0}, ~std::uint64_t{0} - 7}) {
    expect_parts(complaint(with_length(length, "{}")), {"header", std::to_string(length).c_str()});
  }
}

TEST(safetensors, headers_that_make_no_sense) {
  expect_parts(complaint(join("{\"x\": ", {})), {"header is no JSON"});
  expect_parts(complaint(join(std::string(20000, '['), {})), {"header is no JSON"});
  expect_parts(complaint(join("[1, 2]", {})), {"array", "object"});
  expect_parts(complaint(join("{\"x\": 5}", {})), {"tensor 'x'", "number"});
  expect_parts(complaint(join("{\"__metadata__\": {\"a\": 5}}", {})), {"__metadata__", "'a'", "string"});
  expect_parts(complaint(join("{\"__metadata__\": 5}", {})), {"__metadata__", "object"});
}

TEST(safetensors, tensors_that_make_no_sense) {
  const auto said = [](const json& x) { return complaint(join({{{"x", x}}, bytes(24)})); };
  ASSERT_EQ(said(entry("F32", {2, 3}, {0, 24})), "");
  expect_parts(said({{"shape", {2, 3}}, {"data_offsets", {0, 24}}}), {"tensor 'x'", "dtype"});
  expect_parts(said({{"dtype", "F32"}, {"data_offsets", {0, 24}}}), {"tensor 'x'", "shape"});
  expect_parts(said({{"dtype", "F32"}, {"shape", {2, 3}}}), {"tensor 'x'", "data_offsets"});
  expect_parts(said({{"dtype", 7}, {"shape", {2, 3}}, {"data_offsets", {0, 24}}}), {"tensor 'x'", "dtype"});
  expect_parts(said({{"dtype", "F32"}, {"shape", {2, -3}}, {"data_offsets", {0, 24}}}), {"tensor 'x'", "-3", "shape"});
  expect_parts(said({{"dtype", "F32"}, {"shape", {2, 3.0}}, {"data_offsets", {0, 24}}}),
               {"tensor 'x'", "3.0", "shape"});
  expect_parts(said({{"dtype", "F32"}, {"shape", "6"}, {"data_offsets", {0, 24}}}), {"tensor 'x'", "shape"});
  expect_parts(said(entry("F31", {2, 3}, {0, 24})), {"tensor 'x'", "F31"});
  expect_parts(said(entry("F64", {2, 3}, {0, 24})), {"tensor 'x'", "F64", "[2, 3]", "48", "24"});
  expect_parts(said(entry("F32", {2, 4}, {0, 24})), {"tensor 'x'", "[2, 4]", "32", "24"});
  expect_parts(said(entry("F32", {2, 3}, {0, 24, 30})), {"tensor 'x'", "3 data_offsets"});
  expect_parts(said(entry("F32", {2, 3}, {24, 0})), {"tensor 'x'", "[24, 0]"});
  expect_parts(said(entry("F32", {2, 3}, {8, 32})), {"tensor 'x'", "[8, 32]", "24 bytes"});
  const std::uint64_t huge = std::uint64_t{1} << 62;
  expect_parts(said(entry("F32", {2, 3}, {huge * 3, huge * 3 + 24})), {"tensor 'x'", "24 bytes"});
  expect_parts(said(entry("F32", {huge, 4}, {0, 0})), {"tensor 'x'", "too large"});  // 2^66 bytes are 0 in 64 bits
}

TEST(safetensors, tensors_neither_overlap_nor_leave_gaps) {
  const auto said = [](std::vector<std::uint64_t> x, std::vector<std::uint64_t> y) {
    return complaint(join({{{"x", entry("U8", {x[1] - x[0]}, x)}, {"y", entry("U8", {y[1] - y[0]}, y)}}, bytes(24)}));
  };
  ASSERT_EQ(said({0, 10}, {10, 24}), "");
  ASSERT_EQ(said({10, 24}, {0, 10}), "");
  expect_parts(said({0, 11}, {10, 24}), {"tensor 'y'", "overlaps"});
  expect_parts(said({0, 24}, {0, 10}), {"tensor 'y'", "overlaps", "'x'"});
  expect_parts(said({0, 24}, {5, 10}), {"tensor 'y'", "overlaps"});
  expect_parts(said({0, 10}, {12, 24}), {"2 bytes", "tensor 'y'"});
  expect_parts(said({0, 10}, {10, 20}), {"last 4", "24 bytes"});
}

// Whatever stands in the file, the reader takes it or says why not: nothing else is thrown, nothing outside is read (this is
// for the sanitizers), and what it takes lies inside.
TEST(safetensors, random_damage_is_refused_or_harmless) {
  const bytes whole = join(small_file());
  const std::string marks = "0123456789{}[],:\"-e";
  std::mt19937 random(5);
  int refused = 0;
  for (int round = 0; round < 5000; ++round) {
    bytes damaged = whole;
    for (std::size_t n = 1 + random() % 3; n > 0; --n) {
      const auto value = static_cast<std::byte>(random());
      const auto mark = static_cast<std::byte>(marks[random() % marks.size()]);
      damaged[random() % damaged.size()] = random() % 2 == 0 ? value : mark;
    }
    try {
      const lm::safetensors file("some.safetensors", damaged);
      std::size_t total = 0;
      for (const auto& [key, tensor] : file.tensors()) total += tensor.bytes.size();
      EXPECT_LE(total, damaged.size());
    } catch (const lm::file_error&) {
      ++refused;
    }
  }
  EXPECT_GT(refused, 1000);
  EXPECT_LT(refused, 5000);
}

TEST(safetensors, files_that_cannot_be_read) {
  for (const auto& path : {folder / "missing.safetensors", folder}) {
    try {
      lm::safetensors::read(path);
      ADD_FAILURE() << path << " was read";
    } catch (const lm::file_error& error) {
      expect_parts(error.what(), {path.string().c_str()});
    }
  }
}

// --- Files that are sound, but not of this model ----------------------------------------------------------------------

TEST(language_model_file, is_small_enough_and_sound) {
  for (const shipped* which : {&transformer(), &hybrid()}) EXPECT_EQ(model_complaint([](file_parts&) {}, *which), "");
  for (const char* name : {"model.safetensors", "model_hybrid.safetensors"}) {
    EXPECT_LE(std::filesystem::file_size(folder / name), 4'000'000u);
  }
}

TEST(language_model_file, every_hyper_parameter_is_needed_and_checked) {
  for (const char* key :
       {"vocabulary", "width", "hidden", "query_heads", "key_heads", "head_width", "window", "context", "rope_base",
        "norm_epsilon", "layers", "state_heads", "state_head_width", "state_size", "convolution_width"}) {
    expect_parts(model_complaint([&](file_parts& f) { f.header["__metadata__"].erase(key); }, hybrid()),
                 {"some.safetensors", key});
    if (std::string(key) == "layers") continue;
    for (const char* value : {"", "many", "-1", "0", "12x", "1e99", "nan", "99999999999999999999"}) {
      expect_parts(model_complaint([&](file_parts& f) { f.header["__metadata__"][key] = value; }, hybrid()),
                   {key, value});
    }
  }
  const auto said = [](const char* key, const char* value) {
    return model_complaint([&](file_parts& f) { f.header["__metadata__"][key] = value; });
  };
  expect_parts(said("vocabulary", "300"), {"vocabulary", "300", "256"});
  expect_parts(said("head_width", "33"), {"head_width", "33", "even"});
  expect_parts(said("key_heads", "4"), {"query_heads", "key_heads", "4"});
  expect_parts(said("rope_base", "0.5"), {"rope_base", "0.5"});
}

TEST(language_model_file, weights_that_do_not_fit_are_named) {
  const std::string kinds = transformer().parts.header["__metadata__"]["layers"];
  const auto said = [](const char* key, const std::string& value) {
    return model_complaint([&](file_parts& f) { f.header["__metadata__"][key] = value; });
  };
  expect_parts(said("width", "190"), {"tensor 'embedding.weight'", "BF16", "[256, 192]", "[256, 190]"});
  expect_parts(said("hidden", "100"), {"tensor 'layers.0.feed_forward.gate.weight'", "[384, 192]", "[100, 192]"});
  expect_parts(said("hidden", "1048576"), {"tensor 'layers.0.feed_forward.gate.weight'", "[1048576, 192]"});
  expect_parts(said("key_heads", "3"), {"tensor 'layers.0.mixer.k.weight'", "[64, 192]", "[96, 192]"});
  expect_parts(said("layers", kinds + " full"), {"no tensor 'layers.6"});
  expect_parts(said("layers", "full window"), {"tensor 'layers.", "metadata"});
  expect_parts(said("layers", "full ssd"), {"layers.1", "ssd", "full", "window", "mamba2"});
  expect_parts(said("layers", "full mamba2"), {"state_heads"});
  expect_parts(model_complaint([](file_parts& f) { f.header["__metadata__"]["state_size"] = "17"; }, hybrid()),
               {"tensor 'layers.0.mixer.into.weight'", "[812, 192]", "[814, 192]"});

  expect_parts(model_complaint([](file_parts& f) {
                 f.header["norm.bias"] = entry("BF16", {}, {f.data.size(), f.data.size() + 2});
                 f.data.resize(f.data.size() + 2);
               }),
               {"tensor 'norm.bias'"});
  expect_parts(model_complaint([](file_parts& f) { f.header["norm.weight"]["dtype"] = "F16"; }),
               {"tensor 'norm.weight'", "F16", "[192]", "BF16"});
  expect_parts(model_complaint([](file_parts& f) { f.header["layers.2.mixer.q.weight"]["shape"] = {96, 384}; }),
               {"tensor 'layers.2.mixer.q.weight'", "[96, 384]", "[192, 192]"});
}

}  // namespace
