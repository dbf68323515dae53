// The packed format: what the writer writes, the reader reads; what is damaged, it refuses.
#include "pack.hpp"
#include "packed_writer.hpp"
#include "test_files.hpp"

#include <ocellus/format/mmap.hpp>
#include <ocellus/format/reader.hpp>
#include <ocellus/models/config.hpp>
#include <ocellus/models/model.hpp>
#include <ocellus/models/presets.hpp>
#include <ocellus/models/weights.hpp>

#include <doctest/doctest.h>

#include <sys/stat.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <memory>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
namespace fs = std::filesystem;
using convert::packed_writer;

/// Bytes at a multiple of 64, as a mapping has them.
class aligned_bytes {
 public:
  explicit aligned_bytes(std::span<const std::byte> bytes)
      : size_(bytes.size()), memory_(new (std::align_val_t{64}) std::byte[size_ + 64]) {
    std::memcpy(memory_, bytes.data(), size_);
  }
  aligned_bytes(const aligned_bytes&) = delete;
  aligned_bytes& operator=(const aligned_bytes&) = delete;
  ~aligned_bytes() { ::operator delete[](memory_, std::align_val_t{64}); }
  std::byte* data() { return memory_; }
  const std::byte* data() const { return memory_; }
  std::span<const std::byte> all() const { return {memory_, size_}; }
  std::span<const std::byte> first(std::size_t n) const { return {memory_, n}; }
  std::size_t size() const { return size_; }

 private:
  std::size_t size_;
  std::byte* memory_;
};

fs::path scratch(const char* name) {
  static const test_files::scratch_folder folder;
  return folder.path / name;
}

std::vector<std::byte> read_all(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  const std::vector<char> chars((std::istreambuf_iterator<char>(in)), {});
  const auto bytes = std::as_bytes(std::span(chars));
  return {bytes.begin(), bytes.end()};
}

std::vector<float> noise(std::size_t n, unsigned seed) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal;
  std::vector<float> x(n);
  for (float& v : x) v = normal(random);
  return x;
}

/// A file with one tensor of each kind, an odd shape each, and a few sections.
std::vector<std::byte> small_file() {
  const fs::path path = scratch("small.oc");
  packed_writer out;
  REQUIRE(out.open(path));
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8}) {
    REQUIRE(out.add_matrix(std::string("m.") + to_string(type), type, 19, 37, noise(19 * 37, 1).data()));
    REQUIRE(out.add_table(std::string("t.") + to_string(type), type, 70, 5, noise(70 * 5, 2).data()));
  }
  const std::uint32_t shape[] = {2, 3};
  REQUIRE(out.add_f32("a.first", shape, noise(6, 3)));
  const std::string text = "{\"who\": \"a test\"}";
  out.add_section(format::section::provenance, std::as_bytes(std::span(text)));
  const model_config config;
  out.add_section(format::section::config, std::as_bytes(std::span(&config, 1)), true);
  REQUIRE(out.finish(77));
  const std::vector<std::byte> bytes = read_all(path);
  fs::remove(path);
  return bytes;
}

/// Recomputes the checksums of the configuration, the tensor table, the section table and the header, as a forger would.
void seal(aligned_bytes& bytes) {
  format::file_header h;
  std::memcpy(&h, bytes.data(), sizeof(h));
  for (std::uint32_t i = 0; i < h.section_count; i++) {
    std::byte* const at = bytes.data() + h.sections_offset + i * sizeof(format::section_header);
    format::section_header s;
    std::memcpy(&s, at, sizeof(s));
    if (s.kind != static_cast<std::uint32_t>(format::section::config) &&
        s.kind != static_cast<std::uint32_t>(format::section::tensor_table))
      continue;
    if (s.offset > bytes.size() || s.bytes > bytes.size() - s.offset) continue;
    format::checksum content;
    content.add(reinterpret_cast<const unsigned char*>(bytes.data()) + s.offset, s.bytes);
    s.checksum = content.state;
    std::memcpy(at, &s, sizeof(s));
  }
  h.checksum = 0;
  format::checksum sum;
  sum.add(reinterpret_cast<const unsigned char*>(&h), sizeof(h));
  sum.add(reinterpret_cast<const unsigned char*>(bytes.data()) + h.sections_offset,
          h.section_count * sizeof(format::section_header));
  h.checksum = sum.state;
  std::memcpy(bytes.data(), &h, sizeof(h));
}

