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
  /// v[i] holds row i of eight columns; becomes the transform of each column.
  static void pass(__m128i (&v)[8], int shift) noexcept {
    const auto weights = [](int a, int b) { return _mm_set1_epi32((b << 16) | (a & 0xffff)); };
    const __m128i half = _mm_set1_epi32(1 << (shift - 1));
    const __m128i zero = _mm_setzero_si128();
    const __m128i sum04 = _mm_add_epi16(v[0], v[4]), difference04 = _mm_sub_epi16(v[0], v[4]);
    const __m128i sum15 = _mm_add_epi16(v[1], v[5]), sum37 = _mm_add_epi16(v[3], v[7]);
    __m128i y[2][8];  // columns 0-3, columns 4-7
    for (int side = 0; side < 2; side++) {
      const auto zip = [side](__m128i a, __m128i b) {
        return side == 0 ? _mm_unpacklo_epi16(a, b) : _mm_unpackhi_epi16(a, b);
      };
      // In the upper half of 32 bits a number counts 2^16, of which 2^13 is wanted.
      const __m128i a = _mm_add_epi32(_mm_srai_epi32(zip(zero, sum04), 3), half);
      const __m128i b = _mm_add_epi32(_mm_srai_epi32(zip(zero, difference04), 3), half);
      const __m128i x26 = zip(v[2], v[6]), x17 = zip(v[1], v[7]), x35 = zip(v[3], v[5]);
      const __m128i sums = zip(sum15, sum37);
      const __m128i c = _mm_madd_epi16(x26, weights(even2_6[0], even2_6[1]));
      const __m128i d = _mm_madd_epi16(x26, weights(even6_2[0], even6_2[1]));
      const __m128i even[4] = {_mm_add_epi32(a, c), _mm_add_epi32(b, d), _mm_sub_epi32(b, d),
                               _mm_sub_epi32(a, c)};
      const __m128i shared[2] = {_mm_madd_epi16(sums, weights(odd_sums[0][0], odd_sums[0][1])),
                                 _mm_madd_epi16(sums, weights(odd_sums[1][0], odd_sums[1][1]))};
      for (int i = 0; i < 4; i++) {
        const __m128i pair = i == 0 || i == 3 ? x17 : x35;
        const __m128i o = _mm_add_epi32(_mm_madd_epi16(pair, weights(odd[i][0], odd[i][1])), shared[i % 2]);
        y[side][i] = _mm_srai_epi32(_mm_add_epi32(even[i], o), shift);
        y[side][7 - i] = _mm_srai_epi32(_mm_sub_epi32(even[i], o), shift);
      }
    }
    for (int i = 0; i < 8; i++) v[i] = _mm_packs_epi32(y[0][i], y[1][i]);
  }

  static void transpose(__m128i (&v)[8]) noexcept {
    __m128i a[8], b[8];
    for (int i = 0; i < 4; i++) {
      a[2 * i] = _mm_unpacklo_epi16(v[i], v[i + 4]);
      a[2 * i + 1] = _mm_unpackhi_epi16(v[i], v[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
      b[2 * i] = _mm_unpacklo_epi16(a[i], a[i + 4]);
      b[2 * i + 1] = _mm_unpackhi_epi16(a[i], a[i + 4]);
    }
    for (int i = 0; i < 4; i++) {
      v[2 * i] = _mm_unpacklo_epi16(b[i], b[i + 4]);
      v[2 * i + 1] = _mm_unpackhi_epi16(b[i], b[i + 4]);
    }
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
      pass(v, shift1);
    }
    transpose(v);
    pass(v, shift2);
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
