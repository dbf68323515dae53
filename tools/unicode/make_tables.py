#!/usr/bin/env python3
"""Writes unicode_tables.hpp and html_entities.hpp in include/ocellus/text from Python's own data.

Usage: python3 tools/unicode/make_tables.py    (from the top of the repository; needs Python 3.11, Unicode 14)

Why this version: the reference ids were made with it, and letter classes, case and normalisation differ between
versions of Unicode. Everything is asked of the interpreter (unicodedata, str methods, html.entities) rather than read
from Unicode's files, so that the tables say what Python does, Python's context rule for the final sigma included.
"""
import html
import html.entities
import os
import sys
import unicodedata

TOP = 0x110000
SURROGATES = range(0xD800, 0xE000)
OUT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..", "include", "ocellus", "text")

LETTER, NUMBER, SPACE, PY_SPACE, CASED, IGNORABLE, NFC_ACTIVE, DECIMAL = (1 << i for i in range(8))


def is_decomposable(c):
    """Canonical decomposition of one step, as a list of one or two code points, or None. Hangul is algorithmic."""
    d = unicodedata.decomposition(chr(c))
    if not d or d.startswith("<") or 0xAC00 <= c < 0xD7A4:
        return None
    return [int(x, 16) for x in d.split()]


def white_space(c):
    """The property White_Space: what regex's and Oniguruma's \\s match."""
    return c in (9, 10, 11, 12, 13, 0x20, 0x85) or unicodedata.category(chr(c)) in ("Zs", "Zl", "Zp")


def build_records():
    decompositions = {c: d for c in range(TOP) if c not in SURROGATES and (d := is_decomposable(c))}
    seconds = {d[1] for c, d in decompositions.items() if len(d) == 2}
    records, table = {}, []
    for c in range(TOP):
        ch = chr(c)
        cat = unicodedata.category(ch)
        flags = LETTER * (cat[0] == "L") | NUMBER * (cat[0] == "N") | SPACE * white_space(c) | PY_SPACE * ch.isspace()
        delta, ccc = 0, 0
        if c not in SURROGATES:
            # str.lower() of a sigma shows both properties of its neighbour
            before = (ch + "\u03a3").lower().endswith("\u03c2")
            between = ("A" + ch + "\u03a3").lower().endswith("\u03c2")
            flags |= CASED * before | IGNORABLE * (between and not before)
            low = ch.lower()
            if len(low) == 1:
                delta = ord(low) - c
            else:
                assert c == 0x130, "only U+0130 has a lower case of two letters"
            ccc = unicodedata.combining(ch)
            jamo = 0x1161 <= c < 0x1176 or 0x11A8 <= c < 0x11C3
            active = ccc or c in seconds or jamo or unicodedata.normalize("NFC", ch) != ch
            flags |= NFC_ACTIVE * bool(active) | DECIMAL * (cat == "Nd")
        table.append(records.setdefault((flags, ccc, delta), len(records)))
    assert len(records) <= 256, len(records)
    return list(records), table, decompositions


def two_stage(table, block):
    blocks, index = {}, []
    for i in range(0, len(table), block):
        index.append(blocks.setdefault(tuple(table[i:i + block]), len(blocks)))
    return index, [x for b in blocks for x in b]


def rows(values, fmt="{}", width=110):
    out, line = [], " "
    for v in values:
        s = fmt.format(v) + ","
        if len(line) + 1 + len(s) > width:
            out.append(line)
            line = " "
        line += " " + s
    out.append(line)
    return "\n".join(out)


def array(kind, name, values, fmt="{}", doc=""):
    values = list(values)
    head = f"/// {doc}\n" if doc else ""
    return f"{head}OCELLUS_TABLE {kind} {name}[{len(values)}] = {{\n{rows(values, fmt)}\n}};\n"


