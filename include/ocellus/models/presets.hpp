// The configurations of released models, for compile-time models and for benches with random weights. A
// checkpoint brings its own configuration: a converted file is never read by these.
//
// Sources: the config.json files that OpenAI, open_clip and Google publish beside the weights.
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

struct entry {
  std::string_view name;
  const model_config* config;
};

inline constexpr entry all[] = {
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
};

}  // namespace presets
OCELLUS_END
