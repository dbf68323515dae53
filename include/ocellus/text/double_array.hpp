// A dictionary of byte strings as a double-array trie in place: one array of 32-bit units, as Darts-clone
// writes it and SentencePiece's files hold it (the map of its normaliser).
//
// Unit of a node at index i (root: 0), reached by byte c:
//   bits 0-7 and 31  c, and 0: its label      bit 8  a string ends here
//   bits 10-30, 9    offset: bits 10-30, shifted left by 8 if bit 9 is set
// Its child by byte b is at i ^ offset ^ b and has the label b. If a string ends here, the unit at i ^ offset
// has bit 31 set and holds the string's value in bits 0-30. Unused units have a label that no byte equals.
//
// Each step checks its index against the size, so a damaged array gives wrong answers but no bad access; the
// caller bounds the number of steps. References: Aoe 1989 (double arrays); Yata, Darts-clone.
#pragma once

#include <ocellus/config.hpp>

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>

OCELLUS_BEGIN

/// A view of the units; they must outlive it.
class double_array {
 public:
  /// A node met on a walk from the root.
  struct cursor {
    std::uint32_t index;
    std::uint32_t unit;
  };
  /// The longest string that begins a text; length 0: none.
  struct match {
    std::size_t length = 0;
    std::uint32_t value = 0;
  };

  static constexpr std::uint32_t leaf_bit = 1u << 8;
  static constexpr std::uint32_t value_bit = 1u << 31;
  static constexpr std::uint32_t no_value = 0xFFFFFFFF;

  double_array() noexcept = default;
  explicit double_array(std::span<const std::uint32_t> units) noexcept : units_(units) {}

  bool empty() const noexcept { return units_.empty(); }
  /// Call only if not empty.
  cursor root() const noexcept { return {0, units_[0]}; }

  /// Follows byte `c`; false, and the cursor unchanged, if no string goes on that way.
  bool step(cursor& at, unsigned char c) const noexcept {
    const std::uint32_t next = at.index ^ offset(at.unit) ^ c;
    if (next >= units_.size() || (units_[next] & (value_bit | 0xFF)) != c) return false;
    at = {next, units_[next]};
    return true;
  }

  /// Value (below 2^31) of the string that ends here, or no_value.
  std::uint32_t value(const cursor& at) const noexcept {
    if (!(at.unit & leaf_bit)) return no_value;
    const std::uint32_t leaf = at.index ^ offset(at.unit);
    return leaf < units_.size() ? units_[leaf] & ~value_bit : no_value;
  }

  /// The longest string of at most `longest` bytes that `text` begins with.
  match find_longest(std::string_view text, std::size_t longest) const noexcept {
    match best;
    if (units_.empty()) return best;
    cursor at = root();
    for (std::size_t i = 0; i < text.size() && i < longest; ++i) {
      if (!step(at, static_cast<unsigned char>(text[i]))) break;
      if (const std::uint32_t v = value(at); v != no_value) best = {i + 1, v};
    }
    return best;
  }

 private:
  static constexpr std::uint32_t offset(std::uint32_t unit) noexcept {
    return (unit >> 10) << ((unit & (1u << 9)) >> 6);
  }

  std::span<const std::uint32_t> units_;
};

OCELLUS_END
