// Compile-time models: the same bits as the model opened at run time, for each kernel set that this CPU has; no
// allocation in a call; what bind refuses.
#include "device.hpp"
#include "golden_data.hpp"
#include "kernel_testing.hpp"
#include "packed_writer.hpp"

#include <ocellus/isa/dispatch.hpp>
#include <ocellus/micro.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <atomic>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <string>
#include <vector>

// Counts the process's allocations, where the C library lets us stand in for malloc.
#if defined(__GLIBC__) && !defined(OCELLUS_TEST_SANITIZER)
#define OCELLUS_TEST_COUNTS_ALLOCATIONS
namespace {
std::atomic<int> allocations{0};
}
extern "C" {
void* __libc_malloc(std::size_t);
void* __libc_memalign(std::size_t, std::size_t);
void* malloc(std::size_t bytes) {
  allocations++;
  return __libc_malloc(bytes);
}
void* aligned_alloc(std::size_t alignment, std::size_t bytes) {
  allocations++;
  return __libc_memalign(alignment, bytes);
}
}
#endif

bool fast_math_embed(const std::byte* file, std::size_t bytes, bool s8, const std::uint8_t* rgb, const std::int32_t* ids,
                     std::size_t count, float* image, float* text);
void fast_math_positions(const float* table, int c, int filter, float* out, float* line);

namespace {

using namespace ocellus;
namespace fs = std::filesystem;

constexpr model_config demo =
    clip_model(vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64),
               text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2));

/// The project's own demo checkpoint, converted; kept in memory as firmware has it.
struct packed {
  std::vector<std::byte> storage;
  std::span<const std::byte> bytes;
  explicit packed(dtype type) {
    const golden_data::converted_file file(golden_data::demo_checkpoint(), type);
    REQUIRE(file.error == "");
    const std::size_t size = fs::file_size(file.path);
    storage.resize(size + 128);
    const std::size_t shift = 64 - reinterpret_cast<std::uintptr_t>(storage.data()) % 64;
    std::ifstream(file.path, std::ios::binary)
        .read(reinterpret_cast<char*>(storage.data() + shift), static_cast<std::streamsize>(size));
    bytes = {storage.data() + shift, size};
  }
};

const packed& file_of(dtype type) {
  static const packed f32(dtype::f32), s8(dtype::s8);
  return type == dtype::s8 ? s8 : f32;
}

/// Pictures of 64 x 64: noise, ramps, one colour.
std::vector<std::uint8_t> pictures(int count) {
  std::vector<std::uint8_t> rgb;
  std::uint32_t state = 1;
  for (int i = 0; i < count; i++)
    for (int p = 0; p < 64 * 64 * 3; p++) {
      state = state * 1664525u + 1013904223u;
      const std::uint32_t value = i % 3 == 0 ? state >> 24 : i % 3 == 1 ? static_cast<std::uint32_t>(p / 48) : 77u;
      rgb.push_back(static_cast<std::uint8_t>(value));
    }
  return rgb;
}

