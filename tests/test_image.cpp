// The image side: Pillow's resize byte for byte, normalisation, decoders, orientation, damaged files.
#include "json.hpp"
#include "resize_testing.hpp"
#include "test_files.hpp"

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/load.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/image/save.hpp>

#include <doctest/doctest.h>

#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
using namespace resize_testing;
namespace fs = std::filesystem;
using nlohmann::json;
using test_files::shared;

/// An index.json, or null with a message if it is not there.
json read_index(const fs::path& path) {
  std::ifstream in(path);
  if (!in) {
    MESSAGE("skipped: no " << path.string() << " (set OCELLUS_SHARED)");
    return {};
  }
  return json::parse(in);
}

std::vector<std::uint8_t> read_file(const fs::path& path) {
  std::ifstream in(path, std::ios::binary);
  REQUIRE_MESSAGE(in, path.string());
  return {std::istreambuf_iterator<char>(in), {}};
}

image load(const fs::path& path) {
  result<image> picture = load_image(path.string().c_str());
  REQUIRE_MESSAGE(picture, path.string() << ": " << to_string(picture.error()));
  return std::move(*picture);
}

/// The largest difference of two pictures; 256 if their sizes differ.
int difference(image_view a, image_view b) {
  if (a.width != b.width || a.height != b.height) return 256;
  int most = 0;
  for (int y = 0; y < a.height; y++) {
    for (int x = 0; x < a.width * 3; x++) most = std::max(most, std::abs(a.row(y)[x] - b.row(y)[x]));
  }
  return most;
}

preprocess_config config_of(const json& p) {
  preprocess_config c;
  const std::string mode = p["resize"];
  c.resize = mode == "shortest" ? resize_mode::shortest
             : mode == "squash" ? resize_mode::squash
                                : resize_mode::naflex;
  c.filter = p["filter"] == "bicubic" ? resize_filter::bicubic : resize_filter::bilinear;
  c.size_h = c.size_w = p.value("size", 0);
  c.crop_h = c.crop_w = p.value("crop", 0);
  c.crop_offset = p.value("crop_offset", "round") == "round" ? crop_rounding::round : crop_rounding::floor;
  c.patch = p.value("patch", 0);
  c.max_patches = p.value("max_patches", 0);
  return c;
}

TEST_CASE("preprocessing equals Pillow byte for byte, in both orders of the passes and on every kernel set") {
  const fs::path folder = shared() / "preprocess";
  const json index = read_index(folder / "index.json");
  if (index.is_null()) return;
  int compared = 0;
  for (const json& entry : index["images"]) {
    CAPTURE(entry["source"].get<std::string>());
    CAPTURE(entry["mode"].get<std::string>());
    const image source = load(folder / entry["source"].get<std::string>());
    const image new_order = load(folder / entry["expected"].get<std::string>());
    const image old_order =
        load(folder / entry.value("expected_hfirst", entry["expected"].get<std::string>()));
    preprocess_config c = config_of(entry["params"]);
    if (entry.contains("patches_hw")) {
      const result<preprocess_shape> s = preprocess_shape_of(c, source.width(), source.height());
      REQUIRE(s);
      CHECK(s->grid_h == entry["patches_hw"][0].get<int>());
      CHECK(s->grid_w == entry["patches_hw"][1].get<int>());
    }
    for (const resample_set& set : resample_sets()) {
      CAPTURE(set.name);
      c.order = resize_order::horizontal_first;
      const result<image> a = preprocess(source, c, set.kernels);
      REQUIRE(a);
      CHECK(difference(*a, old_order) == 0);
      c.order = resize_order::pillow13;
      const result<image> b = preprocess(source, c, set.kernels);
      REQUIRE(b);
      CHECK(difference(*b, new_order) == 0);
    }
    compared++;
  }
  std::string names;
  for (const resample_set& set : resample_sets()) names += " " + set.name;
  MESSAGE(compared << " pictures compared on the resize passes of:" << names);
}

TEST_CASE("normalisation equals PyTorch's float32") {
  const fs::path folder = shared() / "preprocess";
  const json index = read_index(folder / "index.json");
  if (index.is_null()) return;
  for (const json& entry : index["tensors"]) {
    const image picture = load(folder / entry["expected_image"].get<std::string>());
    preprocess_config c;
    for (std::size_t i = 0; i < 3; i++) {
      c.mean[i] = entry["mean"][i].get<float>();
      c.std[i] = entry["std"][i].get<float>();
    }
    std::vector<float> values(static_cast<std::size_t>(picture.width() * picture.height() * 3));
    normalize(picture, c, values.data());
    const std::vector<std::uint8_t> npy = read_file(folder / entry["tensor"].get<std::string>());
    REQUIRE(npy.size() > values.size() * 4);
    CHECK(std::memcmp(npy.data() + npy.size() - values.size() * 4, values.data(), values.size() * 4) == 0);
  }
}

TEST_CASE("resize: threads change nothing") {
  thread_pool pool(3);
  const resample_kernels best = best_kernels().resample, scalar = make_table<kernels::scalar>().resample;
  const image source = noise(301, 257, 7);
  const resize_window w{97, 83, 3, 5, 80, 70};
  for (const auto order : {resize_order::horizontal_first, resize_order::pillow13}) {
    const result<image> many = resize(source, w, resize_filter::bicubic, order, best, pool.executor());
    const result<image> one = resize(source, w, resize_filter::bicubic, order, scalar);
    REQUIRE(many);
    REQUIRE(one);
    CHECK(difference(*many, *one) == 0);
  }
}

