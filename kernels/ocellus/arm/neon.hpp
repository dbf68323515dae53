// NEON of AArch64, every 64-bit Arm from Armv8.0 on: Cortex-A53, A72 and their like; later cores take s8
// products from dotprod.hpp or i8mm.hpp.
//
// | intrinsic           | instruction      | use                                                           |
// |---------------------|------------------|---------------------------------------------------------------|
// | vfmaq_laneq_f32     | fmla (element)   | f32 tile, 4 lanes, the activation as a lane                   |
// | vcvt_f32_f16        | fcvtl            | f16 weights, widened per panel row                            |
// | vmull_s8, vmlal_s8  | smull, smlal (2) | s8 tile: two products of (a - 128) w added in s16             |
// | vpadalq_s16         | sadalp           | pairs of those into s32                                       |
// | vcvtnq_s32_f32      | fcvtns           | rounding half to even                                         |
//
// Overflow: |(a - 128) w| <= 128 * 127, so two products fit s16 (32,512); the s32 sums are below those of
// ops/gemm.hpp.
// u8 activations: the s8 tile computes sum (a - 128) w. In gemm_s8 the missing 128 * sum w goes into the zero
// point that the epilogue multiplies by that very sum, for nothing; attention's tiles add it from the panel.
// Registers: f32 tile 5 x 16: 20 accumulators + 5 of A + 2 of W = 27. s8 tile 4 x 8: 16 + 4 of A + 2 of W + 4 products
// and what is zipped: 3 x 16 had fewer loads, and no room for products side by side.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__aarch64__)
#include <arm_neon.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

/// All of the set but gemm_s8.
struct neon_tiles : scalar {
  struct vec {
    float32x4_t q[4];  // lanes 0..3, 4..7, 8..11, 12..15

