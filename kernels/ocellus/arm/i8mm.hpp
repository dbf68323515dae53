// Products of matrices of Armv8.6, of bytes and of bf16: Cortex-A510, A710, X2 and later, Neoverse N2, V1 and later,
// Apple M2 and later. Everything but gemm and attention of s8 and bf16 comes from fp16 and dotprod.
//
// | intrinsic          | instruction | use                                                                        |
// |--------------------|-------------|----------------------------------------------------------------------------|
// | vusmmlaq_s32       | usmmla      | two rows of A x two columns of W, eight depths: 32 products, no saturation |
// | vbfmmlaq_f32       | bfmmla      | the same of four depths of bf16: 16 products, added in f32                 |
// | vzip1q_u32         | zip1, zip2  | two rows of a panel to the depths of a column that these take              |
// | vcvtq_low_bf16_f32 | bfcvtn (2)  | activations to bf16, once for each block of rows                           |
//
// Rows of A are arranged by twos beforehand (arrange_u8, round_block): sixteen bytes of A are a load, where to put them
// together in the tile takes two and a move. u8 x s8 needs no shift. Overflow: as in ops/gemm.hpp.
// f16 weights are outside law 2 by what comes from fp16, bf16 ones since activations are rounded to bf16, and since
// bfmmla adds two sums of two products each, rounds to odd after every step and flushes denormals; that is all defined,
// so these are the same bits on every core, under fp_env. Where FPCR.EBF is set (FEAT_EBF16; fp_env clears it) steps
// are fused and rounded as FPCR says.
// Registers: tile 12 x 8: 24 accumulators + 4 of W + 1 of A = 29 of 32, and no more to zip in than these. Attention's
// tile 6 x 16, for rows that are not arranged: 24 accumulators + 3 of A + 2 of W + 2 zipped = 31.
// Not timed: run under qemu, instructions counted only (kernels/ocellus/arm/README.md).
#pragma once

#include <ocellus/arm/fp16.hpp>

#if defined(__aarch64__) && OCELLUS_HAS_I8MM
OCELLUS_TARGET_BEGIN(OCELLUS_TARGET_I8MM)
OCELLUS_BEGIN
namespace kernels {

/// Rows as they are.
struct i8mm_tiles : fp16 {
  static constexpr int s8_rows = 6;

#include <ocellus/generic/unroll.inl>
#include <ocellus/arm/steps.inl>

  /// MR rows of one panel. acc[i][c]: rows 2i and 2i + 1, columns 2c and 2c + 1.
  template <int MR>
  static OCELLUS_NOINLINE void tile_pairs(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                          int k, std::int32_t* out, std::ptrdiff_t ldo) noexcept {
    constexpr int pairs = (MR + 1) / 2;
    int32x4_t acc[pairs][8];
    unroll<pairs>([&](int i) OCELLUS_LAMBDA {
      unroll<8>([&](int c) OCELLUS_LAMBDA { acc[i][c] = vdupq_n_s32(0); });
    });
    const auto step = [&](const uint8x16_t(&x)[pairs], auto last) OCELLUS_LAMBDA {
      unroll<4>([&](int c) OCELLUS_LAMBDA {
        const uint32x4_t w0 = vreinterpretq_u32_s8(vld1q_s8(b + c * 16));
        const uint32x4_t w1 = last ? vdupq_n_u32(0) : vreinterpretq_u32_s8(vld1q_s8(b + 64 + c * 16));
        const int8x16_t low = vreinterpretq_s8_u32(vzip1q_u32(w0, w1)), high = vreinterpretq_s8_u32(vzip2q_u32(w0, w1));
        unroll<pairs>([&](int i) OCELLUS_LAMBDA {
          acc[i][2 * c] = vusmmlaq_s32(acc[i][2 * c], x[i], low);
          acc[i][2 * c + 1] = vusmmlaq_s32(acc[i][2 * c + 1], x[i], high);
          after(b, acc[i][2 * c]);
        });
      });
    };
    int d = 0;
    for (; d + 8 <= k; d += 8) {
      uint8x16_t x[pairs];
      unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
        constexpr int second = 2 * i + 1 < MR ? 2 * i + 1 : 2 * i;
        x[i] = vcombine_u8(vld1_u8(a + 2 * i * lda + d), vld1_u8(a + second * lda + d));
      });
      step(x, std::false_type{});
      b += 128;
    }
    if (d < k) {
      const auto word = [&](int row) OCELLUS_LAMBDA {
        std::uint32_t four;
        std::memcpy(&four, a + row * lda + d, 4);
        return vreinterpret_u8_u32(vdup_n_u32(four));
      };
      uint8x16_t x[pairs];
      unroll<pairs>([&](int i) OCELLUS_LAMBDA {
        x[i] = vcombine_u8(word(2 * i), word(2 * i + 1 < MR ? 2 * i + 1 : 2 * i));
      });
      step(x, std::true_type{});
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<4>([&](int c) OCELLUS_LAMBDA {
        const int64x2_t left = vreinterpretq_s64_s32(acc[r / 2][2 * c]),
                        right = vreinterpretq_s64_s32(acc[r / 2][2 * c + 1]);
        vst1q_s32(out + r * ldo + c * 4,
                  vreinterpretq_s32_s64(r % 2 == 0 ? vzip1q_s64(left, right) : vzip2q_s64(left, right)));
      });
    });
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    for (int p = 0; p < P; p++)
      tile_pairs<MR>(a, lda, b + static_cast<std::size_t>(p) * panel_stride, k, out + p * 16, ldo);
  }

