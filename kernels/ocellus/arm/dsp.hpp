// The DSP extension of 32-bit Arm without vectors: Cortex-M4, M7, M33. For programs built for such a core; there is no
// choice at run time.
//
// | instruction   | use                                                                     |
// |---------------|-------------------------------------------------------------------------|
// | smlad         | s8 tile: two products of 16 bits, added into 32                          |
// | uxtb16        | bytes 0 and 2, or 1 and 3, of a word of activations to 16 bits           |
// | sxtb16        | the same with signs, for weights                                         |
// | ldrd          | four activations of a row, split beforehand                              |
//
// A tile splits its six rows once, on the stack, for all of its columns, and then goes down one column at a time: 21
// instructions for 24 products, and flash is read once for six rows. (Two rows by two columns, split on the way, take
// 21 for 16.) Registers: six sums, two of weights, two of a row, three pointers: 13 of 14.
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
  static constexpr int epilogue_panels = 1;

  static constexpr int s8_rows = 6;
  static constexpr int tile_depth = 256;  // depth of a tile's rows that lie split on the stack: 3 KB

#include <ocellus/generic/unroll.inl>

  // In assembly, for gcc makes a rotation and an extension of the intrinsics where the instruction does both, and two
  // loads of a pair.

  /// `groups` times four depths of Rows rows, split, those of all rows beside each other: [groups, Rows, 2].
  template <int Rows>
  static OCELLUS_INLINE void split(std::uint32_t* out, const std::uint8_t* a, std::ptrdiff_t lda, int groups) noexcept {
    for (int r = 0; r < Rows; r++, a += lda, out += 2) {
      std::uint32_t* to = out;
      const std::uint8_t* from = a;
      for (const std::uint8_t* const end = a + 4 * groups; from < end; from += 4, to += 2 * Rows) {
        std::uint32_t x;
        std::memcpy(&x, from, 4);
        asm("uxtb16 %0, %1" : "=r"(to[0]) : "r"(x));
        asm("uxtb16 %0, %1, ror #8" : "=r"(to[1]) : "r"(x));
      }
    }
  }

  /// Products of `groups` groups with one column of a panel, whose weights lie four bytes in a row of 64.
  template <int Rows>
  static OCELLUS_INLINE void column(std::int32_t (&acc)[Rows], const std::uint32_t* a, const std::int8_t* w,
                                    int groups) noexcept {
    const auto group = [&](auto g) OCELLUS_LAMBDA {
      std::uint32_t even, odd;
      std::memcpy(&even, w + 64 * g, 4);
      asm("sxtb16 %0, %1, ror #8" : "=r"(odd) : "r"(even));
      asm("sxtb16 %0, %1" : "=r"(even) : "r"(even));
      unroll<Rows>([&](auto r) OCELLUS_LAMBDA {
        std::uint32_t x, y;
        asm volatile("ldrd %0, %1, [%2, %3]" : "=r"(x), "=r"(y) : "r"(a), "i"(8 * (g * Rows + r)) : "memory");
        acc[r] = __smlad(static_cast<int16x2_t>(x), static_cast<int16x2_t>(even), acc[r]);
        acc[r] = __smlad(static_cast<int16x2_t>(y), static_cast<int16x2_t>(odd), acc[r]);
      });
    };
    const std::uint32_t* const end = a + 2 * Rows * groups;
    for (const std::uint32_t* const whole = a + 2 * Rows * (groups / 4 * 4); a < whole; a += 8 * Rows, w += 256)
      unroll<4>(group);
    for (; a < end; a += 2 * Rows, w += 64) group(std::integral_constant<int, 0>{});
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    alignas(8) std::uint32_t halves[MR * tile_depth / 2];
    for (int d = 0; d < k; d += tile_depth) {
      const int groups = (k - d < tile_depth ? k - d : tile_depth) / 4;
      split<MR>(halves, a + d, lda, groups);
      for (int p = 0; p < P; p++)
        for (int c = 0; c < 16; c++) {
          std::int32_t* const o = out + p * 16 + c;
          std::int32_t acc[MR];
          unroll<MR>([&](auto r) OCELLUS_LAMBDA { acc[r] = d > 0 ? o[r * ldo] : 0; });
          column<MR>(acc, halves, b + static_cast<std::size_t>(p) * panel_stride + (d * 16 + c * 4), groups);
          unroll<MR>([&](auto r) OCELLUS_LAMBDA { o[r * ldo] = acc[r]; });
        }
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
