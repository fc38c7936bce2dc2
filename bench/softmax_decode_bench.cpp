// SPDX-License-Identifier: Apache-2.0
// One query against a long cache: unique bytes of keys and values per second beside the read bandwidth for those bytes.
#include "peers/unfused_eigen.hpp"
#include "support/inputs.hpp"
#include "support/main.hpp"
#include "support/measure.hpp"

#include <tokenmix/softmax.hpp>

#include <array>
#include <cstddef>
#include <span>
#include <string>
#include <type_traits>

namespace {

using namespace bench;
namespace mix = tokenmix;

/// A step of decoding: float queries, a cache of E.
template <class E>
struct decode_tensors {
  attention_shape shape;
  mix::tensor<float, 4> q;    // (B, H, 1, D)
  mix::tensor<E, 4> k;        // (B, Hk, S, D)
  mix::tensor<E, 4> v;        // (B, Hk, S, D)
  mix::tensor<float, 4> out;  // (B, H, 1, D)

  explicit decode_tensors(const attention_shape& s)
      : shape(s), q({s.B, s.H, 1, s.D}), k({s.B, s.Hk, s.S, s.D}), v({s.B, s.Hk, s.S, s.D}), out({s.B, s.H, 1, s.D}) {
    normal_numbers next(static_cast<std::uint64_t>(s.S));
    for (float& x : q) x = next();
    for (E& x : k) x = static_cast<E>(next());
    for (E& x : v) x = static_cast<E>(next());
  }

  std::array<std::span<const std::byte>, 2> cache() const {
    const auto bytes = [](const mix::tensor<E, 4>& t) {
      return std::as_bytes(std::span(t.data(), static_cast<std::size_t>(t.size())));
    };
    return {bytes(k), bytes(v)};
  }
};

// Useful work: every key and value once, 2 Hk S D elements, however many query heads share them.
template <class E, class Call>
void measure_step(benchmark::State& state, const std::string& name, decode_tensors<E>& data, const executor& on,
                  Call&& call, double workspace = -1.0) {
  const attention_shape& s = data.shape;
  const double bytes = 2.0 * static_cast<double>(s.B * s.Hk * s.S * s.D) * sizeof(E);
  const auto cache = data.cache();
  const auto limit = [&] { return read_bandwidth(on, std::span<const std::span<const std::byte>>(cache)); };
  const auto verify = [&] { return largest_error(data.q, data.k, data.v, data.out, visible_keys{}); };
  measure(state, name + std::to_string(s.S) + '/' + std::to_string(on.concurrency()), on, {"byte", bytes},
          std::forward<Call>(call), verify, tolerated_error<float>(), limit, workspace);
}

template <class E>
void tokenmix_line(benchmark::State& state, const attention_shape& shape, index_t threads, const std::string& name) {
  auto& data = tensors_of<decode_tensors<E>>(shape);
  const executor on = executor_of(threads);
  measure_step(state, name, data, on,
               [&] { mix::softmax_attention(data.q, data.k, data.v, data.out, mix::softmax_options{}, on); });
}

void eigen_line(benchmark::State& state, const attention_shape& shape, index_t threads, const std::string& name) {
  auto& data = tensors_of<decode_tensors<float>>(shape);
  const executor on = executor_of(threads);
  unfused_eigen peer(shape, on);
  const auto call = [&] { peer(data.q.data(), data.k.data(), data.v.data(), data.out.data(), visible_keys{}); };
  call();  // takes its workspace
  measure_step(state, name, data, on, call, peer.workspace_bytes());
}

template <class Line>
void add_line(const options& chosen, const attention_shape& s, index_t threads, const std::string& type,
              const std::string& who, Line line) {
  const std::string name = "decode/" + type + '/' + who;
  chosen.finish(
      benchmark::RegisterBenchmark(name.c_str(), [=](benchmark::State& state) { line(state, s, threads, name); })
          ->ArgNames({"B", "H", "Hk", "S", "D", "threads"})
          ->Args({s.B, s.H, s.Hk, s.S, s.D, threads}));
}

void add_all(const options& chosen) {
  by_cpu_time = chosen.cpu_time;
  for (const index_t n : chosen.threads) {
    for (const index_t S : {1024, 8192, 65536}) {
      if (chosen.brief && S != 8192) continue;
      const attention_shape shape{1, 32, 8, 1, S, 128};
      add_line(chosen, shape, n, "float", "tokenmix", tokenmix_line<float>);
      add_line(chosen, shape, n, "float", "unfused_eigen", eigen_line);
      add_line(chosen, shape, n, "bfloat16", "tokenmix", tokenmix_line<mix::bfloat16>);
      if (!chosen.brief) add_line(chosen, shape, n, "float16", "tokenmix", tokenmix_line<mix::float16>);
    }
  }
}

}  // namespace

int main(int argc, char** argv) {
  return bench::run(argc, argv, "softmax attention, one query and a long cache", add_all);
}
