// The towers against the reference implementations: every stage of every layout's goldens, from the
// checkpoint as it is published to the embedding.
#include "convert.hpp"
#include "golden_data.hpp"

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>

#include <atomic>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <cstring>
#include <map>
#include <string>
#include <thread>
#include <vector>

namespace {

using namespace ocellus;
using namespace golden_data;

/// Values of each stage as the tower passes them.
struct stages {
  struct values {
    int rows = 0, c = 0;
    std::vector<float> v;
  };
  std::map<std::string, values> seen;
  static void call(void* self, const char* stage, int index, const float* v, int rows, int c,
                   std::ptrdiff_t ld) {
    char name[64];
    std::snprintf(name, sizeof(name), std::string_view(stage) == "block" ? "%s.%02d" : "%s", stage, index);
    values& out = static_cast<stages*>(self)->seen[name];
    out = {rows, c, {}};
    for (int r = 0; r < rows; r++) out.v.insert(out.v.end(), v + r * ld, v + r * ld + c);
  }
  nn::stage_observer observer() { return {&call, this}; }
};

/// The largest error of `got` against row `item` of a golden array, and the golden's largest value.
void check_stage(const std::string& what, const stages::values& got, const npy& golden, std::size_t item) {
  std::size_t per_item = 1;
  for (std::size_t i = 1; i < golden.shape.size(); i++) per_item *= static_cast<std::size_t>(golden.shape[i]);
  REQUIRE_MESSAGE(got.v.size() <= per_item, what);
  const float* g = golden.f.data() + item * per_item;
  double worst = 0, most = 1;
  for (std::size_t i = 0; i < got.v.size(); i++) {
    worst = std::max(worst, std::fabs(static_cast<double>(got.v[i]) - static_cast<double>(g[i])));
    most = std::max(most, std::fabs(static_cast<double>(g[i])));
  }
  CHECK_MESSAGE(worst <= 2e-5 * most, what << ": off by " << worst << " of " << most);
}

struct agreement {
  double cos = 2, error = 0;  ///< worst cosine; largest error in units of the reference's norm
};

agreement compare(const float* a, const float* b, std::size_t rows, std::size_t width) {
  agreement worst;
  for (std::size_t r = 0; r < rows; r++) {
    double ab = 0, aa = 0, bb = 0, off = 0;
    for (std::size_t i = 0; i < width; i++) {
      const double x = static_cast<double>(a[r * width + i]), y = static_cast<double>(b[r * width + i]);
      ab += x * y;
      aa += x * x;
      bb += y * y;
      off = std::max(off, std::fabs(x - y));
    }
    worst.cos = std::min(worst.cos, ab / std::sqrt(aa * bb));
    worst.error = std::max(worst.error, off / std::sqrt(bb));
  }
  return worst;
}

const char* const stage_names[][2] = {
    {"patch_embed", "patch_embed"}, {"embed", "embed"},   {"pre_norm", "pre_ln"}, {"norm", "post_ln"},
    {"map_attn", "map_attn"},       {"pooled", "pooled"}, {"stem", "stem"}};

nn::image_batch one_image(const model& m, const npy& pixels, const npy& shapes, std::size_t i,
                          int (&grid)[2]) {
  nn::image_batch in;
  in.count = 1;
  if (shapes) {
    grid[0] = static_cast<int>(shapes.i[2 * i]);
    grid[1] = static_cast<int>(shapes.i[2 * i + 1]);
    in.grids = grid;
    in.patch_stride = static_cast<int>(pixels.shape[1]);
    in.patches = pixels.f.data() + i * static_cast<std::size_t>(pixels.shape[1] * pixels.shape[2]);
  } else {
    in.height = static_cast<int>(pixels.shape[2]);
    in.width = static_cast<int>(pixels.shape[3]);
    in.pixels = pixels.f.data() + i * static_cast<std::size_t>(3 * in.height * in.width);
  }
  static_cast<void>(m);
  return in;
}

/// Whether embeddings agree to `least`, and with `exact` each stage and each value, too.
void check_vision(const std::string& name, const model& m, const fs::path& folder, bool exact, double least) {
  const npy pixels = read_npy(folder / "pixel_values.npy"), shapes = read_npy(folder / "spatial_shapes.npy");
  if (!pixels || !m.has_vision()) return;
  npy reference;
  for (const char* file : {"image_embeds.npy", "vision.features.npy", "vision.pooled.npy"})
    if (!reference) reference = read_npy(folder / file);
  REQUIRE_MESSAGE(reference, name);
  const bool resnet = m.config().vision.kind == vision_kind::resnet;
  workspace work;
  std::vector<float> all;
  for (std::size_t i = 0; i < static_cast<std::size_t>(pixels.shape[0]); i++) {
    int grid[2];
    stages seen;
    std::vector<float> e(static_cast<std::size_t>(m.embed())), plain(e);
    const nn::image_batch in = one_image(m, pixels, shapes, i, grid);
    REQUIRE(m.encode_batch(in, e.data(), work, {}, nullptr, seen.observer()) == status::ok);
    REQUIRE(m.encode_batch(in, plain.data(), work) == status::ok);
    CHECK_MESSAGE(e == plain, name << ": the last block for the pooled token alone gives other bits");
    all.insert(all.end(), e.begin(), e.end());
    if (!exact || resnet) continue;
    for (const auto& [ours, theirs] : stage_names)
      if (const npy g = read_npy(folder / ("vision." + std::string(theirs) + ".npy"));
          g && seen.seen.count(ours))
        check_stage(name + " vision." + theirs, seen.seen[ours], g, i);
    for (const auto& [stage, values] : seen.seen)
      if (const npy g = read_npy(folder / ("vision." + stage + ".npy"));
          g && stage.compare(0, 5, "block") == 0)
        check_stage(name + " vision." + stage, values, g, i);
  }
  const agreement a = compare(all.data(), reference.f.data(), static_cast<std::size_t>(pixels.shape[0]),
                              static_cast<std::size_t>(m.embed()));
  CHECK_MESSAGE(a.cos >= least, name << ": image cos " << a.cos);
  if (exact) CHECK_MESSAGE(a.error <= 2e-5, name << ": image error " << a.error);
}

void check_text(const std::string& name, const model& m, const fs::path& folder, bool exact, double least) {
  const npy ids = read_npy(folder / "input_ids.npy"), reference = read_npy(folder / "text_embeds.npy");
  if (!ids || !reference || !m.has_text()) return;
  const std::vector<std::int32_t> given(ids.i.begin(), ids.i.end());
  const int count = static_cast<int>(ids.shape[0]), context = static_cast<int>(ids.shape[1]);
  const auto width = static_cast<std::size_t>(m.text_embed());
  workspace work;
  std::vector<float> batch(static_cast<std::size_t>(count) * width);
  REQUIRE(m.encode_ids(given.data(), count, context, batch.data(), work) == status::ok);
  for (int i = 0; i < count; i++) {
    stages seen;
    std::vector<float> e(width);
    REQUIRE(m.encode_ids(given.data() + i * context, 1, context, e.data(), work, {}, seen.observer()) ==
            status::ok);
    CHECK_MESSAGE(
        std::memcmp(e.data(), batch.data() + static_cast<std::size_t>(i) * width, width * sizeof(float)) == 0,
        name << ": a text alone and in a batch give other bits");
    if (!exact) continue;
    for (const auto& [stage, values] : seen.seen) {
      if (values.rows == 1 && stage.compare(0, 5, "block") == 0)
        continue;  // the last block: the pooled token alone
      if (const npy g = read_npy(folder / ("text." + stage + ".npy")); g)
        check_stage(name + " text." + stage, values, g, static_cast<std::size_t>(i));
    }
  }
  const agreement a = compare(batch.data(), reference.f.data(), static_cast<std::size_t>(count), width);
  CHECK_MESSAGE(a.cos >= least, name << ": text cos " << a.cos);
  if (exact) CHECK_MESSAGE(a.error <= 2e-5, name << ": text error " << a.error);
}

const char* const cases[] = {"openai-statedict", "openai-jit-vit", "openai-jit-rn",    "hf-clip",
                             "hf-clip-gelu",     "openclip-clip",  "hf-siglip",        "hf-siglip2-naflex",
                             "openclip-siglip",  "bigvision-siglip", "hf-dinov2",      "hf-dinov2-registers",
                             "timm-vit"};

TEST_CASE("towers: each stage of each layout's goldens in f32, embeddings in f16 and bf16") {
  if (!have(shared() / "goldens")) return;
  for (const std::string name : cases) {
    const fs::path base = shared() / "goldens" / name;
    if (!have(base)) continue;
    const nlohmann::json golden_index = read_json(base / "golden.json");
    REQUIRE(!golden_index.at("checkpoints").empty());
    for (const auto& checkpoint : golden_index.at("checkpoints")) {
      for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16}) {
        const converted_file file(base / checkpoint["path"].get<std::string>(), type);
        const std::string what = name + "/" + checkpoint["path"].get<std::string>() + " " + to_string(type);
        CHECK_MESSAGE(file.error == "", what);
        if (!file.error.empty()) continue;
        const result<model> m = model::open(file.path.c_str());
        REQUIRE_MESSAGE(m, what << ": " << to_string(m.error()));
        const auto golden = checkpoint["golden"];
        for (const std::string& folder : golden.is_array()
                                             ? golden.get<std::vector<std::string>>()
                                             : std::vector<std::string>{golden.get<std::string>()}) {
          const double least = type == dtype::f32 ? 0.99999 : type == dtype::f16 ? 0.9999 : 0.9998;
          check_vision(what + " " + folder, *m, base / folder, type == dtype::f32, least);
          check_text(what + " " + folder, *m, base / folder, type == dtype::f32, least);
        }
      }
    }
  }
}