    static OCELLUS_INLINE vec zero() noexcept { return set(0.f); }
    static OCELLUS_INLINE vec set(float x) noexcept {
      const float32x4_t v = vdupq_n_f32(x);
      return {{v, v, v, v}};
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return {{vld1q_f32(p), vld1q_f32(p + 4), vld1q_f32(p + 8), vld1q_f32(p + 12)}};
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      alignas(16) float t[16] = {};
      for (int i = 0; i < n; i++) t[i] = p[i];
      return load(t);
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      vst1q_f32(p, q[0]);
      vst1q_f32(p + 4, q[1]);
      vst1q_f32(p + 8, q[2]);
      vst1q_f32(p + 12, q[3]);
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      alignas(16) float t[16];
      store(t);
      for (int i = 0; i < n; i++) p[i] = t[i];
    }
    /// The first n of lanes first..first + 3.
    static OCELLUS_INLINE uint32x4_t mask4(int first, int n) noexcept {
      const std::int32_t lane[4] = {0, 1, 2, 3};
      return vcltq_s32(vaddq_s32(vld1q_s32(lane), vdupq_n_s32(first)), vdupq_n_s32(n));
    }
    static OCELLUS_INLINE vec select_n(const vec& a, const vec& b, int n) noexcept {
      return {{vbslq_f32(mask4(0, n), a.q[0], b.q[0]), vbslq_f32(mask4(4, n), a.q[1], b.q[1]),
               vbslq_f32(mask4(8, n), a.q[2], b.q[2]), vbslq_f32(mask4(12, n), a.q[3], b.q[3])}};
    }
    static OCELLUS_INLINE vec first_n(const vec& a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(const vec& b) const noexcept {
      return {{q[0] + b.q[0], q[1] + b.q[1], q[2] + b.q[2], q[3] + b.q[3]}};
    }
    OCELLUS_INLINE vec operator-(const vec& b) const noexcept {
      return {{q[0] - b.q[0], q[1] - b.q[1], q[2] - b.q[2], q[3] - b.q[3]}};
    }
    OCELLUS_INLINE vec operator*(const vec& b) const noexcept {
      vec r{{q[0] * b.q[0], q[1] * b.q[1], q[2] * b.q[2], q[3] * b.q[3]}};
      OCELLUS_ROUNDED(r.q[0]);
      OCELLUS_ROUNDED(r.q[1]);
      OCELLUS_ROUNDED(r.q[2]);
      OCELLUS_ROUNDED(r.q[3]);
      return r;
    }
    OCELLUS_INLINE vec operator/(const vec& b) const noexcept {
      return {{q[0] / b.q[0], q[1] / b.q[1], q[2] / b.q[2], q[3] / b.q[3]}};
    }
    // By comparison and choice: fmin and fmax order zeros and treat NaNs otherwise than the scalar set does.
    static OCELLUS_INLINE float32x4_t min4(float32x4_t a, float32x4_t b) noexcept {
      return vbslq_f32(reinterpret_cast<uint32x4_t>(a < b), a, b);
    }
    static OCELLUS_INLINE float32x4_t max4(float32x4_t a, float32x4_t b) noexcept {
      return vbslq_f32(reinterpret_cast<uint32x4_t>(a > b), a, b);
    }
    static OCELLUS_INLINE vec min(const vec& a, const vec& b) noexcept {
      return {{min4(a.q[0], b.q[0]), min4(a.q[1], b.q[1]), min4(a.q[2], b.q[2]), min4(a.q[3], b.q[3])}};
    }
    static OCELLUS_INLINE vec max(const vec& a, const vec& b) noexcept {
      return {{max4(a.q[0], b.q[0]), max4(a.q[1], b.q[1]), max4(a.q[2], b.q[2]), max4(a.q[3], b.q[3])}};
    }
    OCELLUS_INLINE float sum() const noexcept {
      const float32x4_t s4 = (q[0] + q[2]) + (q[1] + q[3]);
      return (vgetq_lane_f32(s4, 0) + vgetq_lane_f32(s4, 2)) +
             (vgetq_lane_f32(s4, 1) + vgetq_lane_f32(s4, 3));
    }
    OCELLUS_INLINE float hmax() const noexcept {
      return vmaxvq_f32(max4(max4(q[0], q[2]), max4(q[1], q[3])));
    }
    OCELLUS_INLINE float hmin() const noexcept {
      return vminvq_f32(min4(min4(q[0], q[2]), min4(q[1], q[3])));
    }
    static OCELLUS_INLINE float32x4_t add_exponent4(float32x4_t p, float32x4_t t) noexcept {
      return vreinterpretq_f32_s32(
          vaddq_s32(vreinterpretq_s32_f32(p), vshlq_n_s32(vreinterpretq_s32_f32(t), 23)));
    }
    static OCELLUS_INLINE vec add_exponent(const vec& p, const vec& t) noexcept {
      return {{add_exponent4(p.q[0], t.q[0]), add_exponent4(p.q[1], t.q[1]), add_exponent4(p.q[2], t.q[2]),
               add_exponent4(p.q[3], t.q[3])}};
    }
    /// Lanes 8 * half.. as integers plus zero_point, saturated to s16.
    OCELLUS_INLINE int16x8_t to_s16(int half, int32x4_t zero_point) const noexcept {
      const int32x4_t low = vaddq_s32(vcvtnq_s32_f32(q[2 * half]), zero_point),
                      high = vaddq_s32(vcvtnq_s32_f32(q[2 * half + 1]), zero_point);
      return vqmovn_high_s32(vqmovn_s32(low), high);
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* p, std::int32_t zero_point) const noexcept {
      const int32x4_t z = vdupq_n_s32(zero_point);
      vst1q_u8(p, vqmovun_high_s16(vqmovun_s16(to_s16(0, z)), to_s16(1, z)));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* p) const noexcept {
      const int32x4_t z = vdupq_n_s32(0);
      vst1q_s8(p, vmaxq_s8(vqmovn_high_s16(vqmovn_s16(to_s16(0, z)), to_s16(1, z)), vdupq_n_s8(-127)));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const int32x4_t z = vdupq_n_s32(zero_point);
      const auto at = [&](int i) OCELLUS_LAMBDA {
        return vcvtq_f32_s32(vmlsq_s32(vld1q_s32(acc + i), vld1q_s32(sums + i), z));
      };
      return {{at(0), at(4), at(8), at(12)}};
    }
    static OCELLUS_INLINE vec widen(const f16* p) noexcept {
      const auto at = [&](int i) OCELLUS_LAMBDA {
        return vcvt_f32_f16(vreinterpret_f16_u16(vld1_u16(&p[i].bits)));
      };
      return {{at(0), at(4), at(8), at(12)}};
    }
    static OCELLUS_INLINE vec widen(const std::int8_t* p) noexcept {
      const int8x16_t b = vld1q_s8(p);
      const int16x8_t low = vmovl_s8(vget_low_s8(b)), high = vmovl_high_s8(b);
      return {{vcvtq_f32_s32(vmovl_s16(vget_low_s16(low))), vcvtq_f32_s32(vmovl_high_s16(low)),
               vcvtq_f32_s32(vmovl_s16(vget_low_s16(high))), vcvtq_f32_s32(vmovl_high_s16(high))}};
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      const int8x16x4_t rows = {{vld1q_s8(r0), vld1q_s8(r1), vld1q_s8(r2), vld1q_s8(r3)}};
      vst4q_s8(out, rows);  // a macro of clang's, which braces would puzzle
    }
  };

