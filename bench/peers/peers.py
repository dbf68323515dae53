#!/usr/bin/env python3
"""ocellus against the other runtimes: the same random weights, the same inputs, one interleaved run. One command does it all:

  cmake --build build && python3 bench/peers/peers.py

makes a virtual environment with requirements.txt (about 6 GB, once), a full-size checkpoint, each runtime's files, measures,
and writes bench/results/<cpu>-<date>.json; bench/report.py turns that into tables and a plot. See bench/README.md."""
import argparse
import array
import datetime
import json
import os
import platform
import random
import re
import shutil
import statistics
import subprocess
import sys
import time

HERE = os.path.dirname(os.path.abspath(__file__))
ROOT = os.path.dirname(os.path.dirname(HERE))
BATCHES = {"image": (1, 8), "text": (1, 32)}
PEERS = {  # name: what has to be prepared for it
    "ocellus_f32": None, "ocellus_f16": None, "ocellus_bf16": None, "ocellus_s8": None,
    "ort_f32": "onnx", "ort_dynamic": "ort_int8", "ort_static": "ort_int8",
    "openvino_f32": "onnx", "openvino_bf16": "onnx", "openvino_int8": "openvino_int8",
    "litert_f32": "litert", "litert_s8": "litert",
    "torch_f32": "onnx", "torch_bf16": "onnx", "torch_f16": "onnx",
    "ncnn_f32": "ncnn", "ncnn_bf16": "ncnn", "mnn_f32": "mnn",
}
INPUTS = {"pillow": ("decode", "prepare"), "tokenizers": ("tokenize",)}  # what ocellus_s8 is compared with in each


def say(*what):
    print(*what, file=sys.stderr, flush=True)


def run(command, log=None, **options):
    with open(log or os.devnull, "a") as out:
        return subprocess.run(command, stdout=out, stderr=subprocess.STDOUT, check=True, **options)


def install(work, name, sections):
    """A virtual environment with those sections of requirements.txt, made once; the first may not fail. Its interpreter."""
    python = f"{work}/{name}/bin/python"
    if os.path.exists(f"{work}/{name}/done"):
        return python
    wanted = {}
    with open(f"{HERE}/requirements.txt") as f:
        for line in f:
            if found := re.match(r"# \[(\w+)\]", line):
                wanted[found[1]] = section = []
            elif line.strip() and not line.startswith("#"):
                section.append(line.strip())
    run([sys.executable, "-m", "venv", f"{work}/{name}"])
    for s in sections:
        say(f"installing {' '.join(wanted[s])}")
        try:
            run([python, "-m", "pip", "install", *wanted[s]], f"{work}/install.log")
        except subprocess.CalledProcessError:
            if s == "main":
                sys.exit(f"cannot install what is needed: see {work}/install.log")
            say(f"skipped {s}: cannot install it (see {work}/install.log)")
    open(f"{work}/{name}/done", "w").close()
    return python


def config(folder):
    """The checkpoint's configuration in Hugging Face's terms, open_clip's with a ResNet too."""
    if not os.path.exists(f"{folder}/checkpoint/open_clip_config.json"):
        with open(f"{folder}/checkpoint/config.json") as f:
            return json.load(f)
    with open(f"{folder}/checkpoint/open_clip_config.json") as f:
        c = json.load(f)["model_cfg"]
    v, t = c["vision_cfg"], c["text_cfg"]
    return {"model_type": "clip", "projection_dim": c["embed_dim"],
            "vision_config": {"image_size": v["image_size"], "resnet_layers": v["layers"], "resnet_width": v["width"]},
            "text_config": {"hidden_size": t["width"], "intermediate_size": 4 * t["width"], "num_hidden_layers": t["layers"],
                            "max_position_embeddings": t["context_length"], "vocab_size": t["vocab_size"]}}


# Inputs ------------------------------------------------------------------------------------------------------------

def prompt(ids, context):
    """[start, ids, end], padded with the end as transformers does; its end is the highest id."""
    row = [49406, *ids, 49407] + [49407] * context
    return row[:context]


