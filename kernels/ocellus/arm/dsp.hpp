// The DSP extension of 32-bit Arm without vectors: Cortex-M4, M7, M33. For programs built for such a core; there is no
// choice at run time.
//
// | instruction   | use                                                                     |
// |---------------|-------------------------------------------------------------------------|
// | smlad         | s8 tile: two products of 16 bits, added into 32                          |
// | uxtb16        | bytes 0 and 2, or 1 and 3, of a word of activations to 16 bits           |
// | sxtb16        | the same with signs, for weights                                         |
// | ldrd          | four activations of a row, split beforehand                              |
// | vfma.f32      | f32 tile, one product; with vldm, all registers of a step by two loads   |
// | vcvtb, vcvtt  | f16 weights, widened as they are read                                    |
//
// A tile splits its six rows once, on the stack, for all of its columns, and then goes down one column at a time: 21
// instructions for 24 products, and flash is read once for six rows. (Two rows by two columns, split on the way, take
// 21 for 16.) Registers: six sums, two of weights, two of a row, three pointers: 13 of 14.
// The f32 tile has 24 sums, of six rows by four columns, in the 32 single registers, four for weights and four for
// activations: 30 instructions for 24 products (f16 34, bf16 40); gcc's of plain C++ takes 4 for one. Cores without
// floating point take the scalar one.
// Overflow: 16-bit factors are bytes; see ops/gemm.hpp for K.
// Not timed: run under qemu, instructions counted only (bench/results/cortex_m.txt, beside CMSIS-NN's).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__ARM_FEATURE_DSP) && !defined(__ARM_FEATURE_MVE) && !defined(__aarch64__)
#include <arm_acle.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

template <std::uint32_t Activations>
struct dsp_applying;

struct dsp : scalar {
  static constexpr isa id = isa::dsp;
  template <std::uint32_t Activations>
  using applying = dsp_applying<Activations>;
  static constexpr int epilogue_panels = 1;

  static constexpr int s8_rows = 6;
  static constexpr int tile_depth = 256;  // depth of a tile's rows that lie split on the stack: 3 KB

#include <ocellus/generic/unroll.inl>

#if defined(__ARM_FP) && defined(__ARM_FEATURE_FMA)
  static constexpr int float_rows = 6;

  /// `depth` depths of MR rows beside each other: [depth, MR].
  template <int MR>
  static OCELLUS_INLINE void interleave(float* out, const float* a, std::ptrdiff_t lda, int depth) noexcept {
    for (int r = 0; r < MR; r++, a += lda, out++) {
      const float* from = a;
      float* to = out;
      for (int i = depth / 4; i > 0; i--, from += 4, to += 4 * MR)
        unroll<4>([&](int j) OCELLUS_LAMBDA { to[j * MR] = from[j]; });
      for (int i = depth % 4; i > 0; i--, to += MR) *to = *from++;
    }
  }

