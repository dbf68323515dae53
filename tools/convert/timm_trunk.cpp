#include "timm_trunk.hpp"

#include "layouts.hpp"

#include <array>
#include <cmath>

namespace ocellus::convert {

using namespace ocellus;

namespace {

struct size_entry {
  const char* name;
  int width, heads;
};

// The sizes that timm's names begin with, and how many heads each has at which width.
constexpr size_entry sizes[] = {
    {"tiny", 192, 3},    {"xsmall", 256, 4},     {"wee", 256, 4},        {"little", 320, 5},
    {"small", 384, 6},   {"medium", 512, 8},     {"mediumd", 512, 8},    {"betwixt", 640, 10},
    {"base", 768, 12},   {"base", 896, 14},      {"so150m", 896, 14},    {"so150m2", 832, 13},
    {"large", 1024, 16}, {"so400m", 1152, 16},   {"huge", 1280, 16},     {"giant", 1408, 16},
    {"giant", 1536, 24}, {"giantopt", 1536, 16}, {"gigantic", 1664, 16}, {"enormous", 1792, 16},
};

bool contains(std::string_view text, std::string_view part) {
  return text.find(part) != std::string_view::npos;
}

/// What a model that is refused is, in words.
std::string_view kind_of_tower(std::string_view name) {
  constexpr const char* kinds[][2] = {
      {"convnext", "a ConvNeXt"},
      {"vitamin", "a ViTamin, convolutions before a ViT with relative positions"},
      {"fastvit", "a FastViT, which ocellus knows as MobileCLIP's image tower alone"},
      {"swin", "a Swin Transformer, whose attention is in shifted windows"},
      {"relpos", "a ViT with relative positions, which are added to each attention's scores"},
      {"distilled", "a distilled model with two heads"},
      {"lingbot", "one with rotary positions alone"},
      {"sapiens", "one with rotary positions alone and fewer heads of keys than of queries"},
      {"naflex", "one of timm's NaFlexViT"}};
  for (const auto& [part, kind] : kinds)
    if (contains(name, part)) return kind;
  return "no Vision Transformer that ocellus runs";
}

std::string_view first_word(std::string_view text) { return text.substr(0, text.find('_')); }

}  // namespace

timm_model find_timm_model(std::string_view name) {
  timm_model m;
  name = name.substr(0, name.find('.'));  // "vit_base_patch16_224.augreg_in21k": the tag names weights
  std::string_view rest;
  for (const char* family : {"vit_", "deit_", "deit3_", "flexivit_", "eva02_", "eva_", "test_"})
    if (rest.empty() && name.starts_with(family)) rest = name.substr(std::string_view(family).size());
  m.why = "the vision tower " + printable(name) + " is " + std::string(kind_of_tower(name));
  if (rest.empty()) return m;
  const bool pe_core = name.starts_with("vit_pe_core_"), mci = name == "vit_base_mci_224";
  // Variants with other blocks, stems or positions than the plain ones.
  for (const char* other : {"distilled", "relpos",  "_mci_",  "_rpn_",   "18x2",    "_xp_",   "dwee",  "pwee",
                            "dpwee",     "dlittle", "radio",  "resnet",  "resnext", "r26",    "r50",   "_pe_",
                            "sam",       "naflex",  "hybrid", "srelpos", "rope",    "dinov3", "csatv2", "lingbot",
                            "sapiens"})
    if (contains(name, other) && !(std::string_view(other) == "rope" && name.starts_with("eva")) && !pe_core && !mci)
      return m;
  if (pe_core) rest.remove_prefix(std::string_view("pe_core_").size());

  const std::string_view size = first_word(rest);
  for (const size_entry& s : sizes) {
    if (size != s.name || m.known) continue;
    m.known = true;
    m.width = s.width;
    m.heads = s.heads;
  }
  const auto sized = [&](int width, int heads) { m.known = true, m.width = width, m.heads = heads; };
  const bool eva = name.starts_with("eva_") || name.starts_with("eva02_");
  const bool wide = contains(name, "_plus_") || name.ends_with("_plus");
  if (size == "base" && wide) sized(896, 14);
  if (size == "giant" && !eva && (contains(name, "dinov2") || contains(name, "tipsv2"))) sized(1536, 24);
  if (name == "vit_base_patch16_gap_224") sized(768, 16);
  if (name == "test_vit" || name == "test_vit2") sized(64, 2);
  if (name == "test_vit3" || name == "test_vit4") sized(96, 3);
  if (name.starts_with("vit_intern300m")) sized(1024, 16);
  if (pe_core && size == "gigantic") sized(1536, 16);

  m.supported = true;
  if (contains(name, "_clip_") && !eva) m.eps = 1e-5f;
  if (contains(name, "quickgelu")) m.act = activation::quick_gelu;
  // SigLIP 2's sizes, trained with the approximation. The names that SigLIP 1 had first keep the exact
  // function.
  const bool siglip = contains(name, "_siglip_");
  if (siglip && (contains(name, "_patch32_") || (size == "large" && name.ends_with("_512")) ||
                 (size == "so400m" && contains(name, "_patch16_")) || size == "giantopt"))
    m.act = activation::gelu_tanh;
  if (contains(name, "_gap_") || (eva && !contains(name, "_clip_") && name.starts_with("eva_large")))
    m.pool = pooling::avg;
  else if (siglip || contains(name, "_map_"))
    m.pool = pooling::map;
  if (eva && contains(name, "_clip_") && name.starts_with("eva02_")) {
    if (size == "enormous") {
      m.post_norm = true;
    } else {
      m.rope_grid = 16;
    }
  } else if (eva && name.starts_with("eva02_")) {
    m.rope_grid = 16;
    m.pool = pooling::avg;
  } else if (eva && size == "giant" && !contains(name, "_clip_")) {
    m.pool = pooling::avg;
  }
  if (name == "test_vit2" || name == "test_vit4") m.pool = pooling::avg;
  if (name == "test_vit3") m.pool = pooling::map, m.map_all_tokens = true;
  if (pe_core) {  // Meta's Perception Encoder
    m.eps = 1e-5f;
    m.pool = pooling::map;
    m.map_heads = 8;
    m.map_all_tokens = true;
    m.rope_grid = size == "base" ? 14 : size == "gigantic" ? 32 : 24;
    m.rope_offset = size == "gigantic" ? 0.f : 1.f;
    m.rope_columns_first = true;
  }
  m.conv_stem = mci;
  m.why.clear();
  return m;
}

std::optional<pooling> timm_pooling(std::string_view name) {
  if (name == "token") return pooling::cls;
  if (name == "avg") return pooling::avg;
  if (name == "map") return pooling::map;
  return {};
}

namespace {

/// vision.rope: cosines and sines [patches, D] of timm's RotaryEmbeddingCat, for heads whose pairs are halved. A head's
/// first D / 4 angles are of the patch's row, the others of its column, or the other way round.
void add_rope(plan& p, const timm_model& known, const std::string& origin) {
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  e.rope = 1;
  e.rope_grid = known.rope_grid;
  const std::int64_t d = e.head_width;
  if (d % 4 != 0) return p.fail("heads of " + std::to_string(d) + " values have no rotary positions in two directions");
  p.computed("vision.rope", storage::exact, {std::int64_t{v.grid_h} * v.grid_w, d}, {},
             [d, h = v.grid_h, w = v.grid_w, theta = e.rope_theta,
              known](const std::vector<std::vector<float>>&, std::vector<float>& out) {
               const auto place = [&](int i, int n) {  // the reference's roundings
                 return (static_cast<float>(i) + known.rope_offset) / static_cast<float>(n) *
                        static_cast<float>(known.rope_grid);
               };
               const std::int64_t bands = d / 4;
               for (std::int64_t i = 0; i < std::int64_t{h} * w; i++) {
                 const float row = place(static_cast<int>(i / w), h), column = place(static_cast<int>(i % w), w);
                 for (std::int64_t j = 0; j < d / 2; j++) {
                   const float exponent = static_cast<float>(j % bands) / static_cast<float>(bands);
                   const float band = 1.f / std::pow(theta, exponent);
                   const float angle = ((j < bands) != known.rope_columns_first ? row : column) * band;
                   out[static_cast<std::size_t>(i * d + j)] = static_cast<float>(std::cos(static_cast<double>(angle)));
                   out[static_cast<std::size_t>(i * d + d / 2 + j)] =
                       static_cast<float>(std::sin(static_cast<double>(angle)));
                 }
               }
             });
  p.note_switch("vision.rope", "rotary, rescaled to a grid of " + std::to_string(known.rope_grid), origin);
}

/// A trunk on its way into the plan, step by step.
struct trunk {
  plan& p;
  const timm_options& o;
  const timm_model known = find_timm_model(o.name);
  const std::string origin = o.name_origin + ": " + printable(o.name);
  const std::string at = o.prefix, block0 = at + "blocks.0.";
  const std::string stem = at + "patch_embed.backbone.",
                    embed = known.conv_stem ? stem + "2.conv" : at + "patch_embed.proj";
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  std::int64_t width = 0;
  int patch = 0;

