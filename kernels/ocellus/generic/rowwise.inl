// Row-wise operations over the set's `vec` (sixteen f32 lanes). Included once inside each kernel set; includes nothing.
// Contracts: <ocellus/ops/rowwise.hpp>. Multiply and add are rounded separately throughout; constants are derived by
// tests/goldens/fit_activations.py, which also prints their errors.

/// N vecs that take each step together. A chain of thirty dependent operations waits for each of them, and a CPU's
/// schedulers hold few such chains in the order they were written: interleaved, they run side by side.
template <int N>
struct several {
  vec v[N];

  template <class F>
  static OCELLUS_INLINE several each(const F& f) noexcept {
    several r;
    unroll<N>([&](int i) OCELLUS_LAMBDA { r.v[i] = f(i); });
    return r;
  }
  OCELLUS_INLINE several operator+(vec b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] + b; });
  }
  OCELLUS_INLINE several operator-(vec b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] - b; });
  }
  OCELLUS_INLINE several operator*(vec b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] * b; });
  }
  OCELLUS_INLINE several operator+(const several& b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] + b.v[i]; });
  }
  OCELLUS_INLINE several operator-(const several& b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] - b.v[i]; });
  }
  OCELLUS_INLINE several operator*(const several& b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] * b.v[i]; });
  }
  OCELLUS_INLINE several operator/(const several& b) const noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return v[i] / b.v[i]; });
  }
  static OCELLUS_INLINE several min(const several& a, vec b) noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return vec::min(a.v[i], b); });
  }
  static OCELLUS_INLINE several max(const several& a, vec b) noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return vec::max(a.v[i], b); });
  }
  template <class V = vec>
  static OCELLUS_INLINE several add_exponent(const several& p, const several& t) noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return V::add_exponent(p.v[i], t.v[i]); });
  }
  template <class V = vec>
  static OCELLUS_INLINE several nearest(const several& x) noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return V::nearest(x.v[i]); });
  }
  template <class V = vec>
  static OCELLUS_INLINE several times_power(const several& p, const several& n) noexcept {
    return each([&](int i) OCELLUS_LAMBDA { return V::times_power(p.v[i], n.v[i]); });
  }
};

/// Whether a vec brings `nearest`, which rounds each lane to an integer, half to even, and `times_power`. The others
/// add `magic`, 1.5 * 2^23: the same (but for the sign of zero) where |x| < 2^22, in fp_env's rounding to nearest.
template <class V = vec>
static constexpr bool has_nearest = requires(V x) { V::nearest(x); };
static constexpr float magic = 12582912.f;
template <class V>
static OCELLUS_INLINE V nearest(V x) noexcept {
  if constexpr (has_nearest<>) {
    return V::nearest(x);
  } else {
    return (x + vec::set(magic)) - vec::set(magic);
  }
}

/// x - nearest(x), exact, where |x| < 2^22. A vec may bring it.
template <class V>
static OCELLUS_INLINE V beside_nearest(V x) noexcept {
  if constexpr (requires { V::beside_nearest(x); }) {
    return V::beside_nearest(x);
  } else {
    return x - nearest(x);
  }
}

/// 2^x for x in [-125.9, 127.4]: x = n + r with n an integer, 2^r by a polynomial 1 + r P(r), the power of two added to
/// the exponent. Degree 5 errs by 1.1e-7 and its roundings, degree 3 by 1e-4: a fortieth of a step of u8 probabilities.
template <int Degree, class V>
static OCELLUS_INLINE V exp2_within(V x) noexcept {
  V t, r, p;
  if constexpr (has_nearest<>) {
    t = V::nearest(x);
    r = x - t;
  } else {
    t = x + vec::set(magic);
    r = x - (t - vec::set(magic));
  }
  if constexpr (Degree == 3) {
    p = r * vec::set(0.0550089292f) + vec::set(0.242210954f);
    p = p * r + vec::set(0.693282902f);
  } else {
    p = r * vec::set(0.00132647331f) + vec::set(0.00967151299f);
    p = p * r + vec::set(0.0555073358f);
    p = p * r + vec::set(0.240222424f);
    p = p * r + vec::set(0.693147004f);
  }
  p = p * r + vec::set(1.f);
  if constexpr (has_nearest<>) {
    return V::times_power(p, t);
  } else {
    return V::add_exponent(p, t);
  }
}
/// 2^x for any x, held within what f32 can say.
template <int Degree = 5, class V>
static OCELLUS_INLINE V exp2(V x) noexcept {
  return exp2_within<Degree>(V::min(V::max(x, vec::set(-125.9f)), vec::set(127.4f)));
}
static constexpr float log2_e = 1.44269504f;

