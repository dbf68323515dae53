// The resize passes on vectors of `lanes` 16-byte lanes. Included once inside each set that derives from
// resample_scalar and declares vec and these primitives (all on each 16-byte lane by itself):
//   load_rows(p, stride)     lane i = 16 bytes at p + i * stride
//   load(p), store(p, v)     16 * lanes bytes
//   pixels01(v), pixels23(v) u16 R0 R1 G0 G1 B0 B1 0 0 of four RGB pixels R0 G0 B0 R1 ...; the same of 2, 3
//   zip_low(a, b), zip_high  bytes a0 b0 a1 b1 ..., of the lower or upper eight
//   widen_low(v), widen_high zero-extends eight bytes to u16
//   pair(p)                  two s16 at p, in every 32 bits
//   madd(a, b)               s32 sums of products of pairs of s16 (pmaddwd)
//   add(a, b), zero()
//   round_shift(low, high)   (low + high * 2^16 + 2^21) >> 22 on s32
//   narrow(a, b, c, d)       s32 x 4 to u8, saturated: the lane's bytes are a0-a3 b0-b3 c0-c3 d0-d3
//   store_pixels(p, stride, v, n) of each lane i the first n = 3 or 4 bytes to p + i * stride
//
// Why pairs of 16 bits: a weight has 24 bits with its sign, so w = high * 2^16 + low with low in s16, and two
// pmaddwd give two exact products per 32-bit element. The sum of the low products may wrap; only the total
// counts, modulo 2^32.

/// V * lanes rows from row y on, all outputs.
template <int V>
static void horizontal_rows(const resample_horizontal_args& a, int y) noexcept {
  const resample_taps& t = *a.taps;
  const std::uint8_t* source = a.source + y * a.source_stride;
  std::uint8_t* target = a.target + y * a.target_stride;
  const int row_bytes = a.width * 3;
  for (int o = 0; o < t.outputs; o++) {
    const std::int16_t* w = t.pairs + static_cast<std::ptrdiff_t>(o) * t.taps * 2;
    const int groups = (t.count[o] + 3) / 4;  // of four pixels; weights beyond count are zero
    int at = t.first[o] * 3;
    vec low[V], high[V];
    for (int v = 0; v < V; v++) low[v] = high[v] = zero();
    const auto step = [&](int v, vec bytes) {
      const vec p01 = pixels01(bytes), p23 = pixels23(bytes);
      low[v] = add(low[v], madd(p01, pair(w)));
      high[v] = add(high[v], madd(p01, pair(w + 2)));
      low[v] = add(low[v], madd(p23, pair(w + 4)));
      high[v] = add(high[v], madd(p23, pair(w + 6)));
    };
    int g = 0;
    for (; g < groups && at + 16 <= row_bytes; g++, at += 12, w += 8) {
      for (int v = 0; v < V; v++) {
        step(v, load_rows(source + v * lanes * a.source_stride + at, a.source_stride));
      }
    }
    for (; g < groups; g++, at += 12, w += 8) {  // sixteen bytes would reach beyond the row
      for (int v = 0; v < V; v++) {
        std::uint8_t edge[lanes * 16] = {};
        const int n = row_bytes - at < 12 ? row_bytes - at : 12;
        for (int i = 0; i < lanes; i++) {
          const std::uint8_t* p = source + (v * lanes + i) * a.source_stride + at;
          for (int k = 0; k < n; k++) edge[i * 16 + k] = p[k];
        }
        step(v, load(edge));
      }
    }
    // Four bytes per pixel: the fourth is overwritten by the next pixel, so the last one stores three.
    for (int v = 0; v < V; v++) {
      const vec s = round_shift(low[v], high[v]);
      store_pixels(target + v * lanes * a.target_stride + 3 * o, a.target_stride, narrow(s, s, s, s),
                   o + 1 < t.outputs ? 4 : 3);
    }
  }
}

static void resample_horizontal(const resample_horizontal_args& a) noexcept {
  if (a.rows < lanes) {
    resample_scalar::resample_horizontal(a);
    return;
  }
  int y = 0;
  for (; y + strips * lanes <= a.rows; y += strips * lanes) horizontal_rows<strips>(a, y);
  for (; y + lanes <= a.rows; y += lanes) horizontal_rows<1>(a, y);
  if (y < a.rows) horizontal_rows<1>(a, a.rows - lanes);  // overlaps rows that are done: the same bytes again
}

static void resample_vertical(const resample_vertical_args& a) noexcept {
  constexpr int block = 16 * lanes;
  if (a.row_bytes < block) {
    resample_scalar::vertical_columns(a, 0);
    return;
  }
  // Strips keep the rows that neighbouring outputs share in the first-level cache.
  constexpr int strip = 8 * block;
  for (int left = 0; left < a.row_bytes; left += strip) {
    const int right = left + strip < a.row_bytes ? left + strip : a.row_bytes;
    for (int o = a.begin; o < a.end; o++) {
      for (int x = left; x < right; x += block) {
        vertical_block(a, o, x + block <= a.row_bytes ? x : a.row_bytes - block);
      }
    }
  }
}

/// 16 * lanes bytes of one output row.
static void vertical_block(const resample_vertical_args& a, int o, int x) noexcept {
  const resample_taps& t = *a.taps;
  const int count = t.count[o];
  const std::int16_t* w = t.pairs + static_cast<std::ptrdiff_t>(o) * t.taps * 2;
  const std::uint8_t* p = a.source + t.first[o] * a.source_stride + x;
  vec low[4], high[4];
  for (int i = 0; i < 4; i++) low[i] = high[i] = zero();
  for (int k = 0; k < count; k += 2, w += 4, p += 2 * a.source_stride) {
    const vec even = load(p), odd = k + 1 < count ? load(p + a.source_stride) : zero();
    const vec lower = zip_low(even, odd), upper = zip_high(even, odd);
    const vec wide[4] = {widen_low(lower), widen_high(lower), widen_low(upper), widen_high(upper)};
    const vec w_low = pair(w), w_high = pair(w + 2);
    for (int i = 0; i < 4; i++) {
      low[i] = add(low[i], madd(wide[i], w_low));
      high[i] = add(high[i], madd(wide[i], w_high));
    }
  }
  vec sums[4];
  for (int i = 0; i < 4; i++) sums[i] = round_shift(low[i], high[i]);
  store(a.target + o * a.target_stride + x, narrow(sums[0], sums[1], sums[2], sums[3]));
}
