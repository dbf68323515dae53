// The instruction sets that ocellus has kernels for, by the feature's own name in lower case.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>
#include <string_view>

OCELLUS_BEGIN

/// One kernel set each. Names are those of list.def, of `--isa NAME` and of the benches.
enum class isa : std::uint8_t {
  scalar,
  portable,
  sse41,
  avx2,
  avxvnni,
  avx512,
  avx512vnni,
  avx512bf16,
  avx512fp16,
  amx,
  neon,
  fp16,
  dotprod,
  i8mm,
  sve,
  mve,
  dsp,
  rvv,
  simd128,
  relaxed,
};

constexpr std::string_view to_string(isa id) noexcept {
  constexpr std::string_view names[] = {"scalar",     "portable",   "sse41", "avx2", "avxvnni", "avx512",
                                        "avx512vnni", "avx512bf16", "avx512fp16", "amx", "neon", "fp16",
                                        "dotprod",    "i8mm",       "sve",   "mve",  "dsp",     "rvv",
                                        "simd128",    "relaxed"};
  return names[static_cast<int>(id)];
}

OCELLUS_END
