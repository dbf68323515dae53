// The two passes of Pillow's resize as kernels see them: outputs, taps and fixed-point weights of one axis,
// and a table of functions that a kernel set fills.
//
// Pillow [libImaging/Resample.c] computes each pass in integers: weights scaled by 2^22, a sum that starts at
// 2^21, a shift by 22, a clip to 0..255. All sets therefore give the same bytes. A weight has 23 bits and a
// sign and stays below 1.3 * 2^22, a sum of |weight| below 1.5 * 2^22, so a sum with pixels up to 255 stays
// inside 32 bits.
#pragma once

#include <ocellus/config.hpp>

#include <cstddef>
#include <cstdint>

OCELLUS_BEGIN

/// Pillow's 32 - 8 - 2: fraction bits of the weights.
inline constexpr int resample_bits = 22;

/// Taps of one axis, for the outputs that are wanted (a crop needs only some of them).
/// Output o is sum over k < count[o] of weights[o * taps + k] * source[first[o] + k].
struct resample_taps {
  int outputs = 0;
  int taps = 0;  ///< length of a row of weights: the longest count, rounded up to a multiple of 4
  const int* first = nullptr;             // [outputs], ascending
  const int* count = nullptr;             // [outputs]
  const std::int32_t* weights = nullptr;  // [outputs, taps], zero beyond count
  /// The weights for multiply-add of 16-bit pairs: w = high * 2^16 + low, for each pair of taps low0 low1
  /// high0 high1.
  const std::int16_t* pairs = nullptr;  // [outputs, taps / 2, 4]
};

/// A pass along rows. `source` holds rows of `width` RGB pixels; row y of `target` gets taps.outputs RGB
/// pixels.
struct resample_horizontal_args {
  const resample_taps* taps = nullptr;
  const std::uint8_t* source = nullptr;  // [rows, width, 3]
  std::ptrdiff_t source_stride = 0;      // bytes
  int width = 0;
  int rows = 0;
  std::uint8_t* target = nullptr;    // [rows, outputs, 3]
  std::ptrdiff_t target_stride = 0;  // bytes
};

/// A pass along columns: outputs [begin, end) of taps, each a row of `row_bytes` bytes.
struct resample_vertical_args {
  const resample_taps* taps = nullptr;
  const std::uint8_t* source = nullptr;  // [height, row_bytes]
  std::ptrdiff_t source_stride = 0;
  int row_bytes = 0;
  int begin = 0;
  int end = 0;
  std::uint8_t* target = nullptr;  // [outputs, row_bytes]
  std::ptrdiff_t target_stride = 0;
};

/// What a kernel set offers for resizing; by value, two pointers.
struct resample_kernels {
  void (*horizontal)(const resample_horizontal_args&) noexcept = nullptr;
  void (*vertical)(const resample_vertical_args&) noexcept = nullptr;
};

template <class Set>
constexpr resample_kernels resample_kernels_of() noexcept {
  return {&Set::resample_horizontal, &Set::resample_vertical};
}

OCELLUS_END