TEST_CASE("a pipe is refused, not waited for") {
  const fs::path pipe = scratch("pipe");
  REQUIRE(::mkfifo(pipe.c_str(), 0600) == 0);
  CHECK(mapped_file::open(pipe.c_str()).error() == status::not_a_regular_file);
}

TEST_CASE("a packed file gives back what was written") {
  const aligned_bytes bytes(small_file());
  const result<packed_file> file = packed_file::open(bytes.all());
  REQUIRE(file);
  CHECK(file->embedding_space() == 77);
  CHECK(file->tensor_count() == 9);
  CHECK(file->verify() == status::ok);
  const auto provenance = file->section(format::section::provenance);
  CHECK(std::string(reinterpret_cast<const char*>(provenance.data()), provenance.size()) ==
        "{\"who\": \"a test\"}");
  CHECK(file->section(format::section::tokenizer).empty());
  CHECK(file->tensor("nothing").error() == status::missing_tensor);

  const std::vector<float> w = noise(19 * 37, 1);
  for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8}) {
    const result<tensor_view> t = file->tensor(std::string("m.") + to_string(type));
    REQUIRE(t);
    CHECK(t->layout == format::layout::panel16);
    CHECK(t->shape[0] == 19);
    CHECK(t->shape[1] == 37);
    CHECK(reinterpret_cast<std::uintptr_t>(t->data) % 64 == 0);
    std::size_t wrong = 0;
    for (int n = 0; n < 32; n++) {
      std::int32_t sum = 0;
      for (int k = 0; k < padded_depth(type, 37); k++) {
        const float expected = n < 19 && k < 37 ? w[static_cast<std::size_t>(n * 37 + k)] : 0.f;
        const std::size_t i = packed_index(type, n, k, 37);
        switch (type) {
          case dtype::f32: wrong += static_cast<const float*>(t->data)[i] != expected; break;
          case dtype::f16: wrong += static_cast<const f16*>(t->data)[i].bits != to_f16(expected).bits; break;
          case dtype::bf16:
            wrong += static_cast<const bf16*>(t->data)[i].bits != to_bf16(expected).bits;
            break;
          default: {
            const int q = static_cast<const std::int8_t*>(t->data)[i];
            const float scale = n < 19 ? t->scales[n] : 0.f;
            wrong += !(std::fabs(static_cast<float>(q) * scale - expected) <= scale * 0.5001f) || q < -127;
            sum += q;
          }
        }
      }
      if (type == dtype::s8 && n < 19) CHECK(sum == t->sums[n]);
    }
    CHECK_MESSAGE(wrong == 0, to_string(type));
  }
  const std::vector<float> rows = noise(70 * 5, 2);
  const result<tensor_view> table = file->tensor("t.s8");
  REQUIRE(table);
  CHECK(table->layout == format::layout::rows);
  for (std::size_t i = 0; i < rows.size(); i++) {
    const float scale = table->scales[i / 5];
    CHECK(std::fabs(static_cast<float>(static_cast<const std::int8_t*>(table->data)[i]) * scale - rows[i]) <=
          scale * 0.5001f);
  }
}

