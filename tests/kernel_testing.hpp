// What the kernel tests share: the sets of list.def with what this CPU can run, buffers that end at a guard
// page, and random operands in every layout.
#pragma once

#include <ocellus/isa/dispatch.hpp>

#if defined(_WIN32)
#if !defined(NOMINMAX)
#define NOMINMAX
#endif
#include <windows.h>
#elif !defined(__wasm__)
#include <sys/mman.h>
#include <unistd.h>
#endif

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <random>
#include <string>
#include <type_traits>
#include <vector>

// A sanitizer that stands in for malloc and takes more stack.
#if defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(memory_sanitizer)
#define OCELLUS_TEST_SANITIZER
#endif
#endif
#if defined(__SANITIZE_ADDRESS__)
#define OCELLUS_TEST_SANITIZER
#endif

namespace kernel_testing {
namespace {

using namespace ocellus;

/// One line of list.def.
struct kernel_set {
  std::string name;
  bool available = false;
  bool exact_f16 = true, exact_bf16 = true;  ///< whether law 2 holds for that gemm
  kernel_table table;
};

/// Emulators are slow: with OCELLUS_SPARSE=N in the environment, a test of many shapes takes every Nth of them.
inline int sparse() {
  static const int every = [] {
    const char* text = std::getenv("OCELLUS_SPARSE");
    return std::max(text == nullptr ? 1 : std::atoi(text), 1);
  }();
  return every;
}

inline std::vector<kernel_set> kernel_sets() {
  std::vector<kernel_set> sets;
  const cpu_features cpu = detect_cpu();
#define OCELLUS_KERNEL_SET(name, available) \
  sets.push_back({#name, (available), kernels::name::exact_f16, kernels::name::exact_bf16, \
                  make_table<kernels::name>()});
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
  static_cast<void>(cpu);
  return sets;
}

/// "kernel sets ran: a, b; skipped: c (not in this CPU)", and of how many shapes if not of all.
inline std::string coverage() {
  std::string ran = "kernel sets ran:", skipped;
  for (const kernel_set& s : kernel_sets()) {
    if (s.available) {
      ran += " " + s.name;
    } else {
      skipped += (skipped.empty() ? "; skipped:" : "") + (" " + s.name);
    }
  }
  if (!skipped.empty()) ran += skipped + " (not in this CPU)";
  return sparse() > 1 ? ran + "; one shape of " + std::to_string(sparse()) : ran;
}

/// n elements that end where a page begins that nobody may touch: an over-read of more than `slack` elements
/// faults. WebAssembly has no such pages: there it is plain memory.
template <class T>
class guarded {
 public:
#if defined(__wasm__)
  explicit guarded(std::size_t n, std::size_t slack = 0)
      : n_(n), data_(static_cast<T*>(std::calloc(n + slack, sizeof(T)))) {
    if (data_ == nullptr) std::abort();
  }
  ~guarded() { std::free(data_); }
#elif defined(_WIN32)
  explicit guarded(std::size_t n, std::size_t slack = 0) : n_(n) {
    constexpr std::size_t page = 4096;
    const std::size_t bytes = (n + slack) * sizeof(T), used = (bytes + page - 1) / page * page;
    base_ = static_cast<char*>(VirtualAlloc(nullptr, used + page, MEM_RESERVE, PAGE_NOACCESS));
    if (base_ == nullptr) std::abort();
    if (used > 0 && VirtualAlloc(base_, used, MEM_COMMIT, PAGE_READWRITE) == nullptr) std::abort();
    data_ = reinterpret_cast<T*>(base_ + used - bytes);
  }
  ~guarded() { VirtualFree(base_, 0, MEM_RELEASE); }
#else
  explicit guarded(std::size_t n, std::size_t slack = 0) : n_(n) {
    const std::size_t page = static_cast<std::size_t>(sysconf(_SC_PAGESIZE));
    const std::size_t bytes = (n + slack) * sizeof(T);
    mapped_ = (bytes + page - 1) / page * page + page;
    void* m = mmap(nullptr, mapped_, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (m == MAP_FAILED) std::abort();
    base_ = static_cast<char*>(m);
    mprotect(base_ + mapped_ - page, page, PROT_NONE);
    data_ = reinterpret_cast<T*>(base_ + mapped_ - page - bytes);
  }
  ~guarded() { munmap(base_, mapped_); }
#endif
  guarded(const guarded&) = delete;
  guarded& operator=(const guarded&) = delete;

  T* data() { return data_; }
  T& operator[](std::size_t i) { return data_[i]; }
  std::size_t size() const { return n_; }
  T* begin() { return data_; }
  T* end() { return data_ + n_; }

 private:
  std::size_t n_;
#if !defined(__wasm__)
#if !defined(_WIN32)
  std::size_t mapped_ = 0;
#endif
  char* base_ = nullptr;
#endif
  T* data_ = nullptr;
};

/// A program's floating-point state that entry points must not compute in: on x86 it rounds up and flushes denormals.
class odd_fp_env {
 public:
#if defined(__SSE__)
  odd_fp_env() : saved_(_mm_getcsr()) { _mm_setcsr(0x1f80u | 0x8040u | 0x4000u); }
  ~odd_fp_env() { _mm_setcsr(saved_); }

