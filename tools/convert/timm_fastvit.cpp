#include "timm_trunk.hpp"

#include "layouts.hpp"

#include <cmath>

namespace ocellus::convert {

using namespace ocellus;

namespace {

/// Where output channel `o` of a convolution with `widening` filters for each input channel is kept: filter by filter,
/// so that each is a depthwise convolution of its own (nn/fastvit.hpp).
std::size_t kept_at(std::size_t o, std::size_t n, std::size_t widening) { return o % widening * (n / widening) + o / widening; }

/// A sum of convolutions of one input, some with a batch norm, and of their batch-normed input itself, as one: w[n, inner,
/// side, side] and b[n], in double precision.
class folded {
 public:
  folded(std::int64_t n, std::int64_t inner, std::int64_t side) : n_(n), inner_(inner), side_(side) {}

  /// conv + ".weight" with a kernel of `side`, and ".bias" if `bias`; an empty `norm`: none after it.
  void add(const std::string& conv, std::int64_t side, bool bias, const std::string& norm, double sign = 1) {
    term t;
    t.side = side;
    t.sign = sign;
    sources_.push_back({conv + ".weight", {n_, inner_, side, side}});
    t.biased = bias;
    if (bias) sources_.push_back({conv + ".bias", {n_}});
    add_norm(t, norm);
  }
  /// The input, through a batch norm unless its name is empty.
  void add_input(const std::string& norm, double sign = 1) {
    term t;
    t.sign = sign;
    add_norm(t, norm);
  }
  /// What was added so far times gamma[n, 1, 1] (LayerScale).
  void scale(const std::string& gamma) {
    sources_.push_back({gamma, {n_, 1, 1}});
    term t;
    t.scales = true;
    terms_.push_back(t);
  }

  /// to + ".weight" [side * side, n] and ".bias" [n], channels in the order of kept_at.
  void add_depthwise(plan& p, const std::string& to, std::int64_t widening) const {
    const folded f = *this;
    const auto n = static_cast<std::size_t>(n_), taps = static_cast<std::size_t>(side_ * side_);
    const auto wide = static_cast<std::size_t>(widening);
    p.computed(to + ".weight", storage::exact, {side_ * side_, n_}, sources_,
               [f, n, taps, wide](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                 const std::vector<double> w = f.values(in).w;
                 for (std::size_t o = 0; o < n; o++)
                   for (std::size_t t = 0; t < taps; t++)
                     out[t * n + kept_at(o, n, wide)] = static_cast<float>(w[o * taps + t]);
               });
    add_bias(p, to, wide);
  }

  /// to + ".weight" [n, side * side * inner] and ".bias" [n]; the input's channels are in the order of kept_at.
  void add_matrix(plan& p, const std::string& to, std::int64_t widening = 1) const {
    const folded f = *this;
    const auto inner = static_cast<std::size_t>(inner_), taps = static_cast<std::size_t>(side_ * side_);
    const auto wide = static_cast<std::size_t>(widening);
    p.computed(to + ".weight", storage::matrix, {n_, side_ * side_ * inner_}, sources_,
               [f, inner, taps, wide](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                 const std::vector<double> w = f.values(in).w;
                 for (std::size_t i = 0; i < w.size(); i++) {
                   const std::size_t o = i / (inner * taps), c = i / taps % inner, t = i % taps;
                   out[(o * taps + t) * inner + kept_at(c, inner, wide)] = static_cast<float>(w[i]);
                 }
               });
    add_bias(p, to, 1);
  }

 private:
  struct term {
    std::int64_t side = 0;  ///< of a convolution's kernel; 0: the input itself
    bool biased = false, normed = false, scales = false;
    double sign = 1;
  };
  struct convolution {
    std::vector<double> w, b;
  };

  void add_norm(term t, const std::string& norm) {
    t.normed = !norm.empty();
    if (t.normed)
      for (const char* part : {".weight", ".bias", ".running_mean", ".running_var"}) sources_.push_back({norm + part, {n_}});
    terms_.push_back(t);
  }

  void add_bias(plan& p, const std::string& to, std::size_t widening) const {
    const folded f = *this;
    p.computed(to + ".bias", storage::exact, {n_}, sources_,
               [f, widening](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                 const std::vector<double> b = f.values(in).b;
                 for (std::size_t o = 0; o < b.size(); o++) out[kept_at(o, b.size(), widening)] = static_cast<float>(b[o]);
               });
  }

