// WebAssembly's fixed-width SIMD: every browser since 2021, node since 16. Pinned (-msimd128): a module cannot ask what
// its engine has, so the page picks the module.
//
// | intrinsic                     | on x86   | on Arm               | use                                          |
// |-------------------------------|----------|----------------------|----------------------------------------------|
// | wasm_i32x4_dot_i16x8          | pmaddwd  | smull, smull2, addp  | s8 tile: u8 x s8 as pairs of s16, exact      |
// | wasm_f64x2_promote_low_f32x4  | cvtps2pd | fcvtl                | f32 tile: the exact product of two floats    |
// | wasm_f32x4_demote_f64x2_zero  | cvtpd2ps | fcvtn                | f32 tile: the sum, rounded                   |
//
// wasm has no fused multiply-add, and law 2 wants one: the f32 tile computes it in double, which costs four times the
// instructions of a plain multiply and add on half the lanes. Models for the web are packed with s8 weights.
// Overflow: s16 products of u8 x s8 are below 2^15, the dot adds two of them in s32; see ops/gemm.hpp for K.
// Registers (V8 keeps 15 on x64): s8 tile 2 x 16: 8 accumulators + 4 of A + 2 of W = 14; f32 tile 4 x 4: 8 + 2 of W +
// 2 flags + 2 = 14. A pair of panels is two single ones.
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

  // A chain of fused multiply-adds, two lanes at a time: the product is exact in double, and the rounding of the sum
  // first to double, then to float gives fma's bits, unless the double lies half-way between two floats (its low 29
  // bits are 1 and 28 zeros) or the float is subnormal, where the half-way points lie elsewhere. Both are noted as the
  // chain goes, and are rare enough to compute the whole tile again by strict_fma.
  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    v128_t halfway = wasm_i32x4_splat(0);   // even words: all ones if a sum was half-way
    v128_t smallest = wasm_i32x4_splat(-1);  // odd words: the least (exponent and mantissa) * 2 - 1, unsigned
    for (int quad = 0; quad < 4 * P; quad++) {
      const W* panel = b + static_cast<std::size_t>(quad / 4) * panel_stride;
      f64x2 acc[MR][2];
      unroll<MR>([&](auto r) OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = f64x2{}; });
      for (int d = 0; d < k; d++) {
        const v128_t w = vec::bits(widen4(panel, d, quad % 4));
        const f64x2 w0 = reinterpret_cast<f64x2>(wasm_f64x2_promote_low_f32x4(w));
        const f64x2 w1 = reinterpret_cast<f64x2>(
            wasm_f64x2_promote_low_f32x4(wasm_i32x4_shuffle(w, w, 2, 3, 2, 3)));
        const auto step = [&](f64x2& c, double x, f64x2 w2) OCELLUS_LAMBDA {
          const f64x2 product = f64x2{x, x} * w2;
          const v128_t sum = reinterpret_cast<v128_t>(product + c);
          halfway = wasm_v128_or(halfway, wasm_i32x4_eq(wasm_i32x4_shl(sum, 3),
                                                        wasm_u32x4_splat(0x80000000u)));
          smallest = wasm_u32x4_min(smallest, wasm_i32x4_sub(wasm_i32x4_shl(sum, 1), wasm_i32x4_splat(1)));
          c = reinterpret_cast<f64x2>(wasm_f64x2_promote_low_f32x4(wasm_f32x4_demote_f64x2_zero(sum)));
        };
        unroll<MR>([&](auto r) OCELLUS_LAMBDA {
          const double x = static_cast<double>(a[r * lda + d]);
          step(acc[r][0], x, w0);
          step(acc[r][1], x, w1);
        });
      }
      unroll<MR>([&](auto r) OCELLUS_LAMBDA {
        const v128_t low = wasm_f32x4_demote_f64x2_zero(reinterpret_cast<v128_t>(acc[r][0]));
        const v128_t high = wasm_f32x4_demote_f64x2_zero(reinterpret_cast<v128_t>(acc[r][1]));
        wasm_v128_store(out + r * ldo + quad * 4, wasm_i32x4_shuffle(low, high, 0, 1, 4, 5));
      });
    }
    constexpr std::uint32_t normal = (1023 - 126) << 21;  // 2^-126's upper word, doubled
    const bool subnormal = wasm_u32x4_extract_lane(smallest, 1) < normal - 1 ||
                           wasm_u32x4_extract_lane(smallest, 3) < normal - 1;
    if (subnormal || wasm_i32x4_extract_lane(halfway, 0) != 0 || wasm_i32x4_extract_lane(halfway, 2) != 0)
      scalar::tile_float<MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const void*) noexcept {
    if constexpr (P == 2) {
      tile_s8<MR, 1>(a, lda, b, panel_stride, k, out, ldo, nullptr);
      tile_s8<MR, 1>(a, lda, b + panel_stride, panel_stride, k, out + 16, ldo, nullptr);
    } else {
      v128_t acc[MR][4];
      unroll<MR>([&](auto r) OCELLUS_LAMBDA {
        unroll<4>([&](auto i) OCELLUS_LAMBDA { acc[r][i] = wasm_i32x4_splat(0); });
      });
      for (int d = 0; d < k; d += 4) {
        // bytes 0 and 2 of each group of four, then 1 and 3, as s16: the dot adds two products in s32
        v128_t even[MR], odd[MR];
        unroll<MR>([&](auto r) OCELLUS_LAMBDA {
          const v128_t x = wasm_v128_load32_splat(a + r * lda + d);
          even[r] = wasm_v128_and(x, wasm_i16x8_splat(0x00ff));
          odd[r] = wasm_u16x8_shr(x, 8);
        });
        unroll<4>([&](auto i) OCELLUS_LAMBDA {
          const v128_t w = wasm_v128_load(b + 16 * i);
          const v128_t w_even = wasm_i16x8_shr(wasm_i16x8_shl(w, 8), 8), w_odd = wasm_i16x8_shr(w, 8);
          unroll<MR>([&](auto r) OCELLUS_LAMBDA {
            acc[r][i] = wasm_i32x4_add(acc[r][i], wasm_i32x4_dot_i16x8(even[r], w_even));
            acc[r][i] = wasm_i32x4_add(acc[r][i], wasm_i32x4_dot_i16x8(odd[r], w_odd));
          });
        });
        b += 64;
      }
      unroll<MR>([&](auto r) OCELLUS_LAMBDA {
        unroll<4>([&](auto i) OCELLUS_LAMBDA { wasm_v128_store(out + r * ldo + 4 * i, acc[r][i]); });
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
