// BERT's WordPiece and XLM-R's unigram, as open_clip's HFTokenizer uses transformers' fast tokenizers: goldens
// made by tests/goldens/make_tokenizer_goldens.py, the readers of their files, and hostile data.
#include "json.hpp"
#include "test_files.hpp"
#include "tokenizer_sentencepiece.hpp"
#include "tokenizer_wordpiece.hpp"

#include <ocellus/text/graphemes.hpp>
#include <ocellus/text/tokenizer.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ocellus;
namespace fs = std::filesystem;
using convert::added_token;
using convert::build_tokenizer;
using convert::build_wordpiece;
using convert::tokenizer_options;
using convert::wordpiece_vocabulary;
using test_files::scratch_folder;
using nlohmann::json;
using bytes = std::vector<std::byte>;
using ids = std::vector<std::int32_t>;

const fs::path goldens = fs::path(OCELLUS_SOURCE_DIR) / "tests" / "goldens" / "tokenizers";

bytes build(const fs::path& path, const tokenizer_options& options = {}) {
  auto blob = build_tokenizer(path, options);
  REQUIRE_MESSAGE(blob, (blob ? "" : blob.failure().what));
  return std::move(*blob);
}

ids encode(const bytes& blob, std::string_view text, std::size_t context) {
  const auto t = tokenizer::open(blob);
  REQUIRE(t);
  ids out(context);
  REQUIRE(t->encode(text, out));
  return out;
}

wordpiece_vocabulary small_vocabulary() {
  wordpiece_vocabulary v;
  for (const char* text :
       {"[PAD]", "[UNK]", "[CLS]", "[SEP]", "a", "##a", "##ab", "b", "ab", "-", "\xE4\xB8\x80"})
    v.ids.emplace(text, static_cast<int>(v.ids.size()));
  return v;
}

bytes small_blob(const wordpiece_vocabulary& v = small_vocabulary()) {
  auto blob = build_wordpiece(v, {.context = 8});
  REQUIRE_MESSAGE(blob, (blob ? "" : blob.failure().what));
  return std::move(*blob);
}

std::string small_json() {
  json vocab;
  const convert::wordpiece_vocabulary small = small_vocabulary();
  for (const auto& [text, id] : small.ids) vocab[text] = id;
  return json{{"model", {{"type", "WordPiece"}, {"vocab", vocab}}},
              {"normalizer", {{"type", "BertNormalizer"}, {"lowercase", true}}},
              {"pre_tokenizer", {{"type", "BertPreTokenizer"}}}}
      .dump();
}

std::string error_of(const json& j) {
  const auto blob = convert::build_wordpiece_json(j, "tokenizer.json", {});
  return blob ? "" : blob.failure().what;
}

}  // namespace

TEST_CASE("BERT and XLM-R: the ids of open_clip's HFTokenizer, padding included") {
  const bytes bert = build(goldens / "bert");
  const bytes stripped = build(goldens / "bert", {.strip_sep = true});
  const bytes xlm_roberta = build(goldens / "xlm_roberta");
  std::ifstream in(goldens / "ids.jsonl");
  int rows = 0;
  for (std::string line; std::getline(in, line); ++rows) {
    const json row = json::parse(line);
    const auto text = row["text"].get<std::string>();
    const auto check = [&](const char* name, const bytes& blob, int pad) {
      auto expected = row[name].get<ids>();
      expected.resize(32, pad);
      CHECK_MESSAGE(encode(blob, text, 32) == expected, name << " " << row["text"].dump());
    };
    check("bert", bert, 0);
    check("bert_stripped", stripped, 0);
    check("xlm_roberta", xlm_roberta, 1);
  }
  CHECK(rows > 500);
}

TEST_CASE("an open_clip configuration that names only the cleaning gets the style of the vocabulary") {
  tokenizer_options options;
  options.style = text_style::siglip_openclip;
  options.cleaning = text_cleaning::whitespace;
  CHECK(tokenizer::open(build(goldens / "bert", options))->style() == text_style::bert_openclip);
  CHECK(tokenizer::open(build(goldens / "xlm_roberta", options))->style() ==
        text_style::xlm_roberta_openclip);
}