/// How exact an activation is: as f32, or as a product of bytes before or after it deserves, with rows of 255 steps.
enum class precision { f32, u8 };

/// -b log2(e) of x sigmoid(b x), which is Swish [Ramachandran 2017].
static constexpr float quick_gelu_slope = -1.702f * log2_e, silu_slope = -log2_e;

/// x sigmoid(u), given -u log2(e).
template <precision Needed, class V>
static OCELLUS_INLINE V times_sigmoid(V x, V minus) noexcept {
  return x / (exp2<Needed == precision::u8 ? 3 : 5>(minus) + vec::set(1.f));
}

/// erf(x), absolute error below 4e-7: x P(x^2) / Q(x^2) on |x| <= 3.95 (beyond, erf is 1 to 2.4e-8).
template <class V>
static OCELLUS_INLINE V erf(V x) noexcept {
  x = V::min(V::max(x, vec::set(-3.95f)), vec::set(3.95f));
  const V t = x * x;
  V p = t * vec::set(2.01164094e-6f) + vec::set(2.87579430e-4f);
  p = p * t + vec::set(0.00391694040f);
  p = p * t + vec::set(0.0532059090f);
  p = p * t + vec::set(0.194028677f);
  p = p * t + vec::set(1.12837901f);
  V q = t * vec::set(3.78375228e-5f) + vec::set(0.00119808431f);
  q = q * t + vec::set(0.0152699772f);
  q = q * t + vec::set(0.115587645f);
  q = q * t + vec::set(0.505284931f);
  q = q * t + vec::set(1.f);
  return (x * p) / q;
}

/// f32: within 5e-7 of the formula, relative to the larger of |x| and 1. u8: within 4e-5 and within 1.5e-4 |x| of it, a
/// twentieth of a step of its row. For silu see swish_rows.
template <activation Act, precision Needed = precision::f32, class V>
static OCELLUS_INLINE V activate(V x) noexcept {
  static_assert(Act != activation::silu);
  if constexpr (Act == activation::quick_gelu) {
    return times_sigmoid<Needed>(x, x * vec::set(quick_gelu_slope));
  } else if constexpr (Act == activation::gelu && Needed == precision::u8) {
    // Phi(x) = sigmoid(x (a + b x^2 + c x^4)); beyond 8, where the polynomial would soon turn around, it is 0 or 1
    const V z = V::min(V::max(x, vec::set(-8.f)), vec::set(8.f)), t = z * z;
    const V u = (t * vec::set(7.03033959e-4f * log2_e) + vec::set(-0.0740112945f * log2_e)) * t +
                vec::set(-1.59501577f * log2_e);
    return x / (exp2_within<3>(z * u) + vec::set(1.f));
  } else if constexpr (Act == activation::gelu) {
    return (x * vec::set(0.5f)) * (erf(x * vec::set(0.707106781f)) + vec::set(1.f));
  } else if constexpr (Act == activation::gelu_tanh) {
    // tanh(u) = 2 sigmoid(2u) - 1, hence x/2 (1 + tanh u) = x sigmoid(2u), 2u = 2 sqrt(2/pi) (x + 0.044715 x^3)
    constexpr float c = -1.59576912f * log2_e;
    return times_sigmoid<Needed>(x, x * ((x * x) * vec::set(0.044715f * c) + vec::set(c)));
  } else if constexpr (Act == activation::relu) {
    return V::max(x, vec::zero());
  } else {
    return x;
  }
}

/// The sixteen (or n - i) values at x + i.
static OCELLUS_INLINE vec load_tail(const float* x, int i, int n) noexcept {
  return i + 16 <= n ? vec::load(x + i) : vec::load_n(x + i, n - i);
}
static OCELLUS_INLINE void store_tail(vec v, float* y, int i, int n) noexcept {
  if (i + 16 <= n) {
    v.store(y + i);
  } else {
    v.store_n(y + i, n - i);
  }
}

