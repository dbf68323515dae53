// Included once inside neon_tiles and the set of 32-bit Arm; includes nothing.

/// gemm_s8 by a set whose tile gives sum (a - 128) w: acc + 128 sum - zero * sum = acc - (zero - 128) *
/// sum.
template <class Shifted>
static void gemm_shifted(const gemm_args& g) noexcept {
  constexpr int most = 512;
  std::int32_t zero[most];
  for (int i = 0; i < g.m; i += most) {
    gemm_args part = g;
    part.m = g.m - i < most ? g.m - i : most;
    for (int r = 0; r < part.m; r++) zero[r] = wrap(std::int64_t{g.a_zero[i + r]} - 128);
    part.a = static_cast<const std::uint8_t*>(g.a) + i * g.lda;
    part.a_scale = g.a_scale + i;
    part.a_zero = zero;
    part.c = g.c + i * g.ldc;
    if (g.residual != nullptr) part.residual = g.residual + i * g.ldr;
    Shifted::gemm_s8(part);
  }
}
