#include "tokenizer_sentencepiece.hpp"

#include "json.hpp"
#include "tokenizer_files.hpp"

#include <ocellus/text/sentencepiece_text.hpp>
#include <ocellus/text/unicode.hpp>

#include <array>
#include <bit>
#include <cstring>
#include <iterator>

namespace ocellus::convert {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

using vocabulary = sentencepiece_vocabulary;
using piece_type = vocabulary::piece_type;

error fail(std::string what) { return error{std::move(what)}; }

// ---- protobuf

/// Reads the fields of one protobuf message in order; every length is checked against the message.
class message_reader {
 public:
  explicit message_reader(std::string_view bytes) : bytes_(bytes) {}

  std::uint32_t field = 0;
  std::uint32_t wire_type = 0;
  std::uint64_t number = 0;  ///< of wire types 0 (varint), 1 (8 bytes), 5 (4 bytes)
  std::string_view text;     ///< of wire type 2

  /// Moves to the next field. False at the end, or when the message is damaged.
  bool next() {
    if (bytes_.empty() || damaged_) return false;
    std::uint64_t key = 0;
    if (!varint(key) || key >> 3 == 0 || key >> 3 >= (1u << 29)) return damage();
    field = static_cast<std::uint32_t>(key >> 3);
    wire_type = static_cast<std::uint32_t>(key & 7);
    switch (wire_type) {
      case 0: return varint(number) || damage();
      case 1: return fixed(8) || damage();
      case 2: return block() || damage();
      case 5: return fixed(4) || damage();
      default: return damage();
    }
  }

  bool damaged() const { return damaged_; }
  bool is(std::uint32_t f, std::uint32_t type) const { return field == f && wire_type == type; }

 private:
  bool damage() {
    damaged_ = true;
    return false;
  }

  bool varint(std::uint64_t& value) {
    value = 0;
    for (unsigned shift = 0; shift < 64 && !bytes_.empty(); shift += 7) {
      const auto byte = static_cast<unsigned char>(bytes_.front());
      bytes_.remove_prefix(1);
      value |= static_cast<std::uint64_t>(byte & 0x7F) << shift;
      if (byte < 0x80) return true;
    }
    return false;
  }

  bool fixed(std::size_t size) {
    if (bytes_.size() < size) return false;
    number = 0;
    for (std::size_t i = size; i-- > 0;) number = number << 8 | static_cast<unsigned char>(bytes_[i]);
    bytes_.remove_prefix(size);
    return true;
  }

  bool block() {
    std::uint64_t size = 0;
    if (!varint(size) || size > bytes_.size()) return false;
    text = bytes_.substr(0, static_cast<std::size_t>(size));
    bytes_.remove_prefix(static_cast<std::size_t>(size));
    return true;
  }

