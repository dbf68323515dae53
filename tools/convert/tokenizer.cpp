#include "tokenizer.hpp"

#include "json.hpp"
#include "tokenizer_files.hpp"
#include "tokenizer_sentencepiece.hpp"
#include "tokenizer_wordpiece.hpp"

#include <ocellus/text/clip_bpe.hpp>
#include <ocellus/text/tokenizer.hpp>

#include <zlib.h>

#include <array>
#include <bit>
#include <cstdint>
#include <cstring>
#include <fstream>
#include <set>

namespace ocellus::convert {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

constexpr std::size_t most_merges = 49152 - 256 - 2;  // what OpenAI's tokenizer takes from its list
constexpr std::size_t most_json_merges = 4'000'000;
constexpr std::size_t most_symbol_bytes = 1024;
constexpr std::string_view end_of_word = "</w>";

error fail(std::string what) { return error{std::move(what)}; }

/// GPT-2's table: printable letters of Latin-1 stand for themselves, the other bytes for U+0100 and on.
struct byte_alphabet {
  std::array<std::string, 256> spelling;  // by byte
  std::array<int, 256> order{};           // the bytes in the order of the ids
};

byte_alphabet make_byte_alphabet() {
  byte_alphabet a;
  std::size_t n = 0;
  const auto add = [&](unsigned byte, char32_t letter) {
    unsigned char utf8[4];
    const int size = unicode::encode_utf8(letter, utf8);
    a.spelling[byte].assign(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(size));
    a.order[n++] = static_cast<int>(byte);
  };
  const auto is_printable = [](unsigned b) { return (b > 0x20 && b < 0x7F) || (b > 0xA0 && b != 0xAD); };
  for (unsigned b = 0; b < 256; ++b) {
    if (is_printable(b)) add(b, b);
  }
  char32_t next = 0x100;
  for (unsigned b = 0; b < 256; ++b) {
    if (!is_printable(b)) add(b, next++);
  }
  return a;
}

outcome<std::string> inflate_gzip(std::string_view packed, std::size_t limit) {
  z_stream z{};
  if (inflateInit2(&z, 16 + MAX_WBITS) != Z_OK) return fail("gzip: out of memory");
  z.next_in = reinterpret_cast<Bytef*>(const_cast<char*>(packed.data()));
  z.avail_in = static_cast<uInt>(packed.size());
  std::string out;
  std::array<char, 1 << 16> piece;
  int code = Z_OK;
  while (code == Z_OK && out.size() <= limit) {
    z.next_out = reinterpret_cast<Bytef*>(piece.data());
    z.avail_out = static_cast<uInt>(piece.size());
    code = inflate(&z, Z_NO_FLUSH);
    out.append(piece.data(), piece.size() - z.avail_out);
    if (code == Z_STREAM_END && z.avail_in > 0) code = inflateReset(&z);  // gzip files may be joined
  }
  inflateEnd(&z);
  if (out.size() > limit) return fail("gzip: more than " + std::to_string(limit >> 20) + " MB inside");
  if (code != Z_STREAM_END) return fail("gzip: the data is damaged or ends too early");
  return out;
}

/// Splits "left right"; an error names the line.
outcome<std::pair<std::string, std::string>> parse_merge(std::string_view line, std::size_t number) {
  const std::size_t blank = line.find(' ');
  const std::string where = "merge " + std::to_string(number);
  if (blank == std::string_view::npos || blank == 0 || blank + 1 == line.size() ||
      line.find(' ', blank + 1) != std::string_view::npos) {
    return fail(where + " is not two symbols: " + in_quotes(line));
  }
  if (line.size() > most_symbol_bytes) return fail(where + " is too long: " + in_quotes(line));
  return std::pair{std::string(line.substr(0, blank)), std::string(line.substr(blank + 1))};
}

/// The merges of a text file: the first line is a heading, the list ends at an empty line or after `most`.
outcome<std::vector<std::pair<std::string, std::string>>> parse_merge_lines(std::string_view text,
                                                                            std::size_t most) {
  std::vector<std::pair<std::string, std::string>> merges;
  std::size_t from = text.find('\n');
  while (from != std::string_view::npos && merges.size() < most) {
    const std::size_t begin = from + 1;
    from = text.find('\n', begin);
    std::string_view line = text.substr(begin, from == std::string_view::npos ? from : from - begin);
    if (line.ends_with('\r')) line.remove_suffix(1);
    if (line.empty()) break;
    auto merge = parse_merge(line, merges.size() + 1);
    if (!merge) return merge.failure();
    merges.push_back(std::move(*merge));
  }
  return merges;
}

/// The id tables of the blob, or what is wrong with the vocabulary.
struct clip_tables {
  std::vector<std::uint32_t> bytes;
  std::vector<clip_merge> merges;
  std::vector<clip_special> specials;
  std::string special_text;
};

outcome<std::vector<std::uint32_t>> byte_table(const clip_vocabulary& v,
                                               std::optional<std::uint32_t> unknown) {
  const byte_alphabet alphabet = make_byte_alphabet();
  std::vector<std::uint32_t> table(512);
  for (std::size_t i = 0; i < 512; ++i) {
    std::string symbol = alphabet.spelling[i % 256];
    if (i >= 256) symbol += end_of_word;
    const auto at = v.ids.find(symbol);
    if (at == v.ids.end() && !unknown) {
      return fail("the vocabulary lacks the byte " + std::to_string(i % 256) + " as " + in_quotes(symbol));
    }
    table[i] = at == v.ids.end() ? *unknown : static_cast<std::uint32_t>(at->second);
  }
  return table;
}

outcome<std::vector<clip_merge>> merge_table(const clip_vocabulary& v) {
  // At most half full, so that a search ends after one or two slots.
  const std::size_t slots = std::bit_ceil(std::max<std::size_t>(2 * v.merges.size(), 2));
  const int bits = std::countr_zero(slots);
  std::vector<clip_merge> table(slots, clip_merge{no_symbol, no_symbol, no_symbol, no_symbol});
  std::uint32_t rank = 0;
  for (const auto& [left, right] : v.merges) {
    const auto l = v.ids.find(left);
    const auto r = v.ids.find(right);
    const auto m = v.ids.find(left + right);
    if (l == v.ids.end() || r == v.ids.end() || m == v.ids.end()) {
      const std::string& missing = l == v.ids.end() ? left : r == v.ids.end() ? right : left + right;
      return fail("merge " + std::to_string(rank + 1) + ": the vocabulary lacks " + in_quotes(missing));
    }
    const clip_merge entry{static_cast<std::uint32_t>(l->second), static_cast<std::uint32_t>(r->second),
                           rank++, static_cast<std::uint32_t>(m->second)};
    std::size_t slot = clip_merge_slot(entry.left, entry.right, bits);
    while (table[slot].left != no_symbol &&
           !(table[slot].left == entry.left && table[slot].right == entry.right)) {
      slot = (slot + 1) & (slots - 1);
    }
    table[slot] = entry;  // of a merge given twice the last rank counts, as in the references
  }
  return table;
}

std::string lower_utf8(std::string_view text) {
  text32 letters;
  text32 lowered;
  text_buffer<char> utf8;
  unicode::decode_utf8(text, letters);
  unicode::lower(letters.span(), unicode::sigma::alone, lowered);
  unicode::encode_utf8(lowered.span(), utf8);
  return {utf8.data(), utf8.size()};
}

outcome<void> add_special(clip_tables& tables, std::string text, int id, special_match match) {
  if (match == special_match::normalized) text = lower_utf8(text);
  if (text.empty() || text.size() > clip_max_special_bytes)
    return fail("special token " + in_quotes(text) + ": bad length");
  if (tables.specials.size() == clip_max_specials) {
    return fail("more than " + std::to_string(clip_max_specials) + " special tokens");
  }
  tables.specials.push_back({static_cast<std::uint32_t>(tables.special_text.size()),
                             static_cast<std::uint32_t>(text.size()), id, static_cast<std::uint32_t>(match)});
  tables.special_text += text;
  return {};
}

/// Names of special tokens and the context from the files beside a vocabulary, where they are.
outcome<void> read_token_names(const fs::path& folder, clip_vocabulary& v) {
  const auto s = read_token_settings(folder);
  if (!s) return s.failure();
  v.sot = s->token("bos_token").value_or(v.sot);
  v.eot = s->token("eos_token").value_or(v.eot);
  v.pad = s->token("pad_token").value_or(v.pad);
  v.context = s->context();
  return {};
}

outcome<void> read_vocabulary_map(const json& j, clip_vocabulary& v) {
  if (!j.is_object() || j.empty()) return fail("the vocabulary is not an object of texts and ids");
  v.ids.reserve(j.size());
  for (const auto& [symbol, id] : j.items()) {
    if (!id.is_number_integer()) return fail("the id of " + in_quotes(symbol) + " is not a number");
    const auto value = id.get<std::int64_t>();
    if (value < 0 || value >= (1 << 24)) return fail("the id of " + in_quotes(symbol) + " is out of range");
    v.ids.emplace(symbol, static_cast<int>(value));
  }
  return {};
}

/// Merges of tokenizer.json: "a b" or ["a", "b"].
outcome<void> read_merges(const json& j, clip_vocabulary& v) {
  if (!j.is_array() || j.size() > most_json_merges) return fail("the merges are not a list");
  for (const json& m : j) {
    if (m.is_string()) {
      auto merge = parse_merge(m.get_ref<const std::string&>(), v.merges.size() + 1);
      if (!merge) return merge.failure();
      v.merges.push_back(std::move(*merge));
    } else if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      v.merges.emplace_back(m[0].get<std::string>(), m[1].get<std::string>());
    } else {
      return fail("merge " + std::to_string(v.merges.size() + 1) + " is not two symbols");
    }
  }
  return {};
}

