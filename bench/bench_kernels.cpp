// Each kernel alone: op/set/shape/threads, at the shapes of the released models, as a share of the machine's peak.
//
//   bench_kernels --benchmark_filter=gemm_s8/avx512vnni --benchmark_min_time=0.2
//
// Shapes are derived from models/presets.hpp. Before each measurement a burst of the peak loop of the kernel's own unit
// runs, and so between repetitions: `peak` is the best burst seen, `of_peak` what the kernel reaches of it, from its
// fastest iteration, so that other work on the machine disturbs both alike or neither.
// Rivals in the same program, each for SSE4, AVX2 and AVX-512 by flags of its file (rival.cpp): the portable kernel set, which
// is Highway's instructions with our blocking; Highway's own contrib math and dot; Eigen's product and softmax;
// xsimd's math; for top_k the standard library's partial_sort. None of them has a resize.
// Rows of two threads split their work as towers do, by nn::runner; their peak is that of bursts on both.
#include "peak.hpp"
#include "rival.hpp"

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/isa/dispatch.hpp>
#include <ocellus/models/presets.hpp>
#include <ocellus/nn/layers.hpp>

#include <benchmark/benchmark.h>

#include <algorithm>
#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <memory>
#include <numeric>
#include <optional>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace ocellus;

double now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// The loop of the unit that the set's kernel for these weights runs on; null where there is none to compare with.
const peak::unit* unit_of(const std::string& set, dtype type) {
  static const std::vector<peak::unit> units = peak::units();
  const bool narrow = set == "avx2" || set == "avxvnni" || set.ends_with("_avx2");
  const bool wide = set.starts_with("avx512") || set.ends_with("_avx512") || set == "amx";
  std::string name = wide ? "fma_zmm" : narrow ? "fma_ymm" : "none";
  if (type == dtype::s8) {
    name = set == "avxvnni" ? "vpdpbusd_ymm" : narrow ? "vpmaddwd_ymm" : "none";
    if (wide) name = set == "avx512" || set.ends_with("_avx512") ? "vpmaddwd_zmm" : "vpdpbusd_zmm";
    if (set == "amx") name = "tdpbusd_tmm";
  } else if ((type == dtype::f16 || type == dtype::bf16) && set == "amx") {
    name = "tdpbf16ps_tmm";
  } else if (type == dtype::bf16 && set == "avx512bf16") {
    name = "vdpbf16ps_zmm";
  } else if (type == dtype::f16 && set == "avx512fp16") {
    name = "vfmaddph_zmm";
  }
#if defined(__aarch64__)
  name = "fmla";
  if (type == dtype::s8) name = set == "neon" ? "smlal" : set == "i8mm" ? "usmmla" : "sdot";
  if (type == dtype::f16 && (set == "fp16" || set == "i8mm")) name = "fmla_8h";
  if (type == dtype::bf16 && set == "i8mm") name = "bfmmla";
  if (set == "sve" || set == "scalar") name = "none";  // vectors of another length
#endif
  for (const peak::unit& u : units)
    if (u.there && u.name == name) return &u;
  return nullptr;
}

/// Multiply-adds a second of the peak loop on each of `threads` at once; longer on several, for they do not
/// begin at the same moment.
double burst(const peak::unit& u, const executor& threads) {
  const long loops = threads.concurrency > 1 ? 50000 : 2000;
  const double start = now();
  threads.for_each(threads.concurrency, [&](int) { u.run(loops); });
  return static_cast<double>(loops * threads.concurrency) * u.macs / (now() - start);
}

/// A pool for more than one thread, whose idle worker sleeps while other rows are measured.
struct crew {
  explicit crew(int threads) {
    if (threads > 1) exec = pool.emplace(threads).executor();
  }
  std::optional<thread_pool> pool;
  executor exec;
};

/// A kernel policy as nn::runner wants it.
struct products {
  const bench_table& table;
  bool nta_fills_l2 = detect_cpu().nta_fills_l2;  // weights are fetched as towers have it
  int quad_rows = table.quad_rows;
  void gemm_f32(const gemm_args& g) const { table.gemm[0](&g); }
  void gemm_f16(const gemm_args& g) const { table.gemm[1](&g); }
  void gemm_bf16(const gemm_args& g) const { table.gemm[2](&g); }
  void gemm_s8(const gemm_args& g) const { table.gemm[3](&g); }
  void arrange_u8(const arrange_args& a) const { table.arrange_u8(&a); }
};