  convolution values(const std::vector<std::vector<float>>& in) const {
    const auto n = static_cast<std::size_t>(n_), inner = static_cast<std::size_t>(inner_);
    const auto side = static_cast<std::size_t>(side_), taps = side * side;
    convolution sum{std::vector<double>(n * inner * taps), std::vector<double>(n)};
    std::size_t at = 0;
    for (const term& t : terms_) {
      if (t.scales) {
        const std::vector<float>& gamma = in[at++];
        for (std::size_t o = 0; o < n; o++) {
          for (std::size_t i = 0; i < inner * taps; i++) sum.w[o * inner * taps + i] *= static_cast<double>(gamma[o]);
          sum.b[o] *= static_cast<double>(gamma[o]);
        }
        continue;
      }
      const std::vector<float>* weight = t.side > 0 ? &in[at++] : nullptr;
      const std::vector<float>* bias = t.biased ? &in[at++] : nullptr;
      const auto own = static_cast<std::size_t>(t.side > 0 ? t.side : 1), edge = (side - own) / 2;
      for (std::size_t o = 0; o < n; o++) {
        double factor = t.sign, shift = 0;
        if (t.normed) {  // eps is 1e-5 in all of timm's batch norms
          const double gain = static_cast<double>(in[at][o]) / std::sqrt(static_cast<double>(in[at + 3][o]) + 1e-5);
          factor *= gain;
          shift = t.sign * (static_cast<double>(in[at + 1][o]) - static_cast<double>(in[at + 2][o]) * gain);
        }
        sum.b[o] += shift + (bias != nullptr ? factor * static_cast<double>((*bias)[o]) : 0);
        if (weight == nullptr) {
          sum.w[(o * inner + o % inner) * taps + (side / 2) * side + side / 2] += factor;
          continue;
        }
        for (std::size_t c = 0; c < inner; c++)
          for (std::size_t y = 0; y < own; y++)
            for (std::size_t x = 0; x < own; x++)
              sum.w[(o * inner + c) * taps + (y + edge) * side + x + edge] +=
                  factor * static_cast<double>((*weight)[((o * inner + c) * own + y) * own + x]);
      }
      if (t.normed) at += 4;
    }
    return sum;
  }

  std::int64_t n_, inner_, side_;
  std::vector<term> terms_;
  std::vector<piece> sources_;
};

/// The tower on its way into the plan. Reference: timm 1.0, models/fastvit.py.
struct fastvit {
  plan& p;
  const std::string at, name, origin;
  vision_config& v = p.config().vision;
  encoder_config& e = v.encoder;
  /// timm's mci3 and mci4: no branch of 1 x 1 in the stem, no squeeze-and-excite between stages. By the name rather than by
  /// the tensors: one that is missing must not go unnoticed.
  const bool larger = name[11] >= '3';
  bool branches = false, merged = false;  ///< forms of the convolutions that were seen

  /// Whether the branches of a convolution are one already.
  bool one(const std::string& from) {
    const bool is = p.has(from + ".reparam_conv.weight");
    (is ? merged : branches) = true;
    return is;
  }
  folded merged_convolution(const std::string& from, std::int64_t n, std::int64_t inner, std::int64_t side) const {
    folded f(n, inner, side);
    f.add(from + ".reparam_conv", side, true, "");
    return f;
  }

  /// timm's MobileOneBlock as far as its sum.
  void add_branches(folded& f, const std::string& from, std::int64_t side, bool with_input, bool with_scale, double sign) {
    for (int i = 0; i < std::max(1, p.count(from + ".conv_kxk.", ".conv.weight")); i++) {
      const std::string branch = from + ".conv_kxk." + std::to_string(i);
      f.add(branch + ".conv", side, false, branch + ".bn", sign);
    }
    if (side > 1 && with_scale)
      f.add(from + ".conv_scale.conv", 1, false, from + ".conv_scale.bn", sign);
    if (with_input) f.add_input(from + ".identity", sign);
  }
  folded mobile_one(const std::string& from, std::int64_t n, std::int64_t inner, std::int64_t side, bool with_input,
                    bool with_scale = true) {
    if (one(from)) return merged_convolution(from, n, inner, side);
    folded f(n, inner, side);
    add_branches(f, from, side, with_input, with_scale, 1);
    return f;
  }

