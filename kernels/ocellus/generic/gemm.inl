// Matrix products around the set's tiles. Included once inside each kernel set that defines
//   template <int MR, int P, class W> static void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
//       std::size_t panel_stride, int k, float* out, std::ptrdiff_t ldo)
//   template <int MR, int P> static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
//       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo, const prefetch_run& next)
// which compute MR rows times P adjacent panels (up to most_panels; wide_rows times four) over the whole depth and
// store the accumulators; `next` is for sets that fetch ahead. A set with float_depth > 0 has a tile_float that takes
// three more: `next`, `onto` (whether out holds sums to go on from) and `before`; one whose s8 tiles finish others
// takes `before` last (see finishing_rows below). The epilogue runs from that small buffer, which stays in L1.
//
// Blocking: rows in blocks whose A stays in L2 or just beyond (reading W again costs more); within a block, each pair
// of panels (each panel, where most_panels is 1) is read once from memory and then met by every row tile while it lies
// in L1 or L2. Blocks and tiles are evened out: 50 rows are five tiles of 10, and no last block of a row or two reads
// all of W again.
// Up to `wide_rows` rows (a pooled token, a very short text) take four panels at a time: a tile of one row and two
// panels would wait for its two chains of multiply-adds, and memory gives four streams of weights sooner than one.
//
// An epilogue costs what its operations take, and the depth of the machine's pipelines between two tiles. With
// finishing_rows > 0 an s8 or f32 tile leaves it to the next tile of so many rows or more, which does a row of it
// (finish_row) after each part of its own depth. On Zen most of that runs on units that products do not use; anywhere,
// products go on while it waits for itself. It is done when that tile stores its own sums, so one buffer serves both.
//
// A set without a dot product of bytes multiplies 16-bit halves of each four. With split_bytes > 0 gemm_s8 splits rows
// for all their panels beforehand (split_rows), on the stack, if they fit; its tiles are then tile_s8<MR, P, true>.
// With quad_rows > 0 products of so many rows or more go another way, x86/gemm_quads.inl (i8mm's is its own gemm_s8).
// Tiles begin at multiples of row_unit rows: bfmmla and usmmla take two at a time.
//
// A set that improves on the s8 tile alone defines OCELLUS_ONLY_S8 around the include and inherits the rest; it sets
// quad_rows and split_bytes again, or its parent's ways around the tile stay.

#if !defined(OCELLUS_ONLY_S8)

/// Bytes of A that a row block may take (where the depth is in parts, deep_rows counts instead).
static constexpr std::size_t block_bytes = 768 * 1024;

/// Columns that a tile spans at most.
static constexpr int tile_columns = (wide_rows > 0 ? 4 : 2) * panel_width;

template <class T, T Value>
using constant = std::integral_constant<T, Value>;

/// What is left to do with the accumulators of `rows` rows of P whole panels: y(r, p) gives them as scaled sums, and
/// bias, activation and residual follow. Straight through in one pass: the loop between two tiles is short enough for
/// the next tile to start while it ends.
template <activation Act, precision Needed, bool Residual, int P, class Sums>
static OCELLUS_INLINE void finish_panels(const gemm_args& g, int i, int rows, int col, const Sums& y) noexcept {
  vec bias[P];
  unroll<P>([&](int p) OCELLUS_LAMBDA {
    bias[p] = g.bias != nullptr ? vec::load(g.bias + col + p * 16) : vec::set(-0.f);  // changes no value, not even -0
  });
  float* c = g.c + i * g.ldc + col;
  const float* residual = Residual ? g.residual + i * g.ldr + col : nullptr;
  constexpr bool costly = Act != activation::none && Act != activation::relu;
  constexpr int together = costly && Needed == precision::f32 ? epilogue_rows : 1;
  int r = 0;
  if constexpr (together > 1)
    for (; r + together <= rows; r += together) {
      several<together * P> v;
      unroll<together * P>([&](auto j) OCELLUS_LAMBDA {
        constexpr constant<int, j % P> p = {};
        v.v[j] = y(r + j / P, p) + bias[p];
      });
      v = activate<Act, Needed>(v);
      unroll<together * P>([&](int j) OCELLUS_LAMBDA { v.v[j].store(c + (r + j / P) * g.ldc + j % P * 16); });
    }
  for (; r < rows; r++)
    unroll<P>([&](auto p) OCELLUS_LAMBDA {
      vec v = activate<Act, Needed>(y(r, p) + bias[p]);
      if constexpr (Residual) v = vec::load(residual + r * g.ldr + p * 16) + v;
      v.store(c + r * g.ldc + p * 16);
    });
}

