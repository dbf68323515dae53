// RISC-V vectors 1.0 (V, registers of 128 bits or more): the RVA23 profile and boards such as those with SpacemiT K1.
//
// | intrinsic            | instruction    | use                                                              |
// |----------------------|----------------|------------------------------------------------------------------|
// | vfmacc_vf            | vfmacc.vf      | f32 tile: sixteen columns, the activation from a scalar register |
// | vwmacc_vx            | vwmacc.vx      | s8 tile: s16 weight x u8 activation added in s32, exact          |
// | vnsrl_wx, vsra_vx    | vnsrl, vsra    | one of the four depths of a panel row, widened to s16            |
// | vle32, vsse32        | vle32, vsse32  | transposition: a row read, a column written                      |
//
// Any vector length: a tile takes sixteen columns of f32 in four registers where these have 128 bits, in two at 256, in
// one from 512 on (LMUL, chosen once per tile from vlenb). The row-wise `vec` of sixteen lanes is a vector of the
// compiler's, which puts it into four registers at vl = 16 whatever their length: a member of a class cannot be of an
// RVV type. Nothing reads lanes beyond vl, so it does not matter what an agnostic tail holds.
// Overflow: as in ops/gemm.hpp; u8 activations need no shift, for products are made in 16 x 16 bits.
// Registers at LMUL = 4: f32 tile 7 x 16: 28 of accumulators + 4 of W = 32; f16 in halves of 4 and 3 rows, for widening
// takes more; s8 tile 6 x 16: 24 + 4 of W + 2 widened = 30.
// There is no integer dot product in V: an s8 product costs as many instructions as an f32 one, and what s8 saves is
// memory. f16 weights are widened by integers, for Zvfhmin is not part of V.
// clang >= 19 as a region; clang 16 to 18 where the whole unit is built with V; gcc 12 has no such intrinsics.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/riscv/README.md).
#pragma once

#include <ocellus/generic/scalar.hpp>

#if OCELLUS_HAS_RVV
#include <riscv_vector.h>

OCELLUS_TARGET_BEGIN("arch=+v")
OCELLUS_BEGIN
namespace kernels {

struct rvv : scalar {
  static constexpr isa id = isa::rvv;

  typedef float f32x16 __attribute__((vector_size(64)));
  typedef float f32x8 __attribute__((vector_size(32)));
  typedef float f32x4 __attribute__((vector_size(16)));
  typedef std::int32_t s32x16 __attribute__((vector_size(64)));
  typedef std::uint32_t u32x16 __attribute__((vector_size(64)));
  typedef std::uint16_t u16x16 __attribute__((vector_size(32)));
  typedef std::uint8_t u8x16 __attribute__((vector_size(16)));
  typedef std::int8_t s8x16 __attribute__((vector_size(16)));

  struct vec {
    f32x16 x;

    template <class V, class T>
    static OCELLUS_INLINE V read(const T* p) noexcept {
      V v;
      __builtin_memcpy(&v, p, sizeof(v));
      return v;
    }
    template <class V, class T>
    static OCELLUS_INLINE void write(T* p, V v) noexcept {
      __builtin_memcpy(p, &v, sizeof(v));
    }
    static OCELLUS_INLINE u32x16 bits(f32x16 v) noexcept { return reinterpret_cast<u32x16>(v); }
    static OCELLUS_INLINE f32x16 floats(u32x16 v) noexcept { return reinterpret_cast<f32x16>(v); }
    static OCELLUS_INLINE u32x16 words(std::uint32_t v) noexcept {
      return u32x16{} + v;
    }

