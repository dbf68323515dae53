// SentencePiece tokenizers: unigram (SigLIP) and BPE (Gemma, SigLIP 2), with the cleaning that each family
// puts before them. The encoder (unigram or BPE) and the cleaning (the blob's style) are independent.
//
// The tables lie in the blob (see blob.hpp) and are read in place:
//   section 0  spm_info[1]
//   section 1  std::uint32_t[]   the normaliser's map, a double array: bytes -> offset in section 2
//   section 2  char[]            its replacements, each closed by a NUL
//   section 3  std::int32_t[256] ids of the byte pieces; absent without byte fallback
//   section 4  std::uint32_t[]   special texts, a double array: text -> id
//   unigram
//   section 5  std::uint32_t[]   user-defined pieces, a double array; the normaliser leaves them alone
//   section 6  std::uint32_t[]   all pieces, a double array: piece -> id, or id | spm_user_defined
//   section 7  float[]           log probability by id; as many as the vocabulary has ids
//   BPE
//   section 5  spm_letter[2^k]   pieces of one letter; open addressing, linear probing
//   section 6  std::uint64_t[2^k]  merges by pair: left << 44 | right << 24 | rank; likewise
//   section 7  std::uint32_t[]   the merged piece by rank
//
// Opening looks at the small tables only, whatever the vocabulary's size: 256,000 pieces need 11 MB that stay
// unread until a text needs them. Encoding checks each value that it reads from the large ones.
//
// Time: a unigram run of n bytes costs O(n L), L the longest piece; a BPE run O(n log n). References: Kudo
// 2018 (unigram), Sennrich et al. 2016 (BPE), Kudo and Richardson 2018 (SentencePiece); the library's
// unigram_model.cc (EncodeOptimized), normalizer.cc and bpe_model.cc decide ties and rounding.
#pragma once

#include <ocellus/text/blob.hpp>
#include <ocellus/text/buffer.hpp>
#include <ocellus/text/clean.hpp>
#include <ocellus/text/double_array.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <functional>
#include <span>
#include <string_view>
#include <utility>

OCELLUS_BEGIN

inline constexpr std::uint32_t spm_dummy_prefix = 1u << 0;   ///< a blank is put before the text
inline constexpr std::uint32_t spm_single_blanks = 1u << 1;  ///< runs of blanks become one, none at the ends
inline constexpr std::uint32_t spm_escape_blanks = 1u << 2;  ///< blanks become U+2581
inline constexpr std::uint32_t spm_blank_is_suffix = 1u << 3;  ///< the dummy blank goes to the end
inline constexpr std::uint32_t spm_whole_words = 1u << 4;      ///< no piece has U+2581 behind another letter
inline constexpr std::uint32_t spm_known_flags = 0x1F;

