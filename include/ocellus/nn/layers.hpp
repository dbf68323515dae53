// The layers that towers are made of, over a policy `Kernels` (isa/dispatch.hpp: dynamic or pinned<Set>):
// linear with its epilogue, LayerNorm, transformer blocks. Weights are views into a packed file; activations
// lie in a workspace.
//
// Shapes: M rows (the tokens of all sequences of a batch, one after the other, no padding), C width, H heads,
// D head width, F mlp width. All matrices are row-major.
//
// References: [Vaswani 2017] attention; [Dosovitskiy 2021] ViT; [Radford 2021] CLIP.
#pragma once

#include <ocellus/core/executor.hpp>
#include <ocellus/core/fp_env.hpp>
#include <ocellus/isa/target.hpp>
#include <ocellus/ops/attention.hpp>
#include <ocellus/ops/gemm.hpp>
#include <ocellus/ops/rowwise.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace nn {

/// W[n, k] in panels, with what its data type needs. `data` null: the layer is absent.
struct linear_weights {
  const void* data = nullptr;
  const float* scales = nullptr;      ///< [n], s8
  const std::int32_t* sums = nullptr; ///< [n], s8
  const float* bias = nullptr;        ///< [n] or null
  int n = 0, k = 0;
  dtype type = dtype::f32;
  explicit operator bool() const noexcept { return data != nullptr; }
};

/// Rows [first, first + n) of W alone; `first` is a multiple of panel_width.
inline linear_weights rows_of(const linear_weights& w, int first, int n) noexcept {
  linear_weights part = w;
  const std::size_t skipped = packed_elements(w.type, first, w.k) * size_of(w.type);
  part.data = static_cast<const unsigned char*>(w.data) + skipped;
  if (w.scales != nullptr) part.scales += first;
  if (w.sums != nullptr) part.sums += first;
  if (w.bias != nullptr) part.bias += first;
  part.n = n;
  return part;
}

/// LayerNorm's gain and bias, [C] each.
struct norm_weights {
  const float* gain = nullptr;
  const float* bias = nullptr;
  explicit operator bool() const noexcept { return gain != nullptr; }
};

/// One transformer block; without qkv it has no attention, without fc1 no feed-forward (pruned towers).
struct block_weights {
  norm_weights norm1, norm2, q_norm, k_norm, attn_norm, mlp_norm;
  linear_weights qkv, proj, fc1, fc2;
  linear_weights keys_t;  ///< [H * C, D]: each head's W_k transposed, where class tokens alone go on, or absent
};

/// The shape of a stack of blocks and its switches (models/config.hpp's encoder_config says more).
struct block_shape {
  int width = 0, heads = 0, head_width = 0, mlp = 0;
  float eps = 1e-5f;
  activation act = activation::gelu;
  bool gated = false, causal = false, post_norm = false;
  bool uneven = false;          ///< heads and mlp are at most these; the weights' shapes say
  const float* rope = nullptr;  ///< [., D]: rotary positions of the rows after the first `prefix` of each sequence
  int prefix = 0;
};

/// Leading dimensions of activations. An odd multiple of 64 bytes: rows must not meet in the same cache sets,
/// as they would at multiples of 4096 bytes.
constexpr int ld_f32(int c) noexcept { return (ceil_div(c, 16) | 1) * 16; }
constexpr int ld_bf16(int c) noexcept { return (ceil_div(c, 32) | 1) * 32; }
constexpr int ld_u8(int c) noexcept { return (ceil_div(c, 64) | 1) * 64; }

/// Memory is carved from one block, each piece aligned to 64 bytes. With a null base it only counts, up to half of what
/// size_t says: more than can be reserved, also where 32 bits would wrap around.
class carver {
 public:
  constexpr explicit carver(unsigned char* base) noexcept : base_(base) {}
  template <class T>
  constexpr T* take(std::uint64_t count) noexcept {
    T* p = base_ == nullptr ? nullptr : reinterpret_cast<T*>(base_ + used_);
    const bool fits = count < (most - used_) / sizeof(T);
    used_ = fits ? used_ + (static_cast<std::size_t>(count) * sizeof(T) + 63) / 64 * 64 : most;
    return p;
  }
  constexpr std::size_t used() const noexcept { return used_; }

 private:
  static constexpr std::size_t most = static_cast<std::size_t>(-1) / 128 * 64;
  unsigned char* base_;
  std::size_t used_ = 0;
};

