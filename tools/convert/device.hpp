// What firmware needs of a packed file: the image tower alone, and the file as a C++ array with its configuration and
// with label embeddings that were computed here, so that the device runs no text tower.
#pragma once

#include "outcome.hpp"

#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ocellus::convert {

struct device_options {
  bool vision_only = false;                     ///< drop the text tower and the tokenizer from the file
  std::optional<std::filesystem::path> header;  ///< write the file as C++ to this
  std::vector<std::string> labels;              ///< embedded into the header
  std::vector<std::string> templates;           ///< one or more, each with {} for the label
};

/// Changes the finished packed file at `packed` and writes the header, each by a rename when complete. Errors: labels
/// without a text tower or a tokenizer, a header of a file with blocks of another data type than the others, a file that
/// cannot be read or written, each with the file's name.
outcome<void> prepare_for_device(const std::filesystem::path& packed, const device_options& options);

}  // namespace ocellus::convert
