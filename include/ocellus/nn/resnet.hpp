// CLIP's image encoder of the other kind: a ResNet with a stem of three convolutions, average pooling before
// each strided convolution (antialiasing), and attention pooling instead of the mean [Radford 2021;
// openai/CLIP clip/model.py: ModifiedResNet, AttentionPool2d]. Batch norm is folded into the convolutions by
// the converter.
//
// Feature maps are matrices [H * W, C] (row-major, channels last), so a 1 x 1 convolution is a linear layer;
// a 3 x 3 one is a linear layer over rows of patches, built a chunk of rows at a time. The same kernels
// serve, s8 ones too. In files of floats Winograd's products take the place of most of the 3 x 3 ones.
#pragma once

#include <ocellus/nn/tower.hpp>

#include <cstring>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace nn {

/// conv1 1 x 1, conv2 3 x 3, average pool by the stride, conv3 1 x 1; `down` on the way around where the
/// shape changes.
struct bottleneck_weights {
  linear_weights conv1, conv2, conv3, down;
  int stride = 1;
};

struct resnet_weights {
  linear_weights stem[3];
  const bottleneck_weights* blocks = nullptr;  ///< of all four stages, one after the other
  int block_count = 0;
  const float* positions = nullptr;            ///< [tokens, C], the mean's row first
  linear_weights q, kv, proj;
};

/// A feature map in memory: [h * w, c], ld floats from row to row.
struct feature_map {
  float* data = nullptr;
  int h = 0, w = 0, c = 0;
  std::ptrdiff_t ld = 0;
  int rows() const noexcept { return h * w; }
  /// The C values of a pixel, or `beyond` outside the map.
  template <class T>
  T* pixel(int y, int x, T* beyond) const noexcept {
    return y < 0 || y >= h || x < 0 || x >= w ? beyond : data + (static_cast<std::ptrdiff_t>(y) * w + x) * ld;
  }
};

struct resnet_buffers {
  static constexpr int maps = 4;
  float* map[maps] = {};
  operand rows;           ///< of a 3 x 3 convolution, or of a 1 x 1 one in u8, for `rows_of`
  std::size_t values = 0; ///< that `rows` has room for
  float* zeros = nullptr; ///< [C] of the widest 3 x 3 convolution: pixels beyond the edge
  int zeros_size = 0;
  block_buffers pool;     ///< scratch of the attention pool
  operand tokens;         ///< [tokens, C]
  float* kv = nullptr;
  float* q = nullptr;

  /// More would fall out of the L2 cache before the product reads them.
  static constexpr int most_values = 512 * 1024, most_rows = 4096;

  /// How many tiles of 2 x 2 outputs of a convolution from c to n channels run together: what the L2 cache holds, but
  /// so many that each product's weights are worth reading.
  static constexpr int winograd_tiles(int c, int n) noexcept {
    const int fit = most_values / 2 / (16 * (ld_f32(c) + ld_f32(n)));
    return fit < 60 ? 60 : fit;
  }

  /// `rows` for a product of depth k, and how many of them there is room for.
  operand rows_of(int k, int& count) const noexcept {
    operand o = rows.spent();
    o.ld = ld_f32(k);
    // what the last piece of a patch may write past its end, where pieces fill no sixteens, is not the next row's
    o.ld8 = ld_u8(k % panel_width == 0 ? k : k + 15);
    const std::size_t fit = values / static_cast<std::size_t>(o.ld > o.ld8 ? o.ld : o.ld8);
    count = fit < most_rows ? static_cast<int>(fit) : most_rows;
    return o;
  }