/// True if the object, or one in its list of that name, has the type.
bool has_type(const json& j, const char* list, const char* type) {
  if (!j.is_object()) return false;
  if (const auto t = j.find("type"); t != j.end() && *t == type) return true;
  const auto parts = j.find(list);
  if (parts == j.end() || !parts->is_array()) return false;
  return std::any_of(parts->begin(), parts->end(),
                     [type](const json& p) { return p.is_object() && p.value("type", json()) == type; });
}

outcome<clip_vocabulary> parse_tokenizer_json(const json& j) {
  clip_vocabulary v;
  const json& model = j["model"];
  if (model.value("end_of_word_suffix", json()) != end_of_word) {
    return fail("a BPE without \"</w>\" is neither CLIP's nor Gemma's");
  }
  if (!j.contains("normalizer") || !has_type(j["normalizer"], "normalizers", "Lowercase")) {
    return fail("its normaliser is not CLIP's: it does not lower the case");
  }
  if (!model.contains("vocab") || !model.contains("merges")) return fail("its model lacks vocab or merges");
  if (auto read = read_vocabulary_map(model["vocab"], v); !read) return read.failure();
  if (auto read = read_merges(model["merges"], v); !read) return read.failure();
  auto added = read_added_tokens(member(j, "added_tokens"));
  if (!added) return added.failure();
  v.added = std::move(*added);
  for (const added_token& t : v.added) v.ids.insert_or_assign(t.content, t.id);
  return v;
}

