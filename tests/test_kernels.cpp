// The oracle chain's first link: the scalar set against formulas in double by Eigen. Bounds come from the data: a chain
// of K fused multiply-adds errs by at most K u sum |a b| [Higham 2002, section 3.1], u = 2^-24. The second link, from
// scalar to each set, is bit equality: test_law2_kernels.cpp.
#include "kernel_testing.hpp"

#include <ocellus/core/fp_env.hpp>

#include <doctest/doctest.h>

#include <Eigen/Core>

#include <cmath>
#include <limits>

#if defined(__linux__)
#include <pthread.h>
#endif

using namespace kernel_testing;
using Eigen::MatrixXd;

namespace {

constexpr double u = 0x1p-24;

template <class T>
MatrixXd matrix(const T* p, int rows, int cols, std::ptrdiff_t ld) {
  MatrixXd m(rows, cols);
  for (int i = 0; i < rows; i++)
    for (int j = 0; j < cols; j++) m(i, j) = static_cast<double>(p[i * ld + j]);
  return m;
}

/// The worst |got - expected| / bound, which must not exceed 1; and the bound must say something.
void check_bound(const char* what, const MatrixXd& got, const MatrixXd& expected, const MatrixXd& bound) {
  Eigen::Index row = 0, column = 0;
  const double worst = ((got - expected).array().abs() / (bound.array() + 1e-300)).maxCoeff(&row, &column);
  INFO(what << ": row " << row << " column " << column << " is " << got(row, column) << ", expected "
            << expected(row, column) << " within " << bound(row, column));
  CHECK(worst <= 1);
  CHECK(bound.mean() < 0.1 * expected.array().abs().maxCoeff());
}

/// A product by the scalar set, with a bias and a residual.
struct scalar_product {
  static constexpr int m = 9, n = 35;
  weights w;
  inputs x;
  std::vector<float> c = std::vector<float>(m * n), residual = c;

  scalar_product(dtype type, int k, rng& random) : w(type, n, k, random), x(m, k, random) {
    fill_normal(residual, random);
    gemm_args g = make_gemm(x, w);
    g.c = c.data();
    g.ldc = g.ldr = n;
    g.residual = residual.data();
    run_gemm(make_table<kernels::scalar>(), type, g);
  }
};

double gelu(double x) { return 0.5 * x * (1 + std::erf(x / std::sqrt(2.0))); }
double sigmoid(double x) { return 1 / (1 + std::exp(-x)); }
double activate(double x, activation act) {
  switch (act) {
    case activation::none: return x;
    case activation::quick_gelu: return x * sigmoid(1.702 * x);
    case activation::gelu: return gelu(x);
    case activation::gelu_tanh:
      return 0.5 * x * (1 + std::tanh(std::sqrt(2 / std::acos(-1.0)) * (x + 0.044715 * x * x * x)));
    case activation::silu: return x * sigmoid(x);
    case activation::relu: return x > 0 ? x : 0;
  }
  return x;
}

}  // namespace

TEST_CASE(
    "gemm of the scalar set is the matrix product, within the bound of a chain of K fused multiply-adds") {
  const fp_env strict;
  rng random(11);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16})
    for (const int k : {1, 5, 64, 75, 768}) {
      scalar_product of(type, k, random);
      auto& [w, x, c, residual] = of;
      constexpr int m = scalar_product::m, n = scalar_product::n;
      const MatrixXd a = matrix(x.a.data(), m, k, x.ld), b = matrix(w.w.data(), n, k, k),
                     r = matrix(residual.data(), m, n, n);
      const MatrixXd bias = matrix(w.bias.data(), 1, n, n).replicate(m, 1);
      const MatrixXd product = a * b.transpose(), size = a.cwiseAbs() * b.cwiseAbs().transpose();
      const MatrixXd bound =
          (k * u * size + 2.01 * u * (product.cwiseAbs() + bias.cwiseAbs() + r.cwiseAbs())) * 1.001;
      check_bound(to_string(type), matrix(c.data(), m, n, n), product + bias + r, bound);
    }
}

