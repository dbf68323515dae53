// Attention for one head of one sequence, around the set's tiles. Included once inside each kernel set.
// Contract: <ocellus/ops/attention.hpp>. K^T and V are packed into panels in scratch once per head; then
// blocks of up to 16 query rows run scores, softmax and output, so that no T x T matrix exists.

#if !defined(OCELLUS_ONLY_S8)

/// Rows of queries that a block has at most.
static constexpr int attention_rows = 16;

static OCELLUS_INLINE int attention_row(const attention_args& t, int j) noexcept {
  return t.key_rows != nullptr ? t.key_rows[j] : j;
}

static void attention_f32(const attention_args& t) noexcept {
  const int tk_pad = round_up(t.tk, 32), d_pad = round_up(t.d, 16);
  float* kt = static_cast<float*>(t.scratch);                                         // [tk_pad / 16][D][16]
  float* vp = kt + static_cast<std::size_t>(tk_pad) * static_cast<std::size_t>(t.d);  // [d_pad / 16][tk][16]
  float* scores = vp + static_cast<std::size_t>(t.tk) * static_cast<std::size_t>(d_pad);  // [rows, tk_pad]
  scores += (16 - (scores - kt) % 16) % 16;
  const std::size_t k_stride = static_cast<std::size_t>(t.d) * 16,
                    v_stride = static_cast<std::size_t>(t.tk) * 16;
  for (int j = 0; j < tk_pad; j += 16) {
    // scores of missing keys are computed in whole panels and then ignored: any row will do for them
    const float* rows[16];
    for (int i = 0; i < 16; i++) rows[i] = t.k + attention_row(t, j + i < t.tk ? j + i : t.tk - 1) * t.ldk;
    float* panel = kt + static_cast<std::size_t>(j / 16) * k_stride;
    for (int d = 0; d < t.d; d += 16) transpose16(panel + d * 16, rows, d, t.d - d < 16 ? t.d - d : 16);
  }
  for (int j = 0; j < t.tk; j++) {
    const float* v = t.v + attention_row(t, j) * t.ldv;
    float* out = vp + static_cast<std::size_t>(j) * 16;
    for (int d = 0; d < t.d; d += 16)
      load_tail(v, d, t.d).store(out + static_cast<std::size_t>(d / 16) * v_stride);
  }

  static_assert(float_rows <= attention_rows);
  alignas(64) float out[float_rows * 32];
  for (int i = 0; i < t.tq;) {
    const int rows = tile_height(t.tq - i, float_rows);
    const int last = t.causal ? i + rows + t.causal_offset : t.tk;  // keys that the block's last row sees
    const int keys = last < t.tk ? last : t.tk, keys_pad = round_up(keys, 32);
    for (int j = 0; j < keys; j += 32)
      tiles_float<float_rows, 2, float>(t.q + i * t.ldq, t.ldq,
                                        kt + static_cast<std::size_t>(j / 16) * k_stride, k_stride, t.d,
                                        scores + j, tk_pad, {}, false, rows);
    float inv[float_rows] = {};  // gcc with -O3 -flto believes that rows might be none
    for (int r = 0; r < rows; r++) {
      const int seen = t.causal ? i + r + 1 + t.causal_offset : t.tk;
      inv[r] = 1.f / softmax_row(scores + r * tk_pad, seen < t.tk ? seen : t.tk, keys_pad, t.scale);
    }
    for (int d = 0; d < t.d; d += 32) {
      const int panels = d + 16 < t.d ? 2 : 1;
      const float* v = vp + static_cast<std::size_t>(d / 16) * v_stride;
      if (panels == 2) {
        tiles_float<float_rows, 2, float>(scores, tk_pad, v, v_stride, keys, out, 32, {}, false, rows);
      } else {
        tiles_float<float_rows, 1, float>(scores, tk_pad, v, v_stride, keys, out, 32, {}, false, rows);
      }
      // + 0 turns -0 into 0: a sum that underflows has a sign, which the zeros of keys that its row does not see may
      // change, and how many of these there are depends on the block
      for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
          store_tail(vec::load(out + r * 32 + p * 16) * vec::set(inv[r]) + vec::zero(), t.out + (i + r) * t.ldo,
                     d + p * 16, t.d);
    }
    i += rows;
  }
}

/// For towers with bf16 weights; sets that round activations to bf16 round these as well.
static void attention_bf16(const attention_args& t) noexcept { attention_f32(t); }

