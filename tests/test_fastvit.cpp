// MobileCLIP's image tower: small open_clip checkpoints with FastViTs of random weights, in the training form and
// reparametrised, against the training form's definition in double precision.
#include "golden_data.hpp"
#include "kernel_testing.hpp"
#include "test_files.hpp"

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cmath>
#include <fstream>
#include <map>
#include <random>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
using kernel_testing::kernel_set;
using kernel_testing::kernel_sets;

struct tensor {
  std::vector<int> shape;
  std::vector<float> values;
};

/// [c, h, w]
struct map_of_doubles {
  int c = 0, h = 0, w = 0;
  std::vector<double> v;
  map_of_doubles() = default;
  map_of_doubles(int channels, int height, int width)
      : c(channels), h(height), w(width), v(static_cast<std::size_t>(channels * height * width)) {}
  double& at(int k, int y, int x) { return v[static_cast<std::size_t>((k * h + y) * w + x)]; }
  double at(int k, int y, int x) const { return v[static_cast<std::size_t>((k * h + y) * w + x)]; }
};

struct shape {
  std::vector<int> layers;
  int width = 16, mlp_ratio = 2, attention_stage = 3, embed = 24, height = 64, image_width = 64;
  bool layer_norm = false, squeezes = true, stem_scale = true;
};

class fastvit_checkpoint {
 public:
  explicit fastvit_checkpoint(const shape& s) : s_(s) { create(); }

  /// timm's FastVit.forward in eval mode, of a normalised picture.
  std::vector<double> forward(const map_of_doubles& image) const {
    map_of_doubles x = gelu(mobile_one(image, t_ + "stem.0", 2));
    x = gelu(mobile_one(x, t_ + "stem.1", 2));
    x = gelu(mobile_one(x, t_ + "stem.2", 1));
    for (int s = 0; s < stages(); s++) {
      if (s > 0) {
        x = large(x, down(s) + "proj.0", 2);
        if (has(down(s) + "proj.0.se.fc1.weight")) x = squeeze(x, down(s) + "proj.0.se");
        x = gelu(mobile_one(gelu(x), down(s) + "proj.1", 1));
      }
      if (attends(s)) x = positions(x, stage(s) + "pos_emb");
      for (int i = 0; i < s_.layers[index(s)]; i++) {
        const std::string block = stage(s) + "blocks." + std::to_string(i) + ".";
        if (attends(s)) {
          x = sum(x, scaled(attention(norm(x, block + "norm"), block + "token_mixer"), block + "layer_scale_1.gamma"));
        } else {
          x = mixer(x, block + "token_mixer");
        }
        map_of_doubles y = norm(conv(x, block + "mlp.conv.conv", 1), block + "mlp.conv.bn");
        y = conv(gelu(conv(y, block + "mlp.fc1", 1)), block + "mlp.fc2", 1);
        x = sum(x, scaled(y, block + (attends(s) ? "layer_scale_2.gamma" : "layer_scale.gamma")));
      }
    }
    x = gelu(squeeze(mobile_one(x, t_ + "final_conv", 1), t_ + "final_conv.se"));
    const map_of_doubles e = conv(mean(x), t_ + "head.fc", 1);
    return e.v;
  }

  /// timm's reparameterize_model: each sum of branches becomes one convolution, found here by its answers to impulses.
  void reparametrise() {
    for (int i = 0; i < 3; i++)
      merge(t_ + "stem." + std::to_string(i), i == 2 ? 1 : 3, i == 0 ? 3 : s_.width, i != 1,
            [&](const map_of_doubles& x, const std::string& n) { return mobile_one(x, n, 1); });
    for (int s = 0; s < stages(); s++) {
      const int c = s_.width << s;
      if (s > 0) {
        merge(down(s) + "proj.0", 7, c / 2, false, [&](const auto& x, const std::string& n) { return large(x, n, 1); });
        merge(down(s) + "proj.1", 1, c, true, [&](const auto& x, const std::string& n) { return mobile_one(x, n, 1); });
      }
      if (attends(s))
        merge(stage(s) + "pos_emb", 7, c, false, [&](const auto& x, const std::string& n) { return positions(x, n); });
      for (int i = 0; i < s_.layers[index(s)] && !attends(s); i++)
        merge(stage(s) + "blocks." + std::to_string(i) + ".token_mixer", 3, c, false,
              [&](const auto& x, const std::string& n) { return mixer(x, n); });
    }
    merge(t_ + "final_conv", 3, s_.width << (stages() - 1), false,
          [&](const auto& x, const std::string& n) { return mobile_one(x, n, 1); });
  }

