#!/usr/bin/env bash
# Cross-builds the library's tests for one target and runs them in an emulator; embeddings must be this machine's.
# Usage: tests/cross/run.sh aarch64|armv7|wasm       (packages: tools/install_deps.sh build test cross web)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${1:?usage: tests/cross/run.sh aarch64|armv7|wasm}
cmake --preset "$target"
cmake --build --preset "$target" -j"$(nproc)"
ctest --preset "$target"
grep -hoE '(kernel sets ran|skipped):.*' "build-$target/Testing/Temporary/LastTest.log" | sort | uniq -c
