// OpenAI's layout: visual.conv1, visual.transformer.resblocks.N, transformer.resblocks.N,
// token_embedding.weight, ... Reference: clip/model.py, build_model(), which reads the architecture from the
// shapes.
#include "layouts.hpp"

#include <algorithm>

namespace ocellus::convert {

using namespace ocellus;

void add_resblocks(plan& p, const std::string& tower, const std::string& source, const encoder_config& e) {
  const std::int64_t width = e.width;
  for (int i = 0; i < e.layers && p.ok(); i++) {
    const std::string to = tower + "blocks." + std::to_string(i) + ".",
                      from = source + std::to_string(i) + ".";
    const auto if_there = [&](const std::string& gain) { return p.has(gain) ? gain : std::string(); };
    const std::string proj = from + "attn.out_proj", fc2 = from + "mlp.c_proj";
    const bool attends = e.uneven == 0 || p.has(proj + ".weight"), feeds = e.uneven == 0 || p.has(fc2 + ".weight");
    const std::int64_t inner = e.uneven != 0 && attends ? p.dim(proj + ".weight", 1)
                                                        : std::int64_t{e.heads} * e.head_width,
                       mlp = e.uneven != 0 && feeds ? p.dim(fc2 + ".weight", 1) : e.mlp;
    if (attends) {
      p.norm(to + "norm1", from + "ln_1", width);
      p.matrix(to + "attn.qkv.weight", {3 * inner, width},
               piece{from + "attn.in_proj_weight", {3 * inner, width}});
      p.exact(to + "attn.qkv.bias", {3 * inner}, piece{from + "attn.in_proj_bias", {3 * inner}});
      p.linear(to + "attn.proj", proj, width, inner, true, if_there(from + "ls_1.gamma"));
    }
    if (!feeds) continue;
    p.norm(to + "norm2", from + "ln_2", width);
    p.linear(to + "mlp.fc1", from + "mlp.c_fc", mlp, width);
    p.linear(to + "mlp.fc2", fc2, width, mlp, true, if_there(from + "ls_2.gamma"));
  }
}

void measure_resblocks(plan& p, const std::string& source, encoder_config& e) {
  std::int64_t inner = 0, mlp = 0;
  for (int i = 0; i < e.layers; i++) {
    const std::string from = source + std::to_string(i) + ".", proj = from + "attn.out_proj.weight",
                      fc2 = from + "mlp.c_proj.weight";
    if (p.has(proj)) inner = std::max(inner, p.dim(proj, 1));
    if (p.has(fc2)) mlp = std::max(mlp, p.dim(fc2, 1));
  }
  if (inner == 0 || mlp == 0) return p.fail("no blocks named " + source + "N");
  if (inner % e.head_width != 0)
    return p.fail("tensor " + source + "N.attn.out_proj.weight has " + std::to_string(inner) +
                  " columns, which are no heads of " + std::to_string(e.head_width));
  e.uneven = 1;
  e.heads = static_cast<std::int32_t>(inner / e.head_width);
  e.mlp = static_cast<std::int32_t>(mlp);
}

void add_clip_vit(plan& p) {
  const vision_config& v = p.config().vision;
  const std::int64_t width = v.encoder.width, tokens = std::int64_t{v.grid_h} * v.grid_w + 1;
  add_patch_embed(p, "visual.conv1", false);
  p.exact("vision.class_token", {width}, piece{"visual.class_embedding", {width}});
  p.exact("vision.positions", {tokens, width}, piece{"visual.positional_embedding", {tokens, width}});
  if (v.pre_norm != 0) p.norm("vision.pre_norm", "visual.ln_pre", width);
  add_resblocks(p, "vision.", "visual.transformer.resblocks.", v.encoder);
  p.norm("vision.norm", "visual.ln_post", width);
  p.matrix("vision.proj.weight", {v.embed, width}, piece{"visual.proj", {width, v.embed}}.transposed());
}

void add_clip_text(plan& p, const std::string& prefix, bool projection_is_linear) {
  const text_config& t = p.config().text;
  const std::int64_t width = t.encoder.width;
  p.table("text.tokens", {t.vocab, width}, piece{prefix + "token_embedding.weight", {t.vocab, width}});
  p.exact("text.positions", {t.context, width}, piece{prefix + "positional_embedding", {t.context, width}});
  add_resblocks(p, "text.", prefix + "transformer.resblocks.", t.encoder);
  p.norm("text.norm", prefix + "ln_final", width);
  if (projection_is_linear) {
    p.linear("text.proj", prefix + "text_projection", t.embed, width, p.has(prefix + "text_projection.bias"));
  } else if (p.has(prefix + "text_projection")) {
    p.matrix("text.proj.weight", {t.embed, width},
             piece{prefix + "text_projection", {width, t.embed}}.transposed());
  }
}

namespace {

/// Divides by 64, OpenAI's head width, or says what to do.
int heads_of(plan& p, std::int64_t width, const char* what) {
  if (width % 64 != 0)
    p.fail(std::string(what) + " has width " + std::to_string(width) +
           ", and the number of heads cannot be told (OpenAI's are 64 wide): give the model's configuration "
           "by --config");
  return static_cast<int>(std::max<std::int64_t>(width / 64, 1));
}

constexpr const char* fixed = "fixed by OpenAI's layout";

void read_vit(plan& p) {
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  const std::string block = "visual.transformer.resblocks.";
  v.kind = vision_kind::vit;
  v.pool = pooling::cls;
  v.class_token = v.pre_norm = 1;
  e.width = static_cast<std::int32_t>(p.dim("visual.conv1.weight", 0));
  const int patch = static_cast<int>(p.dim("visual.conv1.weight", 3));
  e.layers = p.count(block, ".attn.in_proj_weight");
  e.heads = heads_of(p, e.width, "the vision tower");
  e.head_width = 64;
  e.mlp = static_cast<std::int32_t>(p.dim(block + "0.mlp.c_fc.weight", 0));
  e.act = activation::quick_gelu;
  const int grid = square_side(p, p.dim("visual.positional_embedding", 0) - 1, "visual.positional_embedding");
  v.embed = static_cast<std::int32_t>(p.dim("visual.proj", 1));
  if (!p.ok() || patch < 1 || patch > 256) return p.fail("visual.conv1.weight has no patches");
  set_image(v, grid * patch, grid * patch, patch);

  add_clip_vit(p);

  p.note_switch("vision.width", std::to_string(e.width), "shape of visual.conv1.weight");
  p.note_switch("vision.patch", std::to_string(patch), "shape of visual.conv1.weight");
  p.note_switch("vision.image_size", std::to_string(v.image_h), "shape of visual.positional_embedding");
  p.note_switch("vision.layers", std::to_string(e.layers), "names of " + block + "N");
  p.note_switch("vision.mlp", std::to_string(e.mlp), "shape of " + block + "0.mlp.c_fc.weight");
  p.note_switch("vision.heads", std::to_string(e.heads), std::string(fixed) + ": width / 64");
  p.note_switch("vision.act", to_string(e.act), fixed);
  p.note_switch("vision.eps", "1e-05", fixed);
  p.note_switch("vision.pool", "class token", fixed);
  p.note_switch("embed", std::to_string(v.embed), "shape of visual.proj");
}

}  // namespace

void add_clip_resnet(plan& p) {
  vision_config& v = p.config().vision;
  v.kind = vision_kind::resnet;
  v.pool = pooling::attention;
  v.final_norm = 0;
  v.resnet_width = static_cast<std::int32_t>(p.dim("visual.layer1.0.conv1.weight", 0));
  for (int stage = 0; stage < 4; stage++) {
    const std::string layer = "visual.layer" + std::to_string(stage + 1) + ".";
    v.resnet_layers[stage] = p.count(layer, ".conv1.weight");
    if (v.resnet_layers[stage] == 0) return p.fail("tensor " + layer + "0.conv1.weight is missing");
  }
  const std::int64_t width = v.resnet_width, out = width * 32;
  const int grid = square_side(p, p.dim("visual.attnpool.positional_embedding", 0) - 1,
                               "visual.attnpool.positional_embedding");
  v.embed = static_cast<std::int32_t>(p.dim("visual.attnpool.c_proj.weight", 0));
  v.image_h = v.image_w = grid * 32;
  v.grid_h = v.grid_w = grid;
  v.patch = 32;
  v.encoder.width = static_cast<std::int32_t>(out);
  v.encoder.act = activation::relu;

  p.ignore_suffix(".num_batches_tracked");
  const std::int64_t stem[] = {3, width / 2, width / 2, width};
  for (int i = 0; i < 3; i++) {
    const std::string number = std::to_string(i + 1);
    add_batch_normed(p, "vision.stem." + std::to_string(i), "visual.conv" + number, "visual.bn" + number, stem[i + 1],
                stem[i], 3);
  }
  std::int64_t in = width;
  for (int stage = 0; stage < 4; stage++) {
    const std::int64_t planes = width << stage;
    for (int b = 0; b < v.resnet_layers[stage] && p.ok(); b++) {
      const std::string from = "visual.layer" + std::to_string(stage + 1) + "." + std::to_string(b) + ".";
      const std::string to = "vision.stages." + std::to_string(stage) + "." + std::to_string(b) + ".";
      add_batch_normed(p, to + "conv1", from + "conv1", from + "bn1", planes, in, 1);
      add_batch_normed(p, to + "conv2", from + "conv2", from + "bn2", planes, planes, 3);
      add_batch_normed(p, to + "conv3", from + "conv3", from + "bn3", planes * 4, planes, 1);
      if (b == 0) add_batch_normed(p, to + "down", from + "downsample.0", from + "downsample.1", planes * 4, in, 1);
      in = planes * 4;
    }
  }
  const std::string pool = "visual.attnpool.";
  p.exact("vision.attnpool.positions", {grid * grid + 1, out},
          piece{pool + "positional_embedding", {grid * grid + 1, out}});
  p.linear("vision.attnpool.q", pool + "q_proj", out, out);
  p.stacked_linear("vision.attnpool.kv", {pool + "k_proj", pool + "v_proj"}, out, out);
  p.linear("vision.attnpool.proj", pool + "c_proj", v.embed, out);

  std::string layers;
  for (const int n : v.resnet_layers) layers += (layers.empty() ? "" : ", ") + std::to_string(n);
  p.note_switch("vision.stages", layers, "names of visual.layerS.N");
  p.note_switch("vision.width", std::to_string(width), "shape of visual.layer1.0.conv1.weight");
  p.note_switch("vision.image_size", std::to_string(v.image_h),
                "shape of visual.attnpool.positional_embedding");
  p.note_switch("vision.pool", "attention with the mean as query", "CLIP's ModifiedResNet");
  p.note_switch("vision.batch_norm_eps", "1e-05", "CLIP's ModifiedResNet");
  p.note_switch("embed", std::to_string(v.embed), "shape of visual.attnpool.c_proj.weight");
}

outcome<model_source> read_openai(const checkpoint& file) {
  plan p(file, "openai");
  model_config& m = p.config();
  for (const char* prefix : {"visual.", "transformer."}) p.own(prefix);
  if (p.has("visual.layer1.0.conv1.weight")) {
    add_clip_resnet(p);
    const int width = m.vision.resnet_width;
    m.vision.encoder.heads = heads_of(p, std::int64_t{width} * 32, "the attention pool");
    m.vision.encoder.head_width = 64;
    p.note_switch("vision.heads", std::to_string(m.vision.encoder.heads),
                  std::string(fixed) + ": width * 32 / 64");
  } else {
    read_vit(p);
  }

  text_config& t = m.text;
  encoder_config& e = t.encoder;
  t.present = 1;
  t.pool = pooling::argmax;
  e.width = static_cast<std::int32_t>(p.dim("ln_final.weight", 0));
  e.layers = p.count("transformer.resblocks.", ".attn.in_proj_weight");
  e.heads = heads_of(p, e.width, "the text tower");
  e.head_width = 64;
  e.mlp = static_cast<std::int32_t>(p.dim("transformer.resblocks.0.mlp.c_fc.weight", 0));
  e.act = activation::quick_gelu;
  e.causal = 1;
  t.vocab = static_cast<std::int32_t>(p.dim("token_embedding.weight", 0));
  t.context = static_cast<std::int32_t>(p.dim("positional_embedding", 0));
  t.embed = static_cast<std::int32_t>(p.dim("text_projection", 1));
  add_clip_text(p, "", false);
  p.note_switch("text.width", std::to_string(e.width), "shape of ln_final.weight");
  p.note_switch("text.layers", std::to_string(e.layers), "names of transformer.resblocks.N");
  p.note_switch("text.mlp", std::to_string(e.mlp), "shape of transformer.resblocks.0.mlp.c_fc.weight");
  p.note_switch("text.heads", std::to_string(e.heads), std::string(fixed) + ": width / 64");
  p.note_switch("text.act", to_string(e.act), fixed);
  p.note_switch("text.eps", "1e-05", fixed);
  p.note_switch("text.causal", "true", fixed);
  p.note_switch("text.pool", "at the highest id", fixed);
  p.note_switch("text.vocab", std::to_string(t.vocab), "shape of token_embedding.weight");
  p.note_switch("text.context", std::to_string(t.context), "shape of positional_embedding");
  if (p.ok() && m.vision.embed != t.embed)
    p.fail("the towers project to different sizes: images to " + std::to_string(m.vision.embed) +
           ", texts to " + std::to_string(t.embed));

  // OpenAI's own files have these three. open_clip's native models have the same names but mostly GELU, which no tensor
  // tells.
  if (file.kind() != container::torchscript && file.find("input_resolution") == nullptr)
    p.note("read as OpenAI's, with quick_gelu and heads 64 wide: weights that were trained with open_clip mostly have "
           "GELU, and need their configuration by --config");
  for (const char* buffer : {"input_resolution", "context_length", "vocab_size"}) p.ignore(buffer);
  if (const tensor_info* t_res = file.find("input_resolution"); t_res != nullptr && p.ok()) {
    std::vector<std::int64_t> stated;
    if (file.read_i64(*t_res, stated) && stated.size() == 1 && stated[0] != m.vision.image_h)
      p.fail("input_resolution says " + std::to_string(stated[0]) + " pixels, the positions are for " +
             std::to_string(m.vision.image_h));
  }
  read_logit_scale(p, "logit_scale", "logit_bias");
  m.score = score_kind::softmax;
  preprocess_config& pre = m.preprocess;
  pre.size_h = pre.size_w = pre.crop_h = pre.crop_w = m.vision.image_h;
  p.note_switch("preprocess",
                "shortest side to " + std::to_string(pre.size_h) + " bicubic, centre crop (offset rounded)",
                fixed);
  p.note_switch("preprocess.mean", "0.48145466, 0.4578275, 0.40821073", fixed);
  p.note_switch("preprocess.std", "0.26862954, 0.26130258, 0.27577711", fixed);
  p.model().tokenizer = {.style = text_style::clip_openclip, .context = t.context, .vocab_size = t.vocab};
  return p.finish();
}

}  // namespace ocellus::convert
