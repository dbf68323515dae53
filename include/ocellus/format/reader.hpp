// Opens a packed file from bytes: validates every header, table, name, offset and size, and hands out views. Nothing
// is copied and no tensor data is touched, so opening is quick and the pages stay lazy.
//
//   const ocellus::result<ocellus::packed_file> file = ocellus::packed_file::open(bytes);
//   if (!file) return file.error();
//   const ocellus::result<ocellus::tensor_view> weight = file->tensor("vision.patch_embed.weight");
//
// Guarantees: no allocation, no exceptions; `bytes` must outlive the file and be aligned to 64 bytes.
#pragma once

#include <ocellus/core/status.hpp>
#include <ocellus/format/layout.hpp>

#include <bit>
#include <cstring>
#include <span>
#include <string_view>

OCELLUS_BEGIN

/// One tensor in the file. `shape` is the logical shape; for panels [N, K].
struct tensor_view {
  std::string_view name;
  dtype type = dtype::f32;
  format::layout layout = format::layout::rows;
  int rank = 0;
  int shape[4] = {0, 0, 0, 0};
  const void* data = nullptr;
  const float* scales = nullptr;       ///< [shape[0]] or null
  const std::int32_t* sums = nullptr;  ///< [shape[0]] or null
  std::uint64_t bytes = 0;
};

class packed_file {
 public:
  /// Largest dimension of a tensor and largest product: int arithmetic on sizes cannot overflow below them.
  static constexpr std::uint32_t max_dim = 1u << 24;
  static constexpr std::uint64_t max_elements = std::uint64_t{1} << 32;

  /// Checks headers, tables, names and offsets, and the checksums of the tables and of the configuration.
  /// Errors: empty_file, bad_alignment, bad_magic, truncated, unsupported_version, unknown_required_feature,
  /// bad_header, bad_offset, bad_name, bad_checksum, wrong_shape, unsupported_dtype, unsupported_layout.
  static result<packed_file> open(std::span<const std::byte> bytes) noexcept {
    static_assert(std::endian::native == std::endian::little, "packed files are little-endian");
    if (bytes.empty()) return status::empty_file;
    if (reinterpret_cast<std::uintptr_t>(bytes.data()) % format::alignment != 0) return status::bad_alignment;
    if (bytes.size() < sizeof(format::magic) || std::memcmp(bytes.data(), format::magic, sizeof(format::magic)) != 0)
      return status::bad_magic;
    if (bytes.size() < sizeof(format::file_header)) return status::truncated;
    packed_file f;
    f.bytes_ = bytes;
    f.header_ = reinterpret_cast<const format::file_header*>(bytes.data());
    const status s = f.check();
    if (s != status::ok) return s;
    return f;
  }

  const format::file_header& header() const noexcept { return *header_; }
  std::uint64_t embedding_space() const noexcept { return header_->embedding_space; }

  /// The bytes of a section; empty if the file has none of that kind.
  std::span<const std::byte> section(format::section kind) const noexcept {
    for (const format::section_header& s : sections())
      if (s.kind == static_cast<std::uint32_t>(kind))
        return bytes_.subspan(static_cast<std::size_t>(s.offset), static_cast<std::size_t>(s.bytes));
    return {};
  }

  int tensor_count() const noexcept { return static_cast<int>(tensors().size()); }
  tensor_view tensor(int index) const noexcept { return view(tensors()[static_cast<std::size_t>(index)]); }

  /// By name; missing_tensor if there is none. Tables are sorted by name: a binary search.
  result<tensor_view> tensor(std::string_view name) const noexcept {
    const std::span<const format::tensor_header> all = tensors();
    std::size_t low = 0, high = all.size();
    while (low < high) {
      const std::size_t middle = (low + high) / 2;
      if (name_of(all[middle]) < name) {
        low = middle + 1;
      } else {
        high = middle;
      }
    }
    if (low == all.size() || name_of(all[low]) != name) return status::missing_tensor;
    return view(all[low]);
  }

  /// Checks every checksum: reads the whole file. bad_checksum if one does not match.
  status verify() const noexcept {
    for (const format::section_header& s : sections())
      if (s.kind != static_cast<std::uint32_t>(format::section::tensor_data) && sum(s.offset, s.bytes) != s.checksum)
        return status::bad_checksum;
    for (const format::tensor_header& t : tensors()) {
      format::checksum c;
      c.add(at(t.offset), static_cast<std::size_t>(t.bytes));
      if (t.scales != 0) c.add(at(t.scales), std::uint64_t{4} * t.dims[0]);
      if (t.sums != 0) c.add(at(t.sums), std::uint64_t{4} * t.dims[0]);
      if (c.state != t.checksum) return status::bad_checksum;
    }
    return status::ok;
  }

 private:
  const unsigned char* at(std::uint64_t offset) const noexcept {
    return reinterpret_cast<const unsigned char*>(bytes_.data()) + offset;
  }
  std::uint64_t sum(std::uint64_t offset, std::uint64_t bytes) const noexcept {
    format::checksum c;
    c.add(at(offset), static_cast<std::size_t>(bytes));
    return c.state;
  }
  bool inside(std::uint64_t offset, std::uint64_t bytes) const noexcept {
    return offset <= bytes_.size() && bytes <= bytes_.size() - offset;
  }
  std::span<const format::section_header> sections() const noexcept {
    return {reinterpret_cast<const format::section_header*>(at(header_->sections_offset)), header_->section_count};
  }
  std::span<const format::tensor_header> tensors() const noexcept {
    const std::span<const std::byte> s = section(format::section::tensor_table);
    return {reinterpret_cast<const format::tensor_header*>(s.data()), s.size() / sizeof(format::tensor_header)};
  }
  static std::string_view name_of(const format::tensor_header& t) noexcept { return t.name; }