/// Rows of activations as a matrix product reads them: f32, or u8 with a scale and a zero point per row, or for sets
/// that round activations bf16 beside f32, in one or two parts (round_bf16, split_bf16).
struct operand {
  float* f32 = nullptr;
  std::ptrdiff_t ld = 0;
  std::uint16_t* bf16 = nullptr;  ///< or null, with ld16 0: each product rounds for itself
  std::ptrdiff_t ld16 = 0;
  int parts = 0;  ///< of bf16
  std::uint8_t* u8 = nullptr;
  std::ptrdiff_t ld8 = 0;
  float* scale = nullptr;
  std::int32_t* zero = nullptr;
  /// Pixels: neighbours are alike, so that rounding errors add up where those of other activations cancel. Products
  /// with f16 weights take them in f32 (gemm_args::exact).
  bool exact = false;
  std::uint8_t* spare = nullptr;  ///< rows * ld floats for a product to arrange u8 in, or null

  /// Room for `rows` rows of `c` values as f32 and u8, and in so many parts as bf16.
  OCELLUS_NOINLINE constexpr void carve(carver& from, int rows, int c, int bf16_parts = 0) noexcept {
    const auto r = static_cast<std::uint64_t>(rows);
    ld = ld_f32(c);
    ld8 = ld_u8(c);
    f32 = from.take<float>(r * static_cast<std::size_t>(ld));
    parts = bf16_parts;
    ld16 = parts > 0 ? ld_bf16(parts * round_up(c, 32)) : 0;
    bf16 = parts > 0 ? from.take<std::uint16_t>(r * static_cast<std::size_t>(ld16)) : nullptr;
    u8 = from.take<std::uint8_t>(r * static_cast<std::size_t>(ld8));
    scale = from.take<float>(r);
    zero = from.take<std::int32_t>(r);
  }
  /// Whether products with weights of `type` read bf16.
  constexpr bool rounded_for(dtype type) const noexcept {
    return parts == 1 ? type == dtype::bf16 : parts == 2 && type == dtype::f16;
  }
  /// For a product after which nobody reads f32: it may arrange u8 there.
  operand spent() const noexcept {
    operand o = *this;
    o.spare = reinterpret_cast<std::uint8_t*>(f32);
    return o;
  }
  operand from_row(int row) const noexcept {
    operand o = *this;
    o.spare = nullptr;
    o.f32 += row * ld;
    o.bf16 += row * ld16;
    o.u8 += row * ld8;
    o.scale += row;
    o.zero += row;
    return o;
  }
};

/// What runs the layers: kernels by policy, threads by the caller's executor.
template <class Kernels>
struct runner {
  const Kernels& kernels;
  executor exec;

  /// f(begin, end) over [0, n) in pieces of at least `grain`, at most `each` per thread: several, so that uneven
  /// threads even out.
  template <class F>
  void split(int n, int grain, F&& f, int each = 4) const {
    int pieces = exec.concurrency <= 1 ? 1 : n / (grain < 1 ? 1 : grain);
    if (pieces > exec.concurrency * each) pieces = exec.concurrency * each;
    if (pieces < 1) pieces = 1;
    exec.for_each(pieces, [&](int i) {
      const fp_env guard;
      f(static_cast<int>(static_cast<std::int64_t>(n) * i / pieces),
        static_cast<int>(static_cast<std::int64_t>(n) * (i + 1) / pieces));
    });
  }

  /// f(part, begin, end) over [0, n) in at most one part per thread, for work that needs memory of its own.
  template <class F>
  void parts(int n, F&& f) const {
    int count = exec.concurrency < n ? exec.concurrency : n;
    if (count < 1) count = 1;
    exec.for_each(count, [&](int part) {
      const fp_env guard;
      f(part, static_cast<int>(static_cast<std::int64_t>(n) * part / count),
        static_cast<int>(static_cast<std::int64_t>(n) * (part + 1) / count));
    });
  }

  void gemm(dtype type, const gemm_args& g) const noexcept {
    switch (type) {
      case dtype::f32: kernels.gemm_f32(g); break;
      case dtype::f16: kernels.gemm_f16(g); break;
      case dtype::bf16: kernels.gemm_bf16(g); break;
      default: kernels.gemm_s8(g); break;
    }
  }

  /// Attention of a tower whose weights are of `type`.
  void attention(dtype type, const attention_args& a) const noexcept {
    switch (type) {
      case dtype::s8: kernels.attention_s8(a); break;
      case dtype::bf16: kernels.attention_bf16(a); break;
      default: kernels.attention_f32(a); break;
    }
  }