  /// Writes weights and configuration into `folder`; returns the weights' path.
  std::filesystem::path write(const std::filesystem::path& folder, std::string name = "") const {
    if (name.empty()) name = s_.stem_scale ? "fastvit_mci0" : "fastvit_mci3";
    nlohmann::json config, head;
    config["model_cfg"] = {
        {"embed_dim", s_.embed},
        {"vision_cfg",
         {{"timm_model_name", name}, {"timm_pool", "avg"}, {"timm_proj", nullptr},
          {"image_size", {s_.height, s_.image_width}}}},
        {"text_cfg",
         {{"context_length", 8}, {"vocab_size", 64}, {"width", 32}, {"heads", 1}, {"layers", 1}, {"no_causal_mask", true}}}};
    config["preprocess_cfg"] = {{"mean", {0, 0, 0}}, {"std", {1, 1, 1}}, {"interpolation", "bilinear"}, {"resize_mode", "squash"}};
    std::ofstream(folder / "open_clip_config.json") << config;
    std::size_t at = 0;
    for (const auto& [key, t] : tensors_) {
      head[key] = {{"dtype", "F32"}, {"shape", t.shape}, {"data_offsets", {at, at + t.values.size() * 4}}};
      at += t.values.size() * 4;
    }
    const std::string text = head.dump();
    const std::uint64_t length = text.size();
    std::ofstream out(folder / "open_clip_model.safetensors", std::ios::binary);
    out.write(reinterpret_cast<const char*>(&length), 8);
    out << text;
    for (const auto& [key, t] : tensors_)
      out.write(reinterpret_cast<const char*>(t.values.data()), static_cast<std::streamsize>(t.values.size() * 4));
    return folder / "open_clip_model.safetensors";
  }

  std::map<std::string, tensor>& tensors() { return tensors_; }

 private:
  static std::size_t index(int i) { return static_cast<std::size_t>(i); }
  int stages() const { return static_cast<int>(s_.layers.size()); }
  bool attends(int s) const { return s >= s_.attention_stage; }
  std::string stage(int s) const { return t_ + "stages." + std::to_string(s) + "."; }
  std::string down(int s) const { return stage(s) + "downsample."; }
  bool has(const std::string& name) const { return tensors_.contains(name); }
  const std::vector<float>& values(const std::string& name) const { return tensors_.at(name).values; }

  // Creation

  void add(const std::string& name, std::vector<int> dims, double mean, double spread) {
    tensor t;
    std::size_t n = 1;
    for (const int d : dims) n *= index(d);
    std::normal_distribution<double> normal;
    for (std::size_t i = 0; i < n; i++) t.values.push_back(static_cast<float>(mean + spread * normal(random_)));
    t.shape = std::move(dims);
    tensors_[name] = std::move(t);
  }
  void add_conv(const std::string& name, int n, int inner, int side, bool bias) {
    add(name + ".weight", {n, inner, side, side}, 0, 1 / std::sqrt(inner * side * side));
    if (bias) add(name + ".bias", {n}, 0, 0.2);
  }
  void add_norm(const std::string& name, int c, bool batch = true) {
    add(name + ".weight", {c}, 1, 0.2);
    add(name + ".bias", {c}, 0, 0.2);
    if (!batch) return;
    add(name + ".running_mean", {c}, 0, 0.2);
    add(name + ".running_var", {c}, 0, 0.4);
    for (float& v : tensors_[name + ".running_var"].values) v = 0.4f + v * v;
    add(name + ".num_batches_tracked", {}, 7, 0);
  }
  void add_branch(const std::string& name, int n, int inner, int side) {
    add_conv(name + ".conv", n, inner, side, false);
    add_norm(name + ".bn", n);
  }
  void add_mobile_one(const std::string& name, int n, int inner, int side, bool input, bool scale = true) {
    add_branch(name + ".conv_kxk.0", n, inner, side);
    if (side > 1 && scale) add_branch(name + ".conv_scale", n, inner, 1);
    if (input) add_norm(name + ".identity", n);
  }
  void add_squeeze(const std::string& name, int c, int inner) {
    add_conv(name + ".fc1", inner, c, 1, true);
    add_conv(name + ".fc2", c, inner, 1, true);
  }

