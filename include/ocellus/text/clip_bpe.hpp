// CLIP's byte-pair tokenizer: clean text is cut into words by a regular expression, each word into bytes, and
// bytes are joined by the learnt merges, the earliest learnt first; the last symbol of a word carries "</w>".
//
// The tables lie in the blob (see tokenizer_blob.hpp) and are read in place:
//   section 0  std::uint32_t[512]   id of byte b alone, and [256 + b] with "</w>"
//   section 1  clip_merge[2^k]      open addressing, linear probing; empty where left == no_symbol
//   section 2  clip_special[]       texts that are one id, in order of preference
//   section 3  char[]               the texts of section 2
//
// A word of n bytes costs O(n log n), so one long word is no attack. Merges are applied by rank, leftmost
// first; for merge lists as training makes them (a merge is learnt after the merges that make its parts) that
// equals the reference's "all places of the best pair at once". References: Radford et al. 2021 (CLIP),
// simple_tokenizer.py; Sennrich et al. 2016 (BPE).
#pragma once

#include <ocellus/text/buffer.hpp>
#include <ocellus/text/clean.hpp>
#include <ocellus/text/fast_tables.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <array>
#include <bit>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

OCELLUS_BEGIN

inline constexpr std::uint32_t no_symbol = 0xFFFFFFFF;

/// A merge: symbols left, right become `merged`; smaller ranks go first.
struct clip_merge {
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t rank;
  std::uint32_t merged;
};
static_assert(sizeof(clip_merge) == 16);

/// Slot of a pair in a table of 2^bits merges before probing; shared by builder and reader.
constexpr std::uint32_t clip_merge_slot(std::uint32_t left, std::uint32_t right, int bits) noexcept {
  const std::uint64_t pair = (std::uint64_t{left} << 32) | right;
  return static_cast<std::uint32_t>((pair * 0x9E3779B97F4A7C15u) >>
                                    (64 - bits));  // Fibonacci hashing, Knuth 6.4
}

/// A text that becomes one id. Where it is looked for:
enum class special_match : std::uint32_t {
  word = 0,        ///< open_clip: at the start of a word of the clean text, whatever the case
  raw = 1,         ///< transformers, "normalized": false: in the text as given
  normalized = 2,  ///< transformers, "normalized": true: in the normalised text
};

struct clip_special {
  std::uint32_t offset;  ///< in section 3
  std::uint32_t size;    ///< bytes, at least 1
  std::int32_t id;
  std::uint32_t match;  ///< special_match
};
static_assert(sizeof(clip_special) == 16);

inline constexpr std::size_t clip_max_specials = 256;
inline constexpr std::size_t clip_max_special_bytes = 256;

namespace detail {

/// Classes of CLIP's regular expression: 's|'t|'re|'ve|'m|'ll|'d|[\p{L}]+|[\p{N}]|[^\s\p{L}\p{N}]+
enum class word_class : unsigned char { space, letter, number, other };

constexpr word_class classify(char32_t c) noexcept {
  const std::uint8_t flags = unicode::properties(c).flags;
  if (flags & unicode::tables::letter) return word_class::letter;
  if (flags & unicode::tables::number) return word_class::number;
  return flags & unicode::tables::space ? word_class::space : word_class::other;
}

OCELLUS_TABLE auto ascii_classes = [] {
  std::array<word_class, 128> classes{};
  for (char32_t c = 0; c < 128; ++c) classes[c] = classify(c);
  return classes;
}();

constexpr bool is_ascii(std::string_view text) noexcept {
  unsigned char all = 0;
  for (const char c : text) all = static_cast<unsigned char>(all | static_cast<unsigned char>(c));
  return all < 0x80;
}

constexpr char ascii_lower(char c) noexcept {
  return c >= 'A' && c <= 'Z' ? static_cast<char>(c + ('a' - 'A')) : c;
}

}  // namespace detail