    static OCELLUS_INLINE vec zero() noexcept { return {f32x16{}}; }
    static OCELLUS_INLINE vec set(float v) noexcept {
      return {f32x16{v, v, v, v, v, v, v, v, v, v, v, v, v, v, v, v}};
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept { return {read<f32x16>(p)}; }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      alignas(64) float t[16] = {};
      copy_n(t, p, n);
      return load(t);
    }
    OCELLUS_INLINE void store(float* p) const noexcept { write(p, x); }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      alignas(64) float t[16];
      store(t);
      copy_n(p, t, n);
    }
    /// n <= 16 floats.
    static OCELLUS_INLINE void copy_n(float* to, const float* from, int n) noexcept {
      const std::size_t vl = static_cast<std::size_t>(n);
      __riscv_vse32_v_f32m4(to, __riscv_vle32_v_f32m4(from, vl), vl);
    }
    static OCELLUS_INLINE vec select_n(const vec& a, const vec& b, int n) noexcept {
      const s32x16 lane = {0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15};
      return {lane < n ? a.x : b.x};
    }
    static OCELLUS_INLINE vec first_n(const vec& a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(const vec& b) const noexcept { return {x + b.x}; }
    OCELLUS_INLINE vec operator-(const vec& b) const noexcept { return {x - b.x}; }
    OCELLUS_INLINE vec operator*(const vec& b) const noexcept {
      vec r{x * b.x};
      OCELLUS_ROUNDED(r.x);
      return r;
    }
    OCELLUS_INLINE vec operator/(const vec& b) const noexcept { return {x / b.x}; }
    static OCELLUS_INLINE vec min(const vec& a, const vec& b) noexcept { return {a.x < b.x ? a.x : b.x}; }
    static OCELLUS_INLINE vec max(const vec& a, const vec& b) noexcept { return {a.x > b.x ? a.x : b.x}; }
    OCELLUS_INLINE f32x8 low() const noexcept { return __builtin_shufflevector(x, x, 0, 1, 2, 3, 4, 5, 6, 7); }
    OCELLUS_INLINE f32x8 high() const noexcept {
      return __builtin_shufflevector(x, x, 8, 9, 10, 11, 12, 13, 14, 15);
    }
    OCELLUS_INLINE float sum() const noexcept {
      const f32x8 s8 = low() + high();
      const f32x4 s4 =
          __builtin_shufflevector(s8, s8, 0, 1, 2, 3) + __builtin_shufflevector(s8, s8, 4, 5, 6, 7);
      return (s4[0] + s4[2]) + (s4[1] + s4[3]);
    }
    OCELLUS_INLINE float hmax() const noexcept { return __builtin_reduce_max(x); }
    OCELLUS_INLINE float hmin() const noexcept { return __builtin_reduce_min(x); }
    static OCELLUS_INLINE vec add_exponent(const vec& p, const vec& t) noexcept {
      return {floats(bits(p.x) + (bits(t.x) << 23))};
    }
    /// scalar::round_even of each lane, plus `more`, modulo 2^32.
    OCELLUS_INLINE s32x16 rounded(std::int32_t more) const noexcept {
      const u32x16 r = bits(x + set(12582912.f).x) - words(0x4b400000u) + words(static_cast<std::uint32_t>(more));
      return reinterpret_cast<s32x16>(r);
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* p, std::int32_t zero_point) const noexcept {
      const s32x16 r = rounded(zero_point), from0 = r < 0 ? s32x16{} : r, most = s32x16{} + 255;
      write(p, __builtin_convertvector(from0 > 255 ? most : from0, u8x16));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* p) const noexcept {
      const s32x16 r = rounded(0), most = s32x16{} + 127, least = s32x16{} - 127;
      const s32x16 from = r < -127 ? least : r;
      write(p, __builtin_convertvector(from > 127 ? most : from, s8x16));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const u32x16 v = read<u32x16>(acc) - read<u32x16>(sums) * words(static_cast<std::uint32_t>(zero_point));
      return {__builtin_convertvector(reinterpret_cast<s32x16>(v), f32x16)};
    }
    static OCELLUS_INLINE vec widen(const f16* p) noexcept {
      const u32x16 h = __builtin_convertvector(read<u16x16>(p), u32x16), magnitude = (h & 0x7fffu) << 13;
      const u32x16 finite = bits(floats(magnitude) * set(5.19229686e33f).x);
      const u32x16 any = magnitude >= 0x0f800000u ? finite | 0x7f800000u : finite;
      return {floats(any | (h & 0x8000u) << 16)};
    }
    static OCELLUS_INLINE vec widen(const std::int8_t* p) noexcept {
      return {__builtin_convertvector(read<s8x16>(p), f32x16)};
    }
    /// Bytes r0[i] r1[i] r2[i] r3[i] as one word each.
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      const auto word = [](const std::int8_t* r) OCELLUS_LAMBDA {
        return __builtin_convertvector(read<u8x16>(r), u32x16);
      };
      write(out, word(r0) | word(r1) << 8 | word(r2) << 16 | word(r3) << 24);
    }
  };

  /// A row at a time, written down a column.
  static OCELLUS_NOINLINE void transpose16(float* out, const float* const* rows, int first,
                                           int columns) noexcept {
    const std::size_t vl = static_cast<std::size_t>(columns);
    for (int r = 0; r < 16; r++)
      __riscv_vsse32_v_f32m4(out + r, 16 * sizeof(float), __riscv_vle32_v_f32m4(rows[r] + first, vl), vl);
  }

