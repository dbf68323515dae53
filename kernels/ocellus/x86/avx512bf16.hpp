// AVX512-BF16: Zen 4 and later, Cooper Lake. Everything but gemm_bf16 comes from avx512vnni.
//
// | intrinsic            | instruction    | use                                                     |
// |----------------------|----------------|---------------------------------------------------------|
// | _mm512_dpbf16_ps     | vdpbf16ps      | two products of bf16 added to f32, 32 per instruction   |
// | _mm512_cvtneps_pbh   | vcvtneps2bf16  | activations, rounded once per block of depth            |
//
// Outside law 2: activations are rounded to bf16, and vdpbf16ps flushes denormals and rounds each of its two additions
// to nearest even, whatever MXCSR says. Preferred only where it is quick: Sapphire Rapids runs it at half the rate of
// f32 FMA, Zen 4 at twice (118 GMAC/s against 59 at 3.69 GHz).
// Registers: tile 12 x 32: 24 accumulators + 2 of W + 1 broadcast = 27 of 32.
// Blocking: A is rounded into a buffer on the stack, at most 64 rows x 768 deep (96 KiB); C holds the partial sums.
#pragma once

#include <ocellus/x86/avx512vnni.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx512bf16 : avx512vnni {
  static constexpr isa id = isa::avx512bf16;
  static constexpr bool exact_bf16 = false;

#include <ocellus/generic/unroll.inl>

  using rounded_element = std::uint16_t;
  using rounded_weight = bf16;
  static constexpr int rounded_rows = 64, rounded_depth = 768, rounded_unit = 1;

  /// MR rows of 16-bit activations times P panels, added to `out`. `pairs` is the depth in pairs.
  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_bf16(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b,
                                         std::size_t panel_stride, int pairs, float* out, std::ptrdiff_t ldo,
                                         const prefetch_run& next) noexcept {
    __m512 acc[MR][P];
    unroll<MR>([&](auto r) OCELLUS_LAMBDA {
      unroll<P>([&](auto p) OCELLUS_LAMBDA { acc[r][p] = _mm512_loadu_ps(out + r * ldo + p * 16); });
    });
    const std::uint16_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](auto i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    const char* ahead = next.at;
    for (int d = 0; d < pairs; d++) {
      __m512i w[P];
      unroll<P>([&](auto p) OCELLUS_LAMBDA {
        w[p] = _mm512_loadu_si512(b + p * panel_stride);
        _mm_prefetch(ahead + p * panel_stride * sizeof(bf16), _MM_HINT_T1);
      });
      unroll<MR>([&](auto r) OCELLUS_LAMBDA {
        std::int32_t two;
        std::memcpy(&two, rows[r / 3] + r % 3 * lda + 2 * d, 4);
        const __m512i x = _mm512_set1_epi32(two);
        unroll<P>([&](auto p) OCELLUS_LAMBDA {
          acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)x, (__m512bh)w[p]);
          OCELLUS_KEEP(acc[r][p]);
        });
      });
      b += 32;
      ahead += 2 * next.pace;
    }
    unroll<MR>([&](auto r) OCELLUS_LAMBDA {
      unroll<P>([&](auto p) OCELLUS_LAMBDA { _mm512_storeu_ps(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

  /// Calls the tile of `rows` rows (1..float_rows) and one or two panels.
  static OCELLUS_INLINE void tiles_rounded(int rows, int panels, const std::uint16_t* a, std::ptrdiff_t lda,
                                           const bf16* b, std::size_t stride, int depth, float* c,
                                           std::ptrdiff_t ldc, const prefetch_run& next) noexcept {
    const auto tiles = [&](auto count) OCELLUS_LAMBDA {
      by_height<float_rows, count == 1>(rows, [&](auto height, int r) OCELLUS_LAMBDA {
        tile_bf16<height, count>(a + r * lda, lda, b, stride, (depth + 1) / 2, c + r * ldc, ldc, next);
      });
    };
    if (panels == 2) {
      tiles(constant<int, 2>{});
    } else {
      tiles(constant<int, 1>{});
    }
  }

  /// A block of activations to bf16: rows x depth, zeros up to the next multiple of 16.
  static OCELLUS_NOINLINE void round_block(std::uint16_t* out, std::ptrdiff_t ldo, const float* a,
                                           std::ptrdiff_t lda, int rows, int depth) noexcept {
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < depth; d += 16) {
        const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(load_tail(a + r * lda, d, depth).x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo + d), rounded);
      }
  }

  static void gemm_exact(const gemm_args& g) noexcept { avx512vnni::gemm_bf16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_bf16(const gemm_args& g) noexcept { gemm_rounded(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
