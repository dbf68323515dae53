// The text side: UTF-8, cleaning, CLIP's tokenizer, and the builder that makes its tables.
#include "json.hpp"
#include "test_files.hpp"
#include "tokenizer.hpp"

#include <ocellus/text/clean.hpp>
#include <ocellus/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <map>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ocellus;
namespace fs = std::filesystem;
using convert::tokenizer_options;
using nlohmann::json;

fs::path tokenizer_data() { return test_files::shared() / "tokenizers"; }

/// Calls f for each line of a golden file; false, with a message, if it is not there.
bool for_each_golden(const char* name, const std::function<void(const json&)>& f) {
  std::ifstream in(tokenizer_data() / "golden" / name);
  if (!in) {
    MESSAGE("skipped: no " << name << " (set OCELLUS_SHARED)");
    return false;
  }
  for (std::string line; std::getline(in, line);) f(json::parse(line));
  return true;
}

std::string to_utf8(const text32& text) {
  text_buffer<char> out;
  unicode::encode_utf8(text.span(), out);
  return {out.data(), out.size()};
}

/// The result of a function that works on code points in place.
template <class F>
std::string applied(std::string_view text, F f) {
  text32 letters;
  unicode::decode_utf8(text, letters);
  f(letters);
  return to_utf8(letters);
}

std::string fixed(std::string_view text) {
  return applied(text, [](text32& t) { cleaning::ftfy(t); });
}
std::string unescaped(std::string_view text) {
  return applied(text, [](text32& t) { cleaning::html_unescape(t); });
}
std::string nfc(std::string_view text) {
  return applied(text, [](text32& t) { unicode::nfc(t); });
}
std::string decoded(std::string_view text) {
  return applied(text, [](text32&) {});
}

std::string lowered(std::string_view text, unicode::sigma rule) {
  return applied(text, [rule](text32& t) { cleaning::lower(t, rule); });
}

std::string cleaned(std::string_view text, text_cleaning how) {
  text32 out;
  cleaning::openclip(how, text, out);
  return to_utf8(out);
}

std::string repeated(std::string_view part, std::size_t bytes) {
  std::string out;
  while (out.size() < bytes) out += part;
  return out;
}

std::string from_hex(std::string_view hex) {
  const auto digit = [](char c) { return c <= '9' ? c - '0' : c - 'a' + 10; };
  std::string out;
  for (std::size_t i = 0; i + 1 < hex.size(); i += 2) {
    out += static_cast<char>(digit(hex[i]) * 16 + digit(hex[i + 1]));
  }
  return out;
}

using blob = std::vector<std::byte>;

/// A vocabulary of a few merges: ids 512 on are "ca", "cat</w>", "do", "dog</w>", "ab", "abab", "th",
/// "the</w>".
constexpr std::string_view tiny_merges =
    "#version: 0.2\nc a\nca t</w>\nd o\ndo g</w>\na b\nab ab\nt h\nth e</w>\n";
constexpr std::int32_t tiny_sot = 520;
constexpr std::int32_t tiny_eot = 521;

blob tiny_blob(text_style style = text_style::clip_openclip, int context = 8) {
  auto vocabulary = convert::parse_merge_list(tiny_merges, std::nullopt);
  REQUIRE(vocabulary);
  if (style == text_style::clip_hf) {
    vocabulary->added = {{"<|startoftext|>", tiny_sot, true}, {"<|endoftext|>", tiny_eot, false},
                         {"<|end", 1, false}, {"<|endoftext|><|", 2, false}};
  }
  tokenizer_options options;
  options.style = style;
  options.context = context;
  auto built = convert::build_clip_tokenizer(*vocabulary, options);
  REQUIRE(built);
  return std::move(*built);
}

std::vector<std::int32_t> ids_of(const tokenizer& t, std::string_view text, std::size_t context = 0) {
  std::vector<std::int32_t> ids(context != 0 ? context : static_cast<std::size_t>(t.context()));
  const auto encoded = t.encode(text, ids);
  REQUIRE(encoded);
  ids.resize(static_cast<std::size_t>(encoded->count));
  return ids;
}

std::vector<std::int32_t> content_of(const tokenizer& t, std::string_view text) {
  std::vector<std::int32_t> ids = ids_of(t, text, text.size() + 2);
  return {ids.begin() + 1, ids.end() - 1};
}