  void create() {
    int c = s_.width;
    add_mobile_one(t_ + "stem.0", c, 3, 3, false, s_.stem_scale);
    add_mobile_one(t_ + "stem.1", c, 1, 3, false, s_.stem_scale);
    add_mobile_one(t_ + "stem.2", c, c, 1, true);
    for (int s = 0; s < stages(); s++) {
      if (s > 0) {
        c *= 2;
        add_branch(down(s) + "proj.0.large_conv", c, 1, 7);
        add_branch(down(s) + "proj.0.small_conv", c, 1, 3);
        if (s_.squeezes && s >= 2) add_squeeze(down(s) + "proj.0.se", c, 8);
        add_mobile_one(down(s) + "proj.1", c, c, 1, true);
      }
      if (attends(s)) add_conv(stage(s) + "pos_emb.pos_enc", c, 1, 7, true);
      for (int i = 0; i < s_.layers[index(s)]; i++) {
        const std::string block = stage(s) + "blocks." + std::to_string(i) + ".";
        if (attends(s)) {
          add_norm(block + "norm", c, !s_.layer_norm);
          add(block + "token_mixer.qkv.weight", {3 * c, c}, 0, 0.3 / std::sqrt(c));
          add(block + "token_mixer.proj.weight", {c, c}, 0, 1 / std::sqrt(c));
          add(block + "token_mixer.proj.bias", {c}, 0, 0.2);
          add(block + "layer_scale_1.gamma", {c, 1, 1}, 0.15, 0.05);
        } else {
          add_mobile_one(block + "token_mixer.mixer", c, 1, 3, true);
          add_norm(block + "token_mixer.norm.identity", c);
          add(block + "token_mixer.layer_scale.gamma", {c, 1, 1}, 0.15, 0.05);
        }
        add(block + (attends(s) ? "layer_scale_2.gamma" : "layer_scale.gamma"), {c, 1, 1}, 0.15, 0.05);
        add_branch(block + "mlp.conv", c, 1, 7);
        add_conv(block + "mlp.fc1", s_.mlp_ratio * c, c, 1, true);
        add_conv(block + "mlp.fc2", c, s_.mlp_ratio * c, 1, true);
      }
    }
    add_mobile_one(t_ + "final_conv", 2 * c, 1, 3, false);
    add_squeeze(t_ + "final_conv.se", 2 * c, 16);
    add(t_ + "head.fc.weight", {s_.embed, 2 * c}, 0, 1 / std::sqrt(2 * c));
    add(t_ + "head.fc.bias", {s_.embed}, 0, 0.2);
    add("logit_scale", {}, 2, 0);
    add("text.positional_embedding", {8, 32}, 0, 0.1);
    add("text.token_embedding.weight", {64, 32}, 0, 0.1);
    add("text.text_projection", {32, s_.embed}, 0, 0.1);
    add_norm("text.ln_final", 32, false);
    const std::string block = "text.transformer.resblocks.0.";
    add_norm(block + "ln_1", 32, false);
    add_norm(block + "ln_2", 32, false);
    add(block + "attn.in_proj_weight", {96, 32}, 0, 0.1);
    add(block + "attn.in_proj_bias", {96}, 0, 0.1);
    add(block + "attn.out_proj.weight", {32, 32}, 0, 0.1);
    add(block + "attn.out_proj.bias", {32}, 0, 0.1);
    add(block + "mlp.c_fc.weight", {128, 32}, 0, 0.1);
    add(block + "mlp.c_fc.bias", {128}, 0, 0.1);
    add(block + "mlp.c_proj.weight", {32, 128}, 0, 0.1);
    add(block + "mlp.c_proj.bias", {32}, 0, 0.1);
  }

  // Layers, one loop after the other

