// Any bytes as a safetensors file; the tensors of one that is taken must fill the file without holes.
#include "containers.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace convert = ocellus::convert;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const convert::byte_source source(std::as_bytes(std::span(data, size)));
  const auto found = convert::read_safetensors(source);
  if (!found) {
    if (found.failure().what.empty()) __builtin_trap();  // a refusal says why
    return 0;
  }
  std::uint64_t end = 0;
  for (const convert::found_tensor& tensor : found->tensors) {
    if (tensor.begin < end || tensor.begin > size || tensor.info.elements < 0) __builtin_trap();
    end = tensor.begin + tensor.span * tensor.element_bytes;
    if (end > size) __builtin_trap();
  }
  return 0;
}
