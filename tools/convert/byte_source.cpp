#include "byte_source.hpp"

#include <fcntl.h>
#include <sys/stat.h>
#if defined(_WIN32)
#include <io.h>
#include <windows.h>
#else
#include <unistd.h>
#endif

#include <algorithm>
#include <bit>
#include <cerrno>
#include <cstring>

namespace ocellus::convert {

namespace {

#if defined(_WIN32)

using file_facts = struct _stat64;

int open_file(const std::filesystem::path& path) {
  return ::_wopen(path.c_str(), _O_RDONLY | _O_BINARY | _O_NOINHERIT);
}
int close_file(int file) { return ::_close(file); }
int facts_of(int file, file_facts* facts) { return ::_fstat64(file, facts); }

/// pread, which Windows has for handles.
std::ptrdiff_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) {
  OVERLAPPED at = {};
  at.Offset = static_cast<DWORD>(offset);
  at.OffsetHigh = static_cast<DWORD>(offset >> 32);
  DWORD got = 0;
  const auto handle = reinterpret_cast<HANDLE>(::_get_osfhandle(file));
  if (ReadFile(handle, to, static_cast<DWORD>(bytes), &got, &at) != 0 || GetLastError() == ERROR_HANDLE_EOF) return got;
  errno = EIO;
  return -1;
}

#else

using file_facts = struct stat;

int open_file(const std::filesystem::path& path) {
  // O_NONBLOCK: opening a named pipe must not wait for somebody to write into it.
  return ::open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
}
int close_file(int file) { return ::close(file); }
int facts_of(int file, file_facts* facts) { return ::fstat(file, facts); }

std::ptrdiff_t read_at(int file, void* to, std::size_t bytes, std::uint64_t offset) {
  return ::pread(file, to, bytes, static_cast<off_t>(offset));
}

#endif

}  // namespace

outcome<byte_source> byte_source::open(const std::filesystem::path& path) {
  const int descriptor = open_file(path);
  if (descriptor < 0) return error{std::strerror(errno)};
  const std::shared_ptr<const int> file(new int(descriptor), [](const int* d) {
    close_file(*d);
    delete d;
  });
  file_facts facts = {};
  if (facts_of(descriptor, &facts) != 0) return error{std::strerror(errno)};
  if (!S_ISREG(facts.st_mode)) return error{"not a regular file"};
  return byte_source(file, static_cast<std::uint64_t>(facts.st_size));
}

outcome<void> byte_source::read(std::uint64_t offset, std::span<std::byte> out) const {
  if (offset > size_ || out.size() > size_ - offset) return error{"the file ends too early"};
  if (memory_ != nullptr) {
    std::copy_n(memory_ + offset, out.size(), out.data());
    return {};
  }
  while (!out.empty()) {
    const std::ptrdiff_t got = read_at(*file_, out.data(), std::min<std::size_t>(out.size(), 1 << 30), offset);
    if (got < 0 && errno == EINTR) continue;
    if (got < 0) return error{std::string("reading failed: ") + std::strerror(errno)};
    if (got == 0) return error{"the file became shorter while it was read"};
    out = out.subspan(static_cast<std::size_t>(got));
    offset += static_cast<std::uint64_t>(got);
  }
  return {};
}

bool is_utf8(std::string_view text) noexcept {
  for (std::size_t i = 0; i < text.size();) {
    const auto lead = static_cast<unsigned char>(text[i]);
    if (lead < 0x80) {
      ++i;
      continue;
    }
    const std::size_t length = lead >= 0xf0 ? 4 : lead >= 0xe0 ? 3 : 2;
    if (lead < 0xc2 || lead > 0xf4 || text.size() - i < length) return false;
    std::uint32_t code = lead & (0xffu >> (length + 1));
    for (std::size_t k = 1; k < length; ++k) {
      const auto next = static_cast<unsigned char>(text[i + k]);
      if ((next & 0xc0) != 0x80) return false;
      code = code << 6 | (next & 0x3f);
    }
    constexpr std::uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (code < smallest[length] || code > 0x10ffff || (code >= 0xd800 && code < 0xe000)) return false;
    i += length;
  }
  return true;
}

namespace {

// The first 32 bits of the fractional parts of the cube roots of the first 64 primes (FIPS 180-4, 4.2.2).
constexpr std::uint32_t round_constants[64] = {
    0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
    0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
    0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
    0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
    0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
    0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
    0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
    0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2};

}  // namespace

void sha256::block(const std::byte* data) noexcept {
  std::uint32_t w[64];
  for (std::size_t i = 0; i < 16; ++i) {
    w[i] = __builtin_bswap32(load_u32(data + 4 * i));
  }
  for (std::size_t i = 16; i < 64; ++i) {
    const std::uint32_t s0 = std::rotr(w[i - 15], 7) ^ std::rotr(w[i - 15], 18) ^ (w[i - 15] >> 3);
    const std::uint32_t s1 = std::rotr(w[i - 2], 17) ^ std::rotr(w[i - 2], 19) ^ (w[i - 2] >> 10);
    w[i] = w[i - 16] + s0 + w[i - 7] + s1;
  }
  auto [a, b, c, d, e, f, g, h] = state_;
  for (std::size_t i = 0; i < 64; ++i) {
    const std::uint32_t t1 = h + (std::rotr(e, 6) ^ std::rotr(e, 11) ^ std::rotr(e, 25)) +
                             ((e & f) ^ (~e & g)) + round_constants[i] + w[i];
    const std::uint32_t t2 =
        (std::rotr(a, 2) ^ std::rotr(a, 13) ^ std::rotr(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
    h = g;
    g = f;
    f = e;
    e = d + t1;
    d = c;
    c = b;
    b = a;
    a = t1 + t2;
  }
  const std::uint32_t sum[8] = {a, b, c, d, e, f, g, h};
  for (std::size_t i = 0; i < 8; ++i) state_[i] += sum[i];
}

void sha256::add(std::span<const std::byte> bytes) noexcept {
  std::size_t filled = count_ % 64;
  count_ += bytes.size();
  if (filled > 0) {
    const std::size_t take = std::min(64 - filled, bytes.size());
    std::copy_n(bytes.data(), take, pending_.data() + filled);
    filled += take;
    bytes = bytes.subspan(take);
    if (filled < 64) return;
    block(pending_.data());
  }
  for (; bytes.size() >= 64; bytes = bytes.subspan(64)) block(bytes.data());
  std::copy_n(bytes.data(), bytes.size(), pending_.data());
}

std::string sha256::finish() {
  const std::uint64_t bits = count_ * 8;
  constexpr std::byte padding[64] = {std::byte{0x80}};
  const std::size_t filled = count_ % 64;
  add(std::span(padding).first(filled < 56 ? 56 - filled : 120 - filled));
  std::byte length[8];
  for (int i = 0; i < 8; ++i) length[i] = static_cast<std::byte>(bits >> (56 - 8 * i));
  add(length);
  std::string text;
  for (const std::uint32_t word : state_) {
    for (int shift = 28; shift >= 0; shift -= 4) text += "0123456789abcdef"[word >> shift & 15];
  }
  return text;
}

}  // namespace ocellus::convert
