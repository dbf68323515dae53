// Windows and OS/2 bitmaps: 1, 4, 8, 16, 24 and 32 bits, palettes, bit fields, RLE4 and RLE8, upside down or
// not. Alpha is dropped. Not supported: JPEG or PNG inside, 2 bits, Windows CE.
//
// Reference: Microsoft's BITMAPINFOHEADER, BITMAPV4HEADER and "Bitmap Compression".
#pragma once

#include <ocellus/image/decode.hpp>

#include <bit>
#include <utility>

OCELLUS_BEGIN

namespace detail {

struct bmp_header {
  std::int64_t width = 0;
  std::int64_t height = 0;
  bool top_down = false;
  int bits = 0;
  std::uint32_t compression = 0;  // 0 none, 1 RLE8, 2 RLE4, 3 bit fields
  std::uint32_t masks[3] = {};    // red, green, blue
  rgb8 palette[256];
  std::size_t pixels = 0;  // offset of the pixel data; 0 in the file: behind header and palette
};

inline status bmp_read_palette(bytes& in, bmp_header& h, std::uint32_t colors, bool core) noexcept {
  if (h.bits > 8) return status::ok;
  const std::uint32_t most = 1u << h.bits;
  if (colors == 0) colors = most;
  if (colors > 256) return status::bad_image;
  for (std::uint32_t i = 0; i < colors; i++) {
    // A palette that the pixels cut short. Without an offset they lie behind it.
    if (h.pixels != 0 && in.at + (core ? 3u : 4u) > h.pixels) break;
    const std::uint8_t* c = in.take(core ? 3 : 4);
    if (c == nullptr) return status::truncated;
    h.palette[i] = {c[2], c[1], c[0]};
  }
  return status::ok;
}

[[gnu::cold]] inline status bmp_read_header(bytes& in, bmp_header& h) noexcept {
  if (in.u8() != 'B' || in.u8() != 'M') return status::bad_image;
  in.skip(8);
  h.pixels = in.u32le();
  const std::size_t info = in.at;
  const std::uint32_t size = in.u32le();
  const bool core = size == 12;
  std::uint32_t colors = 0;
  if (core) {
    h.width = in.u16le();
    h.height = in.u16le();
    in.skip(2);
    h.bits = in.u16le();
  } else if (size >= 40 && size <= 4096) {
    h.width = static_cast<std::int32_t>(in.u32le());
    h.height = static_cast<std::int32_t>(in.u32le());
    in.skip(2);
    h.bits = in.u16le();
    h.compression = in.u32le();
    in.skip(12);
    colors = in.u32le();
    in.skip(4);
  } else {
    return status::bad_image;
  }
  if (in.overrun) return status::truncated;
  h.top_down = h.height < 0;
  h.height = h.top_down ? -h.height : h.height;
  if (h.compression == 3 && !core) {
    for (std::uint32_t& m : h.masks) m = in.u32le();
  } else if (h.bits == 16) {
    h.masks[0] = 0x7c00, h.masks[1] = 0x3e0, h.masks[2] = 0x1f;
  } else if (h.bits == 32) {
    h.masks[0] = 0xff0000, h.masks[1] = 0xff00, h.masks[2] = 0xff;
  }
  // Bit fields of a 40-byte header follow it; in the larger ones they lie inside.
  in.seek(size > 40 || h.compression != 3 ? info + size : in.at);
  if (in.overrun) return status::truncated;
  if (h.pixels != 0 && h.pixels < info + size) return status::bad_image;
  const status palette = bmp_read_palette(in, h, colors, core);
  if (h.pixels == 0) h.pixels = in.at;
  return palette;
}

/// A channel given by its mask, of any width up to 32 bits.
inline std::uint8_t bmp_channel(std::uint32_t pixel, std::uint32_t mask) noexcept {
  if (mask == 0) return 0;
  std::uint32_t v = (pixel & mask) >> std::countr_zero(mask);
  int n = 32 - std::countl_zero(mask) - std::countr_zero(mask);
  if (n > 8) {
    v >>= n - 8;
    n = 8;
  }
  return widen_bits(v, n);
}

/// RLE4 and RLE8 to one index per pixel, [height, width], in the order of the file. What runs beyond the
/// picture is lost, what is left out stays 0. Errors: truncated (neither an end mark nor the last row).
inline status bmp_expand_rle(bytes& in, const bmp_header& h, std::uint8_t* indices) noexcept {
  const bool nibbles = h.compression == 2;
  std::int64_t x = 0, y = 0;
  const auto set = [&](int index) {
    if (x < h.width && y < h.height) indices[y * h.width + x] = static_cast<std::uint8_t>(index);
    x++;
  };
  while (!in.overrun && y < h.height) {
    const int count = in.u8(), code = in.u8();
    if (in.overrun) break;
    if (count > 0) {
      for (int i = 0; i < count; i++) set(nibbles ? (i % 2 == 0 ? code >> 4 : code & 15) : code);
    } else if (code == 0) {  // end of line
      x = 0;
      y++;
    } else if (code == 1) {  // end of bitmap
      return status::ok;
    } else if (code == 2) {  // delta
      x += in.u8();
      y += in.u8();
    } else {  // literal, padded to 16 bits
      int packed = 0;
      for (int i = 0; i < code && !in.overrun; i++) {
        if (!nibbles || i % 2 == 0) packed = in.u8();
        set(nibbles ? (i % 2 == 0 ? packed >> 4 : packed & 15) : packed);
      }
      const int used = nibbles ? (code + 1) / 2 : code;
      if (used % 2 == 1) in.skip(1);
    }
  }
  return in.overrun && y < h.height - 1 ? status::truncated : status::ok;
}

inline void bmp_convert_row(const bmp_header& h, const std::uint8_t* row, std::uint8_t* out) noexcept {
  for (int x = 0; x < h.width; x++, out += 3) {
    if (h.bits == 24) {
      put(out, {row[3 * x + 2], row[3 * x + 1], row[3 * x]});
    } else if (h.bits > 8) {
      const std::uint8_t* p = row + x * (h.bits / 8);
      std::uint32_t v = p[0] | static_cast<std::uint32_t>(p[1]) << 8;
      if (h.bits == 32) v |= static_cast<std::uint32_t>(p[2]) << 16 | static_cast<std::uint32_t>(p[3]) << 24;
      put(out, {bmp_channel(v, h.masks[0]), bmp_channel(v, h.masks[1]), bmp_channel(v, h.masks[2])});
    } else {
      const int per_byte = 8 / h.bits;
      const int shift = (per_byte - 1 - x % per_byte) * h.bits;
      put(out, h.palette[row[x / per_byte] >> shift & ((1 << h.bits) - 1)]);
    }
  }
}

inline status bmp_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  bytes in(file);
  bmp_header h;
  const status header = bmp_read_header(in, h);
  if (header != status::ok) return header;
  const bool rle = h.compression == 1 || h.compression == 2;
  if (h.bits != 1 && h.bits != 4 && h.bits != 8 && h.bits != 16 && h.bits != 24 && h.bits != 32) {
    return status::unsupported_image;
  }
  if (h.compression > 3 || (h.compression == 1 && h.bits != 8) || (h.compression == 2 && h.bits != 4) ||
      (h.compression == 3 && h.bits != 16 && h.bits != 32)) {
    return status::unsupported_image;
  }
  const status size = check_size(h.width, h.height, rle ? 4 : 3, options);
  if (size != status::ok) return size;

