// PBM, PGM and PPM, plain (P1 to P3) and raw (P4 to P6), values up to 65535. One picture; what follows is
// ignored. Values are scaled by maxval as Pillow does, round(v / maxval * 255) with halves to even. Grey of
// more than 8 bits is scaled to 16 bits and keeps the high byte.
//
// Reference: the netpbm formats, netpbm.sourceforge.net/doc; Pillow PpmImagePlugin.py.
#pragma once

#include <ocellus/image/decode.hpp>
#include <ocellus/isa/target.hpp>

#include <cmath>

OCELLUS_BEGIN

namespace detail {

constexpr bool is_space(int c) noexcept { return c == ' ' || (c >= '\t' && c <= '\r'); }

/// Skips white space and comments; true if a byte is left.
inline bool pnm_skip_space(bytes& in) noexcept {
  while (in.at < in.size) {
    const int c = in.data[in.at];
    if (c == '#') {
      while (in.at < in.size && in.data[in.at] != '\n' && in.data[in.at] != '\r') in.at++;
    } else if (is_space(c)) {
      in.at++;
    } else {
      return true;
    }
  }
  return false;
}

/// A decimal number of at most ten digits followed by white space, a comment or the end; -1 if there is none.
inline std::int64_t pnm_number(bytes& in) noexcept {
  if (!pnm_skip_space(in)) return -1;
  std::int64_t value = 0;
  int digits = 0;
  for (; in.at < in.size && in.data[in.at] >= '0' && in.data[in.at] <= '9'; in.at++) {
    value = value * 10 + (in.data[in.at] - '0');
    if (++digits > 10) return -1;
  }
  if (digits == 0 || (in.at < in.size && !is_space(in.data[in.at]) && in.data[in.at] != '#')) return -1;
  return value;
}

OCELLUS_STRICT_FP_BEGIN
/// round(v / most * full), halves to even, at most full: Pillow's arithmetic in doubles.
inline int pnm_scale(int v, int most, int full) noexcept {
  const double x = static_cast<double>(v) / most * full;
  double r = std::floor(x);
  if (x - r > 0.5 || (x - r == 0.5 && static_cast<int>(r) % 2 == 1)) r += 1;
  return r > full ? full : static_cast<int>(r);
}
OCELLUS_STRICT_FP_END

/// Samples of P2, P3, P5 and P6 to 8 bits.
inline std::uint8_t pnm_sample(int v, int most, bool grey) noexcept {
  if (most == 255) return static_cast<std::uint8_t>(v);
  if (grey && most > 255) return static_cast<std::uint8_t>(pnm_scale(v, most, 65535) >> 8);
  return static_cast<std::uint8_t>(pnm_scale(v, most, 255));
}

inline status pnm_bitmap(bytes& in, bool plain, std::int64_t width, int height, row_sink& sink) noexcept {
  for (int y = 0; y < height; y++) {
    std::uint8_t* p = sink.row(y);
    int packed = 0;
    for (std::int64_t x = 0; x < width; x++, p += 3) {
      int bit;
      if (plain) {  // digits may follow each other without white space
        if (!pnm_skip_space(in)) return status::truncated;
        bit = in.data[in.at++] - '0';
        if (bit != 0 && bit != 1) return status::bad_image;
      } else {
        if (x % 8 == 0) packed = in.u8();
        bit = packed >> (7 - x % 8) & 1;
      }
      const auto v = static_cast<std::uint8_t>(bit != 0 ? 0 : 255);  // 1 is black
      put(p, {v, v, v});
    }
  }
  return in.overrun ? status::truncated : status::ok;
}

inline status pnm_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  bytes in(file);
  if (in.u8() != 'P') return status::bad_image;
  const int kind = in.u8() - '0';
  if (kind < 1 || kind > 6 || in.left() == 0 || (!is_space(in.data[in.at]) && in.data[in.at] != '#')) {
    return status::bad_image;
  }
  const std::int64_t width = pnm_number(in), height = pnm_number(in);
  const bool plain = kind <= 3, bitmap = kind == 1 || kind == 4, grey = kind == 2 || kind == 5;
  const std::int64_t maxval = bitmap ? 1 : pnm_number(in);
  if (maxval < 1 || maxval > 65535) return status::bad_image;
  const status size = check_size(width, height, 3, options);
  if (size != status::ok) return size;
  const int most = static_cast<int>(maxval);
  if (!plain) in.skip(1);  // a single white space ends a raw header
  const std::int64_t row_samples = width * (grey || bitmap ? 1 : 3), samples = row_samples * height;
  const std::int64_t least = plain    ? samples
                             : bitmap ? (width + 7) / 8 * height
                                      : samples * (most > 255 ? 2 : 1);
  if (least > static_cast<std::int64_t>(in.left())) return status::truncated;

  const status opened = sink.open(static_cast<int>(width), static_cast<int>(height));
  if (opened != status::ok) return opened;
  if (bitmap) return pnm_bitmap(in, plain, width, static_cast<int>(height), sink);
  for (int y = 0; y < height; y++) {
    std::uint8_t* out = sink.row(y);
    for (std::int64_t i = 0; i < row_samples; i++) {
      const std::int64_t v = plain ? pnm_number(in) : most > 255 ? in.u16be() : in.u8();
      if (v < 0) return in.at == in.size ? status::truncated : status::bad_image;
      if (plain && v > most) return status::bad_image;
      const std::uint8_t s = pnm_sample(static_cast<int>(v), most, grey);
      *out++ = s;
      if (grey) {
        *out++ = s;
        *out++ = s;
      }
    }
  }
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_pnm(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::pnm_rows, file, options);
}

OCELLUS_END
