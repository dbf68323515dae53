#!/usr/bin/env python3
"""Writes include/ocellus/text/fast_tables.hpp: the letter classes of transformers' fast tokenizers.

Usage: python3 tools/unicode/make_fast_tables.py    (from the top of the repository; needs tokenizers and regex;
then clang-format -i the header)

Their classes come from several versions of Unicode, older and newer than that of unicode_tables.hpp, so BERT's are asked
of the tokenizers library, one code point at a time. Grapheme clusters are Unicode's (annex 29), from the regex package,
without the marks that the library does not know yet. So is NFC's order of marks: unicode_tables.hpp's, without those.
"""
import os
import struct
import unicodedata

import regex
import tokenizers
from tokenizers import normalizers, pre_tokenizers

from make_tables import OUT, SURROGATES, TOP, array

POINTS = [c for c in range(TOP) if c not in SURROGATES]


def runs(points):
    """Ascending code points as [first, last] of each run."""
    out = []
    for c in points:
        if out and out[-1][1] == c - 1:
            out[-1][1] = c
        else:
            out.append([c, c])
    return out


def bert(**steps):
    off = dict(clean_text=False, handle_chinese_chars=False, strip_accents=False, lowercase=False)
    return normalizers.BertNormalizer(**{**off, **steps}).normalize_str


def bert_classes():
    clean, accents, cjk = bert(clean_text=True), bert(strip_accents=True), bert(handle_chinese_chars=True)
    words = pre_tokenizers.BertPreTokenizer().pre_tokenize_str
    cut = {c: [w for w, _ in words("a" + chr(c) + "b")] for c in POINTS}
    return {
        "dropped": [c for c in POINTS if clean(chr(c)) == ""],
        "marks": [c for c in POINTS if accents(chr(c)) == ""],
        "punctuation": [c for c in POINTS if cut[c] == ["a", chr(c), "b"]],
        "ideographs": [c for c in POINTS if cjk(chr(c)) != chr(c)],
    }


def late_marks():
    """Marks of this Python's Unicode that the library's NFC does not bring into order."""
    nfc = normalizers.NFC().normalize_str

    def moves(c):
        pair = chr(c) + "\u0332" if unicodedata.combining(chr(c)) > 220 else "\u0301" + chr(c)  # of falling classes
        return nfc("0" + pair) != "0" + pair

    assert unicodedata.unidata_version == "14.0.0", "unicode_tables.hpp has Unicode 14"
    return [c for c in POINTS if unicodedata.combining(chr(c)) != 0 and not moves(c)]


def ranges(name, points, doc):
    flat = [x for run in runs(points) for x in run]
    return array("std::uint32_t", name, flat, "0x{:x}", doc)


def joins_an_a():
    """A normaliser that makes "X" of a short cluster that begins with "a": a double array of that one key."""
    units = [0] * 256
    units[ord("a")] = ord("a") | 1 << 8 | 0x80 << 10
    units[ord("a") ^ 0x80] = 1 << 31
    trie = struct.pack("<256I", *units)
    normalize = normalizers.Precompiled(struct.pack("<I", len(trie)) + trie + b"X\0").normalize_str
    return lambda c: normalize("a" + chr(c)) == "X"


def grapheme_rows():
    joins = joins_an_a()
    names = ["Control", "Extend", "SpacingMark", "Prepend"]
    out = []
    for number, name in enumerate(names, 1):
        matches = regex.compile(rf"\p{{GCB={name}}}").fullmatch
        out += [(a, b, number) for a, b in runs([c for c in POINTS 
                                                if matches(chr(c)) and c != 0x200D and (number in (1, 4) or joins(c))])]
    pictures = regex.compile(r"\p{Extended_Pictographic}").fullmatch
    out += [(a, b, 5) for a, b in runs([c for c in POINTS if pictures(chr(c))])]
    return sorted(out)


def header():
    bert_sets, graphemes = bert_classes(), grapheme_rows()
    assert all(a[1] < b[0] for a, b in zip(graphemes, graphemes[1:])), "classes overlap"
    firsts = [a | kind << 24 for a, _, kind in graphemes]
    return f"""// Made by tools/unicode/make_fast_tables.py from tokenizers {tokenizers.__version__} and regex {regex.__version__}; do not edit.
// Functions that read them are in wordpiece.hpp and graphemes.hpp.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

OCELLUS_BEGIN
namespace unicode::tables {{

// First and last code point of each run, ascending.
{ranges("bert_dropped", bert_sets["dropped"], "What BERT's normaliser removes as control characters.")}
{ranges("bert_marks", bert_sets["marks"], "What it removes as accents.")}
{ranges("bert_punctuation", bert_sets["punctuation"], "What BERT cuts out as a word of its own.")}
{ranges("bert_ideographs", bert_sets["ideographs"], "What it puts between blanks: ideographs.")}
{ranges("late_marks", late_marks(), "Combining marks that the tokenizers library's NFC takes for letters.")}
{array("std::uint32_t", "grapheme_firsts", firsts, "0x{:x}", "First of each run of a grapheme class; the class is in the upper 8 bits.")}
{array("std::uint32_t", "grapheme_lasts", [b for _, b, _ in graphemes], "0x{:x}", "Last of each run.")}
}}  // namespace unicode::tables
OCELLUS_END
"""


if __name__ == "__main__":
    with open(os.path.join(OUT, "fast_tables.hpp"), "w", encoding="ascii") as out:
        out.write(header())
