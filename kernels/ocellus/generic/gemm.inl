// Matrix products around the set's tiles. Included once inside each kernel set that defines
//   template <int MR, int P, class W> static void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
//       std::size_t panel_stride, int k, float* out, std::ptrdiff_t ldo)
//   template <int MR, int P> static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
//       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo, const void* prefetch)
// which compute MR rows times P adjacent panels over the whole depth and store the accumulators; `prefetch`, if not
// null, is what b will be next, to be fetched at the same pace. The epilogue runs from that small buffer (it stays in
// L1): one copy of its code serves all tile heights.
//
// Blocking: rows in blocks that keep A in half of L2; within a block, each pair of panels is read once from memory and
// then met by every row tile while it lies in L1 or L2. Tile heights are evened out: 50 rows are five tiles of 10.
// Up to `wide_rows` rows (a pooled token, a very short text) take four panels at a time: a tile of one row and two
// panels would wait for its two chains of multiply-adds.

/// Bytes of A that a row block may take.
static constexpr std::size_t block_bytes = 512 * 1024;

/// Columns that a tile spans at most.
static constexpr int tile_columns = (wide_rows > 0 ? 4 : 2) * panel_width;

/// C rows i.., columns col..col+cols: the activation and the residual, where there are any.
static OCELLUS_NOINLINE void finish_tile(const gemm_args& g, int i, int rows, int col, int cols) noexcept {
  float* c = g.c + i * g.ldc + col;
  if (g.act != activation::none) activate_rows(c, g.ldc, c, g.ldc, rows, cols, g.act);
  if (g.residual == nullptr) return;
  const float* residual = g.residual + i * g.ldr + col;
  for (int r = 0; r < rows; r++)
    for (int j = 0; j < cols; j += 16)
      store_tail(load_tail(residual + r * g.ldr, j, cols) + load_tail(c + r * g.ldc, j, cols), c + r * g.ldc,
                 j, cols);
}

/// C rows i.., columns col..col+cols from `acc` ([rows, cols rounded up to 16]).
static OCELLUS_NOINLINE void finish_float(const gemm_args& g, const float* acc, std::ptrdiff_t lda, int i,
                                          int rows, int col, int cols) noexcept {
  const bool later = g.act != activation::none;
  const float* residual = later ? nullptr : g.residual;
  for (int j = 0; j < cols; j += 16) {
    const int n = col + j;
    const vec bias = g.bias != nullptr ? load_tail(g.bias, n, g.n) : vec::zero();
    for (int r = 0; r < rows; r++) {
      vec y = vec::load(acc + r * lda + j);
      if (g.bias != nullptr) y = y + bias;
      if (residual != nullptr) y = load_tail(residual + (i + r) * g.ldr, n, g.n) + y;
      store_tail(y, g.c + (i + r) * g.ldc, n, g.n);
    }
  }
  if (later) finish_tile(g, i, rows, col, cols);
}

static OCELLUS_NOINLINE void finish_s8(const gemm_args& g, const std::int32_t* acc, std::ptrdiff_t lda, int i,
                                       int rows, int col, int cols) noexcept {
  const bool later = g.act != activation::none;
  const float* residual = later ? nullptr : g.residual;
  for (int j = 0; j < cols; j += 16) {
    const int n = col + j;
    const int valid = g.n - n < 16 ? g.n - n : 16;
    const vec bias = g.bias != nullptr ? load_tail(g.bias, n, g.n) : vec::zero();
    const vec b_scale = load_tail(g.b_scale, n, g.n);
    alignas(64) std::int32_t tail[16] = {};
    const std::int32_t* sums = g.b_sum + n;
    if (valid < 16) {
      for (int c = 0; c < valid; c++) tail[c] = sums[c];
      sums = tail;
    }
    for (int r = 0; r < rows; r++) {
      vec y =
          vec::dequantize(acc + r * lda + j, sums, g.a_zero[i + r]) * (vec::set(g.a_scale[i + r]) * b_scale);
      if (g.bias != nullptr) y = y + bias;
      if (residual != nullptr) y = load_tail(residual + (i + r) * g.ldr, n, g.n) + y;
      store_tail(y, g.c + (i + r) * g.ldc, n, g.n);
    }
  }
  if (later) finish_tile(g, i, rows, col, cols);
}

/// Calls the tile of `rows` rows (1..MR).
template <int MR, int P, class W>
static OCELLUS_INLINE void tiles_float(int rows, const float* a, std::ptrdiff_t lda, const W* b,
                                       std::size_t stride, int k, float* out, std::ptrdiff_t ldo) noexcept {
  if constexpr (MR > 1) {
    if (rows < MR) return tiles_float<MR - 1, P, W>(rows, a, lda, b, stride, k, out, ldo);
  }
  tile_float<MR, P, W>(a, lda, b, stride, k, out, ldo);
}
template <int MR, int P>
static OCELLUS_INLINE void tiles_s8(int rows, const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                    std::size_t stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                    const void* prefetch) noexcept {
  if constexpr (MR > 1) {
    if (rows < MR) return tiles_s8<MR - 1, P>(rows, a, lda, b, stride, k, out, ldo, prefetch);
  }
  tile_s8<MR, P>(a, lda, b, stride, k, out, ldo, prefetch);
}