  /// The arguments of c[rows, w.n] = activation(x W^T + bias) (+ residual), x as w's data type wants it.
  gemm_args arguments(const linear_weights& w, const operand& x, int rows, float* c,
                      std::ptrdiff_t ldc) const noexcept {
    gemm_args g;
    if constexpr (requires { kernels.nta_fills_l2; }) g.nta_fills_l2 = kernels.nta_fills_l2;
    g.a = w.type == dtype::s8 ? static_cast<const void*>(x.u8) : x.f32;
    g.lda = w.type == dtype::s8 ? x.ld8 : x.ld;
    g.a_scale = x.scale;
    g.a_zero = x.zero;
    if (x.rounded_for(w.type)) {
      g.a_bf16 = x.bf16;
      g.lda_bf16 = x.ld16;
    }
    g.exact = x.exact;
    g.b = w.data;
    g.b_scale = w.scales;
    g.b_sum = w.sums;
    g.bias = w.bias;
    g.c = c;
    g.ldc = ldc;
    g.m = rows;
    g.n = w.n;
    g.k = w.k;
    return g;
  }

  /// c[rows, w.n] = x W^T + bias on this thread, the columns from those of panel `first` on.
  void product(const linear_weights& w, const operand& x, int rows, float* c, std::ptrdiff_t ldc,
               int first = 0) const noexcept {
    gemm_args g = arguments(w, x, rows, c, ldc);
    g.panel_begin = first;
    g.panel_end = ceil_div(w.n, panel_width);
    gemm(w.type, g);
  }

  /// c[rows, w.n] = activation(x W^T + bias) (+ residual), x as w's data type wants it. Computes the output
  /// columns of [column_begin, column_end), multiples of 16 but for the end.
  void linear(const linear_weights& w, const operand& x, int rows, float* c, std::ptrdiff_t ldc,
              activation act = activation::none, const float* residual = nullptr, std::ptrdiff_t ldr = 0,
              int column_begin = 0, int column_end = -1) const noexcept {
    gemm_args g = arguments(w, x, rows, c, ldc);
    g.residual = residual;
    g.ldr = ldr;
    g.act = act;
    const int first = column_begin / panel_width;
    const int panels = ceil_div(column_end < 0 ? w.n : column_end, panel_width) - first;
    const int together = rows <= 3 ? 4 : 2;  // panels that kernels read at once, at most
    const int units = ceil_div(panels, together);
    // narrow products over many rows (convolutions) have too few panels for all threads: split the rows as
    // well
    int bands = 1;
    if (exec.concurrency > 1 && units < 4 * exec.concurrency) {
      bands = ceil_div(4 * exec.concurrency, units);
      bands = bands < rows / 64 ? bands : rows / 64;
      bands = bands < 1 ? 1 : bands;
    }
    if constexpr (requires { kernels.arrange_u8; }) {  // once for all pieces; f32's memory is more than that takes
      if (w.type == dtype::s8 && x.spare != nullptr && bands == 1 && kernels.quad_rows > 0 &&
          rows >= kernels.quad_rows && x.ld % 16 == 0 && x.ld >= w.k) {
        g.a_arranged = x.spare;
        g.ld_arranged = x.ld * static_cast<std::ptrdiff_t>(sizeof(float));
        split(ceil_div(w.k, 64), 4, [&](int begin, int end) {
          kernels.arrange_u8({x.u8, x.ld8, g.a_arranged, g.ld_arranged, rows, w.k, begin * 64,
                              end * 64 < w.k ? end * 64 : w.k});
        });
      }
    }
    // in each piece rows may be split, rounded or arranged again
    const int each = w.type == dtype::f32 || g.a_arranged != nullptr ? 16 : 4;
    split(units * bands, 1, [&](int begin, int end) {
      while (begin < end) {
        const int band = begin / units, stop = end < (band + 1) * units ? end : (band + 1) * units;
        const int row = static_cast<int>(static_cast<std::int64_t>(rows) * band / bands);
        gemm_args part = g;
        part.m = static_cast<int>(static_cast<std::int64_t>(rows) * (band + 1) / bands) - row;
        part.a = w.type == dtype::s8 ? static_cast<const void*>(x.u8 + row * x.ld8) : x.f32 + row * x.ld;
        if (w.type == dtype::s8) {
          part.a_scale += row;
          part.a_zero += row;
        }
        if (part.a_bf16 != nullptr) part.a_bf16 += row * x.ld16;
        part.c += row * ldc;
        if (residual != nullptr) part.residual += row * ldr;
        part.panel_begin = first + (begin - band * units) * together;
        const int last = (stop - band * units) * together;
        part.panel_end = first + (last < panels ? last : panels);
        gemm(w.type, part);
        begin = stop;
      }
    }, each);
  }

  /// LayerNorm of rows [begin, end) of `from` into those of `to`.
  static layer_norm_args norm_arguments(const norm_weights& w, float eps, const float* from, std::ptrdiff_t ld,
                                        int begin, int end, int c, float* to, std::ptrdiff_t ldt) noexcept {
    layer_norm_args a;
    a.x = from + begin * ld;
    a.ldx = ld;
    a.gain = w.gain;
    a.bias = w.bias;
    a.eps = eps;
    a.rows = end - begin;
    a.c = c;
    a.y = to + begin * ldt;
    a.ldy = ldt;
    return a;
  }

