// transformers' folders: config.json says which class, and the class which names and which defaults.
// References: models/{clip,siglip,siglip2,dinov2,dinov2_with_registers,vit}/{configuration,modeling}_*.py.
#include "layouts.hpp"
#include "preprocess_settings.hpp"

#include <algorithm>

namespace ocellus::convert {

using namespace ocellus;

namespace {

constexpr int max_width = 1 << 14, max_layers = 256, max_heads = 256, max_mlp = 1 << 17, max_image = 8192;

/// Width, layers, heads and LayerNorm of one tower, with the defaults of its class.
struct encoder_defaults {
  int width, mlp, layers, heads;
  const char* act;
  double eps;
};

void read_encoder(const settings& s, const std::string& tower, const encoder_defaults& d, encoder_config& e) {
  e.width = s.integer("hidden_size", d.width, 1, max_width, tower + "width");
  if (d.mlp != 0) e.mlp = s.integer("intermediate_size", d.mlp, 1, max_mlp, tower + "mlp");
  e.layers = s.integer("num_hidden_layers", d.layers, 0, max_layers, tower + "layers");
  e.heads = s.integer("num_attention_heads", d.heads, 1, max_heads, tower + "heads");
  if (e.width % e.heads != 0)
    s.fail("num_attention_heads", "is " + std::to_string(e.heads) + ", which does not divide the width " +
                                      std::to_string(e.width));
  e.head_width = e.width / e.heads;
  e.act = read_activation(s, "hidden_act", d.act, tower + "act");
  e.eps = static_cast<float>(s.number("layer_norm_eps", d.eps, 0, 0.1, tower + "eps"));
}

/// Blocks as CLIP and SigLIP name them.
void add_clip_blocks(plan& p, const std::string& tower, const std::string& source, const encoder_config& e) {
  const std::int64_t width = e.width;
  for (int i = 0; i < e.layers && p.ok(); i++) {
    const std::string to = tower + "blocks." + std::to_string(i) + ".",
                      from = source + std::to_string(i) + ".";
    const std::string attn = from + "self_attn.";
    p.norm(to + "norm1", from + "layer_norm1", width);
    p.stacked_linear(to + "attn.qkv", {attn + "q_proj", attn + "k_proj", attn + "v_proj"}, width, width);
    p.linear(to + "attn.proj", attn + "out_proj", width, width);
    p.norm(to + "norm2", from + "layer_norm2", width);
    p.linear(to + "mlp.fc1", from + "mlp.fc1", e.mlp, width);
    p.linear(to + "mlp.fc2", from + "mlp.fc2", width, e.mlp);
  }
}

void add_text(plan& p, const std::string& from, const std::string& projection, bool bias) {
  const text_config& t = p.config().text;
  const std::int64_t width = t.encoder.width;
  p.ignore_suffix(".position_ids");
  p.table("text.tokens", {t.vocab, width},
          piece{from + "embeddings.token_embedding.weight", {t.vocab, width}});
  p.exact("text.positions", {t.context, width},
          piece{from + "embeddings.position_embedding.weight", {t.context, width}});
  add_clip_blocks(p, "text.", from + "encoder.layers.", t.encoder);
  p.norm("text.norm", from + "final_layer_norm", width);
  if (!projection.empty()) p.linear("text.proj", projection, t.embed, width, bias);
}

void read_image(const settings& s, vision_config& v, int image, int patch) {
  if (s.integer("num_channels", 3, 1, 64) != 3) s.fail("num_channels", "is not 3");
  const auto square = [&s](const char* key, int fallback, int most, const std::string& name) {
    const auto [height, width] = s.size(key, fallback, 1, most, name);  // some classes take [height, width] too
    if (height != width) s.fail(key, "is oblong, which ocellus does not do");
    return height;
  };
  const int size = square("image_size", image, max_image, "vision.image_size");
  const int side = square("patch_size", patch, 256, "vision.patch");
  if (size < side) s.fail("image_size", "is smaller than a patch");
  set_image(v, size, size, side);
}

/// The name that older configurations have for the whole of a tower's fields wins over the newer one.
settings tower_settings(const settings& root, const char* key, const char* old_key, const char* defaults) {
  return root.child(root.has(old_key) ? old_key : key, defaults);
}

/// Where the towers come from: both, or the one that a file with one tower holds; and what precedes their tensors' names.
struct towers {
  bool vision, text;
  std::string vision_names = "vision_model.", text_names = "text_model.";
};
towers find_towers(plan& p, const std::string& model_type) {
  towers t{p.has_prefix("vision_model."), p.has_prefix("text_model.")};
  const bool vision = model_type.ends_with("_vision_model"), text = model_type.ends_with("_text_model");
  // transformers 5 saves a tower's own class without the tower's name.
  if (!t.vision && vision && p.has_prefix("embeddings.patch_embedding.")) t.vision = true, t.vision_names = "";
  if (!t.text && text && p.has_prefix("embeddings.token_embedding.")) t.text = true, t.text_names = "";
  if (!t.vision && !t.text) p.fail("no tensors named vision_model.* or text_model.*");
  if (!vision && !text && t.vision != t.text)
    p.note(t.vision ? "no text tower in the checkpoint" : "no vision tower in the checkpoint");
  for (const std::string& names : {t.vision_names, t.text_names}) {
    if (!names.empty()) {
      p.own(names);
    } else {
      for (const char* part : {"embeddings.", "encoder.", "pre_layrnorm.", "post_layernorm.", "final_layer_norm.", "head."})
        p.own(part);
    }
  }
  return t;
}

int read_pad_id(const settings& s) {
  return std::max(s.optional_integer("pad_token_id", -1, INT32_MAX - 1).value_or(1), 0);
}

/// E of a tower: of both, or of the one that a file holds, whose projection may be missing.
int read_embed(const settings& s, std::optional<int> of_both, bool projected, int width) {
  if (of_both) return *of_both;
  return projected ? s.integer("projection_dim", 512, 1, max_width, "embed") : width;
}

void read_clip_vision(plan& p, const settings& s, const std::string& from, std::optional<int> embed_of_both,
                      const nlohmann::json* pre, const std::string& pre_name) {
  vision_config& v = p.config().vision;
  v.kind = vision_kind::vit;
  v.pool = pooling::cls;
  v.class_token = v.pre_norm = 1;
  read_encoder(s, "vision.", {768, 3072, 12, 12, "quick_gelu", 1e-5}, v.encoder);
  read_image(s, v, 224, 32);
  v.final_eps = v.encoder.eps;
  p.note_switch("vision.pool", "class token", "fixed by CLIPVisionModel");
  const bool projected = embed_of_both || p.has("visual_projection.weight");
  v.embed = read_embed(s, embed_of_both, projected, v.encoder.width);
  const std::int64_t width = v.encoder.width, tokens = std::int64_t{v.grid_h} * v.grid_w + 1;
  p.ignore_suffix(".position_ids");
  add_patch_embed(p, from + "embeddings.patch_embedding", false);
  p.exact("vision.class_token", {width}, piece{from + "embeddings.class_embedding", {width}});
  p.exact("vision.positions", {tokens, width},
          piece{from + "embeddings.position_embedding.weight", {tokens, width}});
  p.norm("vision.pre_norm", from + "pre_layrnorm", width);  // spelt so in the reference
  add_clip_blocks(p, "vision.", from + "encoder.layers.", v.encoder);
  p.norm("vision.norm", from + "post_layernorm", width);
  if (projected) p.linear("vision.proj", "visual_projection", v.embed, width, false);
  processor_defaults d;
  d.size = d.crop = v.image_h;
  read_hf_preprocessor(p, pre, pre_name, d);
}

void read_clip_text(plan& p, const settings& s, const std::string& from, std::optional<int> embed_of_both) {
  text_config& t = p.config().text;
  t.present = 1;
  read_encoder(s, "text.", {512, 2048, 12, 8, "quick_gelu", 1e-5}, t.encoder);
  t.encoder.causal = 1;
  t.final_eps = t.encoder.eps;
  p.note_switch("text.causal", "true", "fixed by CLIPTextModel");
  t.vocab = s.integer("vocab_size", 49408, 1, 1 << 22, "text.vocab");
  t.context = s.integer("max_position_embeddings", 77, 1, 8192, "text.context");
  t.pad_id = read_pad_id(s);
  // Configurations from before transformers 4.31 say 2, which is wrong and stands for "at the highest id".
  t.eos_id = s.integer("eos_token_id", 49407, 0, INT32_MAX - 1);
  t.pool = t.eos_id == 2 ? pooling::argmax : pooling::eos;
  s.note("text.pool", t.pool == pooling::argmax ? "at the highest id" : "at the first id " + std::to_string(t.eos_id),
         "eos_token_id");
  if (t.pool == pooling::eos && t.eos_id >= t.vocab)
    s.fail("eos_token_id", "is " + std::to_string(t.eos_id) + ", outside of the vocabulary");
  const bool projected = embed_of_both || p.has("text_projection.weight");
  t.embed = read_embed(s, embed_of_both, projected, t.encoder.width);
  add_text(p, from, projected ? "text_projection" : "", false);
  p.model().tokenizer = {.style = text_style::clip_hf, .cleaning = {}, .context = t.context, .vocab_size = t.vocab};
}

void read_clip(plan& p, const settings& root, const std::string& model_type, const nlohmann::json* pre,
               const std::string& pre_name) {
  const bool single = model_type != "clip";
  const towers have = find_towers(p, model_type);
  std::optional<int> embed;
  if (!single) embed = root.integer("projection_dim", 512, 1, max_width, "embed");
  if (have.vision)
    read_clip_vision(p, single ? root : tower_settings(root, "vision_config", "vision_config_dict", "CLIPVisionConfig"),
                     have.vision_names, embed, pre, pre_name);
  if (have.text)
    read_clip_text(p, single ? root : tower_settings(root, "text_config", "text_config_dict", "CLIPTextConfig"),
                   have.text_names, embed);
  if (have.vision && have.text) read_logit_scale(p, "logit_scale", "");
  p.config().score = score_kind::softmax;
}

/// SigLIP's attention pooling: one learned query over all tokens, then x + MLP(norm(x)).
void add_map_head(plan& p, const std::string& from) {
  const vision_config& v = p.config().vision;
  const std::int64_t width = v.encoder.width;
  const std::string in = from + "attention.in_proj_weight", in_bias = from + "attention.in_proj_bias";
  const piece q = piece{in, {3 * width, width}}.rows(0, width),
              q_bias = piece{in_bias, {3 * width}}.rows(0, width);
  add_map_queries(p, q, q_bias, {from + "probe", {width}}, piece{in, {3 * width, width}}.rows(width, width),
                  piece{in_bias, {3 * width}}.rows(width, width));
  p.matrix("vision.map.v.weight", {width, width}, piece{in, {3 * width, width}}.rows(2 * width, width));
  p.exact("vision.map.v.bias", {width}, piece{in_bias, {3 * width}}.rows(2 * width, width));
  p.linear("vision.map.proj", from + "attention.out_proj", width, width);
  p.norm("vision.map.norm", from + "layernorm", width);
  p.linear("vision.map.fc1", from + "mlp.fc1", v.map_mlp, width);
  p.linear("vision.map.fc2", from + "mlp.fc2", width, v.map_mlp);
}

/// NaFlex: any size, of which the positions are resized.
void read_naflex_image(plan& p, const settings& s) {
  vision_config& v = p.config().vision;
  if (s.integer("num_channels", 3, 1, 64) != 3) s.fail("num_channels", "is not 3");
  const int patch = s.integer("patch_size", 16, 1, 256, "vision.patch");
  const int patches = s.integer("num_patches", 256, 1, 1 << 20, "vision.positions");
  const int grid = square_side(p, patches, s.file() + ": " + s.path() + "num_patches");
  set_image(v, grid * patch, grid * patch, patch);
  v.naflex = 1;
  v.positions = position_resize::bilinear_antialias;
  p.note_switch("vision.position_resize", "bilinear with antialias", "fixed by Siglip2VisionEmbeddings");
}

void read_siglip_vision(plan& p, const settings& s, const std::string& from, bool naflex, const nlohmann::json* pre,
                        const std::string& pre_name) {
  vision_config& v = p.config().vision;
  v.kind = vision_kind::vit;
  read_encoder(s, "vision.", {768, 3072, 12, 12, "gelu_pytorch_tanh", 1e-6}, v.encoder);
  v.final_eps = v.encoder.eps;
  v.norm_before_pool = 1;
  if (naflex) {
    read_naflex_image(p, s);
  } else {
    read_image(s, v, 224, 16);
  }
  const std::int64_t width = v.encoder.width, tokens = std::int64_t{v.grid_h} * v.grid_w, patch = v.patch;
  p.ignore_suffix(".position_ids");
  if (naflex) {
    // A linear layer over patches that lie as [row, column, channel] already.
    p.linear("vision.patch_embed", from + "embeddings.patch_embedding", width, patch * patch * 3);
  } else {
    add_patch_embed(p, from + "embeddings.patch_embedding", true);
  }
  p.exact("vision.positions", {tokens, width},
          piece{from + "embeddings.position_embedding.weight", {tokens, width}});
  add_clip_blocks(p, "vision.", from + "encoder.layers.", v.encoder);
  p.norm("vision.norm", from + "post_layernorm", width);
  if (s.flag("vision_use_head", true)) {
    v.pool = pooling::map;
    v.map_heads = v.encoder.heads;
    v.map_mlp = v.encoder.mlp;
    v.map_act = v.encoder.act;
    add_map_head(p, from + "head.");
    s.note("vision.pool", "MAP head", "vision_use_head");
  } else {
    v.pool = pooling::none;
    s.fail("vision_use_head", "is false: without its head the model has no embedding of an image");
  }
  v.embed = v.encoder.width;
  preprocess_config& c = p.config().preprocess;
  if (naflex) c.patch = v.patch;
  read_hf_preprocessor(p, pre, pre_name,
                       {.name = naflex ? "Siglip2ImageProcessor" : "SiglipImageProcessor",
                        .square = true,
                        .center_crop = false,
                        .naflex = naflex,
                        .filter = naflex ? resize_filter::bilinear : resize_filter::bicubic,
                        .mean = {0.5f, 0.5f, 0.5f},
                        .std = {0.5f, 0.5f, 0.5f},
                        .size = v.image_h,
                        .crop = 0});
  if (naflex && c.patch != v.patch)
    p.fail(pre_name + ": patch_size is " + std::to_string(c.patch) + ", the model's is " + std::to_string(v.patch));
}

void read_siglip_text(plan& p, const settings& s, const std::string& from) {
  text_config& t = p.config().text;
  t.present = 1;
  read_encoder(s, "text.", {768, 3072, 12, 12, "gelu_pytorch_tanh", 1e-6}, t.encoder);
  t.final_eps = t.encoder.eps;
  t.pool = pooling::last;
  t.vocab = s.integer("vocab_size", 32000, 1, 1 << 22, "text.vocab");
  t.context = s.integer("max_position_embeddings", 64, 1, 8192, "text.context");
  t.pad_id = read_pad_id(s);
  t.embed = t.encoder.width;
  if (s.has("projection_size")) t.embed = s.integer("projection_size", {}, 1, max_width);
  s.note("embed", std::to_string(t.embed), "projection_size");
  p.note_switch("text.causal", "false", "fixed by SiglipTextModel");
  p.note_switch("text.pool", "last position", "fixed by SiglipTextModel");
  add_text(p, from, from + "head", true);
  p.model().tokenizer = {.style = {}, .cleaning = {}, .context = t.context, .vocab_size = t.vocab};
  const vision_config& v = p.config().vision;
  if (v.kind != vision_kind::none && p.ok() && v.embed != t.embed)
    s.fail("projection_size", "is " + std::to_string(t.embed) + ", images have " + std::to_string(v.embed));
}

void read_siglip(plan& p, const settings& root, const std::string& model_type, const nlohmann::json* pre,
                 const std::string& pre_name) {
  const bool naflex = model_type.starts_with("siglip2"),
             single = model_type != "siglip" && model_type != "siglip2";
  const towers have = find_towers(p, model_type);
  if (have.vision)
    read_siglip_vision(
        p, single ? root : root.child("vision_config", naflex ? "Siglip2VisionConfig" : "SiglipVisionConfig"),
        have.vision_names, naflex, pre, pre_name);
  if (have.text)
    read_siglip_text(p, single ? root : root.child("text_config", naflex ? "Siglip2TextConfig" : "SiglipTextConfig"),
                     have.text_names);
  if (have.vision && have.text) read_logit_scale(p, "logit_scale", "logit_bias");
  p.config().score = score_kind::sigmoid;
}

void read_class_names(plan& p, const settings& root, int classes) {
  const nlohmann::json* names = root.find("id2label");
  if (names == nullptr || !names->is_object() || names->size() != static_cast<std::size_t>(classes)) return;
  for (int i = 0; i < classes; i++) {
    const auto at = names->find(std::to_string(i));
    if (at == names->end() || !at->is_string()) return p.model().class_names.clear();
    p.model().class_names.push_back(printable_utf8(at->get<std::string>()));
  }
}

/// A block of ViT or DINOv2, `to` and `from` with its number and a dot.
void add_vit_block(plan& p, const std::string& to, const std::string& from, bool dino, bool qkv_bias) {
  const encoder_config& e = p.config().vision.encoder;
  const std::int64_t width = e.width, hidden = e.mlp;
  const std::string attn = from + "attention.attention.";
  const std::string scale1 = dino ? from + "layer_scale1.lambda1" : "",
                    scale2 = dino ? from + "layer_scale2.lambda1" : "";
  p.norm(to + "norm1", from + (dino ? "norm1" : "layernorm_before"), width);
  p.stacked_linear(to + "attn.qkv", {attn + "query", attn + "key", attn + "value"}, width, width, qkv_bias);
  p.linear(to + "attn.proj", from + "attention.output.dense", width, width, true, scale1);
  p.norm(to + "norm2", from + (dino ? "norm2" : "layernorm_after"), width);
  std::string fc1 = from + (dino ? "mlp.fc1" : "intermediate.dense"), fc2 = from + (dino ? "mlp.fc2" : "output.dense");
  if (e.gated == 0) {
    p.linear(to + "mlp.fc1", fc1, hidden, width);
  } else if (p.has(from + "mlp.weights_in.weight")) {
    p.linear(to + "mlp.fc1", from + "mlp.weights_in", 2 * hidden, width);
    fc2 = from + "mlp.weights_out";
  } else {
    p.stacked_linear(to + "mlp.fc1", {from + "mlp.gate_proj", from + "mlp.up_proj"}, hidden, width);
    fc2 = from + "mlp.down_proj";
  }
  p.linear(to + "mlp.fc2", fc2, width, hidden, true, scale2);
}

processor_defaults plain_vit_processor(bool dino, int image) {
  if (dino)
    return {.name = "BitImageProcessor as DINOv2 has it",
            .mean = {0.485f, 0.456f, 0.406f},
            .std = {0.229f, 0.224f, 0.225f},
            .size = image * 256 / 224,
            .crop = image};
  return {.name = "ViTImageProcessor",
          .square = true,
          .center_crop = false,
          .filter = resize_filter::bilinear,
          .mean = {0.5f, 0.5f, 0.5f},
          .std = {0.5f, 0.5f, 0.5f},
          .size = image};
}

/// ViT and DINOv2 share their embeddings and the names of their attention.
void read_plain_vit(plan& p, const settings& root, const std::string& model_type, const nlohmann::json* pre,
                    const std::string& pre_name) {
  model_config& m = p.config();
  vision_config& v = m.vision;
  encoder_config& e = v.encoder;
  const bool dino = model_type != "vit", registers = model_type == "dinov2_with_registers";
  std::string prefix;
  for (const char* known : {"vit.", "dinov2.", "dinov2_with_registers."})
    if (p.has_prefix(std::string(known) + "embeddings.")) prefix = known;
  for (const char* part : {"embeddings.", "encoder.", "layernorm."}) p.own(prefix + part);

  v.kind = vision_kind::vit;
  v.pool = pooling::cls;
  v.class_token = 1;
  read_encoder(root, "vision.", {768, dino ? 0 : 3072, 12, 12, "gelu", dino ? 1e-6 : 1e-12}, e);
  v.final_eps = e.eps;
  read_image(root, v, 224, dino && !registers ? 14 : 16);
  v.embed = e.width;
  const bool qkv_bias = root.flag("qkv_bias", true, "vision.qkv_bias");
  if (dino) {
    const double ratio = root.number("mlp_ratio", 4, 0.1, 64);
    e.mlp = static_cast<std::int32_t>(e.width * ratio);
    if (root.flag("use_swiglu_ffn", false, "vision.gated")) {
      e.gated = 1;
      e.act = activation::silu;
      e.mlp = (static_cast<int>(e.mlp * 2 / 3.0) + 7) / 8 * 8;  // modeling_dinov2.py: Dinov2SwiGLUFFN
    }
    root.note("vision.mlp", std::to_string(e.mlp), "mlp_ratio");
    v.positions = registers ? position_resize::bicubic_antialias : position_resize::bicubic;
    p.note_switch("vision.position_resize", registers ? "bicubic with antialias" : "bicubic",
                  registers ? "fixed by Dinov2WithRegistersEmbeddings" : "fixed by Dinov2Embeddings");
    if (registers) v.registers = root.integer("num_register_tokens", 4, 0, 256, "vision.registers");
  }
  p.ignore(prefix + "embeddings.mask_token");
  p.note_switch("vision.pool", "class token", "fixed by the model class");

  const std::int64_t width = e.width, tokens = std::int64_t{v.grid_h} * v.grid_w + 1;
  const std::string embeddings = prefix + "embeddings.";
  add_patch_embed(p, embeddings + "patch_embeddings.projection", true);
  p.exact("vision.class_token", {width}, piece{embeddings + "cls_token", {width}});
  if (v.registers != 0)
    p.exact("vision.registers", {v.registers, width},
            piece{embeddings + "register_tokens", {v.registers, width}});
  else if (registers && p.has(embeddings + "register_tokens") && p.dim(embeddings + "register_tokens", 1) == 0)
    p.ignore(embeddings + "register_tokens");  // [1, 0, C]
  p.exact("vision.positions", {tokens, width}, piece{embeddings + "position_embeddings", {tokens, width}});
  for (int i = 0; i < e.layers && p.ok(); i++) {
    const std::string number = std::to_string(i) + ".";
    add_vit_block(p, "vision.blocks." + number, prefix + "encoder.layer." + number, dino, qkv_bias);
  }
  p.norm("vision.norm", prefix + "layernorm", width);
  m.score = score_kind::logits;
  if (!dino && p.has("classifier.weight")) {
    v.classes = static_cast<std::int32_t>(p.dim("classifier.weight", 0));
    p.linear("vision.head", "classifier", v.classes, width);
    read_class_names(p, root, v.classes);
  }

  read_hf_preprocessor(p, pre, pre_name, plain_vit_processor(dino, v.image_h));
  // The pictures that the processor makes need not have the size that the positions were trained for.
  const preprocess_config& c = m.preprocess;
  if (v.positions != position_resize::none && c.resize != resize_mode::none &&
      (c.crop_h != 0 || c.resize == resize_mode::squash)) {
    v.image_h = c.crop_h != 0 ? c.crop_h : c.size_h;
    v.image_w = c.crop_w != 0 ? c.crop_w : c.size_w;
  }
}

}  // namespace

outcome<model_source> read_hugging_face(const checkpoint& file, const nlohmann::json& config,
                                        const std::string& name, const nlohmann::json* pre,
                                        const std::string& pre_name) {
  plan p(file, "hugging-face");
  const settings root(p, config, name, "the model's class");
  const std::string type = root.text("model_type", "");
  if (!p.ok()) return p.finish();
  const auto is = [&](std::initializer_list<const char*> names) {
    return std::any_of(names.begin(), names.end(), [&](const char* n) { return type == n; });
  };
  if (is({"clip", "clip_vision_model", "clip_text_model"})) {
    read_clip(p, settings(p, config, name, "CLIPConfig"), type, pre, pre_name);
  } else if (is({"siglip", "siglip_vision_model", "siglip_text_model", "siglip2", "siglip2_vision_model",
                 "siglip2_text_model"})) {
    read_siglip(p, settings(p, config, name, type.starts_with("siglip2") ? "Siglip2Config" : "SiglipConfig"),
                type, pre, pre_name);
  } else if (is({"dinov2", "dinov2_with_registers", "vit"})) {
    read_plain_vit(p,
                   settings(p, config, name,
                            type == "dinov2" ? "Dinov2Config"
                            : type == "vit"  ? "ViTConfig"
                                             : "Dinov2WithRegistersConfig"),
                   type, pre, pre_name);
  } else if (type.empty()) {
    p.fail(name + ": model_type is missing");
  } else {
    p.fail(name + ": model_type \"" + printable(type) +
           "\" is not supported; supported are clip, siglip, siglip2, dinov2, dinov2_with_registers and vit");
  }
  return p.finish();
}

}  // namespace ocellus::convert