 private:
  unsigned saved_;
#else
  odd_fp_env() {}
  ~odd_fp_env() {}

 public:
#endif
  odd_fp_env(const odd_fp_env&) = delete;
  odd_fp_env& operator=(const odd_fp_env&) = delete;
};

using rng = std::mt19937;

/// Nearly normal, by the sum of four uniform numbers: the same values from every standard library, and quick where
/// std::normal_distribution calls logl for each number (libstdc++ by clang), in software on 64-bit Arm and RISC-V.
template <class Buffer>
void fill_normal(Buffer& b, rng& random, float scale = 1) {
  constexpr float deviation = 37837.f;  // of the sum: 65536 * sqrt(4 / 12.)
  for (float& x : b) {
    const auto u = static_cast<std::uint32_t>(random()), v = static_cast<std::uint32_t>(random());
    const int sum = static_cast<int>((u & 0xffff) + (u >> 16) + (v & 0xffff) + (v >> 16)) - 131070;
    x = static_cast<float>(sum) / deviation * scale;
  }
}

/// A matrix W[n, k] packed for one of the gemms, and what goes with it.
struct weights {
  weights(dtype t, int n_, int k_, rng& random)
      : type(t),
        n(n_),
        k(k_),
        w(size(n, k)),
        panels(packed_elements(t, n_, k_) * size_of(t)),
        bias(size(n, 1)),
        scale(size(n, 1)),
        sum(size(n, 1)) {
    fill_normal(w, random);
    fill_normal(bias, random);
    std::uniform_real_distribution<float> positive(0.01f, 0.05f);
    for (float& s : scale) s = positive(random);
    if (t == dtype::f32) pack_panels<dtype::f32>(as<float>(), w.data(), k, n, k, [](float x) { return x; });
    if (t == dtype::f16)
      pack_panels<dtype::f16>(as<f16>(), w.data(), k, n, k, [](float x) { return to_f16(x); });
    if (t == dtype::bf16)
      pack_panels<dtype::bf16>(as<bf16>(), w.data(), k, n, k, [](float x) { return to_bf16(x); });
    if (t == dtype::s8) {
      for (float& x : w)
        x = std::clamp(static_cast<float>(kernels::scalar::round_even(x * 50)), -127.f, 127.f);
      w[0] = 127;
      w[size(n, k) - 1] = -127;
      pack_panels<dtype::s8>(as<std::int8_t>(), w.data(), k, n, k,
                             [](float x) { return static_cast<std::int8_t>(x); });
      for (int c = 0; c < n; c++) {
        sum[size(c, 1)] = 0;
        for (int d = 0; d < k; d++) sum[size(c, 1)] += static_cast<std::int32_t>(w[size(c, k) + size(d, 1)]);
      }
    }
    if (t == dtype::f16) for (float& x : w) x = to_f32(to_f16(x));
    if (t == dtype::bf16) for (float& x : w) x = to_f32(to_bf16(x));
  }
  static std::size_t size(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }
  template <class T>
  T* as() {
    return reinterpret_cast<T*>(panels.data());
  }

