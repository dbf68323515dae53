// What the readers of tokenizer files share: JSON members that may be missing, and the settings that
// transformers writes beside a vocabulary.
#pragma once

#include "outcome.hpp"
#include "tokenizer.hpp"

#include <nlohmann/json.hpp>

#include <filesystem>
#include <optional>
#include <string>
#include <utility>
#include <vector>

namespace ocellus::convert {

/// The value of `key` if `j` is an object with such a key, else null.
const nlohmann::json& member(const nlohmann::json& j, const char* key);

/// True only for the JSON value true.
bool is_true(const nlohmann::json& j);

/// tokenizer_config.json over special_tokens_map.json of a folder, as far as they are there.
struct token_settings {
  nlohmann::json merged = nlohmann::json::object();

  /// A special token under `key`, written as a text or as an object with "content".
  std::optional<std::string> token(const char* key) const;
  /// model_max_length where it is a length; huge numbers mean "no limit".
  std::optional<int> context() const;
};

/// Errors: a file that is no JSON object; padding on the left.
outcome<token_settings> read_token_settings(const std::filesystem::path& folder);

/// added_tokens of a tokenizer.json; null gives none. Errors name the token: no text, no id, an id out of
/// range, asks for word boundaries.
outcome<std::vector<added_token>> read_added_tokens(const nlohmann::json& list);

}  // namespace ocellus::convert