TEST_CASE("preprocessing: the program's rounding changes nothing") {
  const resample_kernels best = best_kernels().resample;
  const image source = noise(301, 257, 8);
  preprocess_config c;
  const auto all = [&] {
    struct results {
      std::vector<std::uint8_t> rgb;
      std::vector<float> values;
      std::vector<int> grids;
    } r;
    c.resize = resize_mode::shortest;
    const result<image> rgb = preprocess(source, c, best);
    REQUIRE(rgb);
    r.rgb.assign(rgb->pixels(), rgb->pixels() + rgb->size_bytes());
    r.values.resize(rgb->size_bytes());
    normalize(*rgb, c, r.values.data());
    c.resize = resize_mode::naflex;
    for (int w = 1; w < 400; w += 7) {
      const auto s = preprocess_shape_of(c, w, 400 - w);
      REQUIRE(s);
      r.grids.push_back(s->grid_w);
      r.grids.push_back(s->grid_h);
    }
    return r;
  };
  const auto expected = all();
  const auto got = [&] {
    const kernel_testing::odd_fp_env odd;
    return all();
  }();
  CHECK(got.rgb == expected.rgb);
  CHECK(got.values == expected.values);
  CHECK(got.grids == expected.grids);
}

TEST_CASE("resize: hand-computed cases") {
  const resample_kernels kernels = resample_kernels_of<kernels::resample_scalar>();
  const std::uint8_t two[6] = {0, 100, 255, 100, 200, 255};
  // Two pixels to one: the triangle gives both half the weight.
  const result<image> half = resize({two, 2, 1}, {1, 1, 0, 0, 1, 1}, resize_filter::bilinear,
                                    resize_order::horizontal_first, kernels);
  REQUIRE(half);
  CHECK(half->pixels()[0] == 50);
  CHECK(half->pixels()[1] == 150);
  CHECK(half->pixels()[2] == 255);
  // Two to four: at 0.25 and 0.75 between the centres, and the edge itself outside.
  const result<image> four = resize({two, 2, 1}, {4, 1, 0, 0, 4, 1}, resize_filter::bilinear,
                                    resize_order::horizontal_first, kernels);
  REQUIRE(four);
  const int expected[4] = {0, 25, 75, 100};
  for (int i = 0; i < 4; i++) CHECK(four->pixels()[3 * i] == expected[i]);
  // A size that stays is a copy.
  const result<image> same = resize({two, 2, 1}, {2, 1, 1, 0, 1, 1}, resize_filter::bicubic,
                                    resize_order::horizontal_first, kernels);
  REQUIRE(same);
  CHECK(same->pixels()[0] == 100);
}

TEST_CASE("preprocess_shape_of: sizes, crops and NaFlex grids") {
  preprocess_config c;
  const auto window = [&](int w, int h) { return preprocess_shape_of(c, w, h)->window; };
  CHECK(window(4032, 3024).resized_w == 298);  // int(224 * 4032 / 3024) = int(298.67)
  CHECK(window(4032, 3024).x == 37);
  CHECK(window(227, 224).x == 2);  // 1.5 rounds to the even 2
  CHECK(window(225, 224).x == 0);  // 0.5 to 0
  c.crop_offset = crop_rounding::floor;
  CHECK(window(227, 224).x == 1);
  c.crop_h = c.crop_w = 300;
  CHECK(preprocess_shape_of(c, 100, 100).error() == status::invalid_argument);
  c.crop_w = 100;
  CHECK(preprocess_shape_of(c, 100, 100).error() == status::invalid_argument);
  c.crop_w = 300, c.crop_h = 100;
  CHECK(preprocess_shape_of(c, 100, 100).error() == status::invalid_argument);
  CHECK(preprocess_shape_of(c, 0, 100).error() == status::invalid_argument);
  c.crop_h = c.crop_w = 0;
  CHECK(preprocess_shape_of(c, 1, 1 << 30).error() == status::image_too_large);
  c.resize = resize_mode::none;
  CHECK(preprocess_shape_of(c, 10000, 10000));  // a picture that stays as it is may be large
  c.resize = resize_mode::naflex;
  const auto grid = preprocess_shape_of(c, 1000, 3);
  REQUIRE(grid);
  CHECK(grid->grid_h == 1);
  CHECK(grid->grid_w == 256);
  CHECK(preprocess_shape_of(c, 1162, 957)->grid_h == 15);  // a bisection that ends earlier gives 14
  c.max_patches = 0;
  CHECK(preprocess_shape_of(c, 10, 10).error() == status::invalid_argument);
}