/// The repository's own: tests/goldens/towers/make_goldens.py says what each is.
const char* const own_cases[] = {"eva02", "eva02-e", "pe-core", "mci", "tinyclip"};
fs::path own_case(const std::string& name) { return fs::path(OCELLUS_SOURCE_DIR) / "tests/goldens/towers" / name; }

TEST_CASE("towers: rotary positions, post-norm, a convolutional stem and uneven layers as the references have them") {
  for (const std::string name : own_cases)
    for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8}) {
      const converted_file file(own_case(name), type);
      const std::string what = name + " " + to_string(type);
      REQUIRE_MESSAGE(file.error == "", what << ": " << file.error);
      const result<model> m = model::open(file.path.c_str());
      REQUIRE_MESSAGE(m, what << ": " << to_string(m.error()));
      const encoder_config& e = m->config().vision.encoder;
      CHECK((e.rope != 0) == (name == "eva02" || name == "pe-core"));
      CHECK((e.post_norm != 0) == (name == "eva02-e"));
      CHECK((e.uneven != 0) == (name == "tinyclip"));
      CHECK((m->config().vision.conv_stem != 0) == (name == "mci"));
      const double least = type == dtype::s8 ? 0.99 : type == dtype::bf16 ? 0.9998 : type == dtype::f16 ? 0.9999 : 0.99999;
      check_vision(what, *m, own_case(name), type == dtype::f32, least);
      check_text(what, *m, own_case(name), type == dtype::f32, least);
    }
}

