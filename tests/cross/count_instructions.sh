#!/usr/bin/env bash
# Counts the instructions that kernel sets execute for one matrix product, in qemu. A count, not a time. With packed
# models, those of a whole picture's embedding on AArch64 as well.
# Usage: tests/cross/count_instructions.sh [MODEL.oc...] > bench/results/instructions.txt   (packages: tools/install_deps.sh cross)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
gcc -O1 -shared -fPIC -o "$work/count.so" tests/cross/count_instructions.c
models=("$@")
build_of() { "${@:2}" -std=c++20 -O2 -static -Iinclude -Ikernels -o "$work/$(basename "$1" .cpp)" "$1"; }
build() { build_of tests/cross/one_gemm.cpp "$@"; }
count() { "$emulator" -cpu "$cpu" -plugin "$work/count.so" "$work/one_gemm" "$@" 2>&1; }

# table EMULATOR CPU SET...
table() {
  emulator=$1 cpu=$2
  shift 2
  for set in "$@"; do
    none=$(count "$set" none)
    for op in f32 f16 bf16 s8; do
      instructions=$(($(count "$set" $op) - none))
      printf '%-12s %-36s %-8s %-4s %10d instructions %6.2f products each\n' "${emulator#qemu-}" "${cpu%%,rvv_*}" "$set" $op \
        $instructions "$(awk "BEGIN { print 50 * 768 * 768 / $instructions }")"
    done
  done
}

# pictures COMPILER... -- SET...: of each model, the opening of the file included
pictures() {
  local command=()
  while [ "$1" != -- ]; do command+=("$1"); shift; done
  shift
  [ ${#models[@]} -gt 0 ] || return 0
  build_of bench/embed_once.cpp "${command[@]}"
  for set in "$@"; do
    for model in "${models[@]}"; do
      printf '%-12s %-36s %-8s picture, %-20s %10d instructions\n' aarch64 max "$set" "$(basename "$model" .oc)" \
        "$(qemu-aarch64 -cpu max -plugin "$work/count.so" "$work/embed_once" "$model" image "$set" 2>&1 >/dev/null)"
    done
  done
}

echo "# tests/cross/count_instructions.sh: instructions counted in qemu, one product of 50 x 768 x 768, gcc 12 or clang 19 -O2; not times"
portable=(-DOCELLUS_PORTABLE=1 -idirafter /usr/include)  # Highway is headers alone: the host's will do
build aarch64-linux-gnu-g++ -march=armv8-a+crypto "${portable[@]}"
table qemu-aarch64 max portable
pictures aarch64-linux-gnu-g++ -march=armv8-a+crypto "${portable[@]}" -- portable
build aarch64-linux-gnu-g++
table qemu-aarch64 max scalar neon dotprod fp16 i8mm sve
pictures aarch64-linux-gnu-g++ -- neon dotprod fp16 i8mm sve
table qemu-aarch64 a64fx,sve-default-vector-length=32 sve
build arm-linux-gnueabihf-g++ -march=armv7-a -mfpu=neon-vfpv4 -mfp16-format=ieee "${portable[@]}"
table qemu-arm cortex-a7 portable
build arm-linux-gnueabihf-g++ -march=armv7-a -mfpu=neon-vfpv4
table qemu-arm cortex-a7 scalar neon
build clang++-19 --target=riscv64-linux-gnu -march=rv64gc
table qemu-riscv64 rv64 scalar
for length in 128 256 512; do
  table qemu-riscv64 rv64,v=true,vext_spec=v1.0,vlen=$length,rvv_ta_all_1s=on,rvv_ma_all_1s=on rvv
done
