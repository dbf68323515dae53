// Any bytes as a pickle, with and without the names of TorchScript; every number in the result must lie in
// its table.
#include "pickle.hpp"

#include <cstddef>
#include <cstdint>
#include <span>

namespace convert = ocellus::convert;

namespace {

void check(const convert::pickle_data& data, const convert::pickle_value& value) {
  using kind = convert::pickle_kind;
  std::size_t size = SIZE_MAX;
  switch (value.kind) {
    case kind::text:
    case kind::bytes:
    case kind::big: size = data.texts.size(); break;
    case kind::tuple:
    case kind::list: size = data.sequences.size(); break;
    case kind::dict: size = data.dicts.size(); break;
    case kind::global: size = data.globals.size(); break;
    case kind::storage: size = data.storages.size(); break;
    case kind::tensor: size = data.tensors.size(); break;
    case kind::object: size = data.objects.size(); break;
    default: return;
  }
  if (value.number >= size) __builtin_trap();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  for (const bool script : {false, true}) {
    const auto pickle = convert::read_pickle(std::as_bytes(std::span(data, size)), script);
    if (!pickle) {
      if (pickle.failure().what.empty()) __builtin_trap();  // a refusal says why
      continue;
    }
    if (pickle->consumed > size) __builtin_trap();
    check(*pickle, pickle->root);
    for (const auto& sequence : pickle->sequences) {
      for (const auto& value : sequence) check(*pickle, value);
    }
    for (const auto& dict : pickle->dicts) {
      for (const auto& [key, value] : dict) {
        check(*pickle, key);
        check(*pickle, value);
      }
    }
    for (const auto& tensor : pickle->tensors) {
      if (tensor.storage >= pickle->storages.size() || tensor.shape.size() != tensor.strides.size())
        __builtin_trap();
    }
    for (const auto& object : pickle->objects) check(*pickle, object.state);
  }
  return 0;
}
