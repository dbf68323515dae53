#!/usr/bin/env bash
# Cross-builds the library's tests for one target and runs them in an emulator; embeddings must be this machine's.
# Usage: tests/cross/run.sh aarch64|armv7       (packages: tools/install_deps.sh build test cross)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${1:?usage: tests/cross/run.sh aarch64|armv7}
data=build-cross-data
mkdir -p "$data"

# The host's part: the demo checkpoint converted, and the bits of its embeddings.
cmake --preset release
cmake --build --preset release -j"$(nproc)" --target ocellus-convert embed-bits
for type in s8 f32; do
  build/ocellus-convert -q examples/demo/demo.pt -o "$data/demo-$type.oc" --dtype "$type" \
    --tokenizer examples/demo/bpe_demo.txt.gz
  build/embed-bits "$data/demo-$type.oc" >"$data/demo-$type.bits"
done

cmake --preset "$target"
cmake --build --preset "$target" -j"$(nproc)"
ctest --preset "$target"
grep -hoE 'kernel sets ran:.*' "build-$target/Testing/Temporary/LastTest.log" | sort | uniq -c
