// Reads a model's configuration from a packed file, finds its tensors there, checks their shapes against it, and makes
// the views that the towers read. The names are those of tools/convert/model_source.hpp.
#pragma once

#include <ocellus/format/reader.hpp>
#include <ocellus/nn/fastvit.hpp>
#include <ocellus/nn/resnet.hpp>
#include <ocellus/nn/tower.hpp>

#include <cstring>
#include <span>
#include <string_view>

OCELLUS_BEGIN
namespace detail {

/// The configuration of a packed file. bad_config.
inline result<model_config> stored_config(const packed_file& file) noexcept {
  const std::span<const std::byte> bytes = file.section(format::section::config);
  model_config m;
  if (bytes.size() < sizeof(model_config)) return status::bad_config;
  std::memcpy(&m, bytes.data(), sizeof(model_config));
  if (m.bytes < sizeof(model_config) || !valid(m)) return status::bad_config;
  return m;
}

/// A tensor's name, put together from parts without the heap.
struct tensor_name {
  char text[56] = {};
  std::size_t size = 0;
  [[gnu::cold, gnu::noinline]] tensor_name& operator<<(std::string_view part) noexcept {
    const std::size_t n = part.size() < sizeof(text) - 1 - size ? part.size() : sizeof(text) - 1 - size;
    std::memcpy(text + size, part.data(), n);
    size += n;
    return *this;
  }
  [[gnu::cold, gnu::noinline]] tensor_name& operator<<(int number) noexcept {
    char digits[12];
    int n = 0;
    do digits[n++] = static_cast<char>('0' + number % 10);
    while ((number /= 10) != 0);
    while (n > 0) *this << std::string_view(&digits[--n], 1);
    return *this;
  }
  operator std::string_view() const noexcept { return {text, size}; }
};

/// Looks tensors up and remembers the first thing that was wrong. Small rather than quick: it runs once for a model.
class weight_binder {
 public:
  explicit weight_binder(const packed_file& file) noexcept : file_(file) {}

  status error = status::ok;

  bool has(std::string_view name) const noexcept { return static_cast<bool>(file_.tensor(name)); }

  /// An f32 tensor of exactly `count` elements; null where it is missing and not `needed`.
  [[gnu::cold]] const float* values(std::string_view name, std::int64_t count, bool needed = true) noexcept {
    const result<tensor_view> t = file_.tensor(name);
    if (!t) {
      if (needed) fail(status::missing_tensor);
      return nullptr;
    }
    std::int64_t n = 1;
    for (int i = 0; i < t->rank; i++) n *= t->shape[i];
    if (t->type != dtype::f32 || t->layout != format::layout::rows) return fail(status::unsupported_dtype), nullptr;
    if (n != count) return fail(status::wrong_shape), nullptr;
    return static_cast<const float*>(t->data);
  }

  /// `name`.weight [n, k] in panels and, where it is there, `name`.bias [n / forms].
  [[gnu::cold]] nn::linear_weights linear(std::string_view name, int n, int k, bool needed = true,
                                          int forms = 1) noexcept {
    nn::linear_weights w;
    const result<tensor_view> t = file_.tensor(tensor_name() << name << ".weight");
    if (!t) {
      if (needed) fail(status::missing_tensor);
      return w;
    }
    if (t->layout != format::layout::panel16) return fail(status::unsupported_layout), w;
    if (t->type > dtype::s8) return fail(status::unsupported_dtype), w;
    if (t->shape[0] != n || t->shape[1] != k) return fail(status::wrong_shape), w;
    if (t->type == dtype::s8 && k > 32768) return fail(status::wrong_shape), w;  // s32 accumulators: ops/gemm.hpp
    w.data = t->data;
    w.scales = t->scales;
    w.sums = t->sums;
    w.type = t->type;
    w.n = n;
    w.k = k;
    w.bias = values(tensor_name() << name << ".bias", n / forms, false);
    return w;
  }

  /// A 3 x 3 convolution of stride 1: [n, 9 C], or [16 n, C] where the converter made it for Winograd's products.
  [[gnu::cold]] nn::linear_weights convolution(std::string_view name, int n, int c) noexcept {
    if (columns(tensor_name() << name << ".weight") != c) return linear(name, n, 9 * c);
    if (n % panel_width != 0 || c % panel_width != 0) fail(status::wrong_shape);
    const nn::linear_weights w = linear(name, 16 * n, c, true, 16);
    if (w.type == dtype::s8) fail(status::unsupported_dtype);
    if (w.bias == nullptr) fail(status::missing_tensor);
    return w;
  }