  void refuse() {
    if (!known.supported) return p.fail(o.name_origin + ": " + known.why);
    for (const char* part : {"dist_token", "head_dist.weight"})
      if (p.has(at + part))
        return p.fail("tensor " + at + part + ": distilled models with two heads are not supported");
  }

  void read_layers() {
    v.kind = vision_kind::vit;
    width = e.width = static_cast<std::int32_t>(p.dim(embed + ".weight", 0));
    patch = known.conv_stem ? 16 : static_cast<int>(p.dim(embed + ".weight", -1));
    e.layers = p.count(at + "blocks.", ".attn.proj.weight");
    if (!p.ok()) return;
    if (e.layers == 0) return p.fail("no blocks named " + at + "blocks.N.attn.proj");
    e.post_norm = known.post_norm ? 1 : 0;
    v.class_token = p.has(at + "cls_token") ? 1 : 0;
    v.pre_norm = p.has(at + "norm_pre.weight") ? 1 : 0;
    v.registers = p.has(at + "reg_token") ? static_cast<std::int32_t>(p.dim(at + "reg_token", -2)) : 0;
  }

  /// Stated, or of the registered model if it has that width, or 64 wide as nearly all of timm's are.
  void read_heads() {
    if (o.heads) {
      e.heads = *o.heads;
      p.note_switch("vision.heads", std::to_string(e.heads), o.heads_origin);
    } else if (known.known && known.width == e.width) {
      e.heads = known.heads;
      p.note_switch("vision.heads", std::to_string(e.heads), origin);
    } else {
      if (e.width % 64 != 0)
        return p.fail("the number of heads of the vision tower cannot be told: " + printable(o.name) +
                      " is not known at width " + std::to_string(e.width) + ", which is no multiple of 64");
      e.heads = e.width / 64;
      p.note_switch("vision.heads", std::to_string(e.heads),
                    "width / 64, timm's usual; " + printable(o.name) + " is not in its list");
    }
    if (e.heads < 1 || e.width % e.heads != 0)
      return p.fail(std::to_string(e.heads) + " heads do not divide the vision tower's width " +
                    std::to_string(e.width));
    e.head_width = e.width / e.heads;
  }

