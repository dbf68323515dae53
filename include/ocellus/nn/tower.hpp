// The two towers: from pixels to image features, from token ids to text features. Stateless functions over
// weights (views into a packed file), a workspace and a kernel policy; the same code serves a model opened at
// run time and one fixed at compile time.
//
// References: openai/CLIP clip/model.py (VisionTransformer, CLIP.encode_text); transformers modeling_clip.py,
// modeling_siglip.py, modeling_siglip2.py, modeling_dinov2.py; timm vision_transformer.py; big_vision vit.py
// (MAPHead).
#pragma once

#include <ocellus/models/config.hpp>
#include <ocellus/nn/layers.hpp>
#include <ocellus/nn/position.hpp>

#include <cstring>

OCELLUS_STRICT_FP_BEGIN
OCELLUS_BEGIN
namespace nn {

/// SigLIP's attention pooling [Zhai 2022]: attention with a learned query, then x + MLP(norm(x)).
struct map_weights {
  const float* queries = nullptr;  ///< [H, C], as attention_pool has them
  linear_weights v, proj, fc1, fc2;
  norm_weights norm;
};

struct vision_weights {
  linear_weights patch_embed;   ///< [C, P*P*3]
  bool patch_u8 = false;        ///< patch_embed reads pixels from 0 to 255: mean and std are folded in
  bool patch_bytes() const noexcept { return patch_u8 && patch_embed.type == dtype::s8; }  ///< as u8, else as float
  linear_weights stem[3];       ///< conv_stem instead of patch_embed: [S, 48], [S, 4 S], [C, 4 S]
  const float* class_token = nullptr;
  const float* registers = nullptr;
  const float* positions = nullptr;
  const float* rope = nullptr;  ///< [patches, D], as rotate_rows reads it
  norm_weights pre_norm, norm;
  const block_weights* blocks = nullptr;
  map_weights map;
  linear_weights proj, head;
};

struct text_weights {
  const void* tokens = nullptr;         ///< [vocab, C] rows of token_type
  dtype token_type = dtype::f32;
  const float* token_scales = nullptr;  ///< [vocab], s8
  const float* positions = nullptr;     ///< [context, C]
  const block_weights* blocks = nullptr;
  norm_weights norm;
  linear_weights proj;
};

/// out[rows, w.n] = x W^T + bias (+ residual), a tower's last product, which uses x up. For s8 weights x goes in with
/// sixteen bits, as two rows of u8 of which the second holds what the first rounded off: nothing after this product
/// averages its errors.
template <class Kernels>
void project(const runner<Kernels>& run, const linear_weights& w, const operand& x, int rows, float* out,
             std::ptrdiff_t ldo, const float* residual = nullptr, std::ptrdiff_t ldr = 0) noexcept {
  run.prepare(w.type, x, rows, w.k);
  run.linear(w, x, rows, out, ldo, activation::none, residual, ldr);
  if (w.type != dtype::s8) return;
  {
    const fp_env guard;
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < w.k; i++) {
        const float kept = strict_product(static_cast<float>(x.u8[r * x.ld8 + i] - x.zero[r]), x.scale[r]);
        x.f32[r * x.ld + i] = x.f32[r * x.ld + i] - kept;
      }
  }
  linear_weights unbiased = w;
  unbiased.bias = nullptr;
  run.prepare(w.type, x, rows, w.k);
  run.linear(unbiased, x, rows, out, ldo, activation::none, out, ldo);
}

/// A batch of pictures in one of four forms.
struct image_batch {
  int count = 0;
  int height = 0, width = 0;            ///< pixels (not for patches)
  /// [B, 3, height, width], normalised. Patch embeddings in s8 or bf16 turn them back into bytes, clamped (NaN: 0).
  const float* pixels = nullptr;
  const std::uint8_t* rgb = nullptr;    ///< [B, height, width, 3], resized and cropped, not normalised
  /// [B] pictures of grids[b] patches each (NaFlex), not normalised
  const std::uint8_t* const* rgbs = nullptr;
  const float* patches = nullptr;       ///< [B, patch_stride, P*P*3], normalised (NaFlex)
  int patch_stride = 0;
  const int* grids = nullptr;           ///< [B, 2]: patches down and across (NaFlex)