  map_of_doubles conv(const map_of_doubles& x, const std::string& name, int stride) const {
    const tensor& w = tensors_.at(name + ".weight");
    const int n = w.shape[0], inner = w.shape[1], side = w.shape.size() > 2 ? w.shape[2] : 1, pad = side / 2;
    const int per_group = n / (x.c / inner);
    map_of_doubles y(n, (x.h - 1) / stride + 1, (x.w - 1) / stride + 1);
    for (int o = 0; o < n; o++)
      for (int oy = 0; oy < y.h; oy++)
        for (int ox = 0; ox < y.w; ox++) {
          double s = has(name + ".bias") ? static_cast<double>(values(name + ".bias")[index(o)]) : 0;
          for (int c = 0; c < inner; c++)
            for (int ky = 0; ky < side; ky++)
              for (int kx = 0; kx < side; kx++) {
                const int iy = oy * stride + ky - pad, ix = ox * stride + kx - pad;
                if (iy >= 0 && iy < x.h && ix >= 0 && ix < x.w)
                  s += x.at(o / per_group * inner + c, iy, ix) *
                       static_cast<double>(w.values[index(((o * inner + c) * side + ky) * side + kx)]);
              }
          y.at(o, oy, ox) = s;
        }
    return y;
  }
  /// Batch norm, or LayerNorm over the channels where there are no running statistics.
  map_of_doubles norm(map_of_doubles x, const std::string& name) const {
    const bool batch = has(name + ".running_mean");
    for (int y = 0; y < x.h; y++)
      for (int i = 0; i < x.w; i++) {
        double mean = 0, variance = 0;
        for (int c = 0; c < x.c && !batch; c++) mean += x.at(c, y, i) / x.c;
        for (int c = 0; c < x.c && !batch; c++) variance += (x.at(c, y, i) - mean) * (x.at(c, y, i) - mean) / x.c;
        for (int c = 0; c < x.c; c++) {
          const double m = batch ? static_cast<double>(values(name + ".running_mean")[index(c)]) : mean;
          const double v = batch ? static_cast<double>(values(name + ".running_var")[index(c)]) : variance;
          x.at(c, y, i) = (x.at(c, y, i) - m) / std::sqrt(v + 1e-5) * static_cast<double>(values(name + ".weight")[index(c)]) +
                          static_cast<double>(values(name + ".bias")[index(c)]);
        }
      }
    return x;
  }
  static map_of_doubles sum(map_of_doubles x, const map_of_doubles& y, double factor = 1) {
    for (std::size_t i = 0; i < x.v.size(); i++) x.v[i] += factor * y.v[i];
    return x;
  }
  static map_of_doubles gelu(map_of_doubles x) {
    for (double& v : x.v) v = v / 2 * (1 + std::erf(v / std::sqrt(2.0)));
    return x;
  }
  map_of_doubles scaled(map_of_doubles x, const std::string& gamma) const {
    for (int c = 0; c < x.c; c++)
      for (int i = 0; i < x.h * x.w; i++) x.v[index(c * x.h * x.w + i)] *= static_cast<double>(values(gamma)[index(c)]);
    return x;
  }
  static map_of_doubles mean(const map_of_doubles& x) {
    map_of_doubles m(x.c, 1, 1);
    for (int c = 0; c < x.c; c++)
      for (int i = 0; i < x.h * x.w; i++) m.v[index(c)] += x.v[index(c * x.h * x.w + i)] / (x.h * x.w);
    return m;
  }
  map_of_doubles branch(const map_of_doubles& x, const std::string& name, int stride) const {
    return norm(conv(x, name + ".conv", stride), name + ".bn");
  }
  map_of_doubles mobile_one(const map_of_doubles& x, const std::string& name, int stride) const {
    if (has(name + ".reparam_conv.weight")) return conv(x, name + ".reparam_conv", stride);
    map_of_doubles y = branch(x, name + ".conv_kxk.0", stride);
    if (has(name + ".conv_scale.conv.weight")) y = sum(y, branch(x, name + ".conv_scale", stride));
    if (has(name + ".identity.weight")) y = sum(y, norm(x, name + ".identity"));
    return y;
  }
  map_of_doubles large(const map_of_doubles& x, const std::string& name, int stride) const {
    if (has(name + ".reparam_conv.weight")) return conv(x, name + ".reparam_conv", stride);
    return sum(branch(x, name + ".large_conv", stride), branch(x, name + ".small_conv", stride));
  }
  map_of_doubles mixer(const map_of_doubles& x, const std::string& name) const {
    if (has(name + ".reparam_conv.weight")) return conv(x, name + ".reparam_conv", 1);
    const map_of_doubles y = sum(mobile_one(x, name + ".mixer", 1), norm(x, name + ".norm.identity"), -1);
    return sum(x, scaled(y, name + ".layer_scale.gamma"));
  }
  map_of_doubles positions(const map_of_doubles& x, const std::string& name) const {
    if (has(name + ".reparam_conv.weight")) return conv(x, name + ".reparam_conv", 1);
    return sum(x, conv(x, name + ".pos_enc", 1));
  }
  map_of_doubles squeeze(map_of_doubles x, const std::string& name) const {
    map_of_doubles m = conv(mean(x), name + ".fc1", 1);
    for (double& v : m.v) v = std::max(v, 0.0);
    m = conv(m, name + ".fc2", 1);
    for (int c = 0; c < x.c; c++)
      for (int i = 0; i < x.h * x.w; i++) x.v[index(c * x.h * x.w + i)] *= 1 / (1 + std::exp(-m.v[index(c)]));
    return x;
  }
  map_of_doubles attention(const map_of_doubles& x, const std::string& name) const {
    constexpr int d = 32;
    const map_of_doubles qkv = conv(x, name + ".qkv", 1);
    const int n = x.h * x.w;
    map_of_doubles y(x.c, x.h, x.w);
    const auto value = [&](int c, int i) { return qkv.v[index(c * n + i)]; };
    for (int head = 0; head < x.c; head += d)
      for (int i = 0; i < n; i++) {
        std::vector<double> p(index(n));
        double total = 0;
        for (int j = 0; j < n; j++)
          for (int k = 0; k < d; k++) p[index(j)] += value(head + k, i) * value(x.c + head + k, j) / std::sqrt(d);
        const double most = *std::max_element(p.begin(), p.end());
        for (double& v : p) total += v = std::exp(v - most);
        for (int k = 0; k < d; k++)
          for (int j = 0; j < n; j++)
            y.v[index((head + k) * n + i)] += p[index(j)] / total * value(2 * x.c + head + k, j);
      }
    return conv(y, name + ".proj", 1);
  }

