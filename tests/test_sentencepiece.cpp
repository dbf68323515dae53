// SentencePiece: goldens of the four styles, the encoders against plain versions of the library's algorithms,
// the readers of its files, and hostile data on every side.
#include "double_array_builder.hpp"
#include "json.hpp"
#include "test_files.hpp"
#include "tokenizer_sentencepiece.hpp"

#include <ocellus/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <bit>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <map>
#include <optional>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ocellus;
namespace fs = std::filesystem;
using convert::build_sentencepiece;
using convert::sentencepiece_vocabulary;
using convert::tokenizer_options;
using nlohmann::json;
using type = sentencepiece_vocabulary::piece_type;
using bytes = std::vector<std::byte>;
using ids = std::vector<std::int32_t>;

constexpr const char* blank = "\xE2\x96\x81";

fs::path tokenizer_data() { return test_files::shared() / "tokenizers"; }

/// The blob of a shared vocabulary, or nothing, with a message.
std::optional<bytes> shared_tokenizer(const char* vocabulary, text_style style) {
  const fs::path path = tokenizer_data() / "vocab" / vocabulary;
  if (!fs::exists(path)) {
    MESSAGE("skipped: no " << path.string() << " (set OCELLUS_SHARED)");
    return std::nullopt;
  }
  tokenizer_options options;
  options.style = style;
  auto blob = convert::build_tokenizer(path, options);
  REQUIRE_MESSAGE(blob, (blob ? "" : blob.failure().what));
  return std::move(*blob);
}

/// Ids without padding, EOT taken off; the context is long enough for all of them.
ids encode(const bytes& blob, std::string_view text) {
  const auto t = tokenizer::open(blob);
  REQUIRE(t);
  ids out(text.size() * 4 + 16);
  const auto encoded = t->encode(text, out);
  REQUIRE(encoded);
  REQUIRE(!encoded->truncated);
  out.resize(static_cast<std::size_t>(encoded->count) - 1);
  return out;
}

struct golden_count {
  int rows = 0;
  int wrong = 0;
};

golden_count compare_with_golden(const bytes& blob, const char* file) {
  std::ifstream in(tokenizer_data() / "golden" / file);
  const auto t = tokenizer::open(blob);
  REQUIRE(t);
  golden_count n;
  ids got(static_cast<std::size_t>(t->context()));
  for (std::string line; std::getline(in, line);) {
    const json row = json::parse(line);
    if (row.value("unstable", false)) continue;
    ++n.rows;
    REQUIRE(t->encode(row["text"].get<std::string>(), got));
    if (row["ids"] == json(got)) continue;
    if (++n.wrong <= 3) MESSAGE(file << ": " << row["text"].dump());
  }
  return n;
}

sentencepiece_vocabulary unigram_vocabulary(const std::vector<std::pair<std::string, float>>& pieces) {
  sentencepiece_vocabulary v;
  v.flags = spm_escape_blanks;
  v.pieces = {{"<pad>", 0, type::control}, {"</s>", 0, type::control}, {"<unk>", 0, type::unknown}};
  for (const auto& [text, score] : pieces) v.pieces.push_back({text, score, type::normal});
  return v;
}

sentencepiece_vocabulary bpe_vocabulary(const std::vector<std::string>& pieces) {
  sentencepiece_vocabulary v;
  v.is_bpe = true;
  v.flags = spm_escape_blanks;
  v.pieces = {{"<pad>", 0, type::control}, {"<eos>", 0, type::control}, {"<unk>", 0, type::unknown}};
  for (const std::string& text : pieces) {
    v.pieces.push_back({text, -static_cast<float>(v.pieces.size()), type::normal});
  }
  return v;
}

void add_bytes(sentencepiece_vocabulary& v) {
  constexpr const char* digits = "0123456789ABCDEF";
  v.byte_fallback = true;
  for (unsigned b = 0; b < 256; ++b) {
    v.pieces.push_back({std::string("<0x") + digits[b / 16] + digits[b % 16] + ">", 0, type::byte});
  }
}

