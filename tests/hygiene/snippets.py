#!/usr/bin/env python3
"""Builds what the documentation shows, so that no example rots.

From README.md and CONTRIBUTING.md: each ```cpp block with `int main` is compiled and linked as it stands.
From the top comment of each header under include/: each block of code that is indented by three or more blanks is
compiled inside a function, after that header; names like `model` and `photo` are those of PRELUDE.

Usage: snippets.py [COMPILER]; prints what does not build; exit 0 where all does.
"""
import concurrent.futures
import os
import pathlib
import re
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).parents[2]
COMPILER = sys.argv[1] if len(sys.argv) > 1 else "g++"
FLAGS = ["-std=c++20", "-Wall", "-Wextra", "-Wno-unused-variable", "-Wno-unused-but-set-variable", "-Werror",
         f"-I{ROOT}/include", f"-I{ROOT}/kernels", "-isystem", "/usr/include/eigen3"]
# What a fragment may take for granted. It is compiled, never linked or run; `anything` lets it return an error.
PRELUDE = """#include <ocellus/image/image.hpp>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>
struct anything { anything() = default; template <class T> anything(const T&) {} };
extern ocellus::image& photo;
extern std::span<const std::byte> bytes;
extern const std::uint8_t* camera_pixels;
extern float* pixel_values;
"""
MODEL = """#include <ocellus/core/thread_pool.hpp>
#include <ocellus/models/model.hpp>
#include <cstdio>
extern ocellus::model& model;
"""
KERNELS = """#include <ocellus/ops/resample.hpp>
extern ocellus::resample_kernels& kernels;
"""


def from_markdown(path):
    for match in re.finditer(r"^```cpp\n(.*?)^```", path.read_text(encoding="utf-8"), re.S | re.M):
        if "int main" in match.group(1):
            line = path.read_text(encoding="utf-8")[:match.start()].count("\n") + 1
            yield f"{path.name}:{line}", match.group(1)


def looks_like_code(block):
    if re.match(r"\s*(?:\d+\.|[-*|]) ", block[0]):
        return False  # a list or a table
    lines = [line for line in block if line.strip()]
    ends = [line for line in lines if re.search(r"[;{}]\s*(//.*)?$", line)]
    return 2 * len(ends) >= len(lines)


def from_header(path):
    lines = path.read_text(encoding="utf-8").split("\n")
    comment = lines[:next((i for i, line in enumerate(lines) if not line.startswith("//")), len(lines))]
    block, start = [], 0
    for number, line in enumerate([*comment, ""], 1):
        if line.startswith("//   "):
            start = start if block else number
            block.append(line[5:])
        elif line == "//" and block:
            block.append("")
        else:
            if block and looks_like_code(block):
                yield f"{path.relative_to(ROOT)}:{start}", as_program(path, "\n".join(block))
            block = []


def as_program(path, code):
    if "int main" in code:
        return code
    includes = "".join(line + "\n" for line in code.split("\n") if line.lstrip().startswith("#include"))
    body = "\n".join(line for line in code.split("\n") if not line.lstrip().startswith("#include"))
    header = path.relative_to(ROOT / "include")
    at_file_scope = re.search(r"^(?:template|struct|class|namespace|static_assert|using namespace)\b", body, re.M)
    body = body if at_file_scope else f"anything example();\nanything example() {{\n{body}\nreturn {{}};\n}}\n"
    given = PRELUDE + MODEL * bool(re.search(r"\bmodel\b", body)) + KERNELS * bool(re.search(r"\bkernels\)", body))
    return f"{given}#include <{header}>\n{includes}{body}\nint main() {{}}\n"


def build(snippet):
    where, code = snippet
    with tempfile.TemporaryDirectory() as scratch:
        source = pathlib.Path(scratch, "snippet.cpp")
        source.write_text(code, encoding="utf-8")
        whole = where.split(":")[0].endswith(".md")
        # a fragment may show a call without what is done with its status, a program may not
        mode = ["-o", str(source.with_suffix(""))] if whole else ["-fsyntax-only", "-Wno-unused-result"]
        done = subprocess.run([COMPILER, *FLAGS, str(source), *mode], capture_output=True, text=True)
    return f"{where} does not build:\n{done.stderr}" if done.returncode else ""


snippets = [s for name in ("README.md", "CONTRIBUTING.md") if (ROOT / name).exists() for s in from_markdown(ROOT / name)]
snippets += [s for path in sorted((ROOT / "include").rglob("*.hpp")) for s in from_header(path)]
with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
    short = [answer for answer in pool.map(build, snippets) if answer]
print("\n".join(short) if short else f"{len(snippets)} examples of the documentation build by {COMPILER}")
sys.exit(1 if short else 0)
