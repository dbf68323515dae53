// Towers fixed when the program is compiled: one configuration, one kernel set, one data type of weights. No
// heap, no exceptions, no RTTI; memory and flash are constants; the same bits as the model opened at run time (but for
// f16 weights on amx, which here go by fp16 arithmetic).
//
//   #include <ocellus/generic/scalar.hpp>      // the kernel set to pin
//   #include <ocellus/micro.hpp>
//   static constexpr ocellus::model_config config =
//       ocellus::vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
//   using tower = ocellus::vision_tower<config, ocellus::pinned<ocellus::kernels::scalar>>;
//   static tower eye;                                        // views of the weights, some hundred bytes
//   static ocellus::static_arena<tower::arena_size> memory;  // the activations
//   const ocellus::status bound = eye.bind(bytes);           // once, at start: an array in flash
//   float embedding[64];
//   if (bound == ocellus::status::ok) eye(camera_pixels, embedding, memory);
//
// The weights are those of a packed file (ocellus-convert; --emit-header makes an array of it) and stay where
// they are.
#pragma once

#include <ocellus/core/fp_env.hpp>
#include <ocellus/isa/policy.hpp>
#include <ocellus/models/config.hpp>
#include <ocellus/models/describe.hpp>
#include <ocellus/models/weights.hpp>
#include <ocellus/nn/tower.hpp>

#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <type_traits>

OCELLUS_BEGIN

/// Memory for the activations of one call. Contents need not be kept between calls: towers whose calls do not overlap
/// may share one that is large enough for each.
template <std::size_t Bytes>
struct static_arena {
  alignas(64) unsigned char bytes[Bytes];

  /// For a tower that needs less.
  template <std::size_t Less>
    requires(Less < Bytes)
  operator static_arena<Less>&() noexcept {
    return *reinterpret_cast<static_arena<Less>*>(this);
  }
};

namespace detail {

/// Kernels with epilogues for some activations alone, bit 1 << act each, where a set can leave the others out.
template <class Kernels, std::uint32_t Activations>
struct applying {
  using type = Kernels;
};
/// Of a set itself alone: what is made of it and has kernels of its own would lose these.
template <template <class> class Policy, class Set, std::uint32_t Activations>
  requires requires { typename Set::template applying<Activations>; } &&
           std::is_base_of_v<Set, typename Set::template applying<Activations>>
struct applying<Policy<Set>, Activations> {
  using type = typename Set::template applying<Activations>;
};

/// Kernels for weights of one data type, with or without gated units and rotary positions, and one size of pictures:
/// what the tower does not need vanishes from the program.
template <class Kernels, dtype T, bool Gated, bool Rotary>
struct typed_kernels : Kernels {
  static constexpr bool one_grid = true;

  template <class... Args>
  void gate_rows(Args... args) const noexcept {
    if constexpr (Gated) Kernels::gate_rows(args...);
  }
  template <class... Args>
  void rotate_rows(Args... args) const noexcept {
    if constexpr (Rotary) Kernels::rotate_rows(args...);
  }
  void gemm_f32(const gemm_args& g) const noexcept {
    if constexpr (T == dtype::f32) Kernels::gemm_f32(g);
  }
  void gemm_f16(const gemm_args& g) const noexcept {
    if constexpr (T == dtype::f16) Kernels::gemm_f16(g);
  }
  void gemm_bf16(const gemm_args& g) const noexcept {
    if constexpr (T == dtype::bf16) Kernels::gemm_bf16(g);
  }
  void gemm_s8(const gemm_args& g) const noexcept {
    if constexpr (T == dtype::s8) Kernels::gemm_s8(g);
  }
  void layer_norm_u8(const layer_norm_args& n) const noexcept {
    if constexpr (T == dtype::s8) Kernels::layer_norm_u8(n);
  }
  void quantize_u8(const quantize_args& q) const noexcept {
    if constexpr (T == dtype::s8) Kernels::quantize_u8(q);
  }
  void arrange_u8(const arrange_args& a) const noexcept {
    if constexpr (T == dtype::s8) Kernels::arrange_u8(a);
  }
  void attention_f32(const attention_args& a) const noexcept {
    if constexpr (T == dtype::f32 || T == dtype::f16) Kernels::attention_f32(a);
  }
  void attention_bf16(const attention_args& a) const noexcept {
    if constexpr (T == dtype::bf16) Kernels::attention_bf16(a);
  }
  void attention_s8(const attention_args& a) const noexcept {
    if constexpr (T == dtype::s8) Kernels::attention_s8(a);
  }
};

/// Bytes of tensors as a packed file stores them, each piece rounded up to 64.
struct flash_counter {
  dtype type;
  std::size_t bytes = 0;

