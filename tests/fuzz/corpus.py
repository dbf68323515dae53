#!/usr/bin/env python3
"""Collects the seeds of one fuzzer: from this checkout, and from the data folder (OCELLUS_SHARED, default ../shared
beside the checkout) where it is there.

Usage: corpus.py TOPIC FOLDER. A topic without seeds is an error, except those that make their own input (packed).
Files over 256 KiB are left out: the fuzzers look for faults in parsers, not for patience.
"""
import gzip
import hashlib
import io
import json
import os
import pathlib
import sys
import tarfile
import zipfile

ROOT = pathlib.Path(__file__).parents[2]
SHARED = pathlib.Path(os.environ.get("OCELLUS_SHARED", ROOT.parent / "shared"))
LARGEST = 256 * 1024

# Which members of the archive of good and damaged checkpoints a topic starts from, by their endings.
CHECKPOINTS = {
    "checkpoint": (".pt", ".bin", ".pth", ".safetensors", ".npz"),
    "json": (".json",),
    "npz": (".npz",),
    "safetensors": (".safetensors",),
    "unpickler": (".pt",),
    "zip": (".pt", ".npz"),
}


def pickle_of(data):
    """The data.pkl of a PyTorch archive, or the bytes themselves where there is none."""
    try:
        with zipfile.ZipFile(io.BytesIO(data)) as archive:
            name = next(name for name in archive.namelist() if name.endswith("data.pkl"))
            return archive.read(name)[:LARGEST]
    except Exception:  # zipfile lets many kinds out of damaged archives
        return data


def archive(files):
    """A zip archive of {name: bytes}, stored, as numpy and PyTorch write theirs."""
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as z:
        for name, data in files.items():
            z.writestr(name, data)
    return out.getvalue()


def own_seeds(topic):
    """From this checkout: on a machine without the data folder these are all."""
    goldens, demo = ROOT / "tests" / "goldens", ROOT / "examples" / "demo"
    arrays = {path.name: path.read_bytes() for path in sorted((goldens / "demo").glob("*_embeds.npy"))}
    pickled = pickle_of((demo / "demo.pt").read_bytes())
    if topic in ("npz", "zip", "checkpoint"):
        yield archive(arrays)
    if topic in ("zip", "checkpoint"):
        yield archive({"demo/data.pkl": pickled, "demo/version": b"3\n"})
    if topic in ("safetensors", "checkpoint"):
        for path in goldens.rglob("*.safetensors"):
            yield path.read_bytes()
    if topic == "unpickler":
        yield pickled
    if topic == "json":
        for path in goldens.rglob("*.json"):
            yield path.read_bytes()
    if topic == "image":
        for path in demo.rglob("*.png"):
            yield path.read_bytes()
    # The first bytes of these two say what the rest is: see the fuzzers.
    texts = [json.loads(line)["text"].encode() for line in (goldens / "tokenizers/ids.jsonl").open(encoding="utf-8")]
    if topic == "tokenizer":
        merges = gzip.decompress((demo / "bpe_demo.txt.gz").read_bytes())
        yield b"\x03" + merges
        yield b"\x04" + (goldens / "tokenizers/bert/vocab.txt").read_bytes()
        for text in texts[::10]:
            yield b"\x01" + text
            yield b"\x04[PAD]\n[UNK]\n[CLS]\n[SEP]\n" + text.replace(b" ", b"\n")
    if topic == "sentencepiece":
        yield b"\x01" + (goldens / "tokenizers/xlm_roberta/sentencepiece.bpe.model").read_bytes()
        for i, text in enumerate(texts[::10]):
            yield bytes([0, i % 13, 0]) + text


def seeds(topic):
    yield from own_seeds(topic)
    if not SHARED.is_dir():
        print(f"skipped: the seeds of the data folder, {SHARED} is not there")
        return
    if topic in CHECKPOINTS:
        with tarfile.open(SHARED / "badinput" / "checkpoints.tar.xz") as archive:
            for member in archive:
                if member.isfile() and member.size <= LARGEST and member.name.endswith(CHECKPOINTS[topic]):
                    data = archive.extractfile(member).read()
                    yield pickle_of(data) if topic == "unpickler" else data
    if topic == "image":
        for path in (SHARED / "badinput" / "images" / "files").rglob("*"):
            if path.is_file() and path.stat().st_size <= LARGEST:
                yield path.read_bytes()
    if topic == "tokenizer":
        lines = next((SHARED / "tokenizers").rglob("clip-openclip.jsonl")).read_text(encoding="utf-8").splitlines()
        for line in lines[::10]:
            yield b"\x01" + json.loads(line)["text"].encode()


def main():
    topic, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    count = 0
    for data in seeds(topic):
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
        count += 1
    print(f"{count} seeds for {topic}")
    if count == 0 and topic != "packed":
        sys.exit(f"corpus.py: no seeds for {topic}")


main()