template <class Set, dtype Type>
void check_towers() {
  const packed& file = file_of(Type);
  const result<model> opened = model::open(file.bytes, make_table<Set>());
  REQUIRE(opened);
  REQUIRE(opened->config().vision == demo.vision);

  constexpr int count = 4, width = demo.vision.embed;
  const std::vector<std::uint8_t> rgb = pictures(count);
  std::vector<float> expected(count * width), got(count * width), pixels(64 * 64 * 3);
  nn::image_batch in;
  in.count = count;
  in.height = in.width = 64;
  in.rgb = rgb.data();
  workspace work;
  REQUIRE(opened->encode_batch(in, expected.data(), work) == status::ok);
  opened->normalize(expected.data(), count, width);

  using eye = vision_tower<demo, pinned<Set>, Type>;
  static eye vision;
  static static_arena<eye::arena_size> memory;
  REQUIRE(vision.bind(file.bytes) == status::ok);
  std::memset(memory.bytes, 0xff, sizeof(memory.bytes));  // NaNs: nothing may be read before it is written
#if defined(OCELLUS_TEST_COUNTS_ALLOCATIONS)
  const int before = allocations;
#endif
  for (int i = 0; i < count; i++) vision(rgb.data() + i * 64 * 64 * 3, got.data() + i * width, memory);
#if defined(OCELLUS_TEST_COUNTS_ALLOCATIONS)
  CHECK(allocations == before);
#endif
  CHECK(std::memcmp(got.data(), expected.data(), got.size() * sizeof(float)) == 0);
  std::fill(got.begin(), got.end(), 0.f);
  {
    const kernel_testing::odd_fp_env odd;
    vision(rgb.data(), got.data(), memory);
  }
  CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0);

  for (std::size_t i = 0; i < pixels.size(); i++) pixels[i] = static_cast<float>(rgb[i]) / 64.f - 2.f;
  nn::image_batch one;
  one.count = 1;
  one.height = one.width = 64;
  one.pixels = pixels.data();
  REQUIRE(opened->encode_batch(one, expected.data(), work) == status::ok);
  vision.features(pixels.data(), got.data(), memory);
  CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0);

  // a text, padded, and the same without its padding
  using reader = text_tower<demo, pinned<Set>, Type>;
  static reader text;
  static static_arena<reader::arena_size> text_memory;
  REQUIRE(text.bind(file.bytes) == status::ok);
  std::int32_t ids[32] = {770, 5, 100, 769, 33, 771};
  REQUIRE(opened->encode_ids(ids, 1, 32, expected.data(), work) == status::ok);
  opened->normalize(expected.data(), 1, width);
  std::memset(text_memory.bytes, 0xff, sizeof(text_memory.bytes));
  for (const std::size_t n : {std::size_t{32}, std::size_t{6}}) {
    CHECK(text({ids, n}, got.data(), text_memory) == status::ok);
    CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0);
  }
  std::fill(got.begin(), got.end(), 0.f);
  {
    const kernel_testing::odd_fp_env odd;
    CHECK(text({ids, 6}, got.data(), text_memory) == status::ok);
  }
  CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0);
  std::fill(got.begin(), got.end(), 0.f);
  static_assert(reader::arena_size < eye::arena_size);  // one arena for two towers
  CHECK(text({ids, 6}, got.data(), memory) == status::ok);
  CHECK(std::memcmp(got.data(), expected.data(), width * sizeof(float)) == 0);
  ids[2] = 772;
  CHECK(text(ids, got.data(), text_memory) == status::token_out_of_range);
  CHECK(text({}, got.data(), text_memory) == status::wrong_shape);
}

