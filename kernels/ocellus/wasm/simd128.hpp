// WebAssembly's fixed-width SIMD: Chromium 91, Firefox 89, Safari 16.4, node 16.4. Pinned (-msimd128): a module cannot
// ask what its engine has, so the page picks the module.
//
// | intrinsic                    | on x86   | on Arm              | use                                     |
// |------------------------------|----------|---------------------|-----------------------------------------|
// | wasm_i32x4_dot_i16x8         | pmaddwd  | smull, smull2, addp | s8 tile: u8 x s8 as pairs of s16, exact |
// | wasm_f64x2_promote_low_f32x4 | cvtps2pd | fcvtl               | f32 tile: exact product of two floats   |
// | wasm_f32x4_demote_f64x2_zero | cvtpd2ps | fcvtn               | f32 tile: the sum, rounded              |
//
// wasm has no fused multiply-add, and law 2 wants one: the f32 tile computes it in double, seventeen instructions for
// two lanes where a multiply and an add would do four. Models for the web are packed with s8 weights.
// Overflow: the dot multiplies s16 and adds in s32: 2 * 255 * 127 a step, K as in ops/gemm.hpp.
// Registers (V8 keeps 15 on x64): s8 tile 2 x 16: 8 accumulators + 4 of A + 2 of W = 14; f32 tile 4 x 4: 4 + 2 of W + 7
// = 13. A pair of panels is two single ones.
// Speed: bench/results/wasm.txt (node bench/wasm.mjs).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__wasm_simd128__)
#include <wasm_simd128.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct simd128 : scalar {
  static constexpr isa id = isa::simd128;

  using f32x4 = float __attribute__((vector_size(16)));
  using f64x2 = double __attribute__((vector_size(16)));

