// A program with stb of its own: declared before the library's headers, implemented behind them.
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include <ocellus/image/load.hpp>
#include <ocellus/image/save.hpp>

#define STB_IMAGE_IMPLEMENTATION
#define STB_IMAGE_WRITE_IMPLEMENTATION
#include <stb/stb_image.h>
#include <stb/stb_image_write.h>

#include <doctest/doctest.h>

#include <vector>

namespace {

TEST_CASE("a program's own stb_image works beside the library's") {
  const std::uint8_t pixels[6] = {1, 2, 3, 200, 100, 0};
  std::vector<std::uint8_t> file;
  const auto append = [](void* to, void* data, int n) {
    const auto* p = static_cast<const std::uint8_t*>(data);
    static_cast<std::vector<std::uint8_t>*>(to)->insert(static_cast<std::vector<std::uint8_t>*>(to)->end(), p,
                                                        p + n);
  };
  // BMP: the library's copy is built without it.
  REQUIRE(stbi_write_bmp_to_func(append, &file, 2, 1, 3, pixels) != 0);
  int width = 0, height = 0, channels = 0;
  stbi_uc* theirs =
      stbi_load_from_memory(file.data(), static_cast<int>(file.size()), &width, &height, &channels, 3);
  REQUIRE(theirs != nullptr);
  CHECK(std::memcmp(theirs, pixels, 6) == 0);
  stbi_image_free(theirs);
  file.clear();
  REQUIRE(stbi_write_png_to_func(append, &file, 2, 1, 3, pixels, 6) != 0);
  const ocellus::result<ocellus::image> ours = ocellus::decode_image(file);
  REQUIRE(ours);
  CHECK(std::memcmp(ours->pixels(), pixels, 6) == 0);
}

}  // namespace
