#include "packed_writer.hpp"

#include <algorithm>
#include <atomic>
#include <cerrno>
#include <cmath>
#include <cstring>
#include <system_error>
#include <unistd.h>
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>
#include <sys/stat.h>
#endif

namespace ocellus::convert {

using namespace ocellus;

namespace {

error system_error(const char* what) { return {std::string(what) + ": " + std::strerror(errno)}; }

bool seek(std::FILE* file, std::uint64_t offset) {
#if defined(_WIN32)  // whose long has 32 bits
  return ::_fseeki64(file, static_cast<long long>(offset), SEEK_SET) == 0;
#else
  return std::fseek(file, static_cast<long>(offset), SEEK_SET) == 0;
#endif
}

bool cut(std::FILE* file, std::uint64_t bytes) {
#if defined(_WIN32)  // whose off_t has 32 bits
  return ::_chsize_s(::_fileno(file), static_cast<long long>(bytes)) == 0;
#else
  return ::ftruncate(::fileno(file), static_cast<off_t>(bytes)) == 0;
#endif
}

}  // namespace

outcome<std::filesystem::path> replaceable(const std::filesystem::path& path) {
  std::error_code failed;
  const std::filesystem::file_status there = std::filesystem::status(path, failed);
  if (std::filesystem::is_directory(there)) return error{"cannot be written: it is a folder"};
  if (std::filesystem::exists(there) && !std::filesystem::is_regular_file(there))
    return error{"cannot be written: it is no regular file"};
  if (!std::filesystem::exists(there)) return path;
  const std::filesystem::path target = std::filesystem::canonical(path, failed);
  if (failed) return error{"cannot be written: " + failed.message()};
  return target;
}

std::FILE* create_file(const std::filesystem::path& path) {
#if defined(_WIN32)  // whose fopen knows neither x nor such names
  constexpr int created = _O_WRONLY | _O_CREAT | _O_EXCL | _O_BINARY | _O_NOINHERIT;
  const int file = ::_wopen(path.c_str(), created, _S_IREAD | _S_IWRITE);
  return file < 0 ? nullptr : ::_fdopen(file, "wb");
#else
  return std::fopen(path.c_str(), "wbx");
#endif
}

packed_writer::~packed_writer() {
  if (file_ != nullptr) std::fclose(file_);
  std::error_code ignored;
  if (!temporary_.empty()) std::filesystem::remove(temporary_, ignored);
}

outcome<void> packed_writer::open(const std::filesystem::path& path) {
  auto target = replaceable(path);
  if (!target) return target.failure();
  path_ = temporary_ = *target;
  static std::atomic<int> count = 0;  // several may be open at once
  temporary_ += ".tmp" + std::to_string(::getpid()) + "-" + std::to_string(count++);
  file_ = create_file(temporary_);
  if (file_ == nullptr) {
    const error why = system_error("cannot create the file");
    temporary_.clear();
    return why;
  }
  buffer_.resize(buffer_bytes);
  std::setvbuf(file_, buffer_.data(), _IOFBF, buffer_.size());
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
  return append(
      zeros, static_cast<std::size_t>((format::alignment - offset_ % format::alignment) % format::alignment));
}

outcome<void> packed_writer::begin_tensor(format::tensor_header& header) {
  if (tensors_.count(header.name) != 0) return error{std::string("tensor written twice: ") + header.name};
  if (auto done = align(); !done) return done;
  header.offset = offset_;
  sum_ = {};
  return {};
}

outcome<void> packed_writer::add_elements(const void* data, std::size_t bytes) {
  sum_.part(static_cast<const unsigned char*>(data), bytes);
  return append(data, bytes);
}

outcome<void> packed_writer::end_tensor(format::tensor_header header, std::span<const float> scales,
                                        std::span<const std::int32_t> sums) {
  if (offset_ != header.offset + header.bytes)
    return error{std::string("wrong size of tensor ") + header.name};
  sum_.end(header.bytes);
  const auto beside = [this](const void* data, std::size_t bytes, std::uint64_t& offset) -> outcome<void> {
    if (bytes == 0) return {};
    if (auto done = align(); !done) return done;
    offset = offset_;
    sum_.add(static_cast<const unsigned char*>(data), bytes);
    return append(data, bytes);
  };
  if (auto done = beside(scales.data(), scales.size_bytes(), header.scales); !done) return done;
  if (auto done = beside(sums.data(), sums.size_bytes(), header.sums); !done) return done;
  header.checksum = sum_.state;
  tensors_.emplace(header.name, header);
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

/// One panel of 16 rows of W, row by row in runs that stay in L1. `rows` is less than 16 in the last panel;
/// the caller has zeroed the rest.
template <dtype T, class Out, class Convert>
void pack_panel(Out* out, const float* w, int rows, int k, Convert convert) {
  constexpr int group = panel_group(T), run = 256;
  for (int d0 = 0; d0 < k; d0 += run) {
    const int d1 = std::min(d0 + run, k);
    for (int c = 0; c < rows; c++) {
      const float* row = w + static_cast<std::ptrdiff_t>(c) * k;
      Out* to = out + c * group;
      int d = d0;
      for (; d + group <= d1; d += group)
        for (int g = 0; g < group; g++)
          to[static_cast<std::ptrdiff_t>(d / group) * (panel_width * group) + g] = convert(row[d + g], c);
      for (; d < d1; d++)
        to[static_cast<std::ptrdiff_t>(d / group) * (panel_width * group) + d % group] = convert(row[d], c);
    }
  }
}

/// x * inverse, rounded half to even, in [-127, 127]. Adding 1.5 * 2^23 leaves no fraction bits.
inline float quantised(float x, float inverse) {
  const float y = std::min(std::max(x * inverse, -127.f), 127.f);
  return (y + 12582912.f) - 12582912.f;
}

float largest(const float* x, int n) {
  float lanes[16] = {};
  int i = 0;
  for (; i + 16 <= n; i += 16)
    for (int j = 0; j < 16; j++) lanes[j] = std::max(lanes[j], std::fabs(x[i + j]));
  float most = *std::max_element(lanes, lanes + 16);
  for (; i < n; i++) most = std::max(most, std::fabs(x[i]));
  return most;
}

std::vector<float> row_scales_of(int n, int k, const float* w) {
  std::vector<float> scales(static_cast<std::size_t>(n));
  for (int i = 0; i < n; i++)
    scales[static_cast<std::size_t>(i)] = largest(w + static_cast<std::ptrdiff_t>(i) * k, k) / 127.f;
  return scales;
}

/// 1 / scale; 0 for a row of zeros, and of values so small that the reciprocal would overflow.
float inverse_of(float scale) { return scale > 1e-37f ? 1.f / scale : 0.f; }

/// A value that 16 bits would turn into an infinity is an error rather than a silent change of the model.
error overflow(std::string_view name, float value) {
  return {"tensor " + printable(name) + " has the value " + std::to_string(value) +
          ", which f16 cannot hold: use --dtype bf16 or f32"};
}

}  // namespace

outcome<void> packed_writer::add_rows(std::string_view name, dtype type, std::span<const std::uint32_t> shape,
                                      const void* data, std::span<const float> scales) {
  auto header = header_of(name, type, format::layout::rows, shape);
  if (!header) return header.failure();
  if (auto done = begin_tensor(*header); !done) return done;
  if (auto done = add_elements(data, header->bytes); !done) return done;
  return end_tensor(*header, scales, {});
}

outcome<void> packed_writer::add_stored(const tensor_view& t) {
  std::uint32_t shape[4] = {};
  for (int i = 0; i < t.rank; i++) shape[i] = static_cast<std::uint32_t>(t.shape[i]);
  auto header = header_of(t.name, t.type, t.layout, {shape, static_cast<std::size_t>(t.rank)});
  if (!header) return header.failure();
  if (auto done = begin_tensor(*header); !done) return done;
  if (auto done = add_elements(t.data, header->bytes); !done) return done;
  const std::size_t rows = static_cast<std::size_t>(t.shape[0]);
  return end_tensor(*header, {t.scales, t.scales != nullptr ? rows : 0}, {t.sums, t.sums != nullptr ? rows : 0});
}

outcome<void> packed_writer::add_f32(std::string_view name, std::span<const std::uint32_t> shape,
                                     std::span<const float> data) {
  return add_rows(name, dtype::f32, shape, data.data());
}

outcome<void> packed_writer::add_table(std::string_view name, dtype type, int n, int k, const float* w) {
  const std::uint32_t shape[] = {static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(k)};
  if (type == dtype::f32) return add_rows(name, type, shape, w);
  auto header = header_of(name, type, format::layout::rows, shape);
  if (!header) return header.failure();
  if (auto done = begin_tensor(*header); !done) return done;
  const std::vector<float> scales = type == dtype::s8 ? row_scales_of(n, k, w) : std::vector<float>();
  constexpr int rows_at_once = 64;  // a multiple of 8 bytes whatever k is: the checksum is taken in words
  std::vector<unsigned char> packed(static_cast<std::size_t>(rows_at_once) * static_cast<std::size_t>(k) *
                                    size_of(type));
  for (int row = 0; row < n; row += rows_at_once) {
    const int rows = std::min(rows_at_once, n - row);
    const float* from = w + static_cast<std::ptrdiff_t>(row) * k;
    const std::ptrdiff_t count = static_cast<std::ptrdiff_t>(rows) * k;
    if (type == dtype::f16) {
      if (const float most = largest(from, static_cast<int>(count)); most >= 65520.f)
        return overflow(name, most);
      auto* to = reinterpret_cast<f16*>(packed.data());
      for (std::ptrdiff_t i = 0; i < count; i++) to[i] = to_f16(from[i]);
    } else if (type == dtype::bf16) {
      auto* to = reinterpret_cast<bf16*>(packed.data());
      for (std::ptrdiff_t i = 0; i < count; i++) to[i] = to_bf16(from[i]);
    } else {
      auto* to = reinterpret_cast<std::int8_t*>(packed.data());
      for (int r = 0; r < rows; r++) {
        const float inverse = inverse_of(scales[static_cast<std::size_t>(row + r)]);
        const std::ptrdiff_t begin = static_cast<std::ptrdiff_t>(r) * k;
        for (int d = 0; d < k; d++)
          to[begin + d] = static_cast<std::int8_t>(quantised(from[begin + d], inverse));
      }
    }
    if (auto done = add_elements(packed.data(), static_cast<std::size_t>(count) * size_of(type)); !done)
      return done;
  }
  return end_tensor(*header, scales, {});
}

outcome<void> packed_writer::add_matrix(std::string_view name, dtype type, int n, int k, const float* w,
                                        std::span<const float> scales) {
  if (type != dtype::f32 && type != dtype::f16 && type != dtype::bf16 && type != dtype::s8)
    return error{"matrices are f32, f16, bf16 or s8"};
  const std::uint32_t shape[] = {static_cast<std::uint32_t>(n), static_cast<std::uint32_t>(k)};
  auto header = header_of(name, type, format::layout::panel16, shape);
  if (!header) return header.failure();
  if (auto done = begin_tensor(*header); !done) return done;
  std::vector<float> row_scales(scales.begin(), scales.end());
  std::vector<std::int32_t> sums;
  if (type == dtype::s8) {
    if (row_scales.empty()) row_scales = row_scales_of(n, k, w);
    sums.assign(static_cast<std::size_t>(n), 0);
  }
  // One panel at a time: a matrix of a few hundred MB needs no second one beside it.
  std::vector<unsigned char> panel(panel_elements(type, k) * size_of(type));
  for (int row = 0; row < n; row += panel_width) {
    const int rows = std::min(panel_width, n - row);
    const float* from = w + static_cast<std::ptrdiff_t>(row) * k;
    if (rows < panel_width) std::fill(panel.begin(), panel.end(), static_cast<unsigned char>(0));
    switch (type) {
      case dtype::f32:
        pack_panel<dtype::f32>(reinterpret_cast<float*>(panel.data()), from, rows, k,
                               [](float x, int) { return x; });
        break;
      case dtype::f16:
        for (int c = 0; c < rows; c++)
          if (const float most = largest(from + static_cast<std::ptrdiff_t>(c) * k, k); most >= 65520.f)
            return overflow(name, most);
        pack_panel<dtype::f16>(reinterpret_cast<f16*>(panel.data()), from, rows, k,
                               [](float x, int) { return to_f16(x); });
        break;
      case dtype::bf16:
        pack_panel<dtype::bf16>(reinterpret_cast<bf16*>(panel.data()), from, rows, k,
                                [](float x, int) { return to_bf16(x); });
        break;
      default: {
        float inverse[panel_width];
        for (int c = 0; c < rows; c++) inverse[c] = inverse_of(row_scales[static_cast<std::size_t>(row + c)]);
        std::int32_t* sum = sums.data() + row;
        pack_panel<dtype::s8>(
            reinterpret_cast<std::int8_t*>(panel.data()), from, rows, k,
            [&](float x, int c) { return static_cast<std::int8_t>(quantised(x, inverse[c])); });
        const auto* q = reinterpret_cast<const std::int8_t*>(panel.data());
        for (std::size_t i = 0; i < panel.size(); i += panel_width * 4)
          for (int c = 0; c < rows; c++)
            for (int g = 0; g < 4; g++) sum[c] += q[i + static_cast<std::size_t>(c * 4 + g)];
        break;
      }
    }
    if (auto done = add_elements(panel.data(), panel.size()); !done) return done;
  }
  return end_tensor(*header, row_scales, sums);
}

void packed_writer::add_section(format::section kind, std::span<const std::byte> bytes, bool required) {
  sections_[static_cast<std::uint32_t>(kind)] = {{bytes.begin(), bytes.end()}, required};
}

outcome<void> packed_writer::complete(std::uint64_t embedding_space) {
  if (data_end_ == 0) data_end_ = offset_;
  const std::uint64_t data_end = offset_ = data_end_;
  if (!seek(file_, data_end)) return system_error("cannot write");
  std::vector<format::tensor_header> table;
  for (const auto& [name, header] : tensors_)
    table.push_back(header);  // std::map: sorted by name, as readers search
  add_section(format::section::tensor_table, std::as_bytes(std::span(table)), true);
  std::vector<format::section_header> headers;
  format::section_header data = {};
  data.kind = static_cast<std::uint32_t>(format::section::tensor_data);
  data.flags = format::section_required;
  data.offset =
      format::alignment * ((sizeof(format::file_header) + format::alignment - 1) / format::alignment);
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
  h.required = format::feature_panel16 | required_;
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
  if (!seek(file_, 0) || std::fwrite(&h, sizeof(h), 1, file_) != 1 ||
      std::fflush(file_) != 0 || !cut(file_, offset_))
    return system_error("cannot write");
  return {};
}

outcome<void> packed_writer::finish(std::uint64_t embedding_space) {
  if (auto done = complete(embedding_space); !done) return done;
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
