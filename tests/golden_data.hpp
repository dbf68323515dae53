// Checkpoints converted for a test, and how the .npy files of the reference implementations are read.
#pragma once

#include "convert.hpp"
#include "json.hpp"
#include "test_files.hpp"

#include <doctest/doctest.h>

#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

namespace golden_data {
namespace {

namespace fs = std::filesystem;
using test_files::have;
using test_files::shared;

/// The demo model's checkpoint.
inline fs::path demo_checkpoint() { return fs::path(OCELLUS_SOURCE_DIR) / "examples/demo/demo.pt"; }

/// A checkpoint as a packed file at `path`, gone with the object; or why not, in `error`.
struct converted_file {
  test_files::scratch_folder folder;
  fs::path path = folder.path / "model.oc";
  std::string error;
  converted_file(const fs::path& source, ocellus::dtype type, const fs::path& tokenizer = {}) {
    ocellus::convert::convert_options o;
    o.source = source;
    o.output = path;
    o.type = type;
    if (!tokenizer.empty()) o.tokenizer = tokenizer;
    if (const auto done = ocellus::convert::convert(o); !done) error = done.failure().what;
  }
};

/// A .npy array of float32 or int64, C order; empty if there is no such file.
struct npy {
  std::vector<std::int64_t> shape;
  std::vector<float> f;
  std::vector<std::int64_t> i;
  explicit operator bool() const { return !shape.empty(); }
};

inline npy read_npy(const fs::path& path) {
  npy a;
  std::ifstream in(path, std::ios::binary);
  if (!in) return a;
  const std::string file((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  REQUIRE(file.size() > 10);
  const std::size_t length = static_cast<unsigned char>(file[8]) + 256u * static_cast<unsigned char>(file[9]);
  const std::string head = file.substr(10, length);
  std::size_t n = 1;
  for (std::size_t at = head.find('(') + 1; head[at] != ')';) {
    std::size_t used = 0;
    a.shape.push_back(std::stoll(head.substr(at), &used));
    n *= static_cast<std::size_t>(a.shape.back());
    at += used;
    while (head[at] == ',' || head[at] == ' ') at++;
  }
  if (a.shape.empty()) a.shape.push_back(1);
  const char* data = file.data() + 10 + length;
  if (head.find("<f4") != std::string::npos) {
    a.f.resize(n);
    std::memcpy(a.f.data(), data, n * 4);
  } else {
    REQUIRE(head.find("<i8") != std::string::npos);
    a.i.resize(n);
    std::memcpy(a.i.data(), data, n * 8);
  }
  return a;
}

inline nlohmann::json read_json(const fs::path& path) {
  std::ifstream in(path);
  REQUIRE_MESSAGE(in, path.string());
  return nlohmann::json::parse(in);
}

}  // namespace
}  // namespace golden_data
