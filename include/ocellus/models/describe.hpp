// Models described in a line, as constexpr objects: for compile-time models, presets and benches.
//
//   constexpr ocellus::model_config eye =
//       ocellus::vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
//   constexpr ocellus::model_config both = ocellus::clip_model(
//       ocellus::vit{}.image(224).patch(32).width(768).layers(12).embed(512),
//       ocellus::text_transformer{}.vocab(49408).context(77).width(512).layers(12));
//
// What is left out is as in OpenAI's CLIP: heads of 64, an MLP of four widths, quick GELU, the class token's
// embedding, LayerNorm before the blocks. `siglip_model` turns the switches in which SigLIP differs.
// A shape that cannot be is refused when a tower is made of it (models/static_model.hpp), in one sentence.
#pragma once

#include <ocellus/models/config.hpp>

OCELLUS_BEGIN
namespace detail {

/// What both kinds of tower share. Head width 0 says that the heads do not divide the width.
constexpr encoder_config finished(encoder_config e) noexcept {
  if (e.heads == 0) e.heads = e.width / 64;
  if (e.head_width == 0) e.head_width = e.heads > 0 && e.width % e.heads == 0 ? e.width / e.heads : 0;
  if (e.mlp == 0) e.mlp = 4 * e.width;
  return e;
}

constexpr encoder_config clip_encoder() noexcept {
  encoder_config e;
  e.act = activation::quick_gelu;
  return e;
}

}  // namespace detail

/// A vision transformer [Dosovitskiy 2021]. Each method gives a changed copy.
struct vit {
  /// A copy with its configuration changed by `change`. First of all: clang wants it before its first use.
  template <class F>
  constexpr vit with(F change) const noexcept {
    vit other = *this;
    change(other.value);
    return other;
  }

  vision_config value = clip_defaults();

  constexpr vit image(int side) const noexcept { return image(side, side); }
  constexpr vit image(int height, int width) const noexcept {
    return with([=](vision_config& v) { v.image_h = height, v.image_w = width; });
  }
  constexpr vit patch(int side) const noexcept {
    return with([=](vision_config& v) { v.patch = side; });
  }
  constexpr vit width(int c) const noexcept {
    return with([=](vision_config& v) { v.encoder.width = c; });
  }
  constexpr vit layers(int n) const noexcept {
    return with([=](vision_config& v) { v.encoder.layers = n; });
  }
  constexpr vit heads(int n) const noexcept {
    return with([=](vision_config& v) { v.encoder.heads = n; });
  }
  constexpr vit mlp(int f) const noexcept {
    return with([=](vision_config& v) { v.encoder.mlp = f; });
  }
  constexpr vit embed(int e) const noexcept {
    return with([=](vision_config& v) { v.embed = e; });
  }
  constexpr vit act(activation a) const noexcept {
    return with([=](vision_config& v) { v.encoder.act = v.map_act = a; });
  }
  constexpr vit pool(pooling p) const noexcept {
    return with([=](vision_config& v) { v.pool = p; });
  }
  constexpr vit class_token(bool there) const noexcept {
    return with([=](vision_config& v) { v.class_token = there; });
  }
  constexpr vit registers(int n) const noexcept {
    return with([=](vision_config& v) { v.registers = n; });
  }
  constexpr vit pre_norm(bool there) const noexcept {
    return with([=](vision_config& v) { v.pre_norm = there; });
  }
  constexpr vit classes(int n) const noexcept {
    return with([=](vision_config& v) { v.classes = n; });
  }
  /// Of every LayerNorm.
  constexpr vit eps(float x) const noexcept {
    return with([=](vision_config& v) { v.encoder.eps = v.final_eps = x; });
  }

  constexpr operator vision_config() const noexcept {  // NOLINT: implicit by design
    vision_config v = value;
    v.encoder = detail::finished(v.encoder);
    if (v.embed == 0) v.embed = v.encoder.width;
    if (v.patch > 0) v.grid_h = v.image_h / v.patch, v.grid_w = v.image_w / v.patch;
    if (v.pool == pooling::map) {
      if (v.map_heads == 0) v.map_heads = v.encoder.heads;
      if (v.map_mlp == 0) v.map_mlp = v.encoder.mlp;
    }
    return v;
  }
  /// A model of this tower alone.
  constexpr operator model_config() const noexcept {  // NOLINT
    model_config m;
    m.vision = *this;
    m.preprocess.size_h = m.preprocess.crop_h = m.vision.image_h;
    m.preprocess.size_w = m.preprocess.crop_w = m.vision.image_w;
    return m;
  }