/// Rows of the next tile when `left` rows remain and a tile holds at most `most`: as even as can be.
static constexpr int tile_rows(int left, int most) noexcept { return ceil_div(left, ceil_div(left, most)); }

/// Panels of the next tile when `left` remain.
static constexpr int tile_panels(int left, int rows) noexcept {
  return rows <= wide_rows && left >= 4 ? 4 : left >= 2 ? 2 : 1;
}

template <class W>
static void gemm_float(const gemm_args& g) noexcept {
  constexpr dtype type = sizeof(W) == 4 ? dtype::f32 : std::is_same_v<W, bf16> ? dtype::bf16 : dtype::f16;
  const std::size_t stride = panel_elements(type, g.k);
  const W* b = static_cast<const W*>(g.b);
  const float* a = static_cast<const float*>(g.a);
  const int fit = static_cast<int>(block_bytes / (static_cast<std::size_t>(g.k) * sizeof(float)));
  const int block = fit < float_rows ? float_rows : fit;
  alignas(64) float acc[float_rows * 32 > wide_rows * 64 ? float_rows * 32 : wide_rows * 64];
  for (int i0 = 0; i0 < g.m; i0 += block) {
    const int i1 = i0 + block < g.m ? i0 + block : g.m;
    for (int p = g.panel_begin, panels = 0; p < g.panel_end; p += panels) {
      panels = tile_panels(g.panel_end - p, i1 - i0);
      const W* panel = b + static_cast<std::size_t>(p) * stride;
      const int col = p * panel_width, width = panels * panel_width,
                cols = g.n - col < width ? g.n - col : width;
      for (int i = i0; i < i1;) {
        const int rows = tile_rows(i1 - i, float_rows);
        if (panels == 2) {
          tiles_float<float_rows, 2, W>(rows, a + i * g.lda, g.lda, panel, stride, g.k, acc, width);
        } else if (panels == 1) {
          tiles_float<float_rows, 1, W>(rows, a + i * g.lda, g.lda, panel, stride, g.k, acc, width);
        } else if constexpr (wide_rows > 0) {
          tiles_float<wide_rows, 4, W>(rows, a + i * g.lda, g.lda, panel, stride, g.k, acc, width);
        }
        finish_float(g, acc, width, i, rows, col, cols);
        i += rows;
      }
    }
  }
}

static void gemm_f32(const gemm_args& g) noexcept { gemm_float<float>(g); }
static void gemm_f16(const gemm_args& g) noexcept { gemm_float<f16>(g); }
static void gemm_bf16(const gemm_args& g) noexcept { gemm_float<bf16>(g); }

static void gemm_s8(const gemm_args& g) noexcept {
  const std::size_t stride = panel_elements(dtype::s8, g.k);
  const std::int8_t* b = static_cast<const std::int8_t*>(g.b);
  const std::uint8_t* a = static_cast<const std::uint8_t*>(g.a);
  const int depth = round_up(g.k, 4);
  const int fit = static_cast<int>(block_bytes / static_cast<std::size_t>(depth));
  const int block = fit < s8_rows ? s8_rows : fit;
  alignas(64) std::int32_t acc[s8_rows * 32 > wide_rows * 64 ? s8_rows * 32 : wide_rows * 64];
  for (int i0 = 0; i0 < g.m; i0 += block) {
    const int i1 = i0 + block < g.m ? i0 + block : g.m;
    for (int p = g.panel_begin, panels = 0; p < g.panel_end; p += panels) {
      panels = tile_panels(g.panel_end - p, i1 - i0);
      const std::int8_t* panel = b + static_cast<std::size_t>(p) * stride;
      const std::int8_t* next = panel + static_cast<std::size_t>(panels) * stride;
      const int col = p * panel_width, width = panels * panel_width,
                cols = g.n - col < width ? g.n - col : width;
      for (int i = i0; i < i1;) {
        const int rows = tile_rows(i1 - i, s8_rows);
        if (panels == 2) {
          tiles_s8<s8_rows, 2>(rows, a + i * g.lda, g.lda, panel, stride, depth, acc, width, next);
        } else if (panels == 1) {
          tiles_s8<s8_rows, 1>(rows, a + i * g.lda, g.lda, panel, stride, depth, acc, width, next);
        } else if constexpr (wide_rows > 0) {
          tiles_s8<wide_rows, 4>(rows, a + i * g.lda, g.lda, panel, stride, depth, acc, width, next);
        }
        finish_s8(g, acc, width, i, rows, col, cols);
        i += rows;
      }
    }
  }
}
