// Law 2: every kernel set gives the scalar set's bits. Built twice: as it is, and with -ffast-math.
#include "kernel_testing.hpp"

#include <ocellus/core/fp_env.hpp>
#include <ocellus/nn/layers.hpp>

#include <doctest/doctest.h>

#include <bit>
#include <utility>

using namespace kernel_testing;

namespace {

constexpr float canary = -7777.25f;

const kernel_table scalar_table = make_table<kernels::scalar>();

OCELLUS_STRICT_FP_BEGIN
/// AVX-512's way around its tiles, over scalar's sums, so that it is tested on machines without those instructions:
/// tiles of up to 12 rows and of one, two or four panels, which go on from sums and finish the tile before them.
struct tall_tiles : kernels::scalar {
  static constexpr int epilogue_panels = 2, epilogue_rows = 2, finishing_rows = 10, float_rows = 12, s8_rows = 12, wide_rows = 3,
                       float_depth = 1024;

  template <int MR, int P, class W>
  static void tile_float(const float* a, std::ptrdiff_t lda, const W* b, std::size_t stride, int k, float* out,
                         std::ptrdiff_t ldo, const prefetch_run&, bool onto, const unfinished_tile& before = {}) noexcept {
    float sums[MR][P * 16];
    for (int r = 0; r < MR; r++)
      for (int c = 0; c < P * 16; c++) {
        float sum = onto ? out[r * ldo + c] : 0.f;
        for (int d = 0; d < k; d++)
          sum = strict_fma(a[r * lda + d], panel_value(b + static_cast<std::size_t>(c / 16) * stride, d, c % 16), sum);
        sums[r][c] = sum;
      }
    if constexpr (std::is_same_v<W, float> && P == 2 && MR >= finishing_rows)
      for (int r = 0; r < before.rows; r++) finish_row<precision::f32>(before, r);
    for (int r = 0; r < MR; r++) std::memcpy(out + r * ldo, sums[r], sizeof(sums[r]));
  }

  template <int MR, int P>
  static void tile_s8(const std::uint8_t* a, std::ptrdiff_t lda, const std::int8_t* b, std::size_t stride, int k,
                      std::int32_t* out, std::ptrdiff_t ldo, const prefetch_run& next,
                      const unfinished_tile& before = {}) noexcept {
    if constexpr (P == 2 && MR >= finishing_rows)  // its sums lie in `out`
      for (int r = 0; r < before.rows; r++) finish_row<precision::u8>(before, r);
    for (int p = 0; p < P; p++)
      kernels::scalar::tile_s8<MR, 1>(a, lda, b + static_cast<std::size_t>(p) * stride, stride, k, out + p * 16, ldo,
                                      next);
  }

#include <ocellus/generic/unroll.inl>
#include <ocellus/generic/gemm.inl>
#include <ocellus/generic/attention.inl>
};
OCELLUS_STRICT_FP_END

/// For products and attention: all sets, and AVX-512's way around its tiles.
std::vector<kernel_set> all_sets() {
  std::vector<kernel_set> sets = kernel_sets();
  kernel_table tall = scalar_table;
  tall.gemm_f32 = &tall_tiles::gemm_f32;
  tall.gemm_f16 = &tall_tiles::gemm_f16;
  tall.gemm_bf16 = &tall_tiles::gemm_bf16;
  tall.gemm_s8 = &tall_tiles::gemm_s8;
  tall.attention_f32 = &tall_tiles::attention_f32;
  tall.attention_bf16 = &tall_tiles::attention_bf16;
  tall.attention_s8 = &tall_tiles::attention_s8;
  sets.push_back({"tall_tiles", true, true, true, tall});
  return sets;
}

struct shape {
  int n, k;
};

void compare_gemm(dtype type, int n, int k, int m_most, activation act, bool with_residual, bool with_bias,
                  rng& random) {
  const fp_env strict;
  weights w(type, n, k, random);
  inputs x(m_most, k, random);
  const int ldc = n + 3;
  const std::size_t total = static_cast<std::size_t>(m_most) * static_cast<std::size_t>(ldc);
  std::vector<float> residual(total), expected(total, canary), got(total);
  fill_normal(residual, random);
  gemm_args g = make_gemm(x, w);
  g.ldc = g.ldr = ldc;
  g.act = act;
  g.exact = type == dtype::f16;  // then sets with fp16 or bf16 arithmetic are inside law 2 as well
  if (with_residual) g.residual = residual.data();
  if (!with_bias) g.bias = nullptr;
  g.c = expected.data();
  run_gemm(scalar_table, type, g);
  static int first = 0;  // of the heights that a sparse run takes: another in each shape
  first = first % sparse() + 1;
  const int step = sparse() > 1 ? std::max(sparse(), m_most / 3) : m_most > 50 ? 7 : 1;
  for (const kernel_set& set : all_sets()) {
    if (!set.available || (!g.exact && !exact(set, type))) continue;
    for (int m = std::max(m_most + 1 - first, 1); m >= 1; m -= step) {
      std::fill(got.begin(), got.end(), canary);
      g.m = m;
      g.nta_fills_l2 = m % 2 == 0;  // which is about fetching only
      g.c = got.data();
      if (with_residual && (set.name == "scalar" || m % 2 != 0)) {  // C is the residual
        for (int r = 0; r < m; r++) std::copy_n(residual.data() + r * ldc, n, got.data() + r * ldc);
        g.residual = got.data();
      } else if (with_residual) {
        g.residual = residual.data();
      }
      run_gemm(set.table, type, g);
      const std::size_t used = static_cast<std::size_t>(m) * static_cast<std::size_t>(ldc);
      std::ptrdiff_t at = first_difference(got.data(), expected.data(), used);
      for (std::size_t i = used; i < total && at < 0; i++)
        if (got[i] != canary) at = static_cast<std::ptrdiff_t>(i);
      if (at >= 0) {
        FAIL_CHECK("gemm_" << std::string(to_string(type)) << " " << set.name << " M=" << m << " N=" << n
                           << " K=" << k << " act=" << static_cast<int>(act) << " row " << at / ldc
                           << " column " << at % ldc << ": " << got[static_cast<std::size_t>(at)]
                           << " is not " << expected[static_cast<std::size_t>(at)]);
        return;
      }
    }
  }
}

/// Checks that each set computes scalar's bits of the product of x and w, and returns them.
std::vector<float> gemm_of_all_sets(dtype type, inputs& x, weights& w) {
  std::vector<float> expected(static_cast<std::size_t>(x.m * w.n)), got(expected.size());
  gemm_args g = make_gemm(x, w);
  g.ldc = w.n;
  g.c = expected.data();
  run_gemm(scalar_table, type, g);
  for (const kernel_set& set : all_sets()) {
    if (!set.available || !exact(set, type)) continue;
    g.c = got.data();
    run_gemm(set.table, type, g);
    CHECK_MESSAGE(first_difference(got.data(), expected.data(), got.size()) < 0,
                  "gemm_" << std::string(to_string(type)) << " " << set.name);
  }
  return expected;
}

/// Values of which (v & mask) is `bits`: by bits, for with -ffast-math a compiler may take it that no float is infinite.
std::ptrdiff_t count_bits(const std::vector<float>& values, std::uint32_t bits, std::uint32_t mask = ~0u) {
  return std::count_if(values.begin(), values.end(),
                       [&](float v) { return (std::bit_cast<std::uint32_t>(v) & mask) == bits; });
}

}  // namespace

