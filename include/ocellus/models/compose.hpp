// Towers of one's own by composition: layers are types, a tower is a type, and what does not fit is refused when
// the program is compiled, in one sentence. No heap; memory and flash are constants; any kernel policy.
//
//   #include <ocellus/generic/scalar.hpp>
//   #include <ocellus/models/compose.hpp>
//   namespace c = ocellus::compose;
//   template <int C, int H, class Attention = c::attention<C, H>>
//   using block = c::seq<c::residual<c::named<"norm1", c::layer_norm<C>>, c::named<"attn", Attention>>,
//                        c::residual<c::named<"norm2", c::layer_norm<C>>, c::named<"mlp.fc1", c::linear<C, 4 * C>>,
//                                    c::quick_gelu<4 * C>, c::named<"mlp.fc2", c::linear<4 * C, C>>>>;
//   using layers = c::seq<c::patch_embed<64, 8, 128, true>, c::named<"pre_norm", c::layer_norm<128>>,
//                         c::named<"blocks", c::repeat<2, block<128, 2>>>,
//                         c::named<"blocks.2", block<128, 2, c::class_attention<128, 2>>>,
//                         c::named<"norm", c::layer_norm<128>>, c::named<"proj", c::projection<128, 64>>>;
//   using tower = c::tower<layers, ocellus::pinned<ocellus::kernels::scalar>>;
//   static_assert(tower::embed == 64 && tower::arena_size < 280 * 1024);
//
// Weights come from a packed file by name: `named` puts its name before those of the layers inside, `repeat` the
// number of the copy, so the block above finds "vision.blocks.0.norm1.weight". Neighbours that a kernel does in
// one pass are fused: a linear layer with the activation after it, a linear layer or attention at the end of a
// residual with the sum, a LayerNorm with the quantisation that the product after it wants. The same bits as the
// model opened at run time, for the same layers and weights: a GELU beside its linear layer, in the same seq, since
// s8 products have quicker forms of it (ops/gemm.hpp). But for f16 weights on amx, which here go by fp16 arithmetic.
//
// References: [Vaswani 2017] attention; [Dosovitskiy 2021] ViT; [Zhai 2022] attention pooling.
#pragma once

#include <ocellus/models/static_model.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>
#include <tuple>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace compose {

// What a layer is. All of it is static:
//   in, out, side     widths of its rows; in 0: it reads the picture, of side x side pixels
//   rows(n)           rows that come out when n go in
//   rowwise           row i of its output belongs to row i of its input
//   reads(n, m)       leading rows of n that it reads for the first m of its output
//   reads_product     its input is the left side of a matrix product: 8 bits where the weights have 8 bits
//   writes_product    it can write its output in that form
//   takes_activation, takes_residual    its kernel can apply them to its output
//   in_place          its output may be its input, unless that is to be in the product's form
//   arena(type, n, ready)    bytes of scratch for n rows in
//   weights, bind(), count()            its weights, where they are in a file, what they take
//   run<Ready, Product>(call, w, x, n, m, y, memory, act, residual)
//                     m rows of y from n of x. Ready: x is in the product's form, and nobody else's: it may be
//                     overwritten; Product: y shall be in that form

/// A name as a template argument.
template <std::size_t N>
struct text {
  char value[N] = {};
  consteval text(const char (&s)[N]) noexcept {  // NOLINT: implicit by design
    for (std::size_t i = 0; i < N; i++) value[i] = s[i];
  }
  constexpr operator std::string_view() const noexcept { return {value, N - 1}; }
};

/// LayerNorm's epsilon as a template argument.
struct epsilon {
  float value;
  constexpr epsilon(float x) noexcept : value(x) {}  // NOLINT: implicit by design
};

/// Rows that a layer adds to its product: x of a residual.
struct addend {
  const float* rows = nullptr;
  std::ptrdiff_t ld = 0;
};

/// What one call of a tower carries along.
template <class Kernels>
struct call {
  const nn::runner<Kernels>& run;
  dtype type;
  const nn::image_batch& image;
  const preprocess_config& preprocess;
};

