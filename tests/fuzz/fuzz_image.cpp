// Any bytes as a picture: decoded, turned upright, and brought to the size of a vision tower in each resize mode; in two
// steps and in one, which must agree.
#include <ocellus/image/load.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/isa/dispatch.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ocellus;
  load_options options;
  options.max_pixels = 1 << 20;  // large pictures cost time and find nothing more
  options.exif_orientation = size % 2 == 0;
  const result<image> photo = decode_image(std::span(data, size), options);
  if (photo && (photo->width() <= 0 || photo->height() <= 0)) __builtin_trap();

  static const resample_kernels kernels = best_kernels().resample;
  preprocess_config config;
  config.resize = static_cast<resize_mode>(size / 2 % 4);
  config.filter = static_cast<resize_filter>(size / 8 % 2);
  config.size_h = config.size_w = config.crop_h = config.crop_w = 32;
  if (config.resize == resize_mode::naflex || config.resize == resize_mode::none) config.crop_h = config.crop_w = 0;
  config.order = static_cast<resize_order>(size / 16 % 2);
  const result<image> small = photo ? preprocess(*photo, config, kernels) : photo.error();
  const result<image> same = preprocess_file(std::span(data, size), config, kernels, options);
  if (small.error() != same.error()) __builtin_trap();
  if (!small) return 0;
  if (small->width() <= 0 || small->width() != same->width() || small->height() != same->height()) __builtin_trap();
  if (std::memcmp(small->pixels(), same->pixels(), small->size_bytes()) != 0) __builtin_trap();
  return 0;
}
