// Scalable vectors of 256 bits and more: Fujitsu A64FX (512). Row-wise operations, the resize and what is not a matrix
// product come from neon. Cores with i8mm and 256-bit vectors (Neoverse V1) keep the i8mm set: two 256-bit pipes make
// the products of their four 128-bit ones, and usmmla makes twice those of sdot (list.def).
//
// | intrinsic      | instruction     | use                                                                 |
// |----------------|-----------------|---------------------------------------------------------------------|
// | svmla_lane_f32 | fmla (indexed)  | f32 tile: activations as quadwords repeated over the register       |
// | svdot_lane_s32 | sdot (indexed)  | s8 tile: four products of (a - 128) w added in s32, no saturation   |
// | svld1rq        | ld1rqw, ld1rqb  | the repeated quadword: 4 depths of f32, 16 of u8                    |
//
// Any width from 256 bits on: the 64 bytes of a panel row are two registers at 256 bits, one at 512, and the lower half
// or less of one beyond, by a predicate. A tile is `rows` times two registers: one panel, or two.
// Overflow, u8 activations: as in dotprod.hpp and ops/gemm.hpp.
// Registers: 8 x 2: 16 accumulators + 8 of A (an indexed operand must be one of z0..z7) + 2 of W = 26 of 32.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/arm/neon.hpp>
#include <ocellus/arm/region.hpp>

#if defined(__aarch64__) && OCELLUS_HAS_SVE
#include <arm_sve.h>

OCELLUS_TARGET_BEGIN(OCELLUS_TARGET_SVE)
#if !defined(__clang__)
#pragma GCC optimize("schedule-insns")  // here gcc 12 copies sums without: z0 to z7, which A needs, go to them
#endif
OCELLUS_BEGIN
namespace kernels {

/// All of the set but gemm_s8.
struct sve_tiles : neon {
  static constexpr int float_rows = 8;
  static constexpr int s8_rows = 8;

  /// Columns of a panel that one register holds: 8 or 16.
  static OCELLUS_INLINE int columns() noexcept { return svcntw() >= 16 ? 16 : 8; }

  /// Holds loads from p back until `sum` is there (steps.inl).
  template <class T, class V>
  static OCELLUS_INLINE void after(const T*& p, V sum) noexcept {
    __asm__("" : "+r"(p) : "w"(sum));
  }

  /// Depth `j` (0..3) of the four at b, widened.
  static OCELLUS_INLINE svfloat32_t weights_at(svbool_t on, const float* b, int j) noexcept {
    return svld1_f32(on, b + j * 16);
  }
  static OCELLUS_INLINE svfloat32_t weights_at(svbool_t on, const f16* b, int j) noexcept {
    return svcvt_f32_f16_x(on, svreinterpret_f16_u32(svld1uh_u32(on, &b[j * 16].bits)));
  }
  static OCELLUS_INLINE svfloat32_t weights_at(svbool_t on, const bf16* b, int j) noexcept {
    const svuint32_t pair = svld1_u32(on, reinterpret_cast<const std::uint32_t*>(&b[j / 2 * 32]));
    return svreinterpret_f32_u32(j % 2 == 0 ? svlsl_n_u32_x(on, pair, 16) : svand_n_u32_x(on, pair, 0xffff0000u));
  }

  // SVE types fit no array, so the accumulators of a tile are named one by one; those beyond MR vanish.
#define OCELLUS_SVE_ROWS(row) row(0) row(1) row(2) row(3) row(4) row(5) row(6) row(7)

