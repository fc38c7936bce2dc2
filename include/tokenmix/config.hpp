// SPDX-License-Identifier: Apache-2.0
/// @file What the compiler gives: the instruction set's tag, exceptions, inlining.
#pragma once

#include <tokenmix/version.hpp>

#if defined(__FAST_MATH__) || (defined(__FINITE_MATH_ONLY__) && __FINITE_MATH_ONLY__)
#error "tokenmix relies on infinities, NaN and the order of operations: build without -ffast-math."
#endif

/// The instruction set that this translation unit is compiled for, as an identifier.
///
/// It is part of TOKENMIX_ABI, the inline namespace around everything: two objects built with different flags hold
/// different symbols, so the linker can never hand the AVX-512 body of a template to a baseline caller.
#if defined(__AVX512F__) && defined(__AVX512CD__) && defined(__AVX512DQ__) && defined(__AVX512BW__)
#if defined(__AVX512FP16__)
#define TOKENMIX_ISA avx512_fp16
#elif defined(__AVX512BF16__)
#define TOKENMIX_ISA avx512_bf16
#elif defined(__AVX512VNNI__)
#define TOKENMIX_ISA avx512_vnni
#else
#define TOKENMIX_ISA avx512
#endif
#elif defined(__AVX2__) && defined(__FMA__) && defined(__F16C__)
#define TOKENMIX_ISA avx2_fma_f16c
#elif defined(__AVX2__) && defined(__FMA__)
#define TOKENMIX_ISA avx2_fma
#elif defined(__AVX2__)
#define TOKENMIX_ISA avx2
#elif defined(__AVX__)
#define TOKENMIX_ISA avx
#elif defined(__SSE4_2__)
#define TOKENMIX_ISA sse4_2
#elif defined(__SSE4_1__)
#define TOKENMIX_ISA sse4_1
#elif defined(__SSSE3__)
#define TOKENMIX_ISA ssse3
#elif defined(__SSE2__)
#define TOKENMIX_ISA sse2
#elif defined(__aarch64__)
#define TOKENMIX_ISA neon64
#else
#error "tokenmix needs x86-64 (SSE2 or later) or AArch64."
#endif

/// 1 where exceptions are on; otherwise errors go to tokenmix::failure_handler().
#if defined(__cpp_exceptions) && !defined(TOKENMIX_NO_EXCEPTIONS)
#define TOKENMIX_EXCEPTIONS 1
#define TOKENMIX_ERRORS throwing
#else
#define TOKENMIX_EXCEPTIONS 0
#define TOKENMIX_ERRORS handled
#endif

#define TOKENMIX_CONCAT4_(a, b, c, d) a##_##b##_##c##_##d
#define TOKENMIX_CONCAT4(a, b, c, d) TOKENMIX_CONCAT4_(a, b, c, d)
#define TOKENMIX_ABI_MAJOR_(major) v##major
#define TOKENMIX_ABI_MAJOR(major) TOKENMIX_ABI_MAJOR_(major)

/// The inline namespace of everything in the library: version, instruction set, error mode.
#define TOKENMIX_ABI TOKENMIX_CONCAT4(TOKENMIX_ABI_MAJOR(TOKENMIX_VERSION_MAJOR), TOKENMIX_ISA, TOKENMIX_ERRORS, abi)

#define TOKENMIX_ALWAYS_INLINE inline __attribute__((always_inline))
#define TOKENMIX_LAMBDA_INLINE __attribute__((always_inline))
#define TOKENMIX_NOINLINE __attribute__((noinline))
#define TOKENMIX_COLD __attribute__((noinline, cold))
#define TOKENMIX_RESTRICT __restrict__