/// vocab.json with merges.txt.
outcome<clip_vocabulary> read_vocab_and_merges(const fs::path& folder) {
  clip_vocabulary v;
  auto vocab = read_json(folder / "vocab.json");
  if (!vocab) return fail("vocab.json: " + vocab.failure().what);
  if (auto read = read_vocabulary_map(*vocab, v); !read) return fail("vocab.json: " + read.failure().what);
  auto text = read_text_file(folder / "merges.txt");
  if (!text) return fail("merges.txt: " + text.failure().what);
  auto merges = parse_merge_lines(*text, most_merges);
  if (!merges) return fail("merges.txt: " + merges.failure().what);
  v.merges = std::move(*merges);
  return v;
}

/// The special tokens that transformers adds to those of the vocabulary's file, as far as it knows them: a text
/// that holds "!" where that is the padding gets its id.
void add_default_tokens(clip_vocabulary& v) {
  const bool none = v.added.empty();
  const auto add = [&v](const std::string& text, bool normalized) {
    const bool known = std::any_of(v.added.begin(), v.added.end(),
                                   [&text](const added_token& t) { return t.content == text; });
    if (const auto at = v.ids.find(text); at != v.ids.end() && !known)
      v.added.push_back({text, at->second, normalized});
  };
  if (none) add(v.sot, true);
  if (none) add(v.eot, false);
  add(v.pad, false);
}