  std::string_view bytes_;
  bool damaged_ = false;
};

outcome<vocabulary::piece> parse_piece(std::string_view bytes, std::size_t id) {
  const std::string where = "piece " + std::to_string(id);
  vocabulary::piece p;
  std::uint64_t type = 1;
  message_reader m(bytes);
  while (m.next()) {
    if (m.is(1, 2)) p.text = m.text;
    if (m.is(2, 5)) p.score = std::bit_cast<float>(static_cast<std::uint32_t>(m.number));
    if (m.is(3, 0)) type = m.number;
  }
  if (m.damaged()) return fail(where + " is damaged");
  if (p.text.empty()) return fail(where + " is empty");
  if (type < 1 || type > 6) return fail(where + " has the unknown type " + std::to_string(type));
  p.type = static_cast<piece_type>(type);
  return p;
}

void set_flag(std::uint32_t& flags, std::uint32_t flag, bool on) {
  flags = on ? flags | flag : flags & ~flag;
}

outcome<void> parse_trainer(std::string_view bytes, vocabulary& v) {
  message_reader m(bytes);
  while (m.next()) {
    if (m.is(3, 0)) {
      if (m.number != 1 && m.number != 2) return fail("it is neither a unigram model nor a BPE");
      v.is_bpe = m.number == 2;
    }
    if (m.is(24, 0)) set_flag(v.flags, spm_blank_is_suffix, m.number != 0);
    if (m.is(35, 0)) v.byte_fallback = m.number != 0;
    if (m.is(45, 2)) v.unk = m.text;
    if (m.is(47, 2)) v.eos = m.text;
  }
  if (m.damaged()) return fail("its trainer_spec is damaged");
  return {};
}

outcome<void> parse_normalizer(std::string_view bytes, vocabulary& v) {
  message_reader m(bytes);
  while (m.next()) {
    if (m.is(2, 2)) v.charsmap = m.text;
    if (m.is(3, 0)) set_flag(v.flags, spm_dummy_prefix, m.number != 0);
    if (m.is(4, 0)) set_flag(v.flags, spm_single_blanks, m.number != 0);
    if (m.is(5, 0)) set_flag(v.flags, spm_escape_blanks, m.number != 0);
  }
  if (m.damaged()) return fail("its normalizer_spec is damaged");
  return {};
}

// ---- tokenizer.json and lists

/// Calls f for each step of a normaliser or pre-tokenizer: itself, or the parts of a "Sequence".
template <class F>
void for_each_step(const json& j, const char* list, F&& f) {
  if (const json& parts = member(j, list); parts.is_array()) {
    for (const json& part : parts) for_each_step(part, list, f);
  } else if (j.is_object()) {
    f(j);
  }
}

bool replaces_blanks(const json& step) {
  return member(step, "type") == "Replace" && member(member(step, "pattern"), "String") == " " &&
         member(step, "content") == ocellus::detail::spm_blank;
}

outcome<std::string> decode_base64(std::string_view text) {
  std::string out;
  std::uint32_t bits = 0;
  int count = 0;
  while (text.ends_with('=')) text.remove_suffix(1);
  for (const char c : text) {
    constexpr std::string_view alphabet = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    const std::size_t digit = alphabet.find(c);
    if (digit == std::string_view::npos) return fail("its precompiled_charsmap is not base64");
    bits = bits << 6 | static_cast<std::uint32_t>(digit);
    if ((count += 6) >= 8) out += static_cast<char>(bits >> (count -= 8));
  }
  return out;
}

/// The normaliser's map and what becomes of blanks. Cleaning (lower case, punctuation) is the style's affair.
outcome<void> read_normalizer(const json& j, vocabulary& v) {
  std::string unsupported;
  std::optional<error> wrong;
  for_each_step(member(j, "normalizer"), "normalizers", [&](const json& step) {
    const json& type = member(step, "type");
    if (type == "Precompiled") {
      if (!member(step, "precompiled_charsmap").is_string()) return;
      auto map = decode_base64(step["precompiled_charsmap"].get_ref<const std::string&>());
      if (!map)
        wrong = map.failure();
      else
        v.charsmap = std::move(*map);
    } else if (type == "Prepend") {
      set_flag(v.flags, spm_dummy_prefix, true);
    } else if (v.is_bpe && type != "Lowercase" && !replaces_blanks(step)) {
      unsupported = type.is_string() ? type.get<std::string>() : "?";
    }
  });
  if (wrong) return *wrong;
  if (!unsupported.empty()) return fail("its normaliser " + in_quotes(unsupported) + " is not supported");
  const auto read_metaspace = [&v](const json& step) {
    if (member(step, "type") != "Metaspace") return;
    const json& scheme = member(step, "prepend_scheme");
    set_flag(v.flags, spm_dummy_prefix,
             scheme.is_string() ? scheme != "never" : member(step, "add_prefix_space") != false);
  };
  for_each_step(member(j, "pre_tokenizer"), "pretokenizers", read_metaspace);
  return {};
}

/// Puts a piece at its id; holes stay empty.
outcome<void> set_piece(vocabulary& v, std::int64_t id, std::string text, float score) {
  if (id < 0 || id >= static_cast<std::int64_t>(sentencepiece_most_pieces)) {
    return fail("the id of " + in_quotes(text) + " is out of range");
  }
  const auto at = static_cast<std::size_t>(id);
  if (at >= v.pieces.size()) v.pieces.resize(at + 1);
  if (!v.pieces[at].text.empty() && v.pieces[at].text != text) {
    return fail("the id " + std::to_string(id) + " is given to " + in_quotes(v.pieces[at].text) + " and to " +
                in_quotes(text));
  }
  v.pieces[at].text = std::move(text);
  v.pieces[at].score = score;
  return {};
}

outcome<void> read_unigram(const json& model, vocabulary& v) {
  v.flags = spm_dummy_prefix | spm_single_blanks | spm_escape_blanks;
  const json& list = member(model, "vocab");
  if (!list.is_array()) return fail("its vocabulary is not a list");
  for (const json& p : list) {
    if (!p.is_array() || p.size() != 2 || !p[0].is_string() || !p[1].is_number()) {
      return fail("piece " + std::to_string(v.pieces.size()) + " is not a text and a score");
    }
    const auto id = static_cast<std::int64_t>(v.pieces.size());
    auto set = set_piece(v, id, p[0].get<std::string>(), static_cast<float>(p[1].get<double>()));
    if (!set) return set;
  }
  const json& unk = member(model, "unk_id");
  const auto unk_id = unk.is_number_integer() ? unk.get<std::int64_t>() : -1;
  if (unk_id < 0 || unk_id >= static_cast<std::int64_t>(v.pieces.size()))
    return fail("its unk_id is missing");
  vocabulary::piece& unknown = v.pieces[static_cast<std::size_t>(unk_id)];
  unknown.type = piece_type::unknown;
  v.unk = unknown.text;
  return {};
}

outcome<void> read_bpe(const json& model, vocabulary& v) {
  v.flags = spm_escape_blanks;
  const json& pieces = member(model, "vocab");
  if (!pieces.is_object()) return fail("its vocabulary is not an object of texts and ids");
  for (const auto& [text, id] : pieces.items()) {
    if (!id.is_number_integer()) return fail("the id of " + in_quotes(text) + " is not a number");
    if (auto set = set_piece(v, id.get<std::int64_t>(), text, 0); !set) return set;
  }
  const json& merges = member(model, "merges");
  if (!merges.is_array() || merges.empty()) return fail("it has no merges");
  if (merges.size() > spm_max_merges) return fail("it has too many merges");
  v.merges.reserve(merges.size());
  for (const json& m : merges) {
    if (m.is_array() && m.size() == 2 && m[0].is_string() && m[1].is_string()) {
      v.merges.emplace_back(m[0].get<std::string>(), m[1].get<std::string>());
      continue;
    }
    const std::string text = m.is_string() ? m.get<std::string>() : std::string();
    const std::size_t gap = text.find(' ', 1);
    if (gap == std::string::npos || gap + 1 >= text.size()) {
      return fail("merge " + std::to_string(v.merges.size() + 1) + " is not two pieces");
    }
    v.merges.emplace_back(text.substr(0, gap), text.substr(gap + 1));
  }
  if (const json& unk = member(model, "unk_token"); unk.is_string()) v.unk = unk.get<std::string>();
  return {};
}

outcome<void> place_added_tokens(const json& list, vocabulary& v) {
  auto tokens = read_added_tokens(list);
  if (!tokens) return tokens.failure();
  for (added_token& t : *tokens) {
    const auto id = static_cast<std::size_t>(t.id);
    const bool is_new = id >= v.pieces.size() || v.pieces[id].text.empty();
    if (auto set = set_piece(v, t.id, t.content, is_new ? 0 : v.pieces[id].score); !set) return set;
    vocabulary::piece& p = v.pieces[id];
    if (t.special && p.type == piece_type::normal && !v.is_bpe)
      p.type = is_new ? piece_type::unused : piece_type::control;
    v.specials.emplace_back(std::move(t.content), t.id);
  }
  return {};
}

void mark_bytes(vocabulary& v) {
  for (vocabulary::piece& p : v.pieces) {
    if (sentencepiece_byte(p.text) >= 0) p.type = piece_type::byte;
  }
}

outcome<vocabulary> parse_tokenizer_json(const json& j) {
  vocabulary v;
  const json& model = member(j, "model");
  v.is_bpe = member(model, "type") != "Unigram";
  v.byte_fallback = is_true(member(model, "byte_fallback"));
  if (auto read = v.is_bpe ? read_bpe(model, v) : read_unigram(model, v); !read) return read.failure();
  if (auto read = read_normalizer(j, v); !read) return read.failure();
  if (auto read = place_added_tokens(member(j, "added_tokens"), v); !read) return read.failure();
  if (v.byte_fallback) mark_bytes(v);
  return v;
}

/// Gemma's pieces in the order of their ids, scores falling with the id. The order tells the rest: control
/// and user-defined pieces, the bytes, what training merged, the single letters, more user-defined pieces.
outcome<vocabulary> parse_piece_list(const json& j) {
  vocabulary v;
  v.is_bpe = true;
  v.byte_fallback = true;
  v.flags = spm_escape_blanks;
  std::size_t first_byte = j.size();
  if (j.size() > sentencepiece_most_pieces) return fail("it has too many pieces");
  for (const json& p : j) {
    const std::size_t id = v.pieces.size();
    if (!p.is_string() || p.get_ref<const std::string&>().empty()) {
      return fail("piece " + std::to_string(id) + " is not a text");
    }
    v.pieces.push_back({p.get<std::string>(), -static_cast<float>(id), piece_type::normal});
    if (first_byte == j.size() && sentencepiece_byte(v.pieces.back().text) == 0) first_byte = id;
  }
  if (first_byte + 256 > j.size()) return fail("the list holds no byte pieces");
  for (std::size_t b = 0; b < 256; ++b) {
    vocabulary::piece& p = v.pieces[first_byte + b];
    if (sentencepiece_byte(p.text) == static_cast<int>(b)) p.type = piece_type::byte;
  }
  std::size_t last_letter = j.size();
  while (last_letter > first_byte + 256 && !is_one_letter(v.pieces[last_letter - 1].text)) --last_letter;
  if (last_letter == first_byte + 256) last_letter = j.size();
  for (std::size_t id = 0; id < j.size(); ++id) {
    if (id >= first_byte && id < last_letter) continue;
    v.specials.emplace_back(v.pieces[id].text, static_cast<int>(id));
  }
  return v;
}

// ---- names of special tokens

outcome<void> read_token_names(const fs::path& folder, vocabulary& v) {
  const auto s = read_token_settings(folder);
  if (!s) return s.failure();
  v.eos = s->token("eos_token").value_or(v.eos);
  v.pad = s->token("pad_token").value_or(v.pad);
  v.unk = s->token("unk_token").value_or(v.unk);
  v.context = s->context();
  // Siglip2Tokenizer has no such switch.
  if (!v.is_bpe && member(s->merged, "do_lower_case") == false) v.lower_case = false;
  return {};
}

outcome<std::vector<std::byte>> build_beside(vocabulary v, const fs::path& path,
                                             const tokenizer_options& options) {
  if (auto read = read_token_names(path.parent_path(), v); !read) return read.failure();
  return build_sentencepiece(std::move(v), options);
}

/// The first ids of XLM-R, which fairseq gave them.
constexpr std::array<std::string_view, 4> xlm_roberta_first = {"<s>", "<pad>", "</s>", "<unk>"};

bool begins_as_xlm_roberta(const vocabulary& v) {
  if (v.is_bpe || v.pieces.size() < xlm_roberta_first.size()) return false;
  for (std::size_t id = 0; id < xlm_roberta_first.size(); ++id)
    if (v.pieces[id].text != xlm_roberta_first[id]) return false;
  return true;
}

/// The file's pieces (unknown, start, end, then the others) in XLM-R's order: "<pad>" is new, "<mask>" comes
/// last.
outcome<void> order_as_xlm_roberta(vocabulary& v) {
  if (begins_as_xlm_roberta(v)) return {};
  if (v.is_bpe || v.pieces.size() < 4 || v.pieces[0].text != "<unk>" || v.pieces[1].text != "<s>" ||
      v.pieces[2].text != "</s>") {
    return fail("its first pieces are not <unk>, <s>, </s>, as XLM-R's are");
  }
  std::vector<vocabulary::piece> pieces;
  pieces.reserve(v.pieces.size() + 2);
  for (const std::string_view text : xlm_roberta_first) {
    pieces.push_back({std::string(text), 0, text == "<unk>" ? piece_type::unknown : piece_type::control});
  }
  std::move(v.pieces.begin() + 3, v.pieces.end(), std::back_inserter(pieces));
  pieces.push_back({"<mask>", 0, piece_type::control});
  v.pieces = std::move(pieces);
  v.specials.clear();
  for (std::size_t id = 0; id < 4; ++id) v.specials.emplace_back(v.pieces[id].text, static_cast<int>(id));
  v.specials.emplace_back("<mask>", static_cast<int>(v.pieces.size() - 1));
  return {};
}

}  // namespace

