#include "tokenizer_files.hpp"

#include "json.hpp"

#include <cstdint>
#include <system_error>

namespace ocellus::convert {

namespace fs = std::filesystem;
using nlohmann::json;

const json& member(const json& j, const char* key) {
  static const json nothing;
  if (!j.is_object()) return nothing;
  const auto at = j.find(key);
  return at == j.end() ? nothing : *at;
}

bool is_true(const json& j) { return j.is_boolean() && j.get<bool>(); }

std::optional<std::string> token_settings::token(const char* key) const {
  const json& value = member(merged, key);
  if (value.is_string()) return value.get<std::string>();
  const json& content = member(value, "content");
  return content.is_string() ? std::optional(content.get<std::string>()) : std::nullopt;
}

std::optional<int> token_settings::context() const {
  const json& length = member(merged, "model_max_length");
  if (!length.is_number_integer()) return std::nullopt;
  const auto n = length.get<std::int64_t>();
  return n >= 2 && n <= 4096 ? std::optional(static_cast<int>(n)) : std::nullopt;
}

outcome<token_settings> read_token_settings(const fs::path& folder) {
  token_settings s;
  for (const char* name : {"special_tokens_map.json", "tokenizer_config.json"}) {
    std::error_code ignored;
    if (!fs::is_regular_file(folder / name, ignored)) continue;
    const auto j = read_json(folder / name);
    if (!j) return error{std::string(name) + ": " + j.failure().what};
    if (!j->is_object()) return error{std::string(name) + ": not an object of settings"};
    for (const auto& [key, value] : j->items())
      if (!value.is_null()) s.merged[key] = value;
  }
  if (member(s.merged, "padding_side") == "left")
    return error{"tokenizer_config.json: padding_side is \"left\": ocellus pads on the right only"};
  return s;
}

outcome<std::vector<added_token>> read_added_tokens(const json& list) {
  std::vector<added_token> tokens;
  if (list.is_null()) return tokens;
  constexpr std::size_t most = 65536;
  if (!list.is_array() || list.size() > most) return error{"added_tokens is not a list"};
  for (const json& t : list) {
    const json& content = member(t, "content");
    const json& id = member(t, "id");
    if (!content.is_string() || !id.is_number_integer()) return error{"an added token lacks its text or id"};
    const auto text = content.get<std::string>();
    const std::string what = "the added token " + in_quotes(text);
    const auto value = id.get<std::int64_t>();
    if (value < 0 || value >= (1 << 24)) return error{"the id of " + what + " is out of range"};
    if (is_true(member(t, "single_word")))
      return error{what + " asks for word boundaries, which is not supported"};
    tokens.push_back(
        {text, static_cast<int>(value), is_true(member(t, "normalized")), is_true(member(t, "special"))});
  }
  return tokens;
}

}  // namespace ocellus::convert
