// The entropy coding of JPEG: Huffman tables and the bits of a scan, without stuffing and markers.
// Reference: ITU-T T.81, annexes C, F.2.2 and K.3.3.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/isa/target.hpp>

#include <cstdint>
#include <cstring>

OCELLUS_BEGIN
namespace detail {

/// Position in the block, row-major, of the k-th coefficient in zigzag order. Runs of damaged files may reach
/// up to 15 beyond the block: libjpeg lets them fall on the last coefficient.
OCELLUS_TABLE std::uint8_t jpeg_zigzag[80] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

/// The tables of T.81 K.3.3, which Motion JPEG frames leave out: lengths, then symbols; luminance, then
/// chrominance.
OCELLUS_TABLE std::uint8_t jpeg_standard_dc_lengths[2][16] = {
    {0, 1, 5, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0},
    {0, 3, 1, 1, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0},
};
OCELLUS_TABLE std::uint8_t jpeg_standard_ac_lengths[2][16] = {
    {0, 2, 1, 3, 3, 2, 4, 3, 5, 5, 4, 4, 0, 0, 1, 125},
    {0, 2, 1, 2, 4, 4, 3, 4, 7, 5, 4, 4, 0, 1, 2, 119},
};
OCELLUS_TABLE std::uint8_t jpeg_standard_ac_symbols[2][162] = {
    {0x01, 0x02, 0x03, 0x00, 0x04, 0x11, 0x05, 0x12, 0x21, 0x31, 0x41, 0x06, 0x13, 0x51, 0x61, 0x07, 0x22,
     0x71, 0x14, 0x32, 0x81, 0x91, 0xa1, 0x08, 0x23, 0x42, 0xb1, 0xc1, 0x15, 0x52, 0xd1, 0xf0, 0x24, 0x33,
     0x62, 0x72, 0x82, 0x09, 0x0a, 0x16, 0x17, 0x18, 0x19, 0x1a, 0x25, 0x26, 0x27, 0x28, 0x29, 0x2a, 0x34,
     0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54, 0x55,
     0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75, 0x76,
     0x77, 0x78, 0x79, 0x7a, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94, 0x95, 0x96,
     0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3, 0xb4, 0xb5,
     0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2, 0xd3, 0xd4,
     0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe1, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea, 0xf1,
     0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa},
    {0x00, 0x01, 0x02, 0x03, 0x11, 0x04, 0x05, 0x21, 0x31, 0x06, 0x12, 0x41, 0x51, 0x07, 0x61, 0x71, 0x13,
     0x22, 0x32, 0x81, 0x08, 0x14, 0x42, 0x91, 0xa1, 0xb1, 0xc1, 0x09, 0x23, 0x33, 0x52, 0xf0, 0x15, 0x62,
     0x72, 0xd1, 0x0a, 0x16, 0x24, 0x34, 0xe1, 0x25, 0xf1, 0x17, 0x18, 0x19, 0x1a, 0x26, 0x27, 0x28, 0x29,
     0x2a, 0x35, 0x36, 0x37, 0x38, 0x39, 0x3a, 0x43, 0x44, 0x45, 0x46, 0x47, 0x48, 0x49, 0x4a, 0x53, 0x54,
     0x55, 0x56, 0x57, 0x58, 0x59, 0x5a, 0x63, 0x64, 0x65, 0x66, 0x67, 0x68, 0x69, 0x6a, 0x73, 0x74, 0x75,
     0x76, 0x77, 0x78, 0x79, 0x7a, 0x82, 0x83, 0x84, 0x85, 0x86, 0x87, 0x88, 0x89, 0x8a, 0x92, 0x93, 0x94,
     0x95, 0x96, 0x97, 0x98, 0x99, 0x9a, 0xa2, 0xa3, 0xa4, 0xa5, 0xa6, 0xa7, 0xa8, 0xa9, 0xaa, 0xb2, 0xb3,
     0xb4, 0xb5, 0xb6, 0xb7, 0xb8, 0xb9, 0xba, 0xc2, 0xc3, 0xc4, 0xc5, 0xc6, 0xc7, 0xc8, 0xc9, 0xca, 0xd2,
     0xd3, 0xd4, 0xd5, 0xd6, 0xd7, 0xd8, 0xd9, 0xda, 0xe2, 0xe3, 0xe4, 0xe5, 0xe6, 0xe7, 0xe8, 0xe9, 0xea,
     0xf2, 0xf3, 0xf4, 0xf5, 0xf6, 0xf7, 0xf8, 0xf9, 0xfa},
};

/// A Huffman table: codes of up to `fast_bits` bits by lookup, longer ones by the last code of each length.
struct jpeg_huffman {
  static constexpr int fast_bits = 9;
  bool defined = false;
  std::uint16_t fast[1 << fast_bits] = {};    // length << 8 | symbol, 0 for longer codes
  std::int16_t fast_ac[1 << fast_bits] = {};  // value << 8 | run << 4 | bits of both, where these fit; else 0
  std::int32_t limit[18] = {};                // first code beyond length n, left-aligned to 16 bits
  std::int32_t offset[17] = {};               // index of a code's symbol minus the code
  std::uint8_t symbols[256] = {};

