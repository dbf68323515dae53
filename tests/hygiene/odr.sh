#!/usr/bin/env bash
# Two translation units of one program, built with different flags: the linker must keep a copy of the library's code
# for each (else the unit for older CPUs may call code that they have not), and no symbol may be GNU-unique (which would
# pin a plugin in memory).
# Usage: odr.sh BUILD_DIR      (any build folder with the programs: their symbols are looked at as well)
set -euo pipefail
build_dir=$(cd "$1" && pwd)
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
case $(uname -m) in x86_64) other="-mavx2 -mfma -ffast-math" ;; *) other="-ffast-math" ;; esac
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

no_unique() {  # FILE: of gcc alone; hidden ones stay out of a shared library's symbols
  if readelf -sW "$1" | grep -w UNIQUE | grep -vw HIDDEN | c++filt | grep 'ocellus::'; then
    echo "$1: GNU-unique symbols"
    exit 1
  fi
}

for compiler in g++ clang++; do
  command -v "$compiler" >/dev/null || { echo "skipped: no $compiler"; continue; }
  flags="-std=c++20 -O1 -Iinclude -Ikernels -c"
  # shellcheck disable=SC2086
  { $compiler $flags tests/odr/a.cpp -o "$scratch/a.o" & $compiler $flags $other tests/odr/b.cpp -o "$scratch/b.o" & wait -n; wait -n; }
  $compiler "$scratch/a.o" "$scratch/b.o" -o "$scratch/odr"
  nm -C "$scratch/odr" >"$scratch/symbols"
  copies=$(grep -oE 'ocellus::v0_[a-z0-9_]+::to_f16\(float\)' "$scratch/symbols" | sort -u | wc -l)
  [ "$copies" -eq 2 ] || { echo "$compiler: $copies copies of to_f16, not one for each set of flags"; exit 1; }
  no_unique "$scratch/odr"
  if grep -E 'ocellus::' "$scratch/symbols" | grep -vE 'ocellus::v0_'; then echo "$compiler: outside of the ABI namespace"; exit 1; fi
  if [ "$(uname -m)" != x86_64 ] || grep -qw avx2 /proc/cpuinfo; then "$scratch/odr"; else echo "skipped: no AVX2 to run it"; fi
  if [ "$(uname -m)" = x86_64 ]; then
    abi() { echo '#include <ocellus/config.hpp>
OCELLUS_ABI' | $compiler -std=c++20 -Iinclude -E -P -x c++ "$@" - | tail -1; }
    while read -r one two; do
      # shellcheck disable=SC2086
      [ "$(abi ${one//,/ })" != "$(abi ${two//,/ })" ] || { echo "$compiler: one namespace for $one and $two"; exit 1; }
    done <<'PAIRS'
-msse4.1 -mavx
-msse2 -msse3
-mavx2 -mavx2,-mfma,-mbmi2
-mavx2 -mavx2,-mfma
-march=skylake-avx512 -march=icelake-server
-march=icelake-server -march=sapphirerapids
-march=haswell -march=skylake-avx512
-march=haswell -march=alderlake
-march=skylake-avx512 -march=cascadelake
-march=cascadelake -march=cooperlake
-mavx2,-mfma -mavx2,-mbmi2
-msse4.1 -msse4.2
-msse3 -mssse3
-msse2 -mpopcnt
-msse2 -mlzcnt
PAIRS
  fi
  echo "$compiler: one copy of the library for each set of flags"
done

for unit in ocellus ocellus-convert libocellus-compiled.a; do
  [ -f "$build_dir/$unit" ] || { echo "skipped: $unit is not built"; continue; }
  no_unique "$build_dir/$unit"
done
echo "no GNU-unique symbols in the programs and the kernels"
