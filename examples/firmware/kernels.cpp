// Law 2 on a core: each operation of its kernel set gives the bits of the scalar set, which runs beside it, over shapes
// around the edges of tiles and vectors. Prints the set, or the first operation that differs.
#if defined(__ARM_FEATURE_MVE)
#define OCELLUS_SET mve
#include <ocellus/arm/mve.hpp>
#else
#define OCELLUS_SET dsp
#include <ocellus/arm/dsp.hpp>
#endif
#include <ocellus/core/fp_env.hpp>
#include <ocellus/generic/scalar.hpp>

#include "board.hpp"

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>

namespace {

using namespace ocellus;
using own = kernels::OCELLUS_SET;
using scalar = kernels::scalar;

constexpr int most = 4096;       // elements of any matrix, but for factors of the deepest products
constexpr int deep = 584;        // more than sets take at a time, and no multiple of 16
constexpr int factor = 32 * deep;
alignas(64) float a[factor], b[factor], bias[128], residual[most], out[2][most], scratch[2][most];
alignas(64) std::uint8_t bytes[2][most];
alignas(64) std::int8_t weights[factor];
float scale[2][128];
std::int32_t zero[2][128], sums[128];
alignas(64) unsigned char attention_memory[attention_scratch(40, 72)];

std::uint32_t state = 1;
std::uint32_t random() noexcept { return (state = state * 1664525u + 1013904223u) >> 8; }
constexpr bool flushes = own::id == isa::mve;  // denormal results of vectors, law 2's one exception
bool denormal(float x) noexcept { return x != 0 && x < 1.17549435e-38f && x > -1.17549435e-38f; }
/// In [-4, 4), now and then zero, large, or denormal where the set's vectors do not flush that.
float value() noexcept {
  const std::uint32_t r = random();
  if (r % 61 == 0) return r % 2 != 0 ? 0.f : -0.f;
  if (r % 67 == 0 && !flushes) return std::bit_cast<float>(r & 0x807fffffu);
  if (r % 71 == 0) return 3e4f;
  return static_cast<float>(static_cast<std::int32_t>(r % 65536) - 32768) / 8192.f;
}

int wrong = 0;
void compare(const char* what, const void* x, const void* y, std::size_t size) noexcept {
  if (std::memcmp(x, y, size) == 0) return;
  if (wrong++ < 8) {
    board::print("differs: ");
    board::print(what);
    board::print("\n");
  }
}

/// f(set, i): each set in turn writes to out[i], bytes[i], scale[i] and zero[i], which are then compared.
template <class F>
void both(const char* what, const F& f) noexcept {
  for (int i = 0; i < 2; i++) {
    for (float& x : out[i]) x = -7777.25f;
    std::memset(bytes[i], 99, sizeof(bytes[i]));
    std::memset(scale[i], 0, sizeof(scale[i]));
    std::memset(zero[i], 0, sizeof(zero[i]));
  }
  f(scalar{}, 0);
  f(own{}, 1);
  for (int i = 0; i < most && flushes; i++)
    if ((denormal(out[0][i]) && out[1][i] == 0) || (denormal(out[1][i]) && out[0][i] == 0)) out[1][i] = out[0][i];
  compare(what, out[0], out[1], sizeof(out[0]));
  compare(what, bytes[0], bytes[1], sizeof(bytes[0]));
  compare(what, scale[0], scale[1], sizeof(scale[0]));
  compare(what, zero[0], zero[1], sizeof(zero[0]));
}

void fill() noexcept {
  for (float& x : a) x = value();
  for (float& x : b) x = value();
  for (float& x : bias) x = value();
  for (float& x : residual) x = value();
}

constexpr activation activations[] = {activation::none,      activation::gelu, activation::quick_gelu,
                                      activation::gelu_tanh, activation::silu, activation::relu};

void products() noexcept {
  for (const int n : {1, 16, 17, 31, 48})
    for (const int k : {1, 4, 5, 16, 20, 36, 64, deep}) {
      if (k == deep && n != 17) continue;
      static std::uint8_t u8[16 * (deep + 16)];
      static float row_scale[16], column_scale[48];
      static std::int32_t row_zero[16];
      fill();
      for (std::uint8_t& x : u8) x = static_cast<std::uint8_t>(random() % 5 == 0 ? 255 : random());
      for (std::int8_t& x : weights)
        x = static_cast<std::int8_t>(random() % 5 == 0 ? 127 : static_cast<int>(random() % 255) - 127);
      for (float& x : row_scale) x = value();
      for (float& x : column_scale) x = value();
      for (std::int32_t& x : row_zero) x = static_cast<std::int32_t>(random() % 256);
      for (std::int32_t& x : sums) x = static_cast<std::int32_t>(random() % 8192) - 4096;
      if (k == 36)  // products that are denormal, alone or in sum
        for (float& x : a) x *= 1e-37f;
      for (const int m : {1, 2, 3, 4, 5, 6, 7, 13}) {
        gemm_args g;
        g.m = m, g.n = n, g.k = k;
        g.panel_end = ceil_div(n, panel_width);
        g.ldc = n + 1;
        g.ldr = n;
        g.act = activations[(n + k + m) % 6];
        g.bias = m % 3 != 0 ? bias : nullptr;
        g.residual = m % 2 != 0 ? residual : nullptr;
        if (k == 36) {
          g.act = activation::none;
          g.bias = g.residual = nullptr;
        }
        g.a = a;
        g.lda = k + 1;
        g.b = b;
        both("gemm_f32", [&](auto set, int i) { g.c = out[i], set.gemm_f32(g); });
        alignas(64) static std::uint16_t halves[2][factor];
        for (std::uint16_t& x : halves[0])  // subnormal ones too, which become normal floats
          x = std::bit_cast<std::uint16_t>(to_f16(random() % 5 == 0 ? value() / 65536.f : value()));
        for (std::uint16_t& x : halves[1]) x = static_cast<std::uint16_t>(std::bit_cast<std::uint32_t>(value()) >> 16);
        g.b = halves[0];
        both("gemm_f16", [&](auto set, int i) { g.c = out[i], set.gemm_f16(g); });
        g.b = halves[1];
        both("gemm_bf16", [&](auto set, int i) { g.c = out[i], set.gemm_bf16(g); });
        g.a = u8;
        g.lda = round_up(k, 8) + 8;
        g.a_scale = row_scale;
        g.a_zero = row_zero;
        g.b = weights;
        g.b_scale = column_scale;
        g.b_sum = sums;
        both("gemm_s8", [&](auto set, int i) { g.c = out[i], set.gemm_s8(g); });
      }
    }
}

void attentions() noexcept {
  for (const int d : {8, 16, 36, 64})
    for (const int tk : {1, 5, 17, 33}) {
      fill();
      attention_args t;
      t.q = a, t.k = b, t.v = residual;
      t.ldq = t.ldk = t.ldv = t.ldo = d + 1;
      t.tk = tk, t.d = d;
      t.scale = 0.25f;
      t.scratch = attention_memory;
      for (const int tq : {1, 5, tk})
        for (const bool causal : {false, true}) {
          if (tq > tk) continue;
          t.tq = tq;
          t.causal = causal;
          t.causal_offset = tk - tq;
          both("attention_f32", [&](auto set, int i) { t.out = out[i], set.attention_f32(t); });
          both("attention_s8", [&](auto set, int i) { t.out = out[i], set.attention_s8(t); });
        }
    }
}

void rows() noexcept {
  for (const int c : {1, 2, 15, 16, 17, 33, 64, 100}) {
    fill();
    constexpr int count = 7;
    const int ld = c + 1;
    for (int i = 0; i < c; i++) a[2 * ld + i] = 0;
    layer_norm_args n;
    n.x = a;
    n.ldx = n.ldy = ld;
    n.gain = b;
    n.bias = bias;
    n.rows = count;
    n.c = c;
    both("layer_norm", [&](auto set, int i) { n.y = out[i], set.layer_norm(n); });
    n.ldq = round_up(c, 16);
    both("layer_norm_u8", [&](auto set, int i) {
      n.y = scratch[i], n.q = bytes[i], n.scale = scale[i], n.zero = zero[i];
      set.layer_norm_u8(n);
    });
    quantize_args q;
    q.x = a;
    q.ldx = ld;
    q.rows = count;
    q.c = c;
    q.ldq = n.ldq;
    both("quantize_u8", [&](auto set, int i) {
      q.q = bytes[i], q.scale = scale[i], q.zero = zero[i];
      set.quantize_u8(q);
    });
    for (const activation act : activations) {
      both("activate_rows", [&](auto set, int i) { set.activate_rows(out[i], ld, a, ld, count, c, act); });
      both("gate_rows", [&](auto set, int i) { set.gate_rows(out[i], ld, a, 2 * c, count, c, act); });
    }
    both("rotate_rows", [&](auto set, int i) {
      std::memcpy(out[i], a, sizeof(out[i]));
      set.rotate_rows(out[i], 2 * c, b, count, 1, 2 * c);
    });
    both("l2_normalize", [&](auto set, int i) { set.l2_normalize(out[i], a, c); });
    dot_rows_args d;
    d.query = a;
    d.ld = ld;
    d.n = count;
    d.c = c;
    d.scale = bias;
    d.rows = b;
    both("dot_rows_f32", [&](auto set, int i) { d.scores = out[i], set.dot_rows_f32(d); });
    static f16 halves[count * 101];
    for (f16& x : halves) x = to_f16(value());
    d.rows = halves;
    both("dot_rows_f16", [&](auto set, int i) { d.scores = out[i], set.dot_rows_f16(d); });
    d.rows = weights;
    both("dot_rows_s8", [&](auto set, int i) { d.scores = out[i], set.dot_rows_s8(d); });
  }
}

}  // namespace

int main() {
  const fp_env strict;
  products();
  attentions();
  rows();
  if (wrong != 0) return 1;
  board::print("kernel sets ran: ");
  board::print(to_string(own::id).data());
  board::print(" scalar\n");
  return 0;
}
