// The contract of the row-wise operations. Sums run in sixteen virtual lanes (element i goes to lane i mod 16, in
// ascending i) that are added by a fixed tree (8 + 8, 4 + 4, 2 + 2, 1 + 1), multiply and add are rounded separately,
// so that every kernel set gives the same bits: one zmm, two ymm, four 128-bit registers or an array of sixteen floats.
#pragma once

#include <ocellus/ops/gemm.hpp>

OCELLUS_BEGIN

/// Floats of scratch that layer_norm_u8 needs at `y`, for four rows of c values or more; for fewer, that share of it.
constexpr std::size_t layer_norm_scratch(int c) noexcept { return 4 * static_cast<std::size_t>(round_up(c, 16)); }

/// y[r] = (x[r] - mean) * rstd * gain + bias over rows of C values [Ba 2016], and its quantised form.
struct layer_norm_args {
  const float* x = nullptr;  ///< [rows, C]
  std::ptrdiff_t ldx = 0;
  const float* gain = nullptr;  ///< [C]
  const float* bias = nullptr;  ///< [C]
  float eps = 1e-5f;
  int rows = 0, c = 0;
  float* y = nullptr;  ///< layer_norm: [rows, C]; layer_norm_u8: scratch (layer_norm_scratch)
  std::ptrdiff_t ldy = 0;
  // layer_norm_u8 only, as quantize_args
  std::uint8_t* q = nullptr;
  std::ptrdiff_t ldq = 0;
  float* scale = nullptr;
  std::int32_t* zero = nullptr;
};

/// Dynamic quantisation of each row to u8: x ~ scale * (q - zero). x is finite.
///   lo = min(0, min x), hi = max(0, max x), scale = (hi - lo) / 255, inv = 255 / (hi - lo), or 0 if hi - lo < 1e-30,
///   zero = round(-lo * inv), q = clamp(round(x * inv) + zero, 0, 255), rounding half to even.
struct quantize_args {
  const float* x = nullptr;  ///< [rows, C]
  std::ptrdiff_t ldx = 0;
  int rows = 0, c = 0;
  std::uint8_t* q = nullptr;  ///< [rows, C]; up to 15 bytes past C are written, with zero points or zeros
  std::ptrdiff_t ldq = 0;
  float* scale = nullptr;        ///< [rows]
  std::int32_t* zero = nullptr;  ///< [rows]
};

/// The same for rows that are put together from pieces, as the patches of a convolution are: row r is the C values at
/// from[r * pieces], then the C at from[r * pieces + 1], and so on.
struct quantize_pieces_args {
  const float* const* from = nullptr;  ///< [rows * pieces]; null: C zeros
  int pieces = 0, rows = 0, c = 0;
  std::uint8_t* q = nullptr;  ///< [rows, pieces * C]; up to 15 bytes past them are written
  std::ptrdiff_t ldq = 0;
  float* scale = nullptr;        ///< [rows]
  std::int32_t* zero = nullptr;  ///< [rows]
};

/// A depthwise convolution of a map of pixels of C values, padded by half of the kernel's side (odd): each value is one
/// chain of sums, from the bias over the taps in ascending rows, then columns, products and sums rounded separately;
/// taps outside of the map take no part.
struct depthwise_args {
  const float* x = nullptr;  ///< [h * w, C]
  std::ptrdiff_t ldx = 0;
  const float* weights = nullptr;  ///< [side * side, C]
  std::ptrdiff_t ldw = 0;
  const float* bias = nullptr;  ///< [C]
  int h = 0, w = 0, c = 0;  ///< c: a multiple of 16
  int side = 0, stride = 1;
  int begin = 0, end = 0;  ///< pixels of the result that this call computes; (w - 1) / stride + 1 of them make a row
  float* y = nullptr;      ///< [end - begin, C]: pixel `begin` first; not x
  std::ptrdiff_t ldy = 0;
};

OCELLUS_END
