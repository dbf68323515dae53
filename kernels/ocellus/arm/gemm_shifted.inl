// Included once inside neon_tiles and the set of 32-bit Arm; includes nothing.

/// The product of `rows` rows from i on.
static gemm_args rows_of(const gemm_args& g, int i, int rows) noexcept {
  gemm_args part = g;
  part.m = rows;
  part.a = static_cast<const std::uint8_t*>(g.a) + i * g.lda;
  part.a_scale = g.a_scale + i;
  part.a_zero = g.a_zero + i;
  part.c = g.c + i * g.ldc;
  if (g.residual != nullptr) part.residual = g.residual + i * g.ldr;
  return part;
}

/// gemm_s8 by a set whose tile gives sum (a - 128) w: acc + 128 sum - zero * sum = acc - (zero - 128) *
/// sum.
template <class Shifted>
static void gemm_shifted(const gemm_args& g) noexcept {
  constexpr int most = 512;
  std::int32_t zero[most];
  for (int i = 0; i < g.m; i += most) {
    gemm_args part = rows_of(g, i, g.m - i < most ? g.m - i : most);
    for (int r = 0; r < part.m; r++) zero[r] = wrap(std::int64_t{part.a_zero[r]} - 128);
    part.a_zero = zero;
    Shifted::gemm_s8(part);
  }
}
