// JSON from strangers: nlohmann's parser behind limits on size, depth and count, with errors as one line.
//
// nlohmann's own parse() builds trees of any depth, and later steps over the tree recurse. Everything in the
// converter that reads JSON (configurations, tokenizers, shard indexes, safetensors headers) reads it through
// here.
#pragma once

#include "outcome.hpp"

#include <nlohmann/json.hpp>

#include <cstddef>
#include <filesystem>
#include <string_view>

namespace ocellus::convert {

struct json_limits {
  std::size_t bytes = std::size_t{128} << 20;  ///< a tokenizer.json of 900k pieces has some 60 MB
  std::size_t values = 8'000'000;             ///< objects, arrays, keys, numbers and strings together
  int depth = 64;
  bool unique_keys =
      false;  ///< refuse an object that has a key twice; otherwise the last one counts, as in Python
};

/// Parses UTF-8 text, with or without a byte order mark. Errors: not JSON, not UTF-8, NaN or Infinity, a
/// number beyond double, text after the value, a limit passed.
outcome<nlohmann::json> parse_json(std::string_view text, const json_limits& limits = {});

/// Reads and parses a file.
outcome<nlohmann::json> read_json(const std::filesystem::path& path, const json_limits& limits = {});

}  // namespace ocellus::convert
