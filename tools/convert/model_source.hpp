// A checkpoint understood: the configuration, and for each tensor of a packed file how to get it. A layout
// (openai, hugging_face, open_clip, big_vision, timm) reads names and shapes of a checkpoint and makes one of
// these; the packer streams it to disk in the data types asked for, one tensor at a time.
//
// Names and shapes of a packed file (C width, H heads, D head width, F mlp, E embed, P patch):
//   vision.patch_embed.weight   [C, P*P*3], k = (y * P + x) * 3 + channel     vision.patch_embed.bias [C], optional
//   s8 and bf16 files instead: vision.patch_embed_u8.weight, .bias, which read raw u8 pixels: mean and std are folded in
//   vision.class_token [C]   vision.registers [R, C]   vision.positions [tokens, C] (class token's row first)
//   vision.pre_norm.weight/.bias [C]
//   vision.blocks.N.norm1.weight/.bias                .norm2.weight/.bias
//   vision.blocks.N.attn.qkv.weight [3*H*D, C] (q, k, v rows; each head by head), .bias [3*H*D] optional
//   vision.blocks.N.attn.proj.weight [C, H*D], .bias  .attn.q_norm/.k_norm.weight/.bias [D], .attn.norm (optional)
//   vision.blocks.N.attn.keys_t.weight [H*C, D]: the last block's k rows transposed head by head, where only the class
//     token goes on (pools_in_last_block); qkv has them as well, for towers composed with attention over all tokens
//   vision.blocks.N.mlp.fc1.weight [F, C] (gated: [2F, C], the gate's rows first), .bias; .mlp.fc2.weight [C, F], .bias
//   vision.norm.weight/.bias [C]
//   MAP head: vision.map.queries [H, C] (the learned query through the weights of queries and keys, head by head),
//     vision.map.v, vision.map.proj, vision.map.norm, vision.map.fc1, vision.map.fc2 (weight and bias each)
//   vision.proj.weight [E, C], .bias, both optional       vision.head.weight [classes, C], .bias: classifier
//   text.tokens [vocab, C]   text.positions [context, C]   text.blocks.N...   text.norm   text.proj.weight [E, C], .bias
//   ResNet: vision.stem.N.weight [out, 3*3*in] (k = (y * 3 + x) * in + channel), .bias (batch norm folded);
//     vision.stages.S.B.conv1/conv2/conv3/down.weight, .bias; files of floats have stem.1, stem.2 and conv2 as
//     [16 * out, in], transformed for Winograd's products, where both are multiples of 16; vision.attnpool.positions [tokens, C],
//     vision.attnpool.q/.kv/.proj (weight and bias)
//   FastViT: vision.stem.0, .stem_proj and vision.stages.S.down_proj, .squeeze.fc1/fc2 (weight and bias each; squeeze of
//     some stages and vision.squeeze, of the end); depthwise convolutions of side K, weight [K*K, C] and bias: vision.stem_conv,
//     .last, vision.stages.S.down, .positions, .blocks.N.mixer, .blocks.N.mlp.conv; .blocks.N.norm, .attn.qkv, .attn.proj,
//     .mlp.fc1, .mlp.fc2. Channels of down and last are the first filter's of each input channel, then the second's.
// LayerScale is folded into attn.proj and mlp.fc2, batch norm into its convolution.
#pragma once

#include "outcome.hpp"
#include "tokenizer.hpp"

#include <ocellus/models/config.hpp>

#include <cstddef>
#include <cstdint>
#include <functional>
#include <string>
#include <vector>

namespace ocellus::convert {

/// How a tensor is stored.
enum class storage {
  matrix,  ///< [n, k] in panels, in the data type asked for
  table,   ///< [n, k] in rows, in the data type asked for: token embeddings
  exact,   ///< any shape in f32: biases, norms, positions
};

/// A matrix as it goes into an s8 file, where it was rounded with care (rounding.hpp): w[i][j] ~ values[i][j] * scales[i].
struct rounded_matrix {
  std::vector<std::int8_t> values;
  std::vector<float> scales;
};

/// One tensor of the packed file. `read` gives its elements in f32, C order; it is called once (s8:
/// several times).
struct planned_tensor {
  std::string name;
  storage kind = storage::exact;
  std::vector<std::uint32_t> shape;
  std::function<outcome<void>(std::vector<float>&)> read;
  std::string source;  ///< the checkpoint's name(s), for messages and provenance
  /// Smoothing: element i is multiplied by columns[i % size] when it is packed: size k, factors of columns; attn.keys_t's
  /// size is C * D, factors of rows.
  std::vector<float> columns = {};
  rounded_matrix rounded = {};      ///< s8: after smoothing; empty: each weight to the nearest step
};

/// A switch of the configuration, its value in words, and where that came from, for `ocellus info`.
struct config_switch {
  std::string name;    ///< "vision.act"
  std::string value;   ///< "quick_gelu"
  std::string origin;  ///< "config.json: vision_config.hidden_act", "fixed by OpenAI's layout", "default of ..."
};

struct model_source {
  std::string layout;  ///< "openai", "hugging-face", "open_clip", "big_vision", "timm"
  ocellus::model_config config;
  std::vector<config_switch> switches;
  std::vector<planned_tensor> tensors;
  tokenizer_options tokenizer;           ///< whose tokenizer the text tower was trained with
  std::vector<std::string> class_names;  ///< of a classifier head, may be empty
  std::vector<std::string> notes;        ///< worth telling the user, one line each
};

}  // namespace ocellus::convert
