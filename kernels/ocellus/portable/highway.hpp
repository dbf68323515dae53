// The set for targets that nobody wrote one for: Highway's vectors at its static target, that is, the target that the
// flags of the translation unit grant. Found by __has_include, never needed: without Highway such a target runs
// `scalar`.
//
// OCELLUS_PORTABLE=1 puts this set in the place of the hand-written ones, =0 leaves it out; undefined, it is used where
// list.def has no other set than scalar and Highway has vectors of more than one lane. Highway 1.0.3 (Debian 12) has
// such for 32-bit Arm, by clang for others too; later ones for POWER, z/Architecture and LoongArch.
//
// | operation                                           | use                                                    |
// |-----------------------------------------------------|--------------------------------------------------------|
// | MulAdd                                              | f32 tile, where the target fuses it; else scalar's     |
// | ReorderWidenMulAccumulate, RearrangeToOddPlusEven   | s8 tile: u8 x s8 as s16 pairs, exact                   |
//
// 32-bit Arm's NEON flushes subnormal floats to zero, which law 2 forbids: there floats stay scalar's and the s8 tile,
// which is nearly all of an s8 model's time, is Highway's.
// Overflow: as in avx2.hpp. Registers: a pass over two vectors of columns, 6 or 12 rows of f32, 2 to 8 of s8.
#pragma once

#include <ocellus/generic/scalar.hpp>

#if !defined(OCELLUS_PORTABLE)
#if defined(__x86_64__) || defined(__aarch64__) || defined(__wasm_simd128__) || defined(__ARM_FEATURE_MVE) || \
    defined(__riscv) || !__has_include(<hwy/highway.h>)
#define OCELLUS_PORTABLE 0
#elif defined(__arm__) && !(defined(__ARM_NEON) && defined(__ARM_FEATURE_FMA) && defined(__ARM_FP16_FORMAT_IEEE))
#define OCELLUS_PORTABLE 0  // Highway wants -mfpu=neon-vfpv4 -mfp16-format=ieee
#endif
#endif

#if !defined(OCELLUS_PORTABLE) || OCELLUS_PORTABLE
#if !defined(HWY_COMPILE_ONLY_STATIC)
#define HWY_COMPILE_ONLY_STATIC
#endif
#include <hwy/highway.h>
#if !defined(OCELLUS_PORTABLE)
#define OCELLUS_PORTABLE (HWY_TARGET != HWY_SCALAR && HWY_TARGET != HWY_EMU128 && !HWY_HAVE_SCALABLE)
#elif HWY_HAVE_SCALABLE
#error "ocellus: OCELLUS_PORTABLE needs vectors of a size known at compile time"
#endif
#endif

#if OCELLUS_PORTABLE
OCELLUS_STRICT_FP_BEGIN
HWY_BEFORE_NAMESPACE();
OCELLUS_BEGIN
namespace kernels {

namespace hn = hwy::HWY_NAMESPACE;

struct portable : scalar {
  static constexpr isa id = isa::portable;

  using d32 = hn::CappedTag<float, 16>;
  using di32 = hn::RebindToSigned<d32>;
  using floats = hn::Vec<d32>;
  using ints = hn::Vec<di32>;
  static constexpr int lanes = static_cast<int>(hn::MaxLanes(d32()));
  static constexpr int vectors = 16 / lanes;  // of sixteen lanes

#include <ocellus/generic/unroll.inl>

#if HWY_TARGET == HWY_EMU128  // its vectors are arrays: no registers to keep, no operators
#define OCELLUS_PORTABLE_RAW 0
#else
#define OCELLUS_PORTABLE_RAW 1
#endif

  /// OCELLUS_KEEP for Highway's wrappers.
  template <class V>
  static OCELLUS_INLINE void keep([[maybe_unused]] V& v) noexcept {
#if OCELLUS_PORTABLE_RAW
    OCELLUS_KEEP(v.raw);
#endif
  }

#if !defined(__arm__)
  struct vec {
    floats v[vectors];