TEST_CASE("packing panel by panel lays elements as pack_panels does") {
  for (const auto& [n, k] : {std::pair(1, 1), std::pair(16, 256), std::pair(33, 300), std::pair(40, 517)}) {
    const std::vector<float> w = noise(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), 9);
    const fs::path path = scratch("panels.oc");
    packed_writer out;
    REQUIRE(out.open(path));
    REQUIRE(out.add_matrix("w", dtype::bf16, n, k, w.data()));
    REQUIRE(out.finish(1));
    const aligned_bytes bytes(read_all(path));
    fs::remove(path);
    const auto file = packed_file::open(bytes.all());
    REQUIRE(file);
    std::vector<bf16> expected(packed_elements(dtype::bf16, n, k));
    pack_panels<dtype::bf16>(expected.data(), w.data(), k, n, k, [](float x) { return to_bf16(x); });
    CHECK(std::memcmp(file->tensor("w")->data, expected.data(), expected.size() * sizeof(bf16)) == 0);
  }
}

TEST_CASE("a packed file that is cut anywhere is refused") {
  const aligned_bytes bytes(small_file());
  for (std::size_t n = 0; n < bytes.size(); n++) {
    const aligned_bytes cut(bytes.first(n));
    const auto file = packed_file::open(cut.all());
    if (file) FAIL_CHECK("opened with ", n, " of ", bytes.size(), " bytes");
  }
}

TEST_CASE("a flipped bit in a header, a table or a tensor is noticed") {
  const aligned_bytes good(small_file());
  const auto original = packed_file::open(good.all());
  REQUIRE(original);
  int unnoticed = 0;
  for (std::size_t i = 0; i < good.size(); i++) {
    aligned_bytes bad(good.all());
    bad.data()[i] ^= static_cast<std::byte>(1u << (i % 8));
    const auto file = packed_file::open(bad.all());
    if (!file || file->verify() != status::ok) continue;
    // Only the zeros between sections and tensors are covered by no checksum.
    if (good.data()[i] != std::byte{0}) unnoticed++;
  }
  CHECK(unnoticed == 0);
}

TEST_CASE("a forged header with a right checksum is checked field by field") {
  const aligned_bytes good(small_file());
  const auto forge = [&](auto change) {
    aligned_bytes bad(good.all());
    auto* h = reinterpret_cast<format::file_header*>(bad.data());
    auto* sections = reinterpret_cast<format::section_header*>(bad.data() + h->sections_offset);
    change(*h, sections);
    seal(bad);
    return packed_file::open(bad.all()).error();
  };
  using header = format::file_header;
  using sections = format::section_header*;
  CHECK(forge([](header& h, sections) { h.major = 3; }) == status::unsupported_version);
  CHECK(forge([](header& h, sections) { h.minor = 9; }) == status::ok);
  CHECK(forge([](header& h, sections) { h.major = 1; }) == status::unsupported_version);
  CHECK(forge([](header& h, sections) { h.required |= 1ull << 40; }) == status::unknown_required_feature);
  CHECK(forge([](header& h, sections) { h.optional |= 1ull << 40; }) == status::ok);
  CHECK(forge([](header&, sections s) { s[1].kind = 99, s[1].flags = 0; }) == status::ok);
  CHECK(forge([](header&, sections s) { s[1].kind = 99, s[1].flags = 1; }) ==
        status::unknown_required_feature);
  CHECK(forge([](header&, sections s) { s[1].kind = s[0].kind; }) == status::bad_header);
  CHECK(forge([](header&, sections s) { s[0].offset += 8; }) == status::bad_alignment);
  CHECK(forge([](header&, sections s) { s[0].offset = ~std::uint64_t{63}; }) == status::bad_offset);
  CHECK(forge([](header&, sections s) { s[1].bytes = ~std::uint64_t{0}; }) == status::bad_offset);
  CHECK(forge([](header& h, sections) { h.file_bytes -= 64; }) == status::bad_header);
  CHECK(forge([](header& h, sections) { h.section_count = 257, h.sections_offset = 0; }) == status::bad_header);
  CHECK(forge([](header& h, sections) { h.sections_offset -= 4; }) == status::bad_offset);
  CHECK(forge([](header& h, sections s) {
          for (std::uint32_t i = 0; i < h.section_count; i++)
            if (s[i].kind == static_cast<std::uint32_t>(format::section::tensor_table)) s[i].bytes -= 8;
        }) == status::bad_header);
}

