// AVX-512 F, BW, DQ, VL: Skylake-X and later, Zen 4 and later.
//
// | intrinsic           | instruction   | use                                                       |
// |---------------------|---------------|-----------------------------------------------------------|
// | _mm512_fmadd_ps     | vfmadd231ps   | f32 tile, 16 lanes                                        |
// | _mm512_cvtph_ps     | vcvtph2ps     | f16 weights, widened per panel row                        |
// | _mm512_maddubs_epi16| vpmaddubsw    | s8 products of quad_rows or more without VNNI, as in avx2 |
// | _mm512_madd_epi16   | vpmaddwd      | adds those sums in s32; else u8 x s8 as s16 halves        |
// | _mm512_scalef_ps    | vscalefps     | powers of two, after vrndscaleps                          |
//
// Overflow: as in avx2.hpp.
// Registers: f32 tile 12 x 32: 24 accumulators + 2 of W + broadcasts = 27 of 32, and between two parts of its depth 8
// for a row of the epilogue of the tile before (gcc puts up to five of its values on the stack, none of the products').
// s8 tile of quads 4 x 16: 4 + 1 of ones + 2 of W + 2 of A; of halves 8 x 32: 16 + 4 + 2.
// % of peak at 50 rows. f32: 98-100 % on Zen 5 (kernels-zen5.json), 98 % on Zen 4 (kernels.json). s8 by quads, of
// vpmaddwd's: 75-84 % on Zen 5, 58-60 % on Granite Rapids (kernels-gnr.json: 1.26 to 1.3 times avx2), since making
// ready weighs more beside tiles twice as wide.
#pragma once

