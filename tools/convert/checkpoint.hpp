// A checkpoint as a list of named tensors, whatever container it comes in.
//
//   auto file = checkpoint::open("ViT-B-32.pt");               // or a folder
//   if (!file) return file.failure();
//   const tensor_info* conv = file->find("visual.conv1.weight");
//   std::vector<float> w;
//   if (auto read = file->read_f32(*conv, w); !read) return read.failure();
//
// Containers: PyTorch zip (.pt .pth .bin), TorchScript archives, torch.save's older format without zip,
// safetensors, NumPy .npz, and sharded safetensors or .bin with their index. Which model the tensors make up
// is the layouts' work.
//
// Opening reads directories, headers and pickles and checks every size and offset against the file; tensor
// data is read by read_f32 and read_i64 only, one tensor at a time and in pieces, so that a large checkpoint
// needs little more memory than its largest tensor. The file is untrusted: nothing in it is executed, no name
// in it is used as a path (but the plain file names of a shard index, which must lie in the index's folder),
// and what its headers announce is never allocated before it is checked against the bytes that are there.
#pragma once

#include "outcome.hpp"

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ocellus::convert {

/// Element types. `other` is a type that a container may hold and that we do not read (complex, 8-bit floats,
/// text): such a tensor is listed, and refused by name when it is read.
enum class source_dtype : std::uint8_t { f64, f32, f16, bf16, i64, i32, i16, i8, u8, boolean, other };

/// "f32", "bf16", ... Static storage.
const char* to_string(source_dtype type) noexcept;

constexpr bool is_floating(source_dtype type) noexcept { return type <= source_dtype::bf16; }

/// One tensor: its name in the checkpoint (wrappers and the prefixes `module.`, `_orig_mod.` taken off), type
/// and shape.
struct tensor_info {
  std::string name;
  source_dtype type = source_dtype::other;
  std::vector<std::int64_t> shape;  ///< outermost first; empty for a scalar
  std::int64_t elements = 1;        ///< product of the shape, checked against overflow
  std::size_t slot = 0;             ///< where the checkpoint keeps its place in the file

  bool floating() const noexcept { return is_floating(type); }
};

/// The shape as a person writes it: "[768, 3, 32, 32]".
std::string to_string(std::span<const std::int64_t> shape);

/// Which container the tensors came in, for provenance.
enum class container : std::uint8_t {
  pytorch_zip,
  torchscript,
  pytorch_legacy,
  safetensors,
  safetensors_sharded,
  pytorch_sharded,
  npz
};

/// "PyTorch zip", "TorchScript archive", ... Static storage.
const char* to_string(container kind) noexcept;

class checkpoint {
 public:
  /// Opens a file, by what it holds rather than by its name; a shard index (*.index.json); or a folder, in
  /// which it takes the first of model.safetensors, model.safetensors.index.json,
  /// open_clip_model.safetensors, open_clip_pytorch_model.bin, pytorch_model.bin,
  /// pytorch_model.bin.index.json, or else the only *.safetensors,
  /// *.pt, *.pth, *.bin or *.npz.
  static outcome<checkpoint> open(const std::filesystem::path& path);

  /// The same for one file in memory, which must outlive the checkpoint.
  static outcome<checkpoint> open_memory(std::span<const std::byte> bytes);

  /// All tensors, in the order of the file.
  const std::vector<tensor_info>& tensors() const noexcept;

  /// The tensor of that name, or null.
  const tensor_info* find(std::string_view name) const noexcept;

  /// Reads a floating-point tensor as f32, contiguous in C order (strides and byte order resolved, f64
  /// rounded to nearest). An error for other types: integers are no weights. NaN and infinities pass: see
  /// check_finite.
  outcome<void> read_f32(const tensor_info& tensor, std::vector<float>& out) const;

  /// Reads an integer or boolean tensor, as OpenAI's input_resolution or transformers' position_ids.
  outcome<void> read_i64(const tensor_info& tensor, std::vector<std::int64_t>& out) const;

  container kind() const noexcept;

  /// The files read: one, or an index and its shards. Empty when opened from memory.
  const std::vector<std::filesystem::path>& files() const noexcept;

  /// Bytes of all files.
  std::uint64_t bytes() const noexcept;

  /// What the file says beside its tensors: safetensors' __metadata__, the numbers and short texts next to a
  /// training checkpoint's state dict ("epoch"), TorchScript's number attributes ("visual.layers"). For
  /// provenance and for looking at, not to be trusted.
  const std::map<std::string, std::string>& metadata() const noexcept;

  /// What was left out on the way, one line each ("ignored beside the state dict: optimizer, scaler").
  const std::vector<std::string>& notes() const noexcept;

  /// SHA-256 of the file in lower-case hexadecimal; of several files, of their digests in order. Reads everything once
  /// more.
  outcome<std::string> sha256() const;

  struct state;  ///< the opened files and the places of the tensors in them

 private:
  std::shared_ptr<const state> state_;
};

/// An error that names the tensor when a value is NaN or infinite, which no trained weight is.
outcome<void> check_finite(std::string_view name, std::span<const float> values);

}  // namespace ocellus::convert