  void read_shape() {
    v.kind = vision_kind::fastvit;
    v.pool = pooling::avg;
    const int stages = p.count(at + "stages.", ".blocks.0.mlp.fc1.weight");
    if (stages == 0) p.dim(stage(0) + "blocks.0.mlp.fc1.weight", 0);  // fails, and says which is missing
    if (stages != 4 && stages != 5)
      return p.fail(std::to_string(stages) + " stages named " + at + "stages.N.blocks, expected 4 or 5");
    std::string layers;
    for (int s = 0; s < stages; s++) {
      const int n = p.count(stage(s) + "blocks.", ".mlp.fc1.weight");
      (s < 4 ? v.resnet_layers[s] : v.fifth_layers) = n;
      e.layers += n;
      layers += (s == 0 ? "" : ", ") + std::to_string(n);
    }
    const std::string last = stage(stages - 1) + "blocks.0.";
    e.width = static_cast<std::int32_t>(p.dim(last + "mlp.fc1.weight", 1));
    e.mlp = static_cast<std::int32_t>(p.dim(last + "mlp.fc1.weight", 0));
    e.act = activation::gelu;
    e.eps = 1e-5f;
    e.head_width = 32;
    if (!p.ok()) return;
    const int unit = 1 << (stages - 1);
    if (e.width < unit || e.width % (16 * unit) != 0 || e.mlp % unit != 0)
      return p.fail("tensor " + last + "mlp.fc1.weight: " + std::to_string(e.mlp) + " x " + std::to_string(e.width) +
                    " are not halved from stage to stage, down to a multiple of 16 channels");
    v.resnet_width = e.width / unit;
    e.heads = e.width / e.head_width;
    for (v.attention_stage = 0; v.attention_stage < stages; v.attention_stage++)
      if (p.has(stage(v.attention_stage) + "blocks.0.token_mixer.qkv.weight")) break;
    for (int s = v.attention_stage; s < stages; s++)
      if ((v.resnet_width << s) % e.head_width != 0)
        return p.fail("stage " + std::to_string(s) + " of width " + std::to_string(v.resnet_width << s) +
                      " has attention, whose heads are 32 wide");
    if (v.attention_stage == stages) e.head_width = e.width, e.heads = 1;
    v.pre_norm = v.attention_stage < stages && !p.has(stage(v.attention_stage) + "blocks.0.norm.running_mean") ? 1 : 0;
    v.squeeze = larger ? 0 : 0xc;  // stages 2 and 3
    p.note_switch("vision.kind", "FastViT", origin);
    p.note_switch("vision.stages", layers, "names of " + at + "stages.S.blocks.N");
    p.note_switch("vision.width", std::to_string(v.resnet_width) + " to " + std::to_string(e.width),
                  "shape of " + last + "mlp.fc1.weight");
    p.note_switch("vision.mlp", std::to_string(e.mlp / e.width) + " widths", "shape of " + last + "mlp.fc1.weight");
    p.note_switch("vision.attention", "from stage " + std::to_string(v.attention_stage), "names of token_mixer.qkv");
    p.note_switch("vision.head_width", std::to_string(e.head_width), "timm's FastViT");
    p.note_switch("vision.attention_norm", v.pre_norm != 0 ? "LayerNorm, eps 1e-05" : "batch norm, folded",
                  v.pre_norm != 0 ? origin : "names of norm.running_mean");
    p.note_switch("vision.squeeze", v.squeeze != 0 ? "at strided convolutions" : "at the end alone", origin);
    p.note_switch("vision.act", to_string(e.act), origin + ", after strided convolutions too (lkc_use_act)");
    p.note_switch("vision.pool", "mean of the map", "timm_pool");
    p.note_switch("vision.batch_norm_eps", "1e-05", "timm's FastViT");
  }

  void add_stem() {
    const std::int64_t c = v.resnet_width;
    mobile_one(at + "stem.0", c, 3, 3, false, !larger).add_matrix(p, "vision.stem.0");
    mobile_one(at + "stem.1", c, 1, 3, false, !larger).add_depthwise(p, "vision.stem_conv", 1);
    mobile_one(at + "stem.2", c, c, 1, true).add_matrix(p, "vision.stem_proj");
  }

