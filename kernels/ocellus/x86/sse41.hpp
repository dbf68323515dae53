// SSE4.1 and SSSE3, for CPUs without AVX: Celeron and Atom NAS boxes (J4125 and its like), Penryn and later.
//
// | intrinsic          | instruction  | use                                                                   |
// |--------------------|--------------|-----------------------------------------------------------------------|
// | _mm_maddubs_epi16  | pmaddubsw    | s8 products of quad_rows or more: four at a time (gemm_quads.inl)     |
// | _mm_madd_epi16     | pmaddwd      | adds those sums in s32; else u8 x s8 as s16 halves                    |
// | * and + of __m128d | mulpd, addpd | f32 tile: a fused multiply-add without the instruction, see below     |
//
// f32: law 2 wants FMA chains and these CPUs have no FMA. The product of two floats is exact in double;
// adding in double and rounding to float differs from a fused multiply-add only if the double sum was itself
// rounded onto the middle between two floats, or where the float is subnormal. Both are looked for (the sum's
// low 29 bits are 0x10000000, or it is below 2^-126), and such a tile is computed again by the scalar set's
// std::fma. The price: about ten instructions for two products instead of two for four. Convert with --dtype
// s8 for these machines; f32 is here to be right.
//
// Overflow of the s8 tiles: as in avx2.hpp. Registers: of quads 2 x 16: 8 accumulators + 1 of ones + 2 of A + 2 = 13 of
// 16, W from memory; of halves 2 x 16: 8 + 1 of W + 2 of A + 1 = 12. % of peak: not measured on such a CPU.
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__x86_64__)
#include <immintrin.h>

OCELLUS_TARGET_BEGIN("sse4.1,ssse3")
OCELLUS_BEGIN
namespace kernels {

struct sse41 : scalar {
  static constexpr isa id = isa::sse41;

#include <ocellus/generic/unroll.inl>

  struct vec {
    __m128 v[4];  // lanes 0..3, 4..7, 8..11, 12..15

