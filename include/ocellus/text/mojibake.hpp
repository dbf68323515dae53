// Repair of mojibake, text whose UTF-8 bytes were decoded with a one-byte table (U+00C3 U+00A9 where U+00E9
// was meant), as ftfy's fix_encoding does it.
//
// Why: captions from the web hold it, and open_clip repairs it before it tokenizes. Text is touched only
// where letters stand side by side as they hardly do in sound text; the sequences and tables are data, made
// by tools/unicode/make_mojibake_tables.py. Two places differ from ftfy on purpose: the number of repair
// steps and the depth of repairs inside repairs are bounded, so that hostile text costs linear time.
// Followed: ftfy 6.3.1 (Speer 2019, doi 10.5281/zenodo.2591652), fix_encoding and its transcoders.
#pragma once

#include <ocellus/text/buffer.hpp>
#include <ocellus/text/html_entities.hpp>
#include <ocellus/text/mojibake_tables.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

OCELLUS_BEGIN
namespace cleaning {

namespace detail {

/// The table's entry of a letter, or null.
inline const tables::mojibake_letter* find_letter(char32_t c) noexcept {
  const auto* at =
      std::partition_point(std::begin(tables::mojibake_letters), std::end(tables::mojibake_letters),
                           [c](const tables::mojibake_letter& l) { return char32_t{l.letter} < c; });
  return at != std::end(tables::mojibake_letters) && char32_t{at->letter} == c ? at : nullptr;
}

inline tables::kind_set kinds_of(char32_t c) noexcept {
  const tables::mojibake_letter* l = find_letter(c);
  const int kind = l != nullptr ? l->kind : tables::other_kind;
  tables::kind_set k{kind < 64 ? std::uint64_t{1} << kind : 0,
                     kind < 64 ? 0 : std::uint64_t{1} << (kind - 64)};
  const std::uint8_t flags = unicode::properties(c).flags;
  const bool latin = (c >= 'A' && c <= 'Z') || (c >= 'a' && c <= 'z');
  if (!latin) k.high |= tables::kind_not_letter;
  if (c != '\n') k.high |= tables::kind_not_newline;
  if (flags & unicode::tables::py_space) k.high |= tables::kind_space;
  if (c == '_' || (flags & (unicode::tables::letter | unicode::tables::number))) k.high |= tables::kind_word;
  return k;
}

inline bool meets(const tables::kind_set& a, const tables::kind_set& b) noexcept {
  return (a.low & b.low) != 0 || (a.high & b.high) != 0;
}

/// True if the sequence begins at window[0]; sets beyond its end are empty.
inline bool is_sequence_at(const tables::kind_set (&sequence)[tables::bad_length],
                           const std::array<tables::kind_set, tables::bad_length>& window) noexcept {
  for (std::size_t i = 0; i < window.size(); ++i) {
    if (sequence[i].low == 0 && sequence[i].high == 0) return true;
    if (!meets(sequence[i], window[i])) return false;
  }
  return true;
}

/// ftfy's is_bad: the text holds a sequence of letters that damaged text has and sound text hardly.
inline bool is_bad(std::span<const char32_t> text) noexcept {
  constexpr std::size_t length = tables::bad_length;
  const auto at = [text](std::size_t i) {
    return i < text.size() ? kinds_of(text[i]) : tables::kind_set{0, 0};
  };
  std::array<tables::kind_set, length> window{};
  window[0] = {0, tables::kind_begin};
  for (std::size_t i = 1; i < length; ++i) window[i] = at(i - 1);
  for (std::size_t i = 0; i <= text.size(); ++i) {
    for (const auto& sequence : tables::bad_sequences) {
      if (is_sequence_at(sequence, window)) return true;
    }
    std::copy(window.begin() + 1, window.end(), window.begin());
    window[length - 1] = at(i + length - 1);
  }
  return false;
}

using byte_buffer = text_buffer<char>;

constexpr unsigned byte_at(std::string_view bytes, std::size_t i) noexcept {
  return i < bytes.size() ? static_cast<unsigned char>(bytes[i]) : 0x100;  // no byte is 0x100
}

/// Encodes with a one-byte table: -1 is Latin-1, the others are columns of mojibake_letters. False if a
/// letter is not in it. The first ("sloppy") tables give U+FFFD as 0x1A, and have no U+001A.
inline bool encode_charmap(std::span<const char32_t> text, int charmap, byte_buffer& out) noexcept {
  out.clear();
  for (const char32_t c : text) {
    if (c < 0x80 || (charmap < 0 && c < 0x100)) {
      if (c == 0x1A && charmap >= 0 && charmap < tables::charmap_sloppy_count) return false;
      out.push_back(static_cast<char>(c));
      continue;
    }
    if (charmap < 0) return false;
    const tables::mojibake_letter* l = find_letter(c);
    if (l == nullptr || l->bytes[charmap] == 0) return false;
    out.push_back(static_cast<char>(l->bytes[charmap]));
  }
  return true;
}

constexpr bool in(unsigned byte, unsigned low, unsigned high) noexcept { return byte >= low && byte <= high; }

/// Length of a UTF-8 sequence at bytes[i] in which 0xA0 has become a blank, or 0.
inline std::size_t blank_for_a0(std::string_view bytes, std::size_t i) noexcept {
  const unsigned a = byte_at(bytes, i);
  const unsigned b = byte_at(bytes, i + 1);
  const unsigned c = byte_at(bytes, i + 2);
  const unsigned d = byte_at(bytes, i + 3);
  const auto next = [](unsigned x) { return in(x, 0x80, 0xBF); };
  const auto likely = [](unsigned x) { return in(x, 0x80, 0xBF) && x != 0x85 && x != 0xA0; };
  if ((a == 0xC2 || a == 0xC3 || a == 0xC5 || a == 0xCE || a == 0xD0 || a == 0xD9) && b == ' ') return 2;
  if (in(a, 0xE2, 0xE3) && b == ' ' && likely(c)) return 3;
  if (in(a, 0xE0, 0xE3) && likely(b) && c == ' ') return 3;
  if (a != 0xF0) return 0;
  const bool blank_first = b == ' ' && next(c) && next(d);
  const bool blank_second = next(b) && c == ' ' && next(d);
  const bool blank_third = next(b) && next(c) && d == ' ';
  return blank_first || blank_second || blank_third ? 4 : 0;
}

/// ftfy's exception: 0xC3 and a blank alone are the word "a" with a grave accent, which keeps its blank; some
/// Portuguese words are not.
inline bool is_a_grave_word(std::string_view bytes, std::size_t i) noexcept {
  if (byte_at(bytes, i) != 0xC3 || byte_at(bytes, i + 1) != ' ') return false;
  const std::string_view rest = bytes.substr(i + 2);
  for (const std::string_view other : {" ", "quele", "quela", "quilo", "s "}) {
    if (rest.starts_with(other)) return false;
  }
  return true;
}

/// Puts back 0xA0 where a blank stands in the middle of UTF-8.
inline void restore_byte_a0(byte_buffer& bytes) noexcept {
  byte_buffer words;
  const std::string_view in_view(bytes.data(), bytes.size());
  for (std::size_t i = 0; i < in_view.size();) {
    if (is_a_grave_word(in_view, i)) {
      words.append("\xC3\xA0 ", 3);
      i += 2;
    } else {
      words.push_back(in_view[i++]);
    }
  }
  for (std::size_t i = 0; i < words.size();) {
    const std::size_t n = blank_for_a0({words.data(), words.size()}, i);
    std::replace(words.begin() + i, words.begin() + i + n, ' ', '\xA0');
    i += n > 0 ? n : 1;
  }
  bytes.swap(words);
}

/// Length of a UTF-8 sequence at bytes[i] that lost bytes: 0x1A stands for them, or one "?". 0: none.
inline std::size_t lossy_sequence(std::string_view bytes, std::size_t i) noexcept {
  const auto lost = [](unsigned x) { return x == 0x1A || x == '?'; };
  const auto next = [](unsigned x) { return x == 0x1A || in(x, 0x80, 0xBF); };
  const auto any = [&](unsigned x) { return lost(x) || next(x); };
  const unsigned a = byte_at(bytes, i);
  const unsigned b = byte_at(bytes, i + 1);
  if ((in(a, 0xC2, 0xDF) && b == 0x1A) || (in(a, 0xC2, 0xC3) && b == '?')) return 2;
  const unsigned c = byte_at(bytes, i + 2);
  const unsigned d = byte_at(bytes, i + 3);
  if (a == 0xED && in(b, 0xA0, 0xAF) && d == 0xED && in(byte_at(bytes, i + 4), 0xB0, 0xBF)) {
    const unsigned f = byte_at(bytes, i + 5);  // a surrogate pair
    if ((lost(c) && any(f)) || (any(c) && lost(f))) return 6;
  }
  if (in(a, 0xE0, 0xEF) && ((lost(b) && next(c)) || (next(b) && lost(c)))) return 3;
  if (in(a, 0xF0, 0xF4)) {
    const int whole = (next(b) ? 1 : 0) + (next(c) ? 1 : 0) + (next(d) ? 1 : 0);
    const bool some_lost = lost(b) || lost(c) || lost(d);
    if (some_lost && (whole == 3 || (whole == 2 && any(b) && any(c) && any(d)))) return 4;
  }
  return a == 0x1A ? 1 : 0;
}

/// Sequences that lost bytes become U+FFFD.
inline void replace_lossy_sequences(byte_buffer& bytes) noexcept {
  byte_buffer out;
  const std::string_view view(bytes.data(), bytes.size());
  for (std::size_t i = 0; i < view.size();) {
    if (const std::size_t n = lossy_sequence(view, i)) {
      out.append("\xEF\xBF\xBD", 3);
      i += n;
    } else {
      out.push_back(view[i++]);
    }
  }
  bytes.swap(out);
}

/// Length of a surrogate pair in UTF-8 (CESU-8) at bytes[i], 6 or 0.
inline std::size_t cesu_pair(std::string_view bytes, std::size_t i, char32_t& c) noexcept {
  const auto b = [&](std::size_t k) { return byte_at(bytes, i + k); };
  const bool pair = b(0) == 0xED && in(b(1), 0xA0, 0xAF) && in(b(2), 0x80, 0xBF) && b(3) == 0xED &&
                    in(b(4), 0xB0, 0xBF) && in(b(5), 0x80, 0xBF);
  if (!pair) return 0;
  c = 0x10000 + (((b(1) & 0xF) << 16) | ((b(2) & 0x3F) << 10) | ((b(4) & 0xF) << 6) | (b(5) & 0x3F));
  return 6;
}

/// Strict UTF-8, and its variants with surrogate pairs and a NUL of two bytes; false if the bytes are
/// neither.
inline bool decode_variants(std::string_view bytes, text32& out) noexcept {
  out.clear();
  for (std::size_t i = 0; i < bytes.size();) {
    char32_t c = 0;
    if (const std::size_t n = cesu_pair(bytes, i, c)) {
      out.push_back(c);
      i += n;
    } else if (byte_at(bytes, i) == 0xC0 && byte_at(bytes, i + 1) == 0x80) {
      out.push_back(0);
      i += 2;
    } else {
      const std::size_t from = i;
      c = unicode::decode_one(bytes, i);
      if (c == unicode::replacement && bytes.substr(from, i - from) != "\xEF\xBF\xBD") return false;
      out.push_back(c);
    }
  }
  return true;
}

/// Length of the run of letters at text[i] that look like UTF-8 decoded with a one-byte table, or 0.
inline std::size_t utf8_lookalikes(std::span<const char32_t> text, std::size_t i) noexcept {
  const auto clues = [text](std::size_t at) -> unsigned {
    const tables::mojibake_letter* l = at < text.size() ? find_letter(text[at]) : nullptr;
    return l != nullptr ? l->utf8 : 0;
  };
  if (i > 0 && (clues(i - 1) & tables::utf8_continuation_strict)) return 0;
  std::size_t end = i;
  for (;;) {
    const unsigned first = clues(end);
    std::size_t more = 0;
    while (more < 3 && (clues(end + 1 + more) & tables::utf8_continuation)) ++more;
    if ((first & tables::utf8_first_of_2) && more >= 1) {
      end += 2;
    } else if ((first & tables::utf8_first_of_3) && more >= 2) {
      end += 3;
    } else if ((first & tables::utf8_first_of_4) && more >= 3) {
      end += 4;
    } else {
      return end - i;
    }
  }
}

constexpr bool is_c1(char32_t c) noexcept { return c >= 0x80 && c < 0xA0; }

/// C1 controls as Windows-1252 has them; the five that it lacks stay.
inline bool fix_c1(text32& text) noexcept {
  bool changed = false;
  for (char32_t& c : text) {
    if (!is_c1(c)) continue;
    const char32_t windows_1252 = tables::c1_references[c - 0x80];
    changed = changed || windows_1252 != c;
    c = windows_1252;
  }
  return changed;
}

inline bool same(const text32& a, const text32& b) noexcept {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin());
}

/// Tries each one-byte table: if the text can be encoded with it and the bytes are UTF-8, that is the repair.
/// False if none will do; `changed` says whether the repair differs from the text (U+FFFD may be repaired to
/// itself).
inline bool fix_by_charmap(text32& text, bool& changed) noexcept {
  byte_buffer bytes;
  text32 out;
  for (int charmap = -1; charmap < tables::charmap_count; ++charmap) {
    if (!encode_charmap(text.span(), charmap, bytes)) continue;
    if (charmap != tables::charmap_macroman) restore_byte_a0(bytes);
    if (charmap >= 0 && charmap < tables::charmap_sloppy_count) replace_lossy_sequences(bytes);
    if (!decode_variants({bytes.data(), bytes.size()}, out)) continue;
    if (bytes.failed()) out.fail();
    changed = !same(text, out);
    text.swap(out);
    return true;
  }
  if (bytes.failed() || out.failed()) text.fail();  // a repair may have been missed for that
  return false;
}

}  // namespace detail