TEST_CASE("encode_preprocessed of a NaFlex model takes the grid from the picture's sides") {
  const fs::path checkpoint = shared() / "goldens" / "hf-siglip2-naflex" / "model";
  if (!have(checkpoint)) return;
  const converted_file file(checkpoint, dtype::s8);
  REQUIRE_MESSAGE(file.error == "", file.error);
  const result<model> m = model::open(file.path.c_str());
  REQUIRE(m);
  result<image> wide = image::make(150, 70);
  REQUIRE(wide);
  for (int i = 0; i < 150 * 70 * 3; i++) wide->pixels()[i] = static_cast<std::uint8_t>(i * i % 251);
  const result<image> small = preprocess(*wide, m->config().preprocess, m->kernels().resample);
  REQUIRE(small);
  const result<embeddings> whole = m->encode_image(*wide), made = m->encode_preprocessed(*small);
  REQUIRE((whole && made));
  CHECK(std::equal((*whole)[0].begin(), (*whole)[0].end(), (*made)[0].begin()));
  const int patch = m->config().vision.patch;
  CHECK(m->encode_preprocessed(*image::make(patch * 3, patch + 1)).error() == status::wrong_shape);
  CHECK(m->encode_preprocessed(image()).error() == status::wrong_shape);
}

TEST_CASE("thread_pool: each task runs once, also those of threads that are slow") {
  for (const int threads : {1, 2, 4, 7}) {
    thread_pool pool(threads);
    const executor run = pool.executor();
    CHECK(run.concurrency == threads);
    for (int n = 0; n < 60; n++) {
      std::vector<std::atomic<int>> calls(static_cast<std::size_t>(n));
      run.for_each(n, [&](int i) {
        if (i < n / threads) std::this_thread::sleep_for(std::chrono::microseconds(20));
        calls[static_cast<std::size_t>(i)]++;
      });
      for (int i = 0; i < n; i++) CHECK(calls[static_cast<std::size_t>(i)] == 1);
    }
  }
}

