// attention_bf16 of sets whose tiles multiply bf16: attention_f32 with q, k, v and the probabilities rounded; sums,
// softmax and output in f32. Included once inside each such set, after gemm_rounded.inl, with whose round_block,
// tiles_rounded and rounded_height it works. The set defines
//   store_rounded(block, ld, rows, r, j, v)   sixteen values from (r, j) on of a block of `rows` rows, as round_block
//                                             has them
//   store_pairs(out, first, second)           sixteen columns of two depths of a panel

/// K in panels of pairs along the width, V in panels of pairs of keys, both rounded.
static OCELLUS_NOINLINE void pack_attention_bf16(const attention_args& t, bf16* kp, std::size_t k_stride, bf16* vp,
                                                 std::size_t v_stride, std::uint16_t* sixteen) noexcept {
  const int d_pad = round_up(t.d, 16);
  for (int j = 0; j < t.tk; j += 16) {
    const float* rows[16];
    for (int i = 0; i < 16; i++) {  // scores of missing keys are computed and then ignored: any row will do for them
      round_block(sixteen + i * d_pad, d_pad, t.k + attention_row(t, j + i < t.tk ? j + i : t.tk - 1) * t.ldk, t.ldk,
                  1, t.d);
      rows[i] = reinterpret_cast<const float*>(sixteen + i * d_pad);  // pairs, which are moved only
    }
    float* panel = reinterpret_cast<float*>(kp + static_cast<std::size_t>(j / 16) * k_stride);
    for (int d = 0; d < d_pad / 2; d += 16) transpose16(panel + d * 16, rows, d, d_pad / 2 - d < 16 ? 8 : 16);
  }
  for (int j = 0; j < t.tk; j += 2) {
    const float* first = t.v + attention_row(t, j) * t.ldv;
    const float* second = j + 1 < t.tk ? t.v + attention_row(t, j + 1) * t.ldv : nullptr;
    bf16* out = vp + static_cast<std::size_t>(j) * 16;
    for (int d = 0; d < t.d; d += 16)
      store_pairs(out + static_cast<std::size_t>(d / 16) * v_stride, load_tail(first, d, t.d),
                  second == nullptr ? vec::zero() : load_tail(second, d, t.d));
  }
}

/// Probabilities of row r of `rows`: exp((s[j] - max s) * scale) for j < n, zeros up to n_padded; returns their sum.
/// The short polynomial errs by a sixteenth of what rounding does.
static OCELLUS_INLINE float softmax_bf16(std::uint16_t* probs, std::ptrdiff_t ld, int rows, int r, const float* s,
                                         int n, int n_padded, float scale) noexcept {
  const int whole = n / 16 * 16;
  vec m = vec::set(s[0]);
  for (int j = 0; j < whole; j += 16) m = vec::max(m, vec::load(s + j));
  if (whole < n) m = vec::max(m, vec::select_n(vec::load(s + whole), m, n - whole));
  const vec most = vec::set(m.hmax()), scales = vec::set(scale * log2_e), least = vec::set(-125.9f);
  vec sum = vec::zero();
  const auto weigh = [&](vec e, int j) OCELLUS_LAMBDA {
    sum = sum + e;
    store_rounded(probs, ld, rows, r, j, e);
  };
  const auto below = [&](int j) OCELLUS_LAMBDA { return vec::max((vec::load(s + j) - most) * scales, least); };
  for (int j = 0; j < whole; j += 16) weigh(exp2_within<3>(below(j)), j);
  if (whole < n)  // lanes beyond the last key may hold anything
    weigh(vec::first_n(exp2_within<3>(vec::min(below(whole), vec::zero())), n - whole), whole);
  for (int j = round_up(n, 16); j < n_padded; j += 16) store_rounded(probs, ld, rows, r, j, vec::zero());
  return sum.sum();
}

/// A set's products of `rows` rows of bf16 (at most the set's tiles have) with so many panels, over the whole depth.
using bf16_products = void (*)(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b, std::size_t stride, int depth,
                               float* out, std::ptrdiff_t ldo, int rows, int panels) noexcept;

static OCELLUS_NOINLINE void products_bf16(const std::uint16_t* a, std::ptrdiff_t lda, const bf16* b,
                                           std::size_t stride, int depth, float* out, std::ptrdiff_t ldo, int rows,
                                           int panels) noexcept {
  for (; panels > 0; panels -= 2, b += 2 * stride, out += 32)
    tiles_rounded(rows, panels > 1 ? 2 : 1, a, lda, b, stride, depth, out, ldo, false, {});
}

/// attention_bf16 by `products` of at most `most_rows` rows.
static OCELLUS_NOINLINE void attention_bf16_by(const attention_args& t, int most_rows,
                                               bf16_products products) noexcept {
  const int tk_pad = round_up(t.tk, 32), d_pad = round_up(t.d, 16);
  const std::size_t k_stride = static_cast<std::size_t>(d_pad) * 16,
                    v_stride = static_cast<std::size_t>(round_up(t.tk, 2)) * 16;
  float* const scores = static_cast<float*>(t.scratch);                        // [attention_rows, tk_pad]
  bf16* const kp = reinterpret_cast<bf16*>(scores + attention_rows * tk_pad);  // [tk_pad / 16][d_pad / 2][16][2]
  bf16* const vp = kp + static_cast<std::size_t>(tk_pad / 16) * k_stride;      // [d_pad / 16][tk / 2][16][2]
  bf16* const end = vp + static_cast<std::size_t>(d_pad / 16) * v_stride;
  std::uint16_t* const probs = reinterpret_cast<std::uint16_t*>(end);          // [attention_rows, tk_pad]
  std::uint16_t* const q16 = probs + attention_rows * tk_pad;                  // [attention_rows, d_pad]
  pack_attention_bf16(t, kp, k_stride, vp, v_stride, q16);

  alignas(64) float out[attention_rows * 32];
  for (int i = 0; i < t.tq;) {
    const int rows = tile_height(t.tq - i, most_rows, row_unit);
    const int last = t.causal ? i + rows + t.causal_offset : t.tk;  // keys that the block's last row sees
    const int keys = last < t.tk ? last : t.tk, keys_pad = round_up(keys, 32);
    round_block(q16, d_pad, t.q + i * t.ldq, t.ldq, rows, t.d);
    products(q16, d_pad, kp, k_stride, t.d, scores, tk_pad, rows, keys_pad / 16);
    float inv[attention_rows];
    for (int r = 0; r < rows; r++) {
      const int seen = t.causal ? i + r + 1 + t.causal_offset : t.tk;
      inv[r] = 1.f / softmax_bf16(probs, tk_pad, rows, r, scores + r * tk_pad, seen < t.tk ? seen : t.tk, keys_pad,
                                  t.scale);
    }
    for (int d = 0; d < t.d; d += 32) {
      const int panels = d + 16 < t.d ? 2 : 1;
      products(probs, tk_pad, vp + static_cast<std::size_t>(d / 16) * v_stride, v_stride, keys, out, 32, rows, panels);
      for (int r = 0; r < rows; r++)
        for (int p = 0; p < panels; p++)
          store_tail(vec::load(out + r * 32 + p * 16) * vec::set(inv[r]), t.out + (i + r) * t.ldo, d + p * 16, t.d);
    }
    i += rows;
  }
}

static_assert(rounded_height <= attention_rows);
static void attention_bf16(const attention_args& t) noexcept {
  attention_bf16_by(t, rounded_height, &products_bf16);
}
