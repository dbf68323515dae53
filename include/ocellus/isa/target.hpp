// Regions: code between OCELLUS_TARGET_BEGIN("avx2,fma") and OCELLUS_TARGET_END is compiled for that instruction set
// whatever the flags of the translation unit, so one header holds kernels for every CPU and picks at run time.
//
// Each region also fixes the floating-point rules that law 2 (the same bits everywhere) rests on: no contraction of
// a * b + c into an FMA unless the code says so, no reassociation. Compilers contract even intrinsics by default, and
// users build with -ffast-math; both are undone here, for the region only.
//
// Rules of a region (each from a measured failure of gcc 12 or clang 14):
//   1. includes before it, never inside, but for the .inl files that include nothing;
//   2. no hidden friends (gcc drops the target);
//   3. no vector type in a signature that is called from outside;
//   4. generic vector code lives in .inl files, included once inside each kernel set;
//   5. no vector functor from outside: fused epilogues are a closed set of tags;
//   6. no namespace-scope or static vector constants;
//   7. everything is a member of the set's struct, so that its symbol is unique;
//   8. float arithmetic is written with operators, vectors too: clang gives _mm256_add_ps and std::sqrt, which are
//      defined outside the region, the flags of the command line. strict_sqrt and strict_fma are below.
#pragma once

#include <ocellus/config.hpp>

#include <math.h>

#define OCELLUS_PRAGMA_(x) _Pragma(#x)

#if defined(__clang__) && (defined(__wasm__) || defined(__arm__) || (defined(__riscv) && __clang_major__ < 19) || \
                           (defined(__aarch64__) && __clang_major__ < 16))
// clang has no float_control for wasm and 32-bit Arm, nor in 14 for AArch64, nor before 19 for RISC-V, so nothing can
// be undone. What it contracts by default are single expressions, and ocellus writes none that has a product and a sum
// of vectors.
#if defined(__FAST_MATH__)
#error "ocellus: for this target and compiler, build without -ffast-math: it cannot be undone for the library's code"
#endif
#define OCELLUS_STRICT_FP_BEGIN
#define OCELLUS_STRICT_FP_END
#define OCELLUS_TARGET_BEGIN(features)
#define OCELLUS_TARGET_END
#elif defined(__clang__)
// clang 14 ignores float_control at namespace scope in some modes, but honours `fp contract` and `float_control` here.
#define OCELLUS_STRICT_FP_BEGIN \
  OCELLUS_PRAGMA_(clang diagnostic push) \
  OCELLUS_PRAGMA_(clang diagnostic ignored "-Wold-style-cast") \
  OCELLUS_PRAGMA_(float_control(push)) \
  OCELLUS_PRAGMA_(float_control(precise, on)) \
  OCELLUS_PRAGMA_(clang fp contract(off) reassociate(off))
#define OCELLUS_STRICT_FP_END OCELLUS_PRAGMA_(float_control(pop)) OCELLUS_PRAGMA_(clang diagnostic pop)
#define OCELLUS_TARGET_BEGIN(features) \
  OCELLUS_STRICT_FP_BEGIN \
  OCELLUS_PRAGMA_(clang attribute push(__attribute__((target(features))), apply_to = function))
#define OCELLUS_TARGET_END OCELLUS_PRAGMA_(clang attribute pop) OCELLUS_STRICT_FP_END
#elif defined(__GNUC__)
// gcc 12 warns about its own AVX-512 headers (-Wmaybe-uninitialized) and about the ABI of vector returns (-Wpsabi);
// neither applies to members that are always inlined. Its intrinsics are macros at -O0, with C's casts, as ours between
// types of vectors are; and -Wsign-conversion would have casts in the sizes of arrays.
// gcc for AArch64 schedules before it allocates registers and moves the loads of a tile's weights so far ahead that
// sums go to the stack (f32 5 x 16: 10 copies in 115 instructions, fp16 5 x 32: 64 loads, stores and copies in 299):
// the order in which the code is written is kept.
#if defined(__aarch64__)
#define OCELLUS_OPTIMIZE_ OCELLUS_PRAGMA_(GCC optimize("no-fast-math", "fp-contract=off", "no-schedule-insns"))
#else
#define OCELLUS_OPTIMIZE_ OCELLUS_PRAGMA_(GCC optimize("no-fast-math", "fp-contract=off"))
#endif
#define OCELLUS_STRICT_FP_BEGIN \
  OCELLUS_PRAGMA_(GCC push_options) \
  OCELLUS_OPTIMIZE_ \
  OCELLUS_PRAGMA_(GCC diagnostic push) \
  OCELLUS_PRAGMA_(GCC diagnostic ignored "-Wpsabi") \
  OCELLUS_PRAGMA_(GCC diagnostic ignored "-Wold-style-cast") \
  OCELLUS_PRAGMA_(GCC diagnostic ignored "-Wsign-conversion") \
  OCELLUS_PRAGMA_(GCC diagnostic ignored "-Wuninitialized") \
  OCELLUS_PRAGMA_(GCC diagnostic ignored "-Wmaybe-uninitialized")
#define OCELLUS_STRICT_FP_END OCELLUS_PRAGMA_(GCC diagnostic pop) OCELLUS_PRAGMA_(GCC pop_options)
#define OCELLUS_TARGET_BEGIN(features) OCELLUS_STRICT_FP_BEGIN OCELLUS_PRAGMA_(GCC target(features))
#define OCELLUS_TARGET_END OCELLUS_STRICT_FP_END
#else
#define OCELLUS_STRICT_FP_BEGIN
#define OCELLUS_STRICT_FP_END
#define OCELLUS_TARGET_BEGIN(features)
#define OCELLUS_TARGET_END
#endif

