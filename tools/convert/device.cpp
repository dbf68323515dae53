#include "device.hpp"

#include "calibration.hpp"
#include "convert.hpp"
#include "packed_writer.hpp"

#include <ocellus/models/model.hpp>
#include <ocellus/models/static_model.hpp>

#include <cctype>
#include <cstdio>
#include <cstring>
#include <span>
#include <sstream>
#include <unistd.h>

namespace ocellus::convert {

namespace fs = std::filesystem;

namespace {

error about(const fs::path& path, const std::string& why) { return {printable(path.filename().string()) + ": " + why}; }

/// One unit vector [E] per label: the normalised mean of the unit vectors of its prompts, CLIP's prompt ensembling.
outcome<std::vector<float>> embed_labels(const fs::path& packed, const device_options& options) {
  const result<model> m = model::open(packed.string().c_str(), exact_kernels());
  if (!m) return about(packed, to_string(m.error()));
  if (!m->has_text() || m->tokenizer() == nullptr)
    return about(packed, "labels need a text tower and its tokenizer (--tokenizer PATH)");
  if (m->has_vision() && m->embed() != m->text_embed())
    return about(packed, "image and text embeddings have different widths");
  const auto width = static_cast<std::size_t>(m->text_embed());
  std::vector<float> out(options.labels.size() * width, 0.f);
  workspace work;
  for (std::size_t i = 0; i < options.labels.size(); i++) {
    std::vector<std::string> prompts;
    for (std::string prompt : options.templates) {
      for (std::size_t at = 0; (at = prompt.find("{}", at)) != std::string::npos; at += options.labels[i].size())
        prompt.replace(at, 2, options.labels[i]);
      prompts.push_back(prompt);
    }
    const std::vector<std::string_view> views(prompts.begin(), prompts.end());
    std::vector<float> each(prompts.size() * width);
    const status s = m->encode_texts(views, each.data(), work);
    if (s != status::ok) return about(packed, to_string(s));
    m->normalize(each.data(), static_cast<int>(prompts.size()), static_cast<int>(width));
    for (std::size_t j = 0; j < each.size(); j++) out[i * width + j % width] += each[j];
  }
  m->normalize(out.data(), static_cast<int>(options.labels.size()), static_cast<int>(width));
  return out;
}

/// Rewrites the file without what only the text tower reads, and without the patch embedding for normalised pixels where
/// there is one for bytes. Its embeddings stay comparable with those of the whole model: the space's id is kept.
outcome<void> drop_text(const fs::path& path) {
  result<mapped_file> mapped = mapped_file::open(path.string().c_str());
  if (!mapped) return about(path, to_string(mapped.error()));
  const result<packed_file> file = packed_file::open(mapped->bytes());
  if (!file) return about(path, to_string(file.error()));
  model_config config;
  std::memcpy(&config, file->section(format::section::config).data(), sizeof(config));
  if (config.vision.kind == vision_kind::none) return about(path, "the model has no image tower to keep");
  config.text = {};

  packed_writer out;
  if (auto opened = out.open(path); !opened) return about(path, opened.failure().what);
  const bool bytes_only = static_cast<bool>(file->tensor("vision.patch_embed_u8.weight"));
  for (int i = 0; i < file->tensor_count(); i++) {
    const tensor_view t = file->tensor(i);
    if (t.name.starts_with("text.") || (bytes_only && t.name.starts_with("vision.patch_embed."))) continue;
    if (auto done = out.add_stored(t); !done) return about(path, done.failure().what);
  }
  out.add_section(format::section::config, std::as_bytes(std::span(&config, 1)), true);
  for (const format::section kind :
       {format::section::provenance, format::section::class_names, format::section::report})
    if (!file->section(kind).empty()) out.add_section(kind, file->section(kind));
  const std::uint64_t space = file->embedding_space();
  *mapped = mapped_file();  // Windows replaces no file that is mapped
  if (auto done = out.finish(space); !done) return about(path, done.failure().what);
  return {};
}

/// A name for a namespace: what is no letter or digit becomes _.
std::string identifier(const fs::path& header) {
  std::string name = header.stem().string();
  for (char& c : name)
    if (std::isalnum(static_cast<unsigned char>(c)) == 0 || static_cast<unsigned char>(c) > 127) c = '_';
  if (name.empty() || std::isdigit(static_cast<unsigned char>(name[0])) != 0) name.insert(0, "_");
  return name;
}

/// A C++ string literal.
std::string quoted(const std::string& text) {
  std::string out = "\"";
  for (const char c : text) {
    const auto byte = static_cast<unsigned char>(c);
    char octal[8];
    std::snprintf(octal, sizeof(octal), "\\%03o", byte);
    out += byte < 0x20 || byte > 0x7e || c == '"' || c == '\\' || c == '?' ? octal : std::string(1, c);
  }
  return out + "\"";
}

/// Exact, as a hexadecimal literal.
std::string literal(float x) {
  char text[48];
  std::snprintf(text, sizeof(text), "%af", static_cast<double>(x));
  return text;
}

/// The configuration as statements `m.field = value;`, those that differ from model_config's defaults.
class config_printer {
 public:
  std::string text;

