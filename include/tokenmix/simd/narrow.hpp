// SPDX-License-Identifier: Apache-2.0
/// @file Lanes of 16 and 8 bits: partial loads and stores, widening to float lanes and narrowing from them.
#pragma once

#include <tokenmix/simd/batch.hpp>
#include <tokenmix/simd/partial.hpp>

#include <bit>

namespace tokenmix::inline TOKENMIX_ABI::simd::detail {

using words = batch<std::uint32_t>;

/// The bits of a register as lanes of another type of the same width.
template <class To, class From>
TOKENMIX_ALWAYS_INLINE batch<To> bits_as(const xsimd::batch<From, arch>& value) {
  static_assert(sizeof(To) == sizeof(From));
  return std::bit_cast<batch<To>>(value);
}

// ---- lanes<float> halves of 16 bits, quarters of 8 bits -------------------------------------------------------------
//
// load_*, store_*       all of them
// load_*_n, store_*_n   the first n; what is not loaded is zero
// widen, narrow         halves to words with zeros above them; the lower half of every word

#if defined(__AVX512F__) && defined(__AVX512BW__)

using halves = __m256i;
using quarters = __m128i;

TOKENMIX_ALWAYS_INLINE halves load_halves(const void* p) { return _mm256_loadu_si256(static_cast<const __m256i*>(p)); }
TOKENMIX_ALWAYS_INLINE void store_halves(void* p, halves h) { _mm256_storeu_si256(static_cast<__m256i*>(p), h); }
TOKENMIX_ALWAYS_INLINE halves load_halves_n(const void* p, index_t n) {
  return _mm512_castsi512_si256(_mm512_maskz_loadu_epi16(static_cast<__mmask32>((1u << n) - 1u), p));
}
TOKENMIX_ALWAYS_INLINE void store_halves_n(void* p, halves h, index_t n) {
  _mm512_mask_storeu_epi16(p, static_cast<__mmask32>((1u << n) - 1u), _mm512_castsi256_si512(h));
}
TOKENMIX_ALWAYS_INLINE quarters load_quarters(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
TOKENMIX_ALWAYS_INLINE void store_quarters(void* p, quarters q) { _mm_storeu_si128(static_cast<__m128i*>(p), q); }
TOKENMIX_ALWAYS_INLINE quarters load_quarters_n(const void* p, index_t n) {
  return _mm512_castsi512_si128(_mm512_maskz_loadu_epi8((__mmask64{1} << n) - 1u, p));
}
TOKENMIX_ALWAYS_INLINE void store_quarters_n(void* p, quarters q, index_t n) {
  _mm512_mask_storeu_epi8(p, (__mmask64{1} << n) - 1u, _mm512_castsi128_si512(q));
}
TOKENMIX_ALWAYS_INLINE words widen(halves h) { return words(_mm512_cvtepu16_epi32(h)); }
TOKENMIX_ALWAYS_INLINE halves narrow(words w) { return _mm512_cvtepi32_epi16(w.data); }
TOKENMIX_ALWAYS_INLINE batch<float> widen_int8(quarters q) {
  return batch<float>(_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(q)));
}
TOKENMIX_ALWAYS_INLINE quarters narrow_rounded(batch<float> x) {
  return _mm512_cvtepi32_epi8(_mm512_cvtps_epi32(x.data));
}

#elif defined(__SSE2__)

// On AVX a register of halves fills one of SSE2; on SSE2 the lower half of one, and the quarters half of that.
using halves = __m128i;
using quarters = __m128i;

TOKENMIX_ALWAYS_INLINE __m128i from_bytes(sixteen_bytes b) {
  return _mm_set_epi64x(static_cast<long long>(b.high), static_cast<long long>(b.low));
}
TOKENMIX_ALWAYS_INLINE sixteen_bytes to_bytes(__m128i r) {
  return {static_cast<std::uint64_t>(_mm_cvtsi128_si64(r)),
          static_cast<std::uint64_t>(_mm_cvtsi128_si64(_mm_unpackhi_epi64(r, r)))};
}
TOKENMIX_ALWAYS_INLINE halves load_halves_n(const void* p, index_t n) { return from_bytes(load_bytes(p, 2 * n)); }
TOKENMIX_ALWAYS_INLINE void store_halves_n(void* p, halves h, index_t n) { store_bytes(p, to_bytes(h), 2 * n); }
TOKENMIX_ALWAYS_INLINE quarters load_quarters_n(const void* p, index_t n) { return from_bytes(load_bytes(p, n)); }
TOKENMIX_ALWAYS_INLINE void store_quarters_n(void* p, quarters q, index_t n) { store_bytes(p, to_bytes(q), n); }

#if defined(__AVX__)

TOKENMIX_ALWAYS_INLINE halves load_halves(const void* p) { return _mm_loadu_si128(static_cast<const __m128i*>(p)); }
TOKENMIX_ALWAYS_INLINE void store_halves(void* p, halves h) { _mm_storeu_si128(static_cast<__m128i*>(p), h); }
TOKENMIX_ALWAYS_INLINE quarters load_quarters(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
TOKENMIX_ALWAYS_INLINE void store_quarters(void* p, quarters q) { _mm_storel_epi64(static_cast<__m128i*>(p), q); }
TOKENMIX_ALWAYS_INLINE words widen(halves h) {
#if defined(__AVX2__)
  return words(_mm256_cvtepu16_epi32(h));
#else
  const __m128i zero = _mm_setzero_si128();
  return words(
      _mm256_insertf128_si256(_mm256_castsi128_si256(_mm_unpacklo_epi16(h, zero)), _mm_unpackhi_epi16(h, zero), 1));
#endif
}
TOKENMIX_ALWAYS_INLINE halves narrow(words w) {
  return _mm_packus_epi32(_mm256_castsi256_si128(w.data), _mm256_extractf128_si256(w.data, 1));
}
TOKENMIX_ALWAYS_INLINE batch<float> widen_int8(quarters q) {
#if defined(__AVX2__)
  return batch<float>(_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(q)));
#else
  const __m128i high = _mm_cvtepi8_epi32(_mm_srli_si128(q, 4));
  return batch<float>(
      _mm256_cvtepi32_ps(_mm256_insertf128_si256(_mm256_castsi128_si256(_mm_cvtepi8_epi32(q)), high, 1)));
#endif
}
TOKENMIX_ALWAYS_INLINE quarters narrow_rounded(batch<float> x) {
  const __m256i integers = _mm256_cvtps_epi32(x.data);
  const __m128i shorts = _mm_packs_epi32(_mm256_castsi256_si128(integers), _mm256_extractf128_si256(integers, 1));
  return _mm_packs_epi16(shorts, shorts);
}

#else

TOKENMIX_ALWAYS_INLINE halves load_halves(const void* p) { return _mm_loadl_epi64(static_cast<const __m128i*>(p)); }
TOKENMIX_ALWAYS_INLINE void store_halves(void* p, halves h) { _mm_storel_epi64(static_cast<__m128i*>(p), h); }
TOKENMIX_ALWAYS_INLINE quarters load_quarters(const void* p) {
  std::int32_t four;
  std::memcpy(&four, p, sizeof(four));
  return _mm_cvtsi32_si128(four);
}
TOKENMIX_ALWAYS_INLINE void store_quarters(void* p, quarters q) {
  const std::int32_t four = _mm_cvtsi128_si32(q);
  std::memcpy(p, &four, sizeof(four));
}
TOKENMIX_ALWAYS_INLINE words widen(halves h) { return words(_mm_unpacklo_epi16(h, _mm_setzero_si128())); }
TOKENMIX_ALWAYS_INLINE halves narrow(words w) {
  // SSE2 packs with signed saturation only: sign-extended words pass unchanged.
  const __m128i extended = _mm_srai_epi32(_mm_slli_epi32(w.data, 16), 16);
  return _mm_packs_epi32(extended, extended);
}
TOKENMIX_ALWAYS_INLINE batch<float> widen_int8(quarters q) {
  const __m128i zero = _mm_setzero_si128();
  const __m128i high_bytes = _mm_unpacklo_epi16(zero, _mm_unpacklo_epi8(zero, q));
  return batch<float>(_mm_cvtepi32_ps(_mm_srai_epi32(high_bytes, 24)));
}
TOKENMIX_ALWAYS_INLINE quarters narrow_rounded(batch<float> x) {
  const __m128i integers = _mm_cvtps_epi32(x.data);
  const __m128i shorts = _mm_packs_epi32(integers, integers);
  return _mm_packs_epi16(shorts, shorts);
}

#endif

#else  // AArch64

using halves = uint16x4_t;
using quarters = int8x8_t;  // the lower four

TOKENMIX_ALWAYS_INLINE halves load_halves_n(const void* p, index_t n) { return vcreate_u16(load_bytes(p, 2 * n).low); }
TOKENMIX_ALWAYS_INLINE void store_halves_n(void* p, halves h, index_t n) {
  store_bytes(p, {vget_lane_u64(vreinterpret_u64_u16(h), 0), 0}, 2 * n);
}
TOKENMIX_ALWAYS_INLINE halves load_halves(const void* p) { return load_halves_n(p, 4); }
TOKENMIX_ALWAYS_INLINE void store_halves(void* p, halves h) { store_halves_n(p, h, 4); }
TOKENMIX_ALWAYS_INLINE quarters load_quarters_n(const void* p, index_t n) { return vcreate_s8(load_bytes(p, n).low); }
TOKENMIX_ALWAYS_INLINE void store_quarters_n(void* p, quarters q, index_t n) {
  store_bytes(p, {vget_lane_u64(vreinterpret_u64_s8(q), 0), 0}, n);
}
TOKENMIX_ALWAYS_INLINE quarters load_quarters(const void* p) { return load_quarters_n(p, 4); }
TOKENMIX_ALWAYS_INLINE void store_quarters(void* p, quarters q) { store_quarters_n(p, q, 4); }
TOKENMIX_ALWAYS_INLINE words widen(halves h) { return words(vmovl_u16(h)); }
TOKENMIX_ALWAYS_INLINE halves narrow(words w) { return vmovn_u32(w.data); }
TOKENMIX_ALWAYS_INLINE batch<float> widen_int8(quarters q) {
  return batch<float>(vcvtq_f32_s32(vmovl_s16(vget_low_s16(vmovl_s8(q)))));
}
TOKENMIX_ALWAYS_INLINE quarters narrow_rounded(batch<float> x) {
  const int16x4_t shorts = vmovn_s32(vcvtnq_s32_f32(x.data));
  return vmovn_s16(vcombine_s16(shorts, shorts));
}

#endif

/// Nearest integer, ties to even, saturated; NaN gives 0.
TOKENMIX_ALWAYS_INLINE quarters narrow_int8(const batch<float>& value) {
  const batch<float> number = select(value == value, value, batch<float>(0.0f));
  const batch<float> least = select(number < batch<float>(-128.0f), batch<float>(-128.0f), number);
  return narrow_rounded(select(least > batch<float>(127.0f), batch<float>(127.0f), least));
}

TOKENMIX_ALWAYS_INLINE batch<float> widen_bfloat16(halves h) { return bits_as<float>(widen(h) << 16); }

TOKENMIX_ALWAYS_INLINE halves narrow_bfloat16(const batch<float>& value) {
  const words bits = bits_as<std::uint32_t>(value);
  const words upper = bits >> 16;
  const words rounded = (bits + words(0x7fffu) + (upper & words(1u))) >> 16;
  const words quiet = upper | words(0x40u);
  return narrow(select(mask_cast<std::uint32_t>(value == value), rounded, quiet));
}

TOKENMIX_ALWAYS_INLINE batch<float> widen_float16(halves h) {
#if defined(__AVX512F__)
  return batch<float>(_mm512_cvtph_ps(h));
#elif defined(__F16C__)
  return batch<float>(_mm256_cvtph_ps(h));
#elif defined(__aarch64__)
  return batch<float>(vcvt_f32_f16(vreinterpret_f16_u16(h)));
#else
  using ints = batch<std::int32_t>;
  const words word = widen(h);
  const words sign = (word & words(0x8000u)) << 16;
  const ints magnitude = bits_as<std::int32_t>((word & words(0x7fffu)) << 13);
  const ints normal = magnitude + ints(112 << 23);
  const ints special = select(magnitude > ints(31 << 23), ints(0x7fc00000) | magnitude, ints(0x7f800000));
  // A subnormal is what its fraction adds to 2^-14: no subnormal float is an operand, so no mode can flush it.
  const batch<float> subnormal = bits_as<float>(magnitude + ints(113 << 23)) - batch<float>(0x1p-14f);
  ints result = select(magnitude > ints((31 << 23) - 1), special, normal);
  result = select(magnitude < ints(1 << 23), bits_as<std::int32_t>(subnormal), result);
  return bits_as<float>(bits_as<std::uint32_t>(result) | sign);
#endif
}

TOKENMIX_ALWAYS_INLINE halves narrow_float16(const batch<float>& value) {
#if defined(__AVX512F__)  // under a mask of ones: unoptimised, g++'s form without one hands -1 to an unsigned parameter
  return _mm512_maskz_cvtps_ph(__mmask16{0xffff}, value.data, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC);
#elif defined(__F16C__)
  return _mm256_cvtps_ph(value.data, _MM_FROUND_TO_NEAREST_INT);
#elif defined(__aarch64__)
  return vreinterpret_u16_f16(vcvt_f16_f32(value.data));
#else
  using ints = batch<std::int32_t>;
  const words bits = bits_as<std::uint32_t>(value);
  const words sign = (bits >> 16) & words(0x8000u);
  const ints magnitude = bits_as<std::int32_t>(bits & words(0x7fffffffu));
  const ints odd = bits_as<std::int32_t>((bits >> 13) & words(1u));
  const ints shifted = magnitude - ints(0x38000000) + ints(0xfff) + odd;
  const ints normal = bits_as<std::int32_t>(bits_as<std::uint32_t>(shifted) >> 13);
  // Adding 0.5 leaves the units of 2^-24 in the last bits of the sum, rounded as the hardware rounds.
  const ints subnormal =
      bits_as<std::int32_t>(bits_as<float>(magnitude) + batch<float>(0.5f)) - bits_as<std::int32_t>(batch<float>(0.5f));
  const ints payload = bits_as<std::int32_t>((bits >> 13) & words(0x3ffu)) | ints(0x7e00);
  ints result = select(magnitude < ints(0x38800000), subnormal, normal);
  result = select(magnitude > ints(0x47800000 - 1), ints(0x7c00), result);
  result = select(magnitude > ints(0x7f800000), payload, result);
  return narrow(bits_as<std::uint32_t>(result) | sign);
#endif
}

}  // namespace tokenmix::inline TOKENMIX_ABI::simd::detail