  /// Channels are those of a convolution of two filters for each.
  void add_squeeze(const std::string& to, const std::string& from, std::int64_t n) {
    const std::int64_t inner = p.dim(from + ".fc1.weight", 0);
    if (p.ok() && (inner < 1 || inner > n)) return p.fail("tensor " + from + ".fc1.weight squeezes nothing");
    add_after_widening(to + ".fc1", from + ".fc1", {inner, n, 1, 1});
    p.computed(to + ".fc2.weight", storage::matrix, {n, inner}, {piece{from + ".fc2.weight", {n, inner, 1, 1}}},
               [](const std::vector<std::vector<float>>& in, std::vector<float>& out) { out = in[0]; });
    reorder_last(n);
    p.computed(to + ".fc2.bias", storage::exact, {n}, {piece{from + ".fc2.bias", {n}}},
               [](const std::vector<std::vector<float>>& in, std::vector<float>& out) { out = in[0]; });
    reorder_last(n);
  }
  /// Rows of the tensor planned last in the order of kept_at.
  void reorder_last(std::int64_t n) {
    if (!p.ok()) return;
    planned_tensor& t = p.model().tensors.back();
    t.read = [read = t.read, n = static_cast<std::size_t>(n)](std::vector<float>& out) -> outcome<void> {
      std::vector<float> rows;
      if (auto done = read(rows); !done) return done;
      const std::size_t k = rows.size() / n;
      out.resize(rows.size());
      for (std::size_t o = 0; o < n; o++)
        std::copy_n(rows.data() + o * k, k, out.data() + kept_at(o, n, 2) * k);
      return {};
    };
  }
  /// A linear layer with a bias that reads channels in the order of kept_at.
  void add_after_widening(const std::string& to, const std::string& from, const shape_list& shape) {
    const std::int64_t n = shape[0], k = shape[1];
    p.computed(to + ".weight", storage::matrix, {n, k}, {piece{from + ".weight", shape}},
               [k = static_cast<std::size_t>(k)](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                 for (std::size_t i = 0; i < out.size(); i++) out[i / k * k + kept_at(i % k, k, 2)] = in[0][i];
               });
    p.exact(to + ".bias", {n}, piece{from + ".bias", {n}});
  }

  void add_down(const std::string& to, const std::string& from, std::int64_t n, bool squeezes) {
    const std::string large = from + ".proj.0", small = from + ".proj.1";
    if (one(large)) {
      merged_convolution(large, n, 1, 7).add_depthwise(p, to + "down", 2);
    } else {
      folded f(n, 1, 7);
      f.add(large + ".large_conv.conv", 7, false, large + ".large_conv.bn");
      f.add(large + ".small_conv.conv", 3, false, large + ".small_conv.bn");
      f.add_depthwise(p, to + "down", 2);
    }
    if (squeezes) add_squeeze(to + "squeeze", large + ".se", n);
    mobile_one(small, n, n, 1, true).add_matrix(p, to + "down_proj", 2);
  }

  void add_positions(const std::string& to, const std::string& from, std::int64_t c) {
    if (one(from)) return merged_convolution(from, c, 1, 7).add_depthwise(p, to, 1);
    folded f(c, 1, 7);
    f.add(from + ".pos_enc", 7, true, "");
    f.add_input("");
    f.add_depthwise(p, to, 1);
  }

  void add_mixer(const std::string& to, const std::string& from, std::int64_t c) {
    if (one(from)) return merged_convolution(from, c, 1, 3).add_depthwise(p, to, 1);
    folded f(c, 1, 3);
    if (one(from + ".mixer")) {
      f.add(from + ".mixer.reparam_conv", 3, true, "");
    } else {
      add_branches(f, from + ".mixer", 3, true, true, 1);
    }
    f.add_input(from + ".norm.identity", -1);
    f.scale(from + ".layer_scale.gamma");
    f.add_input("");
    f.add_depthwise(p, to, 1);
  }

  /// A linear layer times a LayerScale [n, 1, 1].
  void add_scaled(const std::string& to, const std::string& from, const shape_list& shape, const std::string& gamma) {
    const std::int64_t n = shape[0], k = shape[1];
    const piece scales{gamma, {n, 1, 1}};
    std::vector<piece> weight{{from + ".weight", shape}, scales}, bias{{from + ".bias", {n}}, scales};
    const auto scaled = [](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
      out = in[0];
      const std::size_t row = out.size() / in[1].size();
      for (std::size_t i = 0; i < out.size(); i++) out[i] *= in[1][i / row];
    };
    p.computed(to + ".weight", storage::matrix, {n, k}, std::move(weight), scaled);
    p.computed(to + ".bias", storage::exact, {n}, std::move(bias), scaled);
  }