/// One row to s8: q = clamp(round(x * 127 / max|x|), -127, 127), zeros if max|x| < 1e-30; returns max|x| / 127. Writes
/// whole sixteens.
static OCELLUS_INLINE float quantize_row_s8(std::int8_t* q, const float* x, int c) noexcept {
  const int whole = c / 16 * 16;
  vec m = vec::zero();
  const auto widest = [&m](vec v) OCELLUS_LAMBDA { m = vec::max(m, vec::max(v, vec::zero() - v)); };
  for (int i = 0; i < whole; i += 16) widest(vec::load(x + i));
  if (whole < c) widest(vec::load_n(x + whole, c - whole));
  const float most = m.hmax();
  const vec inv = vec::set(most >= 1e-30f ? 127.f / most : 0.f);
  for (int i = narrow_row(q, x, whole, inv); i < whole; i += 16) (vec::load(x + i) * inv).to_s8(q + i);
  if (whole < c) (vec::load_n(x + whole, c - whole) * inv).to_s8(q + whole);
  return most / 127.f;
}

/// Rows of probabilities to u8, in passes over all rows rather than row by row: the maximum or sum that a row waits for
/// is reduced while the next rows are under way.
struct softmax_rows {
  std::int32_t* ints;           ///< [rows, ld] scores, overwritten by probabilities in f32
  std::uint8_t* probs;          ///< [rows, ld]
  std::ptrdiff_t ld;
  const std::int32_t* k_sum;    ///< of each key, as its scale and its value's scale
  const float* k_scale;
  const float* v_scale;
  const std::int32_t* zero;     ///< of each query
  const float* weight;          ///< of each query: its scale times the attention's
  int rows, keys;               ///< keys: what the longest row sees
  int first, step;              ///< row r sees first + r * step keys, but not more than there are
  float* factor;                ///< out: what each row of the output is multiplied by

  int seen(int r) const noexcept {
    const int n = first + r * step;
    return n < keys ? n : keys;
  }
};

/// R rows from r on, which see the same keys, to u8. What rounding leaves over goes to the key sixteen further on: a
/// long row's many small probabilities would otherwise lose their sum, and errors that cancel weigh less in the output.
template <int R>
static OCELLUS_INLINE void round_probabilities(const softmax_rows& t, int r, const float* most) noexcept {
  const vec top = vec::set(255.f);
  const float* const s = reinterpret_cast<const float*>(t.ints + r * t.ld);
  std::uint8_t* const probs = t.probs + r * t.ld;
  const int seen = t.seen(r);
  vec inv[R], left[R];
  unroll<R>([&](int i) OCELLUS_LAMBDA {
    inv[i] = vec::set(most[i] >= 1e-30f ? 255.f / most[i] : 0.f);
    left[i] = vec::zero();
  });
  int j = 0;
  for (; j < seen; j += 16)
    unroll<R>([&](int i) OCELLUS_LAMBDA {
      const vec p = vec::min(vec::load(s + i * t.ld + j) * inv[i] + left[i], top);
      left[i] = beside_nearest(p);  // the integer that to_u8 makes of p
      p.to_u8(probs + i * t.ld + j, 0);
    });
  for (; j < t.keys; j += 16)
    unroll<R>([&](int i) OCELLUS_LAMBDA { vec::zero().to_u8(probs + i * t.ld + j, 0); });
}

