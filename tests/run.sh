#!/usr/bin/env bash
# Everything that CI runs, on a bare Debian 12 or after: installs, builds, tests, and says at its end what ran, what
# was skipped and how long each step took. A failing step does not stop the later ones: one run tells all.
# Usage: tests/run.sh [STEP...]      steps: install release quickstart asan fuzz, and aarch64 armv7 riscv64 wasm (nothing
# given: all but these)
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc)
export CTEST_PARALLEL_LEVEL=$jobs UBSAN_OPTIONS=print_stacktrace=1
[ $# -gt 0 ] || set -- install release quickstart asan fuzz

step_install() { tools/install_deps.sh test bench; }

step_release() {  # the programs, all tests, the hygiene tests
  cmake --preset release
  cmake --build --preset release -j"$jobs"
  ctest --preset release
}

step_quickstart() { examples/quickstart.sh; }

step_asan() {  # the unit tests again, with assertions, AddressSanitizer and UndefinedBehaviorSanitizer
  cmake --preset asan
  cmake --build --preset asan -j"$jobs" --target ocellus-tests
  ctest --preset asan --tests-regex '^ocellus-tests/'
}

step_fuzz() {  # each fuzzer over its seeds and for a few seconds more
  cmake --preset fuzz
  cmake --build --preset fuzz -j"$jobs"
  ctest --preset fuzz
}

# 64-bit Arm, 32-bit Arm and RISC-V in qemu: every kernel set, and the demo model's embeddings bit for bit those of this
# machine. They say what they skip where a compiler or an emulator is missing.
step_aarch64() { tests/cross/run.sh aarch64; }
step_armv7() { tests/cross/run.sh armv7; }
step_riscv64() { tests/cross/run.sh riscv64; }

step_wasm() {  # the modules of the web page in node, and the page in headless Chromium where it is installed
  if ! command -v clang++-19 >/dev/null || ! [ -d /usr/include/wasm32-wasi ]; then
    echo "skipped: no clang or no library for WebAssembly (tools/install_deps.sh web)"
    return
  fi
  tests/cross/run.sh wasm
}

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 table=""
for step in "$@"; do
  printf '\n=== %s\n' "$step"
  started=$SECONDS
  set +e
  (set -e; "step_$step") 2>&1 | tee "$logs/$step"
  verdict=${PIPESTATUS[0]}
  set -e
  # ctest's closing line: "97% tests passed, 1 tests failed out of 38"
  read -r bad all < <(sed -nE 's/^[0-9]+% tests passed, ([0-9]+) tests? failed out of ([0-9]+)$/\1 \2/p' "$logs/$step" |
    tail -n 1 | grep . || echo "$((verdict != 0)) 1")
  if [ "$verdict" -ne 0 ] && [ "$bad" -eq 0 ]; then bad=1 all=$((all + 1)); fi
  failed=$((failed + bad))
  passed=$((passed + all - bad))
  table+=$(printf '%-12s %4d passed %4d failed %6d s' "$step" $((all - bad)) "$bad" $((SECONDS - started)))$'\n'
done

printf '\n=== summary\n'
# Tests say what they could not run: a set that this CPU lacks, data that is not there.
find build build-asan build-fuzz build-aarch64 build-armv7 build-riscv64 build-wasm -name LastTest.log -exec grep -hoE '(kernel sets ran: .*|skipped: .*)' {} + 2>/dev/null |
  sort | uniq -c | sort -rn | sed -E 's/^ *([0-9]+) /  \1x /' || true
printf '%s' "$table"
printf '%d passed, %d failed\n' "$passed" "$failed"
[ "$failed" -eq 0 ]