  void read_block_switches() {
    e.mlp = static_cast<std::int32_t>(p.dim(block0 + "mlp.fc2.weight", 1));
    e.gated = has_split_gate() || p.dim(block0 + "mlp.fc1.weight", 0) == 2 * std::int64_t{e.mlp} ? 1 : 0;
    // timm hands its act_layer to gated MLPs, too; the registered ones with a gate have SiLU there.
    e.act = o.act.value_or(e.gated != 0 ? activation::silu : known.act);
    e.eps = o.eps.value_or(known.eps);
    v.final_eps = e.eps;
    e.qk_norm = p.has(block0 + "attn.q_norm.weight") ? 1 : 0;
    e.mlp_norm = p.has(block0 + "mlp.norm.weight") ? 1 : 0;
    e.attn_norm = p.has(block0 + "attn.norm.weight") ? 1 : 0;
  }

  /// The grid that `rows` positions make, from the image's size if that is stated.
  std::pair<int, int> grid_of(std::int64_t rows) {
    if (o.image_h != 0) return {o.image_h / patch, o.image_w / patch};
    const std::int64_t patches = rows - prefix_tokens();
    std::int64_t side = 0;
    while (side * side < patches && side < 4096) side++;
    const int grid = side != 0 && side * side == patches ? static_cast<int>(side)
                                                         : square_side(p, rows, at + "pos_embed");
    return {grid, grid};
  }

