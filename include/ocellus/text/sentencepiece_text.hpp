// What SentencePiece's two encoders share: the tables' elements, special texts, cleaning by style, and the
// normaliser. The layout of the blob is described in sentencepiece.hpp.
#pragma once

#include <ocellus/text/buffer.hpp>
#include <ocellus/text/clean.hpp>
#include <ocellus/text/double_array.hpp>
#include <ocellus/text/graphemes.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <type_traits>

OCELLUS_BEGIN

inline constexpr std::uint32_t spm_dummy_prefix = 1u << 0;   ///< a blank is put before the text
inline constexpr std::uint32_t spm_single_blanks = 1u << 1;  ///< runs of blanks become one, none at the ends
inline constexpr std::uint32_t spm_escape_blanks = 1u << 2;  ///< blanks become U+2581
inline constexpr std::uint32_t spm_blank_is_suffix = 1u << 3;  ///< the dummy blank goes to the end
inline constexpr std::uint32_t spm_whole_words = 1u << 4;      ///< no piece has U+2581 after another letter
inline constexpr std::uint32_t spm_known_flags = 0x1F;

/// Section 0 of both kinds.
struct spm_info {
  std::uint32_t flags;          ///< spm_*; unknown bits are refused
  std::uint32_t longest_piece;  ///< bytes, at most spm_max_piece
  float unknown_score;          ///< log probability of a letter that is no piece
  std::uint32_t letter_probes;  ///< most slots to look at in the table of letters
  std::uint32_t merge_probes;   ///< and in that of merges
  float lowest_score;           ///< of all pieces; xlm-roberta-openclip only
  std::uint32_t reserved[2];
};
static_assert(offsetof(spm_info, unknown_score) == 8);
static_assert(offsetof(spm_info, letter_probes) == 12);
static_assert(offsetof(spm_info, lowest_score) == 20);
static_assert(sizeof(spm_info) == 32);

inline constexpr std::uint32_t spm_max_piece = 255;        ///< bytes
inline constexpr std::uint32_t spm_max_special = 1024;     ///< bytes
inline constexpr std::uint32_t spm_max_replacement = 255;  ///< bytes; the longest of NFKC has 33
inline constexpr std::uint32_t spm_max_probes = 1024;
inline constexpr std::uint32_t spm_user_defined = 1u << 24;  ///< added to the id in section 6
inline constexpr std::uint32_t spm_max_bpe_ids = (1u << 20) - 1;
inline constexpr std::uint32_t spm_max_merges = (1u << 24) - 1;

/// A piece of one letter; `id` -1: the slot is free.
struct spm_letter {
  std::uint32_t letter;  ///< code point
  std::int32_t id;
};
static_assert(sizeof(spm_letter) == 8);

inline constexpr std::uint64_t spm_free_merge = ~std::uint64_t{0};

/// Left and right of a merge as the upper 40 bits of its slot's value.
constexpr std::uint64_t spm_merge_key(std::uint32_t left, std::uint32_t right) noexcept {
  return std::uint64_t{left} << 20 | right;
}

/// Slot of a key in a table of 2^bits before probing; shared by builder and reader. Fibonacci hashing, Knuth
/// 6.4.
constexpr std::size_t spm_slot(std::uint64_t key, int bits) noexcept {
  return static_cast<std::size_t>((key * 0x9E3779B97F4A7C15u) >> (64 - bits));
}

namespace detail {

/// A callable of the caller's by reference: what hands pieces on is compiled once, whoever takes them.
template <class Signature>
class call_ref;
template <class R, class... Args>
class call_ref<R(Args...)> {
 public:
  template <class F>
    requires(!std::is_same_v<std::remove_cv_t<F>, call_ref>)
  call_ref(F& f) noexcept
      : object_(const_cast<void*>(static_cast<const void*>(&f))),
        call_([](void* object, Args... args) -> R { return (*static_cast<F*>(object))(args...); }) {}
  R operator()(Args... args) const { return call_(object_, args...); }

