// Text to token ids, id for id as the reference tokenizers give them.
//
// Why: an embedding is only as right as its ids. Each family cleans text differently, treats special tokens
// differently and pads differently; all of that is data of the model file, written by the converter.
//
//   const auto opened = ocellus::tokenizer::open(bytes);  // the bytes of a packed file's tokenizer section
//   if (!opened) return opened.error();
//   std::vector<std::int32_t> ids(static_cast<std::size_t>(opened->context()));  // 77 for CLIP
//   const auto encoded = opened->encode("a photo of a cat", ids);                // fills all of ids
//   // encoded->count == 7: SOT, five words, EOT; the rest is padding
//
// Guarantees: `open` checks every table once, so that `encode` cannot read out of bounds whatever the blob
// holds. `encode` is const and thread-safe, takes any bytes (broken UTF-8 becomes U+FFFD as Python's
// errors="replace" does), needs time of order n log n, and takes scratch memory of a small multiple of the
// text's length from malloc for texts that are not plain short ASCII; where that fails it returns
// status::out_of_memory. Texts are limited to max_text_bytes. The blob is not copied and must outlive the
// tokenizer.
#pragma once

#include <ocellus/core/status.hpp>
#include <ocellus/text/clip_bpe.hpp>
#include <ocellus/text/sentencepiece.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/wordpiece.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

OCELLUS_BEGIN

/// What `tokenizer::encode` found out about one text.
struct encoded_text {
  int count;       ///< ids before the padding, SOT and EOT counted
  bool truncated;  ///< the text had more ids than the context holds
};

class tokenizer {
 public:
  static constexpr std::size_t max_text_bytes = std::size_t{1} << 26;

  /// Opens the tokenizer section of a packed file. `blob`: aligned to 8 bytes (64 in packed files).
  /// Errors: bad_tokenizer, bad_alignment, bad_offset, unsupported_version, unsupported_tokenizer,
  /// unknown_required_feature.
  [[gnu::cold]] static result<tokenizer> open(std::span<const std::byte> blob) noexcept {
    const result<tokenizer_blob> checked = tokenizer_blob::open(blob);
    if (!checked) return checked.error();
    tokenizer t(*checked);
    status s = status::unsupported_tokenizer;
    switch (static_cast<tokenizer_kind>(checked->header().kind)) {
      case tokenizer_kind::clip_bpe: s = t.clip_.open(*checked); break;
      case tokenizer_kind::unigram: s = t.unigram_.open(*checked); break;
      case tokenizer_kind::spm_bpe: s = t.spm_bpe_.open(*checked); break;
      case tokenizer_kind::wordpiece: s = t.wordpiece_.open(*checked); break;
    }
    if (s != status::ok) return s;
    return t;
  }

  text_style style() const noexcept { return blob_.style(); }
  /// Ids that the model takes per text.
  int context() const noexcept { return blob_.header().context; }
  int vocab_size() const noexcept { return blob_.header().vocab_size; }
  int pad_id() const noexcept { return blob_.header().pad; }
  /// -1 where the model has none.
  int sot_id() const noexcept { return blob_.header().sot; }
  int eot_id() const noexcept { return blob_.header().eot; }

  /// Encodes `text` (any bytes, UTF-8 expected) into `ids`, which is filled in full: SOT, content, EOT,
  /// padding as the model has them. Its size is the context that applies, usually context(); at least 2.
  /// Errors: buffer_too_small, too_large (beyond max_text_bytes), out_of_memory.
  result<encoded_text> encode(std::string_view text, std::span<std::int32_t> ids) const noexcept {
    if (ids.size() < 2) return status::buffer_too_small;
    if (text.size() > max_text_bytes) return status::too_large;
    token_sink sink(blob_.header(), ids);
    status s = status::unsupported_tokenizer;
    switch (static_cast<tokenizer_kind>(blob_.header().kind)) {
      case tokenizer_kind::clip_bpe: s = clip_.encode(text, sink); break;
      case tokenizer_kind::unigram: s = unigram_.encode(text, sink); break;
      case tokenizer_kind::spm_bpe: s = spm_bpe_.encode(text, sink); break;
      case tokenizer_kind::wordpiece: s = wordpiece_.encode(text, sink); break;
    }
    if (s != status::ok) return s;
    const int count = sink.finish();
    return encoded_text{count, sink.truncated()};
  }

 private:
  explicit tokenizer(const tokenizer_blob& blob) noexcept : blob_(blob) {}

  tokenizer_blob blob_;
  clip_bpe clip_;
  spm_unigram unigram_;
  spm_bpe spm_bpe_;
  wordpiece wordpiece_;
};

OCELLUS_END
