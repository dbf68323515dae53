// Half-precision arithmetic of Armv8.2: Cortex-A55, A75, A76 and later, Neoverse N1 and later, Apple A11 and later.
// Everything but gemm_f16 comes from dotprod.
//
// | intrinsic         | instruction     | use                                                        |
// |-------------------|-----------------|------------------------------------------------------------|
// | vfmaq_laneq_f16   | fmla (element)  | f16 tile, 8 lanes: twice the width of f32, nothing widened |
// | vcvt_high_f16_f32 | fcvtn, fcvtn2   | activations, rounded once per block of depth               |
// | vcvt_high_f32_f16 | fcvtl, fcvtl2   | partial sums to f32, each 64 products                      |
//
// Outside law 2, for it rounds activations and partial sums to fp16: relative rms error 1.2e-3. Overflow: a partial sum
// of 64 products must stay below 65504, which activations after LayerNorm and weights below 1 keep by three orders of
// magnitude. fmlal (FEAT_FHM), which adds in f32, makes as many products as fmla on f32 and is not used.
// Registers: tile 5 x 32: 20 accumulators + 5 of A + 2 of W = 27 of 32.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/arm/dotprod.hpp>

#if defined(__aarch64__) && OCELLUS_HAS_FP16
OCELLUS_TARGET_BEGIN(OCELLUS_TARGET_FP16)
OCELLUS_BEGIN
namespace kernels {

struct fp16 : dotprod {
  static constexpr isa id = isa::fp16;
  static constexpr bool exact_f16 = false;

#include <ocellus/generic/unroll.inl>
#include <ocellus/arm/steps.inl>

  using rounded_element = f16;
  using rounded_weight = f16;
  static constexpr int rounded_rows = 64, rounded_depth = 192, rounded_unit = 1, rounded_height = float_rows;
  static constexpr int fp16_chain = 64;

  static OCELLUS_INLINE float16x8_t load8(const f16* p) noexcept {
    return vreinterpretq_f16_u16(vld1q_u16(&p->bits));
  }

  /// c += v, eight lanes.
  static OCELLUS_INLINE void add_to(float* c, float16x8_t v) noexcept {
    vst1q_f32(c, vld1q_f32(c) + vcvt_f32_f16(vget_low_f16(v)));
    vst1q_f32(c + 4, vld1q_f32(c + 4) + vcvt_high_f32_f16(v));
  }

  /// acc + w * x[Lane]; gcc 12 forgets that x must be one of v0 to v15, copies lanes and keeps sums in memory, which
  /// assembler does not.
  template <int Lane>
  static OCELLUS_INLINE float16x8_t with_product(float16x8_t acc, float16x8_t w, float16x8_t x) noexcept {
#if defined(__clang__)
    return vfmaq_laneq_f16(acc, w, x, Lane);
#else
    __asm__("fmla %0.8h, %1.8h, %2.h[%3]" : "+w"(acc) : "w"(w), "x"(x), "i"(Lane));
    return acc;
#endif
  }

  /// MR rows times P panels, added to C.
  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_fp16(const f16* a, std::ptrdiff_t lda, const f16* b, std::size_t panel_stride,
                                         int depth, float* c, std::ptrdiff_t ldc) noexcept {
    for (int d0 = 0; d0 < depth; d0 += fp16_chain) {
      float16x8_t acc[MR][2 * P];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<2 * P>([&](int i) OCELLUS_LAMBDA { acc[r][i] = vreinterpretq_f16_u16(vdupq_n_u16(0)); });
      });
      const int end = depth - d0 < fp16_chain ? depth : d0 + fp16_chain;
      const auto steps = [&](const float16x8_t(&x)[MR], auto depths) OCELLUS_LAMBDA {
        in_steps<depths * 2 * P>(
            [&](auto i) OCELLUS_LAMBDA {
              return load8(b + i / 2 % P * panel_stride + i / (2 * P) * panel_width + i % 2 * 8);
            },
            [&](auto i, float16x8_t w) OCELLUS_LAMBDA {
              constexpr int lane = i / (2 * P), c = i % (2 * P);
              unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][c] = with_product<lane>(acc[r][c], w, x[r]); });
            });
        b += depths * panel_width;
      };
      int d = d0;
      for (; d + 8 <= end; d += 8) {
        float16x8_t x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA { x[r] = load8(a + r * lda + d); });
        steps(x, std::integral_constant<int, 8>{});
      }
      for (; d < end; d++) {
        float16x8_t x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          x[r] = vreinterpretq_f16_u16(vdupq_n_u16(a[r * lda + d].bits));
        });
        steps(x, std::integral_constant<int, 1>{});
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<2 * P>([&](int i) OCELLUS_LAMBDA { add_to(c + r * ldc + i * 8, acc[r][i]); });
      });
    }
  }

  /// Calls the tile of `rows` rows (1..MR) and one or two panels.
  template <int MR = float_rows>
  static OCELLUS_INLINE void tiles_rounded(int rows, int panels, const f16* a, std::ptrdiff_t lda, const f16* b,
                                           std::size_t stride, int depth, float* c, std::ptrdiff_t ldc, bool onto,
                                           const prefetch_run& next) noexcept {
    if constexpr (MR > 1) {
      if (rows < MR) return tiles_rounded<MR - 1>(rows, panels, a, lda, b, stride, depth, c, ldc, onto, next);
    }
    for (int r = 0; r < rows && !onto; r++)
      std::memset(c + r * ldc, 0, sizeof(float) * static_cast<std::size_t>(panels * panel_width));
    if (panels == 2) {
      tile_fp16<MR, 2>(a, lda, b, stride, depth, c, ldc);
    } else {
      tile_fp16<MR, 1>(a, lda, b, stride, depth, c, ldc);
    }
  }

  /// A block of activations to fp16, rows padded with zeros to a multiple of sixteen.
  static OCELLUS_NOINLINE void round_block(f16* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda,
                                           int rows, int depth) noexcept {
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < depth; d += 16) {
        const vec x = load_tail(a + r * lda, d, depth);
        std::uint16_t* o = &out[r * ldo + d].bits;
        vst1q_u16(o, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.q[0]), x.q[1])));
        vst1q_u16(o + 8, vreinterpretq_u16_f16(vcvt_high_f16_f32(vcvt_f16_f32(x.q[2]), x.q[3])));
      }
  }

  static OCELLUS_INLINE const f16* rounded_before(const gemm_args&) noexcept { return nullptr; }
  static void gemm_exact(const gemm_args& g) noexcept { dotprod::gemm_f16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_f16(const gemm_args& g) noexcept { gemm_rounded(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
