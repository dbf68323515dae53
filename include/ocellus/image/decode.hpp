// What the decoders share: limits, a reader that never leaves its buffer, and where pixels go.
//
// A decoder gets the whole file as bytes, refuses what it cannot take before it allocates, and reads through
// `bytes`, which gives zeros beyond the end and remembers that it did. Its rows go to a `row_sink`, from top to bottom.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/status.hpp>
#include <ocellus/image/image.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <span>

OCELLUS_BEGIN

/// Limits and switches of decoding.
struct load_options {
  /// Pictures with more pixels are refused by their header. The default is where Pillow refuses, too.
  std::int64_t max_pixels = 178956970;
  /// A picture that needs more memory than this to decode, result included, is refused by its header.
  std::int64_t max_bytes = std::int64_t{960} << 20;
  /// Turn the picture upright by its EXIF orientation. Off, as the references do not.
  bool exif_orientation = false;
};

namespace detail {

/// A cursor over a file in memory. Reads beyond the end give 0 and set `overrun`.
struct bytes {
  const std::uint8_t* data = nullptr;
  std::size_t size = 0;
  std::size_t at = 0;
  bool overrun = false;

  explicit bytes(std::span<const std::uint8_t> s) noexcept : data(s.data()), size(s.size()) {}

  std::size_t left() const noexcept { return size - at; }
  int u8() noexcept {
    if (at < size) return data[at++];
    overrun = true;
    return 0;
  }
  int u16le() noexcept {
    const int low = u8();
    return low | u8() << 8;
  }
  int u16be() noexcept {
    const int high = u8();
    return high << 8 | u8();
  }
  std::uint32_t u32le() noexcept {
    const auto low = static_cast<std::uint32_t>(u16le());
    return low | static_cast<std::uint32_t>(u16le()) << 16;
  }
  std::uint32_t u32be() noexcept {
    const auto high = static_cast<std::uint32_t>(u16be());
    return high << 16 | static_cast<std::uint32_t>(u16be());
  }
  void skip(std::size_t n) noexcept {
    if (n > left()) {
      overrun = true;
      n = left();
    }
    at += n;
  }
  void seek(std::size_t to) noexcept {
    overrun = overrun || to > size;
    at = to > size ? size : to;
  }
  /// n bytes in place, or nullptr if there are fewer.
  const std::uint8_t* take(std::size_t n) noexcept {
    if (n > left()) {
      overrun = true;
      return nullptr;
    }
    at += n;
    return data + at - n;
  }
};

/// Refuses sizes outside the limits; `bytes_per_pixel` is all that decoding allocates, result included.
inline status check_size(std::int64_t width, std::int64_t height, std::int64_t bytes_per_pixel,
                         const load_options& o) noexcept {
  if (width < 1 || height < 1) return status::bad_image;
  if (width > INT32_MAX || height > INT32_MAX) return status::image_too_large;
  if (height > o.max_pixels / width || height > o.max_bytes / bytes_per_pixel / width)
    return status::image_too_large;
  return status::ok;
}

template <class T>
std::unique_ptr<T[]> allocate(std::int64_t n) noexcept {
  return std::unique_ptr<T[]>(new (std::nothrow) T[static_cast<std::size_t>(n)]());
}

/// Takes the rows of a picture as its decoder makes them. If the decoder fails, what it has got means nothing.
class row_sink {
 public:
  /// Before the first row; sets what is needed of the picture. A failure ends the decoding.
  virtual status open(int width, int height) noexcept = 0;
  /// Where row y goes, 3 * width bytes, until the next call. Called for each row that is needed, in order, and maybe
  /// for others between.
  virtual std::uint8_t* row(int y) noexcept = 0;

  int left = 0, right = 0, top = 0, bottom = 0;  ///< pixels outside of these columns and rows need not be written

 protected:
  row_sink() = default;
  ~row_sink() = default;
};

/// All rows into a picture.
class image_sink final : public row_sink {
 public:
  status open(int width, int height) noexcept override {
    result<image> m = image::make(width, height);
    if (!m) return m.error();
    made = std::move(*m);
    right = width;
    bottom = height;
    return status::ok;
  }
  std::uint8_t* row(int y) noexcept override { return made.row(y); }

  image made;
};

using decode_function = status (*)(std::span<const std::uint8_t>, const load_options&, row_sink&) noexcept;

inline result<image> to_image(decode_function decode, std::span<const std::uint8_t> file,
                              const load_options& options) noexcept {
  image_sink sink;
  const status s = decode(file, options, sink);
  if (s != status::ok) return s;
  return std::move(sink.made);
}

struct rgb8 {
  std::uint8_t r = 0;
  std::uint8_t g = 0;
  std::uint8_t b = 0;
};

inline void put(std::uint8_t* pixel, rgb8 c) noexcept {
  pixel[0] = c.r;
  pixel[1] = c.g;
  pixel[2] = c.b;
}

/// A channel of n bits (1 to 16) widened to 8, as x * 255 / (2^n - 1) rounded down: Pillow's rule for 5-bit
/// channels.
constexpr std::uint8_t widen_bits(std::uint32_t x, int n) noexcept {
  const std::uint32_t most = (1u << n) - 1u;
  return static_cast<std::uint8_t>(x * 255u / most);
}

}  // namespace detail

OCELLUS_END
