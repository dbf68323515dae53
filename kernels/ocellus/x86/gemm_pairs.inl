// s8 products by pmaddubsw, for sets without a dot product of bytes. Included inside such a set, before gemm.inl.
//
// pmaddubsw adds two products u8 x s8 in s16 and saturates, so alone it is wrong where two weights of a pair (depths 2i
// and 2i + 1 of a column) are large and of one sign, and so are their activations. With the largest activation m of a
// block's rows at both depths it is exact if the weights' sum is within `limit` = min(254, 32767 / m), 128 or more.
// So pairs are bounded first: what their sum has too much goes from the even weight into an `excess`, and each tile
// starts from the products of the excesses instead of from zeros. It then takes three operations for 32 products (two
// multiplications, one addition) where pmaddwd on 16-bit halves takes four, and no halves have to be made.
//
// Bounding a panel costs about as much as four rows of it, and each excess as much as four weights.
// Of normally distributed weights, each column scaled to 127, 1.9 pairs in 100 are above 128 at depth 768 and 0.9 at
// 3072; of a trained ViT's 2.6 at depth 192 and 0.9 at 768.
//
// The set defines pair_rows (products of fewer rows do not come here), pair_tile and
//   static std::uint64_t bound_pairs(std::int8_t* bounded, std::int32_t* excess, const std::int8_t* panel,
//                                    const std::int32_t* limits)
//     four groups of four depths: [4][16][4] weights; excess[4][16] as two s16, of the even depths, and limits[4]
//     likewise; bit 16 * i + c of what it returns says whether group i of column c has an excess.
//   static void add_excess(std::int32_t* sums, const std::uint16_t* even, std::int32_t excess, int rows)
//     rows in eights; even: bytes 0 and 2 of each row's group.
//   template <int MR> static void tile_pairs(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* bounded,
//       int k, std::int32_t* out, prefetch_run& next): MR rows times one panel, onto out[MR][16]; k in fours, up to
//     eights of which `a` and `bounded` can be read, the latter then zero; `bounded` and `out` aligned to 64 bytes,
//     `next` moved on by what was fetched.

/// Depth that is bounded at a time: 12 KB, which stay in L1 with a tile's A.
static constexpr int pair_depth = 768;
/// Rows of a block at most.
static constexpr int pair_block = 112;
/// Stack for the even bytes of a block's A: 56 rows of depth 3072, 112 of up to 1536; blocks have pair_least or more.
static constexpr int even_bytes = 84 * 1024;
static constexpr int pair_least = 24;

/// out[g * ld + r] = bytes 0 and 2 of a's row r, group g.
static OCELLUS_NOINLINE void gather_even(std::uint16_t* out, int ld, const std::uint8_t* a, std::ptrdiff_t lda,
                                         int rows, int groups) noexcept {
  alignas(64) std::uint32_t four[16 * 16];
  for (int r0 = 0; r0 < ld; r0 += 16) {
    const float* from[16];  // rows that are missing repeat the last one: their sums are not used
    for (int r = 0; r < 16; r++)
      from[r] = reinterpret_cast<const float*>(a + (r0 + r < rows ? r0 + r : rows - 1) * lda);
    const int wide = ld - r0 < 16 ? ld - r0 : 16;
    for (int g0 = 0; g0 < groups; g0 += 16) {
      const int n = groups - g0 < 16 ? groups - g0 : 16;
      if (n == 16) {
        transpose16(reinterpret_cast<float*>(four), from, g0, 16);
      } else {
        for (int r = 0; r < 16; r++)
          for (int g = 0; g < n; g++) std::memcpy(four + 16 * g + r, from[r] + g0 + g, 4);
      }
      for (int g = 0; g < n; g++)
        for (int r = 0; r < wide; r += 8) {
          const __m128i* x = reinterpret_cast<const __m128i*>(four + 16 * g + r);
          const __m128i even = _mm_set1_epi16(0x00ff);
          _mm_storeu_si128(reinterpret_cast<__m128i*>(out + (g0 + g) * ld + r0 + r),
                           _mm_packus_epi16(_mm_and_si128(x[0], even), _mm_and_si128(x[1], even)));
        }
    }
  }
}

/// limits[g]: those of the two pairs of each group of four depths, as two s16; zeros up to four groups beyond.
static OCELLUS_NOINLINE void find_limits(std::int32_t* limits, const std::uint8_t* a, std::ptrdiff_t lda, int rows,
                                         int groups) noexcept {
  for (int g = 0; g < groups; g += 2) {  // rows are readable up to a multiple of 8
    __m128i m = _mm_set1_epi8(1);
    for (int r = 0; r < rows; r++)
      m = _mm_max_epu8(m, _mm_loadl_epi64(reinterpret_cast<const __m128i*>(a + r * lda + g * 4)));
    alignas(16) std::uint16_t most[8], two[4];
    _mm_store_si128(reinterpret_cast<__m128i*>(most),
                    _mm_max_epu8(_mm_and_si128(m, _mm_set1_epi16(0x00ff)), _mm_srli_epi16(m, 8)));
    for (int i = 0; i < 4; i++) two[i] = static_cast<std::uint16_t>(most[i] <= 129 ? 254 : 32767 / most[i]);
    std::memcpy(limits + g, two, sizeof(two));
  }
  for (int i = 0; i < 4; i++) limits[groups + i] = 0;
}

