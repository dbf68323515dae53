// A small thread pool for programs that have none of their own: the caller's thread works too, idle workers spin
// briefly (towers hand out work every few microseconds) and then sleep. Each thread runs neighbouring tasks in order,
// because kernels fetch the weights of the next one ahead; a thread that is done takes tasks from the end of another's,
// so that one whose core is taken away holds up no more than the task it is in.
//
//   ocellus::thread_pool pool(4);             // starts three threads; the library itself never starts one
//   auto image = model.encode_image(photo, pool.executor());
#pragma once

#include <ocellus/core/executor.hpp>

#include <atomic>
#include <condition_variable>
#include <cstdint>
#include <mutex>
#include <thread>
#include <vector>

#if defined(__linux__)
#include <sched.h>

#include <cstdio>
#include <cstring>
#include <memory>
#include <string>
#endif
#if defined(__x86_64__) || defined(__i386__)
#include <emmintrin.h>
#endif

OCELLUS_BEGIN

#if defined(__linux__)
namespace detail {

/// Cores for which the processor time of this process's control groups lasts (docker --cpus, Kubernetes limits,
/// systemd's CPUQuota), rounded up; 0: as many as there are. Of cgroup v2 (cpu.max) and v1 (cpu.cfs_quota_us), of the
/// process's own group and all above it. A container may not see its path: then what is mounted is its group.
inline int quota_cores(const char* groups = "/proc/self/cgroup", const std::string& mounted = "/sys/fs/cgroup") {
  using text_file = std::unique_ptr<std::FILE, int (*)(std::FILE*)>;
  const auto open = [](const char* path) {
    return text_file(std::fopen(path, "re"), [](std::FILE* f) { return std::fclose(f); });
  };
  const auto number = [&](const std::string& path) {
    const text_file f = open(path.c_str());
    long long n = 0;
    return f && std::fscanf(f.get(), "%lld", &n) == 1 ? n : 0;
  };
  const text_file lines = open(groups);
  long long least = 0;
  char line[4096];
  while (lines && std::fgets(line, sizeof(line), lines.get()) != nullptr) {  // 0::path in v2
    line[std::strcspn(line, "\n")] = '\0';
    const char* const list = std::strchr(line, ':');
    const char* const path = list == nullptr ? nullptr : std::strchr(list + 1, ':');
    if (path == nullptr) continue;
    const bool v2 = path == list + 1;
    const std::string controllers = ',' + std::string(list + 1, path) + ',', base = v2 ? mounted : mounted + "/cpu";
    if (!v2 && controllers.find(",cpu,") == std::string::npos) continue;
    std::string group = path + 1;
    for (bool more = true; more;) {
      const std::string folder = base + group;
      long long quota = 0, period = 0;  // microseconds of time in each period; "max": no limit
      if (!v2) {
        quota = number(folder + "/cpu.cfs_quota_us");
        period = number(folder + "/cpu.cfs_period_us");
      } else if (const text_file f = open((folder + "/cpu.max").c_str());
                 f && std::fscanf(f.get(), "%lld %lld", &quota, &period) != 2) {
        quota = 0;
      }
      if (quota > 0 && period > 0) {
        const long long cores = (quota - 1) / period + 1;
        least = least == 0 || cores < least ? cores : least;
      }
      const std::size_t parent = group.rfind('/');
      more = parent != std::string::npos;
      if (more) group.erase(parent);
    }
  }
  return static_cast<int>(least < 1024 ? least : 1024);
}

}  // namespace detail
#endif

class thread_pool {
 public:
  /// threads: how many work at once, the calling one counted; 0: cores(). Throws what the standard library throws if
  /// there is no memory (std::bad_alloc) or no further thread (std::system_error).
  explicit thread_pool(int threads = 0) : thread_pool(sized{threads > 0 ? threads : cores()}) {
    // where this throws, the destructor ends the threads started so far: the other constructor is done
    for (int i = 1; i < static_cast<int>(runs_.size()); i++) workers_.emplace_back([this, i] { work(i); });
  }
  thread_pool(const thread_pool&) = delete;
  thread_pool& operator=(const thread_pool&) = delete;
  ~thread_pool() {
    {
      const std::lock_guard<std::mutex> lock(mutex_);
      stop_.store(true);
      generation_.fetch_add(1);
    }
    wake_.notify_all();
    for (std::thread& t : workers_) t.join();
  }

  int threads() const noexcept { return static_cast<int>(workers_.size()) + 1; }

  /// A handle to this pool; one call at a time (calls from several threads queue up). A task may call its own pool: it
  /// then runs those tasks itself, one after the other. Tasks of two pools must not call each other's pool. A process
  /// that fork() made has none of the threads: it makes a pool of its own, and does not destroy this one.
  ocellus::executor executor() noexcept { return {&run, this, threads()}; }