TEST_CASE("decoding equals Pillow's convert(\"RGB\") within the tolerance of each file") {
  const fs::path folder = shared() / "preprocess";
  const json index = read_index(folder / "decode" / "index.json");
  if (index.is_null()) return;
  int decoded = 0, refused = 0, exact = 0;
  for (const json& entry : index["files"]) {
    const std::string name = entry["file"];
    CAPTURE(name);
    const result<image> picture = load_image((folder / name).string().c_str());
    if (entry.contains("optional") || !picture) {
      CHECK_MESSAGE(entry.contains("optional"), to_string(picture.error()));
      refused++;
      continue;
    }
    const int d = difference(*picture, load(folder / entry["expected"].get<std::string>()));
    CHECK(d <= entry.value("max_abs_diff", 0));
    decoded++;
    exact += d == 0 ? 1 : 0;
    if (entry.contains("expected_oriented")) {
      load_options options;
      options.exif_orientation = true;
      const result<image> turned = load_image((folder / name).string().c_str(), options);
      REQUIRE(turned);
      CHECK(difference(*turned, load(folder / entry["expected_oriented"].get<std::string>())) <=
            entry.value("max_abs_diff", 0));
    }
  }
  MESSAGE(decoded << " decoded, " << exact << " of them exactly; " << refused
                  << " optional ones not compared");
}

TEST_CASE("damaged pictures end in a picture or a status, quickly") {
  const fs::path folder = shared() / "badinput" / "images";
  const json index = read_index(folder / "index.json");
  if (index.is_null()) return;
  int taken = 0, refused = 0;
  for (const json& entry : index["files"]) {
    const std::string name = entry["file"];
    CAPTURE(name);
    const auto start = std::chrono::steady_clock::now();
    const result<image> picture = load_image((folder / name).string().c_str());
    const auto took = std::chrono::steady_clock::now() - start;
    CHECK(took < std::chrono::seconds(5));
    (picture ? taken : refused)++;
    if (name.find("bomb") != std::string::npos && name.find("itxt") == std::string::npos) {
      CHECK(picture.error() == status::image_too_large);
    }
  }
  MESSAGE(taken << " decoded, " << refused << " refused");
}

TEST_CASE("a picture cut at any byte ends in a picture or a status") {
  const fs::path folder = shared() / "preprocess" / "decode" / "files";
  for (const std::string name : {"m-q80-s420-prog-77x53.jpg", "m-rst.jpg", "m-p16.png", "m-p-interlace.gif",
                                 "m-rgba-rle.tga", "m-1.bmp", "pal8rle.bmp", "m-p2.pgm", "m-p6-16.ppm"}) {
    if (!fs::exists(folder / name)) {
      MESSAGE("skipped: no " << name << " (set OCELLUS_SHARED)");
      continue;
    }
    const std::vector<std::uint8_t> whole = read_file(folder / name);
    const std::size_t step = whole.size() > 2000 ? 7 : 1;
    for (std::size_t n = 0; n < whole.size(); n += step) {
      kernel_testing::guarded<std::uint8_t> cut(std::max<std::size_t>(n, 1));
      std::memcpy(cut.data(), whole.data(), n);
      const result<image> picture = decode_image({cut.data(), n});
      // Half of a picture is never taken for the whole.
      if (n < whole.size() / 2) CHECK_MESSAGE(!picture, name << " cut to " << n);
    }
  }
}

TEST_CASE("decoders refuse by the header what the limits forbid") {
  const std::string huge = "P6 30000 30000 255\n";
  const std::span<const std::uint8_t> bytes(reinterpret_cast<const std::uint8_t*>(huge.data()), huge.size());
  CHECK(decode_image(bytes).error() == status::image_too_large);
  const std::string small = "P3 2 1 15 # two pixels\n15 0 7 0 15 8";
  const std::span<const std::uint8_t> two(reinterpret_cast<const std::uint8_t*>(small.data()), small.size());
  const result<image> picture = decode_image(two);
  REQUIRE(picture);
  CHECK(picture->pixels()[0] == 255);
  CHECK(picture->pixels()[2] == 119);
  CHECK(picture->pixels()[5] == 136);
  load_options options;
  options.max_pixels = 1;
  CHECK(decode_image(two, options).error() == status::image_too_large);
  options = {};
  options.max_bytes = 5;
  CHECK(decode_image(two, options).error() == status::image_too_large);
  CHECK(decode_image({}).error() == status::empty_file);
  CHECK(load_image("no/such/file.jpg").error() == status::file_not_found);
  CHECK(load_image(".").error() == status::cannot_read);
}

std::span<const std::uint8_t> bytes_of(const std::string& s) {
  return {reinterpret_cast<const std::uint8_t*>(s.data()), s.size()};
}

TEST_CASE("BMP: without an offset the pixels lie behind header and palette; none lie inside of the header") {
  using namespace std::string_literals;
  const auto file = [](int offset, const std::string& palette_and_pixels) {
    return "BM\0\0\0\0\0\0\0\0"s + static_cast<char>(offset) +
           "\0\0\0\x28\0\0\0\x02\0\0\0\x01\0\0\0\x01\0\x08\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0\0"
           "\x02\0\0\0\0\0\0\0"s +
           palette_and_pixels;
  };
  const std::string rest = "\x01\x02\x03\0\x04\x05\x06\0\x01\0\0\0"s;
  for (const int offset : {0, 14 + 40 + 8}) {
    const result<image> picture = decode_image(bytes_of(file(offset, rest)));
    REQUIRE(picture);
    CHECK(picture->pixels()[0] == 6);
    CHECK(picture->pixels()[5] == 1);
  }
  CHECK(decode_image(bytes_of(file(14, rest))).error() == status::bad_image);
  CHECK(decode_image(bytes_of(file(53, rest))).error() == status::bad_image);
}

