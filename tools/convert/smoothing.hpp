// Moves large channels of activations into the weights before they are quantised [Xiao 2023, SmoothQuant]: where a
// LayerNorm feeds a matrix, channel j of the norm is divided by s[j] and column j of the matrix multiplied by it. With
// max |x[j]| seen in calibration, in units of the median channel,
//   s[j] = sqrt(max |x[j]|) where that is more than 1: weights rounded for their inputs (rounding.hpp) can bear it;
// without, s[j] = sqrt(max |x[j]| / max |w[:, j]|) of outlying channels alone.
// Exact in real arithmetic, free at run time; a row of activations then needs fewer of its 256 steps for a few large
// channels.
#pragma once

#include "rounding.hpp"

namespace ocellus::convert {

/// Rewrites the plan so that norms and matrices come out smoothed. Matrices that `seen` does not hold are judged by their
/// norm's gain and bias alone: a normalised value rarely exceeds 3, so max |x[j]| ~ 3 |gain[j]| + |bias[j]|.
outcome<void> smooth(model_source& model, const moments_by_matrix& seen);

}  // namespace ocellus::convert
