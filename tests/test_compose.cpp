// Towers by composition: the demo model's image tower, put together from layers, gives the bits of the model opened
// at run time.
#include "convert.hpp"

#include <ocellus/isa/dispatch.hpp>
#include <ocellus/models/compose.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
namespace c = ocellus::compose;
namespace fs = std::filesystem;

template <int C, int H>
using block = c::seq<c::residual<c::named<"norm1", c::layer_norm<C>>, c::named<"attn", c::attention<C, H>>>,
                     c::residual<c::named<"norm2", c::layer_norm<C>>, c::named<"mlp.fc1", c::linear<C, 4 * C>>,
                                 c::quick_gelu<4 * C>, c::named<"mlp.fc2", c::linear<4 * C, C>>>>;
using demo = c::seq<c::patch_embed<64, 8, 128, true>, c::named<"pre_norm", c::layer_norm<128>>,
                    c::named<"blocks", c::repeat<3, block<128, 2>>>, c::first_token<128>,
                    c::named<"norm", c::layer_norm<128>>, c::named<"proj", c::linear<128, 64, false>>>;

/// The demo checkpoint, converted; gone with the object.
struct packed {
  fs::path path;
  explicit packed(dtype type) {
    path = fs::temp_directory_path() / ("ocellus-compose-" + std::to_string(getpid()) + ".oc");
    convert::convert_options o;
    o.source = fs::path(OCELLUS_SOURCE_DIR) / "examples/demo/demo.pt";
    o.output = path;
    o.type = type;
    const auto done = convert::convert(o);
    REQUIRE_MESSAGE(done, (done ? "" : done.failure().what));
  }
  ~packed() { fs::remove(path); }
};

template <class Kernels, dtype Type>
void check_composed() {
  const packed file(Type);
  const result<model> opened = model::open(file.path.c_str());
  REQUIRE(opened);
  const result<mapped_file> mapped = mapped_file::open(file.path.c_str());
  REQUIRE(mapped);

  using tower = c::tower<demo, Kernels, Type>;
  static_assert(tower::embed == 64 && tower::rows == 1);
  tower eye;
  static static_arena<tower::arena_size> memory;
  REQUIRE(eye.bind(mapped->bytes()) == status::ok);
  std::memset(memory.bytes, 0xff, sizeof(memory.bytes));  // NaNs: nothing may be read before it is written

  std::vector<std::uint8_t> rgb(64 * 64 * 3);
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
    in.height = in.width = 64;
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
  check_composed<pinned<kernels::scalar>, dtype::s8>();
  check_composed<pinned<kernels::scalar>, dtype::f32>();
  check_composed<dynamic, dtype::s8>();
  check_composed<dynamic, dtype::f32>();
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