namespace detail {

using ocellus::detail::flash_counter;
using ocellus::detail::tensor_name;
using ocellus::detail::weight_binder;

constexpr std::size_t larger(std::size_t a, std::size_t b) noexcept { return a > b ? a : b; }

constexpr std::size_t operand_bytes(int rows, int c) noexcept {
  nn::carver counter(nullptr);
  nn::operand{}.carve(counter, rows, c);
  return counter.used();
}

inline nn::operand operand_at(unsigned char* memory, int rows, int c) noexcept {
  nn::carver from(memory);
  nn::operand o;
  o.carve(from, rows, c);
  return o;
}

/// What a layer keeps for itself while n rows go through it, and how much that is.
template <class Buffers>
Buffers carved(unsigned char* memory, dtype type, int n) noexcept {
  nn::carver from(memory);
  Buffers b;
  b.carve(from, type, n);
  return b;
}
template <class Buffers>
constexpr std::size_t carved_bytes(dtype type, int n) noexcept {
  nn::carver counter(nullptr);
  Buffers b;
  b.carve(counter, type, n);
  return counter.used();
}

inline tensor_name under(const tensor_name& at, std::string_view name) noexcept {
  tensor_name full = at;
  if (full.size > 0) full << ".";
  return full << name;
}

inline void copy_rows(const nn::operand& from, int rows, int c, const nn::operand& to) noexcept {
  for (int i = 0; i < rows; i++)
    std::memcpy(to.f32 + i * to.ld, from.f32 + i * from.ld, sizeof(float) * static_cast<std::size_t>(c));
}

inline void add_rows(const addend& a, int rows, int c, const nn::operand& y) noexcept {
  for (int i = 0; a.rows != nullptr && i < rows; i++)
    for (int j = 0; j < c; j++) y.f32[i * y.ld + j] = a.rows[i * a.ld + j] + y.f32[i * y.ld + j];
}

/// What most layers are: as many rows out as in, float in, float out.
template <int In, int Out>
struct plain {
  static_assert(In > 0 && Out > 0, "a layer's width is a positive number");
  static constexpr int in = In, out = Out, side = 0;
  static constexpr bool rowwise = true, reads_product = false, writes_product = false;
  static constexpr bool takes_activation = false, takes_residual = false, in_place = false;
  static constexpr activation applies = activation::none;
  static constexpr int rows(int n) noexcept { return n; }
  static constexpr int reads(int, int m) noexcept { return m; }
  static constexpr std::size_t arena(dtype, int, bool) noexcept { return 0; }
  struct weights {};
  static void bind(weight_binder&, const tensor_name&, weights&) noexcept {}
  static constexpr void count(flash_counter&) noexcept {}
  template <class F>
  static constexpr bool each_linear(const weights&, F&&) noexcept {
    return true;
  }
};

}  // namespace detail

/// y[n, Out] = x W^T + bias.
template <int In, int Out, bool Bias = true>
struct linear : detail::plain<In, Out> {
  static constexpr bool reads_product = true, takes_activation = true, takes_residual = true;
  using weights = nn::linear_weights;
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    w = b.linear(at, Out, In);
    if ((w.bias != nullptr) != Bias) b.fail(status::missing_tensor);
  }
  static constexpr void count(detail::flash_counter& f) noexcept { f.linear(Out, In, Bias); }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    return f(w);
  }
  template <bool Ready, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int, int m, const nn::operand& y,
                  unsigned char*, activation act, const addend& a) noexcept {
    if constexpr (!Ready) c.run.prepare(c.type, x, m, In);
    c.run.linear(w, Ready ? x.spent() : x, m, y.f32, y.ld, act, a.rows, a.ld);
  }
};

/// A tower's last product: linear (CLIP's has no bias), but int8 weights read the rows with sixteen bits.
template <int In, int Out, bool Bias = false>
struct projection : linear<In, Out, Bias> {
  static constexpr bool reads_product = false, takes_activation = false, takes_residual = false;
  using weights = nn::linear_weights;
  static constexpr std::size_t arena(dtype, int n, bool) noexcept { return detail::operand_bytes(n, In); }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int, int m, const nn::operand& y,
                  unsigned char* memory, activation, const addend&) noexcept {
    const nn::operand copy = detail::operand_at(memory, m, In);
    detail::copy_rows(x, m, In, copy);
    nn::project(c.run, w, copy, m, y.f32, y.ld);
  }
};

/// LayerNorm over rows of C [Ba 2016].
template <int C, epsilon Eps = 1e-5f>
struct layer_norm : detail::plain<C, C> {
  static constexpr bool writes_product = true, in_place = true;
  using weights = nn::norm_weights;
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    w = b.norm(at, C);
  }
  static constexpr void count(detail::flash_counter& f) noexcept { f.norm(C); }
  template <class F>
  static bool each_linear(const weights&, F&&) noexcept {
    return true;
  }
  template <bool, bool Product, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int, int m, const nn::operand& y,
                  unsigned char*, activation, const addend&) noexcept {
    c.run.norm(w, Eps.value, x.f32, x.ld, m, C, Product ? c.type : dtype::f32, y);
  }
};

