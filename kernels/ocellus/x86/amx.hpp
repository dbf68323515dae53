// AMX: Sapphire Rapids and later. All but gemm_s8, gemm_bf16, gemm_f16 and attention_bf16 comes from avx512bf16 and its
// parents. attention_s8 does not pay here: ldtilecfg and loads of just stored bytes cost more than vpdpbusd.
//
// | intrinsic        | instruction | use                                                                           |
// |------------------|-------------|-------------------------------------------------------------------------------|
// | _tile_dpbusd     | tdpbusd     | u8 x s8: sums of 16 x 16 in s32 over 64 deep, no saturation                   |
// | _tile_dpbf16ps   | tdpbf16ps   | bf16: sums of 16 x 16 in f32 over 32 deep                                     |
// | _tile_loadd      | tileloadd   | 16 rows of 64 bytes: of A; or of a panel, which lies as tdpbusd wants it      |
// | _tile_loadconfig | ldtilecfg   | heights of tiles, once per call                                               |
//
// Linux gives the tiles to a process that asks for them: request_amx_tiles (isa/detect.hpp).
// tdpbf16ps flushes denormals and rounds each sum to nearest even, whatever MXCSR says: outside law 2, as vdpbf16ps is.
// f16 weights are the exact sum of two bf16 each, and activations but for 2^-17 of them: three products of tiles
// instead of one, which err by 6e-6 where fp16 arithmetic does by 1.2e-3 (avx512fp16), and take 0.65 to 0.73 of its
// time over ViT-B/32. Two, with activations rounded to bf16, would take half of it and err by 1.6e-3. Activations that
// nobody split (gemm_args::a_bf16: last products, heads, ResNets) go avx512fp16's way.
// Overflow: as any gemm_s8.
// Registers: a block is 2 x 2 tiles of sums, 2 of A, 2 of W: all 8. The height is any up to 16, even for all tiles of a
// product: 50 rows are four of 13, the last from row 37 on, whose first two rows come out as before.
// Of the peak (bench/results/kernels-emr.json): s8 30-40 % at ViT-B/32's 50 rows, whose weights come from L3; that is 3
// to 3.9 times vpdpbusd. Loads of tiles that lie in L2 are the limit, and the epilogue's GELU and C's way to L3 beside
// them. f16 by three products: 12-20 % on Granite Rapids, 1.3 to 2.03 times avx512fp16 (kernels-gnr.json).
#pragma once

#include <ocellus/x86/avx512bf16.hpp>
#include <ocellus/x86/avx512fp16.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("amx-tile,amx-int8,amx-bf16,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

/// Tile `sum` += tile `a` times tile `w`, of bf16 or of bytes. A macro, for gcc's intrinsics want their digits as text.
#define OCELLUS_MULTIPLY_TILES(is_bf16, sum, a, w) \
  do { \
    if (is_bf16) { \
      _tile_dpbf16ps(sum, a, w); \
    } else { \
      _tile_dpbusd(sum, a, w); \
    } \
  } while (false)

struct amx : avx512bf16 {
  static constexpr isa id = isa::amx;
  static constexpr int batch_rows = 448;  // 224 compute sooner than their weights come
  static constexpr bool exact_f16 = false;

  static constexpr int tile_rows = 16, row_bytes = 64, tile_bytes = tile_rows * row_bytes;

  /// Heights and widths of the eight tiles; load() also sets them to zero.
  struct alignas(64) tile_shapes {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    std::uint16_t bytes[16] = {};
    std::uint8_t rows[16] = {};

    void set(int first, int last, int height, int width) noexcept {
      for (int i = first; i <= last; i++) {
        rows[i] = static_cast<std::uint8_t>(height);
        bytes[i] = static_cast<std::uint16_t>(width);
      }
    }
    OCELLUS_INLINE void load() const noexcept {
      __asm__ volatile("" : : "r"(this) : "memory");  // gcc believes that the instruction reads eight bytes
      _tile_loadconfig(this);
    }
  };

  /// Tiles along the depth of f16 weights that are split at once: so few that those of two panels stay in L1 while all
  /// rows pass.
  static constexpr int split_steps = 8;
  static constexpr int split_bytes = split_steps * tile_bytes;

