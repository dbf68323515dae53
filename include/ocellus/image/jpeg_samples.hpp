// From JPEG's component planes to rows of RGB: triangle upsampling and colour conversion with libjpeg's
// roundings (jdsample.c, jdcolor.c), and Pillow's CMYK. SSE2 where it is there: bit for bit the same.
#pragma once

#include <ocellus/image/decode.hpp>

#include <cstdint>
#include <cstring>
#include <memory>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

OCELLUS_BEGIN
namespace detail {

/// One component of the frame: how it is sampled and coded, and its samples.
struct jpeg_component {
  int id = 0;
  int h = 1;
  int v = 1;
  int table = 0;  // quantisation table
  int width = 0;  // samples, without padding
  int height = 0;
  int blocks_w = 0;  // blocks with the padding to whole MCUs
  int blocks_h = 0;
  int dc = 0;  // Huffman tables of the scan
  int ac = 0;
  int predictor = 0;
  bool seen = false;                             // a scan had it, quant is set
  std::uint16_t quant[64] = {};                  // row-major
  std::unique_ptr<std::int16_t[]> coefficients;  // progressive: [blocks_h, blocks_w, 64], in zigzag order
  int plane_rows = 0;                            // of blocks: blocks_h, or fewer, of which the last ones are there
  int left = 0, right = 0, top = 0, bottom = 0;  // blocks outside of these columns and rows are not needed
  std::unique_ptr<std::uint8_t[]> plane;         // [plane_rows * 8, blocks_w * 8]
  std::ptrdiff_t stride() const noexcept { return std::ptrdiff_t{blocks_w} * 8; }
  std::uint8_t* row(int y) const noexcept { return plane.get() + y % (plane_rows * 8) * stride(); }
};

/// Rows of one component at the picture's resolution.
struct jpeg_upsampler {
  const jpeg_component* component = nullptr;
  int across = 1;  // output samples per sample
  int down = 1;
  int first = 0, count = 0;  // samples of a row that are needed
  std::unique_ptr<std::uint8_t[]> line;
  std::unique_ptr<std::int16_t[]> sums;

  /// `needed` says which pixels; sets which blocks these depend on.
  status open(jpeg_component& c, int h_max, int v_max, int width, const row_sink& needed) noexcept {
    component = &c;
    across = h_max / c.h;
    down = v_max / c.v;
    // A pixel depends on its sample and the neighbours. Where the row is cut it is not the picture's edge, but only the
    // sample beyond those that are needed comes out as if it were.
    first = needed.left / across - 1 > 0 ? needed.left / across - 1 : 0;
    const int last = (needed.right - 1) / across + 2, lowest = (needed.bottom - 1) / down + 2;
    count = (last < c.width ? last : c.width) - first;
    c.left = first / 8;
    c.right = (first + count + 7) / 8;
    c.top = (needed.top / down - 1) / 8;
    c.bottom = (lowest + 7) / 8;
    line = allocate<std::uint8_t>(std::int64_t{width} + 2 * across + 16);
    sums = allocate<std::int16_t>(std::int64_t{c.width} + 16);
    return line && sums ? status::ok : status::out_of_memory;
  }

  /// Row y of the picture, of which the needed columns are there; valid until the next call.
  const std::uint8_t* row(int y) noexcept {
    const jpeg_component& c = *component;
    const int at = y / down;
    if (across == 1 && down == 1) return c.row(at);
    const std::uint8_t* nearer = c.row(at) + first;
    std::uint8_t* out = line.get() + std::ptrdiff_t{first} * across;
    const bool upper = y % 2 == 0;
    const int other = upper ? (at > 0 ? at - 1 : 0) : (at + 1 < c.height ? at + 1 : at);
    const std::uint8_t* farther = c.row(other) + first;
    if (across == 1 && down == 2) {
      between_rows(nearer, farther, upper ? 1 : 2, out);
    } else if (across == 2 && down == 1 && c.width > 2) {
      between_columns(nearer, out);
    } else if (across == 2 && down == 2 && c.width > 2) {
      between_both(nearer, farther, out);
    } else {
      for (int x = 0; x < count; x++) std::memset(out + x * across, nearer[x], static_cast<std::size_t>(across));
    }
    return line.get();
  }

