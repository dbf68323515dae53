#!/usr/bin/env python3
"""Checks the rules of the library's headers that no compiler checks.

Arrows: which folder may include which (CONTRIBUTING.md shows the picture).
Regions: what may stand between OCELLUS_TARGET_BEGIN and OCELLUS_TARGET_END; each rule is there because a compiler
silently drops or spreads the target otherwise.
Quiet: the library never prints, throws, aborts or reads the environment.

Usage: layers.py [ROOT]; prints each line that breaks a rule; exit 0 where there is none.
"""
import pathlib
import re
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
KERNELS = {"generic", "x86", "arm", "riscv", "wasm", "portable"}

# Folder (or single header) -> what it may include. `config.hpp` is open to all; a header's own rule wins over its folder's.
ARROWS = {
    "config.hpp": set(),
    "core": {"core"},
    "ops": {"ops", "core"},
    # Towers read the plain data of a configuration, and fence their own arithmetic by the strict-FP region.
    "nn": {"nn", "ops", "core", "models/config.hpp", "isa/target.hpp"},
    "models/config.hpp": {"ops", "core", "image/preprocess_config.hpp"},
    "models": {"models", "nn", "ops", "core", "format", "text", "image", "isa"},
    "format": {"format", "core", "ops/pack.hpp"},  # the file stores panels as the kernels read them
    "text": {"text", "core"},
    "image": {"image", "ops", "core", "isa"},
    "isa": {"isa", "core"},
    "isa/dispatch.hpp": {"isa", "ops", "core", "list.def"} | KERNELS,
    "micro.hpp": {"models", "nn", "ops", "core", "format", "isa/isa.hpp", "isa/policy.hpp", "isa/target.hpp"},
    "list.def": set(),
} | {folder: KERNELS | {"ops", "core", "isa/target.hpp", "isa/isa.hpp"} for folder in KERNELS}

# Leaves: included by the user only.
LEAVES = {"image/load.hpp", "image/save.hpp", "micro.hpp"}

# Other people's headers: in these files only.
THIRD_PARTY = {"stb/": {"image/png.hpp", "image/save.hpp"}, "Eigen/": set(), "hwy/": {"portable/highway.hpp"}, "xsimd/": set()}

LOUD = re.compile(r"\b(?:std::)?(?:v?f?printf|puts|putchar|perror|abort|getenv|exit|terminate)\s*\(|\bstd::c(?:out|err)\b|\bthrow\b"
                  r"|^\s*#\s*include\s*<iostream>")
VECTOR = r"(?:__m(?:128|256|512)[id]?h?|__tile\d*\w*|v?(?:u?int|float|bfloat)\d+x\d+(?:x\d)?_t|vec)"
STATIC_VECTOR = re.compile(r"\b(?:static|inline|constexpr)\s+(?:(?:static|inline|const|constexpr)\s+)*" + VECTOR + r"\s+\w+\s*[={;]")

broken = []


def complain(path, number, rule):
    broken.append(f"{path.relative_to(ROOT)}:{number}: {rule}")


def code_lines(path):
    """The file's lines without comments and string contents, same numbering."""
    text = path.read_text(encoding="utf-8")
    text = re.sub(r"/\*.*?\*/", lambda m: re.sub(r"[^\n]", " ", m.group()), text, flags=re.S)
    for line in text.split("\n"):
        if not re.match(r"\s*#\s*include", line) and "OCELLUS_TARGET" not in line:
            line = re.sub(r'"(?:[^"\\]|\\.)*"', '""', line)
        yield line.split("//")[0]


def permitted(owner, target):
    folder = target.split("/")[0]
    if target == "config.hpp":
        return owner != "config.hpp"
    rules = ARROWS.get(owner) if owner in ARROWS else ARROWS.get(owner.split("/")[0])
    return rules is not None and (folder in rules or target in rules)


def check(path, owner):
    folder = owner.split("/")[0]
    if owner not in ARROWS and folder not in ARROWS:
        complain(path, 1, f"the folder {folder}/ is not in the map (tests/hygiene/layers.py)")
    in_kernel = folder in KERNELS
    region = 1 if path.suffix == ".inl" else None  # an .inl file is the inside of a region
    for number, line in enumerate(code_lines(path), 1):
        if LOUD.search(line):
            complain(path, number, f"the library never prints, throws, aborts or reads the environment: {line.strip()}")
        include = re.match(r'\s*#\s*include\s*[<"]([^>"]+)[>"]', line)
        if include:
            name = include.group(1)
            if name.startswith("ocellus/"):
                target = name.removeprefix("ocellus/")
                if not permitted(owner, target):
                    complain(path, number, f"{folder} may not include {target}")
                if target in LEAVES:
                    complain(path, number, f"{target} is for the user to include")
                if not any((ROOT / base / name).exists() for base in ("include", "kernels")):
                    complain(path, number, f"{name} does not exist")
            else:
                for prefix, homes in THIRD_PARTY.items():
                    if name.startswith(prefix) and owner not in homes:
                        complain(path, number, f"<{name}> belongs to {', '.join(sorted(homes)) or 'tests and benches'} only")
                if '"' in line.split("include", 1)[1]:
                    complain(path, number, 'includes are spelled <ocellus/...>, not "..."')
            if in_kernel and re.fullmatch(r"thread|mutex|atomic|future|condition_variable|vector|string|memory", name):
                complain(path, number, f"kernels never see threads or allocate: <{name}>")
            if region is not None and not name.endswith(".inl"):
                complain(path, number, "an include inside a region (rule 1)")
        if re.match(r"\s*OCELLUS_TARGET_BEGIN\b", line):
            if region is not None:
                complain(path, number, "a region inside a region")
            region = number
        elif re.match(r"\s*OCELLUS_TARGET_END\b", line):
            region = None
        elif region is not None:
            if re.search(r"\bfriend\b", line):
                complain(path, number, "a friend in a region: gcc drops the target (rule 2)")
            if STATIC_VECTOR.search(line):
                complain(path, number, "a static vector constant in a region: set it inside the function (rule 6)")
    if region is not None and path.suffix != ".inl":
        complain(path, region, "a region without OCELLUS_TARGET_END")


def main():
    files = [(p, str(p.relative_to(ROOT / base / "ocellus")))
             for base in ("include", "kernels") for p in sorted((ROOT / base / "ocellus").rglob("*"))
             if p.suffix in (".hpp", ".inl", ".def")]
    for path, owner in files:
        check(path, owner)
        text = path.read_text(encoding="utf-8")
        if path.suffix == ".hpp" and "#pragma once" not in text:
            complain(path, 1, "no #pragma once")
    print("\n".join(broken) if broken else f"{len(files)} files keep to the layers, the regions and silence")
    return 1 if broken or not files else 0


sys.exit(main())
