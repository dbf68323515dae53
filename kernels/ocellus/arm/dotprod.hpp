// Dot products of Armv8.2: Cortex-A55, A75, A76 and later, Neoverse N1, Apple A11 and later. Everything but the s8 tile
// comes from neon.
//
// | intrinsic        | instruction    | use                                                           |
// |------------------|----------------|---------------------------------------------------------------|
// | vdotq_laneq_s32  | sdot (element) | s8 tile: four products of (a - 128) w added in s32, no saturation |
//
// The panel's 64-byte row is four registers of four columns; lane i of sixteen activations meets row i of four.
// u8 activations are carried as in neon.hpp. Overflow: as in ops/gemm.hpp.
// Registers: tile 5 x 16: 20 accumulators + 5 of A + 2 of W = 27 of 32; one or two rows take two panels at a time, so
// that no chain of sums waits for itself.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/arm/neon.hpp>
#include <ocellus/arm/region.hpp>

#if defined(__aarch64__) && OCELLUS_HAS_DOTPROD
OCELLUS_TARGET_BEGIN(OCELLUS_TARGET_DOTPROD)
OCELLUS_BEGIN
namespace kernels {

/// All of the set but gemm_s8.
struct dotprod_tiles : neon {
  static constexpr int s8_rows = 5;

#include <ocellus/generic/unroll.inl>
#include <ocellus/arm/steps.inl>

  /// acc + the products of w with word Lane of x; gcc 12 copies sums that assembler keeps in place.
  template <int Lane>
  static OCELLUS_INLINE int32x4_t with_product(int32x4_t acc, int8x16_t w, int8x16_t x) noexcept {
#if defined(__clang__)
    return vdotq_laneq_s32(acc, w, x, Lane);
#else
    __asm__("sdot %0.4s, %1.16b, %2.4b[%3]" : "+w"(acc) : "w"(w), "w"(x), "i"(Lane));
    return acc;
#endif
  }

  /// out = sum (a - 128) w.
  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_shifted(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                            std::size_t panel_stride, int k, std::int32_t* out,
                                            std::ptrdiff_t ldo) noexcept {
    if constexpr (P > 1 && MR * P > s8_rows) {
      for (int p = 0; p < P; p++)
        tile_shifted<MR, 1>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, panel_stride, k,
                            out + p * 16, ldo);
    } else {
      int32x4_t acc[MR][4 * P];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4 * P>([&](int c) OCELLUS_LAMBDA { acc[r][c] = vdupq_n_s32(0); });
      });
      const auto steps = [&](const int8x16_t(&x)[MR], auto depths) OCELLUS_LAMBDA {
        in_steps<depths * 4 * P>(
            [&](auto i) OCELLUS_LAMBDA {
              return vld1q_s8(b + i / 4 % P * panel_stride + i / (4 * P) * 64 + i % 4 * 16);
            },
            [&](auto i, int8x16_t w) OCELLUS_LAMBDA {
              constexpr int lane = i / (4 * P), c = i % (4 * P);
              unroll<MR>([&](int r) OCELLUS_LAMBDA {
                acc[r][c] = with_product<lane>(acc[r][c], w, x[r]);
              });
            });
      };
      int d = 0;
      for (; d + 16 <= k; d += 16) {
        int8x16_t x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          x[r] = vreinterpretq_s8_u8(veorq_u8(vld1q_u8(a + r * lda + d), vdupq_n_u8(128)));
        });
        steps(x, std::integral_constant<int, 4>{});
        b += 256;
      }
      for (; d < k; d += 4) {
        int8x16_t x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA { x[r] = shifted_word(a + r * lda + d); });
        steps(x, std::integral_constant<int, 1>{});
        b += 64;
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4 * P>([&](int c) OCELLUS_LAMBDA { vst1q_s32(out + r * ldo + c * 4, acc[r][c]); });
      });
    }
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
    for (int p = 0; p < P; p++)
      add_lacking<MR>(b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
  }

#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The matrix product of sum (a - 128) w.
struct dotprod_shifted : dotprod_tiles {
  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
  }

#include <ocellus/generic/gemm.inl>
};

struct dotprod : dotprod_tiles {
  static constexpr isa id = isa::dotprod;
  static void gemm_s8(const gemm_args& g) noexcept { gemm_shifted<dotprod_shifted>(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