 private:
  void between_rows(const std::uint8_t* nearer, const std::uint8_t* farther, int bias,
                    std::uint8_t* out) const noexcept {
    for (int x = 0; x < count; x++)
      out[x] = static_cast<std::uint8_t>((nearer[x] * 3 + farther[x] + bias) >> 2);
  }
  /// Weights 3/4 and 1/4; the bias alternates so that roundings cancel.
  void between_columns(const std::uint8_t* in, std::uint8_t* out) const noexcept {
    const int last = count - 1;
    out[0] = in[0];
    for (int x = 0; x < last; x++) {
      out[2 * x + 1] = static_cast<std::uint8_t>((in[x] * 3 + in[x + 1] + 2) >> 2);
      out[2 * x + 2] = static_cast<std::uint8_t>((in[x + 1] * 3 + in[x] + 1) >> 2);
    }
    out[2 * last + 1] = in[last];
  }
  static void sum_rows(const std::uint8_t* nearer, const std::uint8_t* farther, std::int16_t* s, int n) noexcept {
    int x = 0;
#if defined(__SSE2__)
    const __m128i zero = _mm_setzero_si128();
    for (; x + 8 <= n; x += 8) {
      const __m128i a = _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(nearer + x)), zero);
      const __m128i b = _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(farther + x)), zero);
      _mm_storeu_si128(reinterpret_cast<__m128i*>(s + x),
                       _mm_add_epi16(_mm_add_epi16(a, a), _mm_add_epi16(a, b)));
    }
#endif
    for (; x < n; x++) s[x] = static_cast<std::int16_t>(nearer[x] * 3 + farther[x]);
  }
  void between_both(const std::uint8_t* nearer, const std::uint8_t* farther, std::uint8_t* out) noexcept {
    std::int16_t* s = sums.get();
    const int last = count - 1;
    sum_rows(nearer, farther, s, last + 1);
    out[0] = static_cast<std::uint8_t>((s[0] * 4 + 8) >> 4);
    int x = 0;
#if defined(__SSE2__)
    for (; x + 8 <= last; x += 8) {
      const __m128i left = _mm_loadu_si128(reinterpret_cast<const __m128i*>(s + x));
      const __m128i right = _mm_loadu_si128(reinterpret_cast<const __m128i*>(s + x + 1));
      const __m128i both = _mm_add_epi16(left, right);  // 3 a + b = 2 a + (a + b)
      const __m128i odd = _mm_add_epi16(_mm_add_epi16(_mm_add_epi16(left, left), both), _mm_set1_epi16(7));
      const __m128i even = _mm_add_epi16(_mm_add_epi16(_mm_add_epi16(right, right), both), _mm_set1_epi16(8));
      const __m128i mixed = _mm_or_si128(_mm_srli_epi16(odd, 4), _mm_slli_epi16(_mm_srli_epi16(even, 4), 8));
      _mm_storeu_si128(reinterpret_cast<__m128i*>(out + 2 * x + 1), mixed);
    }
#endif
    for (; x < last; x++) {
      out[2 * x + 1] = static_cast<std::uint8_t>((s[x] * 3 + s[x + 1] + 7) >> 4);
      out[2 * x + 2] = static_cast<std::uint8_t>((s[x + 1] * 3 + s[x] + 8) >> 4);
    }
    out[2 * last + 1] = static_cast<std::uint8_t>((s[last] * 4 + 7) >> 4);
  }
};

enum class jpeg_color : std::uint8_t { grey, rgb, ycc, cmyk, ycck };

constexpr std::uint8_t jpeg_clip(int v) noexcept {
  return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
}

/// JFIF's conversion with 16 fraction bits, rounded as jdcolor.c does.
inline void jpeg_ycc_pixel(int y, int cb, int cr, std::uint8_t* out) noexcept {
  constexpr int half = 1 << 15;
  const int b = cb - 128, r = cr - 128;
  out[0] = jpeg_clip(y + ((91881 * r + half) >> 16));
  out[1] = jpeg_clip(y + ((-22554 * b - 46802 * r + half) >> 16));
  out[2] = jpeg_clip(y + ((116130 * b + half) >> 16));
}