TEST_CASE("PNM: samples of other depths are scaled as Pillow does it, halves to the even number") {
  const auto first = [](const std::string& file) {
    const result<image> picture = decode_image(bytes_of(file));
    REQUIRE_MESSAGE(picture, file);
    return static_cast<int>(picture->pixels()[0]);
  };
  CHECK(first("P2 1 1 6 1") == 42);    // 42.5
  CHECK(first("P2 1 1 6 5") == 212);   // 212.5
  CHECK(first("P2 1 1 2 1") == 128);   // 127.5
  CHECK(first("P2 1 1 1000 998") == 255);      // grey: the high byte of 65403.93
  CHECK(first("P3 1 1 1000 998 0 0") == 254);  // 254.49
  for (const char* file : {"P2 1 1 6 7", "P2 1 1 6 00000000001", "P2 1 1 0 0", "P1 1 1 2"})
    CHECK(decode_image(bytes_of(file)).error() == status::bad_image);
}

TEST_CASE("GIF: colours beyond the palette are black, beyond the grey ramp grey") {
  using namespace std::string_literals;
  // One picture of three pixels with the indices 1, 2, 3: LZW of 2 bits literal size, codes of 3 bits.
  const auto file = [](const std::string& global, const std::string& local) {
    const char flags = static_cast<char>(local.empty() ? 0 : local.size() / 3 == 2 ? 0x80 : 0x81);
    const char screen = static_cast<char>(global.size() / 3 == 2 ? 0x80 : 0x81);
    return "GIF89a\x03\0\x01\0"s + screen + "\0\0"s + global + ",\0\0\0\0\x03\0\x01\0"s + flags + local +
           "\x02\x02\x8c\x56\0;"s;  // 4 (clear), 1, 2, 3, 5 (end)
  };
  const auto reds = [&](const std::string& global, const std::string& local) {
    const std::string bytes = file(global, local);
    const result<image> picture = decode_image(bytes_of(bytes));
    REQUIRE(picture);
    REQUIRE(picture->width() == 3);
    return std::vector<int>{picture->pixels()[0], picture->pixels()[3], picture->pixels()[6]};
  };
  const std::string four = "\x10\0\0\x20\0\0\x30\0\0\x40\0\0"s, two = "\x50\0\0\x60\0\0"s;
  const std::string ramp = "\0\0\0\x01\x01\x01"s;
  CHECK(reds(four, "") == std::vector<int>{0x20, 0x30, 0x40});
  CHECK(reds(two, "") == std::vector<int>{0x60, 0, 0});
  CHECK(reds(four, two) == std::vector<int>{0x60, 0, 0});  // not the global palette's colours
  CHECK(reds(ramp, "") == std::vector<int>{1, 2, 3});
}

TEST_CASE("JPEG: the SIMD inverse DCT equals the scalar one, also on values that no good file has") {
  std::mt19937 random(3);
  for (int round = 0; round < 20000; round++) {
    std::int16_t coefficients[64];
    std::uint16_t quant[64];
    const int range = 1 << (round % 15);
    for (int i = 0; i < 64; i++) {
      coefficients[i] =
          static_cast<std::int16_t>(static_cast<int>(random() % static_cast<unsigned>(2 * range)) - range);
      quant[i] = static_cast<std::uint16_t>(random() % (round % 2 == 0 ? 65536u : 4u));
    }
    std::uint8_t a[64], b[64];
    detail::jpeg_idct::block(coefficients, quant, a, 8);
    detail::jpeg_idct::block_scalar(coefficients, quant, b, 8);
    REQUIRE(std::memcmp(a, b, 64) == 0);
    for (int i = 1; i < 64; i++) coefficients[i] = 0;
    detail::jpeg_idct::flat(coefficients[0], quant[0], a, 8);
    detail::jpeg_idct::block_scalar(coefficients, quant, b, 8);
    REQUIRE(std::memcmp(a, b, 64) == 0);
  }
}

/// A grey JPEG of a row of blocks or several, made by hand. Codes of means: 0 (then five bits of difference), 10 (no
/// difference); of other coefficients: 0 (end of block), 10 (one zero, then one bit), 110 (one bit).
class jpeg_writer {
 public:
  explicit jpeg_writer(int blocks, int quant = 8, int restart_interval = 0, int rows = 1) {
    file_ = {0xff, 0xd8, 0xff, 0xdb, 0, 67, 0};
    file_.insert(file_.end(), 64, static_cast<std::uint8_t>(quant));
    segment(0xc0, {8, 0, rows * 8, (blocks * 8) >> 8, blocks * 8 & 255, 1, 1, 0x11, 0});
    segment(0xc4, {0x00, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 5, 0});
    segment(0xc4, {0x10, 1, 1, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x00, 0x11, 0x01});
    if (restart_interval != 0) segment(0xdd, {0, restart_interval});
    scan();
  }
  jpeg_writer& scan() {
    segment(0xda, {1, 1, 0x00, 0, 63, 0});
    return *this;
  }
  jpeg_writer& bits(const std::string& s) {
    bits_ += s;
    return *this;
  }
  /// A block of one value, `difference` (16 to 31) above the one before.
  jpeg_writer& block(int difference) {
    bits_ += '0';
    for (int i = 4; i >= 0; i--) bits_ += (difference >> i & 1) != 0 ? '1' : '0';
    bits_ += '0';
    return *this;
  }
  jpeg_writer& marker(int m) {
    while (bits_.size() % 8 != 0) bits_ += '1';
    for (std::size_t i = 0; i < bits_.size(); i += 8) {
      file_.push_back(static_cast<std::uint8_t>(std::stoi(bits_.substr(i, 8), nullptr, 2)));
      if (file_.back() == 0xff) file_.push_back(0);
    }
    bits_.clear();
    file_.insert(file_.end(), {0xff, static_cast<std::uint8_t>(m)});
    return *this;
  }
  /// The sample at the upper left of each block.
  std::vector<int> decode() {
    marker(0xd9);
    const result<image> picture = decode_jpeg(file_);
    REQUIRE(picture);
    std::vector<int> samples;
    for (int y = 0; y < picture->height(); y += 8)
      for (int x = 0; x < picture->width(); x += 8) samples.push_back(picture->row(y)[3 * x]);
    return samples;
  }
  status error() {
    marker(0xd9);
    return decode_jpeg(file_).error();
  }

