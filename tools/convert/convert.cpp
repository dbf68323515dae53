#include "convert.hpp"

#include "calibration.hpp"
#include "checkpoint.hpp"
#include "layouts.hpp"
#include "pack.hpp"
#include "packed_writer.hpp"
#include "progress.hpp"
#include "rounding.hpp"
#include "smoothing.hpp"
#include "tokenizer.hpp"

#include <algorithm>
#include <chrono>
#include <cstdio>
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
  if (v.kind == vision_kind::fastvit) {
    out = "FastViT ";
    for (int s = 0; s < stages_of(v); s++) out += (s == 0 ? "" : "-") + n(stage_layers(v, s));
    out += " x " + n(v.resnet_width) + " at " + n(v.image_h) + (v.image_h == v.image_w ? "" : " x " + n(v.image_w));
  }
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

outcome<pack_result> write_tensors(const model_source& model, const pack_options& packing, packed_writer& out,
                                   bool show) {
  std::uint64_t total = 0;
  for (const planned_tensor& t : model.tensors) {
    std::uint64_t elements = sizeof(float);
    for (const std::uint32_t d : t.shape) elements *= d;
    total += elements;
  }
  progress bar(total, show);
  auto packed = pack(model, packing, out, bar);
  bar.finish();
  return packed;
}

void add_sections(const model_source& model, const std::vector<std::byte>& tokenizer, packed_writer& out) {
  out.add_section(format::section::config, std::as_bytes(std::span(&model.config, 1)), true);
  if (!tokenizer.empty()) out.add_section(format::section::tokenizer, tokenizer);
  if (model.class_names.empty()) return;
  std::string lines;
  for (const std::string& name : model.class_names) lines += name + "\n";
  out.add_section(format::section::class_names, bytes_of(lines));
}

/// Embeddings may be compared if weights and towers are the same, in whatever data type the weights are stored.
std::uint64_t space_of(const model_source& model, const pack_result& packed) {
  format::checksum space;
  space.add(reinterpret_cast<const unsigned char*>(&model.config.vision), sizeof(vision_config));
  space.add(reinterpret_cast<const unsigned char*>(&model.config.text), sizeof(text_config));
  return (space.state ^ packed.fingerprint) | 1;
}

/// What was found out before an int8 file is written.
struct int8_result {
  std::vector<std::string> keep_f16;
  nlohmann::json report;
  std::vector<std::string> lines;
};

/// An embedding of the user's own that falls below this cosine to 16-bit weights gives blocks their 16 bits back.
constexpr double enough_cos = 0.99;
constexpr std::size_t most_kept = 6;  ///< blocks: of a model that needs more, int8 is the wrong type

/// A file that nobody keeps, complete but for its provenance.
outcome<pack_result> write_trial(const convert_options& options, const model_source& model,
                                 const std::vector<std::byte>& tokenizer, const pack_options& packing, bool show,
                                 packed_writer& out) {
  if (auto opened = out.open(options.output); !opened) return opened.failure();
  auto packed = write_tensors(model, packing, out, show);
  if (!packed) return packed;
  add_sections(model, tokenizer, out);
  if (auto done = out.complete(space_of(model, *packed)); !done) return done.failure();
  return packed;
}

/// Smooths the plan and rounds its matrices for what they see of the inputs in the packed file `reference`.
outcome<void> smooth_and_round(model_source& model, const fs::path& reference, const calibration_inputs& inputs,
                               bool show) {
  std::uint64_t pixels = 0, weights = 0;
  for (const image& picture : inputs.pictures)
    pixels += static_cast<std::uint64_t>(picture.width()) * static_cast<std::uint64_t>(picture.height()) * 3;
  progress observing(pixels, show);
  auto seen = observe_inputs(reference, inputs, observing);
  observing.finish();
  if (!seen) return seen.failure();
  if (auto done = smooth(model, *seen); !done) return done;
  for (planned_tensor& t : model.tensors) {
    if (t.name == "vision.patch_embed.weight")
      t.columns = raw_pixel_columns(model.config.preprocess, static_cast<int>(t.shape[1]));
    if (seen->count(t.name) != 0) weights += std::uint64_t{4} * t.shape[0] * t.shape[1];
  }
  progress rounding(weights, show);
  const auto wanted = [](const planned_tensor& t) {
    return t.kind == storage::matrix && choose_type(t, {ocellus::dtype::s8}) == ocellus::dtype::s8;
  };
  // measured on trained models: drawn pictures and prompts are further from what will come than photos are; but the
  // pixels themselves have the spectrum of photos
  const auto damp = [&](const std::string& name) {
    if (name == "vision.patch_embed.weight") return 0.003;
    return inputs.own && name.starts_with("vision.") ? 0.3 : 1.0;
  };
  if (auto done = round_for_inputs(model, *seen, wanted, damp, rounding); !done) return done;
  rounding.finish();
  return {};
}

/// How the names of block `l` of a tower begin. Towers of stages count blocks through all of them.
std::string block_name(const vision_config& v, const std::string& tower, int l) {
  if (tower != "vision" || v.kind == vision_kind::vit) return tower + ".blocks." + std::to_string(l) + ".";
  int stage = 0;
  for (; stage + 1 < stages_of(v) && l >= stage_layers(v, stage); stage++) l -= stage_layers(v, stage);
  return "vision.stages." + std::to_string(stage) + (v.kind == vision_kind::resnet ? "." : ".blocks.") +
         std::to_string(l) + ".";
}