  void print(const model_config& m) {
    const model_config none;
    vision(m.vision, none.vision);
    const text_config &t = m.text, &t0 = none.text;
    at_ = "m.text.";
    set("present", t.present, t0.present);
    name("pool", t.pool, t0.pool, pooling_names);
    set("final_norm", t.final_norm, t0.final_norm);
    set("vocab", t.vocab, t0.vocab);
    set("context", t.context, t0.context);
    set("eos_id", t.eos_id, t0.eos_id);
    set("pad_id", t.pad_id, t0.pad_id);
    set("embed", t.embed, t0.embed);
    set("final_eps", t.final_eps, t0.final_eps);
    at_ = "m.text.encoder.";
    encoder(t.encoder, t0.encoder);
    const preprocess_config &p = m.preprocess, &p0 = none.preprocess;
    at_ = "m.preprocess.";
    name("resize", p.resize, p0.resize, {"ocellus::resize_mode", {"none", "shortest", "squash", "naflex"}});
    name("filter", p.filter, p0.filter, {"ocellus::resize_filter", {"bilinear", "bicubic"}});
    name("crop_offset", p.crop_offset, p0.crop_offset, {"ocellus::crop_rounding", {"round", "floor"}});
    name("order", p.order, p0.order, {"ocellus::resize_order", {"horizontal_first", "pillow13"}});
    set("size_h", p.size_h, p0.size_h);
    set("size_w", p.size_w, p0.size_w);
    set("crop_h", p.crop_h, p0.crop_h);
    set("crop_w", p.crop_w, p0.crop_w);
    set("patch", p.patch, p0.patch);
    set("max_patches", p.max_patches, p0.max_patches);
    for (int c = 0; c < 3; c++) {
      set("mean[" + std::to_string(c) + "]", p.mean[c], p0.mean[c]);
      set("std[" + std::to_string(c) + "]", p.std[c], p0.std[c]);
    }
    at_ = "m.";
    name("score", m.score, none.score, {"ocellus::score_kind", {"softmax", "sigmoid", "logits"}});
    set("apply_orientation", m.apply_orientation, none.apply_orientation);
    set("logit_scale", m.logit_scale, none.logit_scale);
    set("logit_bias", m.logit_bias, none.logit_bias);
  }

 private:
  struct names {
    const char* type;
    std::vector<const char*> values;
  };
  const names pooling_names{"ocellus::pooling",
                            {"none", "cls", "avg", "map", "attention", "argmax", "eos", "last", "first"}};
  const names activation_names{"ocellus::activation", {"none", "quick_gelu", "gelu", "gelu_tanh", "silu", "relu"}};

  void line(const std::string& field, const std::string& value) { text += "  " + at_ + field + " = " + value + ";\n"; }
  template <class T>
  void set(const std::string& field, T value, T standard) {
    if (value == standard) return;
    if constexpr (std::is_same_v<T, float>) {
      line(field, literal(value));
    } else {
      line(field, std::to_string(value));
    }
  }
  template <class T>
  void name(const std::string& field, T value, T standard, const names& n) {
    if (value != standard) line(field, std::string(n.type) + "::" + n.values.at(static_cast<std::size_t>(value)));
  }

  void encoder(const encoder_config& e, const encoder_config& e0) {
    set("width", e.width, e0.width);
    set("layers", e.layers, e0.layers);
    set("heads", e.heads, e0.heads);
    set("head_width", e.head_width, e0.head_width);
    set("mlp", e.mlp, e0.mlp);
    set("eps", e.eps, e0.eps);
    name("act", e.act, e0.act, activation_names);
    set("gated", e.gated, e0.gated);
    set("causal", e.causal, e0.causal);
    set("qk_norm", e.qk_norm, e0.qk_norm);
    set("mlp_norm", e.mlp_norm, e0.mlp_norm);
    set("attn_norm", e.attn_norm, e0.attn_norm);
    set("rope", e.rope, e0.rope);
    set("post_norm", e.post_norm, e0.post_norm);
    set("rope_theta", e.rope_theta, e0.rope_theta);
    set("rope_grid", e.rope_grid, e0.rope_grid);
    set("uneven", e.uneven, e0.uneven);
  }