#if OCELLUS_HAS_AVX512FP16
// fp16 arithmetic in f32 registers, rounded after each operation: the tile of avx512fp16 on CPUs without it. The sum of
// a product and an addend is exact in double, so rounding it to f32 and then to fp16 may differ in a last bit.
OCELLUS_TARGET_BEGIN("avx512f,avx512bw,avx512dq,avx512vl,avx512vnni,avx2,fma,f16c,bmi2")
namespace {
struct fp16_emulated : kernels::avx512vnni {
  struct half32 {
    __m512i v;
    static OCELLUS_INLINE __m512 lanes(__m512i v, int i) noexcept {
      return _mm512_cvtph_ps(i == 0 ? _mm512_castsi512_si256(v) : _mm512_extracti64x4_epi64(v, 1));
    }
    static OCELLUS_INLINE half32 both(__m512 a, __m512 b) noexcept {
      return {_mm512_inserti64x4(_mm512_castsi256_si512(_mm512_cvtps_ph(a, _MM_FROUND_TO_NEAREST_INT)),
                                 _mm512_cvtps_ph(b, _MM_FROUND_TO_NEAREST_INT), 1)};
    }
    static OCELLUS_INLINE half32 zero() noexcept { return {_mm512_setzero_si512()}; }
    static OCELLUS_INLINE half32 join(const f16* a, const f16* b) noexcept {
      return {
          _mm512_inserti64x4(_mm512_castsi256_si512(_mm256_loadu_si256(reinterpret_cast<const __m256i*>(a))),
                             _mm256_loadu_si256(reinterpret_cast<const __m256i*>(b)), 1)};
    }
    static OCELLUS_INLINE half32 repeat(std::uint32_t twice) noexcept {
      return {_mm512_set1_epi32(static_cast<std::int32_t>(twice))};
    }
    static OCELLUS_INLINE half32 fma(half32 a, half32 b, half32 c) noexcept {
      return both(_mm512_fmadd_ps(lanes(a.v, 0), lanes(b.v, 0), lanes(c.v, 0)),
                  _mm512_fmadd_ps(lanes(a.v, 1), lanes(b.v, 1), lanes(c.v, 1)));
    }
    OCELLUS_INLINE void add_to(float* first, float* second) const noexcept {
      _mm512_storeu_ps(first, _mm512_loadu_ps(first) + lanes(v, 0));
      _mm512_storeu_ps(second, _mm512_loadu_ps(second) + lanes(v, 1));
    }
  };
#include <ocellus/generic/unroll.inl>
#include <ocellus/x86/gemm_fp16.inl>
  static void gemm_exact(const gemm_args& g) noexcept { avx512vnni::gemm_f16(g); }
#include <ocellus/generic/gemm_rounded.inl>
  static void gemm_f16(const gemm_args& g) noexcept { gemm_rounded(g); }
};
}  // namespace
OCELLUS_TARGET_END
#endif

