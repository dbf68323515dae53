// What this CPU can do, asked when a model is opened: cpuid and xgetbv on x86, the kernel's hwcaps on Arm Linux,
// sysctl on Apple's systems.
// A feature counts only if the operating system saves its registers too.
#pragma once

#include <ocellus/isa/isa.hpp>

#if defined(__x86_64__) || defined(__i386__)
#include <cpuid.h>
#endif
#if defined(__APPLE__)
#include <TargetConditionals.h>
#include <sys/sysctl.h>
#include <cstddef>
#endif
#if defined(__linux__) && defined(__x86_64__)
#include <sys/syscall.h>
#include <unistd.h>
#endif
#if defined(__linux__) && (defined(__aarch64__) || defined(__arm__) || defined(__riscv))
#include <sys/auxv.h>
#if defined(__aarch64__)
#include <sys/prctl.h>
#endif
#endif

OCELLUS_BEGIN

/// Features as the kernel sets need them. `slow_bf16_dot` and `nta_fills_l2` are no CPUID bits but measured properties
/// of families.
struct cpu_features {
  bool sse41 = false;       // SSSE3 and SSE4.1
  bool avx2 = false;        // AVX2, FMA, F16C, BMI2
  bool avxvnni = false;     // VEX-encoded vpdpbusd
  bool avx512 = false;      // F, BW, DQ, VL
  bool avx512vnni = false;
  bool avx512bf16 = false;
  bool avx512fp16 = false;
  bool amx = false;            // tiles of int8 and bf16, beside BF16 and FP16; ask request_amx_tiles before their use
  bool slow_bf16_dot = false;  // vdpbf16ps at half the rate of f32 FMA: Intel (measured on Sapphire Rapids)
  /// AMD, for the AVX-512 sets, so from Zen 4 on: the weights that come next are best fetched from one panel at a
  /// time, by prefetchnta. On Zen 5 that fills L2 as well, and its lines are evicted first, so that activations stay.
  /// (Intel's bypasses L2, and two deep panels are more than L1 holds.) On Zen 4 the hint makes no difference but the
  /// one panel does: ViT-B/32 at batch 1 is 4 % quicker in bf16, 0.5 % in f32.
  bool nta_fills_l2 = false;
  bool neon = false;
  bool fp16 = false;
  bool dotprod = false;
  bool i8mm = false;        // and bf16: Armv8.6 has both products of matrices; no core is known with one of them
  int sve_bytes = 0;        // length of a scalable vector, 0 without SVE
  bool rvv = false;
};

/// Asks Linux for the tiles of AMX, on behalf of the whole process; false if it refuses. Needed once before
/// kernels::amx runs: the dispatch asks where it chooses that set, programs with pinned<kernels::amx> ask themselves.
/// From then on the frames of signals are larger (11 KB), and Linux refuses alternate stacks (sigaltstack) that are
/// smaller.
inline bool request_amx_tiles() noexcept {
#if defined(__linux__) && defined(__x86_64__)
  constexpr long request = 0x1023, tile_data = 18;  // ARCH_REQ_XCOMP_PERM, XFEATURE_XTILE_DATA
  return ::syscall(SYS_arch_prctl, request, tile_data) == 0;
#else
  return false;
#endif
}

