// The inverse DCT of JPEG as libjpeg's jidctint.c computes it, bit for bit, in plain C++ and in SSE2 (which
// every x86-64 has, so there is nothing to dispatch).
//
// libjpeg factors the transform [Loeffler, Ligtenberg, Moschytz 1989] in integers with 13 fraction bits and
// rounds after each pass only, so for files that are not damaged each output is an exact linear combination of
// the inputs, and any way of summing gives the same. Damaged ones leave 16 bits, and then it shows that
// libjpeg-turbo's SIMD code for x86 multiplies pairs of 16-bit numbers (pmaddwd): dequantised values and sums
// of two inputs wrap, the first pass saturates, but wraps where it only shifts. Pillow's pixels have it so.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/isa/target.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

OCELLUS_BEGIN
namespace detail {

/// x rounded to 13 fraction bits; jidctint.c's FIX.
constexpr int jpeg_fix(double x) noexcept { return static_cast<int>(x * 8192 + 0.5); }

struct jpeg_idct {
  OCELLUS_HIDDEN static constexpr int even2_6[2] = {  // of x2, x6
      jpeg_fix(0.541196100) + jpeg_fix(0.765366865), jpeg_fix(0.541196100)};
  OCELLUS_HIDDEN static constexpr int even6_2[2] = {
      jpeg_fix(0.541196100), jpeg_fix(0.541196100) - jpeg_fix(1.847759065)};
  static constexpr int z5 = jpeg_fix(1.175875602);
  static constexpr int z1 = -jpeg_fix(0.899976223), z2 = -jpeg_fix(2.562915447);
  static constexpr int z3 = -jpeg_fix(1.961570560), z4 = -jpeg_fix(0.390180644);
  // The odd parts of outputs 0 to 3: of x1 and x7 (outputs 0, 3) or x3 and x5 (1, 2), and of the sums
  // x1 + x5 and x3 + x7.
  OCELLUS_HIDDEN static constexpr int odd[4][2] = {
      {jpeg_fix(1.501321110) + z1, z1},
      {jpeg_fix(3.072711026) + z2, z2},
      {z2, jpeg_fix(2.053119869) + z2},
      {z1, jpeg_fix(0.298631336) + z1},
  };
  OCELLUS_HIDDEN static constexpr int odd_sums[2][2] = {{z4 + z5, z5}, {z5, z3 + z5}};  // 0 and 2, 1 and 3
  static constexpr int shift1 = 11;  // 13 fraction bits less the 2 that the first pass keeps
  static constexpr int shift2 = 18;  // 13 + 2 + 3: the transform's factor of 8

  static std::uint8_t clip(std::int32_t v) noexcept {
    return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
  }

  /// A block of which only the mean is not zero.
  static void flat(std::int16_t dc, std::uint16_t quant, std::uint8_t* out, std::ptrdiff_t stride) noexcept {
    const auto value = static_cast<std::int16_t>(static_cast<std::uint32_t>(dc) * quant);
    const std::uint8_t v = clip(((static_cast<std::int16_t>(value * 4) + 16) >> 5) + 128);
    for (int y = 0; y < 8; y++) std::memset(out + y * stride, v, 8);
  }

  /// Eight values with stride `step` to eight sums, shifted right by `shift` with rounding.
  static void line(const std::int16_t* x, int step, std::int32_t (&y)[8], int shift) noexcept {
    const auto product = [&](int i, int weight) { return static_cast<std::uint32_t>(x[i * step] * weight); };
    const auto of_16_bits = [](int sum, int weight) {
      return static_cast<std::uint32_t>(static_cast<std::int16_t>(sum) * weight);
    };
    const std::uint32_t half = 1u << (shift - 1);
    const std::uint32_t a = of_16_bits(x[0] + x[4 * step], 8192) + half,
                        b = of_16_bits(x[0] - x[4 * step], 8192) + half;
    const std::uint32_t c = product(2, even2_6[0]) + product(6, even2_6[1]);
    const std::uint32_t d = product(2, even6_2[0]) + product(6, even6_2[1]);
    const std::uint32_t even[4] = {a + c, b + d, b - d, a - c};
    const int x15 = x[step] + x[5 * step], x37 = x[3 * step] + x[7 * step];
    for (int i = 0; i < 4; i++) {
      const int first = i == 0 || i == 3 ? 1 : 3;
      const std::uint32_t o = product(first, odd[i][0]) + product(8 - first, odd[i][1]) +
                              of_16_bits(x15, odd_sums[i % 2][0]) + of_16_bits(x37, odd_sums[i % 2][1]);
      y[i] = static_cast<std::int32_t>(even[i] + o) >> shift;
      y[7 - i] = static_cast<std::int32_t>(even[i] - o) >> shift;
    }
  }

