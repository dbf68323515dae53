// Pillow's antialiased resize, byte for byte, of the part of the result that is wanted.
//
//   ocellus::resize_window window;      // resized to 298 x 224, of which the middle 224 x 224
//   window.resized_w = 298, window.resized_h = 224;
//   window.x = 37, window.y = 0, window.w = 224, window.h = 224;
//   auto small = ocellus::resize(photo, window, ocellus::resize_filter::bicubic,
//                                ocellus::resize_order::horizontal_first, kernels);   // result<image>
//
// Weights are doubles rounded to 22-bit integers, pixels go through 8 bits between the passes [Pillow,
// libImaging/Resample.c: precompute_coeffs, normalize_coeffs_8bpc, ImagingResampleInner]. Only the rows and
// columns that the window keeps are computed. Allocates its scratch; a failure is status::out_of_memory.
#pragma once

#include <ocellus/config.hpp>
#include <ocellus/core/executor.hpp>
#include <ocellus/core/fp_env.hpp>
#include <ocellus/core/status.hpp>
#include <ocellus/image/image.hpp>
#include <ocellus/image/preprocess_config.hpp>
#include <ocellus/isa/target.hpp>
#include <ocellus/ops/resample.hpp>

#include <cmath>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>

OCELLUS_BEGIN

/// The whole picture's new size, and the rectangle of it that is wanted.
struct resize_window {
  int resized_w = 0;
  int resized_h = 0;
  int x = 0;
  int y = 0;
  int w = 0;
  int h = 0;
};

/// What lies between the two passes stays below this, and so does each side's table; what would need more is
/// image_too_large (a picture of 2 x 40,000,000 pixels).
inline constexpr std::int64_t resize_scratch_limit = std::int64_t{1} << 28;

namespace detail {

template <class T>
std::unique_ptr<T[]> scratch(std::int64_t n) noexcept {
  return std::unique_ptr<T[]>(new (std::nothrow) T[static_cast<std::size_t>(n)]);
}

}  // namespace detail

OCELLUS_STRICT_FP_BEGIN
namespace detail {

inline double filter_support(resize_filter f) noexcept { return f == resize_filter::bicubic ? 2.0 : 1.0; }

/// The filter at x; bicubic is Keys' kernel with a = -0.5, in Pillow's order of operations.
inline double filter_at(resize_filter f, double x) noexcept {
  x = x < 0.0 ? -x : x;
  if (f == resize_filter::bilinear) return x < 1.0 ? 1.0 - x : 0.0;
  constexpr double a = -0.5;
  if (x < 1.0) return ((a + 2.0) * x - (a + 3.0)) * x * x + 1.0;
  if (x < 2.0) return (((x - 5.0) * x + 8.0) * x - 4.0) * a;
  return 0.0;
}

/// Owns the taps of one axis for outputs [begin, begin + n) of `out` made from `in` pixels; `reversed`: for a source
/// whose pixels lie the other way around, which makes outputs that do so, too.
class axis_taps {
 public:
  status build(resize_filter filter, int in, int out, int begin, int n, bool reversed = false) noexcept {
    const double scale = static_cast<double>(in) / out;
    const double filter_scale = scale < 1.0 ? 1.0 : scale;
    const double support = filter_support(filter) * filter_scale;
    const std::int64_t longest = 2 * static_cast<std::int64_t>(std::ceil(support)) + 1;
    const std::int64_t taps = (longest + 3) / 4 * 4;
    if (taps * n * 8 > resize_scratch_limit) return status::image_too_large;
    bounds_ = scratch<int>(2 * std::int64_t{n});
    weights_ = scratch<std::int32_t>(taps * n);
    pairs_ = scratch<std::int16_t>(2 * taps * n);
    const auto row = scratch<double>(longest);
    if (!bounds_ || !weights_ || !pairs_ || !row) return status::out_of_memory;
    view_ = {n, static_cast<int>(taps), bounds_.get(), bounds_.get() + n, weights_.get(), pairs_.get()};
    for (int o = 0; o < n; o++) {
      const double center = (begin + o + 0.5) * scale;
      int first = static_cast<int>(center - support + 0.5);
      if (first < 0) first = 0;
      int last = static_cast<int>(center + support + 0.5);
      if (last > in) last = in;
      const int count = last - first;
      double sum = 0.0;
      for (int k = 0; k < count; k++) {
        const double w = filter_at(filter, (k + first - center + 0.5) * (1.0 / filter_scale));
        row[static_cast<std::size_t>(reversed ? count - 1 - k : k)] = w;
        sum += w;
      }
      const int at = reversed ? n - 1 - o : o;
      bounds_[static_cast<std::size_t>(at)] = reversed ? in - last : first;
      bounds_[static_cast<std::size_t>(n + at)] = count;
      round_row(row.get(), sum, count, at);
    }
    return status::ok;
  }