TEST_CASE("gemm_f16 and gemm_bf16 of sets with 16-bit arithmetic stay within their rounding") {
  const fp_env strict;
  rng random(16);
  std::vector<kernel_set> sets;
  for (const kernel_set& set : kernel_sets())
    if (set.available) sets.push_back(set);
#if OCELLUS_HAS_AVX512FP16
  if (detect_cpu().avx512vnni) {
    sets.push_back({"fp16 emulated", true, false, true, make_table<kernels::avx512vnni>()});
    sets.back().table.gemm_f16 = &fp16_emulated::gemm_f16;
  }
#endif
  int shapes = 0;
  for (const kernel_set& set : sets)
    for (const dtype type : {dtype::f16, dtype::bf16}) {
      if (exact(set, type)) continue;
      const auto prepare = type == dtype::bf16 ? set.table.round_bf16 : set.table.split_bf16;
      for (const int m : {1, 2, 3, 7, 12, 13, 50, 70})
        for (const int n : {16, 31, 32, 48, 64, 112, 150})
          for (const int k : {1, 5, 64, 75, 192, 384, 400, 768})
            for (const int way : {0, 1, 2, 3, 4, 5}) {
              const int mode = way % 3;  // a residual of its own, the residual in C, an activation
              const bool prepared = way >= 3;
              if (prepared && prepare == nullptr) continue;
              if ((m > 13 && k > 192 && n != 112) || shapes++ % sparse() != 0) continue;
              weights w(type, n, k, random);
              inputs x(m, k, random);
              const int ldc = n + 2;
              std::vector<float> residual(weights::size(m, ldc)), c(residual.size(), -7777.25f);
              fill_normal(residual, random);
              gemm_args g = make_gemm(x, w);
              const std::ptrdiff_t ld16 = 2 * round_up(k, 32);
              guarded<std::uint16_t> rounded(weights::size(m, static_cast<int>(ld16)));
              if (prepared) {
                prepare(rounded.data(), ld16, x.a.data(), x.ld, m, k);
                g.a_bf16 = rounded.data();
                g.lda_bf16 = ld16;
              }
              g.c = c.data();
              g.ldc = g.ldr = ldc;
              if (mode == 0) g.residual = residual.data();
              if (mode == 1) {
                for (int i = 0; i < m; i++)
                  for (int j = 0; j < n; j++)
                    c[weights::size(i, ldc) + static_cast<std::size_t>(j)] =
                        residual[weights::size(i, ldc) + static_cast<std::size_t>(j)];
                g.residual = c.data();
              }
              if (mode == 2) g.act = activation::relu;
              run_gemm(set.table, type, g);
              const MatrixXd a = matrix(x.a.data(), m, k, x.ld), b = matrix(w.w.data(), n, k, k);
              const MatrixXd bias = matrix(w.bias.data(), 1, n, n).replicate(m, 1),
                             size = a.cwiseAbs() * b.cwiseAbs().transpose();
              MatrixXd expected = a * b.transpose() + bias;
              if (mode == 2) expected = expected.cwiseMax(0);
              if (mode != 2) expected += matrix(residual.data(), m, n, ldc);
              // an activation errs by half a unit (2^-8 of bf16, 2^-11 of f16), a chain of 64 fp16 sums as a random walk; of
              // split values the products of what bf16 rounds off (2^-8) and cuts off (2^-7) are missing
              const double unit =
                  type == dtype::bf16 ? 0x1p-8 : prepared ? 0x1p-14 : 0x1p-11 * (1 + 2 * std::sqrt(std::min(k, 64)));
              const MatrixXd bound = ((unit + 2 * k * u) * size).array() + 1e-5;
              const MatrixXd got = matrix(c.data(), m, n, ldc);
              const bool within = ((got - expected).array().abs() <= bound.array()).all();
              CHECK_MESSAGE(within, set.name << " " << std::string(to_string(type)) << " M=" << m
                                             << " N=" << n << " K=" << k << " mode " << mode);
              bool untouched = true;
              for (int i = 0; i < m; i++)
                for (int j = n; j < ldc; j++)
                  untouched =
                      untouched && c[weights::size(i, ldc) + static_cast<std::size_t>(j)] == -7777.25f;
              CHECK(untouched);
            }
    }
}

TEST_CASE("gemm_bf16 of rows that round_bf16 made gives the bits of rows that it rounds itself") {
  const fp_env strict;
  rng random(19);
  for (const kernel_set& set : kernel_sets()) {
    if (!set.available) continue;
    for (const int m : {1, 13, 131, 230})
      for (const std::pair<int, int>& shape : {std::pair{48, 5}, {40, 768}, {33, 1200}, {32, 3072}}) {
        const int n = shape.first, k = shape.second;
        if (sparse() > 1 && (m > 13 || k > 1200)) continue;
        weights w(dtype::bf16, n, k, random);
        inputs x(m, k, random);
        const std::ptrdiff_t ld16 = round_up(k, 32);
        guarded<std::uint16_t> rounded(weights::size(m, static_cast<int>(ld16)));
        std::fill(rounded.begin(), rounded.end(), std::uint16_t{0x7fc1});  // NaNs, which sets without it ignore
        CHECK_MESSAGE((set.table.round_bf16 == nullptr || !set.exact_bf16), set.name);
        if (set.table.round_bf16 != nullptr) set.table.round_bf16(rounded.data(), ld16, x.a.data(), x.ld, m, k);
        std::vector<float> residual(weights::size(m, n));
        fill_normal(residual, random);
        for (const bool in_place : {false, true}) {
          std::vector<float> c[2] = {residual, residual};
          for (int i = 0; i < 2; i++) {
            gemm_args g = make_gemm(x, w);
            if (i == 1) {
              g.a_bf16 = rounded.data();
              g.lda_bf16 = ld16;
            }
            g.c = c[i].data();
            g.ldc = g.ldr = n;
            g.residual = in_place ? g.c : residual.data();
            run_gemm(set.table, dtype::bf16, g);
          }
          CHECK_MESSAGE(first_difference(c[0].data(), c[1].data(), c[0].size()) < 0,
                        set.name << " M=" << m << " N=" << n << " K=" << k << " in place " << in_place);
        }
      }
  }
}

