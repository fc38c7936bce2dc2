// SPDX-License-Identifier: Apache-2.0
/// @file Lines of the linear family's tables: prefill in useful work, steps in bytes of a state, both verified.
#pragma once

#include "inputs.hpp"
#include "main.hpp"
#include "measure.hpp"

#include <string>

namespace bench {

/// Registers line(state, name) at a shape.
template <class Line>
void add_line(const options& chosen, const std::string& name, const attention_shape& s, index_t threads, Line line) {
  chosen.finish(benchmark::RegisterBenchmark(name.c_str(), [line, name](benchmark::State& state) { line(state, name); })
                    ->ArgNames({"B", "H", "T", "D", "threads"})
                    ->Args({s.B, s.H, s.T, s.D, threads}));
}

/// A whole sequence: function(tensors, executor), error(tensors); `flops` is the useful work of a call.
template <class Tensors, class Function, class Error>
void add_prefill_line(const options& chosen, const std::string& name, const attention_shape& s, index_t threads,
                      double flops, Function function, Error error) {
  add_line(chosen, name, s, threads, [=](benchmark::State& state, const std::string& full_name) {
    auto& data = tensors_of<Tensors>(s);
    const executor on = executor_of(threads);
    measure(
        state, full_name + std::to_string(s.T) + '/' + std::to_string(s.D), on, {"flop", flops},
        [&] { function(data, on); }, [&] { return error(data); }, 1e-3, [&] { return fma_peak<float>(on); });
  });
}

/// One token: a state of (H, D, D) numbers, zero at first, is read and written once.
template <class Tensors, class Function, class Error>
void add_step_line(const options& chosen, const std::string& name, const attention_shape& s, index_t threads,
                   Function function, Error error) {
  add_line(chosen, name, s, threads, [=](benchmark::State& state, const std::string& full_name) {
    auto& data = tensors_of<Tensors>(s);
    for (float& x : data.state) x = 0.0f;
    const executor on = executor_of(threads);
    const double bytes = static_cast<double>(s.H * s.D * s.D) * sizeof(float);
    measure(
        state, full_name + std::to_string(s.H) + '/' + std::to_string(s.D), on, {"byte", 2.0 * bytes},
        [&] { function(data, on); }, [&] { return error(data); }, 1e-3,
        [&] { return update_bandwidth(on, static_cast<std::size_t>(bytes)); });
  });
}

}  // namespace bench