  constexpr void values(std::int64_t count) noexcept { bytes += (static_cast<std::size_t>(count) * 4 + 63) / 64 * 64; }
  constexpr void linear(int n, int k, bool bias = true) noexcept { linear_of(type, n, k, bias); }
  constexpr void linear_of(dtype t, int n, int k, bool bias) noexcept {
    bytes += (packed_elements(t, n, k) * size_of(t) + 63) / 64 * 64;
    if (t == dtype::s8) values(n), values(n);  // scales and sums
    if (bias) values(n);
  }
  constexpr void norm(int c) noexcept { values(c), values(c); }
  constexpr void blocks(const encoder_config& e) noexcept {
    const int inner = e.heads * e.head_width;
    for (int l = 0; l < e.layers; l++) {
      norm(e.width), norm(e.width);
      linear(3 * inner, e.width), linear(e.width, inner);
      linear(e.gated != 0 ? 2 * e.mlp : e.mlp, e.width), linear(e.width, e.mlp);
      if (e.qk_norm != 0) norm(e.head_width), norm(e.head_width);
      if (e.attn_norm != 0) norm(inner);
      if (e.mlp_norm != 0) norm(e.mlp);
    }
  }
};

constexpr std::size_t flash_of(const vision_config& v, dtype type) noexcept {
  flash_counter f{type};
  const int c = v.encoder.width;
  if (v.conv_stem != 0) {
    const int s = v.stem_width;
    f.linear(s, 48), f.linear(s, 4 * s), f.linear(c, 4 * s);
  } else {
    f.linear(c, v.patch * v.patch * 3);
  }
  if (v.class_token != 0) f.values(c);
  if (v.registers > 0) f.values(std::int64_t{v.registers} * c);
  const int class_rows = v.class_token != 0 && v.class_position != 0 ? 1 : 0;
  f.values((std::int64_t{v.grid_h} * v.grid_w + class_rows) * c);
  if (v.encoder.rope != 0) f.values(std::int64_t{v.grid_h} * v.grid_w * v.encoder.head_width);
  if (v.pre_norm != 0) f.norm(c);
  f.blocks(v.encoder);
  if (pools_in_last_block(v)) f.linear(v.encoder.heads * c, v.encoder.head_width, false);
  if (v.final_norm != 0) f.norm(c);
  if (v.pool == pooling::map) {
    f.values(std::int64_t{v.map_heads} * c);
    f.linear(c, c), f.linear(c, c), f.norm(c), f.linear(v.map_mlp, c), f.linear(c, v.map_mlp);
  }
  if (v.pool != pooling::map || v.embed != c) f.linear(v.embed, c, false);
  if (v.classes > 0) f.linear(v.classes, c);
  return f.bytes;
}

constexpr std::size_t flash_of(const text_config& t, dtype type) noexcept {
  flash_counter f{type};
  const std::size_t c = static_cast<std::size_t>(t.encoder.width), vocab = static_cast<std::size_t>(t.vocab);
  f.bytes += (vocab * c * size_of(type) + 63) / 64 * 64;
  if (type == dtype::s8) f.values(t.vocab);
  f.values(std::int64_t{t.context} * t.encoder.width);
  f.blocks(t.encoder);
  if (t.final_norm != 0) f.norm(t.encoder.width);
  f.linear(t.embed, t.encoder.width, false);
  return f.bytes;
}

/// Of activations: nn::block_buffers.
constexpr dtype form_of(dtype weights) noexcept { return weights == dtype::s8 ? dtype::s8 : dtype::f32; }

/// For buffers: the position table is never fitted to another grid.
constexpr vision_config on_own_grid(vision_config v) noexcept {
  v.positions = position_resize::none;
  return v;
}

/// Bytes of activations of one image or text.
constexpr std::size_t arena_of(const vision_config& v, dtype weights) noexcept {
  const int tokens = v.grid_h * v.grid_w + nn::prefix_rows(v);
  return nn::vision_buffers{}.carve(nullptr, on_own_grid(v), 1, 1, tokens, tokens, 1, form_of(weights));
}
constexpr std::size_t arena_of(const text_config& t, dtype weights) noexcept {
  return nn::text_buffers{}.carve(nullptr, t, 1, t.context, 1, form_of(weights));
}

/// Without the fields that no answer depends on, in which the checkpoints of one model may differ.
constexpr vision_config canonical(vision_config v) noexcept {
  v.encoder.rope_theta = encoder_config{}.rope_theta;
  v.encoder.rope_grid = 0;
  if (v.class_token == 0) v.class_position = 1;
  if (v.pool == pooling::map) v.norm_before_pool = 1;
  return v;
}
constexpr text_config canonical(text_config t) noexcept {
  t.pad_id = 0;
  if (t.pool != pooling::eos) t.eos_id = -1;
  return t;
}

/// The packed file at the start of `bytes`, which may go on behind it: a partition of flash.
inline result<packed_file> file_in(std::span<const std::byte> bytes) noexcept {
  format::file_header h = {};
  if (bytes.size() >= sizeof(h)) std::memcpy(&h, bytes.data(), sizeof(h));
  const bool longer = h.file_bytes >= sizeof(h) && h.file_bytes < bytes.size();
  return packed_file::open(longer ? bytes.first(static_cast<std::size_t>(h.file_bytes)) : bytes);
}

}  // namespace detail

