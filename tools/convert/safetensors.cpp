// Reference: the format's README and its Rust implementation (safetensors/src/tensor.rs), whose checks are
// kept.
#include "containers.hpp"
#include "json.hpp"

#include <algorithm>
#include <string>
#include <string_view>
#include <tuple>

namespace ocellus::convert {
namespace {

using nlohmann::json;

struct element_type {
  std::string_view name;
  source_dtype type;
  std::uint64_t bits;
};

constexpr element_type element_types[] = {
    {"F64", source_dtype::f64, 64},          {"F32", source_dtype::f32, 32},      {"F16", source_dtype::f16, 16},
    {"BF16", source_dtype::bf16, 16},        {"I64", source_dtype::i64, 64},      {"I32", source_dtype::i32, 32},
    {"I16", source_dtype::i16, 16},          {"I8", source_dtype::i8, 8},         {"U8", source_dtype::u8, 8},
    {"BOOL", source_dtype::boolean, 8},      {"U64", source_dtype::other, 64},    {"U32", source_dtype::other, 32},
    {"U16", source_dtype::other, 16},        {"C64", source_dtype::other, 64},    {"F8_E4M3", source_dtype::other, 8},
    {"F8_E5M2", source_dtype::other, 8},     {"F8_E8M0", source_dtype::other, 8},
    {"F8_E4M3FNUZ", source_dtype::other, 8}, {"F8_E5M2FNUZ", source_dtype::other, 8},
    {"F6_E2M3", source_dtype::other, 6},     {"F6_E3M2", source_dtype::other, 6}, {"F4", source_dtype::other, 4},
};

constexpr std::uint64_t max_header = 100'000'000;  // as the reference

outcome<json> read_header(const byte_source& source, std::uint64_t& data) {
  std::byte length[8];
  if (!source.read(0, length)) return error{"too short for safetensors"};
  const std::uint64_t bytes = load_u64(length);
  if (bytes > max_header) return error{"its safetensors header claims more than 100 MB"};
  if (bytes > source.size() - sizeof(length)) return cut_off(source.size(), "at least " + std::to_string(bytes + 8));
  std::string text(static_cast<std::size_t>(bytes), '\0');
  if (auto read = source.read(sizeof(length), std::as_writable_bytes(std::span(text))); !read)
    return read.failure();
  if (!text.starts_with('{')) return error{"its safetensors header is no JSON object"};
  data = sizeof(length) + bytes;
  outcome<json> header =
      parse_json(text, {.bytes = max_header, .values = 2'500'000, .depth = 8, .unique_keys = true});
  if (!header) return error{"safetensors header: " + header.failure().what};
  return header;
}

outcome<found_tensor> read_entry(const std::string& name, const json& entry, std::uint64_t data,
                                 std::uint64_t data_bytes) {
  if (!entry.is_object() || !entry.contains("dtype") || !entry.contains("shape") ||
      !entry.contains("data_offsets")) {
    return in_tensor(name, "its header entry lacks dtype, shape or data_offsets");
  }
  const json& type = entry["dtype"];
  const json& shape = entry["shape"];
  const json& offsets = entry["data_offsets"];
  const element_type* element = nullptr;
  for (const element_type& known : element_types) {
    if (type == known.name) element = &known;
  }
  if (element == nullptr) return in_tensor(name, "its dtype is not one of safetensors'");
  if (!offsets.is_array() || offsets.size() != 2 || !offsets[0].is_number_unsigned() ||
      !offsets[1].is_number_unsigned()) {
    return in_tensor(name, "its data_offsets are no pair of offsets");
  }
  const auto begin = offsets[0].get<std::uint64_t>(), end = offsets[1].get<std::uint64_t>();
  if (begin > end || end > data_bytes) return in_tensor(name, "its data_offsets lie outside of the file");

  found_tensor tensor;
  tensor.info.name = name;
  tensor.info.type = element->type;
  if (!shape.is_array()) return in_tensor(name, "its shape is no list");
  for (const json& size : shape) {
    if (!size.is_number_unsigned() || size.get<std::uint64_t>() > INT64_MAX)
      return in_tensor(name, "its shape makes no sense");
    tensor.info.shape.push_back(size.get<std::int64_t>());
  }
  tensor.begin = data + begin;
  if (element->type != source_dtype::other) {
    tensor.element_bytes = static_cast<std::uint8_t>(element->bits / 8);
    if (auto placed = place_tensor(tensor, 0, end - begin); !placed) return placed.failure();
  } else {
    tensor.span = end - begin;  // in bytes: such a tensor is not read, and its elements may be parts of bytes
  }
  std::uint64_t bits = element->bits;
  for (const std::int64_t size : tensor.info.shape) {
    if (!multiply_checked(bits, static_cast<std::uint64_t>(size), bits))
      return in_tensor(name, "its shape overflows");
  }
  if (bits % 8 != 0 || bits / 8 != end - begin)
    return in_tensor(name, "its shape and its data_offsets disagree");
  tensor.info.elements = static_cast<std::int64_t>(bits / element->bits);
  return tensor;
}

}  // namespace

outcome<contents> read_safetensors(const byte_source& source) {
  std::uint64_t data = 0;
  const outcome<json> header = read_header(source, data);
  if (!header) return header.failure();
  if (header->size() > max_tensors) return error{"more than 200,000 tensors"};

  // A broken download is told before what it breaks.
  std::uint64_t needed = 0;
  for (const json& entry : *header) {
    if (!entry.is_object() || !entry.contains("data_offsets")) continue;
    const json& offsets = entry["data_offsets"];
    if (offsets.is_array() && offsets.size() == 2 && offsets[1].is_number_unsigned())
      needed = std::max(needed, offsets[1].get<std::uint64_t>());
  }
  if (needed > source.size() - data && add_checked(needed, data, needed))
    return cut_off(source.size(), std::to_string(needed));

  contents found;
  for (const auto& [name, entry] : header->items()) {
    if (name == "__metadata__") {
      if (!entry.is_object()) return error{"safetensors __metadata__ is no JSON object"};
      for (const auto& [key, value] : entry.items()) {
        if (!value.is_string()) return error{"safetensors __metadata__ holds something that is no text"};
        found.metadata[key] = value.get<std::string>();
      }
      continue;
    }
    outcome<found_tensor> tensor = read_entry(name, entry, data, source.size() - data);
    if (!tensor) return tensor.failure();
    found.tensors.push_back(*std::move(tensor));
  }

  // In the order of the data, which is the order that the file's writer gave them, and gapless.
  const auto end_of = [](const found_tensor& t) { return t.begin + t.span * t.element_bytes; };
  const auto key = [&](const found_tensor& t) {
    return std::tuple(t.begin, end_of(t), std::string_view(t.info.name));
  };
  std::sort(found.tensors.begin(), found.tensors.end(),
            [&](const found_tensor& a, const found_tensor& b) { return key(a) < key(b); });
  std::uint64_t end = data;
  for (const found_tensor& tensor : found.tensors) {
    if (tensor.begin != end) {
      return in_tensor(tensor.info.name, "its data leaves a hole or overlaps another's");
    }
    end = end_of(tensor);
  }
  if (end != source.size()) return error{"safetensors: bytes after the last tensor"};
  return found;
}

}  // namespace ocellus::convert