/// A non-linearity. After a linear layer it costs nothing.
template <activation Act, int C>
struct activate : detail::plain<C, C> {
  static constexpr activation applies = Act;
  static constexpr bool in_place = true;
  using weights = typename detail::plain<C, C>::weights;
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights&, const nn::operand& x, int, int m, const nn::operand& y,
                  unsigned char*, activation, const addend&) noexcept {
    c.run.kernels.activate_rows(y.f32, y.ld, x.f32, x.ld, m, C, Act);
  }
};
template <int C>
using gelu = activate<activation::gelu, C>;
template <int C>
using gelu_tanh = activate<activation::gelu_tanh, C>;
template <int C>
using quick_gelu = activate<activation::quick_gelu, C>;

/// Self-attention of H heads over all rows, with its two products: `qkv` and `proj`.
template <int C, int H>
struct attention : detail::plain<C, C> {
  static_assert(H > 0 && C % H == 0, "attention's width is no multiple of its number of heads");
  static constexpr bool reads_product = true, takes_residual = true;
  static constexpr int reads(int n, int) noexcept { return n; }
  struct weights {
    nn::linear_weights qkv, proj;
  };
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    w.qkv = b.linear(detail::under(at, "qkv"), 3 * C, C);
    w.proj = b.linear(detail::under(at, "proj"), C, C);
  }
  static constexpr void count(detail::flash_counter& f) noexcept { f.linear(3 * C, C), f.linear(C, C); }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    return f(w.qkv) && f(w.proj);
  }
  static constexpr std::size_t arena(dtype type, int n, bool ready) noexcept {
    nn::carver counter(nullptr);
    nn::block_buffers b;
    if (!ready) b.x.carve(counter, n, C);
    carve(counter, type, n, b);
    return counter.used();
  }
  template <bool Ready, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int m, const nn::operand& y,
                  unsigned char* memory, activation, const addend& a) noexcept {
    nn::carver from(memory);
    nn::block_buffers b;
    b.x = x;  // what the heads give may overwrite it
    if constexpr (!Ready) b.x.carve(from, n, C);
    carve(from, c.type, n, b);
    nn::block_shape s;
    s.width = C, s.heads = H, s.head_width = C / H;
    const nn::sequence all{0, m, n, nullptr};
    if constexpr (!Ready) c.run.prepare(c.type, x, n, C);
    const nn::operand from_x = Ready ? x.spent() : x;
    if (m < n && C % panel_width == 0) {  // queries of the wanted rows alone
      c.run.linear(w.qkv, from_x, n, b.qkv, b.ld_qkv, activation::none, nullptr, 0, C);
      c.run.linear(w.qkv, from_x, m, b.qkv, b.ld_qkv, activation::none, nullptr, 0, 0, C);
    } else {
      c.run.linear(w.qkv, from_x, n, b.qkv, b.ld_qkv);
    }
    nn::attend(c.run, s, b, &all, 1, nullptr, b.x.f32, b.x.ld, c.type);
    c.run.prepare(c.type, b.x, m, C);
    c.run.linear(w.proj, b.x.spent(), m, y.f32, y.ld, activation::none, a.rows, a.ld);
  }

 private:
  static constexpr void carve(nn::carver& from, dtype type, int n, nn::block_buffers& b) noexcept {
    b.ld_qkv = nn::ld_f32(3 * C);
    b.qkv = from.take<float>(static_cast<std::size_t>(n) * static_cast<std::size_t>(b.ld_qkv) + 16);
    b.scratch_part = type == dtype::s8 ? attention_scratch_s8(n, C / H) : attention_scratch(n, C / H);
    b.scratch = from.take<unsigned char>(b.scratch_part);
  }
};