  [[gnu::cold]] constexpr std::size_t carve(unsigned char* base, const vision_config& v, int height, int width,
                                            int threads) noexcept {
    carver from(base);
    const int w = v.resnet_width;
    const auto floats = [](int count, int c) {
      return static_cast<std::uint64_t>(count) * static_cast<std::size_t>(ld_f32(c));
    };
    std::uint64_t most = floats(height * width, 3);
    const auto need = [&most](std::uint64_t n) { most = n > most ? n : most; };
    need(floats((height / 2) * (width / 2), w));
    int pixels = (height / 4) * (width / 4);
    for (int s = 0, planes = w; s < 4; s++, planes *= 2) {
      need(floats(pixels, 4 * planes));
      if (s < 3) need(floats(pixels, 2 * planes));  // conv1 of the next stage runs before its pooling
      if (s < 3) pixels = pixels / 4 + 64;
    }
    for (float*& m : map) m = from.take<float>(most);
    const int widest = 32 * w;
    const int deepest = 8 * w;  // channels of a 3 x 3 convolution
    values = most_values;
    const auto room = [this](std::size_t n) { values = n > values ? n : values; };
    room(64 * static_cast<std::size_t>(ld_u8(9 * deepest + 15)));
    room(static_cast<std::size_t>(winograd_tiles(deepest, deepest)) * 32 * static_cast<std::size_t>(ld_f32(deepest)));
    zeros_size = round_up(deepest, panel_width);
    zeros = from.take<float>(static_cast<std::size_t>(zeros_size));
    rows.f32 = from.take<float>(values);
    rows.u8 = from.take<std::uint8_t>(values);
    rows.scale = from.take<float>(most_rows);
    rows.zero = from.take<std::int32_t>(most_rows);
    const int t = (height / 32) * (width / 32) + 1;
    tokens.carve(from, t, widest);
    kv = from.take<float>(floats(t, 2 * widest) + 16);
    q = from.take<float>(floats(1, widest) + 16);
    pool.scratch_part = attention_scratch(t, widest / v.encoder.heads);
    pool.scratch = from.take<unsigned char>(pool.scratch_part * static_cast<std::uint64_t>(threads));
    return from.used();
  }
};

/// From pixel to pixel of the maps that 3 x 3 convolutions read: where it can be without a gap, so that three
/// neighbours are one piece of a patch.
constexpr std::ptrdiff_t ld_map(int c) noexcept { return c % panel_width == 0 ? c : ld_f32(c); }

/// Patches [first, first + rows) of a 3 x 3 convolution with padding 1, `width` of them side by side, as products with
/// weights of `type` read them: k = (y * 3 + x) * C + c.
template <class Kernels>
void gather_patches(const runner<Kernels>& run, dtype type, const feature_map& x, int stride, int width, int first,
                    int rows, const operand& o) noexcept {
  // n patches from row r of o on, in so many pieces of c values each
  const auto write = [&](const float* const* from, int pieces, int c, int r, int n) {
    if (type == dtype::s8) {
      quantize_pieces_args a;
      a.from = from;
      a.pieces = pieces;
      a.rows = n;
      a.c = c;
      a.q = o.u8 + r * o.ld8;
      a.ldq = o.ld8;
      a.scale = o.scale + r;
      a.zero = o.zero + r;
      run.kernels.quantize_pieces_u8(a);
      return;
    }
    const std::size_t bytes = sizeof(float) * static_cast<std::size_t>(c);
    for (int i = 0; i < n; i++)
      for (int p = 0; p < pieces; p++, from++) {
        float* const to = o.f32 + (r + i) * o.ld + p * c;
        if (*from == nullptr) {
          std::memset(to, 0, bytes);
        } else {
          std::memcpy(to, *from, bytes);
        }
      }
  };
  run.split(rows, 16, [&](int begin, int end) {
    constexpr int together = 16;
    const float* from[together * 3];
    const float* const none = nullptr;
    int oy = (first + begin) / width, ox = (first + begin) % width;
    for (int r = begin; r < end;) {
      int n = 0;  // patches inside the row, whose three lines are a piece each
      for (; x.ld == x.c && n < together && r + n < end && ox + n < width; n++) {
        const int left = (ox + n) * stride - 1;
        if (left < 0 || left + 3 > x.w) break;
        for (int ky = 0; ky < 3; ky++) from[n * 3 + ky] = x.pixel(oy * stride - 1 + ky, left, none);
      }
      if (n > 0) {
        write(from, 3, 3 * x.c, r, n);
      } else {
        n = 1;
        for (int p = 0; p < 9; p++) from[p] = x.pixel(oy * stride - 1 + p / 3, ox * stride - 1 + p % 3, none);
        write(from, 9, x.c, r, 1);
      }
      r += n;
      ox += n;
      if (ox == width) ox = 0, oy++;
    }
  });
}

