// Towers by composition: the demo model's image tower and a SigLIP one, put together from layers, give the bits of the
// models opened at run time, in as little memory as a tower by configuration; however layers are grouped.
#include "golden_data.hpp"
#include "pack.hpp"

#include <ocellus/isa/dispatch.hpp>
#include <ocellus/models/compose.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cmath>
#include <cstring>
#include <filesystem>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
namespace c = ocellus::compose;
namespace fs = std::filesystem;

template <int C, int H, class Attention = c::attention<C, H>>
using block = c::seq<c::residual<c::named<"norm1", c::layer_norm<C>>, c::named<"attn", Attention>>,
                     c::residual<c::named<"norm2", c::layer_norm<C>>, c::named<"mlp.fc1", c::linear<C, 4 * C>>,
                                 c::quick_gelu<4 * C>, c::named<"mlp.fc2", c::linear<4 * C, C>>>>;
using demo = c::seq<c::patch_embed<64, 8, 128, true>, c::named<"pre_norm", c::layer_norm<128>>,
                    c::named<"blocks", c::repeat<2, block<128, 2>>>,
                    c::named<"blocks.2", block<128, 2, c::class_attention<128, 2>>>,
                    c::named<"norm", c::layer_norm<128>>, c::named<"proj", c::projection<128, 64>>>;

struct packed : golden_data::converted_file {
  explicit packed(dtype type) : converted_file(golden_data::demo_checkpoint(), type) { REQUIRE(error == ""); }
};

/// A set whose products arrange rows beforehand (kernel_table::quad_rows), where there is one.
struct arranging : dynamic {
  arranging() noexcept : dynamic(chosen()) {}
  static kernel_table chosen() noexcept {
    for (const char* name : {"avx2", "sse41"})
      if (const result<kernel_table> set = kernels_for(name)) return *set;
    return best_kernels();
  }
};

/// Layers against the model opened at run time, both from the file at `path`.
template <class Layers, class Kernels, dtype Type>
void check_composed(const fs::path& path) {
  const result<model> opened = model::open(path.c_str());
  REQUIRE(opened);
  const result<mapped_file> mapped = mapped_file::open(path.c_str());
  REQUIRE(mapped);

  using tower = c::tower<Layers, Kernels, Type>;
  static_assert(tower::embed == 64 && tower::rows == 1);
  tower eye;
  static static_arena<tower::arena_size> memory;
  REQUIRE(eye.bind(mapped->bytes()) == status::ok);
  std::memset(memory.bytes, 0xff, sizeof(memory.bytes));  // NaNs: nothing may be read before it is written

  constexpr int side = Layers::side;
  std::vector<std::uint8_t> rgb(side * side * 3);
  std::vector<float> pixels(rgb.size());
  float expected[64], got[64];
  std::uint32_t state = 1;
  workspace work;
  for (int picture = 0; picture < 3; picture++) {
    for (std::size_t i = 0; i < rgb.size(); i++) {
      state = state * 1664525u + 1013904223u;
      rgb[i] = static_cast<std::uint8_t>(picture == 2 ? i / 48 : state >> 24);
      pixels[i] = static_cast<float>(rgb[i]) / 64.f - 2.f;
    }
    nn::image_batch in;
    in.count = 1;
    in.height = in.width = side;
    in.rgb = rgb.data();
    REQUIRE(opened->encode_batch(in, expected, work) == status::ok);
    eye.features(rgb.data(), got, memory);
    CHECK(std::memcmp(got, expected, sizeof(got)) == 0);
    in.rgb = nullptr;
    in.pixels = pixels.data();
    REQUIRE(opened->encode_batch(in, expected, work) == status::ok);
    eye.features(pixels.data(), got, memory);
    CHECK(std::memcmp(got, expected, sizeof(got)) == 0);
  }
}

TEST_CASE("A tower by composition gives the bits of the model opened at run time") {
  const packed s8(dtype::s8);
  check_composed<demo, pinned<kernels::scalar>, dtype::s8>(s8.path);
  check_composed<demo, dynamic, dtype::s8>(s8.path);
  check_composed<demo, arranging, dtype::s8>(s8.path);
  const packed f32(dtype::f32);
  check_composed<demo, pinned<kernels::scalar>, dtype::f32>(f32.path);
  check_composed<demo, dynamic, dtype::f32>(f32.path);
}

