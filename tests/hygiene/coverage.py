#!/usr/bin/env python3
"""Which kernel set has which operation by hand: makes kernels/COVERAGE.md from the sources and from what tests ran.

Operations are the members of kernel_table (isa/dispatch.hpp), sets those of list.def and the headers that firmware pins.
A name in a set is looked up as the compiler does, up the chain of bases and through the .inl files that each struct
includes, together with all that it calls: hand-written is what reaches a tile or a `vec` of the set's own header.

Usage: coverage.py [--compilers]     exit 0 if the table is that of the sources; --compilers: each compiler that is
                                     installed agrees on what is inherited (pointers to the operations are compared)
       coverage.py --write           makes the table
       coverage.py --record LOG...   ctest's logs (BUILD/Testing/Temporary/LastTest.log): which set ran where and when,
                                     into bench/results/kernel_sets_ran.txt
"""
import datetime
import os
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = pathlib.Path(__file__).resolve().parents[2]
KERNELS = ROOT / "kernels/ocellus"
TABLE = ROOT / "kernels/COVERAGE.md"
RECORD = ROOT / "bench/results/kernel_sets_ran.txt"

# Compilers that together have all sets: command, macros that it must have defined (firmware's sets are in no list).
COMPILERS = {
    "x86_64": "g++",
    "aarch64": "aarch64-linux-gnu-g++",
    "armv7": "arm-linux-gnueabihf-g++ -march=armv7-a -mfpu=neon-vfpv4 -mfp16-format=ieee",
    "riscv64": "clang++-19 --target=riscv64-linux-gnu -march=rv64gc",
    "wasm": "clang++-19 --target=wasm32-wasi -fno-exceptions -msimd128 -mrelaxed-simd",
    "Cortex-M55": "arm-none-eabi-g++ -mthumb -mfloat-abi=hard -mcpu=cortex-m55",
    "Cortex-M4": "arm-none-eabi-g++ -mthumb -mfloat-abi=hard -mcpu=cortex-m4 -mfpu=auto",
}


def code_of(path):
    """A file without comments and strings; macro definitions joined to one line."""
    text = re.sub(r"//[^\n]*", "", path.read_text(encoding="utf-8"))
    return re.sub(r'"[^"\n]*"', '""', text).replace("\\\n", " ")


def closing(text, at):
    """Where the bracket that opens at text[at] closes."""
    depth = 0
    for i in range(at, len(text)):
        depth += (text[i] in "({") - (text[i] in ")}")
        if depth == 0:
            return i
    raise SystemExit(f"brackets do not match: {text[at:at + 60]}")


FUNCTION = re.compile(r"\bstatic\s+(?:OCELLUS_\w+\s+|constexpr\s+)*[\w:<>,\s*&]+?[\s*&](\w+)\s*(\()")
STRUCT = re.compile(r"\bstruct\s+(\w+)\s*(?::\s*(\w+)\s*)?(\{)")
CALL = re.compile(r"(?:(\w+)::)?(?:template\s+)?\b(\w+)\s*(?:<\s*(\w+)\s*>)?\s*[<(]")


def members_of(text, where, only_s8=False):
    """name -> [(where, body)] of the functions and structs at the first level of a struct's body or an .inl file."""
    if only_s8:
        text = re.sub(r"#if !defined\(OCELLUS_ONLY_S8\).*?\n#endif", "", text, flags=re.S)
    found = {}
    at = 0
    while True:
        function, struct = FUNCTION.search(text, at), STRUCT.search(text, at)
        include = re.compile(r"#\s*(include|define|undef)\s*(<[^>]*>|OCELLUS_ONLY_S8)").search(text, at)
        next_one = min((m for m in (function, struct, include) if m), key=lambda m: m.start(), default=None)
        if next_one is None:
            return found
        if next_one is include:
            at = include.end()
            if include[2] == "OCELLUS_ONLY_S8":
                only_s8 = include[1] == "define"
            elif include[2].endswith(".inl>"):
                inner = KERNELS / include[2][len("<ocellus/"):-1]
                for name, bodies in members_of(code_of(inner), inner, only_s8).items():
                    found.setdefault(name, []).extend(bodies)
            continue
        if next_one is function:
            brace = closing(text, function.start(2))
            match = re.compile(r"[^;{]*").match(text, brace)
            if match.end() < len(text) and text[match.end()] == "{":
                brace = match.end()
                end = closing(text, brace)
                found.setdefault(function[1], []).append((where, text[brace:end]))
                at = end
            else:
                at = brace
        else:
            end = closing(text, struct.start(3))
            found.setdefault(struct[1], []).append((where, ""))  # opaque: a vec is of the header it stands in
            at = end


