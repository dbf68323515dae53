// Panel layouts: how weight matrices lie in the packed file and in memory, so that kernels read them as they are.
//
// panel<NR, KG> of a matrix W[N, K] (row n = output column n): columns are grouped by NR, depth by KG; a panel holds
// for each group of KG consecutive k the NR columns, KG values each:
//   index(n, k) = (n / NR) * NR * Kp + (k / KG) * NR * KG + (n % NR) * KG + k % KG,   Kp = K rounded up to k_pad.
// int8: panel<16, 4>, one 64-byte row: a VNNI zmm, two ymm, four NEON dotprod registers.
// f32 and f16: panel<16, 1>; bf16: panel<16, 2>, the operand of vdpbf16ps, and cheap to widen.
// Missing columns and depths are zero.
#pragma once

#include <ocellus/core/float16.hpp>

#include <cstddef>
#include <cstdint>

OCELLUS_BEGIN

/// Data types of stored tensors.
enum class dtype : std::uint8_t { f32 = 0, f16 = 1, bf16 = 2, s8 = 3, u8 = 4, s32 = 5 };

constexpr std::size_t size_of(dtype t) noexcept {
  return t == dtype::f32 || t == dtype::s32 ? 4 : t == dtype::f16 || t == dtype::bf16 ? 2 : 1;
}
constexpr const char* to_string(dtype t) noexcept {
  constexpr const char* names[] = {"f32", "f16", "bf16", "s8", "u8", "s32"};
  return names[static_cast<int>(t)];
}

/// Columns of a panel, on every instruction set.
inline constexpr int panel_width = 16;

constexpr int ceil_div(int a, int b) noexcept { return (a + b - 1) / b; }
constexpr int round_up(int a, int b) noexcept { return ceil_div(a, b) * b; }

/// Depth of one group (KG) and the multiple that K is padded to.
constexpr int panel_group(dtype t) noexcept { return t == dtype::s8 ? 4 : t == dtype::bf16 ? 2 : 1; }
constexpr int panel_k_pad(dtype t) noexcept { return t == dtype::s8 ? 8 : t == dtype::bf16 ? 2 : 1; }
constexpr int padded_depth(dtype t, int k) noexcept { return round_up(k, panel_k_pad(t)); }

/// Elements of one panel of a matrix with K = k.
constexpr std::size_t panel_elements(dtype t, int k) noexcept {
  return static_cast<std::size_t>(padded_depth(t, k)) * panel_width;
}
/// Elements of a packed matrix W[n, k].
constexpr std::size_t packed_elements(dtype t, int n, int k) noexcept {
  return panel_elements(t, k) * static_cast<std::size_t>(ceil_div(n, panel_width));
}
/// Where element (n, k) lies in a packed matrix.
constexpr std::size_t packed_index(dtype t, int n, int k, int depth) noexcept {
  const int kg = panel_group(t);
  return static_cast<std::size_t>(n / panel_width) * panel_elements(t, depth) +
         static_cast<std::size_t>(k / kg) * static_cast<std::size_t>(panel_width * kg) +
         static_cast<std::size_t>((n % panel_width) * kg + k % kg);
}

/// Packs W[n, k] (row-major, leading dimension ldw) into `out` of packed_elements(t, n, k), converting each element.
template <dtype T, class Out, class In, class Convert>
constexpr void pack_panels(Out* out, const In* w, std::ptrdiff_t ldw, int n, int k, Convert convert) {
  const std::size_t total = packed_elements(T, n, k);
  for (std::size_t i = 0; i < total; i++) out[i] = Out{};
  for (int c = 0; c < n; c++)
    for (int d = 0; d < k; d++) out[packed_index(T, c, d, k)] = convert(w[c * ldw + d]);
}

OCELLUS_END