  /// `name`.weight and `name`.bias [c].
  [[gnu::cold]] nn::norm_weights norm(std::string_view name, int c, bool needed = true) noexcept {
    if (!needed && !has(tensor_name() << name << ".weight")) return {};
    return {values(tensor_name() << name << ".weight", c), values(tensor_name() << name << ".bias", c)};
  }

  /// The blocks `prefix`.blocks.0 and on.
  [[gnu::cold]] void blocks(std::string_view prefix, const encoder_config& e, nn::block_weights* out) noexcept {
    int most_inner = 0, most_mlp = 0;
    for (int l = 0; l < e.layers && error == status::ok; l++) {
      const tensor_name base = tensor_name() << prefix << ".blocks." << l;
      const auto at = [&base](std::string_view rest) { return tensor_name(base) << rest; };
      nn::block_weights& w = out[l];
      int inner = e.heads * e.head_width, mlp = e.mlp;
      bool attends = true, feeds = true;
      if (e.uneven != 0) {
        const int q = columns(at(".attn.proj.weight")), f = columns(at(".mlp.fc2.weight"));
        if (q > inner || q % e.head_width != 0 || f > mlp) return fail(status::wrong_shape);
        attends = q > 0;
        feeds = f > 0;
        inner = q;
        mlp = f;
      }
      most_inner = inner > most_inner ? inner : most_inner;
      most_mlp = mlp > most_mlp ? mlp : most_mlp;
      if (attends) {
        w.norm1 = norm(at(".norm1"), e.width);
        w.qkv = linear(at(".attn.qkv"), 3 * inner, e.width);
        w.proj = linear(at(".attn.proj"), e.width, inner);
        if (e.qk_norm != 0) {
          w.q_norm = norm(at(".attn.q_norm"), e.head_width);
          w.k_norm = norm(at(".attn.k_norm"), e.head_width);
        }
        if (e.attn_norm != 0) w.attn_norm = norm(at(".attn.norm"), inner);
      }
      if (feeds) {
        w.norm2 = norm(at(".norm2"), e.width);
        w.fc1 = linear(at(".mlp.fc1"), e.gated != 0 ? 2 * mlp : mlp, e.width);
        w.fc2 = linear(at(".mlp.fc2"), e.width, mlp);
        if (e.mlp_norm != 0) w.mlp_norm = norm(at(".mlp.norm"), mlp);
      }
    }
    // activations have room for these: more than any layer has would be memory for a file that has no such weights
    if (most_inner != e.heads * e.head_width || most_mlp != e.mlp) fail(status::wrong_shape);
  }

  [[gnu::cold]] void vision(const vision_config& v, nn::block_weights* blocks_out, nn::vision_weights& w) noexcept {
    const int c = v.encoder.width, k = v.patch * v.patch * 3;
    if (v.conv_stem != 0) {
      w.stem[0] = linear("vision.stem.0", v.stem_width, 48);
      w.stem[1] = linear("vision.stem_merge.0", v.stem_width, 4 * v.stem_width);
      w.stem[2] = linear("vision.stem_merge.1", c, 4 * v.stem_width);
    } else {
      w.patch_u8 = has("vision.patch_embed_u8.weight");
      w.patch_embed = linear(w.patch_u8 ? "vision.patch_embed_u8" : "vision.patch_embed", c, k);
      if (w.patch_u8 && !w.patch_bytes() && w.patch_embed.type != dtype::bf16) fail(status::unsupported_dtype);
    }
    if (v.class_token != 0) w.class_token = values("vision.class_token", c);
    if (v.registers > 0) w.registers = values("vision.registers", std::int64_t{v.registers} * c);
    const int class_rows = v.class_token != 0 && v.class_position != 0 ? 1 : 0;
    w.positions = values("vision.positions", (std::int64_t{v.grid_h} * v.grid_w + class_rows) * c, v.encoder.rope == 0);
    if (v.encoder.rope != 0)
      w.rope = values("vision.rope", std::int64_t{v.grid_h} * v.grid_w * v.encoder.head_width);
    if (v.pre_norm != 0) w.pre_norm = norm("vision.pre_norm", c);
    blocks("vision", v.encoder, blocks_out);
    if (pools_in_last_block(v)) {
      const int last = v.encoder.layers - 1, heads = v.encoder.heads;
      blocks_out[last].keys_t =
          linear(tensor_name() << "vision.blocks." << last << ".attn.keys_t", heads * c, v.encoder.head_width);
    }
    w.blocks = blocks_out;
    if (v.final_norm != 0) w.norm = norm("vision.norm", c);
    if (v.pool == pooling::map) {
      w.map.queries = values("vision.map.queries", std::int64_t{v.map_heads} * c);
      w.map.v = linear("vision.map.v", c, c);
      w.map.proj = linear("vision.map.proj", c, c);
      w.map.norm = norm("vision.map.norm", c);
      w.map.fc1 = linear("vision.map.fc1", v.map_mlp, c);
      w.map.fc2 = linear("vision.map.fc2", c, v.map_mlp);
    }
    w.proj = linear("vision.proj", v.embed, c, v.embed != c);
    if (v.classes > 0) w.head = linear("vision.head", v.classes, c);
  }