TEST_CASE("a flipped bit in the configuration or the tensor table is refused on opening") {
  const aligned_bytes good(small_file());
  const result<packed_file> file = packed_file::open(good.all());
  REQUIRE(file);
  for (const auto kind : {format::section::config, format::section::tensor_table}) {
    const std::span<const std::byte> part = file->section(kind);
    REQUIRE(!part.empty());
    int accepted = 0;
    for (std::size_t i = 0; i < part.size(); i++) {
      aligned_bytes bad(good.all());
      bad.data()[static_cast<std::size_t>(part.data() - good.all().data()) + i] ^= std::byte{1} << i % 8;
      accepted += packed_file::open(bad.all()).error() != status::bad_checksum;
    }
    CHECK(accepted == 0);
  }
}

TEST_CASE("a forged tensor table is refused") {
  const aligned_bytes good(small_file());
  const auto forge = [&](auto change) {
    aligned_bytes bad(good.all());
    const auto table = packed_file::open(bad.all())->section(format::section::tensor_table);
    auto* tensors = reinterpret_cast<format::tensor_header*>(bad.data() + (table.data() - bad.all().data()));
    change(tensors);
    seal(bad);
    return packed_file::open(bad.all()).error();
  };
  using table = format::tensor_header*;
  CHECK(forge([](table) {}) == status::ok);
  CHECK(forge([](table t) { t[0].name[0] = 'z'; }) == status::bad_name);
  CHECK(forge([](table t) { std::memset(t[0].name, 'a', sizeof(t[0].name)); }) == status::bad_name);
  CHECK(forge([](table t) { t[1] = t[0]; }) == status::bad_name);
  CHECK(forge([](table t) { t[0].type = 77; }) == status::unsupported_dtype);
  CHECK(forge([](table t) { t[0].layout = 7; }) == status::unsupported_layout);
  CHECK(forge([](table t) { t[0].rank = 0; }) == status::wrong_shape);
  CHECK(forge([](table t) { t[0].dims[0] = 0xffffffffu; }) == status::wrong_shape);
  CHECK(forge([](table t) { t[0].dims[1]++; }) == status::wrong_shape);
  CHECK(forge([](table t) { t[0].offset += 4; }) == status::bad_alignment);
  CHECK(forge([](table t) { t[0].offset = std::uint64_t{1} << 60; }) == status::bad_offset);
  CHECK(forge([](table t) { t[0].name[0] = 0; }) == status::bad_name);
  CHECK(forge([](table t) { t[0].dims[3] = 1; }) == status::wrong_shape);
  CHECK(forge([](table t) {  // as many bytes as 64 bits say
          t[0].rank = 4, t[0].bytes = 0;
          for (std::uint32_t& d : t[0].dims) d = packed_file::max_dim;
        }) == status::wrong_shape);
  constexpr int matrix = 4, rows = 8;  // those in s8, by name
  CHECK(forge([](table t) { t[matrix].rank = 1, t[matrix].dims[1] = 0, t[matrix].bytes = 0; }) == status::wrong_shape);
  CHECK(forge([](table t) { t[matrix].sums += 2; }) == status::bad_alignment);
  CHECK(forge([](table t) { t[matrix].scales += 2; }) == status::bad_alignment);
  CHECK(forge([&](table t) { t[matrix].sums = good.size() / 4 * 4; }) == status::bad_offset);
  CHECK(forge([&](table t) { t[matrix].scales = good.size() / 4 * 4; }) == status::bad_offset);
  CHECK(forge([](table t) { t[matrix].sums = 0; }) == status::bad_header);
  CHECK(forge([](table t) { t[matrix].scales = 0; }) == status::bad_header);
  CHECK(forge([](table t) { t[rows].scales = 0; }) == status::bad_header);
}