TEST_CASE("gemm_f16 by bf16 arithmetic gives a row the same bits whichever rows go with it") {
  const fp_env strict;
  rng random(22);
  for (const kernel_set& set : kernel_sets()) {
    if (!set.available || set.table.split_bf16 == nullptr) continue;
    for (const std::pair<int, int>& shape : {std::pair{48, 5}, {40, 800}, {33, 1200}, {32, 3072}}) {
      const int n = shape.first, k = shape.second, m = 460;
      weights w(dtype::f16, n, k, random);
      inputs x(m, k, random);
      const std::ptrdiff_t ld16 = 2 * round_up(k, 32);
      guarded<std::uint16_t> rounded(weights::size(m, static_cast<int>(ld16)));
      std::fill(rounded.begin(), rounded.end(), std::uint16_t{0x7fc1});
      set.table.split_bf16(rounded.data(), ld16, x.a.data(), x.ld, m, k);
      std::vector<float> expected(weights::size(m, n)), got(expected.size());
      gemm_args g = make_gemm(x, w);
      g.lda_bf16 = ld16;
      g.ldc = n;
      for (int row = 0; row < m; row++) {
        g.m = 1;
        g.a_bf16 = rounded.data() + row * ld16;
        g.c = expected.data() + row * n;
        set.table.gemm_f16(g);
      }
      for (const int together : {2, 13, 33, 131, m}) {
        for (int row = 0; row < m; row += g.m) {
          g.m = std::min(m - row, together);
          g.a_bf16 = rounded.data() + row * ld16;
          g.c = got.data() + row * n;
          set.table.gemm_f16(g);
        }
        CHECK_MESSAGE(first_difference(got.data(), expected.data(), got.size()) < 0,
                      set.name << " N=" << n << " K=" << k << " by " << together);
      }
    }
  }
}

TEST_CASE("gemm_s8 of rows that arrange_u8 made gives the bits of rows that it arranges itself") {
  const fp_env strict;
  rng random(20);
  for (const kernel_set& set : kernel_sets()) {
    if (!set.available || set.table.quad_rows == 0) continue;
    for (const int m : {set.table.quad_rows, 13, 50, 107, 230, 333})
      for (const std::pair<int, int>& shape :
           {std::pair{48, 5}, {40, 64}, {33, 200}, {340, 768}, {33, 1200}, {32, 3072}}) {
        const int n = shape.first, k = shape.second;
        const bool blocks = m == 333 && k == 3072;  // more rows than a block has, and its share would be odd
        if ((m == 333 || (sparse() > 1 && (m > 50 || k > 1200))) && !blocks) continue;
        weights w(dtype::s8, n, k, random);
        inputs x(m, k, random);
        const std::ptrdiff_t ld = (ceil_div(k, 16) | 1) * 64;  // that of an operand's f32, in bytes
        guarded<std::uint8_t> arranged(weights::size(m, static_cast<int>(ld)));
        std::fill(arranged.begin(), arranged.end(), std::uint8_t{0xa5});
        for (int begin = 0; begin < k; begin += 192)
          set.table.arrange_u8({x.q.data(), x.ldq, arranged.data(), ld, m, k, begin, std::min(begin + 192, k)});
        std::vector<float> c[3];  // by the scalar set, and both ways
        for (int i = 0; i < 3; i++) {
          c[i].resize(weights::size(m, n));
          gemm_args g = make_gemm(x, w);
          if (i == 2) {
            g.a_arranged = arranged.data();
            g.ld_arranged = ld;
          }
          g.c = c[i].data();
          g.ldc = n;
          run_gemm(i == 0 ? make_table<kernels::scalar>() : set.table, dtype::s8, g);
        }
        CHECK_MESSAGE(first_difference(c[0].data(), c[1].data(), c[0].size()) < 0, set.name << " alone");
        CHECK_MESSAGE(first_difference(c[0].data(), c[2].data(), c[0].size()) < 0,
                      set.name << " M=" << m << " N=" << n << " K=" << k);
      }
  }
}

