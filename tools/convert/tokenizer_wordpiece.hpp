// Builds the tokenizer section from BERT's WordPiece vocabularies: vocab.txt, and tokenizer.json with a
// WordPiece model. The blob's layout is described in <ocellus/text/wordpiece.hpp>.
#pragma once

#include "outcome.hpp"
#include "tokenizer.hpp"

#include <ocellus/text/wordpiece.hpp>

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

namespace ocellus::convert {

/// A vocabulary, whatever file it came from.
struct wordpiece_vocabulary {
  std::map<std::string, int> ids;  ///< pieces inside a word begin with "##"
  std::vector<added_token> added;  ///< empty: the names below
  std::string cls = "[CLS]", sep = "[SEP]", pad = "[PAD]", unk = "[UNK]", mask = "[MASK]";
  bool clean_text = true;
  bool split_ideographs = true;
  bool lower = true;
  std::optional<bool> strip_accents;  ///< left open: as `lower`
  int most_letters = 100;
  std::optional<int> context;  ///< of the files beside the vocabulary
};

/// vocab.txt: one piece a line, its id the line's number. Of a piece that stands twice the last line counts.
outcome<wordpiece_vocabulary> parse_wordpiece_list(std::string_view text);

/// The blob. Errors name the piece that is wrong.
outcome<std::vector<std::byte>> build_wordpiece(const wordpiece_vocabulary& vocabulary,
                                                const tokenizer_options& options);

/// True for a text with a line "[UNK]" and a line "[CLS]".
bool is_wordpiece_list(std::string_view text);

/// True for a tokenizer.json with a WordPiece model.
bool is_wordpiece_json(const nlohmann::json& j);

/// The blob of a vocab.txt whose text was read; `path` is its place: files beside it tell the special
/// tokens' names and switches.
outcome<std::vector<std::byte>> build_wordpiece_list(std::string_view text, const std::filesystem::path& path,
                                                     const tokenizer_options& options);

/// The blob of a tokenizer.json; likewise.
outcome<std::vector<std::byte>> build_wordpiece_json(const nlohmann::json& j,
                                                     const std::filesystem::path& path,
                                                     const tokenizer_options& options);

}  // namespace ocellus::convert