    template <class F>
    static OCELLUS_INLINE vec each(const F& f) noexcept {
      vec r;
      unroll<vectors>([&](int i) OCELLUS_LAMBDA { r.v[i] = f(i); });
      return r;
    }
    static OCELLUS_INLINE vec zero() noexcept { return set(0.f); }
    static OCELLUS_INLINE vec set(float x) noexcept {
      const floats s = hn::Set(d32(), x);
      return each([&](auto) OCELLUS_LAMBDA { return s; });
    }
    static OCELLUS_INLINE vec load(const float* p) noexcept {
      return each([&](int i) OCELLUS_LAMBDA { return hn::LoadU(d32(), p + i * lanes); });
    }
    static OCELLUS_INLINE vec load_n(const float* p, int n) noexcept {
      alignas(64) float t[16] = {};
      for (int i = 0; i < n; i++) t[i] = p[i];
      return load(t);
    }
    OCELLUS_INLINE void store(float* p) const noexcept {
      unroll<vectors>([&](int i) OCELLUS_LAMBDA { hn::StoreU(v[i], d32(), p + i * lanes); });
    }
    OCELLUS_INLINE void store_n(float* p, int n) const noexcept {
      alignas(64) float t[16];
      store(t);
      for (int i = 0; i < n; i++) p[i] = t[i];
    }
    static OCELLUS_INLINE vec select_n(vec a, vec b, int n) noexcept {
      return each([&](int i) OCELLUS_LAMBDA {
        const int left = n - i * lanes, m = left < 0 ? 0 : left > lanes ? lanes : left;
        return hn::IfThenElse(hn::FirstN(d32(), static_cast<std::size_t>(m)), a.v[i], b.v[i]);
      });
    }
    static OCELLUS_INLINE vec first_n(vec a, int n) noexcept { return select_n(a, zero(), n); }

#if OCELLUS_PORTABLE_RAW
    // Rule 8 of isa/target.hpp: operators, which obey the region whatever the flags.
#define OCELLUS_PORTABLE_OPERATOR(op, name)              \
  OCELLUS_INLINE vec operator op(vec b) const noexcept { \
    return each([&](int i) OCELLUS_LAMBDA {             \
      floats r = v[i];                                   \
      r.raw = v[i].raw op b.v[i].raw;                    \
      if constexpr (#op[0] == '*') OCELLUS_ROUNDED(r.raw); \
      return r;                                          \
    });                                                  \
  }
#else
#define OCELLUS_PORTABLE_OPERATOR(op, name)                                                     \
  OCELLUS_INLINE vec operator op(vec b) const noexcept {                                        \
    return each([&](int i) OCELLUS_LAMBDA { return hn::name(v[i], b.v[i]); });                 \
  }
#endif
    OCELLUS_PORTABLE_OPERATOR(+, Add)
    OCELLUS_PORTABLE_OPERATOR(-, Sub)
    OCELLUS_PORTABLE_OPERATOR(*, Mul)
    OCELLUS_PORTABLE_OPERATOR(/, Div)
#undef OCELLUS_PORTABLE_OPERATOR

    static OCELLUS_INLINE vec min(vec a, vec b) noexcept {  // not Min: which of two zeros is told by scalar's a < b
      return each([&](int i) OCELLUS_LAMBDA {
        return hn::IfThenElse(hn::Lt(a.v[i], b.v[i]), a.v[i], b.v[i]);
      });
    }
    static OCELLUS_INLINE vec max(vec a, vec b) noexcept {
      return each([&](int i) OCELLUS_LAMBDA {
        return hn::IfThenElse(hn::Lt(b.v[i], a.v[i]), a.v[i], b.v[i]);
      });
    }
    OCELLUS_INLINE scalar::vec in_memory() const noexcept {
      scalar::vec m;
      store(m.v);
      return m;
    }
    OCELLUS_INLINE float sum() const noexcept { return in_memory().sum(); }
    OCELLUS_INLINE float hmax() const noexcept { return in_memory().hmax(); }
    OCELLUS_INLINE float hmin() const noexcept { return in_memory().hmin(); }
    static OCELLUS_INLINE vec add_exponent(vec p, vec t) noexcept {
      return each([&](int i) OCELLUS_LAMBDA {
        const ints shifted = hn::ShiftLeft<23>(hn::BitCast(di32(), t.v[i]));
        return hn::BitCast(d32(), hn::Add(hn::BitCast(di32(), p.v[i]), shifted));
      });
    }
    /// scalar's round_even, plus `more`, within [low, high], to sixteen bytes.
    template <class Byte>
    OCELLUS_INLINE void to_bytes(Byte* q, std::int32_t more, std::int32_t low, std::int32_t high) const noexcept {
      const vec shifted = *this + set(12582912.f);
      unroll<vectors>([&](int i) OCELLUS_LAMBDA {
        ints r = hn::Sub(hn::BitCast(di32(), shifted.v[i]), hn::Set(di32(), 0x4b400000));
        r = hn::Add(r, hn::Set(di32(), more));
        r = hn::Max(r, hn::Set(di32(), low));
        r = hn::Min(r, hn::Set(di32(), high));
        const hn::Rebind<Byte, d32> bytes;
        hn::StoreU(hn::DemoteTo(bytes, r), bytes, q + i * lanes);
      });
    }
    OCELLUS_INLINE void to_u8(std::uint8_t* q, std::int32_t zero_point) const noexcept {
      to_bytes(q, zero_point, 0, 255);
    }
    OCELLUS_INLINE void to_s8(std::int8_t* q) const noexcept { to_bytes(q, 0, -127, 127); }
    static OCELLUS_INLINE vec dequantize(const std::int32_t* acc, const std::int32_t* sums,
                                         std::int32_t zero_point) noexcept {
      return each([&](int i) OCELLUS_LAMBDA {
        const ints a = hn::LoadU(di32(), acc + i * lanes);
        const ints s = hn::LoadU(di32(), sums + i * lanes);
        return hn::ConvertTo(d32(), hn::Sub(a, hn::Mul(hn::Set(di32(), zero_point), s)));
      });
    }
    static OCELLUS_INLINE void interleave4(std::int8_t* out, const std::int8_t* r0, const std::int8_t* r1,
                                           const std::int8_t* r2, const std::int8_t* r3) noexcept {
      scalar::vec::interleave4(out, r0, r1, r2, r3);
    }
  };
#endif

#if HWY_NATIVE_FMA && !defined(__arm__)
  static constexpr int float_rows = HWY_ARCH_X86 && lanes < 16 ? 6 : 12;