  /// Pictures from preprocess_into for a tower of `v`, each at rgbs[b]: NaFlex's of grids[b] patches, the others
  /// of the tower's size and one after the other from rgbs[0] on.
  static image_batch of(const vision_config& v, int count, const std::uint8_t* const* rgbs, const int* grids) noexcept {
    image_batch batch;
    batch.count = count;
    if (v.naflex != 0) {
      batch.rgbs = rgbs;
      batch.grids = grids;
    } else if (count > 0) {
      batch.rgb = rgbs[0];
      batch.height = v.image_h;
      batch.width = v.image_w;
    }
    return batch;
  }

  int grid_h(int b, int patch) const noexcept { return grids != nullptr ? grids[2 * b] : height / patch; }
  int grid_w(int b, int patch) const noexcept { return grids != nullptr ? grids[2 * b + 1] : width / patch; }

  /// Images [first, first + n) alone.
  image_batch part(int first, int n, int patch) const noexcept {
    image_batch some = *this;
    some.count = n;
    const std::ptrdiff_t values = static_cast<std::ptrdiff_t>(height) * width * 3;
    if (pixels != nullptr) some.pixels += first * values;
    if (rgb != nullptr) some.rgb += first * values;
    if (rgbs != nullptr) some.rgbs += first;
    if (patches != nullptr) some.patches += static_cast<std::ptrdiff_t>(first) * patch_stride * patch * patch * 3;
    if (grids != nullptr) some.grids += 2 * first;
    return some;
  }
};

constexpr block_shape shape_of(const encoder_config& e) noexcept {
  return {e.width,      e.heads,       e.head_width,     e.mlp,        e.eps, e.act,
          e.gated != 0, e.causal != 0, e.post_norm != 0, e.uneven != 0};
}

/// Whether all that a tower reads of its last block is the class token.
constexpr bool pools_class_token(const vision_config& v) noexcept {
  return v.pool == pooling::cls;
}

/// Memory of a vision tower for pictures that run through it group by group.
struct vision_buffers {
  float* x = nullptr;  ///< [rows, C]
  std::ptrdiff_t ldx = 0;
  sequence* sequences = nullptr;
  int* pooled = nullptr;
  float* positions = nullptr;  ///< resampled table and a line of the original, where a tower needs that
  block_buffers blocks;
  operand patches;             ///< overlaps `blocks`
  operand stem[2];             ///< [4 patches, 4 S] and [patches, 4 S], rows without padding; overlaps `blocks`
  float* embedded = nullptr;   ///< [patches, C]; overlaps `blocks`
  operand pool, pool_hidden;   ///< [images, max(C, map F)]
  /// [images, ldx + ld_heads]: class tokens and their heads' outputs in the last block, where there are several groups
  float* kept = nullptr;
  std::ptrdiff_t ld_heads = 0;