  /// Sixteen blocks of 4 x 4.
  static OCELLUS_NOINLINE void transpose16(float* out, const float* const* rows, int first,
                                           int columns) noexcept {
    for (int r = 0; r < 16; r += 4)
      for (int c = 0; c < columns; c += 4) {
        const auto row = [&](int i) OCELLUS_LAMBDA { return vld1q_f32(rows[r + i] + first + c); };
        const float32x4_t a = row(0), b = row(1), even_low = vzip1q_f32(a, row(2)),
                          odd_low = vzip1q_f32(b, row(3)), even_high = vzip2q_f32(a, row(2)),
                          odd_high = vzip2q_f32(b, row(3));
        const float32x4_t column[4] = {vzip1q_f32(even_low, odd_low), vzip2q_f32(even_low, odd_low),
                                       vzip1q_f32(even_high, odd_high), vzip2q_f32(even_high, odd_high)};
        for (int i = 0; i < 4 && c + i < columns; i++) vst1q_f32(out + 16 * (c + i) + r, column[i]);
      }
  }

  static constexpr int epilogue_panels = 1;
  static constexpr int norm_rows = 2;
  static constexpr int depthwise_vecs = 4;
  static constexpr int float_rows = 5;
  static constexpr int s8_rows = 4;

#include <ocellus/generic/unroll.inl>
#include <ocellus/arm/steps.inl>

  /// Columns 4c..4c + 3 of depth J (0..3) of a group of four depths, as they lie there, and widened.
  template <int J>
  static OCELLUS_INLINE float32x4_t load_weights(const float* b, int c) noexcept {
    return vld1q_f32(b + J * 16 + c * 4);
  }
  template <int J>
  static OCELLUS_INLINE uint16x4_t load_weights(const f16* b, int c) noexcept {
    return vld1_u16(&b[J * 16 + c * 4].bits);
  }
  template <int J>
  static OCELLUS_INLINE uint32x4_t load_weights(const bf16* b, int c) noexcept {  // beside those of the other of two
    return vreinterpretq_u32_u16(vld1q_u16(&b[J / 2 * 32 + c * 8].bits));
  }
  template <int J>
  static OCELLUS_INLINE float32x4_t widen(float32x4_t w) noexcept {
    return w;
  }
  template <int J>
  static OCELLUS_INLINE float32x4_t widen(uint16x4_t w) noexcept {
    return vcvt_f32_f16(vreinterpret_f16_u16(w));
  }
  template <int J>
  static OCELLUS_INLINE float32x4_t widen(uint32x4_t w) noexcept {
    return vreinterpretq_f32_u32(J % 2 == 0 ? vshlq_n_u32(w, 16) : vandq_u32(w, vdupq_n_u32(0xffff0000u)));
  }

