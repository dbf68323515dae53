// Picture files to RGB: JPEG, PNG, BMP, GIF, TGA, PBM, PGM, PPM. Opt-in: the core takes pixels and needs none
// of this.
//
//   auto photo = ocellus::load_image("cat.jpg");                       // result<image>
//   if (!photo) std::puts(ocellus::to_string(photo.error()));
//
// Pixels are those of Pillow's Image.open(...).convert("RGB"): alpha is dropped, not blended; palettes are
// looked up; grey is repeated; 16 bits keep the high byte (also grey, which Pillow would clip); CMYK is
// converted without a profile; ICC profiles and gamma are ignored; of an animation, the first frame; EXIF
// orientation is ignored unless asked for. Not supported: WebP, HEIC, AVIF, TIFF, JPEG 2000, JPEG XL, PSD, QOI, DDS,
// icons: decode them yourself and pass pixels.
//
// Files are untrusted: sizes are checked before memory is asked for, reads stay inside the file, work is
// bounded. Damaged files give a status; where libjpeg continues with damaged data, so does this. Where it
// differs from Pillow:
//   - GIF frames that do not cover the canvas lie on the file's background colour;
//   - PNG and GIF checksums and data after the picture are not looked at;
//   - progressive JPEG that never brings all bits of its coefficients is not smoothed across blocks;
//   - BMP bit fields of any layout are taken; pixels that RLE data leaves out have colour 0.
#pragma once

#include <ocellus/image/bmp.hpp>
#include <ocellus/image/decode.hpp>
#include <ocellus/image/exif.hpp>
#include <ocellus/image/gif.hpp>
#include <ocellus/image/jpeg.hpp>
#include <ocellus/image/png.hpp>
#include <ocellus/image/pnm.hpp>
#include <ocellus/image/tga.hpp>

#include <cerrno>
#include <cstdio>

OCELLUS_BEGIN

namespace detail {

inline result<image> decode_by_signature(std::span<const std::uint8_t> file,
                                         const load_options& options) noexcept {
  const auto starts = [&](const char* signature, std::size_t n) {
    return file.size() >= n && std::memcmp(file.data(), signature, n) == 0;
  };
  if (file.empty()) return status::empty_file;
  if (starts("\xff\xd8", 2)) return decode_jpeg(file, options);
  if (starts("\x89PNG\r\n\x1a\n", 8)) return decode_png(file, options);
  if (starts("BM", 2)) return decode_bmp(file, options);
  if (starts("GIF87a", 6) || starts("GIF89a", 6)) return decode_gif(file, options);
  if (file.size() >= 2 && file[0] == 'P' && file[1] >= '1' && file[1] <= '6')
    return decode_pnm(file, options);
  if (starts("RIFF", 4) || starts("II*\0", 4) || starts("MM\0*", 4) || starts("II+\0", 4) ||
      starts("MM\0+", 4))
    return status::unsupported_image;  // WebP, TIFF, BigTIFF
  if (file.size() >= 12 && std::memcmp(file.data() + 4, "ftyp", 4) == 0)
    return status::unsupported_image;  // HEIC, AVIF
  if (starts("\0\0\0\x0cjP  \r\n\x87\n", 12) || starts("\xff\x4f\xff\x51", 4) ||
      starts("\0\0\0\x0cJXL \r\n\x87\n", 12) || starts("\xff\x0a", 2))
    return status::unsupported_image;  // JPEG 2000, JPEG XL, each as a container and as a bare codestream
  if (starts("8BPS", 4) || starts("qoif", 4) || starts("DDS ", 4)) return status::unsupported_image;
  if (looks_like_tga(file)) return decode_tga(file, options);
  // Windows icons: after TGA, for four bytes of mostly zeros are not much of a signature.
  if (starts("\0\0\x01\0", 4)) return status::unsupported_image;
  return status::bad_image;
}

}  // namespace detail

/// Decodes a whole file in memory.
/// Errors: empty_file, bad_image, unsupported_image, truncated, image_too_large, out_of_memory.
inline result<image> decode_image(std::span<const std::uint8_t> file,
                                  const load_options& options = {}) noexcept {
  result<image> made = detail::decode_by_signature(file, options);
  if (!made || !options.exif_orientation) return made;
  const int orientation = exif_orientation(file);
  if (orientation == 1) return made;
  return orient(*made, orientation);
}

/// Reads and decodes a file.
/// Errors: file_not_found, cannot_read, too_large (more than options.max_bytes), and those of decode_image.
inline result<image> load_image(const char* path, const load_options& options = {}) noexcept {
  const std::unique_ptr<std::FILE, int (*)(std::FILE*)> file(std::fopen(path, "rb"),
                                                             [](std::FILE* f) { return std::fclose(f); });
  if (!file) return errno == ENOENT ? status::file_not_found : status::cannot_read;
  if (std::fgetc(file.get()) == EOF)
    return std::ferror(file.get()) != 0 ? status::cannot_read : status::empty_file;
  if (std::fseek(file.get(), 0, SEEK_END) != 0) return status::not_a_regular_file;
  const long size = std::ftell(file.get());
  if (size <= 0 || std::fseek(file.get(), 0, SEEK_SET) != 0) return status::not_a_regular_file;
  if (size > options.max_bytes) return status::too_large;
  const auto n = static_cast<std::size_t>(size);
  const std::unique_ptr<std::uint8_t[]> data(new (std::nothrow) std::uint8_t[n]);
  if (!data) return status::out_of_memory;
  if (std::fread(data.get(), 1, n, file.get()) != n) return status::cannot_read;
  return decode_image({data.get(), n}, options);
}

OCELLUS_END
