#include "npy.hpp"

#include "command_line.hpp"
#include "packed_writer.hpp"
#include "program.hpp"

#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <unistd.h>

namespace cli {
namespace {

struct header {
  std::string descr;
  std::vector<std::int64_t> shape;
  std::size_t data = 0;
};

/// The value of 'key' in the header's Python dictionary, up to its comma (tuples whole).
std::string value_of(const std::string& dict, const std::string& key) {
  const std::size_t at = dict.find("'" + key + "'");
  if (at == std::string::npos) return "";
  std::size_t begin = dict.find(':', at);
  if (begin == std::string::npos) return "";
  begin = dict.find_first_not_of(' ', begin + 1);
  if (begin == std::string::npos) return "";
  const std::size_t end = dict[begin] == '(' ? dict.find(')', begin) : dict.find_first_of(",}", begin);
  if (end == std::string::npos) return "";
  return dict.substr(begin, end - begin + (dict[begin] == '(' ? 1 : 0));
}

header parse(const std::string& path, const std::string& file) {
  const auto bad = [&path](const char* why) { return failure(path + ": " + why); };
  if (file.size() < 12 || std::memcmp(file.data(), "\x93NUMPY", 6) != 0) throw bad("not a .npy file");
  const auto byte = [&file](std::size_t i) { return static_cast<std::size_t>(static_cast<unsigned char>(file[i])); };
  const std::size_t wide = byte(6) >= 2 ? 4 : 2;
  std::size_t length = 0;
  for (std::size_t i = 0; i < wide; i++) length |= byte(8 + i) << (8 * i);
  if (length > file.size() - 8 - wide) throw bad("the file ends too early");
  const std::string dict = file.substr(8 + wide, length);
  header h;
  h.data = 8 + wide + length;
  h.descr = value_of(dict, "descr");
  if (value_of(dict, "fortran_order") != "False") throw bad("arrays must be in C order");
  const std::string shape = value_of(dict, "shape");
  if (shape.empty() || shape[0] != '(') throw bad("damaged header");
  for (const char *p = shape.data() + 1, *end = shape.data() + shape.size(); p < end;) {
    std::int64_t n = 0;
    const auto [next, error] = std::from_chars(p, end, n);
    if (error == std::errc()) {
      if (n < 0 || n > (std::int64_t{1} << 32) || h.shape.size() == 8) throw bad("damaged header");
      h.shape.push_back(n);
      p = next;
    } else {
      p++;
    }
  }
  return h;
}

std::size_t elements(const std::string& path, const header& h, const std::string& file, std::size_t size) {
  std::size_t n = 1;
  for (const std::int64_t d : h.shape) {
    if (d != 0 && n > file.size() / static_cast<std::size_t>(d)) throw failure(path + ": the file ends too early");
    n *= static_cast<std::size_t>(d);
  }
  if (n * size > file.size() - h.data) throw failure(path + ": the file ends too early");
  return n;
}

}  // namespace

npy<float> read_npy_f32(const std::string& path) {
  const std::string file = read_file(path);
  const header h = parse(path, file);
  if (h.descr != "'<f4'") throw failure(path + ": float32 is needed, the array is " + h.descr);
  npy<float> a{h.shape, {}};
  a.values.resize(elements(path, h, file, 4));
  std::memcpy(a.values.data(), file.data() + h.data, a.values.size() * 4);
  return a;
}

npy<std::int64_t> read_npy_i64(const std::string& path) {
  const std::string file = read_file(path);
  const header h = parse(path, file);
  npy<std::int64_t> a{h.shape, {}};
  if (h.descr == "'<i8'") {
    a.values.resize(elements(path, h, file, 8));
    std::memcpy(a.values.data(), file.data() + h.data, a.values.size() * 8);
  } else if (h.descr == "'<i4'") {
    a.values.resize(elements(path, h, file, 4));
    for (std::size_t i = 0; i < a.values.size(); i++) {
      std::int32_t v;
      std::memcpy(&v, file.data() + h.data + i * 4, 4);
      a.values[i] = v;
    }
  } else {
    throw failure(path + ": int64 is needed, the array is " + h.descr);
  }
  return a;
}

namespace {

/// Where write_npy writes: a temporary that is renamed, or a device, a pipe or a link, which renaming would replace.
struct destination {
  std::string path;
  bool in_place;
};

destination destination_of(const std::string& path) {
  if (path == "-") return {path, true};
  std::error_code ignored;
  const std::filesystem::file_status there = std::filesystem::symlink_status(path, ignored);
  const bool in_place = std::filesystem::exists(there) && !std::filesystem::is_regular_file(there);
  return {in_place ? path : path + ".tmp" + std::to_string(getpid()), in_place};
}

std::FILE* open(const destination& to, const std::string& path) {
  std::FILE* const f = to.path == "-" ? ocellus::convert::open_stream(STDOUT_FILENO, "wb")
                       : to.in_place ? std::fopen(to.path.c_str(), "wb")
                                     : ocellus::convert::create_file(to.path);
  if (f == nullptr) throw failure(path + ": cannot be written: " + std::strerror(errno));
  return f;
}

}  // namespace

void check_writable(const std::string& path) {
  if (path.empty()) throw usage("--output is empty");
  if (path == "-") return;
  const destination to = destination_of(path);
  std::error_code ignored;
  if (to.in_place && !std::filesystem::is_directory(path, ignored)) return;  // a pipe's reader would see two files
  std::fclose(open(to, path));
  std::filesystem::remove(to.path, ignored);
}

void write_npy(const std::string& path, const float* values, const std::vector<std::int64_t>& shape) {
  std::string dict = "{'descr': '<f4', 'fortran_order': False, 'shape': (";
  std::size_t n = 1;
  for (const std::int64_t d : shape) {
    dict += std::to_string(d) + ",";
    n *= static_cast<std::size_t>(d);
  }
  dict += "), }";
  dict.append(64 - (10 + dict.size() + 1) % 64, ' ');
  dict += '\n';
  const destination to = destination_of(path);
  std::FILE* const f = open(to, path);
  const unsigned char head[10] = {0x93, 'N', 'U', 'M', 'P', 'Y', 1, 0, static_cast<unsigned char>(dict.size() & 255),
                                  static_cast<unsigned char>(dict.size() >> 8)};
  bool ok = std::fwrite(head, 1, 10, f) == 10 && std::fwrite(dict.data(), 1, dict.size(), f) == dict.size() &&
            std::fwrite(values, sizeof(float), n, f) == n;
  ok = std::fclose(f) == 0 && ok;
  const std::string why = std::strerror(errno);
  std::error_code renamed;
  if (ok && !to.in_place) std::filesystem::rename(to.path, path, renamed);
  if (!ok || renamed) {
    std::error_code ignored;
    if (!to.in_place) std::filesystem::remove(to.path, ignored);
    throw failure(path + ": cannot be written: " + (renamed ? renamed.message() : why));
  }
}

}  // namespace cli
