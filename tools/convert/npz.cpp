// Reference: numpy/lib/format.py (NEP 1), versions 1.0, 2.0 and 3.0.
#include "containers.hpp"

#include <charconv>
#include <string>
#include <string_view>

namespace ocellus::convert {
namespace {

constexpr std::size_t max_header = 10'000;  // numpy's own default limit

/// The header's three fields.
struct array_header {
  std::string descr;
  bool fortran_order = false;
  std::vector<std::int64_t> shape;
};

// Reads the header, which is a Python dict: {'descr': '<f4', 'fortran_order': False, 'shape': (2, 3), }
class header_parser {
 public:
  explicit header_parser(std::string_view text) : rest_(text) {}

  bool parse(array_header& out) {
    bool descr = false, order = false, shape = false;
    if (!eat('{')) return false;
    while (!eat('}')) {
      std::string key;
      if (!quoted(key) || !eat(':')) return false;
      if (key == "descr" && !descr) {
        descr = quoted(out.descr);
        if (!descr) return false;
      } else if (key == "fortran_order" && !order) {
        order = truth(out.fortran_order);
        if (!order) return false;
      } else if (key == "shape" && !shape) {
        shape = tuple(out.shape);
        if (!shape) return false;
      } else {
        return false;
      }
      if (!eat(',')) return eat('}') && at_end() && descr && order && shape;
    }
    return at_end() && descr && order && shape;
  }

 private:
  void skip_blanks() {
    while (!rest_.empty() && (rest_[0] == ' ' || rest_[0] == '\n' || rest_[0] == '\t'))
      rest_.remove_prefix(1);
  }
  bool at_end() {
    skip_blanks();
    return rest_.empty();
  }
  bool eat(char c) {
    skip_blanks();
    if (!rest_.starts_with(c)) return false;
    rest_.remove_prefix(1);
    return true;
  }
  bool quoted(std::string& out) {
    const char quote = eat('\'') ? '\'' : eat('"') ? '"' : '\0';
    if (quote == '\0') return false;
    const std::size_t end = rest_.find(quote);
    if (end == rest_.npos || rest_.substr(0, end).find('\\') != rest_.npos) return false;
    out = rest_.substr(0, end);
    rest_.remove_prefix(end + 1);
    return true;
  }
  bool truth(bool& out) {
    skip_blanks();
    for (const std::string_view word : {"True", "False"}) {
      if (!rest_.starts_with(word)) continue;
      out = word == "True";
      rest_.remove_prefix(word.size());
      return true;
    }
    return false;
  }
  bool number(std::int64_t& out) {
    skip_blanks();
    const auto [end, problem] = std::from_chars(rest_.data(), rest_.data() + rest_.size(), out);
    if (problem != std::errc{} || out < 0) return false;
    rest_.remove_prefix(static_cast<std::size_t>(end - rest_.data()));
    if (rest_.starts_with('L')) rest_.remove_prefix(1);  // Python 2's long
    return true;
  }
  bool tuple(std::vector<std::int64_t>& out) {
    if (!eat('(')) return false;
    bool comma = true;  // "(3)" is a number in brackets
    while (!eat(')')) {
      std::int64_t size = 0;
      if (!(comma || out.empty()) || !number(size)) return false;
      out.push_back(size);
      comma = eat(',');
      if (!comma && out.size() == 1) return false;
    }
    return true;
  }