template <activation Act, precision Needed>
static OCELLUS_NOINLINE void activate_with(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx,
                                           int rows, int c) noexcept {
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < c; i += 16)
      store_tail(activate<Act, Needed>(load_tail(x + r * ldx, i, c)), y + r * ldy, i, c);
}

/// activate_with for silu and for quick_gelu as f32, which differ in one number.
static OCELLUS_NOINLINE void swish_rows(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx, int rows,
                                        int c, float slope) noexcept {
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < c; i += 16) {
      const vec v = load_tail(x + r * ldx, i, c);
      store_tail(times_sigmoid<precision::f32>(v, v * vec::set(slope)), y + r * ldy, i, c);
    }
}

template <precision Needed>
static void activate_rows_within(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx, int rows, int c,
                                 activation act) noexcept {
  switch (act) {
    case activation::none: return activate_with<activation::none, precision::f32>(y, ldy, x, ldx, rows, c);
    case activation::quick_gelu:
      if constexpr (Needed == precision::f32) {
        return swish_rows(y, ldy, x, ldx, rows, c, quick_gelu_slope);
      } else {
        return activate_with<activation::quick_gelu, Needed>(y, ldy, x, ldx, rows, c);
      }
    case activation::gelu: return activate_with<activation::gelu, Needed>(y, ldy, x, ldx, rows, c);
    case activation::gelu_tanh: return activate_with<activation::gelu_tanh, Needed>(y, ldy, x, ldx, rows, c);
    case activation::silu: return swish_rows(y, ldy, x, ldx, rows, c, silu_slope);
    case activation::relu: return activate_with<activation::relu, precision::f32>(y, ldy, x, ldx, rows, c);
  }
}

/// y[r] = activation(x[r]) over rows of c values; x may be y.
static void activate_rows(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx, int rows, int c,
                          activation act) noexcept {
  activate_rows_within<precision::f32>(y, ldy, x, ldx, rows, c, act);
}

/// y[r, 0..c) = activation(x[r, 0..c)) * x[r, c..2c): gated units [Shazeer 2020]; y may be x, or else not overlap it.
static void gate_rows(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx, int rows, int c,
                      activation act) noexcept {
  activate_rows(y, ldy, x, ldx, rows, c, act);
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < c; i += 16)
      store_tail(load_tail(y + r * ldy, i, c) * load_tail(x + r * ldx + c, i, c), y + r * ldy, i, c);
}

/// LayerNorm of R rows side by side, for a row alone would wait for its chain of additions. Mean and squared deviations
/// in two passes, as the reference does in f32. `low` and `high`: each row's extremes and zero.
template <int R>
static OCELLUS_NOINLINE void normalize_rows(float* y, std::ptrdiff_t ldy, const float* x, std::ptrdiff_t ldx,
                                            const float* gain, const float* bias, int c, float eps, float* low,
                                            float* high) noexcept {
  vec s[R], mean[R], rstd[R];
  unroll<R>([&](auto r) OCELLUS_LAMBDA { s[r] = vec::zero(); });
  for (int i = 0; i < c; i += 16)
    unroll<R>([&](auto r) OCELLUS_LAMBDA { s[r] = s[r] + load_tail(x + r * ldx, i, c); });
  unroll<R>([&](auto r) OCELLUS_LAMBDA {
    mean[r] = vec::set(s[r].sum() / static_cast<float>(c));
    s[r] = vec::zero();
  });
  int i = 0;
  for (; i + 16 <= c; i += 16)
    unroll<R>([&](auto r) OCELLUS_LAMBDA {
      const vec d = vec::load(x + r * ldx + i) - mean[r];
      s[r] = s[r] + d * d;
    });
  if (i < c)
    unroll<R>([&](auto r) OCELLUS_LAMBDA {
      const vec d = vec::first_n(vec::load_n(x + r * ldx + i, c - i) - mean[r], c - i);
      s[r] = s[r] + d * d;
    });
  vec lo[R], hi[R];
  unroll<R>([&](auto r) OCELLUS_LAMBDA {
    rstd[r] = vec::set(1.f / strict_sqrt(s[r].sum() / static_cast<float>(c) + eps));
    lo[r] = hi[r] = vec::zero();
  });
  for (i = 0; i + 16 <= c; i += 16) {
    const vec g = vec::load(gain + i), b = vec::load(bias + i);
    unroll<R>([&](auto r) OCELLUS_LAMBDA {
      const vec v = ((vec::load(x + r * ldx + i) - mean[r]) * rstd[r]) * g + b;
      lo[r] = vec::min(lo[r], v);
      hi[r] = vec::max(hi[r], v);
      v.store(y + r * ldy + i);
    });
  }
  if (i < c) {
    const vec g = vec::load_n(gain + i, c - i), b = vec::load_n(bias + i, c - i);
    unroll<R>([&](auto r) OCELLUS_LAMBDA {
      const vec v = ((vec::load_n(x + r * ldx + i, c - i) - mean[r]) * rstd[r]) * g + b;
      const vec real = vec::first_n(v, c - i);
      lo[r] = vec::min(lo[r], real);
      hi[r] = vec::max(hi[r], real);
      v.store_n(y + r * ldy + i, c - i);
    });
  }
  unroll<R>([&](auto r) OCELLUS_LAMBDA {
    low[r] = lo[r].hmin();
    high[r] = hi[r].hmax();
  });
}

