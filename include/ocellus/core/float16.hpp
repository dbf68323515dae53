// 16-bit floating point as storage: f16 (IEEE binary16) and bf16 (the upper half of a binary32), with exact
// conversions. Arithmetic happens in f32; these types only hold bits.
#pragma once

#include <ocellus/config.hpp>

#include <bit>
#include <cstdint>

OCELLUS_BEGIN

struct f16 {
  std::uint16_t bits = 0;
};
struct bf16 {
  std::uint16_t bits = 0;
};

/// Exact, all 65,536 codes: NaN payloads keep their upper bits and become quiet, as vcvtph2ps does.
constexpr float to_f32(f16 h) noexcept {
  const std::uint32_t sign = static_cast<std::uint32_t>(h.bits & 0x8000u) << 16;
  const std::uint32_t exponent = (h.bits >> 10) & 0x1fu;
  std::uint32_t mantissa = h.bits & 0x3ffu;
  if (exponent == 31) {
    return std::bit_cast<float>(sign | 0x7f800000u | (mantissa << 13) | (mantissa != 0 ? 0x00400000u : 0u));
  }
  if (exponent != 0) return std::bit_cast<float>(sign | ((exponent + 112) << 23) | (mantissa << 13));
  if (mantissa == 0) return std::bit_cast<float>(sign);
  std::uint32_t e = 113;  // subnormal: shift until the hidden bit appears
  while ((mantissa & 0x400u) == 0) {
    mantissa <<= 1;
    e--;
  }
  return std::bit_cast<float>(sign | (e << 23) | ((mantissa & 0x3ffu) << 13));
}

constexpr float to_f32(bf16 b) noexcept {
  return std::bit_cast<float>(static_cast<std::uint32_t>(b.bits) << 16);
}
constexpr float to_f32(float x) noexcept { return x; }

/// Rounds to nearest, ties to even; overflow becomes infinity; NaN stays NaN (quiet). Equals vcvtps2ph.
constexpr f16 to_f16(float x) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  const auto sign = static_cast<std::uint16_t>((u >> 16) & 0x8000u);
  const std::uint32_t a = u & 0x7fffffffu;
  auto make = [sign](std::uint32_t m) { return f16{static_cast<std::uint16_t>(sign | m)}; };
  if (a > 0x7f800000u) return make(0x7e00u | ((a >> 13) & 0x3ffu));
  if (a >= 0x477ff000u) return make(0x7c00u);  // 65520 and more round to infinity
  if (a < 0x33000001u) return make(0);         // 2^-25 and less round to zero (the tie goes to even)
  const std::uint32_t exponent = a >> 23;
  if (exponent >= 113) {  // normal in f16
    const std::uint32_t r = a - (112u << 23);
    return make((r + 0xfffu + ((r >> 13) & 1u)) >> 13);
  }
  const std::uint32_t m = (a & 0x7fffffu) | 0x800000u;
  const std::uint32_t shift = 126 - exponent;  // 14..24
  const std::uint32_t half = 1u << (shift - 1);
  return make((m + half - 1 + ((m >> shift) & 1u)) >> shift);
}

/// Rounds to nearest, ties to even; NaN stays NaN (quiet).
constexpr bf16 to_bf16(float x) noexcept {
  const std::uint32_t u = std::bit_cast<std::uint32_t>(x);
  if ((u & 0x7fffffffu) > 0x7f800000u) return bf16{static_cast<std::uint16_t>((u >> 16) | 0x40u)};
  return bf16{static_cast<std::uint16_t>((u + 0x7fffu + ((u >> 16) & 1u)) >> 16)};
}

OCELLUS_END
