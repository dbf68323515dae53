#!/usr/bin/env bash
# Installs what ocellus needs from Debian's (or Ubuntu's) own packages, by name; does nothing for what is there.
# Usage: tools/install_deps.sh [build] [test] [bench] [cross] [web]        (nothing given: build)
#   build   the converter and the programs     test   + the tests, fuzzers and both compilers     bench   + benchmarks
#   cross   compilers and emulators for the other targets     web   WebAssembly: compiler, libraries, node, Chromium
set -euo pipefail

build=(g++ make cmake zlib1g-dev nlohmann-json3-dev libcli11-dev libstb-dev)
test=(doctest-dev libeigen3-dev libhwy-dev libxsimd-dev clang libclang-rt-dev ninja-build python3 git)
bench=(libbenchmark-dev libeigen3-dev libhwy-dev libxsimd-dev valgrind python3 python3-numpy)
cross=(g++-aarch64-linux-gnu libc6-dev-arm64-cross g++-arm-linux-gnueabihf libc6-dev-armhf-cross
  g++-riscv64-linux-gnu libc6-dev-riscv64-cross g++-powerpc64le-linux-gnu libc6-dev-ppc64el-cross clang-19 libhwy-dev
  qemu-user g++-mingw-w64-x86-64-posix libz-mingw-w64-dev lld-19 wine64
  gcc-arm-none-eabi libnewlib-arm-none-eabi libstdc++-arm-none-eabi-newlib qemu-system-arm)
web=(clang-19 lld-19 wasi-libc libc++-19-dev-wasm32 libc++abi-19-dev-wasm32 libclang-rt-19-dev-wasm32 nodejs chromium)

wanted=()
for set in "${@:-build}"; do
  case $set in
    build) wanted+=("${build[@]}") ;;
    test) wanted+=("${build[@]}" "${test[@]}") ;;
    bench) wanted+=("${build[@]}" "${bench[@]}") ;;
    cross) wanted+=("${build[@]}" doctest-dev libeigen3-dev "${cross[@]}") ;;
    web) wanted+=("${build[@]}" doctest-dev libeigen3-dev python3 "${web[@]}") ;;
    *) sed -n '2,5s/^# //p' "$0"; exit 2 ;;
  esac
done

if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
  echo "install_deps: not a Debian-like system. Needed are: ${wanted[*]}" >&2
  exit 0
fi

missing() {
  local package
  for package in "${wanted[@]}"; do
    dpkg-query -W -f='${Status}\n' "$package" 2>/dev/null | grep -q 'ok installed' || echo "$package"
  done | sort -u
}

mapfile -t packages < <(missing)
[ ${#packages[@]} -gt 0 ] || exit 0

root=()
[ "$(id -u)" -eq 0 ] || root=(sudo)
apt() { "${root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o DPkg::Lock::Timeout=120 "$@"; }

echo "installing: ${packages[*]}"
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# The package lists may be empty (a fresh container) or old: try, bring them up to date once, try again.
if ! apt install -y --no-install-recommends "${packages[@]}" >"$log" 2>&1; then
  apt update >>"$log" 2>&1 || true
  apt install -y --no-install-recommends "${packages[@]}" >>"$log" 2>&1 || {
    tail -n 20 "$log" >&2
    echo "install_deps: apt-get could not install: ${packages[*]}" >&2
    exit 1
  }
fi
