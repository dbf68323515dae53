// BERT's WordPiece tokenizer, as open_clip's CLIPA uses it: clean text is cut into words at white space and
// punctuation, each word into the longest pieces of the vocabulary from left to right; pieces inside a word
// are spelt "##piece". A word that cannot be cut that way, or that is too long, is one unknown piece.
//
// The tables lie in the blob (see tokenizer_blob.hpp) and are read in place:
//   section 0  wordpiece_info[1]
//   section 1  std::uint32_t[]   all pieces, a double array: piece -> id
//   section 2  std::uint32_t[]   special texts, a double array: text -> id
//
// Opening looks at the header only; encoding checks each id that it reads. Time is linear: within a word the
// search for the longest piece starts anew at each piece, but words are limited to 100 letters, as in the
// reference. References: Devlin et al. 2018 (BERT); the tokenizers library's BertNormalizer,
// BertPreTokenizer and WordPiece, which transformers' BertTokenizerFast is made of.
#pragma once

#include <ocellus/text/buffer.hpp>
#include <ocellus/text/clean.hpp>
#include <ocellus/text/double_array.hpp>
#include <ocellus/text/fast_tables.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

OCELLUS_BEGIN

inline constexpr std::uint32_t wordpiece_clean = 1u << 0;  ///< control characters go, white space is a blank
inline constexpr std::uint32_t wordpiece_split_ideographs = 1u << 1;  ///< each ideograph is a word
inline constexpr std::uint32_t wordpiece_strip_accents = 1u << 2;
inline constexpr std::uint32_t wordpiece_lower = 1u << 3;
inline constexpr std::uint32_t wordpiece_known_flags = 0xF;

/// Section 0.
struct wordpiece_info {
  std::uint32_t flags;         ///< wordpiece_*; unknown bits are refused
  std::uint32_t most_letters;  ///< of a word; longer ones are unknown; at most wordpiece_most_letters
  std::uint32_t reserved[6];
};
static_assert(offsetof(wordpiece_info, most_letters) == 4);
static_assert(sizeof(wordpiece_info) == 32);

inline constexpr std::uint32_t wordpiece_most_letters = 256;
inline constexpr std::uint32_t wordpiece_max_special = 1024;  ///< bytes
inline constexpr std::string_view wordpiece_inside = "##";    ///< prefix of pieces that do not begin a word