/// Whether every byte of a packed file is as the converter wrote it, by its checksums (against damage, not against
/// forgery): bind checks those of the tables and of the configuration alone. `packed` as bind takes it. Reads the whole
/// file, two instructions a byte on Cortex-M: once at boot, or after flash was written. Errors: those of packed_file.
inline status verify(std::span<const std::byte> packed) noexcept {
  const result<packed_file> file = detail::file_in(packed);
  return file ? file->verify() : file.error();
}

/// The image tower of `Config`, which has static storage. Weights: the data type of the packed file's matrices;
/// a file with others is refused.
template <const model_config& Config, class Kernels, dtype Weights = dtype::s8>
class vision_tower {
  static constexpr const vision_config& v = Config.vision;
  static constexpr vision_config fixed_grid = detail::on_own_grid(Config.vision);
  static_assert(v.kind == vision_kind::vit, "the image tower of a compile-time model is a ViT");
  static_assert(v.patch > 0 && v.image_h >= v.patch && v.image_w >= v.patch,
                "the image is smaller than a patch");
  static_assert(v.encoder.width > 0 && v.encoder.layers > 0, "the image tower has no width or no layers");
  static_assert(v.encoder.head_width > 0, "the image tower's width is no multiple of its number of heads");
  static_assert(v.pool != pooling::cls || v.class_token != 0, "pooling by the class token needs a class token");
  static_assert(v.pool != pooling::map || (v.map_heads > 0 && v.encoder.width % v.map_heads == 0),
                "the image tower's width is no multiple of the MAP head's number of heads");
  static_assert(v.grid_h == v.image_h / v.patch && v.grid_w == v.image_w / v.patch,
                "the position table has another grid than the image");
  static_assert(v.embed > 0, "the embedding has no width");
  static_assert(valid(Config), "the configuration makes no sense (models/config.hpp: valid)");
  static_assert(v.conv_stem == 0,
                "a convolutional stem keeps f32 weights beside int8 ones: open the model at run time");
  static_assert(Weights <= dtype::s8, "weights are f32, f16, bf16 or s8");