  template <class Layer>
  void merge(const std::string& name, int side, int channels, bool full, const Layer& layer) {
    const int middle = side / 2, inner = full ? channels : 1;
    const map_of_doubles nothing(channels, side, side), bias = layer(nothing, name);
    tensor w{{bias.c, inner, side, side}, std::vector<float>(index(bias.c * inner * side * side))}, b{{bias.c}, {}};
    for (int o = 0; o < bias.c; o++) b.values.push_back(static_cast<float>(bias.at(o, middle, middle)));
    for (int c = 0; c < inner; c++) {
      map_of_doubles x = nothing;
      for (int k = full ? c : 0; k < (full ? c + 1 : channels); k++) x.at(k, middle, middle) = 1;
      const map_of_doubles y = layer(x, name);
      for (int o = 0; o < y.c; o++)
        for (int ky = 0; ky < side; ky++)
          for (int kx = 0; kx < side; kx++)
            w.values[index(((o * inner + c) * side + ky) * side + kx)] = static_cast<float>(
                y.at(o, side - 1 - ky, side - 1 - kx) - bias.at(o, side - 1 - ky, side - 1 - kx));
    }
    std::erase_if(tensors_, [&](const auto& t) {
      return t.first.starts_with(name + ".") && !t.first.starts_with(name + ".se.");
    });
    tensors_[name + ".reparam_conv.weight"] = std::move(w);
    tensors_[name + ".reparam_conv.bias"] = std::move(b);
  }

  const std::string t_ = "visual.trunk.";
  shape s_;
  std::mt19937 random_{11};
  std::map<std::string, tensor> tensors_;
};

const shape shapes[] = {
    {{1, 2, 1, 2}, 16, 2, 3, 24, 64, 64},
    {{1, 1, 1, 1, 1}, 16, 2, 3, 40, 72, 56, true, false, false},
};

/// Pixels in [0, 1], three planes.
map_of_doubles picture(const shape& s) {
  std::mt19937 random(5);
  std::uniform_real_distribution<float> uniform;
  map_of_doubles x(3, s.height, s.image_width);
  for (double& v : x.v) v = static_cast<double>(uniform(random));
  return x;
}

