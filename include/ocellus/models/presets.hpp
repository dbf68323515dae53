// The configurations of released models, for compile-time models and for benches with random weights. A
// checkpoint brings its own configuration: a converted file is never read by these.
//
// Sources: the config.json files that OpenAI, open_clip, Google and Meta publish beside the weights; MobileCLIP-B as
// open_clip has it. tests/test_static.cpp holds them to the published numbers of parameters.
//
// Name, parameters in millions (as the released checkpoints count them), and the megabytes of the image and the text
// tower in 8 bits, at most (DINOv2 has no projection, which its configuration does not tell):
//
// clip_vit_b32               151.3     90     64
// clip_vit_b16               149.6     88     64
// clip_vit_l14               427.6    309    125
// clip_vit_l14_336           427.9    310    125
// open_clip_vit_b32          151.3     90     64
// open_clip_vit_b16          149.6     88     64
// open_clip_vit_l14          427.6    309    125
// open_clip_vit_h14          986.1    639    357
// open_clip_vit_bigg14      2539.6   1859    700
// siglip_b16_224             203.2     93    112
// siglip_b16_256             203.2     93    112
// siglip_b16_384             203.4     94    112
// siglip_b16_512             203.8     96    112
// siglip_so400m_14_224       877.4    429    453
// siglip_l16_256             652.2    318    339
// siglip_so400m_14_384       878.0    432    453
// siglip2_b16_224            375.2     93    285
// siglip2_b16_256            375.2     93    285
// siglip2_so400m_14_224     1135.5    429    712
// siglip2_so400m_14_384     1136.0    432    712
// dinov2_s14                  22.1     24      0
// dinov2_b14                  86.6     92      0
// dinov2_l14                 304.4    314      0
// dinov2_g14                1136.5   1155      0
// dinov2_s14_reg4             22.1     24      0
// dinov2_b14_reg4             86.6     92      0
// dinov2_l14_reg4            304.4    314      0
// dinov2_g14_reg4           1136.5   1155      0
// mobileclip_b               149.8     89     64
#pragma once

#include <ocellus/models/describe.hpp>

#include <string_view>