  /// Plain C++: the definition. `coefficients` and `quant` are row-major; writes 8 x 8 samples.
  static void block_scalar(const std::int16_t* coefficients, const std::uint16_t* quant, std::uint8_t* out,
                           std::ptrdiff_t stride) noexcept {
    std::int16_t x[64], columns[64];
    std::int32_t y[8];
    int below = 0;  // not 0 if a row below the first has coefficients
    for (int i = 0; i < 64; i++) {
      x[i] = static_cast<std::int16_t>(static_cast<std::uint32_t>(coefficients[i]) * quant[i]);
      if (i >= 8) below |= coefficients[i];
    }
    for (int i = 0; i < 64 && below == 0; i++) columns[i] = static_cast<std::int16_t>(x[i % 8] * 4);
    for (int c = 0; c < 8 && below != 0; c++) {
      line(x + c, 8, y, shift1);
      for (int r = 0; r < 8; r++) {
        columns[r * 8 + c] = static_cast<std::int16_t>(y[r] < -32768 ? -32768 : y[r] > 32767 ? 32767 : y[r]);
      }
    }
    for (int r = 0; r < 8; r++) {
      line(columns + r * 8, 1, y, shift2);
      for (int c = 0; c < 8; c++) out[r * stride + c] = clip(y[c] + 128);
    }
  }

#if defined(__SSE2__)
  /// v[i] holds row i of eight columns; becomes the transform of each column. Without loops, which gcc -O2 keeps, with
  /// their arrays in memory: half the time.
  template <int shift>
  static OCELLUS_INLINE void pass(__m128i (&v)[8]) noexcept {
    const auto weights = [](int a, int b) { return _mm_set1_epi32((b << 16) | (a & 0xffff)); };
    const __m128i half = _mm_set1_epi32(1 << (shift - 1));
    const __m128i zero = _mm_setzero_si128();
    const __m128i sum04 = _mm_add_epi16(v[0], v[4]), difference04 = _mm_sub_epi16(v[0], v[4]);
    const __m128i sum15 = _mm_add_epi16(v[1], v[5]), sum37 = _mm_add_epi16(v[3], v[7]);
    struct sums {
      __m128i even[4];
      __m128i odd[4];
    };
    const auto half_of = [&](const auto& zip) OCELLUS_LAMBDA {  // columns 0-3 or 4-7
      // In the upper half of 32 bits a number counts 2^16, of which 2^13 is wanted.
      const __m128i a = _mm_add_epi32(_mm_srai_epi32(zip(zero, sum04), 3), half);
      const __m128i b = _mm_add_epi32(_mm_srai_epi32(zip(zero, difference04), 3), half);
      const __m128i x26 = zip(v[2], v[6]), x17 = zip(v[1], v[7]), x35 = zip(v[3], v[5]);
      const __m128i x15_37 = zip(sum15, sum37);
      const __m128i c = _mm_madd_epi16(x26, weights(even2_6[0], even2_6[1]));
      const __m128i d = _mm_madd_epi16(x26, weights(even6_2[0], even6_2[1]));
      const __m128i shared02 = _mm_madd_epi16(x15_37, weights(odd_sums[0][0], odd_sums[0][1]));
      const __m128i shared13 = _mm_madd_epi16(x15_37, weights(odd_sums[1][0], odd_sums[1][1]));
      return sums{{_mm_add_epi32(a, c), _mm_add_epi32(b, d), _mm_sub_epi32(b, d), _mm_sub_epi32(a, c)},
                  {_mm_add_epi32(_mm_madd_epi16(x17, weights(odd[0][0], odd[0][1])), shared02),
                   _mm_add_epi32(_mm_madd_epi16(x35, weights(odd[1][0], odd[1][1])), shared13),
                   _mm_add_epi32(_mm_madd_epi16(x35, weights(odd[2][0], odd[2][1])), shared02),
                   _mm_add_epi32(_mm_madd_epi16(x17, weights(odd[3][0], odd[3][1])), shared13)}};
    };
    const sums low = half_of([](__m128i a, __m128i b) { return _mm_unpacklo_epi16(a, b); });
    const sums high = half_of([](__m128i a, __m128i b) { return _mm_unpackhi_epi16(a, b); });
    const auto put = [&](int i) OCELLUS_LAMBDA {
      v[i] = _mm_packs_epi32(_mm_srai_epi32(_mm_add_epi32(low.even[i], low.odd[i]), shift),
                             _mm_srai_epi32(_mm_add_epi32(high.even[i], high.odd[i]), shift));
      v[7 - i] = _mm_packs_epi32(_mm_srai_epi32(_mm_sub_epi32(low.even[i], low.odd[i]), shift),
                                 _mm_srai_epi32(_mm_sub_epi32(high.even[i], high.odd[i]), shift));
    };
    put(0);
    put(1);
    put(2);
    put(3);
  }