struct free_it {
  void operator()(void* p) const { std::free(p); }
};
template <class T>
std::unique_ptr<T[], free_it> buffer(std::size_t n) {
  void* p = std::aligned_alloc(64, (n * sizeof(T) + 127) / 64 * 64);
  std::memset(p, 0, (n * sizeof(T) + 127) / 64 * 64);
  return std::unique_ptr<T[], free_it>(static_cast<T*>(p));
}
std::size_t area(int a, int b) { return static_cast<std::size_t>(a) * static_cast<std::size_t>(b); }

/// Runs `work` as the benchmark says, and sets the counters from its fastest iteration.
template <class Work>
void measure(benchmark::State& state, const peak::unit* unit, double macs, double bytes, const Work& work,
             const executor& threads = {}) {
  double best = 1e30, peak = 0;  // the burst is outside the time that counts: UseManualTime
  for (auto _ : state) {
    const double start = now();
    work();
    const double seconds = now() - start;
    best = std::min(best, seconds);
    state.SetIterationTime(seconds);
    if (unit != nullptr) peak = std::max(peak, burst(*unit, threads));
  }
  state.counters["best_us"] = best * 1e6;
  if (macs > 0) state.counters["GMAC/s"] = macs / best * 1e-9;
  if (bytes > 0) state.counters["GB/s"] = bytes / best * 1e-9;
  if (peak > 0 && macs > 0) {
    state.counters["peak"] = peak * 1e-9;
    state.counters["of_peak"] = macs / best / peak;
  }
}

struct gemm_shape {
  std::string name;
  int m, n, k;
  activation act;
};

/// The products of one block at `batch` images.
void add_shapes(std::vector<gemm_shape>& shapes, const std::string& model, const vision_config& v,
                int batch) {
  const int tokens = v.grid_h * v.grid_w + v.class_token + v.registers, m = tokens * batch;
  const encoder_config& e = v.encoder;
  const std::string at = "_b" + std::to_string(batch);
  shapes.push_back({model + at + "_qkv", m, 3 * e.width, e.width, activation::none});
  shapes.push_back({model + at + "_proj", m, e.width, e.width, activation::none});
  shapes.push_back({model + at + "_fc1", m, e.mlp, e.width, e.act});
  shapes.push_back({model + at + "_fc2", m, e.width, e.mlp, activation::none});
}

std::vector<gemm_shape> model_shapes() {
  std::vector<gemm_shape> shapes;
  add_shapes(shapes, "clip_vit_b32", presets::clip_vit_b32.vision, 1);
  add_shapes(shapes, "clip_vit_b32", presets::clip_vit_b32.vision, 8);
  add_shapes(shapes, "clip_vit_b16", presets::clip_vit_b16.vision, 1);
  add_shapes(shapes, "clip_vit_l14", presets::clip_vit_l14.vision, 1);
  add_shapes(shapes, "siglip_b16_224", presets::siglip_b16_224.vision, 1);
  add_shapes(shapes, "siglip_so400m_14_384", presets::siglip_so400m_14_384.vision, 1);
  const encoder_config& text =
      presets::clip_vit_b32.text.encoder;  // a prompt of eight tokens, and one pooled token
  for (const int m : {1, 8})
    shapes.push_back({"clip_text_" + std::to_string(m) + "_fc1", m, text.mlp, text.width, text.act});
  return shapes;
}

/// Numbers of both signs from 1/64 to 1/16, of any floating-point type, as bits: no zeros, no denormals. What operands
/// are changes the power that a product takes, and with it the clock.
void fill(void* to, std::size_t n, dtype type) {
  std::uint32_t x = 1;
  for (std::size_t i = 0; i < n; i++) {
    x = x * 1664525u + 1013904223u;
    if (type == dtype::f32) {
      static_cast<std::uint32_t*>(to)[i] = (x & 0x80ffffffu) | 0x3c800000u;
    } else {
      const std::uint32_t bits = type == dtype::f16 ? (x >> 16 & 0x87ffu) | 0x2400u : (x >> 16 & 0x80ffu) | 0x3c80u;
      static_cast<std::uint16_t*>(to)[i] = static_cast<std::uint16_t>(bits);
    }
  }
}