int sentencepiece_byte(std::string_view text) {
  constexpr std::string_view digits = "0123456789ABCDEF";
  if (text.size() != 6 || !text.starts_with("<0x") || text[5] != '>') return -1;
  const std::size_t high = digits.find(text[3]);
  const std::size_t low = digits.find(text[4]);
  if (high == std::string_view::npos || low == std::string_view::npos) return -1;
  return static_cast<int>(high * 16 + low);
}

bool is_one_letter(std::string_view text) {
  std::size_t i = 0;
  if (text.empty()) return false;
  unicode::decode_one(text, i);
  return i == text.size();
}

outcome<sentencepiece_vocabulary> parse_sentencepiece_model(std::string_view bytes) {
  vocabulary v;
  v.flags = spm_dummy_prefix | spm_single_blanks | spm_escape_blanks;
  message_reader m(bytes);
  while (m.next()) {
    if (m.is(1, 2)) {
      if (v.pieces.size() == sentencepiece_most_pieces) return fail("it has too many pieces");
      auto piece = parse_piece(m.text, v.pieces.size());
      if (!piece) return piece.failure();
      v.pieces.push_back(std::move(*piece));
    } else if (m.is(2, 2)) {
      if (auto read = parse_trainer(m.text, v); !read) return read.failure();
    } else if (m.is(3, 2)) {
      if (auto read = parse_normalizer(m.text, v); !read) return read.failure();
    }
  }
  if (m.damaged()) return fail("not a SentencePiece model, or damaged");
  if (v.pieces.empty()) return fail("not a SentencePiece model: it holds no pieces");
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const vocabulary::piece& p = v.pieces[id];
    if (p.type == piece_type::unknown) v.unk = p.text;
    // transformers takes control and user-defined pieces out of the raw text.
    if (v.is_bpe && (p.type == piece_type::control || p.type == piece_type::user_defined ||
                     p.type == piece_type::unknown)) {
      v.specials.emplace_back(p.text, static_cast<int>(id));
    }
  }
  return v;
}

