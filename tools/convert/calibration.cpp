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

const char* const subjects[] = {
    "cat", "dog on the beach", "red car", "bowl of fruit", "mountain lake", "city at night", "child with a kite",
    "handwritten note", "map of Europe", "screenshot", "wooden chair", "plane in the sky", "old bridge", "bar chart",
    "tree in autumn", "plate of pasta", "horse", "football match", "street sign", "violin", "laptop computer",
    "pair of shoes", "coffee mug", "snake", "spider web", "church", "sailing boat", "fire engine", "ballpoint pen",
    "traffic light", "mushroom", "castle", "desk lamp", "electric guitar", "washing machine", "tiger", "goldfish",
    "sandy desert", "waterfall", "butterfly"};
const char* const patterns[] = {"a photo of a ",         "a blurry drawing of a ",    "",
                                "the ",                  "a bad photo of many ",      "an old painting with a ",
                                "a close-up of my "};

/// Pictures drawn from random numbers. Of real ones they have the spectrum, which falls with frequency, and things of all
/// sizes before one another (the dead leaves of [Lee 2001, "Occlusion models for natural images"]).
struct painter {
  static constexpr int side = 256;
  using field = std::vector<float>;  // [side, side]
  std::uint32_t state = 1;

  /// In [0, 1).
  float random() {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 16777216.f;
  }
  float within(float low, float high) { return low + (high - low) * random(); }

  /// Octaves of smooth noise, each `fall` times as strong as the one of twice its grain.
  field noise(float fall) {
    field f(static_cast<std::size_t>(side) * side, 0.f);
    float strength = 1;
    for (int cell = side / 2; cell >= 2; cell /= 2, strength *= fall) {
      const int n = side / cell + 2;
      field grid(static_cast<std::size_t>(n) * static_cast<std::size_t>(n));
      for (float& v : grid) v = within(-1, 1);
      float smooth[side];
      for (int i = 0; i < cell; i++) {
        const float t = static_cast<float>(i) / static_cast<float>(cell);
        smooth[i] = t * t * (3 - 2 * t);
      }
      float* to = f.data();
      for (int y = 0; y < side; y++) {
        const float v = smooth[y % cell];
        const float* at = grid.data() + y / cell * n;
        for (int x = 0; x < side; x += cell, at++)
          for (int i = 0; i < cell; i++, to++) {
            const float u = smooth[i];
            *to += strength * ((at[0] * (1 - u) + at[1] * u) * (1 - v) + (at[n] * (1 - u) + at[n + 1] * u) * v);
          }
      }
    }
    return f;
  }

