// MobileCLIP's image encoder: FastViT [Vasu 2023; timm models/fastvit.py, fastvit_mci0 to mci4]. A stem of three
// convolutions, four or five stages at half the resolution and twice the width each, whose blocks mix pixels by
// depthwise convolutions or, in the last stages, by attention; a depthwise convolution, squeeze-and-excite and the mean
// of the map at the end. Branches and batch norms are folded into one convolution by the converter.
//
// Feature maps are matrices [H * W, C] (nn/resnet.hpp): 1 x 1 convolutions are linear layers. It only calls
// kernels, so that it may be small.
#pragma once

#include <ocellus/nn/resnet.hpp>

OCELLUS_STRICT_FP_BEGIN
#if defined(__GNUC__) && !defined(__clang__)
#pragma GCC optimize("Os")
#endif
OCELLUS_BEGIN
namespace nn {

/// A depthwise convolution, [side * side, c] and [c]. Where c is a multiple of the input's channels, each c_in of them
/// are one filter of every input channel.
struct depthwise_weights {
  const float* weights = nullptr;
  const float* bias = nullptr;
  int c = 0, side = 0;
  explicit operator bool() const noexcept { return weights != nullptr; }
};

/// Squeeze-and-excite [Hu 2018]: channels times sigmoid(fc2(relu(fc1(mean)))).
struct squeeze_weights {
  linear_weights fc1, fc2;
  explicit operator bool() const noexcept { return static_cast<bool>(fc1); }
};

/// x = mixer(x), or x += proj(attention(norm(x))); then x += fc2(gelu(fc1(conv(x)))).
struct fastvit_block {
  depthwise_weights mixer, conv;
  norm_weights norm;
  linear_weights qkv, proj, fc1, fc2;
};

struct fastvit_stage {
  depthwise_weights down, positions;
  squeeze_weights squeeze;
  linear_weights down_proj;
  const fastvit_block* blocks = nullptr;
  int count = 0;
  bool attends = false;
};

struct fastvit_weights {
  linear_weights stem[2];  ///< 3 x 3 and 1 x 1, with stem_conv between them
  depthwise_weights stem_conv, last;
  fastvit_stage stages[5];
  squeeze_weights squeeze;
  linear_weights proj;
};

/// Memory of one stage's layers: of maps [h * w, c].
struct fastvit_stage_buffers {
  int chunk = 0;          ///< rows of a map that the feed-forward takes at a time
  operand in;             ///< [chunk or, with attention, h * w, c]
  operand hidden;         ///< [chunk, mlp]
  operand mean, squeezed;  ///< [1, c] each, in the last stage twice that
  float* gates = nullptr;  ///< the same
  block_buffers attention;

  constexpr void carve(carver& from, int rows, int c, int mlp, int widening, int head_width,
                       int threads) noexcept {
    // hidden values stay in L2; the rows are enough to hide the reading of the weights
    const int most = 128 * 1024 / mlp > 96 ? 128 * 1024 / mlp : 96;
    chunk = ceil_div(rows, ceil_div(rows, most));
    if (chunk < 32) chunk = 32;  // the stem's first convolution has its patches here
    in.carve(from, head_width > 0 && rows > chunk ? rows : chunk, c > 27 ? c : 27);
    hidden.carve(from, chunk, mlp);
    mean.carve(from, 1, widening * c);
    squeezed.carve(from, 1, widening * c);
    gates = from.take<float>(static_cast<std::size_t>(ld_f32(widening * c)));
    if (head_width == 0) return;
    attention.ld_qkv = ld_f32(3 * c);
    const auto ld = static_cast<std::size_t>(attention.ld_qkv);
    attention.qkv = from.take<float>(static_cast<std::uint64_t>(rows) * ld + 16);
    const std::size_t f32 = attention_scratch(rows, head_width), s8 = attention_scratch_s8(rows, head_width);
    attention.scratch_part = f32 > s8 ? f32 : s8;
    attention.scratch = from.take<unsigned char>(attention.scratch_part * static_cast<std::uint64_t>(threads));
  }
};

constexpr int halved(int pixels) noexcept { return (pixels - 1) / 2 + 1; }

/// Lays out the memory of one of the stages. The last one's squeeze is twice as wide as the stage.
constexpr void carve_stage(carver& from, fastvit_stage_buffers& b, const vision_config& v, int stage, int rows,
                           int threads) noexcept {
  const int last = stages_of(v) - 1;
  b.carve(from, rows, v.resnet_width << stage, v.encoder.mlp >> (last - stage), stage == last ? 2 : 1,
          stage >= v.attention_stage ? v.encoder.head_width : 0, threads);
}

struct fastvit_buffers {
  float* map[2] = {};
  unsigned char* stage = nullptr;
  int threads = 1;