/// Without cleaning, so that the encoder gets what the test says.
bytes build(const sentencepiece_vocabulary& v) {
  tokenizer_options options;
  options.style = text_style::siglip_openclip;
  options.cleaning = text_cleaning::none;
  auto blob = build_sentencepiece(v, options);
  REQUIRE_MESSAGE(blob, (blob ? "" : blob.failure().what));
  return std::move(*blob);
}

std::string build_error(const sentencepiece_vocabulary& v, const tokenizer_options& options = {}) {
  const auto blob = build_sentencepiece(v, options);
  return blob ? "" : blob.failure().what;
}

/// Viterbi over the whole text, as the library writes it down; ASCII only.
ids plain_unigram(const std::map<std::string, std::pair<int, float>>& pieces, float unknown,
                  const std::string& text) {
  struct node {
    float score = 0;
    int from = -1;
    int id = 0;
  };
  std::vector<node> best(text.size() + 1);
  for (std::size_t at = 0; at < text.size(); ++at) {
    bool single = false;
    const auto offer = [&](std::size_t end, float score, int id) {
      const float sum = score + best[at].score;
      if (best[end].from < 0 || sum > best[end].score) best[end] = {sum, static_cast<int>(at), id};
    };
    for (std::size_t end = at + 1; end <= text.size(); ++end) {
      const auto p = pieces.find(text.substr(at, end - at));
      if (p == pieces.end()) continue;
      offer(end, p->second.second, p->second.first);
      single = single || end == at + 1;
    }
    if (!single) offer(at + 1, unknown, 2);
  }
  ids out;
  for (std::size_t at = text.size(); at > 0; at = static_cast<std::size_t>(best[at].from)) {
    if (best[at].id != 2 || out.empty() || out.back() != 2) out.push_back(best[at].id);
  }
  std::reverse(out.begin(), out.end());
  return out;
}

/// The first of the pieces with the lowest id that two neighbours make is joined, until there is none.
ids plain_bpe(const std::map<std::string, int>& pieces, const std::string& text) {
  std::vector<std::string> symbols;
  for (const char c : text) symbols.emplace_back(1, c);
  for (;;) {
    int best = 1 << 30;
    std::size_t at = 0;
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto p = pieces.find(symbols[i] + symbols[i + 1]);
      if (p == pieces.end() || p->second >= best) continue;
      best = p->second;
      at = i;
    }
    if (best == 1 << 30) break;
    symbols[at] += symbols[at + 1];
    symbols.erase(symbols.begin() + static_cast<std::ptrdiff_t>(at) + 1);
  }
  ids out;
  for (const std::string& s : symbols) out.push_back(pieces.at(s));
  return out;
}

// A writer of protobuf messages, for files that are made wrong on purpose.
std::string varint(std::uint64_t n) {
  std::string out;
  for (; n >= 0x80; n >>= 7) out += static_cast<char>(0x80 | (n & 0x7F));
  return out + static_cast<char>(n);
}
std::string field(unsigned number, std::uint64_t value) { return varint(number << 3) + varint(value); }
std::string field(unsigned number, const std::string& text) {
  return varint(number << 3 | 2) + varint(text.size()) + text;
}
std::string model_piece(const std::string& text, float score, type t) {
  const auto bits = std::bit_cast<std::uint32_t>(score);
  std::string number;
  for (unsigned i = 0; i < 4; ++i) number += static_cast<char>(bits >> (8 * i));
  return field(1, field(1, text) + varint(2 << 3 | 5) + number + field(3, static_cast<std::uint64_t>(t)));
}

