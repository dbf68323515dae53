// Unicode as the reference tokenizers see it: UTF-8 decoding, letter classes, lower case, NFC, width forms.
//
// Why own tables: the standard library has none, and the ids depend on one version of Unicode (14,
// Python 3.11's). The tables are constant data, made by tools/unicode/make_tables.py; nothing runs at
// start-up. References: The Unicode Standard 14, sections 3.9 (maximal subparts), 3.11 (canonical ordering
// and composition), 3.12 (Hangul), 3.13 (final sigma, as CPython's unicodeobject.c applies it).
#pragma once

#include <ocellus/text/buffer.hpp>
#include <ocellus/text/unicode_tables.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

OCELLUS_BEGIN
namespace unicode {

inline constexpr char32_t replacement = 0xFFFD;

/// Classes, combining class and lower case of a code point (at most U+10FFFF).
constexpr const tables::record& properties(char32_t c) noexcept {
  constexpr unsigned leaf_mask = (1u << tables::leaf_bits) - 1;
  constexpr unsigned middle_mask = (1u << tables::middle_bits) - 1;
  const unsigned block = tables::top[c >> (tables::leaf_bits + tables::middle_bits)];
  const unsigned leaf =
      tables::middle[(block << tables::middle_bits) + ((c >> tables::leaf_bits) & middle_mask)];
  return tables::records[tables::leaves[(leaf << tables::leaf_bits) + (c & leaf_mask)]];
}

/// \p{N}
constexpr bool is_number(char32_t c) noexcept { return properties(c).flags & tables::number; }
/// White_Space: \s of Python's regex package and of Oniguruma.
constexpr bool is_space(char32_t c) noexcept { return properties(c).flags & tables::space; }
/// Python's str.isspace, str.split() and str.strip(): White_Space and U+001C..U+001F.
constexpr bool is_py_space(char32_t c) noexcept { return properties(c).flags & tables::py_space; }
/// \p{Nd}: \d of Python's re.
constexpr bool is_decimal(char32_t c) noexcept { return properties(c).flags & tables::decimal; }

/// True if c lies in one of the runs of a table of fast_tables.hpp: first and last code point of each, ascending.
constexpr bool is_in_runs(std::span<const std::uint32_t> runs, char32_t c) noexcept {
  const auto at = std::lower_bound(runs.begin(), runs.end(), static_cast<std::uint32_t>(c));
  return at != runs.end() && (*at == c || (at - runs.begin()) % 2 == 1);
}

/// Decodes one code point at text[i] and moves i past it. A broken sequence gives U+FFFD and i moves over
/// its longest prefix that could have begun a valid one (at least one byte), as Python's errors="replace"
/// does. i < text.size().
constexpr char32_t decode_one(std::string_view text, std::size_t& i) noexcept {
  const auto byte = [text](std::size_t at) {
    return static_cast<unsigned>(static_cast<unsigned char>(text[at]));
  };
  const unsigned lead = byte(i++);
  if (lead < 0x80) return lead;
  if (lead < 0xC2 || lead > 0xF4) return replacement;
  const int more = lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : 3;
  // The second byte's range excludes overlong forms, surrogates and what lies beyond U+10FFFF.
  unsigned low = lead == 0xE0 ? 0xA0 : lead == 0xF0 ? 0x90 : 0x80;
  unsigned high = lead == 0xED ? 0x9F : lead == 0xF4 ? 0x8F : 0xBF;
  unsigned c = lead & (0x3Fu >> more);
  for (int k = 0; k < more; ++k) {
    if (i == text.size() || byte(i) < low || byte(i) > high) return replacement;
    c = (c << 6) | (byte(i++) & 0x3F);
    low = 0x80;
    high = 0xBF;
  }
  return c;
}

/// Appends the code points of `text` to `out`; broken parts become U+FFFD.
inline void decode_utf8(std::string_view text, text32& out) noexcept {
  out.reserve(out.size() + text.size());
  for (std::size_t i = 0; i < text.size();) out.push_back(decode_one(text, i));
}

/// Writes the UTF-8 form of c (at most U+10FFFF) and returns its length, 1 to 4.
constexpr int encode_utf8(char32_t c, unsigned char out[4]) noexcept {
  if (c < 0x80) {
    out[0] = static_cast<unsigned char>(c);
    return 1;
  }
  const int n = c < 0x800 ? 2 : c < 0x10000 ? 3 : 4;
  for (int k = n - 1; k > 0; --k) {
    out[k] = static_cast<unsigned char>(0x80 | (c & 0x3F));
    c >>= 6;
  }
  out[0] = static_cast<unsigned char>((0xF00u >> n) | c);
  return n;
}

/// Appends the UTF-8 form of `text` to `out`.
inline void encode_utf8(std::span<const char32_t> text, text_buffer<char>& out) noexcept {
  unsigned char bytes[4];
  for (const char32_t c : text) {
    const int n = encode_utf8(c, bytes);
    out.append(reinterpret_cast<const char*>(bytes), static_cast<std::size_t>(n));
  }
}

/// How the capital sigma is lowered.
enum class sigma { alone, in_context };

namespace detail {

inline constexpr char32_t dotted_capital_i = 0x130;  // lower case: "i" and U+0307
inline constexpr char32_t capital_sigma = 0x3A3;

/// Python's rule looks for a cased letter after the sigma, over ignorable characters.
inline bool is_before_cased(std::span<const char32_t> text, std::size_t at) noexcept {
  for (std::size_t i = at + 1; i < text.size(); ++i) {
    const std::uint8_t flags = properties(text[i]).flags;
    if (!(flags & tables::ignorable)) return flags & tables::cased;
  }
  return false;
}

}  // namespace detail

/// Lower case into `out` (appended). sigma::in_context is Python's str.lower(); sigma::alone takes each
/// letter by itself, as transformers' fast tokenizers do.
inline void lower(std::span<const char32_t> text, sigma rule, text32& out) noexcept {
  out.reserve(out.size() + text.size());
  bool after_cased = false;  // the nearest character before that is not ignorable is cased
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    const tables::record& p = properties(c);
    if (c == detail::dotted_capital_i) {
      out.push_back('i');
      out.push_back(0x307);
    } else if (c == detail::capital_sigma && rule == sigma::in_context) {
      // The scan ahead stops at the next sigma at the latest, which is cased: linear in all.
      const bool is_final = after_cased && !detail::is_before_cased(text, i);
      out.push_back(is_final ? 0x3C2 : 0x3C3);
    } else {
      out.push_back(static_cast<char32_t>(static_cast<std::int32_t>(c) + p.lower_delta));
    }
    if (!(p.flags & tables::ignorable)) after_cased = p.flags & tables::cased;
  }
}

