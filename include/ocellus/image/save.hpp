// RGB to PNG files, through stb_image_write. Opt-in; needs <stb/stb_image_write.h>, whose functions stay
// static and inside a namespace of this header.
//
//   ocellus::save_png("small.png", photo);   // written beside it as small.png.tmp, then renamed
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/memory.hpp>
#include <ocellus/core/status.hpp>
#include <ocellus/core/windows.hpp>
#include <ocellus/image/image.hpp>

#include <climits>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <math.h>
#include <memory>
#include <new>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#if __has_include(<sys/stat.h>)
#include <sys/stat.h>
#endif

// A program may include stb_image_write.h itself, before or after this header, with its implementation too:
// none of its switches reaches the copy in here, and nothing of this copy stays defined.
#pragma push_macro("INCLUDE_STB_IMAGE_WRITE_H")
#pragma push_macro("STB_IMAGE_WRITE_STATIC")
#pragma push_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma push_macro("STBIWDEF")
#pragma push_macro("STBI_WRITE_NO_STDIO")
#pragma push_macro("STBIW_ASSERT")
#pragma push_macro("STBIW_MALLOC")
#pragma push_macro("STBIW_REALLOC")
#pragma push_macro("STBIW_REALLOC_SIZED")
#pragma push_macro("STBIW_FREE")
#pragma push_macro("STBIW_MEMMOVE")
#pragma push_macro("STBIW_ZLIB_COMPRESS")
#pragma push_macro("STBIW_CRC32")
#undef INCLUDE_STB_IMAGE_WRITE_H
#undef STB_IMAGE_WRITE_STATIC
#undef STB_IMAGE_WRITE_IMPLEMENTATION
#undef STBIWDEF
#undef STBI_WRITE_NO_STDIO
#undef STBIW_ASSERT
#undef STBIW_MALLOC
#undef STBIW_REALLOC
#undef STBIW_REALLOC_SIZED
#undef STBIW_FREE
#undef STBIW_MEMMOVE
#undef STBIW_ZLIB_COMPRESS
#undef STBIW_CRC32
#define STB_IMAGE_WRITE_STATIC
#define STB_IMAGE_WRITE_IMPLEMENTATION
#define STBI_WRITE_NO_STDIO
#define STBIW_ASSERT(x) static_cast<void>(0)
#if defined(__GNUC__)
#pragma GCC diagnostic push
#pragma GCC diagnostic ignored "-Wunused-function"
#pragma GCC diagnostic ignored "-Wconversion"
#pragma GCC diagnostic ignored "-Wsign-conversion"
#pragma GCC diagnostic ignored "-Wmissing-field-initializers"
#pragma GCC diagnostic ignored "-Wcast-qual"
#pragma GCC diagnostic ignored "-Wold-style-cast"
#endif
namespace ocellus::stb {
#include <stb/stb_image_write.h>
}  // namespace ocellus::stb
#if defined(__GNUC__)
#pragma GCC diagnostic pop
#endif
#pragma pop_macro("STBIW_CRC32")
#pragma pop_macro("STBIW_ZLIB_COMPRESS")
#pragma pop_macro("STBIW_MEMMOVE")
#pragma pop_macro("STBIW_FREE")
#pragma pop_macro("STBIW_REALLOC_SIZED")
#pragma pop_macro("STBIW_REALLOC")
#pragma pop_macro("STBIW_MALLOC")
#pragma pop_macro("STBIW_ASSERT")
#pragma pop_macro("STBI_WRITE_NO_STDIO")
#pragma pop_macro("STBIWDEF")
#pragma pop_macro("STB_IMAGE_WRITE_IMPLEMENTATION")
#pragma pop_macro("STB_IMAGE_WRITE_STATIC")
#pragma pop_macro("INCLUDE_STB_IMAGE_WRITE_H")

OCELLUS_BEGIN
namespace detail {

/// Something that is there, but no file itself: a device, a pipe or a link, which renaming would replace.
inline bool is_no_plain_file([[maybe_unused]] const char* path) noexcept {
#if defined(S_ISLNK)
  struct stat found = {};
  return ::lstat(path, &found) == 0 && !S_ISREG(found.st_mode);
#else
  return false;
#endif
}

}  // namespace detail

/// An 8-bit RGB PNG in memory.
/// Errors: invalid_argument (a picture that is empty or of overlapping rows), image_too_large (2^31 bytes),
/// out_of_memory.
inline result<array<std::uint8_t>> encode_png(image_view picture) noexcept {
  if (picture.empty() || picture.overlaps()) return status::invalid_argument;
  // stb counts in int: bytes from the first row to the last, and bytes of what it compresses.
  const int most = INT_MAX / picture.height;
  if (picture.stride > most || picture.stride < -most || picture.width * std::int64_t{3} + 1 > most) {
    return status::image_too_large;
  }
  int size = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> png(
      stb::stbi_write_png_to_mem(picture.pixels, picture.height == 1 ? 0 : static_cast<int>(picture.stride),
                                 picture.width, picture.height, 3, &size),
      std::free);
  if (!png) return status::out_of_memory;
  result<array<std::uint8_t>> made = array<std::uint8_t>::make(static_cast<std::size_t>(size));
  if (made) std::memcpy(made->data(), png.get(), made->size());
  return made;
}

/// Writes an 8-bit RGB PNG to a temporary file beside `path` and renames it; a failure leaves neither. Devices,
/// pipes and links are written to as they are.
/// Errors: those of encode_png, cannot_write.
inline status save_png(const char* path, image_view picture) noexcept {
  const result<array<std::uint8_t>> png = encode_png(picture);
  if (!png) return png.error();
  const std::size_t length = std::strlen(path);
  const std::unique_ptr<char[]> temporary(new (std::nothrow) char[length + 5]);
  if (!temporary) return status::out_of_memory;
  std::memcpy(temporary.get(), path, length);
  std::memcpy(temporary.get() + length, ".tmp", 5);
  const bool in_place = detail::is_no_plain_file(path);
  std::FILE* file = std::fopen(in_place ? path : temporary.get(), "wb");
  if (file == nullptr) return status::cannot_write;
  const bool written = std::fwrite(png->data(), 1, png->size(), file) == png->size();
  const bool closed = std::fclose(file) == 0 && written;
  if (in_place) return closed ? status::ok : status::cannot_write;
#if defined(_WIN32)  // whose rename replaces nothing
  constexpr unsigned long replace_existing = 1;
  const bool renamed = closed && MoveFileExA(temporary.get(), path, replace_existing) != 0;
#else
  const bool renamed = closed && std::rename(temporary.get(), path) == 0;
#endif
  if (!renamed) {
    std::remove(temporary.get());
    return status::cannot_write;
  }
  return status::ok;
}

OCELLUS_END
