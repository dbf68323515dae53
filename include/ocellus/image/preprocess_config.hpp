// What preprocessing depends on, as plain data: a packed file stores it, a compile-time model holds it as a
// constant.
// Apart from preprocess.hpp, so that firmware can have it without the heap that resizing needs.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/isa/target.hpp>

#include <cstdint>

OCELLUS_BEGIN

/// Pillow's filters; both widen when shrinking (antialias).
enum class resize_filter : std::uint8_t {
  bilinear,
  bicubic,  ///< a = -0.5
};

/// The order of the two passes; Pillow rounds to 8 bits between them, so it shows.
enum class resize_order : std::uint8_t {
  /// Pillow up to 12.1, what published results were made with; 12.2 and 12.3 too, but for pictures over 100 times
  /// as tall as wide whose height shrinks: these go vertical first.
  horizontal_first,
  pillow13,  ///< Pillow 13: vertical first if the height shrinks and dh > 2 dw
};

/// How the picture gets its size.
enum class resize_mode : std::uint8_t {
  none,      ///< as it is
  shortest,  ///< the shortest side becomes size_h, the other int(size_h * long / short)
  squash,    ///< size_h x size_w, whatever the aspect
  naflex,    ///< SigLIP 2: sides are multiples of `patch`, at most `max_patches` patches, aspect nearly kept
};

/// How the offset of a centre crop is rounded when (size - crop) is odd.
enum class crop_rounding : std::uint8_t {
  round,  ///< round((size - crop) / 2), halves to even: torchvision, OpenAI, open_clip
  floor,  ///< (size - crop) / 2 rounded down: transformers
};

/// All that preprocessing depends on.
struct preprocess_config {
  resize_mode resize = resize_mode::shortest;
  resize_filter filter = resize_filter::bicubic;
  crop_rounding crop_offset = crop_rounding::round;
  resize_order order = resize_order::horizontal_first;
  std::int32_t size_h = 224;  ///< shortest: the shortest side; squash: the height
  std::int32_t size_w = 224;  ///< squash: the width
  std::int32_t crop_h = 224;  ///< 0: no crop
  std::int32_t crop_w = 224;
  std::int32_t patch = 16;         ///< naflex: side of a patch
  std::int32_t max_patches = 256;  ///< naflex
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
};

OCELLUS_STRICT_FP_BEGIN
namespace detail {

/// x / 255, then minus mean, then divided by std, each rounded to float, as torchvision's ToTensor and
/// Normalize do.
inline void normalize_table(const preprocess_config& c, float (&table)[3][256]) noexcept {
  for (int channel = 0; channel < 3; channel++) {
    for (int x = 0; x < 256; x++) {
      table[channel][x] = (static_cast<float>(x) / 255.0f - c.mean[channel]) / c.std[channel];
    }
  }
}

}  // namespace detail
OCELLUS_STRICT_FP_END
OCELLUS_END