def unicode_header():
    records, table, decompositions = build_records()
    best = None
    for b1 in (16, 32, 64):
        index, leaves = two_stage(table, b1)
        for b2 in (16, 32, 64, 128):
            top, middle = two_stage(index, b2)
            wide = 2 if max(middle) > 255 else 1
            size = len(leaves) + len(middle) * wide + len(top)
            if max(top) < 256 and (best is None or size < best[0]):
                best = (size, b1, b2, top, middle, leaves, wide)
    size, b1, b2, top, middle, leaves, wide = best

    keys = sorted(decompositions)
    compose = sorted((tuple(d), i) for i, c in enumerate(keys)
                     if len(d := decompositions[c]) == 2 and unicodedata.normalize("NFC", chr(d[0]) + chr(d[1])) == chr(c))
    firsts = [decompositions[c][0] for c in keys]
    seconds = [decompositions[c][1] if len(decompositions[c]) == 2 else 0 for c in keys]
    planes = [c >> 16 for c in keys]
    assert max(planes) == 2 and all(s >> 16 == (p == 1 and s != 0) for p, s in zip(planes, seconds))
    far_firsts = [i for i, (p, f) in enumerate(zip(planes, firsts)) if f >> 16 != (p == 1)]
    assert all(firsts[i] >> 16 == 2 for i in far_firsts)

    width = {c: w for c in range(0xFF01, 0xFFF0) if (w := unicodedata.normalize("NFKC", chr(c))) != chr(c)}
    assert width.pop(0xFFE3) == " \u0304", "the one form that becomes two letters; unicode.hpp knows it"
    assert all(len(w) == 1 and ord(w) < 0x10000 for w in width.values())
    size += len(records) * 8 + len(keys) * 6 + len(far_firsts) * 2 + len(compose) * 2 + (0xFFF0 - 0xFF01) * 2

    record_rows = ",\n".join(f"    {{0x{f:02x}, {ccc}, {delta}}}" for f, ccc, delta in records)
    return f"""// Made by tools/unicode/make_tables.py from Python {sys.version.split()[0]}, Unicode {unicodedata.unidata_version}; do not edit.
// {size} bytes of tables. Functions that read them are in unicode.hpp.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

OCELLUS_BEGIN
namespace unicode::tables {{

inline constexpr std::uint8_t letter = {LETTER};        ///< \\p{{L}}
inline constexpr std::uint8_t number = {NUMBER};        ///< \\p{{N}}
inline constexpr std::uint8_t space = {SPACE};         ///< White_Space
inline constexpr std::uint8_t py_space = {PY_SPACE};      ///< Python's str.isspace: White_Space and U+001C..U+001F
inline constexpr std::uint8_t cased = {CASED};        ///< decides the final sigma
inline constexpr std::uint8_t ignorable = {IGNORABLE};    ///< skipped when the final sigma is decided
inline constexpr std::uint8_t nfc_active = {NFC_ACTIVE};   ///< may change under NFC or change a neighbour
inline constexpr std::uint8_t decimal = {DECIMAL};     ///< \\p{{Nd}}: Python's \\d

struct record {{
  std::uint8_t flags;
  std::uint8_t combining_class;
  std::int32_t lower_delta;  ///< lower-case letter minus this one; U+0130 is treated apart
}};

OCELLUS_TABLE record records[{len(records)}] = {{
{record_rows},
}};

// Three stages: leaves[middle[top[c / {b1 * b2}] * {b2} + c / {b1} % {b2}] * {b1} + c % {b1}] is an index into records.
inline constexpr unsigned leaf_bits = {b1.bit_length() - 1};
inline constexpr unsigned middle_bits = {b2.bit_length() - 1};
{array("std::uint8_t", "top", top)}
{array("std::uint16_t" if wide == 2 else "std::uint8_t", "middle", middle)}
{array("std::uint8_t", "leaves", leaves)}
{array("std::uint16_t", "decomposed_low", [c & 0xFFFF for c in keys], "0x{:x}", "Code points with a canonical decomposition, ascending, without their planes; Hangul syllables are computed.")}
inline constexpr int decomposed_plane1 = {planes.index(1)}, decomposed_plane2 = {planes.index(2)};  ///< the first ones of planes 1 and 2
{array("std::uint16_t", "first_low", [c & 0xFFFF for c in firsts], "0x{:x}", "First code point of each decomposition (one step), without its plane: 1 if the whole is of plane 1, else 0.")}
{array("std::uint16_t", "far_firsts", far_firsts, "{}", "But 2 for these.")}
{array("std::uint16_t", "second_low", [c & 0xFFFF for c in seconds], "0x{:x}", "Second code point, 0 if there is none, without its plane: 1 if the whole is of plane 1, else 0.")}
{array("std::uint16_t", "compositions", [i for _, i in compose], "{}", "Indices of the decompositions that compose again, ordered by (first, second).")}
{array("std::uint16_t", "widths", [ord(width.get(c, chr(c))) for c in range(0xFF01, 0xFFF0)], "0x{:x}", "NFKC of U+FF01..U+FFEF, the half-width and full-width forms.")}
}}  // namespace unicode::tables
OCELLUS_END
"""


