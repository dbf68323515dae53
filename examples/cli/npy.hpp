// NumPy's .npy files, version 1 and 2, little-endian, C order: float32 and int64, read and written.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace cli {

/// An array of T in C order. T: float or std::int64_t.
template <class T>
struct npy {
  std::vector<std::int64_t> shape;
  std::vector<T> values;
};

/// Throws failure, which names the file and what is wrong with it. Integers may be int32 in the file.
npy<float> read_npy_f32(const std::string& path);
npy<std::int64_t> read_npy_i64(const std::string& path);

/// Throws failure (usage for "") where write_npy could not begin: said before hours of work, not after.
void check_writable(const std::string& path);

/// Written to a temporary beside `path`, then renamed; devices, pipes and links are written as they are, "-" is stdout.
void write_npy(const std::string& path, const float* values, const std::vector<std::int64_t>& shape);

}  // namespace cli
