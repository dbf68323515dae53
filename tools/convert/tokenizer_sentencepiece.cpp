#include "tokenizer_sentencepiece.hpp"

#include "byte_source.hpp"
#include "double_array_builder.hpp"
#include "json.hpp"

#include <ocellus/text/sentencepiece.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <unordered_map>
#include <unordered_set>

namespace ocellus::convert {

namespace fs = std::filesystem;
using nlohmann::json;

namespace {

using vocabulary = sentencepiece_vocabulary;
using piece_type = vocabulary::piece_type;

constexpr std::size_t most_pieces = 1'000'000;
constexpr std::size_t most_specials = 65536;
constexpr std::string_view blank = ocellus::detail::spm_blank;

error fail(std::string what) { return error{std::move(what)}; }

std::string in_quotes(std::string_view text) { return "\"" + printable(text, 60) + "\""; }

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

/// Bytes of a piece of the form "<0x41>", or -1.
int byte_of(std::string_view text) {
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

/// The value of `key` if it is an object with such a key, else null.
const json& member(const json& j, const char* key) {
  static const json nothing;
  if (!j.is_object()) return nothing;
  const auto at = j.find(key);
  return at == j.end() ? nothing : *at;
}

bool is_true(const json& j) { return j.is_boolean() && j.get<bool>(); }

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
         member(step, "content") == blank;
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
  if (id < 0 || id >= static_cast<std::int64_t>(most_pieces)) {
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
  if (!unk.is_number_unsigned() || unk.get<std::uint64_t>() >= v.pieces.size())
    return fail("its unk_id is missing");
  vocabulary::piece& unknown = v.pieces[unk.get<std::size_t>()];
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

outcome<void> read_added_tokens(const json& list, vocabulary& v) {
  if (list.is_null()) return {};
  if (!list.is_array() || list.size() > most_specials) return fail("added_tokens is not a list");
  for (const json& t : list) {
    const json& content = member(t, "content");
    const json& id = member(t, "id");
    if (!content.is_string() || !id.is_number_integer()) return fail("an added token lacks its text or id");
    auto text = content.get<std::string>();
    if (is_true(member(t, "single_word"))) {
      return fail("the added token " + in_quotes(text) + " asks for word boundaries, which is not supported");
    }
    if (auto set = set_piece(v, id.get<std::int64_t>(), text, 0); !set) return set;
    vocabulary::piece& p = v.pieces[id.get<std::size_t>()];
    const bool is_control = is_true(member(t, "special")) && p.type == piece_type::normal && !v.is_bpe;
    if (is_control) p.type = piece_type::control;
    v.specials.emplace_back(std::move(text), id.get<int>());
  }
  return {};
}

void mark_bytes(vocabulary& v) {
  for (vocabulary::piece& p : v.pieces) {
    if (byte_of(p.text) >= 0) p.type = piece_type::byte;
  }
}

outcome<vocabulary> parse_tokenizer_json(const json& j) {
  vocabulary v;
  const json& model = member(j, "model");
  v.is_bpe = member(model, "type") != "Unigram";
  v.byte_fallback = is_true(member(model, "byte_fallback"));
  if (auto read = v.is_bpe ? read_bpe(model, v) : read_unigram(model, v); !read) return read.failure();
  if (auto read = read_normalizer(j, v); !read) return read.failure();
  if (auto read = read_added_tokens(member(j, "added_tokens"), v); !read) return read.failure();
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
  if (j.size() > most_pieces) return fail("it has too many pieces");
  for (const json& p : j) {
    const std::size_t id = v.pieces.size();
    if (!p.is_string() || p.get_ref<const std::string&>().empty()) {
      return fail("piece " + std::to_string(id) + " is not a text");
    }
    v.pieces.push_back({p.get<std::string>(), -static_cast<float>(id), piece_type::normal});
    if (first_byte == j.size() && byte_of(v.pieces.back().text) == 0) first_byte = id;
  }
  if (first_byte + 256 > j.size()) return fail("the list holds no byte pieces");
  for (std::size_t b = 0; b < 256; ++b) {
    vocabulary::piece& p = v.pieces[first_byte + b];
    if (byte_of(p.text) == static_cast<int>(b)) p.type = piece_type::byte;
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

std::optional<std::string> token_text(const json& t) {
  if (t.is_string()) return t.get<std::string>();
  const json& content = member(t, "content");
  return content.is_string() ? std::optional(content.get<std::string>()) : std::nullopt;
}

outcome<void> read_token_names(const fs::path& folder, vocabulary& v) {
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    std::error_code ignored;
    if (!fs::is_regular_file(folder / name, ignored)) continue;
    auto j = read_json(folder / name);
    if (!j) return fail(std::string(name) + ": " + j.failure().what);
    if (auto t = token_text(member(*j, "eos_token"))) v.eos = *t;
    if (auto t = token_text(member(*j, "pad_token"))) v.pad = *t;
    if (auto t = token_text(member(*j, "unk_token"))) v.unk = *t;
    const json& length = member(*j, "model_max_length");
    if (!length.is_number_integer()) continue;
    const auto n = length.get<std::int64_t>();
    if (n >= 2 && n <= 4096) v.context = static_cast<int>(n);  // others mean "no limit"
  }
  return {};
}

// ---- the blob

using id_map = std::unordered_map<std::string_view, std::uint32_t>;

/// Everything that goes into the blob's sections.
struct tables {
  spm_info info{};
  std::vector<std::uint32_t> charsmap;
  std::string replacements;
  std::vector<std::int32_t> bytes;
  std::vector<std::uint32_t> specials;
  // unigram
  std::vector<std::uint32_t> user_defined;
  std::vector<std::uint32_t> pieces;
  std::vector<float> scores;
  // BPE
  std::vector<spm_letter> letters;
  std::vector<std::uint64_t> merges;
  std::vector<std::uint32_t> merged;
};

outcome<void> check_pieces(const vocabulary& v) {
  if (v.pieces.empty()) return fail("it holds no pieces");
  if (v.pieces.size() > most_pieces) return fail("it has too many pieces");
  std::unordered_set<std::string_view> seen;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const vocabulary::piece& p = v.pieces[id];
    const std::string where = "piece " + std::to_string(id) + " " + in_quotes(p.text);
    if (!is_utf8(p.text)) return fail(where + " is not UTF-8");
    if (p.text.size() > spm_max_special) return fail(where + " is too long");
    if (!std::isfinite(p.score)) return fail(where + " has no finite score");
    if (!p.text.empty() && !seen.insert(p.text).second) return fail(where + " occurs twice");
  }
  return {};
}

/// SentencePiece's packed map: the size of the double array in bytes, the array, the replacements.
outcome<void> add_charsmap(const std::string& packed, tables& t) {
  if (packed.empty()) return {};
  const error damaged = {"its precompiled_charsmap is damaged"};
  if (packed.size() < 4) return damaged;
  const std::size_t size = load_u32(reinterpret_cast<const std::byte*>(packed.data()));
  if (size == 0 || size % 4 != 0 || size >= packed.size() - 4) return damaged;
  t.charsmap.resize(size / 4);
  for (std::size_t i = 0; i < t.charsmap.size(); ++i) {
    t.charsmap[i] = load_u32(reinterpret_cast<const std::byte*>(packed.data()) + 4 + 4 * i);
  }
  t.replacements = packed.substr(4 + size);
  if (t.replacements.back() != '\0' || !is_utf8(t.replacements)) return damaged;
  for (std::size_t at = 0; at < t.replacements.size();) {
    const std::size_t end = t.replacements.find('\0', at);
    if (end - at > spm_max_replacement) return damaged;
    at = end + 1;
  }
  return {};
}

/// Ids of the 256 bytes. Gemma's list has a tab in the place of byte 9.
outcome<void> add_bytes(const vocabulary& v, tables& t) {
  if (!v.byte_fallback) return {};
  std::vector<std::int32_t> ids(256, -1);
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const int byte = v.pieces[id].type == piece_type::byte ? byte_of(v.pieces[id].text) : -1;
    if (byte >= 0) ids[static_cast<std::size_t>(byte)] = static_cast<std::int32_t>(id);
  }
  for (std::size_t b = 0; b < 256; ++b) {
    if (ids[b] >= 0) continue;
    const bool in_order = b > 0 && b < 255 && ids[b - 1] >= 0 && ids[b + 1] == ids[b - 1] + 2;
    if (!in_order ||
        v.pieces[static_cast<std::size_t>(ids[b - 1] + 1)].text != std::string(1, static_cast<char>(b))) {
      return fail("it lacks the piece of byte " + std::to_string(b) + " although it falls back to bytes");
    }
    ids[b] = ids[b - 1] + 1;
  }
  t.bytes = std::move(ids);
  return {};
}

outcome<void> add_specials(const vocabulary& v, text_style style, const id_map& ids, tables& t) {
  std::vector<double_array_entry> entries;
  std::unordered_set<std::string_view> seen;
  const auto add = [&](std::string_view text, std::uint32_t id) {
    if (!text.empty() && seen.insert(text).second) entries.emplace_back(text, id);
  };
  if (style == text_style::siglip_hf) {
    for (const std::string* name : {&v.eos, &v.unk, &v.pad}) {
      if (const auto at = ids.find(*name); at != ids.end()) add(*name, at->second);
    }
  } else if (style != text_style::siglip_openclip || v.is_bpe) {
    for (const auto& [text, id] : v.specials) add(text, static_cast<std::uint32_t>(id));
  }
  auto built = build_double_array(std::move(entries));
  if (!built) return fail("special tokens: " + built.failure().what);
  t.specials = std::move(*built);
  return {};
}

outcome<void> add_unigram(const vocabulary& v, tables& t) {
  std::vector<double_array_entry> entries;
  std::vector<double_array_entry> user_defined;
  // The library starts the largest score with the smallest positive float.
  float lowest = std::numeric_limits<float>::max();
  float highest = std::numeric_limits<float>::min();
  for (std::size_t i = 0; i < v.pieces.size(); ++i) {
    const vocabulary::piece& p = v.pieces[i];
    const auto id = static_cast<std::uint32_t>(i);
    t.scores.push_back(p.score);
    if (p.text.empty()) continue;
    if (p.type == piece_type::normal) {
      lowest = std::min(lowest, p.score);
      highest = std::max(highest, p.score);
      entries.emplace_back(p.text, id);
    } else if (p.type == piece_type::user_defined) {
      entries.emplace_back(p.text, id | spm_user_defined);
      user_defined.emplace_back(p.text, id);
    } else {
      continue;
    }
    if (p.text.size() > spm_max_piece) return fail("the piece " + in_quotes(p.text) + " is too long");
    t.info.longest_piece = std::max(t.info.longest_piece, static_cast<std::uint32_t>(p.text.size()));
  }
  if (entries.empty()) return fail("it holds no pieces but special ones");
  t.info.unknown_score = lowest - 10.0f;  // the library's kUnkPenalty
  t.info.user_defined_score = highest;
  auto pieces = build_double_array(std::move(entries));
  if (!pieces) return pieces.failure();
  auto kept = build_double_array(std::move(user_defined));
  if (!kept) return kept.failure();
  t.pieces = std::move(*pieces);
  t.user_defined = std::move(*kept);
  return {};
}

/// Puts items into an open-addressing table of at most 60 % load; returns the most slots that a search looks
/// at.
template <class T, class Key, class IsFree>
std::uint32_t fill_table(const std::vector<T>& items, T free, Key&& key, IsFree&& is_free,
                         std::vector<T>& table) {
  table.assign(std::bit_ceil(std::max<std::size_t>(items.size() * 5 / 3, 2)), free);
  const int bits = std::countr_zero(table.size());
  std::uint32_t most = 0;
  for (const T& item : items) {
    std::size_t slot = spm_slot(key(item), bits);
    std::uint32_t probes = 1;
    for (; !is_free(table[slot]) && key(table[slot]) != key(item); ++probes) slot = (slot + 1) % table.size();
    table[slot] = item;
    most = std::max(most, probes);
  }
  return most;
}

/// A merge to be: the pieces it joins, and its place in the order.
struct merge_rule {
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t rank;
};

/// The merges that the file lists.
outcome<std::vector<merge_rule>> listed_merges(const vocabulary& v, const id_map& ids, tables& t) {
  std::vector<merge_rule> rules;
  for (const auto& [left, right] : v.merges) {
    const auto rank = static_cast<std::uint32_t>(rules.size());
    const auto l = ids.find(left);
    const auto r = ids.find(right);
    const std::string whole = left + right;
    const auto m = ids.find(whole);
    if (l == ids.end() || r == ids.end() || m == ids.end()) {
      const std::string& missing = l == ids.end() ? left : r == ids.end() ? right : whole;
      return fail("merge " + std::to_string(rank + 1) + ": the vocabulary lacks " + in_quotes(missing));
    }
    rules.push_back({l->second, r->second, rank});
    t.merged.push_back(m->second);
  }
  return rules;
}

/// The merges that follow from the scores: any two pieces that join into a third, the highest score first.
outcome<std::vector<merge_rule>> merges_by_score(const vocabulary& v, const id_map& ids, tables& t) {
  std::vector<std::uint32_t> order;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const piece_type type = v.pieces[id].type;
    if (type == piece_type::normal || type == piece_type::user_defined)
      order.push_back(static_cast<std::uint32_t>(id));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&v](std::uint32_t a, std::uint32_t b) { return v.pieces[a].score > v.pieces[b].score; });
  std::vector<merge_rule> rules;
  for (const std::uint32_t id : order) {
    const std::string_view text = v.pieces[id].text;
    const auto rank = static_cast<std::uint32_t>(t.merged.size());
    const std::size_t before = rules.size();
    for (std::size_t cut = 0; cut < text.size();) {
      unicode::decode_one(text, cut);
      const auto left = ids.find(text.substr(0, cut));
      const auto right = ids.find(text.substr(cut));
      if (cut < text.size() && left != ids.end() && right != ids.end()) {
        rules.push_back({left->second, right->second, rank});
      }
    }
    if (rules.size() > before) t.merged.push_back(id);
  }
  return rules;
}

/// True if no merge joins a blank behind another letter.
bool keeps_words_apart(const vocabulary& v, const tables& t) {
  return std::all_of(t.merged.begin(), t.merged.end(), [&v](std::uint32_t id) {
    std::string_view text = v.pieces[id].text;
    while (text.starts_with(blank)) text.remove_prefix(blank.size());
    return text.find(blank) == std::string_view::npos;
  });
}

outcome<void> add_bpe(const vocabulary& v, const id_map& ids, tables& t) {
  if (v.pieces.size() > spm_max_bpe_ids) return fail("it has too many pieces");
  std::vector<spm_letter> letters;
  for (const auto& [text, id] : ids) {
    if (!is_one_letter(text)) continue;
    std::size_t at = 0;
    letters.push_back(
        {static_cast<std::uint32_t>(unicode::decode_one(text, at)), static_cast<std::int32_t>(id)});
  }
  std::sort(letters.begin(), letters.end(),
            [](const spm_letter& a, const spm_letter& b) { return a.letter < b.letter; });
  auto rules = v.merges.empty() ? merges_by_score(v, ids, t) : listed_merges(v, ids, t);
  if (!rules) return rules.failure();
  if (t.merged.empty()) return fail("it has no merges");
  if (t.merged.size() > spm_max_merges) return fail("it has too many merges");
  std::vector<std::uint64_t> merges;
  merges.reserve(rules->size());
  for (const merge_rule& r : *rules) merges.push_back(spm_merge_key(r.left, r.right) << 24 | r.rank);
  t.info.letter_probes = fill_table(
      letters, spm_letter{0, -1}, [](const spm_letter& l) { return std::uint64_t{l.letter}; },
      [](const spm_letter& l) { return l.id < 0; }, t.letters);
  t.info.merge_probes = fill_table(
      merges, spm_free_merge, [](std::uint64_t m) { return m >> 24; },
      [](std::uint64_t m) { return m == spm_free_merge; }, t.merges);
  if (std::max(t.info.letter_probes, t.info.merge_probes) > spm_max_probes) {
    return fail("its merges cannot be put into a table");
  }
  if (keeps_words_apart(v, t)) t.info.flags |= spm_whole_words;
  return {};
}

std::vector<std::byte> write_blob(const tokenizer_header& header, const tables& t, bool is_bpe) {
  tokenizer_blob_writer writer;
  writer.header = header;
  writer.add(0, std::span<const spm_info>(&t.info, 1));
  writer.add<std::uint32_t>(1, t.charsmap);
  writer.add<char>(2, t.replacements);
  writer.add<std::int32_t>(3, t.bytes);
  writer.add<std::uint32_t>(4, t.specials);
  if (is_bpe) {
    writer.add<spm_letter>(5, t.letters);
    writer.add<std::uint64_t>(6, t.merges);
    writer.add<std::uint32_t>(7, t.merged);
  } else {
    writer.add<std::uint32_t>(5, t.user_defined);
    writer.add<std::uint32_t>(6, t.pieces);
    writer.add<float>(7, t.scores);
  }
  return writer.finish();
}

outcome<std::vector<std::byte>> build_beside(vocabulary v, const fs::path& path,
                                             const tokenizer_options& options) {
  if (auto read = read_token_names(path.parent_path(), v); !read) return read.failure();
  return build_sentencepiece(std::move(v), options);
}

}  // namespace