/// Attention by the first row alone, in the last block of a tower that pools by its class token: one row, and without
/// keys and values (nn::attention_pool). Packed files of such towers have `keys_t` beside `qkv`.
template <int C, int H>
struct class_attention : attention<C, H> {
  static_assert(C % panel_width == 0, "class_attention's width is no multiple of 16");
  static constexpr bool reads_product = false;
  static constexpr int rows(int) noexcept { return 1; }
  struct weights : attention<C, H>::weights {
    nn::linear_weights keys_t;
  };
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    attention<C, H>::bind(b, at, w);
    w.keys_t = b.linear(detail::under(at, "keys_t"), H * C, C / H);
  }
  static constexpr void count(detail::flash_counter& f) noexcept {
    attention<C, H>::count(f), f.linear(H * C, C / H, false);
  }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    return attention<C, H>::each_linear(w, f) && f(w.keys_t);
  }
  static constexpr std::size_t arena(dtype type, int n, bool) noexcept {
    return detail::carved_bytes<buffers>(type, n);
  }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int, const nn::operand& y,
                  unsigned char* memory, activation, const addend& a) noexcept {
    const buffers b = detail::carved<buffers>(memory, c.type, n);
    const nn::sequence all{0, n, n, nullptr};
    detail::copy_rows(x, 1, C, b.row);
    nn::attention_pool_rows(c.run, w.qkv, w.keys_t, H, x, b.row, &all, 1, b.q, C, b.pool, b.row.f32, b.row.ld);
    c.run.prepare(c.type, b.row, 1, C);
    c.run.linear(w.proj, b.row, 1, y.f32, y.ld, activation::none, a.rows, a.ld);
  }

 private:
  struct buffers {
    nn::operand row;     // [1, C]
    float* q = nullptr;  // [1, C]
    nn::pool_buffers pool;
    constexpr void carve(nn::carver& from, dtype type, int n) noexcept {
      row.carve(from, 1, C);
      q = from.take<float>(C);
      pool.carve(from, H, C, C / H, 1, n, 1, type == dtype::s8);
    }
  };
};

/// SigLIP's head: attention with a learned query, p = proj(attention), then p + fc2(act(fc1(norm(p)))); one row.
template <int C, int H, int F = 4 * C, activation Act = activation::gelu_tanh, epsilon Eps = 1e-6f>
struct attention_pool : detail::plain<C, C> {
  static_assert(H > 0 && C % H == 0, "attention_pool's width is no multiple of its number of heads");
  static constexpr bool rowwise = false;
  using weights = nn::map_weights;
  static constexpr int rows(int) noexcept { return 1; }
  static constexpr int reads(int n, int) noexcept { return n; }
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    w.queries = b.values(detail::under(at, "queries"), std::int64_t{H} * C);
    w.v = b.linear(detail::under(at, "v"), C, C);
    w.proj = b.linear(detail::under(at, "proj"), C, C);
    w.norm = b.norm(detail::under(at, "norm"), C);
    w.fc1 = b.linear(detail::under(at, "fc1"), F, C);
    w.fc2 = b.linear(detail::under(at, "fc2"), C, F);
  }
  static constexpr void count(detail::flash_counter& f) noexcept {
    f.values(std::int64_t{H} * C), f.norm(C);
    f.linear(C, C), f.linear(C, C), f.linear(F, C), f.linear(C, F);
  }
  template <class Function>
  static bool each_linear(const weights& w, Function&& f) noexcept {
    return f(w.v) && f(w.proj) && f(w.fc1) && f(w.fc2);
  }
  static constexpr std::size_t arena(dtype type, int n, bool) noexcept {
    return detail::carved_bytes<buffers>(type, n);
  }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int, const nn::operand& y,
                  unsigned char* memory, activation, const addend&) noexcept {
    const buffers b = detail::carved<buffers>(memory, c.type, n);
    const nn::sequence all{0, n, n, nullptr};
    nn::attention_pool(c.run, w.queries, C, 0, w.v, H, x, &all, 1, b.pool, b.attended.f32, b.attended.ld);
    c.run.prepare(c.type, b.attended, 1, C);
    c.run.linear(w.proj, b.attended, 1, b.pooled, nn::ld_f32(C));
    c.run.norm(w.norm, Eps.value, b.pooled, nn::ld_f32(C), 1, C, c.type, b.attended);
    c.run.linear(w.fc1, b.attended, 1, b.hidden.f32, b.hidden.ld, Act);
    nn::project(c.run, w.fc2, b.hidden, 1, y.f32, y.ld, b.pooled, nn::ld_f32(C));
  }

 private:
  struct buffers {
    float* pooled = nullptr;  // [1, C]
    nn::operand attended, hidden;
    nn::pool_buffers pool;
    constexpr void carve(nn::carver& from, dtype type, int n) noexcept {
      pooled = from.take<float>(static_cast<std::size_t>(nn::ld_f32(C)));
      attended.carve(from, 1, C);
      hidden.carve(from, 1, F);
      pool.carve(from, H, C, 0, 1, n, 1, type == dtype::s8);
    }
  };
};