/// conv3x3 with stride 1 of weights [16 N, C] that the converter transformed: each 2 x 2 outputs take sixteen products
/// of rows instead of four times nine [Winograd 1980; Lavin 2015: F(2 x 2, 3 x 3)].
template <class Kernels>
[[gnu::cold]] feature_map conv3x3_winograd(const runner<Kernels>& run, const linear_weights& w, const feature_map& x,
                                           float* out, const resnet_buffers& b) noexcept {
  const int n = w.n / 16, c = x.c, across = (x.w + 1) / 2, tiles = across * ((x.h + 1) / 2);
  const feature_map y{out, x.h, x.w, n, ld_map(n)};
  const std::ptrdiff_t ld = ld_f32(c), ldm = ld_f32(n);
  const int most = resnet_buffers::winograd_tiles(c, n);
  for (int first = 0, rows = 0; first < tiles; first += rows) {
    rows = tiles - first < most ? tiles - first : most;
    float* const inputs = b.rows.f32;  // [16, rows, C]
    float* const products = inputs + 16 * rows * ld;  // [16, rows, N]
    run.split(rows, 4, [&](int begin, int end) {
      for (int r = begin; r < end; r++) {
        const int top = (first + r) / across * 2 - 1, left = (first + r) % across * 2 - 1;
        const float* from[16];
        for (int i = 0; i < 16; i++) from[i] = x.pixel<const float>(top + i / 4, left + i % 4, b.zeros);
        run.kernels.winograd_input(from, inputs + r * ld, rows * ld, c);
      }
    });
    run.split(16, 1, [&](int begin, int end) {
      for (int i = begin; i < end; i++) {
        linear_weights part = rows_of(w, i * n, n);
        part.bias = nullptr;
        operand o;
        o.f32 = inputs + i * rows * ld;
        o.ld = ld;
        run.product(part, o, rows, products + i * rows * ldm, ldm);
      }
    });
    run.split(rows, 4, [&](int begin, int end) {
      for (int r = begin; r < end; r++) {
        const int top = (first + r) / across * 2, left = (first + r) % across * 2;
        float* const row = products + r * ldm;
        float* to[4];  // beyond the edge: over the products, of which sixteen are read before as many are written
        for (int i = 0; i < 4; i++) to[i] = y.pixel(top + i / 2, left + i % 2, row);
        run.kernels.winograd_output(row, rows * ldm, w.bias, to, n);
      }
    });
  }
  return y;
}

/// out = relu(conv3x3(x) + bias), padding 1. exact: as operand has it.
template <class Kernels>
[[gnu::cold]] feature_map conv3x3(const runner<Kernels>& run, const linear_weights& w, const feature_map& x, int stride,
                                  float* out, const resnet_buffers& b, bool exact = false) noexcept {
  if (w.k == x.c) return conv3x3_winograd(run, w, x, out, b);
  feature_map y{out, (x.h - 1) / stride + 1, (x.w - 1) / stride + 1, w.n, ld_map(w.n)};
  int most = 0;
  operand patches = b.rows_of(w.k, most);
  patches.exact = exact;
  for (int first = 0, rows = 0; first < y.rows(); first += rows) {
    rows = y.rows() - first < most ? y.rows() - first : most;
    gather_patches(run, w.type, x, stride, y.w, first, rows, patches);
    run.linear(w, patches, rows, y.data + first * y.ld, y.ld, activation::relu);
  }
  return y;
}

