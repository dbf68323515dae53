#!/usr/bin/env bash
# From a fresh clone to an answer: installs what is missing, builds, converts the demo checkpoint and tells its
# pictures apart by words. Takes a few minutes the first time, seconds after that.
# Usage: examples/quickstart.sh      (from anywhere)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."

echo "== 1/4  Packages: compiler, CMake, zlib, nlohmann-json, CLI11, stb"
tools/install_deps.sh build

echo "== 2/4  Build"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
{ cmake --preset release && cmake --build --preset release -j"$(nproc)" --target ocellus-convert ocellus-cli; } \
  >"$log" 2>&1 || { tail -n 40 "$log" >&2; echo "quickstart: the build failed" >&2; exit 1; }

echo "== 3/4  Convert the checkpoint"
run() { echo "+ $*"; "$@"; }
run build/ocellus-convert examples/demo/demo.pt -o build/demo.oc --tokenizer examples/demo/bpe_demo.txt.gz

echo "== 4/4  Classify"
pictures=(examples/demo/pictures/*.png)
echo "+ build/ocellus classify build/demo.oc --labels-file examples/demo/labels.txt --image examples/demo/pictures/*.png"
build/ocellus classify build/demo.oc --labels-file examples/demo/labels.txt --image "${pictures[@]}"
echo "The demo model is tiny: it knows colours, shapes, textures and counts of its own scenes, and errs on relations (left of, above)."
