// The peak of this machine's multiply-add units and its read bandwidth: what the benchmarks' "% of peak" divides by.
//
//   bench-peak [THREADS]      one JSON object: GMAC/s of each unit, GB/s from each level, all threads together
//
// Each unit runs 12 independent chains of accumulators in registers, with nothing else in the loop: enough for a latency
// of 6 cycles at two a cycle. The best of many runs of a few milliseconds each counts, so that other work on the machine
// has to be constant to disturb it.
#include <ocellus/isa/detect.hpp>

#include <atomic>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

namespace {

using wall_clock = std::chrono::steady_clock;

struct unit {
  const char* name;
  const char* type;  // of the weights that it multiplies
  int macs;          // of one instruction
  void (*run)(long loops);
  bool there;
};

constexpr int chains = 12;

#if defined(__x86_64__)

#define CHAIN(i) " %13, %12, %" #i "\n\t"
// 0x3c3c.. is a small normal number in f32 and bf16, and about one in fp16.
#define UNIT(name, features, bytes, instruction)                                                                            \
  __attribute__((target(features), noinline)) void name(long loops) {                                                       \
    typedef float vector __attribute__((vector_size(bytes)));                                                               \
    vector a, c[chains];                                                                                                    \
    std::memset(&a, 0x3c, sizeof a);                                                                                        \
    std::memset(c, 0, sizeof c);                                                                                            \
    vector c0 = c[0], c1 = c[1], c2 = c[2], c3 = c[3], c4 = c[4], c5 = c[5], c6 = c[6], c7 = c[7], c8 = c[8], c9 = c[9],    \
           c10 = c[10], c11 = c[11];                                                                                        \
    const vector b = a;                                                                                                     \
    for (; loops > 0; loops--)                                                                                              \
      asm volatile(instruction CHAIN(0) instruction CHAIN(1) instruction CHAIN(2) instruction CHAIN(3) instruction CHAIN(4) \
                       instruction CHAIN(5) instruction CHAIN(6) instruction CHAIN(7) instruction CHAIN(8)                  \
                           instruction CHAIN(9) instruction CHAIN(10) instruction CHAIN(11)                                 \
                   : "+v"(c0), "+v"(c1), "+v"(c2), "+v"(c3), "+v"(c4), "+v"(c5), "+v"(c6), "+v"(c7), "+v"(c8), "+v"(c9),    \
                     "+v"(c10), "+v"(c11)                                                                                   \
                   : "v"(a), "v"(b));                                                                                       \
  }

UNIT(fma_256, "avx2,fma", 32, "vfmadd231ps")
UNIT(fma_512, "avx512f", 64, "vfmadd231ps")
UNIT(bf16_512, "avx512f,avx512bf16", 64, "vdpbf16ps")
UNIT(vnni_256, "avx2", 32, "%{vex%} vpdpbusd")
UNIT(vnni_512, "avx512f,avx512vnni", 64, "vpdpbusd")
UNIT(fp16_512, "avx512f", 64, "vfmadd231ph")

std::vector<unit> units() {
  const ocellus::cpu_features f = ocellus::detect_cpu();
  return {{"fma_ymm", "f32", 8, fma_256, f.avx2},           {"fma_zmm", "f32", 16, fma_512, f.avx512},
          {"vdpbf16ps_zmm", "bf16", 32, bf16_512, f.avx512bf16}, {"vfmaddph_zmm", "f16", 32, fp16_512, f.avx512fp16},
          {"vpdpbusd_ymm", "s8", 32, vnni_256, f.avxvnni},  {"vpdpbusd_zmm", "s8", 64, vnni_512, f.avx512vnni}};
}

#elif defined(__aarch64__)

void fma_128(long loops) {
  for (; loops > 0; loops--)
    asm volatile(
        "fmla v0.4s, v30.4s, v31.4s\n\t fmla v1.4s, v30.4s, v31.4s\n\t fmla v2.4s, v30.4s, v31.4s\n\t"
        "fmla v3.4s, v30.4s, v31.4s\n\t fmla v4.4s, v30.4s, v31.4s\n\t fmla v5.4s, v30.4s, v31.4s\n\t"
        "fmla v6.4s, v30.4s, v31.4s\n\t fmla v7.4s, v30.4s, v31.4s\n\t fmla v16.4s, v30.4s, v31.4s\n\t"
        "fmla v17.4s, v30.4s, v31.4s\n\t fmla v18.4s, v30.4s, v31.4s\n\t fmla v19.4s, v30.4s, v31.4s" ::
            : "v0", "v1", "v2", "v3", "v4", "v5", "v6", "v7", "v16", "v17", "v18", "v19");
}

std::vector<unit> units() { return {{"fmla", "f32", 4, fma_128, true}}; }

#else

std::vector<unit> units() { return {}; }

#endif

/// Sums of `f(thread)`, rates of all threads at once, best of `runs`.
template <class F>
double best(int threads, int runs, F&& f) {
  double most = 0;
  for (int r = 0; r < runs; r++) {
    std::vector<double> rates(static_cast<std::size_t>(threads));
    std::atomic<int> waiting{threads};
    const auto body = [&](int t) {
      waiting.fetch_sub(1);
      while (waiting.load() > 0) std::this_thread::yield();
      rates[static_cast<std::size_t>(t)] = f(t);
    };
    std::vector<std::thread> others;
    for (int t = 1; t < threads; t++) others.emplace_back(body, t);
    body(0);
    for (std::thread& t : others) t.join();
    double sum = 0;
    for (const double x : rates) sum += x;
    most = sum > most ? sum : most;
  }
  return most;
}

double seconds_since(wall_clock::time_point start) {
  return std::chrono::duration<double>(wall_clock::now() - start).count();
}

/// Bytes a second of reading `words` 64-bit words `times` over.
double read_rate(const std::uint64_t* data, std::size_t words, int times) {
  std::uint64_t sum[8] = {};
  const auto start = wall_clock::now();
  for (int r = 0; r < times; r++) {
#if defined(__x86_64__)
    for (std::size_t i = 0; i < words; i += 32)
      asm volatile("movdqu (%0), %%xmm0\n\t movdqu 16(%0), %%xmm1\n\t movdqu 32(%0), %%xmm2\n\t movdqu 48(%0), %%xmm3\n\t"
                   "movdqu 64(%0), %%xmm0\n\t movdqu 80(%0), %%xmm1\n\t movdqu 96(%0), %%xmm2\n\t movdqu 112(%0), %%xmm3\n\t"
                   "movdqu 128(%0), %%xmm0\n\t movdqu 144(%0), %%xmm1\n\t movdqu 160(%0), %%xmm2\n\t movdqu 176(%0), %%xmm3\n\t"
                   "movdqu 192(%0), %%xmm0\n\t movdqu 208(%0), %%xmm1\n\t movdqu 224(%0), %%xmm2\n\t movdqu 240(%0), %%xmm3"
                   :
                   : "r"(data + i)
                   : "xmm0", "xmm1", "xmm2", "xmm3", "memory");
#else
    for (std::size_t i = 0; i < words; i += 8)
      for (std::size_t j = 0; j < 8; j++) sum[j] += data[i + j];
#endif
  }
  const double took = seconds_since(start);
  volatile std::uint64_t keep = 0;
  for (const std::uint64_t s : sum) keep = keep + s;
  return static_cast<double>(words) * 8 * times / took;
}

}  // namespace