TEST_CASE("the kernel sets that ran and those that this CPU lacks") { MESSAGE(coverage()); }

TEST_CASE("gemm: every set equals scalar bit for bit, M in 1..29, N and K around the edges of panels") {
  rng random(1);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8})
    for (const int n : {1, 15, 16, 17, 31, 32, 33, 48, 63, 80, 97})
      for (const int k : {1, 3, 4, 5, 8, 64, 75})
        compare_gemm(type, n, k, 29, activation::none, n % 2 != 0, k % 2 != 0, random);
}

TEST_CASE("gemm: every set equals scalar bit for bit at model depths") {
  rng random(2);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8})
    for (const shape s : {shape{40, 768}, shape{96, 1152}, shape{33, 3072}})
      compare_gemm(type, s.n, s.k, 15, activation::none, true, true, random);
  compare_gemm(dtype::s8, 32, 3072, 450, activation::none, true, true, random);  // several row blocks, AMX's too
  compare_gemm(dtype::f32, 32, 768, 300, activation::none, false, true, random);
  compare_gemm(dtype::f32, 32, 1200, 300, activation::none, true, true, random);  // and parts of the depth
}

TEST_CASE("gemm: every set equals scalar bit for bit with each activation fused") {
  rng random(3);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8})
    for (int act = 0; act <= 5; act++) {
      compare_gemm(type, 72, 64, 13, static_cast<activation>(act), act % 2 == 0, true, random);
      compare_gemm(type, 39, 16, 5, static_cast<activation>(act), act % 2 != 0, false, random);
    }
  for (const dtype type : {dtype::f32, dtype::s8})  // tiles that finish the one before them, whole and ragged ones in turn
    for (int act = 0; act <= 5; act++)
      compare_gemm(type, 104, 36, 36, static_cast<activation>(act), act % 2 != 0, act % 3 != 0, random);
  compare_gemm(dtype::f32, 96, 1200, 26, activation::quick_gelu, false, true, random);  // also with parts of the depth
}

#if defined(__wasm_relaxed_simd__)
TEST_CASE("relaxed: the tile by the dot gives scalar's sums, whether or not this engine's dot is quick enough to be used") {
  rng random(9);
  constexpr int rows = kernels::relaxed::s8_rows, k = 772, ld = k + 12;
  std::vector<std::uint8_t> a(rows * ld);
  std::vector<std::int8_t> b(2 * 16 * k);
  for (std::uint8_t& x : a) x = static_cast<std::uint8_t>(random() % 4 == 0 ? 255 : random());
  for (std::int8_t& x : b) {
    const int any = static_cast<int>(random() % 255) - 127;
    x = static_cast<std::int8_t>(random() % 4 == 0 ? (any < 0 ? -127 : 127) : any);
  }
  std::int32_t expected[rows * 32], got[rows * 32];
  kernels::scalar::tile_s8<rows, 2>(a.data(), ld, b.data(), 16 * k, k, expected, 32, {});
  kernels::relaxed::dot_tile_s8<rows, 2>(a.data(), ld, b.data(), 16 * k, k, got, 32);
  CHECK(std::memcmp(got, expected, sizeof(got)) == 0);
  const std::string how = kernels::relaxed::quick_dot() ? "quick here, used" : "slow here, simd128's tile is used";
  MESSAGE("relaxed dot: " << how);
}
#endif