class Struct:
    def __init__(self, name, base, path, body):
        self.name, self.base, self.path = name, base, path
        self.members = members_of(body, path)
        isa = re.search(r"\bisa id = isa::(\w+)", body)
        self.isa = isa[1] if isa else None
        quad_rows = re.search(r"\bquad_rows = (\d+)", body)
        self.quad_rows = int(quad_rows[1]) if quad_rows else None


def read_structs():
    structs = {}
    for path in sorted(KERNELS.glob("*/*.hpp")):
        text = code_of(path)
        for m in re.finditer(r"^struct\s+(\w+)\s*(?::\s*(\w+)\s*)?(\{)", text, re.M):
            key = m[1] if path.name != "armv7.hpp" or m[1] != "neon" else "neon32"
            structs[key] = Struct(key, m[2], path, text[m.end():closing(text, m.start(3))])
    return structs


STRUCTS = read_structs()


def chain(name):
    while name:
        yield name
        name = STRUCTS[name].base


def owner(name, member):
    """The struct of the chain that declares a member; None if none does."""
    return next((s for s in chain(name) if member in STRUCTS[s].members), None)


def resolved(name, op):
    """As owner, through functions that only pass their arguments on: i8mm::gemm_f16 is fp16's."""
    at = owner(name, op)
    for _, body in STRUCTS[at].members[op]:
        if forward := re.fullmatch(r"\{\s*(\w+)::(\w+)\(\w+\);\s*", body):
            if forward[2] == op and forward[1] in STRUCTS:
                return resolved(forward[1], op)
    return at


def is_generic(path):
    return path.parent.name == "generic"


def primitives(name, op, seen=None):
    """Headers and names of hand-written members that an operation of a set reaches: {(path, member)}."""
    seen = set() if seen is None else seen
    at = owner(name, op)
    if at is None or (at, op) in seen:
        return set()
    seen.add((at, op))
    found = set()
    for where, body in STRUCTS[at].members[op]:
        if not is_generic(where):
            found.add((where, op))
        for scope, callee, argument in CALL.findall(body):
            if scope in STRUCTS:
                found |= primitives(scope, callee, seen)
            elif not scope or scope == "vec" and not is_generic(where):
                found |= primitives(at, callee, seen)
            if argument in STRUCTS:  # an operation that another struct's is passed to: gemm_shifted<neon_shifted>
                found |= primitives(argument, op, seen)
        if re.search(r"\bvec\b", body):
            found |= primitives(at, "vec", seen)
        if re.search(r"\bhalf32\b", body):
            found |= primitives(at, "half32", seen)
    return found


def operations():
    """The function pointers of kernel_table, in order, and the two passes of its resample_kernels."""
    text = code_of(ROOT / "include/ocellus/isa/dispatch.hpp")
    table = text[text.index("struct kernel_table"):]
    table = table[:closing(table, table.index("{"))]
    assert "resample_kernels resample" in table
    return re.findall(r"\(\*(\w+)\)", table) + ["resample_horizontal", "resample_vertical"]


def architecture(name):
    path = STRUCTS[name].path
    if path.name in ("mve.hpp", "dsp.hpp"):
        return "Cortex-M"
    if path.name == "armv7.hpp":
        return "armv7"
    return {"x86": "x86-64", "arm": "AArch64", "riscv": "RISC-V", "wasm": "WebAssembly"}.get(path.parent.name, "any")


