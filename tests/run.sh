#!/usr/bin/env bash
# Everything that CI runs, on a bare Debian 12 or after: installs, builds, tests, and says at its end what ran, what
# was skipped and how long each step took. A failing step does not stop the later ones: one run tells all.
# Usage: tests/run.sh [STEP...]      (nothing given: all)
#   install release quickstart fastmath asan fuzz                      this machine
#   cortex-m55 wasm windows riscv64 aarch64 cortex-m4 armv7 cortex-m7  others, in their emulators
# OCELLUS_TIME_LIMIT=SECONDS: steps of other machines that would begin later than that are skipped, and said so.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
jobs=$(nproc)
export CTEST_PARALLEL_LEVEL=$jobs UBSAN_OPTIONS=print_stacktrace=1
[ $# -gt 0 ] ||
  set -- install release quickstart fastmath asan fuzz cortex-m55 wasm windows riscv64 aarch64 cortex-m4 armv7 cortex-m7

step_install() {
  tools/install_deps.sh test bench
  for set in cross web; do
    if grep -q "^$set=(" tools/install_deps.sh; then
      tools/install_deps.sh $set || echo "skipped: packages of $set could not be installed"
    fi
  done
}

step_release() {  # the programs, all tests, the hygiene tests
  cmake --preset release
  cmake --build --preset release -j"$jobs"
  ctest --preset release
}

step_quickstart() { examples/quickstart.sh; }

step_fastmath() {  # law 2 in a program that clang builds with -ffast-math, which it takes further than gcc does
  cmake --preset clang
  cmake --build --preset clang -j"$jobs" --target ocellus-tests-fastmath
  ctest --preset clang --tests-regex '^ocellus-tests-fastmath/'
}

step_asan() {  # the unit tests again, with AddressSanitizer and UndefinedBehaviorSanitizer
  cmake --preset asan
  cmake --build --preset asan -j"$jobs" --target ocellus-tests
  ctest --preset asan --tests-regex '^ocellus-tests/'
}

step_fuzz() {  # each fuzzer over its seeds and for a few seconds more
  cmake --preset asan
  cmake --build --preset asan -j"$jobs" --target fuzzers
  ctest --preset asan --tests-regex '^fuzz_'
}

firmware() {  # CPU: the demo model's embeddings bit for bit those of this machine
  local command
  for command in arm-none-eabi-g++ qemu-system-arm; do
    command -v "$command" >/dev/null || { echo "skipped: no $command (tools/install_deps.sh cross)"; exit 77; }
  done
  cmake --preset release
  cmake --build --preset release -j"$jobs" --target ocellus-convert make_frames
  cmake --preset "$1" -DOCELLUS_HOST="$PWD/build"
  cmake --build --preset "$1" -j"$jobs"
  ctest --preset "$1" --verbose
}

step_cortex-m55() { firmware cortex-m55; }
step_cortex-m7() { firmware cortex-m7; }
step_cortex-m4() { firmware cortex-m4; }
# every kernel set against scalar, the demo model's embeddings against this machine's
step_aarch64() { tests/cross/run.sh aarch64; }
step_armv7() { tests/cross/run.sh armv7; }
step_riscv64() { tests/cross/run.sh riscv64; }
step_windows() { tests/cross/run.sh windows; }  # the programs too, in Wine
step_wasm() { tests/cross/run.sh wasm; }  # the web page too, in node and where it is installed in headless Chromium

logs=$(mktemp -d)
trap 'rm -rf "$logs"' EXIT
passed=0 failed=0 table=""
for step in "$@"; do
  printf '\n=== %s\n' "$step"
  started=$SECONDS
  # make begins with no target before those that it links are complete: one core would compile the kernels, one file, and
  # the others wait
  if command -v ninja >/dev/null; then export CMAKE_GENERATOR=Ninja; fi
  case $step in
    install | release | quickstart | fastmath | asan | fuzz) late= ;;
    *) [ "$SECONDS" -lt "${OCELLUS_TIME_LIMIT:-999999}" ] && late= || late=1 ;;
  esac
  if [ -n "$late" ]; then
    echo "skipped: step $step, the time limit of $OCELLUS_TIME_LIMIT s had passed" | tee "$logs/$step"
    verdict=77
  else
    set +e
    (set -e; "step_$step") 2>&1 | tee "$logs/$step"
    verdict=${PIPESTATUS[0]}
    set -e
  fi
  if [ "$verdict" -eq 77 ]; then
    table+=$(printf '%-12s skipped' "$step")$'\n'
    continue
  fi
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
[ -d "${OCELLUS_SHARED:-../shared}" ] || echo "skipped: tests on shared data, ${OCELLUS_SHARED:-../shared} is not there" >"$logs/shared"
{
  cat "$logs"/*
  for step in "$@"; do
    case $step in
      release) folder=build ;;
      fastmath) folder=build-clang ;;
      *) folder=build-$step ;;
    esac
    cat "$folder/Testing/Temporary/LastTest.log" 2>/dev/null || true
  done
} | grep -oE '(kernel sets ran: .*|skipped: .*)' | sort -u >"$logs.said" || true
sed 's/^/  /' "$logs.said"
skipped=$(grep -c '^skipped: ' "$logs.said" || true)
rm -f "$logs.said"
printf '%s' "$table"
printf '%d passed, %d failed, %d skipped\n' "$passed" "$failed" "$skipped"
[ "$failed" -eq 0 ]
