// The contract of the matrix products: C[M, N] = epilogue(A[M, K] * W[N, K]^T), W in panels.
//
//   #include <ocellus/isa/dispatch.hpp>
//   constexpr int m = 2, n = 40, k = 100;
//   static float x[m * k], w[n * k], y[m * n];  // y = x w^T
//   static float panels[ocellus::packed_elements(ocellus::dtype::f32, n, k)];
//   ocellus::pack_panels<ocellus::dtype::f32>(panels, w, k, n, k, [](float v) { return v; });
//   ocellus::gemm_args g;
//   g.a = x, g.lda = k;
//   g.b = panels;
//   g.c = y, g.ldc = n;
//   g.m = m, g.n = n, g.k = k;
//   g.panel_end = ocellus::ceil_div(n, ocellus::panel_width);  // all columns
//   ocellus::best_kernels().gemm_f32(g);
//
// What every kernel set computes, to the bit (law 2):
//   f32 activations (gemm_f32, gemm_f16, gemm_bf16): each output is one chain of fused multiply-adds over ascending k,
//     from +0, with the weight widened to f32.
//   u8 activations (gemm_s8): acc = sum a*w in s32, exact; then
//     y = float(acc - a_zero[m] * b_sum[n]) * (a_scale[m] * b_scale[n]).
//   then y = y + bias[n], y = activation(y), y = residual[m, n] + y: each operation rounded on its own. gemm_s8 takes
//     quicker forms of the GELUs: within 4e-5 and within 1.5e-4 |x|, a twentieth of a step of u8 rows made of them.
// Overflow: |acc| <= 255 * 127 * K and |a_zero * b_sum| likewise, so K < 33,000 is safe for
// their difference in s32.
#pragma once

#include <ocellus/ops/pack.hpp>

#include <cstdint>

OCELLUS_BEGIN

/// Non-linearities that epilogues fuse. The formulas and their error bounds are in
/// kernels/ocellus/generic/rowwise.inl.
enum class activation : std::uint8_t {
  none = 0,
  quick_gelu = 1,  // x * sigmoid(1.702 x)                               [Hendrycks 2016, 2; OpenAI CLIP]
  gelu = 2,        // x/2 * (1 + erf(x / sqrt 2))                        [Hendrycks 2016]
  gelu_tanh = 3,   // x/2 * (1 + tanh(sqrt(2/pi) * (x + 0.044715 x^3)))  [Hendrycks 2016; flax's default]
  silu = 4,        // x * sigmoid(x)                                     [Elfwing 2017]
  relu = 5,
};

/// Weights for a tile to fetch on its way, since they come next: of panel p from `at + p * panel_stride` on, `pace`
/// bytes further at each depth (s8: at each four). The tiles of a block share what follows evenly: if the first one
/// fetched all, memory would be the limit during that one, and idle during the others.
struct prefetch_run {
  const char* at = nullptr;
  std::ptrdiff_t pace = 0;
  bool by_turns = false;  ///< each depth fetches from one of the two panels in turn, by prefetchnta (see gemm_args)

  /// The run of the first of `tiles` tiles that share the fetching; one alone would fetch `row` bytes of each panel at
  /// each depth. Two tiles or more may take turns between the panels: every line of 64 bytes is still fetched.
  static prefetch_run first(const void* next, int row, int tiles, bool turns) noexcept {
    return {static_cast<const char*>(next), ceil_div(row, tiles), turns && tiles > 1};
  }
};

/// One product. Strides are in elements. A rows are readable up to the padded depth (s8: K rounded up to 64;
/// the padding meets zero weights, so its value does not matter).
struct gemm_args {
  const void* a = nullptr;  ///< [M, K]: float, or u8 for gemm_s8
  std::ptrdiff_t lda = 0;
  const float* a_scale = nullptr;        ///< [M], s8 only
  const std::int32_t* a_zero = nullptr;  ///< [M], s8 only
  /// `a` as round_bf16 wrote it (zeros end each row), for gemm_bf16 of sets that have it; null:
  /// gemm_bf16 rounds A itself, in each call. Or `a` as split_bf16 wrote it, for gemm_f16 of sets that have it; null:
  /// gemm_f16 is that of the set's parent. `a` is needed in any case: ragged panels may read it.
  const std::uint16_t* a_bf16 = nullptr;
  std::ptrdiff_t lda_bf16 = 0;
  /// `a` as arrange_u8 wrote it, for gemm_s8 of sets with quad_rows: exactly these M rows, of ld_arranged bytes each;
  /// read only. Null: gemm_s8 arranges rows itself, in each call.
  std::uint8_t* a_arranged = nullptr;
  std::ptrdiff_t ld_arranged = 0;

  const void* b = nullptr;               ///< panels of W[N, K]
  const float* b_scale = nullptr;        ///< [N], s8 only
  const std::int32_t* b_sum = nullptr;   ///< [N], s8 only: sum of each column's weights over k
  const float* bias = nullptr;           ///< [N] or null

  float* c = nullptr;                    ///< [M, N]
  std::ptrdiff_t ldc = 0;
  const float* residual = nullptr;       ///< [M, N] or null; may be c itself
  std::ptrdiff_t ldr = 0;

  int m = 0, n = 0, k = 0;
  /// The panels of 16 columns that this call computes: [panel_begin, panel_end). ceil_div(n, panel_width) ends all of
  /// them; with 0, the default, nothing is computed.
  int panel_begin = 0, panel_end = 0;
  activation act = activation::none;
  bool exact = false;                    ///< gemm_f16 inside law 2, also by sets with fp16 or bf16 arithmetic
  bool nta_fills_l2 = false;             ///< cpu_features::nta_fills_l2: changes how weights are fetched, and no bit
};

/// Rearranges rows of u8 ahead of the products of sets with quad_rows, once for all of them: gemm_args::a_arranged.
/// Several calls may each take a part of the depth.
struct arrange_args {
  const std::uint8_t* a = nullptr;  ///< [M, K] of the product, as gemm_s8 reads it
  std::ptrdiff_t lda = 0;
  std::uint8_t* out = nullptr;   ///< aligned to 64
  std::ptrdiff_t ld_out = 0;     ///< bytes of one row's share of out: a multiple of 64, at least 4 K
  int m = 0, k = 0;              ///< m: quad_rows or more
  int begin = 0, end = 0;        ///< depths of this call: multiples of 64, but for an end that is K
};

/// A tile of two whole panels whose sums wait for their epilogue: the next tile finishes it on its way.
struct unfinished_tile {
  const gemm_args* g = nullptr;
  const void* sums = nullptr;      ///< [rows, 32] of std::int32_t, or of float
  int row = 0, rows = 0, col = 0;  ///< of C
};

OCELLUS_END