 private:
  void* object_;
  R (*call_)(void*, Args...);
};

using spm_emit = call_ref<bool(std::int32_t)>;                            ///< takes an id; false: the sink is full
using spm_segment = call_ref<status(std::string_view run, spm_emit put)>;  ///< cuts a run into pieces

inline constexpr std::string_view spm_blank = "\xE2\x96\x81";  // U+2581

/// Bytes of the letter at text[at], which is valid UTF-8 up to a truncated end.
constexpr std::size_t letter_size(std::string_view text, std::size_t at) noexcept {
  const auto lead = static_cast<unsigned char>(text[at]);
  const std::size_t n = lead < 0xC0 ? 1 : lead < 0xE0 ? 2 : lead < 0xF0 ? 3 : 4;
  return std::min(n, text.size() - at);
}

/// What comes before the encoder, for both kinds: special texts, the style's cleaning, the normaliser.
class spm_text {
 public:
  status open(const tokenizer_blob& blob) noexcept {
    style_ = blob.style();
    cleaning_ = blob.cleaning();
    if (style_ == text_style::clip_openclip || style_ == text_style::clip_hf ||
        style_ == text_style::bert_openclip)
      return status::unsupported_tokenizer;
    const std::span<const spm_info> info = blob.section<spm_info>(0);
    if (info.size() != 1) return status::bad_tokenizer;
    info_ = info[0];
    if (info_.flags & ~spm_known_flags) return status::unknown_required_feature;
    if (info_.longest_piece > spm_max_piece) return status::bad_tokenizer;
    map_ = double_array(blob.section<std::uint32_t>(1));
    replacements_ = blob.section<char>(2);
    if (!map_.empty() && (replacements_.empty() || replacements_.back() != '\0'))
      return status::bad_tokenizer;
    specials_ = double_array(blob.section<std::uint32_t>(4));
    vocab_size_ = static_cast<std::uint32_t>(blob.header().vocab_size);
    return open_bytes(blob);
  }

  const spm_info& info() const noexcept { return info_; }
  std::uint32_t vocab_size() const noexcept { return vocab_size_; }
  bool is_xlm_roberta() const noexcept { return style_ == text_style::xlm_roberta_openclip; }
  /// True for a piece that counts as unknown letters: the tokenizers library finds "<unk>" in a text too.
  bool is_unknown(std::uint32_t id) const noexcept {
    return is_xlm_roberta() && static_cast<std::int32_t>(id) == unk_;
  }
  /// Log probability of a letter that is no piece.
  template <class Score>
  Score unknown_score() const noexcept {
    if constexpr (std::is_same_v<Score, double>) {
      return static_cast<double>(info_.lowest_score) - 10.0;
    } else {
      return info_.unknown_score;
    }
  }
  /// User-defined pieces, which the normaliser does not change.
  void keep(double_array user_defined) noexcept { user_defined_ = user_defined; }

  /// Emits what an unknown letter becomes: its bytes, or one unknown piece for a run of them. `run_goes_on`:
  /// the letter before was unknown too. False: the sink is full.
  bool unknown(std::string_view letter, bool run_goes_on, spm_emit put) const noexcept {
    if (bytes_.empty()) return run_goes_on || put(unk_);
    for (const char c : letter) {
      if (!put(bytes_[static_cast<unsigned char>(c)])) return false;
    }
    return true;
  }

