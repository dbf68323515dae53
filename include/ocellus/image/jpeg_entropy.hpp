// The entropy coding of JPEG: Huffman tables and the bits of a scan, without stuffing and markers.
// Reference: ITU-T T.81, annexes C, F.2.2 and K.3.3.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/isa/target.hpp>

#include <bit>
#include <cstdint>
#include <cstring>

#if defined(__SSE2__)
#include <emmintrin.h>
#endif

OCELLUS_BEGIN
namespace detail {

/// Position in the block, row-major, of the k-th coefficient in zigzag order. Runs of damaged files may reach
/// up to 15 beyond the block: libjpeg lets them fall on the last coefficient.
OCELLUS_TABLE std::uint8_t jpeg_zigzag[80] = {
    0,  1,  8,  16, 9,  2,  3,  10, 17, 24, 32, 25, 18, 11, 4,  5,  12, 19, 26, 33,
    40, 48, 41, 34, 27, 20, 13, 6,  7,  14, 21, 28, 35, 42, 49, 56, 57, 50, 43, 36,
    29, 22, 15, 23, 30, 37, 44, 51, 58, 59, 52, 45, 38, 31, 39, 46, 53, 60, 61, 54,
    47, 55, 62, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63, 63};

/// Bit k: whether coefficient k of a block is not zero.
inline std::uint64_t jpeg_known(const std::int16_t* block) noexcept {
  std::uint64_t known = 0;
#if defined(__SSE2__)
  for (int i = 0; i < 64; i += 16) {
    const __m128i a = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + i));
    const __m128i b = _mm_loadu_si128(reinterpret_cast<const __m128i*>(block + i + 8));
    const __m128i zeros = _mm_cmpeq_epi8(_mm_packs_epi16(a, b), _mm_setzero_si128());
    known |= static_cast<std::uint64_t>(~_mm_movemask_epi8(zeros) & 0xffff) << i;
  }
#else
  for (int i = 0; i < 64; i++) known |= static_cast<std::uint64_t>(block[i] != 0) << i;
#endif
  return known;
}

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
  /// Of a code: symbol << 8 | bits of the code and of the value behind it << 16 | bits of the code; 0 for longer codes.
  std::uint32_t fast[1 << fast_bits] = {};
  std::int32_t limit[17] = {};   // first code beyond length n, left-aligned to 16 bits
  std::int32_t offset[17] = {};  // index of a code's symbol minus the code
  std::uint8_t symbols[256] = {};

  static constexpr std::uint32_t entry(int length, int symbol) noexcept {
    return static_cast<std::uint32_t>((length + (symbol & 15)) << 16 | symbol << 8 | length);
  }

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
        for (int k = 0; k < 1 << (fast_bits - n); k++) fast[first + k] = entry(n, symbols[index + i]);
      }
      code += count;
      index += count;
      limit[n] = code << (16 - n);
      code <<= 1;
    }
    defined = true;
    return true;
  }

  /// The entry of a code of more than fast_bits bits, which the 16 bits of `look` begin with.
  OCELLUS_NOINLINE std::uint32_t long_code(int look) const noexcept {
    int n = fast_bits + 1;
    while (n <= 16 && look >= limit[n]) n++;
    if (n > 16) return 17 << 16 | 17;  // no such code: libjpeg asks for a 17th bit before it gives up with symbol 0
    return entry(n, symbols[((look >> (16 - n)) + offset[n]) & 0xff]);
  }
};

/// Entropy-coded bits: removes stuffed zeros, stops at a marker and then gives zeros.
struct jpeg_bits {
  const std::uint8_t* p = nullptr;
  const std::uint8_t* end = nullptr;
  std::uint64_t buffer = 0;  // the upper `count` bits, zeros below
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
        buffer |= static_cast<std::uint64_t>(v) << (32 - count);
        count += 32;
        p += 4;
        return;
      }
    }
    *this = filled_slowly(*this);
  }
  /// By value: a copy whose address nobody takes stays in registers.
  static OCELLUS_NOINLINE jpeg_bits filled_slowly(jpeg_bits b) noexcept {
    while (b.count <= 48) {
      int byte = 0;
      if (!b.at_marker && !b.at_end) byte = b.next_byte();
      if (b.at_marker || b.at_end) {
        byte = 0;
        b.padding += 8;
      }
      b.buffer |= static_cast<std::uint64_t>(byte) << (56 - b.count);
      b.count += 8;
    }
    return b;
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

  /// 32 bits are there afterwards: a code (at most 17 bits, where it is none) and what follows it (15).
  OCELLUS_INLINE void need32() noexcept {
    if (count < 32) fill();
  }
  static OCELLUS_INLINE int top(std::uint64_t bits, int n) noexcept { return static_cast<int>(bits >> 1 >> (63 - n)); }
  OCELLUS_INLINE void drop(int n) noexcept {
    buffer <<= n;
    count -= n;
  }
  /// The next n bits, which are there.
  OCELLUS_INLINE int take(int n) noexcept {
    const int v = top(buffer, n);
    drop(n);
    return v;
  }
  OCELLUS_INLINE int bit() noexcept {
    if (count < 1) fill();
    return take(1);
  }
  /// T.81 F.2.2.1: the n bits (1 to 15) in `v` as a signed difference.
  static OCELLUS_INLINE int extended(int v, int n) noexcept {
    return v - (((1 << n) - 1) & ((v >> (n - 1)) - 1));  // without a branch, which half of the values would miss
  }

  /// The entry (jpeg_huffman::fast) of the next code, which is there and not taken.
  OCELLUS_INLINE std::uint32_t next_code(const jpeg_huffman& h) const noexcept {
    const std::uint32_t found = h.fast[buffer >> (64 - jpeg_huffman::fast_bits)];
    return found != 0 ? found : h.long_code(static_cast<int>(buffer >> 48));
  }
  OCELLUS_INLINE int symbol(const jpeg_huffman& h) noexcept {
    const std::uint32_t code = next_code(h);
    drop(static_cast<int>(code & 0xff));
    return static_cast<int>(code >> 8 & 0xff);
  }
};

}  // namespace detail
OCELLUS_END
