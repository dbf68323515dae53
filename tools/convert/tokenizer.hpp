// Builds the tokenizer section of a packed file from the vocabularies that people have.
//
//   auto blob = build_tokenizer("clip-vit-base-patch32/", {.style = text_style::clip_hf});
//   if (!blob) return blob.failure();                   // one line: which file, and why
//   auto tokenizer = ocellus::tokenizer::open(*blob);   // see <ocellus/text/tokenizer.hpp>
//
// Read are, by what they hold rather than by their names:
//   bpe_simple_vocab_16e6.txt, also .gz   CLIP's merges (OpenAI, open_clip); any number of merges
//   vocab.json with merges.txt            CLIP (transformers)
//   tokenizer.json                        CLIP BPE; SentencePiece unigram and BPE; WordPiece
//   spiece.model, tokenizer.model         SentencePiece unigram
//   sentencepiece.bpe.model               the same with XLM-R's order of ids
//   siglip2_vocab.json                    a list of Gemma's pieces in id order
//   vocab.txt                             BERT's WordPiece
// or a folder with one of these. Everything is untrusted: sizes are limited and each id is checked.
#pragma once

#include "outcome.hpp"

#include <ocellus/text/tokenizer_blob.hpp>

#include <cstddef>
#include <filesystem>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

namespace ocellus::convert {

/// What the vocabulary's files do not say. The converter takes it from the checkpoint's configuration.
struct tokenizer_options {
  std::optional<text_style> style =
      {};  ///< default: transformers' for its files, open_clip's for merge lists
  std::optional<text_cleaning> cleaning =
      {};  ///< open_clip styles; default: lower for CLIP, canonicalize for SigLIP, else whitespace
  std::optional<int> context = {};     ///< default: the files' own, else 77 for CLIP and 64 for SigLIP
  std::optional<int> pad = {};         ///< id of the padding; default: the style's
  std::optional<int> vocab_size = {};  ///< rows of the text embedding: more pieces than these are an error
  bool strip_sep = false;              ///< open_clip's strip_sep_token: the end of text becomes id 0
};

/// "clip-openclip" and so on, as text_style's to_string writes it.
std::optional<text_style> parse_text_style(std::string_view name);

/// The blob, ready for ocellus::tokenizer::open; its size is a multiple of 64. `path` is a file or a folder.
outcome<std::vector<std::byte>> build_tokenizer(const std::filesystem::path& path,
                                                const tokenizer_options& options);

/// True if the folder holds a vocabulary that build_tokenizer reads.
bool has_tokenizer(const std::filesystem::path& folder);

/// A text that becomes one id (transformers).
struct added_token {
  std::string content;
  int id = 0;
  bool normalized = false;  ///< looked for after normalisation
  bool special = false;
};

/// CLIP's vocabulary, whatever files it came from. Symbols are spelt as the files spell them: each byte as
/// one printable letter (GPT-2's table), in UTF-8, "</w>" at the end of words.
struct clip_vocabulary {
  std::unordered_map<std::string, int> ids;
  std::vector<std::pair<std::string, std::string>> merges;  ///< earliest first
  std::vector<added_token> added;                           ///< transformers only
  std::string sot = "<|startoftext|>";
  std::string eot = "<|endoftext|>";
  std::string pad;  ///< empty: the style's
  std::optional<int> context;
};

/// Reads OpenAI's merge list (plain text; the first line is skipped). Ids follow from the order: 256 bytes,
/// 256 bytes with "</w>", the merges (at most 48894), start and end.
outcome<clip_vocabulary> parse_merge_list(std::string_view text, std::optional<int> vocab_size);

/// The blob of a CLIP vocabulary. `style` must be set, to one of the two CLIP styles.
outcome<std::vector<std::byte>> build_clip_tokenizer(const clip_vocabulary& vocabulary,
                                                     const tokenizer_options& options);

/// Reads a whole file, inflated if it is gzip. Errors: unreadable, empty, larger than `limit` (also after
/// inflating).
outcome<std::string> read_text_file(const std::filesystem::path& path,
                                    std::size_t limit = std::size_t{64} << 20);

/// Puts header and sections into one blob: sections begin at multiples of 64 bytes.
class tokenizer_blob_writer {
 public:
  tokenizer_blob_writer() = default;

  /// To be filled in by the caller, but for magic, version and sections.
  tokenizer_header header{};

  /// Adds section i; `items` are copied. An empty section stays absent.
  template <class T>
  void add(int i, std::span<const T> items) {
    add_bytes(i, std::as_bytes(items));
  }

  /// The blob. The writer is empty afterwards.
  std::vector<std::byte> finish();

 private:
  void add_bytes(int i, std::span<const std::byte> bytes);

  std::vector<std::byte> bytes_;
};

}  // namespace ocellus::convert
