// SPDX-License-Identifier: Apache-2.0
// Continues a text, byte by byte, with a small language model.
#include <getopt.h>

#include <charconv>
#include <chrono>
#include <cstdio>
#include <exception>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "model.hpp"
#include "sampler.hpp"

namespace lm = language_model;

namespace {

constexpr const char* usage =
    "language_model [options] [prompt]\n"
    "  --model FILE       the model, a safetensors file\n"
    "  --prompt TEXT      what to continue; the same as the argument without a name\n"
    "  --tokens N         how many bytes to add at most (200)\n"
    "  --temperature T    0 takes the likeliest byte each time; 1 draws as the model says (0.5)\n"
    "  --seed S           the same seed draws the same text (1)\n"
    "  --help\n";

struct arguments {
  std::string model = LANGUAGE_MODEL_FILE;
  std::string prompt = "def ";
  lm::index_t tokens = 200;
  double temperature = 0.5;
  std::uint64_t seed = 1;
};

template <class Number>
Number parse(const char* option, std::string_view text) {
  Number value{};
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || !(value >= Number{})) {
    throw std::invalid_argument(std::string(option) + " is '" + std::string(text) + "', expected a number, 0 or more");
  }
  return value;
}

/// Nothing if the arguments are not understood or only help was asked for.
std::optional<arguments> parse_arguments(int count, char** values) {
  const option options[] = {{"model", required_argument, nullptr, 'm'},
                            {"prompt", required_argument, nullptr, 'p'},
                            {"tokens", required_argument, nullptr, 'n'},
                            {"temperature", required_argument, nullptr, 't'},
                            {"seed", required_argument, nullptr, 's'},
                            {"help", no_argument, nullptr, 'h'},
                            {}};
  arguments result;
  for (int which = 0; (which = getopt_long(count, values, "", options, nullptr)) != -1;) {
    switch (which) {
      case 'm':
        result.model = optarg;
        break;
      case 'p':
        result.prompt = optarg;
        break;
      case 'n':
        result.tokens = parse<lm::index_t>("--tokens", optarg);
        break;
      case 't':
        result.temperature = parse<double>("--temperature", optarg);
        break;
      case 's':
        result.seed = parse<std::uint64_t>("--seed", optarg);
        break;
      default:
        return std::nullopt;
    }
  }
  if (optind < count) result.prompt = values[optind++];
  if (optind < count) return std::nullopt;
  return result;
}

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

/// What the model has to remember, beside a cache of all keys and values.
void report_memory(const lm::model& model, lm::index_t tokens) {
  const lm::hyper_parameters& p = model.parameters();
  const auto count = static_cast<lm::index_t>(p.layers.size());
  const lm::index_t bytes = model.make_memory(tokens).bytes();
  const lm::index_t all = tokens * count * p.key_heads * 2 * p.head_width * lm::index_t{sizeof(float)};
  std::fprintf(stderr, "%td layers remember %.2f MB, and %td bytes more with each further token", count,
               static_cast<double>(bytes) * 1e-6, model.make_memory(tokens + 1).bytes() - bytes);
  std::fprintf(stderr, " (the keys and values of all tokens in all layers: %.2f MB, and %td bytes more)\n",
               static_cast<double>(all) * 1e-6, all / tokens);
}

void continue_text(const arguments& wanted) {
  constexpr lm::token end_of_text = 0;
  const lm::model model = lm::model::read(wanted.model);
  lm::sampler sampler(wanted.seed, wanted.temperature);
  std::vector<lm::token> prompt(wanted.prompt.begin(), wanted.prompt.end());
  if (prompt.empty()) prompt.push_back(end_of_text);  // in the training text, files follow one another like this
  const auto prompt_size = static_cast<lm::index_t>(prompt.size());
  lm::memory memory = model.make_memory(prompt_size + wanted.tokens);

  std::printf("%s", wanted.prompt.c_str());
  const auto started = std::chrono::steady_clock::now();
  lm::matrix logits = model(prompt, memory);  // (T, V)
  const double prefill = seconds_since(started);

  const auto first = std::chrono::steady_clock::now();
  lm::index_t added = 0;
  while (added < wanted.tokens) {
    const lm::token next = sampler(logits.bottomRows<1>());
    ++added;
    if (next == end_of_text) break;
    std::putchar(next);
    std::fflush(stdout);
    logits = model({&next, 1}, memory);  // (1, V)
  }
  const double decode = seconds_since(first);

  std::printf("\n");
  std::fflush(stdout);
  std::fprintf(stderr, "\n%td bytes read: %.0f tokens/s; %td written: %.0f tokens/s\n", prompt_size,
               static_cast<double>(prompt_size) / prefill, added, static_cast<double>(added) / decode);
  report_memory(model, prompt_size + added);
  const lm::index_t context = model.parameters().context;
  if (prompt_size + added > context)
    std::fprintf(stderr, "(The model was trained on %td tokens at a time.)\n", context);
}

}  // namespace

int main(int count, char** values) {
  try {
    const std::optional<arguments> wanted = parse_arguments(count, values);
    if (!wanted) {
      std::fputs(usage, stderr);
      return 2;
    }
    continue_text(*wanted);
  } catch (const std::exception& error) {
    std::fprintf(stderr, "language_model: %s\n", error.what());
    return 1;
  }
}
