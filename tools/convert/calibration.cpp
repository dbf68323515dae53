#include "calibration.hpp"

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <algorithm>
#include <cmath>
#include <functional>
#include <map>

namespace ocellus::convert {

namespace fs = std::filesystem;

namespace {

constexpr std::size_t most_pictures = 64;

const char* const subjects[] = {"cat",          "dog on the beach", "red car",         "bowl of fruit",   "mountain lake",
                                "city at night", "child with a kite", "handwritten note", "map of Europe", "screenshot",
                                "wooden chair", "plane in the sky", "old bridge",      "bar chart",       "tree in autumn",
                                "plate of pasta", "horse",          "football match",  "street sign",     "violin"};
const char* const patterns[] = {"a photo of a ", "a blurry drawing of a "};

/// Calls f(stage, index, values, rows, c, ld) for each stage of the towers on each input alone.
using stage_function = std::function<void(const char*, int, const float*, int, int, std::ptrdiff_t)>;

void call_stage(void* self, const char* stage, int index, const float* v, int rows, int c, std::ptrdiff_t ld) {
  (*static_cast<stage_function*>(self))(stage, index, v, rows, c, ld);
}

struct runner {
  const model& m;
  thread_pool pool{};
  workspace work{};

  status image(const ocellus::image& picture, float* out, stage_function& f) {
    const preprocess_config& p = m.config().preprocess;
    const result<preprocess_shape> shape = preprocess_shape_of(p, picture.width(), picture.height());
    if (!shape) return shape.error();
    const result<ocellus::image> ready = preprocess(picture, p, m.kernels().resample, pool.executor());
    if (!ready) return ready.error();
    const image_view view = *ready;
    nn::image_batch in;
    in.count = 1;
    const int grid[2] = {shape->grid_h, shape->grid_w};
    const std::uint8_t* pixels = view.pixels;
    if (m.config().vision.naflex != 0) {
      in.rgbs = &pixels;
      in.grids = grid;
    } else {
      in.rgb = pixels;
      in.height = view.height;
      in.width = view.width;
    }
    return m.encode_batch(in, out, work, pool.executor(), nullptr, {&call_stage, &f});
  }

  status text(const std::string& prompt, float* out, stage_function& f) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(m.config().text.context));
    const auto encoded = m.tokenizer()->encode(prompt, ids);
    if (!encoded) return encoded.error();
    return m.encode_ids(ids.data(), 1, static_cast<int>(ids.size()), out, work, pool.executor(), {&call_stage, &f});
  }
};

error about(status s) { return {std::string("calibration: ") + to_string(s)}; }

}  // namespace

outcome<calibration_inputs> read_calibration(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (fs::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed))
    if (at->is_regular_file(failed)) files.push_back(at->path());
  if (failed) return error{printable(folder.string()) + ": " + failed.message()};
  std::sort(files.begin(), files.end());
  calibration_inputs inputs = built_in_inputs();
  inputs.pictures.clear();
  inputs.own = true;
  // every n-th file, so that a sorted collection is seen as a whole; odd files make room for their neighbours
  const std::size_t step = std::max<std::size_t>(1, files.size() / most_pictures);
  for (std::size_t first = 0; first < step && inputs.pictures.size() < most_pictures; first++)
    for (std::size_t i = first; i < files.size() && inputs.pictures.size() < most_pictures; i += step)
      if (result<image> picture = load_image(files[i].c_str()); picture) inputs.pictures.push_back(std::move(*picture));
  if (inputs.pictures.empty()) return error{printable(folder.string()) + ": no picture that can be read"};
  inputs.description = std::to_string(inputs.pictures.size()) + " pictures of " +
                       printable(fs::absolute(folder).filename().string()) + ", " + std::to_string(inputs.prompts.size()) +
                       " built-in prompts";
  return inputs;
}

calibration_inputs built_in_inputs() {
  calibration_inputs inputs;
  for (const char* pattern : patterns)
    for (const char* subject : subjects) inputs.prompts.push_back(std::string(pattern) + subject);
  std::uint32_t state = 1;
  const auto random = [&state] { return (state = state * 1664525u + 1013904223u) >> 16; };
  for (int n = 0; n < 8; n++) {
    constexpr int side = 384;
    result<image> made = image::create(side, side);
    if (!made) break;
    std::uint8_t* p = made->pixels();
    const int block = 8 << (n % 4), noise = n < 4 ? 16 : 96;
    std::vector<int> colours(static_cast<std::size_t>(3 * (side / block + 1) * (side / block + 1)));
    for (int& c : colours) c = static_cast<int>(random() % 160);
    for (int y = 0; y < side; y++)
      for (int x = 0; x < side; x++)
        for (int c = 0; c < 3; c++) {
          const int base = colours[static_cast<std::size_t>(3 * (y / block * (side / block + 1) + x / block) + c)];
          const int slope = (c == 0 ? x : c == 1 ? y : side - x) * 64 / side;
          *p++ = static_cast<std::uint8_t>(std::min(255, base + slope + static_cast<int>(random()) % noise));
        }
    inputs.pictures.push_back(std::move(*made));
  }
  inputs.description = "8 built-in pictures, 40 built-in prompts";
  return inputs;
}

