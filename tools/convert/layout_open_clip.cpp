// open_clip's checkpoints with open_clip_config.json, or one of open_clip's model_configs/*.json.
// References: open_clip model.py (CLIPVisionCfg, CLIPTextCfg), transformer.py, timm_model.py, transform.py.
#include "layouts.hpp"
#include "preprocess_settings.hpp"
#include "timm_trunk.hpp"

namespace ocellus::convert {

using namespace ocellus;

namespace {

/// act_kwargs and norm_kwargs, which go to nn.GELU and nn.LayerNorm.
activation read_act(const settings& s, bool quick_gelu, const std::string& quick_origin,
                    const std::string& name) {
  activation act = quick_gelu ? activation::quick_gelu : activation::gelu;
  if (s.has("act_kwargs")) {
    const std::string approximate = s.child("act_kwargs", "nn.GELU").text("approximate", "none");
    if (approximate == "tanh" && !quick_gelu) {
      act = activation::gelu_tanh;
    } else if (approximate != "none" || quick_gelu) {
      s.fail("act_kwargs", "is not one that ocellus knows");
    }
    s.note(name, to_string(act), "act_kwargs");
  } else {
    s.target().note_switch(name, to_string(act), quick_origin);
  }
  return act;
}

float read_eps(const settings& s, const std::string& name) {
  const settings norm = s.child("norm_kwargs", "nn.LayerNorm");
  return static_cast<float>(norm.number("eps", 1e-5, 0, 0.1, name));
}

/// Fields that this version does not know are worth a line: they may change the answers.
void note_others(const settings& s, std::initializer_list<std::string_view> known) {
  std::string list;
  for (const std::string& key : s.others(known)) list += (list.empty() ? "" : ", ") + s.path() + printable(key, 60);
  if (!list.empty()) s.target().note("ignored in " + s.file() + ", fields that ocellus does not know: " + list);
}

/// Blocks and masks that no published configuration uses and that change the answers.
void refuse_variants(const settings& s) {
  for (const char* key :
       {"qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner", "scale_attn", "scale_fc"})
    if (s.has(key) && s.flag(key, false)) s.fail(key, "is true, which ocellus does not do");
  const std::string block = s.text("block_type", "default");
  if (block != "default") s.fail("block_type", "is \"" + printable(block) + "\", which ocellus does not do");
}

int mlp_width(const settings& s, int width, const std::string& name) {
  const double ratio = s.number("mlp_ratio", 4, 0.01, 64);
  const int mlp = static_cast<int>(width * ratio);
  s.note(name, std::to_string(mlp), "mlp_ratio");
  return mlp;
}

/// TinyCLIP's pruned towers: `e` is the configured one, the tensors say what is left of it.
void read_pruned(plan& p, const std::string& tower, const std::string& blocks, std::int64_t width, encoder_config& e) {
  if (!p.ok()) return;
  const bool masked = p.has_prefix(tower == "vision" ? "_image_encoder.l0_module." : "_text_encoder.l0_module.");
  if (masked && width == e.width)
    return p.fail("the " + tower + " tower has TinyCLIP's masks (l0_module) and its full width: prune it first");
  e.width = static_cast<std::int32_t>(width);
  measure_resblocks(p, blocks, e);
  p.note_switch(tower + ".pruned", "width " + std::to_string(e.width) + ", at most " + std::to_string(e.heads) +
                " heads and " + std::to_string(e.mlp) + " hidden values", "shapes of " + blocks + "N");
}

void read_native_vit(plan& p, const settings& s, bool quick_gelu, const std::string& quick_origin, bool pruned) {
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  if (s.has("attentional_pool") && *s.find("attentional_pool") != nlohmann::json(false))
    return s.fail("attentional_pool", "is set: CoCa's attentional pooling is not supported");
  refuse_variants(s);
  v.kind = vision_kind::vit;
  v.class_token = 1;
  // open_clip before 2.24: the mean of all tokens, the class token among them; a layer before the patches.
  for (const char* key : {"global_average_pool", "input_patchnorm"})
    if (s.flag(key, false)) return s.fail(key, "is true, which ocellus does not do");
  e.width = s.integer("width", 768, 1, 1 << 14, "vision.width");
  e.layers = s.integer("layers", 12, 0, 256, "vision.layers");
  e.head_width = s.integer("head_width", 64, 1, 512, "vision.head_width");
  e.heads = e.width / e.head_width;
  if (e.heads == 0 || e.width % e.heads != 0)
    return s.fail("head_width", "does not divide the width " + std::to_string(e.width));
  e.head_width = e.width / e.heads;  // open_clip divides the width by the number of heads again
  e.mlp = mlp_width(s, e.width, "vision.mlp");
  e.act = read_act(s, quick_gelu, quick_origin, "vision.act");
  e.eps = v.final_eps = read_eps(s, "vision.eps");
  const auto [image_h, image_w] = s.size("image_size", 224, 1, 8192, "vision.image_size");
  const auto [patch_h, patch_w] = s.size("patch_size", 16, 1, 256, "vision.patch");
  if (patch_h != patch_w) return s.fail("patch_size", "is not square");
  if (image_h < patch_h || image_w < patch_h) return s.fail("image_size", "is smaller than a patch");
  set_image(v, image_h, image_w, patch_h);
  v.pre_norm = s.flag("no_ln_pre", false, "vision.no_pre_norm") ? 0 : 1;
  const std::string pool = s.text("pool_type", "tok", "vision.pool");
  if (pool != "tok" && pool != "avg")
    return s.fail("pool_type", "is \"" + printable(pool) + "\": ocellus knows tok and avg");
  v.pool = pool == "tok" ? pooling::cls : pooling::avg;
  const bool norm_after = s.flag("final_ln_after_pool", false, "vision.norm_after_pool");
  v.norm_before_pool = v.pool == pooling::avg && !norm_after ? 1 : 0;  // for the class token it is the same

  if (pruned) read_pruned(p, "vision", "visual.transformer.resblocks.", p.dim("visual.conv1.weight", 0), e);

  add_clip_vit(p);
}

void read_resnet(plan& p, const settings& s) {
  vision_config& v = p.config().vision;
  const int embed = v.embed;
  add_clip_resnet(p);
  const nlohmann::json& layers = *s.find("layers");
  for (std::size_t i = 0; i < 4; i++)
    if (layers.size() != 4 || !layers[i].is_number_integer() ||
        layers[i].get<std::int64_t>() != v.resnet_layers[i])
      return s.fail("layers", "does not agree with the tensors");
  if (s.integer("width", 64, 1, 512) != v.resnet_width) s.fail("width", "does not agree with the tensors");
  if (s.size("image_size", 224, 1, 8192) != std::pair(v.image_h, v.image_w))
    s.fail("image_size", "does not agree with the tensors");
  if (embed != v.embed)
    s.fail("layers",
           "come with embeddings of " + std::to_string(v.embed) + ", expected " + std::to_string(embed));
  const int head_width = s.integer("head_width", 64, 1, 512, "vision.head_width");
  v.encoder.heads = v.resnet_width * 32 / head_width;
  if (v.encoder.heads < 1 || v.encoder.width % v.encoder.heads != 0)
    return s.fail("head_width", "does not divide the width");
  v.encoder.head_width = v.encoder.width / v.encoder.heads;
}

void read_timm_tower(plan& p, const settings& s) {
  vision_config& v = p.config().vision;
  timm_options o;
  o.prefix = "visual.trunk.";
  o.name = s.text("timm_model_name", "");
  o.name_origin = s.origin("timm_model_name");
  const std::string pool = s.text("timm_pool", "avg"),
                    proj = s.text("timm_proj",
                                  s.has("timm_proj") || !s.object().contains("timm_proj") ? "linear" : "");
  o.pool = timm_pooling(pool);
  o.pool_origin = s.origin("timm_pool");
  if (!o.pool && (!pool.empty() || proj.empty() || proj == "none"))
    return s.fail("timm_pool", "is \"" + printable(pool) + "\": ocellus knows token, avg and map");
  std::tie(o.image_h, o.image_w) = s.size("image_size", 224, 1, 8192);
  o.image_origin = s.origin("image_size");
  if (const timm_model known = find_timm_model(o.name); !known.supported && !is_fastvit(o.name))
    return p.fail(o.name_origin + ": " + known.why);
  const settings kwargs = s.child("timm_model_kwargs", "timm.create_model");
  for (const std::string& key : kwargs.others({"dynamic_img_size", "drop_rate", "pos_drop_rate", "patch_drop_rate",
                                               "proj_drop_rate", "attn_drop_rate", "drop_path_rate"}))
    return kwargs.fail(printable(key, 60).c_str(), "is set, which ocellus does not do");
  if (is_fastvit(o.name)) {
    if (pool != "avg") return s.fail("timm_pool", "is \"" + printable(pool) + "\": of a FastViT ocellus knows avg");
    if (!proj.empty() && proj != "linear")
      return s.fail("timm_proj", "is \"" + printable(proj) + "\": of a FastViT ocellus knows linear and null");
    v.image_h = o.image_h;
    v.image_w = o.image_w;
    p.note_switch("vision.image_size", std::to_string(v.image_h) + (v.image_h == v.image_w ? "" : " x " + std::to_string(v.image_w)),
                  o.image_origin);
    s.note("vision.proj", proj.empty() ? "the trunk's head" : printable(proj), "timm_proj");
    const std::string head = proj.empty() ? "visual.trunk.head.fc" : "visual.head.proj";
    return add_fastvit_trunk(p, o.prefix, o.name, o.name_origin, head, proj.empty() || p.has(head + ".bias"));
  }
  add_timm_trunk(p, o);
  if (!p.ok()) return;
  s.note("vision.proj", proj.empty() ? "the trunk's head" : printable(proj), "timm_proj");
  if (proj == "linear") {
    p.linear("vision.proj", "visual.head.proj", v.embed, v.encoder.width, p.has("visual.head.proj.bias"));
  } else if (proj.empty()) {
    p.linear("vision.proj", "visual.trunk.head", v.embed, v.encoder.width);
  } else if (proj == "none") {
    if (v.embed != v.encoder.width)
      s.fail("timm_proj", "is \"none\", but the trunk's width " + std::to_string(v.encoder.width) +
                              " is not embed_dim " + std::to_string(v.embed));
  } else {
    s.fail("timm_proj", "is \"" + printable(proj) + "\": ocellus knows linear, none and null");
  }
}

void read_text(plan& p, const settings& s, bool quick_gelu, const std::string& quick_origin, bool pruned) {
  text_config& t = p.config().text;
  encoder_config& e = t.encoder;
  if (s.flag("embed_cls", false)) return s.fail("embed_cls", "is true: CoCa's text tower is not supported");
  refuse_variants(s);
  const std::string prefix = p.has("text.token_embedding.weight") ? "text." : "";
  t.present = 1;
  e.width = s.integer("width", 512, 1, 1 << 14, "text.width");
  e.layers = s.integer("layers", 12, 0, 256, "text.layers");
  e.heads = s.integer("heads", 8, 1, 256, "text.heads");
  if (e.width % e.heads != 0)
    return s.fail("heads", "is " + std::to_string(e.heads) + ", which does not divide the width");
  e.head_width = e.width / e.heads;
  e.mlp = mlp_width(s, e.width, "text.mlp");
  e.act = read_act(s, quick_gelu, quick_origin, "text.act");
  e.eps = t.final_eps = read_eps(s, "text.eps");
  e.causal = s.flag("no_causal_mask", false) ? 0 : 1;
  s.note("text.causal", e.causal != 0 ? "true" : "false", "no_causal_mask");
  t.vocab = s.integer("vocab_size", 49408, 1, 1 << 22, "text.vocab");
  t.context = s.integer("context_length", 77, 1, 8192, "text.context");
  t.pad_id = s.integer("pad_id", 0, 0, INT32_MAX - 1);
  const std::string pool = s.text("pool_type", "argmax", "text.pool");
  t.pool = pool == "argmax" ? pooling::argmax
           : pool == "eos"  ? pooling::eos
           : pool == "last" ? pooling::last
                            : pooling::first;
  if (t.pool == pooling::first && pool != "first")
    return s.fail("pool_type", "is \"" + printable(pool) + "\": ocellus knows argmax, eos, last and first");
  if (t.pool == pooling::eos) t.eos_id = s.integer("eos_id", 2, 0, INT32_MAX - 1, "text.eos_id");
  if (pruned)
    read_pruned(p, "text", prefix + "transformer.resblocks.", p.dim(prefix + "positional_embedding", 1), e);
  const std::string proj = s.text("proj_type", "linear", "text.proj");
  const bool bias = s.flag("proj_bias", false, "text.proj_bias");
  if (proj != "linear" && proj != "none") return s.fail("proj_type", "is \"" + printable(proj) + "\"");
  const std::string projection = prefix + "text_projection";
  const bool stored = p.has(projection) || p.has(projection + ".weight");
  if (p.ok() && stored != (proj == "linear"))
    return s.fail("proj_type", "is \"" + proj + "\", but the checkpoint has " + (stored ? "a" : "no") +
                                   " text_projection");
  if (proj == "none" && t.embed != e.width)
    return s.fail("proj_type", "is \"none\", but width and embed_dim differ");
  if (p.ok() && proj == "linear" && p.has(projection + ".weight") != bias)
    return s.fail("proj_bias", std::string("is ") + (bias ? "true" : "false") +
                                   ", which the shape of text_projection denies");
  p.own("text.");
  p.own("transformer.");
  p.ignore_suffix("attn_mask");
  p.ignore_suffix(".position_ids");
  add_clip_text(p, prefix, bias);

  tokenizer_options& k = p.model().tokenizer;
  k.context = t.context;
  k.vocab_size = t.vocab;
  const settings kwargs = s.child("tokenizer_kwargs", "open_clip's tokenizers");
  // open_clip's own tokenizer is CLIP's BPE. Of transformers' tokenizers the vocabulary tells which one it is.
  const bool hf = !s.text("hf_tokenizer_name", "").empty();
  k.strip_sep = hf && kwargs.flag("strip_sep_token", false, "text.strip_sep_token");
  for (const auto& [key, value] : kwargs.object().items())
    if (key != "clean" && !(key == "strip_sep_token" && hf) && !value.is_null())
      kwargs.fail(key.c_str(), "is set, which ocellus does not do");
  if (s.has("tokenizer_mode")) s.fail("tokenizer_mode", "is set, which ocellus does not do");
  k.style = hf ? text_style::siglip_openclip : text_style::clip_openclip;
  const std::string clean = kwargs.text("clean", hf ? "whitespace" : "lower", "text.clean");
  if (clean == "whitespace") k.cleaning = text_cleaning::whitespace;
  else if (clean == "lower") k.cleaning = text_cleaning::lower;
  else if (clean == "canonicalize") k.cleaning = text_cleaning::canonicalize;
  else
    kwargs.fail("clean", "is \"" + printable(clean) + "\": ocellus knows whitespace, lower and canonicalize");
}

}  // namespace

outcome<model_source> read_open_clip(const checkpoint& file, const nlohmann::json& config,
                                     const std::string& name) {
  plan p(file, "open_clip");
  model_config& m = p.config();
  const settings top(p, config, name, "open_clip's CLIP");
  const bool wrapped = top.has("model_cfg");
  const settings root = wrapped ? top.child("model_cfg", "open_clip's CLIP") : top;
  if (root.has("multimodal_cfg")) root.fail("multimodal_cfg", "is set: CoCa is not supported");
  if (root.has("audio_cfg")) root.fail("audio_cfg", "is set: CLAP, which embeds sounds, is not supported");
  for (const char* key : {"genlip_cfg", "genlap_cfg"})
    if (root.has(key)) root.fail(key, "is set: generative models are not supported");
  for (const char* key : {"vision_cfg", "text_cfg", "embed_dim"})
    if (!root.has(key)) root.fail(key, "is missing");
  if (!p.ok()) return p.finish();
  if (const settings text = root.child("text_cfg", "CLIPTextCfg"); text.has("hf_model_name"))
    text.fail("hf_model_name", "is \"" + printable(text.text("hf_model_name", "")) +
                                   "\": text towers of transformers are not supported");
  const settings vision = root.child("vision_cfg", "CLIPVisionCfg"),
                 text = root.child("text_cfg", "CLIPTextCfg");
  if (const std::string arch = text.text("text_arch", "clip"); arch != "clip")
    text.fail("text_arch", "is \"" + printable(arch) + "\": ocellus knows open_clip's first one, \"clip\"");
  if (text.flag("variable_text", false)) text.fail("variable_text", "is true, which ocellus does not do");
  if (!p.ok()) return p.finish();
  m.vision.embed = m.text.embed = root.integer("embed_dim", {}, 1, 1 << 15, "embed");
  const bool quick_gelu = root.flag("quick_gelu", false, "quick_gelu");
  p.own("visual.");
  note_others(root, {"embed_dim", "vision_cfg", "text_cfg", "quick_gelu", "custom_text", "init_logit_scale",
                     "init_logit_bias", "nonscalar_logit_scale", "cast_dtype", "output_dict", "preprocess_cfg",
                     "mask_image", "mask_text", "sparsity_warmup", "sparsity", "start_sparsity"});
  note_others(vision, {"layers", "width", "head_width", "mlp_ratio", "patch_size", "image_size", "image_seq_len",
                       "ls_init_value", "patch_dropout", "attentional_pool", "attn_pooler_queries", "attn_pooler_heads",
                       "no_ln_pre", "pos_embed_type", "final_ln_after_pool", "pool_type", "output_tokens", "act_kwargs",
                       "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads", "scale_attn_inner",
                       "scale_attn", "scale_fc", "timm_model_name", "timm_model_pretrained", "timm_pool", "timm_proj",
                       "timm_proj_bias", "timm_drop", "timm_drop_path", "timm_model_kwargs", "global_average_pool",
                       "input_patchnorm"});
  note_others(text, {"context_length", "vocab_size", "hf_tokenizer_name", "tokenizer_kwargs", "tokenizer_mode", "width",
                     "heads", "layers", "mlp_ratio", "ls_init_value", "embed_cls", "pad_id", "bos_id", "eos_id",
                     "no_causal_mask", "final_ln_after_pool", "pool_type", "proj_bias", "proj_type", "output_tokens",
                     "act_kwargs", "norm_kwargs", "block_type", "qk_norm", "scaled_cosine_attn", "scale_heads",
                     "scale_attn_inner", "scale_attn", "scale_fc", "text_arch", "variable_text", "hf_model_pretrained",
                     "hf_proj_type", "hf_pooler_type"});

  if (vision.has("timm_model_name")) {
    read_timm_tower(p, vision);
  } else if (vision.has("layers") && vision.find("layers")->is_array()) {
    read_resnet(p, vision);
  } else {
    read_native_vit(p, vision, quick_gelu, root.origin("quick_gelu"), root.flag("mask_image", false));
  }
  if (p.ok()) read_text(p, text, quick_gelu, root.origin("quick_gelu"), root.flag("mask_text", false));
  if (p.ok()) {
    const std::string scale = "_logit_scale.logit_scale";  // TinyCLIP's
    read_logit_scale(p, p.has(scale) ? scale : "logit_scale", "logit_bias");
    const bool sigmoid = root.has("init_logit_bias") || p.has("logit_bias");
    m.score = sigmoid ? score_kind::sigmoid : score_kind::softmax;
    p.note_switch("score", sigmoid ? "sigmoid" : "softmax",
                  p.has("logit_bias") ? "the checkpoint has a logit_bias" : root.origin("init_logit_bias"));
    const settings pre = top.child("preprocess_cfg", "open_clip's PreprocessCfg");
    if (!top.has("preprocess_cfg"))
      p.note(
          "no preprocess_cfg in " + name +
          ": pictures are prepared by open_clip's defaults (shortest side, bicubic, OpenAI's mean and std)");
    read_open_clip_preprocess(pre, m.vision.image_h, m.vision.image_w);
  }
  return p.finish();
}

}  // namespace ocellus::convert