/// A packed map that replaces A by a, and the letter fi (U+FB01) by "fi".
std::string small_charsmap() {
  const std::string ligature = "\xEF\xAC\x81";
  const auto trie = convert::build_double_array({{"A", 0}, {ligature, 2}});
  REQUIRE(trie);
  std::string packed;
  const auto add = [&packed](std::uint32_t n) {
    for (unsigned i = 0; i < 4; ++i) packed += static_cast<char>(n >> (8 * i));
  };
  add(static_cast<std::uint32_t>(4 * trie->size()));
  for (const std::uint32_t unit : *trie) add(unit);
  return packed + std::string("a\0fi\0", 5);
}

std::string small_model() {
  std::string m = model_piece("<pad>", 0, type::control) + model_piece("</s>", 0, type::control) +
                  model_piece("<unk>", 0, type::unknown);
  float score = -1;
  for (const char* text : {"a", "b", "fi", "ab", "\xE2\x96\x81",
                           "\xE2\x96\x81"
                           "ab"}) {
    m += model_piece(text, score, type::normal);
    score -= 0.5f;
  }
  m += model_piece("<x>", 0, type::user_defined);
  m += field(2, field(3, 1) + field(40, 2));
  m += field(3, field(1, std::string("test")) + field(2, small_charsmap()) + field(3, 1));
  return m;
}

std::string repeated(std::string_view part, std::size_t size) {
  std::string out;
  while (out.size() < size) out += part;
  return out;
}

}  // namespace

TEST_CASE("siglip-hf and siglip-openclip: all stable golden lines are id-exact, from either file") {
  for (const char* vocabulary : {"siglip/spiece.model", "siglip/tokenizer.json"}) {
    const auto hf = shared_tokenizer(vocabulary, text_style::siglip_hf);
    if (!hf) return;
    const golden_count a = compare_with_golden(*hf, "siglip-hf.jsonl");
    CHECK(a.rows > 5000);
    CHECK(a.wrong == 0);
    const auto openclip = shared_tokenizer(vocabulary, text_style::siglip_openclip);
    CHECK(compare_with_golden(*openclip, "siglip-openclip.jsonl").wrong == 0);
  }
}

TEST_CASE("siglip2 and siglip2-openclip: all stable golden lines are id-exact") {
  const auto hf = shared_tokenizer("siglip2/siglip2_vocab.json", text_style::siglip2);
  if (!hf) return;
  const golden_count a = compare_with_golden(*hf, "siglip2.jsonl");
  CHECK(a.rows > 5000);
  CHECK(a.wrong == 0);
  const auto openclip = shared_tokenizer("siglip2/siglip2_vocab.json", text_style::siglip2_openclip);
  CHECK(compare_with_golden(*openclip, "siglip2-openclip.jsonl").wrong == 0);
}

TEST_CASE("invalid UTF-8: siglip-hf gives the ids of the repaired text") {
  const auto blob = shared_tokenizer("siglip/spiece.model", text_style::siglip_hf);
  std::ifstream in(tokenizer_data() / "golden" / "invalid-utf8.jsonl");
  if (!blob || !in) return;
  for (std::string line; std::getline(in, line);) {
    const json row = json::parse(line);
    std::string text;
    const auto hex = row["hex"].get<std::string>();
    for (std::size_t i = 0; i < hex.size(); i += 2) {
      text += static_cast<char>(std::stoi(hex.substr(i, 2), nullptr, 16));
    }
    const auto t = tokenizer::open(*blob);
    ids got(64);
    const auto encoded = t->encode(text, got);
    REQUIRE(encoded);
    got.resize(static_cast<std::size_t>(encoded->count));
    CHECK_MESSAGE(json(got) == row["siglip_hf"], row.dump());
  }
}