#include <ocellus/generic/unroll.inl>

  struct vec {
    f32x4 v[4];  // lanes 0..3, 4..7, 8..11, 12..15

    /// {f(0), f(1), f(2), f(3)}
    template <class F>
    static OCELLUS_INLINE vec each(const F& f) noexcept {
      return {{f(0), f(1), f(2), f(3)}};
    }
    static OCELLUS_INLINE f32x4 load4(const float* p) noexcept {
      return reinterpret_cast<f32x4>(wasm_v128_load(p));
    }
    static OCELLUS_INLINE v128_t bits(f32x4 x) noexcept { return reinterpret_cast<v128_t>(x); }

    static OCELLUS_INLINE vec zero() noexcept { return set(0.f); }
    static OCELLUS_INLINE vec set(float x) noexcept {
      const f32x4 s = {x, x, x, x};
      return {{s, s, s, s}};
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return each([&](int i) { return load4(p + 4 * i); });
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      alignas(16) float t[16] = {};
      for (int i = 0; i < n; i++) t[i] = p[i];
      return load(t);
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      for (int i = 0; i < 4; i++) wasm_v128_store(p + 4 * i, bits(v[i]));
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      alignas(16) float t[16];
      store(t);
      for (int i = 0; i < n; i++) p[i] = t[i];
    }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      const v128_t lanes = wasm_i32x4_make(0, 1, 2, 3);
      return each([&](int i) {
        const v128_t take = wasm_i32x4_gt(wasm_i32x4_splat(n - 4 * i), lanes);
        return reinterpret_cast<f32x4>(wasm_v128_bitselect(bits(a.v[i]), bits(b.v[i]), take));
      });
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(vec b) const noexcept {
      return each([&](int i) { return v[i] + b.v[i]; });
    }
    OCELLUS_INLINE vec operator-(vec b) const noexcept {
      return each([&](int i) { return v[i] - b.v[i]; });
    }
    OCELLUS_INLINE vec operator*(vec b) const noexcept {
      return each([&](int i) { return v[i] * b.v[i]; });
    }
    OCELLUS_INLINE vec operator/(vec b) const noexcept {
      return each([&](int i) { return v[i] / b.v[i]; });
    }
    // pmin(b, a) is a < b ? a : b: x86's minps, one instruction where wasm's own min takes several
    static OCELLUS_INLINE f32x4 min4(f32x4 a, f32x4 b) noexcept {
      return reinterpret_cast<f32x4>(wasm_f32x4_pmin(bits(b), bits(a)));
    }
    static OCELLUS_INLINE f32x4 max4(f32x4 a, f32x4 b) noexcept {
      return reinterpret_cast<f32x4>(wasm_f32x4_pmax(bits(b), bits(a)));
    }
    static OCELLUS_INLINE vec min(vec a, vec b) noexcept {
      return each([&](int i) { return min4(a.v[i], b.v[i]); });
    }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept {
      return each([&](int i) { return max4(a.v[i], b.v[i]); });
    }
    OCELLUS_INLINE float sum() const noexcept {
      const f32x4 s = (v[0] + v[2]) + (v[1] + v[3]);
      return (s[0] + s[2]) + (s[1] + s[3]);
    }
    OCELLUS_INLINE float hmax() const noexcept {
      const f32x4 m = max4(max4(v[0], v[1]), max4(v[2], v[3]));
      const float a = m[0] > m[1] ? m[0] : m[1], b = m[2] > m[3] ? m[2] : m[3];
      return a > b ? a : b;
    }
    OCELLUS_INLINE float hmin() const noexcept {
      const f32x4 m = min4(min4(v[0], v[1]), min4(v[2], v[3]));
      const float a = m[0] < m[1] ? m[0] : m[1], b = m[2] < m[3] ? m[2] : m[3];
      return a < b ? a : b;
    }
    static OCELLUS_INLINE vec add_exponent(vec p, vec t) noexcept {
      return each([&](int i) {
        return reinterpret_cast<f32x4>(wasm_i32x4_add(bits(p.v[i]), wasm_i32x4_shl(bits(t.v[i]), 23)));
      });
    }
    /// round_even of four lanes, by the same magic number: trunc_sat takes seven instructions on x86.
    static OCELLUS_INLINE v128_t round4(f32x4 x) noexcept {
      const f32x4 magic = {12582912.f, 12582912.f, 12582912.f, 12582912.f};
      return wasm_i32x4_sub(bits(x + magic), wasm_i32x4_splat(0x4b400000));
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      const v128_t z = wasm_i32x4_splat(zero_point);
      const auto at = [&](int i) { return wasm_i32x4_add(round4(v[i]), z); };
      wasm_v128_store(q, wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(at(0), at(1)),
                                                 wasm_i16x8_narrow_i32x4(at(2), at(3))));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept {
      const v128_t b = wasm_i8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(round4(v[0]), round4(v[1])),
                                               wasm_i16x8_narrow_i32x4(round4(v[2]), round4(v[3])));
      wasm_v128_store(q, wasm_i8x16_max(b, wasm_i8x16_splat(-127)));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const v128_t z = wasm_i32x4_splat(zero_point);
      return each([&](int i) {
        const v128_t offset = wasm_i32x4_mul(z, wasm_v128_load(sums + 4 * i));
        return reinterpret_cast<f32x4>(
            wasm_f32x4_convert_i32x4(wasm_i32x4_sub(wasm_v128_load(acc + 4 * i), offset)));
      });
    }
    static OCELLUS_INLINE v128_t zip8_low(v128_t a, v128_t b) noexcept {
      return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
    }
    static OCELLUS_INLINE v128_t zip8_high(v128_t a, v128_t b) noexcept {
      return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      const v128_t x0 = wasm_v128_load(r0), x1 = wasm_v128_load(r1), x2 = wasm_v128_load(r2),
                   x3 = wasm_v128_load(r3);
      const v128_t a = zip8_low(x0, x1), b = zip8_low(x2, x3), c = zip8_high(x0, x1), d = zip8_high(x2, x3);
      wasm_v128_store(out, wasm_i16x8_shuffle(a, b, 0, 8, 1, 9, 2, 10, 3, 11));
      wasm_v128_store(out + 16, wasm_i16x8_shuffle(a, b, 4, 12, 5, 13, 6, 14, 7, 15));
      wasm_v128_store(out + 32, wasm_i16x8_shuffle(c, d, 0, 8, 1, 9, 2, 10, 3, 11));
      wasm_v128_store(out + 48, wasm_i16x8_shuffle(c, d, 4, 12, 5, 13, 6, 14, 7, 15));
    }
  };

  static constexpr int epilogue_panels = 1;
  static constexpr int norm_rows = 2;
  static constexpr int depthwise_vecs = 2;
  static constexpr int float_rows = 4;
  static constexpr int s8_rows = 2;

  /// Columns 4 * quad.. of depth k of a panel, widened to f32.
  static OCELLUS_INLINE f32x4 widen4(const float* b, int k, int quad) noexcept {
    return vec::load4(b + k * 16 + quad * 4);
  }
  static OCELLUS_INLINE f32x4 widen4(const bf16* b, int k, int quad) noexcept {
    const v128_t pair = wasm_v128_load(b + k / 2 * 32 + quad * 8);
    return reinterpret_cast<f32x4>(k % 2 == 0 ? wasm_i32x4_shl(pair, 16)
                                              : wasm_v128_and(pair, wasm_u32x4_splat(0xffff0000u)));
  }
  static OCELLUS_INLINE f32x4 widen4(const f16* b, int k, int quad) noexcept {
    const v128_t h = wasm_u32x4_load16x4(b + k * 16 + quad * 4);
    const v128_t magnitude = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x7fff)), 13);
    const v128_t sign = wasm_i32x4_shl(wasm_v128_and(h, wasm_i32x4_splat(0x8000)), 16);
    const v128_t special = wasm_v128_and(wasm_i32x4_gt(magnitude, wasm_i32x4_splat(0x0f7fffff)),
                                         wasm_i32x4_splat(0x7f800000));  // infinities and NaN
    const f32x4 rebias = {0x1p112f, 0x1p112f, 0x1p112f, 0x1p112f};     // of the exponent; subnormals as well
    const f32x4 value = reinterpret_cast<f32x4>(magnitude) * rebias;
    return reinterpret_cast<f32x4>(wasm_v128_or(wasm_v128_or(vec::bits(value), special), sign));
  }

  /// x * w + c in double, rounded to odd [Boldo & Melquiond 2008], so that rounding it to float gives fma(x,
  /// w, c): the product of two floats is exact, the sum's error comes by Knuth's two-sum. The sign of sum * error,
  /// between 2^-543 and 2^460 where it is not zero, says on which side of the sum the exact value lies; an infinite sum
  /// has NaN there, which is on neither, and stays.
  static OCELLUS_INLINE v128_t fma_to_odd(f64x2 x, f64x2 w, f64x2 c) noexcept {
    const f64x2 product = x * w, sum = product + c;
    const f64x2 part = sum - product;
    const f64x2 error = (product - (sum - part)) + (c - part);
    const v128_t side = reinterpret_cast<v128_t>(sum * error), zero = wasm_f64x2_splat(0);
    const v128_t inward = wasm_f64x2_lt(side, zero), outward = wasm_f64x2_gt(side, zero);
    const v128_t inexact = wasm_v128_or(inward, outward);
    return wasm_v128_or(wasm_i64x2_add(reinterpret_cast<v128_t>(sum), inward),
                        wasm_v128_and(inexact, wasm_i64x2_splat(1)));
  }
  static OCELLUS_INLINE f64x2 low_half(v128_t x) noexcept {
    return reinterpret_cast<f64x2>(wasm_f64x2_promote_low_f32x4(x));
  }
  static OCELLUS_INLINE f64x2 high_half(v128_t x) noexcept {
    return low_half(wasm_i32x4_shuffle(x, x, 2, 3, 2, 3));
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    for (int quad = 0; quad < 4 * P; quad++) {
      const W* panel = b + static_cast<std::size_t>(quad / 4) * panel_stride;
      v128_t acc[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = wasm_i32x4_splat(0); });
      for (int d = 0; d < k; d++) {
        const v128_t w = vec::bits(widen4(panel, d, quad % 4));
        const f64x2 w0 = low_half(w), w1 = high_half(w);
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const double one = static_cast<double>(a[r * lda + d]);
          const f64x2 x = {one, one};
          const v128_t low = wasm_f32x4_demote_f64x2_zero(fma_to_odd(x, w0, low_half(acc[r])));
          const v128_t high = wasm_f32x4_demote_f64x2_zero(fma_to_odd(x, w1, high_half(acc[r])));
          acc[r] = wasm_i32x4_shuffle(low, high, 0, 1, 4, 5);
        });
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA { wasm_v128_store(out + r * ldo + quad * 4, acc[r]); });
    }
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    if constexpr (P == 2) {
      tile_s8<MR, 1>(a, lda, b, panel_stride, k, out, ldo, {});
      tile_s8<MR, 1>(a, lda, b + panel_stride, panel_stride, k, out + 16, ldo, {});
    } else {
      v128_t acc[MR][4];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4>([&](int i) OCELLUS_LAMBDA { acc[r][i] = wasm_i32x4_splat(0); });
      });
      for (int d = 0; d < k; d += 4) {
        // bytes 0 and 2 of each group of four, then 1 and 3, as s16: the dot adds two products in s32
        v128_t even[MR], odd[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const v128_t x = wasm_v128_load32_splat(a + r * lda + d);
          even[r] = wasm_v128_and(x, wasm_i16x8_splat(0x00ff));
          odd[r] = wasm_u16x8_shr(x, 8);
        });
        unroll<4>([&](int i) OCELLUS_LAMBDA {
          const v128_t w = wasm_v128_load(b + 16 * i);
          const v128_t w_even = wasm_i16x8_shr(wasm_i16x8_shl(w, 8), 8), w_odd = wasm_i16x8_shr(w, 8);
          unroll<MR>([&](int r) OCELLUS_LAMBDA {
            acc[r][i] = wasm_i32x4_add(acc[r][i], wasm_i32x4_dot_i16x8(even[r], w_even));
            acc[r][i] = wasm_i32x4_add(acc[r][i], wasm_i32x4_dot_i16x8(odd[r], w_odd));
          });
        });
        b += 64;
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<4>([&](int i) OCELLUS_LAMBDA { wasm_v128_store(out + r * ldo + 4 * i, acc[r][i]); });
      });
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