  static constexpr int float_rows = 7;
  static constexpr int s8_rows = 6;

  // Sixteen columns as groups of registers: `group4` is LMUL = 4 and so on. A class may name RVV types, not hold them.
#define OCELLUS_RVV_GROUP(name, m, half, count)                                                                \
  struct name {                                                                                                \
    using f32 = vfloat32##m##_t;                                                                               \
    using s32 = vint32##m##_t;                                                                                 \
    using u32 = vuint32##m##_t;                                                                                \
    using s16 = vint16##half##_t;                                                                              \
    static constexpr int registers = count;                                                                    \
    static OCELLUS_INLINE f32 zero() noexcept { return __riscv_vfmv_v_f_f32##m(0, 16); }                       \
    static OCELLUS_INLINE s32 none() noexcept { return __riscv_vmv_v_x_i32##m(0, 16); }                        \
    static OCELLUS_INLINE f32 floats(u32 v) noexcept { return __riscv_vreinterpret_v_u32##m##_f32##m(v); }     \
    static OCELLUS_INLINE u32 bits(f32 v) noexcept { return __riscv_vreinterpret_v_f32##m##_u32##m(v); }       \
    static OCELLUS_INLINE f32 load(const float* p) noexcept { return __riscv_vle32_v_f32##m(p, 16); }          \
    static OCELLUS_INLINE u32 words(const void* p) noexcept {                                                  \
      return __riscv_vle32_v_u32##m(static_cast<const std::uint32_t*>(p), 16);                                 \
    }                                                                                                          \
    static OCELLUS_INLINE u32 halves(const f16* p) noexcept {                                                  \
      return __riscv_vzext_vf2_u32##m(                                                                         \
          __riscv_vle16_v_u16##half(reinterpret_cast<const std::uint16_t*>(p), 16), 16);                       \
    }                                                                                                          \
    static OCELLUS_INLINE s16 signed_half(u32 v, unsigned shift) noexcept {                                    \
      return __riscv_vreinterpret_v_u16##half##_i16##half(__riscv_vnsrl_wx_u16##half(v, shift, 16));           \
    }                                                                                                          \
    static OCELLUS_INLINE s16 sign_extended(s16 v) noexcept { return __riscv_vsra_vx_i16##half(v, 8, 16); }    \
    static OCELLUS_INLINE s16 raised(s16 v) noexcept { return __riscv_vsll_vx_i16##half(v, 8, 16); }           \
    static OCELLUS_INLINE void store(float* p, f32 v) noexcept { __riscv_vse32_v_f32##m(p, v, 16); }           \
    static OCELLUS_INLINE void store(std::int32_t* p, s32 v) noexcept { __riscv_vse32_v_i32##m(p, v, 16); }    \
    static OCELLUS_INLINE f32 fma(f32 sum, float a, f32 w) noexcept {                                          \
      return __riscv_vfmacc_vf_f32##m(sum, a, w, 16);                                                          \
    }                                                                                                          \
    static OCELLUS_INLINE s32 add_product(s32 sum, std::int16_t a, s16 w) noexcept {                           \
      return __riscv_vwmacc_vx_i32##m(sum, a, w, 16);                                                          \
    }                                                                                                          \
    /* Exact, infinities too: 2^112 moves the exponent and makes subnormals normal. */                         \
    static OCELLUS_INLINE f32 widen(const f16* p) noexcept {                                                   \
      const u32 h = halves(p);                                                                                 \
      const u32 magnitude = __riscv_vsll(__riscv_vand(h, 0x7fff, 16), 13, 16);                                 \
      const u32 finite = bits(__riscv_vfmul(floats(magnitude), 5.19229686e33f, 16));                           \
      const u32 any = __riscv_vor_tumu(                                                                        \
          __riscv_vmsgtu(magnitude, 0x0f7fffffu, 16), finite, finite, 0x7f800000u, 16);                        \
      return floats(__riscv_vor(any, __riscv_vsll(__riscv_vand(h, 0x8000u, 16), 16, 16), 16));                 \
    }                                                                                                          \
  };
  OCELLUS_RVV_GROUP(group4, m4, m2, 4)
  OCELLUS_RVV_GROUP(group2, m2, m1, 2)
  OCELLUS_RVV_GROUP(group1, m1, mf2, 1)
#undef OCELLUS_RVV_GROUP

  /// Depth `j` (0..3) of the four at b, widened.
  template <class G>
  static OCELLUS_INLINE typename G::f32 weights_at(const float* b, int j) noexcept {
    return G::load(b + j * 16);
  }
  template <class G>
  static OCELLUS_INLINE typename G::f32 weights_at(const f16* b, int j) noexcept {
    return G::widen(b + j * 16);
  }
  template <class G>
  static OCELLUS_INLINE typename G::f32 weights_at(const bf16* b, int j) noexcept {
    const auto pair = G::words(b + j / 2 * 32);
    return G::floats(j % 2 == 0 ? __riscv_vsll(pair, 16, 16) : __riscv_vand(pair, 0xffff0000u, 16));
  }

  // RVV types fit no array, so the accumulators of a tile are named one by one; those beyond MR and P vanish.
#define OCELLUS_RVV_ROWS(row) row(0) row(1) row(2) row(3) row(4) row(5) row(6)
#define OCELLUS_RVV_POINTER(r) [[maybe_unused]] const auto* a##r = a + (r < MR ? r : 0) * lda;
#define OCELLUS_RVV_STORE(r)                                \
  if constexpr (r < MR) {                                   \
    G::store(out + r * ldo, x##r);                          \
    if constexpr (P == 2) G::store(out + r * ldo + 16, y##r); \
  }

  /// Holds loads from p back until `sum` is there. Costs no instruction; without it clang loads weights ahead and
  /// spills accumulators.
  template <class T, class V>
  static OCELLUS_INLINE void after(const T*& p, V sum) noexcept {
    __asm__("" : "+r"(p) : "vr"(sum));
  }

  template <class G, int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float_of(const float* a, std::ptrdiff_t lda, const W* b,
                                             std::size_t panel_stride, int k, float* out,
                                             std::ptrdiff_t ldo) noexcept {
#define OCELLUS_RVV_SUM(r) [[maybe_unused]] auto x##r = G::zero(), y##r = G::zero();
#define OCELLUS_RVV_STEP(r) \
  if constexpr (r < MR) x##r = G::fma(x##r, a##r[j], w);
#define OCELLUS_RVV_STEP2(r) \
  if constexpr (r < MR) y##r = G::fma(y##r, a##r[j], w2);
#define OCELLUS_RVV_SECOND(r) \
  if constexpr (r == MR - 1 && P == 2) after(second, x##r);
#define OCELLUS_RVV_AFTER(r) \
  if constexpr (r == MR - 1) after(b, P == 2 ? y##r : x##r);
    OCELLUS_RVV_ROWS(OCELLUS_RVV_POINTER)
    OCELLUS_RVV_ROWS(OCELLUS_RVV_SUM)
    const auto step = [&](int j) OCELLUS_LAMBDA {
      [[maybe_unused]] const W* second = b + panel_stride;
      const auto w = weights_at<G>(b, j);
      OCELLUS_RVV_ROWS(OCELLUS_RVV_STEP)
      OCELLUS_RVV_ROWS(OCELLUS_RVV_SECOND)
      if constexpr (P == 2) {
        const auto w2 = weights_at<G>(second, j);
        OCELLUS_RVV_ROWS(OCELLUS_RVV_STEP2)
      }
      OCELLUS_RVV_ROWS(OCELLUS_RVV_AFTER)
    };
#define OCELLUS_RVV_ADVANCE(r) a##r += 4;
    int d = 0;
    for (; d + 4 <= k; d += 4, b += 64) {
      step(0);
      step(1);
      step(2);
      step(3);
      OCELLUS_RVV_ROWS(OCELLUS_RVV_ADVANCE)
    }
    for (int j = 0; d + j < k; j++) step(j);
    OCELLUS_RVV_ROWS(OCELLUS_RVV_STORE)
#undef OCELLUS_RVV_SUM
#undef OCELLUS_RVV_STEP
#undef OCELLUS_RVV_STEP2
#undef OCELLUS_RVV_SECOND
#undef OCELLUS_RVV_AFTER
  }

  template <class G, int MR, int P>
  static OCELLUS_NOINLINE void tile_s8_of(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                          std::size_t panel_stride, int k, std::int32_t* out,
                                          std::ptrdiff_t ldo) noexcept {
#define OCELLUS_RVV_SUM(r) [[maybe_unused]] auto x##r = G::none(), y##r = G::none();
#define OCELLUS_RVV_STEP(r)                                             \
  if constexpr (r < MR) {                                               \
    const std::int16_t v = a##r[j];                                     \
    x##r = G::add_product(x##r, v, w);                                  \
    if constexpr (P == 2) y##r = G::add_product(y##r, v, w2);           \
  }
    OCELLUS_RVV_ROWS(OCELLUS_RVV_POINTER)
    OCELLUS_RVV_ROWS(OCELLUS_RVV_SUM)
    for (int d = 0; d < k; d += 4, b += 64) {
      const auto four = G::words(b);
      [[maybe_unused]] const auto four2 = G::words(P == 2 ? b + panel_stride : b);
      // byte j of each word: moved to the upper half of 16 bits, then down with its sign
      const auto depth = [](auto words, unsigned j) OCELLUS_LAMBDA {
        return G::sign_extended(j == 0 ? G::raised(G::signed_half(words, 0))
                                       : G::signed_half(words, 8 * (j - 1)));
      };
      const auto step = [&](auto j) OCELLUS_LAMBDA {
        const auto w = depth(four, j);
        [[maybe_unused]] const auto w2 = depth(four2, j);
        OCELLUS_RVV_ROWS(OCELLUS_RVV_STEP)
      };
      step(std::integral_constant<unsigned, 0>{});
      step(std::integral_constant<unsigned, 1>{});
      step(std::integral_constant<unsigned, 2>{});
      step(std::integral_constant<unsigned, 3>{});
      OCELLUS_RVV_ROWS(OCELLUS_RVV_ADVANCE)
    }
    OCELLUS_RVV_ROWS(OCELLUS_RVV_STORE)
#undef OCELLUS_RVV_SUM
#undef OCELLUS_RVV_STEP
#undef OCELLUS_RVV_ADVANCE
  }
#undef OCELLUS_RVV_ROWS
#undef OCELLUS_RVV_POINTER
#undef OCELLUS_RVV_STORE

  /// Floats in one register.
  static OCELLUS_INLINE std::size_t register_floats() noexcept { return __riscv_vsetvlmax_e32m1(); }

  /// The tile in parts where its accumulators would not leave room: eight registers for weights that only widen by a
  /// shift, sixteen for f16.
  template <class G, int MR, int P, class W>
  static OCELLUS_INLINE void parts_float(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride,
                                         int k, float* out, std::ptrdiff_t ldo) noexcept {
    constexpr int fit = (std::is_same_v<W, f16> ? 16 : 28) / G::registers;
    if constexpr (P > 1 && MR * P > (std::is_same_v<W, f16> ? fit / 2 : fit)) {
      for (int p = 0; p < P; p++)
        parts_float<G, MR, 1, W>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, panel_stride, k,
                                 out + p * 16, ldo);
    } else if constexpr (MR > fit) {
      tile_float_of<G, MR - MR / 2, 1, W>(a, lda, b, panel_stride, k, out, ldo);
      constexpr int first = MR - MR / 2;
      tile_float_of<G, MR / 2, 1, W>(a + first * lda, lda, b, panel_stride, k, out + first * ldo, ldo);
    } else {
      tile_float_of<G, MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
    }
  }
  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    const std::size_t floats = register_floats();
    if (floats >= 16) return parts_float<group1, MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
    if (floats >= 8) return parts_float<group2, MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
    parts_float<group4, MR, P, W>(a, lda, b, panel_stride, k, out, ldo);
  }

  template <class G, int MR, int P>
  static OCELLUS_INLINE void parts_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out,
                                       std::ptrdiff_t ldo) noexcept {
    if constexpr (P > 1 && MR * P > (G::registers == 4 ? 5 : 12)) {
      for (int p = 0; p < P; p++)
        tile_s8_of<G, MR, 1>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, panel_stride, k,
                             out + p * 16, ldo);
    } else {
      tile_s8_of<G, MR, P>(a, lda, b, panel_stride, k, out, ldo);
    }
  }
  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    const std::size_t floats = register_floats();
    if (floats >= 16) return parts_s8<group1, MR, P>(a, lda, b, panel_stride, k, out, ldo);
    if (floats >= 8) return parts_s8<group2, MR, P>(a, lda, b, panel_stride, k, out, ldo);
    parts_s8<group4, MR, P>(a, lda, b, panel_stride, k, out, ldo);
  }

#include <ocellus/generic/unroll.inl>
#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