#if defined(__linux__) && !defined(OCELLUS_TEST_SANITIZER)
TEST_CASE("products of every set get by with a thread's stack of 128 KB, which is what musl gives") {
  rng random(21);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8}) {
    weights w(type, 48, 4096, random);
    inputs x(104, 4096, random);
    std::vector<float> c(weights::size(104, 48));
    for (const kernel_set& set : kernel_sets())
      for (const int way : {0, 1, 2}) {  // as it is, prepared, exact
        const bool prepared = way == 1 && type == dtype::f16 && set.table.split_bf16 != nullptr,
                   exact_f16 = way == 2 && type == dtype::f16 && !set.exact_f16;
        if (!set.available || (way == 1 && !prepared) || (way == 2 && !exact_f16)) continue;
        struct task {
          const kernel_set* set;
          dtype type;
          gemm_args g;
        } of{&set, type, make_gemm(x, w)};
        of.g.c = c.data();
        of.g.ldc = 48;
        of.g.exact = exact_f16;
        std::vector<std::uint16_t> rounded(prepared ? 104 * 8192 : 0);
        if (prepared) {
          of.g.a_bf16 = rounded.data();
          of.g.lda_bf16 = 8192;
        }
        pthread_attr_t small;
        REQUIRE(pthread_attr_init(&small) == 0);
        REQUIRE(pthread_attr_setstacksize(&small, 128 * 1024) == 0);
        pthread_t thread;
        const auto run = [](void* p) -> void* {
          const task* t = static_cast<task*>(p);
          run_gemm(t->set->table, t->type, t->g);
          return nullptr;
        };
        REQUIRE(pthread_create(&thread, &small, run, &of) == 0);  // its end is a guard page
        CHECK(pthread_join(thread, nullptr) == 0);
        pthread_attr_destroy(&small);
      }
  }
}
#endif

TEST_CASE("gemm_s8 of the scalar set is exact in its integers and rounds four times after them") {
  const fp_env strict;
  rng random(12);
  for (const int k : {1, 3, 4, 5, 64, 75, 3072}) {
    scalar_product of(dtype::s8, k, random);
    auto& [w, x, c, residual] = of;
    constexpr int m = scalar_product::m, n = scalar_product::n;
    MatrixXd expected(m, n), bound(m, n);
    for (int i = 0; i < m; i++)
      for (int j = 0; j < n; j++) {
        std::int64_t sum = 0;
        for (int d = 0; d < k; d++)
          sum += (x.q[static_cast<std::size_t>(i * x.ldq + d)] - x.zero[static_cast<std::size_t>(i)]) *
                 static_cast<std::int64_t>(w.w[static_cast<std::size_t>(j * k + d)]);
        const double product = static_cast<double>(sum) * x.scale[static_cast<std::size_t>(i)] *
                               w.scale[static_cast<std::size_t>(j)];
        const double bias = w.bias[static_cast<std::size_t>(j)],
                     r = residual[static_cast<std::size_t>(i * n + j)];
        expected(i, j) = product + bias + r;
        bound(i, j) = 5.01 * u * (std::abs(product) + std::abs(bias) + std::abs(r));
      }
    check_bound("s8", matrix(c.data(), m, n, n), expected, bound);
  }
}