outcome<std::vector<std::byte>> build_from_transformers(clip_vocabulary v, const fs::path& folder,
                                                        tokenizer_options options) {
  if (auto read = read_token_names(folder, v); !read) return read.failure();
  add_default_tokens(v);
  if (!options.style) options.style = text_style::clip_hf;
  return build_clip_tokenizer(v, options);
}

bool is_file(const fs::path& path) {
  std::error_code ignored;
  return fs::is_regular_file(path, ignored);
}

outcome<std::vector<std::byte>> build_from_json(const fs::path& path, const tokenizer_options& options) {
  auto j = read_json(path);
  if (!j) return j.failure();
  if (is_sentencepiece_json(*j)) return build_sentencepiece_json(*j, path, options);
  if (is_wordpiece_json(*j)) return build_wordpiece_json(*j, path, options);
  if (!j->is_object() || !j->contains("model") || !(*j)["model"].is_object()) {
    if (path.filename() != "vocab.json") return fail("not a tokenizer: it has no model");
    auto v = read_vocab_and_merges(path.parent_path());
    if (!v) return v.failure();
    return build_from_transformers(std::move(*v), path.parent_path(), options);
  }
  const json type = (*j)["model"].value("type", json());
  if (type.is_string() && type != "BPE")
    return fail("its model type " + in_quotes(type.get<std::string>()) + " is not supported");
  auto v = parse_tokenizer_json(*j);
  if (!v) return v.failure();
  return build_from_transformers(std::move(*v), path.parent_path(), options);
}

outcome<std::vector<std::byte>> build_from_file(const fs::path& path, const tokenizer_options& options) {
  const std::string name = path.filename().string();
  if (name.ends_with(".json")) return build_from_json(path, options);
  if (name.ends_with(".model")) return build_sentencepiece_model(path, options);
  if (name == "merges.txt" && is_file(path.parent_path() / "vocab.json")) {
    return build_from_json(path.parent_path() / "vocab.json", options);
  }
  auto text = read_text_file(path);
  if (!text) return text.failure();
  if (is_wordpiece_list(*text)) return build_wordpiece_list(*text, path, options);
  auto v = parse_merge_list(*text, options.vocab_size);
  if (!v) return v.failure();
  tokenizer_options o = options;
  if (!o.style) o.style = text_style::clip_openclip;
  if (*o.style == text_style::clip_hf) add_default_tokens(*v);
  return build_clip_tokenizer(*v, o);
}

constexpr std::array folder_files = {"spiece.model",
                                     "tokenizer.json",
                                     "vocab.json",
                                     "tokenizer.model",
                                     "bpe_simple_vocab_16e6.txt.gz",
                                     "bpe_simple_vocab_16e6.txt",
                                     "sentencepiece.bpe.model",
                                     "vocab.txt",
                                     "siglip2_vocab.json"};

}  // namespace

