// Loops that are unrolled before anything else, so that arrays of accumulators become registers: gcc 12 at -O2 leaves
// a plain loop over them rolled, and the accumulators in memory (40 % of the peak instead of 95 %).
// Included once inside each kernel set; includes nothing.

/// f(First), ..., f(N - 1), with the index a constant: f takes `int i`, or `auto i` where a type or an operand of asm
/// depends on it (or gcc makes better addresses of it: normalize_rows). One that takes `auto` is compiled N times, and
/// as often again in a loop around it: with that everywhere, and a fold over a sequence of indices, whose second
/// function it saves, all sets of x86 are three times as many functions and take 1.4 times as long to compile.
template <int N, int First = 0, class F>
static OCELLUS_INLINE void unroll(const F& f) noexcept {
  if constexpr (N > First) f(std::integral_constant<int, First>{});
  if constexpr (N > First + 1) f(std::integral_constant<int, First + 1>{});
  if constexpr (N > First + 2) f(std::integral_constant<int, First + 2>{});
  if constexpr (N > First + 3) f(std::integral_constant<int, First + 3>{});
  if constexpr (N > First + 4) f(std::integral_constant<int, First + 4>{});
  if constexpr (N > First + 5) f(std::integral_constant<int, First + 5>{});
  if constexpr (N > First + 6) f(std::integral_constant<int, First + 6>{});
  if constexpr (N > First + 7) f(std::integral_constant<int, First + 7>{});
  if constexpr (N > First + 8) f(std::integral_constant<int, First + 8>{});
  if constexpr (N > First + 9) f(std::integral_constant<int, First + 9>{});
  if constexpr (N > First + 10) f(std::integral_constant<int, First + 10>{});
  if constexpr (N > First + 11) f(std::integral_constant<int, First + 11>{});
  if constexpr (N > First + 12) unroll<N, First + 12>(f);
}

/// Whether a set whose tiles have up to `most` rows has one of `rows`: of 12, heights 3 and 5 would only serve products
/// of so many rows, since more are shared out evenly. Such a product takes two tiles, and more time unless its weights
/// come from memory.
static constexpr bool is_height(int rows, int most) noexcept { return most < 12 || (rows != 3 && rows != 5); }

/// tile(height) for a height of 1..MR (see is_height), as a constant.
template <int MR, int Height = MR, class F>
static OCELLUS_INLINE void by_height(int height, const F& tile) noexcept {
  if constexpr (Height > 1) {
    constexpr int less = is_height(Height - 1, MR) ? Height - 1 : Height - 2;
    if (height < Height) return by_height<MR, less>(height, tile);
  }
  tile(std::integral_constant<int, Height>{});
}

/// The greatest of the heights MR, 4, 2 and 1 that `rows` rows fill; `use` gets it as a constant.
template <int MR, class F>
static OCELLUS_INLINE int few_height(int rows, const F& use) noexcept {
  if constexpr (MR > 1) {
    if (rows < MR) return few_height<(MR > 4 ? 4 : MR / 2)>(rows, use);
  }
  use(std::integral_constant<int, MR>{});
  return MR;
}

/// run(tile, row) until `rows` rows are done, with tiles of these few heights: pick(height) is a pointer to one. For
/// what is rare, with one call in the code.
template <int MR, class Pick, class Run>
static OCELLUS_INLINE void by_few_heights(int rows, const Pick& pick, const Run& run) noexcept {
  for (int r = 0, height = 0; r < rows; r += height) {
    auto tile = pick(std::integral_constant<int, 1>{});
    height = few_height<MR>(rows - r, [&](auto h) OCELLUS_LAMBDA { tile = pick(h); });
    run(tile, r);
  }
}
