// AVX2, FMA, F16C: Haswell and later, Zen 1 and later.
//
// | intrinsic            | instruction | use                                                                    |
// |----------------------|-------------|------------------------------------------------------------------------|
// | _mm256_fmadd_ps      | vfmadd231ps | f32 tile, 8 lanes (add_product: the instruction itself)                 |
// | _mm256_cvtph_ps      | vcvtph2ps   | f16 weights, widened per panel row                                     |
// | _mm256_maddubs_epi16 | vpmaddubsw  | s8 products of quad_rows or more: four at a time (gemm_quads.inl)      |
// | _mm256_madd_epi16    | vpmaddwd    | adds those sums in s32; else u8 x s8 as s16 halves                     |
//
// Overflow: s16 products of u8 x s8 are below 2^15, pmaddwd adds two of them in s32; see ops/gemm.hpp for K.
// % of pmaddwd's peak, which is 16 products an instruction, at 50 rows. s8 by quads, with weights and rows made ready:
// 106-110 % on Zen 5 (kernels-zen5.json), 97-102 % on Zen 3 (kernels-zen3.json: zero weights, no excesses); their
// tile takes three multiplications where pmaddwd takes four. Halves, eight rows split beforehand: 73 % on Zen 5. f32 on
// Zen 3: 93-98 % of its peak. Where another thread shares the core, every instruction counts.
// Registers: f32 tile 6 x 16: 12 accumulators + 2 of W + 1 of A = 15. s8 tile of quads 4 x 16: 8 + 1 of ones + 2 of W
// (and two from memory) + 2 of A + 2 = 15; of halves 4 x 16: 8 + 4 of W + 2 of A = 14. f32 1 x 64: 8 + W + 1 of A.
// One panel at a time: sixteen registers hold no more. But one row of floats takes four.
#pragma once

#include <ocellus/generic/scalar.hpp>

#if defined(__x86_64__)
#include <immintrin.h>