  const resample_taps& view() const noexcept { return view_; }
  int source_begin() const noexcept { return bounds_[0]; }
  int source_end() const noexcept {
    const int last = view_.outputs - 1;
    return view_.first[last] + view_.count[last];
  }
  /// For a source of which the first n pixels were left out.
  void shift(int n) noexcept {
    for (int o = 0; o < view_.outputs; o++) bounds_[static_cast<std::size_t>(o)] -= n;
  }

 private:
  /// Divides by the sum and rounds to 22 bits, halves away from zero.
  void round_row(const double* row, double sum, int count, int o) noexcept {
    std::int32_t* w = weights_.get() + std::ptrdiff_t{o} * view_.taps;
    std::int16_t* pairs = pairs_.get() + std::ptrdiff_t{o} * view_.taps * 2;
    for (int k = 0; k < view_.taps; k++) {
      double v = k < count ? row[k] : 0.0;
      if (sum != 0.0) v /= sum;
      v *= 1 << resample_bits;
      w[k] = static_cast<std::int32_t>(v < 0.0 ? v - 0.5 : v + 0.5);
      const auto low = static_cast<std::int16_t>(w[k] & 0xffff);
      pairs[k / 2 * 4 + k % 2] = low;
      pairs[k / 2 * 4 + k % 2 + 2] = static_cast<std::int16_t>((w[k] - low) >> 16);
    }
  }

  std::unique_ptr<int[]> bounds_;  // first, then count
  std::unique_ptr<std::int32_t[]> weights_;
  std::unique_ptr<std::int16_t[]> pairs_;
  resample_taps view_;
};

}  // namespace detail
OCELLUS_STRICT_FP_END

namespace detail {

/// Splits [0, n) into about `threads` pieces of at least 16 and runs f(begin, end) on each.
template <class F>
void in_pieces(int n, const executor& threads, F&& f) noexcept {
  const int most = (n + 15) / 16;
  const int pieces = threads.concurrency < most ? (threads.concurrency > 1 ? threads.concurrency : 1)
                                                : (most > 0 ? most : 1);
  threads.for_each(pieces, [&](int i) {
    const auto at = [&](int k) { return static_cast<int>(std::int64_t{n} * k / pieces); };
    f(at(i), at(i + 1));
  });
}

/// `source` holds `rows` rows of `width` pixels.
inline void run_horizontal(const resample_kernels& kernels, const resample_taps& taps,
                           const std::uint8_t* source, std::ptrdiff_t source_stride, int width, int rows,
                           std::uint8_t* target, std::ptrdiff_t target_stride,
                           const executor& threads) noexcept {
  in_pieces(rows, threads, [&](int begin, int end) {
    kernels.horizontal({&taps, source + begin * source_stride, source_stride, width, end - begin,
                        target + begin * target_stride, target_stride});
  });
}

inline void run_vertical(const resample_kernels& kernels, const resample_taps& taps,
                         const std::uint8_t* source, std::ptrdiff_t source_stride, int row_bytes,
                         std::uint8_t* target, std::ptrdiff_t target_stride,
                         const executor& threads) noexcept {
  in_pieces(taps.outputs, threads, [&](int begin, int end) {
    kernels.vertical({&taps, source, source_stride, row_bytes, begin, end, target, target_stride});
  });
}

/// Pillow 13 begins with the columns where the height shrinks more.
constexpr bool vertical_pass_first(const resize_window& w, int width, int height, resize_order order) noexcept {
  const std::int64_t shrink_w = std::int64_t{width} - w.resized_w, shrink_h = std::int64_t{height} - w.resized_h;
  return order == resize_order::pillow13 && shrink_h > 0 && shrink_h > 2 * shrink_w;
}

}  // namespace detail

