// Vectors, reset and semihosting of a Cortex-M, without the C library's start files.
#include "board.hpp"

#include <cstring>

extern "C" {
extern std::uint32_t data_begin[], data_end[], data_source[], bss_begin[], bss_end[], stack_top[];
extern const unsigned char flash_used[];  // its address is the number
extern void (*init_array_begin[])();
extern void (*init_array_end[])();
int main();
void reset();
void fault();
void tick();

__attribute__((section(".vectors"), used)) void (*const vectors[16])() = {
    reinterpret_cast<void (*)()>(stack_top), reset, fault, fault, fault, fault, fault, fault, nullptr, nullptr, nullptr,
    fault, fault, nullptr, fault, tick};
}

namespace {

volatile std::uint32_t& at(std::uint32_t address) noexcept {
  return *reinterpret_cast<volatile std::uint32_t*>(address);
}

constexpr std::uint32_t systick_control = 0xe000e010, systick_reload = 0xe000e014, systick_value = 0xe000e018,
                        coprocessor_access = 0xe000ed88, interrupt_state = 0xe000ed04;
constexpr std::uint32_t wrap = 0x1000000, unused_stack = 0xa5a5a5a5;
volatile std::uint32_t wraps = 0;

std::uint32_t semihost(std::uint32_t operation, const void* argument) noexcept {
  register std::uint32_t r0 asm("r0") = operation;
  register const void* r1 asm("r1") = argument;
  asm volatile("bkpt 0xab" : "+r"(r0) : "r"(r1) : "memory");
  return r0;
}

}  // namespace

namespace board {

void print(const char* text) noexcept { semihost(0x04, text); }  // SYS_WRITE0

void end(bool good) noexcept {
  const std::uint32_t reason[2] = {0x20026, good ? 0u : 1u};  // SYS_EXIT_EXTENDED, ADP_Stopped_ApplicationExit
  semihost(0x20, reason);
  for (;;) {
  }
}

std::uint64_t ticks() noexcept {
  for (;;) {
    const std::uint32_t before = wraps, value = at(systick_value);
    const bool pending = (at(interrupt_state) >> 26 & 1) != 0;
    if (!pending && wraps == before) return static_cast<std::uint64_t>(before) * wrap + (wrap - 1 - value);
  }
}

std::uint32_t flash_bytes() noexcept { return reinterpret_cast<std::uint32_t>(flash_used); }
std::uint32_t data_bytes() noexcept {
  return static_cast<std::uint32_t>((data_end - data_begin) + (bss_end - bss_begin)) * 4;
}
std::uint32_t stack_bytes() noexcept {
  const std::uint32_t* p = bss_end;
  while (p < stack_top && *p == unused_stack) p++;
  return static_cast<std::uint32_t>(stack_top - p) * 4;
}

}  // namespace board

extern "C" {

void tick() { wraps = wraps + 1; }

void fault() {
  board::print("fault\n");
  board::end(false);
}

__attribute__((noreturn)) void reset() {
#if defined(__ARM_FP)
  at(coprocessor_access) = at(coprocessor_access) | 0xfu << 20;  // floating point, and with it MVE
  asm volatile("dsb\n isb" ::: "memory");
#endif
  for (std::uint32_t *to = data_begin, *from = data_source; to < data_end;) *to++ = *from++;
  for (std::uint32_t* to = bss_begin; to < bss_end;) *to++ = 0;
  volatile std::uint32_t* here = nullptr;
  asm volatile("mov %0, sp" : "=r"(here));
  for (volatile std::uint32_t* p = bss_end; p < here - 16; p++) *p = unused_stack;
  at(systick_reload) = wrap - 1;
  at(systick_value) = 0;
  at(systick_control) = 7;  // the processor's clock, an interrupt per wrap
  while (at(systick_value) == 0) {
  }  // it is loaded at the first tick
  for (void (**start)() = init_array_begin; start < init_array_end; start++) (*start)();
  board::end(main() == 0);
}

}  // extern "C"