TEST_CASE("graphemes: pairs, pictures, marks and syllables stay together") {
  const auto end = [](std::string_view text) { return unicode::grapheme_end(text, 0); };
  CHECK(end("ab") == 1);
  CHECK(end("\r\nx") == 2);
  CHECK(end("\n\xCC\x81") == 1);
  CHECK(end("e\xCC\x81\xCC\x80x") == 5);
  CHECK(end("\xF0\x9F\x87\xA9\xF0\x9F\x87\xAA\xF0\x9F\x87\xAB") == 8);  // two of three letters
  CHECK(end("\xF0\x9F\x91\xA9\xE2\x80\x8D\xF0\x9F\x91\xA9x") == 11);    // joined pictures
  CHECK(end("a\xE2\x80\x8D\xF0\x9F\x91\xA9") == 4);                     // no picture before
  CHECK(end("\xE1\x84\x80\xE1\x85\xA1\xE1\x86\xA8\xE1\x84\x80") == 9);  // L V T, L
  CHECK(end("\xD8\x80"
            "ab") == 3);  // prepend
}

TEST_CASE("WordPiece: the longest piece first, and unknown words as a whole") {
  const bytes blob = small_blob();
  CHECK(encode(blob, "aab-Ab", 8) == ids{2, 4, 6, 9, 8, 3, 0, 0});
  CHECK(encode(blob, "abb a", 8) == ids{2, 1, 4, 3, 0, 0, 0, 0});
  CHECK(encode(blob,
               "\xC3\xA1\xE4\xB8\x80"
               "ab",
               8) == ids{2, 4, 10, 8, 3, 0, 0, 0});
  CHECK(encode(blob, "[SEP]ab[sep]", 8) == ids{2, 3, 8, 1, 1, 1, 3, 0});
  CHECK(encode(blob, std::string(100, 'a'), 8) == ids{2, 4, 5, 5, 5, 5, 5, 3});
  CHECK(encode(blob, std::string(101, 'a'), 8) == ids{2, 1, 3, 0, 0, 0, 0, 0});
}

TEST_CASE("WordPiece: the normaliser's switches") {
  wordpiece_vocabulary v = small_vocabulary();
  v.lower = false;
  CHECK(encode(small_blob(v), "A\xC3\xA1 ab", 8) == ids{2, 1, 8, 3, 0, 0, 0, 0});
  v.strip_accents = true;
  CHECK(encode(small_blob(v), "a\xC3\xA1 Ab", 8) == ids{2, 4, 5, 1, 3, 0, 0, 0});
  v = small_vocabulary();
  v.split_ideographs = false;
  CHECK(encode(small_blob(v), "a\xE4\xB8\x80", 8) == ids{2, 1, 3, 0, 0, 0, 0, 0});
}

TEST_CASE("WordPiece: vocab.txt and tokenizer.json, settings from beside them") {
  const scratch_folder folder;
  folder.write("vocab.txt", "[PAD]\r\n[UNK]\r\n[CLS]\r\n[SEP]\r\nA\r\na");
  CHECK(encode(build(folder.path), "Aa", 4) == ids{2, 1, 3, 0});
  CHECK(encode(build(folder.path), "A", 4) == ids{2, 5, 3, 0});
  folder.write("tokenizer_config.json", R"({"do_lower_case": false, "model_max_length": 5})");
  CHECK(encode(build(folder.path), "A", 4) == ids{2, 4, 3, 0});
  CHECK(tokenizer::open(build(folder.path))->context() == 5);
  folder.write("tokenizer.json", small_json());
  CHECK(encode(build(folder.path), "ab AB", 5) == ids{2, 8, 1, 3, 0});
  folder.write("tokenizer_config.json", R"({"padding_side": "left"})");
  const auto left = build_tokenizer(folder.path, {});
  REQUIRE(!left);
  CHECK(left.failure().what.find("padding_side is \"left\"") != std::string::npos);
}

TEST_CASE("WordPiece: what is refused, and why") {
  wordpiece_vocabulary v = small_vocabulary();
  const auto error = [](const wordpiece_vocabulary& w, const tokenizer_options& options = {}) {
    const auto blob = build_wordpiece(w, options);
    return blob ? "" : blob.failure().what;
  };
  CHECK(error(v, {.vocab_size = 10}) == "has ids up to 10, the model only 10 rows");
  CHECK(error(v, {.style = text_style::clip_hf}) ==
        "a WordPiece vocabulary cannot be used in the style clip-hf");
  v.added = {{"<x>", 11, true}};
  CHECK(error(v) == "the added token \"<x>\" is looked for in normalised text: not supported");
  v = small_vocabulary();
  v.ids.erase("[SEP]");
  CHECK(error(v) == "it lacks \"[SEP]\"");
  v = small_vocabulary();
  v.ids.emplace("\xFF", 11);
  CHECK(error(v) == "the piece \"\\xff\" is not UTF-8");

  json j = json::parse(small_json());
  CHECK(error_of(j) == "");
  j["model"]["max_input_chars_per_word"] = 100000;
  CHECK(error_of(j) == "its max_input_chars_per_word is 100000, expected 1 to 256");
  j = json::parse(small_json());
  j["model"]["continuing_subword_prefix"] = "@@";
  CHECK(error_of(j) == "its pieces inside words do not begin with \"##\"");
  j = json::parse(small_json());
  j["normalizer"]["type"] = "NFKC";
  CHECK(error_of(j) == "its normaliser is not BERT's, the only one that goes with WordPiece here");
  j = json::parse(small_json());
  j["model"]["vocab"]["a"] = -1;
  CHECK(error_of(j) == "the id of \"a\" is out of range");
}

