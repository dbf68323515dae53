// Pictures in memory: 8-bit RGB, rows from top to bottom.
//
//   ocellus::image_view frame{camera_pixels, 640, 480};          // somebody else's pixels, not copied
//   auto picture = ocellus::image::make(640, 480);               // our own; result<image>, never throws
//
// Every function that reads a picture takes an image_view; an image converts to one.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/status.hpp>

#include <cstddef>
#include <cstdint>
#include <memory>
#include <new>
#include <utility>

OCELLUS_BEGIN

/// Pixels of somebody else, which it does not own: three bytes each, R, G, B. `stride` is counted in bytes, from a
/// row to the one below: at least 3 * width, or at most -3 * width where the rows are stored bottom up (then
/// `pixels` is the start of the last one stored, which is the top row).
struct image_view {
  const std::uint8_t* pixels = nullptr;
  int width = 0;
  int height = 0;
  std::ptrdiff_t stride = 0;

  constexpr image_view() noexcept = default;
  /// Rows that follow each other without a gap.
  constexpr image_view(const std::uint8_t* data, int w, int h) noexcept
      : pixels(data), width(w), height(h), stride(static_cast<std::ptrdiff_t>(w) * 3) {}
  constexpr image_view(const std::uint8_t* data, int w, int h, std::ptrdiff_t bytes_per_row) noexcept
      : pixels(data), width(w), height(h), stride(bytes_per_row) {}

  constexpr bool empty() const noexcept { return pixels == nullptr || width <= 0 || height <= 0; }
  /// Whether rows would overlap: no picture, mostly a stride that was counted in pixels.
  constexpr bool overlaps() const noexcept {
    const std::ptrdiff_t row_bytes = static_cast<std::ptrdiff_t>(width) * 3;
    return height > 1 && stride < row_bytes && stride > -row_bytes;
  }
  constexpr const std::uint8_t* row(int y) const noexcept { return pixels + y * stride; }
};

/// Owns its pixels. Movable, not copyable; an empty one has width 0.
class image {
 public:
  image() noexcept = default;
  image(image&& other) noexcept { *this = std::move(other); }
  image& operator=(image&& other) noexcept {
    pixels_ = std::move(other.pixels_);
    width_ = std::exchange(other.width_, 0);
    height_ = std::exchange(other.height_, 0);
    return *this;
  }

  /// width x height pixels without a gap between the rows; their values are undefined.
  /// Errors: invalid_argument (a side below 1), image_too_large (more than 2^31 - 1 bytes), out_of_memory.
  static result<image> make(int width, int height) noexcept {
    if (width < 1 || height < 1) return status::invalid_argument;
    const std::int64_t bytes = std::int64_t{3} * width * height;
    if (bytes > INT32_MAX) return status::image_too_large;
    image made;
    made.pixels_.reset(new (std::nothrow) std::uint8_t[static_cast<std::size_t>(bytes)]);
    if (made.pixels_ == nullptr) return status::out_of_memory;
    made.width_ = width;
    made.height_ = height;
    return result<image>(std::move(made));
  }

  std::uint8_t* pixels() noexcept { return pixels_.get(); }
  const std::uint8_t* pixels() const noexcept { return pixels_.get(); }
  int width() const noexcept { return width_; }
  int height() const noexcept { return height_; }
  std::ptrdiff_t stride() const noexcept { return static_cast<std::ptrdiff_t>(width_) * 3; }
  std::size_t size_bytes() const noexcept {
    return static_cast<std::size_t>(stride()) * static_cast<std::size_t>(height_);
  }
  std::uint8_t* row(int y) noexcept { return pixels_.get() + y * stride(); }
  const std::uint8_t* row(int y) const noexcept { return pixels_.get() + y * stride(); }

  operator image_view() const noexcept { return {pixels_.get(), width_, height_}; }  // NOLINT: implicit

 private:
  std::unique_ptr<std::uint8_t[]> pixels_;  // [height, width, 3]
  int width_ = 0;
  int height_ = 0;
};

OCELLUS_END
