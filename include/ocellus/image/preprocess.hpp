// From a picture to what a vision tower reads: resize, crop, normalise, as the reference's image processor does it with
// Pillow, byte for byte.
//
//   ocellus::preprocess_config clip;                                     // defaults: CLIP at 224
//   auto rgb = ocellus::preprocess(photo, clip, kernels);                // u8 [224, 224, 3]
//   ocellus::normalise(rgb->pixels, clip, pixel_values);                 // f32 [3, 224, 224]
//
// References: torchvision transforms (Resize, CenterCrop, ToTensor, Normalize), as in openai/CLIP clip.py and open_clip
// transform.py; transformers image_processing_clip.py (crop offset rounds down), image_processing_siglip2.py (NaFlex).
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

OCELLUS_BEGIN

/// How the picture gets its size.
enum class resize_mode : std::uint8_t {
  none,      ///< as it is
  shortest,  ///< the shortest side becomes size_h, the other int(size_h * long / short)
  squash,    ///< size_h x size_w, whatever the aspect
  naflex,    ///< SigLIP 2: sides that are multiples of `patch`, at most `max_patches` patches, aspect nearly kept
};

/// Pillow's filters; both widen when shrinking (antialias).
enum class resize_filter : std::uint8_t {
  bilinear,
  bicubic,  ///< a = -0.5
};

/// How the offset of a centre crop is rounded when (size - crop) is odd.
enum class crop_rounding : std::uint8_t {
  round,  ///< round((size - crop) / 2), halves to even: torchvision, OpenAI, open_clip
  floor,  ///< (size - crop) / 2 rounded down: transformers
};

/// The order of the two passes; Pillow rounds to 8 bits between them, so it shows.
enum class resize_order : std::uint8_t {
  horizontal_first,  ///< Pillow up to 12.3: what published results were made with
  pillow13,          ///< Pillow 13: vertical first if the height shrinks and dh > 2 dw
};

/// All that preprocessing depends on. Plain data: a packed file stores these fields.
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

OCELLUS_END
