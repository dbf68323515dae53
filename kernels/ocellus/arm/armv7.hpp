// NEON of 32-bit Arm with VFPv4: Cortex-A5, A7, A12, A15, A17, and 64-bit cores in 32-bit mode. The set `neon` of a
// unit that is built with -mfpu=neon-vfpv4 or more.
//
// | intrinsic            | instruction    | use                                                            |
// |----------------------|----------------|----------------------------------------------------------------|
// | vfmaq_f32            | vfma.f32       | f32 tile, 4 lanes                                              |
// | vcvt.f32.f16         | vcvt           | f16 weights, widened per panel row                             |
// | vmull_s8, vmlal_s8   | vmull, vmlal   | s8 tile: two products of (a - 128) w added in s16              |
// | vpadalq_s16          | vpadal         | pairs of those into s32                                        |
//
// NEON of 32-bit Arm always flushes denormals, VFP does not. So that law 2 holds all the same, an f32 tile looks at the
// flags that NEON leaves in FPSCR (a denormal came in or was flushed) and, where one is set, is computed again by the
// scalar set's VFP instructions. Row-wise operations, which may work in place, run on VFP altogether.
// Overflow and u8 activations: as in neon.hpp.
// Registers: f32 tile 3 x 16: 12 accumulators + 3 of A + 1 of W = 16; s8 tile 2 x 8: 8 + 2 of A + 1 of W + 1 of
// products = 12.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__arm__) && defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA)
#include <arm_neon.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

/// All of the set but gemm_s8.
struct armv7_tiles : scalar {
  static constexpr int float_rows = 3;
  static constexpr int s8_rows = 2;

#include <ocellus/generic/unroll.inl>

  /// Columns 4c..4c + 3 of depth d.
  static OCELLUS_INLINE float32x4_t weights_at(const float* b, int d, int c) noexcept {
    return vld1q_f32(b + d * 16 + c * 4);
  }
  static OCELLUS_INLINE float32x4_t weights_at(const f16* b, int d, int c) noexcept {
    const uint16x4_t half = vld1_u16(&b[d * 16 + c * 4].bits);
    float32x4_t wide;
    __asm__("vcvt.f32.f16 %q0, %P1" : "=w"(wide) : "w"(half));
    return wide;
  }
  static OCELLUS_INLINE float32x4_t weights_at(const bf16* b, int d, int c) noexcept {
    const uint32x4_t pair = vreinterpretq_u32_u16(vld1q_u16(&b[d / 2 * 32 + c * 8].bits));
    return vreinterpretq_f32_u32(d % 2 == 0 ? vshlq_n_u32(pair, 16) : vandq_u32(pair, vdupq_n_u32(0xffff0000u)));
  }

  /// MR rows of one panel, denormals flushed.
  template <int MR, class W>
  static OCELLUS_NOINLINE void tile_flushing(const float* a, std::ptrdiff_t lda, const W* b, int k, float* out,
                                             std::ptrdiff_t ldo) noexcept {
    float32x4_t acc[MR][4];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int c) OCELLUS_LAMBDA { acc[r][c] = vdupq_n_f32(0); });
    });
    for (int d = 0; d < k; d++) {
      float32x4_t x[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { x[r] = vld1q_dup_f32(a + r * lda + d); });
      unroll<4>([&](int c) OCELLUS_LAMBDA {
        const float32x4_t w = weights_at(b, d, c);
        unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][c] = vfmaq_f32(acc[r][c], w, x[r]); });
      });
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int c) OCELLUS_LAMBDA { vst1q_f32(out + r * ldo + c * 4, acc[r][c]); });
    });
  }

  static OCELLUS_INLINE std::uint32_t fp_status() noexcept {
    std::uint32_t flags;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(flags) : : "memory");
    return flags;
  }
  static OCELLUS_INLINE void set_fp_status(std::uint32_t flags) noexcept {
    __asm__ volatile("vmsr fpscr, %0" : : "r"(flags) : "memory");
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    constexpr std::uint32_t flushed = 0x88;  // IDC, UFC
    const std::uint32_t before = fp_status();
    set_fp_status(before & ~flushed);
    for (int p = 0; p < P; p++)
      tile_flushing<MR, W>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
    const bool again = (fp_status() & flushed) != 0;
    set_fp_status(before);
    if (again) scalar::tile_float<MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
  }

  /// out = sum (a - 128) w, MR rows of eight columns. acc[r][i]: columns 2i and 2i + 1, depths 0, 1 and 2, 3 of each
  /// four apart.
  template <int MR>
  static OCELLUS_NOINLINE void tile_half(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, int k,
                                         std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    int32x4_t acc[MR][4];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int i) OCELLUS_LAMBDA { acc[r][i] = vdupq_n_s32(0); });
    });
    const auto four = [](const std::uint8_t* p) OCELLUS_LAMBDA {  // less 128, twice
      std::uint32_t word;
      std::memcpy(&word, p, 4);
      return vreinterpret_s8_u32(vdup_n_u32(word ^ 0x80808080u));
    };
    int d = 0;
    for (; d + 8 <= k; d += 8, b += 128) {
      int8x8_t x[MR][2];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        x[r][0] = four(a + r * lda + d);
        x[r][1] = four(a + r * lda + d + 4);
      });
      unroll<4>([&](int i) OCELLUS_LAMBDA {
        const int8x8_t w = vld1_s8(b + i * 8), next = vld1_s8(b + 64 + i * 8);
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          acc[r][i] = vpadalq_s16(acc[r][i], vmlal_s8(vmull_s8(w, x[r][0]), next, x[r][1]));
        });
      });
    }
    if (d < k)
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        const int8x8_t x = four(a + r * lda + d);
        unroll<4>([&](int i) OCELLUS_LAMBDA {
          acc[r][i] = vpadalq_s16(acc[r][i], vmull_s8(vld1_s8(b + i * 8), x));
        });
      });
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int i) OCELLUS_LAMBDA {
        vst1_s32(out + r * ldo + 2 * i, vpadd_s32(vget_low_s32(acc[r][i]), vget_high_s32(acc[r][i])));
      });
    });
  }
  template <int MR, int P>
  static OCELLUS_INLINE void tile_shifted(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                          std::size_t panel_stride, int k, std::int32_t* out,
                                          std::ptrdiff_t ldo) noexcept {
    for (int p = 0; p < P; p++)
      for (int half = 0; half < 2; half++)
        tile_half<MR>(a, lda, b + static_cast<std::size_t>(p) * panel_stride + half * 32, k, out + p * 16 + half * 8,
                      ldo);
  }

  /// With the 128 * sum w that tile_shifted lacks.
  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
    for (int p = 0; p < P; p++)
      for (int c = 0; c < 16; c += 4) {
        int32x4_t sum = vdupq_n_s32(0);
        for (int d = 0; d < k; d += 4)
          sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(b + static_cast<std::size_t>(p) * panel_stride + d * 16 + c * 4)));
        for (int r = 0; r < MR; r++) {
          std::int32_t* o = out + r * ldo + p * 16 + c;
          vst1q_s32(o, vaddq_s32(vld1q_s32(o), vshlq_n_s32(sum, 7)));
        }
      }
  }

#include <ocellus/arm/gemm_shifted.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The matrix product of sum (a - 128) w.
struct armv7_shifted : armv7_tiles {
  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
  }

#include <ocellus/generic/gemm.inl>
};

struct neon : armv7_tiles {
  static constexpr isa id = isa::neon;
  static void gemm_s8(const gemm_args& g) noexcept { gemm_shifted<armv7_shifted>(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
