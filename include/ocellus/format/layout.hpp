// The packed file (.oc): one flat, memory-mappable file with configuration, tokenizer and weights.
//
// Goals
//   - the kernels read the weights where they lie: panels, scales and column sums are stored as they are
//     used;
//   - the same bytes work from mmap, from a buffer and from flash (an alignas(64) const array);
//   - a damaged or hostile file gives a status: every header, table, offset and size is checked on open;
//   - a reader opens older and newer files of its own major version; of others it says: convert the model again;
//   - opening touches only the headers and tables: tensor data is checked by `verify` alone.
// Non-goals
//   - editing in place, compression, big-endian machines, several models in one file.
// History
//   - 1.0, 1.1: the first ones.
//   - 2.0: a MAP head's queries went through the weights of its keys; the last block has these transposed where class
//     tokens alone go on; weights for pixels in one int8 matrix, not two.
//
//   file_header | section_header[section_count] | sections, each aligned to 64 bytes
// All numbers are little-endian. Offsets count from the start of the file. Reserved fields are zero.
#pragma once

#include <ocellus/ops/pack.hpp>

#include <bit>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <type_traits>

OCELLUS_BEGIN
namespace format {

OCELLUS_TABLE unsigned char magic[8] = {'O', 'C', 'E', 'L', 'L', 'U', 'S', 0x1a};
inline constexpr std::uint16_t major_version = 2;
inline constexpr std::uint16_t minor_version = 0;
inline constexpr std::size_t alignment = 64;

/// Features that a reader must know to use the file. Bit i has the name required_features[i].
OCELLUS_TABLE const char* required_features[] = {"panel16", "winograd"};
inline constexpr std::uint64_t feature_panel16 = 1;
inline constexpr std::uint64_t feature_winograd = 2;  ///< 3 x 3 convolutions transformed: nn/resnet.hpp
inline constexpr std::uint64_t known_required =
    (std::uint64_t{1} << (sizeof(required_features) / sizeof(char*))) - 1;

struct file_header {
  unsigned char magic[8];
  std::uint16_t major;
  std::uint16_t minor;
  std::uint32_t header_bytes;     ///< sizeof(file_header)
  std::uint64_t required;         ///< features that a reader must know
  std::uint64_t optional;         ///< features that it may ignore
  std::uint64_t file_bytes;
  std::uint32_t section_count;
  std::uint32_t reserved0;
  std::uint64_t sections_offset;  ///< of section_header[section_count]
  std::uint64_t embedding_space;  ///< equal for files whose embeddings may be compared
  std::uint64_t checksum;         ///< of this header, with this field zero, and of the section table
  std::uint64_t reserved[7];
};
static_assert(sizeof(file_header) == 128);
static_assert(offsetof(file_header, required) == 16 && offsetof(file_header, file_bytes) == 32 &&
              offsetof(file_header, sections_offset) == 48 && offsetof(file_header, embedding_space) == 56 &&
              offsetof(file_header, checksum) == 64);

enum class section : std::uint32_t {
  config = 1,        ///< model_config (models/config.hpp)
  tensor_table = 2,  ///< tensor_header[]
  tensor_data = 3,   ///< what tensor_header's offsets point into
  tokenizer = 4,     ///< text/tokenizer_blob.hpp
  provenance = 5,    ///< JSON in UTF-8: source, hashes, converter, where each switch came from
  class_names = 6,   ///< UTF-8 lines, one per class of a classifier head
  report = 7,        ///< JSON in UTF-8: the error that quantisation causes, per kind of layer
};
inline constexpr std::uint32_t section_required =
    1;  ///< flag: a reader that does not know the kind must refuse

struct section_header {
  std::uint32_t kind;
  std::uint32_t flags;
  std::uint64_t offset;
  std::uint64_t bytes;
  std::uint64_t checksum;  ///< of the section's bytes; 0 for tensor_data, whose tensors have their own
  std::uint64_t reserved[2];
};
static_assert(sizeof(section_header) == 48 && offsetof(section_header, offset) == 8);

/// How the elements of a tensor lie.
enum class layout : std::uint8_t {
  rows = 0,     ///< C order
  panel16 = 1,  ///< ops/pack.hpp: panel<16, panel_group(type)> of a matrix [N, K]
};

struct tensor_header {
  char name[56];           ///< zero-terminated, e.g. "vision.blocks.0.mlp.fc1.weight"
  std::uint8_t type;       ///< dtype
  std::uint8_t layout;     ///< layout
  std::uint8_t rank;       ///< 1..4
  std::uint8_t reserved0;
  std::uint32_t dims[4];   ///< logical shape, outermost first; [N, K] for panels; 0 beyond rank
  std::uint32_t reserved1;
  std::uint64_t offset;    ///< of the elements, from the start of the file, multiple of 64
  std::uint64_t bytes;
  std::uint64_t scales;    ///< offset of f32[dims[0]]: scale per row (per output column); 0: none
  std::uint64_t sums;      ///< offset of s32[dims[0]]: sum of each column's s8 weights over k; 0: none
  std::uint64_t checksum;  ///< of the elements, then the scales, then the sums
  std::uint64_t reserved;
};
static_assert(sizeof(tensor_header) == 128);
static_assert(offsetof(tensor_header, dims) == 60 && offsetof(tensor_header, offset) == 80 &&
              offsetof(tensor_header, checksum) == 112);

/// FNV-1a over little-endian 64-bit words, the last one padded with zeros, then over the length [Fowler,
/// Noll, Vo 1991]. Against damage, not against forgery.
struct checksum {
  std::uint64_t state = 14695981039346656037ull;

  constexpr void add(const unsigned char* data, std::size_t bytes) noexcept {
    part(data, bytes);
    end(bytes);
  }

  /// The same in pieces: part() for each, of a multiple of 8 bytes but the last, then end() with their total.
  constexpr void part(const unsigned char* data, std::size_t bytes) noexcept {
    std::size_t i = 0;
    for (; i + 8 <= bytes; i += 8) word(whole(data + i));
    if (i < bytes) word(load(data + i, bytes - i));
  }
  constexpr void end(std::uint64_t bytes) noexcept { word(bytes); }

 private:
  static constexpr std::uint64_t whole(const unsigned char* p) noexcept {
    if (std::is_constant_evaluated() || std::endian::native != std::endian::little) return load(p, 8);
    std::uint64_t w;
    std::memcpy(&w, p, 8);
    return w;
  }
  static constexpr std::uint64_t load(const unsigned char* p, std::size_t n) noexcept {
    std::uint64_t w = 0;
    for (std::size_t i = 0; i < n; i++) w |= static_cast<std::uint64_t>(p[i]) << (8 * i);
    return w;
  }
  constexpr void word(std::uint64_t w) noexcept { state = (state ^ w) * 1099511628211ull; }
};

/// Bytes of a tensor's elements as stored.
constexpr std::uint64_t stored_bytes(dtype type, layout how, const std::uint32_t dims[4], int rank) noexcept {
  if (how == layout::panel16)
    return static_cast<std::uint64_t>(
               packed_elements(type, static_cast<int>(dims[0]), static_cast<int>(dims[1]))) *
           size_of(type);
  std::uint64_t n = size_of(type);
  for (int i = 0; i < rank; i++) n *= dims[i];
  return n;
}

}  // namespace format
OCELLUS_END
