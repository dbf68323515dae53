#!/usr/bin/env python3
"""Runs bench_kernels, or reads what it wrote, and audits law 5: a kernel is at least 1.3 times the set it inherits from and
never slower than Highway for the same instructions.

  cmake --build build --target bench_kernels
  python3 bench/kernels_report.py --run [--filter clip_vit_b32] [--repetitions 5]     writes bench/results/kernels.json
  python3 bench/kernels_report.py --run --add --filter resize bench/results/kernels-zen5.json       more rows of that CPU
  python3 bench/kernels_report.py                                                     tables of that file (Markdown)

Rates compare the best iteration with the best of interleaved repetitions. A cell: time in us, % of the peak of the
unit (for products) or GB/s, x the parent, x Highway. A row of two threads: x the same set's one thread instead, and % of
the peak of both. What does not earn its place on one thread is listed at the end.
"""
import argparse
import json
import os
import platform
import re
import subprocess
import sys
import tempfile

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
RESULTS = os.path.join(ROOT, "bench", "results", "kernels.json")
# amx builds on avx512bf16, which is not taken where amx runs: the set beside it that runs there stands in.
PARENT = {"sse41": "scalar", "avx2": "scalar", "avxvnni": "avx2", "avx512": "avx2", "avx512vnni": "avx512",
          "avx512bf16": "avx512vnni", "avx512fp16": "avx512vnni", "amx": "avx512fp16"}
# What a set brings itself; everything else it takes from its parent, with the same code.
OWN = {"avxvnni": ("gemm_s8", "attention_s8"), "avx512vnni": ("gemm_s8", "attention_s8"), "avx512bf16": ("gemm_bf16", "attention_bf16"),
       "avx512fp16": ("gemm_f16",), "amx": ("gemm_s8", "gemm_bf16", "gemm_f16", "attention_bf16")}
HIGHWAY = {"sse41": "sse41", "avx2": "avx2", "avxvnni": "avx2"}
EARNS = 1.3


KEEP = ("name", "run_type", "best_us", "GMAC/s", "GB/s", "peak", "of_peak")


def cpu():
    with open("/proc/cpuinfo") as f:
        fields = dict(re.findall(r"^(model name|cpu family|model)\s*: (.*)$", f.read(), re.M))
    return ", ".join(f"{name} {value}" for name, value in sorted(fields.items())) or platform.machine()


def load(path):
    try:
        with open(path) as f:
            return json.load(f)
    except OSError as e:
        sys.exit(f"{path}: {e.strerror}")
    except ValueError:
        sys.exit(f"{path}: not JSON")


def shrink(path, target, add):
    """Keeps of Google Benchmark's file what the tables need, with the machine and the date; and of the `target`, with `add`,
    the rows that were not run now."""
    if not os.path.exists(path) or os.path.getsize(path) == 0:
        sys.exit("nothing was measured")
    results = load(path)
    results["benchmarks"] = [{k: float(f"{r[k]:.5g}") if isinstance(r[k], float) else r[k] for k in KEEP if k in r}
                             for r in results["benchmarks"] if r.get("run_type") == "iteration"]
    results["context"].pop("host_name", None)  # nobody's names and paths in a record
    results["context"]["executable"] = "build/bench_kernels"
    results["context"]["cpu"] = cpu()
    if add and os.path.exists(target):
        old, new = load(target), {r["name"] for r in results["benchmarks"]}
        if old["context"].get("cpu", cpu()) != cpu():
            sys.exit(f"{target}: is of another CPU: {old['context']['cpu']}")
        results["benchmarks"] = [r for r in old["benchmarks"] if r["name"] not in new] + results["benchmarks"]
    text = json.dumps(results).replace('{"name"', '\n{"name"')
    with open(target, "w") as f:
        f.write(text + "\n")


def read(path):
    """op -> (shape, threads) -> set -> its best counters."""
    results = load(path)
    if "context" not in results:
        sys.exit(f"{path}: no results of bench_kernels")
    runs = results["benchmarks"]
    table = {}
    for r in runs:
        if r.get("run_type") != "iteration" or "best_us" not in r:
            continue
        op, name, shape, threads = r["name"].split("/")[:4]
        cells = table.setdefault(op, {}).setdefault((shape, int(threads)), {})
        if name not in cells or r["best_us"] < cells[name]["best_us"]:
            cells[name] = r
    return table