/// Pooling by the class token: row 0. What stands before it is computed for the other rows only where row 0 needs them.
template <int C>
struct first_token : detail::plain<C, C> {
  using weights = typename detail::plain<C, C>::weights;
  static constexpr int rows(int) noexcept { return 1; }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>&, const weights&, const nn::operand& x, int, int, const nn::operand& y,
                  unsigned char*, activation, const addend&) noexcept {
    detail::copy_rows(x, 1, C, y);
  }
};

/// The picture of Side x Side pixels in patches of Patch x Patch, embedded to C, with positions, and a class token
/// before them if asked for.
template <int Side, int Patch, int C, bool ClassToken = false>
struct patch_embed : detail::plain<1, C> {
  static_assert(Patch > 0 && Side >= Patch, "patch_embed: the picture is smaller than a patch");
  static constexpr int in = 0, grid = Side / Patch, depth = Patch * Patch * 3, side = Side;
  static constexpr int prefix = ClassToken ? 1 : 0, tokens = grid * grid + prefix;
  struct weights {
    nn::vision_weights w;
  };
  static constexpr int rows(int) noexcept { return tokens; }
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& out) noexcept {
    nn::vision_weights& w = out.w;
    w.patch_u8 = b.has(detail::under(at, "patch_embed_u8.weight"));
    w.patch_embed = b.linear(detail::under(at, w.patch_u8 ? "patch_embed_u8" : "patch_embed"), C, depth);
    if (w.patch_u8 && !w.patch_bytes() && w.patch_embed.type != dtype::bf16) b.fail(status::unsupported_dtype);
    if (ClassToken) w.class_token = b.values(detail::under(at, "class_token"), C);
    w.positions = b.values(detail::under(at, "positions"), std::int64_t{tokens} * C);
  }
  static constexpr void count(detail::flash_counter& f) noexcept {
    f.linear(C, depth);
    if (ClassToken) f.values(C);
    f.values(std::int64_t{tokens} * C);
  }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    return f(w.w.patch_embed);
  }
  static constexpr std::size_t arena(dtype, int, bool) noexcept { return detail::operand_bytes(grid * grid, depth); }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& weights_of, const nn::operand&, int, int, const nn::operand& y,
                  unsigned char* memory, activation, const addend&) noexcept {
    const nn::vision_weights& w = weights_of.w;
    constexpr int patches = grid * grid;
    nn::operand pixels = detail::operand_at(memory, patches, depth);
    pixels.exact = true;
    float table[3][256];
    ocellus::detail::normalize_table(c.preprocess, table);
    nn::patch_rows(w, c.preprocess, c.image, 0, Patch, false, pixels, 0, table);
    if (!w.patch_u8) c.run.prepare(c.type, pixels, patches, depth);
    float* const x = y.f32 + prefix * y.ld;
    c.run.linear(w.patch_embed, pixels.spent(), patches, x, y.ld);
    if (ClassToken) std::memcpy(y.f32, w.class_token, sizeof(float) * std::size_t{C});
    detail::add_rows({w.positions, C}, tokens, C, y);
  }
};

/// A name before those of the layer inside.
template <text Name, class Layer>
struct named : Layer {
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, typename Layer::weights& w) noexcept {
    Layer::bind(b, detail::under(at, Name), w);
  }
};

/// One layer after the other.
template <class... Layers>
struct seq {
 private:
  static constexpr std::size_t size = sizeof...(Layers);
  static_assert(size > 0, "seq needs at least one layer");
  using list = std::tuple<Layers...>;
  template <std::size_t I>
  using at = std::tuple_element_t<I, list>;

  template <std::size_t... I>
  static constexpr bool fit(std::index_sequence<I...>) noexcept {
    return ((at<I>::out == at<I + 1>::in) && ...);
  }
  static_assert(fit(std::make_index_sequence<size - 1>{}),
                "seq: a layer's width differs from what the layer before it gives");

  /// Whether layer I does the activation after it as well.
  template <std::size_t I>
  static constexpr bool fuses() noexcept {
    if constexpr (I + 1 < size) return at<I>::takes_activation && at<I + 1>::applies != activation::none;
    return false;
  }
  template <std::size_t I>
  static constexpr activation fused() noexcept {
    if constexpr (fuses<I>()) return at<I + 1>::applies;
    return activation::none;
  }
  /// The first layer of the step after that of layer I.
  template <std::size_t I>
  static constexpr std::size_t next() noexcept {
    return I + (fuses<I>() ? 2 : 1);
  }
  /// The first layer of the last step.
  template <std::size_t I = 0>
  static constexpr std::size_t last_step() noexcept {
    if constexpr (next<I>() >= size) {
      return I;
    } else {
      return last_step<next<I>()>();
    }
  }

