// A file mapped read-only. POSIX; elsewhere read the file yourself and open it from a buffer.
#pragma once

#include <ocellus/core/status.hpp>

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstddef>
#include <span>
#include <utility>

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

  /// file_not_found, cannot_read, not_a_regular_file, empty_file.
  static result<mapped_file> open(const char* path) noexcept {
    const int fd = ::open(path, O_RDONLY | O_CLOEXEC);
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
        s = status::cannot_read;
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
  }

  std::span<const std::byte> bytes() const noexcept {
    return {static_cast<const std::byte*>(data_), data_ ? size_ : 0};
  }

 private:
  void close() noexcept {
    if (data_ != nullptr) munmap(data_, size_);
    data_ = nullptr;
  }
  void* data_ = nullptr;
  std::size_t size_ = 0;
};

OCELLUS_END
