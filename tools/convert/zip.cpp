// References: PKWARE APPNOTE.TXT 6.3.10, sections 4.3 and 4.5.3; RFC 1951 for deflate's greatest ratio.
#include "zip.hpp"

#include <zlib.h>

#include <algorithm>
#include <optional>

namespace ocellus::convert {
namespace {

constexpr std::uint32_t local_signature = 0x04034b50;
constexpr std::uint32_t central_signature = 0x02014b50;
constexpr std::uint32_t end_signature = 0x06054b50;
constexpr std::uint32_t end64_signature = 0x06064b50;
constexpr std::uint32_t locator64_signature = 0x07064b50;

constexpr std::size_t local_bytes = 30;
constexpr std::size_t central_bytes = 46;
constexpr std::size_t end_bytes = 22;
constexpr std::size_t end64_bytes = 56;
constexpr std::size_t locator64_bytes = 20;

constexpr std::uint32_t in_zip64_extra = 0xffffffff;
constexpr std::uint16_t flag_encrypted = 1u << 0 | 1u << 6 | 1u << 13;
constexpr std::uint16_t flag_sizes_follow =
    1u << 3;  // the local header has no sizes; a descriptor follows the data
constexpr std::uint16_t method_stored = 0;
constexpr std::uint16_t method_deflated = 8;

constexpr std::uint64_t max_directory = std::uint64_t{64} << 20;  // about half a million entries
constexpr std::size_t piece = std::size_t{256} << 10;

// Trained weights hardly deflate. What claims to grow a hundredfold to more than this is there to fill the
// memory.
constexpr std::uint64_t bomb_bytes = std::uint64_t{128} << 20;
constexpr std::uint64_t bomb_ratio = 100;

error in_entry(const std::string& name, const std::string& what) {
  return error{"zip entry \"" + printable(name) + "\": " + what};
}

bool climbs_out(std::string_view name) {
  if (name.starts_with('/') || name.find('\\') != name.npos || name.find('\0') != name.npos) return true;
  for (std::size_t begin = 0; begin <= name.size();) {
    const std::size_t end = std::min(name.find('/', begin), name.size());
    if (name.substr(begin, end - begin) == "..") return true;
    begin = end + 1;
  }
  return false;
}

}  // namespace

outcome<zip_archive> zip_archive::open(const byte_source& source) {
  if (source.size() < end_bytes) return error{"too short for a zip archive; download it again"};
  const std::uint64_t tail_size = std::min<std::uint64_t>(source.size(), end_bytes + 0xffff);
  std::vector<std::byte> tail(static_cast<std::size_t>(tail_size));
  if (auto read = source.read(source.size() - tail_size, tail); !read) return read.failure();

  // The comment at the end may itself look like an end record, so a candidate counts only with a whole
  // directory.
  std::optional<error> problem;
  int tries = 8;
  for (std::size_t at = tail.size() - end_bytes + 1; at-- > 0 && tries > 0;) {
    const std::byte* const end = tail.data() + at;
    if (load_u32(end) != end_signature || load_u16(end + 20) != tail.size() - at - end_bytes) continue;
    --tries;
    zip_archive archive(source);
    const outcome<directory> where = archive.parse_end(source.size() - tail_size + at);
    if (!where) {
      if (!problem) problem = where.failure();
      continue;
    }
    const outcome<void> parsed = archive.parse_directory(*where);
    if (parsed) return archive;
    if (!problem) problem = parsed.failure();
  }
  return problem.value_or(error{"the file is cut off after " + std::to_string(source.size()) +
                                " bytes: the end of the zip archive is missing; download it again"});
}

outcome<zip_archive::directory> zip_archive::parse_end(std::uint64_t end_offset) const {
  std::byte end[end_bytes];
  if (auto read = source_.read(end_offset, end); !read) return read.failure();
  directory where{load_u32(end + 16), load_u32(end + 12), load_u16(end + 10), 0};
  if (load_u16(end + 4) != 0 || load_u16(end + 6) != 0 || load_u16(end + 8) != load_u16(end + 10)) {
    return error{"zip archives on several disks are not supported"};
  }
  std::uint64_t directory_end = end_offset;
  std::byte locator[locator64_bytes];
  if (end_offset >= locator64_bytes && source_.read(end_offset - locator64_bytes, locator) &&
      load_u32(locator) == locator64_signature) {
    // The record's offset in the locator is that before any bytes were put before the archive; then the
    // record stands right before the locator.
    std::byte end64[end64_bytes];
    directory_end = load_u64(locator + 8);
    const bool there = source_.read(directory_end, end64) && load_u32(end64) == end64_signature;
    if (!there && end_offset >= locator64_bytes + end64_bytes) {
      directory_end = end_offset - locator64_bytes - end64_bytes;
      if (!source_.read(directory_end, end64)) return error{"the zip64 end record is damaged"};
    }
    if (load_u32(end64) != end64_signature || directory_end >= end_offset) {
      return error{"the zip64 end record is not where its locator says"};
    }
    if (load_u32(end64 + 16) != 0 || load_u32(end64 + 20) != 0 ||
        load_u64(end64 + 24) != load_u64(end64 + 32)) {
      return error{"zip archives on several disks are not supported"};
    }
    where = {load_u64(end64 + 48), load_u64(end64 + 40), load_u64(end64 + 32), 0};
  }
  std::uint64_t stated_end = 0;
  if (!add_checked(where.offset, where.size, stated_end) || stated_end > directory_end) {
    return error{"the zip directory lies outside of the file"};
  }
  where.shift = directory_end - stated_end;
  if (where.size > max_directory) return error{"the zip directory is larger than 64 MiB"};
  return where;
}

outcome<void> zip_archive::parse_directory(const directory& where) {
  std::vector<std::byte> bytes(static_cast<std::size_t>(where.size));
  if (auto read = source_.read(where.offset + where.shift, bytes); !read) return read.failure();
  if (where.count > bytes.size() / central_bytes)
    return error{"the zip directory has fewer entries than it announces"};
  entries_.reserve(static_cast<std::size_t>(where.count));
  for (std::span<const std::byte> rest = bytes; !rest.empty();) {
    outcome<zip_entry> entry = parse_entry(rest, where.shift);
    if (!entry) return entry.failure();
    if (auto local = parse_local_header(*entry); !local) return local;
    if (!index_.emplace(entry->name, entries_.size()).second)
      return in_entry(entry->name, "stands twice in the archive");
    entries_.push_back(*std::move(entry));
  }
  if (entries_.size() != where.count)
    return error{"the zip directory has another number of entries than it announces"};
  verified_.resize(entries_.size());

  std::vector<const zip_entry*> order;
  for (const zip_entry& entry : entries_) order.push_back(&entry);
  std::sort(order.begin(), order.end(), [](auto* a, auto* b) { return a->header < b->header; });
  std::uint64_t end = 0;
  for (const zip_entry* entry : order) {
    if (entry->header < end) return in_entry(entry->name, "overlaps another entry");
    end = entry->offset + entry->packed;
  }
  if (end > where.offset + where.shift) return error{"a zip entry runs into the directory"};
  return {};
}

// Takes one record off the front of the directory.
outcome<zip_entry> zip_archive::parse_entry(std::span<const std::byte>& rest, std::uint64_t shift) const {
  if (rest.size() < central_bytes || load_u32(rest.data()) != central_signature) {
    return error{"the zip directory is damaged"};
  }
  const std::byte* const p = rest.data();
  const std::uint16_t flags = load_u16(p + 8), method = load_u16(p + 10);
  const std::size_t name_bytes = load_u16(p + 28), extra_bytes = load_u16(p + 30),
                    comment_bytes = load_u16(p + 32);
  if (rest.size() - central_bytes < name_bytes + extra_bytes + comment_bytes)
    return error{"the zip directory is cut off"};
  zip_entry entry;
  entry.name.assign(reinterpret_cast<const char*>(p + central_bytes), name_bytes);
  entry.crc = load_u32(p + 16);
  entry.packed = load_u32(p + 20);
  entry.size = load_u32(p + 24);
  entry.header = load_u32(p + 42);
  entry.deflated = method == method_deflated;

  for (auto extra = rest.subspan(central_bytes + name_bytes, extra_bytes); extra.size() >= 4;) {
    const std::size_t bytes = load_u16(extra.data() + 2);
    if (extra.size() - 4 < bytes) break;
    auto field = extra.subspan(4, bytes);
    if (load_u16(extra.data()) == 1) {
      for (std::uint64_t* value : {&entry.size, &entry.packed, &entry.header}) {
        if (*value != in_zip64_extra) continue;
        if (field.size() < 8) return in_entry(entry.name, "its zip64 field is too short");
        *value = load_u64(field.data());
        field = field.subspan(8);
      }
      break;
    }
    extra = extra.subspan(4 + bytes);
  }
  if (climbs_out(entry.name)) return in_entry(entry.name, "a name that leads out of the archive");
  if (flags & flag_encrypted) return in_entry(entry.name, "is encrypted");
  if (method != method_stored && method != method_deflated) {
    return in_entry(entry.name, "compression method " + std::to_string(method) + " is not supported");
  }
  if (!entry.deflated && entry.packed != entry.size)
    return in_entry(entry.name, "stored, but its two sizes differ");
  // One bit of deflate gives at most 258/2 bytes.
  if (entry.deflated && entry.size / 1032 > entry.packed)
    return in_entry(entry.name, "claims an impossible size");
  if (entry.deflated && entry.size > bomb_bytes && entry.size / bomb_ratio > entry.packed) {
    return in_entry(entry.name, "claims to unpack to " + std::to_string(entry.size) + " bytes from " +
                                    std::to_string(entry.packed));
  }
  if (!add_checked(entry.header, shift, entry.header))
    return in_entry(entry.name, "lies outside of the file");
  rest = rest.subspan(central_bytes + name_bytes + extra_bytes + comment_bytes);
  return entry;
}

// The local header repeats the directory's record. Fills in where the data begins.
outcome<void> zip_archive::parse_local_header(zip_entry& entry) const {
  std::byte p[local_bytes];
  if (!source_.read(entry.header, p) || load_u32(p) != local_signature) {
    return in_entry(entry.name, "there is no entry where the directory says");
  }
  const std::uint16_t flags = load_u16(p + 6), method = load_u16(p + 8);
  std::string name(load_u16(p + 26), '\0');
  if (!source_.read(entry.header + local_bytes, std::as_writable_bytes(std::span(name))) ||
      name != entry.name) {
    return in_entry(entry.name, "its header has another name than the directory");
  }
  if (flags & flag_encrypted) return in_entry(entry.name, "is encrypted");
  const auto differs = [](std::uint32_t stated, std::uint64_t size) {
    return stated != in_zip64_extra && stated != size;
  };
  if (method != (entry.deflated ? method_deflated : method_stored) ||
      (!(flags & flag_sizes_follow) &&
       (differs(load_u32(p + 18), entry.packed) || differs(load_u32(p + 22), entry.size) ||
        load_u32(p + 14) != entry.crc))) {
    return in_entry(entry.name, "its header disagrees with the directory");
  }
  entry.offset = entry.header + local_bytes + name.size() + load_u16(p + 28);
  if (entry.offset > source_.size() || entry.packed > source_.size() - entry.offset) {
    return in_entry(entry.name, "runs past the end of the file");
  }
  return {};
}

const zip_entry* zip_archive::find(std::string_view name) const noexcept {
  const auto found = index_.find(name);
  return found == index_.end() ? nullptr : &entries_[found->second];
}

// Unpacks the first `limit` bytes of an entry, or all when it has less. When all of it is wanted, the stream
// must end there.
outcome<void> zip_archive::inflate(const zip_entry& entry, std::uint64_t limit, const sink& take) const {
  z_stream stream{};
  if (inflateInit2(&stream, -MAX_WBITS) != Z_OK) return error{"out of memory"};
  struct closer {
    z_stream* stream;
    ~closer() { inflateEnd(stream); }
  } close{&stream};

  // No more than is needed: archives of many small entries are opened by a look at the front of each.
  std::vector<std::byte> in(
      static_cast<std::size_t>(std::min<std::uint64_t>(entry.packed, std::size_t{64} << 10)));
  std::vector<std::byte> out(static_cast<std::size_t>(std::clamp<std::uint64_t>(limit, 1, piece)));
  std::uint64_t position = 0, made = 0;
  for (int state = Z_OK; state != Z_STREAM_END;) {
    if (stream.avail_in == 0 && position < entry.packed) {
      const auto bytes =
          static_cast<std::size_t>(std::min<std::uint64_t>(in.size(), entry.packed - position));
      if (auto read = source_.read(entry.offset + position, std::span(in).first(bytes)); !read) return read;
      position += bytes;
      stream.next_in = reinterpret_cast<Bytef*>(in.data());
      stream.avail_in = static_cast<uInt>(bytes);
    }
    stream.next_out = reinterpret_cast<Bytef*>(out.data());
    stream.avail_out = static_cast<uInt>(out.size());
    state = ::inflate(&stream, Z_NO_FLUSH);
    if (state != Z_OK && state != Z_STREAM_END) return in_entry(entry.name, "its compressed data is damaged");
    const std::size_t got = out.size() - stream.avail_out;
    if (got > entry.size - made) return in_entry(entry.name, "unpacks to more than it announces");
    take(std::span(out).first(got));
    made += got;
    if (made >= limit && limit < entry.size) return {};
  }
  if (made != entry.size) return in_entry(entry.name, "unpacks to less than it announces");
  return {};
}

outcome<void> zip_archive::read(const zip_entry& entry, std::uint64_t begin, std::uint64_t count,
                                const sink& take) const {
  if (begin > entry.size || count > entry.size - begin) return in_entry(entry.name, "is too short");
  const auto number = static_cast<std::size_t>(&entry - entries_.data());
  const bool verify = !verified_[number] && entry.crc != 0;
  uLong crc = crc32(0, nullptr, 0);
  std::uint64_t at = verify || entry.deflated ? 0 : begin;
  const std::uint64_t end = verify ? entry.size : begin + count;

  const auto pass = [&](std::span<const std::byte> bytes) {
    if (verify)
      crc = crc32(crc, reinterpret_cast<const Bytef*>(bytes.data()), static_cast<uInt>(bytes.size()));
    const std::uint64_t from = std::clamp(begin, at, at + bytes.size());
    const std::uint64_t to = std::clamp(begin + count, from, at + bytes.size());
    if (to > from)
      take(bytes.subspan(static_cast<std::size_t>(from - at), static_cast<std::size_t>(to - from)));
    at += bytes.size();
  };
  if (entry.deflated) {
    if (auto done = inflate(entry, end, pass); !done) return done;
  } else {
    std::vector<std::byte> buffer(static_cast<std::size_t>(std::min<std::uint64_t>(piece, end - at)));
    while (at < end) {
      const auto bytes =
          std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), end - at)));
      if (auto got = source_.read(entry.offset + at, bytes); !got) return got;
      pass(bytes);
    }
  }
  if (verify && crc != entry.crc)
    return in_entry(entry.name, "its checksum does not match: the file is damaged");
  verified_[number] = true;
  return {};
}