  // Where results between steps lie: in the output itself if all that follows works in place, else where the step's
  // input was if the step does, else at the other end of the memory; what a layer needs for itself, in the middle.
  enum : int { bottom = 0, top = 1, outside = 2 };

  template <std::size_t I>
  static constexpr bool stays() noexcept {
    if constexpr (!at<I>::in_place || !at<I>::writes_product) return at<I>::in_place;
    if constexpr (next<I>() < size) return !at<next<I>()>::reads_product;
    return false;
  }
  /// Whether the steps from layer I on all work in place.
  template <std::size_t I>
  static constexpr bool rest_stays() noexcept {
    if constexpr (I >= size) {
      return true;
    } else {
      return stays<I>() && rest_stays<next<I>()>();
    }
  }
  /// Where a step's result lies, given where its input does; outside: in the sequence's own input or output.
  template <std::size_t I>
  static constexpr int place_after(int place) noexcept {
    if (rest_stays<next<I>()>()) return outside;
    if (place == outside) return bottom;
    return stays<I>() ? place : 1 - place;
  }
  /// Bytes of a step's result, if it is another place than that of its input.
  template <std::size_t I>
  static constexpr std::size_t bytes_of(int rows, int place, int to) noexcept {
    return to == outside || to == place ? 0 : detail::operand_bytes(rows, at<I>::out);
  }
  /// Bytes for the steps from layer I on, whose input takes `held` of them.
  template <std::size_t I>
  static constexpr std::size_t bytes_from(dtype type, int n, bool ready, int place, std::size_t held) noexcept {
    const std::size_t inner = at<I>::arena(type, n, ready && at<I>::reads_product);
    if constexpr (next<I>() >= size) {
      return held + inner;
    } else {
      const int rows = at<I>::rows(n), to = place_after<I>(place);
      const std::size_t result = bytes_of<I>(rows, place, to);
      return detail::larger(held + result + inner, bytes_from<next<I>()>(type, rows, at<I>::writes_product, to,
                                                                         to == place ? held : result));
    }
  }

  /// Rows of its n that the step of layer I and those after it read for m rows of the end.
  template <std::size_t I>
  static constexpr int reads_from(int n, int m) noexcept {
    if constexpr (I >= size) {
      return m;
    } else {
      return at<I>::reads(n, reads_from<next<I>()>(at<I>::rows(n), m));
    }
  }

  template <std::size_t... I, class F>
  static constexpr void each(std::index_sequence<I...>, F&& f) noexcept {
    (f(std::integral_constant<std::size_t, I>{}), ...);
  }
  using indices = std::make_index_sequence<size>;

 public:
  static constexpr int in = at<0>::in, out = at<size - 1>::out, side = at<0>::side;
  static constexpr bool rowwise = (Layers::rowwise && ...);
  static constexpr bool reads_product = at<0>::reads_product;
  static constexpr bool writes_product = at<size - 1>::writes_product;
  static constexpr bool takes_activation = last_step() == size - 1 && at<size - 1>::takes_activation;
  static constexpr bool takes_residual = last_step() == size - 1 && at<size - 1>::takes_residual;
  static constexpr activation applies = activation::none;
  using weights = std::tuple<typename Layers::weights...>;