/// out = act(x W^T + bias): a 1 x 1 convolution.
template <class Kernels>
[[gnu::cold]] feature_map conv1x1(const runner<Kernels>& run, const linear_weights& w, const feature_map& x, float* out,
                                  activation act, const resnet_buffers& b,
                                  const float* residual = nullptr) noexcept {
  feature_map y{out, x.h, x.w, w.n, ld_map(w.n)};
  if (w.type != dtype::s8) {
    operand o;
    o.f32 = x.data;
    o.ld = x.ld;
    run.linear(w, o, x.rows(), y.data, y.ld, act, residual, y.ld);
    return y;
  }
  int most = 0;
  operand o = b.rows_of(w.k, most);  // whose own f32 nobody uses here
  o.ld = x.ld;
  for (int first = 0, rows = 0; first < x.rows(); first += rows) {
    rows = x.rows() - first < most ? x.rows() - first : most;
    o.f32 = x.data + first * x.ld;
    run.prepare(w.type, o, rows, x.c);
    run.linear(w, o, rows, y.data + first * y.ld, y.ld, act,
               residual == nullptr ? nullptr : residual + first * y.ld, y.ld);
  }
  return y;
}

/// 2 x 2 average pooling; odd rows and columns at the end are left out, as nn.AvgPool2d(2) does.
template <class Kernels>
feature_map pool2x2(const runner<Kernels>& run, const feature_map& x, float* out) noexcept {
  feature_map y{out, x.h / 2, x.w / 2, x.c, x.ld};
  run.split(y.rows(), 16, [&](int begin, int end) {
    for (int r = begin; r < end; r++) {
      const float* a = x.data + (static_cast<std::ptrdiff_t>(r / y.w * 2) * x.w + r % y.w * 2) * x.ld;
      const float* b = a + static_cast<std::ptrdiff_t>(x.w) * x.ld;
      float* to = y.data + r * y.ld;
      for (int c = 0; c < x.c; c += panel_width) {  // rows are as long; sixteen, since compilers vectorise that at -O2
        float mean[panel_width];
        for (int j = 0; j < panel_width; j++)
          mean[j] = (((a[c + j] + a[x.ld + c + j]) + b[c + j]) + b[x.ld + c + j]) * 0.25f;
        std::memcpy(to + c, mean, sizeof(mean));
      }
    }
  });
  return y;
}

/// The stem: three convolutions of the normalised picture, then pooling. Uses three of the maps.
template <class Kernels>
feature_map resnet_stem(const runner<Kernels>& run, const model_config& m, const resnet_weights& w,
                        const image_batch& in, int picture, const resnet_buffers& b) noexcept {
  float table[3][256];
  {
    const fp_env guard;
    ocellus::detail::normalize_table(m.preprocess, table);
  }
  feature_map x{b.map[0], in.height, in.width, 3, ld_f32(3)};
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(in.height) * in.width;
  for (std::ptrdiff_t i = 0; i < plane; i++)
    for (int c = 0; c < 3; c++)
      x.data[i * x.ld + c] = in.rgb != nullptr ? table[c][in.rgb[(picture * plane + i) * 3 + c]]
                                               : in.pixels[(picture * 3 + c) * plane + i];
  x = conv3x3(run, w.stem[0], x, 2, b.map[1], b, true);
  x = conv3x3(run, w.stem[1], x, 1, b.map[2], b);
  x = conv3x3(run, w.stem[2], x, 1, b.map[1], b);
  return pool2x2(run, x, b.map[0]);
}