  /// images: all of them; group: most images of a group; rows: most tokens of a group, class and register tokens
  /// counted; most: tokens of the longest image; form: as block_buffers has it.
  [[gnu::cold]] constexpr std::size_t carve(unsigned char* base, const vision_config& v, int images, int group,
                                            int rows, int most, int threads, dtype form = dtype::f32) noexcept {
    carver from(base);
    const block_shape s = shape_of(v.encoder);
    const int longest = rows > images ? rows : images;
    const auto n = static_cast<std::uint64_t>(longest);
    ldx = ld_f32(s.width);
    x = from.take<float>(n * static_cast<std::size_t>(ldx));
    sequences = from.take<sequence>(static_cast<std::size_t>(group));
    pooled = from.take<int>(static_cast<std::size_t>(group));
    const int wide = v.map_mlp > s.width ? v.map_mlp : s.width;
    pool.carve(from, images, s.width > v.embed ? s.width : v.embed);
    pool_hidden.carve(from, images, wide);
    ld_heads = ld_f32(s.heads * s.head_width);
    if (images > group && pools_class_token(v))
      kept = from.take<float>(static_cast<std::size_t>(images) * static_cast<std::size_t>(ldx + ld_heads));
    if (v.positions != position_resize::none)
      positions =
          from.take<float>(static_cast<std::size_t>(most + v.grid_w) * static_cast<std::size_t>(s.width));
    const std::size_t start = from.used();
    unsigned char* rest = base == nullptr ? nullptr : base + start;
    carver a(rest), b(rest);
    const bool map = v.pool == pooling::map, last = pools_in_last_block(v);
    blocks.carve(a, s, longest, group, most, threads, form, map ? v.map_heads : last ? s.heads : 0,
                 last ? s.head_width : 0);
    if (v.conv_stem != 0) {
      patches.carve(b, 16 * rows, 48);
      for (int i = 0; i < 2; i++) {
        stem[i].carve(b, i == 0 ? 4 * rows : rows, 4 * v.stem_width);
        stem[i].ld = 4 * v.stem_width;
      }
    } else {
      patches.carve(b, rows, v.patch * v.patch * 3, parts_of(form));
    }
    patches.exact = patches.parts < 2;  // two parts are enough
    embedded = b.take<float>(n * static_cast<std::size_t>(ldx));
    return start + (a.used() > b.used() ? a.used() : b.used());
  }
};

/// Rows of patches of one picture, k = (y * P + x) * 3 + channel, in the form that patch_embed reads. `nested`: patches
/// of four pixels, in an order in which sixteen rows make a square and each four of them a square of it.
inline void patch_rows(const vision_weights& w, const preprocess_config& pre, const image_batch& in,
                       int image, int patch, bool nested, const operand& out, int first_row,
                       const float (*table)[256]) noexcept {
  const int gh = in.grid_h(image, patch), gw = in.grid_w(image, patch), k = patch * patch * 3;
  const bool bytes = w.patch_bytes();
  const auto row_of = [&](int y, int x) {
    if (!nested) return y * gw + x;
    return (y / 4 * (gw / 4) + x / 4) * 16 + (y / 2 % 2 * 2 + x / 2 % 2) * 4 + y % 2 * 2 + x % 2;
  };
  const auto raw = [&pre](float x, int c) { return (strict_product(x, pre.std[c]) + pre.mean[c]) * 255.f; };
  const auto to_u8 = [&raw](float x, int c) {
    const float u = raw(x, c) + 0.5f;
    return static_cast<std::uint8_t>(u > 0.f ? (u < 255.f ? u : 255.f) : 0.f);  // NaN: 0
  };
  for (int y = 0; y < gh; y++)
    for (int x = 0; x < gw; x++) {
      const int row = first_row + row_of(y, x);
      float* f = out.f32 + row * out.ld;
      std::uint8_t* q = out.u8 + row * out.ld8;
      const auto put = [&](int at, float normalised, int c) {
        if (bytes) {
          q[at] = to_u8(normalised, c);
        } else {
          f[at] = w.patch_u8 ? raw(normalised, c) : normalised;
        }
      };
      out.scale[row] = 1.f;
      out.zero[row] = 0;
      if (in.rgb != nullptr || in.rgbs != nullptr) {
        const int width = in.rgbs != nullptr ? gw * patch : in.width;
        const std::uint8_t* picture =
            in.rgbs != nullptr ? in.rgbs[image]
                               : in.rgb + static_cast<std::ptrdiff_t>(image) * in.height * in.width * 3;
        for (int i = 0; i < patch; i++) {
          const std::uint8_t* from =
              picture + (static_cast<std::ptrdiff_t>(y * patch + i) * width + x * patch) * 3;
          if (bytes) {
            std::memcpy(q + i * patch * 3, from, static_cast<std::size_t>(patch) * 3);
          } else if (w.patch_u8) {
            for (int j = 0; j < patch * 3; j++) f[i * patch * 3 + j] = from[j];
          } else {
            for (int j = 0; j < patch * 3; j++) f[i * patch * 3 + j] = table[j % 3][from[j]];
          }
        }
      } else if (in.pixels != nullptr) {
        const float* planes = in.pixels + static_cast<std::ptrdiff_t>(image) * 3 * in.height * in.width;
        for (int c = 0; c < 3; c++)
          for (int i = 0; i < patch; i++) {
            const float* from =
                planes + (static_cast<std::ptrdiff_t>(c) * in.height + y * patch + i) * in.width + x * patch;
            for (int j = 0; j < patch; j++) put((i * patch + j) * 3 + c, from[j], c);
          }
      } else {
        const float* from =
            in.patches + (static_cast<std::ptrdiff_t>(image) * in.patch_stride + y * gw + x) * k;
        for (int j = 0; j < k; j++) put(j, from[j], j % 3);
      }
      if (bytes) std::memset(q + k, 0, static_cast<std::size_t>(round_up(k, 8) - k));
    }
}