/// Resizes `source` to window.resized_w x resized_h and writes the window's w x h pixels to `target` (rows of
/// `target_stride` bytes). A side that keeps its size is not filtered.
/// Errors: invalid_argument (source empty or of overlapping rows, window outside the result), image_too_large,
/// out_of_memory.
inline status resize_into(std::uint8_t* target, std::ptrdiff_t target_stride, image_view source,
                          const resize_window& window, resize_filter filter, resize_order order,
                          const resample_kernels& kernels, const executor& threads = {}) noexcept {
  if (source.empty() || source.overlaps() || window.w < 1 || window.h < 1 || window.x < 0 || window.y < 0 ||
      window.w > window.resized_w - window.x || window.h > window.resized_h - window.y) {
    return status::invalid_argument;
  }
  if (source.width > INT32_MAX / 3 - 16) return status::image_too_large;
  const bool horizontal = window.resized_w != source.width;
  const bool vertical = window.resized_h != source.height;
  const fp_env guard;  // weights are rounded to nearest, whatever the program's rounding is
  detail::axis_taps columns, rows;
  if (horizontal) {
    const status s = columns.build(filter, source.width, window.resized_w, window.x, window.w);
    if (s != status::ok) return s;
  }
  if (vertical) {
    const status s = rows.build(filter, source.height, window.resized_h, window.y, window.h);
    if (s != status::ok) return s;
  }
  const int target_bytes = window.w * 3;
  if (!horizontal && !vertical) {
    for (int y = 0; y < window.h; y++) {
      std::memcpy(target + y * target_stride, source.row(window.y + y) + std::ptrdiff_t{window.x} * 3,
                  static_cast<std::size_t>(target_bytes));
    }
    return status::ok;
  }
  if (!vertical) {
    detail::run_horizontal(kernels, columns.view(), source.row(window.y), source.stride, source.width,
                           window.h, target, target_stride, threads);
    return status::ok;
  }
  if (!horizontal) {
    detail::run_vertical(kernels, rows.view(), source.pixels + std::ptrdiff_t{window.x} * 3, source.stride,
                         target_bytes, target, target_stride, threads);
    return status::ok;
  }

  if (detail::vertical_pass_first(window, source.width, source.height, order)) {
    const int left = columns.source_begin();
    const int width = columns.source_end() - left;
    const std::int64_t bytes = std::int64_t{width} * 3 * window.h;
    if (bytes > resize_scratch_limit) return status::image_too_large;
    const auto between = detail::scratch<std::uint8_t>(bytes);
    if (!between) return status::out_of_memory;
    detail::run_vertical(kernels, rows.view(), source.pixels + std::ptrdiff_t{left} * 3, source.stride,
                         width * 3, between.get(), std::ptrdiff_t{width} * 3, threads);
    columns.shift(left);
    detail::run_horizontal(kernels, columns.view(), between.get(), std::ptrdiff_t{width} * 3, width, window.h,
                           target, target_stride, threads);
    return status::ok;
  }
  const int top = rows.source_begin();
  const int height = rows.source_end() - top;
  const std::int64_t bytes = std::int64_t{target_bytes} * height;
  if (bytes > resize_scratch_limit) return status::image_too_large;
  const auto between = detail::scratch<std::uint8_t>(bytes);
  if (!between) return status::out_of_memory;
  detail::run_horizontal(kernels, columns.view(), source.row(top), source.stride, source.width, height,
                         between.get(), target_bytes, threads);
  rows.shift(top);
  detail::run_vertical(kernels, rows.view(), between.get(), target_bytes, target_bytes, target, target_stride,
                       threads);
  return status::ok;
}

/// The same into a picture of its own, window.w x window.h.
inline result<image> resize(image_view source, const resize_window& window, resize_filter filter,
                            resize_order order, const resample_kernels& kernels,
                            const executor& threads = {}) noexcept {
  result<image> made = image::make(window.w, window.h);
  if (!made) return made;
  const status s =
      resize_into(made->pixels(), made->stride(), source, window, filter, order, kernels, threads);
  if (s != status::ok) return s;
  return made;
}

OCELLUS_END
