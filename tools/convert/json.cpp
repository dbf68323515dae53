#include "json.hpp"

#include "byte_source.hpp"

#include <string>
#include <vector>

namespace ocellus::convert {
namespace {

using nlohmann::json;

/// Builds the tree from the parser's events, and stops the parser at the first limit passed.
class bounded_builder : public nlohmann::json_sax<json> {
 public:
  explicit bounded_builder(const json_limits& limits) : limits_(limits) {}

  json take() { return std::move(root_); }
  const std::string& problem() const { return problem_; }

  bool null() override { return add(nullptr); }
  bool boolean(bool value) override { return add(value); }
  bool number_integer(number_integer_t value) override { return add(value); }
  bool number_unsigned(number_unsigned_t value) override { return add(value); }
  bool number_float(number_float_t value, const string_t&) override { return add(value); }
  bool string(string_t& value) override { return add(std::move(value)); }
  bool binary(binary_t&) override { return fail("binary values are not JSON"); }

  bool start_object(std::size_t) override { return open(json::object()); }
  bool start_array(std::size_t) override { return open(json::array()); }
  bool end_object() override { return close(); }
  bool end_array() override { return close(); }

  bool key(string_t& name) override {
    json& object = *open_.back();
    if (limits_.unique_keys && object.contains(name))
      return fail("the key \"" + printable(name) + "\" stands twice");
    key_ = std::move(name);
    return count();
  }

  bool parse_error(std::size_t position, const std::string&,
                   const nlohmann::detail::exception& why) override {
    // 401 and above are nlohmann's "other" errors, of which only a number beyond double comes from parsing.
    return fail((why.id == 406 ? "a number is out of range at byte " : "not valid JSON at byte ") +
                std::to_string(position));
  }

 private:
  bool fail(std::string why) {
    if (problem_.empty()) problem_ = std::move(why);
    return false;
  }

  bool count() {
    return ++values_ <= limits_.values || fail("more values than a file of this kind can have");
  }

  /// Puts a value where the parser stands and returns its place.
  json* place(json&& value) {
    if (open_.empty()) return &(root_ = std::move(value));
    json& parent = *open_.back();
    if (parent.is_array()) return &parent.get_ref<json::array_t&>().emplace_back(std::move(value));
    return &(parent.get_ref<json::object_t&>()[key_] = std::move(value));
  }

  bool add(json&& value) {
    if (!count()) return false;
    place(std::move(value));
    return true;
  }

  bool open(json&& value) {
    if (!count()) return false;
    if (open_.size() >= static_cast<std::size_t>(limits_.depth)) {
      return fail("nested more than " + std::to_string(limits_.depth) + " deep");
    }
    open_.push_back(place(std::move(value)));
    return true;
  }

  bool close() {
    open_.pop_back();
    return true;
  }

  const json_limits& limits_;
  json root_;
  std::vector<json*>
      open_;  // the way from the root to where the parser stands; parents do not move while it lasts
  std::string key_;
  std::size_t values_ = 0;
  std::string problem_;
};

}  // namespace

outcome<json> parse_json(std::string_view text, const json_limits& limits) {
  if (text.size() > limits.bytes) {
    return error{"JSON of " + std::to_string(text.size()) + " bytes, the limit is " +
                 std::to_string(limits.bytes)};
  }
  bounded_builder builder(limits);
  if (!json::sax_parse(text.begin(), text.end(), &builder)) return error{builder.problem()};
  return builder.take();
}

outcome<json> read_json(const std::filesystem::path& path, const json_limits& limits) {
  outcome<byte_source> source = byte_source::open(path);
  if (!source) return source.failure();
  if (source->size() > limits.bytes) {
    return error{"JSON of " + std::to_string(source->size()) + " bytes, the limit is " +
                 std::to_string(limits.bytes)};
  }
  std::string text(static_cast<std::size_t>(source->size()), '\0');
  if (auto read = source->read(0, std::as_writable_bytes(std::span(text))); !read) return read.failure();
  return parse_json(text, limits);
}

}  // namespace ocellus::convert