TEST_CASE("attention_f32 of the scalar set is softmax(scale Q K^T) V, within a bound from the data") {
  const fp_env strict;
  rng random(13);
  for (const int d : {16, 64, 72})
    for (const bool causal : {false, true}) {
      const int tk = 50, tq = 50;
      attention_inputs in(tk, tq, tk, d, d, random);
      auto &q = in.q, &k = in.k, &v = in.v;
      std::vector<float> out(q.size()), out_s8(q.size());
      attention_args& t = in.args;
      t.out = out.data();
      t.causal = causal;
      kernels::scalar::attention_f32(t);
      t.out = out_s8.data();
      kernels::scalar::attention_s8(t);

      const MatrixXd qd = matrix(q.data(), tq, d, d), kd = matrix(k.data(), tk, d, d),
                     vd = matrix(v.data(), tk, d, d);
      const MatrixXd s = qd * kd.transpose() * static_cast<double>(t.scale);
      const MatrixXd s_size = qd.cwiseAbs() * kd.cwiseAbs().transpose() * static_cast<double>(t.scale);
      // what quantising q to u8 (step range / 255) and k to s8 (step max / 127) does to a score, at most
      const Eigen::VectorXd q_step =
          (qd.rowwise().maxCoeff().cwiseMax(0) - qd.rowwise().minCoeff().cwiseMin(0)) / 255;
      const Eigen::VectorXd k_step = kd.cwiseAbs().rowwise().maxCoeff() / 127,
                            v_step = vd.cwiseAbs().rowwise().maxCoeff() / 127;
      MatrixXd expected(tq, d), bound(tq, d), bound_s8(tq, d);
      for (int i = 0; i < tq; i++) {
        const int seen = causal ? i + 1 : tk;
        const Eigen::RowVectorXd row = s.row(i).head(seen);
        Eigen::RowVectorXd p = (row.array() - row.maxCoeff()).exp();
        p /= p.sum();
        expected.row(i) = p * vd.topRows(seen);
        const double score_error =
            ((d + 2) * u * s_size.row(i).head(seen)).maxCoeff() + 3 * u * (row.maxCoeff() - row.minCoeff());
        const double relative = 2 * (std::expm1(2 * score_error) + 4e-7) + (2 * seen + 4) * u;
        const Eigen::RowVectorXd weight = p * vd.topRows(seen).cwiseAbs();
        bound.row(i) = relative * weight;
        // half a step each; a probability may move by half of 1/255 of the largest product with a v step
        const Eigen::RowVectorXd q_abs = qd.row(i).cwiseAbs();
        double score_s8 = 0;
        for (int j = 0; j < seen; j++)
          score_s8 =
              std::max(score_s8, static_cast<double>(t.scale) *
                                     (0.5 * k_step(j) * q_abs.sum() +
                                      0.5 * q_step(i) * (kd.row(j).cwiseAbs().sum() + 0.5 * d * k_step(j))));
        const double most = (p.transpose().array() * v_step.head(seen).array()).maxCoeff();
        const double growth = std::expm1(2 * score_s8);
        for (int c = 0; c < d; c++)
          bound_s8(i, c) = bound(i, c) + growth * weight(c) +
                           (1 + growth) * (0.5 * (p.transpose().array() * v_step.head(seen).array()).sum() +
                                           0.5 / 255 * most * 127 * seen);
      }
      check_bound("attention_f32", matrix(out.data(), tq, d, d), expected, bound);
      const MatrixXd got = matrix(out_s8.data(), tq, d, d);
      CHECK(((got - expected).array().abs() <= bound_s8.array()).all());
      const double cosine = (got.array() * expected.array()).sum() / (got.norm() * expected.norm());
      CHECK(cosine > 0.9995);
    }
}

TEST_CASE("attention_bf16 of sets that round activations stays within that rounding") {
  const fp_env strict;
  rng random(16);
  constexpr double half = 1.0 / 256;  // bf16: half a unit in the last place of eight bits
  for (const int d : {8, 16, 24, 64, 72, 80, 768})
    for (const int tk : {1, 2, 17, 50, 65})
      for (const bool causal : {false, true}) {
        const int tq = causal ? tk : 13, ld = d + 3;
        attention_inputs in(std::max(tk, tq) + 1, tq, tk, d, ld, random);
        auto &q = in.q, &k = in.k, &v = in.v;
        std::vector<float> expected(q.size(), 7.f), got(q.size());
        attention_args& t = in.args;
        t.causal = causal;
        t.key_rows = tk % 2 != 0 && tk % 7 != 0 ? in.order.data() : nullptr;
        t.out = expected.data();
        kernels::scalar::attention_f32(t);
        // a score moves by the roundings of q and k, a probability by that and its own, a value by its own
        double score = 0, value = 0;
        for (int i = 0; i < tq; i++)
          for (int j = 0; j < tk; j++) {
            double sum = 0;
            for (int c = 0; c < d; c++) sum += std::fabs(static_cast<double>(q.data()[i * ld + c] * k.data()[j * ld + c]));
            score = std::max(score, 2.1 * half * static_cast<double>(t.scale) * sum);
          }
        for (int j = 0; j < tk; j++)
          for (int c = 0; c < d; c++) value = std::max(value, std::fabs(static_cast<double>(v.data()[j * ld + c])));
        const double most = value * (std::expm1(2 * score) + 2.1 * half);
        for (const kernel_set& set : kernel_sets()) {
          if (!set.available || set.exact_bf16) continue;
          std::fill(got.begin(), got.end(), 7.f);
          std::memset(in.scratch.data(), 0xff, in.scratch.size() * sizeof(float));
          t.out = got.data();
          set.table.attention_bf16(t);
          double worst = 0, both = 0, one = 0, other = 0;
          bool outside = false;
          for (int i = 0; i < tq + 1; i++)
            for (int c = 0; c < ld; c++) {
              const auto at = static_cast<std::size_t>(i * ld + c);
              if (i == tq || c >= d) {
                outside = outside || got[at] != 7.f;
                continue;
              }
              const double x = static_cast<double>(got[at]), y = static_cast<double>(expected[at]);
              worst = std::max(worst, std::fabs(x - y));
              both += x * y, one += x * x, other += y * y;
            }
          const std::string what = set.name + " D=" + std::to_string(d) + " tk=" + std::to_string(tk);
          CHECK_MESSAGE(worst <= most, what << ": off by " << worst << " of at most " << most);
          CHECK_MESSAGE(both / std::sqrt(one * other) > 0.9999, what);
          CHECK_MESSAGE(!outside, what << ": writes beyond its rows and columns");
        }
      }
}

