// The resize passes for SSE4.1, AVX2 and AVX-512BW: one source (generic/resample.inl) at 16, 32 and 64 bytes.
//
//   intrinsic             instruction  latency @ ports (uops.info, Alder Lake P; Zen 4)
//   _mm256_madd_epi16     vpmaddwd     5 @ p01; 3 @ FP01
//   _mm256_shuffle_epi8   vpshufb      1 @ p15; 2 @ FP12
//   _mm256_add_epi32      vpaddd       1 @ p015; 1 @ FP0123
// Overflow: see ops/resample.hpp; the total stays inside 32 bits, parts of it may wrap.
// Speed: bench_kernels --benchmark_filter=resize_bicubic; bench/results has no record of it.
// Registers (horizontal): 4 accumulators (SSE4.1: 8) + 4 shuffled pixels (2) + 4 weights + 2 masks of 16 or 32.
#pragma once

#if defined(__x86_64__) || defined(__i386__) || defined(_M_X64)

#include <ocellus/generic/resample.hpp>

#include <immintrin.h>

OCELLUS_TARGET_BEGIN("sse4.1")
OCELLUS_BEGIN
namespace kernels {

struct resample_sse41 : resample_scalar {
  using vec = __m128i;
  static constexpr int lanes = 1;
  static constexpr int strips = 4;  // the weights of two rows took 28 % of the pass; AVX2 gains 2 % of a picture

  static OCELLUS_INLINE vec load(const std::uint8_t* p) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static OCELLUS_INLINE void store(std::uint8_t* p, vec v) noexcept {
    _mm_storeu_si128(reinterpret_cast<__m128i*>(p), v);
  }
  static OCELLUS_INLINE vec load_rows(const std::uint8_t* p, std::ptrdiff_t) noexcept { return load(p); }
  static OCELLUS_INLINE vec pixels01(vec v) noexcept {
    return _mm_shuffle_epi8(v, _mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1));
  }
  static OCELLUS_INLINE vec pixels23(vec v) noexcept {
    return _mm_shuffle_epi8(v, _mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1));
  }
  static OCELLUS_INLINE vec zip_low(vec a, vec b) noexcept { return _mm_unpacklo_epi8(a, b); }
  static OCELLUS_INLINE vec zip_high(vec a, vec b) noexcept { return _mm_unpackhi_epi8(a, b); }
  static OCELLUS_INLINE vec widen_low(vec v) noexcept { return _mm_unpacklo_epi8(v, zero()); }
  static OCELLUS_INLINE vec widen_high(vec v) noexcept { return _mm_unpackhi_epi8(v, zero()); }
  static OCELLUS_INLINE vec pair(const std::int16_t* p) noexcept { return _mm_set1_epi32(load_pair(p)); }
  static OCELLUS_INLINE vec madd(vec a, vec b) noexcept { return _mm_madd_epi16(a, b); }
  static OCELLUS_INLINE vec add(vec a, vec b) noexcept { return _mm_add_epi32(a, b); }
  static OCELLUS_INLINE vec zero() noexcept { return _mm_setzero_si128(); }
  static OCELLUS_INLINE vec round_shift(vec low, vec high) noexcept {
    return _mm_srai_epi32(add(add(low, _mm_slli_epi32(high, 16)), _mm_set1_epi32(half)), resample_bits);
  }
  static OCELLUS_INLINE vec narrow(vec a, vec b, vec c, vec d) noexcept {
    return _mm_packus_epi16(_mm_packs_epi32(a, b), _mm_packs_epi32(c, d));
  }
  static OCELLUS_INLINE void store_pixels(std::uint8_t* p, std::ptrdiff_t, vec v, int n) noexcept {
    store_pixel(p, _mm_cvtsi128_si32(v), n);
  }

#include <ocellus/generic/resample.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END

OCELLUS_TARGET_BEGIN("avx2")
OCELLUS_BEGIN
namespace kernels {

struct resample_avx2 : resample_scalar {
  using vec = __m256i;
  static constexpr int lanes = 2;

