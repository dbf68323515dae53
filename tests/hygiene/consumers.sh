#!/usr/bin/env bash
# The three ways to use the library, each as a stranger would: find_package from an install prefix, add_subdirectory,
# and two -I flags without CMake. The program is tests/consumer/main.cpp; each way must build without a warning, and
# run.
# Usage: consumers.sh BUILD_DIR      (any configured build folder of ocellus, to install from)
set -euo pipefail
source_dir=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
build_dir=$(cd "$1" && pwd)
scratch=$(mktemp -d "${TMPDIR:-/tmp}/ocellus consumer XXXXXX")
trap 'rm -rf "$scratch"' EXIT

warnings="-Wall -Wextra -Wconversion -Werror"
way() {  # NAME CMAKE_ARGUMENT...
  local name=$1
  shift
  cmake -S "$source_dir/tests/consumer" -B "$scratch/$name" -DCMAKE_CXX_FLAGS="-O1 $warnings" "$@" >"$scratch/log" 2>&1 &&
    cmake --build "$scratch/$name" >>"$scratch/log" 2>&1 || { cat "$scratch/log"; echo "$name failed"; exit 1; }
  "$scratch/$name/consumer"
  echo "$name works"
}

cmake --install "$build_dir" --prefix "$scratch/prefix" >"$scratch/log" || { cat "$scratch/log"; exit 1; }
way find_package -DOCELLUS_FROM=find_package -DCMAKE_PREFIX_PATH="$scratch/prefix" \
  -DCMAKE_NO_SYSTEM_FROM_IMPORTED=ON  # else its warnings are hidden
way add_subdirectory -DOCELLUS_FROM=add_subdirectory -DOCELLUS_SOURCE_DIR="$source_dir"

plain() {  # COMPILER FLAG...
  command -v "$1" >/dev/null || { echo "skipped: no $1"; return; }
  # shellcheck disable=SC2086
  "$@" -std=c++20 $warnings -I"$source_dir/include" -I"$source_dir/kernels" "$source_dir/tests/consumer/main.cpp" \
    -o "$scratch/plain"
  "$scratch/plain"
  echo "$* -Iinclude -Ikernels works"
}
plain g++ -O0 -fno-exceptions -fno-rtti
plain clang++ -O1