// Which regions a compiler can build beyond those that all can (gcc >= 12, clang >= 14).
#if defined(__x86_64__) && (!defined(__clang__) || __clang_major__ >= 16)
#define OCELLUS_HAS_AVX512FP16 1
#else
#define OCELLUS_HAS_AVX512FP16 0
#endif

#if defined(__riscv) && __riscv_xlen == 64 && defined(__clang__) && \
    (__clang_major__ >= 19 || (__clang_major__ >= 16 && defined(__riscv_vector)))
#define OCELLUS_HAS_RVV 1
#else
#define OCELLUS_HAS_RVV 0
#endif

#if defined(__GNUC__)
#define OCELLUS_INLINE inline __attribute__((always_inline))
#define OCELLUS_NOINLINE __attribute__((noinline))
#define OCELLUS_LAMBDA __attribute__((always_inline))  // of a lambda: [&](auto i) OCELLUS_LAMBDA { ... }
#else
#define OCELLUS_INLINE inline
#define OCELLUS_NOINLINE
#define OCELLUS_LAMBDA
#endif

// Pins an accumulator to a vector register. gcc 12 otherwise spills dot-product accumulators to the stack at each step
// (12x2 tile on vpdpbusd: 190 GMAC/s without, 450 with).
#if defined(__x86_64__) || defined(__i386__)
#define OCELLUS_KEEP(acc) __asm__("" : "+v"(acc))
#elif defined(__aarch64__) || defined(__ARM_NEON)
#define OCELLUS_KEEP(acc) __asm__("" : "+w"(acc))
#else
#define OCELLUS_KEEP(acc) static_cast<void>(acc)
#endif

// Marks a product as rounded. clang's -ffast-math fuses a product into a sum in its back end, where no pragma reaches;
// the empty asm ends the pattern and costs nothing. gcc obeys the region's pragma.
// Where there is no constraint for the compiler's vectors (RISC-V, POWER) the product goes through memory, under
// -ffast-math alone. clang's -ffp-contract=fast by itself cannot be seen: kernels that say OCELLUS_ROUNDED undo it on
// x86 and Arm, strict_product and the portable code do not, where the target has FMA.
#if defined(__clang__) && !defined(__x86_64__) && !defined(__i386__) && !defined(__aarch64__) && !defined(__ARM_NEON)
#if defined(__FAST_MATH__)
#define OCELLUS_ROUNDED(product) __asm__("" : "+m"(product))
#else
#define OCELLUS_ROUNDED(product) static_cast<void>(product)
#endif
#elif defined(__clang__)
#define OCELLUS_ROUNDED(product) OCELLUS_KEEP(product)
#else
#define OCELLUS_ROUNDED(product) static_cast<void>(product)
#endif

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN

#if defined(__clang__) && defined(__FAST_MATH__)
// -ffast-math of clang turns a root into an estimate and splits fma(a, b, c) in two wherever it sees the call, whatever
// the pragmas say (clang 14). It does not see through a pointer that it cannot know.
inline float strict_sqrt(float x) noexcept {
  float (*root)(float) = &::sqrtf;
  __asm__("" : "+r"(root));
  return root(x);
}
OCELLUS_INLINE float strict_product(float a, float b) noexcept {
  float product = a * b;
  OCELLUS_ROUNDED(product);
  return product;
}
#else
/// The correctly rounded square root, whatever the flags of the translation unit.
OCELLUS_INLINE float strict_sqrt(float x) noexcept { return __builtin_sqrtf(x); }
/// a * b rounded, never fused into a sum.
OCELLUS_INLINE float strict_product(float a, float b) noexcept { return a * b; }
#endif

/// a * b + c rounded once, whatever the flags of the translation unit.
#if defined(__clang__) && defined(__arm__) && defined(__ARM_FEATURE_FMA)
// For cores with single precision alone (Cortex-M4) clang calls fmaf, and newlib's rounds twice.
OCELLUS_INLINE float strict_fma(float a, float b, float c) noexcept {
  __asm__("vfma.f32 %0, %1, %2" : "+t"(c) : "t"(a), "t"(b));
  return c;
}
#elif defined(__wasm__) || (defined(_WIN32) && (!defined(__FMA__) || defined(__FAST_MATH__)))
// The C library's fmaf rounds twice: wasi-libc's subnormal results, for WebAssembly has no floating-point flags to tell
// it; mingw-w64's a long double. In double, rounded to odd [Boldo & Melquiond 2008]: the product is exact, the sum's
// error comes by Knuth's two-sum.
OCELLUS_INLINE float strict_fma(float a, float b, float c) noexcept {
  const double product = static_cast<double>(a) * static_cast<double>(b), addend = static_cast<double>(c);
  const double sum = product + addend, part = sum - product;
  const double error = (product - (sum - part)) + (addend - part);
  auto bits = __builtin_bit_cast(long long, sum);
  if (error < 0 || error > 0) bits = (bits - ((sum < 0) != (error < 0) ? 1 : 0)) | 1;
  return static_cast<float>(__builtin_bit_cast(double, bits));
}
#elif defined(__clang__) && defined(__FAST_MATH__)
inline float strict_fma(float a, float b, float c) noexcept {
  float (*fused)(float, float, float) = &::fmaf;
  __asm__("" : "+r"(fused));
  return fused(a, b, c);
}
#else
OCELLUS_INLINE float strict_fma(float a, float b, float c) noexcept { return __builtin_fmaf(a, b, c); }
#endif

OCELLUS_END
OCELLUS_STRICT_FP_END