  /// Cleans `text` as the style has it and hands each normalised run to segment(run, put), which calls
  /// put(id) until it returns false; special texts between the runs become ids here.
  status encode(std::string_view text, token_sink& out, spm_segment segment) const noexcept {
    if (style_ == text_style::siglip_hf) return encode_siglip_hf(text, out, segment);
    if (style_ == text_style::xlm_roberta_openclip) return encode_xlm_roberta(text, out, segment);
    text_buffer<char> utf8;
    text32 letters;
    if (style_ != text_style::siglip2) {
      cleaning::openclip(cleaning_, text, letters);
      unicode::encode_utf8(letters.span(), utf8);
    } else if (!is_valid(text)) {
      unicode::decode_utf8(text, letters);
      unicode::encode_utf8(letters.span(), utf8);
    } else {
      utf8.append(text.data(), text.size());
    }
    if (letters.failed() || utf8.failed()) return status::out_of_memory;
    const bool lower_case = style_ != text_style::siglip_openclip && cleaning_ != text_cleaning::none;
    const auto put = [&out](std::int32_t id) { return out.push(id); };
    return for_each_part({utf8.data(), utf8.size()}, out, [&](std::string_view part) {
      text_buffer<char> clean;
      text_buffer<char> run;
      if (!copy(part, lower_case, clean)) return status::out_of_memory;
      const status s = normalize({clean.data(), clean.size()}, info_.flags & spm_dummy_prefix, run);
      return s == status::ok ? segment(std::string_view(run.data(), run.size()), put) : s;
    });
  }

 private:
  status open_bytes(const tokenizer_blob& blob) noexcept {
    unk_ = blob.header().unk;
    bytes_ = blob.section<std::int32_t>(3);
    if (!(blob.header().flags & tokenizer_byte_fallback)) bytes_ = {};
    if (bytes_.empty()) return unk_ >= 0 ? status::ok : status::bad_tokenizer;
    if (bytes_.size() != 256) return status::bad_tokenizer;
    for (const std::int32_t id : bytes_) {
      if (id < 0 || static_cast<std::uint32_t>(id) >= vocab_size_) return status::bad_tokenizer;
    }
    return status::ok;
  }

  static bool is_valid(std::string_view text) noexcept {
    for (std::size_t i = 0; i < text.size();) {
      const std::size_t from = i;
      if (unicode::decode_one(text, i) == unicode::replacement &&
          text.substr(from, i - from) != "\xEF\xBF\xBD")
        return false;
    }
    return true;
  }

  /// Copies valid UTF-8, lowered letter by letter if wanted. False if memory is short.
  static bool copy(std::string_view text, bool lower_case, text_buffer<char>& out) noexcept {
    const bool ascii =
        std::all_of(text.begin(), text.end(), [](char c) { return static_cast<unsigned char>(c) < 0x80; });
    if (ascii || !lower_case) {
      out.append(text.data(), text.size());
      for (char& c : out) c = lower_case && c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
      return !out.failed();
    }
    text32 letters;
    unicode::decode_utf8(text, letters);
    cleaning::lower(letters, unicode::sigma::alone);
    unicode::encode_utf8(letters.span(), out);
    return !letters.failed() && !out.failed();
  }

  /// Cuts `text` at the special texts (leftmost, then longest), pushes their ids, and calls f for what lies
  /// between.
  template <class F>
  status for_each_part(std::string_view text, token_sink& out, F&& f) const noexcept {
    std::size_t from = 0;
    const auto flush = [&](std::size_t end) {
      return end > from ? f(text.substr(from, end - from)) : status::ok;
    };
    for (std::size_t i = 0; i < text.size() && !specials_.empty();) {
      const double_array::match m = specials_.find_longest(text.substr(i), spm_max_special);
      if (m.length == 0 || m.value >= vocab_size_) {
        ++i;
        continue;
      }
      if (const status s = flush(i); s != status::ok) return s;
      if (!out.push(static_cast<std::int32_t>(m.value))) return status::ok;
      i += m.length;
      from = i;
    }
    return flush(text.size());
  }