/// The s8 block that adds most to the error of a tower with too low a cosine, as its tensors' names begin; or nothing.
std::string worst_block(const vision_config& v, const fidelity& found, const std::vector<std::string>& keep_f16) {
  std::string worst;
  double most = 0;
  for (const auto& [name, tower] : {std::pair{"vision", &found.image}, {"text", &found.text}}) {
    if (tower->worst_cos >= enough_cos) continue;
    for (std::size_t l = 0; l < tower->block_error.size(); l++) {
      const double added = tower->block_error[l] - (l == 0 ? 0 : tower->block_error[l - 1]);
      const std::string block = block_name(v, name, static_cast<int>(l));
      if (!(added > most) || std::find(keep_f16.begin(), keep_f16.end(), block) != keep_f16.end()) continue;
      most = added;
      worst = block;
    }
  }
  return worst;
}

std::string with_digits(double x, int digits) {
  char buffer[32];
  std::snprintf(buffer, sizeof(buffer), "%.*f", digits, x);
  return buffer;
}

/// Tells what the chosen weights cost, for the file and for people.
void add_report(int8_result& r, const pack_result& packed, const fidelity& found, const calibration_inputs& inputs) {
  r.report = {{"inputs", inputs.description}, {"kept_f16", r.keep_f16}};
  for (const auto& [kind, e] : packed.weight_error) {
    r.report["weight_error"][kind] = e;
    r.lines.push_back(kind + ": weights off by " + with_digits(100 * e, 2) + " %");
  }
  for (const auto& [name, tower] : {std::pair{"image", &found.image}, {"text", &found.text}}) {
    if (tower->items == 0) continue;
    r.report[name] = {{"items", tower->items},
                      {"mean_cos", tower->mean_cos},
                      {"worst_cos", tower->worst_cos},
                      {"error_after_block", tower->block_error}};
    std::string line = std::string(name) + ": cos to 16-bit weights: mean " + with_digits(tower->mean_cos, 5) +
                       ", worst " + with_digits(tower->worst_cos, 5) + " (" + std::to_string(tower->items) +
                       " inputs); error after each block, %:";
    for (const double e : tower->block_error) line += " " + with_digits(100 * e, 1);
    r.lines.push_back(line);
  }
  for (const std::string& block : r.keep_f16) r.lines.push_back(block + "*: kept in f16");
  r.lines.push_back("measured on " + inputs.description);
}

/// Smooths the plan and rounds its matrices for their inputs, tries it as int8 against 16-bit weights on pictures and
/// prompts, and gives blocks that lose too much back their 16 bits (with --calibrate only: the built-in pictures are
/// not what anybody asks of a model).
outcome<int8_result> prepare_int8(const convert_options& options, model_source& model,
                                  const std::vector<std::byte>& tokenizer, bool show) {
  auto made = options.calibrate ? read_calibration(*options.calibrate, model.config.preprocess)
                                : built_in_inputs(model.config.preprocess);
  if (!made) return made.failure();
  const calibration_inputs inputs = std::move(*made);
  const auto write = [&](const pack_options& packing, packed_writer& out) {
    return write_trial(options, model, tokenizer, packing, show, out);
  };
  // the reference: 16-bit weights, or 32 where a weight is too large for f16
  std::optional<packed_writer> reference;
  if (reference.emplace(); !write({ocellus::dtype::f16, {}, false}, *reference)) {
    reference.emplace();
    if (auto done = write({ocellus::dtype::f32, {}, false}, *reference); !done) return done.failure();
  }
  if (auto done = smooth_and_round(model, reference->temporary(), inputs, show); !done) return done.failure();

  int8_result r;
  outcome<fidelity> found = fidelity{};
  outcome<pack_result> packed = pack_result{};
  for (;;) {  // the last thing to happen is a measurement: the report is about the file
    packed_writer candidate;
    packed = write({ocellus::dtype::s8, r.keep_f16}, candidate);
    if (!packed) return packed.failure();
    found = compare_models(reference->temporary(), candidate.temporary(), inputs);
    if (!found) return found.failure();
    if (!inputs.own || found->worst() >= enough_cos || r.keep_f16.size() == most_kept) break;
    const std::string worst = worst_block(model.config.vision, *found, r.keep_f16);
    if (worst.empty()) break;
    r.keep_f16.push_back(worst);
  }
  add_report(r, *packed, *found, inputs);
  return r;
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

  // Hashing reads the source a second time, beside the packing.
  auto hashing = std::async(std::launch::async, [copy = *file] { return copy.sha256(); });
  const bool show = options.show_progress && ::isatty(STDERR_FILENO) == 1;
  outcome<int8_result> made = options.type == ocellus::dtype::s8 ? prepare_int8(options, *model, *tokenizer, show)
                                                                  : outcome<int8_result>(int8_result{});
  auto digest = hashing.get();
  if (!made) return about(options.source, made.failure());
  if (!digest) return about(options.source, digest.failure());

  packed_writer out;
  if (auto opened = out.open(options.output); !opened) return about(options.output, opened.failure());
  const pack_options packing = {options.type, made->keep_f16};
  outcome<pack_result> packed = write_tensors(*model, packing, out, show);
  if (!packed) return about(options.source, packed.failure());
  add_sections(*model, *tokenizer, out);
  out.add_section(format::section::provenance,
                  bytes_of(provenance(options, *file, *model, *digest, tokenizer_name)
                               .dump(1, ' ', true, nlohmann::json::error_handler_t::replace)));
  if (!made->report.is_null())
    out.add_section(format::section::report, bytes_of(made->report.dump(1, ' ', true)));
  if (auto done = out.finish(space_of(*model, *packed)); !done) return about(options.output, done.failure());

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
  s.report = made->lines;
  s.notes = file->notes();
  s.notes.insert(s.notes.end(), model->notes.begin(), model->notes.end());
  return s;
}

}  // namespace ocellus::convert