TEST_CASE("gemm: a part of the panels computes that part of the columns and nothing else") {
  const fp_env strict;
  rng random(4);
  const std::pair<dtype, int> products[] = {{dtype::f32, 1}, {dtype::f16, 1}, {dtype::bf16, 1}, {dtype::s8, 1},
                                            {dtype::f32, 7}, {dtype::f16, 7}, {dtype::bf16, 7}, {dtype::s8, 20}};
  for (const std::pair<dtype, int>& product : products) {
    const dtype type = product.first;
    const int m = product.second, n = 150, k = 40;
    weights w(type, n, k, random);
    inputs x(m, k, random);
    std::vector<float> expected(static_cast<std::size_t>(m * n)), got(expected.size());
    gemm_args g = make_gemm(x, w);
    g.ldc = n;
    g.c = expected.data();
    run_gemm(scalar_table, type, g);
    for (const kernel_set& set : all_sets()) {
      if (!set.available || !exact(set, type)) continue;
      for (int begin = 0; begin < 10; begin++)
        for (int end = begin + 1; end <= 10; end++) {
          std::fill(got.begin(), got.end(), canary);
          g.c = got.data();
          g.panel_begin = begin;
          g.panel_end = end;
          run_gemm(set.table, type, g);
          bool same = true;
          for (int i = 0; i < m; i++)
            for (int j = 0; j < n; j++) {
              const std::size_t at = static_cast<std::size_t>(i * n + j);
              same = same && got[at] == (j / 16 >= begin && j / 16 < end ? expected[at] : canary);
            }
          CHECK_MESSAGE(same, "gemm_" << std::string(to_string(type)) << " " << set.name << " M=" << m << " panels "
                                      << begin << ".." << end);
        }
    }
  }
}

TEST_CASE("gemm: denormal, huge and negative-zero operands keep the scalar set's bits") {
  const fp_env strict;
  rng random(5);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16}) {
    const int m = 13, n = 48, k = 24;
    weights w(type, n, k, random);
    inputs x(m, k, random);
    for (std::size_t i = 0; i < x.a.size(); i++) {
      const float odd[] = {1e-40f, -1e-42f, -0.f, 1e-38f, 3e30f, -2e-30f, 0.f, 1.17549435e-38f};
      if (i % 3 != 0) x.a[i] = odd[i % 8];
    }
    gemm_of_all_sets(type, x, w);
  }
}

TEST_CASE("gemm: s8 sums are exact where two or four products together leave 16 bits") {
  const fp_env strict;
  rng random(12);
  std::uniform_int_distribution<int> byte(0, 255);
  std::normal_distribution<float> bell;
  for (const shape s : {shape{40, 30}, shape{40, 250}, shape{16, 900}, shape{33, 2500}, shape{16, 7200}, shape{170, 840}})
    for (int kind = 0; kind < 7; kind++) {  // the last three: activations that bound what weights may sum up to
      weights w(dtype::s8, s.n, s.k, random);
      inputs x(s.n > 100 ? 120 : 70, s.k, random);
      for (int c = 0; c < s.n; c++) {
        w.sum[weights::size(c, 1)] = 0;  // up to a depth of 250 the sums themselves are exact in a float
        for (int d = 0; d < s.k; d++) {
          const int all = byte(random) - 128, ends = all < 0 ? -127 : 127;
          const int normal = std::clamp(static_cast<int>(38 * bell(random)), -127, 127);
          const int of_kind[] = {127, -128, ends, all, c % 2 == 0 ? 127 : -128, normal, normal}, value = of_kind[kind];
          w.as<std::int8_t>()[packed_index(dtype::s8, c, d, s.k)] = static_cast<std::int8_t>(value);
          w.sum[weights::size(c, 1)] += value;
        }
      }
      for (int r = 0; r < x.m; r++)
        for (int d = 0; d < s.k; d++) {
          const int all = byte(random), ends = all % 2 != 0 ? 255 : 0;
          const int of_kind[] = {255, 255, ends, all, 125 + d / 2 % 131, 60 + all * (d % 196) / 255, 255 - all / 9};
          x.q[weights::size(r, x.ldq) + weights::size(d, 1)] = static_cast<std::uint8_t>(of_kind[kind]);
        }
      gemm_of_all_sets(dtype::s8, x, w);
    }
}

TEST_CASE("gemm: infinite operands and sums that overflow stay infinite, as the scalar set's do") {
  const fp_env strict;
  rng random(10);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16}) {
    const int m = 13, n = 48, k = 24;
    weights w(type, n, k, random);
    inputs x(m, k, random);
    for (int i = 0; i < m; i++) {  // one infinity a row, or finite terms alone: neither sums to NaN
      float* row = x.a.data() + i * x.ld;
      if (i % 3 == 0) row[i % k] = std::bit_cast<float>(i % 2 == 0 ? 0x7f800000u : 0xff800000u);
      if (i % 3 == 1) row[i % k] = row[(i + 7) % k] = 3e38f;
    }
    const std::vector<float> expected = gemm_of_all_sets(type, x, w);
    const std::ptrdiff_t high = count_bits(expected, 0x7f800000u), low = count_bits(expected, 0xff800000u);
    CHECK(high > n);
    CHECK(low > n);
    CHECK(count_bits(expected, 0x7f800000u, 0x7f800000u) == high + low);  // and no NaN
  }
}