static void layer_norm(const layer_norm_args& a) noexcept {
  float low[norm_rows], high[norm_rows];
  int r = 0;
  if constexpr (norm_rows > 1)
    for (; r + norm_rows <= a.rows; r += norm_rows)
      normalize_rows<norm_rows>(a.y + r * a.ldy, a.ldy, a.x + r * a.ldx, a.ldx, a.gain, a.bias, a.c, a.eps, low,
                                high);
  for (; r < a.rows; r++)
    normalize_rows<1>(a.y + r * a.ldy, a.ldy, a.x + r * a.ldx, a.ldx, a.gain, a.bias, a.c, a.eps, low, high);
}

/// f(i, end, chain) for the vecs at i of a row of c values, the last of them ragged if it ends before i + 16. With
/// row_chains 2 they come by twos: where a vec is one register, one chain of operations would wait for itself.
template <class F>
static OCELLUS_INLINE void along_row(int c, const F& f) noexcept {
  int i = 0;
  if constexpr (row_chains == 2)
    for (; i + 32 <= c; i += 32) unroll<2>([&](int j) OCELLUS_LAMBDA { f(i + j * 16, i + 32, j); });
  for (; i < c; i += 16) f(i, c, std::integral_constant<int, 0>{});
}

/// q = the bytes nearest to x * factor (+ zero), as far as the set's vec narrows sixty-four at once; returns how far.
template <class V, class Q, class... Zero>
static OCELLUS_INLINE int narrow_row(Q* q, const float* x, int c, V factor, Zero... zero) noexcept {
  int i = 0;
  if constexpr (requires(const V* v) { V::narrow(q, v, zero...); })
    for (; i + 64 <= c; i += 64) {
      V v[4];
      unroll<4>([&](int j) OCELLUS_LAMBDA { v[j] = V::load(x + i + 16 * j) * factor; });
      V::narrow(q + i, v, zero...);
    }
  return i;
}

/// How a row of values from low (<= 0) to high (>= 0) becomes u8: scale and zero point, and the factor returned; see
/// quantize_args for the rule.
static OCELLUS_INLINE vec quantization_of(float low, float high, float& scale, std::int32_t& zero) noexcept {
  const float range = high - low;
  const float inv = range >= 1e-30f ? 255.f / range : 0.f;
  scale = range / 255.f;
  zero = round_even(strict_product(-low, inv));
  return vec::set(inv);
}

/// q = x by that factor and zero point. Writes whole sixteens.
static OCELLUS_INLINE void write_row_u8(std::uint8_t* q, const float* x, int c, vec factor,
                                        std::int32_t zero) noexcept {
  for (int i = narrow_row(q, x, c, factor, zero); i < c; i += 16) (load_tail(x, i, c) * factor).to_u8(q + i, zero);
}

static OCELLUS_INLINE void quantize_row_within(std::uint8_t* q, float& scale, std::int32_t& zero, const float* x,
                                               int c, float low, float high) noexcept {
  const vec factor = quantization_of(low, high, scale, zero);
  write_row_u8(q, x, c, factor, zero);
}