  /// `lanes` columns of depth d of a panel, from `column` on, widened.
  template <class W>
  static OCELLUS_INLINE floats widen(const W* b, int d, int column) noexcept {
    if constexpr (std::is_same_v<W, float>) {
      return hn::LoadU(d32(), b + d * 16 + column);
    } else if constexpr (std::is_same_v<W, bf16> && std::endian::native == std::endian::little) {
      const hn::Repartition<std::uint8_t, d32> bytes;
      const auto* from = reinterpret_cast<const std::uint8_t*>(b + (d / 2) * 32 + column * 2);
      const ints pair = hn::BitCast(di32(), hn::LoadU(bytes, from));
      const ints top = d % 2 == 0 ? hn::ShiftLeft<16>(pair)
                                  : hn::And(pair, hn::Set(di32(), static_cast<std::int32_t>(0xffff0000u)));
      return hn::BitCast(d32(), top);
    } else {
      float wide[lanes];
      for (int i = 0; i < lanes; i++) wide[i] = panel_value(b, d, column + i);
      return hn::LoadU(d32(), wide);
    }
  }

  template <int MR, int P, class W>
  static OCELLUS_NOINLINE void tile_float(const float* a, std::ptrdiff_t lda, const W* b,
                                          std::size_t panel_stride, int k, float* out,
                                          std::ptrdiff_t ldo) noexcept {
    constexpr int all = P * vectors, wide = all < 2 ? 1 : 2;
    for (int at = 0; at < all; at += wide) {
      floats acc[MR][wide];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<wide>([&](int j) OCELLUS_LAMBDA { acc[r][j] = hn::Zero(d32()); });
      });
      for (int d = 0; d < k; d++) {
        floats w[wide];
        unroll<wide>([&](int j) OCELLUS_LAMBDA {
          const int p = (at + j) / vectors;
          w[j] = widen(b + static_cast<std::size_t>(p) * panel_stride, d, (at + j) % vectors * lanes);
        });
        unroll<MR>([&](int r) OCELLUS_LAMBDA {
          const floats x = hn::Set(d32(), a[r * lda + d]);
          unroll<wide>([&](int j) OCELLUS_LAMBDA {
            acc[r][j] = hn::MulAdd(x, w[j], acc[r][j]);
            keep(acc[r][j]);
          });
        });
      }
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<wide>([&](int j) OCELLUS_LAMBDA {
          hn::StoreU(acc[r][j], d32(), out + r * ldo + (at + j) * lanes);
        });
      });
    }
  }
