// The peak loops of the machine's multiply-add units, for bench-peak and for the % of peak of bench_kernels: independent
// chains of accumulators in registers, with nothing else in the loop. A latency of 6 cycles at two a cycle needs 12, and
// some more where the scheduler is not perfect: vdpbf16ps of Zen 5 reached 92 % with 12 and all with 14 (a kernel was
// at 104 % of the peak then). Fourteen are all that 16 registers allow.
#pragma once

#include <ocellus/isa/detect.hpp>
#if defined(__aarch64__)
#include <ocellus/arm/region.hpp>
#endif

#include <cstring>
#include <vector>

namespace peak {
namespace {

struct unit {
  const char* name;
  const char* type;  // of the weights that it multiplies
  int macs;          // of one turn of the loop: of all its instructions
  void (*run)(long loops);
  bool there;
};

#if defined(__x86_64__)

constexpr int chains = 14;
#define CHAIN(i) " %15, %14, %" #i "\n\t"
// 0x3c3c.. is a small normal number in f32 and bf16, and about one in fp16.
#define UNIT(name, features, bytes, instruction)                                                                      \
  __attribute__((target(features), noinline, unused)) void name(long loops) {                                         \
    typedef float vector __attribute__((vector_size(bytes)));                                                         \
    vector a, c[chains];                                                                                              \
    std::memset(&a, 0x3c, sizeof a);                                                                                  \
    std::memset(c, 0, sizeof c);                                                                                      \
    vector c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7], c8 = c[8], c9 = c[9],    \
           c10 = c[10], c11 = c[11], c12 = c[12], c13 = c[13];                                                        \
    const vector b = a;                                                                                               \
    for (; loops > 0; loops--)                                                                                        \
      asm volatile(instruction CHAIN(0) instruction CHAIN(1) instruction CHAIN(2) instruction CHAIN(3) instruction CHAIN(4) \
                       instruction CHAIN(5) instruction CHAIN(6) instruction CHAIN(7) instruction CHAIN(8)            \
                           instruction CHAIN(9) instruction CHAIN(10) instruction CHAIN(11) instruction CHAIN(12)     \
                               instruction CHAIN(13)                                                                  \
                   : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9),    \
                     "+v"(c10), "+v"(c11), "+v"(c12), "+v"(c13)                                                       \
                   : "v"(a), "v"(b));                                                                                 \
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
#define TILE_UNIT(name, instruction)                                                                                  \
  __attribute__((target("amx-tile"))) inline void name(long loops) {                                                  \
    struct alignas(64) {                                                                                              \
      std::uint8_t palette = 1, start = 0, reserved[14] = {};                                                         \
      std::uint16_t bytes[16] = {64, 64, 64, 64, 64, 64};                                                             \
      std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16};                                                               \
    } shapes;                                                                                                         \
    asm volatile("ldtilecfg (%0)" : : "r"(&shapes) : "memory");                                                       \
    for (; loops > 0; loops--)                                                                                        \
      asm volatile(TILE_TURN(instruction) TILE_TURN(instruction) TILE_TURN(instruction) : :);                         \
    asm volatile("tilerelease");                                                                                      \
  }
#define TILE_TURN(instruction)                                                                                        \
  instruction " %%tmm5, %%tmm4, %%tmm0\n\t" instruction " %%tmm5, %%tmm4, %%tmm1\n\t" instruction                     \
              " %%tmm5, %%tmm4, %%tmm2\n\t" instruction " %%tmm5, %%tmm4, %%tmm3\n\t"

TILE_UNIT(amx_s8, "tdpbusd")
TILE_UNIT(amx_bf16, "tdpbf16ps")

inline std::vector<unit> units() {
  const ocellus::cpu_features f = ocellus::detect_cpu();
  const bool amx = f.amx && ocellus::request_amx_tiles();
  constexpr int tiles = 12;
  return {{"tdpbusd_tmm", "s8", tiles * 16 * 16 * 64, amx_s8, amx},
          {"tdpbf16ps_tmm", "bf16", tiles * 16 * 16 * 32, amx_bf16, amx},
          {"fma_ymm", "f32", chains * 8, fma_256, f.avx2},
          {"fma_zmm", "f32", chains * 16, fma_512, f.avx512},
          {"vdpbf16ps_zmm", "bf16", chains * 32, bf16_512, f.avx512bf16},
          {"vfmaddph_zmm", "f16", chains * 32, fp16_512, f.avx512fp16},
          {"vpmaddwd_ymm", "s16", chains * 16, madd_256, f.avx2},
          {"vpmaddwd_zmm", "s16", chains * 32, madd_512, f.avx512},
          {"vpdpbusd_ymm", "s8", chains * 32, vnni_256, f.avxvnni},
          {"vpdpbusd_zmm", "s8", chains * 64, vnni_512, f.avx512vnni}};
}

#elif defined(__aarch64__)

constexpr int chains = 24;  // four a cycle, with a latency of 4 and more

// The assembler takes instructions of all these extensions; detect_cpu tells which ones may run.
#define CHAINS(x) \
  x(0) x(1) x(2) x(3) x(4) x(5) x(6) x(7) x(8) x(9) x(10) x(11) x(12) x(13) x(14) x(15) x(16) x(17) x(18) x(19) x(20) \
      x(21) x(22) x(23)
#define UNIT(name, line)                                                                                        \
  inline void name(long loops) {                                                                                \
    asm volatile("movi v30.16b, #0\n\t movi v31.16b, #0" ::: "v30", "v31");                                      \
    for (; loops > 0; loops--)                                                                                  \
      asm volatile(".arch armv8.6-a+fp16\n\t" CHAINS(line)::                                                    \
                       : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v8", "v9", "v10", "v11", "v12", "v13", \
                         "v14", "v15", "v16", "v17", "v18", "v19", "v20", "v21", "v22", "v23");                 \
  }
#define FMLA(i) "fmla v" #i ".4s, v30.4s, v31.4s\n\t"
#define FMLA_HALF(i) "fmla v" #i ".8h, v30.8h, v31.8h\n\t"
#define SMLAL(i) "smlal v" #i ".4s, v30.4h, v31.4h\n\t"
#define SDOT(i) "sdot v" #i ".4s, v30.16b, v31.16b\n\t"
#define BFMMLA(i) "bfmmla v" #i ".4s, v30.8h, v31.8h\n\t"
#define USMMLA(i) "usmmla v" #i ".4s, v30.16b, v31.16b\n\t"

UNIT(fmla, FMLA)
#if OCELLUS_HAS_FP16
UNIT(fmla_half, FMLA_HALF)
#endif
UNIT(smlal, SMLAL)
UNIT(sdot, SDOT)
UNIT(bfmmla, BFMMLA)
UNIT(usmmla, USMMLA)

inline std::vector<unit> units() {
  const ocellus::cpu_features f = ocellus::detect_cpu();
  return {{"fmla", "f32", chains * 4, fmla, true},
#if OCELLUS_HAS_FP16
          {"fmla_8h", "f16", chains * 8, fmla_half, f.fp16},
#endif
          {"smlal", "s16", chains * 4, smlal, true},
          {"sdot", "s8", chains * 16, sdot, f.dotprod},
          {"bfmmla", "bf16", chains * 16, bfmmla, f.i8mm},
          {"usmmla", "s8", chains * 32, usmmla, f.i8mm}};
}

#else

inline std::vector<unit> units() { return {}; }

#endif

}  // namespace
}  // namespace peak
