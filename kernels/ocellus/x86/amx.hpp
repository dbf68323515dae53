// AMX: Sapphire Rapids and later. gemm_f16 comes from avx512fp16, and all but gemm_s8, gemm_bf16 and attention_bf16
// from avx512bf16 and its parents. attention_s8 does not pay here: ldtilecfg and loads of just stored bytes cost more
// than vpdpbusd.
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
// Overflow: as any gemm_s8.
// Registers: a block is 2 x 2 tiles of sums, 2 of A, 2 of W: all 8. The height is any up to 16, even for all tiles of a
// product: 50 rows are four of 13, the last from row 37 on, whose first two rows come out as before.
// Of the peak (bench/results/kernels-emr.json): s8 30-40 % at ViT-B/32's 50 rows, whose weights come from L3; that is 3
// to 3.9 times vpdpbusd. Loads of tiles that lie in L2 are the limit, and the epilogue's GELU beside them.
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
#if OCELLUS_HAVE_AVX512FP16
  static constexpr bool exact_f16 = false;
  static void gemm_f16(const gemm_args& g) noexcept { avx512fp16::gemm_f16(g); }
#endif

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

  /// C by blocks of 2 x 2 tiles: 0-3 are sums, 4-5 of A, 6-7 of W. Rows of A are `lda` bytes apart and read up to a
  /// multiple of 64 bytes (bf16: zeros there). While a block is on its way, the one before is finished row by row.
  static OCELLUS_NOINLINE void gemm_by_tiles(const gemm_args& g, bool is_bf16, const unsigned char* a,
                                             std::ptrdiff_t lda) noexcept {
    if (g.m < 1) return;
    const int depth = is_bf16 ? round_up(g.k, 2) * 2 : round_up(g.k, 8);  // of a panel, in bytes of a column
    const int steps = ceil_div(depth, row_bytes), whole = depth / row_bytes;
    const std::size_t rest = static_cast<std::size_t>(depth % row_bytes) * panel_width;
    const std::ptrdiff_t stride = static_cast<std::ptrdiff_t>(depth) * panel_width, half = stride / 2;
    const int count = ceil_div(g.m, tile_rows), height = ceil_div(g.m, count);
    const int fit = static_cast<int>(rows_bytes) / depth / height;
    tile_shapes shapes;
    shapes.set(0, 5, height, row_bytes);
    shapes.set(6, 7, tile_rows, row_bytes);
    shapes.load();
    alignas(64) std::int32_t sums[2][2 * tile_rows * 2 * panel_width];  // or floats
    alignas(64) unsigned char ends[2 * tile_bytes] = {};                // of panels: their last, incomplete tiles
    struct {
      const std::int32_t* sums;
      int row, rows, col, cols;
    } before = {sums[1], 0, 0, 0, 0};
    const auto finish = [&](int most) OCELLUS_LAMBDA {
      const int rows = before.rows < most ? before.rows : most;
      if (rows == 0) return;
      if (is_bf16) {
        finish_float(g, reinterpret_cast<const float*>(before.sums), 32, before.row, rows, before.col, before.cols);
      } else {
        finish_s8(g, before.sums, 32, before.row, rows, before.col, before.cols);
      }
      before.sums += rows * 32;
      before.row += rows;
      before.rows -= rows;
    };
    for (int t0 = 0, t1 = 0, turn = 0; t0 < count; t0 = t1) {
      t1 = t0 + even_share(count - t0, fit < 2 ? 2 : fit);
      for (int p = g.panel_begin; p < g.panel_end; p += 2) {
        const unsigned char* const panel = static_cast<const unsigned char*>(g.b) + p * stride;
        const bool alone = p + 1 == g.panel_end;  // then the panel is its own neighbour
        const std::ptrdiff_t hop = alone ? 0 : stride;
        const int col = p * panel_width, width = alone ? panel_width : 2 * panel_width,
                  cols = g.n - col < width ? g.n - col : width;
        if (rest > 0) {
          std::memcpy(ends, panel + whole * tile_bytes, rest);
          std::memcpy(ends + tile_bytes, panel + hop + whole * tile_bytes, rest);
        }
        // memory gives the next panels by four streams, a half of each, sooner than by two
        const char* next = reinterpret_cast<const char*>(panel + 2 * stride);
        const int lines = ceil_div(tile_rows / 2, ceil_div(t1 - t0, 2));  // of each stream in each step
        for (int t = t0; t < t1; t += 2, turn ^= 1) {
          // tiles begin at multiples of the height, the last one so that it ends with the last row
          const int last = g.m - height, first = t * height < last ? t * height : last;
          const bool two = t + 1 < t1;
          const int second = !two ? first : first + height < last ? first + height : last;
          const int each = ceil_div(before.rows, steps);
          _tile_zero(0);
          _tile_zero(1);
          _tile_zero(2);
          _tile_zero(3);
          for (int s = 0; s < steps; s++) {
            const unsigned char* w = panel + s * tile_bytes;
            std::ptrdiff_t beside = hop;
            if (s == whole) {
              w = ends;
              beside = tile_bytes;
              __asm__ volatile("" : : "r"(w) : "memory");  // gcc's loads of tiles do not say that they read
            }
            const unsigned char* const x = a + first * lda + s * row_bytes;
            _tile_loadd(6, w, row_bytes);
            _tile_loadd(4, x, lda);
            OCELLUS_MULTIPLY_TILES(is_bf16, 0, 4, 6);
            _tile_loadd(7, w + beside, row_bytes);
            OCELLUS_MULTIPLY_TILES(is_bf16, 1, 4, 7);
            if (two) {
              _tile_loadd(5, x + (second - first) * lda, lda);
              OCELLUS_MULTIPLY_TILES(is_bf16, 2, 5, 6);
              OCELLUS_MULTIPLY_TILES(is_bf16, 3, 5, 7);
            }
            for (int i = 0; i < lines; i++, next += 64) {
              _mm_prefetch(next, _MM_HINT_T1);
              _mm_prefetch(next + half, _MM_HINT_T1);
              _mm_prefetch(next + hop, _MM_HINT_T1);
              _mm_prefetch(next + hop + half, _MM_HINT_T1);
            }
            finish(each);
          }
          std::int32_t* const out = sums[turn];
          _tile_stored(0, out, 128);
          _tile_stored(1, out + 16, 128);
          if (two) {  // over rows that both have
            _tile_stored(2, out + (second - first) * 32, 128);
            _tile_stored(3, out + (second - first) * 32 + 16, 128);
          }
          const int done = t * height - first;  // rows that the tiles before have as well
          before = {out + done * 32, first + done, second + height - first - done, col, cols};
        }
      }
    }
    finish(before.rows);
    _tile_release();
  }

  /// Bytes of A's rows that stay in L2 while all panels pass.
  static constexpr std::size_t rows_bytes = 1280 * 1024;

  static void gemm_s8(const gemm_args& g) noexcept {
    gemm_by_tiles(g, false, static_cast<const unsigned char*>(g.a), g.lda);
  }
  static void gemm_bf16(const gemm_args& g) noexcept {
    if (g.a_bf16 != nullptr)
      return gemm_by_tiles(g, true, reinterpret_cast<const unsigned char*>(g.a_bf16), g.lda_bf16 * 2);
    alignas(64) std::uint16_t rounded[48 * 1024];
    const int ld = round_up(g.k, 32), most = static_cast<int>(sizeof rounded / sizeof rounded[0]) / ld;
    if (most == 0) return avx512bf16::gemm_bf16(g);
    gemm_args part = g;
    for (int i = 0; i < g.m; i += part.m) {
      part.m = even_share(g.m - i, most);
      round_bf16(rounded, ld, static_cast<const float*>(g.a) + i * g.lda, g.lda, part.m, g.k);
      part.c = g.c + i * g.ldc;
      if (g.residual != nullptr) part.residual = g.residual + i * g.ldr;
      gemm_by_tiles(part, true, reinterpret_cast<const unsigned char*>(rounded), ld * 2);
    }
  }
  /// Zeros up to a multiple of 32: a tile's row. Attention, whose rows are shorter, keeps its parent's.
  static void round_bf16(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda, int rows,
                         int depth) noexcept {
    avx512bf16::round_bf16(out, ldo, a, lda, rows, depth);
    if (const int end = round_up(depth, 16); end % 32 != 0)
      for (int r = 0; r < rows; r++) std::memset(out + r * ldo + end, 0, 16 * sizeof *out);
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
