// Everything that a model's answers depend on beside its weights: the shapes of both towers and every switch in which
// the references (openai, open_clip, transformers, big_vision, timm) differ. Plain data of fixed layout: a packed file
// holds a model_config as it is; a compile-time model holds one as a constexpr object.
//
// The converter sets every field from the checkpoint's own configuration, never from a name, and notes in the file
// where each came from (`ocellus info`).
#pragma once

#include <ocellus/core/status.hpp>
#include <ocellus/image/preprocess_config.hpp>
#include <ocellus/ops/gemm.hpp>

#include <cstdint>
#include <type_traits>

OCELLUS_BEGIN

/// What one embedding per image or text is made from.
enum class pooling : std::uint8_t {
  none = 0,
  cls = 1,        ///< the class token (row 0)
  avg = 2,        ///< the mean of the patch tokens (open_clip "avg", timm "avg": class and register tokens left out)
  map = 3,        ///< attention with a learned query, then x + MLP(norm(x)): SigLIP's MAP head [Zhai 2022]
  attention = 4,  ///< CLIP ResNets: attention with the mean as query [Radford 2021]
  argmax = 5,     ///< text: the highest id, the first of equals (openai, open_clip: EOT is the highest)
  eos = 6,        ///< text: the first eos_id; without one, position 0 (transformers)
  last = 7,       ///< text: the last position, whatever it holds (SigLIP)
  first = 8,      ///< text: position 0
};

enum class vision_kind : std::uint8_t { none = 0, vit = 1, resnet = 2, fastvit = 3 };

/// How the position table is fitted to another grid of patches.
enum class position_resize : std::uint8_t {
  none = 0,               ///< other sizes are refused
  bilinear_antialias = 1, ///< SigLIP 2 NaFlex: bilinear, align_corners=False, antialias=True
  bicubic = 2,            ///< DINOv2: bicubic (a = -0.75), align_corners=False, antialias=False
  bicubic_antialias = 3,  ///< DINOv2 with registers: bicubic (a = -0.5), antialias=True
};

/// How texts and images are compared.
enum class score_kind : std::uint8_t {
  softmax = 0,  ///< softmax over labels of scale * cos: CLIP
  sigmoid = 1,  ///< sigmoid(scale * cos + bias), each label alone: SigLIP
  logits = 2,   ///< a classifier head's softmax: timm, DeiT
};

/// The transformer blocks of one tower: x += attention(norm1(x)), x += mlp(norm2(x)), unless post_norm.
struct encoder_config {
  std::int32_t width = 0;       ///< C
  std::int32_t layers = 0;
  std::int32_t heads = 0;       ///< H
  std::int32_t head_width = 0;  ///< D; H * D may differ from C (TinyCLIP)
  std::int32_t mlp = 0;         ///< F, the hidden width; a gated MLP has fc1 of 2F rows
  float eps = 1e-5f;            ///< of every LayerNorm in the blocks
  activation act = activation::gelu;
  std::uint8_t gated = 0;       ///< SwiGLU: act(fc1[0..F)) * fc1[F..2F)
  std::uint8_t causal = 0;
  std::uint8_t qk_norm = 0;     ///< LayerNorm of each head's q and k
  std::uint8_t mlp_norm = 0;    ///< LayerNorm of the hidden values before fc2 (EVA02's sub-LN)
  std::uint8_t attn_norm = 0;   ///< LayerNorm of the heads' output before the projection (EVA02)
  std::uint8_t rope = 0;        ///< rotary positions on the patch tokens' q and k, by the table vision.rope (EVA02)
  std::uint8_t post_norm = 0;   ///< x += norm1(attention(x)), x += norm2(mlp(x)) (EVA02-E)
  float rope_theta = 10000.f;   ///< what that table was made with, as is rope_grid: towers read the table alone
  std::int32_t rope_grid = 0;   ///< grid that positions are rescaled to; 0: as they are
  /// heads and mlp are the most of any layer: each has as many as its tensors say, or no attention or no MLP at all
  /// (TinyCLIP's pruned towers)
  std::uint8_t uneven = 0;
  std::uint8_t reserved0[3] = {0, 0, 0};
  std::int32_t reserved[3] = {0, 0, 0};
  bool operator==(const encoder_config&) const = default;
};