  /// Lays `things` shapes (0: the background alone) over a background, all with texture and a colour of their own.
  result<image> paint(int things) {
    field canvas(static_cast<std::size_t>(3 * side * side));
    const float fall = within(0.35f, 0.7f);
    const field light = noise(fall), tint = noise(0.4f), edge = noise(0.5f);
    const float usual[3] = {within(50, 200), within(50, 200), within(50, 200)};
    for (int thing = 0; thing <= things; thing++) {
      // sizes by a power law: many small things, few large ones
      const float size = side / 2.5f / std::sqrt(1 + random() * (things > 20 ? 400.f : 20.f));
      const float cx = within(0, side), cy = within(0, side), turn = within(0, 3.14f), flat = within(0.4f, 1.6f);
      const float c = std::cos(turn), s = std::sin(turn), ragged = within(0, 0.5f);
      const bool box = random() < 0.3f;
      const float contrast = within(10, 70), colourful = within(0, 30), slope = within(-80, 60);
      const int shift = static_cast<int>(random() * side * side);
      float colour[3];
      for (int i = 0; i < 3; i++) colour[i] = 0.5f * usual[i] + within(0, 128);
      // no pixel of a thing is further from its centre: `edge` stays below 2
      const float reach = thing == 0 ? 2 * side : size * (1 + 2 * ragged) * std::sqrt(1 + flat * flat);
      const auto begin = [&](float centre) { return static_cast<int>(std::max(0.f, centre - reach)); };
      const auto end = [&](float centre) { return static_cast<int>(std::min<float>(side, centre + reach + 1)); };
      for (int y = begin(cy); y < end(cy); y++)
        for (int x = begin(cx); x < end(cx); x++) {
          const int at = y * side + x;
          float cover = 1;
          if (thing > 0) {
            const float dx = static_cast<float>(x) - cx, dy = static_cast<float>(y) - cy;
            const float u = std::fabs(dx * c + dy * s) / size, v = std::fabs(dy * c - dx * s) / size / flat;
            const float r = box ? std::max(u, v) : std::sqrt(u * u + v * v);
            cover = std::clamp((1 - r + ragged * edge[static_cast<std::size_t>(at)]) * size / 2, 0.f, 1.f);
          }
          if (cover <= 0) continue;
          const auto texel = static_cast<std::size_t>((at + shift) % (side * side));
          const float brightness = contrast * light[texel] + slope * (static_cast<float>(y) / side - 0.5f);
          for (int i = 0; i < 3; i++) {
            float& p = canvas[static_cast<std::size_t>(3 * at + i)];
            p += cover * (colour[i] + brightness + static_cast<float>(i - 1) * colourful * tint[texel] - p);
          }
        }
    }
    result<image> made = image::make(side, side);
    if (!made) return made;
    std::uint8_t* out = made->pixels();
    for (const float v : canvas) *out++ = static_cast<std::uint8_t>(std::clamp(v + within(-2, 2), 0.f, 255.f));
    return made;
  }
};

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
    return m.encode_preprocessed(picture, out, work, pool.executor(), {&call_stage, &f});
  }

  status text(const std::string& prompt, float* out, stage_function& f) {
    std::vector<std::int32_t> ids(static_cast<std::size_t>(m.config().text.context));
    const auto encoded = m.tokenizer()->encode(prompt, ids);
    if (!encoded) return encoded.error();
    return m.encode_ids(ids.data(), 1, static_cast<int>(ids.size()), out, work, pool.executor(), {&call_stage, &f});
  }
};

error about(status s) { return {std::string("calibration: ") + to_string(s)}; }

std::vector<std::string> built_in_prompts() {
  std::vector<std::string> prompts;
  for (const char* pattern : patterns)
    for (const char* subject : subjects) prompts.push_back(std::string(pattern) + subject);
  return prompts;
}

}  // namespace

outcome<calibration_inputs> read_calibration(const fs::path& folder, const preprocess_config& preprocess) {
  std::vector<fs::path> files;
  std::error_code failed;
  for (fs::directory_iterator at(folder, failed), end; !failed && at != end; at.increment(failed))
    if (at->is_regular_file(failed)) files.push_back(at->path());
  if (failed) return error{printable(folder.string()) + ": " + failed.message()};
  std::sort(files.begin(), files.end());
  calibration_inputs inputs;
  inputs.prompts = built_in_prompts();
  const resample_kernels kernels = exact_kernels().resample;
  inputs.own = true;
  // every n-th file, so that a sorted collection is seen as a whole; odd files make room for their neighbours
  const std::size_t step = std::max<std::size_t>(1, files.size() / most_pictures);
  for (std::size_t first = 0; first < step && inputs.pictures.size() < most_pictures; first++)
    for (std::size_t i = first; i < files.size() && inputs.pictures.size() < most_pictures; i += step)
      if (result<image> picture = preprocess_file(files[i].string().c_str(), preprocess, kernels); picture) {
        inputs.pictures.push_back(std::move(*picture));
      } else if (picture.error() == status::out_of_memory) {
        return error{printable(files[i].string()) + ": " + to_string(picture.error())};
      }
  if (inputs.pictures.empty()) return error{printable(folder.string()) + ": no picture that can be read"};
  inputs.description = std::to_string(inputs.pictures.size()) + " pictures of " +
                       printable(fs::absolute(folder).filename().string()) + ", " + std::to_string(inputs.prompts.size()) +
                       " built-in prompts";
  return inputs;
}

outcome<calibration_inputs> built_in_inputs(const preprocess_config& preprocess) {
  calibration_inputs inputs;
  inputs.prompts = built_in_prompts();
  painter artist;
  const resample_kernels kernels = exact_kernels().resample;
  for (int n = 0; n < 24; n++) {
    const result<image> made = artist.paint(n % 3 == 0 ? 0 : n % 3 == 1 ? 2 + n / 4 : 150);
    if (!made) return about(made.error());
    result<image> ready = ocellus::preprocess(*made, preprocess, kernels);
    if (!ready)
      return error{"calibration: the model's preprocessor takes no built-in picture, which are 256 x 256 (" +
                   std::string(to_string(ready.error())) + "); give pictures by --calibrate"};
    inputs.pictures.push_back(std::move(*ready));
  }
  inputs.description = std::to_string(inputs.pictures.size()) + " built-in pictures, " +
                       std::to_string(inputs.prompts.size()) + " built-in prompts";
  return inputs;
}