  /// x = norm(from[rows, c]) in the form that products with weights of `type` read.
  OCELLUS_NOINLINE void norm(const norm_weights& w, float eps, const float* from, std::ptrdiff_t ld, int rows, int c,
                             dtype type, const operand& x) const noexcept {
    split(rows, 8, [&](int begin, int end) {
      layer_norm_args a = norm_arguments(w, eps, from, ld, begin, end, c, x.f32, x.ld);
      if (type == dtype::s8) {
        a.q = x.u8 + begin * x.ld8;
        a.ldq = x.ld8;
        a.scale = x.scale + begin;
        a.zero = x.zero + begin;
        kernels.layer_norm_u8(a);
      } else {
        kernels.layer_norm(a);
      }
    });
    if (type != dtype::s8) prepare(type, x, rows, c);
  }

  /// LayerNorm from one f32 matrix to another, or in place.
  OCELLUS_NOINLINE void norm_f32(const norm_weights& w, float eps, const float* from, std::ptrdiff_t ld, int rows,
                                 int c, float* to, std::ptrdiff_t ldt) const noexcept {
    split(rows, 8, [&](int begin, int end) {
      kernels.layer_norm(norm_arguments(w, eps, from, ld, begin, end, c, to, ldt));
    });
  }

  /// x.f32[rows, c] as products with weights of `type` read it: quantised to u8 for s8, rounded for 16 bits where the
  /// set does that.
  OCELLUS_NOINLINE void prepare(dtype type, const operand& x, int rows, int c) const noexcept {
    const bool rounded = x.rounded_for(type);
    if (type != dtype::s8 && !rounded) return;
    split(rows, 8, [&](int begin, int end) {
      if (rounded) {
        std::uint16_t* const to = x.bf16 + begin * x.ld16;
        const float* const of = x.f32 + begin * x.ld;
        if (type == dtype::bf16) {
          kernels.round_bf16(to, x.ld16, of, x.ld, end - begin, c);
        } else {
          kernels.split_bf16(to, x.ld16, of, x.ld, end - begin, c);
        }
        return;
      }
      quantize_args a;
      a.x = x.f32 + begin * x.ld;
      a.ldx = x.ld;
      a.rows = end - begin;
      a.c = c;
      a.q = x.u8 + begin * x.ld8;
      a.ldq = x.ld8;
      a.scale = x.scale + begin;
      a.zero = x.zero + begin;
      kernels.quantize_u8(a);
    });
  }
};

/// Copies rows of an operand, as products with weights of `type` read it.
inline void gather(dtype type, const operand& from, const int* rows, int count, int c,
                   const operand& to) noexcept {
  for (int i = 0; i < count; i++) {
    if (type == dtype::s8) {
      std::memcpy(to.u8 + i * to.ld8, from.u8 + rows[i] * from.ld8, static_cast<std::size_t>(round_up(c, 8)));
      to.scale[i] = from.scale[rows[i]];
      to.zero[i] = from.zero[rows[i]];
    } else {
      std::memcpy(to.f32 + i * to.ld, from.f32 + rows[i] * from.ld,
                  sizeof(float) * static_cast<std::size_t>(c));
      if (to.rounded_for(type))
        std::memcpy(to.bf16 + i * to.ld16, from.bf16 + rows[i] * from.ld16,
                    sizeof(std::uint16_t) * static_cast<std::size_t>(to.parts * round_up(c, 32)));
    }
  }
}

/// The parts of operand::bf16 in a tower of this form (block_buffers).
constexpr int parts_of(dtype form) noexcept { return form == dtype::bf16 ? 1 : form == dtype::f16 ? 2 : 0; }

/// Called after each stage of a tower with its values [rows, c], ld floats apart: tests compare them with a
/// reference.
struct stage_observer {
  void (*call)(void* self, const char* stage, int index, const float* values, int rows, int c,
               std::ptrdiff_t ld) = nullptr;
  void* self = nullptr;
  void operator()(const char* stage, int index, const float* v, int rows, int c, std::ptrdiff_t ld) const {
    if (call != nullptr) call(self, stage, index, v, rows, c, ld);
  }
};

/// One sequence of a batch: its own rows are queries; its keys are those rows, or the rows listed in key_rows
/// (a text shares the rows of a prefix with others), the own ones last.
struct sequence {
  int row = 0;      ///< first own row
  int rows = 0;     ///< own rows
  int keys = 0;
  const int* key_rows = nullptr;  ///< [keys] rows of the batch, or null: keys are the own rows
};

