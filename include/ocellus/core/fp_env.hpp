// Rounding to nearest, denormals kept, no trap: the floating-point state that law 2 (the same bits everywhere) needs,
// whatever the program set. A program linked with -ffast-math starts with denormals flushed to zero; a game or an audio
// engine sets the same by hand.
//
//   const ocellus::fp_env strict;   // first statement of an entry point; the caller's state returns at its end
//
// The state belongs to the thread: a task that an executor runs elsewhere needs an object of its own. Costs about
// twenty cycles. 32-bit Arm's vectors always flush denormals: kernels there look for that and compute such tiles again.
#pragma once

#include <ocellus/config.hpp>

#include <cstdint>

#if defined(__SSE__)
#include <xmmintrin.h>
#endif

OCELLUS_BEGIN

class fp_env {
 public:
#if defined(__SSE__)
  fp_env() noexcept : saved_(_mm_getcsr()) { _mm_setcsr(strict); }
  ~fp_env() { _mm_setcsr(saved_); }

 private:
  static constexpr unsigned strict = 0x1f80;  // all exceptions masked, nearest, FTZ and DAZ off
  unsigned saved_;
#elif defined(__aarch64__)
  fp_env() noexcept {
    __asm__ volatile("mrs %0, fpcr" : "=r"(saved_));
    __asm__ volatile("msr fpcr, %0" : : "r"(std::uint64_t{0}));  // nearest, FZ, FZ16, DN and traps off
  }
  ~fp_env() { __asm__ volatile("msr fpcr, %0" : : "r"(saved_)); }

 private:
  std::uint64_t saved_ = 0;
#elif defined(__arm__) && defined(__ARM_FP)
  fp_env() noexcept {
    __asm__ volatile("vmrs %0, fpscr" : "=r"(saved_));
    __asm__ volatile("vmsr fpscr, %0" : : "r"(saved_ & ~mode_bits));
  }
  ~fp_env() {
    std::uint32_t flags = 0;
    __asm__ volatile("vmrs %0, fpscr" : "=r"(flags));
    __asm__ volatile("vmsr fpscr, %0" : : "r"((flags & ~mode_bits) | (saved_ & mode_bits)));
  }

 private:
  static constexpr std::uint32_t mode_bits = 0x07c80000u;  // AHP (halves of another format), DN, FZ, RMode, FZ16
  std::uint32_t saved_ = 0;
#elif defined(__riscv_flen)
  fp_env() noexcept { __asm__ volatile("fsrmi %0, 0" : "=r"(saved_)); }  // RISC-V never flushes denormals
  ~fp_env() { __asm__ volatile("fsrm %0" : : "r"(saved_)); }

 private:
  unsigned long saved_ = 0;
#else
  fp_env() noexcept {}  // wasm and soft floats have one state only
  ~fp_env() {}

 public:
#endif
  fp_env(const fp_env&) = delete;
  fp_env& operator=(const fp_env&) = delete;
};

OCELLUS_END