  static constexpr int rows(int n) noexcept {
    ((n = Layers::rows(n)), ...);
    return n;
  }
  static constexpr int reads(int n, int m) noexcept { return reads_from<0>(n, m); }
  /// The first step is done in place or reads all before anything else writes to the output.
  static constexpr bool in_place = in == out && rows(2) == 2 && (stays<0>() || !rest_stays<next<0>()>());
  static constexpr std::size_t arena(dtype type, int n, bool ready) noexcept {
    return bytes_from<0>(type, n, ready, outside, 0);
  }
  static void bind(detail::weight_binder& b, const detail::tensor_name& name, weights& w) noexcept {
    each(indices{}, [&](auto i) { at<i>::bind(b, name, std::get<i>(w)); });
  }
  static constexpr void count(detail::flash_counter& f) noexcept { (Layers::count(f), ...); }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    bool good = true;
    each(indices{}, [&](auto i) { good = good && at<i>::each_linear(std::get<i>(w), f); });
    return good;
  }
  template <bool Ready, bool Product, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int m, const nn::operand& y,
                  unsigned char* memory, activation act, const addend& a) noexcept {
    step<0, Ready, Product>(c, w, x, n, m, y, memory, memory + arena(c.type, n, Ready), outside, 0, act, a);
  }

 protected:
  /// Whether the last step alone writes to the output: what it adds may lie there.
  static constexpr bool writes_last = last_step() > 0 && !stays<last_step()>();

 private:
  template <std::size_t I, bool Ready, bool Product, class Kernels>
  static void step(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int m, const nn::operand& y,
                   unsigned char* memory, unsigned char* end, int place, std::size_t held, activation act,
                   const addend& a) noexcept {
    using layer = at<I>;
    constexpr std::size_t then = next<I>();
    unsigned char* inner = place == bottom ? memory + held : memory;
    if constexpr (then >= size) {
      layer::template run<Ready, Product>(c, std::get<I>(w), x, n, m, y, inner, fuses<I>() ? fused<I>() : act, a);
    } else {
      constexpr bool product = layer::writes_product && at<then>::reads_product;
      const int rows = layer::rows(n), wanted = reads_from<then>(rows, m), to = place_after<I>(place);
      const std::size_t bytes = bytes_of<I>(rows, place, to);
      nn::operand t = to == outside ? y : x;
      if (to != outside && to != place) t = detail::operand_at(to == bottom ? memory : end - bytes, rows, layer::out);
      if (to == bottom) inner = memory + (to == place ? held : bytes);
      layer::template run<Ready, product>(c, std::get<I>(w), x, n, wanted, t, inner, fused<I>(), {});
      step<then, product, Product>(c, w, t, rows, m, y, memory, end, to, to == place ? held : bytes, act, a);
    }
  }
};

/// x + layers(x), for as many leading rows as the layers inside give.
template <class... Layers>
struct residual : seq<Layers...> {
 private:
  using base = seq<Layers...>;
  static_assert(base::in == base::out, "residual: the layers inside do not return to the width they began with");
  static_assert(base::rowwise, "residual: the layers inside give other rows than those that they are added to");

 public:
  static constexpr bool reads_product = false, writes_product = false;
  static constexpr bool takes_activation = false, takes_residual = false;
  static constexpr bool in_place = base::takes_residual && base::writes_last;
  static constexpr std::size_t arena(dtype type, int n, bool) noexcept { return base::arena(type, n, false); }
  using weights = typename base::weights;
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int m, const nn::operand& y,
                  unsigned char* memory, activation, const addend&) noexcept {
    const addend sum{x.f32, x.ld};
    base::template run<false, false>(c, w, x, n, m, y, memory, activation::none, base::takes_residual ? sum : addend{});
    if constexpr (!base::takes_residual) detail::add_rows(sum, m, base::out, y);
  }
};

/// N copies of a layer, each with weights of its own under its number.
template <int N, class Layer>
struct repeat : detail::plain<Layer::in, Layer::out> {
  static_assert(N > 0, "repeat: at least once");
  static_assert(Layer::in == Layer::out, "repeat: the layer does not return to the width it began with");
  static_assert(Layer::rows(2) == 2, "repeat: the layer changes the number of rows");
  using weights = std::array<typename Layer::weights, static_cast<std::size_t>(N)>;
  static void bind(detail::weight_binder& b, const detail::tensor_name& at, weights& w) noexcept {
    for (int i = 0; i < N; i++) {
      detail::tensor_name name = detail::under(at, "");
      Layer::bind(b, name << i, w[static_cast<std::size_t>(i)]);
    }
  }
  static constexpr void count(detail::flash_counter& f) noexcept {
    for (int i = 0; i < N; i++) Layer::count(f);
  }
  template <class F>
  static bool each_linear(const weights& w, F&& f) noexcept {
    for (const typename Layer::weights& one : w)
      if (!Layer::each_linear(one, f)) return false;
    return true;
  }
  static constexpr bool in_place = Layer::in_place;
  static constexpr int reads(int n, int m) noexcept { return reads_of(N, n, m); }
  static constexpr std::size_t arena(dtype type, int n, bool) noexcept {
    return other_bytes(n) + Layer::arena(type, n, false);
  }
  template <bool, bool, class Kernels>
  static void run(const call<Kernels>& c, const weights& w, const nn::operand& x, int n, int m, const nn::operand& y,
                  unsigned char* memory, activation, const addend&) noexcept {
    const nn::operand other = in_place ? y : detail::operand_at(memory, n, Layer::out);
    unsigned char* const inner = memory + other_bytes(n);
    nn::operand from = x;
    for (int i = 0; i < N; i++) {  // turns so that the last lands in y
      const nn::operand& to = (N - 1 - i) % 2 == 0 ? y : other;
      const int wanted = reads_of(N - 1 - i, n, m);
      Layer::template run<false, false>(c, w[static_cast<std::size_t>(i)], from, n, wanted, to, inner,
                                        activation::none, {});
      from = to;
    }
  }