TEST_CASE("unigram: the encoder equals Viterbi over the whole text, ties and rounding included") {
  std::mt19937 random(1);
  for (int round = 0; round < 40; ++round) {
    std::map<std::string, std::pair<int, float>> pieces;
    std::vector<std::pair<std::string, float>> list;
    float lowest = 0;
    for (int i = 0; i < 30; ++i) {
      std::string text;
      for (std::size_t n = 1 + random() % 5; n > 0; --n) text += static_cast<char>('a' + random() % 3);
      // Few different scores, so that equally good ways are common.
      const float score = -static_cast<float>(1 + random() % 4) * 1.7f * static_cast<float>(text.size());
      if (!pieces.emplace(text, std::pair(static_cast<int>(3 + list.size()), score)).second) continue;
      list.emplace_back(text, score);
      lowest = std::min(lowest, score);
    }
    const bytes blob = build(unigram_vocabulary(list));
    for (std::size_t size : {0u, 1u, 2u, 7u, 50u, 400u}) {
      std::string text;
      for (std::size_t i = 0; i < size; ++i)
        text += static_cast<char>('a' + random() % 4);  // "d" is no piece
      CHECK(encode(blob, text) == plain_unigram(pieces, lowest - 10.0f, text));
    }
  }
}

TEST_CASE("BPE: the encoder equals the plain algorithm for short and long words") {
  std::mt19937 random(2);
  for (int round = 0; round < 40; ++round) {
    std::vector<std::string> list = {"a", "b", "c"};
    std::map<std::string, int> pieces = {{"a", 3}, {"b", 4}, {"c", 5}};
    while (list.size() < 40) {
      const std::string text = list[random() % list.size()] + list[random() % list.size()];
      if (pieces.emplace(text, static_cast<int>(3 + list.size())).second) list.push_back(text);
    }
    const bytes blob = build(bpe_vocabulary(list));
    for (std::size_t size : {0u, 1u, 2u, 7u, 47u, 48u, 49u, 50u, 300u}) {
      std::string text;
      for (std::size_t i = 0; i < size; ++i) text += static_cast<char>('a' + random() % 3);
      CHECK(encode(blob, text) == plain_bpe(pieces, text));
    }
  }
}

TEST_CASE("unigram: the normaliser maps letters, puts a blank in front and keeps single blanks") {
  sentencepiece_vocabulary v = unigram_vocabulary(
      {{blank, -2.0f}, {blank + std::string("a"), -3.0f}, {"a", -1.0f}, {"f", -1.0f}, {"i", -1.0f}});
  v.flags = spm_escape_blanks | spm_dummy_prefix | spm_single_blanks;
  v.charsmap = small_charsmap();
  const bytes blob = build(v);
  CHECK(encode(blob, "") == ids{});
  CHECK(encode(blob, "   ") == ids{});
  CHECK(encode(blob, "A") == ids{4});  // -3 as with two pieces: the way found first wins
  CHECK(encode(blob, "  a   a  ") == ids{4, 4});
  CHECK(encode(blob, "\xEF\xAC\x81") == ids{3, 6, 7});
}

TEST_CASE("unknown letters become their bytes, or one unknown piece for a run of them") {
  sentencepiece_vocabulary unigram = unigram_vocabulary({{"a", -1.0f}});
  sentencepiece_vocabulary bpe = bpe_vocabulary({"a", "b", "ab"});
  CHECK(encode(build(unigram), "a\xC3\xA9xa") == ids{3, 2, 3});
  CHECK(encode(build(bpe), "a\xC3\xA9xa") == ids{3, 2, 3});
  add_bytes(unigram);
  add_bytes(bpe);
  CHECK(encode(build(unigram), "a\xC3\xA9") == ids{3, 4 + 0xC3, 4 + 0xA9});
  CHECK(encode(build(bpe), "a\xC3\xA9") == ids{3, 6 + 0xC3, 6 + 0xA9});
  CHECK(encode(build(bpe), std::string_view("a\0b", 3)) == ids{3, 6, 4});
}

TEST_CASE("unigram: user-defined pieces pass the normaliser and win over better scores") {
  sentencepiece_vocabulary v = unigram_vocabulary({{"a", -0.1f}, {"A", -0.1f}, {"x", -0.1f}});
  v.pieces.push_back({"Ax", 0, type::user_defined});
  v.charsmap = small_charsmap();
  CHECK(encode(build(v), "AAx") == ids{3, 6});
}

