// Preprocessing as the published configurations describe it, turned into a preprocess_config.
#pragma once

#include "settings.hpp"

#include <ocellus/image/preprocess.hpp>

#include <string>

namespace ocellus::convert {

/// What a transformers image processor does when its file is missing or leaves a field out.
struct processor_defaults {
  const char* name = "CLIPImageProcessor";
  bool square = false;       ///< a size is both sides (squash), else the shortest one
  bool center_crop = true;
  bool naflex = false;
  ocellus::resize_filter filter = ocellus::resize_filter::bicubic;
  float mean[3] = {0.48145466f, 0.4578275f, 0.40821073f};
  float std[3] = {0.26862954f, 0.26130258f, 0.27577711f};
  int size = 224;
  int crop = 224;
};

/// preprocessor_config.json, also the image_processor part of processor_config.json. `object` may be null: defaults.
void read_hf_preprocessor(plan& p, const nlohmann::json* object, const std::string& file,
                          const processor_defaults& defaults);

/// open_clip's preprocess_cfg. `image_h`, `image_w`: the vision tower's image size, which size defaults to.
void read_open_clip_preprocess(const settings& cfg, int image_h, int image_w);

/// timm's pretrained_cfg: input_size, crop_pct, crop_mode, interpolation, mean, std.
void read_timm_preprocess(const settings& cfg, int image_h, int image_w);

/// Notes the whole of config().preprocess in words, with one origin.
void note_preprocess(plan& p, const std::string& origin);

}  // namespace ocellus::convert