/// Rotary positions [Su 2021] in place over rows of `heads` vectors of d values: with the vector's halves a and b, and
/// a row of `table` ([rows, d]: d / 2 cosines, d / 2 sines), a' = a cos - b sin, b' = b cos + a sin.
static void rotate_rows(float* x, std::ptrdiff_t ldx, const float* table, int rows, int heads, int d) noexcept {
  const int half = d / 2;
  for (int r = 0; r < rows; r++)
    for (int h = 0; h < heads; h++) {
      float* a = x + r * ldx + h * d;
      float* b = a + half;
      const float* t = table + static_cast<std::ptrdiff_t>(r) * d;
      for (int i = 0; i < half; i += 16) {
        const vec u = load_tail(a, i, half), v = load_tail(b, i, half);
        const vec cosine = load_tail(t, i, half), sine = load_tail(t + half, i, half);
        store_tail(u * cosine - v * sine, a, i, half);
        store_tail(v * cosine + u * sine, b, i, half);
      }
    }
}

/// depthwise_rows for N vecs of channels from c on: their taps stay in L1 for all pixels.
template <int N>
static OCELLUS_NOINLINE void depthwise_vecs_of(const depthwise_args& a, int c) noexcept {
  const int width = (a.w - 1) / a.stride + 1;
  int oy = a.begin / width, ox = a.begin % width;
  float* y = a.y;
  for (int i = a.begin; i < a.end; i++, y += a.ldy) {
    const int y0 = oy * a.stride - a.side / 2, x0 = ox * a.stride - a.side / 2;
    const int top = y0 < 0 ? -y0 : 0, bottom = a.h - y0 < a.side ? a.h - y0 : a.side;
    const int left = x0 < 0 ? -x0 : 0, right = a.w - x0 < a.side ? a.w - x0 : a.side;
    if (++ox == width) oy++, ox = 0;
    vec s[N];
    unroll<N>([&](int j) OCELLUS_LAMBDA { s[j] = vec::load(a.bias + c + j * 16); });
    for (int ky = top; ky < bottom; ky++) {
      const float* x = a.x + (static_cast<std::ptrdiff_t>(y0 + ky) * a.w + x0 + left) * a.ldx;
      const float* w = a.weights + (ky * a.side + left) * a.ldw;
      for (int kx = left; kx < right; kx++, x += a.ldx, w += a.ldw)
        unroll<N>([&](int j) OCELLUS_LAMBDA {
          s[j] = s[j] + vec::load(x + c + j * 16) * vec::load(w + c + j * 16);
        });
    }
    unroll<N>([&](int j) OCELLUS_LAMBDA { s[j].store(y + c + j * 16); });
  }
}

static void depthwise_rows(const depthwise_args& a) noexcept {
  constexpr int together = depthwise_vecs * 16;
  if constexpr (depthwise_vecs > 1) {
    if (a.c < together) return scalar::depthwise_rows(a);  // rare
  }
  // the last vecs may be some of those before them once more
  for (int c = 0; c < a.c; c += together)
    depthwise_vecs_of<depthwise_vecs>(a, c + together <= a.c ? c : a.c - together);
}

/// The least and the largest values so far, in row_chains chains.
struct row_range {
  vec low[2], high[2];

  static OCELLUS_INLINE row_range none() noexcept {
    const vec zero = vec::zero();
    return {{zero, zero}, {zero, zero}};
  }
  OCELLUS_INLINE void add(const float* x, int c) noexcept {
    along_row(c, [&](int i, int end, auto chain) OCELLUS_LAMBDA {
      const vec v = load_tail(x, i, end);
      low[chain] = vec::min(low[chain], v);
      high[chain] = vec::max(high[chain], v);
    });
  }
  OCELLUS_INLINE vec factor(float& scale, std::int32_t& zero) const noexcept {
    return quantization_of(vec::min(low[0], low[1]).hmin(), vec::max(high[0], high[1]).hmax(), scale, zero);
  }
};

/// One row to u8; see quantize_args for the rule.
static OCELLUS_INLINE void quantize_row_u8(std::uint8_t* q, float& scale, std::int32_t& zero, const float* x,
                                           int c) noexcept {
  row_range range = row_range::none();
  range.add(x, c);
  const vec factor = range.factor(scale, zero);
  write_row_u8(q, x, c, factor, zero);
}