TEST_CASE("A compile-time model gives the bits of the model opened at run time, in every kernel set") {
  std::string ran;
#if defined(OCELLUS_TEST_SANITIZER)
  // What a sanitizer can find here are the towers' views of arena and weights, the same for all sets.
  check_towers<kernels::scalar, dtype::s8>();
  check_towers<kernels::scalar, dtype::f32>();
  ran = "scalar (the others without sanitizers)";
#else
  [[maybe_unused]] const cpu_features cpu = detect_cpu();
#define OCELLUS_KERNEL_SET(name, available)          \
  if (available) {                                   \
    CAPTURE(#name);                                  \
    check_towers<kernels::name, dtype::s8>();        \
    check_towers<kernels::name, dtype::f32>();       \
    ran += ran.empty() ? #name : ", " #name;         \
  }
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
#endif
  MESSAGE("kernel sets ran: " << ran);
}

#if defined(__x86_64__)
TEST_CASE("-ffast-math of a unit for a CPU with FMA changes no bit of the towers' own arithmetic") {
  if (!detect_cpu().avx2) {
    MESSAGE("skipped: no AVX2 and FMA");
    return;
  }
  const std::vector<std::uint8_t> rgb = pictures(1);
  const std::int32_t ids[] = {770, 5, 100, 769, 33, 771};
  constexpr int width = demo.vision.embed;
  for (const dtype type : {dtype::s8, dtype::f32}) {
    const packed& file = file_of(type);
    const result<model> m = model::open(file.bytes, make_table<kernels::scalar>());
    REQUIRE(m);
    std::vector<float> image(width), text(width), fast_image(width), fast_text(width);
    nn::image_batch in;
    in.count = 1;
    in.height = in.width = 64;
    in.rgb = rgb.data();
    workspace work;
    REQUIRE(m->encode_batch(in, image.data(), work) == status::ok);
    REQUIRE(m->encode_ids(ids, 1, std::size(ids), text.data(), work) == status::ok);
    m->normalize(image.data(), 1, width);
    m->normalize(text.data(), 1, width);
    REQUIRE(fast_math_embed(file.bytes.data(), file.bytes.size(), type == dtype::s8, rgb.data(), ids, std::size(ids),
                            fast_image.data(), fast_text.data()));
    CHECK_MESSAGE(fast_image == image, to_string(type));
    CHECK_MESSAGE(fast_text == text, to_string(type));
  }
  constexpr int c = 64;
  std::vector<float> table(9 * c), line(3 * c), expected(20 * c), got(20 * c);
  for (std::size_t i = 0; i < table.size(); i++) table[i] = static_cast<float>(rgb[i]) / 64.f - 2.f;
  for (int filter = 1; filter <= 3; filter++) {
    nn::resample_positions(expected.data(), c, 5, 4, table.data(), 3, 3, c, static_cast<position_resize>(filter), 0.1,
                           line.data());
    fast_math_positions(table.data(), c, filter, got.data(), line.data());
    CHECK_MESSAGE(got == expected, "positions, filter " << filter);
  }
}
#endif

using s8_tower = vision_tower<demo, pinned<kernels::scalar>, dtype::s8>;

TEST_CASE("Memory and flash of a compile-time model are constants that a microcontroller has") {
  static_assert(s8_tower::arena_size < 320 * 1024 && s8_tower::flash_size < 800 * 1024);
  static_assert(s8_tower::arena_size <= vision_tower<demo, pinned<kernels::scalar>, dtype::f32>::arena_size);
  // flash_size against the file itself: the tower's tensors with their scales and sums
  const result<packed_file> file = packed_file::open(file_of(dtype::s8).bytes);
  REQUIRE(file);
  const auto padded = [](std::uint64_t n) { return (n + 63) / 64 * 64; };
  std::uint64_t bytes = 0;
  for (int i = 0; i < file->tensor_count(); i++) {
    const tensor_view t = file->tensor(i);
    if (!t.name.starts_with("vision.") || t.name.starts_with("vision.patch_embed.")) continue;
    bytes += padded(t.bytes) + (t.scales != nullptr ? padded(4 * static_cast<std::uint64_t>(t.shape[0])) : 0) +
             (t.sums != nullptr ? padded(4 * static_cast<std::uint64_t>(t.shape[0])) : 0);
  }
  CHECK(bytes == s8_tower::flash_size);
}

TEST_CASE("A compile-time model refuses files that hold another model, other types or damage") {
  static s8_tower tower;
  const std::span<const std::byte> s8 = file_of(dtype::s8).bytes;
  CHECK(tower.bind(s8) == status::ok);
  CHECK(tower.bind(file_of(dtype::f32).bytes) == status::unsupported_dtype);
  CHECK(tower.bind({}) == status::empty_file);
  CHECK(tower.bind(s8.first(s8.size() / 2)) == status::truncated);
  CHECK(tower.bind({s8.data(), s8.size() + 64}) == status::ok);  // a partition of flash with the file at its start
  CHECK(verify({s8.data(), s8.size() + 64}) == status::ok);
  std::byte& weight = const_cast<std::byte&>(s8[s8.size() / 2]);
  weight ^= std::byte{4};
  CHECK(tower.bind(s8) == status::ok);
  CHECK(verify(s8) == status::bad_checksum);
  weight ^= std::byte{4};
  alignas(64) static std::byte erased[4096] = {};
  CHECK(verify(erased) == status::bad_magic);
  CHECK(tower.bind(erased) == status::bad_magic);
  CHECK(tower.bind(s8.subspan(4)) == status::bad_alignment);
  static constexpr model_config deeper = vit{}.image(64).patch(8).width(128).layers(4).heads(2).embed(64);
  static vision_tower<deeper, pinned<kernels::scalar>> other;
  CHECK(other.bind(s8) == status::different_config);
}

TEST_CASE("A file for firmware holds the image tower alone, gives the same bits and stays in its embedding space") {
  const test_files::scratch_folder scratch;
  const fs::path folder = scratch.path;
  convert::convert_options o;
  o.source = golden_data::demo_checkpoint();
  o.tokenizer = fs::path(OCELLUS_SOURCE_DIR) / "examples/demo/bpe_demo.txt.gz";
  o.output = folder / "demo.oc";
  o.type = dtype::s8;
  REQUIRE(convert::convert(o));
  const auto features = [&](std::uint64_t& space) {
    const result<model> m = model::open(o.output.c_str());
    REQUIRE(m);
    const std::vector<std::uint8_t> rgb = pictures(1);
    const result<embeddings> e = m->encode_image({rgb.data(), 64, 64});
    REQUIRE(e);
    space = m->file().embedding_space();
    const image_view wide{rgb.data(), 96, 40};
    const result<image> small = preprocess(wide, m->config().preprocess, m->kernels().resample);
    REQUIRE(small);
    const result<embeddings> whole = m->encode_image(wide), made = m->encode_preprocessed(*small);
    REQUIRE(whole);
    REQUIRE(made);
    CHECK(std::equal((*whole)[0].begin(), (*whole)[0].end(), (*made)[0].begin()));
    CHECK(m->encode_preprocessed(*image::make(63, 64)).error() == status::wrong_shape);
    return std::vector<float>((*e)[0].begin(), (*e)[0].end());
  };
  std::uint64_t space = 0, space_after = 0;
  const std::vector<float> before = features(space);
  const auto bytes = fs::file_size(o.output);
  convert::device_options d;
  d.vision_only = true;
  d.header = folder / "a model.hpp";
  d.labels = {"red circle", "a \"quoted\" label"};
  d.templates = {"a photo of a {}."};
  REQUIRE(convert::prepare_for_device(o.output, d));
  CHECK(features(space_after) == before);
  CHECK(space_after == space);
  CHECK(fs::file_size(o.output) < bytes * 6 / 10);
  std::ifstream in(*d.header);
  const std::string header((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  for (const char* part : {"namespace a_model {", "label_count = 2;", "m.vision.encoder.width = 128;", "\\042quoted",
                           "ocellus::dtype weights = ocellus::dtype::s8;", "// vision_tower: "})
    CHECK_MESSAGE(header.find(part) != std::string::npos, part);
  CHECK(header.find(": " + std::to_string(s8_tower::arena_size) + " bytes of RAM") != std::string::npos);
  CHECK(header.find(", " + std::to_string(s8_tower::flash_size) + " of flash") != std::string::npos);
  // without a text tower there is nothing to embed labels with
  const auto again = convert::prepare_for_device(o.output, d);
  REQUIRE(!again);
  CHECK(again.failure().what.find("text tower") != std::string::npos);
}

TEST_CASE("A classifier's header has its class names, if there is one for each logit") {
  const test_files::scratch_folder scratch;
  const fs::path& folder = scratch.path;
  for (const int classes : {2, 3}) {
    model_config config = demo;
    config.vision.classes = classes;
    const std::string names = "a \"cat\"\ndog\n";
    const std::vector<float> row(16, 1.f);
    convert::packed_writer out;
    REQUIRE(out.open(folder / "c.oc"));
    const std::uint32_t width[] = {16};
    REQUIRE(out.add_f32("values", width, row));
    out.add_section(format::section::config, std::as_bytes(std::span(&config, 1)), true);
    out.add_section(format::section::class_names, std::as_bytes(std::span(names)));
    REQUIRE(out.finish(1));
    convert::device_options d;
    d.header = folder / "c.hpp";
    REQUIRE(convert::prepare_for_device(folder / "c.oc", d));
    std::ifstream in(*d.header);
    const std::string header((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
    const bool there = header.find("class_names[] = {\n  \"a \\042cat\\042\",\n  \"dog\",\n};") != std::string::npos;
    CHECK(there == (classes == 2));
    CHECK((header.find("class_names") != std::string::npos) == there);
  }
}

TEST_CASE("A file whose blocks differ in type gets no header: a compile-time tower has one type") {
  const test_files::scratch_folder scratch;
  const fs::path folder = scratch.path;
  convert::convert_options o;
  o.source = golden_data::demo_checkpoint();
  o.output = folder / "s8.oc";
  o.type = dtype::s8;
  REQUIRE(convert::convert(o));
  o.output = folder / "f16.oc";
  o.type = dtype::f16;
  REQUIRE(convert::convert(o));
  {  // as --calibrate leaves it where two blocks lose too much
    const result<mapped_file> s8 = mapped_file::open((folder / "s8.oc").c_str()), f16 = mapped_file::open(o.output.c_str());
    REQUIRE((s8 && f16));
    const result<packed_file> file = packed_file::open(s8->bytes()), other = packed_file::open(f16->bytes());
    REQUIRE((file && other));
    convert::packed_writer out;
    REQUIRE(out.open(folder / "mixed.oc"));
    for (int i = 0; i < file->tensor_count(); i++) {
      const tensor_view t = file->tensor(i);
      const bool keep = t.name.starts_with("vision.blocks.1.") || t.name.starts_with("text.blocks.2.");
      REQUIRE(out.add_stored(keep ? *other->tensor(t.name) : t));
    }
    out.add_section(format::section::config, file->section(format::section::config), true);
    REQUIRE(out.finish(file->embedding_space()));
  }
  convert::device_options d;
  d.header = folder / "model.hpp";
  const auto mixed = convert::prepare_for_device(folder / "mixed.oc", d);
  REQUIRE(!mixed);
  CHECK_MESSAGE(mixed.failure().what.find("blocks text.blocks.2, vision.blocks.1 are kept in f16: ") != std::string::npos,
                mixed.failure().what);
  CHECK(!fs::exists(*d.header));
  for (const char* name : {"s8.oc", "f16.oc"}) CHECK(convert::prepare_for_device(folder / name, d));
}

/// Parameters of a model as its authors' checkpoints have them: those of a packed file in f32, but for what the
/// converter folds, adds or leaves out.
constexpr std::int64_t parameters(const model_config& m) {
  const vision_config& v = m.vision;
  const std::int64_t c = v.encoder.width;
  std::int64_t n = static_cast<std::int64_t>(detail::flash_of(v, dtype::f32) / 4);
  if (m.text.present != 0) n += static_cast<std::int64_t>(detail::flash_of(m.text, dtype::f32) / 4) + 1;  // logit scale
  if (pools_in_last_block(v)) n -= c * v.encoder.heads * v.encoder.head_width;  // keys, a second time
  if (v.pool == pooling::map)  // queries made of q, k and probe, with q's and k's biases; a bias of the text, the bias
    return n - v.map_heads * c + 2 * c * c + 3 * c + m.text.embed + 1;
  if (m.text.present != 0) return n - (v.conv_stem != 0 ? 0 : c);       // no bias at the patches
  return n - c * c + c + 2 * c * v.encoder.layers;                      // no projection; mask token, LayerScale
}

TEST_CASE("Presets have as many parameters as the released models") {
  // from the model pages' counts of tensors (OpenAI's and Google's, in mteb's model metadata too; DINOv2's)
  static_assert(parameters(presets::clip_vit_b32) == 151'277'313 && parameters(presets::clip_vit_b16) == 149'620'737);
  static_assert(parameters(presets::clip_vit_l14) == 427'616'513);
  static_assert(parameters(presets::clip_vit_l14_336) == 427'944'193);
  static_assert(parameters(presets::open_clip_vit_b32) == 151'277'313);
  static_assert(parameters(presets::open_clip_vit_b16) == 149'620'737);
  static_assert(parameters(presets::open_clip_vit_l14) == 427'616'513);
  static_assert(parameters(presets::open_clip_vit_h14) == 986'109'441);
  static_assert(parameters(presets::siglip_b16_224) == 203'155'970);
  static_assert(parameters(presets::siglip_b16_256) == 203'202'050);
  static_assert(parameters(presets::siglip_b16_384) == 203'447'810);
  static_assert(parameters(presets::siglip_b16_512) == 203'791'874);
  static_assert(parameters(presets::siglip_l16_256) == 652'150'786);
  static_assert(parameters(presets::siglip_so400m_14_224) == 877'360'306);
  static_assert(parameters(presets::siglip_so400m_14_384) == 877'960'498);
  static_assert(parameters(presets::siglip2_b16_224) == 375'187'970);
  static_assert(parameters(presets::siglip2_b16_256) == 375'234'050);
  static_assert(parameters(presets::siglip2_so400m_14_224) == 1'135'463'602);
  static_assert(parameters(presets::siglip2_so400m_14_384) == 1'136'008'498);
  static_assert(parameters(presets::dinov2_s14) == 22'056'576 && parameters(presets::dinov2_b14) == 86'580'480);
  static_assert(parameters(presets::dinov2_g14) == 1'136'480'768);
  // in millions: open_clip's docs/model_profile.csv; timm's results/benchmark-infer-*.csv; ml-mobileclip's README
  constexpr auto millions = [](const model_config& m, double published, double digit) {
    const double n = static_cast<double>(parameters(m)) / 1e6;
    return n > published - digit / 2 && n < published + digit / 2;
  };
  static_assert(millions(presets::open_clip_vit_bigg14, 2539.57, 0.01));
  static_assert(millions(presets::dinov2_l14, 304.37, 0.01) && millions(presets::dinov2_l14_reg4, 304.37, 0.01));
  static_assert(millions(presets::dinov2_s14_reg4, 22.06, 0.01) && millions(presets::dinov2_b14_reg4, 86.58, 0.01));
  static_assert(millions(presets::dinov2_g14_reg4, 1136.48, 0.02));  // our count is with the mask token
  static_assert(millions(presets::mobileclip_b, 86.3 + 63.4, 0.2));
}

TEST_CASE("The sizes of presets that presets.hpp gives are those of the packed files") {
  std::ifstream in(fs::path(OCELLUS_SOURCE_DIR) / "include/ocellus/models/presets.hpp");
  std::string header((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>()), table;
  for (const presets::entry& p : presets::all) {
    const auto megabytes = [](std::size_t bytes) { return (bytes + 500'000) / 1'000'000; };
    char line[120];
    const bool text = p.config->text.present != 0;
    std::snprintf(line, sizeof(line), "// %-24s %7.1f %6zu %6zu\n", std::string(p.name).c_str(),
                  static_cast<double>(parameters(*p.config)) / 1e6,
                  megabytes(detail::flash_of(p.config->vision, dtype::s8)),
                  text ? megabytes(detail::flash_of(p.config->text, dtype::s8)) : 0);
    table += line;
  }
  CHECK_MESSAGE(header.find(table) != std::string::npos, table);
}

TEST_CASE("Presets of released models make sense") {
  for (const presets::entry& p : presets::all) {
    CAPTURE(p.name);
    CHECK(valid(*p.config));
  }
  CHECK(presets::siglip_so400m_14_384.vision.grid_h == 27);
  CHECK(presets::siglip_so400m_14_384.vision.encoder.head_width == 72);
}

}  // namespace