namespace {

/// Looks at the inputs of products on their way to the kernels, which are plain functions: hence the one `current`.
struct recorder {
  static constexpr int most_rows = 256;  ///< of one product; of more, every n-th, but one of four at least
  static recorder* current;

  /// Inputs of one matrix wait until they are enough for a product that is worth its call.
  struct entry {
    input_moments* to = nullptr;
    std::size_t bytes = 0;            ///< of the matrix
    std::vector<float> columns = {};  ///< [k, most_rows], as gemm_f32 reads activations
    int rows = 0;
  };
  kernel_table kernels = exact_kernels();
  thread_pool pool{};
  std::map<const void*, entry> matrices;  ///< by where they begin
  array<float> panels;  ///< the same as it reads weights: [k / 16][rows][16]
  int sequence = 0;     ///< rows of a tower's sequence; products over other numbers weigh all rows alike
  int pooled = -1;      ///< its row of the pooled token, or -1

  void record(const gemm_args& g) noexcept {
    auto at = matrices.upper_bound(g.b);  // g.b may be in the midst of a matrix: rows of it
    if (at == matrices.begin()) return;
    entry& e = (--at)->second;
    if (static_cast<const char*>(g.b) >= static_cast<const char*>(at->first) + e.bytes) return;
    const int step = std::min(ceil_div(g.m, most_rows), 4);
    for (int r = 0; r < g.m; r++) {
      const bool chosen = g.m == sequence && r == pooled;
      if (r % step != 0 && !chosen) continue;
      const float weight = chosen ? std::sqrt(static_cast<float>(ceil_div(g.m, step))) : 1.f;
      const float* x = static_cast<const float*>(g.a) + r * g.lda;
      for (int i = 0; i < e.to->k; i++) {
        float& most = e.to->largest[static_cast<std::size_t>(i)];
        most = std::max(most, std::fabs(x[i]));
        e.columns[static_cast<std::size_t>(i * most_rows + e.rows)] = weight * x[i];
      }
      e.to->rows += 1;
      if (++e.rows == most_rows) add_products(e);
    }
  }

  /// The upper triangle of each block += columns * columns^T.
  void add_products(entry& e) noexcept {
    for (int b = 0; b < e.to->blocks() && e.rows > 0; b++) {
      const int n = e.to->size(b);
      const float* from = e.columns.data() + static_cast<std::ptrdiff_t>(b) * e.to->width * most_rows;
      for (int p = 0; p < ceil_div(n, panel_width); p++)
        for (int r = 0; r < e.rows; r++)
          for (int i = 0; i < panel_width; i++)
            panels[static_cast<std::size_t>((p * e.rows + r) * panel_width + i)] =
                p * panel_width + i < n ? from[(p * panel_width + i) * most_rows + r] : 0.f;
      constexpr int band = 64;
      float* out = e.to->second[static_cast<std::size_t>(b)].data();
      pool.executor().for_each(ceil_div(n, band), [&](int part) {
        gemm_args g;
        g.a = from + static_cast<std::ptrdiff_t>(part) * band * most_rows;
        g.lda = most_rows;
        g.b = panels.data();
        g.c = out + static_cast<std::ptrdiff_t>(part) * band * n;
        g.ldc = n;
        g.residual = g.c;
        g.ldr = n;
        g.m = std::min(band, n - part * band);
        g.n = n;
        g.k = e.rows;
        g.panel_begin = part * band / panel_width;
        g.panel_end = ceil_div(n, panel_width);
        kernels.gemm_f32(g);
      });
    }
    e.rows = 0;
  }
};
recorder* recorder::current = nullptr;

void recorded_f32(const gemm_args& g) noexcept { recorder::current->record(g), recorder::current->kernels.gemm_f32(g); }
void recorded_f16(const gemm_args& g) noexcept { recorder::current->record(g), recorder::current->kernels.gemm_f16(g); }

}  // namespace

