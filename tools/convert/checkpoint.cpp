#include "checkpoint.hpp"

#include "containers.hpp"
#include "json.hpp"

#include <ocellus/core/float16.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <iterator>
#include <new>
#include <set>
#include <stdexcept>
#include <system_error>

namespace ocellus::convert {
namespace {

namespace fs = std::filesystem;

constexpr int max_rank = 8;
constexpr std::size_t max_shards = 1000;

// A tensor may be an expanded view, which has more elements than its storage; but not arbitrarily many.
constexpr std::uint64_t max_expansion = std::uint64_t{1} << 24;

}  // namespace

const char* to_string(source_dtype type) noexcept {
  switch (type) {
    case source_dtype::f64: return "f64";
    case source_dtype::f32: return "f32";
    case source_dtype::f16: return "f16";
    case source_dtype::bf16: return "bf16";
    case source_dtype::i64: return "i64";
    case source_dtype::i32: return "i32";
    case source_dtype::i16: return "i16";
    case source_dtype::i8: return "i8";
    case source_dtype::u8: return "u8";
    case source_dtype::boolean: return "bool";
    case source_dtype::other: return "of another type";
  }
  return "";
}

const char* to_string(container kind) noexcept {
  switch (kind) {
    case container::pytorch_zip: return "PyTorch zip";
    case container::torchscript: return "TorchScript archive";
    case container::pytorch_legacy: return "PyTorch before 1.6";
    case container::safetensors: return "safetensors";
    case container::safetensors_sharded: return "sharded safetensors";
    case container::pytorch_sharded: return "sharded PyTorch";
    case container::npz: return "NumPy npz";
  }
  return "";
}

std::string to_string(std::span<const std::int64_t> shape) {
  std::string text = "[";
  for (const std::int64_t size : shape) text += (text.size() > 1 ? ", " : "") + std::to_string(size);
  return text + "]";
}

error in_tensor(std::string_view name, const std::string& what) {
  return error{"tensor \"" + printable(name) + "\": " + what};
}

error cut_off(std::uint64_t size, const std::string& of) {
  return error{"the file is cut off: it has " + std::to_string(size) + " bytes of " + of + "; download it again"};
}

outcome<void> place_tensor(found_tensor& tensor, std::uint64_t first, std::uint64_t bytes) {
  const std::vector<std::int64_t>& shape = tensor.info.shape;
  const std::string& name = tensor.info.name;
  if (shape.size() > max_rank) return in_tensor(name, "has " + std::to_string(shape.size()) + " dimensions");
  std::uint64_t elements = 1, contiguous = 1;
  for (const std::int64_t size : shape) {
    if (size < 0 || !multiply_checked(elements, static_cast<std::uint64_t>(size), elements) ||
        elements > INT64_MAX) {
      return in_tensor(name, "its shape overflows");
    }
  }
  std::uint64_t last = 0;  // distance of the last element from the first
  bool in_order = true;
  for (std::size_t axis = shape.size(); axis-- > 0 && elements > 0;) {
    const auto size = static_cast<std::uint64_t>(shape[axis]);
    const auto stride =
        tensor.strides.empty() ? contiguous : static_cast<std::uint64_t>(tensor.strides[axis]);
    std::uint64_t reach = 0;
    if (!multiply_checked(size - 1, stride, reach) || !add_checked(last, reach, last)) {
      return in_tensor(name, "its strides overflow");
    }
    if (size > 1 && stride != contiguous) in_order = false;
    contiguous *= size;
  }
  const std::uint64_t stored = bytes / tensor.element_bytes;
  tensor.info.elements = static_cast<std::int64_t>(elements);
  tensor.span = elements > 0 ? last + 1 : 0;
  if (first > stored || tensor.span > stored - first || (elements > 0 && last == UINT64_MAX)) {
    return in_tensor(name, "its shape " + to_string(shape) + " needs more elements than its storage has");
  }
  if (elements > stored && elements - stored > max_expansion) {
    return in_tensor(name, "its shape " + to_string(shape) + " repeats a few values too often");
  }
  if (in_order) tensor.strides.clear();
  tensor.begin += first * tensor.element_bytes;
  return {};
}

// Opening ----------------------------------------------------------------------------------------------------

struct checkpoint::state {
  struct source {
    byte_source bytes;
    std::optional<zip_archive> archive;
  };

