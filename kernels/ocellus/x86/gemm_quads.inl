// s8 products by pmaddubsw, for sets without a dot product of bytes. Included inside such a set, before gemm.inl.
//
// pmaddubsw adds two products u8 x s8 in s16 and saturates. Two of its results added in s16 as well, before pmaddwd
// widens them, make five operations for 64 products; pmaddwd on 16-bit halves takes eight. The four products that meet
// are a quad: of eight depths, one column's 0, 1, 4 and 5 or its 2, 3, 6 and 7. A quad can leave 16 bits, so a block of
// rows, a part of the depth and then each panel are made ready first:
// - At each depth the block's activations lie in [least, most]. A `base`, at most `least` and half of `most`, is taken
//   off them, which leaves a `range`; the products of the bases with a panel are the same for all rows and added again.
// - A quad's positive products with the ranges as activations, and its negative ones, bound its sums. If either of a
//   column's quads reaches an end of 16 bits, the column's weights of depths 4..7, half of both quads, are an `excess`:
//   zero for the tiles, their products are added aside.
// - Rarely two products reach an end by themselves, and with them their quad. Then the four weights with these two are
//   the excess, two at a time.
// Tiles go on from the sums of bases and excesses, and are exact.
//
// Of normally distributed weights, each column scaled to 127, 3 of 100 columns of eight depths have an excess in
// ViT-B/32 at batch 1 and 6 at batch 8; with heavier tails (Student's t with 6 degrees of freedom) 0.8 at batch 1.
// Making a panel ready takes as many instructions as 5 to 11 of its rows.
//
// Rows are bounded and arranged for tiles once per product, by arrange_u8 before it, or else (a_arranged null) for each
// piece of it, on the stack; with more depth than fits there, again for every few panels.
//
// The set defines quad_rows (products of fewer rows do not come here) and
//   template <bool based> static void bound_quads(std::int8_t* bounded, std::uint32_t* reached,
//                                                 std::int32_t* base_sums, const std::int8_t* w,
//                                                 const std::uint8_t* range, const std::uint8_t* base, int depth)
//     copies w[depth / 4][16][4], depth in eights, to `bounded`, and any weights up to a multiple of 16, where
//     activations, ranges and bases are zero. Bit c of reached[i], zero before, says whether a quad of column c reaches
//     an end of 16 bits in the depths from 16 i on, bit 16 + c from 16 i + 8 on. If `based`, base_sums[16] += w's
//     products with the bases.
//   static void add_excess(std::int32_t* sums, const std::uint8_t* a, std::ptrdiff_t two_tiles, std::int32_t excess,
//                          int rows)
//     sums[rows] += the excess times four depths of a[rows / 8][8][4], `two_tiles` bytes from eight rows to the next.
//   template <int MR> static void tile_quads(const std::uint8_t* a, const std::int8_t* bounded, int k,
//                                            std::int32_t* out, prefetch_run& next)
//     rows 0..MR-1 (3 or 4) of a[k / 4][8][4] times one panel, added to out[MR][16]; k in sixteens; everything aligned,
//     `next` moved on by what was fetched.
// A set made of it that has its own bound_quads and tile_quads calls gemm_s8_by_quads_of and includes nothing.

/// Depth that is made ready at a time, at most: 16 KB of weights, which stay in L1 with a tile's A. A multiple of 64.
static constexpr int quad_depth = 1024;
/// Rows of a block at most: a multiple of eight.
static constexpr int quad_block = 104;
/// Stack for a block's sums of a dozen panels, or for its A and fewer. With what else a product has there, threads with
/// 128 KB of stack, musl's, still do.
static constexpr int quad_bytes = 80 * 1024;

/// Rows of a block, arranged, or a part of their depth: a[tiles / 2][depth / 4][2][4][4], `two_tiles` bytes from one
/// pair of tiles to the next. A tile of three rows has a fourth, and a last tile alone another four, whose sums nobody
/// uses.
struct quad_block_rows {
  std::uint8_t* a;
  std::ptrdiff_t two_tiles;
  std::uint8_t* base;   // what is taken off the activations at each depth
  std::uint8_t* range;  // and what is left of them at most