  void add_attention(const std::string& to, const std::string& from, std::int64_t c) {
    const std::string qkv = from + "token_mixer.qkv", norm = from + "norm";
    const piece weights{qkv + ".weight", {3 * c, c}};
    if (v.pre_norm != 0) {
      p.norm(to + "norm", norm, c);
      p.matrix(to + "attn.qkv.weight", {3 * c, c}, weights);
    } else {  // gain and shift of the input's channels go into the matrix
      const std::vector<piece> sources{weights, {norm + ".weight", {c}}, {norm + ".bias", {c}},
                                       {norm + ".running_mean", {c}}, {norm + ".running_var", {c}}};
      const auto gain = [](const std::vector<std::vector<float>>& in, std::size_t i) {
        return static_cast<double>(in[1][i]) / std::sqrt(static_cast<double>(in[4][i]) + 1e-5);
      };
      p.computed(to + "attn.qkv.weight", storage::matrix, {3 * c, c}, sources,
                 [gain](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                   const std::size_t k = in[1].size();
                   for (std::size_t i = 0; i < out.size(); i++)
                     out[i] = static_cast<float>(static_cast<double>(in[0][i]) * gain(in, i % k));
                 });
      p.computed(to + "attn.qkv.bias", storage::exact, {3 * c}, sources,
                 [gain](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                   const std::size_t k = in[1].size();
                   for (std::size_t o = 0; o < out.size(); o++) {
                     double sum = 0;
                     for (std::size_t i = 0; i < k; i++)
                       sum += static_cast<double>(in[0][o * k + i]) *
                              (static_cast<double>(in[2][i]) - static_cast<double>(in[3][i]) * gain(in, i));
                     out[o] = static_cast<float>(sum);
                   }
                 });
    }
    add_scaled(to + "attn.proj", from + "token_mixer.proj", {c, c}, from + "layer_scale_1.gamma");
  }

  void add_stages() {
    for (int s = 0; s < stages_of(v) && p.ok(); s++) {
      const std::int64_t c = std::int64_t{v.resnet_width} << s, mlp = e.mlp >> (stages_of(v) - 1 - s);
      const std::string to = "vision.stages." + std::to_string(s) + ".";
      const bool attends = s >= v.attention_stage;
      if (s > 0) add_down(to, stage(s) + "downsample", c, (v.squeeze >> s & 1) != 0);
      if (attends) add_positions(to + "positions", stage(s) + "pos_emb", c);
      for (int i = 0; i < stage_layers(v, s) && p.ok(); i++) {
        const std::string block = to + "blocks." + std::to_string(i) + ".";
        const std::string from = stage(s) + "blocks." + std::to_string(i) + ".";
        if (attends) {
          add_attention(block, from, c);
        } else {
          add_mixer(block + "mixer", from + "token_mixer", c);
        }
        folded conv(c, 1, 7);
        conv.add(from + "mlp.conv.conv", 7, false, from + "mlp.conv.bn");
        conv.add_depthwise(p, block + "mlp.conv", 1);
        p.matrix(block + "mlp.fc1.weight", {mlp, c}, piece{from + "mlp.fc1.weight", {mlp, c, 1, 1}});
        p.exact(block + "mlp.fc1.bias", {mlp}, piece{from + "mlp.fc1.bias", {mlp}});
        add_scaled(block + "mlp.fc2", from + "mlp.fc2", {c, mlp, 1, 1}, from + (attends ? "layer_scale_2.gamma" : "layer_scale.gamma"));
      }
    }
  }

  void add_end(const std::string& proj, bool proj_bias) {
    const std::int64_t n = 2 * std::int64_t{e.width};
    mobile_one(at + "final_conv", n, 1, 3, false).add_depthwise(p, "vision.last", 2);
    add_squeeze("vision.squeeze", at + "final_conv.se", n);
    if (proj_bias) {
      add_after_widening("vision.proj", proj, {v.embed, n});
    } else {
      p.computed("vision.proj.weight", storage::matrix, {v.embed, n}, {piece{proj + ".weight", {v.embed, n}}},
                 [k = static_cast<std::size_t>(n)](const std::vector<std::vector<float>>& in, std::vector<float>& out) {
                   for (std::size_t i = 0; i < out.size(); i++) out[i / k * k + kept_at(i % k, k, 2)] = in[0][i];
                 });
    }
    p.note_switch("vision.convolutions", merged && branches ? "some of branches, folded" : merged ? "reparametrised" : "of branches, folded",
                  "names of reparam_conv");
  }

  std::string stage(int s) const { return at + "stages." + std::to_string(s) + "."; }
};

}  // namespace

bool is_fastvit(std::string_view name) {
  name = name.substr(0, name.find('.'));
  return name.size() == 12 && name.starts_with("fastvit_mci") && name[11] >= '0' && name[11] <= '4';
}

void add_fastvit_trunk(plan& p, const std::string& prefix, const std::string& name, const std::string& name_origin,
                       const std::string& proj, bool proj_bias) {
  p.ignore_suffix(".num_batches_tracked");
  fastvit t{p, prefix, name, name_origin + ": " + printable(name)};
  t.read_shape();
  if (p.ok()) t.add_stem();
  if (p.ok()) t.add_stages();
  if (p.ok()) t.add_end(proj, proj_bias);
}

}  // namespace ocellus::convert