  /// False if the lengths are no prefix code.
  bool build(const std::uint8_t (&lengths)[16]) noexcept {
    std::memset(fast, 0, sizeof fast);
    std::int32_t code = 0, index = 0;
    for (int n = 1; n <= 16; n++) {
      const int count = lengths[n - 1];
      offset[n] = index - code;
      if (code + count > 1 << n) return false;
      for (int i = 0; i < count && n <= fast_bits; i++) {
        const int first = (code + i) << (fast_bits - n);
        for (int k = 0; k < 1 << (fast_bits - n); k++) {
          fast[first + k] = static_cast<std::uint16_t>(n << 8 | symbols[index + i]);
        }
      }
      code += count;
      index += count;
      limit[n] = code << (16 - n);
      code <<= 1;
    }
    limit[17] = INT32_MAX;
    defined = true;
    build_fast_ac();
    return true;
  }

  /// Short codes with short values after them take one lookup.
  void build_fast_ac() noexcept {
    for (int i = 0; i < 1 << fast_bits; i++) {
      const int length = fast[i] >> 8, run = fast[i] >> 4 & 15, n = fast[i] & 15;
      fast_ac[i] = 0;
      if (length == 0 || n == 0 || length + n > fast_bits) continue;
      int v = i >> (fast_bits - length - n) & ((1 << n) - 1);
      if (v < 1 << (n - 1)) v += 1 - (1 << n);
      if (v >= -128 && v <= 127) fast_ac[i] = static_cast<std::int16_t>(v * 256 + run * 16 + length + n);
    }
  }
};

/// Entropy-coded bits: removes stuffed zeros, stops at a marker and then gives zeros.
struct jpeg_bits {
  const std::uint8_t* p = nullptr;
  const std::uint8_t* end = nullptr;
  std::uint64_t buffer = 0;  // the low `count` bits are valid
  int count = 0;
  int padding = 0;         // zeros appended after the data
  bool at_marker = false;  // p is at a marker's 0xff
  bool at_end = false;     // p is at the end of the file

  OCELLUS_INLINE void fill() noexcept {
    if (end - p >= 4 && !at_marker) {
      std::uint32_t v;
      std::memcpy(&v, p, 4);
      if ((v & 0x80808080u & ~(v + 0x01010101u)) == 0) {  // no byte is 0xff
        v = static_cast<std::uint32_t>(p[0]) << 24 | static_cast<std::uint32_t>(p[1]) << 16 |
            static_cast<std::uint32_t>(p[2]) << 8 | p[3];
        buffer = buffer << 32 | v;
        count += 32;
        p += 4;
        return;
      }
    }
    fill_slowly();
  }
  OCELLUS_NOINLINE void fill_slowly() noexcept {
    while (count <= 48) {
      int byte = 0;
      if (!at_marker && !at_end) byte = next_byte();
      if (at_marker || at_end) {
        byte = 0;
        padding += 8;
      }
      buffer = buffer << 8 | static_cast<std::uint64_t>(byte);
      count += 8;
    }
  }
  int next_byte() noexcept {
    if (p == end) {
      at_end = true;
      return 0;
    }
    if (*p != 0xff) return *p++;
    const std::uint8_t* q = p + 1;
    while (q != end && *q == 0xff) q++;
    if (q == end) {
      at_end = true;
    } else if (*q == 0) {
      p = q + 1;
      return 0xff;
    } else {
      p = q - 1;
      at_marker = true;
    }
    return 0;
  }
  /// Forgets the bits that are left; p then stands after what was read, or at a marker.
  void reset() noexcept {
    buffer = 0;
    count = padding = 0;
  }
  /// Bits were asked for after the last one.
  bool starved() const noexcept { return count < padding; }
  bool truncated() const noexcept { return at_end && starved(); }

  OCELLUS_INLINE int bits(int n) noexcept {  // n <= 16
    if (count < n) fill();
    count -= n;
    return static_cast<int>(buffer >> count & ((1u << n) - 1u));
  }
  /// T.81 F.2.2.1: n bits, as a signed difference.
  OCELLUS_INLINE int extend(int n) noexcept {
    if (n == 0) return 0;
    const int v = bits(n);
    return v < 1 << (n - 1) ? v - (1 << n) + 1 : v;
  }
  OCELLUS_INLINE int symbol(const jpeg_huffman& h) noexcept {
    if (count < 16) fill();
    const auto look = static_cast<int>(buffer >> (count - 16) & 0xffff);
    const int entry = h.fast[look >> (16 - jpeg_huffman::fast_bits)];
    if (entry != 0) {
      count -= entry >> 8;
      return entry & 0xff;
    }
    int n = jpeg_huffman::fast_bits + 1;
    while (n <= 16 && look >= h.limit[n]) n++;
    if (n > 16) {  // no such code: libjpeg asks for a 17th bit before it gives up
      if (count < 17) fill();
      count -= 17;
      return 0;
    }
    count -= n;
    return h.symbols[((look >> (16 - n)) + h.offset[n]) & 0xff];
  }
};

}  // namespace detail
OCELLUS_END
