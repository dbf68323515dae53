// The scalar set: the definition of what every kernel computes, in plain C++ over arrays of sixteen floats.
// Every other set must give the same bits wherever law 2 holds. It is also the code for machines that nobody
// wrote a set for.
#pragma once

#include <ocellus/isa/isa.hpp>
#include <ocellus/isa/target.hpp>
#include <ocellus/ops/attention.hpp>
#include <ocellus/ops/gemm.hpp>
#include <ocellus/ops/rowwise.hpp>
#include <ocellus/ops/similarity.hpp>

#include <bit>
#include <cstdint>
#include <cstring>
#include <type_traits>
#include <utility>

OCELLUS_STRICT_FP_BEGIN
#if defined(__x86_64__) && defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")  // any x86-64 of the last fifteen years has a set of its own: this one has to be small
#endif
OCELLUS_BEGIN

// A Cortex-M with floating point has registers for a vec's lanes, but gcc at -O2 would loop over them in memory.
#if defined(__ARM_FP) && defined(__ARM_ARCH_PROFILE) && __ARM_ARCH_PROFILE == 'M' && !defined(__ARM_FEATURE_MVE) && \
    !defined(__OPTIMIZE_SIZE__)
#define OCELLUS_LANES OCELLUS_PRAGMA_(GCC unroll 16)
#else
#define OCELLUS_LANES
#endif

namespace kernels {

struct scalar {
  static constexpr isa id = isa::scalar;

  /// Whether gemm_f16 and gemm_bf16 are inside law 2; sets with fp16 or bf16 arithmetic hide these with
  /// false.
  static constexpr bool exact_f16 = true, exact_bf16 = true;

  /// Rows of a batch that run through a tower together: enough to hide the reading of the weights, few enough for their
  /// activations not to go to memory in between (ViT-B: 12 KiB a row).
  static constexpr int batch_rows = 224;

  /// out[rows, c] = a[rows, c] as gemm_bf16 rounds it, rows with room for c rounded up to 32, zeros there if the set
  /// reads them; nothing where it is exact.
  static void round_bf16(std::uint16_t* /*out*/, std::ptrdiff_t /*ldo*/, const float* /*a*/, std::ptrdiff_t /*lda*/,
                         int /*rows*/, int /*c*/) noexcept {}
  /// The same in two parts, for gemm_f16 of sets that take it as bf16; nothing where that is done by other arithmetic.
  static void split_bf16(std::uint16_t* /*out*/, std::ptrdiff_t /*ldo*/, const float* /*a*/, std::ptrdiff_t /*lda*/,
                         int /*rows*/, int /*c*/) noexcept {}

  /// Nearest integer, half to even, for |x| < 2^22, whatever the rounding flags of the compiler.
  static OCELLUS_INLINE std::int32_t round_even(float x) noexcept {
    return wrap(std::int64_t{std::bit_cast<std::int32_t>(x + 12582912.f)} - 0x4b400000);
  }

  /// The low 32 bits, as vector registers keep them: a damaged file must not overflow an int.
  static OCELLUS_INLINE std::int32_t wrap(std::int64_t x) noexcept {
    return static_cast<std::int32_t>(static_cast<std::uint32_t>(x));
  }

  /// Sixteen f32 lanes.
  struct vec {
    float v[16];

    static vec zero() noexcept { return set(0.f); }
    static vec set(float x) noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = x;
      return r;
    }
    static vec load(const float* p) noexcept {
      vec r;
      std::memcpy(r.v, p, sizeof(r.v));
      return r;
    }
    /// The first n (1..16) lanes from p, the others zero.
    static vec load_n(const float* p, int n) noexcept {
      vec r = zero();
      for (int i = 0; i < n; i++) r.v[i] = p[i];
      return r;
    }
    void store(float* p) const noexcept { std::memcpy(p, v, sizeof(v)); }
    void store_n(float* p, int n) const noexcept {
      for (int i = 0; i < n; i++) p[i] = v[i];
    }
    /// a in the first n lanes, b in the others.
    static vec select_n(const vec& a, const vec& b, int n) noexcept {
      vec r = b;
      for (int i = 0; i < n; i++) r.v[i] = a.v[i];
      return r;
    }
    static vec first_n(const vec& a, int n) noexcept { return select_n(a, zero(), n); }