  dtype type;
  int n, k;
  std::vector<float> w;           // [n, k], as stored
  guarded<unsigned char> panels;  // ends at a guard page
  guarded<float> bias, scale;
  guarded<std::int32_t> sum;
};

/// Activations A[m, k] with a row stride above k, in f32 and quantised.
struct inputs {
  inputs(int m_, int k_, rng& random, float scale_by = 1)
      : m(m_), k(k_), ld(k_ + 5), ldq(round_up(k_, 64) + 8), a(weights::size(m - 1, ld) + weights::size(k, 1)),
        q(weights::size(m - 1, ldq) + weights::size(round_up(k_, 64), 1)), scale(weights::size(m, 1)),
        zero(weights::size(m, 1)) {
    fill_normal(a, random, scale_by);
    quantize_args z;
    z.x = a.data();
    z.ldx = ld;
    z.rows = m;
    z.c = k;
    std::vector<std::uint8_t> row(weights::size(k, 1) + 16);
    for (int r = 0; r < m; r++) {
      z.x = a.data() + r * ld;
      z.rows = 1;
      z.q = row.data();
      z.scale = scale.data() + r;
      z.zero = zero.data() + r;
      kernels::scalar::quantize_u8(z);
      std::memcpy(q.data() + r * ldq, row.data(), weights::size(k, 1));
      for (int i = k; i < round_up(k, 64); i++)
        q[static_cast<std::size_t>(r * ldq + i)] = 200;  // meets zero weights
    }
  }
  int m, k, ld, ldq;
  guarded<float> a;         // [m, k], stride ld
  guarded<std::uint8_t> q;  // [m, k rounded up to 64], stride ldq
  guarded<float> scale;
  guarded<std::int32_t> zero;
};

inline gemm_args make_gemm(inputs& x, weights& w) {
  gemm_args g;
  g.a = w.type == dtype::s8 ? static_cast<const void*>(x.q.data()) : x.a.data();
  g.lda = w.type == dtype::s8 ? x.ldq : x.ld;
  g.a_scale = x.scale.data();
  g.a_zero = x.zero.data();
  g.b = w.panels.data();
  g.b_scale = w.scale.data();
  g.b_sum = w.sum.data();
  g.bias = w.bias.data();
  g.m = x.m;
  g.n = w.n;
  g.k = w.k;
  g.panel_end = ceil_div(w.n, panel_width);
  return g;
}

inline void run_gemm(const kernel_table& t, dtype type, const gemm_args& g) {
  (type == dtype::f32    ? t.gemm_f32
   : type == dtype::f16  ? t.gemm_f16
   : type == dtype::bf16 ? t.gemm_bf16
                         : t.gemm_s8)(g);
}

inline bool exact(const kernel_set& s, dtype type) {
  return type == dtype::f16 ? s.exact_f16 : type == dtype::bf16 ? s.exact_bf16 : true;
}

/// Where two float arrays differ first in a bit, or -1.
inline std::ptrdiff_t first_difference(const float* a, const float* b, std::size_t n) {
  if (std::memcmp(a, b, n * sizeof(float)) == 0) return -1;
  for (std::size_t i = 0; i < n; i++)
    if (std::memcmp(a + i, b + i, sizeof(float)) != 0) return static_cast<std::ptrdiff_t>(i);
  return -1;
}

/// Random operands of an attention, `rows` of each with row stride ld; scratch ends at its guard page. `args` lacks `out`.
struct attention_inputs {
  guarded<float> q, k, v, scratch;
  std::vector<int> order;  ///< the keys, permuted: for args.key_rows
  attention_args args;

  attention_inputs(int rows, int tq, int tk, int d, int ld, rng& random)
      : q(static_cast<std::size_t>(rows * ld), 15),
        k(q.size(), 15),
        v(q.size(), 15),
        scratch(attention_scratch(tk, d) / sizeof(float)),
        order(static_cast<std::size_t>(tk)) {
    fill_normal(q, random);
    fill_normal(k, random);
    fill_normal(v, random);
    for (int j = 0; j < tk; j++) order[static_cast<std::size_t>(j)] = (j * 7 + 3) % tk;
    args.q = q.data();
    args.k = k.data();
    args.v = v.data();
    args.ldq = args.ldk = args.ldv = args.ldo = ld;
    args.tq = tq;
    args.tk = tk;
    args.d = d;
    args.scale = 1.f / std::sqrt(static_cast<float>(d));
    args.scratch = scratch.data();
  }
};

}  // namespace
}  // namespace kernel_testing