TEST_CASE("text: broken UTF-8 gives one U+FFFD per longest prefix that could have been valid") {
  CHECK(decoded("a\x80z") == "a\xEF\xBF\xBDz");
  CHECK(decoded("\xE2\x82") == "\xEF\xBF\xBD");
  CHECK(decoded("\xE2\x82 ") == "\xEF\xBF\xBD ");
  CHECK(decoded("\xF0\x9F\x98") == "\xEF\xBF\xBD");
  CHECK(decoded("\xED\xA0\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");  // a surrogate
  CHECK(decoded("\xC0\xAF") == "\xEF\xBF\xBD\xEF\xBF\xBD");                  // overlong
  CHECK(decoded("\xF4\x90\x80\x80") == "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD");
  CHECK(decoded("\xF4\x8F\xBF\xBF") == "\xF4\x8F\xBF\xBF");
  CHECK(decoded(std::string_view("\0", 1)) == std::string(1, '\0'));
}

TEST_CASE("text: invalid UTF-8 is replaced and tokenized as the goldens have it") {
  const fs::path vocab = tokenizer_data() / "vocab/clip/bpe_simple_vocab_16e6.txt.gz";
  if (!fs::exists(vocab)) {
    MESSAGE("skipped: no " << vocab.string() << " (set OCELLUS_SHARED)");
    return;
  }
  const auto built = convert::build_tokenizer(vocab, {});
  REQUIRE(built);
  const auto t = tokenizer::open(*built);
  REQUIRE(t);
  int wrong = 0;
  int lines = 0;
  for_each_golden("invalid-utf8.jsonl", [&](const json& j) {
    const std::string bytes = from_hex(j["hex"].get<std::string>());
    ++lines;
    if (decoded(bytes) != from_hex(j["replaced_hex"].get<std::string>())) ++wrong;
    if (ids_of(*t, bytes) != j["clip_openclip"].get<std::vector<std::int32_t>>()) ++wrong;
  });
  CHECK(lines > 0);
  CHECK(wrong == 0);
}

TEST_CASE("text: lower case follows Python, the final sigma by context or letter by letter") {
  using unicode::sigma;
  CHECK(lowered("\u039F\u0394\u03A3 \u03A3 A\u03A3. \u03A3A", sigma::in_context) ==
        "\u03BF\u03B4\u03C2 \u03C3 a\u03C2. \u03C3a");
  CHECK(lowered("A\u03A3\u0301B A\u03A3\u0301", sigma::in_context) == "a\u03C3\u0301b a\u03C2\u0301");
  CHECK(lowered("\u039F\u0394\u03A3", sigma::alone) == "\u03BF\u03B4\u03C3");
  CHECK(lowered("\u0130\u1E9E\u212A", sigma::alone) == "i\u0307\u00DFk");
  CHECK(lowered("\U00010400", sigma::alone) == "\U00010428");
}

TEST_CASE("text: NFC composes, reorders and leaves excluded compositions apart") {
  CHECK(nfc("e\u0301") == "\u00E9");
  CHECK(nfc("a\u0323\u0302") == "\u1EAD");
  CHECK(nfc("a\u0302\u0323") == "\u1EAD");
  CHECK(nfc("\u1112\u1161\u11AB") == "\uD55C");
  CHECK(nfc("\u212B") == "\u00C5");
  CHECK(nfc("\u0958") == "\u0915\u093C");  // a composition that Unicode excludes
  CHECK(nfc("\u0301e") == "\u0301e");      // nothing to stand on
  CHECK(nfc("=\u089D\u0332") == "=\u0332\u089D");
  const auto older = [](std::string_view text) {
    return applied(text, [](text32& t) { unicode::nfc(t, unicode::tables::late_marks); });
  };
  CHECK(older("=\u089D\u0332") == "=\u089D\u0332");  // a mark that the tokenizers library takes for a letter
  CHECK(older("a\u0302\u0323") == "\u1EAD");
  CHECK(nfc("a\u0315\u0300") == "\u00E0\u0315");
}

TEST_CASE("text: html_unescape is Python's html.unescape") {
  CHECK(unescaped("&amp;amp; &lt &notit; &notin; &#65;&#x42; &#X43") == "&amp; < \u00ACit; \u2209 AB C");
  CHECK(unescaped("&#128;&#0;&#xD800;&#1;&#x110000;&#99999999999999999999;") ==
        "\u20AC\uFFFD\uFFFD\uFFFD\uFFFD");
  CHECK(unescaped("& &; &# &#x; &nosuch; &ampx &acE;") == "& &; &# &#x; &nosuch; &x \u223E\u0333");
  CHECK(unescaped("&CounterClockwiseContourIntegral;&") == "\u2233&");
}

TEST_CASE("text: ftfy's small steps") {
  CHECK(fixed("\u201CI can\u2019t\u201D") == "\"I can't\"");
  CHECK(fixed("\uFB01ve \uFB03 \u0133 \u01C5 \u0149") == "five ffi ij D\u017E 'n");
  CHECK(fixed("\uFF26\uFF35\uFF2C\uFF2C\u3000\uFF76\uFF9E\uFFE3") == "FULL \u30AC \u0304");
  CHECK(fixed("a\r\nb\rc\u2028d\u2029e") == "a\nb\nc\nd\ne");
  CHECK(fixed("\x1B[31;1mred\x1B[0m \x1B[zz \x07\uFEFF\uFFFCx") == "red z x");
  CHECK(fixed("&eacute; &EACUTE; &SZLIG; &nTILDE; &amp;amp;lt; &notin &#59; &#x3B;") ==
        "\u00E9 \u00C9 SS &nTILDE; < &notin &#59; &#x3B;");
  CHECK(fixed("&lt;\n<b>&lt;\n&lt;") == "<\n<b>&lt;\n&lt;");  // a line with "<" ends the unescaping
  CHECK(fixed("e\u0301") == "\u00E9");
}

TEST_CASE("text: mojibake is repaired, sound text is left alone") {
  CHECK(fixed("s\u00C3\u00B3") == "s\u00F3");
  CHECK(fixed("voil\u00C3 le travail") == "voil\u00E0 le travail");
  CHECK(fixed("\u00C3 table") == "\u00E0 table");
  CHECK(fixed("\u00E2\u0153\u201D No problems") == "\u2714 No problems");
  CHECK(fixed("\u00E2\u20AC\u0153 like this \u00E2\u20AC\uFFFD") == "\" like this \uFFFD");
  CHECK(fixed("\u00C3\xC2\x83\u00C2\u00A9") == "\u00E9");  // twice over
  CHECK(fixed("r\u00E9sum\u00E9 \u00C3\u00A9t\u00C3\u00A9 \u4E2D") ==
        "r\u00E9sum\u00E9 \u00E9t\u00E9 \u4E2D");
  CHECK(fixed("\xC2\x85ok") == "\u2026ok");
  CHECK(fixed("\u0432\u0402\u045Ahello") == "\"hello");          // Windows-1251
  CHECK(fixed("\u221A\u00A9t\u221A\u00A9") == "\u00E9t\u00E9");  // MacRoman
  CHECK(fixed("\u00E2\u20AC\u2122s \u65E5\u672C") == "'s \u65E5\u672C");
  CHECK(fixed("\u00C3\u00AD\u00C2\u00A0\u00C2\u00BD\u00C3\u00AD\u00C2\u00B8\u00C2\xC2\x83 \u0443") ==
        "\U0001F603 \u0443");
  for (const char* sound : {"\u0420\u0443\u0441\u0441\u043A\u0438\u0439", "caf\u00E9 \u2122", "\uFFFD\uFFFD",
                            "M\u00E3o \u00A9 2020 \u20AC5"}) {
    CHECK(fixed(sound) == sound);
  }
}

TEST_CASE("text: many damaged stretches in one text are all repaired") {
  std::string damaged;
  std::string sound;
  for (int i = 0; i < 500; ++i) {
    damaged += "\u00C3\u00A9t\u00C3\u00A9 \u4E2D ";
    sound += "\u00E9t\u00E9 \u4E2D ";
  }
  CHECK(fixed(damaged) == sound);
}

TEST_CASE("text: nested entities are resolved whatever their depth") {
  std::string deep = "&";
  for (int i = 0; i < 1000; ++i) deep += "amp;";
  CHECK(fixed(deep + "eacute;") == "\u00E9");
}

TEST_CASE("text: open_clip's cleaning functions") {
  CHECK(cleaned("  A &amp;lt; B\t\nC  ", text_cleaning::lower) == "a < b c");
  CHECK(cleaned("  A  \xC2\xA0 B ", text_cleaning::whitespace) == "A B");
  CHECK(cleaned("Hello_World! (It's 5.5)", text_cleaning::canonicalize) == "hello world its 55");
  CHECK(cleaned("", text_cleaning::lower).empty());
  CHECK(cleaned(" &#28; ", text_cleaning::lower).empty());
}

TEST_CASE("text: canonicalize equals the goldens' clean texts") {
  std::map<std::string, int> wrong;
  for_each_golden("siglip-openclip.jsonl", [&](const json& j) {
    if (j.value("unstable", false)) return;
    if (cleaned(j["text"].get<std::string>(), text_cleaning::canonicalize) != j["clean"]) ++wrong[j["cat"]];
  });
  for (const auto& [category, count] : wrong) MESSAGE(category << ": " << count << " differ");
  CHECK(wrong.empty());
}

/// Lines of a golden file whose ids, padding included, differ, by category.
std::map<std::string, int> wrong_ids(const tokenizer& t, const char* golden) {
  std::map<std::string, int> wrong;
  for_each_golden(golden, [&](const json& j) {
    if (j.value("unstable", false)) return;  // depends on the version of Unicode
    auto want = j["ids"].get<std::vector<std::int32_t>>();
    const int count = static_cast<int>(want.size());
    want.resize(static_cast<std::size_t>(t.context()), t.pad_id());
    std::vector<std::int32_t> got(want.size());
    const auto encoded = t.encode(j["text"].get<std::string>(), got);
    const bool same =
        encoded && encoded->count == count && got == want && encoded->truncated == (j["n"] > count);
    if (!same) ++wrong[j["cat"]];
  });
  for (const auto& [category, count] : wrong)
    MESSAGE(std::string(golden) << ", " << category << ": " << count << " differ");
  return wrong;
}

TEST_CASE("text: clip-hf is id-exact on every golden line") {
  const fs::path folder = tokenizer_data() / "vocab/clip";
  if (!fs::exists(folder)) {
    MESSAGE("skipped: no " << folder.string() << " (set OCELLUS_SHARED)");
    return;
  }
  tokenizer_options options;
  options.style = text_style::clip_hf;
  for (const char* file : {"tokenizer.json", "vocab.json"}) {
    const auto built = convert::build_tokenizer(folder / file, options);
    REQUIRE(built);
    const auto t = tokenizer::open(*built);
    REQUIRE(t);
    CHECK(t->context() == 77);
    CHECK(t->pad_id() == t->eot_id());
    CHECK(wrong_ids(*t, "clip-hf.jsonl").empty());
  }
}

TEST_CASE("text: clip-openclip is id-exact on every golden line") {
  const fs::path folder = tokenizer_data() / "vocab/clip";
  if (!fs::exists(folder)) {
    MESSAGE("skipped: no " << folder.string() << " (set OCELLUS_SHARED)");
    return;
  }
  tokenizer_options options;
  options.style = text_style::clip_openclip;
  for (const char* file : {"bpe_simple_vocab_16e6.txt.gz", "tokenizer.json"}) {
    const auto built = convert::build_tokenizer(folder / file, options);
    REQUIRE(built);
    const auto t = tokenizer::open(*built);
    REQUIRE(t);
    CHECK(t->vocab_size() == 49408);
    CHECK(t->pad_id() == 0);
    CHECK(wrong_ids(*t, "clip-openclip.jsonl").empty());
  }
}

TEST_CASE("text: words, contractions, digits and special tokens of a tiny vocabulary") {
  const blob bytes = tiny_blob(text_style::clip_openclip, 32);
  const auto t = tokenizer::open(bytes);
  REQUIRE(t);
  CHECK(t->vocab_size() == 522);
  CHECK(ids_of(*t, "The CAT") == std::vector<std::int32_t>{tiny_sot, 519, 513, tiny_eot});
  // "'" is byte 39: the sixth printable letter, id 6; with </w> 256 more
  CHECK(content_of(*t, "cat's") == std::vector<std::int32_t>{513, 6, 's' - '!' + 256});
  CHECK(content_of(*t, "12") == std::vector<std::int32_t>{'1' - '!' + 256, '2' - '!' + 256});
  CHECK(content_of(*t, "cat!<end_of_text>dog").size() > 4);  // no word begins at "<"
  CHECK(content_of(*t, "cat<END_of_text>dog") == std::vector<std::int32_t>{513, tiny_eot, 515});
  CHECK(content_of(*t, "ca\x7Ft") == std::vector<std::int32_t>{513});  // ftfy removes it
  CHECK(content_of(*t, "cat\u0345dog") == std::vector<std::int32_t>{513, 515});  // as Python's regex has it
  CHECK(content_of(*t, "cat'\u017F") ==
        std::vector<std::int32_t>{513, 6, 0xC5 - 0xAE + 106, 0xBF - 0xAE + 106 + 256});
  CHECK(content_of(*t, "").empty());
  CHECK(content_of(*t, " \t\n\u3000").empty());
}

TEST_CASE("text: transformers finds its special tokens anywhere in the text") {
  const blob bytes = tiny_blob(text_style::clip_hf, 32);
  const auto t = tokenizer::open(bytes);
  REQUIRE(t);
  CHECK(content_of(*t, "cat<|endoftext|>dog") == std::vector<std::int32_t>{513, tiny_eot, 515});
  CHECK(content_of(*t, "<|STARTOFTEXT|>") == std::vector<std::int32_t>{tiny_sot});
  CHECK(content_of(*t, "<|ENDOFTEXT|>").size() > 1);
  CHECK(content_of(*t, "cat<end_of_text>dog").size() > 4);
  // of several that begin there the longest
  CHECK(content_of(*t, "<|end<|endoftext|>") == std::vector<std::int32_t>{1, tiny_eot});
  CHECK(content_of(*t, "<|endoftext|><|endoftext|>").front() == 2);
}

TEST_CASE("text: truncation keeps the end of text, padding fills the rest") {
  for (const text_style style : {text_style::clip_openclip, text_style::clip_hf}) {
    const blob bytes = tiny_blob(style, 5);
    const auto t = tokenizer::open(bytes);
    REQUIRE(t);
    const std::int32_t pad = style == text_style::clip_hf ? tiny_eot : 0;
    std::vector<std::int32_t> ids(5, -1);
    auto encoded = t->encode("cat dog cat", ids);
    REQUIRE(encoded);
    CHECK((encoded->count == 5 && !encoded->truncated));
    CHECK(ids == std::vector<std::int32_t>{tiny_sot, 513, 515, 513, tiny_eot});
    encoded = t->encode("cat dog cat dog", ids);
    CHECK((encoded->count == 5 && encoded->truncated));
    CHECK(ids == std::vector<std::int32_t>{tiny_sot, 513, 515, 513, tiny_eot});
    encoded = t->encode("cat", ids);
    CHECK((encoded->count == 3 && !encoded->truncated));
    CHECK(ids == std::vector<std::int32_t>{tiny_sot, 513, tiny_eot, pad, pad});
    CHECK(t->encode("cat", std::span(ids).first(1)).error() == status::buffer_too_small);
  }
}

/// BPE as simple_tokenizer.py has it: all places of the best pair at once, from left to right.
std::vector<std::string> textbook_bpe(std::string_view word, const convert::clip_vocabulary& v) {
  std::vector<std::string> symbols;
  for (const char c : word) symbols.emplace_back(1, c);
  symbols.back() += "</w>";
  for (;;) {
    std::size_t best = v.merges.size();
    for (std::size_t i = 0; i + 1 < symbols.size(); ++i) {
      const auto at = std::find(v.merges.begin(), v.merges.end(), std::pair(symbols[i], symbols[i + 1]));
      best = std::min(best, static_cast<std::size_t>(at - v.merges.begin()));
    }
    if (best == v.merges.size()) return symbols;
    std::vector<std::string> joined;
    for (std::size_t i = 0; i < symbols.size(); ++i) {
      if (i + 1 < symbols.size() && std::pair(symbols[i], symbols[i + 1]) == v.merges[best]) {
        joined.push_back(symbols[i] + symbols[i + 1]);
        ++i;
      } else {
        joined.push_back(symbols[i]);
      }
    }
    symbols = joined;
  }
}

TEST_CASE("text: short and long words are merged as the textbook does it") {
  const std::string list =
      "#\na a\nb a\naa aa\na b\naa b\nba ba\naaaa b\nb b</w>\na a</w>\nab a\nba b</w>\naaaa aa</w>\nc aa\n";
  const auto v = convert::parse_merge_list(list, std::nullopt);
  REQUIRE(v);
  const auto built = convert::build_clip_tokenizer(*v, {});
  REQUIRE(built);
  const auto t = tokenizer::open(*built);
  REQUIRE(t);
  std::uint32_t random = 1;
  for (int i = 0; i < 400; ++i) {
    std::string word;
    const std::size_t length = 1 + static_cast<std::size_t>(i) % 130;
    while (word.size() < length) {
      random = random * 1664525u + 1013904223u;
      word += "aaabbc"[(random >> 24) % 6];
    }
    std::vector<std::int32_t> want;
    for (const std::string& symbol : textbook_bpe(word, *v)) want.push_back(v->ids.at(symbol));
    REQUIRE(content_of(*t, word) == want);
  }
}

TEST_CASE("text: hostile texts end quickly and fill the context") {
  const std::vector<std::string> parts = {"a",
                                          "!",
                                          "ab",
                                          "&amp;",
                                          "&",
                                          "&amp",
                                          "<",
                                          "\xCC\x81",
                                          "e\xCC\x81\xCC\xA3",
                                          "\x1B[",
                                          "\x1B[1;",
                                          "\xFF",
                                          "\xCE\xA3",
                                          "\xCE\xA3.\xCC\x81",
                                          "\xE1\x84\x80\xE1\x85\xA1",
                                          "&\n",
                                          "<|endoftext|",
                                          "<end_of_text",
                                          "'",
                                          "\xC3\x83\xC2\xA9",
                                          "\xC3\x83\xC2\x83\xC3\x82\xC2\xA9",
                                          "\xC3\xA2\xE2\x82\xAC",
                                          "\xC2\x80",
                                          "\xC3\x83 ",
                                          "&#38",
                                          "&#x26;#x26;",
                                          std::string(1, '\0')};
  for (const text_style style : {text_style::clip_openclip, text_style::clip_hf}) {
    const blob bytes = tiny_blob(style, 77);
    const auto t = tokenizer::open(bytes);
    REQUIRE(t);
    std::vector<std::int32_t> ids(77);
    for (const std::string& part : parts) {
      CHECK(t->encode(repeated(part, 100000), ids));
      CHECK(t->encode("&" + repeated(part, 100000) + ";", ids));
    }
    std::string wrapped = "&";
    wrapped += repeated("amp;", 100000);
    CHECK(t->encode(wrapped, ids));
    CHECK(t->encode(repeated("&#38", 50000) + repeated(";", 20000), ids));
  }
}

/// Opens the bytes as a tokenizer and, if that works, uses it. It must not crash; sanitizers watch.
void try_blob(const blob& bytes) {
  const auto t = tokenizer::open(bytes);
  if (!t) return;
  std::vector<std::int32_t> ids(16);
  for (const std::string_view text :
       {"the cat's dog 123 <|endoftext|> <end_of_text>", "\u201Cabababab\u201D &amp; \xFF"}) {
    if (!t->encode(text, ids)) continue;
    for (const std::int32_t id : ids) CHECK((id >= 0 && id < t->vocab_size()));
  }
}

TEST_CASE("text: truncated and mutated blobs are refused or harmless") {
  for (const text_style style : {text_style::clip_openclip, text_style::clip_hf}) {
    const blob good = tiny_blob(style);
    for (std::size_t n = 0; n < good.size(); n += n < 256 ? 1 : 61)
      try_blob(blob(good.begin(), good.begin() + static_cast<std::ptrdiff_t>(n)));
    for (std::size_t i = 0; i < good.size(); i += i < 256 ? 1 : 13) {
      for (const int flip : {0x01, 0x80, 0xFF}) {
        blob bad = good;
        bad[i] ^= static_cast<std::byte>(flip);
        try_blob(bad);
      }
    }
  }
  CHECK(tokenizer::open({}).error() == status::bad_tokenizer);
}

TEST_CASE("text: a blob need not be copied but must be aligned") {
  blob bytes = tiny_blob();
  bytes.insert(bytes.begin(), std::byte{0});
  CHECK(tokenizer::open(std::span(bytes).subspan(1)).error() == status::bad_alignment);
}

TEST_CASE("text: a merge table without free slots is refused") {
  blob bytes = tiny_blob();
  tokenizer_header h;
  std::memcpy(&h, bytes.data(), sizeof h);
  const tokenizer_section merges = h.sections[clip_bpe::section_merges];
  const clip_merge full{1, 1, 1, 1};
  for (std::uint64_t i = 0; i < merges.size; i += sizeof full) {
    std::memcpy(bytes.data() + merges.offset + i, &full, sizeof full);
  }
  CHECK(tokenizer::open(bytes).error() == status::bad_tokenizer);
}

TEST_CASE("text: special texts outside of their section or the vocabulary are refused") {
  const blob good = tiny_blob();
  tokenizer_header h;
  std::memcpy(&h, good.data(), sizeof h);
  const auto with = [&](auto change) {
    blob bad = good;
    std::byte* const at = bad.data() + h.sections[clip_bpe::section_specials].offset;
    clip_special s;
    std::memcpy(&s, at, sizeof s);
    change(s);
    std::memcpy(at, &s, sizeof s);
    return tokenizer::open(bad).error();
  };
  CHECK(with([](clip_special& s) { s.id = 521; }) == status::ok);
  CHECK(with([](clip_special& s) { s.id = 522; }) == status::bad_tokenizer);
  CHECK(with([](clip_special& s) { s.id = -1; }) == status::bad_tokenizer);
  CHECK(with([](clip_special& s) { s.size = 0; }) == status::bad_tokenizer);
  CHECK(with([](clip_special& s) { s.size = 200; }) == status::bad_tokenizer);
  CHECK(with([](clip_special& s) { s.offset = 1u << 30; }) == status::bad_tokenizer);
  CHECK(with([](clip_special& s) { s.match = 3; }) == status::bad_tokenizer);
}

TEST_CASE("text: malformed vocabularies give one line that names the file") {
  const test_files::scratch_folder folder;
  const std::vector<std::pair<const char*, std::string>> files = {
      {"tokenizer.json", "{"},
      {"tokenizer.json", "[1]"},
      {"tokenizer.json", R"({"model": 3})"},
      {"tokenizer.json", R"({"model": {"type": "Strange"}})"},
      {"tokenizer.json", R"({"model": {"type": "BPE", "vocab": {}, "merges": []}})"},
      {"tokenizer.json",
       R"({"normalizer": {"type": "Lowercase"}, )"
       R"("model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": "b"}, "merges": []}})"},
      {"tokenizer.json",
       R"({"normalizer": {"type": "Lowercase"}, )"
       R"("model": {"type": "BPE", "end_of_word_suffix": "</w>", "vocab": {"a": -1}, "merges": []}})"},
      {"vocab.json", R"({"a": 1})"},
      {"merges.txt", ""},
      {"merges.txt", "#version\nonly-one\n"},
      {"merges.txt", "#version\na b c\n"},
      {"merges.txt", "#version\nzz y\n"},
      {"merges.txt", "\x1F\x8B\x08 broken"},
      {"merges.txt", std::string(100, '\0')},
  };
  for (const auto& file : files) {
    const std::string name = file.first, content = file.second;
    const fs::path path = folder.write(name.c_str(), content);
    const auto built = convert::build_tokenizer(path, {});
    REQUIRE(!built);
    const std::string& what = built.failure().what;
    CAPTURE(content);
    CAPTURE(what);
    CHECK(what.find(name) != std::string::npos);
    CHECK(what.find('\n') == std::string::npos);
    fs::remove(path);
  }
  CHECK(!convert::build_tokenizer(folder.path, {}));
  CHECK(!convert::build_tokenizer(folder.path / "nothing.txt", {}));
  CHECK(!convert::has_tokenizer(folder.path));
}

TEST_CASE("text: a vocabulary larger than the model is refused") {
  const auto v = convert::parse_merge_list(tiny_merges, std::nullopt);
  REQUIRE(v);
  tokenizer_options options;
  options.vocab_size = 521;
  CHECK(!convert::build_clip_tokenizer(*v, options));
  options.vocab_size = 522;
  CHECK(convert::build_clip_tokenizer(*v, options));
  // A merge list is cut to what the model has rows for.
  const auto cut = convert::parse_merge_list(tiny_merges, 518);
  REQUIRE(cut);
  CHECK(cut->merges.size() == 4);
  CHECK(!convert::parse_merge_list(tiny_merges, 600));  // and must fill them
}

}  // namespace
