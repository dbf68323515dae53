// AVX512-FP16: Sapphire Rapids and later. Everything but gemm_f16 comes from avx512vnni; gemm_bf16 stays
// there too, for vdpbf16ps is slow on these machines.
//
// | intrinsic             | instruction   | use                                                       |
// |-----------------------|---------------|-----------------------------------------------------------|
// | _mm512_fmadd_ph       | vfmadd231ph   | f16 tile, 32 lanes: twice the rate of f32                 |
// | _mm512_cvtps_ph       | vcvtps2ph     | activations, rounded once per block of depth              |
// | _mm512_cvtph_ps       | vcvtph2ps     | partial sums to f32, each 64 products                     |
//
// Outside law 2, for it rounds activations and partial sums to fp16; pixels, whose like signs make long partial sums,
// take the exact way (gemm_args::exact). Overflow: a partial sum of 64 products must stay below 65504, which it does
// by three orders of magnitude for activations after LayerNorm and weights below 1; a ResNet's maps and transformed
// weights (nn/resnet.hpp) are up to nine times larger together than the maps and weights they are made of.
// Registers: tile 12 x 64: 24 accumulators + 2 of W + 1 broadcast = 27 of 32. Blocking: A is rounded into 48 KiB of
// stack, 64 rows x 192 deep, and C holds the partial sums. Emerald Rapids (bench/results/kernels-emr.json): 66 to 77 %
// of the peak, 1.7 to 1.85 times avx512's. Its indexing is tested over an emulation as well.
// gcc >= 12, clang >= 16.
#pragma once

#include <ocellus/x86/avx512vnni.hpp>

#if OCELLUS_HAS_AVX512FP16
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx512fp16,avx2,fma,f16c,bmi2")
OCELLUS_BEGIN
namespace kernels {

struct avx512fp16 : avx512vnni {
  static constexpr isa id = isa::avx512fp16;
  static constexpr bool exact_f16 = false;

  /// Thirty-two fp16 lanes.
  struct half32 {
    __m512h v;

    static OCELLUS_INLINE half32 zero() noexcept { return {_mm512_setzero_ph()}; }
    static OCELLUS_INLINE half32 join(const f16* a, const f16* b) noexcept {
      const __m512i first = _mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a)));
      return {_mm512_castsi512_ph(
          _mm512_inserti64x4(first, _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)), 1))};
    }
    static OCELLUS_INLINE half32 repeat(std::uint32_t twice) noexcept {
      return {_mm512_castsi512_ph(_mm512_set1_epi32(static_cast<std::int32_t>(twice)))};
    }
    static OCELLUS_INLINE half32 fma(half32 a, half32 b, half32 c) noexcept {
      return {_mm512_fmadd_ph(a.v, b.v, c.v)};
    }
    OCELLUS_INLINE void add_to(float* first, float* second) const noexcept {
      const __m512i bits = _mm512_castph_si512(v);
      _mm512_storeu_ps(first, _mm512_loadu_ps(first) + _mm512_cvtph_ps(_mm512_castsi512_si256(bits)));
      _mm512_storeu_ps(second, _mm512_loadu_ps(second) + _mm512_cvtph_ps(_mm512_extracti64x4_epi64(bits, 1)));
    }
  };

#include <ocellus/generic/unroll.inl>
#include <ocellus/x86/gemm_fp16.inl>
  static void gemm_exact(const gemm_args& g) noexcept { avx512vnni::gemm_f16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_f16(const gemm_args& g) noexcept { gemm_rounded(g); }
};

}  // namespace kernels
OCELLUS_END
OCELLUS_TARGET_END
#endif
