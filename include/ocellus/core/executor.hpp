// Who runs the work: the caller. The library starts no thread; it hands ranges of independent tasks to an
// `executor`.
//
//   ocellus::executor serial;                       // runs everything in the calling thread
//   ocellus::thread_pool pool(4);                   // or a small pool, from <ocellus/core/thread_pool.hpp>
//   auto image = model.encode_image(photo, pool.executor());
//
// Any thread pool fits: fill run, self and concurrency (1, the default, ignores run). `run` calls task(context, i) once
// for each i in [0, n), in any order and on any threads, and returns when all are done. Neither tasks nor run may
// throw. It is quickest to run neighbouring tasks in order on one thread: kernels fetch the weights of the next ahead.
#pragma once

#include <ocellus/config.hpp>

#include <type_traits>

OCELLUS_BEGIN

/// A non-owning handle to whatever runs tasks. Copy freely; the default runs in the calling thread.
struct executor {
  using task_function = void (*)(void* context, int index);

  /// Calls task(context, i) for i in [0, n); returns when all are done.
  void (*run)(void* self, int n, task_function task, void* context) = nullptr;
  void* self = nullptr;
  int concurrency = 1;  ///< how many tasks may run at once; work is split into up to sixteen pieces for each of them

  /// Runs f(i) for each i in [0, n).
  template <class F>
  void for_each(int n, F&& f) const {
    if (n <= 0) return;
    if (n == 1 || run == nullptr || concurrency <= 1) {
      for (int i = 0; i < n; i++) f(i);
      return;
    }
    run(self, n, [](void* context, int i) { (*static_cast<std::remove_reference_t<F>*>(context))(i); },
        const_cast<void*>(static_cast<const void*>(&f)));
  }
};

OCELLUS_END
