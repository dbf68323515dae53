// The packing stage: streams the tensors of a plan into a packed file, each in the data type that suits it.
#pragma once

#include "model_source.hpp"
#include "packed_writer.hpp"
#include "progress.hpp"

#include <cstdint>
#include <map>
#include <string>
#include <vector>

namespace ocellus::convert {

struct pack_options {
  ocellus::dtype type = ocellus::dtype::f32;  ///< of matrices and tables: f32, f16, bf16, s8
  std::vector<std::string> keep_f16 = {};     ///< s8: tensors whose names begin so stay in f16
  bool winograd = true;  ///< 3 x 3 convolutions of floats transformed; false: as they are, for who looks at their inputs
};

struct pack_result {
  std::uint64_t fingerprint =
      0;  ///< of the weights in f32, whatever the container, the order or the data type
  std::map<std::string, int> type_counts;  ///< data type -> tensors
  /// s8: kind of layer ("vision.blocks.mlp.fc1") -> root mean square error of its weights relative to their own.
  std::map<std::string, double> weight_error;
};

/// How a tensor of the plan is stored. The one place where precision is decided.
ocellus::dtype choose_type(const planned_tensor& tensor, const pack_options& options);

/// By what weights of the patch embedding are multiplied to take pixels of 0 to 255, x = (u8 / 255 - mean) / std, as s8 and
/// bf16 files have it: u8 and bf16 hold such pixels exactly. [k], k = (y * P + x) * 3 + channel.
std::vector<float> raw_pixel_columns(const preprocess_config& pre, int k);

/// Reads, checks (finite values, announced shapes) and writes all tensors, one in memory at a time.
outcome<pack_result> pack(const model_source& model, const pack_options& options, packed_writer& out,
                          progress& bar);

}  // namespace ocellus::convert