struct vision_config {
  vision_kind kind = vision_kind::none;
  pooling pool = pooling::cls;
  std::uint8_t class_token = 0;
  std::uint8_t pre_norm = 0;             ///< LayerNorm before the blocks (CLIP's ln_pre)
  std::uint8_t norm_before_pool = 0;     ///< final LayerNorm over all tokens, then pooling; else on the pooled one
  std::uint8_t final_norm = 1;
  std::uint8_t class_position = 1;       ///< the class token has a row in the position table (row 0)
  position_resize positions = position_resize::none;
  std::uint8_t naflex = 0;               ///< variable resolution: images are lists of patches
  /// patches of 16 pixels are embedded in three steps: 4 x 4 pixels, GELU, 2 x 2 of these, GELU, 2 x 2 of these
  /// (MobileCLIP-B; timm's ConvStem with strides 4, 2, 2 and kernels of the same sizes, batch norm folded)
  std::uint8_t conv_stem = 0;
  /// FastViT: stages whose strided convolution is followed by squeeze-and-excite, bit s for stage s
  std::uint8_t squeeze = 0;
  std::uint8_t reserved0[1] = {0};
  /// FastViT: the last stage's width, heads, hidden values and LayerNorm (pre_norm: its attention has one); each stage
  /// before is half as wide, and layers counts the blocks of all
  encoder_config encoder;
  std::int32_t image_h = 0, image_w = 0;  ///< pixels of the standard input
  std::int32_t patch = 0;
  std::int32_t registers = 0;             ///< register tokens after the class token, without positions
  std::int32_t grid_h = 0, grid_w = 0;    ///< of the position table
  std::int32_t embed = 0;                 ///< E, width of the result
  std::int32_t map_heads = 0, map_mlp = 0;  ///< MAP head
  activation map_act = activation::gelu;
  std::uint8_t reserved1[3] = {0, 0, 0};
  float position_offset = 0;              ///< DINOv2: 0.1 is added to the grid before the scale is taken
  std::int32_t classes = 0;               ///< rows of a classifier head, 0: none
  std::int32_t resnet_layers[4] = {0, 0, 0, 0};  ///< blocks of each stage; FastViT: of the first four
  std::int32_t resnet_width = 0;          ///< of the stem; FastViT: and of the first stage
  float final_eps = 1e-5f;                ///< of ln_pre, the final norm and the MAP head's norm
  std::int32_t stem_width = 0;            ///< channels of conv_stem's first two steps
  std::int32_t fifth_layers = 0;          ///< FastViT: blocks of the fifth stage, 0: there is none
  std::int32_t attention_stage = 0;       ///< FastViT: the first stage whose blocks have attention
  std::int32_t reserved[4] = {0, 0, 0, 0};
  bool operator==(const vision_config&) const = default;
};

struct text_config {
  std::uint8_t present = 0;
  pooling pool = pooling::argmax;
  std::uint8_t final_norm = 1;
  std::uint8_t reserved0 = 0;
  encoder_config encoder;
  std::int32_t vocab = 0;
  std::int32_t context = 0;
  std::int32_t eos_id = -1;  ///< pooling::eos
  std::int32_t pad_id = 0;
  std::int32_t embed = 0;    ///< E
  float final_eps = 1e-5f;
  std::int32_t reserved[6] = {0, 0, 0, 0, 0, 0};
  bool operator==(const text_config&) const = default;
};