/// Rows before a picture's patches: class token and registers.
constexpr int prefix_rows(const vision_config& v) noexcept { return (v.class_token != 0 ? 1 : 0) + v.registers; }

/// Lays out the rows of a group of pictures (b.sequences, b.pooled) and embeds all patches into b.embedded
/// [patches, C]. Returns the rows of b.x that they take with their class and register tokens.
template <class Kernels>
int embed_patches(const runner<Kernels>& run, const model_config& m, const vision_weights& w, const image_batch& in,
                  const vision_buffers& b, const stage_observer& observe) noexcept {
  const vision_config& v = m.vision;
  const int patch = v.patch, prefix = prefix_rows(v);
  const int cell = v.conv_stem != 0 ? 4 : patch, cells = v.conv_stem != 0 ? 16 : 1;
  float table[3][256];
  {
    const fp_env guard;
    ocellus::detail::normalize_table(m.preprocess, table);
  }
  int patches = 0, rows = 0;
  for (int i = 0; i < in.count; i++) {
    const int n = in.grid_h(i, patch) * in.grid_w(i, patch);
    b.sequences[i] = {rows, prefix + n, prefix + n, nullptr};
    b.pooled[i] = rows;
    patches += n;
    rows += prefix + n;
  }
  run.split(in.count, 1, [&](int begin, int end) {
    for (int i = begin; i < end; i++)
      patch_rows(w, m.preprocess, in, i, cell, v.conv_stem != 0, b.patches,
                 (b.sequences[i].row - i * prefix) * cells, table);
  });
  if (v.conv_stem != 0) {  // four rows of one step are one row of the next
    const operand* from = &b.patches;
    int n = 16 * patches;
    for (int i = 0; i < 2; i++, n /= 4) {
      run.prepare(w.stem[i].type, *from, n, w.stem[i].k);
      run.linear(w.stem[i], from->spent(), n, b.stem[i].f32, w.stem[i].n, activation::gelu);
      from = &b.stem[i];
    }
    run.prepare(w.stem[2].type, *from, patches, w.stem[2].k);
    run.linear(w.stem[2], from->spent(), patches, b.embedded, b.ldx);
  } else {
    if (!w.patch_bytes()) run.prepare(w.patch_embed.type, b.patches, patches, w.patch_embed.k);
    run.linear(w.patch_embed, b.patches.spent(), patches, b.embedded, b.ldx);
  }
  observe("patch_embed", 0, b.embedded, patches, v.encoder.width, b.ldx);
  return rows;
}

