// The rivals of bench_kernels for one instruction set: compiled once for each, with its flags and RIVAL its name.
// Eigen's and xsimd's templates would be merged by the linker with those of other flags: each gets a namespace of its own.
#define PASTE_(a, b) a##b
#define PASTE(a, b) PASTE_(a, b)
#define Eigen PASTE(Eigen_, RIVAL)
#define xsimd PASTE(xsimd_, RIVAL)
#define OCELLUS_PORTABLE 1
#include "rival.hpp"

#include <ocellus/portable/highway.hpp>

#include <hwy/contrib/dot/dot-inl.h>
#include <hwy/contrib/math/math-inl.h>

#include <Eigen/Core>
#include <xsimd/xsimd.hpp>

#include <algorithm>
#include <cmath>

HWY_BEFORE_NAMESPACE();
namespace {

namespace hn = hwy::HWY_NAMESPACE;
using ocellus::activation;

// Rows are contiguous and a multiple of sixteen long.
void highway_activate(float* y, const float* x, int rows, int c, int act) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto set = [&](float v) { return hn::Set(d, v); };
  for (int i = 0; i < rows * c; i += lanes) {
    const auto v = hn::LoadU(d, x + i);
    if (static_cast<activation>(act) == activation::quick_gelu) {
      const auto e = hn::Exp(d, hn::Mul(v, set(-1.702f)));
      hn::StoreU(hn::Div(v, hn::Add(set(1.f), e)), d, y + i);
    } else {
      const auto u = hn::Mul(hn::MulAdd(hn::Mul(hn::Mul(v, v), v), set(0.044715f), v), set(0.797884561f));
      hn::StoreU(hn::Mul(hn::Mul(v, set(0.5f)), hn::Add(set(1.f), hn::Tanh(d, u))), d, y + i);
    }
  }
}

void xsimd_activate(float* y, const float* x, int rows, int c, int act) {
  using batch = xsimd::batch<float>;
  for (int i = 0; i < rows * c; i += static_cast<int>(batch::size)) {
    const batch v = batch::load_unaligned(x + i);
    batch r;
    if (static_cast<activation>(act) == activation::quick_gelu) {
      r = v / (1.f + xsimd::exp(v * -1.702f));
    } else if (static_cast<activation>(act) == activation::gelu) {
      r = v * 0.5f * (1.f + xsimd::erf(v * 0.707106781f));
    } else {
      r = v * 0.5f * (1.f + xsimd::tanh((v + 0.044715f * v * v * v) * 0.797884561f));
    }
    r.store_unaligned(y + i);
  }
}

// Rows are padded to sixteen: scores beyond their end are readable and count as -infinity.
float highway_softmax_row(float* s, int n, int n_padded, float scale) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto scores = [&](int j) {
    const auto v = hn::LoadU(d, s + j);
    if (j + lanes <= n) return v;
    return hn::IfThenElse(hn::FirstN(d, static_cast<std::size_t>(std::max(n - j, 0))), v,
                          hn::Set(d, -HUGE_VALF));
  };
  auto most = scores(0);
  for (int j = lanes; j < n; j += lanes) most = hn::Max(most, scores(j));
  most = hn::MaxOfLanes(d, most);
  auto sum = hn::Zero(d);
  int j = 0;
  for (; j < n; j += lanes) {
    const auto e = hn::Exp(d, hn::Mul(hn::Sub(scores(j), most), hn::Set(d, scale)));
    sum = hn::Add(sum, e);
    hn::StoreU(e, d, s + j);
  }
  for (; j < n_padded; j += lanes) hn::StoreU(hn::Zero(d), d, s + j);
  return hn::GetLane(hn::SumOfLanes(d, sum));
}

float xsimd_softmax_row(float* s, int n, int n_padded, float scale) {
  using batch = xsimd::batch<float>;
  constexpr int lanes = static_cast<int>(batch::size);
  float each[lanes];  // xsimd 8.1 has neither lane numbers nor a reduction by max
  for (int i = 0; i < lanes; i++) each[i] = static_cast<float>(i);
  const batch lane = batch::load_unaligned(each);
  const auto scores = [&](int j) {
    const batch v = batch::load_unaligned(s + j);
    return j + lanes <= n ? v : xsimd::select(lane < batch(static_cast<float>(n - j)), v, batch(-HUGE_VALF));
  };
  batch most = scores(0);
  for (int j = lanes; j < n; j += lanes) most = xsimd::max(most, scores(j));
  most.store_unaligned(each);
  most = batch(*std::max_element(each, each + lanes));
  batch sum(0.f);
  int j = 0;
  for (; j < n; j += lanes) {
    const batch e = xsimd::exp((scores(j) - most) * scale);
    sum += e;
    e.store_unaligned(s + j);
  }
  for (; j < n_padded; j += lanes) batch(0.f).store_unaligned(s + j);
  return xsimd::hadd(sum);
}

void highway_dot_rows(const void* args) {
  const auto& a = *static_cast<const ocellus::dot_rows_args*>(args);
  const hn::ScalableTag<float> d;
  const float* rows = static_cast<const float*>(a.rows);
  for (int i = 0; i < a.n; i++)
    a.scores[i] = hn::Dot::Compute<hn::Dot::kAtLeastOneVector>(d, a.query, rows + i * a.ld, static_cast<std::size_t>(a.c));
}

}  // namespace
HWY_AFTER_NAMESPACE();

namespace {

void eigen_gemm(float* c, const float* a, const float* w, int m, int n, int k) {
  using matrix = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Eigen::Map<matrix>(c, m, n).noalias() =
      Eigen::Map<const matrix>(a, m, k) * Eigen::Map<const matrix>(w, n, k).transpose();
}

float eigen_softmax_row(float* s, int n, int n_padded, float scale) {
  Eigen::Map<Eigen::ArrayXf> row(s, n);
  row = ((row - row.maxCoeff()) * scale).exp();
  Eigen::Map<Eigen::ArrayXf>(s + n, n_padded - n).setZero();
  return row.sum();
}

}  // namespace

highway_rival PASTE(rival_, RIVAL)() {
#define TEXT_(x) #x
#define TEXT(x) TEXT_(x)
  return {TEXT(RIVAL),          bench_table_of<ocellus::kernels::portable>(),
          &highway_activate,    &xsimd_activate,
          &highway_softmax_row, &xsimd_softmax_row,
          &eigen_softmax_row,   &highway_dot_rows,
          &eigen_gemm};
}
