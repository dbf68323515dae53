// timm's Vision Transformers, alone or as the trunk of an open_clip vision tower. Shapes come from the
// tensors; what they cannot tell (heads, activation, epsilon, pooling) comes from the configuration, which
// names a registered model.
#pragma once

#include "settings.hpp"

#include <ocellus/models/config.hpp>

#include <optional>
#include <string>
#include <string_view>

namespace ocellus::convert {

/// What a registered name stands for, as far as the tensors do not tell. Reference: timm 1.0,
/// models/vision_transformer.py, deit.py, eva.py.
struct timm_model {
  bool supported = false;
  std::string why;            ///< of an unsupported one
  bool known = false;         ///< a size of timm's table; else the usual conventions apply
  int width = 0;              ///< of the table, 0: unknown
  int heads = 0;              ///< 0: width / 64
  ocellus::activation act = ocellus::activation::gelu;
  float eps = 1e-6f;
  ocellus::pooling pool = ocellus::pooling::cls;
  bool post_norm = false;
  bool conv_stem = false;
  int rope_grid = 0;          ///< > 0: rotary positions, rescaled to this grid
  float rope_offset = 0;      ///< added to the patches' rows and columns before that
  bool rope_columns_first = false;
  int map_heads = 0;          ///< of the MAP head, if not those of the blocks
  bool map_all_tokens = false;  ///< it reads the class token, too
};

timm_model find_timm_model(std::string_view name);

/// timm's global_pool: token, avg or map; nothing for others.
std::optional<ocellus::pooling> timm_pooling(std::string_view name);

struct timm_options {
  std::string prefix;                         ///< before each name: "" or "visual.trunk."
  std::string name;                           ///< the registered model
  std::string name_origin;                    ///< "config.json: architecture"
  std::optional<ocellus::pooling> pool = {};  ///< instead of the model's own
  std::string pool_origin = {};
  std::optional<int> heads = {};
  std::string heads_origin = {};
  std::optional<ocellus::activation> act = {};
  std::string act_origin = {};
  std::optional<float> eps = {};
  std::string eps_origin = {};
  int image_h = 0, image_w = 0;               ///< 0: as the positions say
  std::string image_origin = {};
};

/// Fills in config().vision (but for embed and classes) and plans the trunk's tensors. The head is the
/// caller's.
void add_timm_trunk(plan& p, const timm_options& options);

/// Whether a registered name is one of MobileCLIP's FastViTs, fastvit_mci0 to 4.
bool is_fastvit(std::string_view name);

/// The same for one of these (timm_fastvit.cpp), with the projection `proj` of the pooled map; embed and the image's
/// size are set before. Takes the checkpoint's training form as well as the reparametrised one.
void add_fastvit_trunk(plan& p, const std::string& prefix, const std::string& name, const std::string& name_origin,
                       const std::string& proj, bool proj_bias);

}  // namespace ocellus::convert