    vec operator+(const vec& b) const noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = v[i] + b.v[i];
      return r;
    }
    vec operator-(const vec& b) const noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = v[i] - b.v[i];
      return r;
    }
    vec operator*(const vec& b) const noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = strict_product(v[i], b.v[i]);
      return r;
    }
    vec operator/(const vec& b) const noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = v[i] / b.v[i];
      return r;
    }
    static vec min(const vec& a, const vec& b) noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = a.v[i] < b.v[i] ? a.v[i] : b.v[i];
      return r;
    }
    static vec max(const vec& a, const vec& b) noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++) r.v[i] = a.v[i] > b.v[i] ? a.v[i] : b.v[i];
      return r;
    }
    /// The fixed tree of law 2: 8 + 8, 4 + 4, 2 + 2, 1 + 1.
    float sum() const noexcept {
      float t[16];
      std::memcpy(t, v, sizeof(t));
      for (int w = 8; w > 0; w /= 2)
        for (int i = 0; i < w; i++) t[i] = t[i] + t[i + w];
      return t[0];
    }
    float hmax() const noexcept {
      float m = v[0];
      OCELLUS_LANES for (int i = 1; i < 16; i++) m = v[i] > m ? v[i] : m;
      return m;
    }
    float hmin() const noexcept {
      float m = v[0];
      OCELLUS_LANES for (int i = 1; i < 16; i++) m = v[i] < m ? v[i] : m;
      return m;
    }
    /// p * 2^n where t = n + 1.5 * 2^23: the low bits of t are n, which goes into the exponent field.
    static vec add_exponent(const vec& p, const vec& t) noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++)
        r.v[i] = std::bit_cast<float>(std::bit_cast<std::uint32_t>(p.v[i]) +
                                      (std::bit_cast<std::uint32_t>(t.v[i]) << 23));
      return r;
    }
    /// clamp(round(x) + zero, 0, 255) of each lane.
    void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      OCELLUS_LANES for (int i = 0; i < 16; i++) {
        const std::int32_t r = wrap(round_even(v[i]) + static_cast<std::int64_t>(zero_point));
        q[i] = static_cast<std::uint8_t>(r < 0 ? 0 : r > 255 ? 255 : r);
      }
    }
    /// clamp(round(x), -127, 127) of each lane.
    void to_s8(std::int8_t* q) const noexcept {
      OCELLUS_LANES for (int i = 0; i < 16; i++) {
        const std::int32_t r = round_even(v[i]);
        q[i] = static_cast<std::int8_t>(r < -127 ? -127 : r > 127 ? 127 : r);
      }
    }
    /// float(acc - zero_point * sums) of sixteen integers.
    static vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                          std::int32_t zero_point) noexcept {
      vec r;
      OCELLUS_LANES for (int i = 0; i < 16; i++)
        r.v[i] = static_cast<float>(wrap(acc[i] - static_cast<std::int64_t>(zero_point) * sums[i]));
      return r;
    }
    /// out[4 * i + r] = row r's byte i, i < 16: four rows become one row of a panel<16, 4>.
    static void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                            const std::int8_t* r2, const std::int8_t* r3) noexcept {
      for (int i = 0; i < 16; i++) {
        out[4 * i] = r0[i];
        out[4 * i + 1] = r1[i];
        out[4 * i + 2] = r2[i];
        out[4 * i + 3] = r3[i];
      }
    }
  };

  /// out[16 * c + r] = rows[r][first + c], c < columns: 32-bit words, whatever they hold. Each row is readable for 16
  /// words from `first` on.
  static void transpose16(float* out, const float* const* rows, int first, int columns) noexcept {
    for (int r = 0; r < 16; r++)
      for (int c = 0; c < columns; c++) std::memcpy(out + 16 * c + r, rows[r] + first + c, sizeof(float));
  }