/// v's scales go into the probabilities before they are quantised, so that each token is quantised alone: what a prefix
/// computes does not depend on what follows it.
static OCELLUS_NOINLINE void quantize_softmax(const softmax_rows& rows) noexcept {
  const softmax_rows t = rows;  // so that pointers stay in registers: no store can change them
  float most[attention_rows], sums[attention_rows];
  for (int r = 0; r < t.rows; r++) {
    std::int32_t* const ints = t.ints + r * t.ld;
    float* const s = reinterpret_cast<float*>(ints);
    const int seen = t.seen(r), whole = seen / 16 * 16;
    const vec weight = vec::set(t.weight[r] * log2_e);
    vec m = vec::set(-3e38f);
    const auto score = [&](int j) OCELLUS_LAMBDA {
      const vec x = vec::dequantize(ints + j, t.k_sum + j, t.zero[r]) * (weight * vec::load(t.k_scale + j));
      x.store(s + j);
      return x;
    };
    for (int j = 0; j < whole; j += 16) m = vec::max(m, score(j));
    if (whole < seen) m = vec::max(m, vec::select_n(score(whole), m, seen - whole));
    most[r] = m.hmax();
  }
  for (int r = 0; r < t.rows; r++) {
    float* const s = reinterpret_cast<float*>(t.ints + r * t.ld);
    const int seen = t.seen(r), whole = seen / 16 * 16;
    const vec max_v = vec::set(most[r]), least = vec::set(-125.9f);
    vec sum = vec::zero(), p = vec::zero();
    const auto weigh = [&](vec e, int j) OCELLUS_LAMBDA {
      sum = sum + e;
      e = e * vec::load(t.v_scale + j);
      e.store(s + j);
      p = vec::max(p, e);
    };
    const auto below = [&](int j) OCELLUS_LAMBDA { return vec::max(vec::load(s + j) - max_v, least); };
    for (int j = 0; j < whole; j += 16) weigh(exp2_within<3>(below(j)), j);
    if (whole < seen)  // lanes beyond the last key may hold anything
      weigh(vec::first_n(exp2_within<3>(vec::min(below(whole), vec::zero())), seen - whole), whole);
    most[r] = p.hmax();
    sums[r] = sum.sum();
  }
  for (int r = 0; r < t.rows; r++) t.factor[r] = (most[r] / 255.f) / sums[r];
  int r = 0;
  if constexpr (norm_rows > 1)
    for (; t.step == 0 && r + norm_rows <= t.rows; r += norm_rows) round_probabilities<norm_rows>(t, r, most + r);
  for (; r < t.rows; r++) round_probabilities<1>(t, r, most + r);
}

/// What attention_s8 keeps in its scratch, all parts multiples of 64 bytes.
struct attention_s8_parts {
  int tk_pad, d_pad, d4;           // keys to a multiple of 32, width to one of 16 and of 4
  std::size_t k_stride, v_stride;  // bytes of a panel
  float *k_scale, *v_scale;        // [tk_pad]
  std::int32_t* k_sum;             // [tk_pad]
  std::int32_t* scores;            // [attention_rows, tk_pad], f32 from softmax on
  std::int8_t* kp;                 // [tk_pad / 16][d4 / 4][16][4]
  std::int8_t* vp;                 // [d_pad / 16][keys / 4][16][4]
  std::uint8_t* probs;             // [attention_rows, tk_pad]
  std::uint8_t* q8;                // [attention_rows, d_pad]: queries, and before them keys or values of one block
};

/// Quantises K and V into panels; k_sum is still to be computed.
static OCELLUS_NOINLINE void pack_attention_s8(const attention_args& t, attention_s8_parts& parts) noexcept {
  const int tk_pad = round_up(t.tk, 32), d_pad = round_up(t.d, 16), d4 = round_up(t.d, 4), tk4 = round_up(t.tk, 4);
  const std::size_t k_stride = static_cast<std::size_t>(d4) * 16, v_stride = static_cast<std::size_t>(tk4) * 16;
  float* const k_scale = static_cast<float*>(t.scratch);
  float* const v_scale = k_scale + tk_pad;
  std::int32_t* const k_sum = reinterpret_cast<std::int32_t*>(v_scale + tk_pad);
  std::int32_t* const scores = k_sum + tk_pad;
  std::int8_t* const kp = reinterpret_cast<std::int8_t*>(scores + attention_rows * tk_pad);
  std::int8_t* const vp = kp + static_cast<std::size_t>(tk_pad / 16) * k_stride;
  std::uint8_t* const probs = reinterpret_cast<std::uint8_t*>(vp + static_cast<std::size_t>(d_pad / 16) * v_stride);
  std::uint8_t* const q8 = probs + attention_rows * tk_pad;
  std::int8_t* const rows8 = reinterpret_cast<std::int8_t*>(q8);
  parts = {tk_pad, d_pad, d4, k_stride, v_stride, k_scale, v_scale, k_sum, scores, kp, vp, probs, q8};

  for (int j = 0; j < tk_pad; j += 16) {
    const float* rows[16];
    for (int i = 0; i < 16; i++) {
      const bool real = j + i < t.tk;
      std::int8_t* row = rows8 + i * d_pad;
      if (real) {
        k_scale[j + i] = quantize_row_s8(row, t.k + attention_row(t, j + i) * t.ldk, t.d);
      } else {  // whatever lies there: its scores are computed with the panel and then ignored
        k_scale[j + i] = 0;
        std::memset(row, 0, static_cast<std::size_t>(d_pad));
      }
      rows[i] = reinterpret_cast<const float*>(row);
    }
    float* panel = reinterpret_cast<float*>(kp + static_cast<std::size_t>(j / 16) * k_stride);
    for (int d = 0; d < d4; d += 64) transpose16(panel + d * 4, rows, d / 4, d4 - d < 64 ? (d4 - d) / 4 : 16);
  }
  for (int j = t.tk; j < tk_pad; j++) v_scale[j] = 0;
  for (int j = 0; j < tk4; j += 4) {
    for (int r = 0; r < 4; r++) {
      if (j + r < t.tk) {
        v_scale[j + r] = quantize_row_s8(rows8 + r * d_pad, t.v + attention_row(t, j + r) * t.ldv, t.d);
      } else {
        std::memset(rows8 + r * d_pad, 0, static_cast<std::size_t>(d_pad));
      }
    }
    for (int d = 0; d < d_pad; d += 16)
      vec::interleave4(vp + static_cast<std::size_t>(d / 16) * v_stride + static_cast<std::size_t>(j) * 16,
                       rows8 + d, rows8 + d_pad + d, rows8 + 2 * d_pad + d, rows8 + 3 * d_pad + d);
  }
}

