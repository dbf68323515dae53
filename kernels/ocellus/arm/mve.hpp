// Helium (M-profile vector extension with floats): Cortex-M55, M85. For programs built for such a core; there is no
// choice at run time.
//
// | intrinsic                  | instruction      | use                                                          |
// |----------------------------|------------------|--------------------------------------------------------------|
// | vmladavaq_u8               | vmladava.u8      | s8 tile: sixteen products of one column, added into a scalar  |
// | (assembly)                 | vldrw.u32 [q]!   | one column's sixteen depths from four rows of a panel<16, 4>  |
// | vcvtnq_s32_f32             | vcvtn.s32.f32    | round half to even                                            |
// | vst4q_s8                   | vst40..43.8      | interleave4                                                   |
// | (assembly)                 | vfma.f32 q, q, r | f32 tile: one row's four columns, a step's rows by one ldm    |
// | (assembly)                 | vcvtb, vshl      | f16 and bf16 weights, widened as they are read                |
//
// Helium has no lane-wise dot product, so a tile walks down one column for six rows at once and lays those beside each
// other on the stack first: one pointer serves all rows, and one gather of weights. Weights are read as w + 128, so
// that both factors are unsigned: sum a w = sum a (w + 128) - 128 sum a, exact.
// Overflow: sum a (w + 128) <= 255 * 255 * 32768 < 2^31.
// Helium's floats flush denormals, so law 2 holds here but for values below 1.2e-38 beside products: a float tile looks
// at the flags that this leaves in FPSCR and, where one is set, is computed again by scalar instructions.
// The f32 tile: nine instructions for the 24 products of six rows and four columns (f16 10, bf16 14).
// Registers: six scalar accumulators (of seven, since those are even and lr counts the loop), a pointer; a row of A,
// one of W, the gather's addresses, where those start and a constant in registers of 128 bits.
// Not timed: run under qemu, instructions counted only (bench/results/cortex_m.txt, beside CMSIS-NN's).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__ARM_FEATURE_MVE) && (__ARM_FEATURE_MVE & 2) != 0
#include <arm_mve.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

template <std::uint32_t Activations>
struct mve_applying;

struct mve : scalar {
  static constexpr isa id = isa::mve;
  template <std::uint32_t Activations>
  using applying = mve_applying<Activations>;
  static constexpr int s8_rows = 6;
  static constexpr int tile_depth = 512;  // depth of a tile's rows that lie on the stack beside each other: 3 KB
  static constexpr int epilogue_panels = 1;

  struct vec {
    float32x4_t q0, q1, q2, q3;  // lanes 0..3, 4..7, 8..11, 12..15

