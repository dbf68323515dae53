// Zip archives, read only: what PyTorch's .pt and NumPy's .npz are made of.
//
// Of APPNOTE 6.3: stored and deflated entries, zip64, data descriptors, a comment, and bytes before the
// archive. Not: encryption, several disks, other methods. The whole directory is checked on open: each
// entry's local header must agree with it, no two entries may share a name or a byte, and none may claim to
// unpack to more than deflate can give (1032 to 1). Names are keys, never paths; those that would climb out
// of a folder are refused all the same.
#pragma once

#include "byte_source.hpp"
#include "outcome.hpp"

#include <cstddef>
#include <cstdint>
#include <functional>
#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace ocellus::convert {

struct zip_entry {
  std::string name;
  std::uint64_t header = 0;  ///< of the local header in the file
  std::uint64_t offset = 0;  ///< of the data in the file
  std::uint64_t packed = 0;  ///< bytes in the file
  std::uint64_t size = 0;    ///< bytes when unpacked
  std::uint32_t crc = 0;
  bool deflated = false;
};

class zip_archive {
 public:
  static outcome<zip_archive> open(const byte_source& source);

  const std::vector<zip_entry>& entries() const noexcept { return entries_; }

  /// The entry of that name, or null.
  const zip_entry* find(std::string_view name) const noexcept;

  using sink = std::function<void(std::span<const std::byte>)>;

  /// Hands the unpacked bytes [begin, begin + count) to `take`, in order and in pieces of at most 256 KiB.
  /// The first read of an entry goes through all of it and verifies its checksum; an error may come after the
  /// last piece, so what was taken counts only on success. A checksum of 0 is not verified: torch.save writes
  /// it when told not to compute any.
  outcome<void> read(const zip_entry& entry, std::uint64_t begin, std::uint64_t count,
                     const sink& take) const;

  /// The first bytes of an entry, at most `count`, without its checksum: for headers.
  outcome<std::vector<std::byte>> peek(const zip_entry& entry, std::size_t count) const;

  /// A whole entry of at most `limit` bytes.
  outcome<std::vector<std::byte>> read_all(const zip_entry& entry, std::uint64_t limit) const;

 private:
  explicit zip_archive(const byte_source& source) : source_(source) {}

  struct directory {
    std::uint64_t offset, size, count;
    std::uint64_t shift;  // bytes that stand before the archive, which its offsets do not count
  };
  outcome<directory> parse_end(std::uint64_t end_offset) const;
  outcome<void> parse_directory(const directory& where);
  outcome<void> parse_local_header(zip_entry& entry) const;
  outcome<zip_entry> parse_entry(std::span<const std::byte>& rest, std::uint64_t shift) const;
  outcome<void> inflate(const zip_entry& entry, std::uint64_t limit, const sink& take) const;

  byte_source source_;
  std::vector<zip_entry> entries_;
  std::map<std::string, std::size_t, std::less<>> index_;
  mutable std::vector<bool>
      verified_;  // whose checksum was right once: views into one storage need no second pass
};

}  // namespace ocellus::convert