def rivals(op, name, cells):
    """The best of Highway's for the set's instructions, and its name."""
    isa = HIGHWAY.get(name, "avx512" if name.startswith("avx512") else None)
    found = [(cells[k]["best_us"], k) for k in cells if isa and k.startswith("highway") and k.endswith("_" + isa)]
    return min(found, default=(None, None))


def report(table):
    fails, ratios = [], {}
    for op, shapes in table.items():
        names = list(dict.fromkeys(name for cells in shapes.values() for name in cells))
        print(f"\n### {op}\n\n| shape | " + " | ".join(names) + " |\n|---|" + "--:|" * len(names))
        for (shape, threads), cells in shapes.items():
            texts = []
            for name in names:
                c = cells.get(name)
                if c is None:
                    texts.append("-")
                    continue
                text = f"{c['best_us']:.1f}"
                if "of_peak" in c:
                    text += f" {100 * c['of_peak']:.0f} %"
                elif "GB/s" in c and not op.startswith("gemm"):
                    text += f" {c['GB/s']:.1f} GB/s"
                alone = shapes.get((shape, 1), {}).get(name)
                if threads > 1 and alone:
                    text += f" {alone['best_us'] / c['best_us']:.2f}x of 1"
                own = threads == 1 and name in PARENT and (name not in OWN or op in OWN[name])
                if own and PARENT[name] in cells:
                    x = cells[PARENT[name]]["best_us"] / c["best_us"]
                    ratios.setdefault((name, op, PARENT[name]), []).append((x, shape))
                    text += f" {x:.2f}x"
                rival, rival_name = rivals(op, name, cells)
                if own and rival:
                    ratios.setdefault((name, op, rival_name), []).append((rival / c["best_us"], shape))
                    text += f" hwy {rival / c['best_us']:.2f}x"
                texts.append(text)
            label = shape if threads == 1 else f"{shape}, {threads} threads"
            print(f"| {label} | " + " | ".join(texts) + " |")
    print("\n### Law 5\n\n| set | op | against | worst | at | best |\n|---|---|---|--:|---|--:|")
    for (name, op, against), found in ratios.items():
        worst, best = min(found), max(found)
        print(f"| {name} | {op} | {against} | {worst[0]:.2f}x | {worst[1]} | {best[0]:.2f}x |")
        if worst[0] < (EARNS if against == PARENT[name] else 1):
            fails.append(f"{name}/{op}: {worst[0]:.2f}x {against} at {worst[1]} (at best {best[0]:.2f}x)")
    print(f"\n{len(fails)} do not earn their place:\n" if fails else "\nEach earns its place.")
    for line in fails:
        print("- " + line)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", nargs="?", default=RESULTS)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--run", action="store_true")
    parser.add_argument("--add", action="store_true", help="keep the file's rows that are not run now")
    parser.add_argument("--filter", default=".")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--seconds", type=float, default=0.02, help="of each repetition")
    args = parser.parse_args()
    if args.run:
        os.makedirs(os.path.dirname(os.path.abspath(args.results)), exist_ok=True)
        program = os.path.join(args.build, "bench_kernels")
        if not os.path.exists(program):
            sys.exit(f"{program}: build it (target bench_kernels), or name another folder by --build")
        with tempfile.TemporaryDirectory() as folder:
            out = os.path.join(folder, "out.json")
            subprocess.run([program, f"--benchmark_filter={args.filter}",
                            f"--benchmark_repetitions={args.repetitions}", "--benchmark_enable_random_interleaving=true",
                            f"--benchmark_min_time={args.seconds}", f"--benchmark_out={out}", "--benchmark_out_format=json"],
                           check=True, stdout=subprocess.DEVNULL)
            shrink(out, args.results, args.add)
    report(read(args.results))
    return 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit("interrupted: the results file is as it was")
    except subprocess.CalledProcessError as e:
        sys.exit(f"{e.cmd[0]} failed")
