// Grapheme clusters: what a reader takes for one letter. The normaliser of transformers' fast SentencePiece
// tokenizers works on them. Reference: Unicode Standard Annex 29, rules GB3 to GB13 without GB9c, which joins
// Indic letters to clusters that are too long for that normaliser anyway.
#pragma once

#include <ocellus/text/fast_tables.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <string_view>

OCELLUS_BEGIN
namespace unicode {

/// Classes of annex 29; the first six are numbered as in the table.
enum class grapheme_class : std::uint8_t {
  other,
  control,
  extend,
  spacing_mark,
  prepend,
  picture,
  joiner,
  carriage_return,
  line_feed,
  regional,
  hangul_l,
  hangul_v,
  hangul_t,
  hangul_lv,
  hangul_lvt
};

/// The class of a code point (at most U+10FFFF).
inline grapheme_class grapheme_class_of(char32_t c) noexcept {
  if (c < 0x80) {
    if (c == '\r') return grapheme_class::carriage_return;
    if (c == '\n') return grapheme_class::line_feed;
    return c < 0x20 || c == 0x7F ? grapheme_class::control : grapheme_class::other;
  }
  if (c == 0x200D) return grapheme_class::joiner;
  if (c >= 0x1F1E6 && c <= 0x1F1FF) return grapheme_class::regional;
  if (c - detail::s_base < detail::s_count) {
    return (c - detail::s_base) % detail::t_count == 0 ? grapheme_class::hangul_lv
                                                       : grapheme_class::hangul_lvt;
  }
  if ((c >= 0x1100 && c < 0x1160) || (c >= 0xA960 && c <= 0xA97C)) return grapheme_class::hangul_l;
  if ((c >= 0x1160 && c < 0x11A8) || (c >= 0xD7B0 && c <= 0xD7C6)) return grapheme_class::hangul_v;
  if ((c >= 0x11A8 && c < 0x1200) || (c >= 0xD7CB && c <= 0xD7FB)) return grapheme_class::hangul_t;
  const auto* last =
      std::lower_bound(std::begin(tables::grapheme_lasts), std::end(tables::grapheme_lasts), c);
  if (last == std::end(tables::grapheme_lasts)) return grapheme_class::other;
  const std::uint32_t first = tables::grapheme_firsts[last - std::begin(tables::grapheme_lasts)];
  return (first & 0xFFFFFF) <= c ? static_cast<grapheme_class>(first >> 24) : grapheme_class::other;
}

/// End of the cluster that begins at text[at] (at < text.size()). Steps over the cluster once.
inline std::size_t grapheme_end(std::string_view text, std::size_t at) noexcept {
  using g = grapheme_class;
  g before = grapheme_class_of(decode_one(text, at));
  std::size_t regionals = before == g::regional ? 1 : 0;
  bool after_picture = before == g::picture;  // the cluster ends in a picture and marks
  while (at < text.size()) {
    std::size_t next = at;
    const g now = grapheme_class_of(decode_one(text, next));
    const bool before_ends = before == g::control || before == g::carriage_return || before == g::line_feed;
    const bool now_ends = now == g::control || now == g::carriage_return || now == g::line_feed;
    bool joined = false;
    if (before_ends || now_ends) {
      joined = before == g::carriage_return && now == g::line_feed;
    } else if (now == g::extend || now == g::joiner || now == g::spacing_mark || before == g::prepend) {
      joined = true;
    } else if (before == g::hangul_l) {
      joined = now == g::hangul_l || now == g::hangul_v || now == g::hangul_lv || now == g::hangul_lvt;
    } else if (before == g::hangul_lv || before == g::hangul_v) {
      joined = now == g::hangul_v || now == g::hangul_t;
    } else if (before == g::hangul_lvt || before == g::hangul_t) {
      joined = now == g::hangul_t;
    } else if (before == g::joiner) {
      joined = after_picture && now == g::picture;
    } else if (before == g::regional) {
      joined = now == g::regional && regionals % 2 == 1;
    }
    if (!joined) break;
    regionals = now == g::regional ? regionals + 1 : 0;
    after_picture = now == g::picture || (after_picture && (now == g::extend || now == g::joiner));
    before = now;
    at = next;
  }
  return at;
}

}  // namespace unicode
OCELLUS_END