TEST_CASE("thread_pool: calls that follow each other closely keep their tasks apart") {
  for (const int threads : {2, 3, 16}) {  // 16: workers that come late, in the middle of another call
    thread_pool pool(threads);
    int wrong = 0;
    for (int call = 0; call < 2000; call++) {
      std::vector<int> calls(static_cast<std::size_t>(call % 67));
      pool.executor().for_each(call % 67, [&](int i) { calls[static_cast<std::size_t>(i)] += call + i; });
      for (int i = 0; i < call % 67; i++) wrong += calls[static_cast<std::size_t>(i)] != call + i ? 1 : 0;
    }
    CHECK(wrong == 0);
  }
}

#if defined(__linux__)
TEST_CASE("thread_pool: no more threads than control groups have processor time for") {
  const test_files::scratch_folder folder;
  const auto write = [&](const char* file, const char* text) { folder.write(file, text); };
  const auto cores = [&](const char* groups) {
    return detail::quota_cores(folder.write("groups", groups).c_str(), folder.path.string());
  };
  write("outer/inner/cpu.max", "max 100000\n");
  CHECK(cores("0::/outer/inner\n") == 0);
  write("outer/cpu.max", "250000 100000\n");
  CHECK(cores("0::/outer/inner\n") == 3);
  CHECK(cores("0::/not/seen/from/here\n") == 0);
  write("cpu.max", "50000 100000\n");  // what a container sees: its own group as the root, whatever it is called
  CHECK(cores("0::/not/seen/from/here\n") == 1);
  CHECK(cores("0::/\n") == 1);
  write("cpu/box/cpu.cfs_period_us", "50000\n");
  write("cpu/box/cpu.cfs_quota_us", "-1\n");
  CHECK(cores("5:memory:/box\n4:cpuset:/box\n3:cpuacct,cpu:/box\n") == 0);
  write("cpu/box/cpu.cfs_quota_us", "200000\n");
  CHECK(cores("5:memory:/box\n4:cpuset:/box\n3:cpuacct,cpu:/box\n") == 4);
  CHECK(cores("no such line\n\n") == 0);
  CHECK(detail::quota_cores((folder.path / "missing").c_str(), folder.path.string()) == 0);
}
#endif

TEST_CASE("thread_pool: a task may call its own pool, and other pools") {
  for (const int threads : {1, 2, 4}) {
    thread_pool pool(threads), other(2);
    for (int round = 0; round < 20; round++) {
      std::vector<std::atomic<int>> calls(3 * 8 * 5);
      pool.executor().for_each(8, [&](int i) {
        const auto count = [&](int part) {
          return [&calls, at = (part * 8 + i) * 5](int j) { calls[static_cast<std::size_t>(at + j)]++; };
        };
        pool.executor().for_each(5, count(0));
        other.executor().for_each(5, count(1));
        pool.executor().for_each(5, count(2));  // still known as a task of `pool`
      });
      for (const std::atomic<int>& c : calls) CHECK(c == 1);
    }
  }
  CHECK(thread_pool().threads() == thread_pool::cores());
}

/// A checkpoint, and the folder with its inputs and outputs.
struct golden_case {
  std::string name;
  fs::path checkpoint, arrays;
};