    static OCELLUS_INLINE vec zero() noexcept { return set(0.f); }
    static OCELLUS_INLINE vec set(float x) noexcept {
      const float32x4_t q = vdupq_n_f32(x);
      return {q, q, q, q};
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return {vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)};
    }
    /// The lanes of quarter `quarter` that are below n.
    static OCELLUS_INLINE mve_pred16_t below(int n, int quarter) noexcept {
      const int left = n - 4 * quarter;
      return vctp32q(static_cast<std::uint32_t>(left < 0 ? 0 : left));
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      return {vldrwq_z_f32(p, below(n, 0)), vldrwq_z_f32(p + 4, below(n, 1)), vldrwq_z_f32(p + 8, below(n, 2)),
              vldrwq_z_f32(p + 12, below(n, 3))};
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      vst1q_f32(p, q0);
      vst1q_f32(p + 4, q1);
      vst1q_f32(p + 8, q2);
      vst1q_f32(p + 12, q3);
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      vstrwq_p_f32(p, q0, below(n, 0));
      vstrwq_p_f32(p + 4, q1, below(n, 1));
      vstrwq_p_f32(p + 8, q2, below(n, 2));
      vstrwq_p_f32(p + 12, q3, below(n, 3));
    }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      return {vpselq_f32(a.q0, b.q0, below(n, 0)), vpselq_f32(a.q1, b.q1, below(n, 1)),
              vpselq_f32(a.q2, b.q2, below(n, 2)), vpselq_f32(a.q3, b.q3, below(n, 3))};
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(vec b) const noexcept {
      return {vaddq_f32(q0, b.q0), vaddq_f32(q1, b.q1), vaddq_f32(q2, b.q2), vaddq_f32(q3, b.q3)};
    }
    OCELLUS_INLINE vec operator-(vec b) const noexcept {
      return {vsubq_f32(q0, b.q0), vsubq_f32(q1, b.q1), vsubq_f32(q2, b.q2), vsubq_f32(q3, b.q3)};
    }
    OCELLUS_INLINE vec operator*(vec b) const noexcept {
      return {vmulq_f32(q0, b.q0), vmulq_f32(q1, b.q1), vmulq_f32(q2, b.q2), vmulq_f32(q3, b.q3)};
    }
    /// Helium does not divide: lane by lane, on the scalar unit.
    static OCELLUS_INLINE float32x4_t divide(float32x4_t a, float32x4_t b) noexcept {
      return float32x4_t{a[0] / b[0], a[1] / b[1], a[2] / b[2], a[3] / b[3]};
    }
    OCELLUS_INLINE vec operator/(vec b) const noexcept {
      return {divide(q0, b.q0), divide(q1, b.q1), divide(q2, b.q2), divide(q3, b.q3)};
    }
    static OCELLUS_INLINE vec min(vec a, vec b) noexcept {
      return {vminnmq_f32(a.q0, b.q0), vminnmq_f32(a.q1, b.q1), vminnmq_f32(a.q2, b.q2), vminnmq_f32(a.q3, b.q3)};
    }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept {
      return {vmaxnmq_f32(a.q0, b.q0), vmaxnmq_f32(a.q1, b.q1), vmaxnmq_f32(a.q2, b.q2), vmaxnmq_f32(a.q3, b.q3)};
    }
    OCELLUS_INLINE float sum() const noexcept {
      const float32x4_t s = vaddq_f32(vaddq_f32(q0, q2), vaddq_f32(q1, q3));
      return (s[0] + s[2]) + (s[1] + s[3]);
    }
    OCELLUS_INLINE float hmax() const noexcept {
      const float32x4_t m = vmaxnmq_f32(vmaxnmq_f32(q0, q2), vmaxnmq_f32(q1, q3));
      const float a = m[0] > m[2] ? m[0] : m[2], b = m[1] > m[3] ? m[1] : m[3];
      return a > b ? a : b;
    }
    OCELLUS_INLINE float hmin() const noexcept {
      const float32x4_t m = vminnmq_f32(vminnmq_f32(q0, q2), vminnmq_f32(q1, q3));
      const float a = m[0] < m[2] ? m[0] : m[2], b = m[1] < m[3] ? m[1] : m[3];
      return a < b ? a : b;
    }
    static OCELLUS_INLINE float32x4_t add_exponent4(float32x4_t p, float32x4_t t) noexcept {
      return vreinterpretq_f32_s32(
          vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vreinterpretq_s32_f32(t), 23)));
    }
    static OCELLUS_INLINE vec add_exponent(vec p, vec t) noexcept {
      return {add_exponent4(p.q0, t.q0), add_exponent4(p.q1, t.q1), add_exponent4(p.q2, t.q2),
              add_exponent4(p.q3, t.q3)};
    }
    /// Four bytes: clamp(round(x) + offset, low, high).
    static OCELLUS_INLINE void to_bytes(std::int8_t* q, float32x4_t x, std::int32_t offset, std::int32_t low,
                                        std::int32_t high) noexcept {
      const int32x4_t r = vaddq_n_s32(vcvtnq_s32_f32(x), offset);
      vstrbq_s32(q, vminq_s32(vmaxq_s32(r, vdupq_n_s32(low)), vdupq_n_s32(high)));
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      std::int8_t* b = reinterpret_cast<std::int8_t*>(q);
      to_bytes(b, q0, zero_point, 0, 255);
      to_bytes(b + 4, q1, zero_point, 0, 255);
      to_bytes(b + 8, q2, zero_point, 0, 255);
      to_bytes(b + 12, q3, zero_point, 0, 255);
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept {
      to_bytes(q, q0, 0, -127, 127);
      to_bytes(q + 4, q1, 0, -127, 127);
      to_bytes(q + 8, q2, 0, -127, 127);
      to_bytes(q + 12, q3, 0, -127, 127);
    }
    static OCELLUS_INLINE float32x4_t dequantize4(const std::int32_t* acc, const std::int32_t* sums,
                                                  std::int32_t zero_point) noexcept {
      return vcvtq_f32_s32(vsubq_s32(vld1q_s32(acc), vmulq_n_s32(vld1q_s32(sums), zero_point)));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      return {dequantize4(acc, sums, zero_point), dequantize4(acc + 4, sums + 4, zero_point),
              dequantize4(acc + 8, sums + 8, zero_point), dequantize4(acc + 12, sums + 12, zero_point)};
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      const int8x16x4_t rows = {{vld1q_s8(r0), vld1q_s8(r1), vld1q_s8(r2), vld1q_s8(r3)}};
      vst4q_s8(out, rows);
    }
  };

