#!/usr/bin/env bash
# Each header of the library compiles alone, without exceptions and RTTI, without a warning, by each compiler there is.
# Usage: headers.sh [COMPILER...]      (nothing given: g++, clang++ and clang++-19, those that are installed)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

compilers=("$@")
if [ ${#compilers[@]} -eq 0 ]; then
  for compiler in g++ clang++ clang++-19; do
    command -v "$compiler" >/dev/null && compilers+=("$compiler")
  done
fi
export FLAGS="-std=c++20 -fsyntax-only -fno-exceptions -fno-rtti -Wall -Wextra -Wconversion -Werror
  -Iinclude -Ikernels -isystem /usr/include/eigen3"

alone() {  # COMPILER HEADER
  # shellcheck disable=SC2086
  echo "#include <$2>" | "$1" $FLAGS -x c++ - 2>&1 || { echo "$1: <$2> does not compile alone"; return 1; }
}
export -f alone

mapfile -t headers < <(for root in include kernels; do (cd $root && find ocellus -name '*.hpp'); done | sort)
for compiler in "${compilers[@]}"; do printf "$compiler %s\n" "${headers[@]}"; done |
  xargs -P "$(nproc)" -L 1 bash -c 'alone "$0" "$1"'
echo "${#headers[@]} headers compile alone by ${compilers[*]}"