#endif

#if HWY_TARGET != HWY_SCALAR
  // 32-bit Arm and POWER keep the two halves of a sum apart until the end: twice the accumulators.
  static constexpr int s8_rows = HWY_ARCH_X86 ? 4 : HWY_ARCH_ARM ? 2 : 4;

  template <int MR, int P>
  static OCELLUS_NOINLINE void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b,
                                       std::size_t panel_stride, int k, std::int32_t* out, std::ptrdiff_t ldo,
                                       const prefetch_run&) noexcept {
    using d16 = hn::Repartition<std::int16_t, di32>;
    using du16 = hn::Repartition<std::uint16_t, di32>;
    using d8 = hn::Repartition<std::int8_t, di32>;
    constexpr int all = P * vectors, wide = all < 2 ? 1 : 2;
    const auto low = hn::Set(d16(), 0x00ff);
    for (int at = 0; at < all; at += wide) {
      ints acc[MR][wide], more[MR][wide];
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<wide>([&](int j) OCELLUS_LAMBDA { acc[r][j] = more[r][j] = hn::Zero(di32()); });
      });
      for (int d = 0; d < k; d += 4)
        unroll<wide>([&](int j) OCELLUS_LAMBDA {
          // of each group of four bytes two, then the other two, as s16: products are added in pairs, in s32
          const int p = (at + j) / vectors, column = (at + j) % vectors * lanes;
          const std::int8_t* from = b + static_cast<std::size_t>(p) * panel_stride + d * 16 + column * 4;
          const auto w = hn::BitCast(d16(), hn::LoadU(d8(), from));
          const auto w_even = hn::ShiftRight<8>(hn::ShiftLeft<8>(w));
          const auto w_odd = hn::ShiftRight<8>(w);
          unroll<MR>([&](int r) OCELLUS_LAMBDA {
            std::int32_t four;
            std::memcpy(&four, a + r * lda + d, 4);
            const auto x = hn::BitCast(d16(), hn::Set(di32(), four));
            const auto even = hn::And(x, low);
            const auto odd = hn::BitCast(d16(), hn::ShiftRight<8>(hn::BitCast(du16(), x)));
            acc[r][j] = hn::ReorderWidenMulAccumulate(di32(), even, w_even, acc[r][j], more[r][j]);
            keep(acc[r][j]);
            acc[r][j] = hn::ReorderWidenMulAccumulate(di32(), odd, w_odd, acc[r][j], more[r][j]);
            keep(acc[r][j]);
          });
        });
      unroll<MR>([&](int r) OCELLUS_LAMBDA {
        unroll<wide>([&](int j) OCELLUS_LAMBDA {
          hn::StoreU(hn::RearrangeToOddPlusEven(acc[r][j], more[r][j]), di32(), out + r * ldo + (at + j) * lanes);
        });
      });
    }
  }
#endif

#include <ocellus/generic/rowwise.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};
#undef OCELLUS_PORTABLE_RAW

}  // namespace kernels
OCELLUS_END
HWY_AFTER_NAMESPACE();
OCELLUS_STRICT_FP_END
#endif
