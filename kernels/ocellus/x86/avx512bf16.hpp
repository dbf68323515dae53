// AVX512-BF16: Zen 4 and later, Cooper Lake. Everything but gemm_bf16 and attention_bf16 comes from avx512vnni.
//
// | intrinsic            | instruction    | use                                                     |
// |----------------------|----------------|---------------------------------------------------------|
// | _mm512_dpbf16_ps     | vdpbf16ps      | two products of bf16 added to f32, 32 per instruction   |
// | _mm512_cvtneps_pbh   | vcvtneps2bf16  | activations; attention's parts                          |
//
// Outside law 2: activations are rounded to bf16, and vdpbf16ps flushes denormals and rounds each of its two additions
// to nearest even, whatever MXCSR says. Preferred only where it is quick: Sapphire Rapids runs it at half the rate of
// f32 FMA, Zen 4 at twice (118 GMAC/s against 59 at 3.69 GHz).
// Registers: tile 12 x 32: 24 accumulators + 2 of W + 1 broadcast = 27 of 32.
// Products at 50 rows: 100-103 % of vdpbf16ps' measured peak on Zen 5 (kernels-zen5.json), 96-97 % on Zen 4
// (kernels.json).
// Attention (bench_kernels --benchmark_filter=attention_, Zen 5): 57 % of the bf16 peak at ViT-B/16's 197 tokens, 1.57
// times attention_f32; 36 % and 1.36 at 50.
// Blocking: A comes rounded (round_bf16) and is read at its whole depth; or it is rounded into 96 KiB of stack, 64 x
// 768 or 32 x 1536, and where it is deeper C holds the partial sums.
#pragma once

#include <ocellus/x86/avx512vnni.hpp>