/// The usual-width form of U+FF01..U+FFEF and U+3000 as ftfy has it, or c itself. U+FFE3 becomes U+0020
/// U+0304: the caller appends the second.
constexpr char32_t fold_width(char32_t c) noexcept {
  if (c == 0x3000 || c == 0xFFE3) return ' ';
  if (c < 0xFF01 || c > 0xFFEF) return c;
  return tables::widths[c - 0xFF01];
}

namespace detail {

// Hangul syllables are composed by arithmetic (The Unicode Standard, section 3.12).
inline constexpr char32_t s_base = 0xAC00, l_base = 0x1100, v_base = 0x1161, t_base = 0x11A7;
inline constexpr unsigned l_count = 19, v_count = 21, t_count = 28, s_count = l_count * v_count * t_count;

/// The tables of decompositions hold sixteen bits of each code point; these add its plane.
inline constexpr int decompositions = static_cast<int>(std::size(tables::decomposed_low));
inline char32_t plane_of(int i) noexcept {
  return i < tables::decomposed_plane1 ? 0 : i < tables::decomposed_plane2 ? 0x10000 : 0x20000;
}
/// The code point of decomposition i, its first part, and its second one or 0.
inline char32_t decomposed(int i) noexcept { return plane_of(i) | tables::decomposed_low[i]; }
inline char32_t decomposed_first(int i) noexcept {
  const bool plane2 = std::binary_search(std::begin(tables::far_firsts), std::end(tables::far_firsts), i);
  return (plane2 ? 0x20000 : plane_of(i) & 0x10000) | tables::first_low[i];
}
inline char32_t decomposed_second(int i) noexcept {
  const char32_t low = tables::second_low[i];
  return low == 0 ? 0 : (plane_of(i) & 0x10000) | low;
}

/// Appends the full canonical decomposition of c.
inline void decompose(char32_t c, text32& out) noexcept {
  if (c - s_base < s_count) {
    const unsigned s = static_cast<unsigned>(c - s_base);
    out.push_back(l_base + s / (v_count * t_count));
    out.push_back(v_base + s % (v_count * t_count) / t_count);
    if (s % t_count != 0) out.push_back(t_base + s % t_count);
    return;
  }
  // Only the first part of a decomposition can be decomposed again, so the parts pile up from the back.
  char32_t tail[8];
  int tails = 0;
  for (;;) {
    int i = 0;
    for (int step = 2048; step > 0; step /= 2)  // the last one up to c
      if (i + step < decompositions && decomposed(i + step) <= c) i += step;
    if (decomposed(i) != c || tails == 8) break;
    c = decomposed_first(i);
    if (const char32_t second = decomposed_second(i); second != 0) tail[tails++] = second;
  }
  out.push_back(c);
  while (tails > 0) out.push_back(tail[--tails]);
}

/// The composition of two code points, 0 if there is none.
inline char32_t compose(char32_t first, char32_t second) noexcept {
  if (first - l_base < l_count && second - v_base < v_count) {
    return s_base + ((first - l_base) * v_count + (second - v_base)) * t_count;
  }
  if (first - s_base < s_count && (first - s_base) % t_count == 0 && second > t_base &&
      second < t_base + t_count) {
    return first + (second - t_base);
  }
  const auto* at = std::partition_point(
      std::begin(tables::compositions), std::end(tables::compositions), [first, second](std::uint16_t i) {
        return decomposed_first(i) != first ? decomposed_first(i) < first : decomposed_second(i) < second;
      });
  if (at == std::end(tables::compositions)) return 0;
  return decomposed_first(*at) == first && decomposed_second(*at) == second ? decomposed(*at) : 0;
}

/// The combining class of c; 0 in the runs of `letters`. Rare enough to be called rather than copied.
[[gnu::noinline]] inline int class_of(char32_t c, std::span<const std::uint32_t> letters) noexcept {
  const int ccc = properties(c).combining_class;
  return ccc != 0 && is_in_runs(letters, c) ? 0 : ccc;
}

/// Sorts each run of combining marks by class, keeping the order of equal ones. Counting, not
/// std::stable_sort: linear on hostile runs, and no temporary buffer of the standard library's.
inline void order_marks(text32& text, std::span<const std::uint32_t> letters) noexcept {
  const auto ccc = [letters](char32_t c) { return static_cast<std::size_t>(class_of(c, letters)); };
  text32 sorted;
  for (std::size_t i = 0; i < text.size();) {
    std::size_t end = i;
    while (end < text.size() && ccc(text[end]) != 0) ++end;
    if (end - i > 1) {
      if (!sorted.resize(end - i)) return text.fail();
      std::size_t place[257] = {};  // place[k + 1] counts class k; then place[k] is where its next mark goes
      for (std::size_t j = i; j < end; ++j) ++place[ccc(text[j]) + 1];
      for (std::size_t k = 0; k < 256; ++k) place[k + 1] += place[k];
      for (std::size_t j = i; j < end; ++j) sorted[place[ccc(text[j])]++] = text[j];
      std::copy(sorted.begin(), sorted.begin() + (end - i), text.data() + i);
    }
    i = end + 1;
  }
}

/// Composes in place; `text` is in canonical order.
inline void compose_all(text32& text, std::span<const std::uint32_t> letters) noexcept {
  std::size_t kept = 0;
  std::size_t starter = static_cast<std::size_t>(-1);
  int last_class = -1;  // class of the last mark kept after the starter, -1: none
  for (std::size_t i = 0; i < text.size(); ++i) {
    const char32_t c = text[i];
    const int ccc = class_of(c, letters);
    if (starter != static_cast<std::size_t>(-1) && last_class < ccc) {
      if (const char32_t whole = compose(text[starter], c)) {
        text[starter] = whole;
        continue;
      }
    }
    if (ccc == 0) {
      starter = kept;
      last_class = -1;
    } else {
      last_class = ccc;
    }
    text[kept++] = c;
  }
  text.truncate(kept);
}

}  // namespace detail

/// Normalisation form C, in place. Text without active characters (nearly all) is left alone at once. Marks in the runs
/// of `letters` count as letters: an older Unicode's view.
inline void nfc(text32& text, std::span<const std::uint32_t> letters = {}) noexcept {
  const auto active = [](char32_t c) { return properties(c).flags & tables::nfc_active; };
  if (std::none_of(text.begin(), text.end(), active)) return;
  text32 parts;
  parts.reserve(text.size());
  for (const char32_t c : text) {
    if (c < 0xC0) {
      parts.push_back(c);
    } else {
      detail::decompose(c, parts);
    }
  }
  if (parts.failed()) {
    text.fail();
    return;
  }
  detail::order_marks(parts, letters);
  detail::compose_all(parts, letters);
  text.swap(parts);
}

}  // namespace unicode
OCELLUS_END
