// RGB to PNG files, through stb_image_write. Opt-in; needs <stb/stb_image_write.h>, whose functions stay
// static and inside of a namespace of this header.
//
//   ocellus::save_png("small.png", photo);   // written beside it as small.png.tmp, then renamed
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/status.hpp>
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
#undef STB_IMAGE_WRITE_STATIC
#undef STB_IMAGE_WRITE_IMPLEMENTATION
#undef STBI_WRITE_NO_STDIO
#undef STBIW_ASSERT

OCELLUS_BEGIN

/// Writes an 8-bit RGB PNG to a temporary file beside `path` and renames it; a failure leaves neither.
/// Errors: invalid_argument (an empty picture), image_too_large (2^31 bytes), out_of_memory, cannot_write.
inline status save_png(const char* path, image_view picture) noexcept {
  if (picture.empty()) return status::invalid_argument;
  if (picture.stride > INT_MAX || picture.height > INT_MAX / (picture.width * std::int64_t{3} + 1)) {
    return status::image_too_large;
  }
  int size = 0;
  const std::unique_ptr<unsigned char, void (*)(void*)> png(
      stb::stbi_write_png_to_mem(picture.pixels, static_cast<int>(picture.stride), picture.width,
                                 picture.height, 3, &size),
      std::free);
  const std::size_t length = std::strlen(path);
  const std::unique_ptr<char[]> temporary(new (std::nothrow) char[length + 5]);
  if (!png || !temporary) return status::out_of_memory;
  std::memcpy(temporary.get(), path, length);
  std::memcpy(temporary.get() + length, ".tmp", 5);
  std::FILE* file = std::fopen(temporary.get(), "wb");
  if (file == nullptr) return status::cannot_write;
  const auto n = static_cast<std::size_t>(size);
  const bool written = std::fwrite(png.get(), 1, n, file) == n;
  if (std::fclose(file) != 0 || !written || std::rename(temporary.get(), path) != 0) {
    std::remove(temporary.get());
    return status::cannot_write;
  }
  return status::ok;
}

OCELLUS_END
