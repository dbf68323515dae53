// Runs a converted model on a few pictures and prompts: what its matrices read (smoothing and rounding go by it), and how
// far an int8 model's embeddings lie from the same model's with 16-bit weights.
#pragma once

#include "outcome.hpp"
#include "rounding.hpp"

#include <ocellus/image/image.hpp>
#include <ocellus/image/preprocess_config.hpp>
#include <ocellus/isa/dispatch.hpp>

#include <algorithm>
#include <filesystem>
#include <string>
#include <vector>

namespace ocellus::convert {

/// The best kernel set inside law 2 for weights of every type: sets with fp16 or bf16 arithmetic would see other
/// activations, and a file must not depend on the machine that it was converted on.
kernel_table exact_kernels();

struct calibration_inputs {
  std::string description;                ///< "32 pictures of photos, 40 built-in prompts"
  std::vector<ocellus::image> pictures;   ///< as the model's preprocessor makes them
  std::vector<std::string> prompts;
  bool own = false;                       ///< the user's pictures, not the built-in ones
};

/// At most 64 pictures of a folder, spread over it by name. Files that are no pictures, or that the preprocessor refuses,
/// are passed over; a folder without one is an error.
outcome<calibration_inputs> read_calibration(const std::filesystem::path& folder, const preprocess_config& preprocess);

/// Pictures drawn here, with statistics somewhat like those of photos, and prompts.
outcome<calibration_inputs> built_in_inputs(const preprocess_config& preprocess);

/// Moments of what each matrix reads, over all inputs. Where one token of a tower is all that is read in the end, it
/// weighs as much as all others together: errors of the others average out, its own do not. The model's weights must not
/// be s8. One call at a time.
outcome<moments_by_matrix> observe_inputs(const std::filesystem::path& packed, const calibration_inputs& inputs,
                                          progress& bar);

/// How embeddings of two models agree, and how the error grows from block to block (relative, root mean square over the
/// residual stream).
struct fidelity {
  struct tower {
    int items = 0;
    double mean_cos = 1, worst_cos = 1;
    std::vector<double> block_error;
  };
  tower image, text;
  double worst() const { return std::min(image.worst_cos, text.worst_cos); }
};
outcome<fidelity> compare_models(const std::filesystem::path& reference, const std::filesystem::path& candidate,
                                 const calibration_inputs& inputs);

}  // namespace ocellus::convert
