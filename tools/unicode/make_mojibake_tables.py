#!/usr/bin/env python3
"""Writes include/ocellus/text/mojibake_tables.hpp by asking ftfy 6.3.1 and Python's codecs.

Usage: python3 tools/unicode/make_mojibake_tables.py    (from the top of the repository; needs ftfy 6.3.1;
then clang-format -i the header)

ftfy tells damaged text from sound text by which kinds of letters stand side by side. Its regular expression is
taken apart by Python's own parser into sequences of letter sets; letters that belong to the same sets are one
kind, so that each sequence becomes a row of bit masks over kinds.
"""
import os
import re
import sys
import unicodedata

import ftfy.chardata
from ftfy.badness import BADNESS_RE
from re import _constants as op
from re import _parser as parser

from make_tables import OUT, array

ENCODINGS = ftfy.chardata.CHARMAP_ENCODINGS
BMP = [c for c in range(0x10000) if not 0xD800 <= c < 0xE000]
# Kinds of letters are bits 0 and on of a mask of 128 bits, these classes are the topmost ones.
WORD, SPACE, NOT_NEWLINE, NOT_LETTER, BEGIN, OTHER = 127, 126, 125, 124, 123, 122


def letters_of(items):
    """A regular expression's set as (explicit code points, bits of the general classes)."""
    chars, bits = set(), 0
    if items[0] == (op.NEGATE, None):
        assert items[1:] == [(op.RANGE, (65, 90)), (op.RANGE, (97, 122))], "the only negated set is [^A-Za-z]"
        return frozenset(), 1 << NOT_LETTER
    for what, value in items:
        if what == op.LITERAL:
            chars.add(value)
        elif what == op.RANGE:
            chars.update(range(value[0], value[1] + 1))
        else:
            assert what == op.CATEGORY
            bits |= {op.CATEGORY_WORD: 1 << WORD, op.CATEGORY_SPACE: 1 << SPACE}[value]
    return frozenset(chars), bits


def sequences(parsed):
    """One branch as a list of alternatives, each a list of sets; an optional letter gives two."""
    done = [[]]
    for what, value in parsed:
        if what == op.IN:
            done = [s + [letters_of(value)] for s in done]
        elif what == op.LITERAL:
            done = [s + [(frozenset([value]), 0)] for s in done]
        elif what == op.ANY:
            done = [s + [(frozenset(), 1 << NOT_NEWLINE)] for s in done]
        elif what == op.AT:
            assert value == op.AT_BEGINNING
            done = [s + [(frozenset(), 1 << BEGIN)] for s in done]
        else:
            assert what == op.MAX_REPEAT and value[:2] == (0, 1), what
            done = done + [s + t for s in done for t in sequences(value[2])]
    return done


def branches(parsed):
    """All branches of the top alternation; the parser may have taken a common first letter out of it."""
    items = list(parsed)
    out = []
    for i, (what, value) in enumerate(items):
        if what == op.BRANCH:
            head, tail = items[:i], items[i + 1:]
            for b in value[1]:
                out += branches(head + list(b) + tail)
            return out
    return sequences(items)