TEST_CASE(
    "attention: every set equals scalar bit for bit, in each type, causal or not, with or without key rows") {
  const fp_env strict;
  rng random(6);
  int shapes = 0;
  for (const int d : {16, 24, 64, 72, 80, 88, 104})
    for (const int tk : {1, 3, 16, 17, 33, 50, 77})
      for (const int tq : {1, 2, 5, 13, 29, 50}) {
        if (shapes++ % sparse() != 0) continue;
        const int ld = d + 3;
        // The scratch must be aligned to 64 bytes and end at the guard page: its size is a multiple of 64.
        attention_inputs in(std::max(tq, tk) + 1, tq, tk, d, ld, random);
        std::vector<float> expected(in.q.size(), canary), got(expected.size());
        attention_args& t = in.args;
        for (const bool causal : {false, true})
          for (const bool permuted : {false, true}) {
            if (causal && tk < tq) continue;
            t.causal = causal;
            t.causal_offset = tk - tq;
            t.key_rows = permuted ? in.order.data() : nullptr;
            for (const dtype type : {dtype::f32, dtype::bf16, dtype::s8}) {
              const auto run = [&](const kernel_table& table, std::vector<float>& out) {
                std::fill(out.begin(), out.end(), canary);
                std::memset(in.scratch.data(), 0xff,
                            in.scratch.size() * sizeof(float));  // NaN: stale scratch must not count
                t.out = out.data();
                const auto attention = type == dtype::s8     ? table.attention_s8
                                       : type == dtype::bf16 ? table.attention_bf16
                                                             : table.attention_f32;
                attention(t);
              };
              run(scalar_table, expected);
              for (const kernel_set& set : all_sets()) {
                if (!set.available || set.name == "scalar" || !exact(set, type)) continue;
                run(set.table, got);
                const std::ptrdiff_t at = first_difference(got.data(), expected.data(), got.size());
                if (at >= 0)
                  FAIL_CHECK("attention_" << to_string(type) << " " << set.name << " D=" << d << " tk=" << tk
                                          << " tq=" << tq << " causal=" << causal << " permuted=" << permuted
                                          << " row " << at / ld << " column " << at % ld << ": "
                                          << got[static_cast<std::size_t>(at)] << " is not "
                                          << expected[static_cast<std::size_t>(at)]);
              }
            }
          }
      }
}

TEST_CASE("attention: sums that underflow have no sign, whichever keys a block has beyond those that a row sees") {
  const fp_env strict;
  rng random(13);
  const int t = 21, d = 20;
  attention_inputs in(t, t, t, d, d, random);
  for (std::size_t i = 0; i < in.q.size(); i++) {  // of the second key's share, below a half, -0 is left
    const std::size_t key = i / static_cast<std::size_t>(d);
    in.q[i] = 1;
    in.k[i] = 1 - 0.5f * static_cast<float>(key);
    in.v[i] = key == 0 ? 0.f : key == 1 ? -1e-45f : 1.f;
  }
  in.args.causal = true;
  std::vector<float> expected(in.q.size()), got(in.q.size());
  const auto run = [&](const kernel_table& table, std::vector<float>& out) {
    in.args.out = out.data();
    table.attention_f32(in.args);
  };
  run(scalar_table, expected);
  for (std::size_t i = 0; i < expected.size(); i++) CHECK(std::bit_cast<std::uint32_t>(expected[i]) != 0x80000000u);
  for (const kernel_set& set : all_sets()) {
    if (!set.available) continue;
    run(set.table, got);
    CHECK_MESSAGE(first_difference(got.data(), expected.data(), got.size()) < 0, set.name);
  }
}

TEST_CASE("attention: the scale is a root and a quotient, both correctly rounded, whatever the compiler's flags") {
  constexpr std::pair<int, std::uint32_t> scales[] = {{24, 0x3e5105eb}, {40, 0x3e21e89b},  {64, 0x3e000000},
                                                      {72, 0x3df15bf0}, {104, 0x3dc8d2ab}, {120, 0x3dbaf4ba}};
  for (const auto& [d, bits] : scales) {
    volatile int width = d;  // so that the program computes it
    CHECK(std::bit_cast<std::uint32_t>(nn::attention_scale(width)) == bits);
  }
}