outcome<channel_maxima> observe_channels(const fs::path& packed, const calibration_inputs& inputs) {
  const result<model> m = model::open(packed.c_str());
  if (!m) return about(m.error());
  channel_maxima seen;
  std::string tower;
  stage_function f = [&](const char* stage, int index, const float* v, int rows, int c, std::ptrdiff_t ld) {
    const std::string_view name = stage;
    std::string norm = tower;
    if (name == "norm1" || name == "norm2") {
      norm += ".blocks." + std::to_string(index) + "." + stage;
    } else if (name == "norm") {
      norm += ".norm";
    } else {
      return;
    }
    std::vector<float>& most = seen[norm];
    most.resize(static_cast<std::size_t>(c), 0.f);
    for (int r = 0; r < rows; r++)
      for (int i = 0; i < c; i++)
        most[static_cast<std::size_t>(i)] = std::max(most[static_cast<std::size_t>(i)], std::fabs(v[r * ld + i]));
  };
  runner run{*m};
  if (m->has_vision() && m->config().vision.kind == vision_kind::vit) {
    tower = "vision";
    std::vector<float> e(static_cast<std::size_t>(m->embed()));
    for (const image& picture : inputs.pictures)
      if (const status s = run.image(picture, e.data(), f); s != status::ok) return about(s);
  }
  if (m->has_text() && m->tokenizer() != nullptr) {
    tower = "text";
    std::vector<float> e(static_cast<std::size_t>(m->text_embed()));
    for (const std::string& prompt : inputs.prompts)
      if (const status s = run.text(prompt, e.data(), f); s != status::ok) return about(s);
  }
  return seen;
}

outcome<fidelity> compare_models(const fs::path& reference, const fs::path& candidate, const calibration_inputs& inputs) {
  const result<model> a = model::open(reference.c_str()), b = model::open(candidate.c_str());
  if (!a || !b) return about(!a ? a.error() : b.error());
  runner run_a{*a}, run_b{*b};
  fidelity all;
  /// Squared error and squared size of each block's output, summed over the inputs.
  struct growth {
    double off = 0, size = 0;
  };
  const auto compare = [](fidelity::tower& t, std::vector<growth>& grown, int width, auto&& encode_a, auto&& encode_b) {
    std::vector<std::vector<float>> blocks;
    stage_function keep = [&](const char* stage, int, const float* v, int rows, int c, std::ptrdiff_t ld) {
      if (std::string_view(stage) != "block") return;
      std::vector<float>& out = blocks.emplace_back();
      for (int r = 0; r < rows; r++) out.insert(out.end(), v + r * ld, v + r * ld + c);
    };
    stage_function measure = [&](const char* stage, int index, const float* v, int rows, int c, std::ptrdiff_t ld) {
      const auto at = static_cast<std::size_t>(index);
      if (std::string_view(stage) != "block" || at >= blocks.size()) return;
      if (grown.size() <= at) grown.resize(at + 1);
      for (int r = 0; r < rows; r++)
        for (int i = 0; i < c; i++) {
          const auto x = static_cast<double>(blocks[at][static_cast<std::size_t>(r * c + i)]);
          const double off = static_cast<double>(v[r * ld + i]) - x;
          grown[at].off += off * off;
          grown[at].size += x * x;
        }
    };
    std::vector<float> ea(static_cast<std::size_t>(width)), eb(ea);
    if (const status s = encode_a(ea.data(), keep); s != status::ok) return s;
    if (const status s = encode_b(eb.data(), measure); s != status::ok) return s;
    double ab = 0, aa = 0, bb = 0;
    for (std::size_t i = 0; i < ea.size(); i++) {
      const auto x = static_cast<double>(ea[i]), y = static_cast<double>(eb[i]);
      ab += x * y;
      aa += x * x;
      bb += y * y;
    }
    const double cos = ab / std::sqrt(std::max(aa * bb, 1e-300));
    t.mean_cos = (t.mean_cos * t.items + cos) / (t.items + 1);
    t.worst_cos = std::min(t.worst_cos, cos);
    t.items++;
    return status::ok;
  };
  std::vector<growth> image_growth, text_growth;
  if (a->has_vision())
    for (const image& picture : inputs.pictures) {
      const status s = compare(
          all.image, image_growth, a->embed(), [&](float* e, stage_function& f) { return run_a.image(picture, e, f); },
          [&](float* e, stage_function& f) { return run_b.image(picture, e, f); });
      if (s != status::ok) return about(s);
    }
  if (a->has_text() && a->tokenizer() != nullptr)
    for (const std::string& prompt : inputs.prompts) {
      const status s = compare(
          all.text, text_growth, a->text_embed(), [&](float* e, stage_function& f) { return run_a.text(prompt, e, f); },
          [&](float* e, stage_function& f) { return run_b.text(prompt, e, f); });
      if (s != status::ok) return about(s);
    }
  for (const growth& g : image_growth) all.image.block_error.push_back(std::sqrt(g.off / std::max(g.size, 1e-300)));
  for (const growth& g : text_growth) all.text.block_error.push_back(std::sqrt(g.off / std::max(g.size, 1e-300)));
  return all;
}

}  // namespace ocellus::convert
