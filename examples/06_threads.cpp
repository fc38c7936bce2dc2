// SPDX-License-Identifier: Apache-2.0
// Threads: a call runs on the calling thread unless it is given an executor. Here it is Eigen's pool, then one of our own; the
// result has the same bits on each. (mix::openmp_threads of <tokenmix/interop/openmp.hpp> is an OpenMP team.)
#include <algorithm>
#include <cstring>  // std::memcmp
#include <iostream>
#include <random>
#include <thread>
#include <tokenmix/interop/eigen_thread_pool.hpp>
#include <tokenmix/softmax.hpp>
#include <vector>

namespace mix = tokenmix;

// All that an executor has to have: how many workers there are, and a loop. Worker w takes the tasks w, w + 3, ...
struct three_threads {
  mix::index_t concurrency() const { return 3; }

  template <class Task>
  void for_each(mix::index_t n, Task&& task) const {
    std::vector<std::jthread> threads;
    for (mix::index_t worker = 0; worker < 3; ++worker) {
      threads.emplace_back([=, &task] {
        for (mix::index_t i = worker; i < n; i += 3) task(i, worker);
      });
    }
  }
};

int main() {
  const mix::extents<4> shape{2, 4, 320, 64};
  std::mt19937 random(6);
  std::normal_distribution<float> normal;
  mix::tensor<float, 4> q(shape), k(shape), v(shape);  // (B, H, T, D), (B, H, T, D), (B, H, T, Dv)
  for (auto* x : {&q, &k, &v}) std::generate(x->begin(), x->end(), [&] { return normal(random); });
  const mix::softmax_options options{.mask = mix::causal{}};

  mix::tensor<float, 4> expected(shape);  // (B, H, T, Dv)
  mix::softmax_attention(q, k, v, expected, options);

  bool right = true;
  const auto compare = [&](const char* name, auto&& on) {
    mix::tensor<float, 4> out(shape);  // (B, H, T, Dv)
    mix::softmax_attention(q, k, v, out, options, on);
    const auto bytes = static_cast<std::size_t>(out.size()) * sizeof(float);
    const bool same = std::memcmp(out.data(), expected.data(), bytes) == 0;
    std::cout << name << (same ? ": the same bits\n" : ": other bits\n");
    right &= same;
  };
  Eigen::ThreadPool pool(2);
  compare("Eigen's thread pool", mix::eigen_thread_pool(pool));
  compare("threads of our own ", three_threads{});
  return right ? 0 : 1;
}