/// Section 0 of both kinds.
struct spm_info {
  std::uint32_t flags;          ///< spm_*; unknown bits are refused
  std::uint32_t longest_piece;  ///< bytes, at most spm_max_piece
  float unknown_score;          ///< log probability of a letter that is no piece
  float user_defined_score;     ///< per byte of a user-defined piece
  std::uint32_t letter_probes;  ///< most slots to look at in the table of letters
  std::uint32_t merge_probes;   ///< and in that of merges
  std::uint32_t reserved[2];
};
static_assert(offsetof(spm_info, unknown_score) == 8);
static_assert(offsetof(spm_info, letter_probes) == 16);
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
    if (style_ == text_style::clip_openclip || style_ == text_style::clip_hf)
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
  /// User-defined pieces, which the normaliser does not change.
  void keep(double_array user_defined) noexcept { user_defined_ = user_defined; }

  /// Emits what an unknown letter becomes: its bytes, or one unknown piece for a run of them. `run_goes_on`:
  /// the letter before was unknown too. False: the sink is full.
  template <class Emit>
  bool unknown(std::string_view letter, bool run_goes_on, Emit&& emit) const noexcept {
    if (bytes_.empty()) return run_goes_on || emit(unk_);
    for (const char c : letter) {
      if (!emit(bytes_[static_cast<unsigned char>(c)])) return false;
    }
    return true;
  }

  /// Cleans `text` as the style has it and hands each normalised run to segment(run, emit), which calls
  /// emit(id) until it returns false; special texts between the runs become ids here.
  template <class Segment>
  status encode(std::string_view text, token_sink& out, Segment&& segment) const noexcept {
    if (style_ == text_style::siglip_hf) return encode_siglip_hf(text, out, segment);
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
    const auto emit = [&out](std::int32_t id) { return out.push(id); };
    return for_each_part({utf8.data(), utf8.size()}, out, [&](std::string_view part) {
      text_buffer<char> clean;
      text_buffer<char> run;
      if (!copy(part, lower_case, clean)) return status::out_of_memory;
      const status s = normalize({clean.data(), clean.size()}, info_.flags & spm_dummy_prefix, run);
      return s == status::ok ? segment(std::string_view(run.data(), run.size()), emit) : s;
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
    const bool ascii = std::all_of(text.begin(), text.end(), [](char c) { return c >= 0; });
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
  template <class Segment>
  status encode_siglip_hf(std::string_view text, token_sink& out, Segment&& segment) const noexcept {
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
      const auto emit = [&](std::int32_t id) { return pieces++ < dropped || out.push(id); };
      return segment(std::string_view(run.data(), run.size()), emit);
    });
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

/// The encoder of kind unigram: the most probable segmentation. Use it through ocellus::tokenizer.
class spm_unigram {
 public:
  /// Checks the small tables; see the head of this file.
  status open(const tokenizer_blob& blob) noexcept {
    if (const status s = text_.open(blob); s != status::ok) return s;
    text_.keep(double_array(blob.section<std::uint32_t>(5)));
    pieces_ = double_array(blob.section<std::uint32_t>(6));
    scores_ = blob.section<float>(7);
    if (pieces_.empty() || scores_.size() != text_.vocab_size()) return status::bad_tokenizer;
    return text_.info().longest_piece > 0 ? status::ok : status::bad_tokenizer;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory,
  /// too_large.
  status encode(std::string_view text, token_sink& out) const noexcept {
    return text_.encode(text, out, [this](std::string_view run, auto&& emit) { return segment(run, emit); });
  }

 private:
  /// The best way to the end of a piece: its score, and the piece as length << 24 | id; 0: no way yet.
  struct way {
    float score;
    std::uint32_t piece;
  };
  static constexpr std::uint32_t id_mask = (1u << 24) - 1;
  static constexpr std::uint32_t unknown_id = id_mask;

  /// Viterbi's algorithm. Where no piece reaches over a position, every path goes through it: what lies
  /// before is decided and emitted, and only the score is kept, so that memory and time go to what the sink
  /// can take.
  template <class Emit>
  status segment(std::string_view run, Emit&& emit) const noexcept {
    text_buffer<way> ways;  // ways[i]: to run[base + i]
    ways.push_back({0.0f, 0});
    std::size_t base = 0;
    std::size_t reach = 0;
    bool was_unknown = false;
    for (std::size_t at = 0; at < run.size(); at += detail::letter_size(run, at)) {
      if (at > base && at >= reach) {
        if (!emit_best(run.substr(base, at - base), ways, was_unknown, emit)) return status::ok;
        ways[0] = {ways[at - base].score, 0};
        ways.truncate(1);
        base = at;
      }
      const std::size_t window = std::min<std::size_t>(text_.info().longest_piece, run.size() - at);
      const std::size_t single = detail::letter_size(run, at);
      if (!ways.resize(at - base + std::max(window, single) + 1, way{0.0f, 0})) return status::out_of_memory;
      reach = std::max(reach, at + extend(run.substr(at, window), single, ways.data() + (at - base)));
    }
    if (ways.failed()) return status::out_of_memory;
    emit_best(run.substr(base), ways, was_unknown, emit);
    return status::ok;
  }

  /// Offers all pieces that `text` begins with to the positions that they reach from ways[0]; returns the
  /// farthest. Scores are summed as floats from the left and the first of equals wins, as in the library.
  std::size_t extend(std::string_view text, std::size_t single, way* ways) const noexcept {
    const auto offer = [ways](std::size_t length, float score, std::uint32_t id) {
      way& w = ways[length];
      const float sum = score + ways[0].score;
      if (w.piece == 0 || sum > w.score) w = {sum, static_cast<std::uint32_t>(length) << 24 | id};
    };
    std::size_t farthest = 0;
    bool has_single = false;
    double_array::cursor at = pieces_.root();
    for (std::size_t i = 0; i < text.size();) {
      if (!pieces_.step(at, static_cast<unsigned char>(text[i]))) break;
      ++i;
      const std::uint32_t value = pieces_.value(at);
      const std::uint32_t id = value & id_mask;
      if (value == double_array::no_value || id >= scores_.size()) continue;
      // The library's bonus for user-defined pieces, so that they win.
      const float bonus = static_cast<float>(i) * text_.info().user_defined_score - 0.1f;
      offer(i, value & spm_user_defined ? bonus : scores_[id], id);
      farthest = i;
      has_single = has_single || i == single;
    }
    if (has_single) return farthest;
    offer(single, text_.info().unknown_score, unknown_id);
    return std::max(farthest, single);
  }

  /// Emits the best pieces of `text`, which ends at a letter's end. The links of the path are turned round in
  /// place. False: the sink is full.
  template <class Emit>
  bool emit_best(std::string_view text, text_buffer<way>& ways, bool& was_unknown,
                 Emit&& emit) const noexcept {
    std::uint32_t following = 0;
    for (std::size_t at = text.size();;) {
      const std::uint32_t piece = std::exchange(ways[at].piece, following);
      const std::size_t length = piece >> 24;
      if (at == 0 || length == 0 || length > at) break;
      following = piece;
      at -= length;
    }
    for (std::size_t at = 0; at < text.size();) {
      const std::uint32_t piece = ways[at].piece;
      const std::size_t length = piece >> 24;
      if (length == 0) break;
      const bool is_unknown = (piece & id_mask) == unknown_id;
      if (is_unknown) {
        if (!text_.unknown(text.substr(at, length), was_unknown, emit)) return false;
      } else if (!emit(static_cast<std::int32_t>(piece & id_mask))) {
        return false;
      }
      was_unknown = is_unknown;
      at += length;
    }
    return true;
  }

  detail::spm_text text_;
  double_array pieces_;
  std::span<const float> scores_;
};

/// The encoder of kind spm_bpe: letters are joined by merges, the lowest rank first, then the leftmost. Use
/// it through ocellus::tokenizer.
class spm_bpe {
 public:
  /// Checks the small tables; see the head of this file.
  status open(const tokenizer_blob& blob) noexcept {
    if (const status s = text_.open(blob); s != status::ok) return s;
    letters_ = blob.section<spm_letter>(5);
    merges_ = blob.section<std::uint64_t>(6);
    merged_ = blob.section<std::uint32_t>(7);
    letter_bits_ = detail::table_bits(letters_.size());
    merge_bits_ = detail::table_bits(merges_.size());
    const spm_info& info = text_.info();
    const bool good = letter_bits_ > 0 && merge_bits_ > 0 && !merged_.empty() &&
                      text_.vocab_size() <= spm_max_bpe_ids && info.letter_probes <= spm_max_probes &&
                      info.merge_probes <= spm_max_probes;
    return good ? status::ok : status::bad_tokenizer;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory,
  /// too_large.
  status encode(std::string_view text, token_sink& out) const noexcept {
    return text_.encode(text, out, [this](std::string_view run, auto&& emit) { return segment(run, emit); });
  }

 private:
  static constexpr std::uint32_t no_rank = 0xFFFFFFFF;
  static constexpr std::uint32_t joined = 0xFFFFFFFF;  // a symbol that became part of its left neighbour

  /// Where no piece reaches over the beginning of a word, words can be encoded one by one.
  template <class Emit>
  status segment(std::string_view run, Emit&& emit) const noexcept {
    text_buffer<std::uint32_t> symbols;
    const bool by_words = text_.info().flags & spm_whole_words;
    bool goes_on = true;
    for (std::size_t at = 0; at < run.size() && goes_on;) {
      const std::size_t end = by_words ? word_end(run, at) : run.size();
      symbols.clear();
      read_letters(run.substr(at, end - at), symbols);
      if (symbols.failed() || !merge(symbols)) return status::out_of_memory;
      for (std::size_t i = 0; i < symbols.size() && goes_on; ++i) {
        if (symbols[i] != joined) goes_on = emit(static_cast<std::int32_t>(symbols[i]));
      }
      at = end;
    }
    return status::ok;
  }

  /// End of the word at run[at]: blanks, and what follows them up to the next blank.
  static std::size_t word_end(std::string_view run, std::size_t at) noexcept {
    while (run.substr(at).starts_with(detail::spm_blank)) at += detail::spm_blank.size();
    return std::min(run.find(detail::spm_blank, at), run.size());
  }

  void read_letters(std::string_view word, text_buffer<std::uint32_t>& symbols) const noexcept {
    bool was_unknown = false;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t from = at;
      const std::int32_t id = find_letter(unicode::decode_one(word, at));
      const bool is_unknown = id < 0;
      if (is_unknown) {
        text_.unknown(word.substr(from, at - from), was_unknown, [&symbols](std::int32_t byte) {
          symbols.push_back(static_cast<std::uint32_t>(byte));
          return true;
        });
      } else {
        symbols.push_back(static_cast<std::uint32_t>(id));
      }
      was_unknown = is_unknown;
    }
  }

  /// Id of a letter, or -1.
  std::int32_t find_letter(char32_t letter) const noexcept {
    const std::size_t mask = letters_.size() - 1;
    std::size_t slot = spm_slot(letter, letter_bits_);
    for (std::uint32_t n = 0; n < text_.info().letter_probes; ++n, slot = (slot + 1) & mask) {
      const spm_letter& l = letters_[slot];
      if (l.id < 0) return -1;
      if (l.letter == letter) return static_cast<std::uint32_t>(l.id) < text_.vocab_size() ? l.id : -1;
    }
    return -1;
  }

  /// Rank of the merge of two symbols, or no_rank. A rank has an entry in merged_, and that is an id.
  std::uint32_t find_merge(std::uint32_t left, std::uint32_t right) const noexcept {
    const std::size_t mask = merges_.size() - 1;
    const std::uint64_t key = spm_merge_key(left, right);
    std::size_t slot = spm_slot(key, merge_bits_);
    for (std::uint32_t n = 0; n < text_.info().merge_probes; ++n, slot = (slot + 1) & mask) {
      const std::uint64_t m = merges_[slot];
      if (m == spm_free_merge) return no_rank;
      if (m >> 24 != key) continue;
      const auto rank = static_cast<std::uint32_t>(m & 0xFFFFFF);
      return rank < merged_.size() && merged_[rank] < text_.vocab_size() ? rank : no_rank;
    }
    return no_rank;
  }

  /// Joins what can be joined; symbols that are gone become `joined` or are taken out. False: out of memory.
  bool merge(text_buffer<std::uint32_t>& symbols) const noexcept {
    constexpr std::size_t few = 48;
    if (symbols.size() > few) return merge_many(symbols);
    // Searching the best pair anew each time is quicker than any structure.
    std::uint32_t ranks[few];  // ranks[i]: of symbols i and i + 1
    std::size_t n = symbols.size();
    for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = find_merge(symbols[i], symbols[i + 1]);
    while (n > 1) {
      const std::uint32_t* best = std::min_element(ranks, ranks + n - 1);
      if (*best == no_rank) break;
      const auto at = static_cast<std::size_t>(best - ranks);
      symbols[at] = merged_[*best];
      std::copy(symbols.begin() + at + 2, symbols.begin() + n, symbols.begin() + at + 1);
      std::copy(ranks + at + 1, ranks + n - 1, ranks + at);
      --n;
      if (at + 1 < n) ranks[at] = find_merge(symbols[at], symbols[at + 1]);
      if (at > 0) ranks[at - 1] = find_merge(symbols[at - 1], symbols[at]);
    }
    symbols.truncate(n);
    return true;
  }

  struct links {
    std::uint32_t previous;
    std::uint32_t next;
  };

  /// The same with a linked list and a heap of candidates: rank << 32 | position, the smallest on top. A
  /// candidate is stale if the pair at its position has another rank by then.
  bool merge_many(text_buffer<std::uint32_t>& symbols) const noexcept {
    const auto n = static_cast<std::uint32_t>(symbols.size());
    text_buffer<links> list;
    text_buffer<std::uint64_t> heap;
    if (!list.reserve(n) || !heap.reserve(n)) return false;
    for (std::uint32_t i = 0; i < n; ++i) list.push_back({i - 1, i + 1});
    const auto rank_at = [&](std::uint32_t at) {
      const std::uint32_t next = list[at].next;
      return next < n ? find_merge(symbols[at], symbols[next]) : no_rank;
    };
    const auto add = [&](std::uint32_t at) {
      const std::uint32_t rank = rank_at(at);
      if (rank == no_rank) return;
      heap.push_back(std::uint64_t{rank} << 32 | at);
      std::push_heap(heap.begin(), heap.end(), std::greater<>());
    };
    for (std::uint32_t i = 0; i + 1 < n; ++i) add(i);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), std::greater<>());
      const auto at = static_cast<std::uint32_t>(heap.back());
      const auto rank = static_cast<std::uint32_t>(heap.back() >> 32);
      heap.pop_back();
      if (symbols[at] == joined || rank_at(at) != rank) continue;
      const std::uint32_t right = list[at].next;
      symbols[at] = merged_[rank];
      symbols[right] = joined;
      list[at].next = list[right].next;
      if (list[at].next < n) list[list[at].next].previous = at;
      add(at);
      if (list[at].previous < n) add(list[at].previous);
    }
    return !heap.failed();
  }

  detail::spm_text text_;
  std::span<const spm_letter> letters_;
  std::span<const std::uint64_t> merges_;
  std::span<const std::uint32_t> merged_;
  int letter_bits_ = 0;
  int merge_bits_ = 0;
};

OCELLUS_END