/// A SigLIP image tower of random weights: 40 x 40 pixels, patches of 8, width 64, 2 heads, 2 blocks, a MAP head.
struct packed_siglip {
  fs::path path = fs::temp_directory_path() / ("ocellus-siglip-" + std::to_string(getpid()) + ".oc");
  explicit packed_siglip(dtype type) {
    convert::model_source source;
    const model_config both = siglip_model(vit{}.image(40).patch(8).width(64).layers(2).heads(2), {});
    source.config.vision = both.vision;
    source.config.preprocess = both.preprocess;
    std::mt19937 random(7);
    const auto add = [&](const std::string& name, std::vector<std::uint32_t> shape, float size, float middle = 0) {
      std::size_t count = 1;
      for (const std::uint32_t n : shape) count *= n;
      std::normal_distribution<float> normal(middle, size);
      std::vector<float> values(count);
      for (float& x : values) x = normal(random);
      const auto kind = name.ends_with(".weight") && shape.size() == 2 ? convert::storage::matrix : convert::storage::exact;
      const auto read = [values](std::vector<float>& out) { return out = values, convert::outcome<void>(); };
      source.tensors.push_back({name, kind, std::move(shape), read, "made"});
    };
    const auto linear = [&](const std::string& name, std::uint32_t n, std::uint32_t k) {
      add(name + ".weight", {n, k}, 0.1f);
      add(name + ".bias", {n}, 0.1f);
    };
    const auto norm = [&](const std::string& name) {
      add(name + ".weight", {64}, 0.2f, 1);
      add(name + ".bias", {64}, 0.2f);
    };
    linear("vision.patch_embed", 64, 8 * 8 * 3);
    add("vision.positions", {25, 64}, 0.5f);
    for (const std::string block : {"vision.blocks.0.", "vision.blocks.1."}) {
      norm(block + "norm1"), norm(block + "norm2");
      linear(block + "attn.qkv", 3 * 64, 64), linear(block + "attn.proj", 64, 64);
      linear(block + "mlp.fc1", 256, 64), linear(block + "mlp.fc2", 64, 256);
    }
    norm("vision.norm"), norm("vision.map.norm");
    add("vision.map.queries", {2, 64}, 1);
    linear("vision.map.v", 64, 64), linear("vision.map.proj", 64, 64);
    linear("vision.map.fc1", 256, 64), linear("vision.map.fc2", 64, 256);
    convert::packed_writer out;
    convert::progress bar(1, false);
    REQUIRE(out.open(path));
    const auto done = convert::pack(source, {type}, out, bar);
    REQUIRE_MESSAGE(done, (done ? "" : done.failure().what));
    out.add_section(format::section::config, std::as_bytes(std::span(&source.config, 1)), true);
    REQUIRE(out.finish(1));
  }
  ~packed_siglip() { fs::remove(path); }
};

template <int C, int H>
using siglip_block =
    c::seq<c::residual<c::named<"norm1", c::layer_norm<C, 1e-6f>>, c::named<"attn", c::attention<C, H>>>,
           c::residual<c::named<"norm2", c::layer_norm<C, 1e-6f>>, c::named<"mlp.fc1", c::linear<C, 4 * C>>,
                       c::gelu_tanh<4 * C>, c::named<"mlp.fc2", c::linear<4 * C, C>>>>;
using siglip = c::seq<c::patch_embed<40, 8, 64>, c::named<"blocks", c::repeat<2, siglip_block<64, 2>>>,
                      c::named<"norm", c::layer_norm<64, 1e-6f>>, c::named<"map", c::attention_pool<64, 2>>>;

TEST_CASE("attention_pool is SigLIP's MAP head, bit for bit") {
  const packed_siglip s8(dtype::s8);
  check_composed<siglip, pinned<kernels::scalar>, dtype::s8>(s8.path);
  check_composed<siglip, dynamic, dtype::s8>(s8.path);
  check_composed<siglip, arranging, dtype::s8>(s8.path);
  const packed_siglip f32(dtype::f32);
  check_composed<siglip, pinned<kernels::scalar>, dtype::f32>(f32.path);
  check_composed<siglip, dynamic, dtype::f32>(f32.path);
}

TEST_CASE("A tower by composition takes as little memory as one by configuration, within a tenth") {
  using scalar = pinned<kernels::scalar>;
  static constexpr model_config clip = vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
  static constexpr model_config sig = [] {
    model_config m = siglip_model(vit{}.image(40).patch(8).width(64).layers(2).heads(2), {});
    m.text = {};
    return m;
  }();
  constexpr auto close = [](std::size_t composed, std::size_t configured) { return composed * 10 <= configured * 11; };
  static_assert(close(c::tower<demo, scalar>::arena_size, vision_tower<clip, scalar>::arena_size));
  static_assert(close(c::tower<demo, scalar, dtype::f32>::arena_size, vision_tower<clip, scalar, dtype::f32>::arena_size));
  static_assert(close(c::tower<siglip, scalar>::arena_size, vision_tower<sig, scalar>::arena_size));
  static_assert(
      close(c::tower<siglip, scalar, dtype::f32>::arena_size, vision_tower<sig, scalar, dtype::f32>::arena_size));
}

/// What layers give for one picture from the demo model's file: rows x width values.
template <class Layers, dtype Type>
std::vector<float> features_of(const packed& file) {
  const result<mapped_file> mapped = mapped_file::open(file.path.c_str());
  REQUIRE(mapped);
  using tower = c::tower<Layers, pinned<kernels::scalar>, Type>;
  tower eye;
  static static_arena<tower::arena_size> memory;
  REQUIRE(eye.bind(mapped->bytes()) == status::ok);
  std::memset(memory.bytes, 0xff, sizeof(memory.bytes));
  std::vector<std::uint8_t> rgb(64 * 64 * 3);
  for (std::size_t i = 0; i < rgb.size(); i++) rgb[i] = static_cast<std::uint8_t>(i * i / 7);
  std::vector<float> out(static_cast<std::size_t>(tower::embed));
  eye.features(rgb.data(), out.data(), memory);
  return out;
}