OCELLUS_TARGET_BEGIN("avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx2 : scalar {
  static constexpr isa id = isa::avx2;

  struct vec {
    __m256 lo, hi;  // lanes 0..7, 8..15

    static OCELLUS_INLINE vec zero() noexcept { return {_mm256_setzero_ps(), _mm256_setzero_ps()}; }
    static OCELLUS_INLINE vec set(float x) noexcept { return {_mm256_set1_ps(x), _mm256_set1_ps(x)}; }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return {_mm256_loadu_ps(p), _mm256_loadu_ps(p + 8)};
    }
    static OCELLUS_INLINE __m256i mask8(int n) noexcept {  // the first n lanes, n may be <= 0 or >= 8
      return _mm256_cmpgt_epi32(_mm256_set1_epi32(n), _mm256_setr_epi32(0, 1, 2, 3, 4, 5, 6, 7));
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      return {_mm256_maskload_ps(p, mask8(n)), _mm256_maskload_ps(p + 8, mask8(n - 8))};
    }
    static OCELLUS_INLINE vec widen(const f16* p) noexcept {
      const __m128i* at = reinterpret_cast<const __m128i*>(p);
      return {_mm256_cvtph_ps(_mm_loadu_si128(at)), _mm256_cvtph_ps(_mm_loadu_si128(at + 1))};
    }
    static OCELLUS_INLINE vec widen(const std::int8_t* p) noexcept {
      const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(p));
      return {_mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(b)),
              _mm256_cvtepi32_ps(_mm256_cvtepi8_epi32(_mm_srli_si128(b, 8)))};
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      _mm256_storeu_ps(p, lo);
      _mm256_storeu_ps(p + 8, hi);
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      _mm256_maskstore_ps(p, mask8(n), lo);
      _mm256_maskstore_ps(p + 8, mask8(n - 8), hi);
    }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      return {_mm256_blendv_ps(b.lo, a.lo, _mm256_castsi256_ps(mask8(n))),
              _mm256_blendv_ps(b.hi, a.hi, _mm256_castsi256_ps(mask8(n - 8)))};
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return select_n(a, zero(), n); }
    OCELLUS_INLINE vec operator+(vec b) const noexcept { return {lo + b.lo, hi + b.hi}; }
    OCELLUS_INLINE vec operator-(vec b) const noexcept { return {lo - b.lo, hi - b.hi}; }
    OCELLUS_INLINE vec operator*(vec b) const noexcept {
      vec r{lo * b.lo, hi * b.hi};
      OCELLUS_ROUNDED(r.lo);
      OCELLUS_ROUNDED(r.hi);
      return r;
    }
    OCELLUS_INLINE vec operator/(vec b) const noexcept { return {lo / b.lo, hi / b.hi}; }
    static OCELLUS_INLINE vec min(vec a, vec b) noexcept {
      return {_mm256_min_ps(a.lo, b.lo), _mm256_min_ps(a.hi, b.hi)};
    }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept {
      return {_mm256_max_ps(a.lo, b.lo), _mm256_max_ps(a.hi, b.hi)};
    }
    OCELLUS_INLINE float sum() const noexcept {
      const __m256 s8 = lo + hi;
      const __m128 s4 = _mm256_castps256_ps128(s8) + _mm256_extractf128_ps(s8, 1);
      const __m128 s2 = s4 + _mm_movehl_ps(s4, s4);
      return _mm_cvtss_f32(s2 + _mm_movehdup_ps(s2));
    }
    OCELLUS_INLINE float hmax() const noexcept {
      const __m256 s8 = _mm256_max_ps(lo, hi);
      const __m128 s4 = _mm_max_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
      const __m128 s2 = _mm_max_ps(s4, _mm_movehl_ps(s4, s4));
      return _mm_cvtss_f32(_mm_max_ss(s2, _mm_movehdup_ps(s2)));
    }
    OCELLUS_INLINE float hmin() const noexcept {
      const __m256 s8 = _mm256_min_ps(lo, hi);
      const __m128 s4 = _mm_min_ps(_mm256_castps256_ps128(s8), _mm256_extractf128_ps(s8, 1));
      const __m128 s2 = _mm_min_ps(s4, _mm_movehl_ps(s4, s4));
      return _mm_cvtss_f32(_mm_min_ss(s2, _mm_movehdup_ps(s2)));
    }
    static OCELLUS_INLINE __m256 add_exponent8(__m256 p, __m256 t) noexcept {
      return _mm256_castsi256_ps(
          _mm256_add_epi32(_mm256_castps_si256(p), _mm256_slli_epi32(_mm256_castps_si256(t), 23)));
    }
    static OCELLUS_INLINE vec add_exponent(vec p, vec t) noexcept {
      return {add_exponent8(p.lo, t.lo), add_exponent8(p.hi, t.hi)};
    }
    /// Sixteen s32 in two registers to sixteen s16, in order, saturated.
    static OCELLUS_INLINE __m256i pack16(__m256i a, __m256i b) noexcept {
      return _mm256_permute4x64_epi64(_mm256_packs_epi32(a, b), 0xd8);
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      const __m256i z = _mm256_set1_epi32(zero_point);
      const __m256i w =
          pack16(_mm256_add_epi32(_mm256_cvtps_epi32(lo), z), _mm256_add_epi32(_mm256_cvtps_epi32(hi), z));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                       _mm_packus_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1)));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept {
      const __m256i w = pack16(_mm256_cvtps_epi32(lo), _mm256_cvtps_epi32(hi));
      const __m128i b = _mm_packs_epi16(_mm256_castsi256_si128(w), _mm256_extracti128_si256(w, 1));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_max_epi8(b, _mm_set1_epi8(-127)));
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const __m256i z = _mm256_set1_epi32(zero_point);
      const auto at = [](const std::int32_t* p) {
        return _mm256_loadu_si256(reinterpret_cast<const __m256i*>(p));
      };
      return {_mm256_cvtepi32_ps(_mm256_sub_epi32(at(acc), _mm256_mullo_epi32(z, at(sums)))),
              _mm256_cvtepi32_ps(_mm256_sub_epi32(at(acc + 8), _mm256_mullo_epi32(z, at(sums + 8))))};
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

  /// Four blocks of 8 x 8.
  static OCELLUS_NOINLINE void transpose16(float* out, const float* const* rows, int first,
                                           int columns) noexcept {
    for (int r0 = 0; r0 < 16; r0 += 8)
      for (int c0 = 0; c0 < columns; c0 += 8) {
        __m256 a[8], b[8];
        for (int r = 0; r < 8; r++) a[r] = _mm256_loadu_ps(rows[r0 + r] + first + c0);
        for (int r = 0; r < 8; r += 2) {
          b[r] = _mm256_unpacklo_ps(a[r], a[r + 1]);
          b[r + 1] = _mm256_unpackhi_ps(a[r], a[r + 1]);
        }
        for (int r = 0; r < 8; r += 4) {  // then a[r + c] holds columns c and 4 + c of rows r..r+3
          a[r] = _mm256_shuffle_ps(b[r], b[r + 2], 0x44);
          a[r + 1] = _mm256_shuffle_ps(b[r], b[r + 2], 0xee);
          a[r + 2] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0x44);
          a[r + 3] = _mm256_shuffle_ps(b[r + 1], b[r + 3], 0xee);
        }
        for (int c = 0; c < 4; c++) {
          b[c] = _mm256_permute2f128_ps(a[c], a[4 + c], 0x20);
          b[4 + c] = _mm256_permute2f128_ps(a[c], a[4 + c], 0x31);
        }
        for (int c = 0; c < 8 && c0 + c < columns; c++) _mm256_storeu_ps(out + 16 * (c0 + c) + r0, b[c]);
      }
  }

  static constexpr int epilogue_panels = 1;
  static constexpr int norm_rows = 2;
  static constexpr int depthwise_vecs = 4;
  static constexpr int dot_streams = 4;  // Zen 3 reads f32 and f16 sooner than by one, s8 waits for its conversions
  static constexpr int float_rows = 6;
  static constexpr int float_depth = 768;  // 48 KB of W, from L2; 384 is 2 % slower; undivided, 3072 is 4-9 % slower
  static constexpr int most_panels = 1;
  static constexpr int wide_rows = 1;
  static constexpr int s8_rows = 4;