  /// Of a block of `rows` rows and so much depth, a multiple of 16, which lie one after the other from `at` on. In all
  /// that is (rows + 8 + 2) * depth bytes at most.
  static quad_block_rows of(std::uint8_t* at, int rows, int depth) noexcept {
    std::uint8_t* const base = at + static_cast<std::ptrdiff_t>(round_up(rows, 8)) * depth;
    return {at, static_cast<std::ptrdiff_t>(depth) * 8, base, base + depth};
  }
  /// The same from depth k on, a multiple of 16.
  quad_block_rows from(int k) const noexcept { return {a + k * 8, two_tiles, base + k, range + k}; }
  /// The rows of a tile.
  std::uint8_t* tile(int i) const noexcept { return a + i / 2 * two_tiles + i % 2 * 16; }
};

/// Four bytes, as products take them: of one row or column, at four depths.
static OCELLUS_INLINE std::int32_t load_four(const void* at) noexcept {
  std::int32_t four;
  std::memcpy(&four, at, sizeof(four));
  return four;
}

/// Sixteen bytes from `at`, of which `left` are within a row: it is readable up to a multiple of eight.
static OCELLUS_INLINE __m128i load_depths(const std::uint8_t* at, int left) noexcept {
  const __m128i* from = reinterpret_cast<const __m128i*>(at);
  return left > 8 ? _mm_loadu_si128(from) : _mm_loadl_epi64(from);
}

/// Rows of the next tile when `left` remain: three or four, of six rows or more.
static constexpr int quad_tile(int left) noexcept { return left % 4 == 0 ? 4 : 3; }

/// Transposes words: out[i] = word i of x[0], x[1], x[2], x[3].
static OCELLUS_INLINE void transpose4(__m128i* out, const __m128i* x) noexcept {
  const __m128i low0 = _mm_unpacklo_epi32(x[0], x[1]), low1 = _mm_unpacklo_epi32(x[2], x[3]),
                high0 = _mm_unpackhi_epi32(x[0], x[1]), high1 = _mm_unpackhi_epi32(x[2], x[3]);
  out[0] = _mm_unpacklo_epi64(low0, low1);
  out[1] = _mm_unpackhi_epi64(low0, low1);
  out[2] = _mm_unpacklo_epi64(high0, high1);
  out[3] = _mm_unpackhi_epi64(high0, high1);
}

/// Bounds and arranges `depth` depths of `rows` rows, with zeros up to a multiple of 16.
static OCELLUS_NOINLINE void arrange_rows(const quad_block_rows& to, const std::uint8_t* a, std::ptrdiff_t lda,
                                          int rows, int depth) noexcept {
  for (int d = 0; d < depth; d += 16) {
    __m128i most = load_depths(a + d, depth - d), least = most;
    for (int r = 1; r < rows; r++) {
      const __m128i x = load_depths(a + r * lda + d, depth - d);
      most = _mm_max_epu8(most, x);
      least = _mm_min_epu8(least, x);
    }
    const __m128i half = _mm_and_si128(_mm_srli_epi16(most, 1), _mm_set1_epi8(0x7f));
    const __m128i some = _mm_min_epu8(least, half), few = _mm_set1_epi8(8);
    const __m128i base = _mm_and_si128(some, _mm_cmpeq_epi8(_mm_max_epu8(some, few), some));  // below 8: not worth it
    _mm_store_si128(reinterpret_cast<__m128i*>(to.base + d), base);
    _mm_store_si128(reinterpret_cast<__m128i*>(to.range + d), _mm_sub_epi8(most, base));
  }
  for (int i = 0, n = 0, tile = 0; i < rows; i += n, tile++) {
    n = quad_tile(rows - i);
    std::uint8_t* const out = to.tile(tile);
    for (int d = 0; d < depth; d += 16) {
      const __m128i base = _mm_load_si128(reinterpret_cast<const __m128i*>(to.base + d));
      __m128i x[4];
      unroll<4>([&](int r) OCELLUS_LAMBDA {  // a fourth row that is missing repeats the third
        x[r] = _mm_sub_epi8(load_depths(a + (i + (r < n ? r : n - 1)) * lda + d, depth - d), base);
      });
      transpose4(x, x);
      unroll<4>([&](int j) OCELLUS_LAMBDA {
        _mm_store_si128(reinterpret_cast<__m128i*>(out + (d + j * 4) * 8), x[j]);
      });
    }
  }
}