TEST_CASE("siglip2 style: special texts are found in the raw text, the rest is lowered") {
  sentencepiece_vocabulary v = bpe_vocabulary({"a", "b", "ab", "<", ">", "\n", "\n\n"});
  v.specials = {{"<AB>", 5}, {"\n", 8}, {"\n\n", 9}};
  tokenizer_options options;
  options.context = 8;
  auto blob = build_sentencepiece(v, options);
  REQUIRE(blob);
  CHECK(encode(*blob, "AB<AB><ab>") == ids{5, 5, 6, 5, 7});
  CHECK(encode(*blob, "a\n\n\nb") == ids{3, 9, 8, 4});
  const auto t = tokenizer::open(*blob);
  ids out(8);
  REQUIRE(t->encode("a a a a a a", out));
  CHECK(out.back() == 1);  // EOT also where the text was cut
  REQUIRE(t->encode("a", out));
  CHECK(out == ids{3, 1, 0, 0, 0, 0, 0, 0});
}

TEST_CASE("listed merges count in their order, whatever the ids") {
  sentencepiece_vocabulary v = bpe_vocabulary({"a", "b", "c", "ab", "bc"});
  CHECK(encode(build(v), "abc") == ids{6, 5});
  v.merges = {{"b", "c"}, {"a", "b"}};
  CHECK(encode(build(v), "abc") == ids{3, 7});
}

TEST_CASE("double array: holds what was put in, and nothing else") {
  std::mt19937 random(3);
  for (const unsigned letters : {2u, 20u, 255u}) {
    std::map<std::string, std::uint32_t> words;
    while (words.size() < 3000) {
      std::string word;
      for (std::size_t n = 1 + random() % 14; n > 0; --n) word += static_cast<char>(1 + random() % letters);
      words.emplace(word, static_cast<std::uint32_t>(random() & 0x7FFFFFFF));
    }
    std::vector<convert::double_array_entry> entries(words.begin(), words.end());
    std::shuffle(entries.begin(), entries.end(), random);
    const auto units = convert::build_double_array(std::move(entries));
    REQUIRE(units);
    const double_array array(*units);
    for (const auto& [word, value] : words) {
      const auto m = array.find_longest(word, word.size());
      CHECK(m.length == word.size());
      CHECK(m.value == value);
      const std::string more = word + '\0' + "x";
      CHECK(array.find_longest(more, more.size()).length == word.size());
      const std::string part = word.substr(0, word.size() - 1);
      CHECK((array.find_longest(part, part.size()).length == part.size()) ==
            (part.empty() || words.contains(part)));
    }
  }
  CHECK(!convert::build_double_array({{"a", 1}, {"a", 2}}));
  CHECK(!convert::build_double_array({{"", 1}}));
  CHECK(!convert::build_double_array({{std::string_view("a\0", 2), 1}}));
}

