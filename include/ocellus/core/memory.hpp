// Memory from the heap without exceptions: 64-byte aligned blocks of trivial elements, null when there is none.
#pragma once

#include <ocellus/core/status.hpp>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <type_traits>
#include <utility>
#if defined(_WIN32)
#include <malloc.h>
#endif

OCELLUS_BEGIN

namespace detail {

/// `bytes`, a multiple of 64, aligned to 64; null when there are none. Given back by free_aligned.
inline void* allocate_aligned(std::size_t bytes) noexcept {
#if defined(_WIN32)  // its C library has no aligned_alloc, for its free cannot tell such blocks
  return _aligned_malloc(bytes, 64);
#else
  return std::aligned_alloc(64, bytes);
#endif
}

inline void free_aligned(void* block) noexcept {
#if defined(_WIN32)
  _aligned_free(block);
#else
  std::free(block);
#endif
}

}  // namespace detail

/// An owning block of `size` elements, aligned to 64 bytes, zeroed when made. Move-only.
template <class T>
class array {
  static_assert(std::is_trivially_destructible_v<T> && std::is_trivially_copyable_v<T>);

 public:
  array() = default;
  array(array&& other) noexcept : data_(std::exchange(other.data_, nullptr)), size_(std::exchange(other.size_, 0)) {}
  array& operator=(array&& other) noexcept {
    std::swap(data_, other.data_);
    std::swap(size_, other.size_);
    return *this;
  }
  ~array() { detail::free_aligned(data_); }

  /// Errors: out_of_memory.
  static result<array> make(std::size_t size) noexcept {
    constexpr auto most = static_cast<std::size_t>(sizeof(std::size_t) > 4 ? std::uint64_t{1} << 46 : 0x7fffffc0u);
    if (size > most / sizeof(T)) return status::out_of_memory;
    array a;
    const std::size_t bytes = (size * sizeof(T) + 63) / 64 * 64;
    a.data_ = static_cast<T*>(detail::allocate_aligned(bytes == 0 ? 64 : bytes));
    if (a.data_ == nullptr) return status::out_of_memory;
    std::memset(static_cast<void*>(a.data_), 0, bytes);
    a.size_ = size;
    return a;
  }

  T* data() noexcept { return data_; }
  const T* data() const noexcept { return data_; }
  std::size_t size() const noexcept { return size_; }
  T& operator[](std::size_t i) noexcept { return data_[i]; }
  const T& operator[](std::size_t i) const noexcept { return data_[i]; }
  T* begin() noexcept { return data_; }
  T* end() noexcept { return data_ + size_; }
  const T* begin() const noexcept { return data_; }
  const T* end() const noexcept { return data_ + size_; }

 private:
  T* data_ = nullptr;
  std::size_t size_ = 0;
};

OCELLUS_END