/// Block by block, as gemm_s8_by_steps divides so many rows: one takes (rows + 9) / rows of a byte for each of A's.
static void arrange_u8(const arrange_args& t) noexcept {
  for (int i = 0, n = 0; i < t.m; i += n) {
    n = even_share(t.m - i, quad_block);
    arrange_rows(quad_block_rows::of(t.out + i * t.ld_out, n, round_up(t.k, 16)).from(t.begin),
                 t.a + i * t.lda + t.begin, t.lda, n, round_up(t.end, 8) - t.begin);
  }
}

/// Whether anything is taken off activations: after GELU nothing is.
static OCELLUS_INLINE bool any_base(const std::uint8_t* base, int depth) noexcept {
  __m128i any = _mm_setzero_si128();
  for (int d = 0; d < depth; d += 16)
    any = _mm_or_si128(any, _mm_load_si128(reinterpret_cast<const __m128i*>(base + d)));
  return _mm_testz_si128(any, any) == 0;
}

/// What of this file differs between a set and one that is made of it.
struct quad_steps {
  void (*bound[2])(std::int8_t* bounded, std::uint32_t* reached, std::int32_t* base_sums, const std::int8_t* w,
                   const std::uint8_t* range, const std::uint8_t* base, int depth) noexcept;  // not based, based
  void (*tiles)(const quad_block_rows& a, const std::int8_t* bounded, int depth, std::int32_t* out, int rows,
                prefetch_run& next) noexcept;
  void (*finish)(const gemm_args& g, const std::int32_t* acc, std::ptrdiff_t lda, int i, int rows, int col,
                 int cols) noexcept;
};

/// Of eight depths of a column: whether two products that pmaddubsw adds reach an end of 16 bits, in the low four bits
/// of depths 0..3, in the next four of depths 4..7.
static OCELLUS_INLINE int two_reach(__m128i range, __m128i w) noexcept {
  const __m128i zero = _mm_setzero_si128();
  const __m128i most = _mm_maddubs_epi16(range, _mm_max_epi8(w, zero)),
                least = _mm_maddubs_epi16(range, _mm_min_epi8(w, zero));
  return _mm_movemask_epi8(_mm_or_si128(_mm_cmpeq_epi16(most, _mm_set1_epi16(32767)),
                                        _mm_cmpeq_epi16(least, _mm_set1_epi16(-32768))));
}