std::vector<float> encode(const model& m, const map_of_doubles& x, const executor& threads = {}) {
  const std::vector<float> pixels(x.v.begin(), x.v.end());
  nn::image_batch in;
  in.pixels = pixels.data();
  in.count = 1;
  in.height = x.h;
  in.width = x.w;
  std::vector<float> e(static_cast<std::size_t>(m.embed()));
  workspace work;
  REQUIRE(m.encode_batch(in, e.data(), work, threads) == status::ok);
  return e;
}

struct difference {
  double cosine = 0, relative = 0;
};
difference compare(const std::vector<float>& a, const std::vector<double>& b) {
  double ab = 0, aa = 0, bb = 0, off = 0, most = 0;
  for (std::size_t i = 0; i < b.size(); i++) {
    const auto x = static_cast<double>(a[i]);
    ab += x * b[i];
    aa += x * x;
    bb += b[i] * b[i];
    off = std::max(off, std::fabs(x - b[i]));
    most = std::max(most, std::fabs(b[i]));
  }
  return {ab / std::sqrt(aa * bb), off / most};
}

}  // namespace

TEST_CASE("FastViT: both forms of a checkpoint give the definition's embeddings, in f32, f16, bf16 and s8") {
  for (const shape& s : shapes) {
    fastvit_checkpoint weights(s);
    const map_of_doubles image = picture(s);
    const std::vector<double> expected = weights.forward(image);
    for (const bool merged : {false, true}) {
      if (merged) weights.reparametrise();
      if (merged) CHECK(compare({expected.begin(), expected.end()}, weights.forward(image)).relative < 1e-5);
      const test_files::scratch_folder folder;
      const auto source = weights.write(folder.path);
      for (const std::pair<dtype, double>& wanted : {std::pair(dtype::f32, 0.9999999), {dtype::f16, 0.99999},
                                                     {dtype::bf16, 0.999}, {dtype::s8, 0.995}}) {
        const dtype type = wanted.first;
        const golden_data::converted_file file(source, type);
        REQUIRE_MESSAGE(file.error == "", file.error);
        const auto m = model::open(file.path.c_str());
        REQUIRE_MESSAGE(m, to_string(m.error()));
        const std::vector<float> e = encode(*m, image);
        const difference d = compare(e, expected);
        INFO(to_string(type), merged ? " reparametrised" : " in the training form", ": cos ", d.cosine, ", relative ", d.relative);
        CHECK(d.cosine >= wanted.second);
        if (type == dtype::f32) CHECK(d.relative < 1e-5);
      }
    }
  }
}

TEST_CASE("FastViT: f32 and s8 answers have the same bits on every set and with any number of threads") {
  for (const shape& s : shapes) {
    const test_files::scratch_folder folder;
    const auto source = fastvit_checkpoint(s).write(folder.path);
    for (const dtype type : {dtype::f32, dtype::s8}) {
      const golden_data::converted_file file(source, type);
      REQUIRE_MESSAGE(file.error == "", file.error);
      const map_of_doubles image = picture(s);
      const auto reference = model::open(file.path.c_str(), make_table<kernels::scalar>());
      REQUIRE(reference);
      const std::vector<float> expected = encode(*reference, image);
      for (const kernel_set& set : kernel_sets()) {
        if (!set.available) continue;
        const auto m = model::open(file.path.c_str(), set.table);
        REQUIRE(m);
        INFO(set.name, " ", to_string(type));
        CHECK(encode(*m, image) == expected);
        thread_pool pool(3);
        CHECK(encode(*m, image, pool.executor()) == expected);
      }
    }
  }
}