static void quantize_pieces_u8(const quantize_pieces_args& a) noexcept {
  for (int r = 0; r < a.rows; r++) {
    const float* const* from = a.from + static_cast<std::ptrdiff_t>(r) * a.pieces;
    row_range range = row_range::none();
    for (int i = 0; i < a.pieces; i++)
      if (from[i] != nullptr) range.add(from[i], a.c);
    const vec factor = range.factor(a.scale[r], a.zero[r]);
    std::uint8_t* q = a.q + r * a.ldq;
    for (int i = 0; i < a.pieces; i++, q += a.c) {  // ascending: each piece overwrites what the last wrote past its end
      if (from[i] != nullptr) {
        write_row_u8(q, from[i], a.c, factor, a.zero[r]);
      } else {
        for (int j = 0; j < a.c; j += 16) vec::zero().to_u8(q + j, a.zero[r]);
      }
    }
  }
}

static void quantize_u8(const quantize_args& a) noexcept {
  for (int r = 0; r < a.rows; r++) {
    const float* const row = a.x + r * a.ldx;
    quantize_pieces_u8({&row, 1, 1, a.c, a.q + r * a.ldq, a.ldq, a.scale + r, a.zero + r});
  }
}

static void layer_norm_u8(const layer_norm_args& a) noexcept {
  const std::ptrdiff_t ldy = round_up(a.c, 16);
  float low[norm_rows], high[norm_rows];
  for (int r = 0, rows = 0; r < a.rows; r += rows) {
    const float* x = a.x + r * a.ldx;
    rows = a.rows - r < norm_rows ? 1 : norm_rows;
    if (rows == norm_rows) {
      normalize_rows<norm_rows>(a.y, ldy, x, a.ldx, a.gain, a.bias, a.c, a.eps, low, high);
    } else {
      normalize_rows<1>(a.y, ldy, x, a.ldx, a.gain, a.bias, a.c, a.eps, low, high);
    }
    for (int i = 0; i < rows; i++)
      quantize_row_within(a.q + (r + i) * a.ldq, a.scale[r + i], a.zero[r + i], a.y + i * ldy, a.c, low[i], high[i]);
  }
}

/// Winograd's F(2 x 2, 3 x 3) [Winograd 1980; Lavin 2015]: B^T d B of 4 x 4 pixels d, from[0..16) row by row, each of c
/// values; element i goes to `to + i * stride`. Whole sixteens are read and written.
static void winograd_input(const float* const* from, float* to, std::ptrdiff_t stride, int c) noexcept {
  for (int i = 0; i < c; i += 16) {
    vec t[16];
    unroll<4>([&](int j) OCELLUS_LAMBDA {
      const vec d0 = vec::load(from[j] + i), d1 = vec::load(from[4 + j] + i);
      const vec d2 = vec::load(from[8 + j] + i), d3 = vec::load(from[12 + j] + i);
      t[j] = d0 - d2;
      t[4 + j] = d1 + d2;
      t[8 + j] = d2 - d1;
      t[12 + j] = d1 - d3;
    });
    unroll<4>([&](int j) OCELLUS_LAMBDA {
      const vec* d = t + 4 * j;
      float* const row = to + 4 * j * stride + i;
      (d[0] - d[2]).store(row);
      (d[1] + d[2]).store(row + stride);
      (d[2] - d[1]).store(row + 2 * stride);
      (d[1] - d[3]).store(row + 3 * stride);
    });
  }
}

/// relu(A^T m A + bias) of 4 x 4 products m, element i at `from + i * stride`, each of c values: 2 x 2 pixels.
static void winograd_output(const float* from, std::ptrdiff_t stride, const float* bias, float* const* to,
                            int c) noexcept {
  for (int i = 0; i < c; i += 16) {
    vec t[8];
    unroll<4>([&](int j) OCELLUS_LAMBDA {
      const float* const column = from + j * stride + i;
      const vec m0 = vec::load(column), m1 = vec::load(column + 4 * stride);
      const vec m2 = vec::load(column + 8 * stride), m3 = vec::load(column + 12 * stride);
      t[j] = (m0 + m1) + m2;
      t[4 + j] = (m1 - m2) - m3;
    });
    const vec b = vec::load(bias + i);
    unroll<2>([&](int j) OCELLUS_LAMBDA {
      const vec* m = t + 4 * j;
      vec::max(((m[0] + m[1]) + m[2]) + b, vec::zero()).store(to[2 * j] + i);
      vec::max(((m[1] - m[2]) - m[3]) + b, vec::zero()).store(to[2 * j + 1] + i);
    });
  }
}