  void vision(const vision_config& v, const vision_config& v0) {
    at_ = "m.vision.";
    name("kind", v.kind, v0.kind, {"ocellus::vision_kind", {"none", "vit", "resnet", "fastvit"}});
    name("pool", v.pool, v0.pool, pooling_names);
    set("class_token", v.class_token, v0.class_token);
    set("pre_norm", v.pre_norm, v0.pre_norm);
    set("norm_before_pool", v.norm_before_pool, v0.norm_before_pool);
    set("final_norm", v.final_norm, v0.final_norm);
    set("class_position", v.class_position, v0.class_position);
    name("positions", v.positions, v0.positions,
         {"ocellus::position_resize", {"none", "bilinear_antialias", "bicubic", "bicubic_antialias"}});
    set("naflex", v.naflex, v0.naflex);
    set("conv_stem", v.conv_stem, v0.conv_stem);
    set("stem_width", v.stem_width, v0.stem_width);
    set("image_h", v.image_h, v0.image_h);
    set("image_w", v.image_w, v0.image_w);
    set("patch", v.patch, v0.patch);
    set("registers", v.registers, v0.registers);
    set("grid_h", v.grid_h, v0.grid_h);
    set("grid_w", v.grid_w, v0.grid_w);
    set("embed", v.embed, v0.embed);
    set("map_heads", v.map_heads, v0.map_heads);
    set("map_mlp", v.map_mlp, v0.map_mlp);
    name("map_act", v.map_act, v0.map_act, activation_names);
    set("position_offset", v.position_offset, v0.position_offset);
    set("classes", v.classes, v0.classes);
    for (int i = 0; i < 4; i++)
      set("resnet_layers[" + std::to_string(i) + "]", v.resnet_layers[i], v0.resnet_layers[i]);
    set("resnet_width", v.resnet_width, v0.resnet_width);
    set("fifth_layers", v.fifth_layers, v0.fifth_layers);
    set("attention_stage", v.attention_stage, v0.attention_stage);
    set("squeeze", v.squeeze, v0.squeeze);
    set("final_eps", v.final_eps, v0.final_eps);
    at_ = "m.vision.encoder.";
    encoder(v.encoder, v0.encoder);
  }