  std::vector<fs::path> files;
  std::vector<source> sources;
  std::uint64_t extra_bytes = 0;  // of the index
  container kind = container::safetensors;
  std::vector<tensor_info> infos;
  std::vector<found_tensor> places;  // at tensor_info::slot
  std::map<std::string, std::size_t, std::less<>> index;
  std::map<std::string, std::string> metadata;
  std::vector<std::string> notes;

  outcome<void> add(const byte_source& bytes);
  outcome<void> finish();
  void strip(std::string_view prefix);
  void strip_towers();
  outcome<void> open_file(const fs::path& path);
  outcome<void> open_index(const fs::path& path);
  outcome<void> open_folder(const fs::path& folder);

  template <class Convert>
  outcome<void> read_span(const found_tensor& from, const Convert& convert) const;
  template <class T, class Load>
  outcome<void> read(const found_tensor& from, std::vector<T>& out, const Load& load) const;
};

namespace {

/// The size that a Git LFS pointer gives, as " of 605247071 bytes", or nothing.
std::string pointed_size(std::string_view pointer) {
  const std::size_t at = pointer.find("\nsize ");
  if (at == pointer.npos) return {};
  const std::string_view rest = pointer.substr(at + 6);
  const std::string_view digits = rest.substr(0, std::min(rest.find_first_not_of("0123456789"), rest.size()));
  return digits.empty() || digits.size() > 19 ? "" : " of " + std::string(digits) + " bytes";
}

/// What a file of `size` bytes that is no checkpoint is, from its first bytes: for those who downloaded something else,
/// or hand over what other programs run.
std::string unknown_file(std::string_view front, std::uint64_t size) {
  constexpr const char* original = "; ocellus-convert reads the original: PyTorch (.pt, .bin) or safetensors";
  const auto starts = [&](std::string_view text) { return front.starts_with(text); };
  const auto byte = [&](std::size_t at) { return at < front.size() ? static_cast<unsigned char>(front[at]) : 0u; };
  if (starts("version https://git-lfs"))
    return "a Git LFS pointer, not the file" + pointed_size(front) + " itself: fetch it with git lfs pull";
  std::string_view text = front.substr(starts("\xef\xbb\xbf") ? 3 : 0);
  text.remove_prefix(std::min(text.find_first_not_of(" \t\r\n"), text.size()));
  if (text.starts_with('<'))
    return "a web page or XML, not a checkpoint: the download went wrong, fetch it again from a direct link";
  if (starts("\x93NUMPY")) return "a single .npy array; a checkpoint is an .npz of many";
  if (starts("GGUF") || starts("lmgg") || starts("fmgg") || starts("tjgg"))
    return std::string("a GGUF or GGML file of llama.cpp or clip.cpp") + original;
  if (starts("\x1f\x8b")) return "compressed by gzip; unpack it first";
  if (starts("\x89HDF")) return std::string("an HDF5 file of Keras or TensorFlow") + original;
  if (front.size() > 262 && front.substr(257, 5) == "ustar") return "a tar archive; unpack it first";
  if (front.substr(std::min<std::size_t>(4, front.size())).starts_with("TFL3"))
    return std::string("a TensorFlow Lite model") + original;
  // Protocol buffers begin with their first field: the version of ONNX's format, 3 and up, or 1 of SavedModel's.
  if (starts(std::string_view("\x08\x01\x12", 3))) return std::string("a TensorFlow SavedModel") + original;
  if (byte(0) == 8 && byte(1) >= 3 && byte(1) < 32 && byte(2) != 0) return std::string("an ONNX model") + original;
  // MessagePack: a map (of up to 15, or of 65535) whose first key is a short text.
  const std::size_t key = byte(0) == 0xde ? 3 : 1;
  if ((key == 3 || (byte(0) > 0x80 && byte(0) < 0x90)) && byte(key) > 0xa0 && byte(key) < 0xc0)
    return std::string("MessagePack, as Flax saves its models") + original;
  if (size < 4096 && is_utf8(front) && text.find_first_of(std::string_view("\0\x1b", 2)) == text.npos)
    return "text, not a checkpoint (a server's answer to a failed download?): \"" +
           printable(text.substr(0, text.find_first_of("\r\n")), 60) + "\"";
  if (size < 16) return "only " + std::to_string(size) + " bytes, no checkpoint: download it again";
  return "not a checkpoint that can be read: neither PyTorch, TorchScript, safetensors nor npz";
}

outcome<contents> read_zip(const zip_archive& archive) {
  bool arrays = false;
  for (const zip_entry& entry : archive.entries()) {
    if (entry.name == "data.pkl" || entry.name.ends_with("/data.pkl")) return read_pytorch_zip(archive);
    if (entry.name.ends_with("/model.json"))
      return error{"a TorchScript archive of torch before 1.4; save it again with a newer one"};
    arrays |= entry.name.ends_with(".npy");
  }
  if (arrays) return read_npz(archive);
  return error{"a zip archive with neither data.pkl (PyTorch) nor .npy arrays (NumPy) in it"};
}

}  // namespace

// Recognises the container, reads its list of tensors and adds it.
outcome<void> checkpoint::state::add(const byte_source& bytes) {
  if (bytes.size() == 0) return error{"the file is empty"};
  std::string front(static_cast<std::size_t>(std::min<std::uint64_t>(bytes.size(), 512)), '\0');
  if (auto read = bytes.read(0, std::as_writable_bytes(std::span(front))); !read) return read;

  source from{bytes, std::nullopt};
  outcome<contents> found = error{};
  const bool zip_front = front.starts_with("PK\x03\x04") || front.starts_with("PK\x05\x06");
  if (front.size() > 8 && front[8] == '{' && !zip_front) {
    found = read_safetensors(bytes);
  } else if (front.size() > 1 && front[0] == '\x80' && front[1] >= 2 && front[1] <= 5) {
    found = read_pytorch_legacy(bytes);
  } else {
    // An archive may have other bytes before it (self-extracting ones do), so its end decides.
    outcome<zip_archive> archive = zip_archive::open(bytes);
    if (archive) {
      from.archive = *std::move(archive);
      found = read_zip(*from.archive);
    } else if (zip_front) {
      const std::uint64_t needed = pytorch_zip_needs(bytes);
      found = needed > bytes.size() ? cut_off(bytes.size(), "at least " + std::to_string(needed)) : archive.failure();
    } else {
      return error{unknown_file(front, bytes.size())};
    }
  }
  if (!found) return found.failure();
  for (found_tensor& tensor : found->tensors) {
    tensor.source = sources.size();
    const auto [place, added] = index.emplace(tensor.info.name, places.size());
    if (!added) return in_tensor(tensor.info.name, "stands twice");
    places.push_back(std::move(tensor));
  }
  kind = found->kind;
  metadata.merge(found->metadata);
  notes.insert(notes.end(), found->notes.begin(), found->notes.end());
  sources.push_back(std::move(from));
  return {};
}

// DistributedDataParallel and torch.compile put a prefix before all names.
void checkpoint::state::strip(std::string_view prefix) {
  const auto has = [&](const found_tensor& t) { return t.info.name.starts_with(prefix); };
  if (places.empty() || !std::all_of(places.begin(), places.end(), has)) return;
  for (found_tensor& tensor : places) tensor.info.name.erase(0, prefix.size());
  notes.push_back("taken off all names: " + std::string(prefix));
}

// TinyCLIP keeps its towers apart: "_image_encoder.module.visual.conv1.weight". Its masks keep their names, which both
// towers have; so does a tensor whose short name is taken.
void checkpoint::state::strip_towers() {
  std::set<std::string> names;
  for (const found_tensor& tensor : places) names.insert(tensor.info.name);
  if (names.count("_logit_scale.logit_scale") == 0) return;
  for (found_tensor& tensor : places)
    for (const std::string_view tower : {"_image_encoder.", "_text_encoder.", "image_encoder_without_ddp.",
                                         "text_encoder_without_ddp."}) {
      if (!tensor.info.name.starts_with(tower)) continue;
      std::string rest = tensor.info.name.substr(tower.size());
      if (rest.starts_with("module.")) rest.erase(0, 7);
      if (!rest.starts_with("l0_module.") && names.insert(rest).second) tensor.info.name = std::move(rest);
      break;
    }
  notes.push_back("TinyCLIP's names: _image_encoder. and _text_encoder. taken off");
}

outcome<void> checkpoint::state::finish() {
  if (places.empty()) return error{"it holds no tensors"};
  strip("module.");
  strip("_orig_mod.");
  strip("module.");
  strip_towers();
  index.clear();
  for (std::size_t slot = 0; slot < places.size(); ++slot) {
    places[slot].info.slot = slot;
    infos.push_back(places[slot].info);
    index.emplace(infos.back().name, slot);
  }
  return {};
}

outcome<void> checkpoint::state::open_file(const fs::path& path) {
  const outcome<byte_source> bytes = byte_source::open(path);
  if (!bytes) return bytes.failure();
  files.push_back(path);
  return add(*bytes);
}

namespace {

// A shard's name in an index is a plain file name, and the file, if it is a link, leads to no other folder;
// but Hugging Face's cache is made of links (models--x/snapshots/<revision>/name -> ../../blobs/<hash>).
outcome<fs::path> shard_path(const fs::path& folder, const std::string& name) {
  const auto bad = [&](const char* what) {
    return error{"the index names the shard \"" + printable(name) + "\", " + what};
  };
  if (name.empty() || name == "." || name == ".." || name.find('/') != name.npos ||
      name.find('\\') != name.npos || name.find('\0') != name.npos) {
    return bad("which is no plain file name");
  }
  std::error_code problem;
  const fs::path home = fs::canonical(folder, problem);
  if (problem) return error{"the folder of the index cannot be read"};
  const fs::path target = fs::canonical(folder / name, problem);
  if (problem) return bad("which is missing: download it into the same folder");
  const fs::path cache =
      home.parent_path().filename() == "snapshots" ? home.parent_path().parent_path() / "blobs" : home;
  if (target.parent_path() != home && target.parent_path() != cache)
    return bad("which is a link out of its folder");
  return folder / name;
}

}  // namespace

outcome<void> checkpoint::state::open_index(const fs::path& path) {
  const outcome<nlohmann::json> json = read_json(path, {.depth = 8});
  if (!json)
    return error{"the shard index " + printable(path.filename().string()) + ": " + json.failure().what};
  if (!json->is_object() || !json->contains("weight_map") || !(*json)["weight_map"].is_object()) {
    return error{"the shard index " + printable(path.filename().string()) + " has no weight_map"};
  }
  const nlohmann::json& map = (*json)["weight_map"];
  std::set<std::string> names;
  for (const auto& [tensor, shard] : map.items()) {
    if (!shard.is_string())
      return error{"the shard index gives no file name for \"" + printable(tensor) + "\""};
    names.insert(shard.get<std::string>());
    if (names.size() > max_shards) return error{"the shard index names more than 1000 files"};
  }
  std::error_code ignored;
  files.push_back(path);
  extra_bytes = static_cast<std::uint64_t>(fs::file_size(path, ignored));
  bool all_safetensors = true;
  for (const std::string& name : names) {
    const outcome<fs::path> shard = shard_path(path.parent_path().empty() ? "." : path.parent_path(), name);
    if (!shard) return shard.failure();
    if (auto added = open_file(*shard); !added)
      return error{"shard " + printable(name) + ": " + added.failure().what};
    all_safetensors &= kind == container::safetensors;
  }
  for (const auto& item : map.items()) {
    if (!index.contains(item.key())) {
      return in_tensor(item.key(), "the shard index lists it, but it is in none of the shards");
    }
  }
  kind = all_safetensors ? container::safetensors_sharded : container::pytorch_sharded;
  return {};
}

outcome<void> checkpoint::state::open_folder(const fs::path& folder) {
  constexpr const char* known[] = {"model.safetensors",           "model.safetensors.index.json",
                                   "open_clip_model.safetensors", "open_clip_model.safetensors.index.json",
                                   "open_clip_pytorch_model.bin", "open_clip_pytorch_model.bin.index.json",
                                   "pytorch_model.bin",           "pytorch_model.bin.index.json"};
  std::error_code problem;
  for (const fs::path name : known) {
    if (fs::exists(folder / name, problem))
      return name.extension() == ".json" ? open_index(folder / name) : open_file(folder / name);
  }
  std::vector<fs::path> others;
  std::string foreign;  // weights of another framework
  for (fs::directory_iterator at(folder, problem), end; !problem && at != end && others.size() < 3;
       at.increment(problem)) {
    const fs::path ending = at->path().extension();
    if (ending == ".safetensors" || ending == ".pt" || ending == ".pth" || ending == ".bin" ||
        ending == ".npz") {
      others.push_back(at->path());
    }
    if (ending == ".msgpack" || ending == ".h5" || ending == ".onnx" || ending == ".gguf" || ending == ".tflite")
      foreign = printable(at->path().filename().string());
  }
  if (problem) return error{"the folder cannot be read: " + problem.message()};
  if (others.size() == 1) return open_file(others[0]);
  if (others.size() > 1) return error{"the folder holds several checkpoints: name the file"};
  if (!foreign.empty()) {
    return error{"the folder holds weights of another framework only (" + foreign +
                 "): download model.safetensors or pytorch_model.bin into it"};
  }
  return error{
      "the folder holds no weights: looked for model.safetensors, open_clip_model.safetensors, "
      "open_clip_pytorch_model.bin, "
      "pytorch_model.bin, each with .index.json too, and *.safetensors, *.pt, *.pth, *.bin, *.npz"};
}

// Memory is the one thing that the standard library reports by exceptions here.
template <class Work>
static auto guarded(const Work& work) -> decltype(work()) {
  try {
    return work();
  } catch (const std::bad_alloc&) {
    return error{"out of memory"};
  } catch (const std::length_error&) {
    return error{"out of memory"};
  } catch (const fs::filesystem_error& problem) {
    return error{printable(problem.what(), 300)};
  }
}

outcome<checkpoint> checkpoint::open(const fs::path& path) {
  return guarded([&]() -> outcome<checkpoint> {
    const auto made = std::make_shared<state>();
    std::error_code problem;
    const bool folder = fs::is_directory(path, problem);
    outcome<void> opened = folder                                              ? made->open_folder(path)
                           : path.filename().string().ends_with(".index.json") ? made->open_index(path)
                                                                               : made->open_file(path);
    if (opened) opened = made->finish();
    if (!opened) return opened.failure();
    checkpoint result;
    result.state_ = made;
    return result;
  });
}

outcome<checkpoint> checkpoint::open_memory(std::span<const std::byte> bytes) {
  return guarded([&]() -> outcome<checkpoint> {
    const auto made = std::make_shared<state>();
    outcome<void> opened = made->add(byte_source(bytes));
    if (opened) opened = made->finish();
    if (!opened) return opened.failure();
    checkpoint result;
    result.state_ = made;
    return result;
  });
}

const std::vector<tensor_info>& checkpoint::tensors() const noexcept { return state_->infos; }

const tensor_info* checkpoint::find(std::string_view name) const noexcept {
  const auto found = state_->index.find(name);
  return found == state_->index.end() ? nullptr : &state_->infos[found->second];
}

container checkpoint::kind() const noexcept { return state_->kind; }
const std::vector<fs::path>& checkpoint::files() const noexcept { return state_->files; }
const std::map<std::string, std::string>& checkpoint::metadata() const noexcept { return state_->metadata; }
const std::vector<std::string>& checkpoint::notes() const noexcept { return state_->notes; }

std::uint64_t checkpoint::bytes() const noexcept {
  std::uint64_t sum = state_->extra_bytes;
  for (const state::source& source : state_->sources) sum += source.bytes.size();
  return sum;
}

// Reading tensors ------------------------------------------------------------------------------------------

// Streams the elements from the tensor's first to its last in storage order. `convert(bytes)` gets whole
// elements.
template <class Convert>
outcome<void> checkpoint::state::read_span(const found_tensor& from, const Convert& convert) const {
  const source& file = sources[from.source];
  const std::uint64_t bytes = from.span * from.element_bytes;
  if (from.entry) {
    std::byte split[16];  // an element that two pieces share
    std::size_t held = 0;
    const auto pass = [&](std::span<const std::byte> piece) {
      if (held > 0) {
        const std::size_t take = std::min(piece.size(), from.element_bytes - held);
        std::copy_n(piece.data(), take, split + held);
        held += take;
        piece = piece.subspan(take);
        if (held < from.element_bytes) return;
        convert(std::span<const std::byte>(split, held));
      }
      held = piece.size() % from.element_bytes;
      convert(piece.first(piece.size() - held));
      std::copy_n(piece.data() + piece.size() - held, held, split);
    };
    return file.archive->read(file.archive->entries()[*from.entry], from.begin, bytes, pass);
  }
  std::vector<std::byte> buffer(
      static_cast<std::size_t>(std::min<std::uint64_t>(bytes, std::size_t{256} << 10)));
  for (std::uint64_t at = 0; at < bytes;) {
    const auto piece =
        std::span(buffer).first(static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), bytes - at)));
    if (auto got = file.bytes.read(from.begin + at, piece); !got) return got;
    convert(std::span<const std::byte>(piece));
    at += piece.size();
  }
  return {};
}