  static OCELLUS_INLINE vec load(const std::uint8_t* p) noexcept {
    return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
  }
  static OCELLUS_INLINE void store(std::uint8_t* p, vec v) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(p), v);
  }
  static OCELLUS_INLINE vec load_rows(const std::uint8_t* p, std::ptrdiff_t stride) noexcept {
    return _mm256_loadu2_m128i(reinterpret_cast<const __m128i*>(p + stride),
                               reinterpret_cast<const __m128i*>(p));
  }
  static OCELLUS_INLINE vec pixels01(vec v) noexcept {
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1,
                                                                            5, -1, -1, -1, -1, -1)));
  }
  static OCELLUS_INLINE vec pixels23(vec v) noexcept {
    return _mm256_shuffle_epi8(v, _mm256_broadcastsi128_si256(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8,
                                                                            -1, 11, -1, -1, -1, -1, -1)));
  }
  static OCELLUS_INLINE vec zip_low(vec a, vec b) noexcept { return _mm256_unpacklo_epi8(a, b); }
  static OCELLUS_INLINE vec zip_high(vec a, vec b) noexcept { return _mm256_unpackhi_epi8(a, b); }
  static OCELLUS_INLINE vec widen_low(vec v) noexcept { return _mm256_unpacklo_epi8(v, zero()); }
  static OCELLUS_INLINE vec widen_high(vec v) noexcept { return _mm256_unpackhi_epi8(v, zero()); }
  static OCELLUS_INLINE vec pair(const std::int16_t* p) noexcept { return _mm256_set1_epi32(load_pair(p)); }
  static OCELLUS_INLINE vec madd(vec a, vec b) noexcept { return _mm256_madd_epi16(a, b); }
  static OCELLUS_INLINE vec add(vec a, vec b) noexcept { return _mm256_add_epi32(a, b); }
  static OCELLUS_INLINE vec zero() noexcept { return _mm256_setzero_si256(); }
  static OCELLUS_INLINE vec round_shift(vec low, vec high) noexcept {
    return _mm256_srai_epi32(add(add(low, _mm256_slli_epi32(high, 16)), _mm256_set1_epi32(half)),
                             resample_bits);
  }
  static OCELLUS_INLINE vec narrow(vec a, vec b, vec c, vec d) noexcept {
    return _mm256_packus_epi16(_mm256_packs_epi32(a, b), _mm256_packs_epi32(c, d));
  }
  static OCELLUS_INLINE void store_pixels(std::uint8_t* p, std::ptrdiff_t stride, vec v, int n) noexcept {
    store_pixel(p, _mm_cvtsi128_si32(_mm256_castsi256_si128(v)), n);
    store_pixel(p + stride, _mm_cvtsi128_si32(_mm256_extracti128_si256(v, 1)), n);
  }

#include <ocellus/generic/resample.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END

OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512vl,avx512dq,avx2")
OCELLUS_BEGIN
namespace kernels {

struct resample_avx512 : resample_scalar {
  using vec = __m512i;
  static constexpr int lanes = 4;

  static OCELLUS_INLINE vec load(const std::uint8_t* p) noexcept { return _mm512_loadu_si512(p); }
  static OCELLUS_INLINE void store(std::uint8_t* p, vec v) noexcept { _mm512_storeu_si512(p, v); }
  static OCELLUS_INLINE __m128i load16(const std::uint8_t* p) noexcept {
    return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
  }
  static OCELLUS_INLINE vec load_rows(const std::uint8_t* p, std::ptrdiff_t stride) noexcept {
    const __m256i a = _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p)), load16(p + stride), 1);
    const __m256i b =
        _mm256_inserti128_si256(_mm256_castsi128_si256(load16(p + 2 * stride)), load16(p + 3 * stride), 1);
    return _mm512_inserti64x4(_mm512_castsi256_si512(a), b, 1);
  }
  static OCELLUS_INLINE vec pixels01(vec v) noexcept {
    return _mm512_shuffle_epi8(
        v, _mm512_broadcast_i32x4(_mm_setr_epi8(0, -1, 3, -1, 1, -1, 4, -1, 2, -1, 5, -1, -1, -1, -1, -1)));
  }
  static OCELLUS_INLINE vec pixels23(vec v) noexcept {
    return _mm512_shuffle_epi8(
        v, _mm512_broadcast_i32x4(_mm_setr_epi8(6, -1, 9, -1, 7, -1, 10, -1, 8, -1, 11, -1, -1, -1, -1, -1)));
  }
  static OCELLUS_INLINE vec zip_low(vec a, vec b) noexcept { return _mm512_unpacklo_epi8(a, b); }
  static OCELLUS_INLINE vec zip_high(vec a, vec b) noexcept { return _mm512_unpackhi_epi8(a, b); }
  static OCELLUS_INLINE vec widen_low(vec v) noexcept { return _mm512_unpacklo_epi8(v, zero()); }
  static OCELLUS_INLINE vec widen_high(vec v) noexcept { return _mm512_unpackhi_epi8(v, zero()); }
  static OCELLUS_INLINE vec pair(const std::int16_t* p) noexcept { return _mm512_set1_epi32(load_pair(p)); }
  static OCELLUS_INLINE vec madd(vec a, vec b) noexcept { return _mm512_madd_epi16(a, b); }
  static OCELLUS_INLINE vec add(vec a, vec b) noexcept { return _mm512_add_epi32(a, b); }
  static OCELLUS_INLINE vec zero() noexcept { return _mm512_setzero_si512(); }
  static OCELLUS_INLINE vec round_shift(vec low, vec high) noexcept {
    return _mm512_srai_epi32(add(add(low, _mm512_slli_epi32(high, 16)), _mm512_set1_epi32(half)),
                             resample_bits);
  }
  static OCELLUS_INLINE vec narrow(vec a, vec b, vec c, vec d) noexcept {
    return _mm512_packus_epi16(_mm512_packs_epi32(a, b), _mm512_packs_epi32(c, d));
  }
  static OCELLUS_INLINE void store_pixels(std::uint8_t* p, std::ptrdiff_t stride, vec v, int n) noexcept {
    store_pixel(p, _mm_cvtsi128_si32(_mm512_castsi512_si128(v)), n);
    store_pixel(p + stride, _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(v, 1)), n);
    store_pixel(p + 2 * stride, _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(v, 2)), n);
    store_pixel(p + 3 * stride, _mm_cvtsi128_si32(_mm512_extracti32x4_epi32(v, 3)), n);
  }

#include <ocellus/generic/resample.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END

#endif