inline void jpeg_ycc_row(const std::uint8_t* y, const std::uint8_t* cb, const std::uint8_t* cr, int n,
                         std::uint8_t* out) noexcept {
  int x = 0;
#if defined(__SSE2__)
  // Factors beyond 16 bits are split: 91881 = 65536 + 26345, -46802 = -65536 + 18734, 116130 = 2 * 65536 -
  // 14942.
  const auto weights = [](int a, int b) { return _mm_set1_epi32((b << 16) | (a & 0xffff)); };
  const auto combine = [](__m128i a, __m128i b, __m128i w, __m128i bias) {  // (a w0 + b w1 + bias) >> 16
    const __m128i low = _mm_add_epi32(_mm_madd_epi16(_mm_unpacklo_epi16(a, b), w), bias);
    const __m128i high = _mm_add_epi32(_mm_madd_epi16(_mm_unpackhi_epi16(a, b), w), bias);
    return _mm_packs_epi32(_mm_srai_epi32(low, 16), _mm_srai_epi32(high, 16));
  };
  // (a w + half) >> 16 = ((2 a w >> 16) + 1) >> 1: shifts round down, whatever was cut off before
  const auto product = [](__m128i a, short w) {
    const __m128i twice = _mm_mulhi_epi16(_mm_add_epi16(a, a), _mm_set1_epi16(w));
    return _mm_srai_epi16(_mm_add_epi16(twice, _mm_set1_epi16(1)), 1);
  };
  const __m128i zero = _mm_setzero_si128(), level = _mm_set1_epi16(128), half = _mm_set1_epi32(1 << 15);
  const auto load8 = [zero](const std::uint8_t* p) {
    return _mm_unpacklo_epi8(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(p)), zero);
  };
  const __m128i first3 = _mm_set_epi32(0, 0xffffff, 0, 0xffffff);
  const __m128i second3 = _mm_set_epi32(0xffff, -0x1000000, 0xffff, -0x1000000), low6 = _mm_set_epi32(0, 0, 0xffff, -1);
  const auto pack12 = [&](__m128i rgb0) {  // R G B 0, four times, to twelve bytes and four zeros
    const __m128i six =
        _mm_or_si128(_mm_and_si128(rgb0, first3), _mm_and_si128(_mm_srli_epi64(rgb0, 8), second3));
    return _mm_or_si128(_mm_and_si128(six, low6), _mm_andnot_si128(low6, _mm_srli_si128(six, 2)));
  };
  for (; x + 8 <= n; x += 8) {
    const __m128i luma = load8(y + x);
    const __m128i b = _mm_sub_epi16(load8(cb + x), level), r = _mm_sub_epi16(load8(cr + x), level);
    const __m128i red = _mm_add_epi16(r, product(r, 26345));
    const __m128i green = _mm_sub_epi16(combine(b, r, weights(-22554, 18734), half), r);
    const __m128i blue = _mm_add_epi16(_mm_add_epi16(b, b), product(b, -14942));
    const __m128i red_blue = _mm_packus_epi16(_mm_add_epi16(luma, red), _mm_add_epi16(luma, blue));
    const __m128i green8 = _mm_packus_epi16(_mm_add_epi16(luma, green), zero);
    const __m128i rg = _mm_unpacklo_epi8(red_blue, green8), b0 = _mm_unpackhi_epi8(red_blue, zero);
    const __m128i four = pack12(_mm_unpacklo_epi16(rg, b0)), other4 = pack12(_mm_unpackhi_epi16(rg, b0));
    std::uint8_t* to = out + std::ptrdiff_t{3} * x;
    _mm_storeu_si128(reinterpret_cast<__m128i*>(to), _mm_or_si128(four, _mm_slli_si128(other4, 12)));
    _mm_storel_epi64(reinterpret_cast<__m128i*>(to + 16), _mm_srli_si128(other4, 4));
  }
#endif
  for (; x < n; x++) jpeg_ycc_pixel(y[x], cb[x], cr[x], out + std::ptrdiff_t{3} * x);
}

/// Adobe's inverted CMYK to RGB as Pillow: K - (255 - C) * K / 255, rounded.
inline void jpeg_cmyk_row(const std::uint8_t* const (&in)[4], bool ycck, int n, std::uint8_t* out) noexcept {
  if (ycck) jpeg_ycc_row(in[0], in[1], in[2], n, out);  // R = 255 - C and so on
  for (int x = 0; x < n; x++, out += 3) {
    for (int c = 0; c < 3; c++) {
      const int ink = ycck ? out[c] : 255 - in[c][x];
      const int product = ink * in[3][x] + 128;
      out[c] = jpeg_clip(in[3][x] - ((product + (product >> 8)) >> 8));
    }
  }
}

}  // namespace detail
OCELLUS_END
