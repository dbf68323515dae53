// Truevision TGA: palette, true colour and grey, raw or run-length encoded, all four orientations. Alpha is
// dropped. The format has no signature: `looks_like_tga` judges the header, so it is asked last.
//
// Reference: Truevision TGA File Format Specification 2.0; Pillow TgaImagePlugin.py.
#pragma once

#include <ocellus/image/decode.hpp>

#include <cstring>

OCELLUS_BEGIN

namespace detail {

struct tga_header {
  int id_bytes = 0;
  bool palette = false;
  int kind = 0;  // 1 palette, 2 true colour, 3 grey
  bool rle = false;
  int palette_first = 0;
  int palette_count = 0;
  int palette_bits = 0;
  int width = 0;
  int height = 0;
  int bits = 0;
  bool from_right = false;
  bool from_top = false;
};

[[gnu::cold]] inline bool tga_read_header(bytes& in, tga_header& h) noexcept {
  h.id_bytes = in.u8();
  const int map = in.u8();
  h.palette = map == 1;
  const int kind = in.u8();
  h.kind = kind & 7;
  h.rle = (kind & 8) != 0;
  h.palette_first = in.u16le();
  h.palette_count = in.u16le();
  h.palette_bits = in.u8();
  in.skip(4);
  h.width = in.u16le();
  h.height = in.u16le();
  h.bits = in.u8();
  const int flags = in.u8();
  h.from_right = (flags & 0x10) != 0;
  h.from_top = (flags & 0x20) != 0;
  if (in.overrun || map > 1 || (kind & ~11) != 0 || h.kind < 1 || h.width == 0 || h.height == 0) return false;
  if (h.palette && h.palette_bits != 15 && h.palette_bits != 16 && h.palette_bits != 24 &&
      h.palette_bits != 32) {
    return false;
  }
  if (h.kind == 1) return h.palette && h.bits == 8;
  if (h.kind == 2) return h.bits == 15 || h.bits == 16 || h.bits == 24 || h.bits == 32;
  return h.bits == 8 || h.bits == 16 || (h.bits == 1 && !h.rle);
}

/// One colour of 15, 16, 24 or 32 bits.
inline rgb8 tga_color(const std::uint8_t* p, int bits) noexcept {
  if (bits >= 24) return {p[2], p[1], p[0]};
  const std::uint32_t v = p[0] | static_cast<std::uint32_t>(p[1]) << 8;
  return {widen_bits(v >> 10 & 31, 5), widen_bits(v >> 5 & 31, 5), widen_bits(v & 31, 5)};
}

/// Expands packets to `count` pixels of `pixel_bytes` bytes; a run may cross the ends of rows.
inline status tga_expand_rle(bytes& in, std::uint8_t* out, std::int64_t count, int pixel_bytes) noexcept {
  const auto n = static_cast<std::size_t>(pixel_bytes);
  for (std::int64_t done = 0; done < count;) {
    const int packet = in.u8();
    const int length = (packet & 127) + 1;
    if (length > count - done) return status::bad_image;
    if (packet >= 128) {
      const std::uint8_t* p = in.take(n);
      if (p == nullptr) return status::truncated;
      for (int i = 0; i < length; i++, out += n) std::memcpy(out, p, n);
    } else {
      const std::uint8_t* p = in.take(n * static_cast<std::size_t>(length));
      if (p == nullptr) return status::truncated;
      std::memcpy(out, p, n * static_cast<std::size_t>(length));
      out += n * static_cast<std::size_t>(length);
    }
    done += length;
  }
  return status::ok;
}

/// Where row y of the picture is stored.
constexpr int tga_stored_row(const tga_header& h, int y) noexcept { return h.from_top ? y : h.height - 1 - y; }

/// One bit per pixel, 1 is white: beyond the specification, but Pillow writes it.
inline status tga_bitmap(const bytes& in, const tga_header& h, row_sink& sink) noexcept {
  const int row_bytes = (h.width + 7) / 8;
  if (std::int64_t{row_bytes} * h.height > static_cast<std::int64_t>(in.left())) return status::truncated;
  const status opened = sink.open(h.width, h.height);
  if (opened != status::ok) return opened;
  for (int y = 0; y < h.height; y++) {
    const std::uint8_t* p = in.data + in.at + std::ptrdiff_t{tga_stored_row(h, y)} * row_bytes;
    std::uint8_t* row = sink.row(y);
    for (int x = 0; x < h.width; x++) {
      const auto v = static_cast<std::uint8_t>((p[x / 8] >> (7 - x % 8) & 1) * 255);
      put(row + 3 * (h.from_right ? h.width - 1 - x : x), {v, v, v});
    }
  }
  return status::ok;
}

}  // namespace detail

/// Whether the bytes begin with a plausible TGA header.
inline bool looks_like_tga(std::span<const std::uint8_t> file) noexcept {
  detail::bytes in(file);
  detail::tga_header h;
  return detail::tga_read_header(in, h);
}

namespace detail {

inline status tga_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  bytes in(file);
  tga_header h;
  if (!tga_read_header(in, h)) return status::bad_image;
  const int pixel_bytes = (h.bits + 7) / 8;
  const status size = check_size(h.width, h.height, 3 + pixel_bytes, options);
  if (size != status::ok) return size;
  in.skip(static_cast<std::size_t>(h.id_bytes));
  rgb8 palette[256];
  if (h.palette) {
    const int color_bytes = (h.palette_bits + 7) / 8;
    const std::uint8_t* p = in.take(static_cast<std::size_t>(h.palette_count * color_bytes));
    if (p == nullptr) return status::truncated;
    for (int i = 0; i < h.palette_count && h.palette_first + i < 256; i++) {
      palette[h.palette_first + i] = tga_color(p + i * color_bytes, h.palette_bits);
    }
  }

  if (h.bits == 1) return tga_bitmap(in, h, sink);
  const std::int64_t count = std::int64_t{h.width} * h.height;
  // A packet of 1 + pixel_bytes bytes gives at most 128 pixels.
  const std::int64_t least = h.rle ? (count + 127) / 128 * (1 + pixel_bytes) : count * pixel_bytes;
  if (least > static_cast<std::int64_t>(in.left())) return status::truncated;
  std::unique_ptr<std::uint8_t[]> expanded;
  const std::uint8_t* rows = in.data + in.at;
  if (h.rle) {
    expanded = allocate<std::uint8_t>(count * pixel_bytes);
    if (!expanded) return status::out_of_memory;
    const status s = tga_expand_rle(in, expanded.get(), count, pixel_bytes);
    if (s != status::ok) return s;
    rows = expanded.get();
  }
  const status opened = sink.open(h.width, h.height);
  if (opened != status::ok) return opened;
  for (int y = 0; y < h.height; y++) {
    const std::uint8_t* p = rows + std::int64_t{tga_stored_row(h, y)} * h.width * pixel_bytes;
    std::uint8_t* row = sink.row(y);
    for (int x = 0; x < h.width; x++, p += pixel_bytes) {
      const rgb8 c = h.kind == 1   ? palette[p[0]]
                     : h.kind == 3 ? rgb8{p[0], p[0], p[0]}
                                   : tga_color(p, h.bits);
      put(row + 3 * (h.from_right ? h.width - 1 - x : x), c);
    }
  }
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_tga(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::tga_rows, file, options);
}

OCELLUS_END