  /// MR rows times the registers at b and, if Two, at b + second; the sums of the latter go to out + 16 or + 8.
  template <int MR, bool Two, class W>
  static OCELLUS_NOINLINE void tile_registers(const float* a, std::ptrdiff_t lda, const W* b, std::ptrdiff_t second,
                                              int k, float* out, std::ptrdiff_t ldo, std::ptrdiff_t out2) noexcept {
#define OCELLUS_SVE_SUM(r) [[maybe_unused]] svfloat32_t x##r = svdup_n_f32(0), y##r = svdup_n_f32(0);
#define OCELLUS_SVE_LOAD(r) [[maybe_unused]] const svfloat32_t v##r = svld1rq_f32(four, a + (r < MR ? r : 0) * lda + d);
#define OCELLUS_SVE_STEP(r)                                     \
  if constexpr (r < MR) {                                       \
    x##r = svmla_lane_f32(x##r, w, v##r, j);                    \
    if constexpr (Two) y##r = svmla_lane_f32(y##r, w2, v##r, j); \
    if constexpr (r == MR - 1) after(b, Two ? y##r : x##r);     \
  }
#define OCELLUS_SVE_TAIL(r)                                                 \
  if constexpr (r < MR) {                                                   \
    const svfloat32_t v = svdup_n_f32(a[r * lda + d + j]);                  \
    x##r = svmla_f32_x(on, x##r, w, v);                                     \
    if constexpr (Two) y##r = svmla_f32_x(on, y##r, w2, v);                 \
  }
#define OCELLUS_SVE_STORE(r)                                                \
  if constexpr (r < MR) {                                                   \
    svst1_f32(on, out + r * ldo, x##r);                                     \
    if constexpr (Two) svst1_f32(on, out + r * ldo + out2, y##r);           \
  }
    const svbool_t on = svwhilelt_b32_s32(0, columns()), four = svptrue_b32();
    OCELLUS_SVE_ROWS(OCELLUS_SVE_SUM)
    int d = 0;
    for (; d + 4 <= k; d += 4) {
      OCELLUS_SVE_ROWS(OCELLUS_SVE_LOAD)
#define OCELLUS_SVE_DEPTH(depth)                                                       \
  {                                                                                    \
    constexpr int j = depth;                                                           \
    const svfloat32_t w = weights_at(on, b, j);                                        \
    [[maybe_unused]] const svfloat32_t w2 = weights_at(on, Two ? b + second : b, j);   \
    OCELLUS_SVE_ROWS(OCELLUS_SVE_STEP)                                                 \
  }
      OCELLUS_SVE_DEPTH(0)
      OCELLUS_SVE_DEPTH(1)
      OCELLUS_SVE_DEPTH(2)
      OCELLUS_SVE_DEPTH(3)
      b += 64;
    }
    for (int j = 0; d + j < k; j++) {
      const svfloat32_t w = weights_at(on, b, j);
      [[maybe_unused]] const svfloat32_t w2 = weights_at(on, Two ? b + second : b, j);
      OCELLUS_SVE_ROWS(OCELLUS_SVE_TAIL)
    }
    OCELLUS_SVE_ROWS(OCELLUS_SVE_STORE)
#undef OCELLUS_SVE_SUM
#undef OCELLUS_SVE_LOAD
#undef OCELLUS_SVE_STEP
#undef OCELLUS_SVE_TAIL
#undef OCELLUS_SVE_STORE
#undef OCELLUS_SVE_DEPTH
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(panel_stride);
    if (columns() == 8) {
      constexpr std::ptrdiff_t half = std::is_same_v<W, bf16> ? 16 : 8;
      for (int p = 0; p < P; p++) tile_registers<MR, true, W>(a, lda, b + p * stride, half, k, out + p * 16, ldo, 8);
    } else {
      tile_registers<MR, P == 2, W>(a, lda, b, stride, k, out, ldo, 16);
    }
  }

  /// The same of u8 activations: sum (a - 128) w.
  template <int MR, bool Two>
  static OCELLUS_NOINLINE void tile_registers_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                                 std::ptrdiff_t second, int k, std::int32_t* out,
                                                 std::ptrdiff_t ldo, std::ptrdiff_t out2) noexcept {
#define OCELLUS_SVE_SUM(r) [[maybe_unused]] svint32_t x##r = svdup_n_s32(0), y##r = svdup_n_s32(0);
#define OCELLUS_SVE_LOAD(r)               \
  [[maybe_unused]] const svint8_t v##r = svreinterpret_s8_u8( \
      sveor_n_u8_x(all, svld1rq_u8(all, a + (r < MR ? r : 0) * lda + d), 128));
#define OCELLUS_SVE_WORD(r)                                                              \
  [[maybe_unused]] const svint8_t v##r = svreinterpret_s8_u8(                            \
      sveor_n_u8_x(all, svld1rq_u8(four, a + (r < MR ? r : 0) * lda + d), 128));
#define OCELLUS_SVE_STEP(r)                                      \
  if constexpr (r < MR) {                                        \
    x##r = svdot_lane_s32(x##r, w, v##r, j);                     \
    if constexpr (Two) y##r = svdot_lane_s32(y##r, w2, v##r, j); \
    if constexpr (r == MR - 1) after(b, Two ? y##r : x##r);      \
  }
#define OCELLUS_SVE_STORE(r)                                      \
  if constexpr (r < MR) {                                         \
    svst1_s32(words, out + r * ldo, x##r);                        \
    if constexpr (Two) svst1_s32(words, out + r * ldo + out2, y##r); \
  }
#define OCELLUS_SVE_DEPTH(depth)                                                                 \
  {                                                                                              \
    constexpr int j = depth;                                                                     \
    const svint8_t w = svld1_s8(on, b + j * 64);                                                 \
    [[maybe_unused]] const svint8_t w2 = svld1_s8(on, (Two ? b + second : b) + j * 64);          \
    OCELLUS_SVE_ROWS(OCELLUS_SVE_STEP)                                                           \
  }
    const svbool_t on = svwhilelt_b8_s32(0, 4 * columns()), words = svwhilelt_b32_s32(0, columns()),
                   all = svptrue_b8(), four = svwhilelt_b8_s32(0, 4);
    OCELLUS_SVE_ROWS(OCELLUS_SVE_SUM)
    int d = 0;
    for (; d + 16 <= k; d += 16) {
      OCELLUS_SVE_ROWS(OCELLUS_SVE_LOAD)
      OCELLUS_SVE_DEPTH(0)
      OCELLUS_SVE_DEPTH(1)
      OCELLUS_SVE_DEPTH(2)
      OCELLUS_SVE_DEPTH(3)
      b += 256;
    }
    for (; d < k; d += 4) {
      OCELLUS_SVE_ROWS(OCELLUS_SVE_WORD)
      OCELLUS_SVE_DEPTH(0)
      b += 64;
    }
    OCELLUS_SVE_ROWS(OCELLUS_SVE_STORE)
#undef OCELLUS_SVE_SUM
#undef OCELLUS_SVE_LOAD
#undef OCELLUS_SVE_WORD
#undef OCELLUS_SVE_STEP
#undef OCELLUS_SVE_STORE
#undef OCELLUS_SVE_DEPTH
  }
#undef OCELLUS_SVE_ROWS

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_shifted(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                            std::size_t panel_stride, int k, std::int32_t* out,
                                            std::ptrdiff_t ldo) noexcept {
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(panel_stride);
    if (columns() == 8) {
      for (int p = 0; p < P; p++) tile_registers_s8<MR, true>(a, lda, b + p * stride, 32, k, out + p * 16, ldo, 8);
    } else {
      tile_registers_s8<MR, P == 2>(a, lda, b, stride, k, out, ldo, 16);
    }
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
    for (int p = 0; p < P; p++)
      add_lacking<MR>(b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
  }

#include <ocellus/generic/unroll.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

/// The matrix product of sum (a - 128) w.
struct sve_shifted : sve_tiles {
  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    tile_shifted<MR, P>(a, lda, b, panel_stride, k, out, ldo);
  }

#include <ocellus/generic/gemm.inl>
};

struct sve : sve_tiles {
  static constexpr isa id = isa::sve;
  static void gemm_s8(const gemm_args& g) noexcept { gemm_shifted<sve_shifted>(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
