// Any bytes as JSON behind the converter's limits; what is taken must survive being written and read again.
#include "json.hpp"

#include <cstddef>
#include <cstdint>
#include <string_view>

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto value = ocellus::convert::parse_json(text);
  if (!value) return 0;
  const auto again = ocellus::convert::parse_json(value->dump());
  if (!again || *again != *value) __builtin_trap();
  return 0;
}
