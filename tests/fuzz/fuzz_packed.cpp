// Packed files from strangers: a small sound file with bytes changed, the checksums made to fit. Whatever
// opens must have all its sections and tensors within the file; a model that opens answers, or says why not.
//
// Input: a first byte that says whether the rest is a whole file (even) or a list of changes to the sound one
// (odd), each of four bytes: offset (24 bits, modulo the file's size), value.
#include "packed_writer.hpp"

#include <ocellus/format/reader.hpp>
#include <ocellus/models/model.hpp>

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <span>
#include <string>
#include <vector>

#include <unistd.h>

namespace {

using namespace ocellus;

/// A CLIP of one block per tower, 16 wide, on pictures of 8 x 8.
std::vector<char> sound_file() {
  model_config m;
  m.vision.kind = vision_kind::vit;
  m.vision.class_token = m.vision.pre_norm = 1;
  m.vision.image_h = m.vision.image_w = 8;
  m.vision.patch = 4;
  m.vision.grid_h = m.vision.grid_w = 2;
  m.vision.embed = m.text.embed = 8;
  m.text.present = 1;
  m.text.vocab = 20;
  m.text.context = 6;
  for (encoder_config* e : {&m.vision.encoder, &m.text.encoder}) {
    e->width = 16, e->layers = 1, e->heads = 2, e->head_width = 8, e->mlp = 24;
    e->act = activation::quick_gelu;
  }
  m.text.encoder.causal = 1;
  m.preprocess.size_h = m.preprocess.size_w = m.preprocess.crop_h = m.preprocess.crop_w = 8;

  const std::filesystem::path path =
      std::filesystem::temp_directory_path() / ("fuzz_packed." + std::to_string(::getpid()) + ".oc");
  convert::packed_writer out;
  bool ok = static_cast<bool>(out.open(path));
  const std::vector<float> x(4096, 0.5f);
  const auto matrix = [&](const std::string& name, int n, int k) {
    ok = ok && out.add_matrix(name + ".weight", ocellus::dtype::f32, n, k, x.data());
  };
  const auto rows = [&](const std::string& name, std::vector<std::uint32_t> shape) {
    ok = ok && out.add_f32(name, shape, x);
  };
  const auto norm = [&](const std::string& name) {
    rows(name + ".weight", {16});
    rows(name + ".bias", {16});
  };
  const auto linear = [&](const std::string& name, int n, int k) {
    matrix(name, n, k);
    rows(name + ".bias", {static_cast<std::uint32_t>(n)});
  };
  for (const std::string tower : {"vision.", "text."}) {
    const std::string block = tower + "blocks.0.";
    norm(block + "norm1");
    norm(block + "norm2");
    linear(block + "attn.qkv", 48, 16);
    linear(block + "attn.proj", 16, 16);
    linear(block + "mlp.fc1", 24, 16);
    linear(block + "mlp.fc2", 16, 24);
    norm(tower + "norm");
    matrix(tower + "proj", 8, 16);
  }
  norm("vision.pre_norm");
  matrix("vision.blocks.0.attn.keys_t", 32, 8);
  matrix("vision.patch_embed", 16, 48);
  rows("vision.class_token", {16});
  rows("vision.positions", {5, 16});
  rows("text.tokens", {20, 16});
  rows("text.positions", {6, 16});
  out.add_section(format::section::config, std::as_bytes(std::span(&m, 1)), true);
  ok = ok && out.finish(1);
  if (!ok) __builtin_trap();
  std::ifstream in(path, std::ios::binary);
  std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
  std::filesystem::remove(path);
  return bytes;
}

/// What opening checks: the sums of the configuration and the tensor table, and the header's, which covers the section
/// table.
void seal(unsigned char* bytes, std::size_t size) {
  format::file_header h;
  std::memcpy(&h, bytes, sizeof(h));
  const std::uint64_t table = std::uint64_t{h.section_count} * sizeof(format::section_header);
  if (h.sections_offset > size || table > size - h.sections_offset) return;
  for (std::uint32_t i = 0; i < h.section_count; i++) {
    unsigned char* const at = bytes + h.sections_offset + i * sizeof(format::section_header);
    format::section_header s;
    std::memcpy(&s, at, sizeof(s));
    if (s.offset > size || s.bytes > size - s.offset) continue;
    format::checksum content;
    content.add(bytes + s.offset, s.bytes);
    s.checksum = content.state;
    std::memcpy(at, &s, sizeof(s));
  }
  h.checksum = 0;
  format::checksum sum;
  sum.add(reinterpret_cast<const unsigned char*>(&h), sizeof(h));
  sum.add(bytes + h.sections_offset, table);
  h.checksum = sum.state;
  std::memcpy(bytes, &h, sizeof(h));
}

/// A picture and a text through whatever towers there are.
status encode(const model& m) {
  static const std::vector<std::uint8_t> pixels(11 * 9 * 3, 100);
  if (m.has_vision())
    if (const auto e = m.encode_image({pixels.data(), 11, 9}); !e) return e.error();
  if (!m.has_text()) return status::ok;
  const text_config& t = m.config().text;
  std::vector<std::int32_t> ids(static_cast<std::size_t>(t.context), 1);
  ids[ids.size() / 2] = t.vocab - 1;
  std::vector<float> out(static_cast<std::size_t>(t.embed));
  workspace work;
  return m.encode_ids(ids.data(), 1, t.context, out.data(), work);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  static const std::vector<char> sound = sound_file();
  if (size == 0) return 0;
  const bool whole = data[0] % 2 == 0;
  const std::size_t bytes = whole ? size - 1 : sound.size();
  auto* const file = static_cast<unsigned char*>(::operator new (bytes + 64, std::align_val_t{64}));
  if (whole) {
    std::memcpy(file, data + 1, bytes);
  } else {
    std::memcpy(file, sound.data(), bytes);
    for (std::size_t i = 1; i + 4 <= size; i += 4) {
      const std::size_t at =
          data[i] | static_cast<std::size_t>(data[i + 1]) << 8 | static_cast<std::size_t>(data[i + 2]) << 16;
      file[at % bytes] = data[i + 3];
    }
  }
  if (bytes >= sizeof(format::file_header)) seal(file, bytes);
  const std::span<const std::byte> view(reinterpret_cast<const std::byte*>(file), bytes);
  if (const auto opened = packed_file::open(view); opened) {
    unsigned touched = 0;
    for (int i = 0; i < opened->tensor_count(); i++) {
      const tensor_view t = opened->tensor(i);
      const auto* first = static_cast<const unsigned char*>(t.data);
      if (t.bytes != 0) touched += first[0] + first[t.bytes - 1];
      if (t.scales != nullptr) touched += t.scales[t.shape[0] - 1] > 0;
      if (t.sums != nullptr) touched += t.sums[t.shape[0] - 1] > 0;
      const auto found = opened->tensor(t.name);
      if (!found || found->data != t.data) __builtin_trap();
    }
    for (std::uint32_t kind = 1; kind <= 7; kind++)
      if (const auto s = opened->section(static_cast<format::section>(kind)); !s.empty())
        touched += std::to_integer<unsigned>(s[0]) + std::to_integer<unsigned>(s[s.size() - 1]);
    asm volatile("" : : "r"(touched));  // the reads must happen
    (void)opened->verify();
  }
  static const kernel_table kernels = *kernels_for("scalar");  // where sanitizers see the most
  const auto m = model::open(view, kernels);
  const status answered = m ? encode(*m) : m.error();
  if (!whole && size < 5 && answered != status::ok) __builtin_trap();  // the sound file opens
  ::operator delete (file, std::align_val_t{64});
  return 0;
}