  /// Of the patches, and of the tokens before them unless the model leaves these without.
  void add_positions() {
    if (patch < 1 || patch > 256) return p.fail("tensor " + embed + ".weight has no patches");
    const std::int64_t rows = p.dim(at + "pos_embed", -2);
    const auto [grid_h, grid_w] = grid_of(rows);
    const std::int64_t patches = std::int64_t{grid_h} * grid_w;
    const bool all_embedded = rows == patches + prefix_tokens();
    if (!all_embedded && rows != patches)
      return p.fail("tensor " + at + "pos_embed has " + std::to_string(rows) + " rows, expected " +
                    std::to_string(patches) + " patches" +
                    (prefix_tokens() != 0
                         ? " with or without " + std::to_string(prefix_tokens()) + " tokens before them"
                         : ""));
    set_image(v, o.image_h != 0 ? o.image_h : grid_h * patch, o.image_w != 0 ? o.image_w : grid_w * patch,
              patch);
    v.class_position = v.class_token != 0 && all_embedded ? 1 : 0;
    const piece positions{at + "pos_embed", {rows, width}}, registers{at + "reg_token", {v.registers, width}};
    const std::int64_t kept = patches + v.class_position;
    if (v.registers == 0 || !all_embedded) {
      p.exact("vision.positions", {kept, width}, positions);
      if (v.registers != 0) p.exact("vision.registers", {v.registers, width}, registers);
    } else {  // registers are constants, so their positions can be added here: what is stored has none for them
      const piece of_patches = positions.rows(prefix_tokens(), patches);
      p.exact("vision.positions", {kept, width},
              v.class_position != 0 ? std::vector{positions.rows(0, 1), of_patches} : std::vector{of_patches});
      p.computed("vision.registers", storage::exact, {v.registers, width},
                 {registers, positions.rows(v.class_token, v.registers)},
                 [](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                   for (std::size_t i = 0; i < out.size(); i++) out[i] = in[0][i] + in[1][i];
                 });
    }
    if (v.class_token != 0) p.exact("vision.class_token", {width}, piece{at + "cls_token", {width}});
  }

  /// From pixels to the blocks' input.
  void add_stem() {
    if (known.conv_stem) {
      v.conv_stem = 1;
      v.stem_width = static_cast<std::int32_t>(p.dim(stem + "0.conv.weight", 0));
      const std::int64_t channels = v.stem_width;
      p.ignore_suffix(".num_batches_tracked");
      add_batch_normed(p, "vision.stem.0", stem + "0.conv", stem + "0.bn", channels, 3, 4);
      add_batch_normed(p, "vision.stem_merge.0", stem + "1.conv", stem + "1.bn", channels, channels, 2);
      p.matrix("vision.stem_merge.1.weight", {width, 4 * channels},
               piece{embed + ".weight", {width, channels, 2, 2}}.convolution());
      p.exact("vision.stem_merge.1.bias", {width}, piece{embed + ".bias", {width}});
      p.note_switch("vision.stem", "convolutions of 4, 2 and 2", origin);
    } else {
      add_patch_embed(p, embed, p.has(embed + ".bias"));
    }
    if (known.rope_grid != 0) add_rope(p, known, origin);
    if (v.pre_norm != 0) p.norm("vision.pre_norm", at + "norm_pre", width);
  }

