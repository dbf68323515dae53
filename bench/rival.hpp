// Operations as bench_kernels calls them, ours and the rivals': plain pointers, since a rival's file is compiled with
// other flags and its ocellus types lie in another inline namespace (same members).
#pragma once

#include <ocellus/generic/scalar.hpp>
#include <ocellus/ops/attention.hpp>
#include <ocellus/ops/gemm.hpp>
#include <ocellus/ops/rowwise.hpp>
#include <ocellus/ops/similarity.hpp>

struct bench_table {
  void (*gemm[4])(const void* gemm_args);  // f32, f16, bf16, s8
  /// Null where gemm_f16 takes activations as they are.
  void (*split_bf16)(std::uint16_t* out, std::ptrdiff_t ldo, const float* a, std::ptrdiff_t lda, int rows, int c);
  void (*arrange_u8)(const void* arrange_args);
  int quad_rows;
  void (*attention[3])(const void* attention_args);  // f32, bf16, s8
  void (*layer_norm)(const void* layer_norm_args);
  void (*layer_norm_u8)(const void* layer_norm_args);
  void (*quantize_u8)(const void* quantize_args);
  void (*activate)(float* y, const float* x, int rows, int c, int activation);
  /// y[r, 0..c) = activation(x[r, 0..c)) * x[r, c..2c)
  void (*gate)(float* y, const float* x, int rows, int c, int activation);
  void (*rotate)(float* x, std::ptrdiff_t ldx, const float* table, int rows, int heads, int d);
  void (*l2_normalize)(float* y, const float* x, int c);
  /// One row of f32 attention: s[j] = exp((s[j] - max s) * scale), zero from n to n_padded; returns the sum.
  float (*softmax_row)(float* s, int n, int n_padded, float scale);
  void (*softmax_u8)(const void* softmax_rows);    // s8 attention's (generic/attention.inl)
  void (*dot_rows[3])(const void* dot_rows_args);  // f32, f16, s8
};

struct highway_rival {
  const char* name;
  bench_table table;  ///< the portable kernel set
  /// quick_gelu by exp, gelu_tanh by tanh, gelu by erf (xsimd alone has that)
  void (*highway_activate)(float* y, const float* x, int rows, int c, int activation);
  void (*xsimd_activate)(float* y, const float* x, int rows, int c, int activation);
  float (*highway_softmax_row)(float* s, int n, int n_padded, float scale);
  float (*xsimd_softmax_row)(float* s, int n, int n_padded, float scale);
  float (*eigen_softmax_row)(float* s, int n, int n_padded, float scale);
  void (*highway_dot_rows)(const void* dot_rows_args);
  /// c[m, n] = a[m, k] * w[n, k]^T
  void (*eigen_gemm)(float* c, const float* a, const float* w, int m, int n, int k);
};

highway_rival rival_sse41();
highway_rival rival_avx2();
highway_rival rival_avx512();

namespace {

template <auto Function, class Args>
void call(const void* args) {
  Function(*static_cast<const Args*>(args));
}

template <class Set>
bench_table bench_table_of() {
  using namespace ocellus;
  return {{&call<&Set::gemm_f32, gemm_args>, &call<&Set::gemm_f16, gemm_args>,
           &call<&Set::gemm_bf16, gemm_args>, &call<&Set::gemm_s8, gemm_args>},
          &Set::split_bf16 == &kernels::scalar::split_bf16 ? nullptr : &Set::split_bf16,
          &call<&Set::arrange_u8, arrange_args>,
          Set::quad_rows,
          {&call<&Set::attention_f32, attention_args>, &call<&Set::attention_bf16, attention_args>,
           &call<&Set::attention_s8, attention_args>},
          &call<&Set::layer_norm, layer_norm_args>,
          &call<&Set::layer_norm_u8, layer_norm_args>,
          &call<&Set::quantize_u8, quantize_args>,
          [](float* y, const float* x, int rows, int c, int act) {
            Set::activate_rows(y, c, x, c, rows, c, static_cast<activation>(act));
          },
          [](float* y, const float* x, int rows, int c, int act) {
            Set::gate_rows(y, c, x, 2 * c, rows, c, static_cast<activation>(act));
          },
          &Set::rotate_rows,
          &Set::l2_normalize,
          &Set::softmax_row,
          &call<&Set::quantize_softmax, typename Set::softmax_rows>,
          {&call<&Set::dot_rows_f32, dot_rows_args>, &call<&Set::dot_rows_f16, dot_rows_args>,
           &call<&Set::dot_rows_s8, dot_rows_args>}};
}

}  // namespace