/// y = x / max(|x|, 1e-12), the Euclidean norm over c values (torch.nn.functional.normalize); y may be x.
static void l2_normalize(float* y, const float* x, int c) noexcept {
  vec s = vec::zero();
  for (int i = 0; i < c; i += 16) {
    const vec v = load_tail(x, i, c);
    s = s + v * v;
  }
  const float norm = strict_sqrt(s.sum());
  const vec inv = vec::set(1.f / (norm > 1e-12f ? norm : 1e-12f));
  for (int i = 0; i < c; i += 16) store_tail(load_tail(x, i, c) * inv, y, i, c);
}

/// In place over one row of n scores: e[j] = exp((s[j] - max s) * scale), zero from n to n_padded; returns the sum.
static OCELLUS_INLINE float softmax_row(float* s, int n, int n_padded, float scale) noexcept {
  vec m = vec::set(s[0]);
  int j = 0;
  for (; j + 16 <= n; j += 16) m = vec::max(m, vec::load(s + j));
  if (j < n) {
    const vec last = vec::load(s + j);  // rows are padded to 16: readable, but the tail must not count
    m = vec::max(m, vec::select_n(last, m, n - j));
  }
  const vec max_v = vec::set(m.hmax()), scale_v = vec::set(scale * log2_e);
  vec sum = vec::zero();
  for (j = 0; j + 16 <= n; j += 16) {
    const vec e = exp2((vec::load(s + j) - max_v) * scale_v);
    sum = sum + e;
    e.store(s + j);
  }
  if (j < n) {
    const vec e = vec::first_n(exp2((vec::load(s + j) - max_v) * scale_v), n - j);
    sum = sum + e;
    e.store(s + j);
    j += 16;
  }
  for (; j < n_padded; j += 16) vec::zero().store(s + j);
  return sum.sum();
}

/// Sixteen (n of them, the others zero) stored values as f32. A vec may bring its own `widen` of sixteen.
template <class T, class Vec = vec>
static OCELLUS_INLINE vec load_wide(const T* p, int n) noexcept {
  if constexpr (std::is_same_v<T, float>) {
    return n >= 16 ? vec::load(p) : vec::load_n(p, n);
  } else {
    if constexpr (requires { Vec::widen(p); }) {
      if (n >= 16) return Vec::widen(p);
    }
    alignas(64) float wide[16] = {};
    for (int i = 0; i < 16 && i < n; i++) {
      if constexpr (std::is_same_v<T, f16>) {
        wide[i] = to_f32(p[i]);
      } else {
        wide[i] = static_cast<float>(p[i]);
      }
    }
    return vec::load(wide);
  }
}

/// Scores rows one by one, from dot_streams parts of them by turns. Memory is the limit: a single stream is asked for
/// two pages ahead, which would make several slower, and neighbouring rows side by side are read slower than either.
template <class T>
static OCELLUS_INLINE void dot_rows(const dot_rows_args& a) noexcept {
  const std::ptrdiff_t part = ceil_div(a.n, dot_streams);
  for (std::ptrdiff_t i = 0; i < part; i++)
    for (std::ptrdiff_t at = i; at < a.n; at += part) {
      const T* row = static_cast<const T*>(a.rows) + at * a.ld;
      vec sums[4];  // four, since the additions of one would be slower than memory
      unroll<4>([&](int j) OCELLUS_LAMBDA { sums[j] = vec::zero(); });
      int c = 0;
      for (; c + 64 <= a.c; c += 64)
        unroll<4>([&](auto j) OCELLUS_LAMBDA {
          if constexpr (dot_streams == 1) __builtin_prefetch(reinterpret_cast<const char*>(row + c + j * 16) + 8192);
          sums[j] = sums[j] + vec::load(a.query + c + j * 16) * load_wide(row + c + j * 16, 16);
        });
      for (; c < a.c; c += 16) sums[0] = sums[0] + load_tail(a.query, c, a.c) * load_wide(row + c, a.c - c);
      const float s = ((sums[0] + sums[1]) + (sums[2] + sums[3])).sum();
      a.scores[at] = a.scale != nullptr ? a.scale[at] * s : s;
    }
}
static void dot_rows_f32(const dot_rows_args& a) noexcept { dot_rows<float>(a); }
static void dot_rows_f16(const dot_rows_args& a) noexcept { dot_rows<f16>(a); }
static void dot_rows_s8(const dot_rows_args& a) noexcept { dot_rows<std::int8_t>(a); }
