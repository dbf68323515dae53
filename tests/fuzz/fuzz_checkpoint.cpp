// Any bytes as a checkpoint: whichever container it is taken for, and every tensor that it then lists.
#include "checkpoint.hpp"

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace convert = ocellus::convert;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const auto file = convert::checkpoint::open_memory(std::as_bytes(std::span(data, size)));
  if (!file) {
    if (file.failure().what.empty()) __builtin_trap();  // a refusal says why
    return 0;
  }
  std::vector<float> weights;
  std::vector<std::int64_t> integers;
  std::int64_t total = 0;
  for (const convert::tensor_info& tensor : file->tensors()) {
    if (file->find(tensor.name) != &tensor) __builtin_trap();
    total += tensor.elements;
    if (total > 1 << 22) break;  // expanded tensors may be large: time is the limit here
    const bool floating = tensor.floating();
    if (!(floating ? file->read_f32(tensor, weights) : file->read_i64(tensor, integers))) continue;
    const std::size_t got = floating ? weights.size() : integers.size();
    if (got != static_cast<std::size_t>(tensor.elements)) __builtin_trap();
  }
  return 0;
}