/// b.x of each picture: class token, registers, and the patches of b.embedded with their positions. OneGrid: pictures
/// have the position table's own grid, and the program is without the doubles that another would need.
template <bool OneGrid>
inline void assemble_tokens(const vision_config& v, const vision_weights& w, const image_batch& in,
                            const vision_buffers& b) noexcept {
  const int c = v.encoder.width, prefix = prefix_rows(v);
  const std::size_t row_bytes = sizeof(float) * static_cast<std::size_t>(c);
  const float* class_position = v.class_token != 0 && v.class_position != 0 ? w.positions : nullptr;
  const float* grid_positions =
      w.positions == nullptr ? nullptr : w.positions + (class_position != nullptr ? c : 0);
  int resampled_h = 0, resampled_w = 0;
  for (int i = 0; i < in.count; i++) {
    const int gh = in.grid_h(i, v.patch), gw = in.grid_w(i, v.patch);
    const float* positions = grid_positions;
    if (!OneGrid && positions != nullptr && v.positions != position_resize::none &&
        (gh != v.grid_h || gw != v.grid_w)) {
      float* const resampled = b.positions + static_cast<std::ptrdiff_t>(v.grid_w) * c;
      if (gh != resampled_h || gw != resampled_w) {
        const fp_env guard;
        resample_positions(resampled, c, gh, gw, grid_positions, v.grid_h, v.grid_w, c, v.positions,
                           static_cast<double>(v.position_offset), b.positions);
        resampled_h = gh;
        resampled_w = gw;
      }
      positions = resampled;
    }
    float* x = b.x + b.sequences[i].row * b.ldx;
    if (v.class_token != 0) {
      for (int j = 0; j < c; j++)
        x[j] = class_position == nullptr ? w.class_token[j] : w.class_token[j] + class_position[j];
      x += b.ldx;
    }
    for (int r = 0; r < v.registers; r++, x += b.ldx)
      std::memcpy(x, w.registers + static_cast<std::ptrdiff_t>(r) * c, row_bytes);
    const float* from = b.embedded + (b.sequences[i].row - i * prefix) * b.ldx;
    for (int p = 0; p < gh * gw; p++, x += b.ldx, from += b.ldx) {
      if (positions == nullptr) {
        std::memcpy(x, from, row_bytes);
      } else {
        const float* at = positions + static_cast<std::ptrdiff_t>(p) * c;
        for (int j = 0; j < c; j++) x[j] = from[j] + at[j];
      }
    }
  }
}

/// pool[i, C] of `count` pictures: the mean of the patches of b.x (pooling::avg, normed first if so configured), or its
/// first row.
template <class Kernels>
void pool_rows(const runner<Kernels>& run, const vision_config& v, const vision_weights& w, int count,
               const vision_buffers& b, const operand& pool) noexcept {
  const int c = v.encoder.width, prefix = prefix_rows(v);
  for (int i = 0; i < count; i++) {
    float* const first = b.x + b.sequences[i].row * b.ldx;
    float* const to = pool.f32 + i * pool.ld;
    if (v.pool != pooling::avg) {
      std::memcpy(to, first, sizeof(float) * static_cast<std::size_t>(c));
      continue;
    }
    if (v.norm_before_pool != 0 && v.final_norm != 0)
      run.norm_f32(w.norm, v.final_eps, first, b.ldx, b.sequences[i].rows, c, first, b.ldx);
    const fp_env guard;
    const int n = b.sequences[i].rows - prefix;
    const float* const patches = first + prefix * b.ldx;
    for (int j = 0; j < c; j++) to[j] = 0;
    for (int t = 0; t < n; t++)
      for (int j = 0; j < c; j++) to[j] = to[j] + patches[t * b.ldx + j];
    for (int j = 0; j < c; j++) to[j] = to[j] / static_cast<float>(n);
  }
}