#define OCELLUS_ONLY_S8
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
#undef OCELLUS_ONLY_S8

  static OCELLUS_INLINE int32x4_t multiply(int32x4_t acc, uint8x16_t x, uint8x16_t w) noexcept {
    return vusmmlaq_s32(acc, x, vreinterpretq_s8_u8(w));
  }
  static OCELLUS_INLINE float32x4_t multiply(float32x4_t acc, uint8x16_t x, uint8x16_t w) noexcept {
    return vbfmmlaq_f32(acc, vreinterpretq_bf16_u8(x), vreinterpretq_bf16_u8(w));
  }
  static OCELLUS_INLINE int32x4_t load4(const std::int32_t* p) noexcept { return vld1q_s32(p); }
  static OCELLUS_INLINE float32x4_t load4(const float* p) noexcept { return vld1q_f32(p); }
  static OCELLUS_INLINE void store4(std::int32_t* p, uint64x2_t v) noexcept { vst1q_s32(p, vreinterpretq_s32_u64(v)); }
  static OCELLUS_INLINE void store4(float* p, uint64x2_t v) noexcept { vst1q_f32(p, vreinterpretq_f32_u64(v)); }

  /// MR arranged rows times eight columns of a panel, of which `rows` rows of 64 bytes lie at b; onto: added to out.
  /// acc[i][c]: rows 2i and 2i + 1, columns 2c and 2c + 1.
  template <int MR, class Sum>
  static OCELLUS_NOINLINE void tile_arranged(const std::uint8_t* a, std::ptrdiff_t lda, const std::uint8_t* b, int rows,
                                             Sum* out, std::ptrdiff_t ldo, bool onto) noexcept {
    constexpr int pairs = (MR + 1) / 2;
    using sums = decltype(load4(static_cast<const Sum*>(nullptr)));
    sums acc[pairs][4];
    unroll<pairs>([&](int i) OCELLUS_LAMBDA { unroll<4>([&](int c) OCELLUS_LAMBDA { acc[i][c] = sums{}; }); });
    if (onto)
      unroll<MR / 2>([&](int i) OCELLUS_LAMBDA {
        unroll<2>([&](int h) OCELLUS_LAMBDA {
          const auto row = [&](int r) OCELLUS_LAMBDA {
            return (uint64x2_t)load4(out + (2 * i + r) * ldo + h * 4);
          };
          acc[i][2 * h] = (sums)vzip1q_u64(row(0), row(1));
          acc[i][2 * h + 1] = (sums)vzip2q_u64(row(0), row(1));
        });
      });
    if (onto && MR % 2 == 1)
      unroll<2>([&](int h) OCELLUS_LAMBDA {
        const uint64x2_t row = (uint64x2_t)load4(out + (MR - 1) * ldo + h * 4);
        acc[MR / 2 < pairs ? MR / 2 : 0][2 * h] = (sums)vzip1q_u64(row, row);
        acc[MR / 2 < pairs ? MR / 2 : 0][2 * h + 1] = (sums)vzip2q_u64(row, row);
      });
    const std::uint8_t* lone = a + (MR - 1) * lda;  // if MR is odd: the last row, which lies there as it is
    const auto step = [&](auto last) OCELLUS_LAMBDA {
      uint8x16_t w[4];
      unroll<2>([&](int c) OCELLUS_LAMBDA {
        const uint32x4_t w0 = vreinterpretq_u32_u8(vld1q_u8(b + c * 16));
        const uint32x4_t w1 = last ? vdupq_n_u32(0) : vreinterpretq_u32_u8(vld1q_u8(b + 64 + c * 16));
        w[2 * c] = vreinterpretq_u8_u32(vzip1q_u32(w0, w1));
        w[2 * c + 1] = vreinterpretq_u8_u32(vzip2q_u32(w0, w1));
      });
      unroll<pairs>([&](auto i) OCELLUS_LAMBDA {
        uint8x16_t x;
        if constexpr (2 * i + 1 < MR) {
          x = vld1q_u8(a + 2 * i * lda);
        } else {
          x = vreinterpretq_u8_u64(vld1q_dup_u64(reinterpret_cast<const std::uint64_t*>(lone)));
        }
        unroll<4>([&](int c) OCELLUS_LAMBDA {
          acc[i][c] = multiply(acc[i][c], x, w[c]);
        });
      });
      a += 16;
      lone += 8;
      b += 128;
    };
    int r = 0;
    for (; r + 2 <= rows; r += 2) step(std::false_type{});
    if (r < rows) step(std::true_type{});
    unroll<MR>([&](int i) OCELLUS_LAMBDA {
      unroll<2>([&](int h) OCELLUS_LAMBDA {
        const uint64x2_t left = (uint64x2_t)acc[i / 2][2 * h], right = (uint64x2_t)acc[i / 2][2 * h + 1];
        store4(out + i * ldo + h * 4, i % 2 == 0 ? vzip1q_u64(left, right) : vzip2q_u64(left, right));
      });
    });
  }

  /// The same for P panels.
  template <int MR, class Sum>
  static OCELLUS_INLINE void tiles_arranged(const std::uint8_t* a, std::ptrdiff_t lda, const void* b,
                                            std::size_t panel_bytes, int panels, int rows, Sum* out,
                                            std::ptrdiff_t ldo, bool onto) noexcept {
    for (int half = 0; half < 2 * panels; half++)
      tile_arranged<MR>(a, lda,
                        static_cast<const std::uint8_t*>(b) + static_cast<std::size_t>(half / 2) * panel_bytes +
                            half % 2 * 32,
                        rows, out + half * 8, ldo, onto);
  }
};

