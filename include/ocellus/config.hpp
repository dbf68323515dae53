// Version, feature macros and the ABI namespace of ocellus.
//
// Why an inline namespace: ocellus is header-only, so two translation units of one program may compile the
// same template with different -m flags. The linker would keep one copy, possibly the one that needs AVX, and
// the program would die on an old CPU. The namespace carries the baseline ISA, so both copies exist and each
// unit calls its own; passing an ocellus type between such units is a link error instead of an illegal
// instruction at a customer's.
#pragma once

#define OCELLUS_VERSION_MAJOR 0
#define OCELLUS_VERSION_MINOR 1
#define OCELLUS_VERSION_PATCH 0
#define OCELLUS_VERSION_STRING "0.1.0"

#if defined(_WIN32) && !defined(__clang__)
// gcc does not align the stack for AVX there (its bug 54412), MSVC compiles no region for other CPUs than the file's.
#error "ocellus on Windows needs clang"
#endif

#if defined(min) || defined(max)
#error "min and max are macros: define NOMINMAX before <windows.h>, or include ocellus first"
#endif

#if defined(__FLT_EVAL_METHOD__) && (__FLT_EVAL_METHOD__ == 1 || __FLT_EVAL_METHOD__ == 2)
// Each result would be rounded twice, so that embeddings had other bits than everywhere else.
#error "float arithmetic is wider than float (x87): build for 32-bit x86 with -msse2 -mfpmath=sse"
#endif

#if defined(__AVX512F__)
#define OCELLUS_ABI_BASE_ x86v4
#elif defined(__AVX2__)
#define OCELLUS_ABI_BASE_ x86v3
#elif defined(__AVX__)
#define OCELLUS_ABI_BASE_ x86avx
#elif defined(__SSE4_2__)
#define OCELLUS_ABI_BASE_ x86v2
#elif defined(__SSE4_1__)
#define OCELLUS_ABI_BASE_ x86sse41
#elif defined(__SSSE3__)
#define OCELLUS_ABI_BASE_ x86ssse3
#elif defined(__SSE3__)
#define OCELLUS_ABI_BASE_ x86sse3
#elif defined(__ARM_FEATURE_SVE)
#define OCELLUS_ABI_BASE_ sve
#elif defined(__ARM_FEATURE_MATMUL_INT8)
#define OCELLUS_ABI_BASE_ i8mm
#elif defined(__ARM_FEATURE_DOTPROD)
#define OCELLUS_ABI_BASE_ dotprod
#elif defined(__wasm_relaxed_simd__)
#define OCELLUS_ABI_BASE_ relaxed
#elif defined(__wasm_simd128__)
#define OCELLUS_ABI_BASE_ simd128
#elif defined(__riscv_vector)
#define OCELLUS_ABI_BASE_ rvv
#else
#define OCELLUS_ABI_BASE_ base
#endif

// What compilers use beside a level, and flags bring one by one.
#if defined(__FMA__) || defined(__ARM_FEATURE_FMA)
#define OCELLUS_ABI_FMA_ _fma
#else
#define OCELLUS_ABI_FMA_
#endif
#if defined(__BMI2__)
#define OCELLUS_ABI_BMI2_ _bmi2
#else
#define OCELLUS_ABI_BMI2_
#endif
#if defined(__POPCNT__) && defined(__LZCNT__)
#define OCELLUS_ABI_BITS_ _lzcnt
#elif defined(__POPCNT__)
#define OCELLUS_ABI_BITS_ _popcnt
#elif defined(__LZCNT__)
#define OCELLUS_ABI_BITS_ _onlylzcnt
#elif defined(__ARM_FEATURE_ATOMICS)
#define OCELLUS_ABI_BITS_ _lse
#else
#define OCELLUS_ABI_BITS_
#endif
#if defined(__AVX512FP16__)
#define OCELLUS_ABI_DOT_ _fp16
#elif defined(__AVX512BF16__)
#define OCELLUS_ABI_DOT_ _bf16
#elif defined(__AVX512VNNI__) && defined(__AVX512VBMI__)
#define OCELLUS_ABI_DOT_ _vbmi
#elif defined(__AVX512VNNI__) || defined(__AVXVNNI__)
#define OCELLUS_ABI_DOT_ _vnni
#else
#define OCELLUS_ABI_DOT_
#endif

#if defined(__FAST_MATH__)
#define OCELLUS_ABI_MATH_ _fastmath
#else
#define OCELLUS_ABI_MATH_
#endif

#if defined(__cpp_exceptions)
#define OCELLUS_ABI_EXC_
#else
#define OCELLUS_ABI_EXC_ _noexc
#endif

#define OCELLUS_CAT_(a, b, c, d, e, f, g, h) a##b##c##d##e##f##g##h
#define OCELLUS_CAT(a, b, c, d, e, f, g, h) OCELLUS_CAT_(a, b, c, d, e, f, g, h)
#define OCELLUS_ABI                                                                               \
  OCELLUS_CAT(v0_, OCELLUS_ABI_BASE_, OCELLUS_ABI_FMA_, OCELLUS_ABI_BMI2_, OCELLUS_ABI_BITS_, \
              OCELLUS_ABI_DOT_, OCELLUS_ABI_MATH_, OCELLUS_ABI_EXC_)

// Tables are no symbols of a shared library: gcc makes an inline variable unique in the process, and a plugin that has
// such a symbol can never be unloaded.
#define OCELLUS_HIDDEN [[gnu::visibility("hidden")]]
#define OCELLUS_TABLE OCELLUS_HIDDEN inline constexpr

// Every header of the library opens with OCELLUS_BEGIN and closes with OCELLUS_END.
#define OCELLUS_BEGIN          \
  namespace ocellus {          \
  inline namespace OCELLUS_ABI {
#define OCELLUS_END \
  }                 \
  }

// Preconditions of the caller. Off in release; define it before the first include to install your own.
#ifndef OCELLUS_ASSERT
#define OCELLUS_ASSERT(condition) static_cast<void>(0)
#endif
