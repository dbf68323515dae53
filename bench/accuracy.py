#!/usr/bin/env python3
"""What 16-bit and int8 weights cost in accuracy, family by family: a Markdown table. Needs numpy and the shared data.

  cmake --build build
  python3 bench/accuracy.py [--build build] [--shared ../shared] [--calibrate DIR] > bench/results/accuracy.md

Each model is converted to every type; its embeddings are compared with those of its own f32 file. Trained models: all the photos
and all the class prompts of the shared data, and how many photos get their right name. The other families have random weights
with outliers as trained nets have them, and are tiny: their rows show that a type works there, a real checkpoint does better."""
import argparse
import csv
import datetime
import json
import os
import subprocess
import sys
import tempfile

import numpy as np

ROOT = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..")
TYPES = ("f16", "bf16", "s8")
# Family, folder or file of the shared data, whether it is trained, tokenizer.
FAMILIES = (
    ("CLIP ViT: deit-clip", "models/deit-clip", True, "tokenizers/vocab/clip/bpe_simple_vocab_16e6.txt.gz"),
    ("SigLIP: vitti-siglip", "models/vitti-siglip", True, None),
    ("CLIP ViT, OpenAI", "goldens/openai-jit-vit", False, None),
    ("CLIP ViT, transformers", "goldens/hf-clip", False, None),
    ("CLIP ViT, transformers, GELU", "goldens/hf-clip-gelu", False, None),
    ("CLIP ViT, open_clip", "goldens/openclip-clip", False, None),
    ("CLIP ResNet, OpenAI", "goldens/openai-jit-rn", False, None),
    ("SigLIP, transformers", "goldens/hf-siglip", False, None),
    ("SigLIP, open_clip", "goldens/openclip-siglip", False, None),
    ("SigLIP, big_vision", "goldens/bigvision-siglip", False, None),
    ("SigLIP 2 NaFlex", "goldens/hf-siglip2-naflex", False, None),
    ("DINOv2", "goldens/hf-dinov2", False, None),
    ("DINOv2, registers", "goldens/hf-dinov2-registers", False, None),
    ("ViT classifier, timm", "goldens/timm-vit", False, None),
)


def run(*command):
    done = subprocess.run([str(c) for c in command], capture_output=True, text=True)
    if done.returncode != 0:
        sys.exit(done.stderr.strip())


def embed(args, model, option, values, folder):
    out = os.path.join(folder, "e.npy")
    run(os.path.join(args.build, "ocellus"), "embed", model, option, *values, "-o", out)
    return np.load(out).astype(np.float64)


def cosines(a, b):
    return (a * b).sum(1) / np.linalg.norm(a, axis=1) / np.linalg.norm(b, axis=1)


def family(args, folder, source, trained, tokenizer, photos, labels):
    """Per type: cosines of pictures and of texts to f32's, and the share of photos named rightly (trained only)."""
    path = os.path.join(args.shared, source)
    ids = None
    if trained:
        with open(os.path.join(path, "reference.json")) as f:
            classes = json.load(f)["class_names"]
        prompts = os.path.join(folder, "prompts.txt")
        with open(prompts, "w") as f:
            f.writelines(f"a photo of a {c}.\n" for c in classes)
    else:
        with open(os.path.join(path, "golden.json")) as f:
            golden = json.load(f)
        entry = golden["checkpoints"][0]
        arrays = entry["golden"] if isinstance(entry["golden"], str) else entry["golden"][0]
        file = os.path.join(path, arrays, "input_ids.npy")
        ids = file if os.path.exists(file) else None
        path = os.path.join(path, entry["path"])
    seen = {}
    for dtype in ("f32", *TYPES):
        model = os.path.join(folder, "model.oc")
        extra = (["--tokenizer", os.path.join(args.shared, tokenizer)] if tokenizer else []) + (
            ["--calibrate", args.calibrate] if args.calibrate and dtype == "s8" else [])
        run(os.path.join(args.build, "ocellus-convert"), path, "-o", model, "--dtype", dtype, *extra)
        images = embed(args, model, "--image", photos, folder)
        texts = embed(args, model, "--texts", [prompts], folder) if trained else embed(args, model, "--ids", [ids], folder) if ids else None
        seen[dtype] = images, texts
    rows = {}
    for dtype in TYPES:
        (a, ta), (b, tb) = seen["f32"], seen[dtype]
        rows[dtype] = {"image": cosines(a, b), "text": cosines(ta, tb) if ta is not None else None}
    if trained:
        for dtype in ("f32", *TYPES):
            images, texts = seen[dtype]
            named = (images @ texts.T).argmax(1)
            rows.setdefault(dtype, {})["right"] = float(np.mean([classes[n] == classes[l] for n, l in zip(named, labels)]))
    return rows, len(photos), None if seen["f32"][1] is None else len(seen["f32"][1])


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", default=os.path.join(ROOT, "build"))
    parser.add_argument("--shared", default=os.environ.get("OCELLUS_SHARED", os.path.join(ROOT, "..", "shared")))
    parser.add_argument("--calibrate", help="a folder of pictures for ocellus-convert --calibrate")
    parser.add_argument("--only", default="", help="families whose name contains this")
    args = parser.parse_args()
    folder = os.path.join(args.shared, "images", "imagenet")
    with open(os.path.join(folder, "labels.csv")) as f:
        listed = list(csv.DictReader(f))
    photos, labels = [os.path.join(folder, r["file"]) for r in listed], [int(r["class_index"]) for r in listed]
    print(f"Made by `bench/accuracy.py{' --calibrate' if args.calibrate else ''}` on {datetime.date.today()}: cosine to the f32 file's "
          "embeddings, mean (worst), and photos named rightly.\n")
    print("| family | type | pictures | texts | right |\n|---|---|---|---|---|")
    for name, source, trained, tokenizer in FAMILIES:
        if args.only not in name:
            continue
        with tempfile.TemporaryDirectory() as scratch:
            chosen = photos if trained else photos[::8]
            rows, pictures, texts = family(args, scratch, source, trained, tokenizer, chosen, labels)
        for dtype in TYPES:
            row = rows[dtype]
            cells = [f"{c.mean():.5f} ({c.min():.5f}) of {n}" if c is not None else "-"
                     for c, n in ((row["image"], pictures), (row["text"], texts))]
            right = f"{100 * row['right']:.1f} % (f32 {100 * rows['f32']['right']:.1f} %)" if trained else "-"
            label = f"{name}{', trained' if trained else ', random weights'}" if dtype == TYPES[0] else ""
            print(f"| {label} | {dtype} | {cells[0]} | {cells[1]} | {right} |", flush=True)


if __name__ == "__main__":
    try:
        main()
    except OSError as e:
        sys.exit(f"accuracy.py: {e.filename}: {e.strerror}")
