// big_vision's .npz of a two-tower SigLIP: a flax parameter tree, one entry per block or all blocks stacked.
// References: big_vision models/vit.py, models/proj/image_text/{two_towers,text_transformer}.py.
#include "layouts.hpp"
#include "preprocess_settings.hpp"

namespace ocellus::convert {

using namespace ocellus;

namespace {

constexpr const char* fixed = "fixed by big_vision's code";

/// Where block i's parameters are: entries of its own, or rows of stacks.
struct block_source {
  std::string prefix;  ///< ".../encoderblock_3/" or ".../encoderblock/"
  int index = -1, count = 0;

  piece of(const std::string& name, shape_list shape) const {
    piece p{prefix + name, std::move(shape)};
    return index >= 0 ? p.of_stack(index, count) : p;
  }
};

void read_encoder(plan& p, const std::string& tower, const std::string& at, encoder_config& e) {
  const bool stacked = p.has(at + "encoderblock/LayerNorm_0/scale");
  const std::string first = at + (stacked ? "encoderblock/" : "encoderblock_0/");
  const std::string query = first + "MultiHeadDotProductAttention_0/query/kernel";
  e.layers = stacked ? static_cast<std::int32_t>(p.dim(query, 0))
                     : p.count(at + "encoderblock_", "/LayerNorm_0/scale");
  e.width = static_cast<std::int32_t>(p.dim(query, -3));
  e.heads = static_cast<std::int32_t>(p.dim(query, -2));
  e.head_width = static_cast<std::int32_t>(p.dim(query, -1));
  e.mlp = static_cast<std::int32_t>(p.dim(first + "MlpBlock_0/Dense_0/kernel", -1));
  e.act = activation::gelu_tanh;  // flax's nn.gelu approximates unless told otherwise
  e.eps = 1e-6f;                  // flax's LayerNorm
  if (!p.ok()) return;
  if (e.layers < 1 || e.layers > 256)
    return p.fail("tensor " + query + " stacks " + std::to_string(e.layers) + " blocks");
  const std::int64_t width = e.width, heads = e.heads, d = e.head_width, inner = heads * d, mlp = e.mlp;
  for (int i = 0; i < e.layers && p.ok(); i++) {
    const block_source b = stacked ? block_source{first, i, e.layers}
                                   : block_source{at + "encoderblock_" + std::to_string(i) + "/"};
    const std::string to = tower + "blocks." + std::to_string(i) + ".",
                      attn = "MultiHeadDotProductAttention_0/";
    for (const int n : {0, 1}) {
      const std::string norm = to + "norm" + std::to_string(n + 1),
                        from = "LayerNorm_" + std::to_string(n) + "/";
      p.exact(norm + ".weight", {width}, b.of(from + "scale", {width}));
      p.exact(norm + ".bias", {width}, b.of(from + "bias", {width}));
    }
    std::vector<piece> kernels, biases;
    for (const char* part : {"query", "key", "value"}) {
      kernels.push_back(b.of(attn + part + "/kernel", {width, heads, d}).transposed());
      biases.push_back(b.of(attn + part + "/bias", {heads, d}));
    }
    p.matrix(to + "attn.qkv.weight", {3 * inner, width}, std::move(kernels));
    p.exact(to + "attn.qkv.bias", {3 * inner}, std::move(biases));
    p.matrix(to + "attn.proj.weight", {width, inner},
             b.of(attn + "out/kernel", {heads, d, width}).transposed());
    p.exact(to + "attn.proj.bias", {width}, b.of(attn + "out/bias", {width}));
    p.matrix(to + "mlp.fc1.weight", {mlp, width},
             b.of("MlpBlock_0/Dense_0/kernel", {width, mlp}).transposed());
    p.exact(to + "mlp.fc1.bias", {mlp}, b.of("MlpBlock_0/Dense_0/bias", {mlp}));
    p.matrix(to + "mlp.fc2.weight", {width, mlp},
             b.of("MlpBlock_0/Dense_1/kernel", {mlp, width}).transposed());
    p.exact(to + "mlp.fc2.bias", {width}, b.of("MlpBlock_0/Dense_1/bias", {width}));
  }
  p.exact(tower + "norm.weight", {width}, piece{at + "encoder_norm/scale", {width}});
  p.exact(tower + "norm.bias", {width}, piece{at + "encoder_norm/bias", {width}});
  p.note_switch(tower + "width", std::to_string(e.width), "shape of " + query);
  p.note_switch(tower + "heads", std::to_string(e.heads), "shape of " + query);
  p.note_switch(tower + "layers", std::to_string(e.layers),
                stacked ? "shape of " + query : "names of " + at + "encoderblock_N");
  p.note_switch(tower + "mlp", std::to_string(e.mlp), "shape of " + first + "MlpBlock_0/Dense_0/kernel");
  p.note_switch(tower + "act", to_string(e.act), fixed);
  p.note_switch(tower + "eps", "1e-06", fixed);
}

void read_image_tower(plan& p, const std::string& at) {
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  p.own(at);
  v.kind = vision_kind::vit;
  v.pool = pooling::map;
  v.norm_before_pool = 1;
  v.final_eps = 1e-6f;
  read_encoder(p, "vision.", at + "Transformer/", e);
  const int patch = static_cast<int>(p.dim(at + "embedding/kernel", 0));
  const int grid = square_side(p, p.dim(at + "pos_embedding", -2), at + "pos_embedding");
  if (!p.ok()) return;
  if (patch < 1 || patch > 256) return p.fail("tensor " + at + "embedding/kernel has no patches");
  set_image(v, grid * patch, grid * patch, patch);
  const std::int64_t width = e.width, tokens = std::int64_t{grid} * grid;
  // [row, column, channel, width] is the patch matrix transposed.
  p.matrix("vision.patch_embed.weight", {width, patch * patch * 3},
           piece{at + "embedding/kernel", {patch, patch, 3, width}}.transposed());
  p.exact("vision.patch_embed.bias", {width}, piece{at + "embedding/bias", {width}});
  p.exact("vision.positions", {tokens, width}, piece{at + "pos_embedding", {tokens, width}});
  const std::string head = at + "MAPHead_0/", attn = head + "MultiHeadDotProductAttention_0/";
  v.map_heads = static_cast<std::int32_t>(p.dim(attn + "query/kernel", 1));
  const std::int64_t heads = v.map_heads, d = p.dim(attn + "query/kernel", 2);
  v.map_mlp = static_cast<std::int32_t>(p.dim(head + "MlpBlock_0/Dense_0/kernel", 1));
  v.map_act = activation::gelu_tanh;
  if (!p.ok()) return;
  if (heads * d != width)
    return p.fail("tensor " + attn + "query/kernel: heads of another total width than the tower's");
  add_map_queries(p, piece{attn + "query/kernel", {width, heads, d}}.transposed(), {attn + "query/bias", {heads, d}},
                  {head + "probe", {width}}, piece{attn + "key/kernel", {width, heads, d}}.transposed(),
                  {attn + "key/bias", {heads, d}});
  p.matrix("vision.map.v.weight", {width, width}, piece{attn + "value/kernel", {width, heads, d}}.transposed());
  p.exact("vision.map.v.bias", {width}, piece{attn + "value/bias", {heads, d}});
  p.matrix("vision.map.proj.weight", {width, width},
           piece{attn + "out/kernel", {heads, d, width}}.transposed());
  p.exact("vision.map.proj.bias", {width}, piece{attn + "out/bias", {width}});
  p.exact("vision.map.norm.weight", {width}, piece{head + "LayerNorm_0/scale", {width}});
  p.exact("vision.map.norm.bias", {width}, piece{head + "LayerNorm_0/bias", {width}});
  const std::int64_t mlp = v.map_mlp;
  p.matrix("vision.map.fc1.weight", {mlp, width},
           piece{head + "MlpBlock_0/Dense_0/kernel", {width, mlp}}.transposed());
  p.exact("vision.map.fc1.bias", {mlp}, piece{head + "MlpBlock_0/Dense_0/bias", {mlp}});
  p.matrix("vision.map.fc2.weight", {width, mlp},
           piece{head + "MlpBlock_0/Dense_1/kernel", {mlp, width}}.transposed());
  p.exact("vision.map.fc2.bias", {width}, piece{head + "MlpBlock_0/Dense_1/bias", {width}});
  v.embed = e.width;
  if (p.has(at + "head/kernel")) {
    v.embed = static_cast<std::int32_t>(p.dim(at + "head/kernel", 1));
    p.matrix("vision.proj.weight", {v.embed, width},
             piece{at + "head/kernel", {width, v.embed}}.transposed());
    p.exact("vision.proj.bias", {v.embed}, piece{at + "head/bias", {v.embed}});
  }
  p.note_switch("vision.patch", std::to_string(patch), "shape of " + at + "embedding/kernel");
  p.note_switch("vision.image_size", std::to_string(v.image_h), "shape of " + at + "pos_embedding");
  p.note_switch("vision.pool", "MAP head", "names of " + head);
}

void read_text_tower(plan& p, const std::string& at) {
  text_config& t = p.config().text;
  p.own(at);
  t.present = 1;
  t.pool = pooling::last;
  t.final_eps = 1e-6f;
  t.pad_id = 1;
  read_encoder(p, "text.", at + "Encoder_0/", t.encoder);
  t.vocab = static_cast<std::int32_t>(p.dim(at + "Embed_0/embedding", 0));
  t.context = static_cast<std::int32_t>(p.dim(at + "pos_embedding", -2));
  const std::int64_t width = t.encoder.width;
  t.embed = static_cast<std::int32_t>(width);
  if (!p.ok()) return;
  p.table("text.tokens", {t.vocab, width}, piece{at + "Embed_0/embedding", {t.vocab, width}});
  p.exact("text.positions", {t.context, width}, piece{at + "pos_embedding", {t.context, width}});
  if (p.has(at + "head/kernel")) {
    t.embed = static_cast<std::int32_t>(p.dim(at + "head/kernel", 1));
    p.matrix("text.proj.weight", {t.embed, width}, piece{at + "head/kernel", {width, t.embed}}.transposed());
    p.exact("text.proj.bias", {t.embed}, piece{at + "head/bias", {t.embed}});
  }
  p.note_switch("text.vocab", std::to_string(t.vocab), "shape of " + at + "Embed_0/embedding");
  p.note_switch("text.context", std::to_string(t.context), "shape of " + at + "pos_embedding");
  p.note_switch("text.pool", "last position", fixed);
  p.note_switch("text.causal", "false", fixed);
  // The demo's tokenizer lower-cases and does nothing else; of the published styles transformers' is the
  // nearest.
  p.model().tokenizer = {.style = {}, .cleaning = {}, .context = t.context, .vocab_size = t.vocab};
}

}  // namespace

outcome<model_source> read_big_vision(const checkpoint& file) {
  plan p(file, "big_vision");
  model_config& m = p.config();
  const std::string root = p.has_prefix("params/") ? "params/" : "";
  if (p.has_prefix(root + "img/")) read_image_tower(p, root + "img/");
  if (p.has_prefix(root + "txt/") && p.ok()) read_text_tower(p, root + "txt/");
  if (p.ok() && m.vision.kind != vision_kind::none && m.text.present != 0) {
    if (m.vision.embed != m.text.embed)
      p.fail("the towers project to different sizes: images to " + std::to_string(m.vision.embed) +
             ", texts to " + std::to_string(m.text.embed));
    read_logit_scale(p, root + "t", root + "b");
  }
  m.score = p.has(root + "b") ? score_kind::sigmoid : score_kind::softmax;
  // The published demos squash, bilinear; transformers and open_clip read the same weights bicubic. Without
  // antialias TensorFlow's bilinear is not Pillow's, so the ports' filter is taken, which evaluates the same.
  preprocess_config& c = m.preprocess;
  c.resize = resize_mode::squash;
  c.size_h = m.vision.image_h > 0 ? m.vision.image_h : 224;
  c.size_w = c.size_h;
  c.crop_h = c.crop_w = 0;
  for (float& x : c.mean) x = 0.5f;
  for (float& x : c.std) x = 0.5f;
  note_preprocess(p, "as transformers and open_clip prepare pictures for these weights");
  return p.finish();
}

}  // namespace ocellus::convert