/// Those of this repository, and those of OCELLUS_SHARED where it is.
std::vector<golden_case> golden_cases() {
  std::vector<golden_case> all;
  for (const char* name : own_cases) all.push_back({name, own_case(name), own_case(name)});
  for (const char* name : cases) {
    const fs::path base = shared() / "goldens" / name;
    if (!fs::exists(base)) continue;
    const auto checkpoint = read_json(base / "golden.json")["checkpoints"][0];
    const auto golden = checkpoint["golden"];
    all.push_back({name, base / checkpoint["path"].get<std::string>(),
                   base / (golden.is_array() ? golden[0].get<std::string>() : golden.get<std::string>())});
  }
  return all;
}

TEST_CASE("towers: a configuration that its tensors do not bear out is refused, whatever the checksums") {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  struct lie {
    const char* what;
    void (*tell)(model_config&, float nan);
    status refused;
  };
  const lie lies[] = {
      {"a MAP head without the norm that it reads", [](model_config& m, float) {
         m.vision.pool = pooling::map, m.vision.map_heads = m.vision.map_mlp = 1, m.vision.final_norm = 0;
       }, status::bad_config},
      {"a huge MLP of a head that is not there", [](model_config& m, float) { m.vision.map_mlp = INT32_MAX; },
       status::bad_config},
      {"an offset of positions that is no number", [](model_config& m, float x) { m.vision.position_offset = x; },
       status::bad_config},
      {"an offset that makes a grid of nothing", [](model_config& m, float) { m.vision.position_offset = -1; },
       status::bad_config},
      {"a resize of positions that nobody knows", [](model_config& m, float) {
         m.vision.positions = static_cast<position_resize>(4);
       }, status::bad_config},
      {"no blocks, but wide ones", [](model_config& m, float) {
         m.text.encoder.layers = 0, m.text.encoder.mlp = 1 << 17;
       }, status::bad_config},
      {"patches of one size, read as another", [](model_config& m, float) {
         m.vision.naflex = 1, m.preprocess.resize = resize_mode::naflex, m.preprocess.patch = m.vision.patch / 2;
       }, status::bad_config},
      {"more hidden values than any layer has", [](model_config& m, float) { m.vision.encoder.mlp = 1 << 17; },
       status::wrong_shape},
      {"more heads than any layer has", [](model_config& m, float) { m.text.encoder.heads = 256; }, status::wrong_shape},
      {"heads so wide that a layer has no whole number", [](model_config& m, float) {
         m.text.encoder.head_width *= m.text.encoder.heads, m.text.encoder.heads = 1;
       }, status::wrong_shape},
  };
  const converted_file file(own_case("tinyclip"), dtype::f32);
  REQUIRE_MESSAGE(file.error == "", file.error);
  std::ifstream in(file.path, std::ios::binary);
  const std::vector<char> bytes((std::istreambuf_iterator<char>(in)), {});
  result<array<char>> forged = array<char>::make(bytes.size());
  REQUIRE(forged);
  char* const at = forged->data();
  const auto opened = [&] { return model::open(std::as_bytes(std::span(at, bytes.size()))).error(); };
  for (const lie& l : lies) {
    INFO(l.what);
    std::memcpy(at, bytes.data(), bytes.size());
    CHECK(opened() == status::ok);
    auto& h = *reinterpret_cast<format::file_header*>(at);
    auto* const sections = reinterpret_cast<format::section_header*>(at + h.sections_offset);
    const auto sum = [](const void* data, std::size_t n, format::checksum c = {}) {
      c.add(static_cast<const unsigned char*>(data), n);
      return c;
    };
    for (std::uint32_t i = 0; i < h.section_count; i++) {
      if (sections[i].kind != static_cast<std::uint32_t>(format::section::config)) continue;
      l.tell(*reinterpret_cast<model_config*>(at + sections[i].offset), nan);
      sections[i].checksum = sum(at + sections[i].offset, sections[i].bytes).state;
    }
    h.checksum = 0;
    h.checksum = sum(sections, h.section_count * sizeof(*sections), sum(&h, sizeof(h))).state;
    CHECK(opened() == l.refused);
  }
}