TEST_CASE("FastViT: the converter refuses what it does not know, in one line") {
  const auto refusal = [](auto change, const char* name = "fastvit_mci0") {
    fastvit_checkpoint weights(shapes[0]);
    change(weights.tensors());
    const test_files::scratch_folder folder;
    return golden_data::converted_file(weights.write(folder.path, name), dtype::f32).error;
  };
  const std::string at = "visual.trunk.";
  using tensors = std::map<std::string, tensor>;
  CHECK(refusal([](tensors&) {}) == "");
  CHECK(refusal([](tensors&) {}, "fastvit_t8").find("a FastViT, which ocellus knows as MobileCLIP's") != std::string::npos);
  CHECK(refusal([&](tensors& t) { t.erase(at + "stem.1.conv_kxk.0.bn.running_var"); })
            .find("tensor visual.trunk.stem.1.conv_kxk.0.bn.running_var is missing") != std::string::npos);
  CHECK(refusal([&](tensors& t) { t.erase(at + "stages.0.blocks.0.token_mixer.mixer.conv_scale.conv.weight"); })
            .find("conv_scale.conv.weight is missing") != std::string::npos);
  for (const char* missing : {"head.fc.bias", "stages.1.blocks.0.layer_scale.gamma", "stages.1.blocks.0.token_mixer.layer_scale.gamma",
                              "stages.3.blocks.1.layer_scale_1.gamma", "stem.0.conv_scale.conv.weight",
                              "stages.2.downsample.proj.0.se.fc1.weight"})
    CHECK_MESSAGE(refusal([&](tensors& t) { t.erase(at + missing); }).find(std::string(missing) + " is missing") != std::string::npos,
                  missing);
  CHECK(refusal([&](tensors& t) { t[at + "stages.1.downsample.proj.0.large_conv.conv.weight"].shape = {32, 1, 49, 1}; })
            .find("has shape [32, 1, 49, 1], expected [32, 1, 7, 7]") != std::string::npos);
  CHECK(refusal([&](tensors& t) { t[at + "stages.1.extra"] = {{1}, {0}}; }).find("extra [1] has no place") !=
        std::string::npos);
  CHECK(refusal([&](tensors& t) { t[at + "stages.3.blocks.0.mlp.fc1.weight"].shape = {1024, 32, 1, 1}; }) != "");
  CHECK(refusal([&](tensors& t) { t.erase(at + "stages.2.blocks.0.mlp.fc1.weight"); }).find("2 stages") !=
        std::string::npos);
}

TEST_CASE("FastViT: a configuration that makes no sense is not valid, and one of other shapes than the tensors is refused") {
  const test_files::scratch_folder folder;
  const golden_data::converted_file file(fastvit_checkpoint(shapes[0]).write(folder.path), dtype::f32);
  REQUIRE_MESSAGE(file.error == "", file.error);
  const auto m = model::open(file.path.c_str());
  REQUIRE(m);
  const model_config good = m->config();
  REQUIRE(valid(good));
  const auto spoilt = [&](auto change) {
    model_config c = good;
    change(c.vision);
    return valid(c);
  };
  CHECK_FALSE(spoilt([](vision_config& v) { v.resnet_layers[2] = 0; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.resnet_layers[2] = 65; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.fifth_layers = -1; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.fifth_layers = 1; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.resnet_width = 17; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.resnet_width = -16; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.attention_stage = -1; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.attention_stage = 0; }));  // heads wider than the stage
  CHECK_FALSE(spoilt([](vision_config& v) { v.attention_stage = 5; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.squeeze = 0x10; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.pre_norm = 2; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.image_h = 31; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.encoder.mlp = 4; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.encoder.layers++; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.encoder.heads++; }));
  CHECK_FALSE(spoilt([](vision_config& v) { v.classes = 1; }));
  // consistent, but not the tensors'
  const auto binds = [&](auto change) {
    vision_config v = good.vision;
    change(v);
    std::vector<nn::fastvit_block> blocks(static_cast<std::size_t>(v.encoder.layers));
    nn::fastvit_weights w;
    detail::weight_binder binder(m->file());
    binder.fastvit(v, blocks.data(), w);
    return binder.error;
  };
  CHECK(binds([](vision_config&) {}) == status::ok);
  CHECK(binds([](vision_config& v) { v.resnet_width *= 2; }) == status::wrong_shape);
  CHECK(binds([](vision_config& v) { v.encoder.mlp *= 2; }) == status::wrong_shape);
  CHECK(binds([](vision_config& v) { v.squeeze = 0xe; }) == status::missing_tensor);
  CHECK(binds([](vision_config& v) { v.attention_stage = 2; }) == status::missing_tensor);
  CHECK(binds([](vision_config& v) { v.resnet_layers[1]++, v.encoder.layers++; }) == status::missing_tensor);
  CHECK(binds([](vision_config& v) { v.embed++; }) == status::wrong_shape);
}
