// References: torch/serialization.py (_save, _legacy_load), torch/csrc/jit/serialization/export_module.cpp.
#include "containers.hpp"
#include "pickle.hpp"

#include <algorithm>
#include <set>
#include <string>
#include <string_view>
#include <unordered_map>

namespace ocellus::convert {
namespace {

using kind = pickle_kind;

/// A tensor of the pickle and its name.
struct named_tensor {
  std::string name;
  std::size_t tensor;
};

/// What the pickle's root holds of use.
struct harvest {
  std::vector<named_tensor> tensors;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> notes;
};

// Keys under which training scripts put the state dict. Not "optimizer" and its like, which hold tensors too.
constexpr std::string_view wrappers[] = {"state_dict", "model_state_dict", "model",   "module",
                                         "net",        "network",          "weights", "params"};

// Names are made from texts that one pickle may refer to any number of times.
constexpr std::size_t max_name_bytes = std::size_t{64} << 20;

class harvester {
 public:
  explicit harvester(const pickle_data& data) : data_(data) {}

  outcome<harvest> run() {
    if (data_.root.kind == kind::object) return from_module();
    if (data_.root.kind != kind::dict)
      return error{"it holds no state dict: a state dict is a dict of named tensors"};
    return from_dict();
  }

 private:
  using dict = pickle_data::dict;

  std::size_t count_tensors(const dict& d) const {
    return static_cast<std::size_t>(
        std::count_if(d.begin(), d.end(), [](const auto& item) { return item.second.kind == kind::tensor; }));
  }

  // The dict under one of the wrappers' names, rather one with tensors than one without, or null.
  const dict* wrapped(const dict& d) const {
    const dict* without = nullptr;
    for (const std::string_view key : wrappers) {
      for (const auto& [name, value] : d) {
        if (!data_.is_text(name, key) || value.kind != kind::dict) continue;
        const dict* const inner = &data_.dicts[value.number];
        if (count_tensors(*inner) > 0) return inner;
        if (without == nullptr) without = inner;
        break;
      }
    }
    return without;
  }

  outcome<harvest> from_dict() {
    const dict* level = &data_.dicts[data_.root.number];
    for (int depth = 0; depth < 4; ++depth) {
      const dict* const inner = wrapped(*level);
      // A model may have a tensor named "params"; one whose parts are named "model" has no tensors beside
      // them.
      if (inner == nullptr || (count_tensors(*level) > 0 && count_tensors(*inner) <= count_tensors(*level)))
        break;
      if (!note_siblings(*level, inner)) return error{"its texts are longer than any checkpoint's"};
      level = inner;
    }
    if (count_tensors(*level) == 0) return error{"it holds no state dict" + keys_of(*level)};

    std::string ignored;
    std::unordered_map<std::string, std::size_t>
        numbers;  // a key that comes again replaces the value, as in Python
    for (const auto& [key, value] : *level) {
      if (value.kind != kind::tensor || key.kind != kind::text) {
        add_to_list(ignored, key);
        continue;
      }
      const std::string& name = data_.texts[key.number];
      if (!charge(name.size())) return error{"its names are longer than any checkpoint's"};
      const auto [place, added] = numbers.emplace(name, out_.tensors.size());
      if (added) {
        out_.tensors.push_back({name, value.number});
      } else {
        out_.tensors[place->second].tensor = value.number;
      }
    }
    if (!ignored.empty()) out_.notes.push_back("ignored, no tensors: " + ignored);
    return std::move(out_);
  }

  // Numbers and short texts beside the state dict become metadata, anything else a note.
  bool note_siblings(const dict& d, const dict* taken) {
    std::string ignored;
    for (const auto& [key, value] : d) {
      if (value.kind == kind::dict && &data_.dicts[value.number] == taken) continue;
      if (key.kind != kind::text || !add_scalar(data_.texts[key.number], value)) add_to_list(ignored, key);
      if (name_bytes_ > max_name_bytes) return false;
    }
    if (!ignored.empty()) out_.notes.push_back("ignored beside the state dict: " + ignored);
    return true;
  }