/// Bytes around `mean` as a normal distribution has them, of four uniform ones each: how long a product of bytes takes
/// can depend on them (x86/gemm_quads.inl).
template <class T>
void fill(T* to, std::size_t n, int mean, int least, int most) {
  std::uint32_t x = 1;
  const auto uniform = [&x] {
    x = x * 1664525u + 1013904223u;
    return static_cast<int>(x >> 26);
  };
  for (std::size_t i = 0; i < n; i++)
    to[i] = static_cast<T>(std::clamp(mean + uniform() + uniform() + uniform() + uniform() - 126, least, most));
}

void bench_gemm(benchmark::State& state, std::string set, bench_table table, dtype type, gemm_shape s,
                int threads) {
  nn::operand x;
  x.ld = nn::ld_f32(s.k);
  x.ld8 = nn::ld_u8(s.k);
  const auto a = buffer<float>(area(s.m, static_cast<int>(x.ld)));
  const auto bytes_of_a = buffer<std::uint8_t>(area(s.m, static_cast<int>(x.ld8)));
  const auto c = buffer<float>(area(s.m, s.n));
  const auto vectors = buffer<float>(area(3, s.n));
  const auto scale = buffer<float>(area(s.m, 1));
  const auto sums = buffer<std::int32_t>(area(s.n, 1)), zero = buffer<std::int32_t>(area(s.m, 1));
  const auto b = buffer<char>(packed_elements(type, s.n, s.k) * size_of(type));
  x.f32 = a.get();
  x.u8 = bytes_of_a.get();
  if (type == dtype::s8) {
    fill(x.u8, area(s.m, static_cast<int>(x.ld8)), 120, 0, 255);
    fill(b.get(), packed_elements(type, s.n, s.k), 0, -127, 127);
  } else {
    fill(b.get(), packed_elements(type, s.n, s.k), type);
  }
  fill(x.f32, area(s.m, static_cast<int>(x.ld)), dtype::f32);
  std::fill_n(scale.get(), s.m, 1.f / 64);
  std::fill_n(vectors.get(), 3 * s.n, 1.f / 64);
  x.scale = scale.get();
  x.zero = zero.get();
  const bool splits = type == dtype::f16 && table.split_bf16 != nullptr;
  x.ld16 = splits ? nn::ld_bf16(2 * round_up(s.k, 32)) : 0;
  const auto split = buffer<std::uint16_t>(area(s.m, static_cast<int>(x.ld16)));
  if (splits) {  // three products of tiles: of_peak is at most a third
    x.parts = 2;
    x.bf16 = split.get();
    table.split_bf16(x.bf16, x.ld16, x.f32, x.ld, s.m, s.k);
  }
  const nn::linear_weights w{b.get(), vectors.get(), sums.get(), vectors.get(), s.n, s.k, type};
  const crew workers(threads);
  const products kernels{table};
  const nn::runner<products> run{kernels, workers.exec};
  const double bytes = static_cast<double>(packed_elements(type, s.n, s.k) * size_of(type));
  measure(
      state, unit_of(set, type), static_cast<double>(area(s.m, s.n)) * s.k, bytes,
      [&] { run.linear(w, x.spent(), s.m, c.get(), s.n, s.act); }, workers.exec);
}

void bench_eigen(benchmark::State& state, std::string set, highway_rival rival, gemm_shape s) {
  const auto a = buffer<float>(area(s.m, s.k)), w = buffer<float>(area(s.n, s.k)), c = buffer<float>(area(s.m, s.n));
  fill(a.get(), area(s.m, s.k), dtype::f32);
  fill(w.get(), area(s.n, s.k), dtype::f32);
  measure(state, unit_of(set, dtype::f32), static_cast<double>(area(s.m, s.n)) * s.k, 0,
          [&] { rival.eigen_gemm(c.get(), a.get(), w.get(), s.m, s.n, s.k); });
}