outcome<sentencepiece_vocabulary> parse_sentencepiece_model(std::string_view bytes) {
  vocabulary v;
  v.flags = spm_dummy_prefix | spm_single_blanks | spm_escape_blanks;
  message_reader m(bytes);
  while (m.next()) {
    if (m.is(1, 2)) {
      if (v.pieces.size() == most_pieces) return fail("it has too many pieces");
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

outcome<std::vector<std::byte>> build_sentencepiece(sentencepiece_vocabulary v,
                                                    const tokenizer_options& options) {
  const text_style style = options.style.value_or(v.is_bpe ? text_style::siglip2 : text_style::siglip_hf);
  if (style == text_style::clip_openclip || style == text_style::clip_hf) {
    return fail(std::string("a SentencePiece vocabulary cannot be used in the style ") + to_string(style));
  }
  if (auto good = check_pieces(v); !good) return good.failure();
  if (options.vocab_size && v.pieces.size() > static_cast<std::size_t>(*options.vocab_size)) {
    return fail("has ids up to " + std::to_string(v.pieces.size() - 1) + ", the model only " +
                std::to_string(*options.vocab_size) + " rows");
  }
  id_map ids;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    if (!v.pieces[id].text.empty()) ids.emplace(v.pieces[id].text, static_cast<std::uint32_t>(id));
  }
  const auto find = [&ids](const std::string& text) -> std::optional<int> {
    const auto at = ids.find(text);
    return at == ids.end() ? std::nullopt : std::optional(static_cast<int>(at->second));
  };
  for (const char* name : {"</s>", "<eos>"}) {
    // Gemma has "</s>" as an HTML tag.
    if ((!find(v.eos) || (v.is_bpe && find("<eos>"))) && find(name)) v.eos = name;
  }
  const std::optional<int> eos = find(v.eos);
  if (!eos) return fail("it lacks the end of text, \"</s>\" or \"<eos>\"");
  if (v.pad.empty()) v.pad = v.is_bpe ? "<pad>" : v.eos;

  tables t;
  t.info.flags = v.flags;
  if (auto added = add_charsmap(v.charsmap, t); !added) return added.failure();
  if (auto added = add_bytes(v, t); !added) return added.failure();
  if (auto added = add_specials(v, style, ids, t); !added) return added.failure();
  if (auto added = v.is_bpe ? add_bpe(v, ids, t) : add_unigram(v, t); !added) return added.failure();

  tokenizer_header h{};
  const bool openclip = style == text_style::siglip_openclip || style == text_style::siglip2_openclip;
  h.kind = static_cast<std::uint32_t>(v.is_bpe ? tokenizer_kind::spm_bpe : tokenizer_kind::unigram);
  h.style = static_cast<std::uint32_t>(style);
  h.cleaning = static_cast<std::uint32_t>(
      options.cleaning.value_or(openclip ? text_cleaning::canonicalize : text_cleaning::lower));
  h.flags = tokenizer_add_eot | (t.bytes.empty() ? 0 : tokenizer_byte_fallback);
  h.context = options.context.value_or(v.context.value_or(64));
  h.vocab_size = static_cast<std::int32_t>(v.pieces.size());
  h.sot = -1;
  h.eot = *eos;
  h.pad = options.pad.value_or(find(v.pad).value_or(*eos));
  h.unk = find(v.unk).value_or(-1);
  if (t.bytes.empty() && h.unk < 0) return fail("it lacks the unknown piece " + in_quotes(v.unk));
  return write_blob(h, t, v.is_bpe);
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
  return build_beside(std::move(*v), path, options);
}

outcome<std::vector<std::byte>> build_sentencepiece_model(const fs::path& path,
                                                          const tokenizer_options& options) {
  auto bytes = read_text_file(path);
  if (!bytes) return bytes.failure();
  auto v = parse_sentencepiece_model(*bytes);
  if (!v) return v.failure();
  return build_beside(std::move(*v), path, options);
}

}  // namespace ocellus::convert