/// The matrix product of rows that arrange_u8 made.
struct i8mm_arranged : i8mm_tiles {
  static constexpr int s8_rows = 12, row_unit = 2;

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, std::size_t panel_stride, int k,
                      std::int32_t* out, std::ptrdiff_t ldo, const prefetch_run&) noexcept {
    tiles_arranged<MR>(a, lda, b, panel_stride, P, k / 4, out, ldo, false);
  }

#include <ocellus/generic/unroll.inl>
#define OCELLUS_ONLY_S8
#include <ocellus/generic/gemm.inl>
#undef OCELLUS_ONLY_S8
};

struct i8mm : i8mm_tiles {
  static constexpr isa id = isa::i8mm;
  static constexpr bool exact_bf16 = false;
  static constexpr int quad_rows = 3;

#include <ocellus/generic/unroll.inl>

  /// Two rows by turns, eight bytes of each; the last one of an odd number lies as it is.
  static void arrange_u8(const arrange_args& g) noexcept {
    for (int r = 0; r < g.m; r += 2) {
      const std::uint8_t *x = g.a + r * g.lda, *y = x + g.lda;
      std::uint8_t* out = g.out + r * g.ld_out;
      if (r + 1 == g.m) {
        for (int d = g.begin; d < g.end; d += 16) vst1q_u8(out + d, vld1q_u8(x + d));
      } else {
        for (int d = g.begin; d < g.end; d += 16)
          by_turns(out + 2 * d, vreinterpretq_u64_u8(vld1q_u8(x + d)), vreinterpretq_u64_u8(vld1q_u8(y + d)));
      }
    }
  }
  static OCELLUS_INLINE void by_turns(std::uint8_t* out, uint64x2_t x, uint64x2_t y) noexcept {
    vst1q_u8(out, vreinterpretq_u8_u64(vzip1q_u64(x, y)));
    vst1q_u8(out + 16, vreinterpretq_u8_u64(vzip2q_u64(x, y)));
  }

  static void gemm_s8(const gemm_args& g) noexcept {
    gemm_args part = g;
    if (g.a_arranged != nullptr && g.m >= quad_rows) {
      part.a = g.a_arranged;
      part.lda = g.ld_arranged;
      return i8mm_arranged::gemm_s8(part);
    }
    constexpr int bytes = 64 * 1024;
    const int ld = round_up(g.k, 64), most = bytes / ld & -2;
    if (g.m < quad_rows || most < i8mm_arranged::s8_rows) return i8mm_tiles::gemm_s8(g);
    alignas(64) std::uint8_t arranged[bytes];
    for (int i = 0; i < g.m; i += part.m) {
      part = rows_of(g, i, even_share(g.m - i, most));
      arrange_u8({static_cast<const std::uint8_t*>(part.a), g.lda, arranged, ld, part.m, g.k, 0, g.k});
      part.a = arranged;
      part.lda = ld;
      i8mm_arranged::gemm_s8(part);
    }
  }

