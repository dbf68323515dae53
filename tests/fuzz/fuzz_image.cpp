// Any bytes as a picture: decoded, turned upright, and brought to the size of a vision tower in each resize mode.
#include <ocellus/image/load.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/isa/dispatch.hpp>

#include <cstddef>
#include <cstdint>
#include <span>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  using namespace ocellus;
  load_options options;
  options.max_pixels = 1 << 20;  // large pictures cost time and find nothing more
  options.exif_orientation = size % 2 == 0;
  const result<image> photo = decode_image(std::span(data, size), options);
  if (!photo) return 0;
  if (photo->width() <= 0 || photo->height() <= 0) __builtin_trap();

  static const resample_kernels kernels = best_kernels().resample;
  preprocess_config config;
  config.resize = static_cast<resize_mode>(size / 2 % 4);
  config.filter = static_cast<resize_filter>(size / 8 % 2);
  config.size_h = config.size_w = config.crop_h = config.crop_w = 32;
  if (config.resize == resize_mode::naflex || config.resize == resize_mode::none) config.crop_h = config.crop_w = 0;
  const result<image> small = preprocess(*photo, config, kernels);
  if (small && small->width() <= 0) __builtin_trap();
  return 0;
}
