// PNG: all colour types, depths and interlacing; alpha and transparency dropped, 16 bits cut to the high byte.
// Checksums are not checked. Inflating is stb_image's: needs <stb/stb_image.h> 2.27 or newer (Debian: libstb-dev);
// its functions stay static and inside a namespace of this header.
//
// The inflated rows are unfiltered and become RGB where they lie, so that a picture of 8-bit RGB takes three bytes a
// pixel beside its file. Sizes are checked in the header before anything is allocated, and stb's memory is bounded: a
// stream that inflates to more than twice the picture is refused. As with Pillow a file may lack its end if the picture
// data are complete; chunks that mean nothing for the colours are not looked at; colours beyond a short palette are
// black.
//
// Reference: PNG Specification (Third Edition), W3C.
#pragma once

#include <ocellus/image/decode.hpp>
#include <ocellus/isa/target.hpp>

#include <algorithm>
#include <climits>
#include <cstdarg>
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

OCELLUS_BEGIN
namespace detail {

/// Most bytes of inflated rows.
inline constexpr std::int64_t png_most_bytes = std::int64_t{640} << 20;
/// No allocation of stb's is larger.
OCELLUS_HIDDEN inline constinit thread_local std::size_t stb_largest = 0;
/// Whether malloc had nothing for stb, which only says that it failed.
OCELLUS_HIDDEN inline constinit thread_local bool stb_out_of_memory = false;
inline void* stb_realloc(void* p, std::size_t n) noexcept {
  if (n > stb_largest) return nullptr;
  void* made = std::realloc(p, n);
  stb_out_of_memory = stb_out_of_memory || made == nullptr;
  return made;
}
inline void* stb_malloc(std::size_t n) noexcept { return stb_realloc(nullptr, n); }

}  // namespace detail
OCELLUS_END