/// Buffers of attention_pool.
struct pool_buffers {
  operand heads;          ///< [H * sequences, C], head by head: queries, then outputs in their place
  operand queries;        ///< [H * sequences, D], where they are not known beforehand
  unsigned char* scratch = nullptr;  ///< one part per sequence that is under way
  std::size_t scratch_part = 0;

  constexpr void carve(carver& from, int head_count, int c, int head_width, int sequences, int most_keys, int threads,
                       bool integer) noexcept {
    heads.carve(from, head_count * sequences, c);
    if (head_width > 0) queries.carve(from, head_count * sequences, head_width);
    scratch_part = integer ? attention_scratch_s8(most_keys, c) : attention_scratch(most_keys, c);
    const int parts = sequences < threads ? sequences : threads;
    scratch = from.take<unsigned char>(scratch_part * static_cast<std::uint64_t>(parts));
  }
};

/// Buffers of a stack of blocks over at most `rows` rows. Attention, attention_pool and feed-forward take turns, so
/// theirs overlap.
struct block_buffers {
  operand x;              ///< input of a product: normed, attended
  operand hidden;         ///< feed-forward: [rows, F]
  float* gate = nullptr;  ///< feed-forward: [rows, 2 F], gated blocks only
  operand pooled;         ///< attention: [sequences, C], the pooled rows of x in the last block
  float* qkv = nullptr;   ///< attention: [rows, 3 H D]
  float* q = nullptr;     ///< attention: [sequences, H D], the pooled rows' queries in the last block
  unsigned char* scratch = nullptr;  ///< attention, one part per thread
  std::size_t scratch_part = 0;
  std::ptrdiff_t ld_qkv = 0, ld_q = 0, ld_gate = 0;
  pool_buffers pool;      ///< attention_pool over x

  /// form: s8 where all weights are, so that attention runs in integers; bf16 where any weights are and the set rounds
  /// activations for them; f16 where it splits them for f16; else f32. pool_heads: those of attention_pool, 0 without
  /// it; pool_width: D where its queries are computed.
  [[gnu::cold]] constexpr void carve(carver& from, const block_shape& s, int rows, int sequences, int most_keys,
                                     int threads, dtype form = dtype::f32, int pool_heads = 0,
                                     int pool_width = 0) noexcept {
    const int inner = s.heads * s.head_width;
    const bool integer = form == dtype::s8;
    const int rounded = parts_of(form);
    x.carve(from, rows, inner > s.width ? inner : s.width, rounded);
    carver feed = from;
    hidden.carve(feed, rows, s.mlp, rounded);
    ld_gate = ld_f32(2 * s.mlp);
    if (s.gated) gate = feed.take<float>(static_cast<std::uint64_t>(rows) * static_cast<std::size_t>(ld_gate));
    pooled.carve(from, sequences, s.width, rounded);
    ld_q = ld_f32(inner);
    q = from.take<float>(static_cast<std::size_t>(sequences) * static_cast<std::size_t>(ld_q) + 16);
    carver after = from;
    if (pool_heads > 0) pool.carve(after, pool_heads, s.width, pool_width, sequences, most_keys, threads, integer);
    ld_qkv = ld_f32(3 * inner);
    qkv = from.take<float>(static_cast<std::uint64_t>(rows) * static_cast<std::size_t>(ld_qkv) + 16);
    scratch_part = integer ? attention_scratch_s8(most_keys, s.head_width)
                           : attention_scratch(most_keys, s.head_width);
    scratch = from.take<unsigned char>(scratch_part * static_cast<std::uint64_t>(threads));
    if (feed.used() > from.used()) from = feed;
    if (after.used() > from.used()) from = after;
  }
};

/// What scores of heads `d` wide are multiplied by.
inline float attention_scale(int d) noexcept {
  const fp_env guard;
  return 1.f / strict_sqrt(static_cast<float>(d));
}

/// Attention of all heads of all sequences: out[row, H D]. With `q_rows`, one row per sequence, only those
/// rows are queries (taken from b.q), and sequence i's result goes to row i of `out`.
template <class Kernels>
void attend(const runner<Kernels>& run, const block_shape& s, const block_buffers& b,
            const sequence* sequences, int count, const int* q_rows, float* out, std::ptrdiff_t ldo,
            dtype type) noexcept {
  const int inner = s.heads * s.head_width;
  const float scale = attention_scale(s.head_width);
  run.parts(count * s.heads, [&](int part, int begin, int end) {
    for (int item = begin; item < end; item++) {
      const sequence& q = sequences[item / s.heads];
      const int head = item % s.heads;
      const float* base = b.qkv + head * s.head_width;
      attention_args a;
      const int first = q_rows == nullptr ? q.row : q_rows[item / s.heads];
      a.tq = q_rows == nullptr ? q.rows : 1;
      a.q =
          q_rows == nullptr ? base + first * b.ld_qkv : b.q + (item / s.heads) * b.ld_q + head * s.head_width;
      a.ldq = b.ld_qkv;
      const std::ptrdiff_t key_base = q.key_rows != nullptr ? 0 : q.row * b.ld_qkv;
      a.k = base + key_base + inner;
      a.v = base + key_base + 2 * inner;
      a.ldk = a.ldv = b.ld_qkv;
      a.key_rows = q.key_rows;
      a.tk = q.keys;
      a.d = s.head_width;
      a.causal = s.causal;
      a.causal_offset = q.keys - q.rows + (first - q.row);
      a.scale = scale;
      a.scratch = b.scratch + static_cast<std::size_t>(part) * b.scratch_part;
      a.out = out + (q_rows == nullptr ? q.row : item / s.heads) * ldo + head * s.head_width;
      a.ldo = ldo;
      run.attention(type, a);
    }
  });
}