std::optional<text_style> parse_text_style(std::string_view name) {
  for (const text_style s :
       {text_style::clip_openclip, text_style::clip_hf, text_style::siglip_hf, text_style::siglip_openclip,
        text_style::siglip2, text_style::siglip2_openclip, text_style::bert_openclip,
        text_style::xlm_roberta_openclip}) {
    if (name == to_string(s)) return s;
  }
  return std::nullopt;
}

outcome<std::string> read_text_file(const fs::path& path, std::size_t limit) {
  std::error_code code;
  if (!fs::exists(path, code)) return fail("no such file");
  if (!fs::is_regular_file(path, code)) return fail("not a regular file");
  const std::uintmax_t size = fs::file_size(path, code);
  if (code) return fail("cannot be read");
  if (size == 0) return fail("the file is empty");
  if (size > limit) return fail("larger than " + std::to_string(limit >> 20) + " MB");
  std::string text(static_cast<std::size_t>(size), '\0');
  std::ifstream in(path, std::ios::binary);
  if (!in.read(text.data(), static_cast<std::streamsize>(size))) return fail("cannot be read");
  if (text.starts_with("\x1f\x8b")) return inflate_gzip(text, limit);
  return text;
}

outcome<clip_vocabulary> parse_merge_list(std::string_view text, std::optional<int> vocab_size) {
  // 512 ids are bytes, two are start and end; a smaller model takes as many merges as it has rows.
  std::size_t most = most_merges;
  const bool known = vocab_size && *vocab_size >= 514;
  if (known) most = std::min(most, static_cast<std::size_t>(*vocab_size) - 514);
  auto merges = parse_merge_lines(text, most);
  if (!merges) return merges.failure();
  if (merges->empty()) return fail("holds no merges");
  if (known && merges->size() < most) {
    return fail("holds " + std::to_string(merges->size()) + " merges, the model's " +
                std::to_string(*vocab_size) + " rows need " + std::to_string(most));
  }
  clip_vocabulary v;
  v.merges = std::move(*merges);
  const byte_alphabet alphabet = make_byte_alphabet();
  int next = 0;
  for (const int byte : alphabet.order)
    v.ids.emplace(alphabet.spelling[static_cast<std::size_t>(byte)], next++);
  for (const int byte : alphabet.order) {
    v.ids.emplace(alphabet.spelling[static_cast<std::size_t>(byte)] + std::string(end_of_word), next++);
  }
  for (const auto& [left, right] : v.merges) v.ids.insert_or_assign(left + right, next++);
  v.ids.insert_or_assign(v.sot, next++);
  v.ids.insert_or_assign(v.eot, next++);
  return v;
}