TEST_CASE(
    "XLM-R: a model file with other first pieces is refused, its pieces are moved by fairseq's offset") {
  convert::sentencepiece_vocabulary v;
  v.is_xlm_roberta = true;
  CHECK(!convert::build_sentencepiece(v, {.style = text_style::siglip_hf}));
  const scratch_folder folder;
  const auto model = convert::read_text_file(goldens / "xlm_roberta" / "sentencepiece.bpe.model");
  REQUIRE(model);
  folder.write("m.model", *model);
  const auto plain = convert::parse_sentencepiece_model(*model);
  REQUIRE(plain);
  const bytes blob = build(folder.path / "m.model", {.style = text_style::xlm_roberta_openclip});
  const auto t = tokenizer::open(blob);
  CHECK(t->vocab_size() == static_cast<int>(plain->pieces.size()) + 2);
  CHECK(t->sot_id() == 0);
  CHECK(t->pad_id() == 1);
  CHECK(t->eot_id() == 2);
  CHECK(encode(blob, "<mask>", 3) == ids{0, t->vocab_size() - 1, 2});
  folder.write("sentencepiece.bpe.model", "\x0A\x03\x0A\x01\x61");
  const auto odd = build_tokenizer(folder.path / "sentencepiece.bpe.model", {});
  REQUIRE(!odd);
  CHECK(odd.failure().what.find("its first pieces are not <unk>, <s>, </s>, as XLM-R's are") !=
        std::string::npos);
}

TEST_CASE("hostile texts take linear time in both") {
  const bytes bert = build(goldens / "bert");
  const bytes xlm_roberta = build(goldens / "xlm_roberta");
  const auto repeated = [](std::string_view part, std::size_t size) {
    std::string out;
    while (out.size() < size) out += part;
    return out;
  };
  for (const char* part :
       {"a", "\xC3\xA9", "e\xCC\x81", "\xCC\x81", "[", "[SEP", "<s", "\xE2\x96\x81", "a ", "##",
        "\xF0\x9F\x87\xA9", "\xF0\x9F\x91\xA9\xE2\x80\x8D", "\xD8\x80", "\xE4\xB8\x80", "&amp;"}) {
    for (const bytes* blob : {&bert, &xlm_roberta}) {
      const auto t = tokenizer::open(*blob);
      const std::string text = repeated(part, 1 << 20);
      ids out(1 << 20);
      const auto begin = std::chrono::steady_clock::now();
      REQUIRE(t->encode(text, out));
      const std::chrono::duration<double> took = std::chrono::steady_clock::now() - begin;
      CHECK_MESSAGE(took.count() < 20, part);  // a quadratic search would take hours
    }
  }
}

TEST_CASE("damaged blobs are refused, or used without leaving them") {
  std::mt19937 random(3);
  for (const char* name : {"bert", "xlm_roberta"}) {
    const bytes sound = build(goldens / name);
    int opened = 0;
    for (int round = 0; round < 3000; ++round) {
      bytes damaged = sound;
      // Half of the changes hit the headers, where the bounds are.
      for (int n = 0; n < 3; ++n)
        damaged[random() % (round % 2 != 0 ? 256 : damaged.size())] = static_cast<std::byte>(random());
      const auto t = tokenizer::open(damaged);
      if (!t) continue;
      ++opened;
      ids out(64);
      if (!t->encode("a photo of caf\xC3\xA9 [SEP] <s> \xE4\xB8\x80 ##x", out)) continue;
      for (const std::int32_t id : out) CHECK((id >= 0 && id < t->vocab_size()));
    }
    CHECK(opened > 100);
  }
}