  static OCELLUS_INLINE void transpose(__m128i (&v)[8]) noexcept {
    const __m128i a[8] = {_mm_unpacklo_epi16(v[0], v[4]), _mm_unpackhi_epi16(v[0], v[4]),
                          _mm_unpacklo_epi16(v[1], v[5]), _mm_unpackhi_epi16(v[1], v[5]),
                          _mm_unpacklo_epi16(v[2], v[6]), _mm_unpackhi_epi16(v[2], v[6]),
                          _mm_unpacklo_epi16(v[3], v[7]), _mm_unpackhi_epi16(v[3], v[7])};
    const __m128i b[8] = {_mm_unpacklo_epi16(a[0], a[4]), _mm_unpackhi_epi16(a[0], a[4]),
                          _mm_unpacklo_epi16(a[1], a[5]), _mm_unpackhi_epi16(a[1], a[5]),
                          _mm_unpacklo_epi16(a[2], a[6]), _mm_unpackhi_epi16(a[2], a[6]),
                          _mm_unpacklo_epi16(a[3], a[7]), _mm_unpackhi_epi16(a[3], a[7])};
    v[0] = _mm_unpacklo_epi16(b[0], b[4]), v[1] = _mm_unpackhi_epi16(b[0], b[4]);
    v[2] = _mm_unpacklo_epi16(b[1], b[5]), v[3] = _mm_unpackhi_epi16(b[1], b[5]);
    v[4] = _mm_unpacklo_epi16(b[2], b[6]), v[5] = _mm_unpackhi_epi16(b[2], b[6]);
    v[6] = _mm_unpacklo_epi16(b[3], b[7]), v[7] = _mm_unpackhi_epi16(b[3], b[7]);
  }

  static void block(const std::int16_t* coefficients, const std::uint16_t* quant, std::uint8_t* out,
                    std::ptrdiff_t stride) noexcept {
    __m128i v[8], below = _mm_setzero_si128();  // not 0 if a row below the first has coefficients
    for (int i = 0; i < 8; i++) {
      const __m128i row = _mm_loadu_si128(reinterpret_cast<const __m128i*>(coefficients + 8 * i));
      if (i > 0) below = _mm_or_si128(below, row);
      v[i] = _mm_mullo_epi16(row, _mm_loadu_si128(reinterpret_cast<const __m128i*>(quant + 8 * i)));
    }
    if (_mm_movemask_epi8(_mm_cmpeq_epi8(below, _mm_setzero_si128())) == 0xffff) {
      v[0] = _mm_slli_epi16(v[0], 2);
      for (int i = 1; i < 8; i++) v[i] = v[0];
    } else {
      pass<shift1>(v);
    }
    transpose(v);
    pass<shift2>(v);
    transpose(v);
    for (int i = 0; i < 8; i += 2) {
      const __m128i level = _mm_set1_epi16(128);
      const __m128i two = _mm_packus_epi16(_mm_adds_epi16(v[i], level), _mm_adds_epi16(v[i + 1], level));
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + i * stride), two);
      _mm_storel_epi64(reinterpret_cast<__m128i*>(out + (i + 1) * stride), _mm_unpackhi_epi64(two, two));
    }
  }
#else
  static void block(const std::int16_t* coefficients, const std::uint16_t* quant, std::uint8_t* out,
                    std::ptrdiff_t stride) noexcept {
    block_scalar(coefficients, quant, out, stride);
  }
#endif
};

}  // namespace detail
OCELLUS_END
