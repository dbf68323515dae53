// Int8 matrix products of Armv8.6: Cortex-A510, A710, X2 and later, Neoverse N2, V1 and later, Apple M2 and later.
// Everything but the s8 tile comes from fp16 and dotprod.
//
// | intrinsic       | instruction | use                                                                      |
// |-----------------|-------------|--------------------------------------------------------------------------|
// | vusmmlaq_s32    | usmmla      | two rows of A x two columns of W, eight depths: 32 products, no saturation |
// | vzip1q_u32      | zip1, zip2  | two rows of a panel, four depths each, to the eight depths that usmmla takes |
//
// f16 weights are outside law 2 by what comes from fp16. u8 x s8 needs no shift. Overflow: as in ops/gemm.hpp.
// Registers: tile 6 x 16: 24 accumulators + 3 of A + 2 of W + 2 zipped = 31 of 32. An odd row is computed twice.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/arm/fp16.hpp>

#if defined(__aarch64__) && OCELLUS_HAS_I8MM
OCELLUS_TARGET_BEGIN(OCELLUS_TARGET_I8MM)
OCELLUS_BEGIN
namespace kernels {

/// All of the set but gemm_f16.
struct i8mm_tiles : fp16 {
  static constexpr int s8_rows = 6;

#include <ocellus/generic/unroll.inl>

  /// MR rows of one panel. acc[i][c]: rows 2i and 2i + 1, columns 2c and 2c + 1.
  template <int MR>
  static OCELLUS_NOINLINE void tile_pairs(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                          int k, std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    constexpr int pairs = (MR + 1) / 2;
    int32x4_t acc[pairs][8];
    unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
      unroll<8>([&](auto c) OCELLUS_LAMBDA { acc[i][c] = vdupq_n_s32(0); });
    });
    const auto step = [&](const uint8x16_t(&x)[pairs], auto last) OCELLUS_LAMBDA {
      unroll<4>([&](auto c) OCELLUS_LAMBDA {
        const uint32x4_t w0 = vreinterpretq_u32_s8(vld1q_s8(b + c * 16));
        const uint32x4_t w1 = last ? vdupq_n_u32(0) : vreinterpretq_u32_s8(vld1q_s8(b + 64 + c * 16));
        const int8x16_t low = vreinterpretq_s8_u32(vzip1q_u32(w0, w1)), high = vreinterpretq_s8_u32(vzip2q_u32(w0, w1));
        unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
          acc[i][2 * c] = vusmmlaq_s32(acc[i][2 * c], x[i], low);
          acc[i][2 * c + 1] = vusmmlaq_s32(acc[i][2 * c + 1], x[i], high);
          __asm__("" : "+r"(b) : "w"(acc[i][2 * c]));  // neon_tiles::after
        });
      });
    };
    int d = 0;
    for (; d + 8 <= k; d += 8) {
      uint8x16_t x[pairs];
      unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
        constexpr int second = 2 * i + 1 < MR ? 2 * i + 1 : 2 * i;
        x[i] = vcombine_u8(vld1_u8(a + 2 * i * lda + d), vld1_u8(a + second * lda + d));
      });
      step(x, std::false_type{});
      b += 128;
    }
    if (d < k) {
      const auto word = [&](int row) OCELLUS_LAMBDA {
        std::uint32_t four;
        std::memcpy(&four, a + row * lda + d, 4);
        return vreinterpret_u8_u32(vdup_n_u32(four));
      };
      uint8x16_t x[pairs];
      unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
        x[i] = vcombine_u8(word(2 * i), word(2 * i + 1 < MR ? 2 * i + 1 : 2 * i));
      });
      step(x, std::true_type{});
    }
    unroll<MR>([&](auto r) OCELLUS_LAMBDA {
      unroll<4>([&](auto c) OCELLUS_LAMBDA {
        const int64x2_t left = vreinterpretq_s64_s32(acc[r / 2][2 * c]),
                        right = vreinterpretq_s64_s32(acc[r / 2][2 * c + 1]);
        vst1q_s32(out + r * ldo + c * 4,
                  vreinterpretq_s32_s64(r % 2 == 0 ? vzip1q_s64(left, right) : vzip2q_s64(left, right)));
      });
    });
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    for (int p = 0; p < P; p++)
      tile_pairs<MR>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
  }

#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

struct i8mm : i8mm_tiles {
  static constexpr isa id = isa::i8mm;
  static void gemm_f16(const gemm_args& g) noexcept { fp16::gemm_f16(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
