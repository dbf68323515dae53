#include "convert.hpp"

#include "checkpoint.hpp"
#include "layouts.hpp"
#include "pack.hpp"
#include "packed_writer.hpp"
#include "progress.hpp"
#include "smoothing.hpp"
#include "tokenizer.hpp"

#include <chrono>
#include <future>
#include <span>

namespace ocellus::convert {

namespace fs = std::filesystem;

namespace {

std::string file_name(const fs::path& path) {
  const fs::path name = path.filename();
  return printable((name.empty() ? path.parent_path().filename() : name).string());
}

error about(const fs::path& path, const error& why) { return {file_name(path) + ": " + why.what}; }

std::string describe(const model_config& m) {
  const vision_config& v = m.vision;
  const text_config& t = m.text;
  std::string out;
  const auto n = [](int x) { return std::to_string(x); };
  if (v.kind == vision_kind::vit)
    out = "ViT " + n(v.encoder.layers) + " x " + n(v.encoder.width) + ", patch " + n(v.patch) + " at " +
          (v.naflex != 0 ? "any size" : n(v.image_h) + (v.image_h == v.image_w ? "" : " x " + n(v.image_w)));
  if (v.kind == vision_kind::resnet)
    out = "ResNet " + n(v.resnet_layers[0]) + "-" + n(v.resnet_layers[1]) + "-" + n(v.resnet_layers[2]) + "-" +
          n(v.resnet_layers[3]) + " x " + n(v.resnet_width) + " at " + n(v.image_h);
  if (v.classes > 0) out += ", " + n(v.classes) + " classes";
  if (t.present != 0)
    out += (out.empty() ? "text " : "; text ") + n(t.encoder.layers) + " x " + n(t.encoder.width) + ", context " +
           n(t.context);
  return out;
}

nlohmann::json provenance(const convert_options& options, const checkpoint& file, const model_source& model,
                          const std::string& digest, const std::string& tokenizer) {
  nlohmann::json j;
  j["converter"] = converter_version;
  j["layout"] = model.layout;
  j["container"] = to_string(file.kind());
  for (const fs::path& path : file.files()) j["files"].push_back(file_name(path));
  j["sha256"] = digest;
  j["dtype"] = ocellus::to_string(options.type);
  if (!tokenizer.empty()) j["tokenizer"] = tokenizer;
  if (!options.licence.empty()) j["licence"] = options.licence;
  nlohmann::json& switches = j["switches"] = nlohmann::json::array();
  for (const config_switch& s : model.switches)
    switches.push_back({{"name", s.name}, {"value", s.value}, {"origin", s.origin}});
  j["notes"] = model.notes;
  for (const std::string& note : file.notes()) j["notes"].push_back(note);
  for (const auto& [key, value] : file.metadata())
    if (j["metadata"].size() < 64) j["metadata"][printable(key)] = printable(value, 200);
  return j;
}

std::span<const std::byte> bytes_of(const std::string& text) { return std::as_bytes(std::span(text)); }

/// Builds the tokenizer section, or says why there is none.
outcome<std::vector<std::byte>> find_tokenizer(const convert_options& options, const fs::path& folder,
                                               model_source& model, std::string& name) {
  if (model.config.text.present == 0 || options.tokenizer == fs::path("none")) return std::vector<std::byte>{};
  fs::path from = options.tokenizer.value_or(folder);
  if (!options.tokenizer && !has_tokenizer(folder)) {
    model.notes.push_back("no tokenizer: texts can only be given as ids; add one by --tokenizer");
    return std::vector<std::byte>{};
  }
  auto blob = build_tokenizer(from, model.tokenizer);
  const auto header = [&] { return tokenizer_blob::open(*blob); };
  if (blob && model.tokenizer.style == text_style::siglip_openclip && header() &&
      header()->header().kind == static_cast<std::uint32_t>(tokenizer_kind::spm_bpe)) {
    model.tokenizer.style = text_style::siglip2_openclip;  // the configuration says open_clip, the vocabulary Gemma
    blob = build_tokenizer(from, model.tokenizer);
  }
  if (!blob)
    return error{"tokenizer " + file_name(from) + ": " + blob.failure().what +
                 (options.tokenizer ? "" : " (--tokenizer none converts without it)")};
  if (const auto opened = header(); opened) {
    name = to_string(static_cast<text_style>(opened->header().style));
    model.config.text.pad_id = opened->header().pad;
  }
  return blob;
}

}  // namespace

outcome<convert_summary> convert(const convert_options& options) {
  const auto start = std::chrono::steady_clock::now();
  std::error_code ignored;
  const fs::path folder = fs::is_directory(options.source, ignored) ? options.source : options.source.parent_path();
  if (fs::equivalent(options.source, options.output, ignored))
    return about(options.output, {"is the source; write to another file"});

  auto file = checkpoint::open(options.source);
  if (!file) return about(options.source, file.failure());
  auto model = read_model(*file, {folder.empty() ? fs::path(".") : folder, options.config});
  if (!model) return about(options.source, model.failure());

  std::string tokenizer_name;
  auto tokenizer = find_tokenizer(options, folder.empty() ? fs::path(".") : folder, *model, tokenizer_name);
  if (!tokenizer) return tokenizer.failure();

  if (options.type == ocellus::dtype::s8)
    if (auto done = smooth(*model, {}); !done) return about(options.source, done.failure());

  packed_writer out;
  if (auto opened = out.open(options.output); !opened) return about(options.output, opened.failure());
  // Hashing reads the source a second time, beside the packing.
  auto hashing = std::async(std::launch::async, [copy = *file] { return copy.sha256(); });
  std::uint64_t total = 0;
  for (const planned_tensor& t : model->tensors) {
    std::uint64_t elements = sizeof(float);
    for (const std::uint32_t d : t.shape) elements *= d;
    total += elements;
  }
  progress bar(total, options.show_progress && ::isatty(STDERR_FILENO) == 1);
  auto packed = pack(*model, {options.type}, out, bar);
  auto digest = hashing.get();
  bar.finish();
  if (!packed) return about(options.source, packed.failure());
  if (!digest) return about(options.source, digest.failure());

  out.add_section(format::section::config, std::as_bytes(std::span(&model->config, 1)), true);
  if (!tokenizer->empty()) out.add_section(format::section::tokenizer, *tokenizer);
  out.add_section(format::section::provenance,
                  bytes_of(provenance(options, *file, *model, *digest, tokenizer_name)
                               .dump(1, ' ', true, nlohmann::json::error_handler_t::replace)));
  if (!model->class_names.empty()) {
    std::string lines;
    for (const std::string& name : model->class_names) lines += name + "\n";
    out.add_section(format::section::class_names, bytes_of(lines));
  }
  // Embeddings may be compared if weights and towers are the same, in whatever data type the weights are stored.
  format::checksum space;
  space.add(reinterpret_cast<const unsigned char*>(&model->config.vision), sizeof(vision_config));
  space.add(reinterpret_cast<const unsigned char*>(&model->config.text), sizeof(text_config));
  if (auto done = out.finish((space.state ^ packed->fingerprint) | 1); !done)
    return about(options.output, done.failure());

  convert_summary s;
  s.layout = model->layout;
  s.container = to_string(file->kind());
  s.towers = describe(model->config);
  for (const auto& [type, count] : packed->type_counts)
    s.types += (s.types.empty() ? "" : ", ") + std::to_string(count) + " " + type;
  s.tokenizer = tokenizer_name.empty() ? "none" : tokenizer_name;
  s.bytes = out.bytes();
  s.source_bytes = file->bytes();
  s.seconds = std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  s.notes = file->notes();
  s.notes.insert(s.notes.end(), model->notes.begin(), model->notes.end());
  return s;
}

}  // namespace ocellus::convert