/// One bottleneck block of x, which lies in one of the four maps; the others take turns.
template <class Kernels>
[[gnu::cold]] feature_map bottleneck(const runner<Kernels>& run, const bottleneck_weights& k, const feature_map& x,
                                     const resnet_buffers& b) noexcept {
  float* free[3];
  for (int n = 0, f = 0; n < resnet_buffers::maps; n++)
    if (b.map[n] != x.data) free[f++] = b.map[n];
  feature_map y = conv1x1(run, k.conv1, x, free[0], activation::relu, b);
  y = conv3x3(run, k.conv2, y, 1, free[1], b);
  if (k.stride > 1) y = pool2x2(run, y, free[0]);
  feature_map around = x;
  float* last = y.data == free[0] ? free[1] : free[0];
  if (k.down) {
    if (k.stride > 1) around = pool2x2(run, x, last);
    around = conv1x1(run, k.down, around, free[2], activation::none, b);
  }
  const feature_map z = conv1x1(run, k.conv3, y, last, activation::none, b, around.data);
  run.split(z.rows(), 16, [&](int begin, int end) {
    run.kernels.activate_rows(z.data + begin * z.ld, z.ld, z.data + begin * z.ld, z.ld, end - begin, z.c,
                              activation::relu);
  });
  return z;
}

/// Attention pooling of the last map into `out` [E]: the mean joins the tokens and is the only query.
template <class Kernels>
void resnet_attention_pool(const runner<Kernels>& run, const vision_config& v, const resnet_weights& w,
                           const feature_map& x, const resnet_buffers& b, float* out) noexcept {
  const int n = x.rows(), c = x.c, heads = v.encoder.heads, d = c / heads;
  const operand& t = b.tokens;
  {
    const fp_env guard;
    for (int j = 0; j < c; j++) t.f32[j] = 0;
    for (int i = 0; i < n; i++)
      for (int j = 0; j < c; j++) t.f32[j] = t.f32[j] + x.data[i * x.ld + j];
    for (int j = 0; j < c; j++) t.f32[j] = t.f32[j] / static_cast<float>(n) + w.positions[j];
    for (int i = 0; i < n; i++)
      for (int j = 0; j < c; j++)
        t.f32[(i + 1) * t.ld + j] =
            x.data[i * x.ld + j] + w.positions[static_cast<std::ptrdiff_t>(i + 1) * c + j];
  }
  const float scale = attention_scale(d);
  run.prepare(w.kv.type, t, n + 1, c);
  const std::ptrdiff_t ld = ld_f32(2 * c);
  run.linear(w.q, t, 1, b.q, ld_f32(c));
  run.linear(w.kv, t.spent(), n + 1, b.kv, ld);
  int one = 0;
  operand pooled = b.rows_of(c, one);
  pooled.spare = nullptr;
  run.parts(heads, [&](int part, int begin, int end) {
    for (int h = begin; h < end; h++) {
      attention_args a;
      a.q = b.q + h * d;
      a.ldq = c;
      a.k = b.kv + h * d;
      a.v = a.k + c;
      a.ldk = a.ldv = ld;
      a.tq = 1;
      a.tk = n + 1;
      a.d = d;
      a.scale = scale;
      a.scratch = b.pool.scratch + static_cast<std::size_t>(part) * b.pool.scratch_part;
      a.out = pooled.f32 + h * d;
      a.ldo = c;
      run.attention(w.kv.type, a);
    }
  });
  project(run, w.proj, pooled, 1, out, v.embed);
}

/// Features [E] of one picture of the batch into `out`, before normalisation.
template <class Kernels>
[[gnu::cold]] void resnet_forward(const runner<Kernels>& run, const model_config& m, const resnet_weights& w,
                                  const image_batch& in, int picture, const resnet_buffers& b, float* out,
                                  const stage_observer& observe = {}) noexcept {
  std::memset(b.zeros, 0, sizeof(float) * static_cast<std::size_t>(b.zeros_size));
  feature_map x = resnet_stem(run, m, w, in, picture, b);
  observe("stem", 0, x.data, x.rows(), x.c, x.ld);
  for (int i = 0; i < w.block_count; i++) {
    x = bottleneck(run, w.blocks[i], x, b);
    observe("block", i, x.data, x.rows(), x.c, x.ld);
  }
  resnet_attention_pool(run, m.vision, w, x, b, out);
}

}  // namespace nn
OCELLUS_END
OCELLUS_STRICT_FP_END