def c_string(names, width=106):
    text = "".join(names)
    assert text.isascii() and text.isalnum()
    return "\n".join(f'    "{text[i:i + width - 4]}"' for i in range(0, len(text), width - 4))


def html_header():
    """One entry per name without its semicolon; a flag says whether the bare name is known too."""
    known = html.entities.html5
    names = sorted({n.rstrip(";") for n in known})
    assert all(n + ";" in known for n in names) and all(len(known[n + ";"]) <= 2 for n in names)
    offsets, first, second, flags, upper = [0], [], [], [], []
    for i, n in enumerate(names):
        value = known[n + ";"]
        offsets.append(offsets[-1] + len(n))
        first.append(ord(value[0]))
        second.append(ord(value[1]) if len(value) == 2 else 0)
        if n in known:
            assert known[n] == value
        # ftfy also reads the all-capitals form of a lower-case name, where HTML does not know it
        shout = n == n.lower() and html.unescape("&" + n.upper() + ";") == "&" + n.upper() + ";"
        assert ord(value[0]) < 0x20000
        flags.append((n in known) | shout << 1 | (ord(value[0]) >> 16) << 2)
        if shout and value.upper() != value:
            assert len(value.upper()) <= 3
            upper.append((i, [ord(x) for x in value.upper()] + [0] * (3 - len(value.upper()))))
    assert offsets[-1] < 65536 and max(second) < 65536
    upper_rows = ",\n".join(f"    {{{i}, {{0x{u[0]:x}, 0x{u[1]:x}, 0x{u[2]:x}}}}}" for i, u in upper)
    invalid = [html._invalid_charrefs.get(c, c) for c in range(0x80, 0xA0)]
    invalid = [ord(x) if isinstance(x, str) else x for x in invalid]
    return f"""// Made by tools/unicode/make_tables.py from html.entities of Python {sys.version.split()[0]}; do not edit.
// The {len(names)} named character references of HTML 5, ordered by name. Functions that read them are in clean.hpp.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

OCELLUS_BEGIN
namespace cleaning::tables {{

inline constexpr int entity_count = {len(names)};
inline constexpr int longest_entity = {max(map(len, names))};
inline constexpr std::uint8_t entity_bare = 1;      ///< known without a semicolon too
inline constexpr std::uint8_t entity_capitals = 2;  ///< ftfy reads it in capitals too
inline constexpr std::uint8_t entity_plane1 = 4;    ///< its first code point is 0x10000 more than entity_first

/// All names end to end, without "&" and ";".
OCELLUS_TABLE char entity_names[] =
{c_string(names)};

{array("std::uint16_t", "entity_offsets", offsets)}
{array("std::uint16_t", "entity_first", [c & 0xFFFF for c in first], "0x{:x}")}
{array("std::uint16_t", "entity_second", second, "0x{:x}", "Second code point, 0 if there is none.")}
{array("std::uint8_t", "entity_flags", flags)}
struct capital_entity {{
  std::uint16_t entity;
  std::uint16_t value[3];
}};

/// Where the all-capitals form of a name stands for another text than the name: its upper case.
OCELLUS_TABLE capital_entity capital_entities[{len(upper)}] = {{
{upper_rows},
}};

{array("std::uint16_t", "c1_references", invalid, "0x{:x}", "What &#128; .. &#159; stand for: Windows-1252.")}
}}  // namespace cleaning::tables
OCELLUS_END
"""


def write(name, text):
    with open(os.path.join(OUT, name), "w", encoding="ascii") as f:
        f.write(text)


if __name__ == "__main__":
    if unicodedata.unidata_version != "14.0.0":
        sys.exit("needs a Python with Unicode 14 (3.11)")
    write("unicode_tables.hpp", unicode_header())
    write("html_entities.hpp", html_header())