def resample_of(name):
    """The struct whose resize passes go with a set: resample_for in isa/dispatch.hpp, read branch by branch."""
    text = (ROOT / "include/ocellus/isa/dispatch.hpp").read_text(encoding="utf-8")
    text = text[text.index("resample_for() noexcept"):]
    text = text[:text.index("\n}\n")]
    macro = {"x86-64": "__x86_64__", "AArch64": "__aarch64__", "WebAssembly": "__wasm_simd128__"}.get(architecture(name))
    branch = re.search(rf"#(?:el)?if defined\({macro}\)\n(.*?)#(?:elif|endif)", text, re.S) if macro else None
    for base, is_id, not_id, passes in re.findall(
            r"if constexpr \((?:std::is_base_of_v<kernels::(\w+), Set>|Set::id == isa::(\w+)|Set::id != isa::(\w+))\) \{\s*"
            r"return resample_kernels_of<kernels::(\w+)>", branch[1] if branch else ""):
        if base in chain(name) if base else is_id == name if is_id else not_id != name:
            return passes
    return "resample_scalar"


SETS = [s for s in STRUCTS if STRUCTS[s].isa]  # of list.def and of firmware
HEADER_SET = {STRUCTS[s].path: s for s in SETS}


def cell(name, op):
    """(kind, text): kind is hand, inherited or portable."""
    if op.startswith("resample"):
        passes = resample_of(name)
        if passes == "resample_scalar":
            return "portable", "portable"
        same = [s for s in chain(name) if s in SETS and resample_of(s) == passes]
        return ("hand", "**passes**") if same[-1] == name else ("inherited", f"= {same[-1]}")
    if op == "arrange_u8":  # is one set's or another's, as a whole, and serves those whose products go by quads
        if not next((STRUCTS[s].quad_rows for s in chain(name) if STRUCTS[s].quad_rows is not None), 0):
            return "portable", "none"
        of = owner(name, op)
        return ("hand", "**own**") if of == name else ("inherited", f"= {of}")
    mine, found = STRUCTS[name].path, primitives(name, op)
    own = {member for path, member in found if path == mine}
    if own and STRUCTS[resolved(name, op)].path == mine:
        kinds = ["tile"] * any(m.startswith("tile") or m == "half32" for m in own) + ["vec"] * ("vec" in own)
        return "hand", "**" + (" + ".join(kinds) or "own") + "**"
    # compiled again here or inherited: the code is that of the nearest base whose header it reaches
    for base in chain(name):
        if STRUCTS[base].path in {path for path, _ in found} - {mine}:
            return "inherited", "= " + HEADER_SET[STRUCTS[base].path]
    return "portable", "none" if op in ("round_bf16", "split_bf16") else "portable"


def shown(name):
    return "neon" if name == "neon32" else name


# What ran ---------------------------------------------------------------------------------------------------------

def read_record():
    """[(date, target, machine, sets)]"""
    if not RECORD.exists():
        return []
    rows = [line.split("\t") for line in RECORD.read_text(encoding="utf-8").splitlines() if not line.startswith("#")]
    return [(date, target, machine, sets.split()) for date, target, machine, sets in rows]


def this_cpu():
    info = pathlib.Path("/proc/cpuinfo").read_text()
    name, family, model = (re.search(rf"^{key}\s*:\s*(.*)", info, re.M) for key in ("model name", "cpu family", "model"))
    return f"{name[1].strip()} (family {family[1]}, model {model[1]})" if name and family and model else "this machine"