// Reads a tensor into C order; `load(p)` converts the little-endian element at p.
template <class T, class Load>
outcome<void> checkpoint::state::read(const found_tensor& from, std::vector<T>& out, const Load& load) const {
  std::vector<T> storage;
  std::vector<T>& target = from.strides.empty() ? out : storage;
  target.resize(static_cast<std::size_t>(from.span));
  T* next = target.data();
  const std::size_t width = from.element_bytes;
  const auto convert = [&](std::span<const std::byte> bytes) {
    std::byte swapped[16];
    for (std::size_t at = 0; at < bytes.size(); at += width) {
      const std::byte* p = bytes.data() + at;
      if (from.big_endian) {
        std::reverse_copy(p, p + width, swapped);
        p = swapped;
      }
      *next++ = load(p);
    }
  };
  if (auto done = read_span(from, convert); !done) return in_tensor(from.info.name, done.failure().what);
  if (from.strides.empty()) return {};

  // Steps through the indices like an odometer, innermost last.
  out.resize(static_cast<std::size_t>(from.info.elements));
  std::vector<std::int64_t> at(from.info.shape.size(), 0);
  std::int64_t offset = 0;
  for (T& element : out) {
    element = storage[static_cast<std::size_t>(offset)];
    for (std::size_t axis = at.size(); axis-- > 0;) {
      offset += from.strides[axis];
      if (++at[axis] < from.info.shape[axis]) break;
      offset -= from.strides[axis] * at[axis];
      at[axis] = 0;
    }
  }
  return {};
}

