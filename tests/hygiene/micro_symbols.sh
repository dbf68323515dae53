#!/usr/bin/env bash
# Firmware needs no heap, exceptions, RTTI, iostream, threads or thread-safe statics: an object with both towers and the
# tokenizer may ask the linker for a handful of C functions only. Run for the host and, where it is installed, the
# compiler for Cortex-M, whose code must also stay small: a pinned tower with its kernels in 64 KiB (x86: 150 KiB).
# Usage: micro_symbols.sh
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

cat >"$scratch/vision.cpp" <<'CPP'
#include <ocellus/generic/scalar.hpp>
#include <ocellus/micro.hpp>
static constexpr ocellus::model_config config =
    ocellus::vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
using tower = ocellus::vision_tower<config, ocellus::pinned<ocellus::kernels::scalar>>;
static tower eye;
static ocellus::static_arena<tower::arena_size> memory;
ocellus::status start(std::span<const std::byte> flash) { return eye.bind(flash); }
void see(const std::uint8_t* frame, float (&embedding)[64]) { eye(frame, embedding, memory); }
CPP
cat >"$scratch/text.cpp" <<'CPP'
#include <ocellus/generic/scalar.hpp>
#include <ocellus/micro.hpp>
#include <ocellus/text/tokenizer.hpp>
static constexpr ocellus::model_config config = ocellus::clip_model(
    ocellus::vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64),
    ocellus::text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2));
using tower = ocellus::text_tower<config, ocellus::pinned<ocellus::kernels::scalar>>;
static tower reader;
static ocellus::static_arena<tower::arena_size> memory;
ocellus::status start(std::span<const std::byte> flash) { return reader.bind(flash); }
ocellus::status read(const std::int32_t (&ids)[32], float (&embedding)[64]) { return reader(ids, embedding, memory); }
ocellus::result<ocellus::tokenizer> words(std::span<const std::byte> blob) { return ocellus::tokenizer::open(blob); }
CPP

# What the C library, libm and the compiler's runtime (integer division, soft double) may be asked for.
allowed='memcpy|memmove|memset|memcmp|memchr|strlen|sqrtf|fmaf|floor|_GLOBAL_OFFSET_TABLE_|__stack_chk_fail'
allowed+='|__(aeabi_|popcount|ctz|clz|div|mod|udiv|umod|mul|add|sub|float|fix|gt|lt|ge|le|eq|ne)[a-z0-9_]*'
flags="-std=c++20 -O2 -fno-exceptions -fno-rtti -fno-threadsafe-statics -Iinclude -Ikernels -c"

check() {  # NAME LIMIT NM SIZE COMPILER...
  local name=$1 limit=$2 nm=$3 size=$4
  shift 4
  for unit in vision text; do
    # shellcheck disable=SC2086
    "$@" $flags "$scratch/$unit.cpp" -o "$scratch/$unit.o"
    asked=$("$nm" -u "$scratch/$unit.o" | awk '{print $2}' | sort -u)
    if echo "$asked" | grep -vxE "$allowed" >"$scratch/more"; then
      echo "$name, $unit: an object for firmware asks for: $(tr '\n' ' ' <"$scratch/more")"
      exit 1
    fi
    code=$("$size" "$scratch/$unit.o" | awk 'NR == 2 {print $1}')
    echo "$name, $unit: $code bytes of code and constants; asks for $(echo "$asked" | tr '\n' ' ')"
    if [ "$unit" = vision ] && [ "$code" -gt "$limit" ]; then echo "more than $limit bytes"; exit 1; fi
  done
}

check "g++" 153600 nm size g++
if command -v arm-none-eabi-g++ >/dev/null; then
  arm="arm-none-eabi-g++ -mthumb -mfloat-abi=hard"
  # shellcheck disable=SC2086
  check "Cortex-M55" 65536 arm-none-eabi-nm arm-none-eabi-size $arm -mcpu=cortex-m55
  check "Cortex-M0" 65536 arm-none-eabi-nm arm-none-eabi-size arm-none-eabi-g++ -mthumb -mcpu=cortex-m0
else
  echo "skipped: no arm-none-eabi-g++"
fi
