// Loops that are unrolled before anything else, so that arrays of accumulators become registers: gcc 12 at -O2 leaves
// a plain loop over them rolled, and the accumulators in memory (40 % of the peak instead of 95 %).
// Included once inside each kernel set; includes nothing.

template <class F, int... I>
static OCELLUS_INLINE void unroll_over(std::integer_sequence<int, I...>, const F& f) noexcept {
  (f(std::integral_constant<int, I>{}), ...);
}

/// f(0), ..., f(N - 1), with the index a constant: f takes `auto i`.
template <int N, class F>
static OCELLUS_INLINE void unroll(const F& f) noexcept {
  unroll_over(std::make_integer_sequence<int, N>{}, f);
}

/// tile(height, row) for `rows` rows (1..MR), the height a constant: one tile, since all heights are there. With Few
/// there are MR, 4, 2 and 1 only, as often as it takes: less code for what is rare.
template <int MR, bool Few, class F>
static OCELLUS_INLINE void by_height(int rows, const F& tile) noexcept {
  if constexpr (Few) {
    int row = 0;
    for (; row + MR <= rows; row += MR) tile(std::integral_constant<int, MR>{}, row);
    if constexpr (MR > 1)
      by_height<(MR > 4 ? 4 : MR / 2), true>(
          rows - row, [&](auto height, int r) OCELLUS_LAMBDA { tile(height, row + r); });
  } else {
    if constexpr (MR > 1) {
      if (rows < MR) return by_height<MR - 1, false>(rows, tile);
    }
    tile(std::integral_constant<int, MR>{}, 0);
  }
}
