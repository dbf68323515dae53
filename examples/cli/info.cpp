// ocellus info: what a packed model is, every switch with its value and where that came from, and whether the
// file is whole.
#include "program.hpp"

#include <nlohmann/json.hpp>

#include <cstdio>
#include <map>

namespace cli {

using namespace ocellus;
using json = nlohmann::json;

namespace {

struct options {
  std::string model;
  bool as_json = false, verify = false;
};

json section_json(const packed_file& file, format::section kind) {
  const std::span<const std::byte> bytes = file.section(kind);
  if (bytes.empty()) return nullptr;
  const auto shallow = [](int depth, json::parse_event_t, json&) { return depth < 32; };
  const char* text = reinterpret_cast<const char*>(bytes.data());
  json j = json::parse(text, text + bytes.size(), shallow, false);
  return j.is_discarded() ? json(nullptr) : j;
}

std::string hex(std::uint64_t x) {
  char text[20];
  std::snprintf(text, sizeof(text), "%016llx", static_cast<unsigned long long>(x));
  return text;
}

std::string text_of(const json& j) {
  return j.is_string() ? j.get<std::string>() : j.dump(-1, ' ', false, json::error_handler_t::replace);
}

const char* kind_of(const vision_config& v) {
  return v.kind == vision_kind::resnet ? "resnet" : v.kind == vision_kind::fastvit ? "fastvit" : "vit";
}

void info(const options& o) {
  compute_options none;
  const model m = open_model(o.model, none);
  const packed_file& file = m.file();
  if (o.verify) {
    const status s = file.verify();
    if (s != status::ok) fail(o.model, s);
  }
  const model_config& c = m.config();
  json j;
  j["file"] = o.model;
  j["format"] = std::to_string(file.header().major) + "." + std::to_string(file.header().minor);
  j["bytes"] = file.header().file_bytes;
  j["embedding_space"] = hex(file.embedding_space());
  j["embed"] = m.embed();
  j["image_tower"] = !m.has_vision() ? json(nullptr)
                                     : json{{"kind", kind_of(c.vision)},
                                            {"image", {c.vision.image_h, c.vision.image_w}},
                                            {"patch", c.vision.patch},
                                            {"width", c.vision.encoder.width},
                                            {"layers", c.vision.encoder.layers},
                                            {"heads", c.vision.encoder.heads},
                                            {"embed", c.vision.embed},
                                            {"classes", c.vision.classes}};
  j["text_tower"] = !m.has_text() ? json(nullptr)
                                  : json{{"context", c.text.context},
                                         {"vocab", c.text.vocab},
                                         {"width", c.text.encoder.width},
                                         {"layers", c.text.encoder.layers},
                                         {"heads", c.text.encoder.heads},
                                         {"embed", c.text.embed}};
  j["tokenizer"] = m.tokenizer() == nullptr ? json(nullptr) : json(to_string(m.tokenizer()->style()));
  j["logit_scale"] = c.logit_scale;
  j["logit_bias"] = c.logit_bias;
  std::map<std::string, std::uint64_t> by_type;
  std::uint64_t parameters = 0;
  for (int i = 0; i < file.tensor_count(); i++) {
    const tensor_view t = file.tensor(i);
    by_type[to_string(t.type)] += t.bytes;
    if (t.name.ends_with(".attn.keys_t.weight")) continue;  // a part of attn.qkv, a second time
    std::uint64_t n = 1;
    for (int d = 0; d < t.rank; d++) n *= static_cast<std::uint64_t>(t.shape[d]);
    // a 3 x 3 convolution that the converter transformed: sixteen numbers of nine (its bias is of the outputs)
    if (c.vision.kind == vision_kind::resnet && t.name.ends_with(".weight") && t.layout == format::layout::panel16) {
      const result<tensor_view> bias = file.tensor(std::string(t.name.substr(0, t.name.size() - 6)) + "bias");
      if (bias && t.shape[0] == 16 * bias->shape[0]) n = n / 16 * 9;
    }
    parameters += n;
  }
  j["tensors"] = file.tensor_count();
  j["parameters"] = parameters;
  j["bytes_by_type"] = by_type;
  if (o.verify) j["verified"] = true;
  const json provenance = section_json(file, format::section::provenance);
  if (provenance.is_object()) {
    j["switches"] = provenance.value("switches", json::array());
    json rest = provenance;
    rest.erase("switches");
    j["provenance"] = rest;
  }
  const json report = section_json(file, format::section::report);
  if (!report.is_null()) j["report"] = report;
  if (o.as_json) {
    std::printf("%s\n", j.dump(2, ' ', false, json::error_handler_t::replace).c_str());
    return;
  }

  std::printf("%s: %.1f MB, format %s, %d tensors, %.1f M parameters, embedding space %s\n", o.model.c_str(),
              static_cast<double>(file.header().file_bytes) / 1e6, text_of(j["format"]).c_str(),
              file.tensor_count(), static_cast<double>(parameters) / 1e6,
              hex(file.embedding_space()).c_str());
  std::printf("weights:");
  for (const auto& [type, bytes] : by_type)
    std::printf("  %s %.1f MB", type.c_str(), static_cast<double>(bytes) / 1e6);
  std::printf("\n");
  if (m.has_vision())
    std::printf("image tower: %s, %d x %d pixels, patch %d, width %d, %d layers, %d heads -> %d\n",
                c.vision.kind == vision_kind::resnet    ? "ResNet"
                : c.vision.kind == vision_kind::fastvit ? "FastViT"
                                                        : "ViT",
                c.vision.image_w, c.vision.image_h,
                c.vision.patch, c.vision.encoder.width, c.vision.encoder.layers, c.vision.encoder.heads,
                c.vision.embed);
  if (m.has_text())
    std::printf("text tower: %d tokens of %d, width %d, %d layers, %d heads -> %d; tokenizer: %s\n",
                c.text.context, c.text.vocab, c.text.encoder.width, c.text.encoder.layers,
                c.text.encoder.heads, c.text.embed,
                m.tokenizer() == nullptr ? "none" : to_string(m.tokenizer()->style()));
  if (provenance.is_object()) {
    for (const auto& [key, value] : provenance.items())
      if (key != "switches" && !value.empty()) std::printf("%s: %s\n", key.c_str(), text_of(value).c_str());
    std::printf("\n%-34s %-26s %s\n", "switch", "value", "from");
    for (const json& s : provenance.value("switches", json::array()))
      if (s.is_object())
        std::printf("%-34s %-26s %s\n", text_of(s.value("name", json())).c_str(),
                    text_of(s.value("value", json())).c_str(), text_of(s.value("origin", json())).c_str());
  }
  if (report.is_object())
    std::printf("\nquantisation report: %s\n",
                report.dump(2, ' ', false, json::error_handler_t::replace).c_str());
  if (o.verify) std::printf("\nall checksums match\n");
}

}  // namespace

void add_info(CLI::App& app) {
  CLI::App* c =
      app.add_subcommand("info", "What a packed model is: towers, switches and where each came from, sizes");
  const auto o = std::make_shared<options>();
  c->add_option("model", o->model, "The packed model (.oc)")->required();
  c->add_flag("--json", o->as_json, "Machine-readable");
  c->add_flag("--verify", o->verify, "Read the whole file and check every checksum");
  c->callback([o] { info(*o); });
}

}  // namespace cli
