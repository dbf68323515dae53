#!/usr/bin/env python3
"""Checks the form of the repository's text files: ASCII sources of at most 120 columns under include/ and kernels/
and 150 elsewhere (clang-format aims at 110), no tabs or trailing blanks, a newline at the end, and no path or host of
the machine it was written on.

Usage: text.py [ROOT]; prints each line that falls short; exit 0 where there is none.
"""
import pathlib
import re
import subprocess
import sys

ROOT = pathlib.Path(sys.argv[1] if len(sys.argv) > 1 else pathlib.Path(__file__).parents[2])
SOURCES = {".hpp", ".cpp", ".inl", ".def", ".h", ".py", ".sh", ".cmake", ".txt", ".md", ".json", ".ld", ".c", ".S", ".html", ".js", ".mjs"}
FORMATTED = {".hpp", ".cpp", ".inl", ".h"}
# Where ASCII would hide what the file is about: prose, and strings in many scripts as test data.
UNICODE_WELCOME = re.compile(r"\.md$|\.json$|\.html$|\.svg$|^examples/demo/|^bench/results/|^tests/goldens/|LICENSE")
# Written in pieces, so that this file does not find itself. Package hosts, home folders, the folders of one machine.
MACHINE = re.compile("|".join(["/wo" + r"rk/(?:main|shared|\.)", "/ho" + r"me/\w", "/ro" + r"ot/\w", "/tmp/" + r"b-\w",
                               "deb" + r"\.debian\.org", "pyp" + r"i\.org", "files\\.python" + "hosted", "registry\\.np" + r"mjs",
                               "proxy\\.gol" + "ang", "ghcr" + r"\.io", "cra" + r"tes\.io"]))

broken = []
listed = subprocess.run(["git", "-C", str(ROOT), "ls-files", "-z"], capture_output=True, check=True).stdout
for name in filter(None, listed.decode().split("\0")):
    path = ROOT / name
    if path.suffix not in SOURCES and name not in (".ci/run", "LICENSE") or not path.is_file():
        continue
    data = path.read_bytes()
    if data and not data.endswith(b"\n"):
        broken.append(f"{name}: no newline at the end")
    if b"\r" in data and path.suffix != ".txt":
        broken.append(f"{name}: carriage returns")
    try:
        text = data.decode("utf-8" if UNICODE_WELCOME.search(name) else "ascii")
    except UnicodeDecodeError as error:
        broken.append(f"{name}:{data[:error.start].count(10) + 1}: not {error.encoding}")
        text = data.decode("utf-8", "replace")
    for number, line in enumerate(text.split("\n"), 1):
        if path.suffix in FORMATTED and len(line) > (120 if name.startswith(("include/", "kernels/")) else 150):
            broken.append(f"{name}:{number}: {len(line)} columns")
        if path.suffix in FORMATTED and (line != line.rstrip() or "\t" in line):
            broken.append(f"{name}:{number}: a tab or a trailing blank")
        if MACHINE.search(line):
            broken.append(f"{name}:{number}: names a path or host of one machine: {line.strip()[:80]}")
print("\n".join(broken) if broken else "all text is in form")
sys.exit(1 if broken else 0)