def job_rows(classes, context, rng):
    """classes x 80 prompts with the lengths of CLIP's 80 ImageNet templates: 2 to 7 tokens before the name, mostly a full stop
    after it, some a phrase; names of 1 to 5 tokens, 2.1 on average. Which ids they are makes no difference to the work."""
    def words(n):
        return [rng.randrange(300, 49000) for _ in range(n)]
    names = [words(rng.choices((1, 2, 3, 4, 5), (28, 45, 18, 6, 3))[0]) for _ in range(classes)]
    for template in range(80):
        before = words(rng.choices((2, 3, 4, 5, 6, 7), (6, 18, 36, 26, 9, 5))[0])
        after = words(1 if template % 5 else rng.randrange(3, 6))
        for name in names:
            yield prompt(before + name + after, context)


def write_inputs(folder, classes):
    c = config(folder)
    size, text = c["vision_config"]["image_size"], c["text_config"]
    rng = random.Random(1)
    with open(f"{folder}/rgb.u8", "wb") as f:
        f.write(rng.randbytes(max(BATCHES["image"]) * size * size * 3))
    context = text["max_position_embeddings"]
    if c["model_type"] == "clip":
        rows = [prompt([rng.randrange(300, 49000) for _ in range(6)], context) for _ in range(max(BATCHES["text"]))]
    else:  # SigLIP reads all of its context
        rows = [[rng.randrange(2, text["vocab_size"]) for _ in range(context)] for _ in range(max(BATCHES["text"]))]
    with open(f"{folder}/ids.i32", "wb") as f:
        array.array("i", [i for row in rows for i in row]).tofile(f)
    if c["model_type"] == "clip":
        with open(f"{folder}/job.i32", "wb") as f:
            for row in job_rows(classes, context, rng):
                array.array("i", row).tofile(f)
    with open(f"{folder}/batches.json", "w") as f:
        json.dump(BATCHES, f)


def prepare(args, preset, folder, peers):
    """Makes what is missing; returns the peers that can run."""
    os.makedirs(folder, exist_ok=True)
    if not any(os.path.exists(f"{folder}/checkpoint/{name}") for name in ("config.json", "open_clip_config.json")):
        say(f"{preset}: checkpoint")
        run([args.python, f"{ROOT}/bench/make_checkpoint.py", preset, f"{folder}/checkpoint"])
    write_inputs(folder, args.classes)
    usable = []
    wanted = ["onnx"] + [PEERS[p] for p in peers if PEERS[p]]
    ready = {None: True}
    for what in dict.fromkeys(wanted):
        done, log = f"{folder}/{what}.done", f"{folder}/{what}.log"
        if not os.path.exists(done):
            say(f"{preset}: preparing {what}")
            try:
                run([args.litert_python if what == "litert" else args.python, f"{HERE}/runtimes.py", "prepare", what, folder], log)
                open(done, "w").close()
            except subprocess.CalledProcessError:
                with open(log) as f:
                    last = [line for line in f.read().splitlines() if line.strip()][-1:]
                say(f"{preset}: skipped {what}: {''.join(last)} (all of it: {log})")
        ready[what] = os.path.exists(done)
    for p in peers:
        if p.startswith("ocellus_"):
            dtype = p.split("_")[1]
            if not os.path.exists(f"{folder}/{dtype}.oc"):
                run([f"{args.build}/ocellus-convert", "-q", f"{folder}/checkpoint", "-o", f"{folder}/{dtype}.oc", "--dtype", dtype,
                     "--tokenizer", "none"])
        if ready[PEERS[p]]:
            usable.append(p)
    return usable


# Measuring ---------------------------------------------------------------------------------------------------------