TEST_CASE("towers: a batch that the model cannot read is refused") {
  int refused = 0;
  for (const golden_case& of : golden_cases()) {
    const npy p = read_npy(of.arrays / "pixel_values.npy");
    if (!p || read_npy(of.arrays / "spatial_shapes.npy")) continue;
    const converted_file file(of.checkpoint, dtype::s8);
    REQUIRE_MESSAGE(file.error == "", of.name);
    const result<model> m = model::open(file.path.c_str());
    REQUIRE_MESSAGE(m, of.name);
    const vision_config& v = m->config().vision;
    std::vector<float> out(static_cast<std::size_t>(m->embed())), logits(1);
    std::vector<float> pixels(3 * static_cast<std::size_t>((v.image_h + 1) * (v.image_w + 1)),
                              std::numeric_limits<float>::quiet_NaN());
    workspace work;
    nn::image_batch in;
    in.count = 1;
    in.height = v.image_h;
    in.width = v.image_w;
    INFO(of.name);
    CHECK(m->encode_batch(in, out.data(), work) == status::invalid_argument);  // no pixels
    in.pixels = pixels.data();
    CHECK(m->encode_batch(in, out.data(), work) == status::ok);
    if (v.kind == vision_kind::vit && v.conv_stem == 0) {  // pixels are bytes there: not a number is the least one
      std::vector<float> black(out.size());
      const std::size_t plane = static_cast<std::size_t>(v.image_h) * static_cast<std::size_t>(v.image_w);
      for (std::size_t i = 0; i < 3 * plane; i++)
        pixels[i] = (0 - m->config().preprocess.mean[i / plane]) / m->config().preprocess.std[i / plane];
      CHECK(m->encode_batch(in, black.data(), work) == status::ok);
      CHECK(std::memcmp(black.data(), out.data(), sizeof(float) * out.size()) == 0);
    }
    if (v.classes == 0)
      CHECK(m->encode_batch(in, out.data(), work, {}, logits.data()) == status::no_classes);
    if (v.positions == position_resize::none) {
      in.width++;
      CHECK(m->encode_batch(in, out.data(), work) == status::wrong_shape);
    }
    const int grid[2] = {v.grid_h, v.grid_w};
    in.grids = grid;
    CHECK(m->encode_batch(in, out.data(), work) == status::invalid_argument);  // planes have one size
    in.grids = nullptr;
    in.count = -1;
    CHECK(m->encode_batch(in, out.data(), work) == status::invalid_argument);
    refused++;
  }
  CHECK(refused > 0);
}

// More images than run through a tower together (kernel_table::batch_rows), and more than are pooled together
// (model::batch_images). In bf16 the image alone has its activations rounded by each product, where the set rounds them.
TEST_CASE("towers: an image of a large batch has the bits that it has alone") {
  int compared = 0;
  for (const golden_case& of : golden_cases()) {
    const npy p = read_npy(of.arrays / "pixel_values.npy"), shapes = read_npy(of.arrays / "spatial_shapes.npy");
    if (!p) continue;
    for (const dtype type : {dtype::f32, dtype::f16, dtype::bf16, dtype::s8}) {
      if (type == dtype::f16 && best_kernels().split_bf16 == nullptr) continue;  // activations as they are, as f32's
      const converted_file file(of.checkpoint, type);
      REQUIRE_MESSAGE(file.error == "", of.name);
      kernel_table plain = best_kernels();
      plain.round_bf16 = nullptr;
      const result<model> m = model::open(file.path.c_str()), by_itself = model::open(file.path.c_str(), plain);
      REQUIRE_MESSAGE(m, of.name);
      REQUIRE_MESSAGE(by_itself, of.name);
      if (m->config().vision.kind != vision_kind::vit) continue;
      constexpr std::size_t count = 2 * model::batch_images + 5;
      const auto images = static_cast<std::size_t>(p.shape[0]), width = static_cast<std::size_t>(m->embed());
      const std::size_t plane = p.f.size() / images;
      std::vector<float> values(count * plane), together(count * width), alone(width);
      for (std::size_t i = 0; i < values.size(); i++)
        values[i] = p.f[i % p.f.size()] * (1 + 0.01f * static_cast<float>(i / plane));
      std::vector<int> grids(2 * count);
      for (std::size_t i = 0; shapes && i < grids.size(); i++)
        grids[i] = static_cast<int>(shapes.i[i % (2 * images)]);
      const auto encode = [&](const model& by, std::size_t first, std::size_t n, float* out) {
        workspace work;
        nn::image_batch in;
        in.count = static_cast<int>(n);
        (shapes ? in.patches : in.pixels) = values.data() + first * plane;
        if (shapes) {
          in.grids = grids.data() + 2 * first;
          in.patch_stride = static_cast<int>(p.shape[1]);
        } else {
          in.height = static_cast<int>(p.shape[2]);
          in.width = static_cast<int>(p.shape[3]);
        }
        return by.encode_batch(in, out, work);
      };
      REQUIRE(encode(*m, 0, count, together.data()) == status::ok);
      INFO(of.name << ", weights of type " << static_cast<int>(type));
      for (std::size_t i = 0; i < count; i += type == dtype::f16 || type == dtype::bf16 ? 5 : 1) {
        REQUIRE(encode(*by_itself, i, 1, alone.data()) == status::ok);
        CHECK(std::memcmp(together.data() + i * width, alone.data(), sizeof(float) * width) == 0);
      }
      compared++;
    }
  }
  CHECK(compared > 0);
}