/// The encoder of kind wordpiece. Use it through ocellus::tokenizer.
class wordpiece {
 public:
  /// Checks the header; see the head of this file.
  status open(const tokenizer_blob& blob) noexcept {
    if (blob.style() != text_style::bert_openclip) return status::unsupported_tokenizer;
    const std::span<const wordpiece_info> info = blob.section<wordpiece_info>(0);
    if (info.size() != 1) return status::bad_tokenizer;
    info_ = info[0];
    if (info_.flags & ~wordpiece_known_flags) return status::unknown_required_feature;
    if (info_.most_letters < 1 || info_.most_letters > wordpiece_most_letters) return status::bad_tokenizer;
    cleaning_ = blob.cleaning();
    vocab_size_ = static_cast<std::uint32_t>(blob.header().vocab_size);
    unk_ = blob.header().unk;
    pieces_ = double_array(blob.section<std::uint32_t>(1));
    specials_ = double_array(blob.section<std::uint32_t>(2));
    if (pieces_.empty() || unk_ < 0) return status::bad_tokenizer;
    first_ = inside_ = pieces_.root();
    has_inside_ = true;
    for (const char c : wordpiece_inside) {
      has_inside_ = has_inside_ && pieces_.step(inside_, static_cast<unsigned char>(c));
    }
    return status::ok;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory.
  status encode(std::string_view text, token_sink& out) const noexcept {
    text32 letters;
    text_buffer<char> utf8;
    cleaning::openclip(cleaning_, text, letters);
    unicode::encode_utf8(letters.span(), utf8);
    if (letters.failed() || utf8.failed()) return status::out_of_memory;
    const std::string_view clean(utf8.data(), utf8.size());
    std::size_t from = 0;
    for (std::size_t i = 0; i < clean.size() && !specials_.empty();) {
      const double_array::match m = specials_.find_longest(clean.substr(i), wordpiece_max_special);
      if (m.length == 0 || m.value >= vocab_size_) {
        ++i;
        continue;
      }
      if (const status s = encode_part(clean.substr(from, i - from), out); s != status::ok) return s;
      if (!out.push(static_cast<std::int32_t>(m.value))) return status::ok;
      i += m.length;
      from = i;
    }
    return encode_part(clean.substr(from), out);
  }

 private:
  bool has(std::uint32_t flag) const noexcept { return info_.flags & flag; }

  /// What lies between special texts: normalised, then word by word.
  status encode_part(std::string_view text, token_sink& out) const noexcept {
    if (text.empty() || out.truncated()) return status::ok;
    text32 letters;
    text_buffer<char> word;
    text_buffer<std::int32_t> ids;
    normalize(text, letters);
    if (letters.failed()) return status::out_of_memory;
    for (std::size_t i = 0; i < letters.size() && !out.truncated();) {
      const std::size_t begin = i++;
      if (unicode::is_space(letters[begin])) continue;
      if (!is_punctuation(letters[begin])) {
        while (i < letters.size() && !unicode::is_space(letters[i]) && !is_punctuation(letters[i])) ++i;
      }
      ids.clear();
      word.clear();
      if (i - begin <= info_.most_letters) {
        unicode::encode_utf8(letters.span().subspan(begin, i - begin), word);
        cut({word.data(), word.size()}, ids);
      }
      if (word.failed() || ids.failed()) return status::out_of_memory;
      if (ids.empty()) ids.push_back(unk_);
      for (const std::int32_t id : ids) {
        if (!out.push(id)) break;
      }
    }
    return status::ok;
  }

  static bool is_punctuation(char32_t c) noexcept {
    return unicode::is_in_runs(unicode::tables::bert_punctuation, c);
  }

  /// BertNormalizer: control characters and white space, blanks around ideographs, accents (NFD without
  /// marks), lower case letter by letter.
  void normalize(std::string_view text, text32& out) const noexcept {
    namespace tables = unicode::tables;
    text32 letters;
    letters.reserve(text.size());
    for (std::size_t i = 0; i < text.size();) {
      char32_t c = unicode::decode_one(text, i);
      if (has(wordpiece_clean)) {
        if (unicode::is_in_runs(tables::bert_dropped, c)) continue;
        if (unicode::is_space(c)) c = ' ';
      }
      const bool apart = has(wordpiece_split_ideographs) && unicode::is_in_runs(tables::bert_ideographs, c);
      if (apart) letters.push_back(' ');
      letters.push_back(c);
      if (apart) letters.push_back(' ');
    }
    if (has(wordpiece_strip_accents)) {
      constexpr char32_t too_new = 0x11938;  // the library's tables do not know this decomposition yet
      for (const char32_t c : letters) {
        if (c < 0xC0 || c == too_new) {
          out.push_back(c);
        } else {
          unicode::detail::decompose(c, out);
        }
      }
      unicode::detail::order_marks(out, unicode::tables::late_marks);
      const auto* end = std::remove_if(out.begin(), out.end(),
                                       [](char32_t c) { return unicode::is_in_runs(tables::bert_marks, c); });
      out.truncate(static_cast<std::size_t>(end - out.begin()));
      if (letters.failed()) out.fail();
    } else {
      out.swap(letters);
    }
    if (has(wordpiece_lower)) cleaning::lower(out, unicode::sigma::alone);
  }

  /// The pieces of a word, or nothing if it cannot be cut.
  void cut(std::string_view word, text_buffer<std::int32_t>& ids) const noexcept {
    for (std::size_t from = 0; from < word.size();) {
      if (from > 0 && !has_inside_) return ids.clear();
      double_array::cursor at = from == 0 ? first_ : inside_;
      std::size_t end = from;
      std::uint32_t id = 0;
      for (std::size_t i = from; i < word.size() && pieces_.step(at, static_cast<unsigned char>(word[i]));
           ++i) {
        const std::uint32_t value = pieces_.value(at);
        if (value == double_array::no_value || value >= vocab_size_) continue;
        end = i + 1;
        id = value;
      }
      if (end == from) return ids.clear();
      ids.push_back(static_cast<std::int32_t>(id));
      from = end;
    }
  }

  wordpiece_info info_{};
  text_cleaning cleaning_ = text_cleaning::none;
  std::uint32_t vocab_size_ = 0;
  std::int32_t unk_ = -1;
  bool has_inside_ = false;
  double_array pieces_;
  double_array specials_;
  double_array::cursor first_{};
  double_array::cursor inside_{};
};

OCELLUS_END