  std::string_view rest_;
};

// '<f4' and its like. Text and dates are types that we do not read; objects and records are refused.
bool parse_descr(std::string_view descr, found_tensor& tensor) {
  if (descr.size() < 3 || std::string_view("<>|=").find(descr[0]) == std::string_view::npos) return false;
  const char letter = descr[1];
  unsigned bytes = 0;
  const char* const last = descr.data() + descr.size();
  const auto [end, problem] = std::from_chars(descr.data() + 2, last, bytes);
  if (problem != std::errc{} || end != last || bytes == 0 || bytes > 255) return false;
  tensor.big_endian = descr[0] == '>';
  tensor.element_bytes = static_cast<std::uint8_t>(bytes);
  const auto is = [&](char l, unsigned b) { return letter == l && bytes == b; };
  source_dtype& type = tensor.info.type;
  if (is('f', 8)) return type = source_dtype::f64, true;
  if (is('f', 4)) return type = source_dtype::f32, true;
  if (is('f', 2)) return type = source_dtype::f16, true;
  if (is('V', 2))
    return type = source_dtype::bf16, true;  // bfloat16 is no type of NumPy's; big_vision's arrays come so
  if (is('i', 8)) return type = source_dtype::i64, true;
  if (is('i', 4)) return type = source_dtype::i32, true;
  if (is('i', 2)) return type = source_dtype::i16, true;
  if (is('i', 1)) return type = source_dtype::i8, true;
  if (is('u', 1)) return type = source_dtype::u8, true;
  if (is('b', 1)) return type = source_dtype::boolean, true;
  type = source_dtype::other;
  if (letter == 'U' && bytes <= 63) return tensor.element_bytes = static_cast<std::uint8_t>(4 * bytes), true;
  return is('f', 16) || is('c', 8) || is('c', 16) || is('u', 2) || is('u', 4) || is('u', 8) || letter == 'S';
}

outcome<found_tensor> read_array(const zip_archive& archive, const zip_entry& entry, std::string_view name) {
  const outcome<std::vector<std::byte>> front = archive.peek(entry, 12 + max_header);
  if (!front) return front.failure();
  const std::string_view text(reinterpret_cast<const char*>(front->data()), front->size());
  if (text.size() < 12 || !text.starts_with("\x93NUMPY")) return in_tensor(name, "is no .npy array");
  const int version = text[6];
  if (version < 1 || version > 3 || text[7] != 0) {
    return in_tensor(name, ".npy version " + std::to_string(version) + " is not known");
  }
  const std::size_t begin = version == 1 ? 10 : 12;
  const std::size_t length = version == 1 ? load_u16(front->data() + 8) : load_u32(front->data() + 8);
  if (length > max_header)
    return in_tensor(name, "its .npy header claims " + std::to_string(length) + " bytes");
  if (length > text.size() - begin) return in_tensor(name, "its .npy header is cut off");

  array_header header;
  found_tensor tensor;
  if (!header_parser(text.substr(begin, length)).parse(header))
    return in_tensor(name, "its .npy header makes no sense");
  if (!parse_descr(header.descr, tensor)) {
    return in_tensor(name, "an array of " + printable(header.descr) + " is not supported");
  }
  tensor.info.name = name;
  tensor.info.shape = std::move(header.shape);
  tensor.entry = static_cast<std::size_t>(&entry - archive.entries().data());
  tensor.begin = begin + length;
  if (header.fortran_order) {
    tensor.strides.resize(tensor.info.shape.size());
    std::uint64_t stride = 1;
    for (std::size_t axis = 0; axis < tensor.strides.size(); ++axis) {
      tensor.strides[axis] = static_cast<std::int64_t>(stride);
      if (!multiply_checked(stride, static_cast<std::uint64_t>(tensor.info.shape[axis]), stride) ||
          stride > INT64_MAX) {
        return in_tensor(name, "its shape overflows");
      }
    }
  }
  const std::uint64_t bytes = entry.size - tensor.begin;
  if (auto placed = place_tensor(tensor, 0, bytes); !placed) return placed.failure();
  if (static_cast<std::uint64_t>(tensor.info.elements) * tensor.element_bytes != bytes) {
    return in_tensor(name, "has more bytes than its shape");
  }
  return tensor;
}

}  // namespace

outcome<contents> read_npz(const zip_archive& archive) {
  contents found;
  found.kind = container::npz;
  if (archive.entries().size() > max_tensors) return error{"more than 200,000 arrays"};
  for (const zip_entry& entry : archive.entries()) {
    const std::string_view name = entry.name;
    if (!name.ends_with(".npy")) {
      if (found.notes.size() < 8) found.notes.push_back("ignored, no .npy array: " + printable(name));
      continue;
    }
    outcome<found_tensor> tensor = read_array(archive, entry, name.substr(0, name.size() - 4));
    if (!tensor) return tensor.failure();
    found.tensors.push_back(*std::move(tensor));
  }
  return found;
}

}  // namespace ocellus::convert
