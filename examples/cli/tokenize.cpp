// ocellus tokenize: texts to token ids, as the model's reference tokenizer gives them.
#include "program.hpp"

#include "tokenizer.hpp"

#include <cstdio>
#include <cstring>

namespace cli {

using namespace ocellus;

namespace {

struct options {
  std::string model, vocabulary, style, texts_file;
  std::vector<std::string> texts;
  int context = 0;
};

void tokenize(options& o) {
  if (o.texts.empty() == o.texts_file.empty())
    throw usage("tokenize: give exactly one of --text and --texts");
  if (o.model.empty() == o.vocabulary.empty())
    throw usage("tokenize: give a model, or --tokenizer PATH with --style");
  compute_options none;
  std::optional<model> m;
  array<std::byte> blob;
  const tokenizer* t = nullptr;
  std::optional<tokenizer> own;
  if (!o.model.empty()) {
    m = open_model(o.model, none);
    t = m->tokenizer();
    if (t == nullptr) fail(o.model, status::no_tokenizer);
  } else {
    if (o.style.empty()) throw usage("tokenize: --tokenizer needs --style");
    convert::tokenizer_options settings;
    settings.style = convert::parse_text_style(o.style);
    if (!settings.style)
      throw usage(
          "tokenize: --style is one of clip-openclip, clip-hf, siglip-hf, siglip-openclip, siglip2, "
          "siglip2-openclip, bert-openclip, xlm-roberta-openclip");
    if (o.context > 0) settings.context = o.context;
    const auto built = convert::build_tokenizer(o.vocabulary, settings);
    if (!built)
      throw failure(built.failure().what.find(o.vocabulary) == 0
                        ? built.failure().what
                        : o.vocabulary + ": " + built.failure().what);
    result<array<std::byte>> aligned = array<std::byte>::make(built->size());
    if (!aligned) throw std::bad_alloc();
    blob = std::move(*aligned);
    std::memcpy(blob.data(), built->data(), built->size());
    const result<tokenizer> opened = tokenizer::open({blob.data(), blob.size()});
    if (!opened) fail(o.vocabulary, opened.error());
    own = *opened;
    t = &*own;
  }
  const std::vector<std::string> texts = o.texts_file.empty() ? o.texts : read_texts(o.texts_file);
  std::vector<std::int32_t> ids(static_cast<std::size_t>(o.context > 0 ? o.context : t->context()));
  std::string line;
  for (const std::string& text : texts) {
    const auto encoded = t->encode(text, ids);
    if (!encoded) fail("a text of " + std::to_string(text.size()) + " bytes", encoded.error());
    line = "[";
    for (const std::int32_t id : ids) line += (line.size() > 1 ? ", " : "") + std::to_string(id);
    line += "]\n";
    std::fputs(line.c_str(), stdout);
  }
}

}  // namespace

void add_tokenize(CLI::App& app) {
  CLI::App* c =
      app.add_subcommand("tokenize", "Texts to token ids: one JSON array a line, padded as the model pads");
  const auto o = std::make_shared<options>();
  c->add_option("model", o->model, "The packed model (.oc) whose tokenizer is used");
  c->add_option("--tokenizer", o->vocabulary,
                "Vocabulary instead of a model: file or folder (needs --style)");
  c->add_option("--style", o->style,
                "clip-openclip, clip-hf, siglip-hf, siglip-openclip, siglip2, siglip2-openclip, bert-openclip,\n"
                "xlm-roberta-openclip");
  c->add_option("--context", o->context, "Ids per text (default: the model's)")->check(CLI::Range(2, 8192));
  c->add_option("--text", o->texts, "Texts");
  c->add_option("--texts", o->texts_file, "File with one text a line, or .jsonl with {\"text\": ...} a line; -: standard input");
  c->callback([o] { tokenize(*o); });
}

}  // namespace cli
