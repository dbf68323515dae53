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