struct model_config {
  std::uint32_t bytes = 380;  ///< sizeof(model_config) of the writer: a newer minor version may be longer
  std::uint32_t reserved0 = 0;
  vision_config vision;
  text_config text;
  preprocess_config preprocess;
  score_kind score = score_kind::softmax;
  std::uint8_t apply_orientation = 0;  ///< turn pictures by their EXIF orientation first; no reference does
  std::uint8_t reserved1[2] = {0, 0};
  float logit_scale = 100.f;  ///< already exponentiated
  float logit_bias = 0.f;
  std::int32_t reserved[8] = {0, 0, 0, 0, 0, 0, 0, 0};
};
static_assert(std::is_trivially_copyable_v<model_config> && std::is_standard_layout_v<model_config>);
static_assert(sizeof(encoder_config) == 56 && sizeof(vision_config) == 168 && sizeof(text_config) == 108 &&
              sizeof(preprocess_config) == 52);
static_assert(sizeof(model_config) == 8 + 168 + 108 + 52 + 12 + 32);

/// Whether the last block is attention by the class token alone over rows that need no keys and values of their own
/// (nn::attention_pool), for which files have the keys' weights transposed.
constexpr bool pools_in_last_block(const vision_config& v) noexcept {
  const encoder_config& e = v.encoder;
  return v.kind == vision_kind::vit && v.pool == pooling::cls && e.causal == 0 && e.rope == 0 && e.qk_norm == 0 &&
         e.post_norm == 0 && e.uneven == 0 && e.width % 16 == 0 && e.heads * e.head_width % 16 == 0;
}

namespace detail {
constexpr bool in_range(std::int64_t x, std::int64_t low, std::int64_t high) noexcept { return x >= low && x <= high; }

constexpr bool valid(const encoder_config& e) noexcept {
  return in_range(e.width, 1, 1 << 14) && in_range(e.layers, 1, 256) && in_range(e.heads, 1, 256) &&
         in_range(e.head_width, 1, 512) && in_range(e.mlp, 1, 1 << 17) && e.eps >= 0 && e.eps < 1 &&
         static_cast<int>(e.act) <= static_cast<int>(activation::relu) && e.rope <= 1 && e.post_norm <= 1 &&
         e.uneven <= 1 && (e.rope == 0 || e.head_width % 2 == 0) &&
         // with post-norm, what attention adds is held where q, k and v were
         (e.post_norm == 0 || std::int64_t{3} * e.heads * e.head_width >= e.width);
}
}  // namespace detail

/// The most patches of a picture, or pixels of a map with attention: attention_s8 sums in s32 (ops/attention.hpp).
inline constexpr int most_image_tokens = 16384;

/// A FastViT's stages, 4 or 5, and the blocks of one.
constexpr int stages_of(const vision_config& v) noexcept { return v.fifth_layers > 0 ? 5 : 4; }
constexpr int stage_layers(const vision_config& v, int stage) noexcept {
  return stage < 4 ? v.resnet_layers[stage] : v.fifth_layers;
}

