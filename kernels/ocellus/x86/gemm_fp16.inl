// The f16 product in fp16 arithmetic, over the set's `half32`: 32 lanes of fp16 with
//   zero(), join(const f16* a, const f16* b) (16 values each), repeat(std::uint32_t) (one value, twice, to all lanes),
//   fma(a, b, c), add_to(float* first, float* second) (adds lanes 0..15 and 16..31 to 16 floats each).
// Included once inside each kernel set that has it; tests include it over an emulation. Two panels share a register.
// fp16 sums run over at most 64 products and then go to f32: relative rms error 1.2e-3 at 64, 8e-3 unblocked.

using rounded_element = std::uint32_t;
using rounded_weight = f16;
static constexpr int rounded_rows = 64, rounded_depth = 192, rounded_unit = 2, rounded_height = float_rows;
static constexpr int fp16_chain = 64;

/// MR rows times P pairs of panels, added to C.
template <int MR, int P>
static OCELLUS_NOINLINE void tile_fp16(const std::uint32_t* a, std::ptrdiff_t lda, const f16* b,
                                       std::size_t panel_stride, int depth, float* c,
                                       std::ptrdiff_t ldc) noexcept {
  for (int d0 = 0; d0 < depth; d0 += fp16_chain) {
    half32 acc[MR][P];
    unroll<MR>([&](int r)
                   OCELLUS_LAMBDA { unroll<P>([&](int p) OCELLUS_LAMBDA { acc[r][p] = half32::zero(); }); });
    const std::uint32_t* rows[(MR + 2) / 3];  // every third row; the others are one and two strides away
    unroll<(MR + 2) / 3>([&](int i) OCELLUS_LAMBDA { rows[i] = a + 3 * i * lda + d0; });
    const int n = depth - d0 < fp16_chain ? depth - d0 : fp16_chain;
    for (int d = 0; d < n; d++) {
      half32 w[P];
      unroll<P>([&](auto p) OCELLUS_LAMBDA {
        w[p] = half32::join(b + 2 * p * panel_stride, b + (2 * p + 1) * panel_stride);
      });
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        const half32 x = half32::repeat(rows[r / 3][r % 3 * lda + d]);
        unroll<P>([&](int p) OCELLUS_LAMBDA {
          acc[r][p] = half32::fma(x, w[p], acc[r][p]);
          OCELLUS_KEEP(acc[r][p].v);
        });
      });
      b += panel_width;
    }
    half32 sums[MR][P];  // through memory, for a loop: unrolled, this would be half of the code
    unroll<MR>([&](int r) OCELLUS_LAMBDA { unroll<P>([&](int p) OCELLUS_LAMBDA { sums[r][p] = acc[r][p]; }); });
    for (int r = 0; r < MR; r++)
      unroll<P>([&](int p)
                    OCELLUS_LAMBDA { sums[r][p].add_to(c + r * ldc + p * 32, c + r * ldc + p * 32 + 16); });
  }
}

/// The tile of `rows` rows (tile_height's) and two or four panels.
static OCELLUS_INLINE void tiles_rounded(int rows, int panels, const std::uint32_t* a, std::ptrdiff_t lda,
                                         const f16* b, std::size_t stride, int depth, float* c,
                                         std::ptrdiff_t ldc, bool onto, const prefetch_run&) noexcept {
  for (int r = 0; r < rows && !onto; r++)
    std::memset(c + r * ldc, 0, sizeof(float) * static_cast<std::size_t>(panels * panel_width));
  const auto run = [&](auto tile, int r) OCELLUS_LAMBDA { tile(a + r * lda, lda, b, stride, depth, c + r * ldc, ldc); };
  if (panels == 4) return by_height<float_rows>(rows, [&](auto h) OCELLUS_LAMBDA { run(tile_fp16<h, 2>, 0); });
  by_few_heights<float_rows>(rows, [](auto h) OCELLUS_LAMBDA { return &tile_fp16<h, 1>; }, run);
}

/// A block of activations to fp16, each value twice in a word, which is what a broadcast from memory takes.
static OCELLUS_NOINLINE void round_block(std::uint32_t* out, std::ptrdiff_t ldo, const float* a,
                                         std::ptrdiff_t lda, int rows, int depth) noexcept {
  for (int r = 0; r < rows; r++)
    for (int d = 0; d < depth; d += 16) {
      const __m512i h = _mm512_cvtepu16_epi32(
          _mm512_cvtps_ph(load_tail(a + r * lda, d, depth).x, _MM_FROUND_TO_NEAREST_INT));
      _mm512_storeu_si512(out + r * ldo + d, _mm512_or_si512(h, _mm512_slli_epi32(h, 16)));
    }
}

static OCELLUS_INLINE const std::uint32_t* rounded_before(const gemm_args&) noexcept { return nullptr; }