inline void fix_encoding(text32& text, std::size_t& budget, int depth) noexcept;

namespace detail {

/// Repairs stretches that look like damaged UTF-8 inside other text, each by itself. True if one changed.
inline bool fix_stretches(text32& text, std::size_t& budget, int depth) noexcept {
  constexpr int deepest = 4;
  if (depth >= deepest) return false;
  text32 out;
  text32 part;
  for (std::size_t i = 0; i < text.size();) {
    const std::size_t n = utf8_lookalikes(text.span(), i);
    if (n == 0) {
      out.push_back(text[i++]);
      continue;
    }
    const std::span<const char32_t> stretch = text.span().subspan(i, n);
    part.clear();
    part.append(stretch.data(), n);
    if (n < text.size() && is_bad(stretch)) fix_encoding(part, budget, depth + 1);
    out.append(part.data(), part.size());
    i += n;
  }
  const bool changed = !same(text, out);
  if (part.failed()) out.fail();
  if (changed || out.failed()) text.swap(out);
  return changed;
}

/// One step of ftfy's fix_encoding. True if the text changed.
inline bool fix_encoding_once(text32& text, std::size_t& budget, int depth) noexcept {
  if (std::all_of(text.begin(), text.end(), [](char32_t c) { return c < 0x80; }) || !is_bad(text.span()))
    return false;
  bool changed = false;
  if (fix_by_charmap(text, changed)) return changed;
  if (fix_stretches(text, budget, depth)) return true;
  return fix_c1(text);
}

}  // namespace detail

/// Letters that the repairs of a text may look at in all: enough for 32 steps over the whole text.
constexpr std::size_t repair_budget(std::size_t letters) noexcept { return 32 * letters + 1024; }

/// Repairs the encoding of one line, in place, step by step until nothing changes or the budget is used up.
inline void fix_encoding(text32& text, std::size_t& budget, int depth = 0) noexcept {
  bool changed = true;
  while (changed && budget > text.size() && !text.failed()) {
    budget -= text.size();
    changed = detail::fix_encoding_once(text, budget, depth);
  }
}

}  // namespace cleaning
OCELLUS_END