/// Scaled sums of an s8 product: `acc` is [rows, P * 16] of std::int32_t, one row after the other.
template <activation Act, bool Residual, int P>
static OCELLUS_NOINLINE void finish_s8_panels(const gemm_args& g, const void* acc, std::ptrdiff_t lda, int i, int rows,
                                              int col) noexcept {
  const std::int32_t* const from = static_cast<const std::int32_t*>(acc);
  vec b_scale[P];
  unroll<P>([&](int p) OCELLUS_LAMBDA { b_scale[p] = vec::load(g.b_scale + col + p * 16); });
  const std::int32_t* sums = g.b_sum + col;
  const float* a_scale = g.a_scale + i;
  const std::int32_t* a_zero = g.a_zero + i;
  finish_panels<Act, precision::u8, Residual, P>(g, i, rows, col, [&](int r, auto p) OCELLUS_LAMBDA {
    return vec::dequantize(from + r * lda + p * 16, sums + p * 16, a_zero[r]) * (vec::set(a_scale[r]) * b_scale[p]);
  });
}
template <activation Act, bool Residual, int P>
static OCELLUS_NOINLINE void finish_float_panels(const gemm_args& g, const void* acc, std::ptrdiff_t lda, int i,
                                                 int rows, int col) noexcept {
  const float* const from = static_cast<const float*>(acc);
  finish_panels<Act, precision::f32, Residual, P>(
      g, i, rows, col, [&](int r, auto p) OCELLUS_LAMBDA { return vec::load(from + r * lda + p * 16); });
}

/// Row r of C, columns col..col+cols, from `values` and the residual, which C may be.
static OCELLUS_INLINE void store_row(const gemm_args& g, const float* values, int r, int col, int cols) noexcept {
  for (int j = 0; j < cols; j += 16) {
    vec y = vec::load(values + j);
    if (g.residual != nullptr) y = load_tail(g.residual + r * g.ldr, col + j, col + cols) + y;
    store_tail(y, g.c + r * g.ldc, col + j, col + cols);
  }
}

/// Fetches `rows` rows of C from (i, col) on, `cols` columns in sixteens, mostly the residual too: there when the tile
/// that comes first has ended.
static OCELLUS_INLINE void prefetch_rows(const gemm_args& g, int i, int rows, int col, int cols) noexcept {
  for (int r = i; r < i + rows; r++)
    for (int j = 0; j < cols; j += 16) __builtin_prefetch(g.c + r * g.ldc + col + j, 1);
}

/// One of finish_s8_panels or finish_float_panels.
using panels_pass = void (*)(const gemm_args&, const void* acc, std::ptrdiff_t lda, int i, int rows, int col) noexcept;

/// Columns that such a pass takes.
static constexpr int pass_columns = (epilogue_panels == 2 ? 2 : 1) * panel_width;

/// What is ragged, or has a residual after an activation: by `pass`, row by row in memory of its own.
static OCELLUS_NOINLINE void finish_ragged(const gemm_args& g, const void* acc, std::ptrdiff_t lda, int i, int rows,
                                           int col, int cols, panels_pass pass) noexcept {
  alignas(64) float c[tile_columns], bias[tile_columns], scale[tile_columns] = {};
  alignas(64) std::int32_t sums[tile_columns] = {}, row[tile_columns] = {};
  const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(cols);
  for (float& x : bias) x = -0.f;  // which changes no value
  if (g.bias != nullptr) std::memcpy(bias, g.bias + col, bytes);
  if (g.b_scale != nullptr) std::memcpy(scale, g.b_scale + col, bytes);
  if (g.b_sum != nullptr) std::memcpy(sums, g.b_sum + col, bytes);
  gemm_args t = g;
  t.c = c;
  t.ldc = 0;
  t.residual = nullptr;
  t.bias = bias;
  t.b_scale = scale;
  t.b_sum = sums;
  const char* from = static_cast<const char*>(acc);  // of elements of four bytes
  for (int r = i; r < i + rows; r++, from += lda * 4) {
    std::memcpy(row, from, bytes);
    for (int j = 0; j < cols; j += pass_columns) pass(t, row + j, 0, r, 1, j);
    if constexpr (applies(activation::silu)) {
      if (g.act == activation::silu) swish_rows(c, 0, c, 0, 1, cols, silu_slope);
    }
    store_row(g, c, r, col, cols);
  }
}