 private:
  void segment(int m, const std::vector<int>& body) {
    file_.insert(file_.end(),
                 {0xff, static_cast<std::uint8_t>(m), 0, static_cast<std::uint8_t>(body.size() + 2)});
    for (const int b : body) file_.push_back(static_cast<std::uint8_t>(b));
  }
  std::vector<std::uint8_t> file_;
  std::string bits_;
};

// What is expected was read from Pillow 13 (libjpeg-turbo on x86-64).
TEST_CASE("JPEG: damage inside of a scan is decoded as libjpeg does") {
  using samples = std::vector<int>;
  const std::string bad_code(17, '1');
  CHECK(jpeg_writer(3).bits(bad_code + "0").block(20).block(16).decode() == samples{128, 148, 164});
  // A marker too early: what is begun ends in zero bits, the rest stays grey.
  CHECK(jpeg_writer(4).block(20).decode() == samples{148, 148, 128, 128});
  CHECK(jpeg_writer(4).block(20).bits("0").decode() == samples{148, 117, 128, 128});
}

TEST_CASE("JPEG: restart markers that are lost, doubled or wrong") {
  using samples = std::vector<int>;
  const auto with_markers = [](int blocks, const std::vector<int>& numbers) {
    jpeg_writer file(blocks, 8, 1);
    for (std::size_t i = 0; i < numbers.size(); i++) {
      file.block(16 + static_cast<int>(i));
      file.marker(0xd0 + numbers[i]);
    }
    return file.block(31).decode();
  };
  CHECK(with_markers(6, {0, 1, 2, 3, 4}) == samples{144, 145, 146, 147, 148, 159});
  CHECK(with_markers(6, {0, 2, 3, 4}) == samples{144, 145, 97, 146, 147, 159});
  CHECK(with_markers(6, {0, 3, 4}) == samples{144, 145, 97, 128, 146, 159});
  CHECK(with_markers(6, {0, 0, 2, 3, 4}) == samples{144, 145, 97, 147, 148, 159});
  CHECK(with_markers(6, {0, 1, 1, 2, 3, 4}) == samples{144, 145, 146, 148, 149, 159});
  CHECK(with_markers(6, {0, 5, 2, 3, 4}) == samples{144, 145, 146, 147, 148, 159});
  // 0xa0 is no marker of T.81's.
  CHECK(with_markers(6, {0, -48, 2, 3, 4}) == samples{144, 145, 97, 147, 148, 159});
  CHECK(with_markers(7, {0, 1}) == samples{144, 145, 159, 97, 128, 128, 128});
}

TEST_CASE("JPEG: rows that bring no data are grey, whatever lay where they are decoded; a second scan is refused") {
  jpeg_writer file(1, 8, 1, 8);
  for (const int m : {0, 1, 2, 5, 6}) file.block(24).marker(0xd0 + m);
  CHECK(file.block(31).decode() == std::vector<int>{152, 152, 152, 152, 97, 128, 152, 159});
  const auto scans = [](int n) {
    jpeg_writer twice(1);
    for (int i = 1; i < n; i++) twice.block(16).marker(0xd0).scan();
    return twice.block(20).error();
  };
  CHECK(scans(1) == status::ok);
  CHECK(scans(2) == status::bad_image);
}

TEST_CASE("JPEG: coefficients beyond 16 bits wrap as in libjpeg-turbo") {
  using samples = std::vector<int>;
  CHECK(jpeg_writer(4, 255).block(31).block(31).block(31).block(31).decode() == samples{255, 56, 255, 0});
  // The same with a coefficient beside the mean, and with some below it.
  CHECK(jpeg_writer(3, 255).block(31).bits("01111111010").bits("1011000").decode() == samples{255, 100, 12});
  std::string below = "011111";
  for (int i = 0; i < 8; i++) below += "1000";
  CHECK(jpeg_writer(3, 255).block(31).bits(below + "0").bits("100").decode() == samples{255, 255, 56});
}