  /// transformers' SiglipTokenizer (the one with SentencePiece): U+2581 is put before the text; lower case
  /// letter by letter; cut at special texts; punctuation dropped and blanks collapsed in each part. The model
  /// gets each part behind "<unk>", so that the normaliser keeps the blank in front, and the pieces that
  /// "<unk>" alone has are dropped from the result.
  status encode_siglip_hf(std::string_view text, token_sink& out, spm_segment segment) const noexcept {
    constexpr std::string_view prefix = "<unk>";
    text32 letters;
    letters.push_back(U'\u2581');
    unicode::decode_utf8(text, letters);
    std::replace(letters.begin() + (letters.empty() ? 0 : 1), letters.end(), U'\u2581', U' ');
    if (cleaning_ != text_cleaning::none) cleaning::lower(letters, unicode::sigma::alone);
    text_buffer<char> utf8;
    unicode::encode_utf8(letters.span(), utf8);
    if (letters.failed() || utf8.failed()) return status::out_of_memory;

    text_buffer<char> run;
    std::size_t dropped = 0;
    if (const status s = normalize(prefix, false, run); s != status::ok) return s;
    const auto count = [&dropped](std::int32_t) { return ++dropped, true; };
    if (const status s = segment(std::string_view(run.data(), run.size()), count); s != status::ok) return s;

    return for_each_part({utf8.data(), utf8.size()}, out, [&](std::string_view part) {
      text_buffer<char> clean;
      clean.append(prefix.data(), prefix.size());
      letters.clear();
      unicode::decode_utf8(part, letters);
      cleaning::drop_ascii_punctuation(letters);
      cleaning::collapse_space(letters);
      unicode::encode_utf8(letters.span(), clean);
      if (letters.failed() || clean.failed()) return status::out_of_memory;
      run.clear();
      if (const status s = normalize({clean.data(), clean.size()}, false, run); s != status::ok) return s;
      std::size_t pieces = 0;
      const auto put = [&](std::int32_t id) { return pieces++ < dropped || out.push(id); };
      return segment(std::string_view(run.data(), run.size()), put);
    });
  }

  /// transformers' XLMRobertaTokenizerFast: cut at special texts; the map applied to grapheme clusters; cut
  /// at white space; U+2581 put before each word, which is cut before each U+2581 inside.
  status encode_xlm_roberta(std::string_view text, token_sink& out, spm_segment segment) const noexcept {
    text32 letters;
    text_buffer<char> utf8;
    text_buffer<char> clean;
    text_buffer<char> word;
    cleaning::openclip(cleaning_, text, letters);
    unicode::encode_utf8(letters.span(), utf8);
    if (letters.failed() || utf8.failed()) return status::out_of_memory;
    const auto put = [&out](std::int32_t id) { return out.push(id); };
    const auto encode_word = [&](std::string_view letters_of_word) {
      word.clear();
      if (!letters_of_word.starts_with(spm_blank)) word.append(spm_blank.data(), spm_blank.size());
      word.append(letters_of_word.data(), letters_of_word.size());
      if (word.failed()) return status::out_of_memory;
      const std::string_view rest(word.data(), word.size());
      for (std::size_t at = 0; at < rest.size() && !out.truncated();) {
        const std::size_t end = std::min(rest.find(spm_blank, at + 1), rest.size());
        if (const status s = segment(rest.substr(at, end - at), put); s != status::ok) return s;
        at = end;
      }
      return status::ok;
    };
    return for_each_part({utf8.data(), utf8.size()}, out, [&](std::string_view part) {
      clean.clear();
      map_clusters(part, clean);
      if (clean.failed()) return status::out_of_memory;
      const std::string_view rest(clean.data(), clean.size());
      for (std::size_t at = 0; at < rest.size() && !out.truncated();) {
        const std::size_t begin = at;
        std::size_t end = at;  // of the word
        while (at < rest.size()) {
          end = at;
          if (unicode::is_space(unicode::decode_one(rest, at))) break;
          end = at;
        }
        if (end == begin) continue;
        if (const status s = encode_word(rest.substr(begin, end - begin)); s != status::ok) return s;
      }
      return status::ok;
    });
  }

  /// The fast tokenizers' way with the map: the whole of a cluster shorter than six bytes becomes what the
  /// first of its prefixes in the map does; else this holds for each of its letters.
  void map_clusters(std::string_view text, text_buffer<char>& out) const noexcept {
    const auto apply = [&](std::string_view part) {
      const std::uint32_t at = first_prefix(part);
      if (at >= replacements_.size()) return false;
      const std::string_view rest(replacements_.data() + at, replacements_.size() - at);
      out.append(rest.data(), std::min<std::size_t>(rest.find('\0'), spm_max_replacement));
      return true;
    };
    for (std::size_t at = 0; at < text.size();) {
      const std::size_t end = unicode::grapheme_end(text, at);
      if (end - at < 6 && apply(text.substr(at, end - at))) {
        at = end;
        continue;
      }
      while (at < end) {
        const std::string_view letter = text.substr(at, letter_size(text, at));
        if (!apply(letter)) out.append(letter.data(), letter.size());
        at += letter.size();
      }
    }
  }

