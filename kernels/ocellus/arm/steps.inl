// Included once inside each set of AArch64 whose tiles have such steps; includes nothing.

/// The steps of a tile: step(i, w) with w = widen(load(i)), weights that are loaded two steps before and widened one
/// step before, so that cores that go by the order of instructions (Cortex-A53, A55, A510) do not wait for them.
template <int Steps, class Load, class Widen, class Step>
static OCELLUS_INLINE void in_steps(const Load& load, const Widen& widen, const Step& step) noexcept {
  using loaded = decltype(load(std::integral_constant<int, 0>{}));
  using weights = decltype(widen(std::integral_constant<int, 0>{}, loaded{}));
  loaded next = load(std::integral_constant<int, 1>{});
  weights w[2] = {widen(std::integral_constant<int, 0>{}, load(std::integral_constant<int, 0>{}))};
  unroll<Steps>([&](auto i) OCELLUS_LAMBDA {
    if constexpr (i + 1 < Steps) {
      w[(i + 1) % 2] = widen(std::integral_constant<int, i + 1>{}, next);
      if constexpr (i + 2 < Steps) {
        next = load(std::integral_constant<int, i + 2>{});
        hold(w[(i + 1) % 2], next);
      }
      hold(w[i % 2], w[(i + 1) % 2]);
    }
    step(i, w[i % 2]);
  });
}

/// The same of weights that are as they are loaded, one step before.
template <int Steps, class Load, class Step>
static OCELLUS_INLINE void in_steps(const Load& load, const Step& step) noexcept {
  decltype(load(std::integral_constant<int, 0>{})) w[2] = {load(std::integral_constant<int, 0>{})};
  unroll<Steps>([&](auto i) OCELLUS_LAMBDA {
    if constexpr (i + 1 < Steps) {
      w[(i + 1) % 2] = load(std::integral_constant<int, i + 1>{});
      hold(w[i % 2], w[(i + 1) % 2]);
    }
    step(i, w[i % 2]);
  });
}

/// Holds what takes w back until `loaded` is there; costs no instruction.
template <class V, class L>
static OCELLUS_INLINE void hold(V& w, L loaded) noexcept {
  __asm__("" : "+w"(w) : "w"(loaded));
}

/// Holds loads from p back until acc is there; costs no instruction.
template <class T, class V>
static OCELLUS_INLINE void after(const T*& p, V acc) noexcept {
  __asm__("" : "+r"(p) : "w"(acc));
}