outcome<void> checkpoint::read_f32(const tensor_info& tensor, std::vector<float>& out) const {
  const found_tensor& from = state_->places[tensor.slot];
  return guarded([&]() -> outcome<void> {
    out.clear();
    switch (from.info.type) {
      case source_dtype::f32:
        return state_->read(from, out, [](const std::byte* p) { return std::bit_cast<float>(load_u32(p)); });
      case source_dtype::f16:
        return state_->read(from, out, [](const std::byte* p) { return to_f32(f16{load_u16(p)}); });
      case source_dtype::bf16:
        return state_->read(from, out, [](const std::byte* p) { return to_f32(bf16{load_u16(p)}); });
      case source_dtype::f64:
        return state_->read(from, out, [](const std::byte* p) {
          return static_cast<float>(std::bit_cast<double>(load_u64(p)));
        });
      default:
        return in_tensor(from.info.name, std::string("weights must be floating point, but it is ") +
                                             to_string(from.info.type));
    }
  });
}

outcome<void> checkpoint::read_i64(const tensor_info& tensor, std::vector<std::int64_t>& out) const {
  const found_tensor& from = state_->places[tensor.slot];
  return guarded([&]() -> outcome<void> {
    out.clear();
    switch (from.info.type) {
      case source_dtype::i64:
        return state_->read(from, out,
                            [](const std::byte* p) { return static_cast<std::int64_t>(load_u64(p)); });
      case source_dtype::i32:
        return state_->read(from, out, [](const std::byte* p) {
          return std::int64_t{static_cast<std::int32_t>(load_u32(p))};
        });
      case source_dtype::i16:
        return state_->read(from, out, [](const std::byte* p) {
          return std::int64_t{static_cast<std::int16_t>(load_u16(p))};
        });
      case source_dtype::i8:
        return state_->read(from, out,
                            [](const std::byte* p) { return std::int64_t{static_cast<std::int8_t>(*p)}; });
      case source_dtype::u8:
      case source_dtype::boolean:
        return state_->read(from, out, [](const std::byte* p) { return std::to_integer<std::int64_t>(*p); });
      default:
        return in_tensor(from.info.name,
                         std::string("should hold integers, but it is ") + to_string(from.info.type));
    }
  });
}