/// A group of pictures as far as it has to go alone. What is left of them, one row each from row `first` on: with a
/// class token (pools_class_token) its values and heads' outputs in the last block, in b.kept or where they were made;
/// else the row of b.pool, after attention or averaging. What follows reads as many weights as a block for these few
/// rows, so vision_pooled does it for all groups at once.
template <class Kernels>
void vision_tokens(const runner<Kernels>& run, const model_config& m, const vision_weights& w,
                   const image_batch& in, int first, const vision_buffers& b,
                   const stage_observer& observe = {}) noexcept {
  const vision_config& v = m.vision;
  block_shape s = shape_of(v.encoder);
  s.rope = w.rope;
  s.prefix = prefix_rows(v);
  const int c = s.width;

  const int rows = embed_patches(run, m, w, in, b, observe);
  constexpr bool one_grid = requires { Kernels::one_grid; };
  assemble_tokens<one_grid>(v, w, in, b);
  observe("embed", 0, b.x, rows, c, b.ldx);
  if (w.pre_norm) {
    run.norm_f32(w.pre_norm, v.final_eps, b.x, b.ldx, rows, c, b.x, b.ldx);
    observe("pre_norm", 0, b.x, rows, c, b.ldx);
  }

  const int blocks = v.encoder.layers - (pools_class_token(v) ? 1 : 0);
  for (int l = 0; l < blocks; l++) {
    block(run, s, w.blocks[l], b.blocks, b.x, b.ldx, rows, b.sequences, in.count, nullptr, observe, l);
    observe("block", l, b.x, rows, c, b.ldx);
  }

  const operand p = b.pool.from_row(first);
  if (pools_class_token(v)) {
    block_attention(run, s, w.blocks[blocks], b.blocks, b.x, b.ldx, rows, b.sequences, in.count, b.pooled, observe,
                    blocks);
    for (int i = 0; b.kept != nullptr && i < in.count; i++) {
      float* to = b.kept + (first + i) * (b.ldx + b.ld_heads);
      std::memcpy(to, b.x + i * b.ldx, sizeof(float) * static_cast<std::size_t>(b.ldx));
      std::memcpy(to + b.ldx, b.blocks.x.f32 + i * b.blocks.x.ld, sizeof(float) * static_cast<std::size_t>(b.ld_heads));
    }
  } else if (v.pool == pooling::map) {
    run.norm_f32(w.norm, v.final_eps, b.x, b.ldx, rows, c, b.blocks.x.f32, b.blocks.x.ld);
    observe("norm", 0, b.blocks.x.f32, rows, c, b.blocks.x.ld);
    attention_pool(run, w.map.queries, c, 0, w.map.v, v.map_heads, b.blocks.x, b.sequences, in.count, b.blocks.pool,
                   p.f32, p.ld);
  } else {
    pool_rows(run, v, w, in.count, b, p);
  }
}

/// Image features [count, E] into `out`, ldo floats apart, before normalisation, of what vision_tokens left of all
/// groups. With `head` (a classifier) pass `logits` [count, classes] to get those as well.
template <class Kernels>
void vision_pooled(const runner<Kernels>& run, const model_config& m, const vision_weights& w, int count,
                   const vision_buffers& b, float* out, std::ptrdiff_t ldo, float* logits = nullptr,
                   const stage_observer& observe = {}) noexcept {
  const vision_config& v = m.vision;
  const block_shape s = shape_of(v.encoder);
  const int c = s.width;
  const operand& p = b.pool;
  if (pools_class_token(v)) {
    for (int i = 0; b.kept != nullptr && i < count; i++) {
      const float* from = b.kept + i * (b.ldx + b.ld_heads);
      std::memcpy(b.x + i * b.ldx, from, sizeof(float) * static_cast<std::size_t>(b.ldx));
      std::memcpy(b.blocks.x.f32 + i * b.blocks.x.ld, from + b.ldx,
                  sizeof(float) * static_cast<std::size_t>(b.ld_heads));
    }
    const int last = v.encoder.layers - 1;
    block_output(run, s, w.blocks[last], b.blocks, b.x, b.ldx, count, observe, last);
    observe("block", last, b.x, count, c, b.ldx);
    for (int i = 0; i < count; i++)
      std::memcpy(p.f32 + i * p.ld, b.x + i * b.ldx, sizeof(float) * static_cast<std::size_t>(c));
  }
  if (v.pool == pooling::map) {
    run.prepare(w.map.proj.type, p, count, c);
    float* pooled = b.x;  // the tokens are no longer needed
    run.linear(w.map.proj, p.spent(), count, pooled, b.ldx);
    observe("map_attn", 0, pooled, count, c, b.ldx);
    run.norm(w.map.norm, v.final_eps, pooled, b.ldx, count, c, w.map.fc1.type, p);
    run.linear(w.map.fc1, p.spent(), count, b.pool_hidden.f32, b.pool_hidden.ld, v.map_act);
    project(run, w.map.fc2, b.pool_hidden, count, p.f32, p.ld, pooled, b.ldx);
  } else if (v.final_norm != 0 && !(v.pool == pooling::avg && v.norm_before_pool != 0)) {
    run.norm_f32(w.norm, v.final_eps, p.f32, p.ld, count, c, p.f32, p.ld);
  }
  observe("pooled", 0, p.f32, count, c, p.ld);

  if (w.head && logits != nullptr) {
    const operand& copy = b.blocks.x;  // project uses its rows up, and the features are still to come
    for (int i = 0; i < count; i++)
      std::memcpy(copy.f32 + i * copy.ld, p.f32 + i * p.ld, sizeof(float) * static_cast<std::size_t>(c));
    project(run, w.head, copy, count, logits, v.classes);
  }
  if (w.proj) {
    project(run, w.proj, p, count, out, ldo);
  } else {
    for (int i = 0; i < count; i++)
      std::memcpy(out + i * ldo, p.f32 + i * p.ld, sizeof(float) * static_cast<std::size_t>(v.embed));
  }
}