/// Attention with one query per head and sequence over the rows of x[., C], into out[count, H * D], without keys and
/// values:
///   a score is q (W_k x_j + b_k): W_k^T q, for head h of sequence i at `queries` + h * ld_head + i * ld_sequence [C],
///     times x_j, and q b_k, which is the same for all j, so that softmax does not see it;
///   the output is sum_j p_j (W_v x_j + b_v) = W_v (sum_j p_j x_j) + b_v.
template <class Kernels>
void attention_pool(const runner<Kernels>& run, const float* queries, std::ptrdiff_t ld_head,
                    std::ptrdiff_t ld_sequence, const linear_weights& values, int heads, const operand& x,
                    const sequence* sequences, int count, const pool_buffers& b, float* out,
                    std::ptrdiff_t ldo) noexcept {
  const int c = values.k, d = values.n / heads;
  const float scale = attention_scale(d);
  run.parts(count, [&](int part, int begin, int end) {
    for (int i = begin; i < end; i++) {
      attention_args a;
      a.q = queries + i * ld_sequence;
      a.ldq = ld_head;
      a.k = a.v = x.f32 + sequences[i].row * x.ld;
      a.ldk = a.ldv = x.ld;
      a.tq = heads;
      a.tk = sequences[i].rows;
      a.d = c;
      a.scale = scale;
      a.scratch = b.scratch + static_cast<std::size_t>(part) * b.scratch_part;
      a.out = b.heads.f32 + i * b.heads.ld;
      a.ldo = count * b.heads.ld;
      run.attention(values.type, a);
    }
  });
  run.prepare(values.type, b.heads, heads * count, c);
  // A head that begins within a panel computes the end of the one before it as well, with the wrong rows: hence from
  // the last to the first, and on one thread.
  run.split(heads, d % panel_width == 0 ? 1 : heads, [&](int begin, int end) {
    for (int h = end - 1; h >= begin; h--) {
      linear_weights own = values;
      own.n = (h + 1) * d;
      run.product(own, b.heads.from_row(h * count), count, out, ldo, h * d / panel_width);
    }
  });
}

/// The same with the queries of some rows of x, one per sequence: class tokens in a tower's last block. `keys_t`
/// [H * C, D] is W_k transposed head by head; q [count, H * D] is overwritten.
template <class Kernels>
void attention_pool_rows(const runner<Kernels>& run, const linear_weights& qkv, const linear_weights& keys_t,
                         int heads, const operand& x, const operand& rows, const sequence* sequences, int count,
                         float* q, std::ptrdiff_t ldq, const pool_buffers& b, float* out,
                         std::ptrdiff_t ldo) noexcept {
  const int d = keys_t.k, inner = heads * d, c = qkv.k;
  run.prepare(qkv.type, rows, count, c);
  run.linear(qkv, rows.spent(), count, q, ldq, activation::none, nullptr, 0, 0, inner);
  for (int h = 0; h < heads; h++)
    for (int i = 0; i < count; i++)
      std::memcpy(b.queries.f32 + (h * count + i) * b.queries.ld, q + i * ldq + h * d,
                  sizeof(float) * static_cast<std::size_t>(d));
  run.prepare(keys_t.type, b.queries, heads * count, d);
  run.split(heads, 1, [&](int begin, int end) {
    for (int h = begin; h < end; h++)
      run.product(rows_of(keys_t, h * c, c), b.queries.from_row(h * count), count,
                  b.heads.f32 + h * count * b.heads.ld, b.heads.ld);
  });
  attention_pool(run, b.heads.f32, count * b.heads.ld, b.heads.ld, rows_of(qkv, 2 * inner, inner), heads, x,
                 sequences, count, b, out, ldo);
}

