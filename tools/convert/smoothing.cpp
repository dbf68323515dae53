#include "smoothing.hpp"

#include <algorithm>
#include <cmath>

namespace ocellus::convert {

namespace {

using values = std::vector<float>;

/// Where nothing was seen, only a channel this many times larger than the median one counts: the estimate is rough, and
/// plain rounding loses as much in the weights as is won in the activations.
constexpr float outlier = 4.f;

float median(values v) {
  std::nth_element(v.begin(), v.begin() + static_cast<std::ptrdiff_t>(v.size() / 2), v.end());
  return v[v.size() / 2];
}

/// Factors from what was seen: those of all channels beyond the median one.
values factors(const values& seen) {
  values s(seen.size(), 1.f);
  const float usual = median(seen);
  for (std::size_t j = 0; usual > 0 && j < s.size(); j++) s[j] = std::max(1.f, std::sqrt(seen[j] / usual));
  return s;
}

/// Factors of one norm and the matrix it feeds where nothing was seen.
values factors(const values& gain, const values& bias, const values& w) {
  const std::size_t c = gain.size();
  values x(c), columns(c, 0.f), s(c, 1.f);
  for (std::size_t i = 0; i < w.size(); i++) columns[i % c] = std::max(columns[i % c], std::fabs(w[i]));
  for (std::size_t j = 0; j < c; j++) x[j] = 3.f * std::fabs(gain[j]) + std::fabs(bias[j]);
  const float usual_x = median(x), usual_column = median(columns);
  if (!(usual_x > 0) || !(usual_column > 0)) return s;
  for (std::size_t j = 0; j < c; j++) {
    const float outlying = x[j] / usual_x;
    if (outlying < outlier || columns[j] <= 0) continue;
    s[j] = std::clamp(std::sqrt(outlying * usual_column / columns[j]), 1.f, outlying);
  }
  return s;
}

}  // namespace

outcome<void> smooth(model_source& model, const moments_by_matrix& seen) {
  std::map<std::string, planned_tensor*> by_name;
  for (planned_tensor& t : model.tensors) by_name[t.name] = &t;
  const auto find = [&by_name](const std::string& name) {
    const auto at = by_name.find(name);
    return at == by_name.end() ? nullptr : at->second;
  };
  std::vector<std::pair<std::string, std::string>> fed = {{"vision.norm", "vision.map.v.weight"},
                                                          {"vision.map.norm", "vision.map.fc1.weight"}};
  // a head beside the projection reads the same norm: only one of them may change it
  if (find("vision.head.weight") == nullptr) fed.emplace_back("vision.norm", "vision.proj.weight");
  fed.emplace_back("text.norm", "text.proj.weight");
  const std::string norm1 = ".norm1.weight";
  for (const auto& [name, t] : by_name)
    if (name.ends_with(norm1)) {
      const std::string block = name.substr(0, name.size() - norm1.size());
      const model_config& m = model.config;
      if ((block.starts_with("vision.") ? m.vision.encoder : m.text.encoder).post_norm != 0) continue;
      fed.emplace_back(block + ".norm1", block + ".attn.qkv.weight");
      fed.emplace_back(block + ".norm2", block + ".mlp.fc1.weight");
    }
  for (const auto& [norm, matrix] : fed) {
    planned_tensor* gain = find(norm + ".weight");
    planned_tensor* bias = find(norm + ".bias");
    planned_tensor* weight = find(matrix);
    if (gain == nullptr || bias == nullptr || weight == nullptr || !gain->columns.empty()) continue;
    values g, b, w;
    for (const auto& [tensor, out] : {std::pair{gain, &g}, {bias, &b}})
      if (auto done = tensor->read(*out); !done) return done;
    const auto known = seen.find(matrix);
    if (known != seen.end() && known->second.largest.size() == g.size()) {
      weight->columns = factors(known->second.largest);
    } else {
      if (auto done = weight->read(w); !done) return done;
      weight->columns = factors(g, b, w);
    }
    gain->columns = weight->columns;
    for (float& v : gain->columns) v = 1.f / v;
    bias->columns = gain->columns;
    if (planned_tensor* keys = find(norm.substr(0, norm.rfind('.')) + ".attn.keys_t.weight");
        keys != nullptr && matrix.ends_with(".attn.qkv.weight"))
      for (std::size_t i = 0, d = keys->shape[1]; i < d * weight->columns.size(); i++)
        keys->columns.push_back(weight->columns[i / d]);  // there the channels are rows
    if (planned_tensor* queries = find("vision.map.queries"); matrix == "vision.map.v.weight" && queries != nullptr)
      queries->columns = weight->columns;  // they read the same rows
  }
  return {};
}

}  // namespace ocellus::convert