/// For sets with passes over whole panels: all columns from `acc` ([rows, cols rounded up to 16]) by the pass that `g`
/// asks for, of pass_of(activation, residual) with both as constants. Gated units apply silu after the product
/// (gate_rows), so here it is rare.
template <class Acc, class PassOf>
static OCELLUS_INLINE void finish_by_panels(const gemm_args& g, const Acc* acc, std::ptrdiff_t lda, int i, int rows,
                                            int col, int cols, const PassOf& pass_of) noexcept {
  const bool straight = cols % pass_columns == 0 && g.act != activation::silu &&
                        (g.residual == nullptr || g.act == activation::none);
  constexpr constant<bool, false> alone = {};
  constexpr constant<activation, activation::none> none = {};
  panels_pass pass = straight && g.residual != nullptr ? pass_of(none, constant<bool, true>{}) : pass_of(none, alone);
  const auto choose = [&](auto act) OCELLUS_LAMBDA {  // with one there is no residual: straight is false, or it is null
    if constexpr (applies(act.value)) pass = pass_of(act, alone);
  };
  switch (g.act) {
    case activation::quick_gelu: choose(constant<activation, activation::quick_gelu>{}); break;
    case activation::gelu: choose(constant<activation, activation::gelu>{}); break;
    case activation::gelu_tanh: choose(constant<activation, activation::gelu_tanh>{}); break;
    case activation::relu: choose(constant<activation, activation::relu>{}); break;
    default: break;
  }
  if (!straight) return finish_ragged(g, acc, lda, i, rows, col, cols, pass);
  for (int j = 0; j < cols; j += pass_columns) pass(g, acc + j, lda, i, rows, col + j);
}

/// For the others. `sums(j, r)`: sixteen scaled sums from column col + j on. An activation takes a pass of its own, in
/// memory of its own, since C may be the residual.
template <precision Needed, class Sums>
static OCELLUS_INLINE void finish_by_passes(const gemm_args& g, int i, int rows, int col, int cols,
                                            const Sums& sums) noexcept {
  alignas(64) float values[tile_columns];
  for (int r = 0; r < rows; r++) {
    for (int j = 0; j < cols; j += 16)
      (sums(j, r) + (g.bias != nullptr ? load_tail(g.bias, col + j, g.n) : vec::set(-0.f))).store(values + j);
    if (g.act != activation::none) activate_rows_within<Needed>(values, 0, values, 0, 1, cols, g.act);
    store_row(g, values, i + r, col, cols);
  }
}

/// C rows i.., columns col..col+cols from `acc`.
static OCELLUS_NOINLINE void finish_float(const gemm_args& g, const float* acc, std::ptrdiff_t lda, int i,
                                          int rows, int col, int cols) noexcept {
  if constexpr (epilogue_panels > 0) {
    finish_by_panels(g, acc, lda, i, rows, col, cols, [](auto act, auto residual) OCELLUS_LAMBDA {
      return &finish_float_panels<act.value, residual.value, epilogue_panels>;
    });
  } else {
    finish_by_passes<precision::f32>(
        g, i, rows, col, cols, [&](int j, int r) OCELLUS_LAMBDA { return vec::load(acc + r * lda + j); });
  }
}

