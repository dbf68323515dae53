// PNG through stb_image: all colour types, depths and interlacing; alpha and transparency dropped, 16 bits
// cut to the high byte. Checksums are not checked (stb does not). Needs <stb/stb_image.h> 2.27 or newer
// (Debian: libstb-dev); its functions stay static and inside a namespace of this header.
//
// Around stb: sizes are checked in the header before anything is allocated, a single allocation of stb is
// bounded (a stream that inflates far beyond the picture is refused), and it gets a file that holds only what it
// needs: without chunks that it would refuse, with an end where the file has none (Pillow takes these if the
// picture data are complete), and with short palettes filled with black (stb would read colours that were never
// written).
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

/// No allocation of stb's is larger: a picture within the default limits needs less.
inline constexpr std::size_t stb_largest = std::size_t{640} << 20;
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
  std::size_t palette_at = 0;      // offset of PLTE's length field, 0 if there is none
  std::uint32_t palette_size = 0;  // bytes
  std::size_t data_at = 0;         // offset of the first IDAT
};

inline status png_read_header(std::span<const std::uint8_t> file, png_header& h) noexcept {
  bytes in(file);
  in.skip(8);
  const std::uint32_t length = in.u32be(), type = in.u32be();
  h.width = in.u32be();
  h.height = in.u32be();
  h.depth = in.u8();
  h.color = in.u8();
  if (in.overrun) return status::truncated;
  if (length != 13 || type != png_ihdr) {
    return type == 0x43674249 ? status::unsupported_image : status::bad_image;  // CgBI: Apple's own
  }
  in.seek(8 + 8 + 13 + 4);
  while (!in.overrun && in.left() > 0) {
    const std::size_t at = in.at;
    const std::uint32_t n = in.u32be(), chunk = in.u32be();
    h.data_at = at;
    if (chunk == png_idat) break;
    if (chunk == png_plte) {
      h.palette_at = at;
      h.palette_size = n;
    }
    in.skip(n);
    in.skip(4);
  }
  return in.overrun ? status::truncated : status::ok;
}

/// What stb is to see: the header, the palette filled up to 256 colours with black, the picture data, an end. What
/// else the file holds means nothing for the colours, and stb would refuse some of it. If the file ends early,
/// `ended` is false and the data are those that are there.
[[gnu::cold]] inline std::unique_ptr<std::uint8_t[]> png_repack(std::span<const std::uint8_t> file,
                                                                const png_header& h, std::size_t& size,
                                                                bool& ended) noexcept {
  constexpr std::size_t head = 8 + 8 + 13 + 4, full = 768;
  // Three chunks may be longer than in the file: the palette, data that are cut short, the end.
  auto out = allocate<std::uint8_t>(static_cast<std::int64_t>(file.size() + full + 3 * 12));
  if (!out) return out;
  std::memcpy(out.get(), file.data(), head);
  size = head;
  const auto append = [&](std::uint32_t type, const std::uint8_t* data, std::size_t n, std::size_t padded) {
    std::uint8_t* p = out.get() + size;
    for (int i = 0; i < 4; i++) {
      p[i] = static_cast<std::uint8_t>(padded >> (24 - 8 * i));
      p[4 + i] = static_cast<std::uint8_t>(type >> (24 - 8 * i));
    }
    if (n > 0) std::memcpy(p + 8, data, n);
    size += 8 + padded + 4;
  };
  if (h.color == 3 && h.palette_at != 0) {
    const bool fill = h.palette_size < full && h.palette_size % 3 == 0;
    append(png_plte, file.data() + h.palette_at + 8, h.palette_size, fill ? full : h.palette_size);
  }
  bytes in(file);
  in.seek(h.data_at);
  ended = false;
  while (!ended && in.left() >= 8) {
    const std::size_t n = in.u32be();
    const std::uint32_t type = in.u32be();
    const std::size_t there = std::min(n, in.left());
    // Not empty ones: stb would copy nothing to nowhere.
    if (type == png_idat && there > 0) append(type, in.data + in.at, there, there);
    ended = type == png_iend;
    in.skip(n);
    in.skip(4);
  }
  append(png_iend, nullptr, 0, 0);
  return out;
}

inline status png_rows(std::span<const std::uint8_t> file, const load_options& options, row_sink& sink) noexcept {
  png_header h;
  const status header = png_read_header(file, h);
  if (header != status::ok) return header;
  constexpr int channels[8] = {1, 0, 3, 4, 2, 0, 4, 0};  // a palette becomes RGBA
  const int n = channels[h.color & 7];
  if (n == 0 || h.color > 7) return status::bad_image;
  // stb holds the inflated rows, the unfiltered picture and the conversion to RGB, the last two at 16 bits if
  // it is so.
  const int sample = h.depth == 16 ? 2 : 1;
  const status size = check_size(h.width, h.height, (2 * n + 3) * sample + 3, options);
  if (size != status::ok) return size;
  // Deflate shrinks by 1032 at most.
  const std::int64_t row_bits = std::int64_t{h.width} * (h.color == 3 ? 1 : n) * h.depth;
  if (row_bits / 8 * h.height / 1032 > static_cast<std::int64_t>(file.size())) return status::truncated;

  std::size_t repacked_size = 0;
  bool ended = false;
  const std::unique_ptr<std::uint8_t[]> repacked = png_repack(file, h, repacked_size, ended);
  if (!repacked) return status::out_of_memory;
  if (repacked_size > INT_MAX) return status::too_large;
  stb_out_of_memory = false;
  int width = 0, height = 0, found = 0;
  std::unique_ptr<std::uint8_t, void (*)(void*)> pixels(
      stb::stbi_load_from_memory(repacked.get(), static_cast<int>(repacked_size), &width, &height, &found, 3),
      std::free);
  if (!pixels) {
    if (stb_out_of_memory) return status::out_of_memory;
    return ended ? status::bad_image : status::truncated;
  }
  const status opened = sink.open(width, height);
  if (opened != status::ok) return opened;
  const std::size_t row_bytes = static_cast<std::size_t>(width) * 3;
  const std::uint8_t* from = pixels.get();
  for (int y = 0; y < height; y++, from += row_bytes) std::memcpy(sink.row(y), from, row_bytes);
  return status::ok;
}

}  // namespace detail

/// Errors: bad_image (also for a stream that ends early inside a whole file), unsupported_image, truncated,
/// image_too_large, too_large, out_of_memory.
inline result<image> decode_png(std::span<const std::uint8_t> file, const load_options& options = {}) noexcept {
  return detail::to_image(&detail::png_rows, file, options);
}

OCELLUS_END
