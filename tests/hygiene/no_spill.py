#!/usr/bin/env python3
"""Proves from the object code that no tile keeps accumulators in memory: the innermost loop of each tile_* function of
each x86 kernel set stores no vector and adds to none in memory, by each compiler there is. A spilled tile runs at 40 %
of the peak and gives the right answer, so nothing else tells.
LET_BE below names what may: it is told, not hidden.
Usage: no_spill.py [--object FILE] [COMPILER...]    (nothing given: g++, clang++, clang++-19, aarch64-linux-gnu-g++, those
that are installed; with FILE, the target ocellus-compiled by g++ -O2, without the first; needs objdump)
"""
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "..")
SOURCE = "#define OCELLUS_DEFINE_KERNELS\n#include <ocellus/isa/dispatch.hpp>\n"
SET = re.compile(r"make_table<.*kernels::(\w+)>\(\)$")  # one function of each set that the compiler has
FUNCTION = re.compile(r"^([0-9a-f]+) <(.*)>:$")
INSTRUCTION = re.compile(r"^\s*([0-9a-f]+):\s+(?:\{\w+\}\s+)?(\S+)\s*(.*)$")
TILE = re.compile(r"kernels::(?:(sse41|avx\w+|fp16)::(tile_\w+<.*?>)|(amx)::(gemm_by_tiles|products_\w+)|"
                  r"(neon|dotprod|i8mm|sve)_tiles::(tile_\w+<.*?>))\(")
MULTIPLY = re.compile(r"^(v?(fmadd\w+p[sh]|mulp[sd]|pmaddwd|pdpbusds?|dpbf16ps)|tdp\w+|fmla|sdot|smlal2|usmmla|bfmmla)$")
STORE = re.compile(r"^%[xyz]mm\d+(, ?\$\w+)?, ?-?(0x[0-9a-f]+)?\([^)]*\)")
RELOAD = re.compile(r"-?(0x[0-9a-f]+)?\(%rsp\)")  # an operand or a sum that lives on the stack
ON_STACK = re.compile(r"^[qz]\d+,.*\[sp")  # AArch64 has no other operands in memory

LET_BE = {
    ("sse41", "tile_float"): "emulates fused multiply-add in double, with too few registers for that",
    ("sse41", "tile_s8<2, 1>"): "clang 19 keeps one of eight sums on the stack, 2 of 76 instructions; gcc and clang 14 none",
    ("avx512", "tile_float<8, 2, .*bf16>"): "clang 19 likewise, for CPUs without a dot product of bf16",
}


def functions(program):
    with open(program, "rb") as f:
        arm = f.read(20)[18] == 183  # e_machine
    text = subprocess.run(["aarch64-linux-gnu-objdump" if arm else "objdump", "-dC", "--no-show-raw-insn", program], capture_output=True, text=True, check=True)
    name, body = None, []
    for line in text.stdout.splitlines():
        start = FUNCTION.match(line)
        if start:
            if name:
                yield name, body
            name, body = start.group(2), []
        elif name and (found := INSTRUCTION.match(line)):
            body.append((int(found.group(1), 16), found.group(2), found.group(3)))
    if name:
        yield name, body


def innermost_loops(body):
    """Bodies of conditional backward jumps with products, that hold no other of them; an unconditional one leads back from
    a cold block."""
    products = [address for address, operation, _ in body if MULTIPLY.match(operation)]
    spans = set()
    for address, operation, operands in body:
        jumps = re.match(r"j(?!mp)|b\.|cbn?z|tbn?z", operation)
        if jumps and (target := re.match(r"(?:[wx]\d+, )?(?:#\d+, )?([0-9a-f]+)\b", operands)):
            first = int(target.group(1), 16)
            if body[0][0] <= first <= address and any(first <= p <= address for p in products):
                spans.add((first, address))
    for first, last in sorted(spans):
        if not any((a, b) != (first, last) and first <= a and b <= last for a, b in spans):
            yield [i for i in body if first <= i[0] <= last]


def spills(loop):
    """Instructions of a tile's loop that write a vector to memory, or calculate with one on the stack. Of AMX that is what
    runs beside its products: sums are in registers that the source names."""
    return [i for i in loop if STORE.match(i[2]) or ON_STACK.match(i[2])
            or (re.search(r"%[xyz]mm", i[2]) and RELOAD.search(i[2]))]


def compiled(compiler, folder):
    """The object with all kernels, by this compiler."""
    source, program = os.path.join(folder, "kernels.cpp"), os.path.join(folder, "kernels.o")
    with open(source, "w") as f:
        f.write(SOURCE)
    subprocess.run([compiler, "-std=c++20", "-O2", "-I" + os.path.join(ROOT, "include"), "-I" + os.path.join(ROOT, "kernels"),
                    "-c", source, "-o", program], check=True)
    return program


def check(program):
    """Sets and tiles seen, those that spill and may, and what is wrong with the others."""
    expected, tiles, let_be, bad, own = set(), set(), set(), [], set()
    for name, body in functions(program):
        if found := SET.search(name):
            expected.add(found.group(1))
        tile = TILE.search(name)
        if not tile or not body:
            continue
        tile = tuple(filter(None, tile.groups()))  # the set, and its tile
        own.add(tile[0])
        for loop in innermost_loops(body):
            tiles.add(tile)
            found = spills(loop)
            if found and any(tile[0] == s and re.match(t, tile[1]) for s, t in LET_BE):
                let_be.add(tile)
            elif found:
                address, operation, operands = found[0]
                bad.append(f"{'::'.join(tile)}: {len(found)} of {len(loop)} instructions, the first "
                           f"{operation} {operands} at {address:x}")
    # A set without a tile in the object is a hole in the proof, and so is a tile without a loop.
    bad += [] if expected else ["no set found"]
    bad += [f"{name}: no tile in the object code" for name in sorted(expected - {"scalar"} - own)]
    bad += [f"{name}: no loop found in any tile" for name in sorted(own - {s for s, _ in tiles})]
    return own, tiles, let_be, bad


def main():
    if not shutil.which("objdump"):
        print("skipped: no objdump")
        return 0
    given = sys.argv[1:]
    objects = {}
    if given[:1] == ["--object"]:
        objects, given = {"g++": given[1]} if os.path.exists(given[1]) else {}, given[2:]
    compilers = given or [c for c in ("g++", "clang++", "clang++-19", "aarch64-linux-gnu-g++") if shutil.which(c) or c in objects]
    failed = not compilers
    with tempfile.TemporaryDirectory() as folder:
        for compiler in compilers:
            own, tiles, let_be, bad = check(objects.get(compiler) or compiled(compiler, folder))
            print(f"{compiler}: {len(tiles)} tiles of {', '.join(sorted(own))}: {len(bad)} spill"
                  + (f"; let be: {', '.join(sorted('::'.join(t) for t in let_be))}" if let_be else ""))
            for line in bad:
                print("  " + line)
            failed = failed or bool(bad)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