/// `depth` depths of a panel, in eights: bounded weights, any up to a multiple of 16; the products of the bases with
/// the whole weights, added to base_sums[16]; and sums[16][rows] of what the excesses give with the activations, rows
/// in eights.
static OCELLUS_NOINLINE void bound_panel(const quad_steps& steps, std::int8_t* bounded, std::int32_t* base_sums,
                                         std::int32_t* sums, const quad_block_rows& a, int rows,
                                         const std::int8_t* panel, bool based, int depth) noexcept {
  constexpr int sixteens = quad_depth / 16;
  std::uint32_t reached[sixteens] = {};  // read by twos
  steps.bound[based ? 1 : 0](bounded, reached, base_sums, panel, a.range, a.base, depth);
  // Where the excesses are nobody can predict: first a list of them, by fours, in which most jumps always go one way.
  std::uint16_t list[sixteens * 32 + 4];
  constexpr std::uint64_t last = std::uint64_t{1} << 63;  // zeros are never counted in a zero, which takes a jump
  int n = 0;
  for (int i = 0; i * 32 < depth; i++) {
    std::uint64_t left;
    std::memcpy(&left, reached + i * 2, sizeof(left));
    const int end = n + std::popcount(left);
    for (int from = n; from < end; from += 4)
      for (int j = 0; j < 4; j++, left &= left - 1)
        list[from + j] = static_cast<std::uint16_t>(i * 64 + std::countr_zero(left | last));
    n = end;
  }
  std::memset(sums, 0, sizeof(std::int32_t) * 16 * static_cast<std::size_t>(rows));
  for (int i = 0; i < n; i++) {
    const std::ptrdiff_t eight = list[i] / 16, column = list[i] % 16, at = eight * 128 + column * 4;
    // takes four depths of the column, the first or the second of eight; sums += the products of the weights that
    // `mask` leaves
    const auto take = [&](int four, std::int32_t mask) OCELLUS_LAMBDA {
      std::memset(bounded + at + four * 64, 0, 4);
      add_excess(sums + column * rows, a.a + eight * 64 + four * 32, a.two_tiles,
                 load_four(panel + at + four * 64) & mask, rows);
    };
    const __m128i w = _mm_unpacklo_epi32(_mm_cvtsi32_si128(load_four(panel + at)),
                                         _mm_cvtsi32_si128(load_four(panel + at + 64)));
    const int two = two_reach(_mm_loadl_epi64(reinterpret_cast<const __m128i*>(a.range + eight * 8)), w);
    if (two == 0) {
      take(1, -1);
      continue;
    }
    for (int j = 0; j < 4; j++)
      if ((two >> j / 2 * 4 & 0xf) != 0) take(j / 2, j % 2 == 0 ? 0x00ff00ff : ~0x00ff00ff);
  }
}

/// out[rows][16] = or += base_sums[16] and the sums of bound_panel.
static OCELLUS_NOINLINE void fold_sums(std::int32_t* out, const std::int32_t* base_sums, const std::int32_t* sums,
                                       int rows, int ld, bool onto) noexcept {
  for (int i = 0, n = 0; i < rows; i += n, sums += 4) {
    n = quad_tile(rows - i);
    for (int c = 0; c < 16; c += 4) {
      __m128i x[4];
      unroll<4>([&](int j) OCELLUS_LAMBDA {
        x[j] = _mm_load_si128(reinterpret_cast<const __m128i*>(sums + (c + j) * ld));
      });
      transpose4(x, x);
      const __m128i base = _mm_load_si128(reinterpret_cast<const __m128i*>(base_sums + c));
      unroll<4>([&](int r) OCELLUS_LAMBDA {
        if (r >= n) return;
        __m128i* to = reinterpret_cast<__m128i*>(out + (i + r) * 16 + c);
        const __m128i y = _mm_add_epi32(x[r], base);
        _mm_store_si128(to, onto ? _mm_add_epi32(_mm_load_si128(to), y) : y);
      });
    }
  }
}

/// The tiles of a panel by Set's tile_quads: out[rows][16] += a times `bounded`.
template <class Set>
static OCELLUS_NOINLINE void tiles_quads(const quad_block_rows& a, const std::int8_t* bounded, int depth,
                                         std::int32_t* out, int rows, prefetch_run& next) noexcept {
  for (int i = 0, n = 0, tile = 0; i < rows; i += n, tile++) {
    n = quad_tile(rows - i);
    if (n == 4) {
      Set::template tile_quads<4>(a.tile(tile), bounded, depth, out + i * 16, next);
    } else {
      Set::template tile_quads<3>(a.tile(tile), bounded, depth, out + i * 16, next);
    }
  }
}