TEST_CASE("row-wise operations: every set equals scalar bit for bit") {
  const fp_env strict;
  rng random(7);
  for (const int c : {1, 2, 15, 16, 17, 33, 64, 100, 768, 1152}) {
    const int rows = 11, ld = c + 1;
    const auto row_bytes = static_cast<std::size_t>(round_up(c, 16));
    const std::size_t total = weights::size(rows, ld);
    guarded<float> x(weights::size(rows - 1, ld) + weights::size(c, 1)), gain(weights::size(c, 1)),
        bias(weights::size(c, 1));
    fill_normal(x, random, 3);
    fill_normal(gain, random);
    fill_normal(bias, random);
    for (int i = 0; i < c; i++) x[static_cast<std::size_t>(2 * ld + i)] = 0;  // a row of zeros
    for (int i = 0; i < c; i++)
      x[static_cast<std::size_t>(3 * ld + i)] = -1 - 0.25f * static_cast<float>(i % 7);  // all negative
    for (int i = 0; i < c; i++)
      x[static_cast<std::size_t>(4 * ld + i)] = 1e-41f * static_cast<float>(i % 9);  // denormal

    struct results {
      std::vector<float> norm, scale, scale_q, unit, scratch;
      std::vector<std::uint8_t> q, plain;
      std::vector<std::int32_t> zero, zero_q;
      std::vector<std::vector<float>> acts, rotated;
    };
    const auto run = [&](const kernel_table& t) {
      results r;
      r.norm.assign(total, canary);
      r.scale.assign(rows, 0);
      r.scale_q = r.scale;
      r.zero.assign(rows, 0);
      r.zero_q = r.zero;
      r.q.assign(rows * (row_bytes + 16), 99);
      r.plain = r.q;
      r.unit.assign(static_cast<std::size_t>(c), canary);
      r.scratch.assign(layer_norm_scratch(c), 0);
      layer_norm_args n;
      n.x = x.data();
      n.ldx = ld;
      n.gain = gain.data();
      n.bias = bias.data();
      n.rows = rows;
      n.c = c;
      n.y = r.norm.data();
      n.ldy = ld;
      t.layer_norm(n);
      n.y = r.scratch.data();
      n.q = r.q.data();
      n.ldq = static_cast<std::ptrdiff_t>(row_bytes + 16);
      n.scale = r.scale.data();
      n.zero = r.zero.data();
      t.layer_norm_u8(n);
      quantize_args z;
      z.x = x.data();
      z.ldx = ld;
      z.rows = rows;
      z.c = c;
      z.q = r.plain.data();
      z.ldq = n.ldq;
      z.scale = r.scale_q.data();
      z.zero = r.zero_q.data();
      t.quantize_u8(z);
      t.l2_normalize(r.unit.data(), x.data(), c);
      for (int act = 0; act <= 5; act++) {
        std::vector<float> y(total, canary);
        t.activate_rows(y.data(), ld, x.data(), ld, rows, c, static_cast<activation>(act));
        r.acts.push_back(y);
        y.assign(total, canary);
        if (c > 1) t.gate_rows(y.data(), ld, x.data(), ld, rows, c / 2, static_cast<activation>(act));
        r.acts.push_back(y);
      }
      for (const int heads : {1, 3}) {  // c is head widths of all kinds
        const int d = c / heads / 2 * 2;
        if (d == 0) continue;
        std::vector<float> y(x.data(), x.data() + (rows - 1) * ld + c);
        const std::vector<float> table(y.rbegin(), y.rend());
        t.rotate_rows(y.data(), ld, table.data(), rows, heads, d);
        r.rotated.push_back(y);
      }
      // bytes past the padded row are nobody's; those from C to its end are the kernel's
      for (std::size_t row = 0; row < static_cast<std::size_t>(rows); row++)
        for (std::size_t i = static_cast<std::size_t>(c); i < row_bytes; i++)
          r.q[row * (row_bytes + 16) + i] = r.plain[row * (row_bytes + 16) + i] = 0;
      return r;
    };
    const results expected = run(scalar_table);
    for (const kernel_set& set : kernel_sets()) {
      if (!set.available) continue;
      const results got = run(set.table);
      INFO(set.name << " C=" << c);
      CHECK(first_difference(got.norm.data(), expected.norm.data(), total) < 0);
      CHECK(first_difference(got.scale.data(), expected.scale.data(), rows) < 0);
      CHECK(first_difference(got.scale_q.data(), expected.scale_q.data(), rows) < 0);
      CHECK(got.zero == expected.zero);
      CHECK(got.zero_q == expected.zero_q);
      CHECK(got.q == expected.q);
      CHECK(got.plain == expected.plain);
      CHECK(first_difference(got.unit.data(), expected.unit.data(), static_cast<std::size_t>(c)) < 0);
      for (std::size_t i = 0; i < got.rotated.size(); i++)
        CHECK_MESSAGE(first_difference(got.rotated[i].data(), expected.rotated[i].data(), got.rotated[i].size()) < 0,
                      "rotation " << i);
      for (std::size_t i = 0; i < got.acts.size(); i++)
        CHECK_MESSAGE(first_difference(got.acts[i].data(), expected.acts[i].data(), total) < 0,
                      "activation " << i / 2);
    }
  }
}