  using rounded_element = std::uint16_t;
  using rounded_weight = bf16;
  static constexpr int rounded_rows = 64, rounded_depth = 768, rounded_unit = 1, rounded_height = 12, row_unit = 2;

  /// The tile of `rows` rows (tile_height's) and one or two panels.
  static OCELLUS_NOINLINE void tiles_rounded(int rows, int panels, const std::uint16_t* a, std::ptrdiff_t lda,
                                             const bf16* b, std::size_t stride, int depth, float* c, std::ptrdiff_t ldc,
                                             bool onto, const prefetch_run&) noexcept {
    by_height<rounded_height>(rows, [&](auto h) OCELLUS_LAMBDA {
      tiles_arranged<h>(reinterpret_cast<const std::uint8_t*>(a), 2 * lda, b, 2 * stride, panels, (depth + 1) / 2, c,
                        ldc, onto);
    });
  }

  static OCELLUS_INLINE uint64x2_t rounded8(float32x4_t low, float32x4_t high) noexcept {
    return (uint64x2_t)vcvtq_high_bf16_f32(vcvtq_low_bf16_f32(low), high);
  }

  /// A block of activations, rows by turns as arrange_u8 has them, zeros up to a multiple of sixteen.
  static OCELLUS_NOINLINE void round_block(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda,
                                           int rows, int depth) noexcept {
    for (int r = 0; r < rows; r += 2)
      for (int d = 0; d < depth; d += 16) {
        std::uint8_t* const to = reinterpret_cast<std::uint8_t*>(out + r * ldo);
        const vec x = load_tail(a + r * lda, d, depth);
        const uint64x2_t x0 = rounded8(x.q[0], x.q[1]), x1 = rounded8(x.q[2], x.q[3]);
        if (r + 1 == rows) {
          vst1q_u8(to + 2 * d, vreinterpretq_u8_u64(x0));
          vst1q_u8(to + 2 * d + 16, vreinterpretq_u8_u64(x1));
        } else {
          const vec y = load_tail(a + (r + 1) * lda, d, depth);
          by_turns(to + 4 * d, x0, rounded8(y.q[0], y.q[1]));
          by_turns(to + 4 * d + 32, x1, rounded8(y.q[2], y.q[3]));
        }
      }
  }

  static OCELLUS_INLINE const std::uint16_t* rounded_before(const gemm_args&) noexcept { return nullptr; }
  static void gemm_exact(const gemm_args& g) noexcept { i8mm_tiles::gemm_bf16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_bf16(const gemm_args& g) noexcept { gemm_rounded(g); }

  /// Sixteen values from (r, j) on of a block of `rows` rows, as round_block has them.
  static OCELLUS_INLINE void store_rounded(std::uint16_t* block, std::ptrdiff_t ld, int rows, int r, int j,
                                           vec v) noexcept {
    const uint16x8_t low = (uint16x8_t)rounded8(v.q[0], v.q[1]), high = (uint16x8_t)rounded8(v.q[2], v.q[3]);
    if (r + 1 == rows && r % 2 == 0) {
      vst1q_u16(block + r * ld + j, low);
      vst1q_u16(block + r * ld + j + 8, high);
    } else {
      std::uint16_t* const to = block + r / 2 * 2 * ld + 2 * j + r % 2 * 4;
      vst1_u16(to, vget_low_u16(low));
      vst1_u16(to + 8, vget_high_u16(low));
      vst1_u16(to + 16, vget_low_u16(high));
      vst1_u16(to + 24, vget_high_u16(high));
    }
  }

  /// Sixteen columns of two depths of a panel.
  static OCELLUS_INLINE void store_pairs(bf16* out, vec first, vec second) noexcept {
    const auto half = [&](std::uint16_t* to, int i) OCELLUS_LAMBDA {
      const uint16x8_t x = (uint16x8_t)rounded8(first.q[i], first.q[i + 1]),
                       y = (uint16x8_t)rounded8(second.q[i], second.q[i + 1]);
      vst1q_u16(to, vzip1q_u16(x, y));
      vst1q_u16(to + 8, vzip2q_u16(x, y));
    };
    half(&out->bits, 0);
    half(&out->bits + 16, 2);
  }
#include <ocellus/generic/attention_rounded.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
