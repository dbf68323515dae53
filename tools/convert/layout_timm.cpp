// timm's models as published: config.json with `architecture`, `model_args` and `pretrained_cfg`; and Meta's
// DINOv2 checkpoints, whose names are timm's but which come without a configuration.
#include "layouts.hpp"
#include "preprocess_settings.hpp"
#include "timm_trunk.hpp"

#include <cmath>

namespace ocellus::convert {

using namespace ocellus;

namespace {

/// label_names, with label_descriptions where they are synset ids.
void read_labels(plan& p, const settings& s, int classes) {
  const nlohmann::json* names = s.find("label_names");
  if (names == nullptr || !names->is_array() || names->size() != static_cast<std::size_t>(classes)) return;
  const nlohmann::json* descriptions = s.find("label_descriptions");
  std::vector<std::string> out;
  for (const nlohmann::json& name : *names) {
    if (!name.is_string()) return;
    std::string text = name.get<std::string>();
    if (descriptions != nullptr && descriptions->is_object()) {
      const auto at = descriptions->find(text);
      if (at != descriptions->end() && at->is_string()) text = at->get<std::string>();
    }
    out.push_back(printable_utf8(text));
  }
  p.model().class_names = std::move(out);
}

}  // namespace

outcome<model_source> read_timm(const checkpoint& file, const nlohmann::json& config,
                                const std::string& name) {
  plan p(file, "timm");
  model_config& m = p.config();
  vision_config& v = m.vision;
  const settings root(p, config, name, "timm's registered model");
  if (!root.has("architecture") && p.ok())
    return error{name + ": architecture is missing, which names one of timm's models"};
  const std::string architecture = root.text("architecture", "");
  const settings args = root.child("model_args", "timm's registered model");
  const settings cfg = root.child("pretrained_cfg", "timm's registered model");

  timm_options o;
  o.name = architecture;
  o.name_origin = name + ": architecture";
  if (args.has("img_size")) {
    std::tie(o.image_h, o.image_w) = args.size("img_size", {}, 1, 8192);
    o.image_origin = args.origin("img_size");
  } else if (const nlohmann::json* input = cfg.find("input_size");
             input != nullptr && input->is_array() && input->size() == 3 &&
             (*input)[1].is_number_unsigned() && (*input)[2].is_number_unsigned()) {
    const std::uint64_t h = (*input)[1].get<std::uint64_t>(), w = (*input)[2].get<std::uint64_t>();
    if (h < 1 || w < 1 || h > 8192 || w > 8192)
      return error{name + ": pretrained_cfg.input_size is out of range"};
    o.image_h = static_cast<int>(h), o.image_w = static_cast<int>(w);
    o.image_origin = cfg.origin("input_size");
  }
  if (o.heads = args.optional_integer("num_heads", 1, 256); o.heads)
    o.heads_origin = args.origin("num_heads");
  const settings& pool_at = args.has("global_pool") ? args : root;
  if (pool_at.has("global_pool")) {
    const std::string pool = pool_at.text("global_pool", "");
    o.pool = timm_pooling(pool);
    o.pool_origin = pool_at.origin("global_pool");
    if (!o.pool)
      return error{name + ": global_pool is \"" + printable(pool) + "\": ocellus knows token, avg and map"};
  }
  if (args.has("act_layer")) {
    o.act = read_activation(args, "act_layer", "gelu", "");
    o.act_origin = args.origin("act_layer");
  }
  if (args.flag("pool_include_prefix", false))
    args.fail("pool_include_prefix", "is true, which ocellus does not do");
  if (args.has("norm_layer")) {
    const std::string norm = args.text("norm_layer", "");
    if (norm != "layernorm")
      args.fail("norm_layer", "is \"" + printable(norm) + "\": ocellus knows layernorm");
    o.eps = 1e-6f;  // of timm's LayerNorm, whatever the registered model has
    o.eps_origin = args.origin("norm_layer");
  }
  // What tensors tell (the sizes, norms, biases, tokens), what is read above, and what is for training alone. Others
  // choose parts by name.
  for (const std::string& key :
       args.others({"img_size", "patch_size", "in_chans", "num_classes", "global_pool", "embed_dim", "depth",
                    "num_heads", "mlp_ratio", "qkv_bias", "qkv_fused", "qk_norm", "scale_attn_norm", "scale_mlp_norm",
                    "scale_attn_inner", "scale_mlp", "swiglu_mlp", "proj_bias", "init_values", "class_token",
                    "pos_embed", "use_abs_pos_emb", "no_embed_class", "reg_tokens", "num_reg_tokens", "pre_norm",
                    "use_pre_transformer_norm", "final_norm", "use_post_transformer_norm", "fc_norm", "use_fc_norm",
                    "pool_include_prefix", "dynamic_img_size", "dynamic_img_pad", "strict_img_size", "drop_rate",
                    "pos_drop_rate", "patch_drop_rate", "proj_drop_rate", "attn_drop_rate", "drop_path_rate",
                    "weight_init", "fix_init", "norm_layer", "act_layer", "features_only", "scriptable", "exportable",
                    "pretrained"}))
    args.fail(printable(key, 60).c_str(), "is set, which ocellus does not do");
  if (!root.has("pretrained_cfg"))
    p.note("no pretrained_cfg in " + name + ": pictures are prepared by timm's general defaults (shortest side, "
           "crop_pct 0.875, bicubic, ImageNet's mean and std), but most registered models have others");
  p.own("");
  add_timm_trunk(p, o);
  // What the configuration says of the shapes must be what the tensors have.
  const auto agrees = [&](const char* key, int value) {
    const auto stated = args.optional_integer(key, 1, 1 << 14);
    if (stated && *stated != value && p.ok())
      args.fail(key, "is " + std::to_string(*stated) + ", the tensors have " + std::to_string(value));
  };
  agrees("embed_dim", v.encoder.width);
  agrees("depth", v.encoder.layers);
  agrees("patch_size", v.patch);
  if (args.flag("dynamic_img_pad", false) && p.ok() && (v.image_h % v.patch != 0 || v.image_w % v.patch != 0))
    args.fail("dynamic_img_pad", "is true, and the image size is no multiple of a patch: ocellus does not pad");
  v.embed = v.encoder.width;
  m.score = score_kind::logits;
  if (p.has("head.weight")) {
    v.classes = static_cast<std::int32_t>(p.dim("head.weight", 0));
    p.linear("vision.head", "head", v.classes, v.encoder.width);
    const auto stated = root.optional_integer("num_classes", 0, 1 << 20);
    if (stated && *stated != v.classes && p.ok())
      root.fail("num_classes",
                "is " + std::to_string(*stated) + ", head.weight has " + std::to_string(v.classes) + " rows");
    p.note_switch("classes", std::to_string(v.classes), "shape of head.weight");
    read_labels(p, root, v.classes);
    if (p.model().class_names.empty()) read_labels(p, cfg, v.classes);
  }
  if (p.ok()) read_timm_preprocess(cfg, v.image_h, v.image_w);
  return p.finish();
}

outcome<model_source> read_dinov2(const checkpoint& file) {
  plan p(file, "dinov2");
  if (!p.has("mask_token") || !p.has("blocks.0.ls1.gamma"))
    return error{
        "the names are timm's, but config.json is missing: give it by --config; {\"architecture\": "
        "\"vit_small_patch16_224\", \"pretrained_cfg\": {\"mean\": [...], \"std\": [...], \"crop_pct\": 0.9}} "
        "with timm's name and values of the model will do"};
  model_config& m = p.config();
  vision_config& v = m.vision;
  encoder_config& e = v.encoder;
  constexpr const char* fixed = "fixed by DINOv2's code";
  p.own("");
  p.ignore("mask_token");
  v.kind = vision_kind::vit;
  v.pool = pooling::cls;
  v.class_token = 1;
  e.width = static_cast<std::int32_t>(p.dim("patch_embed.proj.weight", 0));
  const int patch = static_cast<int>(p.dim("patch_embed.proj.weight", -1));
  e.layers = p.count("blocks.", ".attn.qkv.weight");
  if (!p.ok()) return p.finish();
  if (e.width % 64 != 0)
    return error{"the width " + std::to_string(e.width) + " is no multiple of 64, as DINOv2's are"};
  if (patch < 1 || patch > 256) return error{"tensor patch_embed.proj.weight has no patches"};
  e.heads = e.width / 64;
  e.head_width = 64;
  e.eps = v.final_eps = 1e-6f;
  const bool gated = p.has("blocks.0.mlp.w12.weight");
  e.gated = gated ? 1 : 0;
  e.act = gated ? activation::silu : activation::gelu;
  e.mlp = static_cast<std::int32_t>(p.dim(gated ? "blocks.0.mlp.w3.weight" : "blocks.0.mlp.fc2.weight", 1));
  v.registers = p.has("register_tokens") ? static_cast<std::int32_t>(p.dim("register_tokens", -2)) : 0;
  const int grid = square_side(p, p.dim("pos_embed", -2) - 1, "pos_embed");
  set_image(v, grid * patch, grid * patch, patch);
  v.embed = e.width;
  // The released models with registers were made with offset 0 and antialiasing, the others with 0.1 and
  // without.
  v.positions = v.registers != 0 ? position_resize::bicubic_antialias : position_resize::bicubic;
  v.position_offset = v.registers != 0 ? 0.f : 0.1f;

  const std::int64_t width = e.width, tokens = std::int64_t{grid} * grid + 1;
  add_patch_embed(p, "patch_embed.proj", true);
  p.exact("vision.class_token", {width}, piece{"cls_token", {width}});
  if (v.registers != 0)
    p.exact("vision.registers", {v.registers, width}, piece{"register_tokens", {v.registers, width}});
  p.exact("vision.positions", {tokens, width}, piece{"pos_embed", {tokens, width}});
  for (int i = 0; i < e.layers && p.ok(); i++) {
    const std::string to = "vision.blocks." + std::to_string(i) + ".",
                      from = "blocks." + std::to_string(i) + ".";
    const std::string fc1 = from + (gated ? "mlp.w12" : "mlp.fc1"),
                      fc2 = from + (gated ? "mlp.w3" : "mlp.fc2");
    p.norm(to + "norm1", from + "norm1", width);
    p.linear(to + "attn.qkv", from + "attn.qkv", 3 * width, width);
    p.linear(to + "attn.proj", from + "attn.proj", width, width, true, from + "ls1.gamma");
    p.norm(to + "norm2", from + "norm2", width);
    p.linear(to + "mlp.fc1", fc1, gated ? 2 * std::int64_t{e.mlp} : e.mlp, width);
    p.linear(to + "mlp.fc2", fc2, width, e.mlp, true, from + "ls2.gamma");
  }
  p.norm("vision.norm", "norm", width);
  m.score = score_kind::logits;
  p.note_switch("vision.width", std::to_string(e.width), "shape of patch_embed.proj.weight");
  p.note_switch("vision.layers", std::to_string(e.layers), "names of blocks.N");
  p.note_switch("vision.heads", std::to_string(e.heads), std::string(fixed) + ": width / 64");
  p.note_switch("vision.act", to_string(e.act), fixed);
  p.note_switch("vision.eps", "1e-06", fixed);
  p.note_switch(
      "vision.position_resize",
      v.registers != 0 ? "bicubic with antialias" : "bicubic, scale (grid + 0.1) / " + std::to_string(grid),
      fixed);
  processor_defaults d;
  d.name = "DINOv2's evaluation";
  const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
  std::copy_n(mean, 3, d.mean);
  std::copy_n(std, 3, d.std);
  const int input = 224 / patch * patch;
  d.size = 256;
  d.crop = input;
  read_hf_preprocessor(p, nullptr, "", d);
  m.preprocess.crop_offset = crop_rounding::round;
  v.image_h = v.image_w = input;
  return p.finish();
}

}  // namespace ocellus::convert
