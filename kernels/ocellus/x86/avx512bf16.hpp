// AVX512-BF16: Zen 4 and later, Cooper Lake. Everything but gemm_bf16 and attention_bf16 comes from avx512vnni.
//
// | intrinsic            | instruction    | use                                                     |
// |----------------------|----------------|---------------------------------------------------------|
// | _mm512_dpbf16_ps     | vdpbf16ps      | two products of bf16 added to f32, 32 per instruction   |
// | _mm512_cvtneps_pbh   | vcvtneps2bf16  | activations; attention's parts                          |
//
// Outside law 2: activations are rounded to bf16, and vdpbf16ps flushes denormals and rounds each of its two additions
// to nearest even, whatever MXCSR says. Preferred only where it is quick: Sapphire Rapids runs it at half the rate of
// f32 FMA, Zen 4 at twice (118 GMAC/s against 59 at 3.69 GHz).
// Registers: tile 12 x 32: 24 accumulators + 2 of W + 1 broadcast = 27 of 32.
// Products at 50 rows: 93-96 % of vdpbf16ps' measured peak on Zen 5 (kernels-zen5.json), 96-97 % on Zen 4
// (kernels.json).
// Attention on Zen 5 (kernels-zen5.json): 58 % of the bf16 peak at ViT-B/16's 197 tokens, 1.67 times attention_f32;
// 39 % and 1.54 at 50.
// Blocking: A comes rounded (round_bf16) and is read at its whole depth; or it is rounded into 96 KiB of stack, 64 x
// 768 or 32 x 1536, and where it is deeper C holds the partial sums.
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
  static constexpr int rounded_rows = 64, rounded_depth = 768, rounded_unit = 1, rounded_height = float_rows;

  /// MR rows of 16-bit activations times P panels, added to what `from` holds. `pairs` is the depth in pairs.
  /// Aligned as avx512vnni's tile_s8 is.
  template <int MR, int P>
  [[gnu::aligned(64)]] static OCELLUS_NOINLINE void tile_bf16(
      const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b, std::size_t panel_stride, int pairs,
      const float* from, std::ptrdiff_t ldf, float* out, std::ptrdiff_t ldo, const prefetch_run& next) noexcept {
    __m512 acc[MR][P];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_loadu_ps(from + r * ldf + p * 16); });
    });
    const std::uint16_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    fetcher<MR, P> ahead(next, b, panel_stride * sizeof(bf16), 2);
    for (int d = 0; d < pairs; d++) {
      __m512i w[P];
      unroll<P>([&](auto p) OCELLUS_LAMBDA { w[p] = _mm512_loadu_si512(b + p * panel_stride); });
      ahead.step();
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        std::int32_t two;
        std::memcpy(&two, rows[r / 3] + r % 3 * lda + 2 * d, 4);
        const __m512i x = _mm512_set1_epi32(two);
        unroll<P>([&](int p) OCELLUS_LAMBDA {
          acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)x, (__m512bh)w[p]);
          OCELLUS_KEEP(acc[r][p]);
        });
      });
      b += 32;
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { _mm512_storeu_ps(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

  OCELLUS_HIDDEN alignas(64) static constexpr float zeros[2 * panel_width] = {};

  /// The tile of `rows` rows (tile_height's) and one or two panels.
  static OCELLUS_NOINLINE void tiles_rounded(int rows, int panels, const std::uint16_t* a, std::ptrdiff_t lda,
                                             const bf16* b, std::size_t stride, int depth, float* c,
                                             std::ptrdiff_t ldc, bool onto, const prefetch_run& next) noexcept {
    const float* const from = onto ? c : zeros;
    const std::ptrdiff_t ldf = onto ? ldc : 0;
    const auto run = [&](auto tile, int r) OCELLUS_LAMBDA {
      tile(a + r * lda, lda, b, stride, (depth + 1) / 2, from + r * ldf, ldf, c + r * ldc, ldc, next);
    };
    if (panels == 2) return by_height<float_rows>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_bf16<h, 2>, 0); });
    by_few_heights<float_rows>(rows, [](auto h) OCELLUS_LAMBDA { return &tile_bf16<h, 1>; }, run);
  }

  /// Zeros up to a multiple of 16.
  static OCELLUS_NOINLINE void round_bf16(std::uint16_t* out, std::ptrdiff_t ldo, const float* a,
                                          std::ptrdiff_t lda, int rows, int depth) noexcept {
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < depth; d += 16) {
        const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(load_tail(a + r * lda, d, depth).x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo + d), rounded);
      }
  }

  static OCELLUS_INLINE void round_block(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda,
                                         int rows, int depth) noexcept {
    round_bf16(out, ldo, a, lda, rows, depth);
  }
  static OCELLUS_INLINE const std::uint16_t* rounded_before(const gemm_args& g) noexcept { return g.a_bf16; }
  static void gemm_exact(const gemm_args& g) noexcept { avx512vnni::gemm_bf16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_bf16(const gemm_args& g) noexcept { gemm_rounded(g); }

  /// Sixteen values from (r, j) on of a block of `rows` rows, as round_block has them.
  static OCELLUS_INLINE void store_rounded(std::uint16_t* block, std::ptrdiff_t ld, int, int r, int j, vec v) noexcept {
    _mm256_storeu_si256(reinterpret_cast<__m256i*>(block + r * ld + j), (__m256i)_mm512_cvtneps_pbh(v.x));
  }

  /// Sixteen columns of two depths of a panel.
  static OCELLUS_INLINE void store_pairs(bf16* out, vec first, vec second) noexcept {
    const auto wide = [](vec v) OCELLUS_LAMBDA { return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(v.x)); };
    _mm512_storeu_si512(out, _mm512_or_si512(wide(first), _mm512_slli_epi32(wide(second), 16)));
  }
#include <ocellus/generic/attention_rounded.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
