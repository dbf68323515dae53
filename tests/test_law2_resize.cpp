// Pillow's resize: every set's passes give the scalar set's bytes. Built twice: as it is, and with -ffast-math.
#include "resize_testing.hpp"

#include <ocellus/image/resample.hpp>

#include <cstring>

using namespace resize_testing;

namespace {

/// Both passes of a resize from in to out on one kernel set; the source ends where nobody may read.
std::vector<std::uint8_t> resized(const resample_set& set, const image& source, resize_window w,
                                  resize_filter filter, resize_order order) {
  kernel_testing::guarded<std::uint8_t> guarded(source.size_bytes());
  std::memcpy(guarded.data(), source.pixels(), source.size_bytes());
  std::vector<std::uint8_t> out(static_cast<std::size_t>(w.w * w.h * 3) + 8, 0xa5);
  const image_view view(guarded.data(), source.width(), source.height());
  REQUIRE(resize_into(out.data(), w.w * 3, view, w, filter, order, set.kernels) == status::ok);
  for (std::size_t i = out.size() - 8; i < out.size(); i++) CHECK(out[i] == 0xa5);
  return out;
}

}  // namespace

TEST_CASE("resize: every kernel set equals scalar bit for bit and stays inside of its buffers") {
  const std::vector<resample_set> sets = resample_sets();
  const resample_set& scalar = sets.back();
  REQUIRE(scalar.name == "scalar");
  std::mt19937 random(1);
  const auto up_to = [&](unsigned n) { return static_cast<int>(random() % n) + 1; };
  for (int round = 0; round < 250; round++) {
    const image source = noise(up_to(round % 5 == 0 ? 400 : 40), up_to(round % 7 == 0 ? 400 : 40),
                               static_cast<unsigned>(random()));
    resize_window w;
    w.resized_w = round % 11 == 0 ? source.width() : up_to(60);
    w.resized_h = round % 13 == 0 ? source.height() : up_to(60);
    w.w = up_to(static_cast<unsigned>(w.resized_w));
    w.h = up_to(static_cast<unsigned>(w.resized_h));
    w.x = up_to(static_cast<unsigned>(w.resized_w - w.w + 1)) - 1;
    w.y = up_to(static_cast<unsigned>(w.resized_h - w.h + 1)) - 1;
    const auto filter = round % 2 == 0 ? resize_filter::bicubic : resize_filter::bilinear;
    const auto order = round % 3 == 0 ? resize_order::pillow13 : resize_order::horizontal_first;
    const std::vector<std::uint8_t> expected = resized(scalar, source, w, filter, order);
    for (const resample_set& set : sets) {
      CHECK_MESSAGE(resized(set, source, w, filter, order) == expected, set.name << " round " << round);
    }
    // The window is a cut of the whole.
    resize_window whole = w;
    whole.x = whole.y = 0;
    whole.w = w.resized_w;
    whole.h = w.resized_h;
    const std::vector<std::uint8_t> all = resized(scalar, source, whole, filter, order);
    bool same = true;
    for (int y = 0; y < w.h; y++) {
      same = same && std::memcmp(expected.data() + y * w.w * 3, all.data() + ((w.y + y) * whole.w + w.x) * 3,
                                 static_cast<std::size_t>(w.w * 3)) == 0;
    }
    CHECK_MESSAGE(same, "round " << round);
  }
}
