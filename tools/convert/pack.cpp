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

/// The patch embedding for pixels of 0 to 255: `w` for such pixels already, s8 in steps of `scales`. The bias takes what
/// the means contribute, summed over the weights as they are stored, so that rounding acts on the distance from the mean
/// colour rather than on the brightness.
outcome<void> add_raw_pixel_patches(packed_writer& out, const preprocess_config& pre, ocellus::dtype type, int n, int k,
                                    const std::vector<float>& w, const std::vector<float>& scales,
                                    const std::vector<float>& bias) {
  const auto depth = static_cast<std::size_t>(k);
  std::vector<float> moved(static_cast<std::size_t>(n));
  for (std::size_t row = 0; row < moved.size(); row++) {
    double mean_part = 0;
    for (std::size_t i = 0; i < depth; i++) {
      const float value = w[row * depth + i];
      const float stored = type == ocellus::dtype::bf16 ? to_f32(to_bf16(value)) : value;
      mean_part += static_cast<double>(stored) * static_cast<double>(pre.mean[i % 3]);
    }
    moved[row] = static_cast<float>(static_cast<double>(bias.empty() ? 0.f : bias[row]) - mean_part * 255.0);
  }
  if (auto done = out.add_matrix("vision.patch_embed_u8.weight", type, n, k, w.data(), scales); !done) return done;
  const std::uint32_t shape[] = {static_cast<std::uint32_t>(n)};
  return out.add_f32("vision.patch_embed_u8.bias", shape, moved);
}

/// Each weight to the nearest of its row's 255 steps.
rounded_matrix round_to_nearest(const std::vector<float>& w, std::size_t k) {
  rounded_matrix r{std::vector<std::int8_t>(w.size()), std::vector<float>(w.size() / k)};
  for (std::size_t i = 0; i < w.size(); i++) r.scales[i / k] = std::max(r.scales[i / k], std::fabs(w[i]));
  for (float& scale : r.scales) scale /= 127.f;
  for (std::size_t i = 0; i < w.size(); i++) {
    const float scale = r.scales[i / k];
    r.values[i] = static_cast<std::int8_t>(std::nearbyint(w[i] * (scale > 1e-37f ? 1.f / scale : 0.f)));
  }
  return r;
}

/// "vision.blocks.3.mlp.fc1.weight" -> "vision.blocks.mlp.fc1".
std::string kind_of(std::string name) {
  if (name.ends_with(".weight")) name.resize(name.size() - 7);
  const std::size_t at = name.find(".blocks.");
  if (at == std::string::npos) return name;
  const std::size_t end = name.find('.', at + 8);
  return end == std::string::npos ? name : name.substr(0, at + 7) + name.substr(end);
}

/// Whether Winograd's products serve: a 3 x 3 convolution of stride 1 whose rows and columns fill whole panels.
bool takes_winograd(const planned_tensor& t, const model_config& config, int n, int k) {
  if (config.vision.kind != vision_kind::resnet || n % panel_width != 0 || k % (9 * panel_width) != 0) return false;
  return t.name.ends_with(".conv2.weight") || t.name == "vision.stem.1.weight" || t.name == "vision.stem.2.weight";
}

/// G g G^T of each 3 x 3 kernel g: [n, 9, C] to [16, n, C] (nn/resnet.hpp: conv3x3_winograd).
std::vector<float> winograd_weights(const std::vector<float>& w, int n, int channels) {
  constexpr double g[4][3] = {{1, 0, 0}, {0.5, 0.5, 0.5}, {0.5, -0.5, 0.5}, {0, 0, 1}};
  const auto c = static_cast<std::size_t>(channels), rows = static_cast<std::size_t>(n);
  std::vector<float> out(16 * rows * c);
  for (std::size_t row = 0; row < rows; row++)
    for (std::size_t i = 0; i < 16; i++)
      for (std::size_t at = 0; at < c; at++) {
        double sum = 0;
        for (std::size_t y = 0; y < 3; y++)
          for (std::size_t x = 0; x < 3; x++)
            sum += g[i / 4][y] * g[i % 4][x] * static_cast<double>(w[(row * 9 + y * 3 + x) * c + at]);
        out[(i * rows + row) * c + at] = static_cast<float>(sum);
      }
  return out;
}

struct squares {
  double off = 0, size = 0;
};

/// Adds the squared error of 8-bit rows.
void add_weight_error(squares& sum, const std::vector<float>& w, int n, int k, const rounded_matrix& rounded) {
  for (int i = 0; i < n; i++) {
    const float* row = w.data() + static_cast<std::ptrdiff_t>(i) * k;
    const std::int8_t* q = rounded.values.data() + static_cast<std::ptrdiff_t>(i) * k;
    const float scale = rounded.scales[static_cast<std::size_t>(i)];
    float off = 0, size = 0;
    for (int j = 0; j < k; j++) {
      const float d = static_cast<float>(q[j]) * scale - row[j];
      off += d * d;
      size += row[j] * row[j];
    }
    sum.off += static_cast<double>(off);
    sum.size += static_cast<double>(size);
  }
}

}  // namespace

