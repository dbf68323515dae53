// The tokenizer section of a packed file: one header, then up to eight 64-byte aligned tables that the
// encoders read in place. Nothing is copied, so the same bytes work from mmap, from a buffer and from flash.
//
// Layout (little-endian):
//   tokenizer_header            192 bytes
//   sections[0..7]              each at a multiple of 64 bytes from the start of the blob, zero padded
//   between;
//                               what a section holds depends on `kind` and is defined beside its encoder
//                               (clip_bpe.hpp, sentencepiece.hpp, wordpiece.hpp)
//
// Goals: every bound is checked once, when the blob is opened, so that encoding needs no checks and cannot
// read out of bounds; building (tools/convert/tokenizer.cpp) may be slow, opening must not copy. Non-goal: a
// compact file.
#pragma once

#include <ocellus/core/status.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>

OCELLUS_BEGIN

/// The algorithm that turns clean text into ids.
enum class tokenizer_kind : std::uint32_t {
  clip_bpe = 1,   ///< byte-level BPE with "</w>" (OpenAI CLIP)
  unigram = 2,    ///< SentencePiece unigram (SigLIP, XLM-R)
  spm_bpe = 3,    ///< SentencePiece BPE (Gemma, SigLIP 2)
  wordpiece = 4,  ///< WordPiece (BERT, CLIPA)
};

/// Whose tokenizer is followed, id for id. It decides cleaning and the treatment of special tokens.
enum class text_style : std::uint32_t {
  clip_openclip = 1,     ///< open_clip SimpleTokenizer: ftfy, HTML unescape twice, lower-case; pads with 0
  clip_hf = 2,           ///< transformers CLIPTokenizerFast: NFC, lower-case letter by letter; pads with EOT
  siglip_hf = 3,         ///< transformers SiglipTokenizer: lower-case, ASCII punctuation dropped
  siglip_openclip = 4,   ///< open_clip "canonicalize" before SentencePiece unigram
  siglip2 = 5,           ///< transformers Siglip2Tokenizer: lower-case, then Gemma BPE
  siglip2_openclip = 6,  ///< open_clip "canonicalize" before Gemma BPE
  bert_openclip = 7,     ///< open_clip's cleaning before transformers' BertTokenizerFast
  xlm_roberta_openclip = 8,  ///< open_clip's cleaning before transformers' XLMRobertaTokenizerFast
};

/// "clip-openclip", "clip-hf", "siglip-hf", "siglip-openclip", "siglip2", "siglip2-openclip", "bert-openclip",
/// "xlm-roberta-openclip".
constexpr const char* to_string(text_style s) noexcept {
  switch (s) {
    case text_style::clip_openclip: return "clip-openclip";
    case text_style::clip_hf: return "clip-hf";
    case text_style::siglip_hf: return "siglip-hf";
    case text_style::siglip_openclip: return "siglip-openclip";
    case text_style::siglip2: return "siglip2";
    case text_style::siglip2_openclip: return "siglip2-openclip";
    case text_style::bert_openclip: return "bert-openclip";
    case text_style::xlm_roberta_openclip: return "xlm-roberta-openclip";
  }
  return "unknown";
}

/// open_clip's cleaning functions (`clean` in its tokenizer_kwargs), for the *_openclip styles. Of the others
/// siglip-hf and siglip2 leave out lower-casing if it is `none`.
enum class text_cleaning : std::uint32_t {
  none = 0,          ///< the style has its own normalisation
  whitespace = 1,    ///< ftfy, HTML unescape twice, collapse white space
  lower = 2,         ///< whitespace, then lower-case
  canonicalize = 3,  ///< ftfy, HTML unescape twice, "_" to blank, drop punctuation, lower-case, collapse
};

inline constexpr std::uint32_t tokenizer_add_sot = 1u << 0;  ///< ids begin with `sot`
inline constexpr std::uint32_t tokenizer_add_eot = 1u << 1;  ///< ids end with `eot`, also when truncated
inline constexpr std::uint32_t tokenizer_byte_fallback = 1u << 2;  ///< unknown letters become byte pieces
inline constexpr std::uint32_t tokenizer_known_flags = 0x7;

/// Position of a table: bytes from the start of the blob, and its size in bytes (0: absent).
struct tokenizer_section {
  std::uint64_t offset;
  std::uint64_t size;
};

inline constexpr int tokenizer_max_sections = 8;
inline constexpr auto tokenizer_last_style = static_cast<std::uint32_t>(text_style::xlm_roberta_openclip);

/// First bytes of the blob.
struct tokenizer_header {
  char magic[4];                ///< "OCTK"
  std::uint16_t version_major;  ///< readers refuse another major version
  std::uint16_t version_minor;
  std::uint32_t kind;      ///< tokenizer_kind
  std::uint32_t style;     ///< text_style
  std::uint32_t cleaning;  ///< text_cleaning
  std::uint32_t flags;     ///< tokenizer_*; unknown bits are refused
  std::int32_t context;    ///< ids the model takes, e.g. 77 or 64
  std::int32_t vocab_size;
  std::int32_t sot;  ///< start of text, -1: none
  std::int32_t eot;  ///< end of text, -1: none
  std::int32_t pad;  ///< fills the ids up to the context
  std::int32_t unk;  ///< unknown piece, -1: none
  std::uint32_t reserved[4];
  tokenizer_section sections[tokenizer_max_sections];
};