/// All heads of one sequence. Causal: half of the products count.
void bench_attention(benchmark::State& state, std::string set, bench_table table, dtype type, const encoder_config& e,
                     int tokens, bool causal) {
  const int width = e.heads * e.head_width;
  if (set == "amx" && type == dtype::s8) set = "avx512vnni";  // whose attention it takes
  const auto qkv = buffer<float>(area(tokens, 3 * width) + 16);
  const auto out = buffer<float>(area(tokens, width));
  const auto scratch = buffer<char>(attention_scratch(tokens, e.head_width));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < area(tokens, 3 * width); i++) qkv[i] = normal(random);
  attention_args t;
  t.ldq = t.ldk = t.ldv = 3 * width;
  t.ldo = width;
  t.tq = t.tk = tokens;
  t.d = e.head_width;
  t.scale = 0.125f;
  t.causal = causal;
  t.scratch = scratch.get();
  const double macs = causal ? 1.0 * tokens * (tokens + 1) * width : 2.0 * tokens * tokens * width;
  measure(state, unit_of(set, type), macs, 0, [&] {
    for (int h = 0; h < e.heads; h++) {
      t.q = qkv.get() + h * e.head_width;
      t.k = t.q + width;
      t.v = t.k + width;
      t.out = out.get() + h * e.head_width;
      table.attention[type == dtype::s8 ? 2 : type == dtype::bf16 ? 1 : 0](&t);
    }
  });
}

/// Row-wise operations over the tokens of one image; bytes read and written count.
void bench_rows(benchmark::State& state, bench_table table, std::string op, int rows, int c) {
  const int inputs = op == "gate_silu" ? 2 * c : c;  // of a row
  const auto x = buffer<float>(area(rows, inputs)), y = buffer<float>(area(rows, c)), gain = buffer<float>(area(c, 1));
  const auto scale = buffer<float>(area(rows, 1)), scratch = buffer<float>(layer_norm_scratch(c));
  const auto zero = buffer<std::int32_t>(area(rows, 1));
  const auto q = buffer<std::uint8_t>(area(rows, round_up(c, 64)));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < area(rows, inputs); i++) x[i] = normal(random);
  std::fill_n(gain.get(), c, 1.f);
  constexpr int head = 64;  // cosines and sines of nothing: vectors keep their length, turn after turn
  const auto turns = buffer<float>(area(rows, head));
  for (int r = 0; r < rows; r++) std::fill_n(turns.get() + r * head, head / 2, 1.f);
  layer_norm_args n;
  n.x = x.get();
  n.ldx = n.ldy = c;
  n.gain = n.bias = gain.get();
  n.rows = rows;
  n.c = c;
  n.y = op == "layer_norm" ? y.get() : scratch.get();
  n.q = q.get();
  n.ldq = round_up(c, 64);
  n.scale = scale.get();
  n.zero = zero.get();
  quantize_args z;
  z.x = x.get();
  z.ldx = c;
  z.rows = rows;
  z.c = c;
  z.q = q.get();
  z.ldq = n.ldq;
  z.scale = scale.get();
  z.zero = zero.get();
  const activation act = op == "gelu"         ? activation::gelu
                         : op == "quick_gelu" ? activation::quick_gelu
                                              : activation::gelu_tanh;
  const double bytes =
      static_cast<double>(area(rows, c)) * (op == "gate_silu" ? 12 : op == "layer_norm_u8" || op == "quantize_u8" ? 5 : 8);
  measure(state, nullptr, 0, bytes, [&] {
    if (op == "layer_norm") {
      table.layer_norm(&n);
    } else if (op == "layer_norm_u8") {
      table.layer_norm_u8(&n);
    } else if (op == "quantize_u8") {
      table.quantize_u8(&z);
    } else if (op == "gate_silu") {
      table.gate(y.get(), x.get(), rows, c, static_cast<int>(activation::silu));
    } else if (op == "rotate") {
      table.rotate(x.get(), c, turns.get(), rows, c / head, head);
    } else if (op == "l2_normalize") {
      for (int r = 0; r < rows; r++) table.l2_normalize(y.get() + r * c, x.get() + r * c, c);
    } else {
      table.activate(y.get(), x.get(), rows, c, static_cast<int>(act));
    }
  });
}

