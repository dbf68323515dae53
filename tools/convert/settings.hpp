// A configuration file's object, read field by field: each value is checked against its range, falls back to
// the default of the reference's class when the field is left out, and is noted with where it came from
// (`ocellus info`).
//
//   settings vision = root.child("vision_config", "CLIPVisionConfig");
//   const int width = vision.integer("hidden_size", 768, 1, 1 << 14, "vision.width");
//
// Mistakes go to the plan: the first one stops the conversion.
#pragma once

#include "json.hpp"
#include "plan.hpp"

#include <initializer_list>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

namespace ocellus::convert {

class settings {
 public:
  /// `object` must outlive this. `file` is a plain file name for messages, `defaults` the class whose
  /// defaults apply.
  settings(plan& p, const nlohmann::json& object, std::string file, std::string defaults);

  /// The object under `key`; an empty one if it is left out or null.
  settings child(const char* key, std::string defaults) const;

  bool has(const char* key) const;  ///< there, and not null
  /// Names of the fields besides `known` that are set to something else than null or false: of a newer version of the
  /// reference, or of a fork, and perhaps with a meaning for the answers.
  std::vector<std::string> others(std::initializer_list<std::string_view> known) const;
  const nlohmann::json* find(const char* key) const;

  /// With `name` empty nothing is noted: for fields that only lead to others.
  int integer(const char* key, std::optional<int> fallback, int low, int high,
              const std::string& name = {}) const;
  std::optional<int> optional_integer(const char* key, int low, int high, const std::string& name = {}) const;
  double number(const char* key, double fallback, double low, double high,
                const std::string& name = {}) const;
  bool flag(const char* key, bool fallback, const std::string& name = {}) const;
  std::string text(const char* key, std::string fallback, const std::string& name = {}) const;
  /// An integer or a list of one or two: [height, width].
  std::pair<int, int> size(const char* key, std::optional<int> fallback, int low, int high,
                           const std::string& name = {}) const;

  /// "config.json: vision_config.hidden_act", or "default of CLIPVisionConfig" when the field is left out.
  std::string origin(const char* key) const;
  void note(const std::string& name, std::string value, const char* key) const;

  plan& target() const noexcept { return *plan_; }
  const std::string& file() const noexcept { return file_; }
  const std::string& path() const noexcept { return path_; }
  const nlohmann::json& object() const noexcept { return *object_; }
  /// A failure about this field: "config.json: vision_config.patch_size is ..., expected ...".
  void fail(const char* key, const std::string& what) const;

 private:
  std::optional<int> as_integer(const nlohmann::json& value, const char* key, int low, int high) const;

  plan* plan_;
  const nlohmann::json* object_;
  std::string file_, path_, defaults_;
};

/// The activation of that name, as transformers ("gelu", "quick_gelu", "gelu_pytorch_tanh", ...) and timm
/// call them.
std::optional<ocellus::activation> parse_activation(std::string_view name);
const char* to_string(ocellus::activation act) noexcept;

/// A hidden_act field: noted as `name`, refused if unknown.
ocellus::activation read_activation(const settings& s, const char* key, const std::string& fallback,
                                    const std::string& name);

}  // namespace ocellus::convert