TEST_CASE("layer_norm of the scalar set is (x - mean) / sqrt(var + eps) * gain + bias") {
  const fp_env strict;
  rng random(14);
  for (const int c : {16, 100, 768, 1152}) {
    const int rows = 5;
    guarded<float> x(weights::size(rows, c)), gain(weights::size(c, 1)), bias(weights::size(c, 1));
    fill_normal(x, random, 3);
    for (float& v : x) v += 1;
    fill_normal(gain, random);
    fill_normal(bias, random);
    std::vector<float> y(x.size()), scratch(layer_norm_scratch(c)), scale(rows);
    std::vector<std::uint8_t> q(weights::size(rows, round_up(c, 16)));
    std::vector<std::int32_t> zero(rows);
    layer_norm_args a;
    a.x = x.data();
    a.gain = gain.data();
    a.bias = bias.data();
    a.ldx = a.ldy = c;
    a.rows = rows;
    a.c = c;
    a.y = y.data();
    kernels::scalar::layer_norm(a);
    a.y = scratch.data();
    a.q = q.data();
    a.ldq = round_up(c, 16);
    a.scale = scale.data();
    a.zero = zero.data();
    kernels::scalar::layer_norm_u8(a);
    const MatrixXd xd = matrix(x.data(), rows, c, c);
    const Eigen::VectorXd mean = xd.rowwise().mean();
    const MatrixXd centred = xd.colwise() - mean;
    const Eigen::VectorXd deviation = (centred.array().square().rowwise().mean() + 1e-5).sqrt();
    const MatrixXd g = matrix(gain.data(), 1, c, c).replicate(rows, 1),
                   b = matrix(bias.data(), 1, c, c).replicate(rows, 1);
    const MatrixXd unit = centred.array().colwise() / deviation.array();
    const MatrixXd expected = unit.cwiseProduct(g) + b;
    // sixteen lanes of C/16 additions and a tree of four: (C/16 + 4) u relative to the sum of magnitudes
    const double chain = (c / 16 + 6) * u;
    const Eigen::VectorXd mean_error = chain * xd.cwiseAbs().rowwise().mean();
    MatrixXd bound(rows, c);
    for (int i = 0; i < rows; i++)
      for (int j = 0; j < c; j++)
        bound(i, j) = std::abs(g(i, j)) * ((mean_error(i) + u * std::abs(xd(i, j))) / deviation(i) *
                                               (1 + std::abs(unit(i, j))) +
                                           (chain + 4 * u) * std::abs(unit(i, j))) +
                      2 * u * (std::abs(expected(i, j)) + std::abs(b(i, j)));
    check_bound("layer_norm", matrix(y.data(), rows, c, c), expected, bound);
    for (int i = 0; i < rows;
         i++)  // dequantised: within half a step, and a half for the zero point's rounding
      for (int j = 0; j < c; j++) {
        const auto r = static_cast<std::size_t>(i);
        const double back =
            scale[r] *
            static_cast<double>(q[weights::size(i, round_up(c, 16)) + static_cast<std::size_t>(j)] - zero[r]);
        CHECK(std::abs(back - static_cast<double>(y[weights::size(i, c) + static_cast<std::size_t>(j)])) <=
              1.0001 * static_cast<double>(scale[r]));
      }
  }
}

TEST_CASE("activations stay within 5e-7 of the formula, relative to the larger of |x| and 1") {
  const fp_env strict;
  std::vector<float> x;
  for (float v = -30; v < 30; v += 0.00037f) x.push_back(v);
  std::vector<float> y(x.size());
  const int n = static_cast<int>(x.size());
  for (int act = 0; act <= 5; act++) {
    kernels::scalar::activate_rows(y.data(), n, x.data(), n, 1, n, static_cast<activation>(act));
    double worst = 0, at = 0;
    for (std::size_t i = 0; i < x.size(); i++) {
      const double v = x[i], e = std::abs(y[i] - activate(v, static_cast<activation>(act))) /
                                 std::max(std::abs(v), 1.0);
      if (e > worst) {
        worst = e;
        at = v;
      }
    }
    INFO("activation " << act << ": " << worst << " at " << at);
    CHECK(worst <= 5e-7);
  }
}