/// Softmax of all heads of an image, sixteen rows of scores at a time as attention has them: in the
/// first-level cache. f32: from scores to exponentials in place; u8: from sums of products to quantised
/// probabilities.
void bench_softmax(benchmark::State& state, bench_table table, bool u8, const vision_config& v) {
  constexpr int block = 16;
  const int keys = v.grid_h * v.grid_w + v.class_token, ld = round_up(keys, 32),
            rows = v.encoder.heads * keys;
  const auto scores = buffer<float>(area(block, ld)), scales = buffer<float>(area(2, ld));
  const auto sums = buffer<std::int32_t>(area(1, ld)), zero = buffer<std::int32_t>(block);
  const auto weight = buffer<float>(block), factor = buffer<float>(block);
  const auto probs = buffer<std::uint8_t>(area(block, ld));
  std::mt19937 random(1);
  std::normal_distribution<float> normal;
  for (std::size_t i = 0; i < area(block, ld); i++) scores[i] = normal(random);
  std::fill_n(scales.get(), area(2, ld), 1.f);
  // Weights are zero, or else each turn's probabilities would be the next one's scores, larger and larger.
  kernels::scalar::softmax_rows rows_u8{reinterpret_cast<std::int32_t*>(scores.get()),
                                        probs.get(),
                                        ld,
                                        sums.get(),
                                        scales.get(),
                                        scales.get() + ld,
                                        zero.get(),
                                        weight.get(),
                                        block,
                                        keys,
                                        keys,
                                        0,
                                        factor.get()};
  const double bytes = static_cast<double>(area(rows, keys)) * (u8 ? 5 : 8);
  measure(state, nullptr, 0, bytes, [&] {
    for (int r = 0; r < rows; r += block) {
      rows_u8.rows = std::min(rows - r, block);
      if (u8) {
        table.softmax_u8(&rows_u8);
      } else {
        for (int i = 0; i < rows_u8.rows; i++)
          factor[static_cast<std::size_t>(i)] =
              1.f / table.softmax_row(scores.get() + i * ld, keys, ld, 0.125f);
      }
    }
  });
}

/// One query against a million bytes or more of stored embeddings: more than any cache but the last.
void bench_dot_rows(benchmark::State& state, bench_table table, dtype type, int threads) {
  const int c = presets::clip_vit_b32.vision.embed, n = 64 * 1024;
  const auto rows = buffer<char>(area(n, c) * size_of(type));
  const auto query = buffer<float>(area(c, 1)), scores = buffer<float>(area(n, 1));
  const crew workers(threads);
  const products kernels{table};
  const nn::runner<products> run{kernels, workers.exec};
  const auto scan = [&](int begin, int end) {
    dot_rows_args a;
    a.query = query.get();
    a.rows = rows.get() + area(begin, c) * size_of(type);
    a.ld = a.c = c;
    a.n = end - begin;
    a.scores = scores.get() + begin;
    table.dot_rows[type == dtype::f32 ? 0 : type == dtype::f16 ? 1 : 2](&a);
  };
  measure(
      state, nullptr, 0, static_cast<double>(area(n, c) * size_of(type)), [&] { run.split(n, 1024, scan); },
      workers.exec);
}

/// The best k of n scores: ours, or the standard library's partial_sort of their indices. Scores that ascend
/// are the worst order, each one being the best so far.
void bench_top_k(benchmark::State& state, bool ours, int n, int k, bool ascending) {
  const auto scores = buffer<float>(area(n, 1));
  std::mt19937 random(1);
  std::uniform_real_distribution<float> uniform;
  for (int i = 0; i < n; i++)
    scores[static_cast<std::size_t>(i)] = ascending ? static_cast<float>(i) : uniform(random);
  std::vector<ranked> best(static_cast<std::size_t>(k));
  std::vector<int> order(static_cast<std::size_t>(n));
  measure(state, nullptr, 0, static_cast<double>(area(n, sizeof(float))), [&] {
    if (ours) {
      benchmark::DoNotOptimize(top_k(scores.get(), n, best.data(), k));
    } else {
      std::iota(order.begin(), order.end(), 0);
      std::partial_sort(order.begin(), order.begin() + k, order.end(), [&](int a, int b) {
        return ranks_before({a, scores[static_cast<std::size_t>(a)]},
                            {b, scores[static_cast<std::size_t>(b)]});
      });
    }
    benchmark::ClobberMemory();
  });
}