TEST_CASE("JPEG: the SIMD colour rows equal the formula for every pair of chroma") {
  std::vector<std::uint8_t> y(256), cb(256), cr(256), out(256 * 3);
  for (int b = 0; b < 256; b++) {
    for (std::size_t i = 0; i < 256; i++) {
      y[i] = static_cast<std::uint8_t>(i * 37 + static_cast<std::size_t>(b) * 11);
      cb[i] = static_cast<std::uint8_t>(b);
      cr[i] = static_cast<std::uint8_t>(i);
    }
    detail::jpeg_ycc_row(y.data(), cb.data(), cr.data(), 256, out.data());
    for (std::size_t i = 0; i < 256; i++) {
      std::uint8_t pixel[3];
      detail::jpeg_ycc_pixel(y[i], cb[i], cr[i], pixel);
      REQUIRE(std::memcmp(pixel, out.data() + 3 * i, 3) == 0);
    }
  }
}

TEST_CASE("formats that are not read are unsupported, not damaged") {
  using namespace std::string_literals;
  for (const std::string& start :
       {"RIFF\x10\0\0\0WEBP"s, "II*\0"s, "MM\0*"s, "II+\0"s, "MM\0+"s,
        "\0\0\0\x1c"
        "ftypavif"s,
        "\0\0\0\x0cjP  \r\n\x87\n"s, "\xff\x4f\xff\x51"s, "\0\0\0\x0cJXL \r\n\x87\n"s, "\xff\x0a"s, "8BPS"s,
        "qoif"s, "DDS "s, "\0\0\x01\0\x01\0\x10\x10\0\0\x01\0"s}) {
    CAPTURE(start);
    CHECK(decode_image(bytes_of(start + std::string(64, '\0'))).error() == status::unsupported_image);
  }
  CHECK(decode_image(bytes_of("no picture"s)).error() == status::bad_image);
}

TEST_CASE("EXIF: an orientation may be a LONG, and of two the last one counts") {
  using namespace std::string_literals;
  const auto file = [](const std::vector<std::string>& entries) {
    std::string tiff = "II*\0\x08\0\0\0"s + static_cast<char>(entries.size()) + "\0"s;
    for (const std::string& e : entries) tiff += "\x12\x01"s + e;
    tiff += "\0\0\0\0"s;
    return "\xff\xd8\xff\xe1\0"s + static_cast<char>(tiff.size() + 8) + "Exif\0\0"s + tiff + "\xff\xd9"s;
  };
  const std::string six = "\x03\0\x01\0\0\0\x06\0\0\0"s, long_eight = "\x04\0\x01\0\0\0\x08\0\0\0"s;
  const std::string byte_six = "\x01\0\x01\0\0\0\x06\0\0\0"s, nine = "\x03\0\x01\0\0\0\x09\0\0\0"s;
  CHECK(exif_orientation(bytes_of(file({six}))) == 6);
  CHECK(exif_orientation(bytes_of(file({long_eight}))) == 8);
  CHECK(exif_orientation(bytes_of(file({six, long_eight}))) == 8);
  CHECK(exif_orientation(bytes_of(file({long_eight, six}))) == 6);
  CHECK(exif_orientation(bytes_of(file({byte_six}))) == 1);
  CHECK(exif_orientation(bytes_of(file({six, nine}))) == 1);
}

TEST_CASE("views: rows may be stored bottom up, but not overlap") {
  const image source = noise(5, 3, 9);
  const resample_kernels kernels = resample_kernels_of<kernels::resample_scalar>();
  const resize_window w{3, 2, 0, 0, 3, 2};
  const auto shrunk = [&](image_view view) {
    return resize(view, w, resize_filter::bicubic, resize_order::horizontal_first, kernels);
  };
  image flipped = std::move(*image::make(5, 3));
  for (int y = 0; y < 3; y++) std::memcpy(flipped.row(y), source.row(2 - y), 15);
  const result<image> a = shrunk(source), b = shrunk({flipped.row(2), 5, 3, -15});
  REQUIRE(a);
  REQUIRE(b);
  CHECK(difference(*a, *b) == 0);
  for (const std::ptrdiff_t stride : {5, 0, 14, -5, -14}) {
    const image_view overlapping{flipped.row(1), 5, 3, stride};
    CHECK(shrunk(overlapping).error() == status::invalid_argument);
    CHECK(orient(overlapping, 6).error() == status::invalid_argument);
    CHECK(save_png("not-written.png", overlapping) == status::invalid_argument);
  }
}

TEST_CASE(
    "PNG: an end that is missing is no harm, and neither are chunks that mean nothing for the colours") {
  const fs::path path =
      fs::temp_directory_path() / ("ocellus-test-png-" + std::to_string(::getpid()) + ".png");
  const image source = noise(9, 7, 2);
  REQUIRE(save_png(path.string().c_str(), source) == status::ok);
  const std::vector<std::uint8_t> whole = read_file(path);
  fs::remove(path);
  for (std::size_t cut = 0; cut < 40; cut++) {
    CAPTURE(cut);
    const result<image> picture = decode_image({whole.data(), whole.size() - cut});
    // Behind the data are their checksum, the chunk's and the last chunk: 4, 4 and 12 bytes.
    if (cut <= 16) REQUIRE(picture);
    if (cut > 24) CHECK(picture.error() == status::truncated);
    if (picture) CHECK(difference(*picture, source) == 0);
  }
  // A transparent colour, which pictures with alpha may not have, and a critical chunk that nobody knows.
  std::vector<std::uint8_t> odd = whole;
  const std::uint8_t chunks[] = {0, 0, 0, 2, 't', 'R', 'N', 'S', 0,   0, 0, 0, 0,
                                 0, 0, 0, 0, 0,   'X', 'Y', 'Z', 'W', 0, 0, 0, 0};
  odd.insert(odd.begin() + 33, std::begin(chunks), std::end(chunks));
  const result<image> picture = decode_image(odd);
  REQUIRE(picture);
  CHECK(difference(*picture, source) == 0);
}

