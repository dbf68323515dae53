// Rounds the weights of int8 matrices for the inputs that they will meet: GPTQ [Frantar 2022, "GPTQ: Accurate
// Post-Training Quantization for Generative Pre-trained Transformers"; the same as Babai's nearest plane]. A row w of a
// matrix becomes q * scale with scale = max |w| / 127 so that
//   (w - q scale)^T (H + damp mean(diag H) I) (w - q scale),  H = sum of x x^T over calibration inputs x,
// comes out small: weights are rounded one after the other, those of strong inputs first, and those to come make up for
// what was rounded off. In 8 bits this must not be overdone: what fits the calibration inputs to the last digit costs on
// others, and the more the less these resemble them. So `damp` is far larger than GPTQ's 0.01, and grows where inputs
// are few.
#pragma once

#include "model_source.hpp"
#include "progress.hpp"

#include <ocellus/core/thread_pool.hpp>

#include <functional>
#include <map>
#include <string>
#include <vector>

namespace ocellus::convert {

/// What the inputs of one matrix are like. H is kept in square blocks along its diagonal, which bounds memory and time:
/// errors are made up for within `width` neighbouring channels.
struct input_moments {
  static constexpr int most_width = 1024;

  explicit input_moments(int channels = 0)
      : k(channels),
        width(channels == 0 ? 0 : round_up(ceil_div(channels, ceil_div(channels, most_width)), 16)),
        largest(static_cast<std::size_t>(channels), 0.f) {}

  int blocks() const noexcept { return k == 0 ? 0 : ceil_div(k, width); }
  /// Channels of block b.
  int size(int b) const noexcept { return std::min(width, k - b * width); }

  int k, width;
  double rows = 0;             ///< inputs seen, by weight
  std::vector<float> largest;  ///< [k] max |x[j]|
  std::vector<std::vector<float>> second;  ///< per block: [size, size], the upper triangle of H
};

/// By the name of the matrix: "vision.blocks.0.mlp.fc1.weight".
using moments_by_matrix = std::map<std::string, input_moments>;

/// Fills `rounded` of each matrix that `seen` holds and `wanted` picks. `damp`(name) is the share of H's mean diagonal
/// that is added to it. Deterministic, whatever the number of threads. Frees what it has used of `seen`.
outcome<void> round_for_inputs(model_source& model, moments_by_matrix& seen,
                               const std::function<bool(const planned_tensor&)>& wanted,
                               const std::function<double(const std::string&)>& damp, progress& bar);

}  // namespace ocellus::convert