static OCELLUS_NOINLINE void finish_s8(const gemm_args& g, const std::int32_t* acc, std::ptrdiff_t lda, int i,
                                       int rows, int col, int cols) noexcept {
  if constexpr (epilogue_panels > 0) {
    finish_by_panels(g, acc, lda, i, rows, col, cols, [](auto act, auto residual) OCELLUS_LAMBDA {
      return &finish_s8_panels<act.value, residual.value, epilogue_panels>;
    });
  } else {
    alignas(64) std::int32_t sums[tile_columns] = {};
    for (int c = 0; c < cols; c++) sums[c] = g.b_sum[col + c];
    finish_by_passes<precision::u8>(g, i, rows, col, cols, [&](int j, int r) OCELLUS_LAMBDA {
      return vec::dequantize(acc + r * lda + j, sums + j, g.a_zero[i + r]) *
             (vec::set(g.a_scale[i + r]) * load_tail(g.b_scale, col + j, g.n));
    });
  }
}

/// Whether a tile of s8 or f32 sums may wait for its epilogue. Not for silu, nor for erf in f32, whose long forms would
/// be rare and 1 KB of code in each tile.
template <precision Needed>
static constexpr bool may_wait(activation act) noexcept {
  return act != activation::silu && (Needed == precision::u8 || act != activation::gelu);
}

/// Row r of a tile that waits for its epilogue. Both panels side by side: one after the other would be a chain of steps
/// twice as long, behind which the products of the tile on its way pile up.
template <precision Needed>
static OCELLUS_INLINE void finish_row(const unfinished_tile& t, int r) noexcept {
  const gemm_args& g = *t.g;
  const int row = t.row + r;
  several<2> y;
  unroll<2>([&](auto p) OCELLUS_LAMBDA {
    const int at = r * 32 + p * 16, col = t.col + p * 16;
    if constexpr (Needed == precision::u8) {
      y.v[p] = vec::dequantize(static_cast<const std::int32_t*>(t.sums) + at, g.b_sum + col, g.a_zero[row]) *
               (vec::set(g.a_scale[row]) * vec::load(g.b_scale + col));
    } else {
      y.v[p] = vec::load(static_cast<const float*>(t.sums) + at);
    }
    if (g.bias != nullptr) y.v[p] = y.v[p] + vec::load(g.bias + col);
  });
  switch (g.act) {
    case activation::quick_gelu: y = activate<activation::quick_gelu, Needed>(y); break;
    case activation::gelu:
      if constexpr (may_wait<Needed>(activation::gelu)) y = activate<activation::gelu, Needed>(y);
      break;
    case activation::gelu_tanh: y = activate<activation::gelu_tanh, Needed>(y); break;
    case activation::relu: y = several<2>::max(y, vec::zero()); break;
    default: break;
  }
  unroll<2>([&](int p) OCELLUS_LAMBDA {
    const int col = t.col + p * 16;
    if (g.residual != nullptr) y.v[p] = vec::load(g.residual + row * g.ldr + col) + y.v[p];
    y.v[p].store(g.c + row * g.ldc + col);
  });
}

/// Whether f32 tiles leave their epilogue to the next one.
static constexpr bool f32_leaves = finishing_rows > 0 && finishing_rows <= float_rows;

/// Whether P panels are the last one of an odd number, where two make a tile: rare, so there are tiles of few heights.
template <int P>
static constexpr bool is_lone = P == 1 && most_panels == 2 && wide_rows > 0;

/// The tile of `rows` rows (tile_height's) and P panels: one function for all who need it, which jumps on to a tile's.
template <int MR, int P, class W>
static OCELLUS_NOINLINE void tiles_float(const float* a, std::ptrdiff_t lda, const void* weights, std::size_t stride,
                                         int k, float* out, std::ptrdiff_t ldo, const prefetch_run& next, bool onto,
                                         int rows, const unfinished_tile& before = {}) noexcept {
  const W* const b = static_cast<const W*>(weights);
  const auto run = [&](auto tile, int r) OCELLUS_LAMBDA {
    if constexpr (float_depth > 0) {
      tile(a + r * lda, lda, b, stride, k, out + r * ldo, ldo, next, onto, before);
    } else {
      tile(a + r * lda, lda, b, stride, k, out + r * ldo, ldo);
    }
  };
  if constexpr (P == 2 && most_panels == 1) {
    tiles_float<MR, 1, W>(a, lda, b, stride, k, out, ldo, next, onto, rows);
    tiles_float<MR, 1, W>(a, lda, b + stride, stride, k, out + panel_width, ldo, next, onto, rows);
  } else if constexpr (is_lone<P>) {
    by_few_heights<MR>(rows, [](auto h) OCELLUS_LAMBDA { return &tile_float<h, P, W>; }, run);
  } else {
    by_height<MR>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_float<h, P, W>, 0); });
  }
}