bool is_sentencepiece_json(const json& j) {
  if (j.is_array()) return !j.empty() && j[0].is_string();
  const json& model = member(j, "model");
  if (!model.is_object()) return false;
  if (member(model, "type") == "Unigram") return true;
  if (!member(model, "vocab").is_object()) return false;
  bool blanks = is_true(member(model, "byte_fallback"));
  for_each_step(member(j, "normalizer"), "normalizers",
                [&](const json& s) { blanks = blanks || replaces_blanks(s); });
  return blanks;
}

outcome<std::vector<std::byte>> build_sentencepiece_json(const json& j, const fs::path& path,
                                                         const tokenizer_options& options) {
  auto v = j.is_array() ? parse_piece_list(j) : parse_tokenizer_json(j);
  if (!v) return v.failure();
  v->is_xlm_roberta = begins_as_xlm_roberta(*v);
  return build_beside(std::move(*v), path, options);
}

outcome<std::vector<std::byte>> build_sentencepiece_model(const fs::path& path,
                                                          const tokenizer_options& options) {
  auto bytes = read_text_file(path);
  if (!bytes) return bytes.failure();
  auto v = parse_sentencepiece_model(*bytes);
  if (!v) return v.failure();
  const auto settings = read_token_settings(path.parent_path());
  if (!settings) return settings.failure();
  v->is_xlm_roberta = options.style == text_style::xlm_roberta_openclip ||
                      path.filename() == "sentencepiece.bpe.model" ||
                      settings->token("tokenizer_class").value_or("").starts_with("XLMRoberta");
  if (v->is_xlm_roberta) {
    if (auto ordered = order_as_xlm_roberta(*v); !ordered) return ordered.failure();
  }
  return build_beside(std::move(*v), path, options);
}

}  // namespace ocellus::convert