class Worker:
    """One peer in a process of its own, pinned; it computes only when asked."""

    def __init__(self, args, peer, folder, threads):
        self.peer = peer
        cores = os.sched_getaffinity(0)
        python = args.litert_python if peer.startswith("litert") else args.python
        command = ([f"{args.build}/bench-worker", f"{folder}/{peer.split('_')[1]}.oc", str(threads)] if peer.startswith("ocellus_")
                   else [python, f"{HERE}/runtimes.py", "serve", peer, folder, str(threads)])
        self.inputs = folder
        self.log = open(f"{folder}/{peer}.log", "w")
        os.sched_setaffinity(0, sorted(cores)[-threads:])  # inherited; taskset(1) would take milliseconds of the start
        self.started = time.perf_counter()
        try:
            self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self.log, text=True,
                                            env={**os.environ, "OMP_NUM_THREADS": str(threads)})
        except OSError as e:
            sys.exit(f"{command[0]}: {e.strerror}: build it, or name another by --build or --python")
        finally:
            os.sched_setaffinity(0, cores)

    def ask(self, *command):
        try:
            self.process.stdin.write(" ".join(str(c) for c in command) + "\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            pass
        line = self.process.stdout.readline()
        if not line:
            self.log.flush()
            with open(self.log.name) as f:
                last = [s for s in f.read().splitlines() if s.strip()][-1:]
            raise RuntimeError(f"{self.peer} ended: {''.join(last)}")
        return json.loads(line)

    def open(self, tower, batch, out, rows=None):
        if self.peer.startswith("ocellus_"):
            name = "rgb.u8" if tower == "image" else rows or "ids.i32"
            return self.ask("open", tower, batch, out, f"{self.inputs}/{name}")
        return self.ask("open", tower, batch, out)

    def close(self):
        self.process.stdin.close()
        try:
            self.process.wait(20)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.log.close()


def floats(path):
    out = array.array("f")
    with open(path, "rb") as f:
        out.frombytes(f.read())
    return out


def mean_cos(path, reference, batch):
    """Mean cosine to PyTorch's float32 over the rows of a batch; None where PyTorch is not installed."""
    if not os.path.exists(reference):
        return None
    a, b = floats(path), floats(reference)
    width = len(a) // batch
    total = 0.0
    for r in range(batch):
        x, y = a[r * width:(r + 1) * width], b[r * width:(r + 1) * width]
        total += sum(p * q for p, q in zip(x, y)) / (sum(p * p for p in x) * sum(q * q for q in y)) ** 0.5
    return total / batch


def measure(args, preset, folder, peers, threads):
    """Cells of one model at one thread count, as they come: every peer is loaded, then rounds in random order."""
    out = f"{folder}/out.f32"
    workers = [Worker(args, p, folder, threads) for p in peers]
    for tower, sizes in BATCHES.items():
        for batch in sizes:
            opened = {}
            for w in list(workers):
                try:
                    opened[w] = {**w.open(tower, batch, out), "cos": mean_cos(out, f"{folder}/{tower}.reference.f32", batch)}
                except RuntimeError as e:
                    say(f"  {preset} {tower} batch {batch}: {e}")
                    w.close()
                    workers[workers.index(w)] = Worker(args, w.peer, folder, threads)  # the next cell may work
            samples = {w: {"wall_ms": [], "cpu_ms": []} for w in opened}
            for _ in range(args.rounds):
                for w in random.sample(list(opened), len(opened)):
                    for key, values in w.ask("time", args.seconds, 2).items():
                        samples[w][key] += values
            yield [cell(preset, tower, batch, threads, w.peer, samples[w], about["cos"]) for w, about in opened.items()]
    for w in workers:
        w.close()


def cell(preset, tower, batch, threads, peer, samples, cos):
    wall, cpu = sorted(samples["wall_ms"]), samples["cpu_ms"]
    c = {"model": preset, "tower": tower, "batch": batch, "threads": threads, "peer": peer, "calls": len(wall),
         "min_ms": round(wall[0] / batch, 3), "median_ms": round(statistics.median(wall) / batch, 3),
         "cv": round(statistics.pstdev(wall) / statistics.fmean(wall), 3), "cpu_min_ms": round(min(cpu) / batch, 3), "cos": cos and round(cos, 6)}
    say(f"  {preset} {tower} batch {batch} {threads} thr {peer:14} min {c['min_ms']:9.2f} median {c['median_ms']:9.2f}"
        + (f" cos {cos:.5f}" if cos is not None else ""))
    return c


def measure_job(args, preset, folder, peers, cells):
    """All classes x 80 prompts by ocellus, one template (all classes) a call; the others' figure is their best batch."""
    jobs = []
    for p in peers:
        if not p.startswith("ocellus_"):
            best = min((c for c in cells if c["peer"] == p and c["tower"] == "text" and c["threads"] == 1 and c["model"] == preset),
                       key=lambda c: c["min_ms"], default=None)
            if best:
                jobs.append({"model": preset, "peer": p, "texts_per_s": round(1000 / best["min_ms"], 1), "batch": best["batch"],
                             "measured": "best call x number of texts"})
        elif p in args.job:
            w = Worker(args, p, folder, 1)
            w.open("text", args.classes, f"{folder}/out.f32", "job.i32")
            wall = w.ask("time", 0, 80)["wall_ms"]  # each call takes the next template
            w.close()
            jobs.append({"model": preset, "peer": p, "texts_per_s": round(80 * args.classes / sum(wall) * 1000, 1),
                         "texts": 80 * args.classes, "measured": "the whole job"})
            say(f"  {preset} {args.classes} x 80 texts {p}: {jobs[-1]['texts_per_s']} texts/s")
    return jobs


def measure_start(args, preset, folder, peers, threads):
    """A new process each time: from its start to the first embedding of one image, files in the page cache."""
    starts = []
    for p in peers:
        best = None
        try:
            for _ in range(args.starts):
                w = Worker(args, p, folder, threads)
                answer = w.open("image", 1, f"{folder}/out.f32")
                answer["start_to_first_ms"] = (time.perf_counter() - w.started) * 1e3
                w.close()
                if best is None or answer["start_to_first_ms"] < best["start_to_first_ms"]:
                    best = answer
        except RuntimeError as e:
            say(f"  {preset} start: {e}")
            continue
        starts.append({"model": preset, "peer": p, "threads": threads, **{k: round(v, 1) for k, v in best.items() if isinstance(v, float)}})
        say(f"  {preset} start {threads} thr {p:14} {best['start_to_first_ms']:8.0f} ms, load {best['load_ms']:.0f}, first {best['first_ms']:.0f}, "
            f"peak {best['peak_mib']:.0f} MiB")
    return starts


# Inputs: what comes before the towers --------------------------------------------------------------------------------

def write_photos(python, folder):
    """Four pictures of 12 megapixels as large as a telephone's, of noise whose spectrum falls as that of photographs."""
    run([python, "-c", """if True:
        import sys, numpy as np
        from PIL import Image
        rng, h, w = np.random.default_rng(1), 3000, 4000
        f = np.hypot(np.fft.fftfreq(h)[:, None], np.fft.rfftfreq(w)[None]) + 1 / w
        for n in range(4):
            grey, *tints = (np.fft.irfft2(np.fft.rfft2(rng.standard_normal((h, w))) / f ** p, (h, w)) for p in (1.1, 1.6, 1.6))
            rgb = np.stack([grey / grey.std() * 45 + t / t.std() * 12 for t in (*tints, -tints[0])], 2) + 128
            Image.fromarray(rgb.clip(0, 255).astype(np.uint8)).save(f"{sys.argv[1]}/{n}.jpg", quality=90)""", folder])
    return [f"{folder}/{n}.jpg" for n in range(4)]


def write_texts(tokenizer, path):
    """4096 captions of five to twelve words of the vocabulary, frequent ones more often."""
    with open(tokenizer) as f:
        vocabulary = json.load(f)["model"]["vocab"]
    words = sorted((w[:-4] for w in vocabulary if re.fullmatch(r"[a-z]{2,12}</w>", w)), key=lambda w: vocabulary[w + "</w>"])
    rng = random.Random(1)
    with open(path, "w") as f:
        for _ in range(4096):
            f.write("a photo of a " + " ".join(words[int(len(words) * rng.random() ** 3)] for _ in range(rng.randrange(1, 9))) + ".\n")


def measure_inputs(args, peers):
    """Milliseconds per picture and per text on one thread; what the first call gave has to be the same bytes."""
    folder = os.path.join(args.work, "inputs")
    os.makedirs(folder, exist_ok=True)
    if not os.path.exists(f"{folder}/checkpoint/config.json"):  # for its preprocessing and its context
        run([args.python, f"{ROOT}/bench/make_checkpoint.py", "clip-vit-b32", f"{folder}/checkpoint", "--layers", "1"])
    if "tokenizers" in peers and not args.tokenizer:
        say("skipped tokenizers: it needs --tokenizer, CLIP's tokenizer.json")
        peers = [p for p in peers if p != "tokenizers"]
    if args.tokenizer:
        shutil.copyfile(args.tokenizer, f"{folder}/tokenizer.json")
    run([f"{args.build}/ocellus-convert", "-q", f"{folder}/checkpoint", "-o", f"{folder}/s8.oc", "--dtype", "s8",
         "--tokenizer", f"{folder}/tokenizer.json" if args.tokenizer else "none"])
    photos = [] if "pillow" not in peers else write_photos(args.python, folder) if not args.photos else sorted(
        os.path.join(os.path.abspath(args.photos), n) for n in os.listdir(args.photos) if n.lower().endswith((".jpg", ".jpeg", ".png")))
    if "pillow" in peers and not photos:
        sys.exit(f"{args.photos}: no .jpg, .jpeg or .png files")
    with open(f"{folder}/photos.txt", "w") as f:
        f.writelines(p + "\n" for p in photos)
    if "tokenizers" in peers and args.texts:
        shutil.copyfile(args.texts, f"{folder}/texts.txt")
    elif "tokenizers" in peers:
        write_texts(args.tokenizer, f"{folder}/texts.txt")
    for what, rival in ((w, p) for p in peers for w in INPUTS[p]):
        batch, file = (1, "photos.txt") if rival == "pillow" else (256, "texts.txt")
        workers = [Worker(args, p, folder, 1) for p in ("ocellus_s8", rival)]
        samples, bytes_of = {}, []
        for w in workers:
            w.ask("open", what, batch, f"{folder}/out", f"{folder}/{file}")
            samples[w] = {"wall_ms": [], "cpu_ms": []}
            with open(f"{folder}/out", "rb") as f:
                bytes_of.append(f.read())
        # Pictures differ: whole turns over all of them, and the figure is the mean of each one's best call.
        count = len(photos) if rival == "pillow" else 1
        for _ in range(args.rounds):
            for w in random.sample(workers, len(workers)):
                for key, values in w.ask("time", args.seconds if count == 1 else 0, 2 * count).items():
                    samples[w][key] += values
        for w in workers:
            def per_item(key, f):
                return round(sum(f(samples[w][key][i::count]) for i in range(count)) / count / batch, 5)
            c = {"what": what, "peer": w.peer, "items": len(samples[w]["wall_ms"]) * batch, "min_ms": per_item("wall_ms", min),
                 "median_ms": per_item("wall_ms", statistics.median), "cpu_min_ms": per_item("cpu_ms", min),
                 "same": bytes_of[0] == bytes_of[1]}
            if rival == "pillow":
                c["mb_s"] = round(sum(os.path.getsize(p) for p in photos) / count / c["min_ms"] / 1e3, 1)
            say(f"  {what:8} {w.peer:14} min {c['min_ms']:9.4f} median {c['median_ms']:9.4f} ms, "
                f"{'the same' if c['same'] else 'OTHER'} bytes")
            w.close()
            yield c


def machine():
    with open("/proc/cpuinfo") as f:
        text = f.read()
    def field(name):
        found = re.search(rf"^{name}\s*:\s*(.*)$", text, re.M)
        return found[1].strip() if found else ""
    flags = [f for f in ("avx2", "avx_vnni", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_int8", "asimd")
             if f" {f}" in f" {field('flags') or field('Features')}"]
    return {"cpu": field("model name") or platform.machine(), "family": field("cpu family"), "model": field("model"),
            "cores": len(os.sched_getaffinity(0)), "features": flags}


def versions(python):
    names = ("pillow", "tokenizers", "torch", "transformers", "open_clip_torch", "onnxruntime", "openvino", "nncf", "ai-edge-litert", "ncnn", "MNN")
    code = ("import importlib.metadata as m, json\nout = {}\nfor n in %r:\n    try: out[n] = m.version(n)\n"
            "    except m.PackageNotFoundError: pass\nprint(json.dumps(out))" % (names,))
    return json.loads(subprocess.run([python, "-c", code], capture_output=True, text=True, check=True).stdout)


def positive(text):
    if int(text) < 1:
        raise ValueError
    return int(text)


def thread_counts(text):
    return [positive(t) for t in text.split(",")]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--models", default="clip-vit-b32", help="presets of make_checkpoint.py, by commas")
    parser.add_argument("--peers", default=",".join([*PEERS, *INPUTS]), help="by commas; those that fail to prepare are left out")
    parser.add_argument("--threads", default="1,2", type=thread_counts)
    parser.add_argument("--rounds", type=positive, default=5)
    parser.add_argument("--seconds", type=float, default=1.0, help="of each peer in each round")
    parser.add_argument("--starts", type=int, default=3, help="processes started for start-to-first-embedding; 0: none")
    parser.add_argument("--job", default="ocellus_s8", help="peers of ocellus that do the whole classes x 80 job")
    parser.add_argument("--classes", type=positive, default=1000)
    parser.add_argument("--photos", help="for pillow: a folder of pictures (default: four of noise, 12 megapixels each)")
    parser.add_argument("--tokenizer", help="for tokenizers: CLIP's tokenizer.json")
    parser.add_argument("--texts", help="for tokenizers: one text a line (default: captions of the vocabulary's words)")
    parser.add_argument("--work", default=os.path.join(ROOT, "build", "peers"), help="checkpoints, graphs, environment (some GB)")
    parser.add_argument("--build", default=os.path.join(ROOT, "build"), help="where CMake built the programs")
    parser.add_argument("--python", help="an interpreter that has requirements.txt already")
    parser.add_argument("--litert-python", help="the same for the section [litert]")
    parser.add_argument("--note", default="", help="kept in the results, such as what else ran on the machine")
    parser.add_argument("--out", help="results (default: bench/results/<cpu>-<date>.json)")
    args = parser.parse_args()
    args.job = args.job.split(",")
    peers = args.peers.split(",")
    if unknown := [p for p in peers if p not in PEERS and p not in INPUTS]:
        parser.error(f"unknown: {', '.join(unknown)}; there are {', '.join([*PEERS, *INPUTS])}")
    inputs, peers = [p for p in peers if p in INPUTS], [p for p in peers if p in PEERS]
    threads = [t for t in args.threads if t <= len(os.sched_getaffinity(0))]
    if threads != args.threads:
        say(f"skipped threads beyond the {len(os.sched_getaffinity(0))} CPUs that this process may use")
    if not threads:
        sys.exit("peers.py: no threads are left")
    args.work, args.build = os.path.abspath(args.work), os.path.abspath(args.build)
    os.makedirs(args.work, exist_ok=True)
    args.python = args.python or install(args.work, "venv", ("main", "ncnn", "mnn"))
    if any(p.startswith("litert") for p in peers):
        args.litert_python = args.litert_python or install(args.work, "venv-litert", ("litert",))
    else:
        args.litert_python = args.python
    if os.path.exists(f"{args.build}/CMakeCache.txt"):
        run(["cmake", "--build", args.build, "--target", "ocellus-convert", "bench-worker", "bench-peak"], f"{args.work}/build.log")

    if not os.path.exists(f"{args.build}/bench-peak"):
        sys.exit(f"{args.build}: no bench-peak here: build it, or name another folder by --build")
    now = datetime.datetime.now(datetime.timezone.utc)
    results = {"machine": machine(), "date": now.strftime("%Y-%m-%d %H:%M UTC"), "note": args.note,
               "versions": {**versions(args.litert_python), **versions(args.python)}, "load_before": os.getloadavg(),
               "peak": [json.loads(subprocess.run([f"{args.build}/bench-peak", str(t)], capture_output=True, text=True,
                                                  check=True).stdout) for t in threads],
               "models": {}, "cells": [], "jobs": [], "starts": [], "inputs": []}
    name = re.sub(r"[^a-z0-9]+", "-", results["machine"]["cpu"].lower()).strip("-")
    path = args.out or os.path.join(ROOT, "bench", "results", f"{name}-{now:%Y-%m-%d}.json")
    for n in range(2, 100):  # a record of the same day, or of another CPU of that name, stays
        if args.out or not os.path.exists(path):
            break
        path = os.path.join(ROOT, "bench", "results", f"{name}-{now:%Y-%m-%d}-{n}.json")
    os.makedirs(os.path.dirname(os.path.abspath(path)), exist_ok=True)

    def save():
        results["load_after"] = os.getloadavg()
        with open(path, "w") as f:  # a line an item, so that a change reads well
            f.write(re.sub(r"\n {3,}", " ", json.dumps(results, indent=1)).replace("\n  }", " }") + "\n")

    for c in measure_inputs(args, inputs) if inputs else ():
        results["inputs"].append(c)
    for preset in args.models.split(",") if args.models else ():
        folder = os.path.join(args.work, preset)
        usable = prepare(args, preset, folder, peers)
        results["models"][preset] = config(folder)  # report.py counts the work from it
        for t in threads:
            if args.starts:
                results["starts"] += measure_start(args, preset, folder, usable, t)
            for cells in measure(args, preset, folder, usable, t):
                results["cells"] += cells
                save()
        if os.path.exists(f"{folder}/job.i32"):
            results["jobs"] += measure_job(args, preset, folder, usable, results["cells"])
    save()
    say(f"wrote {path}; bench/report.py {path} makes tables of it")


if __name__ == "__main__":
    try:
        main()
    except KeyboardInterrupt:
        sys.exit("peers.py: interrupted; cells that were complete are in the results file")
    except subprocess.CalledProcessError as e:
        sys.exit(f"peers.py: failed: {' '.join(e.cmd)}")
    except OSError as e:
        sys.exit(f"peers.py: {e.filename}: {e.strerror}")
