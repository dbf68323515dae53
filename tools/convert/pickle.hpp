// A pickle read as data: the part of Python's pickle machine that checkpoints of tensors use, with nothing to
// call.
//
// A pickle is a program for a stack machine that may import and call anything. This reader knows a fixed list
// of opcodes and a fixed list of names; a name outside of the list ends it with a message that gives the
// name. The names on the list are not called either: they stand for building one of the values below. Classes
// of TorchScript archives
// (`__torch__...`) are allowed on request, as plain records of their attributes.
//
// Values lie in tables and refer to each other by number, so that no structure in the file, however deep,
// shared or cyclic, makes this code recurse. Numbers of values are limited by a multiple of what real
// checkpoints need.
#pragma once

#include "checkpoint.hpp"
#include "outcome.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>
#include <vector>

namespace ocellus::convert {

enum class pickle_kind : std::uint8_t {
  none,
  boolean,  // integer
  integer,  // integer
  real,     // real
  text,     // number in texts, UTF-8
  bytes,    // number in texts; also text of Python 2 that is not UTF-8
  big,      // number in texts: an integer of more than 64 bits, little-endian two's complement
  tuple,    // number in sequences
  list,     // number in sequences
  dict,     // number in dicts; also OrderedDict
  global,   // number in globals: a name from the list
  storage,  // number in storages
  tensor,   // number in tensors; also parameters
  object,   // number in objects: an instance of a TorchScript class
  opaque,   // something harmless that we have no use for, as numpy's random state or argparse.Namespace
};

struct pickle_value {
  pickle_kind kind = pickle_kind::none;
  union {
    std::int64_t integer = 0;
    double real;
    std::size_t number;
  };
};

/// The element type of a storage or tensor and its size in bytes, which types that we do not read have too.
struct pickle_element {
  source_dtype type = source_dtype::other;
  std::uint8_t bytes = 1;
};

/// torch's storage: a typed array of its own in the archive.
struct pickle_storage {
  pickle_element element;
  bool untyped = false;  // counted in bytes; the tensor has the type
  std::size_t key = 0;   // number in texts
  std::uint64_t elements = 0;
};

/// A view into a storage. Shape, strides and offset are not negative and of the same rank; nothing else is
/// checked.
struct pickle_tensor {
  std::size_t storage = 0;
  pickle_element element;
  std::int64_t offset = 0;
  std::vector<std::int64_t> shape;
  std::vector<std::int64_t> strides;
};

struct pickle_object {
  std::size_t global = 0;  // its class
  pickle_value state;      // a dict of attributes, or none
};

enum class pickle_role : std::uint8_t;

struct pickle_global {
  std::string name;
  pickle_role role;
  pickle_element element;  // of storages and element types
  bool untyped = false;
};

struct pickle_data {
  std::vector<std::string> texts;
  std::vector<std::vector<pickle_value>> sequences;
  // In file order; a key that comes again replaces the value.
  using dict = std::vector<std::pair<pickle_value, pickle_value>>;

  std::vector<dict> dicts;
  std::vector<pickle_global> globals;
  std::vector<pickle_storage> storages;
  std::vector<pickle_tensor> tensors;
  std::vector<pickle_object> objects;
  pickle_value root;
  std::size_t consumed = 0;  ///< bytes up to and with STOP: torch's old format has several pickles in a row

  bool is_text(const pickle_value& value, std::string_view text) const {
    return value.kind == pickle_kind::text && texts[value.number] == text;
  }
};

/// The greatest pickle read, in bytes. One of a checkpoint of 10,000 tensors with optimizer state has about 5
/// MB.
inline constexpr std::size_t max_pickle_bytes = std::size_t{64} << 20;

/// Reads the pickle at the front of `bytes`. `script_classes` allows the names of TorchScript archives.
outcome<pickle_data> read_pickle(std::span<const std::byte> bytes, bool script_classes = false);

}  // namespace ocellus::convert