outcome<std::string> checkpoint::sha256() const {
  return guarded([&]() -> outcome<std::string> {
    std::vector<std::byte> buffer(std::size_t{256} << 10);
    std::vector<std::string> digests;
    for (const state::source& source : state_->sources) {
      convert::sha256 digest;
      for (std::uint64_t at = 0; at < source.bytes.size();) {
        const auto piece = std::span(buffer).first(
            static_cast<std::size_t>(std::min<std::uint64_t>(buffer.size(), source.bytes.size() - at)));
        if (auto got = source.bytes.read(at, piece); !got) return got.failure();
        digest.add(piece);
        at += piece.size();
      }
      digests.push_back(digest.finish());
    }
    if (digests.size() == 1) return digests[0];
    convert::sha256 all;
    for (const std::string& digest : digests) all.add(std::as_bytes(std::span(digest)));
    return all.finish();
  });
}

outcome<void> check_finite(std::string_view name, std::span<const float> values) {
  // An exponent of all ones; integer arithmetic, so that -ffast-math cannot remove the test.
  const auto bad = std::find_if(values.begin(), values.end(), [](float v) {
    return (std::bit_cast<std::uint32_t>(v) & 0x7f800000u) == 0x7f800000u;
  });
  if (bad == values.end()) return {};
  const bool nan = (std::bit_cast<std::uint32_t>(*bad) & 0x007fffffu) != 0;
  return in_tensor(name, std::string(nan ? "NaN" : "an infinite value") + " at element " +
                             std::to_string(bad - values.begin()));
}

}  // namespace ocellus::convert
