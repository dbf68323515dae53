#include "layouts.hpp"

#include <algorithm>
#include <cmath>

namespace ocellus::convert {

using namespace ocellus;

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
  const bool timm_names = has("patch_embed.proj.weight") || has("patch_embed.backbone.0.conv.weight") ||
                          has_prefix("stem.0.conv_kxk.") || has_prefix("stem.0.reparam_conv.");
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

int square_side(plan& p, std::int64_t rows, const std::string& what) {
  if (rows < 1 || rows > (1 << 20)) {
    p.fail(what + " has no rows for patches");
    return 1;
  }
  const int side = static_cast<int>(std::lround(std::sqrt(static_cast<double>(rows))));
  if (static_cast<std::int64_t>(side) * side != rows)
    p.fail(what + " has " + std::to_string(rows) + " rows for patches, which make no square grid");
  return side;
}

void set_image(vision_config& v, int height, int width, int patch) {
  v.patch = patch;
  v.image_h = height;
  v.image_w = width;
  v.grid_h = height / patch;
  v.grid_w = width / patch;
}

void read_logit_scale(plan& p, const std::string& scale, const std::string& bias) {
  const double log_scale = p.scalar(scale);
  // exp(7) is 1097: trained scales are clamped at 100 (ln 100 = 4.6); beyond 20 the softmax has lost its
  // meaning.
  if (!(log_scale > -20 && log_scale < 20))
    p.fail("tensor " + printable(scale) + " is " + std::to_string(log_scale) +
           ", which is no logarithm of a scale");
  p.config().logit_scale = static_cast<float>(std::exp(log_scale));
  p.note_switch("logit_scale", std::to_string(p.config().logit_scale), "exp of tensor " + scale);
  if (p.has(bias)) {
    p.config().logit_bias = static_cast<float>(p.scalar(bias));
    p.note_switch("logit_bias", std::to_string(p.config().logit_bias), "tensor " + bias);
  }
}

std::string printable_utf8(std::string text) {
  std::replace_if(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x20; }, ' ');
  return text;
}

void add_patch_embed(plan& p, const std::string& source, bool bias) {
  const vision_config& v = p.config().vision;
  const std::int64_t width = v.encoder.width, patch = v.patch;
  p.matrix("vision.patch_embed.weight", {width, patch * patch * 3},
           piece{source + ".weight", {width, 3, patch, patch}}.convolution());
  if (bias) p.exact("vision.patch_embed.bias", {width}, piece{source + ".bias", {width}});
}

void add_batch_normed(plan& p, const std::string& to, const std::string& conv, const std::string& norm,
                      std::int64_t n, std::int64_t channels, std::int64_t side) {
  // y = gain * (conv(x) - mean) / sqrt(var + eps) + bias, so the weights of each output take the factor
  // gain / sqrt(var + eps) and what is left is a bias. eps is 1e-5 wherever this is used.
  const piece gain{norm + ".weight", {n}}, bias{norm + ".bias", {n}}, mean{norm + ".running_mean", {n}},
      variance{norm + ".running_var", {n}};
  const auto factor = [](float g, float v) {
    return static_cast<double>(g) / std::sqrt(static_cast<double>(v) + 1e-5);
  };
  p.computed(to + ".weight", storage::matrix, {n, side * side * channels},
             {piece{conv + ".weight", {n, channels, side, side}}.convolution(), gain, variance},
             [factor](const std::vector<std::vector<float>>& in, std::vector<float>& w) {
               const std::size_t rows = in[1].size(), k = w.size() / rows;
               for (std::size_t i = 0; i < w.size(); i++)
                 w[i] =
                     static_cast<float>(static_cast<double>(in[0][i]) * factor(in[1][i / k], in[2][i / k]));
             });
  p.computed(to + ".bias", storage::exact, {n}, {gain, bias, mean, variance},
             [factor](const std::vector<std::vector<float>>& in, std::vector<float>& b) {
               for (std::size_t i = 0; i < b.size(); i++)
                 b[i] = static_cast<float>(static_cast<double>(in[1][i]) -
                                           static_cast<double>(in[2][i]) * factor(in[0][i], in[3][i]));
             });
}

void add_map_queries(plan& p, const piece& q, const piece& q_bias, const piece& probe, const piece& k,
                     const piece& k_bias) {
  const std::int64_t width = p.config().vision.encoder.width, heads = p.config().vision.map_heads;
  if (heads < 1 || width % heads != 0)
    return p.fail("tensor " + probe.name + ": its width " + std::to_string(width) +
                  " is no multiple of the MAP head's " + std::to_string(heads) + " heads");
  p.computed("vision.map.queries", storage::exact, {heads, width}, {q, q_bias, probe, k, k_bias},
             [heads](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
               const std::size_t n = in[1].size(), d = n / static_cast<std::size_t>(heads);
               std::vector<double> sums(out.size());
               for (std::size_t i = 0; i < n; i++) {
                 double query = static_cast<double>(in[1][i]);
                 for (std::size_t j = 0; j < n; j++)
                   query += static_cast<double>(in[0][i * n + j]) * static_cast<double>(in[2][j]);
                 for (std::size_t j = 0; j < n; j++)
                   sums[i / d * n + j] += query * static_cast<double>(in[3][i * n + j]);
                 sums[i / d * n] += 0 * static_cast<double>(in[4][i]);  // NaN and infinity come through
               }
               for (std::size_t i = 0; i < out.size(); i++) out[i] = static_cast<float>(sums[i]);
             });
}

}  // namespace ocellus::convert