 private:
  /// Rows that the last `copies` read.
  static constexpr int reads_of(int copies, int n, int m) noexcept {
    for (int i = 0; i < copies; i++) m = Layer::reads(n, m);
    return m;
  }
  static constexpr std::size_t other_bytes(int n) noexcept {
    return N > 1 && !in_place ? detail::operand_bytes(n, Layer::out) : 0;
  }
};

/// Layers that begin with patch_embed, over a kernel policy; all matrices are of type `Weights`.
template <class Layers, class Kernels, dtype Weights = dtype::s8>
class tower {
  static_assert(Layers::in == 0, "a tower begins with patch_embed");
  static_assert(Weights <= dtype::s8, "weights are f32, f16, bf16 or s8");

 public:
  static constexpr int rows = Layers::rows(0);
  static constexpr int embed = rows * Layers::out;
  /// Bytes of activations; beside them a call takes as much stack as that of vision_tower (models/static_model.hpp).
  static constexpr std::size_t arena_size = detail::operand_bytes(rows, Layers::out) + Layers::arena(Weights, 0, false);
  /// Bytes of the weights in a packed file; its header and its tables add some KB.
  static constexpr std::size_t flash_size = [] {
    detail::flash_counter f{Weights};
    Layers::count(f);
    return f.bytes;
  }();

  explicit tower(const Kernels& set = Kernels{}) noexcept : kernels_{set} {}

  /// Finds the weights in a packed file under `prefix`; the file is aligned to 64 bytes and outlives the tower.
  /// Errors: those of packed_file, bad_config, missing_tensor, wrong_shape, unsupported_dtype, unsupported_layout.
  status bind(std::span<const std::byte> packed, std::string_view prefix = "vision") noexcept {
    const result<packed_file> file = packed_file::open(packed);
    if (!file) return file.error();
    const result<model_config> stored = ocellus::detail::stored_config(*file);
    if (!stored) return stored.error();
    preprocess_ = stored->preprocess;
    detail::weight_binder binder(*file);
    Layers::bind(binder, detail::tensor_name() << prefix, weights_);
    if (binder.error != status::ok) return binder.error;
    const bool typed = Layers::each_linear(weights_, [](const nn::linear_weights& w) { return w.type == Weights; });
    return typed ? status::ok : status::unsupported_dtype;
  }

  /// out[rows, width], not normalised, of rgb[side, side, 3], resized and cropped. After a successful bind.
  void features(const std::uint8_t* rgb, float* out, static_arena<arena_size>& memory) const noexcept {
    nn::image_batch in;
    in.rgb = rgb;
    run(in, out, memory);
  }
  /// The same from normalised pixels [3, side, side].
  void features(const float* pixels, float* out, static_arena<arena_size>& memory) const noexcept {
    nn::image_batch in;
    in.pixels = pixels;
    run(in, out, memory);
  }
  /// embedding[embed], unit length, of rgb[side, side, 3].
  void operator()(const std::uint8_t* rgb, float* embedding, static_arena<arena_size>& memory) const noexcept {
    const fp_env guard;
    features(rgb, embedding, memory);
    kernels_.l2_normalize(embedding, embedding, embed);
  }

 private:
  using kernels = ocellus::detail::typed_kernels<Kernels, Weights, true, true>;

  void run(nn::image_batch& in, float* out, static_arena<arena_size>& memory) const noexcept {
    const fp_env guard;
    in.count = 1;
    in.height = in.width = Layers::side;
    const nn::operand last = detail::operand_at(memory.bytes, rows, Layers::out);
    const nn::runner<kernels> runner{kernels_, {}};
    const call<kernels> c{runner, Weights, in, preprocess_};
    Layers::template run<false, false>(c, weights_, {}, 0, rows, last,
                                       memory.bytes + detail::operand_bytes(rows, Layers::out), activation::none, {});
    for (int r = 0; r < rows; r++)
      std::memcpy(out + r * Layers::out, last.f32 + r * last.ld, sizeof(float) * std::size_t{Layers::out});
  }

  kernels kernels_;
  preprocess_config preprocess_;
  typename Layers::weights weights_;
};

}  // namespace compose
OCELLUS_END
OCELLUS_STRICT_FP_END