  void add_blocks() {
    if (e.qk_norm != 0 && e.rope != 0)
      return p.fail("norms of q and k beside rotary positions are not supported");
    for (int i = 0; i < e.layers && p.ok(); i++) {
      const std::string to = "vision.blocks." + std::to_string(i) + ".",
                        from = at + "blocks." + std::to_string(i) + ".";
      p.norm(to + "norm1", from + "norm1", width);
      add_attention(to + "attn.", from + "attn.", layer_scale(from, 1));
      p.norm(to + "norm2", from + "norm2", width);
      add_mlp(to + "mlp.", from + "mlp.", layer_scale(from, 2));
    }
  }

  void add_attention(const std::string& to, const std::string& from, const std::string& gain) {
    const auto turned = [&](const piece& part) { return e.rope != 0 ? part.halved(e.head_width) : part; };
    if (!p.has(block0 + "attn.qkv.weight")) {
      p.matrix(to + "qkv.weight", {3 * width, width},
               {turned(piece{from + "q_proj.weight", {width, width}}),
                turned(piece{from + "k_proj.weight", {width, width}}), piece{from + "v_proj.weight", {width, width}}});
    } else if (const piece all{from + "qkv.weight", {3 * width, width}}; e.rope == 0) {
      p.matrix(to + "qkv.weight", {3 * width, width}, all);
    } else {  // q and k together are heads, too
      p.matrix(to + "qkv.weight", {3 * width, width}, {turned(all.rows(0, 2 * width)), all.rows(2 * width, width)});
    }
    const bool part_bias = p.has(block0 + "attn.q_bias"), split_bias = p.has(block0 + "attn.q_proj.bias");
    if (p.has(block0 + "attn.qkv.bias")) {
      const piece all{from + "qkv.bias", {3 * width}};
      p.exact(to + "qkv.bias", {3 * width}, {turned(all.rows(0, 2 * width)), all.rows(2 * width, width)});
    } else if (part_bias || split_bias) {  // of keys there is none
      const std::string q = part_bias ? "q_bias" : "q_proj.bias", v_name = part_bias ? "v_bias" : "v_proj.bias";
      p.exact(to + "qkv.bias", {3 * width},
              {turned(piece{from + q, {width}}), piece{"", {width}}, piece{from + v_name, {width}}});
    }
    if (e.qk_norm != 0) {
      p.norm(to + "q_norm", from + "q_norm", e.head_width);
      p.norm(to + "k_norm", from + "k_norm", e.head_width);
    }
    if (e.attn_norm != 0) p.norm(to + "norm", from + "norm", width);
    p.linear(to + "proj", from + "proj", width, width, p.has(block0 + "attn.proj.bias"), gain);
  }

  void add_mlp(const std::string& to, const std::string& from, const std::string& gain) {
    const std::int64_t hidden = e.mlp;
    if (has_split_gate()) {
      p.stacked_linear(to + "fc1", {from + "fc1_g", from + "fc1_x"}, hidden, width);
    } else {
      p.linear(to + "fc1", from + "fc1", e.gated != 0 ? 2 * hidden : hidden, width);
    }
    if (e.mlp_norm != 0) p.norm(to + "norm", from + "norm", hidden);
    p.linear(to + "fc2", from + "fc2", width, hidden, true, gain);
  }

  void add_pooling() {
    v.pool = o.pool.value_or(known.pool);
    const bool before = p.has(at + "norm.weight"), after = p.has(at + "fc_norm.weight");
    if (before && after)
      return p.fail("both " + at + "norm and " + at + "fc_norm: an order of norms that ocellus does not know");
    v.final_norm = before || after ? 1 : 0;
    // For the class token alone both orders are the same; the one on the pooled token does less.
    v.norm_before_pool = before && v.pool != pooling::cls ? 1 : 0;
    if (before || after) p.norm("vision.norm", at + (before ? "norm" : "fc_norm"), width);
    if (after && v.pool == pooling::map)
      return p.fail("a MAP head with a norm behind it (" + at + "fc_norm) is not supported");
    if (v.pool == pooling::cls && v.class_token == 0)
      return p.fail("pooling at the class token, but there is no " + at + "cls_token");
    if (v.pool == pooling::map) add_map_head(at + "attn_pool.");
  }

