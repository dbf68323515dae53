// Builds the tokenizer section from SentencePiece vocabularies: spiece.model and tokenizer.model (the
// library's protobuf files), tokenizer.json with a Unigram model or a BPE with byte fallback, and a plain
// list of Gemma's pieces. The blob's layout is described in <ocellus/text/sentencepiece.hpp>.
#pragma once

#include "outcome.hpp"
#include "tokenizer.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ocellus::convert {

/// A vocabulary, whatever file it came from.
struct sentencepiece_vocabulary {
  /// Numbers as in the protobuf files.
  enum class piece_type { normal = 1, unknown = 2, control = 3, user_defined = 4, unused = 5, byte = 6 };
  struct piece {
    std::string text;  ///< empty: no piece has this id
    float score = 0;
    piece_type type = piece_type::normal;
  };
  bool is_bpe = false;
  bool is_xlm_roberta = false;  ///< unigram with XLM-R's order of ids
  bool byte_fallback = false;
  std::vector<piece> pieces;  ///< by id
  std::uint32_t flags = 0;    ///< spm_* of the normaliser
  std::string charsmap;       ///< the normaliser's map as SentencePiece packs it; empty: none
  /// BPE: the merges, earliest first, where the file lists them; else they follow from the scores.
  std::vector<std::pair<std::string, std::string>> merges;
  std::vector<std::pair<std::string, int>>
      specials;  ///< texts that are one id in the raw text (transformers)
  std::string unk = "<unk>";
  std::string eos;             ///< empty: "</s>" or "<eos>"
  std::string pad;             ///< empty: the style's
  bool lower_case = true;      ///< transformers' do_lower_case
  std::optional<int> context;  ///< of the files beside the vocabulary
};

inline constexpr std::size_t sentencepiece_most_pieces = 1'000'000;

/// The byte that a piece of the form "<0x41>" stands for, or -1.
int sentencepiece_byte(std::string_view text);

/// True if the text is one code point.
bool is_one_letter(std::string_view text);

/// Reads SentencePiece's protobuf file. Fields that do not matter here are skipped.
outcome<sentencepiece_vocabulary> parse_sentencepiece_model(std::string_view bytes);

/// The blob. Errors name the piece that is wrong.
outcome<std::vector<std::byte>> build_sentencepiece(sentencepiece_vocabulary vocabulary,
                                                    const tokenizer_options& options);

/// True for a tokenizer.json with a Unigram model or a BPE without "</w>" whose blanks are U+2581, and for a
/// list of pieces.
bool is_sentencepiece_json(const nlohmann::json& j);

/// The blob of such a JSON file; `path` is its place: files beside it tell the special tokens' names.
outcome<std::vector<std::byte>> build_sentencepiece_json(const nlohmann::json& j,
                                                         const std::filesystem::path& path,
                                                         const tokenizer_options& options);

/// The blob of a protobuf file; likewise.
outcome<std::vector<std::byte>> build_sentencepiece_model(const std::filesystem::path& path,
                                                          const tokenizer_options& options);

}  // namespace ocellus::convert
