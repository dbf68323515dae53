#!/usr/bin/env bash
# Counts the instructions that AArch64 kernel sets execute for one matrix product. A count, not a time.
# Usage: tests/cross/count_instructions.sh       (packages: tools/install_deps.sh cross)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -O1 -shared -fPIC -o "$work/count.so" tests/cross/count_instructions.c
aarch64-linux-gnu-g++ -std=c++20 -O2 -static -Iinclude -Ikernels -o "$work/one_gemm" tests/cross/one_gemm.cpp
count() { qemu-aarch64 -cpu max -plugin "$work/count.so" "$work/one_gemm" "$@" 2>&1; }
for set in scalar neon dotprod i8mm; do
  none=$(count $set none)
  for op in f32 f16 s8; do
    instructions=$(($(count $set $op) - none))
    printf '%-8s %-4s %10d instructions %6.2f products each\n' $set $op $instructions \
      "$(awk "BEGIN { print 50 * 768 * 768 / $instructions }")"
  done
done
