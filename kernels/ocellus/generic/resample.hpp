// The two resize passes in plain C++: the definition that every other set equals byte for byte.
// Pillow's libImaging/Resample.c, ImagingResampleHorizontal_8bpc and ImagingResampleVertical_8bpc.
#pragma once

#include <ocellus/isa/target.hpp>
#include <ocellus/ops/resample.hpp>

#include <cstring>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace kernels {

struct resample_scalar {
  static void resample_horizontal(const resample_horizontal_args& a) noexcept {
    const resample_taps& t = *a.taps;
    for (int y = 0; y < a.rows; y++) {
      const std::uint8_t* row = a.source + y * a.source_stride;
      std::uint8_t* out = a.target + y * a.target_stride;
      for (int o = 0; o < t.outputs; o++) {
        const std::int32_t* w = t.weights + static_cast<std::ptrdiff_t>(o) * t.taps;
        const std::uint8_t* p = row + static_cast<std::ptrdiff_t>(t.first[o]) * 3;
        std::int32_t r = half, g = half, b = half;
        for (int k = 0; k < t.count[o]; k++, p += 3) {
          r += p[0] * w[k];
          g += p[1] * w[k];
          b += p[2] * w[k];
        }
        out[3 * o] = clip(r);
        out[3 * o + 1] = clip(g);
        out[3 * o + 2] = clip(b);
      }
    }
  }

  static void resample_vertical(const resample_vertical_args& a) noexcept { vertical_columns(a, 0); }

 protected:
  /// Vectors of rows that share the loads of their weights.
  static constexpr int strips = 2;
  static constexpr std::int32_t half = 1 << (resample_bits - 1);

  static std::uint8_t clip(std::int32_t sum) noexcept {
    const std::int32_t v = sum >> resample_bits;
    return static_cast<std::uint8_t>(v < 0 ? 0 : v > 255 ? 255 : v);
  }

  /// Two 16-bit weights as one 32-bit word, to be repeated in a vector.
  static OCELLUS_INLINE int load_pair(const std::int16_t* p) noexcept {
    int both;
    std::memcpy(&both, p, 4);
    return both;
  }

  /// The first n = 3 or 4 bytes of a word.
  static OCELLUS_INLINE void store_pixel(std::uint8_t* p, int rgbx, int n) noexcept {
    if (n == 4) {
      std::memcpy(p, &rgbx, 4);
    } else {
      std::memcpy(p, &rgbx, 3);
    }
  }

  /// The bytes [from, row_bytes) of each output row.
  static void vertical_columns(const resample_vertical_args& a, int from) noexcept {
    const resample_taps& t = *a.taps;
    for (int o = a.begin; o < a.end; o++) {
      const std::int32_t* w = t.weights + static_cast<std::ptrdiff_t>(o) * t.taps;
      const std::uint8_t* top = a.source + t.first[o] * a.source_stride;
      std::uint8_t* out = a.target + o * a.target_stride;
      for (int x = from; x < a.row_bytes; x++) {
        std::int32_t sum = half;
        for (int k = 0; k < t.count[o]; k++) sum += top[k * a.source_stride + x] * w[k];
        out[x] = clip(sum);
      }
    }
  }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_STRICT_FP_END