kernel_table exact_kernels() {
  [[maybe_unused]] const cpu_features cpu = detect_cpu();
#define OCELLUS_KERNEL_SET(name, available) \
  if (kernels::name::exact_f16 && kernels::name::exact_bf16 && (available)) \
    return make_table<kernels::name>().for_cpu(cpu);
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
}

outcome<moments_by_matrix> observe_inputs(const fs::path& packed, const calibration_inputs& inputs, progress& bar) {
  recorder all;
  kernel_table table = all.kernels;
  table.gemm_f32 = &recorded_f32;
  table.gemm_f16 = &recorded_f16;
  const result<model> m = model::open(packed.string().c_str(), table);
  if (!m) return about(m.error());
  moments_by_matrix seen;
  int widest = 0;
  for (int i = 0; i < m->file().tensor_count(); i++) {
    const tensor_view t = m->file().tensor(i);
    if (t.layout != format::layout::panel16 || t.name.starts_with("vision.stem.0.")) continue;
    input_moments& of = seen.emplace(t.name, t.shape[1]).first->second;
    for (int b = 0; b < of.blocks(); b++)
      of.second.emplace_back(static_cast<std::size_t>(of.size(b)) * static_cast<std::size_t>(of.size(b)), 0.f);
    all.matrices[t.data] = {&of, t.bytes, std::vector<float>(static_cast<std::size_t>(of.k) * recorder::most_rows)};
    widest = std::max(widest, round_up(of.k, panel_width));
  }
  result<array<float>> panels = array<float>::make(static_cast<std::size_t>(widest) * recorder::most_rows);
  if (!panels) return about(panels.error());
  all.panels = std::move(*panels);
  recorder::current = &all;
  // One product at a time, so that sums do not depend on the number of threads: those work on the moments.
  runner run{*m, thread_pool(1)};
  bool in_text = false;
  // Of rows that are pooled before a product, that product sees the means alone, which are smaller.
  const vision_config& vision = m->config().vision;
  const bool map = vision.pool == pooling::map;
  const int last = map ? 0 : vision.encoder.layers - 1;
  const auto pooled_by =
      !map && !pools_in_last_block(vision)
          ? seen.end()
          : seen.find(map ? "vision.map.v.weight" : "vision.blocks." + std::to_string(last) + ".attn.qkv.weight");
  stage_function f = [&](const char* stage, int index, const float* v, int rows, int c, std::ptrdiff_t ld) {
    if (!in_text && pooled_by != seen.end() && index == last && std::string_view(stage) == (map ? "norm" : "norm1"))
      for (int r = 0; r < rows; r++)
        for (int i = 0; i < c; i++) {
          float& most = pooled_by->second.largest[static_cast<std::size_t>(i)];
          most = std::max(most, std::fabs(v[r * ld + i]));
        }
    if (std::string_view(stage) != "embed") return;
    all.sequence = rows;
    if (in_text) all.pooled = m->config().text.pool == pooling::first ? 0 : rows - 1;
  };
  if (m->has_vision()) {
    const vision_config& v = m->config().vision;
    all.pooled = v.kind == vision_kind::vit && v.pool == pooling::cls ? 0 : -1;
    std::vector<float> e(static_cast<std::size_t>(m->embed()));
    for (const image& picture : inputs.pictures) {
      if (const status s = run.image(picture, e.data(), f); s != status::ok) return about(s);
      bar.step("calibration", static_cast<std::uint64_t>(picture.width()) * static_cast<std::uint64_t>(picture.height()) * 3);
    }
  }
  if (m->has_text() && m->tokenizer() != nullptr) {
    std::vector<float> e(static_cast<std::size_t>(m->text_embed()));
    in_text = true;
    for (const std::string& prompt : inputs.prompts)
      if (const status s = run.text(prompt, e.data(), f); s != status::ok) return about(s);
  }
  for (auto& [data, e] : all.matrices) all.add_products(e);
  std::erase_if(seen, [](const auto& item) { return item.second.rows == 0; });
  return seen;
}

outcome<fidelity> compare_models(const fs::path& reference, const fs::path& candidate, const calibration_inputs& inputs) {
  const result<model> a = model::open(reference.string().c_str(), exact_kernels()),
                      b = model::open(candidate.string().c_str(), exact_kernels());
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
