// The resize passes for NEON on AArch64, where it is always there: generic/resample.inl at 16 bytes.
//
//   intrinsic          instruction    latency, throughput (Cortex-A76 Software Optimization Guide)
//   vqtbl1q_u8         tbl            2, 2 per cycle
//   vmull_s16          smull          4, 1 per cycle
//   vpaddq_s32         addp           2, 2 per cycle
// Overflow: see ops/resample.hpp. Speed: not measured (run in an emulator only).
#pragma once

#if defined(__aarch64__)

#include <ocellus/generic/resample.hpp>

#include <arm_neon.h>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct resample_neon : resample_scalar {
  using vec = uint8x16_t;
  static constexpr int lanes = 1;

  static OCELLUS_INLINE vec load(const std::uint8_t* p) noexcept { return vld1q_u8(p); }
  static OCELLUS_INLINE void store(std::uint8_t* p, vec v) noexcept { vst1q_u8(p, v); }
  static OCELLUS_INLINE vec load_rows(const std::uint8_t* p, std::ptrdiff_t) noexcept { return vld1q_u8(p); }
  static OCELLUS_INLINE vec pixels01(vec v) noexcept {
    const std::uint8_t order[16] = {0, 255, 3, 255, 1, 255, 4, 255, 2, 255, 5, 255, 255, 255, 255, 255};
    return vqtbl1q_u8(v, vld1q_u8(order));
  }
  static OCELLUS_INLINE vec pixels23(vec v) noexcept {
    const std::uint8_t order[16] = {6, 255, 9, 255, 7, 255, 10, 255, 8, 255, 11, 255, 255, 255, 255, 255};
    return vqtbl1q_u8(v, vld1q_u8(order));
  }
  static OCELLUS_INLINE vec zip_low(vec a, vec b) noexcept { return vzip1q_u8(a, b); }
  static OCELLUS_INLINE vec zip_high(vec a, vec b) noexcept { return vzip2q_u8(a, b); }
  static OCELLUS_INLINE vec widen_low(vec v) noexcept { return vzip1q_u8(v, zero()); }
  static OCELLUS_INLINE vec widen_high(vec v) noexcept { return vzip2q_u8(v, zero()); }
  static OCELLUS_INLINE vec pair(const std::int16_t* p) noexcept {
    return vreinterpretq_u8_s32(vdupq_n_s32(load_pair(p)));
  }
  static OCELLUS_INLINE vec madd(vec a, vec b) noexcept {
    const int16x8_t x = vreinterpretq_s16_u8(a), y = vreinterpretq_s16_u8(b);
    const int32x4_t low = vmull_s16(vget_low_s16(x), vget_low_s16(y)), high = vmull_high_s16(x, y);
    return vreinterpretq_u8_s32(vpaddq_s32(low, high));
  }
  static OCELLUS_INLINE vec add(vec a, vec b) noexcept {
    return vreinterpretq_u8_s32(vaddq_s32(vreinterpretq_s32_u8(a), vreinterpretq_s32_u8(b)));
  }
  static OCELLUS_INLINE vec zero() noexcept { return vdupq_n_u8(0); }
  static OCELLUS_INLINE vec round_shift(vec low, vec high) noexcept {
    const int32x4_t sum = vaddq_s32(vreinterpretq_s32_u8(low), vshlq_n_s32(vreinterpretq_s32_u8(high), 16));
    return vreinterpretq_u8_s32(vshrq_n_s32(vaddq_s32(sum, vdupq_n_s32(half)), resample_bits));
  }
  static OCELLUS_INLINE vec narrow(vec a, vec b, vec c, vec d) noexcept {
    const auto s16 = [](vec x, vec y) {
      return vqmovn_high_s32(vqmovn_s32(vreinterpretq_s32_u8(x)), vreinterpretq_s32_u8(y));
    };
    return vqmovun_high_s16(vqmovun_s16(s16(a, b)), s16(c, d));
  }
  static OCELLUS_INLINE void store_pixels(std::uint8_t* p, std::ptrdiff_t, vec v, int n) noexcept {
    store_pixel(p, vgetq_lane_s32(vreinterpretq_s32_u8(v), 0), n);
  }

#include <ocellus/generic/resample.inl>
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END

#endif