  void add_map_head(const std::string& from) {
    if (prefix_tokens() != 0 && !known.map_all_tokens)
      return p.fail("a MAP head beside class or register tokens is not supported");
    v.map_heads = known.map_heads != 0 ? known.map_heads : e.heads;
    v.map_act = e.act == activation::silu ? activation::gelu : e.act;
    v.map_mlp = static_cast<std::int32_t>(p.dim(from + "mlp.fc1.weight", 0));
    if (!p.ok()) return;
    const piece kv{from + "kv.weight", {2 * width, width}}, kv_bias{from + "kv.bias", {2 * width}};
    add_map_queries(p, {from + "q.weight", {width, width}}, {from + "q.bias", {width}}, {from + "latent", {width}},
                    kv.rows(0, width), kv_bias.rows(0, width));
    p.matrix("vision.map.v.weight", {width, width}, kv.rows(width, width));
    p.exact("vision.map.v.bias", {width}, kv_bias.rows(width, width));
    p.linear("vision.map.proj", from + "proj", width, width);
    p.norm("vision.map.norm", from + "norm", width);
    p.linear("vision.map.fc1", from + "mlp.fc1", v.map_mlp, width);
    p.linear("vision.map.fc2", from + "mlp.fc2", width, v.map_mlp);
  }

  void note_switches() {
    constexpr const char* pools[] = {"none", "class token", "mean of the patches", "MAP head"};
    p.note_switch("vision.width", std::to_string(e.width), "shape of " + embed + ".weight");
    p.note_switch("vision.patch", std::to_string(patch), "shape of " + embed + ".weight");
    p.note_switch("vision.layers", std::to_string(e.layers), "names of " + at + "blocks.N");
    p.note_switch("vision.mlp", std::to_string(e.mlp), "shape of " + block0 + "mlp.fc2.weight");
    p.note_switch("vision.image_size",
                  std::to_string(v.image_h) + (v.image_h == v.image_w ? "" : " x " + std::to_string(v.image_w)),
                  o.image_origin.empty() ? "shape of " + at + "pos_embed" : o.image_origin);
    p.note_switch("vision.act", to_string(e.act),
                  o.act          ? o.act_origin
                  : e.gated != 0 ? "shape of the MLP: gated"
                                 : origin);
    p.note_switch("vision.eps",
                  o.eps               ? std::to_string(*o.eps)
                  : known.eps < 5e-6f ? "1e-06"
                                      : "1e-05",
                  o.eps ? o.eps_origin : origin);
    p.note_switch("vision.pool", pools[static_cast<int>(v.pool)], o.pool ? o.pool_origin : origin);
  }

  /// Class token and registers.
  int prefix_tokens() const { return v.class_token + v.registers; }
  bool has_split_gate() const { return p.has(block0 + "mlp.fc1_g.weight"); }
  /// The name of a block's first or second LayerScale, or nothing.
  std::string layer_scale(const std::string& block, int which) const {
    const std::string number = std::to_string(which);
    if (p.has(block0 + "gamma_1")) return block + "gamma_" + number;
    return p.has(block0 + "ls1.gamma") ? block + "ls" + number + ".gamma" : "";
  }
};

}  // namespace

void add_timm_trunk(plan& p, const timm_options& options) {
  trunk t{p, options};
  for (const auto step : {&trunk::refuse, &trunk::read_layers, &trunk::read_heads, &trunk::read_block_switches,
                          &trunk::add_positions, &trunk::add_stem, &trunk::add_blocks, &trunk::add_pooling,
                          &trunk::note_switches})
    if (p.ok()) (t.*step)();
}

}  // namespace ocellus::convert
