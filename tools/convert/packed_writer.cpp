#include "packed_writer.hpp"

#include <algorithm>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <system_error>
#include <unistd.h>

namespace ocellus::convert {

using namespace ocellus;

namespace {

error system_error(const char* what) { return {std::string(what) + ": " + std::strerror(errno)}; }

}  // namespace

packed_writer::~packed_writer() {
  if (file_ != nullptr) std::fclose(file_);
  std::error_code ignored;
  if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
}

outcome<void> packed_writer::open(const std::filesystem::path& path) {
  path_ = path;
  temporary_ = path;
  temporary_ += ".tmp" + std::to_string(::getpid());
  file_ = std::fopen(temporary_.c_str(), "wbx");
  if (file_ == nullptr) {
    const error why = system_error("cannot create the file");
    temporary_.clear();
    return why;
  }
  const format::file_header empty = {};
  return append(&empty, sizeof(empty));
}

outcome<void> packed_writer::append(const void* data, std::size_t bytes) {
  if (bytes != 0 && std::fwrite(data, 1, bytes, file_) != bytes) return system_error("cannot write");
  offset_ += bytes;
  return {};
}

outcome<void> packed_writer::align() {
  const char zeros[format::alignment] = {};
  return append(zeros, static_cast<std::size_t>((format::alignment - offset_ % format::alignment) % format::alignment));
}

outcome<void> packed_writer::add_tensor(format::tensor_header header, const void* data, std::span<const float> scales,
                                        std::span<const std::int32_t> sums) {
  format::checksum sum;
  if (auto done = align(); !done) return done;
  header.offset = offset_;
  sum.add(static_cast<const unsigned char*>(data), header.bytes);
  if (auto done = append(data, header.bytes); !done) return done;
  if (!scales.empty()) {
    if (auto done = align(); !done) return done;
    header.scales = offset_;
    sum.add(reinterpret_cast<const unsigned char*>(scales.data()), scales.size_bytes());
    if (auto done = append(scales.data(), scales.size_bytes()); !done) return done;
  }
  if (!sums.empty()) {
    if (auto done = align(); !done) return done;
    header.sums = offset_;
    sum.add(reinterpret_cast<const unsigned char*>(sums.data()), sums.size_bytes());
    if (auto done = append(sums.data(), sums.size_bytes()); !done) return done;
  }
  header.checksum = sum.state;
  if (!tensors_.emplace(header.name, header).second) return error{std::string("tensor written twice: ") + header.name};
  return {};
}

namespace {

outcome<format::tensor_header> header_of(std::string_view name, dtype type, format::layout how,
                                         std::span<const std::uint32_t> shape) {
  format::tensor_header h = {};
  if (name.empty() || name.size() >= sizeof(h.name)) return error{"tensor name too long: " + printable(name)};
  std::memcpy(h.name, name.data(), name.size());
  h.type = static_cast<std::uint8_t>(type);
  h.layout = static_cast<std::uint8_t>(how);
  h.rank = static_cast<std::uint8_t>(shape.size());
  for (std::size_t i = 0; i < shape.size(); i++) h.dims[i] = shape[i];
  h.bytes = format::stored_bytes(type, how, h.dims, h.rank);
  return h;
}

std::int8_t to_s8(float x, float inverse) {
  return static_cast<std::int8_t>(std::clamp(std::nearbyint(x * inverse), -127.f, 127.f));
}

}  // namespace

outcome<void> packed_writer::add_rows(std::string_view name, dtype type, std::span<const std::uint32_t> shape,
                                      const void* data, std::span<const float> scales) {
  auto header = header_of(name, type, format::layout::rows, shape);
  if (!header) return header.failure();
  return add_tensor(*header, data, scales, {});
}

outcome<void> packed_writer::add_f32(std::string_view name, std::span<const std::uint32_t> shape,
                                     std::span<const float> data) {
  return add_rows(name, dtype::f32, shape, data.data());
}

outcome<void> packed_writer::add_matrix(std::string_view name, dtype type, int n, int k, const float* w,
                                        std::span<const float> scales) {
  const std::uint32_t shape[] = {static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(k)};
  auto header = header_of(name, type, format::layout::panel16, shape);
  if (!header) return header.failure();
  std::vector<unsigned char> packed(header->bytes);
  std::vector<float> row_scales;
  std::vector<std::int32_t> sums;
  switch (type) {
    case dtype::f32:
      pack_panels<dtype::f32>(reinterpret_cast<float*>(packed.data()), w, k, n, k, [](float x) { return x; });
      break;
    case dtype::f16:
      pack_panels<dtype::f16>(reinterpret_cast<f16*>(packed.data()), w, k, n, k, [](float x) { return to_f16(x); });
      break;
    case dtype::bf16:
      pack_panels<dtype::bf16>(reinterpret_cast<bf16*>(packed.data()), w, k, n, k, [](float x) { return to_bf16(x); });
      break;
    case dtype::s8: {
      row_scales.assign(scales.begin(), scales.end());
      if (row_scales.empty()) {
        row_scales.resize(static_cast<std::size_t>(n));
        for (int i = 0; i < n; i++) {
          float most = 0;
          for (int j = 0; j < k; j++) most = std::max(most, std::fabs(w[static_cast<std::ptrdiff_t>(i) * k + j]));
          row_scales[static_cast<std::size_t>(i)] = most / 127.f;
        }
      }
      sums.assign(static_cast<std::size_t>(n), 0);
      auto* out = reinterpret_cast<std::int8_t*>(packed.data());
      for (int i = 0; i < n; i++) {
        const float scale = row_scales[static_cast<std::size_t>(i)], inverse = scale > 0 ? 1.f / scale : 0.f;
        for (int j = 0; j < k; j++) {
          const std::int8_t q = to_s8(w[static_cast<std::ptrdiff_t>(i) * k + j], inverse);
          out[packed_index(dtype::s8, i, j, k)] = q;
          sums[static_cast<std::size_t>(i)] += q;
        }
      }
      break;
    }
    default: return error{"matrices are f32, f16, bf16 or s8"};
  }
  return add_tensor(*header, packed.data(), row_scales, sums);
}

void packed_writer::add_section(format::section kind, std::span<const std::byte> bytes, bool required) {
  sections_[static_cast<std::uint32_t>(kind)] = {{bytes.begin(), bytes.end()}, required};
}

outcome<void> packed_writer::finish(std::uint64_t embedding_space) {
  const std::uint64_t data_end = offset_;
  std::vector<format::tensor_header> table;
  for (const auto& [name, header] : tensors_) table.push_back(header);  // std::map: sorted by name, as readers search
  add_section(format::section::tensor_table, std::as_bytes(std::span(table)), true);
  std::vector<format::section_header> headers;
  format::section_header data = {};
  data.kind = static_cast<std::uint32_t>(format::section::tensor_data);
  data.flags = format::section_required;
  data.offset = format::alignment * ((sizeof(format::file_header) + format::alignment - 1) / format::alignment);
  data.bytes = data_end > data.offset ? data_end - data.offset : 0;
  headers.push_back(data);
  for (const auto& [kind, content] : sections_) {
    if (auto done = align(); !done) return done;
    const auto& [bytes, required] = content;
    format::section_header s = {};
    s.kind = kind;
    s.flags = required ? format::section_required : 0;
    s.offset = offset_;
    s.bytes = bytes.size();
    format::checksum sum;
    sum.add(reinterpret_cast<const unsigned char*>(bytes.data()), bytes.size());
    s.checksum = sum.state;
    headers.push_back(s);
    if (auto done = append(bytes.data(), bytes.size()); !done) return done;
  }
  if (auto done = align(); !done) return done;
  format::file_header h = {};
  std::memcpy(h.magic, format::magic, sizeof(h.magic));
  h.major = format::major_version;
  h.minor = format::minor_version;
  h.header_bytes = sizeof(h);
  h.required = 1;  // panel16
  h.section_count = static_cast<std::uint32_t>(headers.size());
  h.sections_offset = offset_;
  h.embedding_space = embedding_space;
  if (auto done = append(headers.data(), headers.size() * sizeof(headers[0])); !done) return done;
  if (auto done = align(); !done) return done;
  h.file_bytes = offset_;
  format::checksum sum;
  sum.add(reinterpret_cast<const unsigned char*>(&h), sizeof(h));
  sum.add(reinterpret_cast<const unsigned char*>(headers.data()), headers.size() * sizeof(headers[0]));
  h.checksum = sum.state;
  if (std::fseek(file_, 0, SEEK_SET) != 0 || std::fwrite(&h, sizeof(h), 1, file_) != 1 || std::fflush(file_) != 0)
    return system_error("cannot write");
  std::FILE* file = file_;
  file_ = nullptr;
  if (std::fclose(file) != 0) return system_error("cannot write");
  std::error_code failed;
  std::filesystem::rename(temporary_, path_, failed);
  if (failed) return error{"cannot rename the finished file: " + failed.message()};
  temporary_.clear();
  return {};
}

}  // namespace ocellus::convert