  /// A tile's depth of f16 weights of two panels, `hop` elements apart, as the sum of two tiles of bf16: what is left
  /// without the last three bits, and those. Of the second panel split_bytes further, the rest 2 * split_bytes. Zeros
  /// from `depth` on.
  static OCELLUS_NOINLINE void split_weights(const f16* panel, std::ptrdiff_t hop, int depth,
                                           unsigned char* out) noexcept {
    const __m512i upper = _mm512_set1_epi32(static_cast<std::int32_t>(0xffff0000u));
    const auto pairs = [&](__m512i first, __m512i second) OCELLUS_LAMBDA {  // of what their upper halves hold
      return _mm512_ternarylogic_epi32(upper, second, _mm512_srli_epi32(first, 16), 0xca);
    };
    for (int d = 0; d < 2 * tile_rows; d += 2, out += row_bytes)
      for (int p = 0; p < 2; p++) {
        const auto row = [&](int i) OCELLUS_LAMBDA {
          const f16* const w = panel + p * hop + i * panel_width;
          return i < depth ? _mm512_cvtph_ps(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(w)))
                           : _mm512_setzero_ps();
        };
        const auto cut = [&](__m512 x) OCELLUS_LAMBDA { return _mm512_and_si512((__m512i)x, upper); };
        const __m512 first = row(d), second = row(d + 1);
        const __m512i first_cut = cut(first), second_cut = cut(second);
        unsigned char* const to = out + p * split_bytes;
        _mm512_store_si512(to, pairs(first_cut, second_cut));
        _mm512_store_si512(to + 2 * split_bytes,
                           pairs((__m512i)(first - (__m512)first_cut), (__m512i)(second - (__m512)second_cut)));
      }
  }

  /// What products of f16 need of the caller's stack: weights that are split, [4 * split_bytes], and the sums of at
  /// most `rows` rows of A between two parts of the depth, [rows, 32].
  struct split_room {
    unsigned char* halves;
    float* sums;
    int rows;
  };

  /// Rows of a block's sums, [rows, 32] of s32 or floats, that still wait for their epilogue.
  struct unfinished_rows {
    const std::int32_t* sums;
    int row, rows, col, cols;  // of C

    OCELLUS_INLINE void finish(const gemm_args& g, bool is_float, int most) noexcept {
      const int n = rows < most ? rows : most;
      if (n == 0) return;
      if (is_float) {
        finish_float(g, reinterpret_cast<const float*>(sums), 32, row, n, col, cols);
      } else {
        finish_s8(g, sums, 32, row, n, col, cols);
      }
      sums += n * 32;
      row += n;
      rows -= n;
    }
  };

  /// The sums of a block, 0-1 and, if there are `two` rows of tiles, 2-3, as rows of 32 at `upper` and `lower`.
  static OCELLUS_INLINE void load_sums(const void* upper, const void* lower, bool two) noexcept {
    _tile_loadd(0, upper, 128);
    _tile_loadd(1, static_cast<const float*>(upper) + 16, 128);
    if (two) {
      _tile_loadd(2, lower, 128);
      _tile_loadd(3, static_cast<const float*>(lower) + 16, 128);
    }
  }
  static OCELLUS_INLINE void store_sums(void* upper, void* lower, bool two) noexcept {
    _tile_stored(0, upper, 128);
    _tile_stored(1, static_cast<float*>(upper) + 16, 128);
    if (two) {
      _tile_stored(2, lower, 128);
      _tile_stored(3, static_cast<float*>(lower) + 16, 128);
    }
  }
  static OCELLUS_INLINE void zero_sums() noexcept {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
  }

  /// A step along the depth of a block: rows of A `lda` bytes apart at x, the lower tile's `below` bytes further; W's
  /// tiles at w and `beside` bytes further.
  static OCELLUS_INLINE void multiply_step(bool is_bf16, const unsigned char* x, std::ptrdiff_t lda,
                                           std::ptrdiff_t below, bool two, const unsigned char* w,
                                           std::ptrdiff_t beside) noexcept {
    __asm__ volatile("" : : "r"(w) : "memory");  // gcc's loads of tiles do not say that they read
    _tile_loadd(6, w, row_bytes);
    _tile_loadd(4, x, lda);
    OCELLUS_MULTIPLY_TILES(is_bf16, 0, 4, 6);
    _tile_loadd(7, w + beside, row_bytes);
    OCELLUS_MULTIPLY_TILES(is_bf16, 1, 4, 7);
    if (two) {
      _tile_loadd(5, x + below, lda);
      OCELLUS_MULTIPLY_TILES(is_bf16, 2, 5, 6);
      OCELLUS_MULTIPLY_TILES(is_bf16, 3, 5, 7);
    }
  }
  /// The rest of a step of f16, whose weights' lesser halves are at w: A, still in tiles, times the greater ones,
  /// 2 * split_bytes before; and these times A's lesser halves, `lesser` bytes further.
  static OCELLUS_INLINE void multiply_greater_halves(const unsigned char* x, std::ptrdiff_t lda, std::ptrdiff_t below,
                                                     bool two, const unsigned char* w,
                                                     std::ptrdiff_t lesser) noexcept {
    _tile_loadd(6, w - 2 * split_bytes, row_bytes);
    _tile_dpbf16ps(0, 4, 6);
    _tile_loadd(7, w - split_bytes, row_bytes);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
    _tile_loadd(4, x + lesser, lda);
    _tile_dpbf16ps(0, 4, 6);
    _tile_dpbf16ps(1, 4, 7);
    if (two) {
      _tile_loadd(5, x + lesser + below, lda);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
    }
  }

  /// C by blocks of 2 x 2 tiles: 0-3 are sums, 4-5 of A, 6-7 of W. Rows of A are `lda` bytes apart and read up to a
  /// multiple of 64 bytes (16 bits: zeros there). While a block is on its way, the one before is finished row by row.
  /// For f16, rows of A are those of split_bf16, and weights are taken as two bf16 each, by parts of the depth, in
  /// room.halves; the products of the lesser halves with each other are left out.
  static OCELLUS_NOINLINE void gemm_by_tiles(const gemm_args& g, dtype type, const unsigned char* a, std::ptrdiff_t lda,
                                             const split_room& room = split_room()) noexcept {
    if (g.m < 1) return;
    const bool is_bf16 = type != dtype::s8, is_split = type == dtype::f16;
    const int depth = is_bf16 ? round_up(g.k, 2) * 2 : round_up(g.k, 8);  // of a panel, in bytes of a column
    const int steps = ceil_div(depth, row_bytes), whole = is_split ? steps : depth / row_bytes;
    const std::size_t rest = static_cast<std::size_t>(depth % row_bytes) * panel_width;  // of an incomplete tile
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(is_split ? g.k * 2 : depth) * panel_width;
    const std::ptrdiff_t lesser = static_cast<std::ptrdiff_t>(steps) * row_bytes;  // halves of A's rows
    const int count = ceil_div(g.m, tile_rows), height = ceil_div(g.m, count);
    int fit = static_cast<int>(rows_bytes) / (is_split ? 2 * depth : depth) / height;
    if (is_split && fit > room.rows / height) fit = room.rows / height;
    const int parts = is_split ? ceil_div(steps, split_steps) : 1;
    tile_shapes shapes;
    shapes.set(0, 5, height, row_bytes);
    shapes.set(6, 7, tile_rows, row_bytes);
    shapes.load();
    alignas(64) std::int32_t sums[2][2 * tile_rows * 2 * panel_width];  // or floats
    alignas(64) unsigned char ends[2 * tile_bytes] = {};                // of panels: their last, incomplete tiles
    unfinished_rows before = {sums[1], 0, 0, 0, 0};
    /// A part of the depth of a pair of panels.
    struct part {
      const unsigned char* w;
      std::ptrdiff_t hop;      // to the second panel; one alone is its own neighbour
      int panel, first, end;   // the first of the pair; tiles along the depth
    };
    const auto part_at = [&](int i) OCELLUS_LAMBDA {
      const int panel = g.panel_begin + i / parts * 2, first = i % parts * steps / parts;
      return part{static_cast<const unsigned char*>(g.b) + panel * stride + first * tile_bytes,
                  panel + 1 == g.panel_end ? 0 : stride, panel, first, (i % parts + 1) * steps / parts};
    };
    const int work = ceil_div(g.panel_end - g.panel_begin, 2) * parts;
    for (int t0 = 0, t1 = 0, turn = 0; t0 < count; t0 = t1) {
      t1 = t0 + even_share(count - t0, fit < 2 ? 2 : fit);
      for (int i = 0; i < work; i++) {
        const part now = part_at(i), later = part_at(i + 1);
        const int col = now.panel * panel_width, width = now.hop == 0 ? panel_width : 2 * panel_width,
                  cols = g.n - col < width ? g.n - col : width;
        if (whole < steps) {
          std::memcpy(ends, now.w + whole * tile_bytes, rest);
          std::memcpy(ends + tile_bytes, now.w + now.hop + whole * tile_bytes, rest);
        }
        const auto split = [&](int s) OCELLUS_LAMBDA {
          split_weights(reinterpret_cast<const f16*>(now.w + s * tile_bytes), now.hop / 2,
                        g.k - (now.first + s) * 2 * tile_rows, room.halves + s * tile_bytes);
        };
        if (is_split) split(0);
        // memory gives the next panels by four streams, a half of each, sooner than by two
        const char* next = reinterpret_cast<const char*>(later.w);
        const std::ptrdiff_t half = static_cast<std::ptrdiff_t>(later.end - later.first) * tile_bytes / 2;
        const int lines = ceil_div(tile_rows / 2, ceil_div(t1 - t0, 2));  // of each stream in each step
        for (int t = t0; t < t1; t += 2) {
          // tiles begin at multiples of the height, the last one so that it ends with the last row
          const int last = g.m - height, first = t * height < last ? t * height : last;
          const bool two = t + 1 < t1;
          const int second = !two ? first : first + height < last ? first + height : last;
          const std::ptrdiff_t below = (second - first) * lda;
          const int each = ceil_div(before.rows, now.end - now.first);
          const int upper = (t - t0) * height * 32, lower = upper + height * 32;  // in room.sums
          if (now.first == 0) {
            zero_sums();
          } else {
            load_sums(room.sums + upper, room.sums + lower, two);
          }
          for (int s = 0; s < now.end - now.first; s++) {
            const unsigned char* w = now.w + s * tile_bytes;
            std::ptrdiff_t beside = now.hop;
            if (is_split) {
              w = room.halves + 2 * split_bytes + s * tile_bytes;  // the lesser ones first
              beside = split_bytes;
            } else if (s == whole) {
              w = ends;
              beside = tile_bytes;
            }
            const unsigned char* const x = a + first * lda + (now.first + s) * row_bytes;
            multiply_step(is_bf16, x, lda, below, two, w, beside);
            if (is_split) {
              multiply_greater_halves(x, lda, below, two, w, lesser);
              if (t == t0 && now.first + s + 1 < now.end) split(s + 1);
            }
            for (int l = 0; l < lines; l++, next += 64) {
              _mm_prefetch(next, _MM_HINT_T1);
              _mm_prefetch(next + half, _MM_HINT_T1);
              _mm_prefetch(next + later.hop, _MM_HINT_T1);
              _mm_prefetch(next + later.hop + half, _MM_HINT_T1);
            }
            before.finish(g, is_bf16, each);
          }
          if (now.end < steps) {
            store_sums(room.sums + upper, room.sums + lower, two);
            continue;
          }
          std::int32_t* const out = sums[turn];
          turn ^= 1;
          store_sums(out, out + (second - first) * 32, two);  // over rows that both have
          const int done = t * height - first;  // rows that the tiles before have as well
          before = {out + done * 32, first + done, second + height - first - done, col, cols};
        }
      }
    }
    before.finish(g, is_bf16, before.rows);
    _tile_release();
  }

  /// Bytes of A's rows that stay in L2 while all panels pass.
  static constexpr std::size_t rows_bytes = 1280 * 1024;

  static void gemm_s8(const gemm_args& g) noexcept {
    gemm_by_tiles(g, dtype::s8, static_cast<const unsigned char*>(g.a), g.lda);
  }
  static void gemm_f16(const gemm_args& g) noexcept {
    g.exact || g.a_bf16 == nullptr ? gemm_unsplit(g) : gemm_split(g);
  }
  static OCELLUS_NOINLINE void gemm_split(const gemm_args& g) noexcept {
    alignas(64) unsigned char halves[4 * split_bytes];
    alignas(64) float sums[batch_rows * 2 * panel_width];
    gemm_by_tiles(g, dtype::f16, reinterpret_cast<const unsigned char*>(g.a_bf16), g.lda_bf16 * 2,
                  {halves, sums, batch_rows});
  }
  static void gemm_unsplit(const gemm_args& g) noexcept {
#if OCELLUS_HAS_AVX512FP16
    avx512fp16::gemm_f16(g);
#else
    avx512bf16::gemm_f16(g);
#endif
  }
  static void gemm_bf16(const gemm_args& g) noexcept {
    if (g.a_bf16 != nullptr)
      return gemm_by_tiles(g, dtype::bf16, reinterpret_cast<const unsigned char*>(g.a_bf16), g.lda_bf16 * 2);
    alignas(64) std::uint16_t rounded[48 * 1024];
    const int ld = round_up(g.k, 32), most = static_cast<int>(sizeof rounded / sizeof rounded[0]) / ld;
    if (most == 0) return avx512bf16::gemm_bf16(g);
    gemm_args part = g;
    for (int i = 0; i < g.m; i += part.m) {
      part.m = even_share(g.m - i, most);
      round_bf16(rounded, ld, static_cast<const float*>(g.a) + i * g.lda, g.lda, part.m, g.k);
      part.c = g.c + i * g.ldc;
      if (g.residual != nullptr) part.residual = g.residual + i * g.ldr;
      gemm_by_tiles(part, dtype::bf16, reinterpret_cast<const unsigned char*>(rounded), ld * 2);
    }
  }
  /// Zeros up to a multiple of 32: a tile's row. Attention, whose rows are shorter, keeps its parent's.
  static void round_bf16(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda, int rows,
                         int depth) noexcept {
    avx512bf16::round_bf16(out, ldo, a, lda, rows, depth);
    if (const int end = round_up(depth, 16); end % 32 != 0)
      for (int r = 0; r < rows; r++) std::memset(out + r * ldo + end, 0, 16 * sizeof *out);
  }

  /// Each value as the sum of two of bf16, sixteen bits of it: [K] of the first, then from K rounded up to 32 on [K] of
  /// what that rounds off. Zeros up to a multiple of 32 in both.
  static OCELLUS_NOINLINE void split_bf16(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda,
                                          int rows, int depth) noexcept {
    const int half = round_up(depth, 32);
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < half; d += 16) {
        const __m512 x = d < depth ? load_tail(a + r * lda, d, depth).x : _mm512_setzero_ps();
        const __m256i first = (__m256i)_mm512_cvtneps_pbh(x);
        const __m512 kept = (__m512)_mm512_slli_epi32(_mm512_cvtepu16_epi32(first), 16);
        __m256i* const to = reinterpret_cast<__m256i*>(out + r * ldo + d);
        _mm256_storeu_si256(to, first);
        _mm256_storeu_si256(to + half / 16, (__m256i)_mm512_cvtneps_pbh(x - kept));
      }
  }

  /// Products for attention: one tile of rows. Tiles 0-1 are sums, 4 of A, 6-7 of panels; what the depth has beyond
  /// whole tiles is in 5, 2 and 3.
  static OCELLUS_NOINLINE void products_bf16(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b,
                                             std::size_t stride, int depth, float* out, std::ptrdiff_t ldo, int rows,
                                             int panels) noexcept {
    const int pairs = ceil_div(depth, 2), whole = pairs / tile_rows, rest = pairs % tile_rows;
    tile_shapes shapes;
    shapes.set(0, 4, rows, row_bytes);
    shapes.set(6, 7, tile_rows, row_bytes);
    if (rest > 0) {
      shapes.set(5, 5, rows, rest * 4);
      shapes.set(2, 3, rest, row_bytes);
    }
    shapes.load();
    const std::ptrdiff_t a_bytes = lda * 2, out_bytes = ldo * 4;
    for (int p = 0; p < panels; p += 2, b += 2 * stride, out += 2 * panel_width) {
      const std::size_t hop = p + 1 < panels ? stride : 0;
      const std::uint16_t* x = a;
      const bf16* w = b;
      _tile_zero(0);
      _tile_zero(1);
      for (int s = 0; s < whole; s++, x += 32, w += 512) {
        _tile_loadd(4, x, a_bytes);
        _tile_loadd(6, w, row_bytes);
        _tile_loadd(7, w + hop, row_bytes);
        _tile_dpbf16ps(0, 4, 6);
        _tile_dpbf16ps(1, 4, 7);
      }
      if (rest > 0) {
        _tile_loadd(5, x, a_bytes);
        _tile_loadd(2, w, row_bytes);
        _tile_loadd(3, w + hop, row_bytes);
        _tile_dpbf16ps(0, 5, 2);
        _tile_dpbf16ps(1, 5, 3);
      }
      _tile_stored(0, out, out_bytes);
      if (p + 1 < panels) _tile_stored(1, out + panel_width, out_bytes);
    }
    _tile_release();
  }
  static void attention_bf16(const attention_args& t) noexcept { attention_bf16_by(t, tile_rows, &products_bf16); }
};
#undef OCELLUS_MULTIPLY_TILES

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