int main(int argc, char** argv) {
  const int threads = argc > 1 ? std::atoi(argv[1]) : 1;
  if (threads < 1 || threads > 1024) {
    std::fputs("usage: bench-peak [THREADS]\n", stderr);
    return 2;
  }
  std::printf("{\"threads\": %d, \"gmac_s\": {", threads);
  const char* comma = "";
  for (const unit& u : units()) {
    if (!u.there) continue;
    constexpr long loops = 500000;
    const double rate = best(threads, 60, [&](int) {
      u.run(loops / 10);
      const auto start = wall_clock::now();
      u.run(loops);
      return static_cast<double>(loops) * chains * u.macs / seconds_since(start);
    });
    std::printf("%s\"%s\": {\"type\": \"%s\", \"best\": %.1f}", comma, u.name, u.type, rate * 1e-9);
    comma = ", ";
  }
  std::printf("}, \"read_gb_s\": {");
  comma = "";
  const struct {
    const char* name;
    std::size_t bytes;
  } levels[] = {{"512 KiB", 512u << 10}, {"8 MiB", 8u << 20}, {"256 MiB", 256u << 20}};
  for (const auto& level : levels) {
    const std::size_t words = level.bytes / 8;
    std::vector<std::vector<std::uint64_t>> data(static_cast<std::size_t>(threads), std::vector<std::uint64_t>(words, 1));
    const int times = static_cast<int>((256u << 20) / level.bytes);
    const double rate =
        best(threads, 12, [&](int t) { return read_rate(data[static_cast<std::size_t>(t)].data(), words, times); });
    std::printf("%s\"%s\": %.1f", comma, level.name, rate * 1e-9);
    comma = ", ";
  }
  std::printf("}}\n");
}
