#!/usr/bin/env bash
# Each header of the library compiles alone, without exceptions and RTTI, without a warning, by the first compiler; by
# the others all headers compile in one unit, for their warnings: what a header forgets to include the first one
# sees (but under a condition on the compiler).
# Usage: headers.sh [COMPILER...]      (nothing given: g++, clang++ and clang++-19, those that are installed)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

compilers=("$@")
if [ ${#compilers[@]} -eq 0 ]; then
  for compiler in g++ clang++ clang++-19; do
    command -v "$compiler" >/dev/null && compilers+=("$compiler")
  done
fi
# Headers are included with a user's warnings, and after headers that make macros of common words (Qt, X11, windows.h).
export FLAGS="-std=c++20 -fsyntax-only -fno-exceptions -fno-rtti -Wall -Wextra -Wconversion -Werror
  -Wcast-align -Wcast-qual -Wdouble-promotion -Wextra-semi -Wformat=2 -Wmissing-declarations -Wnon-virtual-dtor
  -Wnull-dereference -Wold-style-cast -Woverloaded-virtual -Wpedantic -Wredundant-decls -Wshadow -Wsign-conversion -Wundef
  -Demit= -Dslots= -Dsignals=public -Dforeach=for -DNone=0L -DStatus=int -DBool=int -DSuccess=0 -DComplex=0 -DAlways=2
  -Dnear= -Dfar= -Dsmall=char -Dinterface=struct -DERROR=0 -DIN= -DOUT= -DSTRICT=1 -DTRUE=1 -DFALSE=0
  -Iinclude -Ikernels -isystem /usr/include/eigen3"

alone() {  # COMPILER HEADER
  # shellcheck disable=SC2086
  echo "#include <$2>" | "$1" $FLAGS -x c++ - 2>&1 || { echo "$1: <$2> does not compile alone"; return 1; }
}
export -f alone

mapfile -t headers < <(for root in include kernels; do (cd $root && find ocellus -name '*.hpp'); done | sort)
printf "${compilers[0]} %s\n" "${headers[@]}" | xargs -P "$(nproc)" -L 1 bash -c 'alone "$0" "$1"'
for compiler in "${compilers[@]:1}"; do
  # shellcheck disable=SC2086
  printf "#include <%s>\n" "${headers[@]}" | "$compiler" $FLAGS -x c++ -
done
# The kernels of AArch64 by clang, which Android and Apple's systems have; code is made, for the target features of what
# is inlined are looked at only then.
if [ -d /usr/aarch64-linux-gnu/include/c++ ]; then
  for compiler in "${compilers[@]}"; do
    # shellcheck disable=SC2086
    [[ $compiler != clang* ]] || echo '#include <ocellus/isa/dispatch.hpp>
ocellus::kernel_table kernels() { return ocellus::best_kernels(); }' |
      "$compiler" --target=aarch64-linux-gnu ${FLAGS/-fsyntax-only/-O1 -c -o \/dev\/null} -x c++ -
  done
fi
# gcc folds less under UBSan: what the sets' tables take to be constant must be so there too.
# shellcheck disable=SC2086
echo '#include <ocellus/models/model.hpp>
int main() { return ocellus::model::open("m.oc") ? 0 : 1; }' |
  "${compilers[0]}" $FLAGS -fsanitize=undefined -fno-delete-null-pointer-checks -x c++ -
echo "${#headers[@]} headers compile alone by ${compilers[0]}${compilers[1]:+, together by ${compilers[*]:1}}"