/// A photo to what a model reads (CLIP: 224 x 224 of its middle; NaFlex: at most 256 patches, all of it), with the
/// making of the weights. GB/s counts the part of the photo that is needed.
void bench_resize(benchmark::State& state, resample_kernels kernels, resize_mode mode, int width, int height) {
  const auto pixels = buffer<std::uint8_t>(area(width, height) * 3);
  for (std::size_t i = 0; i < area(width, height) * 3; i++)
    pixels[i] = static_cast<std::uint8_t>(i * 151 >> 3);
  preprocess_config clip;
  clip.resize = mode;
  const result<preprocess_shape> shape = preprocess_shape_of(clip, width, height);
  if (!shape) return state.SkipWithError(to_string(shape.error()));
  const resize_window& w = shape->window;
  const auto target = buffer<std::uint8_t>(area(w.w, w.h) * 3);
  status done = status::ok;
  const auto resize = [&] {
    done = preprocess_into(target.get(), image_view(pixels.get(), width, height), clip, *shape, kernels);
  };
  resize();  // it takes longer than a repetition: the only call would be one whose scratch is new to the process
  measure(state, nullptr, 0,
          static_cast<double>(area(width, height)) * 3 * w.w / w.resized_w * w.h / w.resized_h, resize);
  if (done != status::ok) state.SkipWithError(to_string(done));
}

template <class... Args>
void enroll(const std::string& name, int threads, Args... args) {
  benchmark::RegisterBenchmark((name + "/" + std::to_string(threads)).c_str(), args...)
      ->Unit(benchmark::kMicrosecond)
      ->UseManualTime();
}
template <class... Args>
void add(const std::string& name, Args... args) {
  enroll(name, 1, args...);
}

std::string sized(const gemm_shape& s) {
  return s.name + "_" + std::to_string(s.m) + "x" + std::to_string(s.n) + "x" + std::to_string(s.k);
}

struct named {
  const char* name;
  const vision_config* v;
};
constexpr named towers[] = {{"clip_vit_b32", &presets::clip_vit_b32.vision},
                            {"clip_vit_b16", &presets::clip_vit_b16.vision},
                            {"clip_vit_l14", &presets::clip_vit_l14.vision},
                            {"siglip_so400m_14_384", &presets::siglip_so400m_14_384.vision}};

/// Whether this process may use two CPUs: on one, two threads only get in each other's way.
bool two_threads() { return thread_pool::cores() > 1; }

void add_set(const std::string& set, const bench_table& table) {
  for (const int threads : {1, 2})
    for (const gemm_shape& s : model_shapes())
      for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8})
        if (threads == 1 || (two_threads() && s.name.starts_with("clip_vit_b32")))
          enroll("gemm_" + std::string(to_string(type)) + "/" + set + "/" + sized(s), threads, bench_gemm,
                 set, table, type, s, threads);
  for (const named& tower : towers) {
    for (const dtype type : {dtype::f32, dtype::bf16, dtype::s8})
      add("attention_" + std::string(to_string(type)) + "/" + set + "/" + tower.name, bench_attention, set, table, type,
          tower.v->encoder, tower.v->grid_h * tower.v->grid_w + tower.v->class_token, false);
    const int tokens = tower.v->grid_h * tower.v->grid_w + tower.v->class_token;
    for (const char* op : {"layer_norm", "layer_norm_u8", "quantize_u8", "rotate", "l2_normalize"})
      add(std::string(op) + "/" + set + "/" + tower.name, bench_rows, table, std::string(op), tokens,
          tower.v->encoder.width);
    for (const char* op : {"gelu", "quick_gelu", "gelu_tanh", "gate_silu"})
      add(std::string(op) + "/" + set + "/" + tower.name, bench_rows, table, std::string(op), tokens,
          tower.v->encoder.mlp);
    add("softmax_f32/" + set + "/" + tower.name, bench_softmax, table, false, *tower.v);
    add("softmax_u8/" + set + "/" + tower.name, bench_softmax, table, true, *tower.v);
  }
  for (const int tokens : {8, 77})
    for (const dtype type : {dtype::f32, dtype::bf16, dtype::s8})
      add("attention_" + std::string(to_string(type)) + "/" + set + "/clip_text_causal_" + std::to_string(tokens),
          bench_attention, set, table, type, presets::clip_vit_b32.text.encoder, tokens, true);
  for (const int threads : {1, 2})
    for (const dtype type : {dtype::f32, dtype::f16, dtype::s8})
      if (threads == 1 || two_threads())
        enroll("dot_rows_" + std::string(to_string(type)) + "/" + set + "/65536x512", threads, bench_dot_rows,
               table, type, threads);
}

