// SPDX-License-Identifier: Apache-2.0
/// @file Attention from oneDNN's primitives: matmul, softmax, matmul.
#pragma once

#include "../support/inputs.hpp"

#include <dnnl.hpp>

#if defined(_OPENMP)
#include <omp.h>
#endif

#include <algorithm>
#include <chrono>
#include <cmath>
#include <limits>
#include <string>
#include <unordered_map>
#include <vector>

namespace bench {

/// The primitives are made once, outside the timed loop, for as many heads at a time as keep the scores small (2 MiB for
/// every thread) and all threads busy. The scale is the first matmul's output scale. A mask is an array of 0 and -inf of
/// shape (1, T, S) that is added by the matmul's binary post-operation or by a binary primitive of its own: both are
/// tried and the quicker one is kept. oneDNN's threads are OpenMP's.
class unfused_onednn {
 public:
  unfused_onednn(const attention_shape& shape, const visible_keys& sees, index_t threads)
      : shape_(shape), threads_(threads) {
    set_threads();
    const index_t heads = shape.B * shape.H;
    const index_t wanted =
        std::max(threads, threads * (index_t{2} << 20) / (shape.T * shape.S * static_cast<index_t>(sizeof(float))));
    heads_ = std::min(heads, wanted);
    while (heads % heads_ != 0) --heads_;
    scores_.resize(static_cast<std::size_t>(heads_ * shape.T * shape.S));
    if (sees.which != visible_keys::kind::all) {
      mask_.assign(static_cast<std::size_t>(shape.T * shape.S), -std::numeric_limits<float>::infinity());
      for (index_t t = 0; t < shape.T; ++t) {
        std::fill_n(mask_.begin() + t * shape.S + sees.begin(t), sees.end(t, shape.S) - sees.begin(t), 0.0f);
      }
      post_operation_ = true;
      make();
      // Where the post-operation would need oneDNN's reference implementation (several heads share the mask), a trial alone
      // takes seconds.
      const bool reference = first_name_.find("ref") != std::string::npos;
      const double with_post_operation = reference ? std::numeric_limits<double>::infinity() : trial();
      post_operation_ = false;
      make();
      if (!reference && with_post_operation < trial()) {
        post_operation_ = true;
        make();
      }
    } else {
      make();
    }
  }

  void operator()(const float* q, const float* k, const float* v, float* out) {
    set_threads();
    const index_t queries = shape_.T * shape_.D, keys = shape_.S * shape_.D;
    for (index_t head = 0; head < shape_.B * shape_.H; head += heads_) {
      run(q + head * queries, k + head * keys, v + head * keys, out + head * queries);
    }
    stream_.wait();
  }

  double workspace_bytes() const { return static_cast<double>((scores_.size() + mask_.size()) * sizeof(float)); }

 private:
  using memory = dnnl::memory;
  using tag = memory::format_tag;
  static constexpr auto number = memory::data_type::f32;

  void set_threads() const {
#if defined(_OPENMP)
    omp_set_num_threads(static_cast<int>(threads_));
#endif
  }

  bool masked() const { return !mask_.empty(); }

  void make() {
    const memory::desc q({heads_, shape_.T, shape_.D}, number, tag::abc);
    const memory::desc k({heads_, shape_.D, shape_.S}, number, tag::acb);  // the keys as they lie, transposed
    const memory::desc v({heads_, shape_.S, shape_.D}, number, tag::abc);
    const memory::desc scores({heads_, shape_.T, shape_.S}, number, tag::abc);
    const memory::desc mask({1, shape_.T, shape_.S}, number, tag::abc);
    dnnl::primitive_attr attributes;
    attributes.set_output_scales(0, {1.0f / std::sqrt(static_cast<float>(shape_.D))});
    if (masked() && post_operation_) {
      dnnl::post_ops add;
      add.append_binary(dnnl::algorithm::binary_add, mask);
      attributes.set_post_ops(add);
    }
    const dnnl::matmul::primitive_desc first(dnnl::matmul::desc(q, k, scores), attributes, engine_);
    first_name_ = first.impl_info_str();
    first_ = dnnl::matmul(first);
    if (masked() && !post_operation_) {
      add_ = dnnl::binary({dnnl::binary::desc(dnnl::algorithm::binary_add, scores, mask, scores), engine_});
    }
    softmax_ =
        dnnl::softmax_forward({dnnl::softmax_forward::desc(dnnl::prop_kind::forward_inference, scores, 2), engine_});
    second_ = dnnl::matmul({dnnl::matmul::desc(scores, v, q), engine_});
    // Output is shaped like q.
    q_ = memory(q, engine_, nullptr);
    k_ = memory(k, engine_, nullptr);
    v_ = memory(v, engine_, nullptr);
    out_ = memory(q, engine_, nullptr);
    score_memory_ = memory(scores, engine_, scores_.data());
    mask_memory_ = memory(mask, engine_, mask_.data());
  }

  void run(const float* q, const float* k, const float* v, float* out) {
    q_.set_data_handle(const_cast<float*>(q));
    k_.set_data_handle(const_cast<float*>(k));
    v_.set_data_handle(const_cast<float*>(v));
    out_.set_data_handle(out);
    std::unordered_map<int, memory> first{{DNNL_ARG_SRC, q_}, {DNNL_ARG_WEIGHTS, k_}, {DNNL_ARG_DST, score_memory_}};
    if (masked() && post_operation_) first.emplace(DNNL_ARG_ATTR_MULTIPLE_POST_OP(0) | DNNL_ARG_SRC_1, mask_memory_);
    first_.execute(stream_, first);
    if (masked() && !post_operation_) {
      add_.execute(stream_,
                   {{DNNL_ARG_SRC_0, score_memory_}, {DNNL_ARG_SRC_1, mask_memory_}, {DNNL_ARG_DST, score_memory_}});
    }
    softmax_.execute(stream_, {{DNNL_ARG_SRC, score_memory_}, {DNNL_ARG_DST, score_memory_}});
    second_.execute(stream_, {{DNNL_ARG_SRC, score_memory_}, {DNNL_ARG_WEIGHTS, v_}, {DNNL_ARG_DST, out_}});
  }

  // Seconds of one group of heads on zeros, the second time.
  double trial() {
    const std::vector<float> zeros(static_cast<std::size_t>(heads_ * std::max(shape_.T, shape_.S) * shape_.D), 0.0f);
    std::vector<float> out(zeros.size());
    double time = 0.0;
    for (int i = 0; i < 2; ++i) {
      const auto start = std::chrono::steady_clock::now();
      run(zeros.data(), zeros.data(), zeros.data(), out.data());
      stream_.wait();
      time = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
    }
    return time;
  }

  attention_shape shape_;
  index_t threads_;
  index_t heads_ = 1;
  std::vector<float> scores_;  // (heads, T, S)
  std::vector<float> mask_;    // (1, T, S), or empty
  bool post_operation_ = false;
  dnnl::engine engine_{dnnl::engine::kind::cpu, 0};
  dnnl::stream stream_{engine_};
  std::string first_name_;  // the implementation that oneDNN chose
  dnnl::matmul first_, second_;
  dnnl::binary add_;
  dnnl::softmax_forward softmax_;
  memory q_, k_, v_, out_, score_memory_, mask_memory_;
};

}  // namespace bench