def main():
    rules = branches(parser.parse(BADNESS_RE.pattern, BADNESS_RE.flags))
    explicit = sorted({chars for rule in rules for chars, _ in rule if chars}, key=sorted)
    groups = {}
    for c in BMP:
        member = tuple(c in chars for chars in explicit)
        if any(member):
            groups.setdefault(member, []).append(c)
    kinds = {c: i for i, cs in enumerate(groups.values()) for c in cs}
    assert len(groups) <= OTHER, len(groups)
    length = max(map(len, rules))
    rows = []
    for rule in rules:
        masks = []
        for chars, bits in rule:
            for c in chars:
                bits |= 1 << kinds[c]
            masks.append(bits)
        # beyond the end of a rule anything fits: its sets are empty
        sets = [f"{{0x{m & 2**64 - 1:x}, 0x{m >> 64:x}}}" for m in masks]
        half = (len(sets) + 1) // 2 if len(sets) > 3 else len(sets)
        lines = [", ".join(part) for part in (sets[:half], sets[half:]) if part]
        rows.append("    {" + ",\n     ".join(lines) + "},")

    clues = ftfy.chardata.UTF8_CLUES
    names = ["first_of_2", "first_of_3", "first_of_4", "continuation", "continuation_strict"]
    sets = [re.compile("[" + clues["utf8_" + n] + "]") for n in names]
    bytes_of = {}
    for i, encoding in enumerate(ENCODINGS[1:]):
        for byte in [0x1A] + list(range(0x80, 0x100)):
            char = ord(bytes([byte]).decode(encoding))
            if char >= 0x80:
                bytes_of.setdefault(char, [0] * (len(ENCODINGS) - 1))[i] = byte
    letters = []
    for c in BMP:
        flags = sum(1 << i for i, s in enumerate(sets) if s.match(chr(c)))
        if c in kinds or c in bytes_of or flags:
            encoded = bytes_of.get(c, [0] * (len(ENCODINGS) - 1))
            letters.append((c, kinds.get(c, OTHER), flags, encoded))
    letter_rows = "\n".join(f"    {{0x{c:x}, {k}, {f}, {{{', '.join(map(str, e))}}}}},"
                            for c, k, f, e in letters)
    sloppy = sum(e.startswith("sloppy") for e in ENCODINGS)
    unassigned = [b for b in range(0x80, 0xA0) if bytes([b]).decode("windows-1252", "replace") == "\ufffd"]
    size = len(letters) * (4 + len(ENCODINGS) - 1) + len(rows) * length * 16
    text = f"""// Made by tools/unicode/make_mojibake_tables.py from ftfy {ftfy.__version__} (Robyn Speer, Apache License 2.0) and
// Python's codecs; do not edit. {size} bytes of tables. Functions that read them are in mojibake.hpp.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

OCELLUS_BEGIN
namespace cleaning::tables {{

/// A set of kinds of letters, 128 bits.
struct kind_set {{
  std::uint64_t low;
  std::uint64_t high;
}};

inline constexpr int other_kind = {OTHER};  ///< of letters without a kind
// General classes, bits of kind_set::high.
inline constexpr std::uint64_t kind_begin = std::uint64_t{{1}} << {BEGIN - 64};  ///< the place before the first letter
inline constexpr std::uint64_t kind_not_letter = std::uint64_t{{1}} << {NOT_LETTER - 64};  ///< [^A-Za-z]
inline constexpr std::uint64_t kind_not_newline = std::uint64_t{{1}} << {NOT_NEWLINE - 64};  ///< .
inline constexpr std::uint64_t kind_space = std::uint64_t{{1}} << {SPACE - 64};  ///< \\s
inline constexpr std::uint64_t kind_word = std::uint64_t{{1}} << {WORD - 64};  ///< \\w

/// Sequences of letters that sound text hardly has; empty sets are beyond the end of a sequence.
inline constexpr int bad_length = {length};
OCELLUS_TABLE kind_set bad_sequences[{len(rows)}][bad_length] = {{
{chr(10).join(rows)}
}};

// Bytes of UTF-8 that a letter may stand for when the text was decoded with the wrong table.
inline constexpr std::uint8_t utf8_first_of_2 = 1;
inline constexpr std::uint8_t utf8_first_of_3 = 2;
inline constexpr std::uint8_t utf8_first_of_4 = 4;
inline constexpr std::uint8_t utf8_continuation = 8;
inline constexpr std::uint8_t utf8_continuation_strict = 16;

inline constexpr int charmap_count = {len(ENCODINGS) - 1};  ///< {', '.join(ENCODINGS[1:4])},
// {', '.join(ENCODINGS[4:])};
// Latin-1 needs no table
inline constexpr int charmap_sloppy_count = {sloppy};  ///< the first ones: byte 0x1A is U+FFFD
inline constexpr int charmap_macroman = {ENCODINGS.index('macroman') - 1};

struct mojibake_letter {{
  char16_t letter;
  std::uint8_t kind;
  std::uint8_t utf8;                  ///< utf8_*
  std::uint8_t bytes[charmap_count];  ///< its byte in each table, 0: none
}};

/// Ascending.
OCELLUS_TABLE mojibake_letter mojibake_letters[{len(letters)}] = {{
{letter_rows}
}};

}}  // namespace cleaning::tables
OCELLUS_END
"""
    assert unassigned == [0x81, 0x8D, 0x8F, 0x90, 0x9D], "mojibake.hpp knows these"
    with open(os.path.join(OUT, "mojibake_tables.hpp"), "w", encoding="ascii") as f:
        f.write(text)
    print(len(rules), "rules,", len(groups), "kinds,", len(letters), "letters,", size, "bytes")


if __name__ == "__main__":
    if ftfy.__version__ != "6.3.1" or unicodedata.unidata_version != "14.0.0":
        sys.exit("needs ftfy 6.3.1 and a Python with Unicode 14 (3.11)")
    main()