/// Rows that a tile with weights W has at most.
template <class W>
static constexpr int rows_with = std::is_same_v<W, bf16> && bf16_rows > 0 ? bf16_rows : float_rows;

/// What the next block, tile or part takes when `left` rows or depths remain and one holds `most`: as even as can be.
static constexpr int even_share(int left, int most) noexcept { return ceil_div(left, ceil_div(left, most)); }

/// The same in multiples of `unit`, but for what ends with the last.
static constexpr int unit_share(int left, int most, int unit) noexcept {
  const int share = round_up(even_share(left, most), unit);
  return share < left ? share : left;
}

/// The same for rows of tiles, which are one lower where there is no such height. With `unit` 2 tiles begin at even
/// rows, for sets that multiply rows by twos: an odd height would cost as much as the next.
static constexpr int tile_height(int left, int most, int unit = 1) noexcept {
  const int rows = unit_share(left, most, unit);
  return is_height(rows, most) ? rows : rows - 1;
}

/// Depth of the next part when `left` remains and a part holds at most `most`, a multiple of 64: as even as can be, for
/// what a part costs beside its products hardly depends on its depth (1152 as 1024 + 128 ran at 80 % of 576 + 576).
static constexpr int part_depth(int left, int most) noexcept {
  return left <= most ? left : round_up(even_share(left, most), 64);
}

/// Panels of the next tile when `left` remain, where products of `wide` rows take four.
static constexpr int tile_panels(int left, int rows, int wide) noexcept {
  return rows <= wide && left >= 4 ? 4 : left < most_panels ? left : most_panels;
}

/// Rows of a block whose sums wait between two parts of the depth.
static constexpr int deep_rows = 200;

/// tiles_float of one kind of weights and number of panels.
using float_tiles = void (*)(const float* a, std::ptrdiff_t lda, const void* weights, std::size_t stride, int k,
                             float* out, std::ptrdiff_t ldo, const prefetch_run& next, bool onto, int rows,
                             const unfinished_tile& before) noexcept;