  /// `blocks_out` has room for the blocks of all stages.
  [[gnu::cold]] void resnet(const vision_config& v, nn::bottleneck_weights* blocks_out,
                            nn::resnet_weights& w) noexcept {
    const int width = v.resnet_width;
    w.stem[0] = linear("vision.stem.0", width / 2, 27);
    w.stem[1] = convolution("vision.stem.1", width / 2, width / 2);
    w.stem[2] = convolution("vision.stem.2", width, width / 2);
    int in = width, n = 0;
    for (int stage = 0, planes = width; stage < 4; stage++, planes *= 2)
      for (int i = 0; i < v.resnet_layers[stage] && error == status::ok; i++) {
        const tensor_name base = tensor_name() << "vision.stages." << stage << "." << i;
        const auto at = [&base](std::string_view rest) { return tensor_name(base) << rest; };
        nn::bottleneck_weights& b = blocks_out[n++];
        b.stride = stage > 0 && i == 0 ? 2 : 1;
        b.conv1 = linear(at(".conv1"), planes, in);
        b.conv2 = convolution(at(".conv2"), planes, planes);
        b.conv3 = linear(at(".conv3"), 4 * planes, planes);
        if (i == 0) b.down = linear(at(".down"), 4 * planes, in);
        in = 4 * planes;
      }
    w.blocks = blocks_out;
    w.block_count = n;
    const std::int64_t tokens = std::int64_t{v.image_h / 32} * (v.image_w / 32) + 1;
    if (in % v.encoder.heads != 0) return fail(status::bad_config);
    w.positions = values("vision.attnpool.positions", tokens * in);
    w.q = linear("vision.attnpool.q", in, in);
    w.kv = linear("vision.attnpool.kv", 2 * in, in);
    w.proj = linear("vision.attnpool.proj", v.embed, in);
  }

  /// `name`.weight [side * side, c] and `name`.bias [c].
  [[gnu::cold]] nn::depthwise_weights depthwise(std::string_view name, int c, int side) noexcept {
    nn::depthwise_weights w;
    w.weights = values(tensor_name() << name << ".weight", std::int64_t{side} * side * c);
    w.bias = values(tensor_name() << name << ".bias", c);
    w.c = c;
    w.side = side;
    return w;
  }

  [[gnu::cold]] nn::squeeze_weights squeeze(std::string_view name, int c) noexcept {
    nn::squeeze_weights w;
    const int inner = columns(tensor_name() << name << ".fc2.weight");
    if (inner < 1 || inner > c) return fail(inner < 1 ? status::missing_tensor : status::wrong_shape), w;
    w.fc1 = linear(tensor_name() << name << ".fc1", inner, c);
    w.fc2 = linear(tensor_name() << name << ".fc2", c, inner);
    return w;
  }

