// The peak of this machine's multiply-add units and its read bandwidth: what the benchmarks' "% of peak" divides by.
//
//   bench-peak [THREADS]      one JSON object: GMAC/s of each unit, GB/s from each level, all threads together
//
// Each unit runs independent chains of accumulators in registers (peak.hpp). The best of many runs of a few milliseconds
// each counts, so that other work on the machine has to be constant to disturb it.
#include "peak.hpp"

#include <ocellus/core/thread_pool.hpp>

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

using peak::unit;
using peak::units;

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
  if (threads > ocellus::thread_pool::cores()) {  // they would run one after the other, and their rates add up all the same
    std::fprintf(stderr, "bench-peak: %d threads, but this process may use %d CPUs\n", threads, ocellus::thread_pool::cores());
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
      return static_cast<double>(loops) * u.macs / seconds_since(start);
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
