// The peak loops of the machine's multiply-add units, for bench-peak and for the % of peak of bench_kernels: 12
// independent chains of accumulators in registers, with nothing else in the loop: enough for a latency of 6 cycles at two
// a cycle.
#pragma once

#include <ocellus/isa/detect.hpp>

#include <cstring>
#include <vector>

namespace peak {
namespace {

struct unit {
  const char* name;
  const char* type;  // of the weights that it multiplies
  int macs;          // of one instruction
  void (*run)(long loops);
  bool there;
};

constexpr int chains = 12;

#if defined(__x86_64__)

#define CHAIN(i) " %13, %12, %" #i "\n\t"
// 0x3c3c.. is a small normal number in f32 and bf16, and about one in fp16.
#define UNIT(name, features, bytes, instruction)                                                                            \
  __attribute__((target(features), noinline, unused)) void name(long loops) {                                                       \
    typedef float vector __attribute__((vector_size(bytes)));                                                               \
    vector a, c[chains];                                                                                                    \
    std::memset(&a, 0x3c, sizeof a);                                                                                        \
    std::memset(c, 0, sizeof c);                                                                                            \
    vector c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7], c8 = c[8], c9 = c[9],    \
           c10 = c[10], c11 = c[11];                                                                                        \
    const vector b = a;                                                                                                     \
    for (; loops > 0; loops--)                                                                                              \
      asm volatile(instruction CHAIN(0) instruction CHAIN(1) instruction CHAIN(2) instruction CHAIN(3) instruction CHAIN(4) \
                       instruction CHAIN(5) instruction CHAIN(6) instruction CHAIN(7) instruction CHAIN(8)                  \
                           instruction CHAIN(9) instruction CHAIN(10) instruction CHAIN(11)                                 \
                   : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9),    \
                     "+v"(c10), "+v"(c11)                                                                                   \
                   : "v"(a), "v"(b));                                                                                       \
  }

UNIT(fma_256, "avx2,fma", 32, "vfmadd231ps")
UNIT(fma_512, "avx512f", 64, "vfmadd231ps")
UNIT(bf16_512, "avx512f,avx512bf16", 64, "vdpbf16ps")
UNIT(vnni_256, "avx2", 32, "%{vex%} vpdpbusd")
UNIT(vnni_512, "avx512f,avx512vnni", 64, "vpdpbusd")
UNIT(madd_256, "avx2", 32, "vpmaddwd")
UNIT(madd_512, "avx512f,avx512bw", 64, "vpmaddwd")
UNIT(fp16_512, "avx512f", 64, "vfmadd231ph")

/// Tiles of 16 rows; four sums take turns, the two operands are always the same.
#define TILE_UNIT(name, instruction)                                                                                        \
  __attribute__((target("amx-tile"))) inline void name(long loops) {                                                       \
    struct alignas(64) {                                                                                                   \
      std::uint8_t palette = 1, start = 0, reserved[14] = {};                                                              \
      std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64};                                                                  \
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16};                                                                    \
    } shapes;                                                                                                              \
    asm volatile("ldtilecfg (%0)" : : "r"(&shapes) : "memory");                                                            \
    for (; loops > 0; loops--)                                                                                             \
      asm volatile(TILE_TURN(instruction) TILE_TURN(instruction) TILE_TURN(instruction) : :);                               \
    asm volatile("tilerelease");                                                                                           \
  }
#define TILE_TURN(instruction)                                                                                              \
  instruction " %%tmm5, %%tmm4, %%tmm0\n\t" instruction " %%tmm5, %%tmm4, %%tmm1\n\t" instruction                           \
              " %%tmm5, %%tmm4, %%tmm2\n\t" instruction " %%tmm5, %%tmm4, %%tmm3\n\t"

TILE_UNIT(amx_s8, "tdpbusd")
TILE_UNIT(amx_bf16, "tdpbf16ps")

inline std::vector<unit> units() {
  const ocellus::cpu_features f = ocellus::detect_cpu();
  const bool amx = f.amx && ocellus::request_amx_tiles();
  return {{"tdpbusd_tmm", "s8", 16 * 16 * 64, amx_s8, amx}, {"tdpbf16ps_tmm", "bf16", 16 * 16 * 32, amx_bf16, amx},
          {"fma_ymm", "f32", 8, fma_256, f.avx2},           {"fma_zmm", "f32", 16, fma_512, f.avx512},
          {"vdpbf16ps_zmm", "bf16", 32, bf16_512, f.avx512bf16}, {"vfmaddph_zmm", "f16", 32, fp16_512, f.avx512fp16},
          {"vpmaddwd_ymm", "s16", 16, madd_256, f.avx2},    {"vpmaddwd_zmm", "s16", 32, madd_512, f.avx512},
          {"vpdpbusd_ymm", "s8", 32, vnni_256, f.avxvnni},  {"vpdpbusd_zmm", "s8", 64, vnni_512, f.avx512vnni}};
}

#elif defined(__aarch64__)

inline void fma_128(long loops) {
  for (; loops > 0; loops--)
    asm volatile(
        "fmla v0.4s, v30.4s, v31.4s\n\t fmla v1.4s, v30.4s, v31.4s\n\t fmla v2.4s, v30.4s, v31.4s\n\t"
        "fmla v3.4s, v30.4s, v31.4s\n\t fmla v4.4s, v30.4s, v31.4s\n\t fmla v5.4s, v30.4s, v31.4s\n\t"
        "fmla v6.4s, v30.4s, v31.4s\n\t fmla v7.4s, v30.4s, v31.4s\n\t fmla v16.4s, v30.4s, v31.4s\n\t"
        "fmla v17.4s, v30.4s, v31.4s\n\t fmla v18.4s, v30.4s, v31.4s\n\t fmla v19.4s, v30.4s, v31.4s" ::
            : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19");
}

inline std::vector<unit> units() { return {{"fmla", "f32", 4, fma_128, true}}; }

#else

inline std::vector<unit> units() { return {}; }

#endif

}  // namespace
}  // namespace peak
