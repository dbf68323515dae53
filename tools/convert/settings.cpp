#include "settings.hpp"

#include <algorithm>
#include <cmath>
#include <cstdio>

namespace ocellus::convert {
namespace {

const nlohmann::json empty_object = nlohmann::json::object();

std::string show(const nlohmann::json& value) {
  return printable(value.dump(-1, ' ', true, nlohmann::json::error_handler_t::replace), 60);
}

std::string show(double x) {
  char text[32];
  std::snprintf(text, sizeof(text), "%.9g", x);
  return text;
}

}  // namespace

settings::settings(plan& p, const nlohmann::json& object, std::string file, std::string defaults)
    : plan_(&p), object_(&object), file_(std::move(file)), defaults_(std::move(defaults)) {
  if (!object.is_object()) {
    p.fail(file_ + ": expected a JSON object");
    object_ = &empty_object;
  }
}

const nlohmann::json* settings::find(const char* key) const {
  const auto at = object_->find(key);
  return at == object_->end() || at->is_null() ? nullptr : &*at;
}

bool settings::has(const char* key) const { return find(key) != nullptr; }

std::vector<std::string> settings::others(std::initializer_list<std::string_view> known) const {
  std::vector<std::string> names;
  for (const auto& [key, value] : object_->items())
    if (!value.is_null() && value != nlohmann::json(false) && std::find(known.begin(), known.end(), key) == known.end())
      names.push_back(key);
  return names;
}

settings settings::child(const char* key, std::string defaults) const {
  const nlohmann::json* value = find(key);
  if (value != nullptr && !value->is_object()) {
    fail(key, "is " + show(*value) + ", expected an object");
    value = nullptr;
  }
  settings s(*plan_, value == nullptr ? empty_object : *value, file_, std::move(defaults));
  s.path_ = path_ + key + ".";
  return s;
}

std::string settings::origin(const char* key) const {
  return object_->contains(key) ? file_ + ": " + path_ + key : "default of " + defaults_;
}

void settings::note(const std::string& name, std::string value, const char* key) const {
  if (!name.empty()) plan_->note_switch(name, std::move(value), origin(key));
}

void settings::fail(const char* key, const std::string& what) const {
  plan_->fail(file_ + ": " + path_ + key + " " + what);
}

std::optional<int> settings::as_integer(const nlohmann::json& value, const char* key, int low, int high) const {
  const std::string wanted = ", expected an integer from " + std::to_string(low) + " to " + std::to_string(high);
  // Numbers beyond 64 bits are parsed as doubles, and refused here with the fractional ones.
  const bool fits = value.is_number_unsigned() ? value.get<std::uint64_t>() <= static_cast<std::uint64_t>(INT64_MAX)
                                               : value.is_number_integer();
  if (!fits || value.get<std::int64_t>() < low || value.get<std::int64_t>() > high) {
    fail(key, "is " + show(value) + wanted);
    return {};
  }
  return static_cast<int>(value.get<std::int64_t>());
}

int settings::integer(const char* key, std::optional<int> fallback, int low, int high, const std::string& name) const {
  const auto at = object_->find(key);
  int value = fallback.value_or(low);
  if (at != object_->end()) {
    value = as_integer(*at, key, low, high).value_or(low);
  } else if (!fallback) {
    fail(key, "is missing");
  }
  note(name, std::to_string(value), key);
  return value;
}

std::optional<int> settings::optional_integer(const char* key, int low, int high, const std::string& name) const {
  const nlohmann::json* value = find(key);
  if (value == nullptr) return {};
  const std::optional<int> n = as_integer(*value, key, low, high);
  if (n) note(name, std::to_string(*n), key);
  return n;
}

double settings::number(const char* key, double fallback, double low, double high, const std::string& name) const {
  const auto at = object_->find(key);
  double value = fallback;
  if (at != object_->end()) {
    value = at->is_number() ? at->get<double>() : std::nan("");
    if (!(value >= low && value <= high)) {
      fail(key, "is " + show(*at) + ", expected a number from " + show(low) + " to " + show(high));
      value = fallback;
    }
  }
  note(name, show(value), key);
  return value;
}

bool settings::flag(const char* key, bool fallback, const std::string& name) const {
  const nlohmann::json* value = find(key);
  bool result = fallback;
  if (value != nullptr) {
    if (value->is_boolean()) {
      result = value->get<bool>();
    } else {
      fail(key, "is " + show(*value) + ", expected true or false");
    }
  }
  note(name, result ? "true" : "false", key);
  return result;
}

std::string settings::text(const char* key, std::string fallback, const std::string& name) const {
  const nlohmann::json* value = find(key);
  if (value != nullptr) {
    if (value->is_string()) {
      fallback = value->get<std::string>();
    } else {
      fail(key, "is " + show(*value) + ", expected a text");
    }
  }
  note(name, printable(fallback), key);
  return fallback;
}

std::pair<int, int> settings::size(const char* key, std::optional<int> fallback, int low, int high,
                                   const std::string& name) const {
  const auto at = object_->find(key);
  std::pair<int, int> hw(fallback.value_or(low), fallback.value_or(low));
  if (at == object_->end()) {
    if (!fallback) fail(key, "is missing");
  } else if (at->is_array() && (at->size() == 1 || at->size() == 2)) {
    hw.first = as_integer(at->front(), key, low, high).value_or(low);
    hw.second = as_integer(at->back(), key, low, high).value_or(low);
  } else {
    hw.first = hw.second = as_integer(*at, key, low, high).value_or(low);
  }
  note(name, std::to_string(hw.first) + (hw.first == hw.second ? "" : " x " + std::to_string(hw.second)), key);
  return hw;
}

std::optional<ocellus::activation> parse_activation(std::string_view name) {
  using enum ocellus::activation;
  if (name == "quick_gelu" || name == "quickgelu") return quick_gelu;
  if (name == "gelu" || name == "gelu_python") return gelu;
  if (name == "gelu_pytorch_tanh" || name == "gelu_tanh" || name == "gelu_new" || name == "gelu_fast") return gelu_tanh;
  if (name == "silu" || name == "swish") return silu;
  if (name == "relu") return relu;
  return {};
}

const char* to_string(ocellus::activation act) noexcept {
  constexpr const char* names[] = {"none", "quick_gelu", "gelu", "gelu_tanh", "silu", "relu"};
  const auto i = static_cast<std::size_t>(act);
  return i < std::size(names) ? names[i] : "unknown";
}

ocellus::activation read_activation(const settings& s, const char* key, const std::string& fallback,
                                    const std::string& name) {
  const std::string spelt = s.text(key, fallback);
  const std::optional<ocellus::activation> act = parse_activation(spelt);
  if (!act) {
    s.fail(key, "is \"" + printable(spelt) + "\": an activation that ocellus does not know");
    return ocellus::activation::gelu;
  }
  s.note(name, to_string(*act), key);
  return *act;
}

}  // namespace ocellus::convert
