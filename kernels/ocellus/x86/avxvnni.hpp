// AVX-VNNI: Alder Lake, Sierra Forest, Arrow Lake and later cores without AVX-512. Everything but the s8 tile
// comes from avx2.
//
// | intrinsic                 | instruction      | use                                                 |
// |---------------------------|------------------|-----------------------------------------------------|
// | _mm256_dpbusd_avx_epi32   | {vex} vpdpbusd   | u8 x s8, four products added in s32, no saturation  |
//
// Overflow: as in ops/gemm.hpp. Registers: tile 6 x 16: 12 accumulators + 2 of W + 1 broadcast = 15 of 16. A
// pair of panels is two single ones. % of the peak of {vex} vpdpbusd at 50 rows: 87-95 % on Zen 5 (kernels-zen5.json),
// 77-87 % on Emerald Rapids (kernels-emr.json), which have AVX-512 as well and prefer it; no CPU without was at hand.
#pragma once

#include <ocellus/x86/avx2.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("avxvnni,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avxvnni : avx2 {
  static constexpr isa id = isa::avxvnni;
  static constexpr int s8_rows = 6;
  static constexpr int quad_rows = 0;
  static constexpr std::size_t split_bytes = 0;

#include <ocellus/generic/unroll.inl>

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    static_assert(P == 1);
    __m256i acc[MR][2];
    unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = _mm256_setzero_si256(); });
    const std::uint8_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    for (int d = 0; d < k; d += 4) {
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32));
      _mm_prefetch(reinterpret_cast<const char*>(b + panel_stride), _MM_HINT_T1);
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        std::int32_t four;
        std::memcpy(&four, rows[r / 3] + r % 3 * lda + d, 4);
        const __m256i x = _mm256_set1_epi32(four);
        acc[r][0] = _mm256_dpbusd_avx_epi32(acc[r][0], x, w0);
        acc[r][1] = _mm256_dpbusd_avx_epi32(acc[r][1], x, w1);
        OCELLUS_KEEP(acc[r][0]);
        OCELLUS_KEEP(acc[r][1]);
      });
      b += 64;
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo), acc[r][0]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo + 8), acc[r][1]);
    });
  }

#define OCELLUS_ONLY_S8
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
#undef OCELLUS_ONLY_S8
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