/// The encoder of kind clip_bpe. Use it through ocellus::tokenizer.
class clip_bpe {
 public:
  static constexpr int section_bytes = 0;
  static constexpr int section_merges = 1;
  static constexpr int section_specials = 2;
  static constexpr int section_special_text = 3;

  /// Checks all tables: every id lies in the vocabulary, the hash table has a free slot, texts lie in their
  /// section.
  status open(const tokenizer_blob& blob) noexcept {
    style_ = blob.style();
    cleaning_ = blob.cleaning();
    if (style_ != text_style::clip_openclip && style_ != text_style::clip_hf)
      return status::unsupported_tokenizer;
    const auto vocab = static_cast<std::uint32_t>(blob.header().vocab_size);
    bytes_ = blob.section<std::uint32_t>(section_bytes);
    if (bytes_.size() != 512) return status::bad_tokenizer;
    for (const std::uint32_t id : bytes_) {
      if (id >= vocab) return status::bad_tokenizer;
    }
    merges_ = blob.section<clip_merge>(section_merges);
    if (!check_merges(vocab)) return status::bad_tokenizer;
    specials_ = blob.section<clip_special>(section_specials);
    special_text_ = blob.section<char>(section_special_text);
    return check_specials(vocab) ? status::ok : status::bad_tokenizer;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory.
  status encode(std::string_view text, token_sink& out) const noexcept {
    return style_ == text_style::clip_hf ? encode_hf(text, out) : encode_openclip(text, out);
  }

 private:
  static constexpr std::uint64_t no_merge = ~std::uint64_t{0};
  static constexpr std::size_t longest_run =
      1024;  // of occupied slots; half-full tables have runs of some dozens

  bool check_merges(std::uint32_t vocab) noexcept {
    const std::size_t n = merges_.size();
    if (n < 2 || (n & (n - 1)) != 0 || n > (std::size_t{1} << 26)) return false;
    merge_bits_ = std::countr_zero(n);
    // Free slots end a search: without one it would never end, with few it would be slow. Once around and on: a run may
    // go over the end.
    std::size_t run = 0;
    for (std::size_t i = 0; i < n + longest_run; ++i) {
      const clip_merge& m = merges_[i & (n - 1)];
      run = m.left == no_symbol ? 0 : run + 1;
      if (run > longest_run) return false;
      if (m.left != no_symbol && (m.left >= vocab || m.right >= vocab || m.merged >= vocab)) return false;
    }
    return true;
  }

  bool check_specials(std::uint32_t vocab) noexcept {
    if (specials_.size() > clip_max_specials) return false;
    for (const clip_special& s : specials_) {
      if (s.size == 0 || s.size > clip_max_special_bytes || s.match > 2) return false;
      if (s.offset > special_text_.size() || s.size > special_text_.size() - s.offset) return false;
      if (s.id < 0 || static_cast<std::uint32_t>(s.id) >= vocab) return false;
    }
    return true;
  }

  std::string_view special_text(const clip_special& s) const noexcept {
    return {special_text_.data() + s.offset, s.size};
  }

  // open_clip

  /// ASCII that cleaning changes in letter case only.
  static bool is_plain(std::string_view text) noexcept {
    for (const char c : text) {
      const bool visible = c >= 0x20 && c < 0x7F && c != '&';
      if (!visible && c != '\t' && c != '\n' && c != '\f' && c != '\r') return false;
    }
    return true;
  }

  status encode_openclip(std::string_view text, token_sink& out) const noexcept {
    text_buffer<char> clean;
    if (cleaning_ != text_cleaning::canonicalize && is_plain(text)) {
      clean.append(text.data(), text.size());
      if (cleaning_ == text_cleaning::lower) {
        for (char& c : clean) c = detail::ascii_lower(c);
      }
    } else {
      text32 letters;
      cleaning::openclip(cleaning_, text, letters);
      unicode::encode_utf8(letters.span(), clean);
      if (letters.failed()) return status::out_of_memory;
    }
    if (clean.failed()) return status::out_of_memory;
    return encode_words({clean.data(), clean.size()}, out);
  }

  // transformers

  /// The fast tokenizer: special texts are cut out of the raw text, the rest is normalised, cut at the other
  /// special texts, and split into words.
  status encode_hf(std::string_view text, token_sink& out) const noexcept {
    return for_each_piece(text, special_match::raw, out, [this, &out](std::string_view piece) {
      text_buffer<char> clean;
      if (!normalize_hf(piece, clean)) return status::out_of_memory;
      return for_each_piece({clean.data(), clean.size()}, special_match::normalized, out,
                            [this, &out](std::string_view part) { return encode_words(part, out); });
    });
  }

  /// NFC as the tokenizers library has it, each run of white space to one blank, lower case letter by letter.
  static bool normalize_hf(std::string_view text, text_buffer<char>& out) noexcept {
    text32 letters;
    if (!detail::is_ascii(text)) {
      unicode::decode_utf8(text, letters);
      unicode::nfc(letters, unicode::tables::late_marks);
      cleaning::lower(letters, unicode::sigma::alone);
      collapse_runs(letters);
      unicode::encode_utf8(letters.span(), out);
      return !letters.failed() && !out.failed();
    }
    out.reserve(text.size());
    bool gap = false;
    for (const char c : text) {
      const bool space = detail::ascii_classes[static_cast<unsigned char>(c)] == detail::word_class::space;
      if (!space || !gap) out.push_back(space ? ' ' : detail::ascii_lower(c));
      gap = space;
    }
    return !out.failed();
  }

  static void collapse_runs(text32& text) noexcept {
    std::size_t kept = 0;
    bool gap = false;
    for (const char32_t c : text) {
      const bool space = unicode::is_space(c);
      if (!space || !gap) text[kept++] = space ? U' ' : c;
      gap = space;
    }
    text.truncate(kept);
  }

  /// Cuts `text` at the special texts of that kind (leftmost, then longest), pushes their ids, and calls `f`
  /// for what lies between.
  template <class F>
  status for_each_piece(std::string_view text, special_match match, token_sink& out, F&& f) const noexcept {
    std::size_t from = 0;
    for (std::size_t i = 0; i < text.size();) {
      const clip_special* s = longest_special(text.substr(i), match);
      if (s == nullptr) {
        ++i;
        continue;
      }
      if (i > from) {
        if (const status error = f(text.substr(from, i - from)); error != status::ok) return error;
      }
      if (!out.push(s->id)) return status::ok;
      i += s->size;
      from = i;
    }
    return from < text.size() ? f(text.substr(from)) : status::ok;
  }

  const clip_special* longest_special(std::string_view text, special_match match) const noexcept {
    const clip_special* best = nullptr;
    for (const clip_special& s : specials_) {
      if (special_text_[s.offset] != text[0] || s.match != static_cast<std::uint32_t>(match)) continue;
      if ((best == nullptr || s.size > best->size) && text.starts_with(special_text(s))) best = &s;
    }
    return best;
  }

  // words

  /// Cuts clean UTF-8 into words and encodes each, until the sink is full.
  status encode_words(std::string_view text, token_sink& out) const noexcept {
    for (std::size_t i = 0; i < text.size() && !out.truncated();) {
      const std::size_t end = word_end(text, i);
      if (end == i) {
        unicode::decode_one(text, i);  // white space
        continue;
      }
      if (const status error = encode_word(text.substr(i, end - i), out); error != status::ok) return error;
      i = end;
    }
    return status::ok;
  }

  /// open_clip's pattern begins with its special texts and ignores case. Returns the length of one at the
  /// start of `text`, or 0.
  std::size_t special_word(std::string_view text) const noexcept {
    if (style_ != text_style::clip_openclip) return 0;
    for (const clip_special& s : specials_) {
      if (s.match != static_cast<std::uint32_t>(special_match::word)) continue;
      if (const std::size_t n = starts_with_any_case(text, special_text(s))) return n;
    }
    return 0;
  }

  /// Bytes of `text` that match all of `pattern` (lower-case ASCII), or 0. U+017F, the long s, counts as an
  /// "s" as in every Unicode-aware regular expression that ignores case.
  static std::size_t starts_with_any_case(std::string_view text, std::string_view pattern) noexcept {
    std::size_t i = 0;
    for (const char p : pattern) {
      if (i < text.size() && detail::ascii_lower(text[i]) == p) {
        i += 1;
      } else if (p == 's' && text.substr(i).starts_with("\xC5\xBF")) {
        i += 2;
      } else {
        return 0;
      }
    }
    return i;
  }

  /// The special text that is this very word; one in another case is a word like others.
  const clip_special* exact_special(std::string_view word) const noexcept {
    if (style_ != text_style::clip_openclip) return nullptr;
    for (const clip_special& s : specials_) {
      if (s.match == static_cast<std::uint32_t>(special_match::word) && word == special_text(s)) return &s;
    }
    return nullptr;
  }

  detail::word_class class_at(std::string_view text, std::size_t& i) const noexcept {
    const auto c = static_cast<unsigned char>(text[i]);
    if (c < 0x80) {
      ++i;
      return detail::ascii_classes[c];
    }
    const char32_t letter = unicode::decode_one(text, i);
    // Ignoring case, Python's regex finds the combining iota U+0345 in no class: its capital is a letter,
    // itself not.
    if (letter == 0x345 && style_ == text_style::clip_openclip) return detail::word_class::space;
    return detail::classify(letter);
  }

  /// End of the word at text[begin]; `begin` itself if white space stands there.
  std::size_t word_end(std::string_view text, std::size_t begin) const noexcept {
    if (const std::size_t n = special_word(text.substr(begin))) return begin + n;
    if (const std::size_t n = contraction(text.substr(begin))) return begin + n;
    std::size_t end = begin;
    const detail::word_class kind = class_at(text, end);
    if (kind == detail::word_class::space) return begin;
    if (kind == detail::word_class::number) return end;
    for (std::size_t next = end; next < text.size(); end = next) {
      if (class_at(text, next) != kind) break;
    }
    return end;
  }

  /// Length of 's, 't, 're, 've, 'm, 'll or 'd at the start of `text`, or 0. open_clip ignores case.
  std::size_t contraction(std::string_view text) const noexcept {
    if (text[0] != '\'' || text.size() < 2) return 0;
    for (const std::string_view ending : {"'s", "'t", "'re", "'ve", "'m", "'ll", "'d"}) {
      if (style_ == text_style::clip_hf && text.starts_with(ending)) return ending.size();
      if (style_ == text_style::clip_hf) continue;
      if (const std::size_t n = starts_with_any_case(text, ending)) return n;
    }
    return 0;
  }

  /// Rank and result of a merge as rank << 32 | merged, so that the smallest value is the next merge.
  std::uint64_t find_merge(std::uint32_t left, std::uint32_t right) const noexcept {
    const std::size_t mask = merges_.size() - 1;
    for (std::size_t i = clip_merge_slot(left, right, merge_bits_);; i = (i + 1) & mask) {
      const clip_merge& m = merges_[i];
      if (m.left == left && m.right == right) return (std::uint64_t{m.rank} << 32) | m.merged;
      if (m.left == no_symbol) return no_merge;
    }
  }

  std::uint32_t byte_symbol(std::string_view word, std::size_t i) const noexcept {
    const std::size_t last = i + 1 == word.size() ? 256 : 0;
    return bytes_[last + static_cast<unsigned char>(word[i])];
  }

  status encode_word(std::string_view word, token_sink& out) const noexcept {
    if (const clip_special* s = exact_special(word)) {
      out.push(s->id);
      return status::ok;
    }
    constexpr std::size_t short_word = 48;
    if (word.size() > short_word) return encode_long_word(word, out);
    // Few symbols: searching the best pair anew each time is quicker than any structure.
    std::uint32_t symbols[short_word];
    std::uint64_t pairs[short_word];  // pairs[i]: the merge of symbols i and i + 1
    std::size_t n = word.size();
    for (std::size_t i = 0; i < n; ++i) symbols[i] = byte_symbol(word, i);
    for (std::size_t i = 0; i + 1 < n; ++i) pairs[i] = find_merge(symbols[i], symbols[i + 1]);
    while (n > 1) {
      const std::uint64_t* best = std::min_element(pairs, pairs + n - 1);
      if (*best == no_merge) break;
      const auto at = static_cast<std::size_t>(best - pairs);
      symbols[at] = static_cast<std::uint32_t>(*best);
      std::copy(symbols + at + 2, symbols + n, symbols + at + 1);
      std::copy(pairs + at + 1, pairs + n - 1, pairs + at);
      --n;
      if (at + 1 < n) pairs[at] = find_merge(symbols[at], symbols[at + 1]);
      if (at > 0) pairs[at - 1] = find_merge(symbols[at - 1], symbols[at]);
    }
    for (std::size_t i = 0; i < n; ++i) {
      if (!out.push(static_cast<std::int32_t>(symbols[i]))) break;
    }
    return status::ok;
  }

  struct node {
    std::uint32_t symbol;
    std::uint32_t previous;
    std::uint32_t next;
  };

  struct candidate {
    std::uint64_t merge;  // rank << 32 | merged
    std::uint32_t at;
    std::uint32_t left;  // symbols when it was found: it is stale if they have changed
    std::uint32_t right;
    bool operator<(const candidate& other) const noexcept {  // std::push_heap keeps the greatest on top
      return merge != other.merge ? merge > other.merge : at > other.at;
    }
  };

  /// The same with a linked list of symbols and a heap of candidates.
  status encode_long_word(std::string_view word, token_sink& out) const noexcept {
    const auto n = static_cast<std::uint32_t>(word.size());
    text_buffer<node> nodes;
    text_buffer<candidate> heap;
    if (!nodes.reserve(n) || !heap.reserve(n)) return status::out_of_memory;
    for (std::uint32_t i = 0; i < n; ++i) nodes.push_back({byte_symbol(word, i), i - 1, i + 1});
    const auto add = [&](std::uint32_t at) {
      const std::uint32_t right = nodes[nodes[at].next].symbol;
      const std::uint64_t merge = find_merge(nodes[at].symbol, right);
      if (merge == no_merge) return;
      heap.push_back({merge, at, nodes[at].symbol, right});
      std::push_heap(heap.begin(), heap.end());
    };
    for (std::uint32_t i = 0; i + 1 < n; ++i) add(i);
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end());
      const candidate c = heap.back();
      heap.pop_back();
      node& left = nodes[c.at];
      if (left.symbol != c.left || left.next >= n || nodes[left.next].symbol != c.right) continue;
      node& right = nodes[left.next];
      left.symbol = static_cast<std::uint32_t>(c.merge);
      right.symbol = no_symbol;
      left.next = right.next;
      if (left.next < n) {
        nodes[left.next].previous = c.at;
        add(c.at);
      }
      if (left.previous < n) add(left.previous);
    }
    if (heap.failed()) return status::out_of_memory;
    for (std::uint32_t i = 0; i < n; i = nodes[i].next) {
      if (!out.push(static_cast<std::int32_t>(nodes[i].symbol))) break;
    }
    return status::ok;
  }

  text_style style_ = text_style::clip_openclip;
  text_cleaning cleaning_ = text_cleaning::none;
  std::span<const std::uint32_t> bytes_;
  std::span<const clip_merge> merges_;
  std::span<const clip_special> specials_;
  std::span<const char> special_text_;
  int merge_bits_ = 0;
};

OCELLUS_END