/// Asks the CPU. Costs a few microseconds (cpuid traps in virtual machines): call once and keep the answer.
inline cpu_features detect_cpu() noexcept {
  cpu_features f;
#if defined(__x86_64__) || defined(__i386__)
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (__get_cpuid(1, &a, &b, &c, &d) == 0) return f;
  f.sse41 = (c & (1u << 9)) != 0 && (c & (1u << 19)) != 0;
  const unsigned family = ((a >> 8) & 0xfu) + ((a >> 20) & 0xffu);
  const bool osxsave = (c & (1u << 27)) != 0, avx = (c & (1u << 28)) != 0, fma = (c & (1u << 12)) != 0,
             f16c = (c & (1u << 29)) != 0;
  unsigned xcr0 = 0;
  if (osxsave) {
    unsigned high = 0;
    __asm__ volatile("xgetbv" : "=a"(xcr0), "=d"(high) : "c"(0));
  }
  const bool os_ymm = (xcr0 & 0x6u) == 0x6u, os_zmm = (xcr0 & 0xe6u) == 0xe6u;
  unsigned vendor_b = 0, vendor_c = 0, vendor_d = 0, max_leaf = 0;
  __get_cpuid(0, &max_leaf, &vendor_b, &vendor_c, &vendor_d);
  if (max_leaf < 7) return f;
  unsigned a7 = 0, b7 = 0, c7 = 0, d7 = 0;
  __get_cpuid_count(7, 0, &a7, &b7, &c7, &d7);
  const bool bmi2 = (b7 & (1u << 8)) != 0;
  f.avx2 = f.sse41 && os_ymm && avx && fma && f16c && bmi2 && (b7 & (1u << 5)) != 0;  // emulators can mask one alone
  const unsigned need = (1u << 16) | (1u << 17) | (1u << 30) | (1u << 31);  // F, DQ, BW, VL
  f.avx512 = f.avx2 && os_zmm && (b7 & need) == need;
  f.avx512vnni = f.avx512 && (c7 & (1u << 11)) != 0;
  f.avx512fp16 = f.avx512vnni && (d7 & (1u << 23)) != 0;
  if (a7 >= 1) {
    unsigned a71 = 0, b71 = 0, c71 = 0, d71 = 0;
    __get_cpuid_count(7, 1, &a71, &b71, &c71, &d71);
    f.avxvnni = f.avx2 && (a71 & (1u << 4)) != 0;
    f.avx512bf16 = f.avx512vnni && (a71 & (1u << 5)) != 0;
  }
#if defined(__linux__) && defined(__x86_64__)
  const unsigned tiles = (1u << 22) | (1u << 24) | (1u << 25);  // AMX-BF16, AMX-TILE, AMX-INT8
  f.amx = f.avx512bf16 && f.avx512fp16 && (d7 & tiles) == tiles && (xcr0 & 0x60000u) == 0x60000u;
#endif
  f.slow_bf16_dot = vendor_b == 0x756e6547u;  // "Genu"ineIntel
  f.nta_fills_l2 = vendor_b == 0x68747541u && family >= 0x19;  // "Auth"enticAMD
#elif defined(__aarch64__)
  f.neon = true;
#if defined(__linux__)
  const unsigned long hw = getauxval(AT_HWCAP), hw2 = getauxval(AT_HWCAP2);
  f.fp16 = (hw & (1ul << 9)) != 0 && (hw & (1ul << 10)) != 0;  // FPHP and ASIMDHP
  f.dotprod = (hw & (1ul << 20)) != 0;
  f.i8mm = f.dotprod && f.fp16 && (hw2 & (1ul << 13)) != 0 && (hw2 & (1ul << 14)) != 0;  // I8MM and BF16
  if ((hw & (1ul << 22)) != 0) f.sve_bytes = prctl(51 /* PR_SVE_GET_VL */) & 0xffff;
#elif defined(__APPLE__)
  const auto has = [](const char* feature) {  // keys of macOS 12, iOS 15 and later
    int value = 0;
    std::size_t size = sizeof(value);
    return ::sysctlbyname(feature, &value, &size, nullptr, 0) == 0 && value != 0;
  };
  f.fp16 = TARGET_OS_OSX != 0 || has("hw.optional.arm.FEAT_FP16");  // every Mac's core has both
  f.dotprod = TARGET_OS_OSX != 0 || has("hw.optional.arm.FEAT_DotProd");
  f.i8mm = has("hw.optional.arm.FEAT_I8MM") && has("hw.optional.arm.FEAT_BF16");
#endif
#elif defined(__arm__) && defined(__linux__)
  f.neon = (getauxval(AT_HWCAP) & (1ul << 12)) != 0 && (getauxval(AT_HWCAP) & (1ul << 16)) != 0;  // NEON, VFPv4
#elif defined(__riscv) && defined(__linux__)
  if ((getauxval(AT_HWCAP) & (1ul << ('v' - 'a'))) != 0) {
    // Vendors' kernels set this bit for the draft 0.7.1 too (T-Head's C906 and C910), which has other encodings. A CPU
    // says by vill, the sign of vtype, that it does not support what a vsetvli asks, and this one has bits that were
    // reserved in the draft: vsetvli t0, zero, e8, m1, ta, ma.
    long vtype = 0;
    __asm__ volatile(".4byte 0x0c0072d7\n\tcsrr %0, 0xc21" : "=r"(vtype) : : "t0");
    f.rvv = vtype >= 0;
  }
#endif
  return f;
}

OCELLUS_END
