// WebAssembly's relaxed SIMD: Chromium and Edge 114, Firefox 145. Pinned (-msimd128 -mrelaxed-simd).
//
// | intrinsic                              | on x86                                 | on Arm | use                 |
// |----------------------------------------|----------------------------------------|--------|---------------------|
// | wasm_i32x4_relaxed_dot_i8x16_i7x16_add | vpdpbusd, or pmaddubsw, pmaddwd, paddd | sdot   | s8 tile: 4 products |
// | wasm_f32x4_relaxed_madd                | vfmadd231ps                            | fmla   | f32 tile            |
//
// Relaxed instructions give what the engine's processor does soonest, but always the same while a program runs (core
// specification, relaxed operations), so that one product tells what an engine does:
// - The dot is s8 x u7. Activations are split as a = (a & 127) + 128 * (a >> 7); weights lie in [-127, 127], so that
//   neither the sign of the second operand nor saturation (2 * 127 * 127 < 2^15) can show. Where it is pmaddubsw and
//   company, two of them take twice as long as simd128's tile: that one runs.
// - madd may round once or twice. An engine that rounds twice gets simd128's tile.
// Overflow: both sums of the s8 tile stay below those of ops/gemm.hpp; the upper one is shifted once, at the end.
// Registers: s8 tile 2 x 8: 8 accumulators + 4 of A + 1 of W = 13; f32 tile 4 x 8: 8 + 2 of W + 1 of A = 11.
// Speed: bench/results/wasm.txt (node bench/wasm.mjs).
#pragma once

#include <ocellus/wasm/simd128.hpp>

#if defined(__wasm_relaxed_simd__)
OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct relaxed : simd128 {
  static constexpr isa id = isa::relaxed;

  /// Whether this engine's madd rounds once.
  static OCELLUS_NOINLINE bool fused() noexcept {
    volatile float above = 1 + 0x1p-20f, below = 1 - 0x1p-20f;  // their product is 1 - 2^-40
    const v128_t one = wasm_f32x4_splat(1), x = wasm_f32x4_splat(above), y = wasm_f32x4_splat(below);
    return wasm_f32x4_extract_lane(wasm_f32x4_relaxed_madd(x, y, wasm_f32x4_neg(one)), 0) != 0;
  }

  /// 1 + 4 * a * b by the dot, where b is below 128.
  static OCELLUS_INLINE int probe(int a, int b) noexcept {
    volatile int x = a, y = b;  // the instruction, not what the compiler would make of constants
    const v128_t u = wasm_i8x16_splat(static_cast<std::int8_t>(x)),
                 v = wasm_i8x16_splat(static_cast<std::int8_t>(y)), one = wasm_i32x4_splat(1);
    return wasm_i32x4_extract_lane(wasm_i32x4_relaxed_dot_i8x16_i7x16_add(u, v, one), 0);
  }

  /// Whether the dot is what its specification says. In V8 before 11.4 (node 20: relaxed SIMD behind a flag) code of
  /// the first tier loses the sum so far, so that this must stand in the function that wants to know.
  static OCELLUS_INLINE bool right_dot() noexcept { return probe(-1, 127) == 1 + 4 * -127; }

  /// Whether the dot is one instruction, vpdpbusd or sdot: neither saturates at 2 * 127 * 255, which pmaddubsw does.
  static OCELLUS_NOINLINE bool quick_dot() noexcept {
    const int beyond = probe(127, -1);
    return beyond == 1 + 4 * -127 || beyond == 1 + 4 * 127 * 255;
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    if (!fused()) return simd128::tile_float<MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
    for (int half = 0; half < 2 * P; half++) {
      const W* panel = b + static_cast<std::size_t>(half / 2) * panel_stride;
      const int quad = half % 2 * 2;
      v128_t acc[MR][2];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = wasm_i32x4_splat(0); });
      for (int d = 0; d < k; d++) {
        const v128_t w0 = vec::bits(widen4(panel, d, quad)), w1 = vec::bits(widen4(panel, d, quad + 1));
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const v128_t x = wasm_v128_load32_splat(a + r * lda + d);
          acc[r][0] = wasm_f32x4_relaxed_madd(x, w0, acc[r][0]);
          acc[r][1] = wasm_f32x4_relaxed_madd(x, w1, acc[r][1]);
        });
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        wasm_v128_store(out + r * ldo + half * 8, acc[r][0]);
        wasm_v128_store(out + r * ldo + half * 8 + 4, acc[r][1]);
      });
    }
  }

  template <int MR, int P>
  static OCELLUS_INLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                     std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                     const prefetch_run&) noexcept {
    if (quick_dot()) return dot_tile_s8<MR, P>(a, lda, b, panel_stride, k, out, ldo);
    simd128::tile_s8<MR, P>(a, lda, b, panel_stride, k, out, ldo, {});
  }

  /// The tile by the dot, quick or not.
  template <int MR, int P>
  static OCELLUS_NOINLINE void dot_tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                           std::size_t panel_stride, int k, std::int32_t* out,
                                           std::ptrdiff_t ldo) noexcept {
    if (!right_dot()) return simd128::tile_s8<MR, P>(a, lda, b, panel_stride, k, out, ldo, {});
    for (int half = 0; half < 2 * P; half++) {
      const std::int8_t* w = b + static_cast<std::size_t>(half / 2) * panel_stride + half % 2 * 32;
      v128_t low[MR][2], high[MR][2];  // sums over the lower seven bits, over the upper bit
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        low[r][0] = low[r][1] = high[r][0] = high[r][1] = wasm_i32x4_splat(0);
      });
      for (int d = 0; d < k; d += 4) {
        const v128_t w0 = wasm_v128_load(w), w1 = wasm_v128_load(w + 16);
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const v128_t x = wasm_v128_load32_splat(a + r * lda + d);
          const v128_t seven = wasm_v128_and(x, wasm_i8x16_splat(127)), top = wasm_u8x16_shr(x, 7);
          low[r][0] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w0, seven, low[r][0]);
          low[r][1] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w1, seven, low[r][1]);
          high[r][0] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w0, top, high[r][0]);
          high[r][1] = wasm_i32x4_relaxed_dot_i8x16_i7x16_add(w1, top, high[r][1]);
        });
        w += 64;
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<2>([&](int i) OCELLUS_LAMBDA {
          wasm_v128_store(out + r * ldo + half * 8 + 4 * i,
                          wasm_i32x4_add(low[r][i], wasm_i32x4_shl(high[r][i], 7)));
        });
      });
    }
  }

#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
#endif
