// From a picture to what a vision tower reads: resize, crop, normalise, as the reference's image processor
// does it with Pillow, byte for byte.
//
//   ocellus::preprocess_config clip;                                     // defaults: CLIP at 224
//   auto rgb = ocellus::preprocess(photo, clip, kernels);                // u8 [224, 224, 3], result<image>
//   ocellus::normalize(*rgb, clip, pixel_values);                        // f32 [3, 224, 224]
//
// References: torchvision transforms (Resize, CenterCrop, ToTensor, Normalize), as in openai/CLIP clip.py and
// open_clip transform.py; transformers image_processing_clip.py (crop offset rounds down),
// image_processing_siglip2.py (NaFlex).
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/executor.hpp>
#include <ocellus/core/fp_env.hpp>
#include <ocellus/core/status.hpp>
#include <ocellus/image/image.hpp>
#include <ocellus/image/preprocess_config.hpp>
#include <ocellus/image/resample.hpp>
#include <ocellus/isa/target.hpp>
#include <ocellus/ops/resample.hpp>

#include <algorithm>
#include <cmath>
#include <cstdint>

OCELLUS_BEGIN

/// What a configuration makes of one picture's size.
struct preprocess_shape {
  resize_window window;  ///< window.w x window.h is the size of the result
  int grid_h = 0;        ///< naflex: patches from top to bottom, else 0
  int grid_w = 0;        ///< naflex: patches from left to right, else 0
};

/// No result is larger: `shortest` without a crop would make a picture of 1 x 100,000 pixels enormous.
inline constexpr std::int64_t preprocess_pixel_limit = std::int64_t{1} << 26;

OCELLUS_STRICT_FP_BEGIN
namespace detail {

/// One side of the NaFlex target in patches: max(1, ceil(scale * side / patch)).
inline std::int64_t naflex_side(double scale, int side, int patch) noexcept {
  const double patches = std::ceil(side * scale / patch);
  return patches < 1.0 ? 1 : static_cast<std::int64_t>(patches);
}

/// The largest size with at most `max_patches` patches, by the bisection of transformers
/// (image_processing_siglip2.py: get_image_size_for_max_num_patches, eps = 1e-5).
inline void naflex_grid(int height, int width, int patch, int max_patches, int& grid_h,
                        int& grid_w) noexcept {
  constexpr double eps = 1e-5;
  double low = eps / 10, high = 100.0;
  while (high - low >= eps) {
    const double scale = (low + high) / 2;
    const double patches = static_cast<double>(naflex_side(scale, height, patch)) *
                           static_cast<double>(naflex_side(scale, width, patch));
    (patches <= max_patches ? low : high) = scale;
  }
  grid_h = static_cast<int>(std::min<std::int64_t>(naflex_side(low, height, patch), INT32_MAX));
  grid_w = static_cast<int>(std::min<std::int64_t>(naflex_side(low, width, patch), INT32_MAX));
}

}  // namespace detail
OCELLUS_STRICT_FP_END

namespace detail {

inline int crop_start(int size, int crop, crop_rounding rounding) noexcept {
  const int twice = size - crop;
  if (twice % 2 == 0 || rounding == crop_rounding::floor) return twice / 2;
  return twice / 2 + (twice / 2) % 2;  // a half goes to the even neighbour
}

}  // namespace detail

/// The size of the resized picture, the crop and the NaFlex grid for a picture of width x height.
/// Errors: invalid_argument (an empty picture, a side below 1, a crop larger than the resized picture),
/// image_too_large.
inline result<preprocess_shape> preprocess_shape_of(const preprocess_config& c, int width,
                                                    int height) noexcept {
  if (width < 1 || height < 1) return status::invalid_argument;
  constexpr int largest_side = 1 << 16;
  preprocess_shape s;
  std::int64_t w = width, h = height;
  if (c.resize == resize_mode::shortest) {
    if (c.size_h < 1 || c.size_h > largest_side) return status::invalid_argument;
    // int(size * long / short) in Python is a division of doubles, cut; both operands are exact, so it is
    // this one.
    (width <= height ? w : h) = c.size_h;
    (width <= height ? h : w) = std::int64_t{c.size_h} * std::max(width, height) / std::min(width, height);
  } else if (c.resize == resize_mode::squash) {
    if (std::min(c.size_h, c.size_w) < 1 || std::max(c.size_h, c.size_w) > largest_side)
      return status::invalid_argument;
    w = c.size_w;
    h = c.size_h;
  } else if (c.resize == resize_mode::naflex) {
    if (c.patch < 1 || c.patch > largest_side || c.max_patches < 1) return status::invalid_argument;
    const fp_env guard;
    detail::naflex_grid(height, width, c.patch, c.max_patches, s.grid_h, s.grid_w);
    h = std::int64_t{s.grid_h} * c.patch;
    w = std::int64_t{s.grid_w} * c.patch;
  }
  if (std::max(w, h) > INT32_MAX) return status::image_too_large;
  s.window.resized_w = s.window.w = static_cast<int>(w);
  s.window.resized_h = s.window.h = static_cast<int>(h);
  if (c.crop_h > 0 && c.crop_w > 0 && c.resize != resize_mode::naflex) {
    if (c.crop_w > w || c.crop_h > h) return status::invalid_argument;
    s.window.w = c.crop_w;
    s.window.h = c.crop_h;
    s.window.x = detail::crop_start(s.window.resized_w, c.crop_w, c.crop_offset);
    s.window.y = detail::crop_start(s.window.resized_h, c.crop_h, c.crop_offset);
  }
  if (std::int64_t{s.window.w} * s.window.h > preprocess_pixel_limit && !(w == width && h == height)) {
    return status::image_too_large;
  }
  return s;
}

/// Resizes and crops: u8 RGB [window.h, window.w, 3], before normalisation (a tower's patch embedding may
/// read it directly). For NaFlex, preprocess_shape_of gives the grid. Errors: those of preprocess_shape_of,
/// out_of_memory.
inline result<image> preprocess(image_view source, const preprocess_config& c,
                                const resample_kernels& kernels, const executor& threads = {}) noexcept {
  if (source.empty()) return status::invalid_argument;
  const result<preprocess_shape> s = preprocess_shape_of(c, source.width, source.height);
  if (!s) return s.error();
  return resize(source, s->window, c.filter, c.order, kernels, threads);
}

/// The same into memory of the caller: `target` has room for shape.window.h x shape.window.w x 3 bytes, where
/// shape is what preprocess_shape_of gave for this picture.
inline status preprocess_into(std::uint8_t* target, image_view source, const preprocess_config& c,
                              const preprocess_shape& shape, const resample_kernels& kernels,
                              const executor& threads = {}) noexcept {
  return resize_into(target, std::ptrdiff_t{shape.window.w} * 3, source, shape.window, c.filter, c.order,
                     kernels, threads);
}

/// (x / 255 - mean) / std in single precision, planar: `pixel_values` is [3, height, width].
inline void normalize(image_view rgb, const preprocess_config& c, float* pixel_values) noexcept {
  const fp_env guard;
  float table[3][256];  // 8-bit pixels have 256 answers per channel
  detail::normalize_table(c, table);
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(rgb.width) * rgb.height;
  float* out = pixel_values;
  for (int y = 0; y < rgb.height; y++) {
    const std::uint8_t* p = rgb.row(y);
    for (int x = 0; x < rgb.width; x++, p += 3, out++) {
      out[0] = table[0][p[0]];
      out[plane] = table[1][p[1]];
      out[2 * plane] = table[2][p[2]];
    }
  }
}

OCELLUS_END
