// A growable array of trivially copyable elements that never throws: the scratch memory of the text code.
//
// Why not std::vector: its failure to allocate throws or aborts, and the library does neither. A text_buffer
// that could not grow remembers it (`failed()`), drops further elements, and the call that used it returns
// status::out_of_memory.
#pragma once

#include <ocellus/config.hpp>

#include <cstddef>
#include <cstdlib>
#include <cstring>
#include <span>
#include <type_traits>
#include <utility>

OCELLUS_BEGIN

/// Growable array of T. All operations are safe after a failed allocation; test `failed()` once at the end.
template <class T>
class text_buffer {
  static_assert(std::is_trivially_copyable_v<T>, "text_buffer moves its elements with memcpy");

 public:
  text_buffer() noexcept = default;
  text_buffer(const text_buffer&) = delete;
  text_buffer& operator=(const text_buffer&) = delete;
  text_buffer(text_buffer&& other) noexcept { swap(other); }
  text_buffer& operator=(text_buffer&& other) noexcept {
    swap(other);
    return *this;
  }
  ~text_buffer() { std::free(data_); }

  bool failed() const noexcept { return failed_; }
  /// Marks the buffer as failed, e.g. because another one that was to fill it has failed.
  void fail() noexcept { failed_ = true; }
  bool empty() const noexcept { return size_ == 0; }
  std::size_t size() const noexcept { return size_; }
  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  T& back() noexcept { return data_[size_ - 1]; }
  const T& back() const noexcept { return data_[size_ - 1]; }
  std::span<const T> span() const noexcept { return {data_, size_}; }

  void clear() noexcept { size_ = 0; }
  void pop_back() noexcept { --size_; }
  /// Shortens to n elements; n must not exceed size().
  void truncate(std::size_t n) noexcept { size_ = n; }

  /// Makes room for n elements in all; false if memory is short.
  bool reserve(std::size_t n) noexcept {
    if (n <= capacity_) return true;
    std::size_t wanted = capacity_ < 32 ? 64 : capacity_ * 2;
    if (wanted < n) wanted = n;
    if (failed_ || wanted > max_elements) {
      failed_ = true;
      return false;
    }
    void* grown = std::realloc(static_cast<void*>(data_), wanted * sizeof(T));
    if (grown == nullptr) {
      failed_ = true;
      return false;
    }
    data_ = static_cast<T*>(grown);
    capacity_ = wanted;
    return true;
  }

  void push_back(T value) noexcept {
    if (size_ == capacity_ && !reserve(size_ + 1)) return;
    data_[size_++] = value;
  }

  /// Appends n elements from `from`, which must not lie in this buffer.
  void append(const T* from, std::size_t n) noexcept {
    if (n == 0 || n > max_elements || !reserve(size_ + n)) return;
    std::memcpy(static_cast<void*>(data_ + size_), from, n * sizeof(T));
    size_ += n;
  }

  /// Sets the size to n; elements beyond the old size are `value`. False if memory is short.
  bool resize(std::size_t n, T value = T{}) noexcept {
    if (!reserve(n)) return false;
    for (std::size_t i = size_; i < n; ++i) data_[i] = value;
    size_ = n;
    return true;
  }

  /// Exchanges the elements. A failure of either counts for both, since one was to be made from the other.
  void swap(text_buffer& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    std::swap(capacity_, other.capacity_);
    failed_ = other.failed_ = failed_ || other.failed_;
  }

 private:
  static constexpr std::size_t max_elements = (static_cast<std::size_t>(-1) >> 2) / sizeof(T);

  T* data_ = nullptr;
  std::size_t size_ = 0;
  std::size_t capacity_ = 0;
  bool failed_ = false;
};

/// Text as Unicode code points.
using text32 = text_buffer<char32_t>;

OCELLUS_END
