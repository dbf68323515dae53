// Moves outliers of activations into the weights before they are quantised [Xiao 2023, SmoothQuant]: where a LayerNorm
// feeds a matrix, an outlying channel j of the norm is divided by s[j] and column j of the matrix multiplied by it,
//   s[j] = sqrt(max |x[j]| / max |w[:, j]|), both in units of the median channel.
// Exact in real arithmetic, free at run time; a row of activations then needs fewer of its 256 steps for a few large
// channels.
#pragma once

#include "model_source.hpp"

#include <map>
#include <string>
#include <vector>

namespace ocellus::convert {

/// Largest |x| per channel of a LayerNorm's output, by the norm's name ("vision.blocks.0.norm1"), seen in calibration.
using channel_maxima = std::map<std::string, std::vector<float>>;

/// Rewrites the plan so that norms and matrices come out smoothed. Norms that `seen` does not hold are judged by their
/// gain and bias alone: a normalised value rarely exceeds 3, so max |x[j]| ~ 3 |gain[j]| + |bias[j]|. Reads the matrices
/// concerned once more than packing does.
outcome<void> smooth(model_source& model, const channel_maxima& seen);

}  // namespace ocellus::convert
