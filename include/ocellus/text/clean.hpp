// Cleaning of text before it is tokenized: ftfy's fix_text, HTML unescaping, white space, as open_clip does
// them.
//
// Why: open_clip (as OpenAI's CLIP) was trained on text that went through these steps, so curly quotes,
// entities or full-width letters give other ids without them. Plain ASCII without "&" is not changed by any
// but the last steps. All functions work on code points, in place, and run in linear time also where ftfy
// does not (nested entities).
//
// Followed: ftfy 6.3.1 (fix_text with its default configuration), Python 3.11's html.unescape (HTML 5,
// section 13.2.5.72 and on), open_clip's tokenizer.py.
#pragma once

#include <ocellus/text/html_entities.hpp>
#include <ocellus/text/mojibake.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <iterator>
#include <span>
#include <string_view>

OCELLUS_BEGIN
namespace cleaning {

namespace detail {

constexpr bool is_ascii_alnum(char32_t c) noexcept {
  return (c >= '0' && c <= '9') || (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

constexpr int hex_digit(char32_t c) noexcept {
  if (c >= '0' && c <= '9') return static_cast<int>(c - '0');
  if (c >= 'a' && c <= 'f') return static_cast<int>(c - 'a' + 10);
  if (c >= 'A' && c <= 'F') return static_cast<int>(c - 'A' + 10);
  return -1;
}

inline std::string_view entity_name(int i) noexcept {
  const std::size_t from = tables::entity_offsets[i];
  return {tables::entity_names + from, tables::entity_offsets[i + 1] - from};
}

/// Index of the entity of that name (no "&", no ";"), or -1.
inline int find_entity(std::string_view name) noexcept {
  int low = 0;
  int high = tables::entity_count;
  while (low < high) {
    const int middle = (low + high) / 2;
    if (entity_name(middle) < name) {
      low = middle + 1;
    } else {
      high = middle;
    }
  }
  return low < tables::entity_count && entity_name(low) == name ? low : -1;
}

inline void push_entity(int i, text32& out) noexcept {
  const char32_t plane = (tables::entity_flags[i] & tables::entity_plane1) != 0 ? 0x10000 : 0;
  out.push_back(plane | tables::entity_first[i]);
  if (tables::entity_second[i] != 0) out.push_back(tables::entity_second[i]);
}

/// What a numeric reference stands for in HTML 5; -1: nothing at all. `number` may be saturated.
constexpr std::int32_t numeric_reference(std::uint32_t number) noexcept {
  if (number >= 0x80 && number < 0xA0) return tables::c1_references[number - 0x80];
  if (number == 0 || number > 0x10FFFF || (number >= 0xD800 && number < 0xE000)) return 0xFFFD;
  const bool control = number < 0x20 && number != '\t' && number != '\n' && number != '\f' && number != '\r';
  const bool noncharacter = (number >= 0xFDD0 && number < 0xFDF0) || (number & 0xFFFE) == 0xFFFE;
  return control || number == 0x7F || noncharacter ? -1 : static_cast<std::int32_t>(number);
}

/// Reads "#123" or "#x1F" at text[i] (the "#"). Returns its length, 0 if there is no digit.
inline std::size_t read_number(std::span<const char32_t> text, std::size_t i,
                               std::uint32_t& number) noexcept {
  const bool hex = i + 1 < text.size() && (text[i + 1] == 'x' || text[i + 1] == 'X');
  const std::size_t digits = i + (hex ? 2 : 1);
  std::size_t end = digits;
  number = 0;
  for (; end < text.size(); ++end) {
    const int d = hex_digit(text[end]);
    if (d < 0 || (!hex && d > 9)) break;
    number = number > 0x10FFFF ? number : number * (hex ? 16u : 10u) + static_cast<std::uint32_t>(d);
  }
  return end == digits ? 0 : end - i;
}

/// The longest known name that begins at text[0] (at least two letters); its length or 0. Without a semicolon
/// only the names of old HTML count.
inline std::size_t longest_entity(std::span<const char32_t> text, bool semicolon, int& entity) noexcept {
  char name[tables::longest_entity];
  for (std::size_t i = 0; i < text.size(); ++i)
    name[i] = text[i] < 0x80 ? static_cast<char>(text[i]) : '\x7f';
  if (semicolon) {
    entity = find_entity({name, text.size()});
    return entity < 0 ? 0 : text.size();
  }
  for (std::size_t n = text.size(); n >= 2; --n) {
    entity = find_entity({name, n});
    if (entity >= 0 && (tables::entity_flags[entity] & tables::entity_bare)) return n;
  }
  return 0;
}

/// Replaces one reference at text[i] == '&' as html.unescape does; returns the position after what was read.
inline std::size_t unescape_one(std::span<const char32_t> text, std::size_t i, text32& out) noexcept {
  const auto is_at = [text](std::size_t at, char32_t c) { return at < text.size() && text[at] == c; };
  if (is_at(i + 1, '#')) {
    std::uint32_t number = 0;
    const std::size_t n = read_number(text, i + 1, number);
    if (n == 0) {
      out.push_back('&');
      return i + 1;
    }
    const std::int32_t c = numeric_reference(number);
    if (c >= 0) out.push_back(static_cast<char32_t>(c));
    return i + 1 + n + (is_at(i + 1 + n, ';') ? 1 : 0);
  }
  // Python's pattern: up to 32 characters that are no tab, new line, form feed, blank, "<", "&", "#", ";".
  const auto ends_name = [](char32_t c) {
    return c == '\t' || c == '\n' || c == '\f' || c == ' ' || c == '<' || c == '&' || c == '#' || c == ';';
  };
  std::size_t end = i + 1;
  while (end < text.size() && end - (i + 1) < 32 && !ends_name(text[end])) ++end;
  const std::size_t length = std::min<std::size_t>(end - (i + 1), tables::longest_entity);
  const bool whole = length == end - (i + 1);
  int entity = -1;
  if (whole && length > 0 && is_at(end, ';') &&
      longest_entity(text.subspan(i + 1, length), true, entity) > 0) {
    push_entity(entity, out);
    return end + 1;
  }
  const std::size_t n = longest_entity(text.subspan(i + 1, length), false, entity);
  if (n == 0) {
    out.append(text.data() + i, end - i);
    return end;
  }
  push_entity(entity, out);
  out.append(text.data() + i + 1 + n, end - (i + 1 + n));
  return end;
}

}  // namespace detail

/// Python's html.unescape: numeric references, named ones by their longest known prefix, once from left to
/// right.
inline void html_unescape(text32& text) noexcept {
  const char32_t* first = std::find(text.begin(), text.end(), U'&');
  if (first == text.end()) return;
  text32 out;
  out.reserve(text.size());
  out.append(text.data(), static_cast<std::size_t>(first - text.begin()));
  for (std::size_t i = out.size(); i < text.size() && !out.failed();) {
    if (text[i] == '&') {
      i = detail::unescape_one(text.span(), i, out);
    } else {
      out.push_back(text[i++]);
    }
  }
  text.swap(out);
}

namespace detail {

/// Appends the upper case that ftfy gives the all-capitals form of an entity.
inline void push_capital_entity(int entity, text32& out) noexcept {
  const auto* at =
      std::partition_point(std::begin(tables::capital_entities), std::end(tables::capital_entities),
                           [entity](const tables::capital_entity& e) { return e.entity < entity; });
  if (at == std::end(tables::capital_entities) || at->entity != entity) {
    push_entity(entity, out);
    return;
  }
  for (const std::uint16_t c : at->value) {
    if (c != 0) out.push_back(c);
  }
}

/// The entity that ftfy reads in a name of `n` ASCII letters or digits (at most 24): the name itself, or the
/// all-capitals form of one. Puts what it stands for into `value`; false if there is none.
inline bool read_entity_name(const char32_t* letters, std::size_t n, text32& value) noexcept {
  char name[24];
  char lower_name[24];
  bool capitals = true;
  for (std::size_t i = 0; i < n; ++i) {
    const char c = static_cast<char>(letters[i]);
    name[i] = c;
    lower_name[i] = c >= 'A' && c <= 'Z' ? static_cast<char>(c - 'A' + 'a') : c;
    capitals = capitals && !(c >= 'a' && c <= 'z');
  }
  int entity = find_entity({name, n});
  if (entity >= 0) {
    push_entity(entity, value);
    return true;
  }
  entity = capitals ? find_entity({lower_name, n}) : -1;
  if (entity < 0 || !(tables::entity_flags[entity] & tables::entity_capitals)) return false;
  push_capital_entity(entity, value);
  return true;
}

/// Reads the entity that ends `text` as ftfy does: "&", perhaps "#", 1 to 24 ASCII letters or digits, ";".
/// Returns its length and puts what it stands for into `value`, or 0.
inline std::size_t entity_at_end(std::span<const char32_t> text, text32& value) noexcept {
  constexpr std::size_t longest = 24;
  const std::size_t end = text.size() - 1;  // the ";"
  std::size_t start = end;
  while (start > 0 && end - start <= longest && is_ascii_alnum(text[start - 1])) --start;
  if (start == end || end - start > longest || start == 0) return 0;
  value.clear();
  if (text[start - 1] == '&') {
    const bool known = read_entity_name(text.data() + start, end - start, value);
    return known ? text.size() - (start - 1) : 0;
  }
  if (text[start - 1] != '#' || start < 2 || text[start - 2] != '&') return 0;
  std::uint32_t number = 0;
  const std::size_t n = read_number(text, start - 1, number);
  if (n == 0 || start - 1 + n != end || number == ';') return 0;
  const std::int32_t c = numeric_reference(number);
  if (c >= 0) value.push_back(static_cast<char32_t>(c));
  return text.size() - (start - 2);
}

/// ftfy's unescape_html, once from left to right.
inline void ftfy_unescape(text32& text) noexcept {
  if (std::find(text.begin(), text.end(), U'&') == text.end()) return;
  text32 out;
  text32 value;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size() && !out.failed(); ++i) {
    out.push_back(text[i]);
    if (text[i] != ';') continue;
    // An entity holds no other ";", so its letters still end `out` as they were.
    if (const std::size_t n = entity_at_end(text.span().first(i + 1), value)) {
      out.truncate(out.size() - n);
      out.append(value.data(), value.size());
    }
  }
  if (value.failed()) out.fail();
  text.swap(out);
}

/// The limit of repeated ftfy_unescape in one pass: what a replacement completes is read again.
inline void ftfy_unescape_nested(text32& text) noexcept {
  text32 out;
  text32 value;
  out.reserve(text.size());
  for (std::size_t i = 0; i < text.size() && !out.failed(); ++i) {
    out.push_back(text[i]);
    while (!out.empty() && out.back() == ';') {
      const std::size_t n = entity_at_end(out.span(), value);
      if (n == 0) break;
      out.truncate(out.size() - n);
      out.append(value.data(), value.size());
    }
  }
  if (value.failed()) out.fail();
  text.swap(out);
}

struct ligature {
  char16_t from;
  char16_t to[3];
};

/// Latin ligatures and digraphs that ftfy takes apart, ascending.
OCELLUS_TABLE ligature ligatures[] = {{0x132, u"IJ"},
                                       {0x133, u"ij"},
                                       {0x149, {0x2BC, u'n'}},
                                       {0x1C4, {u'D', 0x17D}},
                                       {0x1C5, {u'D', 0x17E}},
                                       {0x1C6, {u'd', 0x17E}},
                                       {0x1C7, u"LJ"},
                                       {0x1C8, u"Lj"},
                                       {0x1C9, u"lj"},
                                       {0x1CA, u"NJ"},
                                       {0x1CB, u"Nj"},
                                       {0x1CC, u"nj"},
                                       {0x1F1, u"DZ"},
                                       {0x1F2, u"Dz"},
                                       {0x1F3, u"dz"},
                                       {0xFB00, u"ff"},
                                       {0xFB01, u"fi"},
                                       {0xFB02, u"fl"},
                                       {0xFB03, {u'f', u'f', u'i'}},
                                       {0xFB04, {u'f', u'f', u'l'}},
                                       {0xFB05, {0x17F, u't'}},
                                       {0xFB06, u"st"}};

constexpr char32_t straight_quote(char32_t c) noexcept {
  if (c == 0x2BC || (c >= 0x2018 && c <= 0x201B)) return '\'';
  return c >= 0x201C && c <= 0x201F ? U'"' : c;
}

/// ftfy's letter-by-letter steps in its order: C1 controls as Windows-1252, ligatures, width, quotes, line
/// breaks (a carriage return before a new line is dropped by the caller).
inline void fold_letters(const text32& text, text32& out) noexcept {
  for (std::size_t i = 0; i < text.size(); ++i) {
    char32_t c = text[i];
    if (c < 0x80) {
      if (c == '\r') {
        if (i + 1 < text.size() && text[i + 1] == '\n') continue;
        c = '\n';
      }
      out.push_back(c);
      continue;
    }
    if (c < 0xA0) c = tables::c1_references[c - 0x80];
    if (c >= char32_t{ligatures[0].from} && c <= char32_t{std::end(ligatures)[-1].from}) {
      const auto* at = std::partition_point(std::begin(ligatures), std::end(ligatures),
                                            [c](const ligature& l) { return char32_t{l.from} < c; });
      if (char32_t{at->from} == c) {
        for (const char16_t part : at->to) {
          if (part != 0) out.push_back(straight_quote(part));
        }
        continue;
      }
    }
    if (c == 0x2028 || c == 0x2029) c = '\n';
    out.push_back(straight_quote(unicode::fold_width(c)));
    if (c == 0xFFE3) out.push_back(0x304);
  }
}

constexpr bool is_control(char32_t c) noexcept {
  if (c < 0x20) return c != '\t' && c != '\n' && c != '\f' && c != '\r';
  return c == 0x7F || (c >= 0x206A && c <= 0x206F) || c == 0xFEFF || (c >= 0xFFF9 && c <= 0xFFFC);
}

/// Length of the terminal escape (ESC "[" digits and semicolons, one ASCII letter) at text[i], or 0.
inline std::size_t terminal_escape(std::span<const char32_t> text, std::size_t i) noexcept {
  if (text[i] != 0x1B || i + 1 >= text.size() || text[i + 1] != '[') return 0;
  std::size_t end = i + 2;
  while (end < text.size() && (text[end] == ';' || unicode::is_decimal(text[end]))) ++end;
  const bool closed = end < text.size() && is_ascii_alnum(text[end]) && !(text[end] <= '9');
  return closed ? end + 1 - i : 0;
}

/// Removes terminal escapes, then control characters.
inline void remove_controls(text32& text) noexcept {
  std::size_t kept = 0;
  for (std::size_t i = 0; i < text.size();) {
    if (const std::size_t n = terminal_escape(text.span(), i)) {
      i += n;
      continue;
    }
    if (!is_control(text[i])) text[kept++] = text[i];
    ++i;
  }
  text.truncate(kept);
}

/// Text that no step of ftfy changes: plain ASCII without references and controls.
inline bool is_plain(std::span<const char32_t> text) noexcept {
  return std::all_of(text.begin(), text.end(), [](char32_t c) {
    return (c >= 0x20 && c < 0x7F && c != '&') || c == '\n' || c == '\t' || c == '\f';
  });
}

/// ftfy's fix_and_explain for one segment: all steps, again until nothing changes.
inline void fix_segment(text32& text, bool unescape) noexcept {
  // ftfy repeats without end, and each nesting of entities costs it a pass: after that many, all at once.
  constexpr int exact_passes = 16;
  constexpr int most_passes = 64;
  std::size_t repairs = repair_budget(text.size());
  text32 before;
  text32 out;
  for (int pass = 0; pass < most_passes; ++pass) {
    before.clear();
    before.append(text.data(), text.size());
    if (unescape && pass < exact_passes) ftfy_unescape(text);
    if (unescape && pass >= exact_passes) ftfy_unescape_nested(text);
    fix_encoding(text, repairs);
    out.clear();
    fold_letters(text, out);
    remove_controls(out);
    unicode::nfc(out);
    text.swap(out);
    if (before.failed() || out.failed()) text.fail();
    if (text.failed()) return;
    if (same(text, before)) return;
  }
}

}  // namespace detail

/// ftfy.fix_text: each line by itself, entities only until a line with "<" was met.
inline void ftfy(text32& text) noexcept {
  constexpr std::size_t longest_segment = 1000000;
  text32 out;
  text32 segment;
  bool unescape = true;
  for (std::size_t from = 0; from < text.size() && !out.failed();) {
    const std::size_t most = std::min(text.size(), from + longest_segment);
    const char32_t* new_line = std::find(text.begin() + from, text.begin() + most, U'\n');
    const std::size_t end = std::min(most, static_cast<std::size_t>(new_line - text.begin()) + 1);
    segment.clear();
    segment.append(text.data() + from, end - from);
    unescape = unescape && std::find(segment.begin(), segment.end(), U'<') == segment.end();
    if (!detail::is_plain(segment.span())) detail::fix_segment(segment, unescape);
    if (segment.failed()) out.fail();
    out.append(segment.data(), segment.size());
    from = end;
  }
  text.swap(out);
}

/// Python's " ".join(text.split()): white space at both ends goes, each run inside becomes one blank.
inline void collapse_space(text32& text) noexcept {
  std::size_t kept = 0;
  bool gap = false;
  for (const char32_t c : text) {
    if (unicode::is_py_space(c)) {
      gap = true;
      continue;
    }
    if (gap && kept > 0) text[kept++] = ' ';
    gap = false;
    text[kept++] = c;
  }
  text.truncate(kept);
}

/// Drops Python's string.punctuation, the 32 ASCII marks.
inline void drop_ascii_punctuation(text32& text) noexcept {
  std::size_t kept = 0;
  for (const char32_t c : text) {
    if (c <= ' ' || c >= 0x7F || detail::is_ascii_alnum(c)) text[kept++] = c;
  }
  text.truncate(kept);
}

/// Lower case in place.
inline void lower(text32& text, unicode::sigma rule) noexcept {
  text32 out;
  unicode::lower(text.span(), rule, out);
  text.swap(out);
}

/// open_clip's cleaning functions, from bytes (broken UTF-8 becomes U+FFFD) to code points. `out` is
/// replaced; test out.failed() afterwards. text_cleaning::none only decodes.
inline void openclip(text_cleaning cleaning, std::string_view text, text32& out) noexcept {
  out.clear();
  unicode::decode_utf8(text, out);
  if (cleaning == text_cleaning::none) return;
  ftfy(out);
  html_unescape(out);
  html_unescape(out);
  if (cleaning == text_cleaning::canonicalize) {
    std::replace(out.begin(), out.end(), U'_', U' ');
    drop_ascii_punctuation(out);
    lower(out, unicode::sigma::in_context);
  }
  collapse_space(out);
  if (cleaning == text_cleaning::lower) lower(out, unicode::sigma::in_context);
}

/// transformers' SiglipTokenizer (the slow one): lower case, no ASCII punctuation, white space collapsed.
/// `out` is replaced; test out.failed() afterwards.
inline void siglip_hf(std::string_view text, text32& out) noexcept {
  out.clear();
  unicode::decode_utf8(text, out);
  lower(out, unicode::sigma::in_context);
  drop_ascii_punctuation(out);
  collapse_space(out);
}

}  // namespace cleaning
OCELLUS_END
