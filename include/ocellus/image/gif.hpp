// GIF, the first frame. A frame that does not cover the canvas lies on the background colour of the file;
// transparent pixels show their colour, as with every other format here. A frame that reaches beyond the
// canvas enlarges it (Pillow).
//
// Reference: GIF89a Specification, CompuServe 1990; LZW with codes of up to 12 bits, least significant bit
// first.
#pragma once

#include <ocellus/image/decode.hpp>

#include <algorithm>

OCELLUS_BEGIN

namespace detail {

/// Skips a chain of sub-blocks.
inline void gif_skip_blocks(bytes& in) noexcept {
  for (int n = in.u8(); n != 0 && !in.overrun; n = in.u8()) in.skip(static_cast<std::size_t>(n));
}

/// The bits of a chain of sub-blocks.
struct gif_bits {
  bytes& in;
  int block_left = 0;
  std::uint32_t buffer = 0;
  int count = 0;
  bool ended = false;

  int next(int n) noexcept {
    while (count < n) {
      if (block_left == 0) {
        block_left = in.u8();
        if (block_left == 0) {
          ended = true;
          return 0;
        }
      }
      buffer |= static_cast<std::uint32_t>(in.u8()) << count;
      block_left--;
      count += 8;
    }
    const auto code = static_cast<int>(buffer & ((1u << n) - 1u));
    buffer >>= n;
    count -= n;
    return code;
  }
};

/// LZW to `total` palette indices. Errors: bad_image (a code that is not defined yet), truncated.
inline status gif_expand(bytes& in, std::uint8_t* out, std::int64_t total) noexcept {
  const int literal_bits = in.u8();
  if (literal_bits < 1 || literal_bits > 11) return status::bad_image;
  const int clear = 1 << literal_bits, end = clear + 1;
  std::uint16_t prefix[4096] = {};
  std::uint8_t suffix[4096] = {};
  std::uint8_t stack[4097];
  gif_bits bits{in};
  int width = literal_bits + 1, next = end + 1, previous = -1, first = 0;
  for (std::int64_t done = 0; done < total;) {
    const int code = bits.next(width);
    if (bits.ended || code == end) return status::truncated;
    if (code == clear) {
      width = literal_bits + 1;
      next = end + 1;
      previous = -1;
      continue;
    }
    if (code > next || (code == next && previous < 0) || (code >= clear && previous < 0))
      return status::bad_image;
    int depth = 0, at = code;
    if (code == next) {  // the string being defined: the previous one and its own first byte
      stack[depth++] = static_cast<std::uint8_t>(first);
      at = previous;
    }
    // Each prefix is a smaller code, so this ends.
    for (; at >= clear; at = prefix[at]) stack[depth++] = suffix[at];
    first = at;
    stack[depth++] = static_cast<std::uint8_t>(first);
    if (previous >= 0 && next < 4096) {
      prefix[next] = static_cast<std::uint16_t>(previous);
      suffix[next] = static_cast<std::uint8_t>(first);
      next++;
      if (next == 1 << width && width < 12) width++;
    }
    previous = code;
    while (depth > 0 && done < total) out[done++] = stack[--depth];
  }
  return status::ok;
}

/// Colours beyond the palette are black; of a palette that is the beginning of the grey ramp, the rest of it (as
/// Pillow has both).
inline bool gif_read_palette(bytes& in, int flags, rgb8 (&palette)[256]) noexcept {
  if ((flags & 0x80) == 0) return false;
  const int n = 2 << (flags & 7);
  bool ramp = true;
  for (int i = 0; i < n; i++) {
    palette[i].r = static_cast<std::uint8_t>(in.u8());
    palette[i].g = static_cast<std::uint8_t>(in.u8());
    palette[i].b = static_cast<std::uint8_t>(in.u8());
    ramp = ramp && palette[i].r == i && palette[i].g == i && palette[i].b == i;
  }
  for (int i = n; i < 256; i++) {
    const auto grey = static_cast<std::uint8_t>(ramp ? i : 0);
    palette[i] = {grey, grey, grey};
  }
  return true;
}

/// Where row y of an interlaced frame is stored: first every 8th from 0, then every 8th from 4, every 4th from 2, every
/// 2nd from 1.
constexpr int gif_interlaced_at(int y, int height) noexcept {
  constexpr int start[4] = {0, 4, 2, 1}, step[4] = {8, 8, 4, 2};
  int at = 0;
  for (int pass = 0; pass < 4; pass++) {
    if ((y - start[pass]) % step[pass] == 0) return at + (y - start[pass]) / step[pass];
    at += (height - start[pass] + step[pass] - 1) / step[pass];
  }
  return 0;
}

inline status gif_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  bytes in(file);
  if (in.u8() != 'G' || in.u8() != 'I' || in.u8() != 'F' || in.u8() != '8') return status::bad_image;
  in.skip(2);
  int width = in.u16le(), height = in.u16le();
  const int screen_flags = in.u8(), background = in.u8();
  in.skip(1);
  rgb8 palette[256];
  for (int i = 0; i < 256; i++) {  // no palette at all: grey
    palette[i] = {static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i), static_cast<std::uint8_t>(i)};
  }
  const bool global = gif_read_palette(in, screen_flags, palette);
  const rgb8 behind = global ? palette[background] : rgb8{};

  for (int block = in.u8(); block != 0x2c; block = in.u8()) {  // up to the first image
    if (in.overrun || block == 0x3b) return in.overrun ? status::truncated : status::bad_image;
    if (block == 0x21) {
      in.skip(1);
      gif_skip_blocks(in);
    }
  }
  const int left = in.u16le(), top = in.u16le(), w = in.u16le(), h = in.u16le(), flags = in.u8();
  gif_read_palette(in, flags, palette);
  if (in.overrun) return status::truncated;
  if (w == 0 || h == 0) return status::bad_image;
  width = std::max(width, left + w);
  height = std::max(height, top + h);
  const status size = check_size(width, height, 4, options);
  if (size != status::ok) return size;
  const std::int64_t total = std::int64_t{w} * h;
  // A code of 12 bits gives at most 4096 pixels.
  if (total / 2048 > static_cast<std::int64_t>(in.left())) return status::truncated;
  const auto indices = allocate<std::uint8_t>(total);
  if (!indices) return status::out_of_memory;
  const status s = gif_expand(in, indices.get(), total);
  if (s != status::ok) return s;

  const status opened = sink.open(width, height);
  if (opened != status::ok) return opened;
  for (int y = 0; y < height; y++) {
    std::uint8_t* row = sink.row(y);
    for (int x = 0; x < width && (w < width || h < height); x++) put(row + 3 * x, behind);
    const int at = y - top;
    if (at < 0 || at >= h) continue;
    const std::uint8_t* p = indices.get() + std::int64_t{(flags & 0x40) != 0 ? gif_interlaced_at(at, h) : at} * w;
    for (int x = 0; x < w; x++) put(row + 3 * (left + x), palette[p[x]]);
  }
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_gif(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::gif_rows, file, options);
}

OCELLUS_END