 public:
  static constexpr const model_config& config = Config;
  static constexpr int embed = v.embed;
  /// Patches, class token and registers.
  static constexpr int tokens = v.grid_h * v.grid_w + nn::prefix_rows(v);
  static constexpr dtype form = detail::form_of(Weights);  ///< of activations: nn::block_buffers
  /// Bytes of activations; beside them a call takes some KB of stack, up to 120 KB with s8 weights on `sse41`, `avx2`,
  /// `avx512` and `i8mm` and with bf16 weights on `avx512bf16`, `amx` and `i8mm`.
  static constexpr std::size_t arena_size = detail::arena_of(v, Weights);
  /// Bytes of the tower's weights in a packed file; its header and its tables add some KB. An upper bound for uneven
  /// layers, and for a tower without a projection, which its configuration does not tell (DINOv2).
  static constexpr std::size_t flash_size = detail::flash_of(v, Weights);

  vision_tower() = default;
  vision_tower(const vision_tower&) = delete;  // weights_ points into blocks_
  vision_tower& operator=(const vision_tower&) = delete;

  /// Finds the weights in a packed file, which must be aligned to 64 bytes and outlive the tower; copies nothing, and
  /// looks at no weight (verify does). `packed` may go on behind the file: a partition of flash. Errors: those of
  /// packed_file, different_config, missing_tensor, wrong_shape, unsupported_dtype (the file has weights of another
  /// type), unsupported_layout.
  status bind(std::span<const std::byte> packed) noexcept {
    const result<packed_file> file = detail::file_in(packed);
    if (!file) return file.error();
    const result<model_config> stored = detail::stored_config(*file);
    if (!stored) return stored.error();
    if (detail::canonical(stored->vision) != detail::canonical(v)) return status::different_config;
    for (int c = 0; c < 3; c++)
      if (stored->preprocess.mean[c] != Config.preprocess.mean[c] ||
          stored->preprocess.std[c] != Config.preprocess.std[c])
        return status::different_config;
    detail::weight_binder binder(*file);
    binder.vision(v, blocks_.data(), weights_);
    if (binder.error != status::ok) return binder.error;
    const auto other = [](const nn::linear_weights& w) { return w && w.type != Weights; };
    if (!detail::all_of_type(blocks_, Weights) || other(weights_.patch_embed) || other(weights_.proj) ||
        other(weights_.head) || other(weights_.map.v) || other(weights_.map.proj) || other(weights_.map.fc1) ||
        other(weights_.map.fc2))
      return status::unsupported_dtype;
    return status::ok;
  }

  /// embedding[E], unit length, of a picture that is already resized and cropped: rgb[image_h, image_w, 3].
  /// After a successful bind.
  void operator()(const std::uint8_t* rgb, float* embedding, static_arena<arena_size>& memory) const noexcept {
    const fp_env guard;
    features(rgb, embedding, memory);
    Kernels::l2_normalize(embedding, embedding, embed);
  }
  /// The same from normalised pixels [3, image_h, image_w].
  void operator()(const float* pixels, float* embedding, static_arena<arena_size>& memory) const noexcept {
    const fp_env guard;
    features(pixels, embedding, memory);
    Kernels::l2_normalize(embedding, embedding, embed);
  }

  /// features[E] before normalisation, and with a classifier head logits[classes].
  void features(const std::uint8_t* rgb, float* out, static_arena<arena_size>& memory,
                float* logits = nullptr) const noexcept {
    nn::image_batch in;
    in.rgb = rgb;
    run(in, out, memory, logits);
  }
  void features(const float* pixels, float* out, static_arena<arena_size>& memory,
                float* logits = nullptr) const noexcept {
    nn::image_batch in;
    in.pixels = pixels;
    run(in, out, memory, logits);
  }

 private:
  static constexpr std::uint32_t activations =
      1u << static_cast<int>(v.encoder.act) | (v.pool == pooling::map ? 1u << static_cast<int>(v.map_act) : 0u);
  using kernels = detail::typed_kernels<typename detail::applying<Kernels, activations>::type, Weights,
                                        v.encoder.gated != 0, v.encoder.rope != 0>;

  void run(nn::image_batch& in, float* out, static_arena<arena_size>& memory, float* logits) const noexcept {
    const fp_env guard;
    in.count = 1;
    in.height = v.image_h;
    in.width = v.image_w;
    nn::vision_buffers b;
    b.carve(memory.bytes, fixed_grid, 1, 1, tokens, tokens, 1, form);
    const kernels set{};
    const nn::runner<kernels> run{set, {}};
    nn::vision_tokens(run, Config, weights_, in, 0, b);
    nn::vision_pooled(run, Config, weights_, 1, b, out, embed, logits);
  }