TEST_CASE("a configuration is valid only if its fields make sense together") {
  constexpr model_config good =
      clip_model(vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64),
                 text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2));
  const auto valid_with = [&](auto change) {
    model_config m = good;
    change(m);
    return valid(m);
  };
  using model = model_config;
  CHECK(valid(good));
  CHECK(valid_with([](model& m) { m.vision.kind = vision_kind::none; }));
  CHECK(valid_with([](model& m) { m.text.present = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.kind = vision_kind::none, m.text.present = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.layers = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.text.encoder.layers = 257; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.heads = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.eps = 1; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.act = static_cast<activation>(6); }));
  CHECK(valid_with([](model& m) { m.vision.encoder.rope = 1; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.rope = 1, m.vision.encoder.head_width = 33; }));
  CHECK_FALSE(valid_with([](model& m) { m.text.encoder.rope = 1; }));
  CHECK(valid_with([](model& m) { m.vision.encoder.post_norm = 1; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.encoder.post_norm = 1, m.vision.encoder.head_width = 21; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.class_token = 0; }));
  const auto map = [](model& m) { m.vision.pool = pooling::map, m.vision.map_heads = 2, m.vision.map_mlp = 128; };
  CHECK(valid_with(map));
  CHECK_FALSE(valid_with([&](model& m) { map(m), m.vision.map_heads = 3; }));
  CHECK_FALSE(valid_with([&](model& m) { map(m), m.vision.final_norm = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.grid_h = 4; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.conv_stem = 1, m.vision.stem_width = 16; }));  // patches of 8
  const auto naflex = [](model& m) {
    m.vision.naflex = 1, m.preprocess.resize = resize_mode::naflex, m.preprocess.patch = m.vision.patch;
  };
  CHECK(valid_with(naflex));
  CHECK_FALSE(valid_with([&](model& m) { naflex(m), m.preprocess.resize = resize_mode::squash; }));
  CHECK_FALSE(valid_with([&](model& m) { naflex(m), m.preprocess.patch = 16; }));
  CHECK_FALSE(valid_with([](model& m) { m.vision.embed = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.text.vocab = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.text.context = 8193; }));
  CHECK_FALSE(valid_with([](model& m) { m.score = static_cast<score_kind>(3); }));
  CHECK_FALSE(valid_with([](model& m) { m.preprocess.size_h = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.preprocess.std[1] = 0; }));
  CHECK_FALSE(valid_with([](model& m) { m.preprocess.std[1] = 1e6f; }));
  CHECK_FALSE(valid_with([](model& m) { m.preprocess.mean[2] = std::numeric_limits<float>::quiet_NaN(); }));
}

TEST_CASE("matrices in s8 are at most as deep as s32 sums allow") {
  constexpr int most = 32768;  // ops/gemm.hpp
  const fs::path path = scratch("deep.oc");
  packed_writer out;
  REQUIRE(out.open(path));
  const std::vector<float> zeros(most + 4);
  for (const dtype type : {dtype::s8, dtype::f16})
    for (const int k : {most, most + 4})
      REQUIRE(out.add_matrix(std::string(to_string(type)) + std::to_string(k) + ".weight", type, 1, k, zeros.data()));
  REQUIRE(out.finish(1));
  const aligned_bytes bytes(read_all(path));
  fs::remove(path);
  const auto file = packed_file::open(bytes.all());
  REQUIRE(file);
  const auto error = [&](dtype type, int k) {
    detail::weight_binder binder(*file);
    binder.linear(std::string(to_string(type)) + std::to_string(k), 1, k);
    return binder.error;
  };
  CHECK(error(dtype::s8, most) == status::ok);
  CHECK(error(dtype::s8, most + 4) == status::wrong_shape);
  CHECK(error(dtype::f16, most + 4) == status::ok);
  CHECK(error(dtype::f16, most + 8) == status::missing_tensor);
}