// A program may include stb_image.h itself, before or after this header, with its implementation too: none of its
// switches reaches the copy in here, and nothing of this copy stays defined.
#pragma push_macro("STBI_INCLUDE_STB_IMAGE_H")
#pragma push_macro("STB_IMAGE_STATIC")
#pragma push_macro("STB_IMAGE_IMPLEMENTATION")
#pragma push_macro("STBIDEF")
#pragma push_macro("STBI_ONLY_JPEG")
#pragma push_macro("STBI_ONLY_PNG")
#pragma push_macro("STBI_ONLY_BMP")
#pragma push_macro("STBI_ONLY_PSD")
#pragma push_macro("STBI_ONLY_TGA")
#pragma push_macro("STBI_ONLY_GIF")
#pragma push_macro("STBI_ONLY_HDR")
#pragma push_macro("STBI_ONLY_PIC")
#pragma push_macro("STBI_ONLY_PNM")
#pragma push_macro("STBI_ONLY_ZLIB")
#pragma push_macro("STBI_NO_JPEG")
#pragma push_macro("STBI_NO_PNG")
#pragma push_macro("STBI_NO_BMP")
#pragma push_macro("STBI_NO_PSD")
#pragma push_macro("STBI_NO_TGA")
#pragma push_macro("STBI_NO_GIF")
#pragma push_macro("STBI_NO_HDR")
#pragma push_macro("STBI_NO_PIC")
#pragma push_macro("STBI_NO_PNM")
#pragma push_macro("STBI_NO_ZLIB")
#pragma push_macro("STBI_NO_STDIO")
#pragma push_macro("STBI_NO_LINEAR")
#pragma push_macro("STBI_NO_SIMD")
#pragma push_macro("STBI_NO_FAILURE_STRINGS")
#pragma push_macro("STBI_FAILURE_USERMSG")
#pragma push_macro("STBI_MAX_DIMENSIONS")
#pragma push_macro("STBI_ASSERT")
#pragma push_macro("STBI_MALLOC")
#pragma push_macro("STBI_REALLOC")
#pragma push_macro("STBI_REALLOC_SIZED")
#pragma push_macro("STBI_FREE")
#pragma push_macro("STBI_SIMD_ALIGN")
#pragma push_macro("STBI_THREAD_LOCAL")
#pragma push_macro("stbi__err")
#pragma push_macro("stbi__errpf")
#pragma push_macro("stbi__errpuc")
#undef STBI_INCLUDE_STB_IMAGE_H
#undef STB_IMAGE_STATIC
#undef STB_IMAGE_IMPLEMENTATION
#undef STBIDEF
#undef STBI_ONLY_JPEG
#undef STBI_ONLY_PNG
#undef STBI_ONLY_BMP
#undef STBI_ONLY_PSD
#undef STBI_ONLY_TGA
#undef STBI_ONLY_GIF
#undef STBI_ONLY_HDR
#undef STBI_ONLY_PIC
#undef STBI_ONLY_PNM
#undef STBI_ONLY_ZLIB
#undef STBI_NO_JPEG
#undef STBI_NO_PNG
#undef STBI_NO_BMP
#undef STBI_NO_PSD
#undef STBI_NO_TGA
#undef STBI_NO_GIF
#undef STBI_NO_HDR
#undef STBI_NO_PIC
#undef STBI_NO_PNM
#undef STBI_NO_ZLIB
#undef STBI_NO_STDIO
#undef STBI_NO_LINEAR
#undef STBI_NO_SIMD
#undef STBI_NO_FAILURE_STRINGS
#undef STBI_FAILURE_USERMSG
#undef STBI_MAX_DIMENSIONS
#undef STBI_ASSERT
#undef STBI_MALLOC
#undef STBI_REALLOC
#undef STBI_REALLOC_SIZED
#undef STBI_FREE
#undef STBI_SIMD_ALIGN
#undef STBI_THREAD_LOCAL
#undef stbi__err
#undef stbi__errpf
#undef stbi__errpuc
// Not just static: gcc would call these functions by their plain names, for stb declares them extern "C", and a
// program's own would clash in the assembler. Inlined ones have no symbol.
#define STBIDEF static OCELLUS_INLINE
#define STB_IMAGE_STATIC
#define STB_IMAGE_IMPLEMENTATION
#define STBI_ONLY_PNG
#define STBI_NO_STDIO
#define STBI_NO_LINEAR
#define STBI_NO_HDR
#define STBI_NO_SIMD
#define STBI_NO_FAILURE_STRINGS
#define STBI_MAX_DIMENSIONS (1 << 24)
#define STBI_ASSERT(x) static_cast<void>(0)
#define STBI_MALLOC(n) ::ocellus::detail::stb_malloc(n)
#define STBI_REALLOC(p, n) ::ocellus::detail::stb_realloc(p, n)
#define STBI_FREE(p) ::std::free(p)
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wunused-parameter"
#pragma GCC diagnostic ignored "-Wsign-compare"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#pragma GCC diagnostic ignored "-Wshadow"
#pragma GCC diagnostic ignored "-Wunused-but-set-variable"
#endif
namespace ocellus::stb {
#include <stb/stb_image.h>
}  // namespace ocellus::stb
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#pragma pop_macro("stbi__errpuc")
#pragma pop_macro("stbi__errpf")
#pragma pop_macro("stbi__err")
#pragma pop_macro("STBI_THREAD_LOCAL")
#pragma pop_macro("STBI_SIMD_ALIGN")
#pragma pop_macro("STBI_FREE")
#pragma pop_macro("STBI_REALLOC_SIZED")
#pragma pop_macro("STBI_REALLOC")
#pragma pop_macro("STBI_MALLOC")
#pragma pop_macro("STBI_ASSERT")
#pragma pop_macro("STBI_MAX_DIMENSIONS")
#pragma pop_macro("STBI_FAILURE_USERMSG")
#pragma pop_macro("STBI_NO_FAILURE_STRINGS")
#pragma pop_macro("STBI_NO_SIMD")
#pragma pop_macro("STBI_NO_LINEAR")
#pragma pop_macro("STBI_NO_STDIO")
#pragma pop_macro("STBI_NO_ZLIB")
#pragma pop_macro("STBI_NO_PNM")
#pragma pop_macro("STBI_NO_PIC")
#pragma pop_macro("STBI_NO_HDR")
#pragma pop_macro("STBI_NO_GIF")
#pragma pop_macro("STBI_NO_TGA")
#pragma pop_macro("STBI_NO_PSD")
#pragma pop_macro("STBI_NO_BMP")
#pragma pop_macro("STBI_NO_PNG")
#pragma pop_macro("STBI_NO_JPEG")
#pragma pop_macro("STBI_ONLY_ZLIB")
#pragma pop_macro("STBI_ONLY_PNM")
#pragma pop_macro("STBI_ONLY_PIC")
#pragma pop_macro("STBI_ONLY_HDR")
#pragma pop_macro("STBI_ONLY_GIF")
#pragma pop_macro("STBI_ONLY_TGA")
#pragma pop_macro("STBI_ONLY_PSD")
#pragma pop_macro("STBI_ONLY_BMP")
#pragma pop_macro("STBI_ONLY_PNG")
#pragma pop_macro("STBI_ONLY_JPEG")
#pragma pop_macro("STBIDEF")
#pragma pop_macro("STB_IMAGE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_STATIC")
#pragma pop_macro("STBI_INCLUDE_STB_IMAGE_H")

