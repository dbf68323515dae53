#include "preprocess_settings.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>
#include <string_view>

namespace ocellus::convert {

using namespace ocellus;

namespace {

std::string show(const float (&x)[3]) {
  char text[64];
  std::snprintf(text, sizeof(text), "%.8g, %.8g, %.8g", static_cast<double>(x[0]), static_cast<double>(x[1]),
                static_cast<double>(x[2]));
  return text;
}

/// Three numbers, or one for all three channels.
void read_channels(const settings& s, const char* key, float (&out)[3], bool positive) {
  const nlohmann::json* value = s.find(key);
  if (value == nullptr) return;
  const auto number = [&](const nlohmann::json& x) {
    const double y = x.is_number() ? x.get<double>() : std::nan("");
    if (!(std::fabs(y) < 1e6) || (positive && !(y > 0)))
      s.fail(key,
             std::string("holds something else than three ") + (positive ? "positive " : "") + "numbers");
    return static_cast<float>(y);
  };
  if (value->is_array() && value->size() == 3) {
    for (std::size_t c = 0; c < 3; c++) out[c] = number((*value)[c]);
  } else {
    const float all = number(*value);
    for (float& x : out) x = all;
  }
}

/// {"shortest_edge": n}, {"height": h, "width": w}, n, or [h, w].
void read_size(const settings& s, const char* key, bool square, preprocess_config& c) {
  const nlohmann::json* value = s.find(key);
  if (value == nullptr) return;
  if (!value->is_object()) {
    const auto [h, w] = s.size(key, {}, 1, 8192);
    c.size_h = h, c.size_w = w;
    c.resize = square || value->is_array() ? resize_mode::squash : resize_mode::shortest;
    return;
  }
  const settings inner = s.child(key, "the image processor");
  if (inner.has("longest_edge")) return s.fail(key, "asks for a longest edge, which ocellus does not do");
  if (inner.has("shortest_edge")) {
    c.size_h = c.size_w = inner.integer("shortest_edge", {}, 1, 8192);
    c.resize = resize_mode::shortest;
  } else {
    c.size_h = inner.integer("height", {}, 1, 8192);
    c.size_w = inner.integer("width", {}, 1, 8192);
    c.resize = resize_mode::squash;
  }
}

resize_filter filter_of(const settings& s, const char* key, const std::string& name) {
  if (name != "bicubic" && name != "bilinear")
    s.fail(key, "is \"" + printable(name) + "\": ocellus resizes bicubic and bilinear");
  return name == "bilinear" ? resize_filter::bilinear : resize_filter::bicubic;
}

const char* name_of(resize_filter f) { return f == resize_filter::bicubic ? "bicubic" : "bilinear"; }

std::string size_text(int h, int w) {
  return std::to_string(h) + (h == w ? "" : " x " + std::to_string(w));
}

std::string describe_resize(const preprocess_config& c) {
  switch (c.resize) {
    case resize_mode::none: return "none";
    case resize_mode::shortest:
      return "shortest side to " + std::to_string(c.size_h) + ", " + name_of(c.filter);
    case resize_mode::squash: return "to " + size_text(c.size_h, c.size_w) + ", " + name_of(c.filter);
    case resize_mode::naflex:
      return "at most " + std::to_string(c.max_patches) + " patches of " + std::to_string(c.patch) + ", " +
             name_of(c.filter);
  }
  return "unknown";
}

std::string describe_crop(const preprocess_config& c) {
  if (c.crop_h == 0) return "none";
  return "centre " + size_text(c.crop_h, c.crop_w) +
         (c.crop_offset == crop_rounding::round ? ", offset rounded" : ", offset rounded down");
}

/// The class that the file names decides what it leaves out, where it is not the one that goes with the model. Older
/// files name a "feature extractor", newer ones end in Fast or Pil; classes that nobody pairs with these models keep the
/// model's own defaults.
processor_defaults named_processor(const nlohmann::json* object, const processor_defaults& usual) {
  if (object == nullptr || usual.naflex || !object->contains("image_processor_type")) return usual;
  const nlohmann::json& type = (*object)["image_processor_type"];
  const std::string name = type.is_string() ? type.get<std::string>() : std::string();
  const auto is = [&name](const std::string& known) { return name == known || name == known + "Fast" || name == known + "Pil"; };
  processor_defaults d = usual;
  if (is("CLIPImageProcessor") && d.name != std::string_view("CLIPImageProcessor")) {
    d = {};
    d.size = d.crop = 224;
  } else if ((is("SiglipImageProcessor") && d.name != std::string_view("SiglipImageProcessor")) ||
             (is("ViTImageProcessor") && d.name != std::string_view("ViTImageProcessor"))) {
    const bool siglip = is("SiglipImageProcessor");
    d.name = siglip ? "SiglipImageProcessor" : "ViTImageProcessor";
    d.square = true;
    d.center_crop = false;
    d.filter = siglip ? resize_filter::bicubic : resize_filter::bilinear;
    std::fill_n(d.mean, 3, 0.5f);
    std::fill_n(d.std, 3, 0.5f);
    d.size = d.crop = 224;
  }
  return d;
}

}  // namespace

void note_preprocess(plan& p, const std::string& origin) {
  const preprocess_config& c = p.config().preprocess;
  p.note_switch("preprocess.resize", describe_resize(c), origin);
  p.note_switch("preprocess.crop", describe_crop(c), origin);
  p.note_switch("preprocess.mean", show(c.mean), origin);
  p.note_switch("preprocess.std", show(c.std), origin);
}

void read_hf_preprocessor(plan& p, const nlohmann::json* object, const std::string& file,
                          const processor_defaults& usual) {
  const processor_defaults d = named_processor(object, usual);
  preprocess_config& c = p.config().preprocess;
  c.filter = d.filter;
  c.crop_offset = crop_rounding::floor;
  c.size_h = c.size_w = d.size;
  c.crop_h = c.crop_w = d.center_crop ? d.crop : 0;
  c.resize = d.naflex ? resize_mode::naflex : d.square ? resize_mode::squash : resize_mode::shortest;
  std::copy_n(d.mean, 3, c.mean);
  std::copy_n(d.std, 3, c.std);
  if (object == nullptr) {
    p.note(std::string("no preprocessor_config.json: pictures are prepared as ") + d.name +
           " does by default");
    return note_preprocess(p, std::string("default of ") + d.name);
  }
  const settings s(p, *object, file, d.name);
  if (const nlohmann::json* code = s.find("resample"); code != nullptr) {
    // Pillow's numbers: 0 nearest, 1 Lanczos, 2 bilinear, 3 bicubic.
    const int n = s.integer("resample", {}, 0, 5);
    if (n != 2 && n != 3)
      s.fail("resample", "is " + std::to_string(n) + ": ocellus resizes bicubic (3) and bilinear (2)");
    c.filter = n == 2 ? resize_filter::bilinear : resize_filter::bicubic;
  }
  if (d.naflex) {
    c.patch = s.integer("patch_size", 16, 1, 256);
    c.max_patches = s.integer("max_num_patches", 256, 1, 1 << 16);
    c.crop_h = c.crop_w = 0;
  } else {
    // A number for SigLIP is the shortest side to transformers 5, and an error to 4.
    read_size(s, "size", d.square && d.name != std::string_view("SiglipImageProcessor"), c);
    if (!s.flag("do_resize", true)) c.resize = resize_mode::none;
    if (s.flag("do_center_crop", d.center_crop)) {
      preprocess_config crop = c;
      crop.size_h = crop.size_w = d.crop;
      read_size(s, "crop_size", true, crop);
      c.crop_h = crop.size_h, c.crop_w = crop.size_w;
    } else {
      c.crop_h = c.crop_w = 0;
    }
  }
  read_channels(s, "image_mean", c.mean, false);
  read_channels(s, "image_std", c.std, true);
  const bool rescale = s.flag("do_rescale", true);
  const double factor = rescale ? s.number("rescale_factor", 1.0 / 255, 0, 1e3) : 1.0;
  if (!s.flag("do_normalize", true)) {
    for (float& x : c.mean) x = 0.f;
    for (float& x : c.std) x = 1.f;
  }
  // The runtime computes (u8 / 255 - mean) / std. Another factor f is the same with mean and std times 1 /
  // (255 f).
  if (std::fabs(factor * 255 - 1) > 1e-6) {
    if (!(factor > 0)) return s.fail("rescale_factor", "is not positive");
    for (float& x : c.mean) x = static_cast<float>(static_cast<double>(x) / (255 * factor));
    for (float& x : c.std) x = static_cast<float>(static_cast<double>(x) / (255 * factor));
  }
  note_preprocess(p, file);
}

void read_open_clip_preprocess(const settings& s, int image_h, int image_w) {
  preprocess_config& c = s.target().config().preprocess;
  c.crop_offset = crop_rounding::round;
  read_channels(s, "mean", c.mean, false);
  read_channels(s, "std", c.std, true);
  const std::string interpolation = s.text("interpolation", "bicubic");
  // Drawn anew for each picture in training; for evaluation open_clip takes bicubic.
  c.filter = filter_of(s, "interpolation", interpolation == "random" ? "bicubic" : interpolation);
  // open_clip writes the model's image size over preprocess_cfg.size, which may be that of the weights before.
  const std::pair<int, int> size{image_h, image_w};
  if (s.has("size") && s.size("size", {}, 1, 8192) != size)
    s.target().note(s.file() + ": " + s.path() + "size is another than the model's, which is used, as open_clip does");
  c.size_h = size.first, c.size_w = size.second;
  const std::string mode = s.text("resize_mode", "shortest");
  if (mode == "shortest") {
    if (size.first != size.second)
      return s.fail("resize_mode", "is \"shortest\" for an oblong input, which ocellus does not do");
    c.resize = resize_mode::shortest;
    c.crop_h = size.first, c.crop_w = size.second;
  } else if (mode == "squash") {
    c.resize = resize_mode::squash;
    c.crop_h = c.crop_w = 0;
  } else {
    return s.fail("resize_mode", "is \"" + printable(mode) + "\": ocellus knows \"shortest\" and \"squash\"");
  }
  note_preprocess(s.target(),
                  s.object().empty() ? "default of open_clip's PreprocessCfg" : s.file() + ": " + s.path());
}

void read_timm_preprocess(const settings& s, int image_h, int image_w) {
  preprocess_config& c = s.target().config().preprocess;
  c.crop_offset = crop_rounding::round;
  const float imagenet_mean[3] = {0.485f, 0.456f, 0.406f}, imagenet_std[3] = {0.229f, 0.224f, 0.225f};
  std::copy_n(imagenet_mean, 3, c.mean);
  std::copy_n(imagenet_std, 3, c.std);
  read_channels(s, "mean", c.mean, false);
  read_channels(s, "std", c.std, true);
  const std::string interpolation = s.text("interpolation", "bicubic");
  c.filter = filter_of(s, "interpolation", interpolation);
  const double crop_pct = s.number("crop_pct", 0.875, 0.05, 1.0);
  const std::string mode = s.text("crop_mode", "center");
  c.crop_h = image_h, c.crop_w = image_w;
  // timm/data/transforms_factory.py, transforms_imagenet_eval: scale_size = floor(size / crop_pct).
  const auto scaled = [&](int side) { return static_cast<int>(std::floor(side / crop_pct)); };
  c.size_h = scaled(image_h), c.size_w = scaled(image_w);
  if (mode == "squash") {
    c.resize = resize_mode::squash;
  } else if (mode == "center") {
    if (image_h != image_w)
      return s.fail("crop_mode", "is \"center\" for an oblong input, which ocellus does not do");
    c.resize = resize_mode::shortest;
  } else {
    return s.fail("crop_mode", "is \"" + printable(mode) + "\": ocellus knows \"center\" and \"squash\"");
  }
  note_preprocess(s.target(), s.object().empty() ? "default of timm" : s.file() + ": " + s.path());
}

}  // namespace ocellus::convert