  std::array<nn::block_weights, static_cast<std::size_t>(v.encoder.layers)> blocks_;
  nn::vision_weights weights_;
};

/// The text tower of `Config`, for one text at a time; as vision_tower otherwise. Ids come from a tokenizer
/// (text/tokenizer.hpp reads the one of the packed file) or are made ahead.
template <const model_config& Config, class Kernels, dtype Weights = dtype::s8>
class text_tower {
  static constexpr const text_config& t = Config.text;
  static_assert(t.present != 0, "the model has no text tower");
  static_assert(t.encoder.width > 0 && t.encoder.layers > 0, "the text tower has no width or no layers");
  static_assert(t.encoder.head_width > 0, "the text tower's width is no multiple of its number of heads");
  static_assert(t.vocab > 0 && t.context > 0, "the text tower has no vocabulary or no context");
  static_assert(valid(Config), "the configuration makes no sense (models/config.hpp: valid)");
  static_assert(Weights <= dtype::s8, "weights are f32, f16, bf16 or s8");

 public:
  static constexpr const model_config& config = Config;
  static constexpr int embed = t.embed;
  static constexpr dtype form = detail::form_of(Weights);  ///< of activations: nn::block_buffers
  static constexpr std::size_t arena_size = detail::arena_of(t, Weights);
  static constexpr std::size_t flash_size = detail::flash_of(t, Weights);

  text_tower() = default;
  text_tower(const text_tower&) = delete;  // weights_ points into blocks_
  text_tower& operator=(const text_tower&) = delete;

  /// As vision_tower::bind.
  status bind(std::span<const std::byte> packed) noexcept {
    const result<packed_file> file = detail::file_in(packed);
    if (!file) return file.error();
    const result<model_config> stored = detail::stored_config(*file);
    if (!stored) return stored.error();
    if (detail::canonical(stored->text) != detail::canonical(t)) return status::different_config;
    detail::weight_binder binder(*file);
    binder.text(t, blocks_.data(), weights_);
    if (binder.error != status::ok) return binder.error;
    if (!detail::all_of_type(blocks_, Weights) || (weights_.proj && weights_.proj.type != Weights))
      return status::unsupported_dtype;
    return status::ok;
  }

  /// embedding[E], unit length, of the text with these ids (any padding). Errors: wrong_shape (no ids, or more
  /// than the context), token_out_of_range.
  status operator()(std::span<const std::int32_t> ids, float* embedding,
                    static_arena<arena_size>& memory) const noexcept {
    const fp_env guard;
    const status s = features(ids, embedding, memory);
    if (s == status::ok) Kernels::l2_normalize(embedding, embedding, embed);
    return s;
  }

  /// features[E] before normalisation.
  status features(std::span<const std::int32_t> ids, float* out, static_arena<arena_size>& memory) const noexcept {
    if (ids.empty() || ids.size() > static_cast<std::size_t>(t.context)) return status::wrong_shape;
    for (const std::int32_t id : ids)
      if (id < 0 || id >= t.vocab) return status::token_out_of_range;
    const fp_env guard;
    const nn::token_sequence text = nn::sequence_of(t, ids.data(), static_cast<int>(ids.size()));
    nn::text_buffers b;
    b.carve(memory.bytes, t, 1, t.context, 1, form);
    const kernels set{};
    nn::text_forward(nn::runner<kernels>{set, {}}, Config, weights_, &text, 1, b, &out);
    return status::ok;
  }

 private:
  static constexpr std::uint32_t activations = 1u << static_cast<int>(t.encoder.act);
  using kernels = detail::typed_kernels<typename detail::applying<Kernels, activations>::type, Weights,
                                        t.encoder.gated != 0, false>;

  std::array<nn::block_weights, static_cast<std::size_t>(t.encoder.layers)> blocks_;
  nn::text_weights weights_;
};

OCELLUS_END
