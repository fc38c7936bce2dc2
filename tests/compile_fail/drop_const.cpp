// SPDX-License-Identifier: Apache-2.0
// A view of const elements does not become one of mutable elements.
// expected: conversion|could not convert|no viable
#include <tokenmix/core/tensor.hpp>

tokenmix::tensor_view<const float, 2> keep(tokenmix::tensor_view<float, 2> view) { return view; }  // (T, D)

#ifdef MUST_NOT_COMPILE
tokenmix::tensor_view<float, 2> drop(tokenmix::tensor_view<const float, 2> view) { return view; }  // (T, D)
#endif