  /// `blocks_out` has room for the blocks of all stages.
  [[gnu::cold]] void fastvit(const vision_config& v, nn::fastvit_block* blocks_out, nn::fastvit_weights& w) noexcept {
    const int stages = stages_of(v);
    int c = v.resnet_width, mlp = v.encoder.mlp >> (stages - 1), n = 0;
    w.stem[0] = linear("vision.stem.0", c, 27);
    w.stem_conv = depthwise("vision.stem_conv", c, 3);
    w.stem[1] = linear("vision.stem_proj", c, c);
    for (int s = 0; s < stages; s++, c *= 2, mlp *= 2) {
      const tensor_name stage = tensor_name() << "vision.stages." << s << ".";
      const auto part = [&stage](std::string_view rest) { return tensor_name(stage) << rest; };
      nn::fastvit_stage& out = w.stages[s];
      out.attends = s >= v.attention_stage;
      if (s > 0) {
        out.down = depthwise(part("down"), c, 7);
        out.down_proj = linear(part("down_proj"), c, c);
        if ((v.squeeze >> s & 1) != 0) out.squeeze = squeeze(part("squeeze"), c);
      }
      if (out.attends) out.positions = depthwise(part("positions"), c, 7);
      out.blocks = blocks_out + n;
      out.count = stage_layers(v, s);
      for (int i = 0; i < out.count && error == status::ok; i++) {
        const tensor_name block = tensor_name(stage) << "blocks." << i;
        const auto at = [&block](std::string_view rest) { return tensor_name(block) << rest; };
        nn::fastvit_block& b = blocks_out[n++];
        if (out.attends) {
          if (v.pre_norm != 0) b.norm = norm(at(".norm"), c);
          b.qkv = linear(at(".attn.qkv"), 3 * c, c);
          b.proj = linear(at(".attn.proj"), c, c);
        } else {
          b.mixer = depthwise(at(".mixer"), c, 3);
        }
        b.conv = depthwise(at(".mlp.conv"), c, 7);
        b.fc1 = linear(at(".mlp.fc1"), mlp, c);
        b.fc2 = linear(at(".mlp.fc2"), c, mlp);
      }
    }
    // twice the last stage's width, which is where c has come to
    w.last = depthwise("vision.last", c, 3);
    w.squeeze = squeeze("vision.squeeze", c);
    w.proj = linear("vision.proj", v.embed, c);
  }

  [[gnu::cold]] void text(const text_config& t, nn::block_weights* blocks_out, nn::text_weights& w) noexcept {
    const int c = t.encoder.width;
    const result<tensor_view> tokens = file_.tensor("text.tokens");
    if (!tokens) return fail(status::missing_tensor);
    if (tokens->layout != format::layout::rows || tokens->type > dtype::s8) return fail(status::unsupported_dtype);
    if (tokens->rank != 2 || tokens->shape[0] != t.vocab || tokens->shape[1] != c) return fail(status::wrong_shape);
    w.tokens = tokens->data;
    w.token_type = tokens->type;
    w.token_scales = tokens->scales;
    w.positions = values("text.positions", std::int64_t{t.context} * c);
    blocks("text", t.encoder, blocks_out);
    w.blocks = blocks_out;
    if (t.final_norm != 0) w.norm = norm("text.norm", c);
    w.proj = linear("text.proj", t.embed, c, t.embed != c);
  }

  /// K of a matrix W[N, K]; 0 if there is none.
  int columns(std::string_view name) const noexcept {
    const result<tensor_view> t = file_.tensor(name);
    return t && t->rank == 2 ? static_cast<int>(t->shape[1]) : 0;
  }

  void fail(status s) noexcept {
    if (error == status::ok) error = s;
  }

 private:
  const packed_file& file_;
};

/// Whether all matrices of all blocks are of one type.
template <class Blocks>
constexpr bool all_of_type(const Blocks& blocks, dtype type) noexcept {
  for (const nn::block_weights& b : blocks)
    for (const nn::linear_weights* w : {&b.qkv, &b.proj, &b.fc1, &b.fc2, &b.keys_t})
      if (*w && w->type != type) return false;
  return true;
}

/// Whether any of the blocks' matrices is of `type`.
template <class Blocks>
constexpr bool any_of_type(const Blocks& blocks, dtype type) noexcept {
  for (const nn::block_weights& b : blocks)
    for (const nn::linear_weights* w : {&b.qkv, &b.proj, &b.fc1, &b.fc2, &b.keys_t})
      if (*w && w->type == type) return true;
  return false;
}

}  // namespace detail
OCELLUS_END