def record(logs):
    new = {}
    for log in map(pathlib.Path, logs):
        folder = log.resolve().parents[2].name  # build, build-aarch64, ...
        target = folder.partition("-")[2] or os.uname().machine
        date = datetime.date.fromtimestamp(log.stat().st_mtime).isoformat()
        for entry in re.split(r"^\d+/\d+ Testing: ", log.read_text(encoding="utf-8", errors="replace"), flags=re.M)[1:]:
            test = entry.split("\n", 1)[0].strip()
            if "Test Passed." not in entry:
                continue
            said = re.search(r"^(?:.*MESSAGE: |\s*)kernel sets ran: ([\w ]+)", entry, re.M)
            kind, _, name = test.partition("/")
            if not said or kind not in ("kernels", "firmware") and name != "law2_kernels":  # others run not each operation
                continue
            sets = said[1].split()
            if kind == "kernels" and target == "wasm":
                sets, machine = [name], "node"  # a module is for one set: what best_kernels takes
            elif kind == "kernels":
                machine = f"qemu, {name}" + " (one lane)" * (target == "ppc64le")  # of Highway 1.0.3: no vectors there
            elif kind == "firmware":
                machine = "qemu, " + re.search(r"^-- (mps\S+)", entry, re.M)[1]
            else:
                machine = this_cpu() + (" (as AVX2)" if "portable" in kind else "")
            key = (target, machine)
            before = new[key][1] if key in new else []
            new[key] = (date, before + [s for s in sets if s not in before])
    if not new:
        raise SystemExit("no test in these logs says which kernel sets ran")
    rows = {(target, machine): (date, sets) for date, target, machine, sets in read_record()} | new
    with open(RECORD, "w", encoding="utf-8") as out:
        out.write("# tests/hygiene/coverage.py --record LOG...: kernel sets whose tests passed, by ctest's logs: date, target, machine, sets\n")
        for (target, machine), (date, sets) in sorted(rows.items()):
            out.write(f"{date}\t{target}\t{machine}\t{' '.join(sets)}\n")
    print(f"{len(new)} machines recorded in {RECORD.relative_to(ROOT)}")


def runs_of(name):
    """Rows of the record in which a set ran."""
    is_target = {"x86-64": lambda t: t == "x86_64", "AArch64": lambda t: t == "aarch64", "armv7": lambda t: t == "armv7",
                 "RISC-V": lambda t: t == "riscv64", "WebAssembly": lambda t: t == "wasm",
                 "Cortex-M": lambda t: t.startswith("cortex-m"), "any": lambda t: True}[architecture(name)]
    return [row for row in read_record() if is_target(row[1]) and shown(name) in row[3]]


# The table --------------------------------------------------------------------------------------------------------

TITLES = {"x86-64": ["x86-64"], "AArch64": ["AArch64"], "32-bit Arm, Cortex-M": ["armv7", "Cortex-M"],
          "RISC-V, WebAssembly, any other": ["RISC-V", "WebAssembly", "any"]}


def table():
    lines = [
        "# Which kernel set has which operation by hand",
        "",
        "Made by `tests/hygiene/coverage.py --write` from `list.def`, the sets' headers, `kernel_table` in `isa/dispatch.hpp` and",
        "[bench/results/kernel_sets_ran.txt](../bench/results/kernel_sets_ran.txt), which `coverage.py --record` makes from ctest's logs. A test",
        "fails when this page is not that of the sources, or when a compiler says otherwise about what is inherited.",
        "",
        "| cell | means |",
        "|---|---|",
        "| **tile**, **vec** | hand-written: the operation runs on tiles of matrix products or on sixteen lanes (`vec`) of the set's own header; "
        "a product with **vec** alone has a generic tile, and its epilogue by hand |",
        "| **own** | hand-written as a whole |",
        "| **passes** | hand-written passes of resizing |",
        "| = avx2 | inherited: the code of that set, some of it compiled again for this one |",
        "| portable | the generic C++ of `generic/`, compiled with this set's flags |",
        "| none | not needed: the set's products take activations as they are |",
        "| &dagger; | compiled, but no run is recorded |",
        "",
        "`scalar` is the generic code itself, for every target; it is the definition that all others are compared with, and runs wherever they do.",
    ]
    for title, architectures in TITLES.items():
        sets = [s for s in ordered_sets() if architecture(s) in architectures and s != "scalar"]
        head = [shown(s) + (" (32-bit)" if s == "neon32" else "") for s in sets]
        lines += ["", f"## {title}", "", "| operation | " + " | ".join(head) + " |", "|---" * (len(sets) + 1) + "|"]
        for op in operations():
            row = []
            for s in sets:
                runs = runs_of(s)
                if architecture(s) == "Cortex-M" and op.startswith("resample"):
                    runs = []  # firmware gets its pictures in size
                row.append(cell(s, op)[1] + ("" if runs else " &dagger;"))
            lines.append(f"| `{op}` | " + " | ".join(row) + " |")
        lines += ["", "| set | ran on |", "|---|---|"]
        for s, name in zip(sets, head):
            runs = runs_of(s)
            where = "; ".join(sorted({f"{machine.replace('qemu, ', 'qemu as ')} ({date})" for date, _, machine, _ in runs}))
            lines.append(f"| `{name}` | {where or 'compiled; no run is recorded'} |")
    return "\n".join(lines) + "\n"


