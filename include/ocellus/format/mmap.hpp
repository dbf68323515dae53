// A file mapped read-only, on POSIX and Windows; elsewhere read the file yourself and open it from a buffer.
#pragma once

#include <ocellus/core/status.hpp>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <ocellus/core/windows.hpp>
#include <sys/stat.h>
#else
#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#endif

OCELLUS_BEGIN

class mapped_file {
 public:
  mapped_file() = default;
  mapped_file(mapped_file&& other) noexcept
      : data_(std::exchange(other.data_, nullptr)), size_(other.size_) {}
  mapped_file& operator=(mapped_file&& other) noexcept {
    if (this != &other) {
      close();
      data_ = std::exchange(other.data_, nullptr);
      size_ = other.size_;
    }
    return *this;
  }
  ~mapped_file() { close(); }

  /// `path` as fopen takes it: on Windows in the program's code page, which a manifest can make UTF-8.
  /// Errors: file_not_found, cannot_read, not_a_regular_file, empty_file, out_of_memory (no room for the mapping in the
  /// address space, as under ulimit -v).
  static result<mapped_file> open(const char* path) noexcept {
#if defined(_WIN32)
    struct _stat64 st = {};
    if (::_stat64(path, &st) != 0) return errno == ENOENT ? status::file_not_found : status::cannot_read;
    if ((st.st_mode & _S_IFMT) != _S_IFREG) return status::not_a_regular_file;
    if (st.st_size == 0) return status::empty_file;
    const int fd = ::_open(path, _O_RDONLY | _O_BINARY | _O_NOINHERIT);
    if (fd < 0) return status::cannot_read;
    mapped_file f;
    constexpr unsigned long read_only = 2, map_read = 4;  // PAGE_READONLY, FILE_MAP_READ
    void* const file = reinterpret_cast<void*>(::_get_osfhandle(fd));
    if (void* const mapping = CreateFileMappingA(file, nullptr, read_only, 0, 0, nullptr); mapping != nullptr) {
      f.data_ = MapViewOfFile(mapping, map_read, 0, 0, 0);  // stays when the handles are closed
      f.size_ = static_cast<std::size_t>(st.st_size);
      CloseHandle(mapping);
    }
    ::_close(fd);
    if (f.data_ == nullptr) return status::cannot_read;
    return f;
#else
    int fd = ::open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);  // a pipe without a writer would wait for one
    if (fd < 0 && errno == EWOULDBLOCK) fd = ::open(path, O_RDONLY | O_CLOEXEC);  // a lease, which its holder gives up
    if (fd < 0) return errno == ENOENT || errno == ENOTDIR ? status::file_not_found : status::cannot_read;
    struct stat st = {};
    status s = status::ok;
    if (fstat(fd, &st) != 0) s = status::cannot_read;
    else if (!S_ISREG(st.st_mode)) s = status::not_a_regular_file;
    else if (st.st_size == 0) s = status::empty_file;
    mapped_file f;
    if (s == status::ok) {
      f.size_ = static_cast<std::size_t>(st.st_size);
      void* p = mmap(nullptr, f.size_, PROT_READ, MAP_PRIVATE, fd, 0);
      if (p == MAP_FAILED) {
        s = errno == ENOMEM ? status::out_of_memory : status::cannot_read;
      } else {
        f.data_ = p;
#if defined(MADV_HUGEPAGE)
        // A wish: pages that have to be read come in as huge ones where the system can; else nothing happens.
        madvise(p, f.size_, MADV_HUGEPAGE);
#endif
      }
    }
    ::close(fd);
    if (s != status::ok) return s;
    return f;
#endif
  }

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(data_), data_ ? size_ : 0};
  }

 private:
  void close() noexcept {
#if defined(_WIN32)
    if (data_ != nullptr) UnmapViewOfFile(data_);
#else
    if (data_ != nullptr) munmap(data_, size_);
#endif
    data_ = nullptr;
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

OCELLUS_END