/// Depths 4 * groups of a panel: bounded weights, and sums[c][ld] with the products of their excesses added.
static OCELLUS_NOINLINE void bound_panel(std::int8_t* bounded, std::int32_t* sums, const std::uint16_t* even, int ld,
                                         const std::int8_t* panel, const std::int32_t* limits, int groups) noexcept {
  alignas(64) std::int8_t last[4 * 64] = {};
  alignas(64) std::int32_t excess[4 * 16];
  for (int g = 0; g < groups; g += 4) {
    const std::int8_t* from = panel + g * 64;
    if (g + 4 > groups) {
      std::memcpy(last, from, static_cast<std::size_t>(groups - g) * 64);
      from = last;
    }
    std::uint64_t there = bound_pairs(bounded + g * 64, excess, from, limits + g);
    for (; there != 0; there &= there - 1) {
      const int i = std::countr_zero(there);
      add_excess(sums + i % 16 * ld, even + (g + i / 16) * ld, excess[i], ld);
    }
  }
}

/// gemm_s8 for pair_rows rows or more and whatever depth fits (at most 7168); false: nothing is done.
static OCELLUS_NOINLINE bool gemm_s8_by_pairs(const gemm_args& g) noexcept {
  // Tiles of pair_tile rows and one less suffice for blocks of 12 rows or more, and for all if they are 3 and 2.
  static_assert(pair_tile == 3 || (pair_tile < 6 && pair_rows >= 12));
  const int depth = round_up(g.k, 4), groups = depth / 4;
  int block = even_bytes / (2 * groups) / 8 * 8;
  if (block < pair_least) return false;
  if (block > pair_block) block = pair_block;
  alignas(64) std::uint16_t even[even_bytes / 2];
  alignas(64) std::int8_t bounded[pair_depth * 16];
  alignas(64) std::int32_t acc[pair_block * 16], more[16 * 16];
  alignas(64) std::int32_t limits[even_bytes / (2 * pair_least) + 4];  // read by fours
  alignas(64) std::int32_t sums[16 * pair_block + 8];  // transpose16 may read 16 words where 8 are left
  const std::uint8_t* a = static_cast<const std::uint8_t*>(g.a);
  const std::size_t stride = panel_elements(dtype::s8, g.k);
  for (int i0 = 0, i1 = 0; i0 < g.m; i0 = i1) {
    i1 = i0 + even_share(g.m - i0, block);
    const int rows = i1 - i0, ld = round_up(rows, 8), tiles = ceil_div(rows, pair_tile);
    const std::uint8_t* x = a + i0 * g.lda;
    gather_even(even, ld, x, g.lda, rows, groups);
    find_limits(limits, x, g.lda, rows, groups);
    for (int p = g.panel_begin; p < g.panel_end; p++) {
      const std::int8_t* panel = static_cast<const std::int8_t*>(g.b) + static_cast<std::size_t>(p) * stride;
      prefetch_run next = prefetch_run::first(panel + stride, 4 * panel_width, tiles, false);
      for (int k0 = 0, part = 0; k0 < depth; k0 += part) {
        part = part_depth(depth - k0, pair_depth);
        std::memset(sums, 0, sizeof(std::int32_t) * 16 * static_cast<std::size_t>(ld));
        bound_panel(bounded, sums, even + k0 / 4 * ld, ld, panel + k0 * panel_width, limits + k0 / 4, part / 4);
        const float* columns[16];
        for (int c = 0; c < 16; c++) columns[c] = reinterpret_cast<const float*>(sums + c * ld);
        for (int r = 0; r < ld; r += 16) {
          const int n = ld - r < 16 ? ld - r : 16;
          transpose16(reinterpret_cast<float*>(k0 > 0 ? more : acc + r * 16), columns, r, n);
          for (int i = 0; k0 > 0 && i < n * 16; i += 16)
            for (int c = 0; c < 16; c++) acc[r * 16 + i + c] += more[i + c];
        }
        for (int i = 0, n = 0; i < rows; i += n) {
          n = even_share(rows - i, pair_tile);
          if (n == pair_tile) {
            tile_pairs<pair_tile>(x + i * g.lda + k0, g.lda, bounded, part, acc + i * 16, next);
          } else {
            tile_pairs<pair_tile - 1>(x + i * g.lda + k0, g.lda, bounded, part, acc + i * 16, next);
          }
        }
      }
      const int col = p * panel_width, cols = g.n - col < panel_width ? g.n - col : panel_width;
      finish_s8(g, acc, panel_width, i0, rows, col, cols);
    }
  }
  return true;
}