  /// acc + w * x[Lane], rounded once; gcc 12 copies sums that assembler keeps in place.
  template <int Lane>
  static OCELLUS_INLINE float32x4_t with_product(float32x4_t acc, float32x4_t w, float32x4_t x) noexcept {
#if defined(__clang__)
    return vfmaq_laneq_f32(acc, w, x, Lane);
#else
    __asm__("fmla %0.4s, %1.4s, %2.s[%3]" : "+w"(acc) : "w"(w), "w"(x), "i"(Lane));
    return acc;
#endif
  }

  /// MR rows times P panels; a pair of panels is two single ones where the accumulators of both would not
  /// fit.
  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    if constexpr (P > 1 && MR * P > float_rows) {
      for (int p = 0; p < P; p++)
        tile_float<MR, 1, W>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, panel_stride, k,
                             out + p * 16, ldo);
    } else {
      float32x4_t acc[MR][4 * P];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4 * P>([&](int c) OCELLUS_LAMBDA { acc[r][c] = vdupq_n_f32(0); });
      });
      int d = 0;
      for (; d + 4 <= k; d += 4) {
        float32x4_t x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA { x[r] = vld1q_f32(a + r * lda + d); });
        const auto load = [&](auto i) OCELLUS_LAMBDA {
          return load_weights<i / (4 * P)>(b + i / 4 % P * panel_stride, i % 4);
        };
        const auto step = [&](auto i, float32x4_t w) OCELLUS_LAMBDA {
          constexpr int lane = i / (4 * P), c = i % (4 * P);
          unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][c] = with_product<lane>(acc[r][c], w, x[r]); });
        };
        if constexpr (std::is_same_v<W, float>) {
          in_steps<16 * P>(load, step);
        } else {
          in_steps<16 * P>(load, [](auto i, auto w) OCELLUS_LAMBDA { return widen<i / (4 * P)>(w); }, step);
        }
        b += 64;
      }
      unroll<3>([&](auto j) OCELLUS_LAMBDA {
        if (d + j >= k) return;
        unroll<4 * P>([&](auto c) OCELLUS_LAMBDA {
          constexpr int lane = j, panel = c / 4;
          const float32x4_t w = widen<lane>(load_weights<lane>(b + panel * panel_stride, c % 4));
          unroll<MR>([&](int r) OCELLUS_LAMBDA {
            acc[r][c] = vfmaq_f32(acc[r][c], w, vdupq_n_f32(a[r * lda + d + j]));
          });
        });
      });
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4 * P>([&](int c) OCELLUS_LAMBDA { vst1q_f32(out + r * ldo + c * 4, acc[r][c]); });
      });
    }
  }

  /// Four u8 less 128, in each of the four words.
  static OCELLUS_INLINE int8x16_t shifted_word(const std::uint8_t* a) noexcept {
    std::uint32_t four;
    std::memcpy(&four, a, 4);
    return vreinterpretq_s8_u32(vdupq_n_u32(four ^ 0x80808080u));
  }

  /// 128 * the sums of columns 4c..4c + 3 over k depths: what (a - 128) w lacks.
  static OCELLUS_INLINE int32x4_t lacking(const std::int8_t* b, int c, int k) noexcept {
    int32x4_t sum = vdupq_n_s32(0);
    for (int d = 0; d < k; d += 4) sum = vpadalq_s16(sum, vpaddlq_s8(vld1q_s8(b + d * 16 + c * 4 * 4)));
    return vshlq_n_s32(sum, 7);
  }

  /// out += what (a - 128) w lacks, MR rows of one panel.
  template <int MR>
  static OCELLUS_NOINLINE void add_lacking(const std::int8_t* b, int k, std::int32_t* out,
                                           std::ptrdiff_t ldo) noexcept {
    for (int c = 0; c < 4; c++) {
      const int32x4_t more = lacking(b, c, k);
      for (int r = 0; r < MR; r++) {
        std::int32_t* o = out + r * ldo + c * 4;
        vst1q_s32(o, vaddq_s32(vld1q_s32(o), more));
      }
    }
  }

  /// out = sum (a - 128) w, MR rows times eight columns of a panel.
  template <int MR>
  static OCELLUS_NOINLINE void tile_half(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, int k,
                                         std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    int32x4_t acc[MR][4];  // acc[r][i]: columns 2i and 2i + 1, depths 0, 1 and 2, 3 of each four apart
    unroll<MR>([&](int r) OCELLUS_LAMBDA { unroll<4>([&](int i) OCELLUS_LAMBDA { acc[r][i] = vdupq_n_s32(0); }); });
    // x[r]: four depths twice in the low half, the next four twice in the high half; w likewise, for two columns.
    // Products of all rows side by side, for each waits for the one before it.
    const auto steps = [&](const int8x16_t(&x)[MR], auto last) OCELLUS_LAMBDA {
      in_steps<4>(
          [&](auto i) OCELLUS_LAMBDA {
            const int64x2_t w0 = vreinterpretq_s64_s8(vld1q_s8(b + i / 2 * 16));
            const int64x2_t w1 = last ? vdupq_n_s64(0) : vreinterpretq_s64_s8(vld1q_s8(b + 64 + i / 2 * 16));
            return vreinterpretq_s8_s64(i % 2 == 0 ? vzip1q_s64(w0, w1) : vzip2q_s64(w0, w1));
          },
          [&](auto i, int8x16_t w) OCELLUS_LAMBDA {
            int16x8_t product[MR];
            unroll<MR>([&](int r) OCELLUS_LAMBDA { product[r] = vmull_s8(vget_low_s8(w), vget_low_s8(x[r])); });
            unroll<MR>([&](int r) OCELLUS_LAMBDA { product[r] = vmlal_high_s8(product[r], w, x[r]); });
            unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][i] = vpadalq_s16(acc[r][i], product[r]); });
          });
    };
    int d = 0;
    for (; d + 8 <= k; d += 8) {
      int8x16_t x[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        const uint32x4_t both = vcombine_u32(vreinterpret_u32_u8(vld1_u8(a + r * lda + d)), vdup_n_u32(0));
        x[r] = vreinterpretq_s8_u32(veorq_u32(vzip1q_u32(both, both), vdupq_n_u32(0x80808080u)));
      });
      steps(x, std::false_type{});
      b += 128;
    }
    if (d < k) {
      int8x16_t x[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { x[r] = shifted_word(a + r * lda + d); });
      steps(x, std::true_type{});
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<2>([&](int c) OCELLUS_LAMBDA {
        vst1q_s32(out + r * ldo + c * 4, vpaddq_s32(acc[r][2 * c], acc[r][2 * c + 1]));
      });
    });
  }

  /// The same of one panel.
  template <int MR>
  static OCELLUS_INLINE void tile_shifted(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, int k,
                                          std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    for (int half = 0; half < 2; half++) tile_half<MR>(a, lda, b + half * 32, k, out + half * 8, ldo);
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    for (int p = 0; p < P; p++) {
      const std::int8_t* panel = b + static_cast<std::size_t>(p) * panel_stride;
      tile_shifted<MR>(a, lda, panel, k, out + p * 16, ldo);
      add_lacking<MR>(panel, k, out + p * 16, ldo);
    }
  }

#include <ocellus/arm/gemm_shifted.inl>
#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The matrix product of sum (a - 128) w.
struct neon_shifted : neon_tiles {
  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    for (int p = 0; p < P; p++)
      tile_shifted<MR>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
  }

#include <ocellus/generic/gemm.inl>
};

struct neon : neon_tiles {
  static constexpr isa id = isa::neon;
  static void gemm_s8(const gemm_args& g) noexcept { gemm_shifted<neon_shifted>(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