#if defined(__x86_64__)
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512bf16,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx512bf16 : avx512vnni {
  static constexpr isa id = isa::avx512bf16;
  static constexpr bool exact_bf16 = false;

#include <ocellus/generic/unroll.inl>

  using rounded_element = std::uint16_t;
  using rounded_weight = bf16;
  static constexpr int rounded_rows = 64, rounded_depth = 768, rounded_unit = 1, rounded_height = float_rows;

  /// MR rows of 16-bit activations times P panels, added to what `from` holds. `pairs` is the depth in pairs.
  /// Aligned as avx512vnni's tile_s8 is.
  template <int MR, int P>
  [[gnu::aligned(64)]] static OCELLUS_NOINLINE void tile_bf16(
      const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b, std::size_t panel_stride, int pairs,
      const float* from, std::ptrdiff_t ldf, float* out, std::ptrdiff_t ldo, const prefetch_run& next) noexcept {
    __m512 acc[MR][P];
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = _mm512_loadu_ps(from + r * ldf + p * 16); });
    });
    const std::uint16_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda; });
    fetcher<MR, P> ahead(next, b, panel_stride * sizeof(bf16), 2);
    for (int d = 0; d < pairs; d++) {
      __m512i w[P];
      unroll<P>([&](auto p) OCELLUS_LAMBDA { w[p] = _mm512_loadu_si512(b + p * panel_stride); });
      ahead.step();
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        std::int32_t two;
        std::memcpy(&two, rows[r / 3] + r % 3 * lda + 2 * d, 4);
        const __m512i x = _mm512_set1_epi32(two);
        unroll<P>([&](int p) OCELLUS_LAMBDA {
          acc[r][p] = _mm512_dpbf16_ps(acc[r][p], (__m512bh)x, (__m512bh)w[p]);
          OCELLUS_KEEP(acc[r][p]);
        });
      });
      b += 32;
    }
    unroll<MR>([&](int r) OCELLUS_LAMBDA {
      unroll<P>([&](int p) OCELLUS_LAMBDA { _mm512_storeu_ps(out + r * ldo + p * 16, acc[r][p]); });
    });
  }

  OCELLUS_HIDDEN alignas(64) static constexpr float zeros[2 * panel_width] = {};

  /// The tile of `rows` rows (tile_height's) and one or two panels.
  static OCELLUS_NOINLINE void tiles_rounded(int rows, int panels, const std::uint16_t* a, std::ptrdiff_t lda,
                                             const bf16* b, std::size_t stride, int depth, float* c,
                                             std::ptrdiff_t ldc, bool onto, const prefetch_run& next) noexcept {
    const float* const from = onto ? c : zeros;
    const std::ptrdiff_t ldf = onto ? ldc : 0;
    const auto run = [&](auto tile, int r) OCELLUS_LAMBDA {
      tile(a + r * lda, lda, b, stride, (depth + 1) / 2, from + r * ldf, ldf, c + r * ldc, ldc, next);
    };
    if (panels == 2) return by_height<float_rows>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_bf16<h, 2>, 0); });
    by_few_heights<float_rows>(rows, [](auto h) OCELLUS_LAMBDA { return &tile_bf16<h, 1>; }, run);
  }

  /// Zeros up to a multiple of 16.
  static OCELLUS_NOINLINE void round_bf16(std::uint16_t* out, std::ptrdiff_t ldo, const float* a,
                                          std::ptrdiff_t lda, int rows, int depth) noexcept {
    for (int r = 0; r < rows; r++)
      for (int d = 0; d < depth; d += 16) {
        const __m256i rounded = (__m256i)_mm512_cvtneps_pbh(load_tail(a + r * lda, d, depth).x);
        _mm256_storeu_si256(reinterpret_cast<__m256i*>(out + r * ldo + d), rounded);
      }
  }

  static OCELLUS_INLINE void round_block(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda,
                                         int rows, int depth) noexcept {
    round_bf16(out, ldo, a, lda, rows, depth);
  }
  static OCELLUS_INLINE const std::uint16_t* rounded_before(const gemm_args& g) noexcept { return g.a_bf16; }
  static void gemm_exact(const gemm_args& g) noexcept { avx512vnni::gemm_bf16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_bf16(const gemm_args& g) noexcept { gemm_rounded(g); }

  /// K in panels of pairs along the width, V in panels of pairs of keys, both rounded.
  static OCELLUS_NOINLINE void pack_attention_bf16(const attention_args& t, bf16* kp, std::size_t k_stride, bf16* vp,
                                                   std::size_t v_stride, std::uint16_t* sixteen) noexcept {
    const int d_pad = round_up(t.d, 16);
    for (int j = 0; j < t.tk; j += 16) {
      const float* rows[16];
      for (int i = 0; i < 16; i++) {  // scores of missing keys are computed and then ignored: any row will do for them
        round_bf16(sixteen + i * d_pad, d_pad, t.k + attention_row(t, j + i < t.tk ? j + i : t.tk - 1) * t.ldk, t.ldk,
                    1, t.d);
        rows[i] = reinterpret_cast<const float*>(sixteen + i * d_pad);  // pairs, which are moved only
      }
      float* panel = reinterpret_cast<float*>(kp + static_cast<std::size_t>(j / 16) * k_stride);
      for (int d = 0; d < d_pad / 2; d += 16) transpose16(panel + d * 16, rows, d, d_pad / 2 - d < 16 ? 8 : 16);
    }
    for (int j = 0; j < t.tk; j += 2) {
      const float* first = t.v + attention_row(t, j) * t.ldv;
      const float* second = j + 1 < t.tk ? t.v + attention_row(t, j + 1) * t.ldv : nullptr;
      bf16* out = vp + static_cast<std::size_t>(j) * 16;
      for (int d = 0; d < t.d; d += 16) {
        const auto wide = [&](const float* v) OCELLUS_LAMBDA {
          return _mm512_cvtepu16_epi32((__m256i)_mm512_cvtneps_pbh(load_tail(v, d, t.d).x));
        };
        const __m512i high = second == nullptr ? _mm512_setzero_si512() : _mm512_slli_epi32(wide(second), 16);
        _mm512_storeu_si512(out + static_cast<std::size_t>(d / 16) * v_stride, _mm512_or_si512(wide(first), high));
      }
    }
  }

  /// p[j] = exp((s[j] - max s) * scale) for j < n, to bf16, zeros up to n_padded; returns the sum. The short polynomial
  /// errs by a sixteenth of what rounding does.
  static OCELLUS_INLINE float softmax_bf16(std::uint16_t* p, const float* s, int n, int n_padded,
                                           float scale) noexcept {
    const int whole = n / 16 * 16;
    vec m = vec::set(s[0]);
    for (int j = 0; j < whole; j += 16) m = vec::max(m, vec::load(s + j));
    if (whole < n) m = vec::max(m, vec::select_n(vec::load(s + whole), m, n - whole));
    const vec most = vec::set(m.hmax()), scales = vec::set(scale * log2_e), least = vec::set(-125.9f);
    vec sum = vec::zero();
    const auto weigh = [&](vec e, int j) OCELLUS_LAMBDA {
      sum = sum + e;
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + j), (__m256i)_mm512_cvtneps_pbh(e.x));
    };
    const auto below = [&](int j) OCELLUS_LAMBDA { return vec::max((vec::load(s + j) - most) * scales, least); };
    for (int j = 0; j < whole; j += 16) weigh(exp2_within<3>(below(j)), j);
    if (whole < n)  // lanes beyond the last key may hold anything
      weigh(vec::first_n(exp2_within<3>(vec::min(below(whole), vec::zero())), n - whole), whole);
    for (int j = round_up(n, 16); j < n_padded; j += 16)
      _mm256_storeu_si256(reinterpret_cast<__m256i*>(p + j), _mm256_setzero_si256());
    return sum.sum();
  }

  /// A set's products of `rows` rows of bf16 (at most the set's tiles have) with so many panels, over the whole depth.
  using bf16_products = void (*)(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b, std::size_t stride,
                                 int depth, float* out, std::ptrdiff_t ldo, int rows, int panels) noexcept;

  static OCELLUS_NOINLINE void products_bf16(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b,
                                             std::size_t stride, int depth, float* out, std::ptrdiff_t ldo, int rows,
                                             int panels) noexcept {
    for (; panels > 0; panels -= 2, b += 2 * stride, out += 32)
      tiles_rounded(rows, panels > 1 ? 2 : 1, a, lda, b, stride, depth, out, ldo, false, {});
  }

  /// attention_f32 with q, k, v and the probabilities rounded to bf16; sums, softmax and output in f32.
  static void attention_bf16(const attention_args& t) noexcept { attention_bf16_by(t, float_rows, &products_bf16); }

  /// attention_bf16 by `products` of at most `most_rows` rows.
  static OCELLUS_NOINLINE void attention_bf16_by(const attention_args& t, int most_rows,
                                                 bf16_products products) noexcept {
    const int tk_pad = round_up(t.tk, 32), d_pad = round_up(t.d, 16);
    const std::size_t k_stride = static_cast<std::size_t>(d_pad) * 16,
                      v_stride = static_cast<std::size_t>(round_up(t.tk, 2)) * 16;
    float* const scores = static_cast<float*>(t.scratch);                        // [attention_rows, tk_pad]
    bf16* const kp = reinterpret_cast<bf16*>(scores + attention_rows * tk_pad);  // [tk_pad / 16][d_pad / 2][16][2]
    bf16* const vp = kp + static_cast<std::size_t>(tk_pad / 16) * k_stride;      // [d_pad / 16][tk / 2][16][2]
    bf16* const end = vp + static_cast<std::size_t>(d_pad / 16) * v_stride;
    std::uint16_t* const probs = reinterpret_cast<std::uint16_t*>(end);          // [attention_rows, tk_pad]
    std::uint16_t* const q16 = probs + attention_rows * tk_pad;                  // [attention_rows, d_pad]
    pack_attention_bf16(t, kp, k_stride, vp, v_stride, q16);

    alignas(64) float out[attention_rows * 32];
    for (int i = 0; i < t.tq;) {
      const int rows = tile_height(t.tq - i, most_rows);
      const int last = t.causal ? i + rows + t.causal_offset : t.tk;  // keys that the block's last row sees
      const int keys = last < t.tk ? last : t.tk, keys_pad = round_up(keys, 32);
      round_bf16(q16, d_pad, t.q + i * t.ldq, t.ldq, rows, t.d);
      products(q16, d_pad, kp, k_stride, t.d, scores, tk_pad, rows, keys_pad / 16);
      float inv[attention_rows];
      for (int r = 0; r < rows; r++) {
        const int seen = t.causal ? i + r + 1 + t.causal_offset : t.tk;
        inv[r] = 1.f / softmax_bf16(probs + r * tk_pad, scores + r * tk_pad, seen < t.tk ? seen : t.tk, keys_pad,
                                    t.scale);
      }
      for (int d = 0; d < t.d; d += 32) {
        const int panels = d + 16 < t.d ? 2 : 1;
        products(probs, tk_pad, vp + static_cast<std::size_t>(d / 16) * v_stride, v_stride, keys, out, 32, rows,
                 panels);
        for (int r = 0; r < rows; r++)
          for (int p = 0; p < panels; p++)
            store_tail(vec::load(out + r * 32 + p * 16) * vec::set(inv[r]), t.out + (i + r) * t.ldo, d + p * 16, t.d);
      }
      i += rows;
    }
  }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
