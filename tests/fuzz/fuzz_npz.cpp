// Any bytes as a NumPy archive; what is listed must lie within its entry.
#include "containers.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace convert = ocellus::convert;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const convert::byte_source source(std::as_bytes(std::span(data, size)));
  const auto archive = convert::zip_archive::open(source);
  if (!archive) return 0;
  const auto found = convert::read_npz(*archive);
  if (!found) {
    if (found.failure().what.empty()) __builtin_trap();  // a refusal says why
    return 0;
  }
  for (const convert::found_tensor& tensor : found->tensors) {
    const convert::zip_entry& entry = archive->entries()[*tensor.entry];
    if (tensor.begin > entry.size || tensor.span > (entry.size - tensor.begin) / tensor.element_bytes)
      __builtin_trap();
  }
  return 0;
}
