// AVX512-VNNI: Cascade Lake, Ice Lake and later, Zen 4 and later. Everything but the s8 tile comes from avx512.
//
// | intrinsic             | instruction | use                                                 |
// |-----------------------|-------------|-----------------------------------------------------|
// | _mm512_dpbusd_epi32   | vpdpbusd    | u8 x s8, four products added in s32, no saturation  |
//
// Overflow: as in ops/gemm.hpp. % of vpdpbusd's peak at 50 rows: 91-99 % on Zen 5 (kernels-zen5.json), 96-99 % on Zen 4
// (kernels.json), 76-85 % on Granite Rapids (kernels-gnr.json).
// Registers: tile 12 x 32: 24 accumulators + 2 of W + 1 broadcast = 27 of 32. Between two parts of the depth 8 are free
// for the epilogue of the tile before. At 12 rows two vectors of a GELU would like 9: compilers put up to five of its
// values on the stack, over all activations, and none of the products'.
#pragma once

#include <ocellus/x86/avx512.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx512vnni : avx512 {
  static constexpr isa id = isa::avx512vnni;
  static constexpr int s8_rows = 12;
  static constexpr int quad_rows = 0;

  // Aligned: where its loops fall in lines of code is worth 1 % of a picture on Zen 5, and any edit would change it.
  template <int MR, int P>
  [[gnu::aligned(64)]] static OCELLUS_NOINLINE void tile_s8(
      const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, std::size_t panel_stride, int k,
      std::int32_t* out, std::ptrdiff_t ldo, const prefetch_run& next, const unfinished_tile& before = {}) noexcept {
    __m512i acc[MR][P];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_setzero_si512(); });
    });
    fetcher<MR, P> ahead(next, b, panel_stride, 1);
    const std::uint8_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    int d = 0;
    const auto multiply_add_to = [&](int end) OCELLUS_LAMBDA {
      for (; d < end; d += 4) {
        __m512i w[P];
        unroll<P>([&](auto p) OCELLUS_LAMBDA { w[p] = _mm512_loadu_si512(b + p * panel_stride); });
        ahead.step();
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          std::int32_t four;
          std::memcpy(&four, rows[r / 3] + r % 3 * lda + d, 4);
          const __m512i x = _mm512_set1_epi32(four);
          unroll<P>([&](int p) OCELLUS_LAMBDA {
            acc[r][p] = _mm512_dpbusd_epi32(acc[r][p], x, w[p]);
            OCELLUS_KEEP(acc[r][p]);
          });
        });
        b += 64;
      }
    };
    if constexpr (P == 2 && MR >= finishing_rows) {
      const int part = k / (before.rows + 1) / 4 * 4;
      for (int r = 0; r < before.rows; r++) {
        multiply_add_to(d + part);
        finish_row<precision::u8>(before, r);
      }
    }
    multiply_add_to(k);
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { _mm512_storeu_si512(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

#include <ocellus/generic/unroll.inl>
#define OCELLUS_ONLY_S8
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
#undef OCELLUS_ONLY_S8
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