outcome<std::vector<std::byte>> build_clip_tokenizer(const clip_vocabulary& v,
                                                     const tokenizer_options& options) {
  const text_style style = options.style.value_or(text_style::clip_openclip);
  const bool hf = style == text_style::clip_hf;
  if (!hf && style != text_style::clip_openclip) {
    return fail(std::string("a CLIP vocabulary cannot be used in the style ") + to_string(style));
  }
  const auto find = [&v](const std::string& text) -> std::optional<int> {
    const auto at = v.ids.find(text);
    return at == v.ids.end() ? std::nullopt : std::optional<int>(at->second);
  };
  const std::optional<int> sot = find(v.sot);
  const std::optional<int> eot = find(v.eot);
  if (!sot || !eot) return fail("the vocabulary lacks " + in_quotes(sot ? v.eot : v.sot));
  int last = 0;
  for (const auto& [symbol, id] : v.ids) last = std::max(last, id);
  if (options.vocab_size && last >= *options.vocab_size) {
    return fail("has ids up to " + std::to_string(last) + ", the model only " +
                std::to_string(*options.vocab_size) + " rows");
  }

  clip_tables tables;
  auto bytes = byte_table(v, hf ? std::optional(static_cast<std::uint32_t>(*eot)) : std::nullopt);
  if (!bytes) return bytes.failure();
  auto merges = merge_table(v);
  if (!merges) return merges.failure();
  if (hf) {
    for (const added_token& t : v.added) {
      const special_match match = t.normalized ? special_match::normalized : special_match::raw;
      if (auto added = add_special(tables, t.content, t.id, match); !added) return added.failure();
    }
  } else {
    static_cast<void>(add_special(tables, "<start_of_text>", *sot, special_match::word));
    static_cast<void>(add_special(tables, "<end_of_text>", *eot, special_match::word));
  }

  tokenizer_blob_writer writer;
  tokenizer_header& h = writer.header;
  h.kind = static_cast<std::uint32_t>(tokenizer_kind::clip_bpe);
  h.style = static_cast<std::uint32_t>(style);
  h.cleaning =
      static_cast<std::uint32_t>(hf ? text_cleaning::none : options.cleaning.value_or(text_cleaning::lower));
  h.flags = tokenizer_add_sot | tokenizer_add_eot;
  h.context = options.context.value_or(v.context.value_or(77));
  h.vocab_size = last + 1;
  h.sot = *sot;
  h.eot = *eot;
  h.pad = options.pad.value_or(hf ? find(v.pad).value_or(*eot) : 0);
  h.unk = hf ? *eot : -1;
  writer.add<std::uint32_t>(clip_bpe::section_bytes, *bytes);
  writer.add<clip_merge>(clip_bpe::section_merges, *merges);
  writer.add<clip_special>(clip_bpe::section_specials, tables.specials);
  writer.add<char>(clip_bpe::section_special_text, tables.special_text);
  return writer.finish();
}

outcome<std::vector<std::byte>> build_tokenizer(const fs::path& path, const tokenizer_options& options) {
  std::error_code ignored;
  fs::path file = path;
  if (fs::is_directory(path, ignored)) {
    file.clear();
    const bool clip = options.style == text_style::clip_openclip || options.style == text_style::clip_hf;
    for (const char* name : folder_files) {
      if (clip && std::string_view(name).ends_with(".model")) continue;
      if (is_file(path / name)) {
        file = path / name;
        break;
      }
    }
    if (file.empty())
      return fail(printable(path.string()) +
                  ": the folder holds no tokenizer (tokenizer.json, vocab.json with merges.txt, "
                  "spiece.model, sentencepiece.bpe.model, vocab.txt, bpe_simple_vocab_16e6.txt.gz)");
  }
  auto blob = build_from_file(file, options);
  if (!blob) return fail(printable(file.string()) + ": " + blob.failure().what);
  if (const auto opened = tokenizer::open(*blob); !opened) {
    return fail(printable(file.string()) + ": " + ocellus::to_string(opened.error()));
  }
  return blob;
}

bool has_tokenizer(const fs::path& folder) {
  return std::any_of(folder_files.begin(), folder_files.end(),
                     [&](const char* name) { return is_file(folder / name); });
}

void tokenizer_blob_writer::add_bytes(int i, std::span<const std::byte> bytes) {
  if (bytes.empty()) return;
  if (bytes_.empty()) bytes_.resize(sizeof(tokenizer_header));
  bytes_.resize((bytes_.size() + 63) / 64 * 64);
  header.sections[i] = {bytes_.size(), bytes.size()};
  bytes_.insert(bytes_.end(), bytes.begin(), bytes.end());
}

std::vector<std::byte> tokenizer_blob_writer::finish() {
  std::memcpy(header.magic, "OCTK", 4);
  header.version_major = tokenizer_version_major;
  header.version_minor = tokenizer_version_minor;
  bytes_.resize((std::max(bytes_.size(), sizeof(tokenizer_header)) + 63) / 64 * 64);
  std::memcpy(bytes_.data(), &header, sizeof header);
  return std::move(bytes_);
}

}  // namespace ocellus::convert