static_assert(offsetof(tokenizer_header, version_major) == 4);
static_assert(offsetof(tokenizer_header, kind) == 8);
static_assert(offsetof(tokenizer_header, style) == 12);
static_assert(offsetof(tokenizer_header, cleaning) == 16);
static_assert(offsetof(tokenizer_header, flags) == 20);
static_assert(offsetof(tokenizer_header, context) == 24);
static_assert(offsetof(tokenizer_header, vocab_size) == 28);
static_assert(offsetof(tokenizer_header, sot) == 32);
static_assert(offsetof(tokenizer_header, unk) == 44);
static_assert(offsetof(tokenizer_header, reserved) == 48);
static_assert(offsetof(tokenizer_header, sections) == 64);
static_assert(sizeof(tokenizer_header) == 192);

inline constexpr std::uint16_t tokenizer_version_major = 1;
inline constexpr std::uint16_t tokenizer_version_minor = 0;

/// A blob whose header and section bounds have been checked. The encoders take their tables from it.
class tokenizer_blob {
 public:
  /// Checks header, ids and section bounds. `bytes` must be aligned to 8 bytes and outlive this object.
  static result<tokenizer_blob> open(std::span<const std::byte> bytes) noexcept {
    if constexpr (std::endian::native != std::endian::little) return status::unsupported_tokenizer;
    if (bytes.size() < sizeof(tokenizer_header)) return status::bad_tokenizer;
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % 8 != 0) return status::bad_alignment;
    tokenizer_blob blob;
    blob.bytes_ = bytes;
    std::memcpy(&blob.header_, bytes.data(), sizeof(tokenizer_header));
    const tokenizer_header& h = blob.header_;
    if (std::memcmp(h.magic, "OCTK", 4) != 0) return status::bad_tokenizer;
    if (h.version_major != tokenizer_version_major) return status::unsupported_version;
    if (h.flags & ~tokenizer_known_flags) return status::unknown_required_feature;
    if (h.style < 1 || h.style > tokenizer_last_style || h.cleaning > 3) return status::unsupported_tokenizer;
    if (!blob.ids_make_sense()) return status::bad_tokenizer;
    for (const tokenizer_section& s : h.sections) {
      if (s.size == 0) continue;
      if (s.offset % 64 != 0 || s.offset < sizeof(tokenizer_header)) return status::bad_offset;
      if (s.offset > bytes.size() || s.size > bytes.size() - s.offset) return status::bad_offset;
    }
    return blob;
  }

  const tokenizer_header& header() const noexcept { return header_; }
  text_style style() const noexcept { return static_cast<text_style>(header_.style); }
  text_cleaning cleaning() const noexcept { return static_cast<text_cleaning>(header_.cleaning); }

  /// Section i as an array of T; empty if absent. A size that is no multiple of sizeof(T) gives an empty span
  /// too.
  template <class T>
  std::span<const T> section(int i) const noexcept {
    static_assert(std::is_trivially_copyable_v<T> && alignof(T) <= 8);
    const tokenizer_section& s = header_.sections[i];
    if (s.size == 0 || s.size % sizeof(T) != 0) return {};
    return {reinterpret_cast<const T*>(bytes_.data() + s.offset),
            static_cast<std::size_t>(s.size / sizeof(T))};
  }

 private:
  bool is_id(std::int32_t id) const noexcept { return id >= 0 && id < header_.vocab_size; }

  bool ids_make_sense() const noexcept {
    const tokenizer_header& h = header_;
    if (h.context < 1 || h.context > (1 << 20) || h.vocab_size < 1 || h.vocab_size > (1 << 24)) return false;
    if ((h.flags & tokenizer_add_sot) && !is_id(h.sot)) return false;
    if ((h.flags & tokenizer_add_eot) && !is_id(h.eot)) return false;
    const auto absent_or_id = [this](std::int32_t id) { return id == -1 || is_id(id); };
    return absent_or_id(h.sot) && absent_or_id(h.eot) && absent_or_id(h.unk) && is_id(h.pad);
  }

  std::span<const std::byte> bytes_;
  tokenizer_header header_{};
};

/// Collects ids and applies the policy of the header: SOT first, EOT last even when the text is too long,
/// then padding. Encoders call `push` for content ids only and may stop as soon as it returns false.
class token_sink {
 public:
  /// `ids` is filled in full by `finish`; its size is the context length that applies.
  token_sink(const tokenizer_header& h, std::span<std::int32_t> ids) noexcept : header_(h), ids_(ids) {
    const std::size_t ends = (h.flags & tokenizer_add_eot) ? 1 : 0;
    limit_ = ids.size() >= ends ? ids.size() - ends : 0;
    if (h.flags & tokenizer_add_sot) push(h.sot);
    truncated_ = false;
  }

  /// Appends a content id. False: there was no room; the text is truncated here.
  bool push(std::int32_t id) noexcept {
    if (count_ == limit_) {
      truncated_ = true;
      return false;
    }
    ids_[count_++] = id;
    return true;
  }

  /// True once a content id was refused.
  bool truncated() const noexcept { return truncated_; }
  /// Content ids that can still be pushed.
  std::size_t room() const noexcept { return limit_ - count_; }

  /// Adds EOT and padding; returns the number of ids before the padding.
  int finish() noexcept {
    if ((header_.flags & tokenizer_add_eot) && count_ < ids_.size()) ids_[count_++] = header_.eot;
    for (std::size_t i = count_; i < ids_.size(); ++i) ids_[i] = header_.pad;
    return static_cast<int>(count_);
  }

 private:
  const tokenizer_header& header_;
  std::span<std::int32_t> ids_;
  std::size_t limit_ = 0;
  std::size_t count_ = 0;
  bool truncated_ = false;
};

OCELLUS_END