/// One text of a batch: its ids up to and including the pooled token (all of them where attention is not
/// causal), and the index of the pooled token.
struct token_sequence {
  const std::int32_t* ids = nullptr;
  int count = 0;
  int pooled = 0;
};

/// The tokens of ids[0..context) (any padding) that a text's embedding depends on.
inline token_sequence sequence_of(const text_config& t, const std::int32_t* ids, int context) noexcept {
  int pooled = 0;
  if (t.pool == pooling::argmax) {
    for (int i = 1; i < context; i++) pooled = ids[i] > ids[pooled] ? i : pooled;
  } else if (t.pool == pooling::eos) {
    int i = 0;
    while (i < context && ids[i] != t.eos_id) i++;
    pooled = i < context ? i : 0;
  } else if (t.pool == pooling::last) {
    pooled = context - 1;
  }
  return {ids, t.encoder.causal != 0 ? pooled + 1 : context, pooled};
}

/// Memory of a text tower for texts of at most `context` tokens.
struct text_buffers {
  float* x = nullptr;  ///< [rows, C]
  std::ptrdiff_t ldx = 0;
  sequence* sequences = nullptr;
  int* pooled = nullptr;
  int* key_rows = nullptr;  ///< [count, context]
  int* row_ids = nullptr;   ///< [rows] token of each row
  int* row_positions = nullptr;
  block_buffers blocks;
  operand pool;
  float* features = nullptr;  ///< [count, E]

  [[gnu::cold]] constexpr std::size_t carve(unsigned char* base, const text_config& t, int count, int rows, int threads,
                              dtype form = dtype::f32) noexcept {
    carver from(base);
    const block_shape s = shape_of(t.encoder);
    const auto n = static_cast<std::uint64_t>(rows);
    ldx = ld_f32(s.width);
    x = from.take<float>(n * static_cast<std::size_t>(ldx));
    sequences = from.take<sequence>(static_cast<std::size_t>(count));
    pooled = from.take<int>(static_cast<std::size_t>(count));
    key_rows = from.take<int>(static_cast<std::size_t>(count) * static_cast<std::size_t>(t.context));
    row_ids = from.take<int>(n);
    row_positions = from.take<int>(n);
    pool.carve(from, count, s.width);
    features = from.take<float>(static_cast<std::size_t>(count) * static_cast<std::size_t>(ld_f32(t.embed)));
    blocks.carve(from, s, rows, count, t.context, threads, form);
    return from.used();
  }
};

/// Tokens that two texts begin with in common. With a causal mask a token's values depend on what stands
/// before it only, so sorted texts cost each distinct prefix once.
inline int shared_prefix(const token_sequence& a, const token_sequence& b) noexcept {
  int n = 0;
  while (n < a.count && n < b.count && a.ids[n] == b.ids[n]) n++;
  return n;
}

