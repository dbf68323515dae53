// Included once inside the sets of Cortex-M, which have interleave<MR>; includes nothing.

static constexpr int float_part = 128;  // depth of a tile's rows that lie beside each other on the stack: 3 KB

/// A tile of MR rows from f32 rows interleaved in parts of the depth: four columns at a time are added to `out` by
/// `add_columns(rows, weights, depth, out)`.
template <int MR, class W, class AddColumns>
static OCELLUS_INLINE void float_parts(const float* a, std::ptrdiff_t lda, const W* b, std::size_t panel_stride, int k,
                                       float* out, std::ptrdiff_t ldo, int columns, AddColumns add_columns) noexcept {
  float rows[MR * float_part];
  for (int r = 0; r < MR; r++)
    for (int c = 0; c < columns; c++) out[r * ldo + c] = 0;
  for (int d = 0; d < k; d += float_part) {
    const int depth = k - d < float_part ? k - d : float_part;
    interleave<MR>(rows, a + d, lda, depth);
    for (int c = 0; c < columns; c += 4) {
      const W* const w = b + static_cast<std::size_t>(c / 16) * panel_stride + d * 16;
      add_columns(rows, w + (std::is_same_v<W, bf16> ? 2 : 1) * (c % 16), depth, out + c);
    }
  }
}
