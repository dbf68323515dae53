// The DSP extension of 32-bit Arm without vectors: Cortex-M4, M7, M33. For programs built for such a core; there is no
// choice at run time.
//
// | intrinsic | instruction | use                                                        |
// |-----------|-------------|------------------------------------------------------------|
// | __smlad   | smlad       | s8 tile: two products of 16 bits, added into 32             |
// | __uxtb16  | uxtb16      | bytes 0 and 2 of a word to 16 bits; 1 and 3 by assembly     |
// | __sxtb16  | sxtb16      | the same with signs, for weights                            |
//
// Two rows by two columns: 21 instructions for 16 products; a third row or column would not fit into 13 registers.
// Overflow: 16-bit factors are bytes; see ops/gemm.hpp for K.
// Not timed: run under qemu, instructions counted only (bench/results/cortex_m.txt, beside CMSIS-NN's).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE) && !defined(__aarch64__)
#include <arm_acle.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct dsp : scalar {
  static constexpr isa id = isa::dsp;

  static constexpr int s8_rows = 4;

#include <ocellus/generic/unroll.inl>

  static OCELLUS_INLINE std::uint32_t word(const void* p) noexcept {
    std::uint32_t w;
    std::memcpy(&w, p, 4);
    return w;
  }

  // gcc makes a rotation and an extension of these intrinsics where the instruction does both.

  /// Bytes 1 and 3 to 16 bits.
  static OCELLUS_INLINE int16x2_t odd_u8(std::uint32_t x) noexcept {
    int16x2_t y;
    asm("uxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
    return y;
  }
  static OCELLUS_INLINE int16x2_t odd_s8(std::uint32_t x) noexcept {
    int16x2_t y;
    asm("sxtb16 %0, %1, ror #8" : "=r"(y) : "r"(x));
    return y;
  }

  /// Rows a and a + lda times two columns of a panel, each of their weights four bytes in a row of 64.
  template <int Rows>
  static OCELLUS_INLINE void columns(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* w, int k,
                                     std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    std::int32_t acc[Rows][2] = {};
    const auto group = [&](int i) OCELLUS_LAMBDA {
      const std::uint32_t w0 = word(w + 64 * i), w1 = word(w + 64 * i + 4);
      const int16x2_t even0 = __sxtb16(w0), odd0 = odd_s8(w0), even1 = __sxtb16(w1), odd1 = odd_s8(w1);
      unroll<Rows>([&](auto r) OCELLUS_LAMBDA {
        const std::uint32_t x = word(a + r * lda);
        const auto even = static_cast<int16x2_t>(__uxtb16(x)), odd = odd_u8(x);
        acc[r][0] = __smlad(odd, odd0, __smlad(even, even0, acc[r][0]));
        acc[r][1] = __smlad(odd, odd1, __smlad(even, even1, acc[r][1]));
      });
      a += 4;
      asm volatile("" : "+r"(a));  // or gcc loads ahead, and spills
    };
    const std::uint8_t* const end = a + k;
    for (const std::uint8_t* const whole = a + k / 16 * 16; a < whole; w += 256) unroll<4>(group);
    for (; a < end; w += 64) group(0);
    unroll<Rows>([&](auto r) OCELLUS_LAMBDA {
      out[r * ldo] = acc[r][0];
      out[r * ldo + 1] = acc[r][1];
    });
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    for (int p = 0; p < P; p++)
      for (int c = 0; c < 16; c += 2) {
        const std::int8_t* w = b + static_cast<std::size_t>(p) * panel_stride + c * 4;
        std::int32_t* o = out + p * 16 + c;
        for (int r = 0; r + 2 <= MR; r += 2) columns<2>(a + r * lda, lda, w, k, o + r * ldo, ldo);
        if constexpr (MR % 2 != 0) columns<1>(a + (MR - 1) * lda, lda, w, k, o + (MR - 1) * ldo, ldo);
      }
  }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
