#!/usr/bin/env bash
# Cross-builds the library's tests for one target and runs them in an emulator; embeddings must be this machine's.
# Usage: tests/cross/run.sh aarch64|armv7|riscv64|ppc64le|wasm|windows   (packages: tools/install_deps.sh build test cross web)
# Exits with 77 where something that the target needs is not installed.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
target=${1:?usage: tests/cross/run.sh aarch64|armv7|riscv64|ppc64le|wasm|windows}
case $target in
  aarch64) tools=(aarch64-linux-gnu-g++ qemu-aarch64) ;;
  armv7) tools=(arm-linux-gnueabihf-g++ qemu-arm) ;;
  ppc64le) tools=(powerpc64le-linux-gnu-g++ qemu-ppc64le) ;;
  riscv64) tools=(clang++-19 riscv64-linux-gnu-g++ qemu-riscv64) ;;
  windows) tools=(clang++-19 lld-19 x86_64-w64-mingw32-g++ x86_64-w64-mingw32-windres /usr/lib/wine/wine64) ;;
  wasm) tools=(clang++-19 node /usr/include/wasm32-wasi) ;;
  *) echo "$target: no such target"; exit 2 ;;
esac
for tool in "${tools[@]}"; do
  [ -e "$tool" ] || command -v "$tool" >/dev/null ||
    { echo "skipped: $target, for $tool is not installed (tools/install_deps.sh cross web)"; exit 77; }
done
export CTEST_PARALLEL_LEVEL=${CTEST_PARALLEL_LEVEL:-$(nproc)}
cmake --preset "$target"
cmake --build --preset "$target" -j"$(nproc)"
ctest --preset "$target"
grep -hoE '(kernel sets ran|skipped):.*' "build-$target/Testing/Temporary/LastTest.log" | sort | uniq -c