  bool add_scalar(const std::string& name, const pickle_value& value) {
    std::string text;
    if (value.kind == kind::integer) text = std::to_string(value.integer);
    if (value.kind == kind::real) text = std::to_string(value.real);
    if (value.kind == kind::text && data_.texts[value.number].size() <= 200) text = data_.texts[value.number];
    if (text.empty() || name.size() > 200 || !charge(name.size() + text.size())) return false;
    out_.metadata[name] = text;
    return true;
  }

  void add_to_list(std::string& list, const pickle_value& key) const {
    if (list.size() > 200) {
      if (!list.ends_with("...")) list += ", ...";
      return;
    }
    if (!list.empty()) list += ", ";
    list += key.kind == kind::text      ? printable(data_.texts[key.number], 60)
            : key.kind == kind::integer ? std::to_string(key.integer)
                                        : std::string("a key that is no text");
  }

  std::string keys_of(const dict& d) const {
    std::string list;
    for (const auto& item : d) add_to_list(list, item.first);
    return list.empty() ? ": it is empty" : ": no tensors under its keys (" + list + ")";
  }

  // A TorchScript module: attributes are tensors, numbers and further modules. Visits them in the order of
  // the file.
  outcome<harvest> from_module() {
    struct visit {
      std::size_t object;
      std::string prefix;
      int depth;
    };
    std::vector<visit> open{{data_.root.number, "", 0}};
    for (std::size_t visits = 0; !open.empty(); ++visits) {
      const visit at = std::move(open.back());
      open.pop_back();
      if (visits > max_tensors || at.depth > 64)
        return error{"its modules are nested or shared beyond any model's"};
      const pickle_value& state = data_.objects[at.object].state;
      if (state.kind != kind::dict) continue;
      const std::size_t first = open.size();
      for (const auto& [key, value] : data_.dicts[state.number]) {
        if (key.kind != kind::text) continue;
        const std::string name = at.prefix + data_.texts[key.number];
        if (!charge(name.size()) || out_.tensors.size() + open.size() > max_tensors) {
          return error{"its modules are nested or shared beyond any model's"};
        }
        if (value.kind == kind::tensor) {
          out_.tensors.push_back({name, value.number});
        } else if (value.kind == kind::object) {
          open.push_back({value.number, name + '.', at.depth + 1});
        } else {
          add_scalar(name, value);
        }
      }
      std::reverse(open.begin() + static_cast<std::ptrdiff_t>(first), open.end());
    }
    if (out_.tensors.empty()) return error{"the TorchScript module has no parameters"};
    return std::move(out_);
  }

  bool charge(std::size_t bytes) {
    name_bytes_ += bytes;
    return name_bytes_ <= max_name_bytes;
  }