TEST_CASE("activations before a product of bytes stay within 4e-5 of the formula, and within 1.5e-4 of x") {
  const fp_env strict;
  std::vector<float> x;
  for (float v = -70; v < 70; v += 0.00037f) x.push_back(v);
  for (float v = 1e-30f; v < 1e-2f; v *= 1.01f) x.insert(x.end(), {v, -v});
  std::vector<float> y(x.size());
  const int n = static_cast<int>(x.size());
  using set = kernels::scalar;
  for (const activation act : {activation::quick_gelu, activation::gelu, activation::gelu_tanh}) {
    set::activate_rows_within<set::precision::u8>(y.data(), n, x.data(), n, 1, n, act);
    double worst = 0, at = 0;
    for (std::size_t i = 0; i < x.size(); i++) {
      const double v = x[i], e = std::abs(y[i] - activate(v, act)) / std::min(4e-5, 1.5e-4 * std::abs(v));
      if (e > worst) {
        worst = e;
        at = v;
      }
    }
    INFO("activation " << static_cast<int>(act) << ": " << worst << " of the bound at " << at);
    CHECK(worst <= 1);
  }
}

TEST_CASE("f16 and bf16 conversions are exact and round to nearest even, every code and every midpoint") {
  for (std::uint32_t code = 0; code < 0x10000; code++) {
    const f16 h{static_cast<std::uint16_t>(code)};
    const std::uint32_t exponent = (code >> 10) & 31, mantissa = code & 0x3ff;
    const float sign = code & 0x8000 ? -1.f : 1.f;
    if (exponent == 31) {
      CHECK((mantissa == 0 ? std::isinf(to_f32(h)) : std::isnan(to_f32(h))));
    } else {
      const double value = exponent == 0 ? std::ldexp(mantissa, -24)
                                         : std::ldexp(mantissa + 1024., static_cast<int>(exponent) - 25);
      CHECK(to_f32(h) == sign * static_cast<float>(value));
      CHECK(std::signbit(to_f32(h)) == (code >= 0x8000));
      CHECK(to_f16(to_f32(h)).bits == code);
      if (exponent < 30 || mantissa < 0x3ff) {  // the midpoint to the next code goes to the even one
        const float next = to_f32(f16{static_cast<std::uint16_t>(code + 1)}), middle = (to_f32(h) + next) / 2;
        CHECK(to_f16(middle).bits == (code % 2 == 0 ? code : code + 1));
        CHECK(to_f16(std::nextafter(middle, to_f32(h))).bits == code);
        CHECK(to_f16(std::nextafter(middle, next)).bits == code + 1);
      }
    }
    const bf16 b{static_cast<std::uint16_t>(code)};
    if (std::isnan(to_f32(b))) {
      CHECK(std::isnan(to_f32(to_bf16(to_f32(b)))));
    } else {
      CHECK(to_bf16(to_f32(b)).bits == code);
      const std::uint32_t bits = code << 16;
      if ((code & 0x7f80) != 0x7f80) {
        CHECK(to_bf16(std::bit_cast<float>(bits | 0x8000)).bits == (code % 2 == 0 ? code : code + 1));
        CHECK(to_bf16(std::bit_cast<float>(bits | 0x7fff)).bits == code);
        CHECK(to_bf16(std::bit_cast<float>(bits | 0x8001)).bits == code + 1);
      }
    }
  }
}

TEST_CASE("packed_index and pack_panels are inverse, and padding is zero") {
  rng random(15);
  for (const dtype type : {dtype::f32, dtype::bf16, dtype::s8})
    for (const int n : {1, 16, 35})
      for (const int k : {1, 5, 8, 33}) {
        std::vector<std::uint8_t> seen(packed_elements(type, n, k));
        for (int c = 0; c < n; c++)
          for (int d = 0; d < k; d++) seen[packed_index(type, c, d, k)]++;
        int once = 0;
        for (const std::uint8_t s : seen) {
          CHECK(s <= 1);
          once += s;
        }
        CHECK(once == n * k);
      }
}
