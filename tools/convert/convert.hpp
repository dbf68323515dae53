// A whole conversion: checkpoint to packed file. What ocellus-convert does, without its command line.
//
//   auto done = convert({.source = "clip-vit-base-patch32", .output = "clip.oc", .type = ocellus::dtype::f16});
#pragma once

#include "model_source.hpp"
#include "outcome.hpp"

#include <ocellus/ops/pack.hpp>

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <vector>

namespace ocellus::convert {

inline constexpr const char* converter_version = "ocellus-convert " OCELLUS_VERSION_STRING;

struct convert_options {
  std::filesystem::path source;                       ///< a checkpoint, or a folder with one
  std::filesystem::path output;                       ///< replaced when everything is there, never half-written
  ocellus::dtype type = ocellus::dtype::f32;
  std::optional<std::filesystem::path> tokenizer = {};  ///< a vocabulary file or folder; "none": no tokenizer
  std::optional<std::filesystem::path> config = {};     ///< the configuration, instead of the one beside the checkpoint
  std::optional<std::filesystem::path> calibrate = {};  ///< s8: a folder of pictures like those the model will see
  std::string licence = {};                             ///< kept in the file as it is
  bool show_progress = false;
};

struct convert_summary {
  std::string layout, container;
  std::string towers;  ///< "ViT 12 x 768 patch 32 at 224, text 12 x 512 context 77"
  std::string types;   ///< "f16 98, f32 200"
  std::string tokenizer;
  std::uint64_t bytes = 0, source_bytes = 0;
  double seconds = 0;
  std::vector<std::string> report;  ///< s8: the error that quantisation causes, one line each
  std::vector<std::string> notes;
};

/// Errors begin with the name of the file that they are about.
outcome<convert_summary> convert(const convert_options& options);

}  // namespace ocellus::convert
