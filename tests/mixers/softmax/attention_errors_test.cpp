// SPDX-License-Identifier: Apache-2.0
// What bad input gets: an exception that names the argument, what it is and what was expected; nothing is written.
//
// Budget: none. The outputs keep every bit.
#include <mixers/softmax/softmax_cases.hpp>

namespace {

using cases::index_t;

const cases::shape call_shape{2, 4, 2, 5, 7, 8, 6};

struct call_operands : cases::operands<> {
  call_operands() : cases::operands<>(call_shape, 1) {}

  void expect_untouched() const {
    for (index_t i = 0; i < out.size(); ++i) ASSERT_TRUE(cases::same_bits(out.data()[i], cases::untouched<float>()));
    for (index_t i = 0; i < lse.size(); ++i) ASSERT_TRUE(cases::same_bits(lse.data()[i], cases::untouched<float>()));
  }
};

template <class Error, class Call>
void expect_error(const call_operands& x, const Call& call, const std::vector<std::string>& parts) {
  try {
    call();
    ADD_FAILURE() << "no error, expected one about " << parts.front();
  } catch (const Error& e) {
    for (const std::string& part : parts)
      EXPECT_NE(std::string(e.what()).find(part), std::string::npos)
          << "\"" << part << "\" is not in \"" << e.what() << "\"";
  } catch (const std::exception& e) {
    ADD_FAILURE() << "another error: " << e.what();
  }
  x.expect_untouched();
}

template <class Error = mix::shape_error>
void expect_error_of(call_operands& x, const mix::tensor_view<const float, 4>& q,
                     const mix::tensor_view<const float, 4>& k, const mix::tensor_view<const float, 4>& v,
                     const mix::tensor_view<float, 4>& out, const std::vector<std::string>& parts) {
  expect_error<Error>(
      x, [&] { mix::softmax_attention(q, k, v, out, mix::softmax_options{.lse = x.lse.view()}); }, parts);
}

TEST(attention_errors, shapes_that_do_not_fit) {
  call_operands x;
  const auto q = x.q.view(), k = x.k.view(), v = x.v.view();
  const auto out = x.out.view();
  expect_error_of(x, q, k.slice(3, 0, 7), v, out, {"k has 7 channels", "q has 8"});
  expect_error_of(x, q.slice(1, 0, 3), k, v, out.slice(1, 0, 3), {"k has 2 heads", "q has 3", "multiple"});
  expect_error_of(x, q, k.slice(1, 0, 1), v, out, {"v has 2 heads", "k has 1"});
  expect_error_of(x, q, k, v.slice(1, 0, 1), out, {"v has 1 heads", "k has 2"});
  expect_error_of(x, q, k.slice(2, 0, 6), v, out, {"v has 7 keys", "k has 6"});
  expect_error_of(x, q, k, v.slice(2, 0, 6), out, {"v has 6 keys", "k has 7"});
  expect_error_of(x, q, k.slice(0, 0, 1), v, out, {"v has 2 batch", "k has 1"});
  expect_error_of(x, q, k, v.slice(0, 0, 1), out, {"v has 1 batch", "k has 2"});
  expect_error_of(x, q, k.slice(0, 0, 1), v.slice(0, 0, 1), out, {"k has 1 batch", "q has 2"});
  expect_error_of(x, q, k, v, out.slice(3, 0, 5), {"out is (2, 4, 5, 5)", "(2, 4, 5, 6)"});
  expect_error_of(x, q, k, v, out.slice(2, 0, 4), {"out is (2, 4, 4, 6)", "(2, 4, 5, 6)"});
  expect_error_of(x, q, k, v, out.slice(1, 0, 2), {"out is (2, 2, 5, 6)", "(2, 4, 5, 6)"});
  expect_error_of(x, q, k, v, out.slice(0, 0, 1), {"out is (1, 4, 5, 6)", "(2, 4, 5, 6)"});
  // Queries without key heads.
  expect_error_of(x, q, k.slice(1, 0, 0), v.slice(1, 0, 0), out, {"k has 0 heads", "q has 4"});
  // Negative extents.
  expect_error_of(x, mix::tensor_view<const float, 4>(x.q.data(), {2, 4, -5, 8}), k, v, out, {"q", "-5"});
  expect_error_of(x, q, mix::tensor_view<const float, 4>(x.k.data(), {2, 2, -7, 8}), v, out, {"k", "-7"});
}

TEST(attention_errors, channels_that_are_not_contiguous) {
  call_operands x;
  const auto with_step = [](const auto& view) {
    using view_type = std::remove_cvref_t<decltype(view)>;
    auto strides = view.strides();
    auto extents = view.shape();
    strides[3] = 2;
    extents[3] /= 2;
    return view_type(view.data(), extents, strides);
  };
  const auto q = x.q.view(), k = x.k.view(), v = x.v.view();
  expect_error_of(x, with_step(q), k.slice(3, 0, 4), v, x.out, {"q has stride 2", "last axis"});
  expect_error_of(x, q.slice(3, 0, 4), with_step(k), v, x.out, {"k has stride 2", "last axis"});
  expect_error_of(x, q, k, with_step(v), x.out.view().slice(3, 0, 3), {"v has stride 2", "last axis"});
  expect_error_of(x, q, k, v.slice(3, 0, 3), with_step(x.out.view()), {"out has stride 2", "last axis"});
}

TEST(attention_errors, null_pointers_and_address_overflow) {
  call_operands x;
  expect_error_of<mix::value_error>(x, mix::tensor_view<const float, 4>(nullptr, x.q.shape()), x.k, x.v, x.out,
                                    {"q is a null pointer", "(2, 4, 5, 8)"});
  expect_error_of<mix::value_error>(x, x.q, x.k, mix::tensor_view<const float, 4>(nullptr, x.v.shape()), x.out,
                                    {"v is a null pointer"});
  expect_error_of<mix::value_error>(x, x.q, x.k, x.v, mix::tensor_view<float, 4>(nullptr, x.out.shape()),
                                    {"out is a null pointer"});
  const index_t far = index_t{1} << 62;
  expect_error_of(x, x.q, mix::tensor_view<const float, 4>(x.k.data(), x.k.shape(), {far, far, far, 1}), x.v, x.out,
                  {"k", "address space"});
  expect_error_of(x, mix::tensor_view<const float, 4>(x.q.data(), {far, far, 5, 8}, {0, 0, 0, 1}), x.k, x.v, x.out,
                  {"q", "63 bits"});
}

TEST(attention_errors, outputs_that_overlap) {
  call_operands x;
  mix::tensor<float, 4> shared({2, 4, 5, 8});
  expect_error_of(x, shared, x.k, x.v.view(), mix::tensor_view<float, 4>(shared.data(), {2, 4, 5, 6}, {160, 40, 8, 1}),
                  {"out", "overlap"});
  mix::tensor<float, 4> values({2, 4, 7, 6});
  expect_error_of(x, x.q, mix::tensor_view<const float, 4>(x.k.data(), {2, 4, 7, 8}, {56, 0, 8, 1}), values,
                  mix::tensor_view<float, 4>(values.data() + 5 * 42, {2, 4, 5, 6}, {84, 7, 1, 1}), {"out"});
  expect_error_of(x, x.q, x.k, x.v, mix::tensor_view<float, 4>(x.out.data(), x.out.shape(), {0, 30, 6, 1}),
                  {"out", "twice"});
  // lse over out, over an input, and onto itself.
  const auto with_lse = [&](const mix::tensor_view<float, 3>& lse) {
    return [&x, lse] { mix::softmax_attention(x.q, x.k, x.v, x.out, mix::softmax_options{.lse = lse}); };
  };
  expect_error<mix::shape_error>(x, with_lse(mix::tensor_view<float, 3>(x.out.data(), {2, 4, 5})), {"lse", "out"});
  expect_error<mix::shape_error>(x, with_lse(mix::tensor_view<float, 3>(x.v.data(), {2, 4, 5})), {"lse", "overlap"});
  expect_error<mix::shape_error>(x, with_lse(mix::tensor_view<float, 3>(x.lse.data(), {2, 4, 5}, {0, 5, 1})),
                                 {"lse", "twice"});
  expect_error<mix::shape_error>(x, with_lse(mix::tensor_view<float, 3>(x.lse.data(), {2, 4, 4})),
                                 {"lse is (2, 4, 4)", "(2, 4, 5)"});
}

TEST(attention_errors, lengths_and_offsets) {
  call_operands x;
  const auto with_lengths = [&](const std::vector<index_t>& keys, const std::vector<index_t>& queries) {
    return [&x, keys, queries] {
      mix::softmax_attention(
          x.q, x.k, x.v, x.out,
          mix::softmax_options{.sequences = mix::lengths{.keys = keys, .queries = queries}, .lse = x.lse.view()});
    };
  };
  expect_error<mix::value_error>(x, with_lengths({7, 8}, {}), {"lengths.keys[1] is 8", "7"});
  expect_error<mix::value_error>(x, with_lengths({-1, 7}, {}), {"lengths.keys[0] is -1"});
  expect_error<mix::value_error>(x, with_lengths({}, {5, 6}), {"lengths.queries[1] is 6", "5"});
  expect_error<mix::value_error>(x, with_lengths({}, {std::numeric_limits<index_t>::min(), 1}), {"lengths.queries[0]"});
  expect_error<mix::shape_error>(x, with_lengths({7, 7, 7}, {}), {"lengths.keys has 3", "2"});
  expect_error<mix::shape_error>(x, with_lengths({}, {1}), {"lengths.queries has 1", "2"});

  const auto with_offsets = [&](index_t batches, const std::vector<std::int64_t>& queries,
                                const std::vector<std::int64_t>& keys) {
    return [&x, batches, queries, keys] {
      mix::softmax_attention(
          x.q.slice(0, 0, batches), x.k.slice(0, 0, batches), x.v.slice(0, 0, batches),
          x.out.view().slice(0, 0, batches),
          mix::softmax_options{.sequences = mix::packed{.offsets = std::span<const std::int64_t>(queries),
                                                        .key_offsets = std::span<const std::int64_t>(keys)},
                               .lse = x.lse.view().slice(0, 0, batches)});
    };
  };
  const std::int64_t huge = std::numeric_limits<std::int64_t>::max(), tiny = std::numeric_limits<std::int64_t>::min();
  expect_error<mix::shape_error>(x, with_offsets(2, {0, 5}, {}), {"q has 2 batch elements", "packed"});
  expect_error<mix::shape_error>(x, with_offsets(1, {}, {}), {"packed.offsets is empty"});
  expect_error<mix::value_error>(x, with_offsets(1, {0, 3, 2, 5}, {}), {"packed.offsets[2] is 2", "decrease"});
  expect_error<mix::value_error>(x, with_offsets(1, {0, 6}, {}), {"packed.offsets[1] is 6", "q has 5 rows"});
  expect_error<mix::value_error>(x, with_offsets(1, {-1, 5}, {}), {"packed.offsets[0] is -1"});
  expect_error<mix::value_error>(x, with_offsets(1, {0, huge}, {}), {"packed.offsets[1]"});
  expect_error<mix::value_error>(x, with_offsets(1, {tiny, 0}, {}), {"packed.offsets[0]"});
  expect_error<mix::value_error>(x, with_offsets(1, {0, 5}, {0, 8}), {"packed.key_offsets[1] is 8", "k has 7 rows"});
  expect_error<mix::value_error>(x, with_offsets(1, {0, 2, 5}, {0, 3, 1}), {"packed.key_offsets[2] is 1", "decrease"});
  expect_error<mix::shape_error>(x, with_offsets(1, {0, 2, 5}, {0, 7}), {"packed.key_offsets has 2", "3"});
}

TEST(attention_errors, sinks_and_extra_keys) {
  call_operands x;
  const auto with = [&](const mix::tensor_view<const float, 1>& sinks, const mix::tensor_view<const float, 4>& extra_k,
                        const mix::tensor_view<const float, 4>& extra_v) {
    return [&x, sinks, extra_k, extra_v] {
      mix::softmax_attention(
          mix::softmax_inputs<float, float>{
              .q = x.q, .k = x.k, .v = x.v, .sinks = sinks, .extra_k = extra_k, .extra_v = extra_v},
          x.out, mix::softmax_options{.lse = x.lse.view()});
    };
  };
  const mix::tensor<float, 1> sinks({4});
  const mix::tensor<float, 4> k({2, 2, 3, 8}), v({2, 2, 3, 6}), three({3, 2, 3, 8}), three_v({3, 2, 3, 6});
  with(sinks, k, v)();  // fits
  x.forget_results();
  expect_error<mix::shape_error>(x, with(sinks.slice(0, 0, 3), k, v), {"sinks has 3 heads", "4"});
  expect_error<mix::shape_error>(x, with(sinks, k.slice(3, 0, 7), v), {"extra_k has 7 channels", "8"});
  expect_error<mix::shape_error>(x, with(sinks, k, v.slice(3, 0, 5)), {"extra_v has 5 channels", "6"});
  expect_error<mix::shape_error>(x, with(sinks, k, v.slice(2, 0, 2)), {"extra_v has 2 keys", "extra_k has 3"});
  expect_error<mix::shape_error>(x, with(sinks, k.slice(1, 0, 1), v.slice(1, 0, 1)), {"extra_k has 1 heads", "2"});
  expect_error<mix::shape_error>(x, with(sinks, three, three_v), {"extra_k has 3 batch elements", "2"});
}

TEST(attention_errors, options_of_masks_and_scores) {
  call_operands x;
  expect_error<mix::value_error>(
      x,
      [&] {
        mix::softmax_attention(
            x.q, x.k, x.v, x.out,
            mix::softmax_options{.mask = mix::causal{} & mix::window{.left = -1}, .lse = x.lse.view()});
      },
      {"window.left is -1"});
  const std::vector<index_t> valid{7, 8};
  expect_error<mix::value_error>(x,
                                 [&] {
                                   mix::softmax_attention(
                                       x.q, x.k, x.v, x.out,
                                       mix::softmax_options{.mask = mix::valid_keys{valid}, .lse = x.lse.view()});
                                 },
                                 {"valid_keys.lengths[1] is 8", "7"});
}

TEST(attention_errors, rows_weights_and_mass) {
  call_operands x;
  mix::tensor<float, 4> weights({2, 4, 2, 7});
  mix::tensor<float, 3> mass({2, 4, 7});
  const std::vector<index_t> rows{0, 5}, negative{-1, 0}, good{0, 4};
  const auto with_rows = [&](const std::vector<index_t>& list) {
    return [&x, &weights, &list] {
      mix::softmax_attention_weights(x.q, x.k, weights, mix::softmax_options{.rows = list});
    };
  };
  with_rows(good)();
  expect_error<mix::value_error>(x, with_rows(rows), {"rows[1] is 5", "5 queries"});
  expect_error<mix::value_error>(x, with_rows(negative), {"rows[0] is -1"});
  expect_error<mix::shape_error>(x, [&] { mix::softmax_attention_weights(x.q, x.k, weights); },
                                 {"weights is (2, 4, 2, 7)", "(2, 4, 5, 7)"});
  expect_error<mix::shape_error>(x, [&] { mix::attention_column_mass(x.q, x.k, mass.slice(2, 0, 6)); },
                                 {"mass is (2, 4, 6)", "(2, 4, 7)"});
  expect_error<mix::shape_error>(x, [&] { mix::attention_column_mass(x.q, x.k.slice(3, 0, 3), mass); },
                                 {"k has 3 channels", "q has 8"});
}

}  // namespace
