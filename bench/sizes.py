#!/usr/bin/env python3
"""Sizes, memory and start: bench/results/sizes.json, and a table on stdout. Needs numpy.

  cmake --build build --target embed-once ocellus-convert
  python3 bench/sizes.py [--build build] [--compiler g++]

- the README's first program, -O2, stripped, with libstdc++ as a shared library: at most 700 KB; processor time to compile
  it with all kernels, and with their declarations alone (OCELLUS_DECLARE_ONLY);
- ViT-B/32 at batch 1: the peak of the resident set above what is mapped of the model's file: at most 16 MiB;
- from the start of a process to its end after one embedding, files in the page cache: the best of twenty (on a busy
  machine run this by `chrt -f 10`; the load is noted).
"""
import argparse
import json
import os
import platform
import re
import resource
import sys
import tempfile
import time

from callgrind import ROOT, run


def compile_program(compiler, folder, *options):
    """README's first program; its file, and the seconds of processor time that the compiler took."""
    with open(os.path.join(ROOT, "README.md")) as f:
        source = re.search(r"```cpp\n(.*?)```", f.read(), re.S).group(1)
    path = os.path.join(folder, "program")
    with open(path + ".cpp", "w") as f:
        f.write(source)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    run(compiler, "-std=c++20", "-O2", "-s", "-I" + os.path.join(ROOT, "include"), "-I" + os.path.join(ROOT, "kernels"),
        path + ".cpp", "-o", path, *options)
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    return path, round(after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime, 1)


def program_bytes(compiler, folder):
    return os.path.getsize(compile_program(compiler, folder)[0])


def starts(build, model, tower):
    """Best milliseconds of a whole process, and what it said of its memory."""
    best = 1e9
    for _ in range(20):
        start = time.perf_counter()
        out = run(os.path.join(build, "embed-once"), model, tower)
        best = min(best, (time.perf_counter() - start) * 1e3)
    return best, json.loads(out)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--compiler", default="g++")
    args = parser.parse_args()
    results = {"date": time.strftime("%Y-%m-%d"), "machine": platform.machine(),
               "compiler": run(args.compiler, "--version").splitlines()[0],
               "load_average": round(os.getloadavg()[0], 1), "models": []}
    with open("/proc/cpuinfo") as f:
        found = re.search(r"model name\s*: (.*)", f.read())
        results["cpu"] = found.group(1) if found else "?"
    with tempfile.TemporaryDirectory() as folder:
        program, results["compile_s"] = compile_program(args.compiler, folder)
        results["program_bytes"] = os.path.getsize(program)
        results["compile_declarations_s"] = compile_program(args.compiler, folder, "-DOCELLUS_DECLARE_ONLY", "-c")[1]
        checkpoint = os.path.join(folder, "clip-vit-b32")
        run(sys.executable, os.path.join(ROOT, "bench", "make_checkpoint.py"), "clip-vit-b32", checkpoint)
        for dtype in ("s8", "f16", "f32"):
            model = os.path.join(folder, f"vit-b-32-{dtype}.oc")
            run(os.path.join(args.build, "ocellus-convert"), "-q", checkpoint, "-o", model, "--dtype", dtype)
            for tower in ("image", "text"):
                ms, memory = starts(args.build, model, tower)
                results["models"].append({
                    "dtype": dtype, "tower": tower, "file_bytes": os.path.getsize(model), "start_to_first_ms": round(ms, 1),
                    "peak_rss_kib": memory["peak_rss_kib"], "model_mapped_kib": memory["model_mapped_kib"],
                    "above_file_kib": memory["peak_rss_kib"] - memory["model_mapped_kib"]})
            os.remove(model)
    path = os.path.join(ROOT, "bench", "results", "sizes.json")
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(results, f, indent=1)
        f.write("\n")
    print(f"README's program: {results['program_bytes'] / 1e3:.0f} KB, compiled in {results['compile_s']} s, with declarations of the kernels "
          f"alone in {results['compile_declarations_s']} s\n\n| ViT-B/32 | file, MB | start to first embedding, ms | "
          "peak RSS, MiB | above the mapped file, MiB |\n|---|--:|--:|--:|--:|")
    for m in results["models"]:
        print(f"| {m['dtype']} {m['tower']} | {m['file_bytes'] / 1e6:.0f} | {m['start_to_first_ms']:.0f} | "
              f"{m['peak_rss_kib'] / 1024:.0f} | {m['above_file_kib'] / 1024:.1f} |")
    images = [m for m in results["models"] if m["tower"] == "image"]
    return 0 if results["program_bytes"] <= 700000 and all(m["above_file_kib"] <= 16 * 1024 for m in images) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except OSError as e:
        sys.exit(f"sizes.py: {e.filename}: {e.strerror}")
