// The resize passes for WebAssembly's fixed-width SIMD: generic/resample.inl at 16 bytes.
//
//   intrinsic               on x86     on Arm
//   wasm_i32x4_dot_i16x8    pmaddwd    smull, smull2, addp
//   wasm_i8x16_shuffle      pshufb     tbl, where its order is a constant
//   wasm_i32x4_add          paddd      add
// Overflow: see ops/resample.hpp; the total stays inside 32 bits, parts of it may wrap.
// Registers (horizontal): 4 accumulators + 4 shuffled pixels + 4 weights = 12 of the 15 that V8 keeps on x64.
#pragma once

#if defined(__wasm_simd128__)

#include <ocellus/generic/resample.hpp>

#include <wasm_simd128.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct resample_simd128 : resample_scalar {
  using vec = v128_t;
  static constexpr int lanes = 1;

  static OCELLUS_INLINE vec load(const std::uint8_t* p) noexcept { return wasm_v128_load(p); }
  static OCELLUS_INLINE void store(std::uint8_t* p, vec v) noexcept { wasm_v128_store(p, v); }
  static OCELLUS_INLINE vec load_rows(const std::uint8_t* p, std::ptrdiff_t) noexcept { return load(p); }
  static OCELLUS_INLINE vec pixels01(vec v) noexcept {
    return wasm_i8x16_shuffle(v, zero(), 0, 16, 3, 16, 1, 16, 4, 16, 2, 16, 5, 16, 16, 16, 16, 16);
  }
  static OCELLUS_INLINE vec pixels23(vec v) noexcept {
    return wasm_i8x16_shuffle(v, zero(), 6, 16, 9, 16, 7, 16, 10, 16, 8, 16, 11, 16, 16, 16, 16, 16);
  }
  static OCELLUS_INLINE vec zip_low(vec a, vec b) noexcept {
    return wasm_i8x16_shuffle(a, b, 0, 16, 1, 17, 2, 18, 3, 19, 4, 20, 5, 21, 6, 22, 7, 23);
  }
  static OCELLUS_INLINE vec zip_high(vec a, vec b) noexcept {
    return wasm_i8x16_shuffle(a, b, 8, 24, 9, 25, 10, 26, 11, 27, 12, 28, 13, 29, 14, 30, 15, 31);
  }
  static OCELLUS_INLINE vec widen_low(vec v) noexcept { return wasm_u16x8_extend_low_u8x16(v); }
  static OCELLUS_INLINE vec widen_high(vec v) noexcept { return wasm_u16x8_extend_high_u8x16(v); }
  static OCELLUS_INLINE vec pair(const std::int16_t* p) noexcept { return wasm_v128_load32_splat(p); }
  static OCELLUS_INLINE vec madd(vec a, vec b) noexcept { return wasm_i32x4_dot_i16x8(a, b); }
  static OCELLUS_INLINE vec add(vec a, vec b) noexcept { return wasm_i32x4_add(a, b); }
  static OCELLUS_INLINE vec zero() noexcept { return wasm_i32x4_splat(0); }
  static OCELLUS_INLINE vec round_shift(vec low, vec high) noexcept {
    const vec sum = add(add(low, wasm_i32x4_shl(high, 16)), wasm_i32x4_splat(half));
    return wasm_i32x4_shr(sum, resample_bits);
  }
  static OCELLUS_INLINE vec narrow(vec a, vec b, vec c, vec d) noexcept {
    return wasm_u8x16_narrow_i16x8(wasm_i16x8_narrow_i32x4(a, b), wasm_i16x8_narrow_i32x4(c, d));
  }
  static OCELLUS_INLINE void store_pixels(std::uint8_t* p, std::ptrdiff_t, vec v, int n) noexcept {
    store_pixel(p, wasm_i32x4_extract_lane(v, 0), n);
  }

#include <ocellus/generic/resample.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END

#endif
