// Writes a packed file (.oc) as a stream: tensors go to disk as they come, tables and header follow at the end, and
// the file gets its name by a rename only when everything is there. A writer that is dropped leaves nothing behind.
#pragma once

#include "outcome.hpp"

#include <ocellus/format/layout.hpp>
#include <ocellus/format/reader.hpp>

#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ocellus::convert {

/// Where a file of this name is to be written by a rename: behind links; an error where something else than a file is
/// there (a folder, a device), which the rename would fail at or replace.
outcome<std::filesystem::path> replaceable(const std::filesystem::path& path);

/// A new file to write bytes to; null, with errno, where it is there already or cannot be made.
std::FILE* create_file(const std::filesystem::path& path);

class packed_writer {
 public:
  packed_writer() = default;
  packed_writer(const packed_writer&) = delete;
  packed_writer& operator=(const packed_writer&) = delete;
  ~packed_writer();

  /// Opens a temporary beside `path`.
  outcome<void> open(const std::filesystem::path& path);

  /// A tensor as it lies: C order, any type. `scales` (per row) for s8.
  outcome<void> add_rows(std::string_view name, ocellus::dtype type, std::span<const std::uint32_t> shape,
                         const void* data, std::span<const float> scales = {});

  /// A matrix W[n, k] (row-major f32) as panels of `type`. For s8 each row is quantised with its own symmetric scale
  /// max|w| / 127, or with `scales` when given, half to even; the sums of its quantised values are stored beside it.
  /// Values beyond the range of f16 are an error.
  outcome<void> add_matrix(std::string_view name, ocellus::dtype type, int n, int k, const float* w,
                           std::span<const float> scales = {});

  /// A table W[n, k] in rows of `type`: token embeddings. s8 rows have a scale each, as in add_matrix.
  outcome<void> add_table(std::string_view name, ocellus::dtype type, int n, int k, const float* w);

  /// f32 rows, the common case of biases, gains and tables.
  outcome<void> add_f32(std::string_view name, std::span<const std::uint32_t> shape, std::span<const float> data);

  /// A tensor of another packed file, as it is stored there.
  outcome<void> add_stored(const ocellus::tensor_view& t);

  /// A section other than tensors; `bytes` is copied.
  void add_section(ocellus::format::section kind, std::span<const std::byte> bytes, bool required = false);

  /// Says that a reader must know this feature, one of format::required_features.
  void require(std::uint64_t feature) noexcept { required_ |= feature; }

  /// Writes tables and header, flushes, renames. Nothing can be added afterwards.
  outcome<void> finish(std::uint64_t embedding_space);

  /// Writes tables and header under the temporary name, so that the file can be opened and tried before it is finished;
  /// sections may follow, tensors not.
  outcome<void> complete(std::uint64_t embedding_space);
  const std::filesystem::path& temporary() const noexcept { return temporary_; }

  /// Bytes written so far.
  std::uint64_t bytes() const noexcept { return offset_; }

 private:
  outcome<void> append(const void* data, std::size_t bytes);
  outcome<void> align();
  outcome<void> begin_tensor(ocellus::format::tensor_header& header);
  outcome<void> add_elements(const void* data, std::size_t bytes);  // a multiple of 8 bytes in all calls but the last
  outcome<void> end_tensor(ocellus::format::tensor_header header, std::span<const float> scales,
                           std::span<const std::int32_t> sums);

  std::filesystem::path path_, temporary_;
  std::uint64_t required_ = 0;
  std::FILE* file_ = nullptr;
  /// Linux keeps what one large aligned write brings in huge pages, where the file system can, and maps them as such:
  /// reading the weights then misses the TLB 512 times less often.
  static constexpr std::size_t buffer_bytes = 8 << 20;
  std::vector<char> buffer_;
  std::uint64_t offset_ = 0;
  std::uint64_t data_end_ = 0;  ///< where the tensors end, once complete
  ocellus::format::checksum sum_;  // of the tensor being written
  std::map<std::string, ocellus::format::tensor_header> tensors_;
  std::map<std::uint32_t, std::pair<std::vector<std::byte>, bool>> sections_;
};

}  // namespace ocellus::convert
