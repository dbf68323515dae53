// How the converter's functions say what went wrong: outcome<T> holds a T, or an error with one line for a
// person.
//
//   outcome<checkpoint> file = checkpoint::open(path);
//   if (!file) return file.failure();
//   for (const tensor_info& t : file->tensors()) ...
//
// The library under include/ reports statuses without strings; the converter reads files that strangers made
// and has to say which tensor, which shape and which offset is wrong, so its errors are text. The text is
// always one line of printable ASCII: whatever comes from a file goes through printable().
#pragma once

#include <cstddef>
#include <string>
#include <string_view>
#include <utility>
#include <variant>

namespace ocellus::convert {

/// Why there is no result: one line, no full stop, no file name (the caller knows which file it opened).
struct error {
  std::string what;
};

/// A T or an error. Dereference only after testing it.
template <class T>
class [[nodiscard]] outcome {
 public:
  outcome(T value) : state_(std::in_place_index<0>, std::move(value)) {}  // NOLINT: implicit by design
  outcome(error why) : state_(std::in_place_index<1>, std::move(why)) {}  // NOLINT

  explicit operator bool() const noexcept { return state_.index() == 0; }

  T& operator*() & { return std::get<0>(state_); }
  const T& operator*() const& { return std::get<0>(state_); }
  T&& operator*() && { return std::get<0>(std::move(state_)); }
  T* operator->() { return &std::get<0>(state_); }
  const T* operator->() const { return &std::get<0>(state_); }

  /// The error; call only when there is no value.
  const error& failure() const { return std::get<1>(state_); }

 private:
  std::variant<T, error> state_;
};

/// Success without a value, or an error: `outcome<void> f() { ...; return {}; }`
template <>
class [[nodiscard]] outcome<void> {
 public:
  outcome() = default;
  outcome(error why) : why_(std::move(why)), failed_(true) {}  // NOLINT: implicit by design

  explicit operator bool() const noexcept { return !failed_; }
  const error& failure() const { return why_; }

 private:
  error why_;
  bool failed_ = false;
};

/// Text from a file, fit for a message: bytes outside of printable ASCII become \xNN, and the middle of more
/// than `limit` bytes becomes "...".
inline std::string printable(std::string_view text, std::size_t limit = 100) {
  constexpr char hex[] = "0123456789abcdef";
  std::string out;
  const auto add = [&](std::string_view part) {
    for (const char c : part) {
      const auto byte = static_cast<unsigned char>(c);
      if (byte >= 0x20 && byte < 0x7f) {
        out += c;
      } else {
        out += {'\\', 'x', hex[byte >> 4], hex[byte & 15]};
      }
    }
  };
  if (text.size() <= limit) {
    add(text);
  } else {
    add(text.substr(0, limit / 2));
    out += "...";
    add(text.substr(text.size() - limit / 2));
  }
  return out;
}

inline std::string in_quotes(std::string_view text) {
  std::string out = "\"";
  out += printable(text, 60);
  return out += '"';
}

}  // namespace ocellus::convert