  std::string at_;
};

/// The one data type of the file's matrices, by which a compile-time tower is made. Error: blocks of another type.
outcome<dtype> type_of_weights(const packed_file& file, const fs::path& path) {
  // the f32 parts of a ResNet or of MobileCLIP are no blocks: such models are opened at run time anyway
  const auto counts = [](const tensor_view& t) {
    return t.layout == format::layout::panel16 && !t.name.starts_with("vision.stem.") &&
           t.name.find("squeeze.") == std::string_view::npos;
  };
  std::optional<dtype> type;
  for (int i = 0; i < file.tensor_count(); i++)
    if (const tensor_view t = file.tensor(i); counts(t) && (!type || t.type == dtype::s8)) type = t.type;
  std::string others, last, kept;
  bool in_text = true;  // all of them
  for (int i = 0; i < file.tensor_count(); i++) {
    const tensor_view t = file.tensor(i);
    if (!counts(t) || t.type == *type) continue;
    const std::size_t blocks = t.name.find(".blocks.");
    const std::string block(t.name.substr(0, blocks == t.name.npos ? blocks : t.name.find('.', blocks + 8)));
    if (block == last) continue;
    others += (others.empty() ? "" : ", ") + printable(block);
    last = block;
    kept = to_string(t.type);
    in_text = in_text && t.name.starts_with("text.");
  }
  if (!others.empty())
    return about(path, "blocks " + others + " are kept in " + kept + ": a compile-time tower has one type (convert " +
                           (in_text ? "with --vision-only)" : "without --calibrate, or with pictures that int8 does better on)"));
  return type.value_or(dtype::f32);
}

/// The lines of the file's class names.
std::vector<std::string> class_names_of(const packed_file& file) {
  const std::span<const std::byte> section = file.section(format::section::class_names);
  std::istringstream lines(std::string(reinterpret_cast<const char*>(section.data()), section.size()));
  std::vector<std::string> names;
  for (std::string line; std::getline(lines, line);) names.push_back(line);
  return names;
}

/// What the towers take, as comments.
std::string budget(const model_config& config, dtype weights) {
  std::string text;
  const auto line = [&](const char* tower, std::size_t arena, std::size_t flash) {
    text += "// " + std::string(tower) + ": " + std::to_string(arena) + " bytes of RAM for activations (arena_size), " +
            std::to_string(flash) + " of flash for weights (flash_size).\n";
  };
  if (const vision_config& v = config.vision; v.kind == vision_kind::vit && v.conv_stem == 0)
    line("vision_tower", detail::arena_of(v, weights), detail::flash_of(v, weights));
  if (const text_config& t = config.text; t.present != 0)
    line("text_tower", detail::arena_of(t, weights), detail::flash_of(t, weights));
  return text;
}

/// The array and what goes with it, in the namespace `name`. `embeddings`: [labels, E], or nothing.
std::string header_text(const std::string& name, const model_config& config, dtype type,
                        const std::vector<std::string>& class_names, const std::vector<std::string>& label_names,
                        const std::vector<float>& embeddings, std::span<const std::byte> bytes) {
  config_printer fields;
  fields.print(config);
  std::string text = "// A model for firmware, made by " + std::string(converter_version) +
                     " --emit-header: configuration, packed file, and class names or label embeddings.\n" +
                     budget(config, type) +
                     "#pragma once\n\n#include <ocellus/models/config.hpp>\n\n#include <cstddef>\n#include <span>\n\n"
                     "namespace " + name + " {\n\n"
                     "inline constexpr ocellus::model_config config = [] {\n  ocellus::model_config m;\n" + fields.text +
                     "  return m;\n}();\n\n"
                     "/// The data type of the packed weights, for vision_tower.\n"
                     "inline constexpr ocellus::dtype weights = ocellus::dtype::" + to_string(type) + ";\n\n";
  if (!class_names.empty() && class_names.size() == static_cast<std::size_t>(config.vision.classes)) {
    text += "/// Of each logit of features().\ninline constexpr const char* class_names[] = {\n";
    for (const std::string& one : class_names) text += "  " + quoted(one) + ",\n";
    text += "};\n\n";
  }
  if (!label_names.empty()) {
    const std::size_t n = label_names.size(), width = embeddings.size() / n;
    text += "inline constexpr int label_count = " + std::to_string(n) + ";\ninline constexpr const char* labels[] = {\n";
    for (const std::string& label : label_names) text += "  " + quoted(label) + ",\n";
    text += "};\n/// Unit vectors: an image's scores are its dot products with them.\n"
            "inline constexpr float label_embeddings[" + std::to_string(n) + "][" + std::to_string(width) + "] = {\n";
    for (std::size_t i = 0; i < n; i++) {
      text += " {";
      for (std::size_t j = 0; j < width; j++)
        text += (j % 8 == 0 ? "\n  " : " ") + literal(embeddings[i * width + j]) + ",";
      text += "},\n";
    }
    text += "};\n\n";
  }
  text += "/// The packed file, for bind().\nalignas(64) inline constexpr unsigned char packed[" +
          std::to_string(bytes.size()) + "] = {";
  text.reserve(text.size() + bytes.size() * 4);
  for (std::size_t i = 0; i < bytes.size(); i++) {
    if (i % 32 == 0) text += "\n";
    text += std::to_string(static_cast<unsigned>(bytes[i]));
    text += ',';
  }
  text += "\n};\ninline std::span<const std::byte> bytes() noexcept { return std::as_bytes(std::span(packed)); }\n\n"
          "}  // namespace " + name + "\n";
  return text;
}

/// Writes a file beside `path` and renames it, so that a failure leaves what was there.
outcome<void> replace_file(const fs::path& path, const std::string& text) {
  const auto target = replaceable(path);
  if (!target) return about(path, target.failure().what);
  const fs::path temporary = target->string() + ".tmp" + std::to_string(getpid());
  std::FILE* out = create_file(temporary);
  if (out == nullptr) return about(path, std::string("cannot be written: ") + std::strerror(errno));
  bool written = std::fwrite(text.data(), 1, text.size(), out) == text.size();
  written = std::fclose(out) == 0 && written;
  std::error_code failed;
  if (written) fs::rename(temporary, *target, failed);
  if (!written || failed) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    return about(path, "cannot be written");
  }
  return {};
}

outcome<void> write_header(const fs::path& packed, const device_options& options, const std::vector<float>& labels) {
  const result<mapped_file> mapped = mapped_file::open(packed.string().c_str());
  if (!mapped) return about(packed, to_string(mapped.error()));
  const result<packed_file> file = packed_file::open(mapped->bytes());
  if (!file) return about(packed, to_string(file.error()));
  const outcome<dtype> type = type_of_weights(*file, packed);
  if (!type) return type.failure();
  model_config config;
  std::memcpy(&config, file->section(format::section::config).data(), sizeof(config));
  return replace_file(*options.header, header_text(identifier(*options.header), config, *type, class_names_of(*file),
                                                   options.labels, labels, mapped->bytes()));
}

}  // namespace

outcome<void> prepare_for_device(const fs::path& packed, const device_options& options) {
  std::vector<float> labels;
  if (!options.labels.empty()) {
    auto made = embed_labels(packed, options);
    if (!made) return made.failure();
    labels = std::move(*made);
  }
  if (options.vision_only)
    if (auto done = drop_text(packed); !done) return done;
  if (options.header) return write_header(packed, options, labels);
  return {};
}

}  // namespace ocellus::convert
