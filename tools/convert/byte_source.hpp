// Bytes at an offset: a file read with pread, or memory. Every read is checked against the size.
//
// Not mmap: a mapped file that shrinks while it is read kills the process, and mapped pages count as resident
// memory, which for a checkpoint of several GB hides what the converter itself needs.
#pragma once

#include "outcome.hpp"

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <memory>
#include <span>
#include <string>

namespace ocellus::convert {

class byte_source {
 public:
  /// Opens a regular file (or a link to one) for reading.
  static outcome<byte_source> open(const std::filesystem::path& path);

  /// Memory that outlives the source.
  explicit byte_source(std::span<const std::byte> bytes) : memory_(bytes.data()), size_(bytes.size()) {}

  std::uint64_t size() const noexcept { return size_; }

  /// Fills `out` with the bytes at `offset`; an error when they do not all lie within the source.
  outcome<void> read(std::uint64_t offset, std::span<std::byte> out) const;

 private:
  byte_source(std::shared_ptr<const int> file, std::uint64_t size) : file_(std::move(file)), size_(size) {}

  std::shared_ptr<const int> file_;  // the descriptor, closed with the last copy
  const std::byte* memory_ = nullptr;
  std::uint64_t size_ = 0;
};

/// Little-endian numbers at the front of a buffer that is long enough.
inline std::uint16_t load_u16(const std::byte* p) noexcept {
  return static_cast<std::uint16_t>(std::to_integer<unsigned>(p[0]) | std::to_integer<unsigned>(p[1]) << 8);
}
inline std::uint32_t load_u32(const std::byte* p) noexcept {
  return load_u16(p) | static_cast<std::uint32_t>(load_u16(p + 2)) << 16;
}
inline std::uint64_t load_u64(const std::byte* p) noexcept {
  return load_u32(p) | static_cast<std::uint64_t>(load_u32(p + 4)) << 32;
}

/// True, and the result stored, unless it overflows.
[[nodiscard]] inline bool add_checked(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_add_overflow(a, b, &out);
}
[[nodiscard]] inline bool multiply_checked(std::uint64_t a, std::uint64_t b, std::uint64_t& out) noexcept {
  return !__builtin_mul_overflow(a, b, &out);
}

/// Whether the bytes are UTF-8 as RFC 3629 has it: no overlong forms, no surrogates, nothing above U+10FFFF.
bool is_utf8(std::string_view text) noexcept;

/// SHA-256 (FIPS 180-4), in pieces.
class sha256 {
 public:
  void add(std::span<const std::byte> bytes) noexcept;
  /// The digest in lower-case hexadecimal; the object is then spent.
  std::string finish();

 private:
  void block(const std::byte* data) noexcept;

  std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                         0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
  std::array<std::byte, 64> pending_{};
  std::uint64_t count_ = 0;
};

}  // namespace ocellus::convert
