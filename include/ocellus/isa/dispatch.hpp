// Which kernels run: a table of about two dozen coarse operations, filled from the best kernel set of this CPU
// (`best_kernels`) or from a named one (`kernels_for`), and the two policies that towers are written against:
//
//   ocellus::dynamic d{ocellus::best_kernels()};   // one program for every CPU: an indirect call per operation
//   ocellus::pinned<ocellus::kernels::avx2> p;     // the whole unit is for one ISA: direct calls, unused ops vanish
//
// Both have the same call syntax, so one tower serves both. One indirect call every few microseconds costs nothing.
// Operations compute in the floating-point state that they find; towers set it. Who calls one by itself in a program
// that flushes denormals or rounds another way puts an fp_env (core/fp_env.hpp) before it for the same bits everywhere.
//
// Every unit that calls these compiles all kernels. A project of many units defines OCELLUS_DECLARE_ONLY in them, and
// OCELLUS_DEFINE_KERNELS in one that includes this header and nothing else of its own, with the same flags; CMake's
// target ocellus::compiled does both.
#pragma once

#include <ocellus/isa/detect.hpp>
#include <ocellus/isa/policy.hpp>
#include <ocellus/generic/resample.hpp>
#include <ocellus/generic/scalar.hpp>
#include <ocellus/portable/highway.hpp>
#if defined(__x86_64__)
#include <ocellus/x86/amx.hpp>
#include <ocellus/x86/avx2.hpp>
#include <ocellus/x86/avx512.hpp>
#include <ocellus/x86/avx512vnni.hpp>
#include <ocellus/x86/avx512bf16.hpp>
#include <ocellus/x86/avx512fp16.hpp>
#include <ocellus/x86/avxvnni.hpp>
#include <ocellus/x86/resample.hpp>
#include <ocellus/x86/sse41.hpp>
#elif defined(__aarch64__)
#include <ocellus/arm/i8mm.hpp>
#include <ocellus/arm/resample.hpp>
#include <ocellus/arm/sve.hpp>
#elif defined(__arm__)
#include <ocellus/arm/armv7.hpp>
#elif defined(__riscv)
#include <ocellus/riscv/rvv.hpp>
#elif defined(__wasm_simd128__)
#include <ocellus/wasm/relaxed.hpp>
#include <ocellus/wasm/resample.hpp>
#endif

#include <ocellus/core/status.hpp>

#include <string_view>
#include <type_traits>

OCELLUS_BEGIN

/// The operations that towers call. Contracts: ops/gemm.hpp, ops/attention.hpp, ops/rowwise.hpp, ops/similarity.hpp
/// (dot_rows); of those without a struct of arguments, generic/rowwise.inl.
struct kernel_table {
  isa id = isa::scalar;
  void (*gemm_f32)(const gemm_args&) noexcept = nullptr;
  void (*gemm_f16)(const gemm_args&) noexcept = nullptr;
  void (*gemm_bf16)(const gemm_args&) noexcept = nullptr;
  void (*gemm_s8)(const gemm_args&) noexcept = nullptr;
  void (*attention_f32)(const attention_args&) noexcept = nullptr;
  void (*attention_bf16)(const attention_args&) noexcept = nullptr;
  void (*attention_s8)(const attention_args&) noexcept = nullptr;
  void (*layer_norm)(const layer_norm_args&) noexcept = nullptr;
  void (*layer_norm_u8)(const layer_norm_args&) noexcept = nullptr;
  void (*quantize_u8)(const quantize_args&) noexcept = nullptr;
  void (*quantize_pieces_u8)(const quantize_pieces_args&) noexcept = nullptr;
  /// (out, ldo, a, lda, rows, K) for gemm_args::a_bf16: rows with room for K rounded up to 32, zeros there if the set
  /// reads them; null where gemm_bf16 takes activations as they are
  void (*round_bf16)(std::uint16_t*, std::ptrdiff_t, const float*, std::ptrdiff_t, int, int) noexcept = nullptr;
  /// The same for gemm_f16, each value in two parts: rows with room for twice K rounded up to 32; null where gemm_f16
  /// takes activations as they are
  void (*split_bf16)(std::uint16_t*, std::ptrdiff_t, const float*, std::ptrdiff_t, int, int) noexcept = nullptr;
  void (*arrange_u8)(const arrange_args&) noexcept = nullptr;  ///< null where quad_rows is 0
  int quad_rows = 0;  ///< products of so many rows or more read a_arranged; 0: none do
  void (*activate_rows)(float*, std::ptrdiff_t, const float*, std::ptrdiff_t, int, int,
                        activation) noexcept = nullptr;
  void (*gate_rows)(float*, std::ptrdiff_t, const float*, std::ptrdiff_t, int, int,
                    activation) noexcept = nullptr;
  void (*rotate_rows)(float*, std::ptrdiff_t, const float*, int, int, int) noexcept = nullptr;
  void (*winograd_input)(const float* const*, float*, std::ptrdiff_t, int) noexcept = nullptr;
  void (*winograd_output)(const float*, std::ptrdiff_t, const float*, float* const*, int) noexcept = nullptr;
  void (*depthwise_rows)(const depthwise_args&) noexcept = nullptr;
  void (*l2_normalize)(float*, const float*, int) noexcept = nullptr;
  void (*dot_rows_f32)(const dot_rows_args&) noexcept = nullptr;
  void (*dot_rows_f16)(const dot_rows_args&) noexcept = nullptr;
  void (*dot_rows_s8)(const dot_rows_args&) noexcept = nullptr;
  resample_kernels resample;  ///< the two passes of a picture's resize (ops/resample.hpp)
  int batch_rows = 0;         ///< the most rows of a batch that run through a tower together
  bool nta_fills_l2 = false;  ///< of gemm_args

