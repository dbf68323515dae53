// Search in stored embeddings: the scores of one query against many rows, and the best k of them.
//
//   #include <ocellus/isa/dispatch.hpp>
//   const ocellus::kernel_table kernels = ocellus::best_kernels();
//   static float text[512], scores[1000];      // a query of length one; a score for each row
//   static ocellus::f16 index[1000 * 512];     // stored rows: f32, f16, or s8 with a scale for each
//   ocellus::dot_rows_args a;
//   a.query = text;
//   a.rows = index;
//   a.ld = a.c = 512;
//   a.n = 1000;
//   a.scores = scores;
//   kernels.dot_rows_f16(a);
//   ocellus::ranked best[10];
//   const int found = ocellus::top_k(scores, 1000, best, 10);  // 10: fewer rows give fewer
//   if (found == 0) return ocellus::status::empty_file;
//
// A row of s8 is made of a row x of floats by scale = max|x| / 127 and row[c] = round(x[c] / scale), zeros where scale
// is 0; give the scales as dot_rows_args::scale.
//
// The work is bound by memory: f16 halves the time of f32, s8 quarters it. Products and sums are rounded separately in
// sixteen lanes with the fixed tree of ops/rowwise.hpp: all kernel sets give the same bits and ranks. A filter gives
// rows that do not count the score NaN, which ranks after all numbers. Nothing here allocates.
//
// Several queries at once, or each row of a library against all others, are a matrix product (ops/gemm.hpp): where the
// CPU has FMA it is several times as quick as a dot_rows for each. Keep the rows in panels, as the weights of a
// gemm_f32, _f16 or _s8, and go by ranges of them, so that the scores stay in a cache:
//
//   #include <ocellus/isa/dispatch.hpp>
//   constexpr int m = 8, n = 1000000, c = 512, range = 4096;  // range: a multiple of panel_width
//   static float queries[m * c], scores[m * range];
//   static ocellus::f16 panels[ocellus::packed_elements(ocellus::dtype::f16, n, c)];  // pack_panels, packed_index
//   ocellus::ranked best[m][10];
//   int found[m] = {};
//   const ocellus::kernel_table kernels = ocellus::best_kernels();
//   ocellus::gemm_args g;
//   g.a = queries, g.lda = g.k = c, g.m = m;
//   g.c = scores, g.ldc = range;
//   g.exact = true;
//   for (int first = 0; first < n; first += range) {
//     g.b = panels + ocellus::packed_index(ocellus::dtype::f16, first, 0, c);  // s8: b_scale and b_sum go on likewise
//     g.n = first + range < n ? range : n - first;
//     g.panel_end = ocellus::ceil_div(g.n, ocellus::panel_width);
//     kernels.gemm_f16(g);
//     for (int i = 0; i < m; i++)
//       found[i] = ocellus::top_k(scores + i * range, g.n, best[i], 10, first, found[i]);
//   }
//
// A score has the same bits whatever m and the ranges are (law 2, with FMA), but others than dot_rows gives it. With s8
// the scales are b_scale, each row's sum is b_sum, and quantize_u8 makes the queries' bytes, which adds about as much
// error as the rows' have; in return it counts in integers, quicker than dot_rows_s8 for one query too on CPUs that are
// busy with that one's conversions (without AVX-512, say).
//
// Threads take ranges of their own, with scores and best of their own; sorted by ranks_before, the first k of all that
// they found are what one thread finds.
#pragma once

#include <ocellus/config.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>

OCELLUS_BEGIN

/// scores[i] = scale[i] * sum over c of query[c] * rows[i, c].
struct dot_rows_args {
  const float* query = nullptr;  ///< [C]
  const void* rows = nullptr;    ///< [n, C]: float, f16 or std::int8_t, as the operation's name says
  std::ptrdiff_t ld = 0;         ///< elements from one row to the next
  const float* scale = nullptr;  ///< [n], or null for ones
  float* scores = nullptr;       ///< [n]
  int n = 0, c = 0;
};

/// An index and its score.
struct ranked {
  int index = -1;
  float score = 0;
};

namespace detail {
/// Integers in the order of scores, NaN below all: comparisons of floats take NaN for a number under -ffast-math.
constexpr std::int32_t rank_of(float score) noexcept {
  const auto bits = std::bit_cast<std::int32_t>(score);
  const std::int32_t sign = bits >> 31, size = bits & 0x7fffffff;
  return size > 0x7f800000 ? INT32_MIN : (size ^ sign) - sign;  // without a branch on the sign; both zeros are 0
}
}  // namespace detail

/// Whether a ranks before b: the higher score, of equal ones the lower index; NaN ranks last.
constexpr bool ranks_before(const ranked& a, const ranked& b) noexcept {
  const std::int32_t x = detail::rank_of(a.score), y = detail::rank_of(b.score);
  return x != y ? x > y : a.index < b.index;
}

/// The best k of n scores into best[0..), in order; returns min(n, k), how many they are. Takes n log k steps at worst,
/// n in practice. By ranges: scores[0] has index `first`, above all before it, and best[0..found), found <= k, is what
/// the last call left; then it returns the smaller of k and the number of all scores so far.
constexpr int top_k(const float* scores, int n, ranked* best, int k, int first = 0, int found = 0) noexcept {
  int size = found;
  const auto sink = [&](int at) {  // best[0..size) is a heap with the worst on top
    for (;;) {
      int worst = at;
      for (int child = 2 * at + 1; child <= 2 * at + 2 && child < size; child++)
        if (ranks_before(best[worst], best[child])) worst = child;
      if (worst == at) return;
      const ranked moved = best[at];
      best[at] = best[worst];
      best[worst] = moved;
      at = worst;
    }
  };
  const auto order = [&] {
    for (int at = size / 2 - 1; at >= 0; at--) sink(at);
  };
  // Whether best[0] is the k-th so far, and neither NaN nor one that the thread may take for 0: then what is not above
  // it as floats go comes after it.
  bool passing = false;
  const auto pass = [&] {
    const std::int32_t rank = detail::rank_of(best[0].score);
    passing = rank >= 0x00800000 || (rank <= -0x00800000 && rank != INT32_MIN);
  };
  if (size == k && k > 0) order(), pass();
  for (int i = 0; i < n && k > 0; i++) {
    if (passing && scores[i] <= best[0].score) continue;
    const ranked candidate{first + i, scores[i]};
    if (size < k) {
      best[size++] = candidate;
      if (size < k) continue;
      order();
    } else if (ranks_before(candidate, best[0])) {
      best[0] = candidate;
      sink(0);
    }
    pass();
  }
  if (size < k) order();
  const int all = size;
  while (size > 1) {  // the worst goes to the end, again and again
    const ranked worst = best[0];
    best[0] = best[size - 1];
    best[size - 1] = worst;
    size--;
    sink(0);
  }
  return all;
}

OCELLUS_END