  tensor_view view(const format::tensor_header& t) const noexcept {
    tensor_view v;
    v.name = name_of(t);
    v.type = static_cast<dtype>(t.type);
    v.layout = static_cast<format::layout>(t.layout);
    v.rank = t.rank;
    for (int i = 0; i < 4; i++) v.shape[i] = static_cast<int>(t.dims[i]);
    v.data = at(t.offset);
    v.bytes = t.bytes;
    if (t.scales != 0) v.scales = reinterpret_cast<const float*>(at(t.scales));
    if (t.sums != 0) v.sums = reinterpret_cast<const std::int32_t*>(at(t.sums));
    return v;
  }

  [[gnu::cold]] status check() const noexcept {
    const format::file_header& h = *header_;
    if (h.major != format::major_version) return status::unsupported_version;
    if ((h.required & ~format::known_required) != 0) return status::unknown_required_feature;
    if (h.header_bytes != sizeof(format::file_header)) return status::bad_header;
    if (h.file_bytes > bytes_.size()) return status::truncated;
    if (h.file_bytes < bytes_.size()) return status::bad_header;
    if (h.section_count > 256) return status::bad_header;
    const std::uint64_t table_bytes = h.section_count * sizeof(format::section_header);
    if (h.sections_offset % 8 != 0 || !inside(h.sections_offset, table_bytes)) return status::bad_offset;
    format::file_header zeroed = h;
    zeroed.checksum = 0;
    format::checksum c;
    c.add(reinterpret_cast<const unsigned char*>(&zeroed), sizeof(zeroed));
    c.add(at(h.sections_offset), static_cast<std::size_t>(table_bytes));
    if (c.state != h.checksum) return status::bad_checksum;
    std::uint64_t seen = 0;
    for (const format::section_header& s : sections()) {
      if (s.offset % format::alignment != 0) return status::bad_alignment;
      if (!inside(s.offset, s.bytes)) return status::bad_offset;
      if (s.kind == 0 || s.kind > static_cast<std::uint32_t>(format::section::report)) {
        if ((s.flags & format::section_required) != 0) return status::unknown_required_feature;
        continue;
      }
      if ((seen >> s.kind & 1) != 0) return status::bad_header;  // no section twice
      seen |= std::uint64_t{1} << s.kind;
      // small, and a flipped bit there would be another model: the rest is verify()'s
      const bool decides = s.kind == static_cast<std::uint32_t>(format::section::config) ||
                           s.kind == static_cast<std::uint32_t>(format::section::tensor_table);
      if (decides && sum(s.offset, s.bytes) != s.checksum) return status::bad_checksum;
    }
    return check_tensors();
  }

  [[gnu::cold]] status check_tensors() const noexcept {
    const std::span<const std::byte> table = section(format::section::tensor_table);
    if (table.size() % sizeof(format::tensor_header) != 0) return status::bad_header;
    if (table.size() / sizeof(format::tensor_header) > (1u << 20)) return status::bad_header;
    std::string_view before;
    for (const format::tensor_header& t : tensors()) {
      if (std::memchr(t.name, 0, sizeof(t.name)) == nullptr || t.name[0] == 0) return status::bad_name;
      if (!before.empty() && !(before < name_of(t))) return status::bad_name;  // sorted, no name twice
      before = name_of(t);
      if (t.type > static_cast<std::uint8_t>(dtype::s32)) return status::unsupported_dtype;
      if (t.layout > static_cast<std::uint8_t>(format::layout::panel16)) return status::unsupported_layout;
      const dtype type = static_cast<dtype>(t.type);
      const format::layout how = static_cast<format::layout>(t.layout);
      if (t.rank < 1 || t.rank > 4 || (how == format::layout::panel16 && t.rank != 2)) return status::wrong_shape;
      std::uint64_t elements = 1;
      for (int i = 0; i < 4; i++) {
        if (i >= t.rank ? t.dims[i] != 0 : t.dims[i] == 0 || t.dims[i] > max_dim) return status::wrong_shape;
        if (i < t.rank) elements *= t.dims[i];
        if (elements > max_elements) return status::wrong_shape;
      }
      if (t.bytes != format::stored_bytes(type, how, t.dims, t.rank)) return status::wrong_shape;
      if (t.offset % format::alignment != 0 || t.scales % 4 != 0 || t.sums % 4 != 0) return status::bad_alignment;
      if (!inside(t.offset, t.bytes) || !inside(t.scales, std::uint64_t{4} * t.dims[0]) ||
          !inside(t.sums, std::uint64_t{4} * t.dims[0]))
        return status::bad_offset;
      if (type == dtype::s8 && (t.scales == 0 || (how == format::layout::panel16 && t.sums == 0)))
        return status::bad_header;
    }
    return status::ok;
  }

  std::span<const std::byte> bytes_;
  const format::file_header* header_ = nullptr;
};

OCELLUS_END