#include <ocellus/generic/unroll.inl>

  static constexpr int float_rows = 6;

  /// `depth` depths of MR rows beside each other: [depth, MR].
  template <int MR>
  static OCELLUS_INLINE void interleave(float* out, const float* a, std::ptrdiff_t lda, int depth) noexcept {
    const uint32x4_t apart = vmulq_n_u32(vidupq_n_u32(0, 4), MR);
    for (int r = 0; r < MR; r++) {
      const float* from = a + r * lda;
      float* to = out + r;
      for (int i = depth / 4; i > 0; i--, from += 4, to += 4 * MR)
        vstrwq_scatter_offset_f32(to, apart, vld1q_f32(from));
      for (int i = depth % 4; i > 0; i--, to += MR) *to = *from++;
    }
  }

  /// What columns of a tile are computed from, as float_columns reads it.
  struct column_args {
    float* out;           ///< [MR, 4] sums to go on from
    std::ptrdiff_t row;   ///< bytes to its next row
    const float* a;       ///< [depth, MR]
    const void* weights;  ///< four columns of a panel
    std::int32_t depth;
  };

  /// In assembly, for gcc loads each of a step's six activations by an instruction of its own; with one operand, for it
  /// finds no registers for five beside those.
  template <int MR, class W>
  static OCELLUS_INLINE void float_columns(const column_args& args) noexcept {
    constexpr int kind = std::is_same_v<W, f16> ? 1 : std::is_same_v<W, bf16> ? 2 : 0;
#define OCELLUS_ABOVE(row, text) ".if %c[rows] > " #row "\n" text ".endif\n"
    asm volatile(
        "ldrd r0, r1, [%[args]]\n"
        "vldrw.u32 q1, [r0]\n"
        OCELLUS_ABOVE(1, "add r0, r1\n vldrw.u32 q2, [r0]\n")
        OCELLUS_ABOVE(2, "add r0, r1\n vldrw.u32 q3, [r0]\n")
        OCELLUS_ABOVE(3, "add r0, r1\n vldrw.u32 q4, [r0]\n")
        OCELLUS_ABOVE(4, "add r0, r1\n vldrw.u32 q5, [r0]\n")
        OCELLUS_ABOVE(5, "add r0, r1\n vldrw.u32 q6, [r0]\n")
        "ldrd r8, r6, [%[args], #8]\n"
        "ldr lr, [%[args], #16]\n"
        "mov r12, #0\n"
        "dls lr, lr\n"
        "1:\n"
        ".if %c[kind] == 0\n"
        "vldrw.u32 q0, [r6], #64\n"
        ".elseif %c[kind] == 1\n"
        "vldrh.u32 q0, [r6], #32\n vcvtb.f32.f16 q0, q0\n"  // of other registers binutils 2.40 makes nonsense
        ".else\n"  // down by 0 and by 16 bits in turn, then up; after 16 on to the next words
        "vldrw.u32 q0, [r6]\n vshl.u32 q0, r12\n vshl.i32 q0, q0, #16\n"
        "and r0, r12, #64\n add r6, r0\n eor r12, r12, #0xf0\n"
        ".endif\n"
        ".if %c[rows] == 1\n ldr r0, [r8], #4\n"
        ".elseif %c[rows] == 2\n ldm r8!, {r0-r1}\n"
        ".elseif %c[rows] == 3\n ldm r8!, {r0-r2}\n"
        ".elseif %c[rows] == 4\n ldm r8!, {r0-r3}\n"
        ".elseif %c[rows] == 5\n ldm r8!, {r0-r4}\n"
        ".else\n ldm r8!, {r0-r5}\n .endif\n"
        "vfma.f32 q1, q0, r0\n"
        OCELLUS_ABOVE(1, "vfma.f32 q2, q0, r1\n")
        OCELLUS_ABOVE(2, "vfma.f32 q3, q0, r2\n")
        OCELLUS_ABOVE(3, "vfma.f32 q4, q0, r3\n")
        OCELLUS_ABOVE(4, "vfma.f32 q5, q0, r4\n")
        OCELLUS_ABOVE(5, "vfma.f32 q6, q0, r5\n")
        "le lr, 1b\n"
        "ldrd r0, r1, [%[args]]\n"
        "vstrw.32 q1, [r0]\n"
        OCELLUS_ABOVE(1, "add r0, r1\n vstrw.32 q2, [r0]\n")
        OCELLUS_ABOVE(2, "add r0, r1\n vstrw.32 q3, [r0]\n")
        OCELLUS_ABOVE(3, "add r0, r1\n vstrw.32 q4, [r0]\n")
        OCELLUS_ABOVE(4, "add r0, r1\n vstrw.32 q5, [r0]\n")
        OCELLUS_ABOVE(5, "add r0, r1\n vstrw.32 q6, [r0]\n")
        :
        : [args] "r"(&args), [rows] "i"(MR), [kind] "i"(kind)
        : "memory", "cc", "lr", "r0", "r1", "r2", "r3", "r4", "r5", "r6", "r8", "r12", "q0", "q1", "q2", "q3", "q4",
          "q5", "q6");
#undef OCELLUS_ABOVE
  }

  static OCELLUS_INLINE std::uint32_t fp_status() noexcept {
    std::uint32_t flags;
    asm volatile("vmrs %0, fpscr" : "=r"(flags) : : "memory");
    return flags;
  }
  static OCELLUS_INLINE void set_fp_status(std::uint32_t flags) noexcept {
    asm volatile("vmsr fpscr, %0" : : "r"(flags) : "memory");
  }