/// Configurations of each mode, with crops and without, smaller and larger than pictures of tests.
std::vector<preprocess_config> some_configs() {
  std::vector<preprocess_config> all;
  const auto add = [&](resize_mode mode, int w, int h, int crop_w, int crop_h) {
    preprocess_config c;
    c.resize = mode;
    c.size_w = w, c.size_h = h, c.crop_w = crop_w, c.crop_h = crop_h;
    c.patch = 8, c.max_patches = 20;
    c.filter = all.size() % 3 == 0 ? resize_filter::bilinear : resize_filter::bicubic;
    c.crop_offset = all.size() % 2 == 0 ? crop_rounding::floor : crop_rounding::round;
    for (const resize_order order : {resize_order::horizontal_first, resize_order::pillow13}) {
      c.order = order;
      all.push_back(c);
    }
  };
  for (const int size : {3, 16, 31, 100}) {
    add(resize_mode::shortest, size, size, 0, 0);
    add(resize_mode::shortest, size, size, size, size);
    add(resize_mode::shortest, size, size, size - 2, size - 1);
    add(resize_mode::squash, size, 2 * size - 1, 0, 0);
    add(resize_mode::squash, 3 * size, size, size - 1, size);
  }
  add(resize_mode::naflex, 0, 0, 0, 0);
  add(resize_mode::none, 0, 0, 0, 0);
  add(resize_mode::none, 0, 0, 9, 5);
  add(resize_mode::shortest, 0, 0, 0, 0);  // refused
  return all;
}

/// That preprocess_file gives what decode_image and preprocess give; how many times it was a picture.
int same_as_two_steps(std::span<const std::uint8_t> file, const preprocess_config& c, const resample_kernels& kernels,
                      const load_options& options = {}) {
  const result<image> whole = decode_image(file, options);
  const result<image> expected = whole ? preprocess(*whole, c, kernels) : whole.error();
  const result<image> got = preprocess_file(file, c, kernels, options);
  CHECK(got.error() == expected.error());
  REQUIRE(static_cast<bool>(got) == static_cast<bool>(expected));
  if (got) CHECK(difference(*got, *expected) == 0);
  return got ? 1 : 0;
}

/// A JPEG or PNG file with an orientation in it.
std::vector<std::uint8_t> with_orientation(std::vector<std::uint8_t> file, int orientation) {
  std::vector<std::uint8_t> tiff = {'I', 'I', '*', 0, 8, 0, 0, 0, 1, 0, 0x12, 1, 3, 0, 1, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0};
  tiff[18] = static_cast<std::uint8_t>(orientation);
  const bool jpeg = file[0] == 0xff;
  std::vector<std::uint8_t> segment = {0xff, 0xe1, 0, 34, 'E', 'x', 'i', 'f', 0, 0};
  if (!jpeg) segment = {0, 0, 0, 26, 'e', 'X', 'I', 'f'};
  segment.insert(segment.end(), tiff.begin(), tiff.end());
  if (!jpeg) segment.insert(segment.end(), 4, 0);
  file.insert(file.begin() + (jpeg ? 2 : 33), segment.begin(), segment.end());
  return file;
}

TEST_CASE("preprocess_file equals decoding and preprocessing: sizes, modes, crops, orientations, orders, kernel sets") {
  const std::vector<preprocess_config> configs = some_configs();
  int made = 0;
  unsigned seed = 0;
  for (const auto& size : {std::pair{1, 1}, {2, 7}, {31, 16}, {64, 64}, {67, 131}, {300, 41}, {33, 333}}) {
    const int w = size.first, h = size.second;  // clang 14 captures no structured bindings
    const result<array<std::uint8_t>> png = encode_png(noise(w, h, ++seed));
    REQUIRE(png);
    for (int orientation = 1; orientation <= 8; orientation++) {
      const std::vector<std::uint8_t> file = with_orientation({png->data(), png->data() + png->size()}, orientation);
      load_options options;
      options.exif_orientation = true;
      REQUIRE(exif_orientation(file) == orientation);
      CAPTURE(w);
      CAPTURE(h);
      CAPTURE(orientation);
      const auto sets = resample_sets();
      for (std::size_t i = 0; i < configs.size(); i++) {
        CAPTURE(i);
        made += same_as_two_steps(file, configs[i], sets[(i + seed) % sets.size()].kernels, options);
      }
      for (const auto& [to_w, to_h] : {std::pair{w, 13}, {13, h}, {h, 13}, {13, w}}) {  // one side keeps its size
        preprocess_config c = configs[0];
        c.resize = resize_mode::squash;
        c.size_w = to_w, c.size_h = to_h, c.crop_w = c.crop_h = 0;
        made += same_as_two_steps(file, c, sets[seed % sets.size()].kernels, options);
      }
    }
  }
  MESSAGE(made << " pictures compared");
}