    static OCELLUS_INLINE vec zero() noexcept { return set(0.f); }
    static OCELLUS_INLINE vec set(float x) noexcept {
      const __m128 s = _mm_set1_ps(x);
      return {{s, s, s, s}};
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return {{_mm_loadu_ps(p), _mm_loadu_ps(p + 4), _mm_loadu_ps(p + 8), _mm_loadu_ps(p + 12)}};
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      alignas(16) float t[16] = {};
      for (int i = 0; i < n; i++) t[i] = p[i];
      return load(t);
    }
    /// Four f16 values: these CPUs have no conversion instruction. The exponent is rebiased by an addition; a subnormal
    /// f16 gets an implicit one, which a subtraction takes away, so that no float here is subnormal: those are slow.
    static OCELLUS_INLINE __m128 widen4(const f16* p) noexcept {
      const auto constant = [](int bits) OCELLUS_LAMBDA { return _mm_set1_epi32(bits); };
      const __m128i h = _mm_cvtepu16_epi32(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)));
      const __m128i size = _mm_slli_epi32(_mm_and_si128(h, constant(0x7fff)), 13);
      const __m128i sign = _mm_slli_epi32(_mm_and_si128(h, constant(0x8000)), 16);
      const __m128i infinite = _mm_and_si128(_mm_cmpgt_epi32(size, constant(0x0f7fffff)), constant(0x7f800000));
      const __m128i normal = _mm_or_si128(_mm_add_epi32(size, constant(112 << 23)), infinite);
      const __m128 subnormal =
          _mm_castsi128_ps(_mm_add_epi32(size, constant(113 << 23))) - _mm_castsi128_ps(constant(113 << 23));
      const __m128i is_subnormal = _mm_cmplt_epi32(size, constant(1 << 23));
      const __m128 all = _mm_blendv_ps(_mm_castsi128_ps(normal), subnormal, _mm_castsi128_ps(is_subnormal));
      return _mm_or_ps(all, _mm_castsi128_ps(sign));
    }
    static OCELLUS_INLINE vec widen(const f16* p) noexcept {
      return {{widen4(p), widen4(p + 4), widen4(p + 8), widen4(p + 12)}};
    }
    static OCELLUS_INLINE vec widen(const std::int8_t* p) noexcept {
      const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      return {{_mm_cvtepi32_ps(_mm_cvtepi8_epi32(b)), _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128(b, 4))),
               _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128(b, 8))),
               _mm_cvtepi32_ps(_mm_cvtepi8_epi32(_mm_srli_si128(b, 12)))}};
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      _mm_storeu_ps(p, v[0]);
      _mm_storeu_ps(p + 4, v[1]);
      _mm_storeu_ps(p + 8, v[2]);
      _mm_storeu_ps(p + 12, v[3]);
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      alignas(16) float t[16];
      store(t);
      for (int i = 0; i < n; i++) p[i] = t[i];
    }
    static OCELLUS_INLINE __m128 select4(__m128 a, __m128 b, int n) noexcept {
      const __m128i take = _mm_cmpgt_epi32(_mm_set1_epi32(n), _mm_setr_epi32(0, 1, 2, 3));
      return _mm_blendv_ps(b, a, _mm_castsi128_ps(take));
    }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      return {{select4(a.v[0], b.v[0], n), select4(a.v[1], b.v[1], n - 4), select4(a.v[2], b.v[2], n - 8),
               select4(a.v[3], b.v[3], n - 12)}};
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(vec b) const noexcept {
      return {{v[0] + b.v[0], v[1] + b.v[1], v[2] + b.v[2], v[3] + b.v[3]}};
    }
    OCELLUS_INLINE vec operator-(vec b) const noexcept {
      return {{v[0] - b.v[0], v[1] - b.v[1], v[2] - b.v[2], v[3] - b.v[3]}};
    }
    OCELLUS_INLINE vec operator*(vec b) const noexcept {
      vec r{{v[0] * b.v[0], v[1] * b.v[1], v[2] * b.v[2], v[3] * b.v[3]}};
      for (__m128& quarter : r.v) OCELLUS_ROUNDED(quarter);
      return r;
    }
    OCELLUS_INLINE vec operator/(vec b) const noexcept {
      return {{v[0] / b.v[0], v[1] / b.v[1], v[2] / b.v[2], v[3] / b.v[3]}};
    }
    static OCELLUS_INLINE vec min(vec a, vec b) noexcept {
      return {{_mm_min_ps(a.v[0], b.v[0]), _mm_min_ps(a.v[1], b.v[1]), _mm_min_ps(a.v[2], b.v[2]),
               _mm_min_ps(a.v[3], b.v[3])}};
    }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept {
      return {{_mm_max_ps(a.v[0], b.v[0]), _mm_max_ps(a.v[1], b.v[1]), _mm_max_ps(a.v[2], b.v[2]),
               _mm_max_ps(a.v[3], b.v[3])}};
    }
    OCELLUS_INLINE float sum() const noexcept {
      const __m128 s4 = (v[0] + v[2]) + (v[1] + v[3]);
      const __m128 s2 = s4 + _mm_movehl_ps(s4, s4);
      return _mm_cvtss_f32(s2 + _mm_movehdup_ps(s2));
    }
    OCELLUS_INLINE float hmax() const noexcept {
      const __m128 m4 = _mm_max_ps(_mm_max_ps(v[0], v[2]), _mm_max_ps(v[1], v[3]));
      const __m128 m2 = _mm_max_ps(m4, _mm_movehl_ps(m4, m4));
      return _mm_cvtss_f32(_mm_max_ss(m2, _mm_movehdup_ps(m2)));
    }
    OCELLUS_INLINE float hmin() const noexcept {
      const __m128 m4 = _mm_min_ps(_mm_min_ps(v[0], v[2]), _mm_min_ps(v[1], v[3]));
      const __m128 m2 = _mm_min_ps(m4, _mm_movehl_ps(m4, m4));
      return _mm_cvtss_f32(_mm_min_ss(m2, _mm_movehdup_ps(m2)));
    }
    static OCELLUS_INLINE __m128 add_exponent4(__m128 p, __m128 t) noexcept {
      return _mm_castsi128_ps(_mm_add_epi32(_mm_castps_si128(p), _mm_slli_epi32(_mm_castps_si128(t), 23)));
    }
    static OCELLUS_INLINE vec add_exponent(vec p, vec t) noexcept {
      return {{add_exponent4(p.v[0], t.v[0]), add_exponent4(p.v[1], t.v[1]), add_exponent4(p.v[2], t.v[2]),
               add_exponent4(p.v[3], t.v[3])}};
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      const __m128i z = _mm_set1_epi32(zero_point);
      const auto at = [&](int i) { return _mm_add_epi32(_mm_cvtps_epi32(v[i]), z); };
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                       _mm_packus_epi16(_mm_packs_epi32(at(0), at(1)), _mm_packs_epi32(at(2), at(3))));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept {
      const __m128i b = _mm_packs_epi16(_mm_packs_epi32(_mm_cvtps_epi32(v[0]), _mm_cvtps_epi32(v[1])),
                                        _mm_packs_epi32(_mm_cvtps_epi32(v[2]), _mm_cvtps_epi32(v[3])));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_max_epi8(b, _mm_set1_epi8(-127)));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const __m128i z = _mm_set1_epi32(zero_point);
      const auto at = [&](int i) {
        const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(acc + 4 * i));
        const __m128i s = _mm_loadu_si128(reinterpret_cast<const __m128i*>(sums + 4 * i));
        return _mm_cvtepi32_ps(_mm_sub_epi32(a, _mm_mullo_epi32(z, s)));
      };
      return {{at(0), at(1), at(2), at(3)}};
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      const auto at = [](const std::int8_t* p) {
        return _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      };
      const __m128i a = _mm_unpacklo_epi8(at(r0), at(r1)), b = _mm_unpacklo_epi8(at(r2), at(r3));
      const __m128i c = _mm_unpackhi_epi8(at(r0), at(r1)), d = _mm_unpackhi_epi8(at(r2), at(r3));
      __m128i* o = reinterpret_cast<__m128i*>(out);
      _mm_storeu_si128(o, _mm_unpacklo_epi16(a, b));
      _mm_storeu_si128(o + 1, _mm_unpackhi_epi16(a, b));
      _mm_storeu_si128(o + 2, _mm_unpacklo_epi16(c, d));
      _mm_storeu_si128(o + 3, _mm_unpackhi_epi16(c, d));
    }
  };

  static constexpr int epilogue_panels = 1;
  static constexpr int most_panels = 1;
  static constexpr int float_rows = 2;
  static constexpr int s8_rows = 2;

  /// Four columns of depth d of a panel, widened.
  static OCELLUS_INLINE __m128 widen4(const float* b, int d, int quarter) noexcept {
    return _mm_loadu_ps(b + d * 16 + quarter * 4);
  }
  static OCELLUS_INLINE __m128 widen4(const bf16* b, int d, int quarter) noexcept {
    const __m128i pair = _mm_loadu_si128(reinterpret_cast<const __m128i*>(b + (d / 2) * 32 + quarter * 8));
    return _mm_castsi128_ps(d % 2 == 0 ? _mm_slli_epi32(pair, 16)
                                       : _mm_and_si128(pair, _mm_set1_epi32(static_cast<int>(0xffff0000u))));
  }
  static OCELLUS_INLINE __m128 widen4(const f16* b, int d, int quarter) noexcept {
    return vec::widen4(b + d * 16 + quarter * 4);
  }

  /// Rounds two sums of exact products to float; `odd` collects those that were rounded twice or came out
  /// subnormal.
  static OCELLUS_INLINE __m128 round_sum(__m128d s, __m128i& odd) noexcept {
    const __m128i low = _mm_and_si128(_mm_castpd_si128(s), _mm_set1_epi64x(0x1fffffff));
    const __m128d size = _mm_andnot_pd(_mm_set1_pd(-0.0), s);
    const __m128d tiny =
        _mm_and_pd(_mm_cmplt_pd(size, _mm_set1_pd(0x1p-126)), _mm_cmpneq_pd(s, _mm_setzero_pd()));
    odd = _mm_or_si128(
        odd, _mm_or_si128(_mm_cmpeq_epi64(low, _mm_set1_epi64x(0x10000000)), _mm_castpd_si128(tiny)));
    return _mm_cvtpd_ps(s);
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    static_assert(P == 1);
    __m128i odd = _mm_setzero_si128();
    for (int quarter = 0; quarter < 4; quarter++) {
      __m128 acc[MR];
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = _mm_setzero_ps(); });
      for (int d = 0; d < k; d++) {
        const __m128 w = widen4(b, d, quarter);
        const __m128d w0 = _mm_cvtps_pd(w), w1 = _mm_cvtps_pd(_mm_movehl_ps(w, w));
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const __m128d x = _mm_set1_pd(static_cast<double>(a[r * lda + d]));
          const __m128d s0 = x * w0 + _mm_cvtps_pd(acc[r]);
          const __m128d s1 = x * w1 + _mm_cvtps_pd(_mm_movehl_ps(acc[r], acc[r]));
          acc[r] = _mm_movelh_ps(round_sum(s0, odd), round_sum(s1, odd));
        });
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA { _mm_storeu_ps(out + r * ldo + quarter * 4, acc[r]); });
    }
    if (_mm_testz_si128(odd, odd) == 0) scalar::tile_float<MR, 1, W>(a, lda, b, panel_stride, k, out, ldo);
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    static_assert(P == 1);
    __m128i acc[MR][4];
    unroll<MR>([&](int r)
                   OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = acc[r][2] = acc[r][3] = _mm_setzero_si128(); });
    const __m128i low = _mm_set1_epi16(0x00ff);
    for (int d = 0; d < k; d += 4) {
      // bytes 0 and 2 of each group of four, then 1 and 3, as s16: pmaddwd adds two products in s32. W and A are read
      // again for the second half: kept, they would need a seventeenth register.
      const std::int8_t* w = b + d * 16;
      const std::uint8_t* rows = a + d;
      unroll<2>([&](auto half) OCELLUS_LAMBDA {
        __asm__("" : "+r"(w), "+r"(rows));
        __m128i x[MR];
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          std::int32_t four;
          std::memcpy(&four, rows + r * lda, 4);
          x[r] = _mm_set1_epi32(four);
          x[r] = half == 0 ? _mm_and_si128(x[r], low) : _mm_srli_epi16(x[r], 8);
        });
        unroll<4>([&](auto quarter) OCELLUS_LAMBDA {
          if constexpr (quarter > 0) __asm__("" : "+r"(w), "+x"(acc[0][quarter - 1]));  // no loads ahead
          __m128i y = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + quarter * 16));
          if constexpr (half == 0) y = _mm_slli_epi16(y, 8);
          y = _mm_srai_epi16(y, 8);
          unroll<MR>([&](int r) OCELLUS_LAMBDA {
            acc[r][quarter] = _mm_add_epi32(acc[r][quarter], _mm_madd_epi16(x[r], y));
            OCELLUS_KEEP(acc[r][quarter]);
          });
        });
      });
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int quarter) OCELLUS_LAMBDA {
        _mm_storeu_si128(reinterpret_cast<__m128i*>(out + r * ldo + quarter * 4), acc[r][quarter]);
      });
    });
  }

  static constexpr int quad_rows = 8;  // below, making weights ready costs what it saves

  template <bool based>
  static OCELLUS_NOINLINE void bound_quads(std::int8_t* bounded, std::uint32_t* reached, std::int32_t* base_sums,
                                           const std::int8_t* w, const std::uint8_t* range, const std::uint8_t* base,
                                           int depth) noexcept {
    const __m128i zero = _mm_setzero_si128(), ones = _mm_set1_epi16(1);
    __m128i sums[4] = {zero, zero, zero, zero};
    for (int d = 0; d < depth; d += 8) {
      __m128i clear[2];
      unroll<2>([&](int half) OCELLUS_LAMBDA {  // columns 0..7, 8..15
        __m128i ends[2];
        unroll<2>([&](int q) OCELLUS_LAMBDA {  // four columns
          const int column = half * 8 + q * 4;
          __m128i most[2], least[2], products[2];
          unroll<2>([&](int four) OCELLUS_LAMBDA {
            const int at = (d + four * 4) * 16 + column * 4;
            const __m128i x = _mm_loadu_si128(reinterpret_cast<const __m128i*>(w + at));
            _mm_store_si128(reinterpret_cast<__m128i*>(bounded + at), x);
            const __m128i ranges = _mm_set1_epi32(load_four(range + d + four * 4));
            most[four] = _mm_maddubs_epi16(ranges, _mm_max_epi8(x, zero));
            least[four] = _mm_maddubs_epi16(ranges, _mm_min_epi8(x, zero));
            products[four] = _mm_maddubs_epi16(_mm_set1_epi32(load_four(base + d + four * 4)), x);
          });
          ends[q] =
              _mm_or_si128(_mm_cmpeq_epi16(_mm_adds_epi16(most[0], most[1]), _mm_set1_epi16(32767)),
                           _mm_cmpeq_epi16(_mm_adds_epi16(least[0], least[1]), _mm_set1_epi16(-32768)));
          if constexpr (based)
            sums[column / 4] = _mm_add_epi32(sums[column / 4], _mm_add_epi32(_mm_madd_epi16(products[0], ones),
                                                                             _mm_madd_epi16(products[1], ones)));
        });
        clear[half] = _mm_cmpeq_epi16(_mm_packs_epi16(ends[0], ends[1]), zero);  // both quads of a column
      });
      const int columns = _mm_movemask_epi8(_mm_packs_epi16(clear[0], clear[1]));
      reached[d / 16] |= static_cast<std::uint32_t>(columns ^ 0xffff) << (d % 16 * 2);
    }
    if (depth % 16 != 0) std::memset(bounded + depth * 16, 0, 128);
    if constexpr (based)
      unroll<4>([&](int q) OCELLUS_LAMBDA {
        __m128i* const to = reinterpret_cast<__m128i*>(base_sums + q * 4);
        _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), sums[q]));
      });
  }

  static OCELLUS_INLINE void add_excess(std::int32_t* sums, const std::uint8_t* a, std::ptrdiff_t two_tiles,
                                        std::int32_t excess, int rows) noexcept {
    const __m128i e = _mm_set1_epi32(excess), ones = _mm_set1_epi16(1);
    for (int r = 0; r < rows; r += 8, a += two_tiles)
      unroll<2>([&](int i) OCELLUS_LAMBDA {
        const __m128i x = _mm_load_si128(reinterpret_cast<const __m128i*>(a + i * 16));
        __m128i* to = reinterpret_cast<__m128i*>(sums + r + i * 4);
        _mm_store_si128(to, _mm_add_epi32(_mm_load_si128(to), _mm_madd_epi16(_mm_maddubs_epi16(x, e), ones)));
      });
  }

  /// sum += x, in the register of the sum and in the order of the source: left to themselves compilers add into x's
  /// register and several sums at once, and twelve of them do not stay in sixteen registers.
  static OCELLUS_INLINE void add_in_place(__m128i& sum, __m128i x) noexcept {
#if defined(__AVX__)  // the whole program is compiled for it: instructions of both encodings do not mix well
    __asm__ volatile("{vpaddd %1, %0, %0|vpaddd %0, %0, %1}" : "+x"(sum) : "x"(x));
#else
    __asm__ volatile("{paddd %1, %0|paddd %0, %1}" : "+x"(sum) : "x"(x));
#endif
  }

  /// One or two rows of tile_quads: more sums than two rows' and W's eight vectors do not stay in sixteen registers.
  template <int MR>
  static OCELLUS_NOINLINE void tile_quad_rows(const std::uint8_t* a, const std::int8_t* bounded, int k,
                                              std::int32_t* out, prefetch_run& next) noexcept {
    __m128i acc[MR][4];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int q) OCELLUS_LAMBDA {
        acc[r][q] = _mm_load_si128(reinterpret_cast<const __m128i*>(out + r * 16 + q * 4));
      });
    });
    __m128i ones = _mm_set1_epi16(1);
    OCELLUS_KEEP(ones);
    const char* ahead = next.at;
    const std::int8_t* const end = bounded + k * 16;
    for (const std::int8_t* w = bounded; w < end; w += 128, a += 64) {
      _mm_prefetch(ahead, _MM_HINT_T1);
      ahead += next.pace;
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        __asm__ volatile("" : "+r"(w));  // W is read again for each row: kept, it would need eight more registers
        const __m128i x = _mm_set1_epi32(load_four(a + r * 4)), y = _mm_set1_epi32(load_four(a + 32 + r * 4));
        unroll<4>([&](int q) OCELLUS_LAMBDA {
          const __m128i* at = reinterpret_cast<const __m128i*>(w + q * 16);
          const __m128i sum =
              _mm_add_epi16(_mm_maddubs_epi16(x, _mm_load_si128(at)), _mm_maddubs_epi16(y, _mm_load_si128(at + 4)));
          add_in_place(acc[r][q], _mm_madd_epi16(sum, ones));
        });
      });
    }
    next.at = ahead;
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int q) OCELLUS_LAMBDA {
        _mm_store_si128(reinterpret_cast<__m128i*>(out + r * 16 + q * 4), acc[r][q]);
      });
    });
  }

  template <int MR>
  static OCELLUS_INLINE void tile_quads(const std::uint8_t* a, const std::int8_t* bounded, int k, std::int32_t* out,
                                        prefetch_run& next) noexcept {
    tile_quad_rows<2>(a, bounded, k, out, next);
    tile_quad_rows<MR - 2>(a + 8, bounded, k, out + 32, next);
  }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/x86/gemm_quads.inl>
  static OCELLUS_NOINLINE void gemm_s8_by_quads(const gemm_args& g) noexcept { gemm_s8_by_quads_of<sse41>(g); }
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