  in.seek(h.pixels);
  const std::int64_t stride = (h.width * h.bits + 31) / 32 * 4;
  // The last row may lack its padding.
  const std::int64_t needed = stride * (h.height - 1) + (h.width * h.bits + 7) / 8;
  std::unique_ptr<std::uint8_t[]> indices;
  if (rle) {
    // Two bytes give at most 255 pixels; more must be left out by deltas, which is fine for a small picture
    // only.
    if (h.width * h.height > (1 << 20) && h.width * h.height / 128 > static_cast<std::int64_t>(in.left())) {
      return status::truncated;
    }
    indices = allocate<std::uint8_t>(h.width * h.height);
    if (!indices) return status::out_of_memory;
    const status s = bmp_expand_rle(in, h, indices.get());
    if (s != status::ok) return s;
    h.bits = 8;
  } else if (needed > static_cast<std::int64_t>(in.left())) {
    return status::truncated;
  }
  const std::uint8_t* rows = rle ? indices.get() : in.data + in.at;
  const std::int64_t row_stride = rle ? h.width : stride;
  const status opened = sink.open(static_cast<int>(h.width), static_cast<int>(h.height));
  if (opened != status::ok) return opened;
  for (int y = 0; y < h.height; y++) {
    bmp_convert_row(h, rows + (h.top_down ? y : h.height - 1 - y) * row_stride, sink.row(y));
  }
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image, unsupported_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_bmp(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::bmp_rows, file, options);
}

OCELLUS_END