OCELLUS_BEGIN

namespace detail {

inline constexpr std::uint32_t png_ihdr = 0x49484452, png_plte = 0x504c5445, png_idat = 0x49444154,
                               png_iend = 0x49454e44;

struct png_header {
  std::uint32_t width = 0;
  std::uint32_t height = 0;
  int depth = 0;
  int color = 0;
  bool interlaced = false;
  bool known = false;              // depth, methods and palette are what the specification has
  rgb8 palette[256];               // of a palette or of grey, up to 8 bits
  std::size_t data_at = 0;         // offset of the first IDAT
  int channels() const noexcept { return color == 2 ? 3 : color == 4 ? 2 : color == 6 ? 4 : 1; }
  int sample_bytes() const noexcept { return depth == 16 ? 2 : 1; }
  std::int64_t row_bytes(int pixels) const noexcept { return (std::int64_t{pixels} * channels() * depth + 7) / 8; }
};

[[gnu::cold]] inline status png_read_header(std::span<const std::uint8_t> file, png_header& h) noexcept {
  bytes in(file);
  in.skip(8);
  const std::uint32_t length = in.u32be(), type = in.u32be();
  h.width = in.u32be();
  h.height = in.u32be();
  h.depth = in.u8();
  h.color = in.u8();
  const int compression = in.u8(), filter = in.u8(), interlace = in.u8();
  if (in.overrun) return status::truncated;
  if (length != 13 || type != png_ihdr) {
    return type == 0x43674249 ? status::unsupported_image : status::bad_image;  // CgBI: Apple's own
  }
  h.interlaced = interlace == 1;
  const bool whole_bytes = h.depth == 8 || h.depth == 16, parts = h.depth == 1 || h.depth == 2 || h.depth == 4;
  const bool indexed = h.color == 3;
  h.known = compression == 0 && filter == 0 && interlace <= 1 &&
            (h.color == 0 ? whole_bytes || parts : indexed ? h.depth == 8 || parts : whole_bytes) &&
            (h.color == 0 || h.color == 2 || indexed || h.color == 4 || h.color == 6);
  const int greys = h.known && h.color == 0 && h.depth <= 8 ? 1 << h.depth : 0;
  for (int i = 0; i < greys; i++) {
    const auto grey = static_cast<std::uint8_t>(i * 255 / (greys - 1));
    h.palette[i] = {grey, grey, grey};
  }
  bool palette = !indexed;
  in.seek(8 + 8 + 13 + 4);
  while (!in.overrun && in.left() > 0) {
    h.data_at = in.at;
    const std::uint32_t n = in.u32be(), chunk = in.u32be();
    if (chunk == png_idat) break;
    if (chunk == png_plte && indexed && n <= in.left()) {
      palette = n % 3 == 0 && n <= 768;
      for (std::uint32_t i = 0; i < 256; i++) {
        const std::uint8_t* c = in.data + in.at + 3 * std::size_t{i};
        h.palette[i] = palette && 3 * i < n ? rgb8{c[0], c[1], c[2]} : rgb8{};
      }
    }
    in.skip(n);
    in.skip(4);
  }
  h.known = h.known && palette;
  return in.overrun ? status::truncated : status::ok;
}

/// The data of all IDAT chunks. `ended` is false if the file ends early; then they are those that are there.
[[gnu::cold]] inline std::unique_ptr<std::uint8_t[]> png_data(std::span<const std::uint8_t> file, const png_header& h,
                                                              std::size_t& size, bool& ended) noexcept {
  bytes in(file);
  in.seek(h.data_at);
  std::unique_ptr<std::uint8_t[]> out(new (std::nothrow) std::uint8_t[in.left() + 1]);
  if (!out) return out;
  size = 0;
  ended = false;
  while (!ended && in.left() >= 8) {
    const std::size_t n = in.u32be();
    const std::uint32_t type = in.u32be();
    const std::size_t there = std::min(n, in.left());
    if (type == png_idat) {
      std::memcpy(out.get() + size, in.data + in.at, there);
      size += there;
    }
    ended = type == png_iend;
    in.skip(n);
    in.skip(4);
  }
  return out;
}

/// Of an interlaced picture the pixels that come together: from (x, y), every dx-th of every dy-th row.
struct png_pass {
  int x, y, dx, dy;
  int width(const png_header& h) const noexcept { return (static_cast<int>(h.width) - x + dx - 1) / dx; }
  int height(const png_header& h) const noexcept { return (static_cast<int>(h.height) - y + dy - 1) / dy; }
  /// With the filter's number before each row.
  std::int64_t bytes(const png_header& h) const noexcept {
    return width(h) > 0 && height(h) > 0 ? (h.row_bytes(width(h)) + 1) * height(h) : 0;
  }
};
OCELLUS_TABLE png_pass png_whole[1] = {{0, 0, 1, 1}};
OCELLUS_TABLE png_pass png_adam7[7] = {{0, 0, 8, 8}, {4, 0, 8, 8}, {0, 4, 4, 8}, {2, 0, 4, 4},
                                       {0, 2, 2, 4}, {1, 0, 2, 2}, {0, 1, 1, 2}};

/// One of the neighbours: left, above, above left.
constexpr int png_paeth(int a, int b, int c) noexcept {
  const int to_a = b > c ? b - c : c - b, to_b = a > c ? a - c : c - a;
  const int sum = a + b - 2 * c, to_c = sum < 0 ? -sum : sum;
  return to_a <= to_b && to_a <= to_c ? a : to_b <= to_c ? b : c;
}

/// Undoes the filter (0 to 4) of a row; `above`: the row before (zeros for the first one); `step`: bytes of a pixel.
inline void png_unfilter(int filter, std::uint8_t* row, const std::uint8_t* above, std::int64_t n, int step) noexcept {
  const auto add = [row](std::int64_t x, int v) { row[x] = static_cast<std::uint8_t>(row[x] + v); };
  const std::int64_t first = std::min<std::int64_t>(n, step);
  for (std::int64_t x = 0; x < first; x++) add(x, filter < 2 ? 0 : filter == 3 ? above[x] / 2 : above[x]);
  if (filter == 1)
    for (std::int64_t x = step; x < n; x++) add(x, row[x - step]);
  if (filter == 2)
    for (std::int64_t x = step; x < n; x++) add(x, above[x]);
  if (filter == 3)
    for (std::int64_t x = step; x < n; x++) add(x, (row[x - step] + above[x]) / 2);
  if (filter == 4)
    for (std::int64_t x = step; x < n; x++) add(x, png_paeth(row[x - step], above[x], above[x - step]));
}

/// A row's pixels, each dx pixels behind the one before.
inline void png_convert(const png_header& h, const std::uint8_t* row, int n, int dx, std::uint8_t* out) noexcept {
  const int sample = h.sample_bytes(), step = h.channels() * sample;
  if (h.color == 2 && sample == 1 && dx == 1) {
    std::memcpy(out, row, static_cast<std::size_t>(n) * 3);
  } else if (h.depth <= 8 && h.channels() == 1) {
    const int per_byte = 8 / h.depth, mask = (1 << h.depth) - 1;
    for (int x = 0; x < n; x++, out += 3 * dx)
      put(out, h.palette[row[x / per_byte] >> ((per_byte - 1 - x % per_byte) * h.depth) & mask]);
  } else {
    const int next = h.channels() < 3 ? 0 : sample;  // alike where it is grey
    for (int x = 0; x < n; x++, row += step, out += 3 * dx) put(out, {row[0], row[next], row[2 * next]});
  }
}

inline status png_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  png_header h;
  const status header = png_read_header(file, h);
  if (header != status::ok) return header;
  if (h.color == 1 || h.color == 5 || h.color > 6) return status::bad_image;
  const int step = h.channels() * h.sample_bytes();
  const status size = check_size(h.width, h.height, step + 3, options);
  if (size != status::ok) return size;
  // Deflate shrinks by 1032 at most.
  if (h.row_bytes(static_cast<int>(h.width)) * h.height / 1032 > static_cast<std::int64_t>(file.size()))
    return status::truncated;
  std::size_t data_size = 0;
  bool ended = false;
  std::unique_ptr<std::uint8_t[]> data = png_data(file, h, data_size, ended);
  const auto zeros = allocate<std::uint8_t>(h.row_bytes(static_cast<int>(h.width)));
  if (!data || !zeros) return status::out_of_memory;
  const status damaged = ended ? status::bad_image : status::truncated;
  if (!h.known) return damaged;
  const std::span<const png_pass> passes = h.interlaced ? std::span<const png_pass>(png_adam7) : png_whole;
  std::int64_t expected = 0;
  for (const png_pass& p : passes) expected += p.bytes(h);
  if (expected > png_most_bytes) return status::image_too_large;
  if (data_size > INT_MAX) return status::too_large;
  stb_out_of_memory = false;
  stb_largest = 2 * static_cast<std::size_t>(expected) + 65536;  // it doubles its memory for what is too much
  int inflated = 0;
  const std::unique_ptr<char, void (*)(void*)> raw(
      stb::stbi_zlib_decode_malloc_guesssize_headerflag(reinterpret_cast<const char*>(data.get()),
                                                        static_cast<int>(data_size), static_cast<int>(expected),
                                                        &inflated, 1),
      std::free);
  data.reset();
  if (!raw) return stb_out_of_memory ? status::out_of_memory : damaged;
  if (inflated < expected) return damaged;
  const std::uint8_t* rows[7] = {};  // of each pass, with their filters' numbers
  auto* at = reinterpret_cast<std::uint8_t*>(raw.get());
  for (std::size_t i = 0; i < passes.size(); i++) {
    rows[i] = at;
    const std::int64_t n = h.row_bytes(passes[i].width(h));
    const std::uint8_t* above = zeros.get();
    for (const std::uint8_t* end = at + passes[i].bytes(h); at != end; at += n + 1) {
      if (at[0] > 4) return damaged;
      png_unfilter(at[0], at + 1, above, n, step);
      above = at + 1;
    }
  }

  const status opened = sink.open(static_cast<int>(h.width), static_cast<int>(h.height));
  if (opened != status::ok) return opened;
  for (int y = sink.top; y < sink.bottom; y++) {
    std::uint8_t* const out = sink.row(y);
    for (std::size_t i = 0; i < passes.size(); i++) {
      const png_pass& p = passes[i];
      if (y % p.dy != p.y || p.width(h) <= 0) continue;
      const std::uint8_t* row = rows[i] + (h.row_bytes(p.width(h)) + 1) * ((y - p.y) / p.dy) + 1;
      png_convert(h, row, p.width(h), p.dx, out + 3 * p.x);
    }
  }
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image (also for a stream that ends early inside a whole file), unsupported_image, truncated,
/// image_too_large, too_large, out_of_memory.
inline result<image> decode_png(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::png_rows, file, options);
}

OCELLUS_END