  [[gnu::cold]] constexpr std::size_t carve(unsigned char* base, const vision_config& v, int height, int width,
                                            int concurrency) noexcept {
    carver from(base);
    threads = concurrency;
    std::uint64_t most = 0;
    std::size_t most_bytes = 0;
    const auto need = [&most](int rows, int c) {
      const auto n = static_cast<std::uint64_t>(rows) * static_cast<std::size_t>(ld_f32(c));
      most = n > most ? n : most;
    };
    int h = halved(height), w = halved(width);
    need(h * w, v.resnet_width);
    for (int s = 0; s < stages_of(v); s++) {
      h = halved(h), w = halved(w);
      const int c = v.resnet_width << s;
      need(h * w, c);
      if (s + 1 == stages_of(v)) need(h * w, 2 * c);
      carver of_stage(nullptr);
      fastvit_stage_buffers b;
      carve_stage(of_stage, b, v, s, h * w, concurrency);
      most_bytes = of_stage.used() > most_bytes ? of_stage.used() : most_bytes;
    }
    for (float*& m : map) m = from.take<float>(most + 16);
    stage = from.take<unsigned char>(most_bytes);
    return from.used();
  }
};

/// y = act(conv(x) + bias), padded by half of the kernel: rows [first, first + rows) of it, at `out`.
template <class Kernels>
[[gnu::cold]] void depthwise_part(const runner<Kernels>& run, const depthwise_weights& w, const feature_map& x,
                                  int stride, int first, int rows, float* out, std::ptrdiff_t ldo,
                                  activation act) noexcept {
  constexpr int together = 32;  // pixels that are still in L1 when the activation reads them
  run.split(rows, together, [&](int begin, int end) {
    for (int r = begin, n = 0; r < end; r += n) {
      n = end - r < together ? end - r : together;
      float* const y = out + r * ldo;
      for (int c = 0; c < w.c; c += x.c) {
        depthwise_args a;
        a.x = x.data;
        a.ldx = x.ld;
        a.weights = w.weights + c;
        a.ldw = w.c;
        a.bias = w.bias + c;
        a.h = x.h;
        a.w = x.w;
        a.c = x.c;
        a.side = w.side;
        a.stride = stride;
        a.begin = first + r;
        a.end = first + r + n;
        a.y = y + c;
        a.ldy = ldo;
        run.kernels.depthwise_rows(a);
      }
      if (act != activation::none) run.kernels.activate_rows(y, ldo, y, ldo, n, w.c, act);
    }
  });
}

template <class Kernels>
feature_map depthwise(const runner<Kernels>& run, const depthwise_weights& w, const feature_map& x, int stride,
                      float* out, activation act = activation::none) noexcept {
  const feature_map y{out, (x.h - 1) / stride + 1, (x.w - 1) / stride + 1, w.c, ld_f32(w.c)};
  depthwise_part(run, w, x, stride, 0, y.rows(), y.data, y.ld, act);
  return y;
}

/// out = act(x W^T + bias).
template <class Kernels>
feature_map pointwise(const runner<Kernels>& run, const linear_weights& w, const feature_map& x, float* out,
                      activation act, const fastvit_stage_buffers& b) noexcept {
  const feature_map y{out, x.h, x.w, w.n, ld_f32(w.n)};
  for (int first = 0; first < x.rows(); first += b.chunk) {
    const int rows = x.rows() - first < b.chunk ? x.rows() - first : b.chunk;
    operand o = b.in.spent();  // whose f32 nobody uses here, and whose rows are as long as those of x
    o.f32 = x.data + first * x.ld;
    o.ld = x.ld;
    run.prepare(w.type, o, rows, x.c);
    run.linear(w, o, rows, y.data + first * y.ld, y.ld, act);
  }
  return y;
}

/// The mean of a map's rows into m [C].
inline void mean_of(const feature_map& x, float* m) noexcept {
  const fp_env guard;
  for (int c = 0; c < x.c; c++) m[c] = 0;
  for (int i = 0; i < x.rows(); i++)
    for (int c = 0; c < x.c; c++) m[c] = m[c] + x.data[i * x.ld + c];
  for (int c = 0; c < x.c; c++) m[c] = m[c] / static_cast<float>(x.rows());
}

/// x = act(x * sigmoid(fc2(relu(fc1(mean of x))))) in place.
template <class Kernels>
void squeeze(const runner<Kernels>& run, const squeeze_weights& w, const feature_map& x, activation act,
             const fastvit_stage_buffers& b) noexcept {
  mean_of(x, b.mean.f32);
  run.prepare(w.fc1.type, b.mean, 1, x.c);
  run.linear(w.fc1, b.mean, 1, b.squeezed.f32, b.squeezed.ld, activation::relu);
  run.prepare(w.fc2.type, b.squeezed, 1, w.fc1.n);
  run.linear(w.fc2, b.squeezed, 1, b.mean.f32, b.mean.ld);
  run.split(1, 1, [&](int, int) {  // sigmoid(s) = silu(s) / s, which every set computes alike
    run.kernels.activate_rows(b.gates, b.mean.ld, b.mean.f32, b.mean.ld, 1, x.c, activation::silu);
    for (int c = 0; c < x.c; c++) b.gates[c] = b.mean.f32[c] == 0 ? 0.5f : b.gates[c] / b.mean.f32[c];
  });
  run.split(x.rows(), 16, [&](int begin, int end) {
    for (int r = begin; r < end; r++) {
      float* const row = x.data + r * x.ld;
      for (int c = 0; c < x.c; c++) row[c] = row[c] * b.gates[c];
      run.kernels.activate_rows(row, x.ld, row, x.ld, 1, x.c, act);
    }
  });
}

/// x += proj(attention(norm(x))) in place.
template <class Kernels>
[[gnu::cold]] void fastvit_attention(const runner<Kernels>& run, const vision_config& v, const fastvit_block& k,
                                     const feature_map& x, const fastvit_stage_buffers& b) noexcept {
  const int n = x.rows();
  if (k.norm) {
    run.norm(k.norm, v.encoder.eps, x.data, x.ld, n, x.c, k.qkv.type, b.in);
    run.linear(k.qkv, b.in.spent(), n, b.attention.qkv, b.attention.ld_qkv);
  } else {
    operand o = b.in.spent();
    o.f32 = x.data;
    o.ld = x.ld;
    run.prepare(k.qkv.type, o, n, x.c);
    run.linear(k.qkv, o, n, b.attention.qkv, b.attention.ld_qkv);
  }
  block_shape s;
  s.width = x.c;
  s.head_width = v.encoder.head_width;
  s.heads = x.c / s.head_width;
  sequence all;
  all.rows = all.keys = n;
  attend(run, s, b.attention, &all, 1, nullptr, b.in.f32, b.in.ld, k.qkv.type);
  run.prepare(k.proj.type, b.in, n, x.c);
  run.linear(k.proj, b.in.spent(), n, x.data, x.ld, activation::none, x.data, x.ld);
}

/// out = x + fc2(act(fc1(conv(x)))), a chunk of rows at a time.
template <class Kernels>
[[gnu::cold]] feature_map fastvit_mlp(const runner<Kernels>& run, const vision_config& v, const fastvit_block& k,
                        const feature_map& x, float* out, const fastvit_stage_buffers& b) noexcept {
  const feature_map y{out, x.h, x.w, x.c, x.ld};
  for (int first = 0; first < x.rows(); first += b.chunk) {
    const int rows = x.rows() - first < b.chunk ? x.rows() - first : b.chunk;
    depthwise_part(run, k.conv, x, 1, first, rows, b.in.f32, b.in.ld, activation::none);
    run.prepare(k.fc1.type, b.in, rows, x.c);
    run.linear(k.fc1, b.in.spent(), rows, b.hidden.f32, b.hidden.ld, v.encoder.act);
    run.prepare(k.fc2.type, b.hidden, rows, k.fc1.n);
    run.linear(k.fc2, b.hidden.spent(), rows, y.data + first * y.ld, y.ld, activation::none, x.data + first * x.ld,
               x.ld);
  }
  return y;
}

/// The stem's first convolution, 3 x 3 with stride 2 and padding 1, of the normalised picture.
template <class Kernels>
feature_map fastvit_patches(const runner<Kernels>& run, const model_config& m, const linear_weights& w,
                            const image_batch& in, int picture, float* out, const fastvit_stage_buffers& b) noexcept {
  float table[3][256];
  {
    const fp_env guard;
    ocellus::detail::normalize_table(m.preprocess, table);
  }
  const feature_map y{out, halved(in.height), halved(in.width), w.n, ld_f32(w.n)};
  const std::ptrdiff_t plane = static_cast<std::ptrdiff_t>(in.height) * in.width;
  for (int first = 0; first < y.rows(); first += b.chunk) {
    const int rows = y.rows() - first < b.chunk ? y.rows() - first : b.chunk;
    run.split(rows, 64, [&](int begin, int end) {
      for (int r = begin; r < end; r++) {
        const int oy = (first + r) / y.w * 2 - 1, ox = (first + r) % y.w * 2 - 1;
        float* to = b.in.f32 + r * b.in.ld;
        for (int ky = 0; ky < 3; ky++)
          for (int kx = 0; kx < 3; kx++, to += 3) {
            const int iy = oy + ky, ix = ox + kx;
            const bool inside = iy >= 0 && iy < in.height && ix >= 0 && ix < in.width;
            const std::ptrdiff_t i = static_cast<std::ptrdiff_t>(iy) * in.width + ix;
            for (int c = 0; c < 3; c++)
              to[c] = !inside            ? 0.f
                      : in.rgb != nullptr ? table[c][in.rgb[(picture * plane + i) * 3 + c]]
                                          : in.pixels[(picture * 3 + c) * plane + i];
          }
      }
    });
    run.prepare(w.type, b.in, rows, w.k);
    operand patches = b.in.spent();
    patches.exact = true;
    run.linear(w, patches, rows, y.data + first * y.ld, y.ld, m.vision.encoder.act);
  }
  return y;
}

/// Features [E] of one picture of the batch into `out`, before normalisation.
template <class Kernels>
[[gnu::cold]] void fastvit_forward(const runner<Kernels>& run, const model_config& m, const fastvit_weights& w,
                                   const image_batch& in, int picture, const fastvit_buffers& buffers, float* out,
                                   const stage_observer& observe = {}) noexcept {
  const vision_config& v = m.vision;
  const activation act = v.encoder.act;
  fastvit_stage_buffers b;
  const auto enter = [&](int stage, int rows) {
    carver from(buffers.stage);
    carve_stage(from, b, v, stage, rows, buffers.threads);
  };
  const auto other = [&buffers](const feature_map& x) { return buffers.map[x.data == buffers.map[0] ? 1 : 0]; };
  enter(0, halved(halved(in.height)) * halved(halved(in.width)));
  feature_map x = fastvit_patches(run, m, w.stem[0], in, picture, buffers.map[0], b);
  x = depthwise(run, w.stem_conv, x, 2, other(x), act);
  x = pointwise(run, w.stem[1], x, other(x), act, b);
  observe("stem", 0, x.data, x.rows(), x.c, x.ld);
  for (int s = 0, block = 0; s < stages_of(v); s++) {
    const fastvit_stage& stage = w.stages[s];
    if (s > 0) {
      enter(s, halved(x.h) * halved(x.w));
      x = depthwise(run, stage.down, x, 2, other(x), stage.squeeze ? activation::none : act);
      if (stage.squeeze) squeeze(run, stage.squeeze, x, act, b);
      x = pointwise(run, stage.down_proj, x, other(x), act, b);
    }
    if (stage.positions) x = depthwise(run, stage.positions, x, 1, other(x));
    for (int i = 0; i < stage.count; i++, block++) {
      const fastvit_block& k = stage.blocks[i];
      if (stage.attends) {
        fastvit_attention(run, v, k, x, b);
      } else {
        x = depthwise(run, k.mixer, x, 1, other(x));
      }
      x = fastvit_mlp(run, v, k, x, other(x), b);
      observe("block", block, x.data, x.rows(), x.c, x.ld);
    }
  }
  x = depthwise(run, w.last, x, 1, other(x));
  squeeze(run, w.squeeze, x, act, b);
  mean_of(x, b.mean.f32);
  run.prepare(w.proj.type, b.mean, 1, x.c);
  run.linear(w.proj, b.mean, 1, out, v.embed);
}

}  // namespace nn
OCELLUS_END
OCELLUS_STRICT_FP_END
