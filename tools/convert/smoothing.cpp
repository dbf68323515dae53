#include "smoothing.hpp"

#include <algorithm>
#include <cmath>

namespace ocellus::convert {

namespace {

using values = std::vector<float>;

/// A channel this many times larger than the median one is an outlier. Smoothing all channels was measured too: it moves
/// as much error into the weights as it takes from the activations of nets without outliers.
constexpr float outlier = 4.f;

float median(values v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// Factors of one norm and the matrix it feeds.
values factors(const values& gain, const values& bias, const values& w, const values* seen) {
  const std::size_t c = gain.size();
  values x(c), columns(c, 0.f), s(c, 1.f);
  for (std::size_t i = 0; i < w.size(); i++) columns[i % c] = std::max(columns[i % c], std::fabs(w[i]));
  for (std::size_t j = 0; j < c; j++)
    x[j] = seen != nullptr ? (*seen)[j] : 3.f * std::fabs(gain[j]) + std::fabs(bias[j]);
  const float usual_x = median(x), usual_column = median(columns);
  if (!(usual_x > 0) || !(usual_column > 0)) return s;
  for (std::size_t j = 0; j < c; j++) {
    const float outlying = x[j] / usual_x;
    if (outlying < outlier || columns[j] <= 0) continue;
    s[j] = std::clamp(std::sqrt(outlying * usual_column / columns[j]), 1.f, outlying);
  }
  return s;
}

/// Element i is multiplied by by[i % C].
void multiply_columns(planned_tensor& t, values by) {
  t.changes.emplace_back([by = std::move(by)](values& v) {
    for (std::size_t i = 0; i < v.size(); i++) v[i] *= by[i % by.size()];
  });
}

/// The tensors of a plan by name; null for one that it does not hold.
class tensor_index {
 public:
  explicit tensor_index(model_source& model) {
    for (planned_tensor& t : model.tensors) by_name_[t.name] = &t;
  }
  planned_tensor* operator()(const std::string& name) const {
    const auto at = by_name_.find(name);
    return at == by_name_.end() ? nullptr : at->second;
  }
  /// "vision.blocks.0", ...: what comes before `suffix` in the names that end so.
  std::vector<std::string> bases(const std::string& suffix) const {
    std::vector<std::string> out;
    for (const auto& [name, t] : by_name_)
      if (name.ends_with(suffix)) out.push_back(name.substr(0, name.size() - suffix.size()));
    return out;
  }

 private:
  std::map<std::string, planned_tensor*> by_name_;
};

/// The encoder that the block "vision.blocks.0", "text.blocks.0", ... belongs to.
const encoder_config& encoder_of(const model_source& model, const std::string& block) {
  return block.starts_with("vision.") ? model.config.vision.encoder : model.config.text.encoder;
}

}  // namespace

outcome<void> fold_attention_biases(model_source& model) {
  const tensor_index find(model);
  struct layer {
    std::string in, out;  ///< the matrix that makes keys and values its last two thirds or halves; the projection
    std::size_t parts;    ///< of `in`: q, k, v or k, v
    bool keys, values;    ///< whose bias can go
  };
  std::vector<layer> layers = {{"vision.map.kv", "vision.map.proj", 2, true, true},
                               {"vision.attnpool.kv", "vision.attnpool.proj", 2, true, true}};
  for (const std::string& block : find.bases(".attn.qkv.bias"))
    layers.push_back({block + ".attn.qkv", block + ".attn.proj", 3,
                      find(block + ".attn.k_norm.weight") == nullptr && encoder_of(model, block).rope == 0,
                      find(block + ".attn.norm.weight") == nullptr});
  for (const layer& l : layers) {
    planned_tensor* in = find(l.in + ".bias");
    planned_tensor* weight = find(l.out + ".weight");
    planned_tensor* out = find(l.out + ".bias");
    if (in == nullptr || weight == nullptr) continue;
    const bool drop_keys = l.keys, drop_values = l.values && out != nullptr;
    values b, w;
    for (const auto& [tensor, to] : {std::pair{in, &b}, {weight, &w}})
      if (auto done = tensor->read(*to); !done) return done;
    const std::size_t width = b.size() / l.parts, first = b.size() - 2 * width;
    if (drop_values) {
      values more(w.size() / width);
      for (std::size_t i = 0; i < more.size(); i++) {
        double sum = 0;
        for (std::size_t j = 0; j < width; j++)
          sum += static_cast<double>(w[i * width + j]) * static_cast<double>(b[first + width + j]);
        more[i] = static_cast<float>(sum);
      }
      out->changes.emplace_back([more = std::move(more)](values& v) {
        for (std::size_t i = 0; i < v.size(); i++) v[i] += more[i];
      });
    }
    in->changes.emplace_back([=](values& v) {
      const auto keys = v.begin() + static_cast<std::ptrdiff_t>(first);
      const auto middle = keys + static_cast<std::ptrdiff_t>(width);
      if (drop_keys) std::fill(keys, middle, 0.f);
      if (drop_values) std::fill(middle, v.end(), 0.f);
    });
  }
  return {};
}

outcome<void> smooth(model_source& model, const channel_maxima& seen) {
  const tensor_index find(model);
  std::vector<std::pair<std::string, std::string>> fed = {{"vision.norm", "vision.map.kv.weight"},
                                                          {"vision.map.norm", "vision.map.fc1.weight"}};
  // a head beside the projection reads the same norm: only one of them may change it
  if (find("vision.head.weight") == nullptr) fed.emplace_back("vision.norm", "vision.proj.weight");
  fed.emplace_back("text.norm", "text.proj.weight");
  for (const std::string& block : find.bases(".norm1.weight")) {
    if (encoder_of(model, block).post_norm != 0) continue;
    fed.emplace_back(block + ".norm1", block + ".attn.qkv.weight");
    fed.emplace_back(block + ".norm2", block + ".mlp.fc1.weight");
  }
  for (const auto& [norm, matrix] : fed) {
    planned_tensor* gain = find(norm + ".weight");
    planned_tensor* bias = find(norm + ".bias");
    planned_tensor* weight = find(matrix);
    if (gain == nullptr || bias == nullptr || weight == nullptr || !gain->changes.empty()) continue;
    values g, b, w;
    for (const auto& [tensor, out] : {std::pair{gain, &g}, {bias, &b}, {weight, &w}})
      if (auto done = tensor->read(*out); !done) return done;
    const auto known = seen.find(norm);
    const bool fits = known != seen.end() && known->second.size() == g.size();
    values by = factors(g, b, w, fits ? &known->second : nullptr), inverse = by;
    for (float& v : inverse) v = 1.f / v;
    multiply_columns(*weight, std::move(by));
    multiply_columns(*gain, inverse);
    multiply_columns(*bias, std::move(inverse));
  }
  return {};
}

}  // namespace ocellus::convert
