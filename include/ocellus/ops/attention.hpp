// The contract of scaled dot-product attention [Vaswani 2017, eq. 1] for one head of one sequence:
//   out[i] = sum_j softmax_j(scale * q[i] . k[j]) v[j],  i < tq, j < tk, and j <= i + causal_offset if causal.
//
// What every kernel set computes, to the bit (law 2):
//   attention_f32: scores and outputs are FMA chains over ascending d and j; softmax as in ops/rowwise.hpp: subtract
//     the row's maximum, multiply by scale log2(e), 2^x, sum in sixteen lanes; the output is multiplied by 1/sum at the
//     end, and 0 is added to it: no output is -0.
//   attention_bf16: the same; but sets that multiply bf16 (not exact_bf16) round q, k, v and the probabilities
//     before they are divided by their sum.
//   attention_s8: q is quantised per row to u8 with a zero point, k and v per row to s8; both products are exact
//     integers; the probabilities times v's scale are quantised per row to u8, each with what rounding the one sixteen
//     keys before it left over.
#pragma once

#include <ocellus/ops/pack.hpp>

#include <cstddef>
#include <cstdint>

OCELLUS_BEGIN

/// One head. Strides in elements. q, k and v are readable up to 15 floats past each row's D values (head widths that
/// are no multiple of 16 read into the neighbour).
struct attention_args {
  const float* q = nullptr;  ///< [tq, D]
  std::ptrdiff_t ldq = 0;
  const float* k = nullptr;  ///< [., D]; key j is row key_rows[j], or row j when key_rows is null
  std::ptrdiff_t ldk = 0;
  const float* v = nullptr;
  std::ptrdiff_t ldv = 0;
  const int* key_rows = nullptr;
  float* out = nullptr;      ///< [tq, D]; may be q, with its stride
  std::ptrdiff_t ldo = 0;
  int tq = 0, tk = 0, d = 0;  ///< tk >= 1, and each row sees a key (causal_offset >= 0): one that sees none gets NaN
  // attention_s8 sums tk products of u8 and s8 in s32: tk <= 66,000
  bool causal = false;
  int causal_offset = 0;
  float scale = 1;
  void* scratch = nullptr;   ///< attention_scratch(tk, d) bytes, aligned to 64
};

/// Bytes of scratch for attention_s8; a multiple of 64.
constexpr std::size_t attention_scratch_s8(int tk, int d) noexcept {
  const std::size_t t = static_cast<std::size_t>(round_up(tk < 1 ? 1 : tk, 32));
  const std::size_t w = static_cast<std::size_t>(round_up(d, 16));
  // K^T and V panels, three rows of scales and sums, 16 rows of scores and of probabilities, 16 rows of quantised
  // queries and 4 of values.
  return (2 * t * w + 3 * 4 * t + 16 * 4 * t + 16 * t + 20 * w + 63) / 64 * 64;
}

/// The same for either kind.
constexpr std::size_t attention_scratch(int tk, int d) noexcept {
  const std::size_t t = static_cast<std::size_t>(round_up(tk < 1 ? 1 : tk, 32));
  const std::size_t w = static_cast<std::size_t>(round_up(d, 16));
  const std::size_t f32 = (4 * (2 * t * w + 16 + 16 * t) + 63) / 64 * 64;  // K^T and V panels, 16 rows of scores
  const std::size_t s8 = attention_scratch_s8(tk, d);
  return f32 > s8 ? f32 : s8;
}

OCELLUS_END