/// What attention or feed-forward reads, in the form of products with weights of `type`: the normed rows of x, or
/// with post-norm x itself.
template <class Kernels>
void half_input(const runner<Kernels>& run, const block_shape& s, const norm_weights& norm, const float* x,
                std::ptrdiff_t ldx, int rows, dtype type, const operand& to, const stage_observer& observe,
                const char* stage, int index) noexcept {
  if (!s.post_norm) {
    run.norm(norm, s.eps, x, ldx, rows, s.width, type, to);
    if (type != dtype::s8) observe(stage, index, to.f32, rows, s.width, to.ld);
    return;
  }
  for (int r = 0; r < rows; r++)
    std::memcpy(to.f32 + r * to.ld, x + r * ldx, sizeof(float) * static_cast<std::size_t>(s.width));
  run.prepare(type, to, rows, s.width);
}

/// x[rows, C] += from W^T + bias, or with post-norm += norm(from W^T + bias), which passes through `t`.
template <class Kernels>
void half_output(const runner<Kernels>& run, const block_shape& s, const norm_weights& norm, const linear_weights& w,
                 const operand& from, float* x, std::ptrdiff_t ldx, int rows, float* t, std::ptrdiff_t ldt) noexcept {
  if (!s.post_norm) {
    run.linear(w, from.spent(), rows, x, ldx, activation::none, x, ldx);
    return;
  }
  run.linear(w, from.spent(), rows, t, ldt);
  run.norm_f32(norm, s.eps, t, ldt, rows, s.width, t, ldt);
  run.split(rows, 8, [&](int begin, int end) {
    for (int r = begin; r < end; r++)
      for (int j = 0; j < s.width; j++) x[r * ldx + j] = x[r * ldx + j] + t[r * ldt + j];
  });
}

/// The feed-forward half of a block on x[rows, C] in place.
template <class Kernels>
void feed_forward(const runner<Kernels>& run, const block_shape& s, const block_weights& w,
                  const block_buffers& b, float* x, std::ptrdiff_t ldx, int rows,
                  const stage_observer& observe = {}, int index = 0) noexcept {
  half_input(run, s, w.norm2, x, ldx, rows, w.fc1.type, b.x, observe, "norm2", index);
  if (s.gated) {
    run.linear(w.fc1, b.x.spent(), rows, b.gate, b.ld_gate);
    run.split(rows, 8, [&](int begin, int end) {
      run.kernels.gate_rows(b.hidden.f32 + begin * b.hidden.ld, b.hidden.ld, b.gate + begin * b.ld_gate,
                            b.ld_gate, end - begin, s.mlp, s.act);
    });
  } else {
    run.linear(w.fc1, b.x.spent(), rows, b.hidden.f32, b.hidden.ld, s.act);
  }
  if (w.mlp_norm)
    run.norm_f32(w.mlp_norm, s.eps, b.hidden.f32, b.hidden.ld, rows, s.mlp, b.hidden.f32, b.hidden.ld);
  run.prepare(w.fc2.type, b.hidden, rows, s.mlp);
  half_output(run, s, w.norm2, w.fc2, b.hidden, x, ldx, rows, b.x.f32, b.x.ld);
}

/// Rotates k, and q but for pooled class tokens, of the rows that have a position in the table.
template <class Kernels>
void rotate(const runner<Kernels>& run, const block_shape& s, const block_buffers& b, const sequence* sequences,
            int count, bool with_q) noexcept {
  const int inner = s.heads * s.head_width;
  for (int i = 0; i < count; i++)
    run.split(sequences[i].rows - s.prefix, 16, [&](int begin, int end) {
      run.kernels.rotate_rows(b.qkv + (sequences[i].row + s.prefix + begin) * b.ld_qkv + (with_q ? 0 : inner), b.ld_qkv,
                              s.rope + static_cast<std::ptrdiff_t>(begin) * s.head_width, end - begin,
                              with_q ? 2 * s.heads : s.heads, s.head_width);
    });
}

/// x[i] = x[pooled[i]]: pooled rows ascend and pooled[i] >= i, so each source is still untouched.
inline void compact(float* x, std::ptrdiff_t ldx, int width, const int* pooled, int count) noexcept {
  for (int i = 0; i < count; i++)
    if (pooled[i] != i)
      std::memcpy(x + i * ldx, x + pooled[i] * ldx, sizeof(float) * static_cast<std::size_t>(width));
}