std::vector<float> raw_pixel_columns(const preprocess_config& pre, int k) {
  std::vector<float> columns(static_cast<std::size_t>(k));
  for (std::size_t i = 0; i < columns.size(); i++) columns[i] = 1.f / (255.f * pre.std[i % 3]);
  return columns;
}

ocellus::dtype choose_type(const planned_tensor& tensor, const pack_options& options) {
  if (tensor.kind == storage::exact) return ocellus::dtype::f32;
  // A stem of convolutions sees pixels through 27 or 48 weights per output: nothing to gain, much to lose. Squeezing is
  // of one row.
  if ((options.type == ocellus::dtype::s8 || options.type == ocellus::dtype::bf16) &&
      (tensor.name.starts_with("vision.stem.0.") || tensor.name.find("squeeze.") != std::string::npos))
    return ocellus::dtype::f32;
  for (const std::string& name : options.keep_f16)
    if (options.type == ocellus::dtype::s8 && tensor.name.starts_with(name)) return ocellus::dtype::f16;
  return options.type;
}

outcome<pack_result> pack(const model_source& model, const pack_options& options, packed_writer& out,
                          progress& bar) {
  pack_result result;
  std::vector<float> values, patch_weight, patch_scales, patch_bias;
  int patch_rows = 0;
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
    const ocellus::dtype type = choose_type(t, options);
    int n = static_cast<int>(t.shape[0]), k = static_cast<int>(elements / t.shape[0]);
    const bool raw_pixels = (options.type == ocellus::dtype::s8 || options.type == ocellus::dtype::bf16) &&
                            t.name.starts_with("vision.patch_embed.");  // keep_f16 names blocks, never these
    std::vector<float> columns = t.columns;
    if (raw_pixels && t.kind == storage::matrix && columns.empty()) columns = raw_pixel_columns(model.config.preprocess, k);
    for (std::size_t i = 0, c = columns.size(); c != 0 && i < elements; i++) values[i] *= columns[i % c];
    std::span<const float> scales;
    rounded_matrix nearest;
    if (type == ocellus::dtype::s8) {
      if (t.rounded.values.empty()) nearest = round_to_nearest(values, static_cast<std::size_t>(k));
      const rounded_matrix& rounded = t.rounded.values.empty() ? nearest : t.rounded;
      add_weight_error(errors[kind_of(t.name)], values, n, k, rounded);
      if (t.kind == storage::matrix) scales = rounded.scales;
      for (std::size_t i = 0; i < elements && !scales.empty(); i++)  // packed_writer finds the same steps again
        values[i] = static_cast<float>(rounded.values[i]) * scales[i / static_cast<std::size_t>(k)];
    }
    if (raw_pixels) {
      (t.kind == storage::matrix ? patch_weight : patch_bias) = values;
      if (t.kind == storage::matrix) patch_rows = n, patch_scales.assign(scales.begin(), scales.end());
      bar.step(t.name, values.size() * sizeof(float));
      continue;
    }
    if (options.winograd && type != ocellus::dtype::s8 && takes_winograd(t, model.config, n, k)) {
      std::vector<float> transformed = winograd_weights(values, n, k / 9);
      const bool fits = type != ocellus::dtype::f16 || std::all_of(transformed.begin(), transformed.end(), [](float w) {
        return std::fabs(w) < 65520.f;  // what rounds to a number in f16
      });
      if (fits) {
        values = std::move(transformed);
        n *= 16;
        k /= 9;
        out.require(format::feature_winograd);
      }
    }
    outcome<void> written = t.kind == storage::matrix ? out.add_matrix(t.name, type, n, k, values.data(), scales)
                            : t.kind == storage::table ? out.add_table(t.name, type, n, k, values.data())
                                                       : out.add_f32(t.name, t.shape, values);
    if (!written) return in_tensor(written.failure());
    result.type_counts[ocellus::to_string(type)]++;
    bar.step(t.name, values.size() * sizeof(float));
  }
  if (!patch_weight.empty()) {
    const int k = static_cast<int>(patch_weight.size()) / patch_rows;
    if (auto done = add_raw_pixel_patches(out, model.config.preprocess, options.type, patch_rows, k, patch_weight,
                                          patch_scales, patch_bias);
        !done)
      return done.failure();
    result.type_counts[ocellus::to_string(options.type)]++;
  }
  for (const auto& [kind, e] : errors) result.weight_error[kind] = e.size > 0 ? std::sqrt(e.off / e.size) : 0;
  return result;
}

}  // namespace ocellus::convert