OCELLUS_BEGIN
namespace presets {
namespace detail {

constexpr text_transformer clip_text(int width, int layers = 12) noexcept {
  return text_transformer{}.vocab(49408).context(77).width(width).layers(layers);
}
constexpr vit base(int image, int patch) noexcept {
  return vit{}.image(image).patch(patch).width(768).layers(12);
}
constexpr vit large(int image, int patch) noexcept {
  return vit{}.image(image).patch(patch).width(1024).layers(24);
}
/// The shape-optimised ViT of 400 M parameters [Alabdulmohsin 2023].
constexpr vit so400m(int image, int patch) noexcept {
  return vit{}.image(image).patch(patch).width(1152).layers(27).heads(16).mlp(4304);
}
constexpr model_config siglip(const vit& image, const text_transformer& text) noexcept {
  return siglip_model(image, text.layers(image.value.encoder.layers).context(64));
}
constexpr text_transformer so400m_text() noexcept {
  return text_transformer{}.width(1152).heads(16).mlp(4304);
}
/// open_clip's own models use the exact GELU.
constexpr model_config open_clip(const vit& image, const text_transformer& text) noexcept {
  return clip_model(image.act(activation::gelu), text.act(activation::gelu));
}
/// An image tower alone, at the 518 pixels that its positions are for; opened at run time it takes other sizes, as its
/// authors do, with registers by another resampling.
constexpr model_config dinov2(int width, int layers, int registers) noexcept {
  const vit image = vit{}.image(518).patch(14).width(width).layers(layers).registers(registers).pre_norm(false);
  model_config m = image.eps(1e-6f).act(activation::gelu);
  m.vision.positions = registers > 0 ? position_resize::bicubic_antialias : position_resize::bicubic;
  if (width == 1536) {  // SwiGLU of two thirds of four widths
    m.vision.encoder.gated = 1;
    m.vision.encoder.act = activation::silu;
    m.vision.encoder.mlp = 4096;
  }
  const float mean[3] = {0.485f, 0.456f, 0.406f}, std[3] = {0.229f, 0.224f, 0.225f};
  for (int c = 0; c < 3; c++) m.preprocess.mean[c] = mean[c], m.preprocess.std[c] = std[c];
  m.score = score_kind::logits;
  return m;
}
/// A ViT-B/16 after a stem of three convolutions, with the text tower of CLIP. Opened at run time only: the stem stays
/// f32 beside int8.
constexpr model_config mobileclip() noexcept {
  model_config m = open_clip(base(224, 16).embed(512).pre_norm(false).eps(1e-6f), clip_text(512));
  m.vision.conv_stem = 1;
  m.vision.stem_width = 192;
  m.preprocess.filter = resize_filter::bilinear;
  for (int c = 0; c < 3; c++) m.preprocess.mean[c] = 0.f, m.preprocess.std[c] = 1.f;
  return m;
}

}  // namespace detail

// OpenAI's CLIP
inline constexpr model_config clip_vit_b32 = clip_model(detail::base(224, 32).embed(512), detail::clip_text(512));
inline constexpr model_config clip_vit_b16 = clip_model(detail::base(224, 16).embed(512), detail::clip_text(512));
inline constexpr model_config clip_vit_l14 = clip_model(detail::large(224, 14).embed(768), detail::clip_text(768));
inline constexpr model_config clip_vit_l14_336 = clip_model(detail::large(336, 14).embed(768), detail::clip_text(768));

// open_clip's (LAION, DataComp)
inline constexpr model_config open_clip_vit_b32 =
    detail::open_clip(detail::base(224, 32).embed(512), detail::clip_text(512));
inline constexpr model_config open_clip_vit_b16 =
    detail::open_clip(detail::base(224, 16).embed(512), detail::clip_text(512));
inline constexpr model_config open_clip_vit_l14 =
    detail::open_clip(detail::large(224, 14).embed(768), detail::clip_text(768));
inline constexpr model_config open_clip_vit_h14 =
    detail::open_clip(vit{}.image(224).patch(14).width(1280).layers(32).heads(16).embed(1024),
                      detail::clip_text(1024, 24));

inline constexpr model_config open_clip_vit_bigg14 =
    detail::open_clip(vit{}.image(224).patch(14).width(1664).layers(48).heads(16).mlp(8192).embed(1280),
                      detail::clip_text(1280, 32));

// Google's SigLIP and SigLIP 2 (fixed resolution)
inline constexpr model_config siglip_b16_224 =
    detail::siglip(detail::base(224, 16), text_transformer{}.vocab(32000).width(768));
inline constexpr model_config siglip_b16_256 =
    detail::siglip(detail::base(256, 16), text_transformer{}.vocab(32000).width(768));
inline constexpr model_config siglip_b16_384 =
    detail::siglip(detail::base(384, 16), text_transformer{}.vocab(32000).width(768));
inline constexpr model_config siglip_b16_512 =
    detail::siglip(detail::base(512, 16), text_transformer{}.vocab(32000).width(768));
inline constexpr model_config siglip_so400m_14_224 =
    siglip_model(detail::so400m(224, 14), detail::so400m_text().vocab(32000).layers(27).context(16));
inline constexpr model_config siglip_l16_256 =
    detail::siglip(detail::large(256, 16), text_transformer{}.vocab(32000).width(1024));
inline constexpr model_config siglip_so400m_14_384 =
    detail::siglip(detail::so400m(384, 14), detail::so400m_text().vocab(32000));
inline constexpr model_config siglip2_b16_224 =
    detail::siglip(detail::base(224, 16), text_transformer{}.vocab(256000).width(768));
inline constexpr model_config siglip2_b16_256 =
    detail::siglip(detail::base(256, 16), text_transformer{}.vocab(256000).width(768));
inline constexpr model_config siglip2_so400m_14_224 =
    detail::siglip(detail::so400m(224, 14), detail::so400m_text().vocab(256000));
inline constexpr model_config siglip2_so400m_14_384 =
    detail::siglip(detail::so400m(384, 14), detail::so400m_text().vocab(256000));

// Meta's DINOv2, without and with registers [Oquab 2023, Darcet 2023]
inline constexpr model_config dinov2_s14 = detail::dinov2(384, 12, 0);
inline constexpr model_config dinov2_b14 = detail::dinov2(768, 12, 0);
inline constexpr model_config dinov2_l14 = detail::dinov2(1024, 24, 0);
inline constexpr model_config dinov2_g14 = detail::dinov2(1536, 40, 0);
inline constexpr model_config dinov2_s14_reg4 = detail::dinov2(384, 12, 4);
inline constexpr model_config dinov2_b14_reg4 = detail::dinov2(768, 12, 4);
inline constexpr model_config dinov2_l14_reg4 = detail::dinov2(1024, 24, 4);
inline constexpr model_config dinov2_g14_reg4 = detail::dinov2(1536, 40, 4);

// Apple's MobileCLIP-B and MobileCLIP2-B [Vasu 2023]
inline constexpr model_config mobileclip_b = detail::mobileclip();

struct entry {
  std::string_view name;
  const model_config* config;
};

OCELLUS_TABLE entry all[] = {
    {"clip_vit_b32", &clip_vit_b32},
    {"clip_vit_b16", &clip_vit_b16},
    {"clip_vit_l14", &clip_vit_l14},
    {"clip_vit_l14_336", &clip_vit_l14_336},
    {"open_clip_vit_b32", &open_clip_vit_b32},
    {"open_clip_vit_b16", &open_clip_vit_b16},
    {"open_clip_vit_l14", &open_clip_vit_l14},
    {"open_clip_vit_h14", &open_clip_vit_h14},
    {"open_clip_vit_bigg14", &open_clip_vit_bigg14},
    {"siglip_b16_224", &siglip_b16_224},
    {"siglip_b16_256", &siglip_b16_256},
    {"siglip_b16_384", &siglip_b16_384},
    {"siglip_b16_512", &siglip_b16_512},
    {"siglip_so400m_14_224", &siglip_so400m_14_224},
    {"siglip_l16_256", &siglip_l16_256},
    {"siglip_so400m_14_384", &siglip_so400m_14_384},
    {"siglip2_b16_224", &siglip2_b16_224},
    {"siglip2_b16_256", &siglip2_b16_256},
    {"siglip2_so400m_14_224", &siglip2_so400m_14_224},
    {"siglip2_so400m_14_384", &siglip2_so400m_14_384},
    {"dinov2_s14", &dinov2_s14},
    {"dinov2_b14", &dinov2_b14},
    {"dinov2_l14", &dinov2_l14},
    {"dinov2_g14", &dinov2_g14},
    {"dinov2_s14_reg4", &dinov2_s14_reg4},
    {"dinov2_b14_reg4", &dinov2_b14_reg4},
    {"dinov2_l14_reg4", &dinov2_l14_reg4},
    {"dinov2_g14_reg4", &dinov2_g14_reg4},
    {"mobileclip_b", &mobileclip_b},
};

}  // namespace presets
OCELLUS_END