  /// The cores that this process may use, at least 1: on Linux those of its affinity mask (taskset, cpusets), but no
  /// more than its control groups have processor time for. Throws std::bad_alloc.
  static int cores() {
    int all = static_cast<int>(std::thread::hardware_concurrency());
#if defined(__linux__)
#if defined(CPU_COUNT)
    cpu_set_t set;
    CPU_ZERO(&set);
    if (sched_getaffinity(0, sizeof(set), &set) == 0) all = CPU_COUNT(&set);  // fails beyond 1024 cores
#endif
    const int quota = detail::quota_cores();
    if (quota > 0 && quota < all) all = quota;
#endif
    return all < 1 ? 1 : all;
  }

 private:
  struct sized {
    int threads;
  };
  explicit thread_pool(sized s) : runs_(static_cast<std::size_t>(s.threads)) {}

  static void run(void* self, int n, ocellus::executor::task_function task, void* context) {
    static_cast<thread_pool*>(self)->run_tasks(n, task, context);
  }

  void run_tasks(int n, ocellus::executor::task_function task, void* context) {
    if (n <= 0) return;
    if (working_for_ == this) {  // a task of this pool: the call it is part of holds call_ until it ends
      for (int i = 0; i < n; i++) task(context, i);
      return;
    }
    const std::lock_guard<std::mutex> one_call(call_);
    task_ = task;
    context_ = context;
    unfinished_.store(n, std::memory_order_relaxed);
    const std::uint64_t all = static_cast<std::uint64_t>(n), parts = runs_.size();
    for (std::uint64_t i = 0; i < parts; i++)
      runs_[static_cast<std::size_t>(i)].left.store(all * i / parts << 32 | all * (i + 1) / parts,
                                                    std::memory_order_release);
    generation_.fetch_add(1);
    if (sleeping_.load() > 0) {
      { const std::lock_guard<std::mutex> lock(mutex_); }
      wake_.notify_all();
    }
    const thread_pool* const outer = working_for_;
    working_for_ = this;
    take_tasks(0);
    working_for_ = outer;
    int spins = 0;
    while (unfinished_.load(std::memory_order_acquire) != 0) pause(spins);
  }

  // A call ends when its tasks have, not when each worker was there: one that the machine lets wait, for others have
  // its core, holds nobody up unless it is within a task. It may then come in the middle of a later call; whoever got a
  // task finds task_ and context_ of the call that it belongs to, which cannot end before.
  void take_tasks(int thread) {
    int done = 0;
    for (int i = 0; i < threads(); i++) {
      const int owner = (thread + i) % threads();
      for (int task; (task = runs_[static_cast<std::size_t>(owner)].take(owner == thread)) >= 0; done++)
        task_(context_, task);
    }
    if (done > 0) unfinished_.fetch_sub(done, std::memory_order_release);
  }

  void work(int thread) {
    working_for_ = this;
    std::uint32_t seen = 0;
    for (;;) {
      int spins = 0;
      while (generation_.load(std::memory_order_acquire) == seen) {
        if (spins < spin_limit) {
          pause(spins);
          continue;
        }
        std::unique_lock<std::mutex> lock(mutex_);
        sleeping_.fetch_add(1);
        wake_.wait(lock, [&] { return generation_.load() != seen; });
        sleeping_.fetch_sub(1);
      }
      seen = generation_.load(std::memory_order_acquire);
      if (stop_.load()) return;
      take_tasks(thread);
    }
  }

  /// Tasks [begin, end) of one thread that nobody has taken: begin in the upper half of `left`.
  struct alignas(64) tasks {
    std::atomic<std::uint64_t> left{0};

    /// The next one for the owner, the last one for others, -1 if there is none.
    int take(bool first) noexcept {
      std::uint64_t now = left.load(std::memory_order_relaxed);
      for (;;) {
        const std::uint64_t begin = now >> 32, end = now & 0xffffffffu;
        if (begin >= end) return -1;
        const std::uint64_t then = first ? now + (std::uint64_t{1} << 32) : now - 1;
        if (left.compare_exchange_weak(now, then, std::memory_order_acquire, std::memory_order_relaxed))
          return static_cast<int>(first ? begin : end - 1);
      }
    }
  };

  // About 50 microseconds of spinning; yielding in between, so that a machine with more threads than cores still moves.
  static constexpr int spin_limit = 2000;
  static void pause(int& spins) {
    if (++spins % 256 == 0) {
      std::this_thread::yield();
      return;
    }
#if defined(__x86_64__) || defined(__i386__)
    _mm_pause();
#elif defined(__aarch64__) || defined(__arm__)
    __asm__ volatile("yield");
#endif
  }

  /// The pool whose tasks this thread runs.
  OCELLUS_HIDDEN static inline constinit thread_local const thread_pool* working_for_ = nullptr;

  std::vector<std::thread> workers_;
  std::mutex call_, mutex_;
  std::condition_variable wake_;
  ocellus::executor::task_function task_ = nullptr;
  void* context_ = nullptr;
  std::vector<tasks> runs_;
  alignas(64) std::atomic<int> unfinished_{0};  ///< tasks of the call
  alignas(64) std::atomic<std::uint32_t> generation_{0};
  std::atomic<int> sleeping_{0};
  std::atomic<bool> stop_{false};
};

OCELLUS_END