TEST_CASE("PNG: a colour type that there is not is bad_image, in a cut file too; so is what inflates far beyond it") {
  const result<array<std::uint8_t>> made = encode_png(noise(40, 40, 3));
  REQUIRE(made);
  std::vector<std::uint8_t> png(made->data(), made->data() + made->size());
  REQUIRE(decode_image(png));
  for (const int colour : {1, 5, 7, 255}) {
    png[25] = static_cast<std::uint8_t>(colour);
    CHECK(decode_image(png).error() == status::bad_image);
    CHECK(decode_image({png.data(), png.size() / 2}).error() == status::bad_image);
  }
  const result<array<std::uint8_t>> large = encode_png(*image::make(600, 600));
  REQUIRE(large);
  png.assign(large->data(), large->data() + large->size());
  for (const std::size_t at : {18u, 22u}) png[at] = 0, png[at + 1] = 8;  // 8 x 8 of 600 x 600
  CHECK(decode_image(png).error() == status::bad_image);
}
TEST_CASE("preprocess_file equals decoding and preprocessing: every kind of file, whole and cut") {
  const resample_kernels best = best_kernels().resample;
  const std::vector<preprocess_config> configs = some_configs();
  int made = 0, refused = 0;
  for (const fs::path& folder : {shared() / "preprocess" / "decode" / "files", shared() / "badinput" / "images"}) {
    if (!fs::exists(folder)) {
      MESSAGE("skipped: no " << folder.string() << " (set OCELLUS_SHARED)");
      continue;
    }
    for (const auto& entry : fs::directory_iterator(folder)) {
      if (!entry.is_regular_file() || entry.file_size() == 0) continue;
      CAPTURE(entry.path().string());
      const std::vector<std::uint8_t> whole = read_file(entry.path());
      const bool turns = whole.size() > 40 && (whole[0] == 0xff || (whole[0] == 0x89 && whole[1] == 'P'));
      const std::size_t step = entry.path().string().find("badinput") == std::string::npos ? 1 : 5;
      for (std::size_t i = 0; i < configs.size(); i += step) {
        CAPTURE(i);
        const int n = same_as_two_steps(whole, configs[i], best);
        (n != 0 ? made : refused)++;
        load_options options;
        options.exif_orientation = true;
        if (turns) same_as_two_steps(with_orientation(whole, static_cast<int>(i % 8) + 1), configs[i], best, options);
        const std::size_t cut = whole.size() * (i + 1) / (configs.size() + 1);
        same_as_two_steps({whole.data(), cut}, configs[i], best);
      }
    }
  }
  MESSAGE(made << " pictures compared, " << refused << " refused alike");
}

TEST_CASE("preprocess_file of a JPEG, of which only what the crop depends on becomes pixels: crops that end everywhere") {
  const fs::path folder = shared() / "preprocess" / "decode" / "files";
  if (!fs::exists(folder)) {
    MESSAGE("skipped: no " << folder.string() << " (set OCELLUS_SHARED)");
    return;
  }
  const resample_kernels best = best_kernels().resample;
  int made = 0;
  for (const auto& entry : fs::directory_iterator(folder)) {
    if (entry.path().extension() != ".jpg") continue;
    CAPTURE(entry.path().string());
    const std::vector<std::uint8_t> file = read_file(entry.path());
    preprocess_config c;
    c.resize = resize_mode::squash;
    c.filter = resize_filter::bilinear;  // which depends on the fewest pixels beside the crop
    c.size_w = c.size_h = 71;
    for (int crop = 1; crop <= 71; crop++) {
      CAPTURE(crop);
      c.crop_w = crop;
      c.crop_h = 72 - crop;
      made += same_as_two_steps(file, c, best);
    }
  }
  MESSAGE(made << " pictures compared");
}

TEST_CASE("orient: each orientation and its inverse give the picture back") {
  const image source = noise(5, 3, 9);
  const int inverse[9] = {0, 1, 2, 3, 4, 5, 8, 7, 6};
  for (int o = 1; o <= 8; o++) {
    const result<image> turned = orient(source, o);
    REQUIRE(turned);
    CHECK(turned->width() == (o >= 5 ? 3 : 5));
    const result<image> back = orient(*turned, inverse[o]);
    REQUIRE(back);
    CHECK(difference(*back, source) == 0);
  }
  CHECK(orient(source, 9).error() == status::invalid_argument);
}

TEST_CASE("a picture saved as PNG loads as it was, and a failed save leaves nothing behind") {
  const fs::path folder = fs::temp_directory_path() / ("ocellus-test-image-" + std::to_string(::getpid()));
  fs::create_directories(folder);
  const image source = noise(37, 21, 4);
  const std::string path = (folder / "saved.png").string();
  REQUIRE(save_png(path.c_str(), source) == status::ok);
  CHECK(difference(load(path), source) == 0);
  CHECK(save_png((folder / "none" / "saved.png").string().c_str(), source) == status::cannot_write);
  CHECK(std::distance(fs::directory_iterator(folder), fs::directory_iterator()) == 1);
  // A device stays one: through a link, so that a failure of this test would not replace it.
  std::error_code error;
  fs::create_symlink("/dev/null", folder / "null", error);
  if (!error && fs::is_character_file(folder / "null")) {
    CHECK(save_png((folder / "null").string().c_str(), source) == status::ok);
    CHECK(fs::is_character_file(folder / "null"));
  }
  fs::remove_all(folder);
}

}  // namespace