def ordered_sets():
    """Best first, as in list.def; those of firmware at their architecture."""
    listed = re.findall(r"^OCELLUS_KERNEL_SET\((\w+),", (KERNELS / "list.def").read_text(encoding="utf-8"), re.M)
    names = []
    for name in listed:
        names.append("neon32" if name == "neon" and "neon" in names else name)
    missing = [s for s in SETS if s not in names]
    if unknown := [s for s in names if s not in SETS]:
        raise SystemExit(f"list.def names sets that no header declares: {unknown}")
    return names + missing


# The compiler's view ----------------------------------------------------------------------------------------------

def check_compilers():
    """Each compiler that is installed: what is inherited here has the same address there, and what is not has another."""
    wrong = 0
    for target, command in COMPILERS.items():
        command = command.split()
        if not shutil.which(command[0]):
            print(f"skipped: sets of {target}, no {command[0]}")
            continue
        flags = ["-std=c++20", "-I", str(ROOT / "include"), "-I", str(ROOT / "kernels"), "-x", "c++"]
        with tempfile.TemporaryDirectory() as folder:
            unit = pathlib.Path(folder) / "unit.cpp"
            head = "#include <ocellus/isa/dispatch.hpp>\n" if "none" not in command[0] else (
                "#include <ocellus/generic/scalar.hpp>\n#include <ocellus/arm/mve.hpp>\n#include <ocellus/arm/dsp.hpp>\n")
            pinned = "" if "dispatch" in head else (
                "#if defined(__ARM_FEATURE_MVE)\nIS_SET mve\n#elif defined(__ARM_FEATURE_DSP)\nIS_SET dsp\n#endif\n")
            unit.write_text(head + "#define OCELLUS_KERNEL_SET(name, available) IS_SET name\n#include <ocellus/list.def>\n"
                            + pinned, encoding="ascii")
            listed = subprocess.run(command + flags + ["-E", "-P", str(unit)], capture_output=True, text=True)
            if listed.returncode != 0:
                print(f"skipped: sets of {target}, {command[0]} has no C++ library for it")
                continue
            sets = re.findall(r"^IS_SET (\w+)", listed.stdout, re.M)
            asserts = []
            for s in sets:
                key = "neon32" if target == "armv7" and s == "neon" else s
                for op in operations():
                    if op.startswith("resample"):
                        if "dispatch" in head:
                            asserts.append(f"static_assert(resample_for<kernels::{s}>().{op[9:]} == &kernels::{resample_of(key)}::{op});")
                        continue
                    at = owner(key, op)
                    base = STRUCTS[key].base
                    asserts.append(f"static_assert(&kernels::{s}::{op} == &kernels::{shown(at)}::{op});")
                    if base and at == key:
                        asserts.append(f"static_assert(&kernels::{s}::{op} != &kernels::{base}::{op});")
            unit.write_text(head + "using namespace ocellus;\n" + "\n".join(asserts) + "\n", encoding="ascii")
            done = subprocess.run(command + flags + ["-fsyntax-only", "-w", str(unit)], capture_output=True, text=True)
            if done.returncode != 0:
                wrong += 1
                print(f"{target}: the compiler disagrees\n" + "\n".join(
                    line for line in done.stderr.splitlines() if "error" in line)[:2000])
            else:
                print(f"{target}: {len(asserts)} facts about {', '.join(sets)} hold")
    return wrong


def main():
    arguments = sys.argv[1:]
    if arguments[:1] == ["--record"]:
        return record(arguments[1:])
    text = table()
    if arguments == ["--write"]:
        TABLE.write_text(text, encoding="utf-8")
        return print(f"{TABLE.relative_to(ROOT)} written")
    if not TABLE.exists() or TABLE.read_text(encoding="utf-8") != text:
        raise SystemExit("kernels/COVERAGE.md is not that of the sources: tests/hygiene/coverage.py --write")
    print("kernels/COVERAGE.md is that of the sources")
    if arguments == ["--compilers"] and check_compilers():
        sys.exit(1)


main()