using patches = c::patch_embed<64, 8, 128, true>;
/// Layers that a residual cannot add within: the activation comes last.
using mlp_act = c::seq<c::named<"norm2", c::layer_norm<128>>, c::named<"mlp.fc1", c::linear<128, 512>>, c::gelu<512>,
                       c::named<"mlp.fc2", c::linear<512, 128>>, c::quick_gelu<128>>;
using added = c::residual<mlp_act>;

template <dtype Type>
void check_groupings() {
  const packed file(Type);
  const auto all = features_of<c::seq<patches, c::named<"pre_norm", c::layer_norm<128>>,
                                      c::named<"blocks", c::repeat<3, block<128, 2>>>>, Type>(file);
  REQUIRE(all.size() == 65 * 128);
  // one block after the other, in sequences of their own
  CHECK(all == features_of<c::seq<c::seq<patches, c::named<"pre_norm", c::layer_norm<128>>>,
                                  c::seq<c::named<"blocks.0", block<128, 2>>>,
                                  c::seq<c::named<"blocks.1", block<128, 2>>, c::named<"blocks.2", block<128, 2>>>>,
                           Type>(file));
  // row 0 alone is computed for row 0 alone, by the same bits
  const auto first = features_of<c::seq<patches, c::named<"pre_norm", c::layer_norm<128>>,
                                        c::named<"blocks", c::repeat<3, block<128, 2>>>, c::first_token<128>>, Type>(file);
  CHECK(first == std::vector<float>(all.begin(), all.begin() + 128));

  // attention by the first row alone gives that row, but for roundings
  const auto by_class = features_of<c::seq<patches, c::named<"pre_norm", c::layer_norm<128>>,
                                           c::named<"blocks", c::repeat<2, block<128, 2>>>,
                                           c::named<"blocks.2", block<128, 2, c::class_attention<128, 2>>>>, Type>(file);
  REQUIRE(by_class.size() == 128);
  double off = 0, size = 0;
  for (std::size_t i = 0; i < 128; i++) {
    const double x = static_cast<double>(first[i]), d = static_cast<double>(by_class[i]) - x;
    off += d * d, size += x * x;
  }
  CHECK(std::sqrt(off / size) < (Type == dtype::s8 ? 0.02 : 1e-5));

  // a residual by a pass of its own; layers that do not work in place, repeated; activations that nothing fuses with
  auto x = features_of<c::seq<patches>, Type>(file);
  const auto y = features_of<c::seq<patches, c::named<"blocks.0", mlp_act>>, Type>(file);
  for (std::size_t i = 0; i < x.size(); i++) x[i] = x[i] + y[i];
  CHECK(x == features_of<c::seq<patches, c::named<"blocks.0", added>>, Type>(file));
  CHECK(features_of<c::seq<patches, c::named<"blocks", c::repeat<3, added>>>, Type>(file) ==
        features_of<c::seq<patches, c::named<"blocks.0", added>, c::named<"blocks.1", added>, c::named<"blocks.2", added>>,
                    Type>(file));
  CHECK(features_of<c::seq<patches, c::gelu<128>, c::quick_gelu<128>>, Type>(file) ==
        features_of<c::seq<c::seq<patches, c::gelu<128>>, c::seq<c::quick_gelu<128>>>, Type>(file));
}

TEST_CASE("However layers are grouped, and however few rows are asked for, the bits are the same") {
  check_groupings<dtype::s8>();
  check_groupings<dtype::f32>();
}

TEST_CASE("A tower by composition knows its flash, and refuses files that hold other layers") {
  using scalar = pinned<kernels::scalar>;
  static constexpr model_config config = vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64);
  static_assert(c::tower<demo, scalar>::flash_size == vision_tower<config, scalar>::flash_size);
  const packed file(dtype::s8);
  const result<mapped_file> mapped = mapped_file::open(file.path.c_str());
  REQUIRE(mapped);
  using narrow = c::seq<c::patch_embed<64, 8, 64, true>, c::first_token<64>>;
  c::tower<narrow, scalar> other_shape;
  CHECK(other_shape.bind(mapped->bytes()) == status::wrong_shape);
  using unknown = c::seq<c::patch_embed<64, 8, 128, true>, c::named<"neck", c::linear<128, 64>>>;
  c::tower<unknown, scalar> other_name;
  CHECK(other_name.bind(mapped->bytes()) == status::missing_tensor);
  c::tower<demo, scalar, dtype::f32> other_type;
  CHECK(other_type.bind(mapped->bytes()) == status::unsupported_dtype);
  CHECK(other_type.bind({}) == status::empty_file);
}

}  // namespace