TEST_CASE("towers: an embedding has the same bits for every kernel set, thread count and batch size") {
  std::string ran;
  for (const golden_case& of : golden_cases()) {
    const std::string& name = of.name;
    const fs::path &source = of.checkpoint, &folder = of.arrays;
    for (const dtype type : {dtype::f32, dtype::s8}) {
      const converted_file file(source, type);
      REQUIRE_MESSAGE(file.error == "", name);
      std::vector<float> first;
      const cpu_features cpu = detect_cpu();
#define OCELLUS_KERNEL_SET(set, available) \
  if (available) { \
    const result<model> m = model::open(file.path.c_str(), make_table<kernels::set>()); \
    REQUIRE_MESSAGE(m, name); \
    if (ran.find(#set " ") == std::string::npos) ran += #set " "; \
    for (const int threads : {1, 2, 3}) { \
      thread_pool pool(threads); \
      const executor run = pool.executor(); \
      std::vector<float> e; \
      workspace work; \
      if (const npy p = read_npy(folder / "pixel_values.npy"); p && p.shape.size() == 4) { \
        nn::image_batch in; \
        in.count = threads == 3 ? 1 : static_cast<int>(p.shape[0]); \
        in.height = static_cast<int>(p.shape[2]); \
        in.width = static_cast<int>(p.shape[3]); \
        const auto width = static_cast<std::size_t>(m->embed()); \
        e.resize(width* static_cast<std::size_t>(p.shape[0])); \
        for (int i = 0; i < static_cast<int>(p.shape[0]); i += in.count) { \
          in.pixels = p.f.data() + static_cast<std::ptrdiff_t>(i) * 3 * in.height * in.width; \
          REQUIRE(m->encode_batch(in, e.data() + static_cast<std::size_t>(i) * width, work, run) == \
                  status::ok); \
        } \
      } \
      if (const npy ids = read_npy(folder / "input_ids.npy"); ids && m->has_text()) { \
        const std::vector<std::int32_t> given(ids.i.begin(), ids.i.end()); \
        std::vector<float> t(static_cast<std::size_t>(m->text_embed()) * \
                             static_cast<std::size_t>(ids.shape[0])); \
        REQUIRE(m->encode_ids(given.data(), static_cast<int>(ids.shape[0]), static_cast<int>(ids.shape[1]), \
                              t.data(), work, run) == status::ok); \
        e.insert(e.end(), t.begin(), t.end()); \
      } \
      if (first.empty()) first = e; \
      CHECK_MESSAGE(std::memcmp(first.data(), e.data(), e.size() * sizeof(float)) == 0, \
                    name << " " << to_string(type) << " " #set " with " << threads << " threads"); \
    } \
  }
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
      static_cast<void>(cpu);
    }
  }
  MESSAGE("towers ran on: " << ran);
}

}  // namespace