#include <ocellus/generic/unroll.inl>

  /// Eight columns of depth K of a panel from `b` on, widened.
  template <int K>
  static OCELLUS_INLINE __m256 widen(const float* b, int half) noexcept {
    return _mm256_loadu_ps(b + K * 16 + half * 8);
  }
  template <int K>
  static OCELLUS_INLINE __m256 widen(const f16* b, int half) noexcept {
    return _mm256_cvtph_ps(_mm_loadu_si128(reinterpret_cast<const __m128i*>(b + K * 16 + half * 8)));
  }
  template <int K>
  static OCELLUS_INLINE __m256 widen(const bf16* b, int half) noexcept {
    // A tile of six rows has one register to spare: no mask (clang makes one of two shifts unless it does not see them
    // together), and the pair is read again for its second half.
    if constexpr (K % 2 == 1) __asm__("" : "+r"(b));
    __m256i pair = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + K / 2 * 32 + half * 16));
    if constexpr (K % 2 == 1) {
      pair = _mm256_srli_epi32(pair, 16);
      OCELLUS_KEEP(pair);
    }
    return _mm256_castsi256_ps(_mm256_slli_epi32(pair, 16));
  }

  /// sum += x * w, in the register of `sum`: over several depths compilers let sums wander, then move or spill them.
  static OCELLUS_INLINE void add_product(__m256& sum, __m256 x, __m256 w) noexcept {
    __asm__("{vfmadd231ps %2, %1, %0|vfmadd231ps %0, %1, %2}" : "+x"(sum) : "x"(x), "x"(w));
  }

  /// acc += column of A (at `rows`, every third row; the others are one and two strides away) * row K of the panel.
  template <int K, int MR, class W>
  static OCELLUS_INLINE void multiply_add(__m256 (&acc)[MR][2], const float* const* rows, std::ptrdiff_t lda,
                                          const W* b) noexcept {
    const __m256 w0 = widen<K>(b, 0), w1 = widen<K>(b, 1);
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      const __m256 x = _mm256_broadcast_ss(rows[r / 3] + r % 3 * lda + K);
      add_product(acc[r][0], x, w0);
      add_product(acc[r][1], x, w1);
    });
  }

  /// Depths that the f32 tile's loop takes at a time: 91 instructions (gcc) for 48 products, one depth took 27 for 12.
  /// A core's front end has time for that, but only half of it is left where another thread (of a neighbour in the
  /// cloud, say) shares the core: there this is 1.25 times as quick on Zen 3. Tiles of quads take two steps likewise.
  static constexpr int step = 4;

  /// The last k < step depths of a tile, onto its sums.
  template <class W>
  static OCELLUS_NOINLINE void add_depths(const float* a, std::ptrdiff_t lda, const W* b, int k, float* out,
                                          std::ptrdiff_t ldo, int rows) noexcept {
    for (int r = 0; r < rows; r++)
      for (int half = 0; half < 2; half++) {
        float* const to = out + r * ldo + half * 8;
        __m256 sum = _mm256_loadu_ps(to);
        unroll<step - 1>([&](auto d) OCELLUS_LAMBDA {
          if (d < k) sum = _mm256_fmadd_ps(_mm256_broadcast_ss(a + r * lda + d), widen<d>(b, half), sum);
        });
        _mm256_storeu_ps(to, sum);
      }
  }

  /// One row times four panels. It waits for weights from memory, which on Zen 3 come sooner where four panels are read
  /// side by side than one after the other, fetched ahead or not. bf16, whose depths lie in pairs, goes on one after
  /// the other: f16 is the 16 bits for such CPUs.
  template <class W>
  static OCELLUS_INLINE void tile_wide(const float* a, const W* b, std::size_t panel_stride, int k, float* out,
                                       bool onto) noexcept {
    if constexpr (std::is_same_v<W, bf16>) {
      for (int p = 0; p < 4; p++, b += panel_stride) {
        const prefetch_run next = prefetch_run::first(b + panel_stride, 2 * panel_width, 1, false);
        tile_float<1, 1>(a, 0, b, 0, k, out + p * 16, 0, next, onto);
      }
      return;
    }
    __m256 acc[4][1][2];
    unroll<4>([&](int p) OCELLUS_LAMBDA {
      acc[p][0][0] = onto ? _mm256_loadu_ps(out + p * 16) : _mm256_setzero_ps();
      acc[p][0][1] = onto ? _mm256_loadu_ps(out + p * 16 + 8) : _mm256_setzero_ps();
    });
    for (const float* const end = a + k; a < end; a++, b += 16)
      unroll<4>([&](auto p) OCELLUS_LAMBDA { multiply_add<0>(acc[p], &a, 0, b + p * panel_stride); });
    unroll<4>([&](int p) OCELLUS_LAMBDA {
      _mm256_storeu_ps(out + p * 16, acc[p][0][0]);
      _mm256_storeu_ps(out + p * 16 + 8, acc[p][0][1]);
    });
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out, std::ptrdiff_t ldo,
                                          const prefetch_run& next, bool onto, const unfinished_tile& = {}) noexcept {
    static_assert(P == 1 || (MR == 1 && P == 4));
    if constexpr (P == 4) return tile_wide(a, b, panel_stride, k, out, onto);
    __m256 acc[MR][2];
    if (onto) {
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        acc[r][0] = _mm256_loadu_ps(out + r * ldo);
        acc[r][1] = _mm256_loadu_ps(out + r * ldo + 8);
      });
    } else {
      unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = _mm256_setzero_ps(); });
    }
    const float* rows[(MR + 2) / 3];
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    const char* ahead = next.at != nullptr ? next.at : reinterpret_cast<const char*>(b);
    constexpr int fetches = sizeof(W);  // lines of W that a step takes
    const std::ptrdiff_t pace = step * next.pace;
    for (const W* const end = b + k / step * step * 16; b < end; b += 16 * step) {
      _mm_prefetch(ahead, _MM_HINT_T1);  // where four tiles or more share the panel, this meets every line
      if (pace > 64) [[unlikely]]
        unroll<fetches - 1>([&](int i) OCELLUS_LAMBDA { _mm_prefetch(ahead + (i + 1) * 64, _MM_HINT_T1); });
      ahead += pace;
      unroll<step>([&](auto d) OCELLUS_LAMBDA { multiply_add<d>(acc, rows, lda, b); });
      unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] += step; });
    }
    __asm__("" : "+r"(out), "+r"(ldo));  // so that nobody keeps MR addresses all along the loop
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      _mm256_storeu_ps(out + r * ldo, acc[r][0]);
      _mm256_storeu_ps(out + r * ldo + 8, acc[r][1]);
    });
    if (k % step != 0) add_depths(a + k / step * step, lda, b, k % step, out, ldo, MR);
  }

  static constexpr std::size_t split_bytes = 32 * 1024;  // 8 rows of depth 2048

  /// Of each four bytes 0 and 2, then 1 and 3, as s16.
  static OCELLUS_NOINLINE void split_rows(std::uint8_t* out, std::ptrdiff_t ldo, const std::uint8_t* a,
                                          std::ptrdiff_t lda, int rows, int depth) noexcept {
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < depth; d += 8) {  // rows are readable up to a multiple of 8
        const __m128i x = _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a + r * lda + d));
        const __m128i two = _mm_unpacklo_epi32(_mm_and_si128(x, _mm_set1_epi16(0x00ff)), _mm_srli_epi16(x, 8));
        std::uint8_t* to = out + r * ldo + 2 * d;
        if (d + 8 <= depth) {
          _mm_storeu_si128(reinterpret_cast<__m128i*>(to), two);
        } else {
          _mm_storel_epi64(reinterpret_cast<__m128i*>(to), two);
        }
      }
  }

  template <int MR, int P, bool Split = false>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    static_assert(P == 1);
    __m256i acc[MR][2];
    unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r][0] = acc[r][1] = _mm256_setzero_si256(); });
    const __m256i low = _mm256_set1_epi16(0x00ff);
    const std::uint8_t* rows = a;
    for (int d = 0; d < k; d += 4) {
      // bytes 0 and 2 of each group of four, then 1 and 3, as s16: pmaddwd adds two products in s32
      const __m256i w0 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b));
      const __m256i w1 = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b + 32));
      _mm_prefetch(reinterpret_cast<const char*>(b + panel_stride), _MM_HINT_T1);
      const __m256i w0_even = _mm256_srai_epi16(_mm256_slli_epi16(w0, 8), 8),
                    w0_odd = _mm256_srai_epi16(w0, 8);
      const __m256i w1_even = _mm256_srai_epi16(_mm256_slli_epi16(w1, 8), 8),
                    w1_odd = _mm256_srai_epi16(w1, 8);
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        __m256i even, odd;
        if constexpr (Split) {
          std::int32_t first, second;  // each broadcast from memory
          std::memcpy(&first, rows + r * lda, 4);
          std::memcpy(&second, rows + r * lda + 4, 4);
          even = _mm256_set1_epi32(first);
          odd = _mm256_set1_epi32(second);
        } else {
          std::int32_t four;
          std::memcpy(&four, rows + r * lda, 4);
          const __m256i x = _mm256_set1_epi32(four);
          even = _mm256_and_si256(x, low);
          odd = _mm256_srli_epi16(x, 8);
        }
        // one sum after the other: both products at once would need a seventeenth register
        acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(even, w0_even));
        OCELLUS_KEEP(acc[r][0]);
        acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(even, w1_even));
        OCELLUS_KEEP(acc[r][1]);
        acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(odd, w0_odd));
        acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(odd, w1_odd));
        OCELLUS_KEEP(acc[r][0]);
        OCELLUS_KEEP(acc[r][1]);
      });
      rows += Split ? 8 : 4;
      b += 64;
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo), acc[r][0]);
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo + 8), acc[r][1]);
    });
  }

  static constexpr int quad_rows = 12;  // below, making weights ready costs what it saves

  template <bool based>
  static OCELLUS_NOINLINE void bound_quads(std::int8_t* bounded, std::uint32_t* reached, std::int32_t* base_sums,
                                           const std::int8_t* w, const std::uint8_t* range, const std::uint8_t* base,
                                           int depth) noexcept {
    const __m256i zero = _mm256_setzero_si256(), ones = _mm256_set1_epi16(1);
    const __m256i order = _mm256_setr_epi32(0, 4, 1, 5, 2, 6, 3, 7);
    __m256i sums[2] = {zero, zero};
    for (int d = 0; d < depth; d += 16) {
      __m256i clear[2];
      unroll<2>([&](int i) OCELLUS_LAMBDA {  // eight depths
        const int at = d + i * 8;
        const std::int8_t* const from = w + (at < depth ? at : d) * 16;  // past the end: any weights
        __m256i ends[2];
        unroll<2>([&](auto h) OCELLUS_LAMBDA {  // columns 0..7, 8..15
          __m256i most[2], least[2], products[2];
          unroll<2>([&](int four) OCELLUS_LAMBDA {
            const __m256i x = _mm256_loadu_si256(reinterpret_cast<const __m256i*>(from + four * 64 + h * 32));
            _mm256_store_si256(reinterpret_cast<__m256i*>(bounded + at * 16 + four * 64 + h * 32), x);
            const __m256i ranges = _mm256_set1_epi32(load_four(range + at + four * 4));
            most[four] = _mm256_maddubs_epi16(ranges, _mm256_max_epi8(x, zero));
            least[four] = _mm256_maddubs_epi16(ranges, _mm256_min_epi8(x, zero));
            products[four] = _mm256_maddubs_epi16(_mm256_set1_epi32(load_four(base + at + four * 4)), x);
          });
          ends[h] = _mm256_or_si256(
              _mm256_cmpeq_epi16(_mm256_adds_epi16(most[0], most[1]), _mm256_set1_epi16(32767)),
              _mm256_cmpeq_epi16(_mm256_adds_epi16(least[0], least[1]), _mm256_set1_epi16(-32768)));
          if constexpr (based)
            sums[h] = _mm256_add_epi32(sums[h], _mm256_add_epi32(_mm256_madd_epi16(products[0], ones),
                                                                 _mm256_madd_epi16(products[1], ones)));
        });
        clear[i] = _mm256_cmpeq_epi16(_mm256_packs_epi16(ends[0], ends[1]), zero);  // both quads of a column
      });
      const __m256i columns = _mm256_permutevar8x32_epi32(_mm256_packs_epi16(clear[0], clear[1]), order);
      reached[d / 16] = ~static_cast<std::uint32_t>(_mm256_movemask_epi8(columns));
    }
    if constexpr (based)
      unroll<2>([&](int h) OCELLUS_LAMBDA {
        __m256i* const to = reinterpret_cast<__m256i*>(base_sums + h * 8);
        _mm256_store_si256(to, _mm256_add_epi32(_mm256_load_si256(to), sums[h]));
      });
  }

  static OCELLUS_INLINE void add_excess(std::int32_t* sums, const std::uint8_t* a, std::ptrdiff_t two_tiles,
                                        std::int32_t excess, int rows) noexcept {
    const __m256i e = _mm256_set1_epi32(excess), ones = _mm256_set1_epi16(1);
    const auto add = [&](int at) OCELLUS_LAMBDA {  // eight rows
      const __m256i x = _mm256_load_si256(reinterpret_cast<const __m256i*>(a + at * two_tiles));
      __m256i* const to = reinterpret_cast<__m256i*>(sums + at * 8);
      _mm256_store_si256(to,
                         _mm256_add_epi32(_mm256_load_si256(to), _mm256_madd_epi16(_mm256_maddubs_epi16(x, e), ones)));
    };
    for (; rows > 8; rows -= 16, sums += 16, a += 2 * two_tiles) {
      add(0);
      add(1);
    }
    if (rows > 0) add(0);
  }

  template <int MR>
  static OCELLUS_NOINLINE void tile_quads(const std::uint8_t* a, const std::int8_t* bounded, int k, std::int32_t* out,
                                          prefetch_run& next) noexcept {
    const auto load = [](const void* at) OCELLUS_LAMBDA { return _mm256_load_si256(static_cast<const __m256i*>(at)); };
    __m256i acc[MR][2];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<2>([&](int h) OCELLUS_LAMBDA { acc[r][h] = load(out + r * 16 + h * 8); });
    });
    __m256i ones = _mm256_set1_epi16(1);
    OCELLUS_KEEP(ones);
    const char* ahead = next.at;
    const std::int8_t* const end = bounded + k * 16;
    for (const std::int8_t* w = bounded; w < end; w += 2 * 128, a += 2 * 64) {
      _mm_prefetch(ahead, _MM_HINT_T1);
      ahead += 4 * next.pace;
      unroll<2>([&](int d) OCELLUS_LAMBDA {
        const __m256i w0 = load(w + d * 128), w1 = load(w + d * 128 + 32);
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          __asm__ volatile("" : "+r"(w));  // the other two are read again for each row: kept, they would not fit
          const __m256i w2 = load(w + d * 128 + 64), w3 = load(w + d * 128 + 96);
          const __m256i x = _mm256_set1_epi32(load_four(a + d * 64 + r * 4)),
                        y = _mm256_set1_epi32(load_four(a + d * 64 + 32 + r * 4));
          const __m256i q0 = _mm256_add_epi16(_mm256_maddubs_epi16(x, w0), _mm256_maddubs_epi16(y, w2));
          const __m256i q1 = _mm256_add_epi16(_mm256_maddubs_epi16(x, w1), _mm256_maddubs_epi16(y, w3));
          acc[r][0] = _mm256_add_epi32(acc[r][0], _mm256_madd_epi16(q0, ones));
          OCELLUS_KEEP(acc[r][0]);
          acc[r][1] = _mm256_add_epi32(acc[r][1], _mm256_madd_epi16(q1, ones));
          OCELLUS_KEEP(acc[r][1]);
        });
      });
    }
    next.at = ahead;
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<2>([&](int h) OCELLUS_LAMBDA {
        _mm256_store_si256(reinterpret_cast<__m256i*>(out + r * 16 + h * 8), acc[r][h]);
      });
    });
  }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/x86/gemm_quads.inl>
  static OCELLUS_NOINLINE void gemm_s8_by_quads(const gemm_args& g) noexcept { gemm_s8_by_quads_of<avx2>(g); }
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