TEST_CASE("ResNets: convolutions transformed for Winograd's products need floats and a bias, pictures whole cells of 32") {
  enum class flaw { none, in_s8, no_bias, side };
  const auto opened = [](flaw wrong, dtype type) {
    model_config m;
    vision_config& v = m.vision;
    v.kind = vision_kind::resnet;
    v.pool = pooling::attention;
    v.final_norm = 0;
    v.resnet_width = 32;
    v.image_h = v.image_w = wrong == flaw::side ? 63 : 64;
    std::fill_n(v.resnet_layers, 4, 1);
    v.encoder.heads = 16;
    v.encoder.width = 1024;
    v.embed = 64;
    m.preprocess.size_h = m.preprocess.size_w = m.preprocess.crop_h = m.preprocess.crop_w = v.image_h;
    const fs::path path = scratch("resnet.oc");
    packed_writer out;
    REQUIRE(out.open(path));
    const auto matrix = [&](const std::string& name, int n, int k, int forms = 1) {
      const std::vector<float> w = noise(static_cast<std::size_t>(n) * static_cast<std::size_t>(k), 5);
      REQUIRE(out.add_matrix(name + ".weight", forms > 1 && wrong == flaw::in_s8 ? dtype::s8 : type, n, k, w.data()));
      const std::uint32_t shape[] = {static_cast<std::uint32_t>(n / forms)};
      if (forms == 1 || wrong != flaw::no_bias) REQUIRE(out.add_f32(name + ".bias", shape, noise(shape[0], 6)));
    };
    matrix("vision.stem.0", 16, 27);
    matrix("vision.stem.1", 16 * 16, 16, 16);
    matrix("vision.stem.2", 16 * 32, 16, 16);
    int in = 32;
    for (int stage = 0, planes = 32; stage < 4; stage++, planes *= 2) {
      const std::string at = "vision.stages." + std::to_string(stage) + ".0.";
      matrix(at + "conv1", planes, in);
      matrix(at + "conv2", 16 * planes, planes, 16);
      matrix(at + "conv3", 4 * planes, planes);
      matrix(at + "down", 4 * planes, in);
      in = 4 * planes;
    }
    const std::uint32_t positions[] = {static_cast<std::uint32_t>(v.image_h / 32 * (v.image_w / 32) + 1), 1024};
    REQUIRE(out.add_f32("vision.attnpool.positions", positions, noise(std::size_t{positions[0]} * 1024, 7)));
    matrix("vision.attnpool.q", in, in);
    matrix("vision.attnpool.kv", 2 * in, in);
    matrix("vision.attnpool.proj", 64, in);
    out.add_section(format::section::config, std::as_bytes(std::span(&m, 1)), true);
    REQUIRE(out.finish(1));
    const result<model> made = model::open(path.string().c_str());
    fs::remove(path);
    return made ? status::ok : made.error();
  };
  CHECK(opened(flaw::none, dtype::f32) == status::ok);
  CHECK(opened(flaw::none, dtype::bf16) == status::ok);
  CHECK(opened(flaw::in_s8, dtype::f32) == status::unsupported_dtype);
  CHECK(opened(flaw::no_bias, dtype::f16) == status::missing_tensor);
  CHECK(opened(flaw::side, dtype::f32) == status::bad_config);
}

TEST_CASE("a writer that is dropped or cannot write leaves nothing behind") {
  const fs::path folder = scratch("dropped");
  fs::remove_all(folder);
  fs::create_directories(folder);
  {
    packed_writer out;
    REQUIRE(out.open(folder / "x.oc"));
    REQUIRE(out.add_f32("a", std::vector<std::uint32_t>{3}, noise(3, 1)));
  }
  CHECK(fs::is_empty(folder));
  {
    packed_writer out;
    CHECK_FALSE(out.open(folder / "no" / "x.oc"));
  }
  CHECK(fs::is_empty(folder));
  {
    packed_writer out;
    REQUIRE(out.open(folder / "x.oc"));
    CHECK_FALSE(out.add_matrix("w", dtype::f16, 1, 2, std::vector<float>{1.f, 1e6f}.data()));
    CHECK_FALSE(out.add_matrix(std::string(56, 'n'), dtype::f32, 1, 1, noise(1, 1).data()));
  }
  CHECK(fs::is_empty(folder));
  fs::remove_all(folder);
}

}  // namespace
