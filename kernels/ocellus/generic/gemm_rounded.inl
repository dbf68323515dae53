// The matrix product of sets whose activations are rounded to 16 bits. Included once inside each such set,
// which defines
//   rounded_element, rounded_weight   types of a rounded activation as the tile reads it, and of a weight
//   rounded_rows, rounded_depth       the block of A that lies rounded on the stack
//   rounded_unit                      panels that a tile takes at least
//   rounded_height                    rows that a tile takes at most
//   round_block(out, ldo, a, lda, rows, depth)
//   rounded_before(g)                 A as the caller has it rounded, [M, K] with rows of g.lda_bf16, or null
//   tiles_rounded(rows, panels, a, lda, panel, stride, depth, c, ldc, onto, next)   stores to C, or adds to it
//   gemm_exact(g)                     the set's way without rounding
// Where the depth is in parts, partial sums live in C, so that no scratch is needed. What does not fit
// that way (a ragged last panel, an activation whose residual is C itself) goes the exact way, and so do pixels
// times f16 weights (gemm_args::exact).
static void gemm_rounded(const gemm_args& g) noexcept {
  constexpr dtype type = std::is_same_v<rounded_weight, bf16> ? dtype::bf16 : dtype::f16;
  if ((g.exact && type == dtype::f16) || (g.act != activation::none && g.residual == g.c)) return gemm_exact(g);
  gemm_args part = g;
  const int whole = g.n / panel_width < g.panel_end ? g.n / panel_width : g.panel_end;
  const int end = whole > g.panel_begin
                      ? g.panel_begin + (whole - g.panel_begin) / rounded_unit * rounded_unit
                      : g.panel_begin;
  if (end < g.panel_end) {
    part.panel_begin = end;
    gemm_exact(part);
  }
  const bool onto = g.residual == g.c;  // C already holds the residual: the sums go on top of it
  if (onto) part.residual = nullptr;
  const std::size_t stride = panel_elements(type, g.k);
  constexpr int row_bytes = panel_width * static_cast<int>(sizeof(rounded_weight));
  const float* a = static_cast<const float*>(g.a);
  alignas(64) rounded_element rounded[rounded_rows * rounded_depth];
  alignas(64) float acc[rounded_height * 2 * rounded_unit * panel_width];
  const rounded_element* const before = rounded_before(g);
  const int ld = round_up(g.k, 16);
  const int fit = before != nullptr ? static_cast<int>(block_bytes / sizeof(rounded_element)) / ld
                                    : rounded_rows * rounded_depth / ld;
  const bool whole_depth = before != nullptr || fit >= rounded_rows / 2;  // then fewer rows, and C is written once
  const int block_rows = !whole_depth || (before == nullptr && fit > rounded_rows) ? rounded_rows
                         : fit < rounded_height                                    ? rounded_height
                                                                                   : fit;
  for (int i0 = 0; i0 < g.m;) {
    const int block = even_share(g.m - i0, block_rows), i1 = i0 + block,
              tiles = ceil_div(block, tile_height(block, rounded_height, row_unit));
    for (int k0 = 0, depth = 0; k0 < g.k; k0 += depth) {
      depth = whole_depth ? g.k : part_depth(g.k - k0, rounded_depth);
      const std::ptrdiff_t lda = before != nullptr ? g.lda_bf16 : round_up(depth, 16);
      const rounded_element* const block_a = before != nullptr ? before + i0 * lda : rounded;
      const bool first = k0 == 0 && !onto, last = k0 + depth == g.k;
      if (before == nullptr) round_block(rounded, lda, a + i0 * g.lda + k0, g.lda, block, depth);
      const rounded_weight* b =
          static_cast<const rounded_weight*>(g.b) + static_cast<std::size_t>(k0) * panel_width;
      for (int p = g.panel_begin, panels = 0; p < end; p += panels) {
        panels = end - p >= 2 * rounded_unit ? 2 * rounded_unit : rounded_unit;
        const rounded_weight* panel = b + static_cast<std::size_t>(p) * stride;
        const int col = p * panel_width, cols = panels * panel_width;
        prefetch_run next =
            prefetch_run::first(panel + static_cast<std::size_t>(panels) * stride, row_bytes, tiles,
                                g.nta_fills_l2);
        for (int i = i0; i < i1; next.at += depth * row_bytes / tiles) {
          const int rows = tile_height(i1 - i, rounded_height, row_unit);
          const bool alone = first && last;
          float* c = alone ? acc : g.c + i * g.ldc + col;
          const std::ptrdiff_t ldc = alone ? cols : g.ldc;
          if (alone) prefetch_rows(g, i, rows, col, cols);
          tiles_rounded(rows, panels, block_a + (i - i0) * lda, lda, panel, stride, depth, c, ldc, !first, next);
          if (last) finish_float(part, c, ldc, i, rows, col, cols);
          i += rows;
        }
      }
    }
    i0 = i1;
  }
}