TEST_CASE("convolutions: rows of pieces are quantised as one row is, and Winograd's products give the convolution") {
  const fp_env strict;
  rng random(12);
  const auto each_set = [](const auto& f) {
    for (const kernel_set& set : kernel_sets()) {
      if (!set.available) continue;
      INFO(set.name);
      f(set.table);
    }
  };
  for (const int c : {3, 16, 20, 32, 64, 80, 96}) {
    constexpr int pieces = 9, rows = 4;
    const int k = pieces * c;
    guarded<float> values(weights::size(rows * pieces, c));
    fill_normal(values, random);
    std::vector<const float*> from;
    std::vector<float> joined(weights::size(rows, k));
    for (int i = 0; i < rows * pieces; i++) {
      const bool beyond = i < pieces || i % 5 == 1;  // all of the first row
      from.push_back(beyond ? nullptr : values.data() + i * c);
      if (!beyond) std::copy_n(from.back(), c, joined.data() + i * c);
    }
    const int ldq = round_up(k, 16) + 16;
    std::vector<std::uint8_t> expected(weights::size(rows, ldq), 99);
    std::vector<float> scale(rows);
    std::vector<std::int32_t> zero(rows);
    kernels::scalar::quantize_u8({joined.data(), k, rows, k, expected.data(), ldq, scale.data(), zero.data()});
    each_set([&](const kernel_table& t) {
      std::vector<std::uint8_t> got(expected.size(), 99);
      std::vector<float> got_scale(rows);
      std::vector<std::int32_t> got_zero(rows);
      t.quantize_pieces_u8({from.data(), pieces, rows, c, got.data(), ldq, got_scale.data(), got_zero.data()});
      CHECK(got_scale == scale);
      CHECK(got_zero == zero);
      for (int r = 0; r < rows; r++)
        CHECK(std::memcmp(got.data() + r * ldq, expected.data() + r * ldq, weights::size(k, 1)) == 0);
    });
  }
  // one tile from c to c channels, each weighted by itself: a depthwise convolution, whose products are 16 c numbers
  for (const int c : {16, 48}) {
    const auto width = weights::size(c, 1);
    constexpr double g[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
    guarded<float> pixels(16 * width), bias(width), kernel(9);
    fill_normal(pixels, random);
    fill_normal(bias, random);
    fill_normal(kernel, random);
    const float* from[16];
    for (int i = 0; i < 16; i++) from[i] = pixels.data() + i * c;
    std::vector<std::vector<float>> seen;
    each_set([&](const kernel_table& t) {
      const std::ptrdiff_t step = c + 32;
      std::vector<float> transformed(weights::size(16, static_cast<int>(step)), 99.f), out(4 * width);
      t.winograd_input(from, transformed.data(), step, c);
      for (int i = 0; i < 16; i++) {
        double w = 0;
        for (int p = 0; p < 9; p++) w += g[i / 4][p / 3] * g[i % 4][p % 3] * static_cast<double>(kernel[weights::size(p, 1)]);
        for (int j = 0; j < c; j++) transformed[static_cast<std::size_t>(i * step + j)] *= static_cast<float>(w);
        CHECK(transformed[static_cast<std::size_t>(i * step + c)] == 99.f);
      }
      float* to[4];
      for (int i = 0; i < 4; i++) to[i] = out.data() + i * c;
      t.winograd_output(transformed.data(), step, bias.data(), to, c);
      for (int i = 0; i < 4; i++)
        for (int j = 0; j < c; j++) {
          double sum = static_cast<double>(bias[weights::size(j, 1)]);
          for (int p = 0; p < 9; p++)
            sum += static_cast<double>(kernel[weights::size(p, 1)]) *
                   static_cast<double>(from[(i / 2 + p / 3) * 4 + i % 2 + p % 3][j]);
          CHECK(to[i][j] == doctest::Approx(sum > 0 ? sum : 0).epsilon(1e-5).scale(10));
        }
      seen.push_back(transformed);
      seen.push_back(out);
    });
    for (std::size_t i = 2; i < seen.size(); i++)
      CHECK(first_difference(seen[i].data(), seen[i % 2].data(), seen[i].size()) < 0);
  }
}

OCELLUS_STRICT_FP_BEGIN
/// One value of a depthwise convolution, as ops/rowwise.hpp defines it.
float depthwise_value(const depthwise_args& a, int pixel, int c) {
  const int width = (a.w - 1) / a.stride + 1;
  float s = a.bias[c];
  for (int k = 0; k < a.side * a.side; k++) {
    const int iy = pixel / width * a.stride + k / a.side - a.side / 2;
    const int ix = pixel % width * a.stride + k % a.side - a.side / 2;
    if (iy >= 0 && iy < a.h && ix >= 0 && ix < a.w)
      s = s + strict_product(a.x[(iy * a.w + ix) * a.ldx + c], a.weights[k * a.ldw + c]);
  }
  return s;
}
OCELLUS_STRICT_FP_END

TEST_CASE("depthwise convolutions: every set has the bits of the definition, at edges too") {
  const fp_env strict;
  rng random(12);
  for (const int c : {16, 48, 64, 80, 144})
    for (const int side : {3, 7})
      for (const int stride : {1, 2}) {
        depthwise_args a;
        a.h = side == 3 ? 5 : 9;
        a.w = c == 48 ? 2 : 12;
        a.c = c;
        a.ldx = c + 3;
        a.ldw = 2 * c;
        a.ldy = c + 5;
        a.side = side;
        a.stride = stride;
        a.end = ((a.h - 1) / stride + 1) * ((a.w - 1) / stride + 1);
        a.begin = a.end / 3;
        std::vector<float> x(static_cast<std::size_t>((a.h * a.w - 1) * a.ldx + c)),
            filter(static_cast<std::size_t>((side * side - 1) * a.ldw + c)), bias(static_cast<std::size_t>(c));
        fill_normal(x, random);
        fill_normal(filter, random);
        fill_normal(bias, random);
        a.x = x.data();
        a.weights = filter.data();
        a.bias = bias.data();
        std::vector<float> expected(static_cast<std::size_t>((a.end - a.begin) * a.ldy), canary);
        for (int i = a.begin; i < a.end; i++)
          for (int j = 0; j < c; j++)
            expected[static_cast<std::size_t>((i - a.begin) * a.ldy + j)] = depthwise_value(a, i, j);
        for (const kernel_set& set : kernel_sets()) {
          if (!set.available) continue;
          INFO(set.name << " C=" << c << " side " << side << " stride " << stride);
          std::vector<float> y(expected.size(), canary);
          a.y = y.data();
          set.table.depthwise_rows(a);
          CHECK(first_difference(y.data(), expected.data(), y.size()) < 0);
        }
      }
}

TEST_CASE("similarity: every set scores stored embeddings with the scalar set's bits, in f32, f16 and s8") {
  const fp_env strict;
  rng random(8);
  for (const int c : {1, 7, 16, 33, 64, 512, 770})
    for (const int n : {1, 3, 4, 9, 11}) {
      const int ld = c + 3;
      const std::size_t size = weights::size(n - 1, ld) + weights::size(c, 1);
      guarded<float> query(weights::size(c, 1)), rows(size), scale(weights::size(n, 1));
      guarded<f16> halves(size);
      guarded<std::int8_t> bytes(size);
      fill_normal(query, random);
      fill_normal(rows, random);
      fill_normal(scale, random);
      for (std::size_t i = 0; i < size; i++) {
        halves[i] = to_f16(rows[i]);
        bytes[i] = static_cast<std::int8_t>(std::clamp(kernels::scalar::round_even(rows[i] * 60), -127, 127));
      }
      dot_rows_args a;
      a.query = query.data();
      a.ld = ld;
      a.n = n;
      a.c = c;
      for (const int kind : {0, 1, 2})
        for (const bool scaled : {false, true}) {
          a.rows = kind == 0   ? static_cast<const void*>(rows.data())
                   : kind == 1 ? static_cast<const void*>(halves.data())
                               : bytes.data();
          a.scale = scaled ? scale.data() : nullptr;
          const auto run = [&](const kernel_table& t) {
            std::vector<float> scores(weights::size(n, 1), canary);
            a.scores = scores.data();
            (kind == 0 ? t.dot_rows_f32 : kind == 1 ? t.dot_rows_f16 : t.dot_rows_s8)(a);
            return scores;
          };
          const std::vector<float> expected = run(scalar_table);
          double sum = 0;
          for (std::size_t i = 0; i < static_cast<std::size_t>(c); i++)
            sum += static_cast<double>(query[i]) * static_cast<double>(kind == 0 ? rows[i]
                                                                       : kind == 1
                                                                           ? to_f32(halves[i])
                                                                           : static_cast<float>(bytes[i]));
          if (!scaled) CHECK(expected[0] == doctest::Approx(sum).epsilon(1e-4).scale(kind == 2 ? 60 : 1));
          for (const kernel_set& set : kernel_sets()) {
            if (!set.available) continue;
            const std::vector<float> got = run(set.table);
            CHECK_MESSAGE(first_difference(got.data(), expected.data(), got.size()) < 0,
                          set.name << " kind " << kind << " C=" << c << " n=" << n);
          }
        }
    }
}

TEST_CASE("similarity: every set widens every finite f16 value as scalar does") {
  const fp_env strict;
  guarded<f16> rows(65536);
  for (std::size_t i = 0; i < 65536; i++) rows[i] = f16{static_cast<std::uint16_t>((i & 0x7c00) != 0x7c00 ? i : 0)};
  guarded<float> query(16);
  for (const std::size_t lane : {0u, 3u, 6u, 9u, 12u, 15u}) {
    std::fill_n(query.data(), 16, 0.f);
    query[lane] = 1;
    dot_rows_args a;
    a.query = query.data();
    a.rows = rows.data();
    a.ld = a.c = 16;
    a.n = 65536 / 16;
    const auto run = [&a](const kernel_table& t) {
      std::vector<float> scores(65536 / 16, canary);
      a.scores = scores.data();
      t.dot_rows_f16(a);
      return scores;
    };
    const std::vector<float> expected = run(scalar_table);
    CHECK(expected[1] == to_f32(rows[16 + lane]));
    for (const kernel_set& set : kernel_sets()) {
      if (!set.available) continue;
      const std::vector<float> got = run(set.table);
      CHECK_MESSAGE(first_difference(got.data(), expected.data(), got.size()) < 0, set.name << " lane " << lane);
    }
  }
}

TEST_CASE("top_k ranks as a stable sort of all scores does") {
  rng random(9);
  for (const int n : {0, 1, 2, 5, 100, 1000})
    for (const int k : {0, 1, 2, 7, 100, 2000}) {
      std::vector<float> scores(static_cast<std::size_t>(n));
      for (float& s : scores) s = static_cast<float>(random() % 50);  // many ties
      std::vector<ranked> all, best(static_cast<std::size_t>(k));
      for (int i = 0; i < n; i++) all.push_back({i, scores[static_cast<std::size_t>(i)]});
      std::sort(all.begin(), all.end(), ranks_before);
      const int found = top_k(scores.data(), n, best.data(), k);
      CHECK(found == std::min(n, k));
      bool same = true;
      for (std::size_t i = 0; i < static_cast<std::size_t>(found); i++)
        same = same && best[i].index == all[i].index && best[i].score == all[i].score;
      CHECK_MESSAGE(same, "n=" << n << " k=" << k);
    }
}

TEST_CASE("top_k by ranges, on one thread or several, finds what it does at once") {
  rng random(10);
  const float nan = std::bit_cast<float>(0x7fc00000u);
  for (const int n : {0, 1, 10, 300})
    for (const int k : {0, 1, 3, 20, 400})
      for (const int range : {1, 7, 64, 300})
        for (const int threads : {1, 3}) {
          std::vector<float> scores(static_cast<std::size_t>(n));
          for (float& s : scores) s = random() % 9 == 0 ? nan : static_cast<float>(random() % 40) - 20;
          const auto places = static_cast<std::size_t>(k);
          std::vector<ranked> expected(places), all;
          const int count = top_k(scores.data(), n, expected.data(), k);
          for (int t = 0; t < threads; t++) {
            std::vector<ranked> best(places);
            int found = 0;
            for (int first = t * range; first < n; first += threads * range)
              found = top_k(scores.data() + first, std::min(range, n - first), best.data(), k, first, found);
            all.insert(all.end(), best.begin(), best.begin() + found);
          }
          std::sort(all.begin(), all.end(), ranks_before);
          REQUIRE(static_cast<int>(all.size()) >= count);
          bool same = true;
          for (std::size_t i = 0; i < static_cast<std::size_t>(count); i++)
            same = same && all[i].index == expected[i].index && !ranks_before(all[i], expected[i]);
          CHECK_MESSAGE(same, "n=" << n << " k=" << k << " range=" << range << " threads=" << threads);
        }
}

TEST_CASE("similarity: rows in panels give a query the same scores alone, among others and by ranges") {
  constexpr int m = 5, n = 75, c = 70, range = 32;
  rng random(11);
  guarded<float> rows(n * c), queries(m * c);
  fill_normal(rows, random);
  fill_normal(queries, random);
  std::vector<float> panels(packed_elements(dtype::f32, n, c));
  std::vector<std::int8_t> bytes(packed_elements(dtype::s8, n, c));
  pack_panels<dtype::f32>(panels.data(), rows.data(), c, n, c, [](float v) { return v; });
  std::vector<float> scale(n);
  std::vector<std::int32_t> sums(n);
  for (std::size_t i = 0; i < n; i++) {
    float most = 0;
    for (std::size_t d = 0; d < c; d++) most = std::max(most, std::abs(rows[i * c + d]));
    scale[i] = most / 127;
    for (std::size_t d = 0; d < c; d++) {
      const int b = kernels::scalar::round_even(rows[i * c + d] / scale[i]);
      bytes[packed_index(dtype::s8, static_cast<int>(i), static_cast<int>(d), c)] = static_cast<std::int8_t>(b);
      sums[i] += b;
    }
  }
  // The queries' bytes by the scalar set, [m, 128]: 70 rounded up to 64, zeros after them.
  std::vector<std::uint8_t> q8(m * 128);
  std::vector<float> q_scale(m);
  std::vector<std::int32_t> q_zero(m);
  quantize_args z;
  z.x = queries.data(), z.ldx = c, z.rows = m, z.c = c;
  z.q = q8.data(), z.ldq = 128, z.scale = q_scale.data(), z.zero = q_zero.data();
  scalar_table.quantize_u8(z);
  for (const bool s8 : {false, true}) {
    const auto score = [&](const kernel_table& t, int query, int count, int first, int end, float* out) {
      gemm_args g;
      const auto at = static_cast<std::size_t>(query), column = static_cast<std::size_t>(first);
      if (s8) {
        g.a = q8.data() + at * 128, g.lda = 128, g.a_scale = q_scale.data() + at, g.a_zero = q_zero.data() + at;
        g.b = bytes.data() + packed_index(dtype::s8, first, 0, c);
        g.b_scale = scale.data() + column, g.b_sum = sums.data() + column;
      } else {
        g.a = queries.data() + at * c, g.lda = c;
        g.b = panels.data() + packed_index(dtype::f32, first, 0, c);
      }
      g.m = count, g.n = end - first, g.k = c;
      g.c = out + query * n + first, g.ldc = n;
      g.panel_end = ceil_div(g.n, panel_width);
      (s8 ? t.gemm_s8 : t.gemm_f32)(g);
    };
    std::vector<float> expected(m * n);
    score(scalar_table, 0, m, 0, n, expected.data());
    for (std::size_t i = 0; i < m * n; i++) {
      double sum = 0;
      for (std::size_t d = 0; d < c; d++)
        sum += static_cast<double>(queries[i / n * c + d]) * static_cast<double>(rows[i % n * c + d]);
      CHECK(std::abs(static_cast<double>(expected[i]) - sum) < (s8 ? 0.5 : 1e-4));  // lengths of about 8
    }
    for (const kernel_set& set : kernel_sets()) {
      if (!set.available) continue;
      std::vector<float> at_once(m * n), alone(m * n), ranges(m * n);
      score(set.table, 0, m, 0, n, at_once.data());
      for (int q = 0; q < m; q++) score(set.table, q, 1, 0, n, alone.data());
      for (int first = 0; first < n; first += range)
        score(set.table, 0, m, first, std::min(n, first + range), ranges.data());
      for (const std::vector<float>* got : {&at_once, &alone, &ranges})
        CHECK_MESSAGE(first_difference(got->data(), expected.data(), expected.size()) < 0, set.name << " s8=" << s8);
    }
  }
}

TEST_CASE("top_k ranks NaN last, whatever the flags") {
  const float nan = std::bit_cast<float>(0x7fc00000u), negative_nan = std::bit_cast<float>(0xffc00001u);
  const float infinity = std::bit_cast<float>(0x7f800000u);
  const float scores[] = {nan, 0.5f, negative_nan, -infinity, -0.f, nan, 0.f, infinity, -1.f, 0.5f, nan, 1e-40f};
  const int expected[] = {7, 1, 9, 11, 4, 6, 8, 3, 0, 2, 5, 10};  // by hand: -ffast-math would sort them otherwise
  constexpr int n = std::size(scores);
  const auto check = [&] {
    for (int k = 1; k <= n + 1; k++) {
      ranked best[n + 1];
      REQUIRE(top_k(scores, n, best, k) == std::min(n, k));
      for (int i = 0; i < std::min(n, k); i++) CHECK_MESSAGE(best[i].index == expected[i], "k=" << k << " i=" << i);
    }
  };
  check();  // where this program flushes denormals, -ffast-math has asked for it
  const fp_env strict;
  check();
  const std::vector<float> none(1000, nan);
  std::vector<ranked> best(100);
  REQUIRE(top_k(none.data(), 1000, best.data(), 100) == 100);
  for (int i = 0; i < 100; i++) CHECK(best[static_cast<std::size_t>(i)].index == i);
}

TEST_CASE("activations: every set equals scalar bit for bit on every bf16 value") {
  const fp_env strict;
  std::vector<float> x;
  for (std::uint32_t code = 0; code < 65536; code++) {
    const float v = to_f32(bf16{static_cast<std::uint16_t>(code)});
    if ((std::bit_cast<std::uint32_t>(v) & 0x7f800000u) != 0x7f800000u) x.push_back(v);
  }
  const int n = static_cast<int>(x.size());
  std::vector<float> expected(x.size()), got(x.size());
  for (int act = 0; act <= 5; act++) {
    scalar_table.activate_rows(expected.data(), n, x.data(), n, 1, n, static_cast<activation>(act));
    for (const kernel_set& set : kernel_sets()) {
      if (!set.available) continue;
      set.table.activate_rows(got.data(), n, x.data(), n, 1, n, static_cast<activation>(act));
      const std::ptrdiff_t at = first_difference(got.data(), expected.data(), x.size());
      CHECK_MESSAGE(at < 0, set.name << " activation " << act << " of "
                                     << x[static_cast<std::size_t>(at < 0 ? 0 : at)]);
    }
  }
}

TEST_CASE("fp_env keeps denormals whatever the program set, and gives the program its state back") {
  volatile float tiny = 1e-30f;
#if defined(__SSE__)
  const unsigned before = _mm_getcsr();
  _mm_setcsr(0x1f80u | 0x8040u | 0x2000u);  // flush, denormals are zero, round down
  {
    const fp_env strict;
    volatile float product = tiny;
    product = product * 1e-10f;
    CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(product)) != 0);
  }
  CHECK(_mm_getcsr() == (0x1f80u | 0x8040u | 0x2000u));
  _mm_setcsr(before);
#else
  const fp_env strict;
  volatile float product = tiny;
  product = product * 1e-10f;
  CHECK(std::bit_cast<std::uint32_t>(static_cast<float>(product)) != 0);
#endif
}
