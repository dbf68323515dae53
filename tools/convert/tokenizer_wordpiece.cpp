#include "tokenizer_wordpiece.hpp"

#include "byte_source.hpp"
#include "double_array_builder.hpp"
#include "tokenizer_files.hpp"

#include <algorithm>
#include <cstdint>
#include <utility>

namespace ocellus::convert {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

using vocabulary = wordpiece_vocabulary;

constexpr std::size_t most_pieces = 1'000'000;

error fail(std::string what) { return error{std::move(what)}; }

/// Lines as Python's text files have them: "\r\n" and "\r" end one too.
std::vector<std::string_view> lines_of(std::string_view text) {
  std::vector<std::string_view> lines;
  while (!text.empty()) {
    const std::size_t end = std::min(text.find_first_of("\r\n"), text.size());
    lines.push_back(text.substr(0, end));
    text.remove_prefix(text.substr(end).starts_with("\r\n") ? end + 2 : std::min(end + 1, text.size()));
  }
  return lines;
}

void set_if(bool& flag, const json& value) {
  if (value.is_boolean()) flag = value.get<bool>();
}

/// BERT's normaliser, and what the tokenizer's class says in its place.
outcome<void> read_switches(const json& normalizer, vocabulary& v) {
  if (member(normalizer, "type") != "BertNormalizer")
    return fail("its normaliser is not BERT's, the only one that goes with WordPiece here");
  set_if(v.clean_text, member(normalizer, "clean_text"));
  set_if(v.split_ideographs, member(normalizer, "handle_chinese_chars"));
  set_if(v.lower, member(normalizer, "lowercase"));
  if (const json& strip = member(normalizer, "strip_accents"); strip.is_boolean())
    v.strip_accents = strip.get<bool>();
  return {};
}

outcome<vocabulary> parse_json(const json& j) {
  vocabulary v;
  const json& model = j["model"];
  const json& pieces = member(model, "vocab");
  if (!pieces.is_object() || pieces.empty()) return fail("its vocabulary is not an object of texts and ids");
  if (pieces.size() > most_pieces) return fail("it has too many pieces");
  for (const auto& [text, id] : pieces.items()) {
    const std::int64_t value = id.is_number_integer() ? id.get<std::int64_t>() : -1;
    if (value < 0 || value >= static_cast<std::int64_t>(most_pieces))
      return fail("the id of " + in_quotes(text) + " is out of range");
    v.ids.emplace(text, static_cast<int>(value));
  }
  if (const json& prefix = member(model, "continuing_subword_prefix");
      !prefix.is_null() && prefix != std::string(wordpiece_inside))
    return fail("its pieces inside words do not begin with \"##\"");
  if (const json& most = member(model, "max_input_chars_per_word"); most.is_number_integer()) {
    const auto n = most.get<std::int64_t>();
    if (n < 1 || n > wordpiece_most_letters)
      return fail("its max_input_chars_per_word is " + std::to_string(n) + ", expected 1 to " +
                  std::to_string(wordpiece_most_letters));
    v.most_letters = static_cast<int>(n);
  }
  if (const json& unk = member(model, "unk_token"); unk.is_string()) v.unk = unk.get<std::string>();
  if (member(member(j, "pre_tokenizer"), "type") != "BertPreTokenizer")
    return fail("its pre-tokenizer is not BERT's");
  if (auto read = read_switches(member(j, "normalizer"), v); !read) return read.failure();
  auto added = read_added_tokens(member(j, "added_tokens"));
  if (!added) return added.failure();
  v.added = std::move(*added);
  return v;
}

outcome<std::vector<std::byte>> build_beside(vocabulary v, const fs::path& path,
                                             const tokenizer_options& options) {
  const auto s = read_token_settings(path.parent_path());
  if (!s) return s.failure();
  v.cls = s->token("cls_token").value_or(v.cls);
  v.sep = s->token("sep_token").value_or(v.sep);
  v.pad = s->token("pad_token").value_or(v.pad);
  v.unk = s->token("unk_token").value_or(v.unk);
  v.mask = s->token("mask_token").value_or(v.mask);
  v.context = s->context();
  set_if(v.lower, member(s->merged, "do_lower_case"));
  set_if(v.split_ideographs, member(s->merged, "tokenize_chinese_chars"));
  if (const json& strip = member(s->merged, "strip_accents"); strip.is_boolean())
    v.strip_accents = strip.get<bool>();
  return build_wordpiece(v, options);
}

}  // namespace

outcome<wordpiece_vocabulary> parse_wordpiece_list(std::string_view text) {
  vocabulary v;
  if (text.starts_with("\xEF\xBB\xBF")) return fail("it begins with a byte order mark, which is no piece");
  const std::vector<std::string_view> lines = lines_of(text);
  if (lines.size() > most_pieces) return fail("it has too many pieces");
  for (std::size_t id = 0; id < lines.size(); ++id)
    v.ids.insert_or_assign(std::string(lines[id]), static_cast<int>(id));
  return v;
}

