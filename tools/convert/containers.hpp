// What the readers of the containers hand to checkpoint.cpp: each tensor's name, type, shape, and place in
// the file. Internal to the converter's reading side; users include checkpoint.hpp.
#pragma once

#include "byte_source.hpp"
#include "checkpoint.hpp"
#include "outcome.hpp"
#include "zip.hpp"

#include <cstddef>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

namespace ocellus::convert {

struct found_tensor {
  tensor_info info;
  std::size_t source = 0;             // which of the opened files
  std::optional<std::size_t> entry;   // which entry of its zip archive, or the file itself
  std::uint64_t begin = 0;            // byte of the first element in the entry or file
  std::uint64_t span = 0;             // elements from the first to the last that the tensor uses
  std::vector<std::int64_t> strides;  // in elements; empty when the tensor is contiguous in C order
  std::uint8_t element_bytes = 1;
  bool big_endian = false;
};

struct contents {
  container kind = container::safetensors;
  std::vector<found_tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> notes;
};

/// Header of at most 100 MB, offsets without holes and overlaps, no key twice, as the reference library
/// demands.
outcome<contents> read_safetensors(const byte_source& source);

/// NumPy's archive of .npy arrays: numbers only (object arrays, which hold pickles, are refused).
outcome<contents> read_npz(const zip_archive& archive);

/// torch.save's archive, or a TorchScript archive.
outcome<contents> read_pytorch_zip(const zip_archive& archive);

/// Bytes that torch.save's archive needs at least, by the data.pkl at its front and the storages that this lists, when the
/// archive's end is missing; 0 if it cannot be told.
std::uint64_t pytorch_zip_needs(const byte_source& source);

/// torch.save before 1.6: five pickles and then the storages.
outcome<contents> read_pytorch_legacy(const byte_source& source);

/// Fills in info.elements and span from info.shape and strides, with `first` the number of the first element
/// in its storage of `bytes` bytes, which begins at `begin`. Errors: rank above 8, overflow, elements outside
/// of the storage.
outcome<void> place_tensor(found_tensor& tensor, std::uint64_t first, std::uint64_t bytes);

/// An error about a file of `size` bytes that should have `of`.
error cut_off(std::uint64_t size, const std::string& of);

/// An error about the tensor of that name.
error in_tensor(std::string_view name, const std::string& what);

/// More than any checkpoint has; what does not stop there is made to fill the memory.
inline constexpr std::size_t max_tensors = 200'000;

}  // namespace ocellus::convert