TEST_CASE("long hostile texts end soon") {
  sentencepiece_vocabulary unigram = unigram_vocabulary({{"a", -1}, {"aa", -2}, {"aaa", -3}, {blank, -1}});
  sentencepiece_vocabulary bpe = bpe_vocabulary({"a", "aa", "aaa", "aaaa", blank});
  add_bytes(unigram);
  add_bytes(bpe);
  for (const sentencepiece_vocabulary* v : {&unigram, &bpe}) {
    for (const text_style style : {text_style::siglip_hf, text_style::siglip_openclip, text_style::siglip2}) {
      tokenizer_options options;
      options.style = style;
      const auto blob = build_sentencepiece(*v, options);
      REQUIRE(blob);
      const auto t = tokenizer::open(*blob);
      ids out(64);
      for (const char* part : {"a", " ", "a ", "\xF0\x9F\x98\x80", "\xFF", "\xE2\x96\x81", "</s>", "&amp;"}) {
        const auto encoded = t->encode(repeated(part, 300'000), out);
        REQUIRE(encoded);
        CHECK(encoded->count <= 64);
      }
    }
  }
}

TEST_CASE("damaged blobs are refused or give ids of the vocabulary") {
  sentencepiece_vocabulary unigram = unigram_vocabulary({{"a", -1}, {"ab", -2}, {blank, -1}});
  unigram.charsmap = small_charsmap();
  unigram.pieces.push_back({"<x>", 0, type::user_defined});
  add_bytes(unigram);
  sentencepiece_vocabulary bpe = bpe_vocabulary({"a", "b", "ab", "abab", blank});
  bpe.specials = {{"<x>", 3}};
  add_bytes(bpe);
  const std::string long_text = "ab A\xEF\xAC\x81 <x> </s>" + repeated("ab", 120);
  std::mt19937 random(4);
  for (const sentencepiece_vocabulary* v : {&unigram, &bpe}) {
    for (const text_style style : {text_style::siglip_hf, text_style::siglip2, text_style::siglip_openclip}) {
      tokenizer_options options;
      options.style = style;
      const auto good = build_sentencepiece(*v, options);
      REQUIRE(good);
      const auto try_blob = [&](const bytes& blob) {
        const auto t = tokenizer::open(blob);
        if (!t) return;
        ids out(100);
        if (!t->encode(long_text, out)) return;
        for (const std::int32_t id : out) REQUIRE((id >= 0 && id < t->vocab_size()));
      };
      for (std::size_t size = 0; size < good->size(); size += 61) {
        bytes cut(good->begin(), good->begin() + static_cast<std::ptrdiff_t>(size));
        try_blob(cut);
      }
      for (int round = 0; round < 3000; ++round) {
        bytes blob = *good;
        for (std::size_t n = 1 + random() % 4; n > 0; --n) {
          blob[random() % blob.size()] = static_cast<std::byte>(random());
        }
        if (round % 3 == 0) blob[192 + random() % 32] = static_cast<std::byte>(random());  // spm_info
        try_blob(blob);
      }
    }
  }
}

TEST_CASE("spiece.model: read field by field; cut or changed files are refused or harmless") {
  const std::string good = small_model();
  const auto v = convert::parse_sentencepiece_model(good);
  REQUIRE(v);
  CHECK(v->pieces.size() == 10);
  CHECK(!v->is_bpe);
  CHECK(v->flags == (spm_dummy_prefix | spm_single_blanks | spm_escape_blanks));
  CHECK(encode(build(*v), "AB fi<x>") == ids{7, 3, 2, 7, 5, 9});
  std::mt19937 random(5);
  const auto try_model = [](const std::string& bytes) {
    auto parsed = convert::parse_sentencepiece_model(bytes);
    if (!parsed) return;
    const auto blob = build_sentencepiece(std::move(*parsed), {});
    if (!blob) return;
    const auto t = tokenizer::open(*blob);
    REQUIRE(t);
    ids out(64);
    CHECK(t->encode("AB fi<x> ab", out));
  };
  for (std::size_t size = 0; size < good.size(); ++size) try_model(good.substr(0, size));
  for (int round = 0; round < 2000; ++round) {
    std::string bad = good;
    for (std::size_t n = 1 + random() % 3; n > 0; --n)
      bad[random() % bad.size()] = static_cast<char>(random());
    try_model(bad);
  }
  CHECK(!convert::parse_sentencepiece_model(""));
  CHECK(!convert::parse_sentencepiece_model("hello"));
  CHECK(!convert::parse_sentencepiece_model(good + "\x0A\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\x7F"));
  CHECK(!convert::parse_sentencepiece_model(good + field(2, field(3, 3))));  // a word model
}

TEST_CASE("vocabularies that make no sense are refused with the reason") {
  const sentencepiece_vocabulary good = unigram_vocabulary({{"a", -1}});
  sentencepiece_vocabulary v = good;
  v.pieces.push_back({"a", -2, type::normal});
  CHECK(build_error(v).find("occurs twice") != std::string::npos);
  v = good;
  v.pieces.push_back({"\xFF", -2, type::normal});
  CHECK(build_error(v).find("not UTF-8") != std::string::npos);
  v = good;
  v.pieces.push_back({std::string(300, 'x'), -2, type::normal});
  CHECK(build_error(v).find("too long") != std::string::npos);
  v = good;
  v.byte_fallback = true;
  CHECK(build_error(v).find("byte 0") != std::string::npos);
  v = good;
  v.charsmap = "xyz";
  CHECK(build_error(v).find("charsmap") != std::string::npos);
  v = good;
  v.pieces[1].text = "eos";
  CHECK(build_error(v).find("end of text") != std::string::npos);
  v = bpe_vocabulary({"a", "b", "ab"});
  v.merges = {{"a", "c"}};
  CHECK(build_error(v).find("lacks \"c\"") != std::string::npos);
  tokenizer_options options;
  options.vocab_size = 3;
  CHECK(build_error(good, options).find("3 rows") != std::string::npos);
  options = {};
  options.style = text_style::clip_hf;
  CHECK(build_error(good, options).find("clip-hf") != std::string::npos);
}

TEST_CASE("tokenizer.json: a Unigram and a Gemma-like BPE are told from CLIP's and read") {
  const json unigram = {
      {"normalizer", {{"type", "Sequence"}, {"normalizers", json::array({{{"type", "Lowercase"}}})}}},
      {"pre_tokenizer", {{"type", "Metaspace"}, {"prepend_scheme", "always"}}},
      {"added_tokens", json::array({{{"id", 0}, {"content", "</s>"}, {"special", true}}})},
      {"model",
       {{"type", "Unigram"},
        {"unk_id", 1},
        {"vocab",
         json::array({{"</s>", 0.0}, {"<unk>", 0.0}, {"\u2581a", -1.0}, {"a", -2.0}, {"\u2581", -2.0}})}}}};
  CHECK(convert::is_sentencepiece_json(unigram));
  const auto a = convert::build_sentencepiece_json(unigram, "tokenizer.json", {});
  REQUIRE_MESSAGE(a, (a ? "" : a.failure().what));
  CHECK(encode(*a, "A, aa") == ids{2, 2, 3});

  json bpe = {
      {"normalizer", {{"type", "Replace"}, {"pattern", {{"String", " "}}}, {"content", "\u2581"}}},
      {"added_tokens", json::array({{{"id", 0}, {"content", "<eos>"}}, {{"id", 6}, {"content", "<x>"}}})},
      {"model",
       {{"type", "BPE"},
        {"unk_token", "<unk>"},
        {"vocab", {{"<eos>", 0}, {"<unk>", 1}, {"a", 2}, {"\u2581", 3}, {"\u2581a", 4}, {"aa", 5}}},
        {"merges", json::array({"\u2581 a", json::array({"a", "a"})})}}}};
  CHECK(convert::is_sentencepiece_json(bpe));
  const auto b = convert::build_sentencepiece_json(bpe, "tokenizer.json", {});
  REQUIRE_MESSAGE(b, (b ? "" : b.failure().what));
  CHECK(encode(*b, "aa aa<x>") == ids{5, 4, 2, 6});

  CHECK(!convert::is_sentencepiece_json({{"model", {{"type", "BPE"}, {"vocab", json::object()}}}}));
  bpe["normalizer"] = {{"type", "NFKD"}};
  CHECK(!convert::build_sentencepiece_json(bpe, "tokenizer.json", {}));
  bpe["normalizer"] = nullptr;
  bpe["model"]["merges"] = json::array({"a"});
  CHECK(!convert::build_sentencepiece_json(bpe, "tokenizer.json", {}));
  for (const json& wrong : {json(nullptr), json(1), json::array(), json::array({1}), json::object()}) {
    CHECK(!convert::is_sentencepiece_json(wrong));
  }
}