#if defined(__x86_64__)
  static constexpr int float_rows = 1;
  static constexpr int s8_rows = 1;
#else
  static constexpr int float_rows = 4;
  static constexpr int s8_rows = 4;
#endif
  static constexpr int row_unit = 1;   // tiles of s8 or rounded products begin at multiples of it
  static constexpr int bf16_rows = 0;  // of tiles with bf16 weights; 0: float_rows, as with others
  static constexpr std::size_t split_bytes = 0;  // stack for rows that gemm_s8 splits for its tiles, or 0
  static constexpr int quad_rows = 0;  // so many rows or more read a_arranged (x86/gemm_quads.inl, i8mm); 0: none
  static void gemm_s8_by_quads(const gemm_args&) noexcept;  // of sets with quads alone
  static void arrange_u8(const arrange_args&) noexcept {}
  static constexpr int finishing_rows = 0;  // tiles of so many rows or more finish the one before them; 0: none
  static void split_rows(std::uint8_t*, std::ptrdiff_t, const std::uint8_t*, std::ptrdiff_t, int, int) noexcept {}
  static constexpr int most_panels = 2;  // that a tile of a product spans, but for those of wide_rows
  static constexpr int wide_rows = 0;  // up to so many rows take four panels at a time
  static constexpr bool applies(activation) noexcept { return true; }  // whether epilogues have code for it
  static constexpr int epilogue_panels = 0;  // whole panels that an epilogue takes in one pass; 0: small code
  static constexpr int epilogue_rows = 1;    // rows of f32 sums whose activations run side by side
  static constexpr int row_chains = 1;       // vecs that a pass along one row takes side by side
  static constexpr int norm_rows = 1;        // rows that LayerNorm and softmax take side by side
  static constexpr int depthwise_vecs = 1;   // vecs whose chains of taps run side by side
  static constexpr int dot_streams = 1;      // parts of the rows of a search that are read by turns
  static constexpr int float_depth = 0;  // the f32 tile goes on from sums of so much depth; 0: it takes all of it

  /// Element (k, column) of a panel, widened to f32.
  template <class W>
  static OCELLUS_INLINE float panel_value(const W* b, int k, int column) noexcept {
    if constexpr (std::is_same_v<W, bf16>) {
      return to_f32(b[(k / 2) * 32 + column * 2 + k % 2]);
    } else {
      return to_f32(b[k * 16 + column]);
    }
  }

  template <int MR, int P, class W>
  static void tile_float(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride, int k,
                         float* out, std::ptrdiff_t ldo) noexcept {
    float acc[MR][P * 16] = {};
    for (int d = 0; d < k; d++)
      for (int p = 0; p < P; p++) {
        float w[16];
        for (int c = 0; c < 16; c++) w[c] = panel_value(b + static_cast<std::size_t>(p) * panel_stride, d, c);
        for (int r = 0; r < MR; r++)
          for (int c = 0; c < 16; c++)
            acc[r][p * 16 + c] = strict_fma(a[r * lda + d], w[c], acc[r][p * 16 + c]);
      }
    for (int r = 0; r < MR; r++) std::memcpy(out + r * ldo, acc[r], sizeof(acc[r]));
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                      std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                      const prefetch_run&) noexcept {
    std::int32_t acc[MR][P * 16] = {};
    for (int d = 0; d < k; d += 4)
      for (int p = 0; p < P; p++) {
        const std::int8_t* w =
            b + static_cast<std::size_t>(p) * panel_stride + static_cast<std::size_t>(d) * 16;
        for (int r = 0; r < MR; r++)
          for (int c = 0; c < 16; c++)
            for (int i = 0; i < 4; i++) acc[r][p * 16 + c] += a[r * lda + d + i] * w[c * 4 + i];
      }
    for (int r = 0; r < MR; r++) std::memcpy(out + r * ldo, acc[r], sizeof(acc[r]));
  }

#include <ocellus/generic/unroll.inl>
#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
