#!/usr/bin/env bash
# The host's part of a cross test: the demo checkpoint converted, and the bits of its embeddings on this machine, in
# build-cross-data; made by the programs of the preset `release`. Does nothing for what is there and new enough.
# Usage: tests/cross/host.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
unset MAKEFLAGS MAKELEVEL  # of a build that calls this one
data=build-cross-data
mkdir -p "$data"
cmake --preset release
cmake --build --preset release -j"$(nproc)" --target ocellus-convert ocellus-cli embed-bits
for type in s8 f32; do
  model="$data/demo-$type.oc" bits="$data/demo-$type.bits"
  if [ build/ocellus-convert -nt "$model" ]; then
    build/ocellus-convert -q examples/demo/demo.pt -o "$model" --dtype "$type" --tokenizer examples/demo/bpe_demo.txt.gz
  fi
  if [ "$model" -nt "$bits" ] || [ build/embed-bits -nt "$bits" ]; then
    build/embed-bits "$model" >"$bits.part"  # if a kernel set fails here, the next run must try again
    mv "$bits.part" "$bits"
  fi
done