/// Weights of `type` by tiles of at most so many rows, for whose panels there are `one`, `two` (most_panels 2) and
/// `four` (wide_rows).
static OCELLUS_NOINLINE void gemm_float_by_tiles(const gemm_args& g, dtype type, int most_rows, float_tiles one,
                                                 [[maybe_unused]] float_tiles two,
                                                 [[maybe_unused]] float_tiles four) noexcept {
  const std::size_t stride = panel_elements(type, g.k), bytes = type == dtype::f32 ? 4 : 2;
  const char* b = static_cast<const char*>(g.b);
  const float* a = static_cast<const float*>(g.a);
  const int row_bytes = panel_width * static_cast<int>(bytes);
  const bool deep = float_depth > 0 && g.k > float_depth;
  const int fit = static_cast<int>(block_bytes / (static_cast<std::size_t>(g.k) * sizeof(float)));
  const int block = deep ? deep_rows : fit < float_rows ? float_rows : fit;
  // of one tile; or, deep, of a block and most_panels, or of wide_rows and four
  constexpr int most_columns = most_panels * panel_width;
  static_assert(wide_rows <= float_rows && wide_rows * 4 <= deep_rows * most_panels);
  alignas(64) float acc[float_depth > 0 ? deep_rows * most_columns : float_rows * tile_columns];
  const bool leaves = f32_leaves && type == dtype::f32;
  unfinished_tile before;
  const auto finish_before = [&]() OCELLUS_LAMBDA {
    if (before.rows > 0)
      finish_float(g, static_cast<const float*>(before.sums), 32, before.row, before.rows, before.col, 32);
    before.rows = 0;
  };
  for (int i0 = 0, i1 = 0; i0 < g.m; i0 = i1) {
    i1 = i0 + even_share(g.m - i0, block);
    const int tiles = ceil_div(i1 - i0, tile_height(i1 - i0, most_rows));
    for (int p = g.panel_begin, panels = 0; p < g.panel_end; p += panels) {
      panels = tile_panels(g.panel_end - p, i1 - i0, wide_rows);
      const char* panel = b + static_cast<std::size_t>(p) * stride * bytes;
      const int col = p * panel_width, width = panels * panel_width,
                cols = g.n - col < width ? g.n - col : width;
      for (int k0 = 0, depth = 0; k0 < g.k; k0 += depth) {
        depth = deep ? part_depth(g.k - k0, float_depth) : g.k - k0;
        const bool last = k0 + depth == g.k;
        const std::size_t done = static_cast<std::size_t>(k0) * panel_width,
                          ahead = last ? static_cast<std::size_t>(panels) * stride - done
                                       : static_cast<std::size_t>(depth) * panel_width;
        const char* const w = panel + done * bytes;
        prefetch_run next = prefetch_run::first(w + ahead * bytes, row_bytes, tiles, g.nta_fills_l2);
        for (int i = i0; i < i1; next.at += depth * row_bytes / tiles) {
          const int rows = panels == 4 ? i1 - i : tile_height(i1 - i, most_rows);
          const float* x = a + i * g.lda + k0;
          float* sums = deep ? acc + (i - i0) * width : acc;
          if (leaves && (panels != 2 || rows < finishing_rows)) finish_before();
          float_tiles run = one;
          if constexpr (most_panels == 2) {
            if (panels == 2) run = two;
          }
          if constexpr (wide_rows > 0) {
            if (panels == 4) run = four;
          }
          if (!f32_leaves && last) prefetch_rows(g, i, rows, col, width);
          run(x, g.lda, w, stride, depth, sums, width, next, k0 > 0, rows, before);
          before.rows = 0;
          if (last && leaves && panels == 2 && cols == width && may_wait<precision::f32>(g.act)) {
            before = {&g, sums, i, rows, col};
          } else if (last) {
            finish_float(g, sums, width, i, rows, col, cols);
          }
          i += rows;
        }
      }
    }
  }
  if (leaves) finish_before();
}

template <class W>
static OCELLUS_INLINE void gemm_float(const gemm_args& g, dtype type) noexcept {
  constexpr int rows = rows_with<W>;
  gemm_float_by_tiles(g, type, rows, &tiles_float<rows, 1, W>, &tiles_float<rows, most_panels, W>,
                      &tiles_float<(wide_rows > 0 ? wide_rows : rows), (wide_rows > 0 ? 4 : 1), W>);
}
static void gemm_f32(const gemm_args& g) noexcept { gemm_float<float>(g, dtype::f32); }
static void gemm_f16(const gemm_args& g) noexcept { gemm_float<f16>(g, dtype::f16); }
static void gemm_bf16(const gemm_args& g) noexcept { gemm_float<bf16>(g, dtype::bf16); }

#endif

/// Whether s8 tiles leave their epilogue to the next one.
static constexpr bool s8_leaves = finishing_rows > 0 && finishing_rows <= s8_rows;
/// Rows that take four panels at a time, as wide_rows; not where s8 tiles are of one panel.
static constexpr int wide_s8_rows = most_panels == 1 ? 0 : wide_rows;
// A tile of split rows is of one panel, and finishes no other.
static_assert(split_bytes == 0 || (!s8_leaves && most_panels == 1));

/// The tile of `rows` rows (tile_height's) and P panels; Split: rows that split_rows made.
template <int MR, int P, bool Split = false>
static OCELLUS_NOINLINE void tiles_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                      std::size_t stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                      const prefetch_run& next, int rows,
                                      const unfinished_tile& before = {}) noexcept {
  const auto run = [&](auto tile, int r) OCELLUS_LAMBDA {
    if constexpr (s8_leaves) {
      tile(a + r * lda, lda, b, stride, k, out + r * ldo, ldo, next, before);
    } else {
      tile(a + r * lda, lda, b, stride, k, out + r * ldo, ldo, next);
    }
  };
  if constexpr (P == 2 && most_panels == 1) {
    tiles_s8<MR, 1>(a, lda, b, stride, k, out, ldo, next, rows);
    tiles_s8<MR, 1>(a, lda, b + stride, stride, k, out + panel_width, ldo, next, rows);
  } else if constexpr (is_lone<P>) {
    by_few_heights<MR>(rows, [](auto h) OCELLUS_LAMBDA { return &tile_s8<h, P>; }, run);
  } else if constexpr (Split) {
    by_height<MR>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_s8<h, P, true>, 0); });
  } else {
    by_height<MR>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_s8<h, P>, 0); });
  }
}

