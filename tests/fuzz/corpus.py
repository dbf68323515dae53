#!/usr/bin/env python3
"""Collects the seeds of one fuzzer from the data folder (OCELLUS_SHARED, default ../shared beside the checkout).

Usage: corpus.py TOPIC FOLDER; without the data it says so and leaves the folder empty (the fuzzer then starts from
nothing). Files over 256 KiB are left out: the fuzzers look for faults in parsers, not for patience.
"""
import hashlib
import io
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


def seeds(topic):
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
            yield line.encode()


def main():
    topic, folder = sys.argv[1], pathlib.Path(sys.argv[2])
    if not SHARED.is_dir():
        print(f"skipped: no data folder {SHARED}; the fuzzer starts without seeds")
        return
    count = 0
    for data in seeds(topic):
        (folder / hashlib.sha1(data).hexdigest()).write_bytes(data)
        count += 1
    print(f"{count} seeds for {topic}")


main()
