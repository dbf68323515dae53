#!/usr/bin/env python3
"""Counts the instructions of fixed embeddings under callgrind and compares them with bench/results/callgrind.json: clocks
are noisy, counts are not. More than 0.5 % above the record fails, and says where.

  cmake --build build --target embed-once ocellus-convert
  python3 bench/callgrind.py [--build build] [--update]

The demo model, and a model of ViT-B/32's shape with random weights and two layers in each tower (needs numpy); s8 and
f32, image and text; kernel set avx2, since valgrind 3.19 knows no AVX-512. Only what runs in the program itself counts: the
C library picks its memcpy by the CPU and by its own version. A record holds for one compiler: with another this says
"skipped", and --update adds one.
"""
import argparse
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RECORD = os.path.join(ROOT, "bench", "results", "callgrind.json")
LIMIT = 1.005


def run(*command):
    """What a command says; ends the program, with its words, where it fails."""
    done = subprocess.run(command, capture_output=True, text=True)
    if done.returncode:
        sys.exit(f"{' '.join(command)}: {done.stderr.strip() or done.stdout.strip()}")
    return done.stdout + done.stderr


def models(build, folder):
    """Name and path of each packed model."""
    convert = os.path.join(build, "ocellus-convert")
    sources = {"demo": ([os.path.join(ROOT, "examples/demo/demo.pt"), "--tokenizer",
                         os.path.join(ROOT, "examples/demo/bpe_demo.txt.gz")])}
    try:
        import numpy  # noqa: F401
        checkpoint = os.path.join(folder, "vit-b-32")
        run(sys.executable, os.path.join(ROOT, "bench", "make_checkpoint.py"), "clip-vit-b32", checkpoint, "--layers", "2")
        sources["vit_b32_2_layers"] = [checkpoint]
    except ImportError:
        print("skipped: vit_b32_2_layers (no numpy)")
    for name, source in sources.items():
        for dtype in ("s8", "f32"):
            path = os.path.join(folder, f"{name}-{dtype}.oc")
            run(convert, "-q", *source, "-o", path, "--dtype", dtype)
            yield f"{name} {dtype}", path


def self_cost(profile, program):
    """Instructions that a file of callgrind's has for the functions of one object, without what these call."""
    names, inside, inclusive, total = {}, False, False, 0
    with open(profile) as f:
        for line in f:
            if found := re.match(r"(c?)ob=\((\d+)\)(?: (.*))?", line):
                called, number, name = found.groups()
                names[number] = name or names[number]
                if not called:
                    inside = os.path.basename(names[number]) == program
            elif line.startswith("calls="):  # the next line is the cost of the call
                inclusive = True
            elif re.match(r"[-+*\d]", line):
                if inside and not inclusive:
                    total += int(line.split()[1])
                inclusive = False
    return total


def count(build, model, tower, folder):
    profile = os.path.join(folder, "callgrind.out")
    text = run("valgrind", "--tool=callgrind", f"--toggle-collect=measured_{tower}", f"--callgrind-out-file={profile}",
               os.path.join(build, "embed-once"), model, tower, "avx2")
    total = self_cost(profile, "embed-once")
    if total == 0:
        sys.exit(f"callgrind counted nothing:\n{text}")
    return total


def compiler(build):
    with open(os.path.join(build, "CMakeCache.txt")) as f:
        path = re.search(r"CMAKE_CXX_COMPILER:\w+=(.*)", f.read()).group(1)
    return run(path, "--version").splitlines()[0].split("/")[-1]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--update", action="store_true", help="write the counts into the record")
    args = parser.parse_args()
    if not shutil.which("valgrind"):
        print("skipped: no valgrind")
        return 0
    with open("/proc/cpuinfo") as f:
        if " avx2 " not in f.read():
            print("skipped: this CPU has no AVX2")
            return 0
    records = {}
    if os.path.exists(RECORD):
        with open(RECORD) as f:
            records = json.load(f)
    key = compiler(args.build)
    if key not in records and not args.update:
        print(f"skipped: no record for {key} (--update makes one)")
        return 0
    known, counts, worse = records.get(key, {}), {}, 0
    with tempfile.TemporaryDirectory() as folder:
        for name, path in models(args.build, folder):
            for tower in ("image", "text"):
                cell = f"{name} {tower}"
                counts[cell] = count(args.build, path, tower, folder)
                line = f"{cell:32} {counts[cell]:12d} instructions"
                if cell in known:
                    ratio = counts[cell] / known[cell]
                    line += f"  {100 * (ratio - 1):+6.2f} % of {known[cell]}"
                    if ratio > LIMIT:
                        line += "  MORE THAN 0.5 % ABOVE THE RECORD"
                        worse += 1
                print(line, flush=True)
                if args.update:
                    records[key] = {**known, **counts}
                    os.makedirs(os.path.dirname(RECORD), exist_ok=True)
                    with open(RECORD, "w") as f:
                        json.dump(records, f, indent=1, sort_keys=True)
                        f.write("\n")
    return 1 if worse and not args.update else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        sys.exit(f"callgrind.py: {e.filename}: {e.strerror}")
