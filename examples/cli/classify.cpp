// ocellus classify: which of these labels fits the picture? Zero-shot with any labels, or with the classes of
// a trained head.
#include "program.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cstdio>
#include <numeric>
#include <string_view>

namespace cli {

using namespace ocellus;

namespace {

struct options : compute_options {
  std::string model, images_file, labels, labels_file, templates_file;
  std::vector<std::string> images, templates;
  int top = 5;
  bool json = false, upright = false;
};

std::vector<std::string> split_labels(const std::string& list) {
  std::vector<std::string> labels;
  std::string::size_type begin = 0;
  while (begin <= list.size()) {
    const auto end = std::min(list.find(',', begin), list.size());
    const auto first = list.find_first_not_of(' ', begin);
    if (first < end) labels.push_back(list.substr(first, list.find_last_not_of(' ', end - 1) - first + 1));
    begin = end + 1;
  }
  return labels;
}

std::string fill(const std::string& pattern, const std::string& label) {
  std::string text;
  std::size_t from = 0;
  for (std::size_t at; (at = pattern.find("{}", from)) != std::string::npos; from = at + 2)
    text += pattern.substr(from, at - from) + label;
  return text + pattern.substr(from);
}

/// One unit vector per label: the normalised mean of the unit vectors of its prompts (CLIP's prompt
/// ensembling).
std::vector<float> label_embeddings(const model& m, const std::vector<std::string>& labels, options& o) {
  const auto width = static_cast<std::size_t>(m.text_embed());
  const std::size_t t = o.templates.size();
  std::vector<float> e(labels.size() * width, 0.f);
  const std::size_t chunk = std::max<std::size_t>(1, 8192 / t);
  workspace work;
  counter progress("prompts", labels.size() * t);
  for (std::size_t i = 0; i < labels.size(); i += chunk) {
    const std::size_t n = std::min(chunk, labels.size() - i);
    std::vector<std::string> prompts;
    for (std::size_t j = i; j < i + n; j++)
      for (const std::string& pattern : o.templates) prompts.push_back(fill(pattern, labels[j]));
    const std::vector<std::string_view> views(prompts.begin(), prompts.end());
    std::vector<float> all(prompts.size() * width);
    const status s = m.encode_texts(views, all.data(), work, o.executor());
    if (s != status::ok) fail(o.model, s);
    m.normalize(all.data(), static_cast<int>(prompts.size()), static_cast<int>(width));
    for (std::size_t j = 0; j < n; j++)
      for (std::size_t k = 0; k < t; k++)
        for (std::size_t c = 0; c < width; c++) e[(i + j) * width + c] += all[(j * t + k) * width + c];
    progress.at((i + n) * t);
  }
  m.normalize(e.data(), static_cast<int>(labels.size()), static_cast<int>(width));
  return e;
}

std::string bar(float p) {
  constexpr int cells = 24;
  static const char* const eighths[] = {"",       "\u258f", "\u258e", "\u258d",
                                        "\u258c", "\u258b", "\u258a", "\u2589"};
  const int n = static_cast<int>(std::clamp(p, 0.f, 1.f) * cells * 8 + 0.5f);
  std::string s;
  for (int i = 0; i < n / 8; i++) s += "\u2588";
  return s + eighths[n % 8];
}

/// Columns that a UTF-8 text takes, one per code point.
int columns(const std::string& s) {
  return static_cast<int>(std::count_if(s.begin(), s.end(), [](char c) { return (c & 0xc0) != 0x80; }));
}

void print_table(const std::string& file, const std::vector<std::string>& labels,
                 const std::vector<std::size_t>& order, const std::vector<float>& p, int top) {
  std::printf("%s\n", file.c_str());
  int wide = 0;
  const std::size_t n = std::min(order.size(), static_cast<std::size_t>(top));
  for (std::size_t i = 0; i < n; i++) wide = std::max(wide, columns(labels[order[i]]));
  for (std::size_t i = 0; i < n; i++) {
    const std::string& label = labels[order[i]];
    std::printf("  %s%*s  %6.2f %%  %s\n", label.c_str(), wide - columns(label), "",
                100.0 * static_cast<double>(p[order[i]]), bar(p[order[i]]).c_str());
  }
}

/// The labels of a classifier head: its class names, or their numbers.
std::vector<std::string> class_labels(const model& m) {
  const std::span<const std::byte> names = m.file().section(format::section::class_names);
  std::vector<std::string> labels;
  std::string_view text(reinterpret_cast<const char*>(names.data()), names.size());
  while (!text.empty()) {
    const std::size_t end = std::min(text.find('\n'), text.size());
    labels.emplace_back(text.substr(0, end));
    text.remove_prefix(std::min(end + 1, text.size()));
  }
  for (int i = static_cast<int>(labels.size()); i < m.config().vision.classes; i++)
    labels.push_back("class " + std::to_string(i));
  labels.resize(static_cast<std::size_t>(m.config().vision.classes));
  return labels;
}

void classify(options& o) {
  if (o.images.empty() && o.images_file.empty()) throw usage("classify: give pictures by --image or --images");
  if (!o.labels.empty() && !o.labels_file.empty())
    throw usage("classify: give --labels or --labels-file, not both");
  if (!o.templates.empty() && !o.templates_file.empty())
    throw usage("classify: give --template or --templates-file, not both");
  add_paths(o.images_file, o.images);
  const model m = open_model(o.model, o);
  if (!m.has_vision()) fail(o.model, status::no_vision_tower);
  const bool head = o.labels.empty() && o.labels_file.empty();
  std::vector<std::string> labels;
  std::vector<float> texts;
  if (head) {
    if (m.config().vision.classes == 0)
      throw usage(
          "classify: give --labels A,B,... or --labels-file FILE (the model has no classes of its own)");
    labels = class_labels(m);
  } else {
    labels = o.labels.empty() ? read_lines(o.labels_file) : split_labels(o.labels);
    if (labels.empty()) throw failure((o.labels_file.empty() ? "--labels" : o.labels_file) + ": no labels");
    if (!o.templates_file.empty()) o.templates = read_lines(o.templates_file);
    if (o.templates.empty() && !o.templates_file.empty()) throw failure(o.templates_file + ": no templates");
    if (o.templates.empty()) o.templates = {"a photo of a {}."};
    for (const std::string& pattern : o.templates)
      if (pattern.find("{}") == std::string::npos)
        throw usage("classify: a template needs {} for the label: " + pattern);
    if (!m.has_text()) fail(o.model, status::no_text_tower);
    if (m.tokenizer() == nullptr)
      throw failure(o.model + ": the model has no tokenizer; convert it again with --tokenizer PATH");
    if (m.embed() != m.text_embed())
      throw failure(o.model + ": image and text embeddings have different widths");
    texts = label_embeddings(m, labels, o);
  }

  const auto width = static_cast<std::size_t>(m.embed());
  const std::size_t chunk = o.chunk();
  const ocellus::executor threads = o.executor();
  workspace work;
  nlohmann::json images = nlohmann::json::array();
  int bad = 0;
  std::string first_error;
  if (!o.json && !head && m.config().score == score_kind::sigmoid)
    std::printf("Each label's probability stands alone (sigmoid): they need not add up to 100 %%.\n");
  counter progress("pictures", o.images.size());
  for (std::size_t i = 0; i < o.images.size(); i += chunk) {
    const std::size_t end = std::min(i + chunk, o.images.size());
    const picture_chunk pictures = load_pictures(m, o.images, i, end, o.upright, threads);
    std::vector<float> e((end - i) * width), logits(head ? (end - i) * labels.size() : 0);
    encode_chunk(m, pictures, e.data(), head ? logits.data() : nullptr, work, threads);
    m.normalize(e.data(), static_cast<int>(end - i), static_cast<int>(width));
    for (std::size_t j = i; j < end; j++) {
      const std::string& error = pictures.errors[j - i];
      if (!error.empty()) {
        bad++;
        if (o.json) images.push_back({{"file", o.images[j]}, {"error", error}});
        progress.clear();
        std::fprintf(stderr, "ocellus: %s: %s\n", o.images[j].c_str(), error.c_str());
        continue;
      }
      std::vector<float> p(labels.size());
      if (head) {
        model::softmax(logits.data() + (j - i) * labels.size(), p.data(), static_cast<int>(p.size()), 1.0);
      } else {
        const float* x = e.data() + (j - i) * width;
        for (std::size_t l = 0; l < labels.size(); l++)
          p[l] = std::inner_product(x, x + width, texts.data() + l * width, 0.f);
        m.probabilities(p.data(), p.data(), static_cast<int>(p.size()));
      }
      std::vector<std::size_t> order(labels.size());
      std::iota(order.begin(), order.end(), std::size_t{0});
      std::stable_sort(order.begin(), order.end(), [&](std::size_t a, std::size_t b) { return p[a] > p[b]; });
      if (o.json) {
        nlohmann::json best = nlohmann::json::array();
        for (const std::size_t l : order) best.push_back({{"label", labels[l]}, {"score", p[l]}});
        images.push_back({{"file", o.images[j]}, {"labels", std::move(best)}});
      } else {
        progress.clear();
        print_table(o.images[j], labels, order, p, o.top);
      }
    }
    progress.at(end);
  }
  if (o.json) {
    const nlohmann::json all = {{"images", std::move(images)}};
    std::printf("%s\n", all.dump(-1, ' ', false, nlohmann::json::error_handler_t::replace).c_str());
  }
  if (bad != 0) throw already_said();
}

}  // namespace

void add_classify(CLI::App& app) {
  CLI::App* c = app.add_subcommand("classify",
                                   "Which label fits each picture? CLIP: probabilities over the labels "
                                   "given; SigLIP: each label's own probability.\n"
                                   "Templates turn labels into prompts, {} is the label; several are "
                                   "averaged as CLIP's prompt ensembling does.");
  const auto o = std::make_shared<options>();
  c->add_option("model", o->model, "The packed model (.oc)")->required();
  c->add_option("--image", o->images, "Picture files: JPEG, PNG, BMP, GIF, TGA, PNM");
  c->add_option("--images", o->images_file,
                "File with one path of a picture a line, or NUL behind each; -: standard input");
  c->add_option("--labels", o->labels, "Labels, separated by commas");
  c->add_option("--labels-file", o->labels_file, "File with one label a line (for labels with commas)");
  c->add_option("--template", o->templates,
                "Prompt template, may be repeated (default: \"a photo of a {}.\")");
  c->add_option("--templates-file", o->templates_file, "File with one template a line");
  c->add_option("--top", o->top, "Labels to show per picture (default 5; --json lists all)")
      ->check(CLI::PositiveNumber);
  c->add_flag("--json", o->json,
              "Machine-readable: {\"images\": [{\"file\", \"labels\": [{\"label\", \"score\"}]}]}");
  c->add_flag("--upright", o->upright,
              "Turn pictures by their EXIF orientation first (the references do not)");
  o->add_to(*c);
  c->callback([o] { classify(*o); });
}

}  // namespace cli