/// Attention of the rows of x, as far as the heads' outputs [., H D] in b.x; `pooled` as block() has it.
template <class Kernels>
void self_attention(const runner<Kernels>& run, const block_shape& s, const block_weights& w, const block_buffers& b,
                    float* x, std::ptrdiff_t ldx, int rows, const sequence* sequences, int count, const int* pooled,
                    const stage_observer& observe, int index) noexcept {
  const int inner = s.heads * s.head_width;
  const bool pools = pooled != nullptr && w.keys_t;
  half_input(run, s, w.norm1, x, ldx, rows, pools ? dtype::f32 : w.qkv.type, b.x, observe, "norm1", index);
  if (pools) {
    gather(dtype::f32, b.x, pooled, count, s.width, b.pooled);
    attention_pool_rows(run, w.qkv, w.keys_t, s.heads, b.x, b.pooled, sequences, count, b.q, b.ld_q, b.pool,
                        b.x.f32, b.x.ld);
  } else {
    if (pooled != nullptr && inner % panel_width == 0) {
      run.linear(w.qkv, b.x.spent(), rows, b.qkv, b.ld_qkv, activation::none, nullptr, 0, inner);
      gather(w.qkv.type, b.x, pooled, count, s.width, b.pooled);
      run.linear(w.qkv, b.pooled.spent(), count, b.q, b.ld_q, activation::none, nullptr, 0, 0, inner);
    } else {
      run.linear(w.qkv, b.x.spent(), rows, b.qkv, b.ld_qkv);
      for (int i = 0; pooled != nullptr && i < count; i++)
        std::memcpy(b.q + i * b.ld_q, b.qkv + pooled[i] * b.ld_qkv,
                    sizeof(float) * static_cast<std::size_t>(inner));
    }
    if (w.q_norm) {
      for (int h = 0; h < s.heads; h++) {
        float* q = pooled == nullptr ? b.qkv + h * s.head_width : b.q + h * s.head_width;
        const std::ptrdiff_t ldq = pooled == nullptr ? b.ld_qkv : b.ld_q;
        run.norm_f32(w.q_norm, s.eps, q, ldq, pooled == nullptr ? rows : count, s.head_width, q, ldq);
        float* k = b.qkv + inner + h * s.head_width;
        run.norm_f32(w.k_norm, s.eps, k, b.ld_qkv, rows, s.head_width, k, b.ld_qkv);
      }
    }
    if (s.rope != nullptr) rotate(run, s, b, sequences, count, pooled == nullptr);
    attend(run, s, b, sequences, count, pooled, b.x.f32, b.x.ld, w.qkv.type);
  }
}

/// The shape of the block with these weights.
constexpr block_shape own_shape(block_shape s, const block_weights& w) noexcept {
  if (s.uneven) {
    s.heads = w.qkv.n / (3 * s.head_width);
    s.mlp = w.fc2.k;
  }
  return s;
}

/// What a block does with its tokens together, attention; block_output is the rest, token by token. With `pooled` (one
/// row of x per sequence) only those rows are carried on, and come out compacted in x[0..count) and b.x: queries,
/// projection and feed-forward of the others are never computed.
template <class Kernels>
void block_attention(const runner<Kernels>& run, const block_shape& shape, const block_weights& w,
                     const block_buffers& b, float* x, std::ptrdiff_t ldx, int rows, const sequence* sequences,
                     int count, const int* pooled, const stage_observer& observe, int index) noexcept {
  if (w.qkv)
    self_attention(run, own_shape(shape, w), w, b, x, ldx, rows, sequences, count, pooled, observe, index);
  if (pooled != nullptr) compact(x, ldx, shape.width, pooled, count);
}

/// The rest of a block on x[rows, C] in place, with the heads' outputs in b.x.
template <class Kernels>
void block_output(const runner<Kernels>& run, const block_shape& shape, const block_weights& w,
                  const block_buffers& b, float* x, std::ptrdiff_t ldx, int rows, const stage_observer& observe,
                  int index) noexcept {
  const block_shape s = own_shape(shape, w);
  if (w.qkv) {
    const int inner = s.heads * s.head_width;
    if (w.attn_norm) run.norm_f32(w.attn_norm, s.eps, b.x.f32, b.x.ld, rows, inner, b.x.f32, b.x.ld);
    run.prepare(w.proj.type, b.x, rows, inner);
    half_output(run, s, w.norm1, w.proj, b.x, x, ldx, rows, b.qkv, b.ld_qkv);
  }
  if (w.fc1) feed_forward(run, s, w, b, x, ldx, rows, observe, index);
}

/// One block on x[rows, C] in place; `pooled` as block_attention has it.
template <class Kernels>
void block(const runner<Kernels>& run, const block_shape& s, const block_weights& w, const block_buffers& b,
           float* x, std::ptrdiff_t ldx, int rows, const sequence* sequences, int count,
           const int* pooled,
           const stage_observer& observe = {}, int index = 0) noexcept {
  block_attention(run, s, w, b, x, ldx, rows, sequences, count, pooled, observe, index);
  block_output(run, s, w, b, x, ldx, pooled != nullptr ? count : rows, observe, index);
}

}  // namespace nn
OCELLUS_END
OCELLUS_STRICT_FP_END