#include <ocellus/x86/avx2.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx512 : avx2 {
  static constexpr isa id = isa::avx512;

  struct vec {
    __m512 x;

    static OCELLUS_INLINE vec zero() noexcept { return {_mm512_setzero_ps()}; }
    static OCELLUS_INLINE vec set(float v) noexcept { return {_mm512_set1_ps(v)}; }
    static OCELLUS_INLINE vec load(const float* p) noexcept { return {_mm512_loadu_ps(p)}; }
    static OCELLUS_INLINE __mmask16 mask16(int n) noexcept {
      return static_cast<__mmask16>(_bzhi_u32(0xffffu, static_cast<unsigned>(n)));
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      return {_mm512_maskz_loadu_ps(mask16(n), p)};
    }
    static OCELLUS_INLINE vec widen(const f16* p) noexcept {
      return {_mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(p)))};
    }
    static OCELLUS_INLINE vec widen(const std::int8_t* p) noexcept {
      return {_mm512_cvtepi32_ps(_mm512_cvtepi8_epi32(_mm_loadu_si128(reinterpret_cast<const __m128i*>(p))))};
    }
    OCELLUS_INLINE void store(float* p) const noexcept { _mm512_storeu_ps(p, x); }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept { _mm512_mask_storeu_ps(p, mask16(n), x); }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      return {_mm512_mask_blend_ps(mask16(n), b.x, a.x)};
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return {_mm512_maskz_mov_ps(mask16(n), a.x)}; }
    OCELLUS_INLINE vec operator+(vec b) const noexcept { return {x + b.x}; }
    OCELLUS_INLINE vec operator-(vec b) const noexcept { return {x - b.x}; }
    OCELLUS_INLINE vec operator*(vec b) const noexcept {
      vec r{x * b.x};
      OCELLUS_ROUNDED(r.x);
      return r;
    }
    OCELLUS_INLINE vec operator/(vec b) const noexcept { return {x / b.x}; }
    static OCELLUS_INLINE vec min(vec a, vec b) noexcept { return {_mm512_min_ps(a.x, b.x)}; }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept { return {_mm512_max_ps(a.x, b.x)}; }
    OCELLUS_INLINE avx2::vec halves() const noexcept {
      return {_mm512_castps512_ps256(x), _mm512_extractf32x8_ps(x, 1)};
    }
    OCELLUS_INLINE float sum() const noexcept { return halves().sum(); }
    OCELLUS_INLINE float hmax() const noexcept { return halves().hmax(); }
    OCELLUS_INLINE float hmin() const noexcept { return halves().hmin(); }
    static OCELLUS_INLINE vec nearest(vec v) noexcept {
      return {_mm512_roundscale_ps(v.x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    static OCELLUS_INLINE vec beside_nearest(vec v) noexcept {
      return {_mm512_reduce_ps(v.x, _MM_FROUND_TO_NEAREST_INT | _MM_FROUND_NO_EXC)};
    }
    static OCELLUS_INLINE vec times_power(vec p, vec n) noexcept { return {_mm512_scalef_ps(p.x, n.x)}; }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      const __m512i r = _mm512_add_epi32(_mm512_cvtps_epi32(x), _mm512_set1_epi32(zero_point));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q),
                       _mm512_cvtusepi32_epi8(_mm512_max_epi32(r, _mm512_setzero_si512())));
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept {
      const __m128i b = _mm512_cvtsepi32_epi8(_mm512_cvtps_epi32(x));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(q), _mm_max_epi8(b, _mm_set1_epi8(-127)));
    }
    /// Sixty-four values to bytes: packed together they take a third of the operations.
    static OCELLUS_INLINE void narrow(std::uint8_t* q, const vec* v, std::int32_t zero_point) noexcept {
      const __m512i z = _mm512_set1_epi32(zero_point);
      const auto whole = [&](int i) OCELLUS_LAMBDA { return _mm512_add_epi32(_mm512_cvtps_epi32(v[i].x), z); };
      _mm512_storeu_si512(q, in_order(_mm512_packus_epi16(_mm512_packs_epi32(whole(0), whole(1)),
                                                          _mm512_packs_epi32(whole(2), whole(3)))));
    }
    static OCELLUS_INLINE void narrow(std::int8_t* q, const vec* v) noexcept {
      const auto whole = [&](int i) OCELLUS_LAMBDA { return _mm512_cvtps_epi32(v[i].x); };
      const __m512i b =
          _mm512_packs_epi16(_mm512_packs_epi32(whole(0), whole(1)), _mm512_packs_epi32(whole(2), whole(3)));
      _mm512_storeu_si512(q, in_order(_mm512_max_epi8(b, _mm512_set1_epi8(-127))));
    }
    /// Two packs leave in each lane four bytes of each vec.
    static OCELLUS_INLINE __m512i in_order(__m512i b) noexcept {
      return _mm512_permutexvar_epi32(_mm512_setr_epi32(0, 4, 8, 12, 1, 5, 9, 13, 2, 6, 10, 14, 3, 7, 11, 15), b);
    }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      const __m512i z = _mm512_mullo_epi32(_mm512_set1_epi32(zero_point), _mm512_loadu_si512(sums));
      return {_mm512_cvtepi32_ps(_mm512_sub_epi32(_mm512_loadu_si512(acc), z))};
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      avx2::vec::interleave4(out, r0, r1, r2, r3);
    }
  };

  static OCELLUS_NOINLINE void transpose16(float* out, const float* const* rows, int first,
                                           int columns) noexcept {
    __m512i a[16], b[16];
    for (int r = 0; r < 16; r++) a[r] = _mm512_loadu_si512(rows[r] + first);
    for (int r = 0; r < 16; r += 2) {
      b[r] = _mm512_unpacklo_epi32(a[r], a[r + 1]);
      b[r + 1] = _mm512_unpackhi_epi32(a[r], a[r + 1]);
    }
    for (int r = 0; r < 16; r += 4)  // then a[r + c] holds columns c, 4 + c, 8 + c, 12 + c of rows r..r+3
      for (int c = 0; c < 2; c++) {
        a[r + 2 * c] = _mm512_unpacklo_epi64(b[r + c], b[r + c + 2]);
        a[r + 2 * c + 1] = _mm512_unpackhi_epi64(b[r + c], b[r + c + 2]);
      }
    for (int c = 0; c < 4; c++) {
      const __m512i even_low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0x88);
      const __m512i odd_low = _mm512_shuffle_i32x4(a[c], a[4 + c], 0xdd);
      const __m512i even_high = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0x88);
      const __m512i odd_high = _mm512_shuffle_i32x4(a[8 + c], a[12 + c], 0xdd);
      b[c] = _mm512_shuffle_i32x4(even_low, even_high, 0x88);
      b[4 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0x88);
      b[8 + c] = _mm512_shuffle_i32x4(even_low, even_high, 0xdd);
      b[12 + c] = _mm512_shuffle_i32x4(odd_low, odd_high, 0xdd);
    }
    for (int c = 0; c < columns; c++) _mm512_storeu_si512(out + 16 * c, b[c]);
  }

  static constexpr int epilogue_panels = 2;
  static constexpr int epilogue_rows = 2;
  static constexpr int norm_rows = 4;
  static constexpr int depthwise_vecs = 4;
  static constexpr int finishing_rows = 10;  // what tiles of evened-out blocks have: 50 rows are five of 10
  static constexpr int row_chains = 2;
  static constexpr int float_rows = 12;
  static constexpr int bf16_rows = 8;  // widened, two depths at a time: more would not stay in 32 registers
  static constexpr int s8_rows = 8;
  static constexpr int quad_rows = 12;  // as in avx2; 8 rows are as quick by halves
  static constexpr int most_panels = 2;
  static constexpr std::size_t split_bytes = 0;  // splitting: 1.11 times as quick for 7 KB of code, and few CPUs
  static constexpr int wide_rows = 3;
  static constexpr int dot_streams = 1;
  static constexpr int float_depth = 1024;

