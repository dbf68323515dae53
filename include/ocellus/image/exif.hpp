// EXIF orientation: finding it in JPEG and PNG files, and turning pictures by it.
//
// Reference: CIPA DC-008 (Exif 2.32) section 4.6.4, tag 0x0112; TIFF 6.0 section 2; PNG's eXIf chunk.
#pragma once

#include <ocellus/image/decode.hpp>

#include <cstring>

OCELLUS_BEGIN

namespace detail {

/// Tag 0x0112 of the first directory of a TIFF structure, of several the last, as SHORT or LONG; 1 if it is not
/// there or makes no sense.
[[gnu::cold]] inline int tiff_orientation(std::span<const std::uint8_t> tiff) noexcept {
  bytes in(tiff);
  const int order = in.u16be();
  if (order != 0x4949 && order != 0x4d4d) return 1;
  const bool little = order == 0x4949;
  const auto u16 = [&] { return little ? in.u16le() : in.u16be(); };
  const auto u32 = [&] { return little ? in.u32le() : in.u32be(); };
  if (u16() != 42) return 1;
  in.seek(u32());
  const int entries = u16();
  int orientation = 1;
  for (int i = 0; i < entries && !in.overrun; i++) {
    const int tag = u16(), type = u16();
    const std::uint32_t count = u32();
    const std::size_t value = in.at;
    if (tag == 0x0112) {
      const std::uint32_t v = type == 4 ? u32() : static_cast<std::uint32_t>(u16());
      const bool sound =
          ((type == 3 && (count == 1 || count == 2)) || (type == 4 && count == 1)) && !in.overrun;
      orientation = sound && v >= 1 && v <= 8 ? static_cast<int>(v) : 1;
    }
    in.seek(value + 4);
  }
  return orientation;
}

inline int jpeg_orientation(std::span<const std::uint8_t> file) noexcept {
  bytes in(file);
  in.skip(2);
  while (in.u8() == 0xff) {
    int marker = in.u8();
    while (marker == 0xff) marker = in.u8();
    const std::size_t start = in.at;
    const int length = in.u16be();
    if (in.overrun || marker == 0xda || marker == 0xd9 || length < 2) return 1;
    const std::size_t n = static_cast<std::size_t>(length) - 2;
    if (marker == 0xe1 && n >= 6 && n <= in.left() && std::memcmp(in.data + in.at, "Exif\0", 6) == 0) {
      return tiff_orientation(file.subspan(in.at + 6, n - 6));
    }
    in.seek(start + static_cast<std::size_t>(length));
  }
  return 1;
}

inline int png_orientation(std::span<const std::uint8_t> file) noexcept {
  bytes in(file);
  in.skip(8);
  while (!in.overrun) {
    const std::uint32_t length = in.u32be(), type = in.u32be();
    if (type == 0x65584966)
      return length <= in.left() ? tiff_orientation(file.subspan(in.at, length)) : 1;  // eXIf
    in.skip(length);
    in.skip(4);
  }
  return 1;
}

/// Which end of the source an upright picture's rows and columns start from.
constexpr bool turned_from_right(int orientation) noexcept {
  return orientation == 2 || orientation == 3 || orientation == 7 || orientation == 8;
}
constexpr bool turned_from_bottom(int orientation) noexcept {
  return orientation == 3 || orientation == 4 || orientation == 6 || orientation == 7;
}

}  // namespace detail

/// EXIF orientation of a JPEG or PNG file, 1 to 8; 1 (upright) where there is none.
inline int exif_orientation(std::span<const std::uint8_t> file) noexcept {
  if (file.size() > 8 && file[0] == 0xff && file[1] == 0xd8) return detail::jpeg_orientation(file);
  if (file.size() > 8 && file[0] == 0x89 && file[1] == 'P') return detail::png_orientation(file);
  return 1;
}

/// The picture turned upright: 2 to 4 mirror or turn by half, 5 to 8 exchange width and height.
/// Errors: invalid_argument (an orientation outside 1 to 8, a picture that is empty or of overlapping rows),
/// out_of_memory.
inline result<image> orient(image_view in, int orientation) noexcept {
  if (orientation < 1 || orientation > 8 || in.empty() || in.overlaps()) return status::invalid_argument;
  const bool swapped = orientation >= 5;
  result<image> made = swapped ? image::make(in.height, in.width) : image::make(in.width, in.height);
  if (!made) return made;
  const bool from_right = detail::turned_from_right(orientation), from_bottom = detail::turned_from_bottom(orientation);
  for (int y = 0; y < made->height(); y++) {
    std::uint8_t* out = made->row(y);
    for (int x = 0; x < made->width(); x++, out += 3) {
      int sx = swapped ? y : x, sy = swapped ? x : y;
      if (from_right) sx = in.width - 1 - sx;
      if (from_bottom) sy = in.height - 1 - sy;
      std::memcpy(out, in.row(sy) + 3 * static_cast<std::ptrdiff_t>(sx), 3);
    }
  }
  return made;
}

OCELLUS_END
