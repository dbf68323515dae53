// Position tables for another grid than they were trained on, as torch.nn.functional.interpolate resamples them
// (align_corners=False): SigLIP 2 NaFlex (bilinear, antialias), DINOv2 (bicubic), DINOv2 with registers (bicubic,
// antialias). Separable: the height first, then the width, as PyTorch's native kernels do for the antialiased modes;
// the sums are small, so the order changes the result by less than an ulp or two.
#pragma once

#include <ocellus/isa/target.hpp>
#include <ocellus/models/config.hpp>

#include <cmath>
#include <cstddef>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace nn {

/// How one output position mixes input positions: weights over [first, first + count).
struct position_taps {
  static constexpr int most = 256;
  int first = 0, count = 0;
  float weight[most] = {};
};

/// Keys' cubic convolution kernel with parameter a [Keys 1981].
inline double cubic(double x, double a) noexcept {
  x = x < 0 ? -x : x;
  if (!(x < 2)) return 0;
  const bool inner = x <= 1;
  double y = inner ? (a + 2) * x : (x - 5) * x;  // ((a + 2) x - (a + 3)) x x + 1, or (((x - 5) x + 8) x - 4) a
  OCELLUS_ROUNDED(y);
  y = inner ? (y - (a + 3)) * x * x : (y + 8) * x;
  OCELLUS_ROUNDED(y);
  return inner ? y + 1 : (y - 4) * a;
}

/// The taps of output i over `in` positions, `scale` of them for each output. `filter` is not none.
inline position_taps taps_at(int i, int in, double scale, position_resize filter) noexcept {
  position_taps t;
  if (filter == position_resize::bicubic) {  // four taps, the border repeated (PyTorch upsample_bicubic2d, a = -0.75)
    double x = scale * (i + 0.5);
    OCELLUS_ROUNDED(x);
    x = x - 0.5;
    const int base = static_cast<int>(std::floor(x));
    const double f = x - base;
    int low = base - 1 < 0 ? 0 : base - 1, high = base + 2 > in - 1 ? in - 1 : base + 2;
    if (low > in - 1) low = in - 1;
    if (high < 0) high = 0;
    t.first = low;
    t.count = high - low + 1;
    for (int k = -1; k <= 2; k++) {
      int at = base + k;
      at = at < low ? low : at > high ? high : at;
      t.weight[at - low] += static_cast<float>(cubic(f - k, -0.75));
    }
    return t;
  }
  // antialiased: the filter is stretched when shrinking (PyTorch _upsample_*2d_aa, as Pillow; cubic with a = -0.5)
  const double support = (filter == position_resize::bilinear_antialias ? 1.0 : 2.0) * (scale >= 1 ? scale : 1.0);
  const double invscale = scale >= 1 ? 1.0 / scale : 1.0;
  double center = scale * (i + 0.5);
  OCELLUS_ROUNDED(center);
  int low = static_cast<int>(center - support + 0.5), high = static_cast<int>(center + support + 0.5);
  low = low < 0 ? 0 : low;
  high = high > in ? in : high;
  if (high - low > position_taps::most) high = low + position_taps::most;
  double total = 0, weights[position_taps::most];
  for (int k = low; k < high; k++) {
    double x = (k - center + 0.5) * invscale;
    OCELLUS_ROUNDED(x);
    const double ax = x < 0 ? -x : x;
    weights[k - low] = filter == position_resize::bilinear_antialias ? (ax < 1 ? 1 - ax : 0) : cubic(x, -0.5);
    total += weights[k - low];
  }
  t.first = low;
  t.count = high - low;
  for (int k = 0; k < t.count; k++) t.weight[k] = static_cast<float>(total != 0 ? weights[k] / total : 0);
  return t;
}

/// out[h * w, C] from table[gh * gw, C]. `offset` is DINOv2's: the scale is gh / (h + offset). `line` holds gw * C
/// floats.
inline void resample_positions(float* out, std::ptrdiff_t ldo, int h, int w, const float* table, int gh, int gw, int c,
                               position_resize filter, double offset, float* line) noexcept {
  const double scale_h = static_cast<double>(gh) / (h + offset), scale_w = static_cast<double>(gw) / (w + offset);
  for (int y = 0; y < h; y++) {
    const position_taps ty = taps_at(y, gh, scale_h, filter);
    for (int i = 0; i < gw * c; i++) line[i] = 0;
    for (int k = 0; k < ty.count; k++) {
      const float* from = table + static_cast<std::ptrdiff_t>(ty.first + k) * gw * c;
      for (int i = 0; i < gw * c; i++) line[i] = line[i] + strict_product(ty.weight[k], from[i]);
    }
    for (int x = 0; x < w; x++) {
      const position_taps tx = taps_at(x, gw, scale_w, filter);
      float* to = out + (static_cast<std::ptrdiff_t>(y) * w + x) * ldo;
      for (int i = 0; i < c; i++) to[i] = 0;
      for (int k = 0; k < tx.count; k++) {
        const float* from = line + static_cast<std::ptrdiff_t>(tx.first + k) * c;
        for (int i = 0; i < c; i++) to[i] = to[i] + strict_product(tx.weight[k], from[i]);
      }
    }
  }
}

}  // namespace nn
OCELLUS_END
OCELLUS_STRICT_FP_END
