#include "pack.hpp"

#include "checkpoint.hpp"

#include <algorithm>
#include <cmath>
#include <span>

namespace ocellus::convert {

namespace {

std::uint64_t fingerprint_of(const planned_tensor& t, std::span<const float> values) {
  format::checksum sum;
  sum.add(reinterpret_cast<const unsigned char*>(t.name.data()), t.name.size());
  sum.add(reinterpret_cast<const unsigned char*>(values.data()), values.size_bytes());
  return sum.state;
}

/// Weights of the patch embedding for pixels as they come, from 0 to 255: with x = (u8 / 255 - mean) / std they become
/// w / (255 std).
std::vector<float> for_raw_pixels(const preprocess_config& pre, const std::vector<float>& w) {
  std::vector<float> folded(w.size());
  for (std::size_t i = 0; i < w.size(); i++)
    folded[i] = static_cast<float>(static_cast<double>(w[i]) / (255.0 * static_cast<double>(pre.std[i % 3])));
  return folded;
}

/// The bias that belongs to them: it takes what the means contribute, row by row `mean_part` = sum of weight * mean. That is
/// summed over the weights as they were rounded, so that rounding acts on the distance from the mean colour rather than
/// on the brightness.
outcome<void> add_raw_pixel_bias(packed_writer& out, const std::vector<float>& bias, const std::vector<double>& mean_part) {
  std::vector<float> moved(mean_part.size());
  for (std::size_t row = 0; row < moved.size(); row++)
    moved[row] = static_cast<float>(static_cast<double>(bias.empty() ? 0.f : bias[row]) - mean_part[row] * 255.0);
  const std::uint32_t shape[] = {static_cast<std::uint32_t>(moved.size())};
  return out.add_f32("vision.patch_embed_u8.bias", shape, moved);
}

/// The patch embedding for interleaved u8, with weights of sixteen bits in two int8 matrices: the first layer's error goes
/// through all others, and its product is small.
outcome<void> add_u8_patches(packed_writer& out, const preprocess_config& pre, int n, int k,
                             const std::vector<float>& w, const std::vector<float>& bias) {
  const std::vector<float> folded = for_raw_pixels(pre, w);
  std::vector<float> low(w.size()), scales(static_cast<std::size_t>(n)), low_scales(static_cast<std::size_t>(n));
  std::vector<double> mean_part(static_cast<std::size_t>(n));
  for (std::size_t row = 0; row < scales.size(); row++) {
    const float* f = folded.data() + row * static_cast<std::size_t>(k);
    float* l = low.data() + row * static_cast<std::size_t>(k);
    float most = 0;
    for (int i = 0; i < k; i++) most = std::max(most, std::fabs(f[i]));
    scales[row] = most / 127.f;
    low_scales[row] = scales[row] / 254.f;  // what rounding leaves is at most half a step
    const float inverse = scales[row] > 1e-30f ? 1.f / scales[row] : 0.f;
    for (int i = 0; i < k; i++) {
      const double step = static_cast<double>(scales[row]), high = static_cast<double>(std::nearbyint(f[i] * inverse));
      l[i] = static_cast<float>(static_cast<double>(f[i]) - high * step);
      const double rest = inverse > 0.f ? std::nearbyint(static_cast<double>(l[i]) / (step / 254.0)) : 0.0;
      mean_part[row] += (high + rest / 254.0) * step * static_cast<double>(pre.mean[i % 3]);
    }
  }
  if (auto done =
          out.add_matrix("vision.patch_embed_u8.weight", ocellus::dtype::s8, n, k, folded.data(), scales);
      !done)
    return done;
  if (auto done =
          out.add_matrix("vision.patch_embed_u8_low.weight", ocellus::dtype::s8, n, k, low.data(), low_scales);
      !done)
    return done;
  return add_raw_pixel_bias(out, bias, mean_part);
}

/// The same with one matrix of bf16: sets that round activations to bf16 take the 256 values of a pixel as they are, and
/// would lose half of the first layer's digits with normalised ones.
outcome<void> add_bf16_patches(packed_writer& out, const preprocess_config& pre, int n, int k,
                               const std::vector<float>& w, const std::vector<float>& bias) {
  const std::vector<float> folded = for_raw_pixels(pre, w);
  std::vector<double> mean_part(static_cast<std::size_t>(n));
  const auto depth = static_cast<std::size_t>(k);
  for (std::size_t row = 0; row < mean_part.size(); row++)
    for (std::size_t i = 0; i < depth; i++)
      mean_part[row] += static_cast<double>(to_f32(to_bf16(folded[row * depth + i]))) * static_cast<double>(pre.mean[i % 3]);
  if (auto done = out.add_matrix("vision.patch_embed_u8.weight", ocellus::dtype::bf16, n, k, folded.data()); !done)
    return done;
  return add_raw_pixel_bias(out, bias, mean_part);
}

/// "vision.blocks.3.mlp.fc1.weight" -> "vision.blocks.mlp.fc1".
std::string kind_of(std::string name) {
  if (name.ends_with(".weight")) name.resize(name.size() - 7);
  const std::size_t at = name.find(".blocks.");
  if (at == std::string::npos) return name;
  const std::size_t end = name.find('.', at + 8);
  return end == std::string::npos ? name : name.substr(0, at + 7) + name.substr(end);
}

struct squares {
  double off = 0, size = 0;
};

/// Adds the squared error of 8-bit rows: as they were rounded, or as packed_writer does it.
void add_weight_error(squares& sum, const std::vector<float>& w, int n, int k, const rounded_matrix& rounded) {
  for (int i = 0; i < n; i++) {
    const float* row = w.data() + static_cast<std::ptrdiff_t>(i) * k;
    const std::int8_t* q = rounded.values.empty() ? nullptr : rounded.values.data() + static_cast<std::ptrdiff_t>(i) * k;
    float most = 0;
    for (int j = 0; j < k; j++) most = std::max(most, std::fabs(row[j]));
    const float scale = most / 127.f, inverse = scale > 1e-37f ? 1.f / scale : 0.f;
    float off = 0, size = 0;
    for (int j = 0; j < k; j++) {
      const float d = (q != nullptr ? static_cast<float>(q[j]) : std::nearbyint(row[j] * inverse)) * scale - row[j];
      off += d * d;
      size += row[j] * row[j];
    }
    sum.off += static_cast<double>(off);
    sum.size += static_cast<double>(size);
  }
}

}  // namespace

ocellus::dtype choose_type(const planned_tensor& tensor, const pack_options& options) {
  if (tensor.kind == storage::exact) return ocellus::dtype::f32;
  // The stem of a ResNet sees pixels through 27 weights per output: nothing to gain, much to lose.
  if ((options.type == ocellus::dtype::s8 || options.type == ocellus::dtype::bf16) &&
      tensor.name.starts_with("vision.stem."))
    return ocellus::dtype::f32;
  for (const std::string& name : options.keep_f16)
    if (options.type == ocellus::dtype::s8 && tensor.name.starts_with(name)) return ocellus::dtype::f16;
  return options.type;
}

outcome<pack_result> pack(const model_source& model, const pack_options& options, packed_writer& out,
                          progress& bar) {
  pack_result result;
  std::vector<float> values, patch_weight, patch_bias;
  std::vector<std::uint32_t> patch_shape;
  std::map<std::string, squares> errors;
  for (const planned_tensor& t : model.tensors) {
    const auto in_tensor = [&](const error& why) {
      return error{why.what.find(t.source) == std::string::npos ? "tensor " + t.source + ": " + why.what
                                                                : why.what};
    };
    if (auto read = t.read(values); !read) return in_tensor(read.failure());
    std::size_t elements = 1;
    for (const std::uint32_t d : t.shape) elements *= d;
    if (values.size() != elements) return error{"tensor " + t.source + " does not make up " + t.name};
    if (auto finite = check_finite(t.source, values); !finite) return finite.failure();
    result.fingerprint += fingerprint_of(t, values);
    for (std::size_t i = 0, c = t.columns.size(); c != 0 && i < elements; i++) values[i] *= t.columns[i % c];

    if ((options.type == ocellus::dtype::s8 || options.type == ocellus::dtype::bf16) &&
        t.name.starts_with("vision.patch_embed.")) {
      (t.name.ends_with("weight") ? patch_weight : patch_bias) = values;
      if (t.name.ends_with("weight")) patch_shape = t.shape;
      bar.step(t.name, values.size() * sizeof(float));
      continue;
    }
    const ocellus::dtype type = choose_type(t, options);
    const int n = static_cast<int>(t.shape[0]), k = static_cast<int>(elements / t.shape[0]);
    const bool rounded = type == ocellus::dtype::s8 && !t.rounded.values.empty();
    if (type == ocellus::dtype::s8) add_weight_error(errors[kind_of(t.name)], values, n, k, t.rounded);
    for (std::size_t i = 0; rounded && i < elements; i++)  // packed_writer finds the same steps again
      values[i] = static_cast<float>(t.rounded.values[i]) * t.rounded.scales[i / static_cast<std::size_t>(k)];
    outcome<void> written = t.kind == storage::matrix ? out.add_matrix(t.name, type, n, k, values.data(),
                                                                            rounded ? std::span<const float>(t.rounded.scales)
                                                                                    : std::span<const float>())
                            : t.kind == storage::table ? out.add_table(t.name, type, n, k, values.data())
                                                       : out.add_f32(t.name, t.shape, values);
    if (!written) return in_tensor(written.failure());
    result.type_counts[ocellus::to_string(type)]++;
    bar.step(t.name, values.size() * sizeof(float));
  }
  if (!patch_weight.empty()) {
    const int n = static_cast<int>(patch_shape[0]), k = static_cast<int>(patch_shape[1]);
    const bool s8 = options.type == ocellus::dtype::s8;
    if (auto done = (s8 ? add_u8_patches : add_bf16_patches)(out, model.config.preprocess, n, k, patch_weight, patch_bias);
        !done)
      return done.failure();
    result.type_counts[ocellus::to_string(options.type)] += s8 ? 2 : 1;
  }
  for (const auto& [kind, e] : errors) result.weight_error[kind] = e.size > 0 ? std::sqrt(e.off / e.size) : 0;
  return result;
}

}  // namespace ocellus::convert