/// Text features [E] into out[i] for each text, before normalisation. Texts in lexicographic order of their
/// ids, no two equal.
template <class Kernels>
void text_forward(const runner<Kernels>& run, const model_config& m, const text_weights& w,
                  const token_sequence* texts, int count, const text_buffers& b, float* const* out,
                  const stage_observer& observe = {}) noexcept {
  const text_config& t = m.text;
  const block_shape s = shape_of(t.encoder);
  const int c = s.width;

  int rows = 0;
  for (int i = 0; i < count; i++) {
    const int shared = s.causal && i > 0 ? shared_prefix(texts[i - 1], texts[i]) : 0;
    int* keys = b.key_rows + static_cast<std::ptrdiff_t>(i) * t.context;
    for (int j = 0; j < shared; j++) keys[j] = keys[j - t.context];
    b.sequences[i] = {rows, texts[i].count - shared, texts[i].count, shared > 0 ? keys : nullptr};
    for (int j = shared; j < texts[i].count; j++, rows++) {
      keys[j] = rows;
      b.row_ids[rows] = texts[i].ids[j];
      b.row_positions[rows] = j;
    }
    b.pooled[i] = keys[texts[i].pooled];
  }
  run.split(rows, 16, [&](int begin, int end) {
    for (int r = begin; r < end; r++) {
      float* x = b.x + r * b.ldx;
      const std::ptrdiff_t at = static_cast<std::ptrdiff_t>(b.row_ids[r]) * c;
      const float* position = w.positions + static_cast<std::ptrdiff_t>(b.row_positions[r]) * c;
      switch (w.token_type) {
        case dtype::f32:
          for (int j = 0; j < c; j++) x[j] = static_cast<const float*>(w.tokens)[at + j] + position[j];
          break;
        case dtype::f16:
          for (int j = 0; j < c; j++) x[j] = to_f32(static_cast<const f16*>(w.tokens)[at + j]) + position[j];
          break;
        case dtype::bf16:
          for (int j = 0; j < c; j++) x[j] = to_f32(static_cast<const bf16*>(w.tokens)[at + j]) + position[j];
          break;
        default: {
          const float scale = w.token_scales[b.row_ids[r]];
          for (int j = 0; j < c; j++) {
            const auto value = static_cast<float>(static_cast<const std::int8_t*>(w.tokens)[at + j]);
            x[j] = strict_product(value, scale) + position[j];
          }
        }
      }
    }
  });
  observe("embed", 0, b.x, rows, c, b.ldx);
  // a pooled token in a shared prefix would be compacted twice: only pooling::first can meet one
  const bool compacted = t.pool != pooling::first;
  for (int l = 0; l < t.encoder.layers; l++) {
    const bool last = compacted && l + 1 == t.encoder.layers;
    block(run, s, w.blocks[l], b.blocks, b.x, b.ldx, rows, b.sequences, count, last ? b.pooled : nullptr, observe, l);
    observe("block", l, b.x, last ? count : rows, c, b.ldx);
  }
  for (int i = 0; i < count; i++)
    std::memcpy(b.pool.f32 + i * b.pool.ld, b.x + (compacted ? i : b.pooled[i]) * b.ldx,
                sizeof(float) * static_cast<std::size_t>(c));
  if (w.norm) run.norm_f32(w.norm, t.final_eps, b.pool.f32, b.pool.ld, count, c, b.pool.f32, b.pool.ld);
  observe("pooled", 0, b.pool.f32, count, c, b.pool.ld);
  if (w.proj) {
    project(run, w.proj, b.pool, count, b.features, ld_f32(t.embed));
    for (int i = 0; i < count; i++)
      std::memcpy(out[i], b.features + i * ld_f32(t.embed),
                  sizeof(float) * static_cast<std::size_t>(t.embed));
  } else {
    for (int i = 0; i < count; i++)
      std::memcpy(out[i], b.pool.f32 + i * b.pool.ld, sizeof(float) * static_cast<std::size_t>(t.embed));
  }
}

}  // namespace nn
OCELLUS_END
OCELLUS_STRICT_FP_END
