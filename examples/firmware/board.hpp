// What the example needs of a board: text to the debugger, an end, a counter of time, and how much memory was used.
#pragma once

#include <cstdint>

namespace board {

/// Semihosting: the debugger, or QEMU, prints the text.
void print(const char* text) noexcept;
[[noreturn]] void end(bool good) noexcept;

/// Ticks of the processor clock since the start.
std::uint64_t ticks() noexcept;

/// Bytes of the image in flash, of static data in RAM, and of stack that was ever in use.
std::uint32_t flash_bytes() noexcept;
std::uint32_t data_bytes() noexcept;
std::uint32_t stack_bytes() noexcept;

}  // namespace board