  const pickle_data& data_;
  harvest out_;
  std::size_t name_bytes_ = 0;
};

/// Where a storage's bytes lie.
struct storage_place {
  std::optional<std::size_t> entry;
  std::uint64_t begin = 0;
  std::uint64_t bytes = 0;
};

outcome<std::uint64_t> bytes_of(const pickle_storage& storage) {
  std::uint64_t bytes = 0;
  if (!multiply_checked(storage.elements, storage.element.bytes, bytes))
    return error{"a storage's size overflows"};
  return bytes;
}

// Puts the tensors into their storages. `locate(storage)` gives an outcome<storage_place>.
template <class Locate>
outcome<contents> place_all(const pickle_data& data, harvest found, bool big_endian, const Locate& locate) {
  if (found.tensors.size() > max_tensors) return error{"more than 200,000 tensors"};
  contents out;
  out.metadata = std::move(found.metadata);
  out.notes = std::move(found.notes);
  for (named_tensor& named : found.tensors) {
    const pickle_tensor& from = data.tensors[named.tensor];
    const pickle_storage& storage = data.storages[from.storage];
    const outcome<storage_place> place = locate(storage);
    if (!place) return in_tensor(named.name, place.failure().what);
    const outcome<std::uint64_t> bytes = bytes_of(storage);
    if (!bytes) return in_tensor(named.name, bytes.failure().what);
    if (*bytes != place->bytes) {
      return in_tensor(named.name, "its storage has " + std::to_string(place->bytes) + " bytes, but " +
                                       std::to_string(*bytes) + " are announced");
    }
    found_tensor tensor;
    tensor.info.name = std::move(named.name);
    tensor.info.type = from.element.type;
    tensor.info.shape = from.shape;
    tensor.strides = from.strides;
    tensor.entry = place->entry;
    tensor.begin = place->begin;
    tensor.element_bytes = from.element.bytes;
    tensor.big_endian = big_endian;
    if (auto placed = place_tensor(tensor, static_cast<std::uint64_t>(from.offset), *bytes); !placed)
      return placed.failure();
    out.tensors.push_back(std::move(tensor));
  }
  return out;
}

}  // namespace

outcome<contents> read_pytorch_zip(const zip_archive& archive) {
  const zip_entry* pickle = nullptr;
  for (const zip_entry& entry : archive.entries()) {
    if (entry.name != "data.pkl" && !entry.name.ends_with("/data.pkl")) continue;
    if (pickle != nullptr) return error{"the archive has two data.pkl"};
    pickle = &entry;
  }
  if (pickle == nullptr) return error{"the archive has no data.pkl"};
  const std::string root = pickle->name.substr(0, pickle->name.size() - std::string_view("data.pkl").size());

  bool big_endian = false;
  if (const zip_entry* order = archive.find(root + "byteorder")) {
    const outcome<std::vector<std::byte>> text = archive.read_all(*order, 16);
    if (!text) return text.failure();
    const std::string_view name(reinterpret_cast<const char*>(text->data()), text->size());
    if (name != "little" && name != "big") return error{"its byteorder is neither little nor big"};
    big_endian = name == "big";
  }

  const bool script = archive.find(root + "constants.pkl") != nullptr;
  const outcome<std::vector<std::byte>> bytes = archive.read_all(*pickle, max_pickle_bytes);
  if (!bytes) return bytes.failure();
  const outcome<pickle_data> data = read_pickle(*bytes, script);
  if (!data) return data.failure();
  outcome<harvest> found = harvester(*data).run();
  if (!found) return found.failure();

  const auto locate = [&](const pickle_storage& storage) -> outcome<storage_place> {
    const std::string& key = data->texts[storage.key];
    const zip_entry* const entry = archive.find(root + "data/" + key);
    if (entry == nullptr) return error{"its storage \"" + printable(key) + "\" is not in the archive"};
    return storage_place{static_cast<std::size_t>(entry - archive.entries().data()), 0, entry->size};
  };
  outcome<contents> out = place_all(*data, *std::move(found), big_endian, locate);
  if (out) out->kind = data->root.kind == kind::object ? container::torchscript : container::pytorch_zip;
  return out;
}

std::uint64_t pytorch_zip_needs(const byte_source& source) {
  constexpr std::size_t header_bytes = 30;  // PKWARE APPNOTE.TXT 4.3.7
  std::byte header[header_bytes];
  if (!source.read(0, header)) return 0;
  const std::size_t name_bytes = load_u16(header + 26), begin = header_bytes + name_bytes + load_u16(header + 28);
  std::string name(name_bytes, '\0');
  if (load_u16(header + 8) != 0 || !source.read(header_bytes, std::as_writable_bytes(std::span(name))) ||
      !name.ends_with("data.pkl") || begin >= source.size())
    return 0;
  std::vector<std::byte> front(
      static_cast<std::size_t>(std::min<std::uint64_t>(source.size() - begin, max_pickle_bytes)));
  if (!source.read(begin, front)) return 0;
  const outcome<pickle_data> data = read_pickle(front);
  if (!data) return 0;
  std::uint64_t needed = begin + data->consumed;
  std::set<std::string_view> seen;
  for (const pickle_storage& storage : data->storages) {
    const outcome<std::uint64_t> bytes = bytes_of(storage);
    if (!bytes || !seen.insert(data->texts[storage.key]).second) continue;
    if (!add_checked(needed, *bytes, needed)) return 0;
  }
  return needed;
}

outcome<contents> read_pytorch_legacy(const byte_source& source) {
  // 0x1950a86a20f9469cfc6c, little-endian.
  constexpr std::string_view magic("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10);
  constexpr std::int64_t version = 1001;

  std::vector<std::byte> front(
      static_cast<std::size_t>(std::min<std::uint64_t>(source.size(), max_pickle_bytes)));
  if (auto read = source.read(0, front); !read) return read.failure();
  std::size_t at = 0;
  const auto next = [&]() -> outcome<pickle_data> {
    outcome<pickle_data> part = read_pickle(std::span(front).subspan(at));
    if (part) at += part->consumed;
    return part;
  };
  const outcome<pickle_data> first = next();
  if (!first) return first.failure();
  if (first->root.kind != kind::big || first->texts[first->root.number] != magic) {
    return error{"a pickle that torch.save did not write"};
  }
  const outcome<pickle_data> protocol = next();
  if (!protocol) return protocol.failure();
  if (protocol->root.kind != kind::integer || protocol->root.integer != version) {
    return error{"its version of torch.save's old format is not known"};
  }
  const outcome<pickle_data> system = next();
  if (!system) return system.failure();
  bool big_endian = false;
  if (system->root.kind == kind::dict) {
    for (const auto& [key, value] : system->dicts[system->root.number]) {
      if (system->is_text(key, "little_endian"))
        big_endian = value.kind == kind::boolean && value.integer == 0;
    }
  }
  const outcome<pickle_data> data = next();
  if (!data) return data.failure();
  const outcome<pickle_data> keys = next();
  if (!keys) return keys.failure();
  if (keys->root.kind != kind::list) return error{"it has no list of storages"};

  // Each storage: its number of elements in 8 bytes, then its data.
  std::unordered_map<std::string_view, const pickle_storage*> storages;
  for (const pickle_storage& storage : data->storages) storages.emplace(data->texts[storage.key], &storage);
  std::unordered_map<std::string_view, storage_place> places;
  std::uint64_t offset = at, needed = at;
  for (const auto& [key, storage] : storages) {
    const outcome<std::uint64_t> bytes = bytes_of(*storage);
    if (!bytes) return bytes.failure();
    if (!add_checked(needed, *bytes, needed) || !add_checked(needed, 8, needed)) return error{"its storages overflow"};
  }
  for (const pickle_value& key : keys->sequences[keys->root.number]) {
    const auto known = key.kind == kind::text ? storages.find(keys->texts[key.number]) : storages.end();
    if (known == storages.end()) return error{"it has a storage that no tensor asks for"};
    std::byte count[8];
    if (!source.read(offset, count)) return cut_off(source.size(), std::to_string(needed));
    const outcome<std::uint64_t> bytes = bytes_of(*known->second);
    if (!bytes) return bytes.failure();
    if (load_u64(count) != known->second->elements) return error{"a storage has another size than announced"};
    offset += sizeof(count);
    if (*bytes > source.size() - offset) return cut_off(source.size(), std::to_string(needed));
    places[known->first] = {std::nullopt, offset, *bytes};
    offset += *bytes;
  }

  outcome<harvest> found = harvester(*data).run();
  if (!found) return found.failure();
  const auto locate = [&](const pickle_storage& storage) -> outcome<storage_place> {
    const auto place = places.find(data->texts[storage.key]);
    if (place == places.end()) return error{"its storage is not in the file"};
    return place->second;
  };
  outcome<contents> out = place_all(*data, *std::move(found), big_endian, locate);
  if (out) out->kind = container::pytorch_legacy;
  return out;
}

}  // namespace ocellus::convert