outcome<std::vector<std::byte>> zip_archive::peek(const zip_entry& entry, std::size_t count) const {
  std::vector<std::byte> out;
  const std::uint64_t wanted = std::min<std::uint64_t>(count, entry.size);
  if (entry.deflated) {
    const auto pass = [&](std::span<const std::byte> bytes) {
      const auto take = std::min<std::size_t>(bytes.size(), static_cast<std::size_t>(wanted) - out.size());
      out.insert(out.end(), bytes.begin(), bytes.begin() + static_cast<std::ptrdiff_t>(take));
    };
    if (auto done = inflate(entry, wanted, pass); !done) return done.failure();
  } else {
    out.resize(static_cast<std::size_t>(wanted));
    if (auto got = source_.read(entry.offset, out); !got) return got.failure();
  }
  return out;
}

outcome<std::vector<std::byte>> zip_archive::read_all(const zip_entry& entry, std::uint64_t limit) const {
  if (entry.size > limit) {
    return in_entry(entry.name,
                    "has " + std::to_string(entry.size) + " bytes, the limit is " + std::to_string(limit));
  }
  std::vector<std::byte> out;
  out.reserve(static_cast<std::size_t>(entry.size));
  const auto pass = [&](std::span<const std::byte> bytes) {
    out.insert(out.end(), bytes.begin(), bytes.end());
  };
  if (auto done = read(entry, 0, entry.size, pass); !done) return done.failure();
  return out;
}

}  // namespace ocellus::convert