#include <ocellus/generic/unroll.inl>

  /// Depths that one step of the f32 tile takes: a row of a panel holds so many.
  template <class W>
  static constexpr int step = std::is_same_v<W, bf16> ? 2 : 1;

  /// Sixteen columns of depth K (0 or 1) of a panel row, widened.
  template <int K>
  static OCELLUS_INLINE __m512 widen16(const float* b) noexcept {
    return _mm512_loadu_ps(b);
  }
  template <int K>
  static OCELLUS_INLINE __m512 widen16(const f16* b) noexcept {
    return _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)));
  }
  template <int K>
  static OCELLUS_INLINE __m512 widen16(const bf16* b) noexcept {
    const __m512i pair = _mm512_loadu_si512(b);
    return _mm512_castsi512_ps(
        K == 0 ? _mm512_slli_epi32(pair, 16)
               : _mm512_and_si512(pair, _mm512_set1_epi32(static_cast<int>(0xffff0000u))));
  }

  /// acc += column of A (at `rows`, every third row; the others are one and two strides away) * row K of the panels.
  template <int K, int MR, int P, class W>
  static OCELLUS_INLINE void multiply_add(__m512 (&acc)[MR][P], const float* const* rows, std::ptrdiff_t lda,
                                          const W* b, std::size_t panel_stride) noexcept {
    __m512 w[P];
    unroll<P>([&](auto p) OCELLUS_LAMBDA { w[p] = widen16<K>(b + p * panel_stride); });
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      const __m512 x = _mm512_set1_ps(rows[r / 3][r % 3 * lda + K]);
      unroll<P>([&](int p) OCELLUS_LAMBDA {
        acc[r][p] = _mm512_fmadd_ps(x, w[p], acc[r][p]);
        OCELLUS_KEEP(acc[r][p]);
      });
    });
  }

  /// Height of the tiles that fetch by turns where prefetch_run says so. ViT-B/32's 50 rows are five of them. Higher
  /// tiles mostly share the fetching with a dozen others, and there the choice would cost more than it brings.
  static constexpr int turning_rows = 10;

  /// Goes along a prefetch_run on behalf of a tile of MR rows and P panels, `stride` bytes apart. Tiles of four panels
  /// are as quick as memory, and quicker if the machine fetches their four streams on its own.
  template <int MR, int P>
  struct fetcher {
    const char* at;
    std::ptrdiff_t stride, pace;
    std::ptrdiff_t hop;  // to the other panel: there, or back and two depths further
    bool by_turns;

    OCELLUS_INLINE fetcher(const prefetch_run& next, const void* b, std::size_t bytes, int depths) noexcept
        : at(next.at != nullptr ? next.at : static_cast<const char*>(b)),
          stride(static_cast<std::ptrdiff_t>(bytes)),
          pace(depths * next.pace),
          hop(stride),
          by_turns(next.by_turns) {}

    OCELLUS_INLINE void step() noexcept {
      if (MR == turning_rows && P == 2 && by_turns) {
        _mm_prefetch(at, _MM_HINT_NTA);
        at += hop;
        hop = 2 * pace - hop;
      } else if (P < 4) {
        unroll<P>([&](auto p) OCELLUS_LAMBDA { _mm_prefetch(at + p * stride, _MM_HINT_T1); });
        at += pace;
      }
    }
  };

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out, std::ptrdiff_t ldo,
                                          const prefetch_run& next, bool onto,
                                          const unfinished_tile& before = {}) noexcept {
    __m512 acc[MR][P];
    if (onto) {
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_loadu_ps(out + r * ldo + p * 16); });
      });
    } else {
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_setzero_ps(); });
      });
    }
    const float* rows[(MR + 2) / 3];
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    fetcher<MR, P> ahead(next, b, panel_stride * sizeof(W), step<W>);
    int d = 0;
    const auto multiply_add_to = [&](int end) OCELLUS_LAMBDA {
      for (; d + step<W> <= end; d += step<W>) {
        ahead.step();
        multiply_add<0>(acc, rows, lda, b, panel_stride);
        if constexpr (step<W> == 2) multiply_add<1>(acc, rows, lda, b, panel_stride);
        unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] += step<W>; });
        b += 16 * step<W>;
      }
    };
    if constexpr (f32_leaves && std::is_same_v<W, float> && P == 2 && MR >= finishing_rows) {
      const int part = k / (before.rows + 1);
      for (int r = 0; r < before.rows; r++) {
        multiply_add_to(d + part);
        finish_row<precision::f32>(before, r);
      }
    }
    multiply_add_to(k);
    if (d < k) multiply_add<0>(acc, rows, lda, b, panel_stride);
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { _mm512_storeu_ps(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    __m512i acc[MR][P];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_setzero_si512(); });
    });
    const __m512i low = _mm512_set1_epi16(0x00ff);
    for (int d = 0; d < k; d += 4) {
      // bytes 0 and 2 of each group of four, then 1 and 3, as s16: pmaddwd adds two products in s32
      __m512i even_w[P], odd_w[P];
      unroll<P>([&](auto p) OCELLUS_LAMBDA {
        const __m512i w = _mm512_loadu_si512(b + p * panel_stride);
        even_w[p] = _mm512_srai_epi16(_mm512_slli_epi16(w, 8), 8);
        odd_w[p] = _mm512_srai_epi16(w, 8);
      });
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        std::int32_t four;
        std::memcpy(&four, a + r * lda + d, 4);
        const __m512i x = _mm512_set1_epi32(four);
        const __m512i even = _mm512_and_si512(x, low), odd = _mm512_srli_epi16(x, 8);
        unroll<P>([&](int p) OCELLUS_LAMBDA {
          acc[r][p] = _mm512_add_epi32(acc[r][p], _mm512_add_epi32(_mm512_madd_epi16(even, even_w[p]),
                                                                   _mm512_madd_epi16(odd, odd_w[p])));
          OCELLUS_KEEP(acc[r][p]);
        });
      });
      b += 64;
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { _mm512_storeu_si512(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

  template <bool based>
  static OCELLUS_NOINLINE void bound_quads(std::int8_t* bounded, std::uint32_t* reached, std::int32_t* base_sums,
                                           const std::int8_t* w, const std::uint8_t* range, const std::uint8_t* base,
                                           int depth) noexcept {
    const __m512i zero = _mm512_setzero_si512(), ones = _mm512_set1_epi16(1);
    __m512i sums = zero;
    for (int d = 0; d < depth; d += 16) {
      std::uint32_t bits = 0;
      unroll<2>([&](int i) OCELLUS_LAMBDA {  // eight depths
        const int at = d + i * 8;
        const std::int8_t* const from = w + (at < depth ? at : d) * 16;  // past the end: any weights
        __m512i most[2], least[2], products[2];
        unroll<2>([&](int four) OCELLUS_LAMBDA {
          const __m512i x = _mm512_loadu_si512(from + four * 64);
          _mm512_store_si512(bounded + at * 16 + four * 64, x);
          const __m512i ranges = _mm512_set1_epi32(load_four(range + at + four * 4));
          most[four] = _mm512_maddubs_epi16(ranges, _mm512_max_epi8(x, zero));
          least[four] = _mm512_maddubs_epi16(ranges, _mm512_min_epi8(x, zero));
          products[four] = _mm512_maddubs_epi16(_mm512_set1_epi32(load_four(base + at + four * 4)), x);
        });
        const __mmask32 ends =
            _mm512_cmpeq_epi16_mask(_mm512_adds_epi16(most[0], most[1]), _mm512_set1_epi16(32767)) |
            _mm512_cmpeq_epi16_mask(_mm512_adds_epi16(least[0], least[1]), _mm512_set1_epi16(-32768));
        bits |= static_cast<std::uint32_t>(_pext_u32(ends | ends >> 1, 0x55555555u)) << 16 * i;
        if constexpr (based)
          sums = _mm512_add_epi32(sums, _mm512_add_epi32(_mm512_madd_epi16(products[0], ones),
                                                         _mm512_madd_epi16(products[1], ones)));
      });
      reached[d / 16] = bits;
    }
    if constexpr (based)
      _mm512_store_si512(base_sums, _mm512_add_epi32(_mm512_load_si512(base_sums), sums));
  }

  template <int MR>
  static OCELLUS_NOINLINE void tile_quads(const std::uint8_t* a, const std::int8_t* bounded, int k, std::int32_t* out,
                                          prefetch_run& next) noexcept {
    __m512i acc[MR];
    unroll<MR>([&](int r) OCELLUS_LAMBDA { acc[r] = _mm512_load_si512(out + r * 16); });
    __m512i ones = _mm512_set1_epi16(1);
    OCELLUS_KEEP(ones);
    const char* ahead = next.at;
    const std::int8_t* const end = bounded + k * 16;
    for (const std::int8_t* w = bounded; w < end; w += 2 * 128, a += 2 * 64) {
      _mm_prefetch(ahead, _MM_HINT_T1);
      ahead += 4 * next.pace;
      unroll<2>([&](int d) OCELLUS_LAMBDA {
        const __m512i w0 = _mm512_load_si512(w + d * 128), w1 = _mm512_load_si512(w + d * 128 + 64);
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const __m512i x = _mm512_set1_epi32(load_four(a + d * 64 + r * 4)),
                        y = _mm512_set1_epi32(load_four(a + d * 64 + 32 + r * 4));
          const __m512i q = _mm512_add_epi16(_mm512_maddubs_epi16(x, w0), _mm512_maddubs_epi16(y, w1));
          acc[r] = _mm512_add_epi32(acc[r], _mm512_madd_epi16(q, ones));
          OCELLUS_KEEP(acc[r]);
        });
      });
    }
    next.at = ahead;
    unroll<MR>([&](int r) OCELLUS_LAMBDA { _mm512_store_si512(out + r * 16, acc[r]); });
  }

  static OCELLUS_NOINLINE void gemm_s8_by_quads(const gemm_args& g) noexcept { gemm_s8_by_quads_of<avx512>(g); }

#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