outcome<std::vector<std::byte>> build_wordpiece(const wordpiece_vocabulary& v,
                                                const tokenizer_options& options) {
  const text_style style = options.style.value_or(text_style::bert_openclip);
  // open_clip's configuration names the cleaning only; the vocabulary tells BERT from SigLIP.
  if (style != text_style::bert_openclip && style != text_style::siglip_openclip)
    return fail(std::string("a WordPiece vocabulary cannot be used in the style ") + to_string(style));

  const auto find = [&v](const std::string& text) -> std::optional<int> {
    if (const auto at = v.ids.find(text); at != v.ids.end()) return at->second;
    const auto token =
        std::find_if(v.added.begin(), v.added.end(), [&](const added_token& t) { return t.content == text; });
    return token == v.added.end() ? std::nullopt : std::optional(token->id);
  };
  for (const std::string* name : {&v.cls, &v.sep, &v.pad, &v.unk})
    if (!find(*name)) return fail("it lacks " + in_quotes(*name));

  int last = 0;
  std::vector<double_array_entry> pieces;
  for (const auto& [text, id] : v.ids) {
    last = std::max(last, id);
    if (!is_utf8(text)) return fail("the piece " + in_quotes(text) + " is not UTF-8");
    if (!text.empty()) pieces.emplace_back(text, static_cast<std::uint32_t>(id));
  }
  std::map<std::string_view, std::uint32_t> specials;
  for (const added_token& t : v.added) {
    last = std::max(last, t.id);
    if (t.normalized)
      return fail("the added token " + in_quotes(t.content) +
                  " is looked for in normalised text: not supported");
    if (!t.content.empty()) specials.emplace(t.content, static_cast<std::uint32_t>(t.id));
  }
  for (const std::string* name : {&v.cls, &v.sep, &v.pad, &v.unk, &v.mask}) {
    if (const auto id = find(*name); id && !name->empty())
      specials.emplace(*name, static_cast<std::uint32_t>(*id));
  }
  if (options.vocab_size && last >= *options.vocab_size) {
    return fail("has ids up to " + std::to_string(last) + ", the model only " +
                std::to_string(*options.vocab_size) + " rows");
  }
  const int sep = *find(v.sep);
  std::vector<double_array_entry> entries;
  for (const auto& [text, id] : specials) {
    if (text.size() > wordpiece_max_special)
      return fail("the special token " + in_quotes(text) + " is too long");
    entries.emplace_back(text, options.strip_sep && static_cast<int>(id) == sep ? 0 : id);
  }
  auto piece_units = build_double_array(std::move(pieces));
  if (!piece_units) return piece_units.failure();
  auto special_units = build_double_array(std::move(entries));
  if (!special_units) return fail("special tokens: " + special_units.failure().what);

  wordpiece_info info{};
  info.flags = (v.clean_text ? wordpiece_clean : 0) | (v.split_ideographs ? wordpiece_split_ideographs : 0) |
               (v.strip_accents.value_or(v.lower) ? wordpiece_strip_accents : 0) |
               (v.lower ? wordpiece_lower : 0);
  info.most_letters = static_cast<std::uint32_t>(v.most_letters);
  tokenizer_blob_writer writer;
  tokenizer_header& h = writer.header;
  h.kind = static_cast<std::uint32_t>(tokenizer_kind::wordpiece);
  h.style = static_cast<std::uint32_t>(text_style::bert_openclip);
  h.cleaning = static_cast<std::uint32_t>(options.cleaning.value_or(text_cleaning::whitespace));
  h.flags = tokenizer_add_sot | tokenizer_add_eot;
  h.context = options.context.value_or(v.context.value_or(77));
  h.vocab_size = last + 1;
  h.sot = *find(v.cls);
  h.eot = options.strip_sep ? 0 : sep;
  h.pad = options.pad.value_or(*find(v.pad));
  h.unk = *find(v.unk);
  writer.add(0, std::span<const wordpiece_info>(&info, 1));
  writer.add<std::uint32_t>(1, *piece_units);
  writer.add<std::uint32_t>(2, *special_units);
  return writer.finish();
}

bool is_wordpiece_list(std::string_view text) {
  bool unk = false;
  bool cls = false;
  for (const std::string_view line : lines_of(text)) {
    unk = unk || line == "[UNK]";
    cls = cls || line == "[CLS]";
  }
  return unk && cls;
}

bool is_wordpiece_json(const json& j) { return member(member(j, "model"), "type") == "WordPiece"; }

outcome<std::vector<std::byte>> build_wordpiece_list(std::string_view text, const fs::path& path,
                                                     const tokenizer_options& options) {
  auto v = parse_wordpiece_list(text);
  if (!v) return v.failure();
  return build_beside(std::move(*v), path, options);
}

outcome<std::vector<std::byte>> build_wordpiece_json(const json& j, const fs::path& path,
                                                     const tokenizer_options& options) {
  auto v = parse_json(j);
  if (!v) return v.failure();
  return build_beside(std::move(*v), path, options);
}

}  // namespace ocellus::convert