/// What is no kernel of a set: the choice of the best scores. And resize, which no rival has.
void add_top_k() {
  for (const bool ours : {true, false}) {
    const std::string name = std::string("top_k/") + (ours ? "ocellus" : "std") + "/65536_k";
    for (const int k : {10, 1000}) add(name + std::to_string(k), bench_top_k, ours, 65536, k, false);
    add(name + "10_ascending", bench_top_k, ours, 65536, 10, true);
  }
}
void add_resize(const std::string& set, const resample_kernels& kernels) {
  add("resize_bicubic/" + set + "/4000x3000_to_224", bench_resize, kernels, resize_mode::shortest, 4000, 3000);
  add("resize_bicubic/" + set + "/4000x3000_to_naflex", bench_resize, kernels, resize_mode::naflex, 4000, 3000);
  add("resize_bicubic/" + set + "/640x480_to_224", bench_resize, kernels, resize_mode::shortest, 640, 480);
}

/// The libraries' own functions, where they have one for the operation.
void add_rival(const highway_rival& rival) {
  const std::string isa = rival.name;
  add_set("highway_" + isa, rival.table);
  for (const gemm_shape& s : model_shapes())
    add("gemm_f32/eigen_" + isa + "/" + sized(s), bench_eigen, "eigen_" + isa, rival, s);
  for (const auto& [library, activate] :
       {std::pair{"highwaymath_", rival.highway_activate}, std::pair{"xsimd_", rival.xsimd_activate}}) {
    bench_table table = rival.table;
    table.activate = activate;
    for (const named& tower : towers)
      for (const char* op : {"gelu", "quick_gelu", "gelu_tanh"}) {
        if (library == std::string("highwaymath_") && op == std::string("gelu")) continue;  // it has no erf
        add(std::string(op) + "/" + library + isa + "/" + tower.name, bench_rows, table, std::string(op),
            tower.v->grid_h * tower.v->grid_w + tower.v->class_token, tower.v->encoder.mlp);
      }
  }
  for (const auto& [library, softmax_row] :
       {std::pair{"highwaymath_", rival.highway_softmax_row}, std::pair{"xsimd_", rival.xsimd_softmax_row},
        std::pair{"eigen_", rival.eigen_softmax_row}}) {
    bench_table table = rival.table;
    table.softmax_row = softmax_row;
    for (const named& tower : towers)
      add("softmax_f32/" + (library + isa) + "/" + tower.name, bench_softmax, table, false, *tower.v);
  }
  bench_table dot = rival.table;
  dot.dot_rows[0] = rival.highway_dot_rows;
  for (const int threads : {1, 2})
    if (threads == 1 || two_threads())
      enroll("dot_rows_f32/highwaydot_" + isa + "/65536x512", threads, bench_dot_rows, dot, dtype::f32,
             threads);
}

}  // namespace

int main(int argc, char** argv) {
  benchmark::Initialize(&argc, argv);
  if (benchmark::ReportUnrecognizedArguments(argc, argv)) return 2;
  const cpu_features cpu = detect_cpu();
#define OCELLUS_KERNEL_SET(name, available) \
  if (available) { \
    add_set(#name, bench_table_of<kernels::name>()); \
    add_resize(#name, resample_for<kernels::name>()); \
  }
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
#if defined(__x86_64__)
  if (cpu.sse41) add_rival(rival_sse41());
  if (cpu.avx2) add_rival(rival_avx2());
  if (cpu.avx512) add_rival(rival_avx512());
#endif
  add_top_k();
  if (!two_threads())
    std::fputs("bench_kernels: rows of two threads left out: this process may use one CPU\n", stderr);
  benchmark::RunSpecifiedBenchmarks();
  benchmark::Shutdown();
}