static OCELLUS_NOINLINE void gemm_s8_by_tiles(const gemm_args& g) noexcept {
  const std::size_t stride = panel_elements(dtype::s8, g.k);
  const std::int8_t* b = static_cast<const std::int8_t*>(g.b);
  const std::uint8_t* a = static_cast<const std::uint8_t*>(g.a);
  const int depth = round_up(g.k, 4);
  alignas(64) std::uint8_t split[split_bytes > 0 ? split_bytes : 1];
  const bool splits =
      split_bytes > 0 && static_cast<std::size_t>(2 * depth) * static_cast<std::size_t>(g.m) <= split_bytes;
  const int fit = static_cast<int>(block_bytes / static_cast<std::size_t>(depth));
  const int block = fit < s8_rows ? s8_rows : fit;
  alignas(64) std::int32_t acc[s8_rows * 32 > wide_s8_rows * 64 ? s8_rows * 32 : wide_s8_rows * 64];
  unfinished_tile before;
  const auto finish_before = [&]() OCELLUS_LAMBDA {
    if (before.rows > 0) finish_s8(g, acc, 32, before.row, before.rows, before.col, 32);
    before.rows = 0;
  };
  for (int i0 = 0, i1 = 0; i0 < g.m; i0 = i1) {
    i1 = i0 + unit_share(g.m - i0, block, row_unit);
    const int tiles = ceil_div(i1 - i0, tile_height(i1 - i0, s8_rows, row_unit));
    const std::uint8_t* x = a + i0 * g.lda;
    std::ptrdiff_t ldx = g.lda;
    if (splits) {
      split_rows(split, 2 * depth, x, ldx, i1 - i0, depth);
      x = split;
      ldx = 2 * depth;
    }
    for (int p = g.panel_begin, panels = 0; p < g.panel_end; p += panels) {
      panels = tile_panels(g.panel_end - p, i1 - i0, wide_s8_rows);
      const std::int8_t* panel = b + static_cast<std::size_t>(p) * stride;
      const int col = p * panel_width, width = panels * panel_width,
                cols = g.n - col < width ? g.n - col : width;
      prefetch_run next =
          prefetch_run::first(panel + static_cast<std::size_t>(panels) * stride, 4 * panel_width, tiles,
                              g.nta_fills_l2);
      for (int i = i0; i < i1; next.at += depth * panel_width / tiles) {
        const int rows = panels == 4 ? i1 - i : tile_height(i1 - i, s8_rows, row_unit);
        if (s8_leaves && (panels != 2 || rows < finishing_rows)) finish_before();
        if (splits) {
          tiles_s8<s8_rows, 1, split_bytes != 0>(x + (i - i0) * ldx, ldx, panel, stride, depth, acc, width, next, rows);
        } else if (panels == 2) {
          tiles_s8<s8_rows, 2>(x + (i - i0) * ldx, ldx, panel, stride, depth, acc, width, next, rows, before);
        } else if (panels == 1) {
          tiles_s8<s8_rows, 1>(x + (i - i0) * ldx, ldx, panel, stride, depth, acc, width, next, rows);
        } else if constexpr (wide_s8_rows > 0) {
          tiles_s8<wide_s8_rows, 4>(x + (i - i0) * ldx, ldx, panel, stride, depth, acc, width, next, rows);
        }
        if (s8_leaves && panels == 2 && cols == width && may_wait<precision::u8>(g.act)) {
          before = {&g, acc, i, rows, col};
        } else {
          before.rows = 0;
          finish_s8(g, acc, width, i, rows, col, cols);
        }
        i += rows;
      }
    }
  }
  if (s8_leaves) finish_before();
}

static void gemm_s8(const gemm_args& g) noexcept {
  if constexpr (quad_rows > 0) {
    if (g.m >= quad_rows) return gemm_s8_by_quads(g);
  }
  gemm_s8_by_tiles(g);
}