/// Whether all fields make sense together; a file whose configuration does not is refused (bad_config).
[[gnu::cold]] constexpr bool valid(const model_config& m) noexcept {
  using detail::in_range;
  const vision_config& v = m.vision;
  const text_config& t = m.text;
  if (static_cast<int>(v.kind) > 3 || static_cast<int>(v.pool) > 8 || static_cast<int>(t.pool) > 8) return false;
  if (v.kind == vision_kind::none && t.present == 0) return false;
  if (v.kind == vision_kind::vit) {
    if (!detail::valid(v.encoder) || !in_range(v.patch, 1, 256) || !in_range(v.image_h, v.patch, 8192) ||
        !in_range(v.image_w, v.patch, 8192) || !in_range(v.registers, 0, 256) || !in_range(v.grid_h, 1, 1024) ||
        !in_range(v.grid_w, 1, 1024))
      return false;
    if (v.pool == pooling::map && (!in_range(v.map_heads, 1, 256) || v.encoder.width % v.map_heads != 0 ||
                                   !in_range(v.map_mlp, 1, 1 << 17) || v.final_norm == 0))
      return false;
    if (v.pool == pooling::cls && v.class_token == 0) return false;
    if (!in_range(v.map_mlp, 0, 1 << 17)) return false;
    if (static_cast<int>(v.positions) > 3 || !(v.position_offset >= 0) || !(v.position_offset <= 1)) return false;
    if (v.encoder.rope != 0 && v.positions != position_resize::none) return false;  // the table is for one grid
    if (v.conv_stem > 1 || (v.conv_stem != 0 && (v.patch != 16 || v.naflex != 0 || v.stem_width % 16 != 0 ||
                                                 !in_range(v.stem_width, 16, 4096))))
      return false;
    if (v.positions == position_resize::none && (v.grid_h != v.image_h / v.patch || v.grid_w != v.image_w / v.patch))
      return false;
  }
  if (v.kind == vision_kind::resnet) {
    for (const int n : v.resnet_layers)
      if (!in_range(n, 1, 64)) return false;
    if (!in_range(v.resnet_width, 1, 512) || !in_range(v.image_h, 32, 4096) || !in_range(v.image_w, 32, 4096) ||
        v.image_h % 32 != 0 || v.image_w % 32 != 0 || !in_range(v.encoder.heads, 1, 256))
      return false;
  }
  if (v.kind == vision_kind::fastvit) {
    if (!in_range(v.fifth_layers, 0, 64)) return false;
    const int stages = stages_of(v);
    const encoder_config& e = v.encoder;
    int blocks = 0;
    for (int s = 0; s < stages; s++) {
      if (!in_range(stage_layers(v, s), 1, 64)) return false;
      blocks += stage_layers(v, s);
    }
    if (!detail::valid(e) || !detail::in_range(v.resnet_width, 16, 1024) || v.resnet_width % 16 != 0 ||
        e.width != v.resnet_width << (stages - 1) ||
        e.layers != blocks || e.heads * e.head_width != e.width || e.mlp % (1 << (stages - 1)) != 0 ||
        e.gated != 0 || e.causal != 0 || e.qk_norm != 0 || e.mlp_norm != 0 || e.attn_norm != 0 || e.rope != 0 ||
        e.post_norm != 0 || e.uneven != 0 || v.pre_norm > 1 || v.squeeze >> stages != 0 ||
        !in_range(v.attention_stage, 0, stages) ||
        (v.attention_stage < stages && (v.resnet_width << v.attention_stage) % e.head_width != 0) ||
        !in_range(v.image_h, 32, 2048) || !in_range(v.image_w, 32, 2048) || v.classes != 0 || v.pool != pooling::avg ||
        v.conv_stem != 0 || (v.squeeze & 1) != 0)
      return false;
    int h = v.image_h, w = v.image_w;
    for (int s = 0; s < v.attention_stage + 2; s++) h = (h + 1) / 2, w = (w + 1) / 2;
    if (v.attention_stage < stages && h * w > most_image_tokens) return false;
  }
  if (v.kind != vision_kind::none &&
      (!in_range(v.embed, 1, 1 << 15) || !in_range(v.classes, 0, 1 << 17) || !(v.final_eps >= 0)))
    return false;
  if (t.present != 0 && (!detail::valid(t.encoder) || !in_range(t.vocab, 1, 1 << 22) || !in_range(t.context, 1, 8192) ||
                         !in_range(t.embed, 1, 1 << 15) || !(t.final_eps >= 0) || t.encoder.rope != 0))
    return false;
  if (static_cast<int>(m.score) > 2) return false;
  const preprocess_config& p = m.preprocess;
  if (static_cast<int>(p.resize) > 3 || static_cast<int>(p.filter) > 1 || static_cast<int>(p.crop_offset) > 1 ||
      static_cast<int>(p.order) > 1)
    return false;
  if (!in_range(p.size_h, 1, 8192) || !in_range(p.size_w, 1, 8192) || !in_range(p.crop_h, 0, 8192) ||
      !in_range(p.crop_w, 0, 8192) || !in_range(p.patch, 1, 256) || !in_range(p.max_patches, 1, 1 << 16))
    return false;
  if (v.naflex != 0 && (p.resize != resize_mode::naflex || p.patch != v.patch)) return false;
  for (int c = 0; c < 3; c++)
    if (!(p.std[c] > 0) || !(p.std[c] < 1e6f) || !(p.mean[c] > -1e6f) || !(p.mean[c] < 1e6f)) return false;
  return true;
}

OCELLUS_END