/// gemm_s8 for quad_rows rows or more, by these steps.
static OCELLUS_NOINLINE void gemm_s8_by_steps(const gemm_args& g, const quad_steps& steps) noexcept {
  alignas(64) std::int32_t block[quad_bytes / 4];
  alignas(64) std::int32_t sums[16 * quad_block];
  alignas(64) std::int8_t bounded[quad_depth * 16];
  alignas(64) std::uint8_t bounds[2 * quad_depth];
  const int depth = round_up(g.k, 8);
  const auto weights = [&](int panel, int k) OCELLUS_LAMBDA {
    return static_cast<const std::int8_t*>(g.b) + static_cast<std::size_t>(panel) * panel_elements(dtype::s8, g.k) +
           static_cast<std::size_t>(k) * panel_width;
  };
  for (int i0 = 0, i1 = 0; i0 < g.m; i0 = i1) {
    i1 = i0 + even_share(g.m - i0, quad_block);
    const int rows = i1 - i0, ld = round_up(rows, 8);
    const bool ready = g.a_arranged != nullptr;
    // bytes of a row; of A, if it lies here, beside sums of one panel, or of six
    const int each = quad_bytes / ld & -64, fit = depth <= each - 64 ? each - 64 : each - 6 * 64;
    const int most = !ready && fit < quad_depth ? fit : quad_depth;
    const int panels = (ready ? each : each - most) >> 6;
    quad_block_rows a = {reinterpret_cast<std::uint8_t*>(block + panels * ld * 16), 0, bounds, bounds + quad_depth};
    if (ready) a = quad_block_rows::of(g.a_arranged + i0 * g.ld_arranged, rows, round_up(depth, 16));
    for (int p0 = g.panel_begin, p1 = 0; p0 < g.panel_end; p0 = p1) {
      p1 = p0 + even_share(g.panel_end - p0, panels);
      for (int k0 = 0, part = 0; k0 < depth; k0 += part) {
        part = part_depth(depth - k0, most);
        if (!ready && (part < depth || p0 == g.panel_begin)) {
          a.two_tiles = round_up(part, 16) * 8;
          arrange_rows(a, static_cast<const std::uint8_t*>(g.a) + i0 * g.lda + k0, g.lda, rows, part);
        }
        const quad_block_rows here = ready ? a.from(k0) : a;
        const bool based = any_base(here.base, part);
        for (int p = p0; p < p1; p++) {
          std::int32_t* const out = block + (p - p0) * ld * 16;
          const std::int8_t* const ahead = p + 1 < p1           ? weights(p + 1, k0)
                                           : k0 + part < depth ? weights(p0, k0 + part)
                                                               : weights(p1, 0);
          prefetch_run next = prefetch_run::first(ahead, 4 * panel_width, ceil_div(rows, 4), false);
          alignas(64) std::int32_t base_sums[16] = {};
          bound_panel(steps, bounded, base_sums, sums, here, ld, weights(p, k0), based, part);
          fold_sums(out, base_sums, sums, rows, ld, k0 > 0);
          steps.tiles(here, bounded, round_up(part, 16), out, rows, next);
        }
      }
      for (int p = p0; p < p1; p++) {
        const int col = p * panel_width, cols = g.n - col < panel_width ? g.n - col : panel_width;
        if (p + 1 < p1) prefetch_rows(g, i0, rows, col + panel_width, panel_width);
        steps.finish(g, block + (p - p0) * ld * 16, panel_width, i0, rows, col, cols);
      }
    }
  }
}

/// The steps of Set, which has bound_quads, tile_quads and finish_s8.
template <class Set>
static OCELLUS_INLINE void gemm_s8_by_quads_of(const gemm_args& g) noexcept {
  static_assert(Set::quad_rows >= 6);  // so tiles of three and four rows suffice
  gemm_s8_by_steps(g, {{&Set::template bound_quads<false>, &Set::template bound_quads<true>}, &tiles_quads<Set>,
                       &Set::finish_s8});
}