  /// Value of the shortest string of the map that `text` begins with, or double_array::no_value.
  std::uint32_t first_prefix(std::string_view text) const noexcept {
    if (map_.empty()) return double_array::no_value;
    double_array::cursor at = map_.root();
    for (const char c : text) {
      if (c == '\0' || !map_.step(at, static_cast<unsigned char>(c))) break;
      if (const std::uint32_t value = map_.value(at); value != double_array::no_value) return value;
    }
    return double_array::no_value;
  }

  /// One step of the normaliser: takes the bytes that belong together off `text` and returns what they
  /// become.
  std::string_view next(std::string_view& text) const noexcept {
    const auto take = [&text](std::size_t n) {
      const std::string_view taken = text.substr(0, n);
      text.remove_prefix(n);
      return taken;
    };
    if (const auto m = user_defined_.find_longest(text, spm_max_piece); m.length > 0) return take(m.length);
    const auto m = map_.find_longest(text, spm_max_piece);
    if (m.length == 0 || m.value >= replacements_.size()) return take(letter_size(text, 0));
    take(m.length);
    const std::string_view rest(replacements_.data() + m.value, replacements_.size() - m.value);
    return rest.substr(0, std::min<std::size_t>(rest.find('\0'), spm_max_replacement));
  }

  /// SentencePiece's Normalizer::Normalize: the map, blanks, U+2581. `text` is valid UTF-8; `out` is empty.
  status normalize(std::string_view text, bool dummy_blank, text_buffer<char>& out) const noexcept {
    constexpr std::size_t most_bytes = std::size_t{1} << 31;
    const bool single = info_.flags & spm_single_blanks;
    const std::string_view blank = info_.flags & spm_escape_blanks ? spm_blank : " ";
    const bool at_end = info_.flags & spm_blank_is_suffix;
    out.reserve(text.size() + text.size() / 2 + 8);
    while (single && !text.empty()) {
      std::string_view rest = text;
      if (next(rest) != " ") break;
      text = rest;
    }
    if (text.empty()) return status::ok;
    if (dummy_blank && !at_end) out.append(blank.data(), blank.size());
    bool after_blank = single;
    while (!text.empty() && out.size() < most_bytes) {
      std::string_view piece = next(text);
      while (after_blank && piece.starts_with(' ')) piece.remove_prefix(1);
      for (const char c : piece) {
        if (c == ' ') {
          out.append(blank.data(), blank.size());
        } else {
          out.push_back(c);
        }
      }
      if (!piece.empty()) after_blank = single && piece.ends_with(' ');
    }
    while (single && std::string_view(out.data(), out.size()).ends_with(blank)) {
      out.truncate(out.size() - blank.size());
    }
    if (dummy_blank && at_end) out.append(blank.data(), blank.size());
    if (out.size() >= most_bytes) return status::too_large;
    return out.failed() ? status::out_of_memory : status::ok;
  }

  text_style style_ = text_style::siglip_hf;
  text_cleaning cleaning_ = text_cleaning::none;
  spm_info info_{};
  std::uint32_t vocab_size_ = 0;
  std::int32_t unk_ = -1;
  double_array map_;
  double_array user_defined_;
  double_array specials_;
  std::span<const char> replacements_;
  std::span<const std::int32_t> bytes_;
};

/// A power of two as the size of an open-addressing table: its exponent, or -1.
constexpr int table_bits(std::size_t n) noexcept {
  return n >= 2 && std::has_single_bit(n) && n <= (std::size_t{1} << 28) ? std::countr_zero(n) : -1;
}

}  // namespace detail

OCELLUS_END
