// The layouts: which model a checkpoint's tensors make up. Each reader takes the names and shapes of its
// family, and the configuration that the reference reads, and returns a plan of the packed file
// (model_source.hpp).
//
//   auto model = read_model(*file, {.folder = "clip-vit-base-patch32"});
//
// Which family it is follows from the tensors' names; everything that changes the answers comes from the
// configuration.
#pragma once

#include "checkpoint.hpp"
#include "model_source.hpp"
#include "settings.hpp"

#include <filesystem>
#include <optional>
#include <string>

namespace ocellus::convert {

struct source_files {
  std::filesystem::path folder;  ///< where the configuration and the preprocessor's are looked for
  std::optional<std::filesystem::path> config;  ///< --config: instead of the folder's
};

/// Recognises the layout and reads it.
outcome<model_source> read_model(const checkpoint& file, const source_files& files);

/// OpenAI's releases and state dicts with their names, ViT and ResNet. Needs no configuration.
outcome<model_source> read_openai(const checkpoint& file);

/// open_clip: native ViT and ResNet towers, timm trunks, with their own or OpenAI's names.
outcome<model_source> read_open_clip(const checkpoint& file, const nlohmann::json& config,
                                     const std::string& name);

/// transformers: clip, siglip, siglip2, dinov2, dinov2_with_registers, vit. `preprocessor` may be null.
outcome<model_source> read_hugging_face(const checkpoint& file, const nlohmann::json& config,
                                        const std::string& name, const nlohmann::json* preprocessor,
                                        const std::string& preprocessor_name);

/// timm Vision Transformers: classifiers and feature extractors.
outcome<model_source> read_timm(const checkpoint& file, const nlohmann::json& config,
                                const std::string& name);

/// Meta's DINOv2 checkpoints, which timm's names are taken from.
outcome<model_source> read_dinov2(const checkpoint& file);

/// big_vision's .npz of SigLIP.
outcome<model_source> read_big_vision(const checkpoint& file);

// Parts that several layouts share
// -----------------------------------------------------------------------------

/// Blocks with OpenAI's names: ln_1, attn.in_proj_weight, mlp.c_fc, ...; LayerScale (ls_1.gamma) is folded
/// in. `tower` is "vision." or "text.", `source` what precedes the block's number.
void add_resblocks(plan& p, const std::string& tower, const std::string& source,
                   const ocellus::encoder_config& e);

/// Sets e.uneven, and e.heads and e.mlp to the most of any of such blocks, from the tensors' shapes.
void measure_resblocks(plan& p, const std::string& source, ocellus::encoder_config& e);

/// vision.patch_embed from a convolution over patches. Sizes are in config().vision.
void add_patch_embed(plan& p, const std::string& source, bool bias);

/// A convolution without bias and the batch norm after it as one matrix [n, side * side * channels] with a bias.
void add_batch_normed(plan& p, const std::string& to, const std::string& conv, const std::string& norm,
                      std::int64_t n, std::int64_t channels, std::int64_t side);

/// The vision transformer with OpenAI's names under `visual.`. Sizes and switches are in config().vision.
void add_clip_vit(plan& p);

/// OpenAI's ResNet under `visual.`, batch norm folded; sets the vision configuration from the shapes.
void add_clip_resnet(plan& p);

/// The text tower with OpenAI's names, `prefix` before each ("" or "text."). Shapes are in config().text.
void add_clip_text(plan& p, const std::string& prefix, bool projection_is_linear);

/// vision.map.queries: the MAP head's learned query through the weights of queries and of keys, k^T (q * probe + q_bias),
/// for each of config().vision.map_heads heads with its own rows of both. The keys' bias adds the same to all scores: it is
/// checked and left out.
void add_map_queries(plan& p, const piece& q, const piece& q_bias, const piece& probe, const piece& k,
                     const piece& k_bias);

/// logit_scale, exponentiated, and logit_bias if there is one.
void read_logit_scale(plan& p, const std::string& scale, const std::string& bias);

/// The side of a grid of `rows` positions; a failure if they make no square.
int square_side(plan& p, std::int64_t rows, const std::string& what);

/// A class name from a configuration as one line of UTF-8: control characters become blanks.
std::string printable_utf8(std::string text);

/// Sets the size of images and of their patches, and the grid that follows.
void set_image(ocellus::vision_config& v, int height, int width, int patch);

}  // namespace ocellus::convert