#include <ocellus/arm/float_parts.inl>

  template <int MR, class W>
  static OCELLUS_NOINLINE void float_tile(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride,
                                          int k, float* out, std::ptrdiff_t ldo, int columns) noexcept {
    constexpr std::uint32_t flushed = 0x88;  // IDC, UFC
    const std::uint32_t before = fp_status();
    set_fp_status(before & ~flushed);
    float_parts<MR>(a, lda, b, panel_stride, k, out, ldo, columns,
                    [&](const float* rows, const W* w, int depth, float* to)
                        OCELLUS_LAMBDA { float_columns<MR, W>({to, ldo * 4, rows, w, depth}); });
    const bool again = (fp_status() & flushed) != 0;
    set_fp_status(before);
    for (int r = 0; r < MR && again; r++)
      for (int p = 0; p < columns / 16; p++)
        scalar::tile_float<1, 1, W>(a + r * lda, lda, b + static_cast<std::size_t>(p) * panel_stride, panel_stride, k,
                                    out + r * ldo + p * 16, ldo);
  }
  template <int MR, int P, class W>
  static OCELLUS_INLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride,
                                        int k, float* out, std::ptrdiff_t ldo) noexcept {
    float_tile<MR, W>(a, lda, b, panel_stride, k, out, ldo, P * 16);
  }

  // gcc makes two gathers of the intrinsic: one loads, one moves the addresses.

  /// The words at the addresses `at` + 256, by which those are moved on.
  static OCELLUS_INLINE uint8x16_t gather(uint32x4_t& at) noexcept {
    uint32x4_t x;
    asm volatile("vldrw.u32 %q0, [%q1, #256]!" : "=&w"(x), "+w"(at) : : "memory");
    return vreinterpretq_u8_u32(x);
  }

  /// The sixteen bytes at p, which is moved on.
  static OCELLUS_INLINE uint8x16_t load_next(const std::uint8_t*& p) noexcept {
    uint8x16_t x;
    asm volatile("vldrb.8 %q0, [%1], #16" : "=w"(x), "+r"(p) : : "memory");
    return x;
  }

  /// Rows of a tile beside each other, sixteen depths of each by turns, the last of them padded with zeros.
  template <int MR>
  struct tile_rows {
    alignas(16) std::uint8_t a[MR * tile_depth];
    alignas(16) std::uint32_t sums[MR][16];  // of one panel
    std::uint32_t start[MR];                 // -128 times the sum of each row
  };

  template <int MR>
  static OCELLUS_INLINE void interleave(tile_rows<MR>& t, const std::uint8_t* a, std::ptrdiff_t lda,
                                        int depth) noexcept {
    for (int r = 0; r < MR; r++) {
      const std::uint8_t* from = a + r * lda;
      std::uint8_t* to = t.a + 16 * r;
      std::uint32_t sum = 0;
      for (int i = depth / 16; i > 0; i--, to += 16 * MR) {
        const uint8x16_t x = load_next(from);
        sum = vaddvaq_u8(sum, x);
        vst1q_u8(to, x);
      }
      if (depth % 16 != 0) {
        const uint8x16_t x = vldrbq_z_u8(from, vctp8q(static_cast<std::uint32_t>(depth) % 16));
        sum = vaddvaq_u8(sum, x);
        vst1q_u8(to, x);
      }
      t.start[r] = 0u - 128 * sum;
    }
  }

  /// t.sums = products with a panel: of each column, t.start and the sum over the depth of a * (w + 128).
  template <int MR>
  static OCELLUS_INLINE void columns(tile_rows<MR>& t, const std::int8_t* w, int depth) noexcept {
    const uint8x16_t flip = vdupq_n_u8(0x80);
    const uint32x4_t groups = vmulq_n_u32(vidupq_n_u32(0, 1), 64);
    const auto add = [&](std::uint32_t(&acc)[MR], const std::uint8_t*& a, uint8x16_t x) OCELLUS_LAMBDA {
      x = veorq_u8(x, flip);
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = vmladavaq_u8(acc[r], load_next(a), x); });
    };
    const int steps = depth / 16;
    uint32x4_t first = vaddq_n_u32(groups, static_cast<std::uint32_t>(reinterpret_cast<std::uintptr_t>(w)) - 256u);
    for (int c = 0; c < 16; c++) {
      std::uint32_t acc[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = t.start[r]; });
      const std::uint8_t* a = t.a;
      uint32x4_t at;
      asm("vmov %q0, %q1" : "=w"(at) : "w"(first));  // gcc would keep a copy in four core registers
      for (int i = steps; i > 0; i--) add(acc, a, gather(at));
      unroll<MR>([&](int r) OCELLUS_LAMBDA { t.sums[r][c] = acc[r]; });
      first = vaddq_n_u32(first, 4);
    }
    const auto left = static_cast<std::uint32_t>(depth) % 16;  // a multiple of 4
    for (int c = 0; c < 16 && left != 0; c++) {
      std::uint32_t acc[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = t.sums[r][c]; });
      const std::uint8_t* a = t.a + 16 * MR * steps;
      const void* const at = w + 256 * steps + 4 * c;
      add(acc, a, vreinterpretq_u8_u32(
                      vldrwq_gather_offset_z_u32(static_cast<const std::uint32_t*>(at), groups, vctp32q(left / 4))));
      unroll<MR>([&](int r) OCELLUS_LAMBDA { t.sums[r][c] = acc[r]; });
    }
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    tile_rows<MR> t;
    for (int d = 0; d < k; d += tile_depth) {
      const int depth = k - d < tile_depth ? k - d : tile_depth;
      interleave(t, a + d, lda, depth);
      for (int p = 0; p < P; p++) {
        columns(t, b + static_cast<std::size_t>(p) * panel_stride + d * 16, depth);
        for (int r = 0; r < MR; r++)
          unroll<4>([&](int i) OCELLUS_LAMBDA {
            std::int32_t* const o = out + r * ldo + p * 16 + 4 * i;
            int32x4_t x = vreinterpretq_s32_u32(vld1q_u32(t.sums[r] + 4 * i));
            if (d > 0) x = vaddq_s32(x, vld1q_s32(o));
            vst1q_s32(o, x);
          });
      }
    }
  }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The set with epilogues for some activations alone, bit 1 << act each: the others take 5 KB of flash.
template <std::uint32_t Activations>
struct mve_applying : mve {
  static constexpr bool applies(activation act) noexcept { return (Activations >> static_cast<int>(act) & 1) != 0; }
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