/// A set's products of `rows` rows of u8 (at most the set's tiles have) with so many panels, over the whole depth.
using s8_products = void (*)(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, std::size_t stride,
                             int depth, std::int32_t* out, std::ptrdiff_t ldo, int rows, int panels) noexcept;

/// attention_s8 by `products` of at most `most_rows` rows; `out` has room for 32 columns of them.
static OCELLUS_NOINLINE void attention_s8_by(const attention_args& t, int most_rows, s8_products products,
                                             std::int32_t* out) noexcept {
  attention_s8_parts parts;
  pack_attention_s8(t, parts);
  const auto [tk_pad, d_pad, d4, k_stride, v_stride, k_scale, v_scale, k_sum, scores, kp, vp, probs, q8] = parts;
  std::memset(q8, 1, static_cast<std::size_t>(d4));  // a query of ones: its products are the sums of the keys
  products(q8, d_pad, kp, k_stride, d4, k_sum, tk_pad, 1, tk_pad / 16);

  for (int i = 0; i < t.tq;) {
    const int rows = tile_height(t.tq - i, most_rows);
    const int last = t.causal ? i + rows + t.causal_offset : t.tk;
    const int keys = last < t.tk ? last : t.tk;
    float q_scale[attention_rows], q_weight[attention_rows], factor[attention_rows];
    std::int32_t q_zero[attention_rows];
    for (int r = 0; r < rows; r++)
      quantize_row_u8(q8 + r * d_pad, q_scale[r], q_zero[r], t.q + (i + r) * t.ldq, t.d);
    products(q8, d_pad, kp, k_stride, d4, scores, tk_pad, rows, round_up(keys, 32) / 16);
    for (int r = 0; r < rows; r++) q_weight[r] = t.scale * q_scale[r];
    quantize_softmax({scores, probs, tk_pad, k_sum, k_scale, v_scale, q_zero, q_weight, rows, keys,
                      t.causal ? i + 1 + t.causal_offset : t.tk, t.causal ? 1 : 0, factor});
    const int depth = round_up(keys, 4);
    for (int d = 0; d < t.d; d += 32) {
      const int panels = d + 16 < t.d ? 2 : 1;
      products(probs, tk_pad, vp + static_cast<std::size_t>(d / 16) * v_stride, v_stride, depth, out, 32, rows, panels);
      alignas(64) const std::int32_t none[16] = {};
      for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
          store_tail(vec::dequantize(out + r * 32 + p * 16, none, 0) * vec::set(factor[r]),
                     t.out + (i + r) * t.ldo, d + p * 16, t.d);
    }
    i += rows;
  }
}

#endif

static_assert(s8_rows <= attention_rows);
static OCELLUS_NOINLINE void products_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                         std::size_t stride, int depth, std::int32_t* out, std::ptrdiff_t ldo,
                                         int rows, int panels) noexcept {
  for (; panels > 1; panels -= 2, b += 2 * stride, out += 32)
    tiles_s8<s8_rows, 2>(a, lda, b, stride, depth, out, ldo, {}, rows);
  if (panels > 0) tiles_s8<s8_rows, 1>(a, lda, b, stride, depth, out, ldo, {}, rows);
}

static void attention_s8(const attention_args& t) noexcept {
  alignas(64) std::int32_t out[s8_rows * 32];
  attention_s8_by(t, s8_rows, &products_s8, out);
}