 private:
  static constexpr vision_config clip_defaults() noexcept {
    vision_config v;
    v.kind = vision_kind::vit;
    v.class_token = v.pre_norm = 1;
    v.encoder = detail::clip_encoder();
    return v;
  }
};

/// A text transformer. Each method gives a changed copy.
struct text_transformer {
  /// A copy with its configuration changed by `change`. First of all: clang wants it before its first use.
  template <class F>
  constexpr text_transformer with(F change) const noexcept {
    text_transformer other = *this;
    change(other.value);
    return other;
  }

  text_config value = clip_defaults();

  constexpr text_transformer vocab(int n) const noexcept {
    return with([=](text_config& t) { t.vocab = n; });
  }
  constexpr text_transformer context(int tokens) const noexcept {
    return with([=](text_config& t) { t.context = tokens; });
  }
  constexpr text_transformer width(int c) const noexcept {
    return with([=](text_config& t) { t.encoder.width = c; });
  }
  constexpr text_transformer layers(int n) const noexcept {
    return with([=](text_config& t) { t.encoder.layers = n; });
  }
  constexpr text_transformer heads(int n) const noexcept {
    return with([=](text_config& t) { t.encoder.heads = n; });
  }
  constexpr text_transformer mlp(int f) const noexcept {
    return with([=](text_config& t) { t.encoder.mlp = f; });
  }
  constexpr text_transformer embed(int e) const noexcept {
    return with([=](text_config& t) { t.embed = e; });
  }
  constexpr text_transformer act(activation a) const noexcept {
    return with([=](text_config& t) { t.encoder.act = a; });
  }
  constexpr text_transformer pool(pooling p, int eos_id = -1) const noexcept {
    return with([=](text_config& t) { t.pool = p, t.eos_id = eos_id; });
  }
  constexpr text_transformer causal(bool on) const noexcept {
    return with([=](text_config& t) { t.encoder.causal = on; });
  }
  constexpr text_transformer eps(float x) const noexcept {
    return with([=](text_config& t) { t.encoder.eps = t.final_eps = x; });
  }

  constexpr operator text_config() const noexcept {  // NOLINT: implicit by design
    text_config t = value;
    t.encoder = detail::finished(t.encoder);
    if (t.embed == 0) t.embed = t.encoder.width;
    return t;
  }

 private:
  static constexpr text_config clip_defaults() noexcept {
    text_config t;
    t.present = 1;
    t.encoder = detail::clip_encoder();
    t.encoder.causal = 1;
    return t;
  }
};

/// CLIP [Radford 2021]: both towers project to the image tower's embed; softmax over labels.
constexpr model_config clip_model(const vit& image, const text_transformer& text) noexcept {
  model_config m = image;
  m.text = text.value.embed == 0 ? text.embed(m.vision.embed) : text;
  return m;
}

/// SigLIP [Zhai 2023]: no class token and no first LayerNorm, a MAP head, tanh GELU, eps 1e-6; the text's last
/// position without a mask; a sigmoid per label; pictures squashed to the size.
constexpr model_config siglip_model(const vit& image, const text_transformer& text) noexcept {
  model_config m = image.class_token(false).pre_norm(false).pool(pooling::map).act(activation::gelu_tanh).eps(1e-6f);
  m.vision.norm_before_pool = 1;
  const text_transformer t =
      text.causal(false).pool(pooling::last).act(activation::gelu_tanh).eps(1e-6f).embed(m.vision.embed);
  m.text = t;
  m.text.pad_id = 1;
  m.preprocess.resize = resize_mode::squash;
  m.preprocess.crop_h = m.preprocess.crop_w = 0;
  for (int c = 0; c < 3; c++) m.preprocess.mean[c] = m.preprocess.std[c] = 0.5f;
  m.score = score_kind::sigmoid;
  return m;
}

OCELLUS_END