  /// The same kernels, told what is known of this CPU.
  constexpr kernel_table for_cpu(const cpu_features& cpu) const noexcept {
    kernel_table t = *this;
    t.nta_fills_l2 = cpu.nta_fills_l2;
    return t;
  }
};

/// The resize passes that go with a kernel set: those of the widest ISA that it builds on.
template <class Set>
constexpr resample_kernels resample_for() noexcept {
#if defined(__x86_64__)
  if constexpr (std::is_base_of_v<kernels::avx512, Set>) {
    return resample_kernels_of<kernels::resample_avx512>();
  } else if constexpr (std::is_base_of_v<kernels::avx2, Set>) {
    return resample_kernels_of<kernels::resample_avx2>();
  } else if constexpr (Set::id == isa::sse41) {
    return resample_kernels_of<kernels::resample_sse41>();
  } else
#elif defined(__aarch64__)
  if constexpr (Set::id != isa::scalar) {
    return resample_kernels_of<kernels::resample_neon>();
  } else
#elif defined(__wasm_simd128__)
  if constexpr (Set::id != isa::scalar) {
    return resample_kernels_of<kernels::resample_simd128>();
  } else
#endif
  {
    return resample_kernels_of<kernels::resample_scalar>();
  }
}

#if defined(OCELLUS_DECLARE_ONLY)

template <class Set>
kernel_table make_table() noexcept;
kernel_table best_kernels(const cpu_features& cpu = detect_cpu()) noexcept;
result<kernel_table> kernels_for(std::string_view name, const cpu_features& cpu = detect_cpu()) noexcept;

#else
#if defined(OCELLUS_DEFINE_KERNELS)
#define OCELLUS_DISPATCH_INLINE
#else
#define OCELLUS_DISPATCH_INLINE inline
#endif

namespace detail {
/// Whether two functions are the same one. As template arguments, since gcc does not fold comparisons of addresses
/// under -fsanitize=undefined and -fno-delete-null-pointer-checks.
template <auto F>
struct name_of_function {};
template <auto F, auto G>
inline constexpr bool same_function = std::is_same_v<name_of_function<F>, name_of_function<G>>;
}  // namespace detail

/// The table of one set.
template <class Set>
constexpr kernel_table make_table() noexcept {
  return {Set::id,
          &Set::gemm_f32,
          &Set::gemm_f16,
          &Set::gemm_bf16,
          &Set::gemm_s8,
          &Set::attention_f32,
          &Set::attention_bf16,
          &Set::attention_s8,
          &Set::layer_norm,
          &Set::layer_norm_u8,
          &Set::quantize_u8,
          &Set::quantize_pieces_u8,
          detail::same_function<&Set::round_bf16, &kernels::scalar::round_bf16> ? nullptr : &Set::round_bf16,
          detail::same_function<&Set::split_bf16, &kernels::scalar::split_bf16> ? nullptr : &Set::split_bf16,
          Set::quad_rows > 0 ? &Set::arrange_u8 : nullptr,
          Set::quad_rows,
          &Set::activate_rows,
          &Set::gate_rows,
          &Set::rotate_rows,
          &Set::winograd_input,
          &Set::winograd_output,
          &Set::depthwise_rows,
          &Set::l2_normalize,
          &Set::dot_rows_f32,
          &Set::dot_rows_f16,
          &Set::dot_rows_s8,
          resample_for<Set>(),
          Set::batch_rows};
}

/// The table of the best kernel set that this CPU can run.
OCELLUS_DISPATCH_INLINE kernel_table best_kernels([[maybe_unused]] const cpu_features& cpu = detect_cpu()) noexcept {
#define OCELLUS_KERNEL_SET(name, available) \
  if (available) return make_table<kernels::name>().for_cpu(cpu);
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
}

/// The table of a named set (`--isa NAME`); unsupported_isa if this build or this CPU does not have it.
OCELLUS_DISPATCH_INLINE result<kernel_table> kernels_for(
    std::string_view name, [[maybe_unused]] const cpu_features& cpu = detect_cpu()) noexcept {
#define OCELLUS_KERNEL_SET(set, available) \
  if (name == #set) \
    return (available) ? result<kernel_table>(make_table<kernels::set>().for_cpu(cpu)) : status::unsupported_isa;
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
  return status::unsupported_isa;
}

#if defined(OCELLUS_DEFINE_KERNELS)
#define OCELLUS_KERNEL_SET(set, available) template kernel_table make_table<kernels::set>() noexcept;
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
#endif
#undef OCELLUS_DISPATCH_INLINE
#endif

/// Kernels chosen at run time.
struct dynamic : kernel_table {
  dynamic() noexcept : kernel_table(best_kernels()) {}
  explicit dynamic(const kernel_table& t) noexcept : kernel_table(t) {}
};

OCELLUS_END
