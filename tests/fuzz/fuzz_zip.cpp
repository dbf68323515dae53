// Any bytes as a zip archive, and every entry of it unpacked, whole, in part, and its front.
#include "zip.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace convert = ocellus::convert;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const convert::byte_source source(std::as_bytes(std::span(data, size)));
  const auto archive = convert::zip_archive::open(source);
  if (!archive) {
    if (archive.failure().what.empty()) __builtin_trap();  // a refusal says why
    return 0;
  }
  std::uint64_t unpacked = 0;
  for (const convert::zip_entry& entry : archive->entries()) {
    if (entry.offset > size || entry.packed > size - entry.offset) __builtin_trap();
    if (archive->find(entry.name) != &entry) __builtin_trap();
    unpacked += entry.size;
    if (unpacked > std::uint64_t{64} << 20) break;  // deflate may give a thousandfold: time is the limit here
    const auto front = archive->peek(entry, 100);
    const auto whole = archive->read_all(entry, entry.size);
    if (!whole) continue;
    if (whole->size() != entry.size || !front) __builtin_trap();
    std::uint64_t got = 0;
    const auto part =
        archive->read(entry, entry.size / 3, entry.size / 2, [&](auto bytes) { got += bytes.size(); });
    if (!part || got != entry.size / 2) __builtin_trap();
  }
  return 0;
}
