#include "layouts.hpp"

#include <algorithm>

namespace ocellus::convert {

namespace fs = std::filesystem;

namespace {

struct config_file {
  nlohmann::json content;
  std::string name;
};

std::string name_of(const fs::path& path) { return printable(path.filename().string()); }

/// The configuration given by --config, else the first of `names` in the folder; none of them is no mistake.
outcome<std::optional<config_file>> find_config(const source_files& files,
                                                std::initializer_list<const char*> names) {
  fs::path path = files.config.value_or(fs::path());
  if (!files.config) {
    std::error_code ignored;
    for (const char* name : names)
      if (path.empty() && fs::is_regular_file(files.folder / name, ignored)) path = files.folder / name;
    if (path.empty()) return std::optional<config_file>();
  }
  auto content = read_json(path);
  if (!content) return error{name_of(path) + ": " + content.failure().what};
  return std::optional<config_file>({std::move(*content), name_of(path)});
}

/// Which of the known kinds a configuration is, by its fields.
enum class config_kind { unknown, open_clip, hugging_face, timm };
config_kind kind_of(const nlohmann::json& j) {
  if (j.contains("model_cfg") || (j.contains("embed_dim") && (j.contains("vision_cfg") || j.contains("text_cfg"))))
    return config_kind::open_clip;
  if (j.contains("model_type")) return config_kind::hugging_face;
  if (j.contains("architecture")) return config_kind::timm;
  return config_kind::unknown;
}

}  // namespace

std::string printable_utf8(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return text;
}

outcome<model_source> read_model(const checkpoint& file, const source_files& files) {
  const auto has = [&](std::string_view name) { return file.find(name) != nullptr; };
  const auto has_prefix = [&](std::string_view prefix) {
    return std::any_of(file.tensors().begin(), file.tensors().end(),
                       [&](const tensor_info& t) { return t.name.starts_with(prefix); });
  };
  if (file.tensors().empty()) return error{"no tensors"};

  const bool custom_text =
      has("text.token_embedding.weight") || has("text.positional_embedding") || has_prefix("visual.trunk.");
  const bool openai_names = has_prefix("visual.") || has("token_embedding.weight");
  const bool hf_towers = has_prefix("vision_model.") || has_prefix("text_model.") ||
                         has_prefix("embeddings.patch_embedding.") || has_prefix("embeddings.token_embedding.");
  const bool hf_vit = has_prefix("embeddings.patch_embeddings.") || has_prefix("vit.embeddings.") ||
                      has_prefix("dinov2.embeddings.") || has_prefix("dinov2_with_registers.embeddings.");
  const bool timm_names = has("patch_embed.proj.weight") || has("patch_embed.backbone.0.conv.weight");
  const bool big_vision = has_prefix("params/img/") || has_prefix("img/") || has_prefix("params/txt/");

  if (custom_text || openai_names) {
    auto config = find_config(files, {"open_clip_config.json"});
    if (!config) return config.failure();
    if (*config) {
      if (kind_of((*config)->content) != config_kind::open_clip && files.config)
        return error{(*config)->name +
                     ": not an open_clip configuration, which this checkpoint's names ask for"};
      return read_open_clip(file, (*config)->content, (*config)->name);
    }
    if (has("_logit_scale.logit_scale"))
      return error{"the names are TinyCLIP's, but its model configuration is missing: give it by --config"};
    if (custom_text)
      return error{"the names are open_clip's, but open_clip_config.json is missing: give it by --config"};
    // The names are those of OpenAI's files, too, but not the activation.
    for (const fs::path& path : file.files())
      if (path.filename().string().starts_with("open_clip_"))
        return error{"open_clip_config.json is missing, which tells activation and heads: give it by --config"};
    return read_openai(file);
  }
  if (hf_towers || hf_vit) {
    auto config = find_config(files, {"config.json"});
    if (!config) return config.failure();
    if (!*config)
      return error{"the names are those of transformers, but config.json is missing: give it by --config"};
    std::optional<config_file> pre;
    std::error_code ignored;
    for (const char* name : {"preprocessor_config.json", "processor_config.json"}) {
      if (pre || !fs::is_regular_file(files.folder / name, ignored)) continue;
      auto content = read_json(files.folder / name);
      if (!content) return error{std::string(name) + ": " + content.failure().what};
      if (const auto part = content->find("image_processor");
          content->is_object() && part != content->end() && part->is_object())
        content = nlohmann::json(*part);
      else if (std::string_view(name) == "processor_config.json")
        continue;
      pre = config_file{std::move(*content), name};
    }
    return read_hugging_face(file, (*config)->content, (*config)->name, pre ? &pre->content : nullptr,
                             pre ? pre->name : "");
  }
  if (timm_names) {
    auto config = find_config(files, {"config.json"});
    if (!config) return config.failure();
    if (*config) return read_timm(file, (*config)->content, (*config)->name);
    return read_dinov2(file);
  }
  if (big_vision) return read_big_vision(file);
  return error{
      "not a model that ocellus knows: none of the names of OpenAI's CLIP, open_clip, transformers, timm or "
      "big_vision among its " +
      std::to_string(file.tensors().size()) + " tensors"};
}

}  // namespace ocellus::convert