  /// out[MR, 4] goes on from the sums that it holds, over `depth` depths of rows ([depth, MR]) and of four columns of a
  /// panel. In assembly, for gcc loads each register by an instruction of its own.
  template <int MR, class W>
  static OCELLUS_INLINE void float_columns(const float* a, const W* w, int depth, float* out,
                                           std::ptrdiff_t ldo) noexcept {
    constexpr int kind = std::is_same_v<W, f16> ? 1 : std::is_same_v<W, bf16> ? 2 : 0;
    const float* const end = a + MR * depth;
    std::uint32_t step = 2, x = 0, y = 0;  // bf16: to the other halves of the words, then to the next words
#define OCELLUS_ABOVE(row, text) ".if %c[rows] > " #row "\n" text ".endif\n"
#define OCELLUS_FMAS(row, a, s0, s1, s2, s3)                                                                 \
  OCELLUS_ABOVE(row, "vfma.f32 " #s0 ", " #a ", s24\n vfma.f32 " #s1 ", " #a ", s25\n vfma.f32 " #s2 ", " #a \
                     ", s26\n vfma.f32 " #s3 ", " #a ", s27\n")
    asm volatile(
        "vldmia %[o], {s0-s3}\n"
        OCELLUS_ABOVE(1, "add %[o], %[row]\n vldmia %[o], {s4-s7}\n")
        OCELLUS_ABOVE(2, "add %[o], %[row]\n vldmia %[o], {s8-s11}\n")
        OCELLUS_ABOVE(3, "add %[o], %[row]\n vldmia %[o], {s12-s15}\n")
        OCELLUS_ABOVE(4, "add %[o], %[row]\n vldmia %[o], {s16-s19}\n")
        OCELLUS_ABOVE(5, "add %[o], %[row]\n vldmia %[o], {s20-s23}\n")
        "1:\n"
        ".if %c[kind] == 0\n"
        "vldmia %[w], {s24-s27}\n add %[w], #64\n"
        ".elseif %c[kind] == 1\n"
        "vldr d12, [%[w]]\n add %[w], #32\n"
        "vcvtt.f32.f16 s27, s25\n vcvtb.f32.f16 s26, s25\n vcvtt.f32.f16 s25, s24\n vcvtb.f32.f16 s24, s24\n"
        ".else\n"
        "ldrh %[x], [%[w]]\n ldrh %[y], [%[w], #4]\n"
        "lsl %[x], %[x], #16\n lsl %[y], %[y], #16\n vmov s24, s25, %[x], %[y]\n"
        "ldrh %[x], [%[w], #8]\n ldrh %[y], [%[w], #12]\n"
        "lsl %[x], %[x], #16\n lsl %[y], %[y], #16\n vmov s26, s27, %[x], %[y]\n"
        "add %[w], %[step]\n eor %[step], %[step], #60\n"
        ".endif\n"
        ".if %c[rows] > 3\n vldmia %[a]!, {s28-s31}\n"
        ".elseif %c[rows] == 3\n vldmia %[a]!, {s28-s30}\n"
        ".elseif %c[rows] == 2\n vldmia %[a]!, {s28-s29}\n"
        ".else\n vldmia %[a]!, {s28}\n .endif\n"
        OCELLUS_FMAS(0, s28, s0, s1, s2, s3)
        OCELLUS_FMAS(1, s29, s4, s5, s6, s7)
        ".if %c[rows] == 6\n vldmia %[a]!, {s28-s29}\n"
        ".elseif %c[rows] == 5\n vldmia %[a]!, {s28}\n .endif\n"
        OCELLUS_FMAS(2, s30, s8, s9, s10, s11)
        OCELLUS_FMAS(3, s31, s12, s13, s14, s15)
        OCELLUS_FMAS(4, s28, s16, s17, s18, s19)
        OCELLUS_FMAS(5, s29, s20, s21, s22, s23)
        "cmp %[a], %[end]\n"
        "bne 1b\n"
        OCELLUS_ABOVE(5, "vstmia %[o], {s20-s23}\n sub %[o], %[row]\n")
        OCELLUS_ABOVE(4, "vstmia %[o], {s16-s19}\n sub %[o], %[row]\n")
        OCELLUS_ABOVE(3, "vstmia %[o], {s12-s15}\n sub %[o], %[row]\n")
        OCELLUS_ABOVE(2, "vstmia %[o], {s8-s11}\n sub %[o], %[row]\n")
        OCELLUS_ABOVE(1, "vstmia %[o], {s4-s7}\n sub %[o], %[row]\n")
        "vstmia %[o], {s0-s3}\n"
        : [o] "+&r"(out), [a] "+&r"(a), [w] "+&r"(w), [step] "+&r"(step), [x] "+&r"(x), [y] "+&r"(y)
        : [row] "r"(ldo * 4), [end] "r"(end), [rows] "i"(MR), [kind] "i"(kind)
        : "memory", "cc", "s0", "s1", "s2", "s3", "s4", "s5", "s6", "s7", "s8", "s9", "s10", "s11", "s12", "s13",
          "s14", "s15", "s16", "s17", "s18", "s19", "s20", "s21", "s22", "s23", "s24", "s25", "s26", "s27", "s28",
          "s29", "s30", "s31");
#undef OCELLUS_FMAS
#undef OCELLUS_ABOVE
  }

#include <ocellus/arm/float_parts.inl>

  template <int MR, class W>
  static OCELLUS_NOINLINE void float_tile(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride,
                                          int k, float* out, std::ptrdiff_t ldo, int columns) noexcept {
    float_parts<MR>(a, lda, b, panel_stride, k, out, ldo, columns,
                    [&](const float* rows, const W* w, int depth, float* to)
                        OCELLUS_LAMBDA { float_columns<MR>(rows, w, depth, to, ldo); });
  }
  template <int MR, int P, class W>
  static OCELLUS_INLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride,
                                        int k, float* out, std::ptrdiff_t ldo) noexcept {
    float_tile<MR, W>(a, lda, b, panel_stride, k, out, ldo, P * 16);
  }
#endif

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
      unroll<Rows>([&](auto r) OCELLUS_LAMBDA {  // a constant at -O0 too
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
          unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = d > 0 ? o[r * ldo] : 0; });
          column<MR>(acc, halves, b + static_cast<std::size_t>(p) * panel_stride + (d * 16 + c * 4), groups);
          unroll<MR>([&](int r) OCELLUS_LAMBDA { o[r * ldo] = acc[r]; });
        }
    }
  }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The set with epilogues for some activations alone, bit 1 << act each: the others take 11 KB of flash.
template <std::uint32_t Activations>
struct dsp_applying : dsp {
  static constexpr bool applies(activation act) noexcept { return (Activations >> static_cast<int>(act) & 1) != 0; }
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
