// What went wrong, without exceptions: an enumeration that names the fact, and result<T> that holds a T or a
// status.
//
// The library never throws, prints or aborts. Bad data (a damaged file, an odd picture, a model without a
// tokenizer) gives a status; the programs turn it into a sentence with the file's name.
#pragma once

#include <ocellus/config.hpp>

#include <optional>
#include <utility>

OCELLUS_BEGIN

/// The fact that stopped a call. Stable names; `to_string` gives a short English phrase.
enum class [[nodiscard]] status : unsigned char {
  ok,
  // files
  file_not_found,
  cannot_read,
  cannot_write,
  not_a_regular_file,
  empty_file,
  too_large,
  out_of_memory,
  // packed files
  bad_magic,
  unsupported_version,
  unknown_required_feature,
  truncated,
  bad_offset,
  bad_alignment,
  bad_header,
  bad_name,
  bad_config,
  different_config,
  bad_checksum,
  missing_tensor,
  wrong_shape,
  unsupported_dtype,
  unsupported_layout,
  // models
  unsupported_isa,
  no_vision_tower,
  no_text_tower,
  no_tokenizer,
  no_classes,
  bad_tokenizer,
  unsupported_tokenizer,
  token_out_of_range,
  different_embedding_space,
  // images
  bad_image,
  unsupported_image,
  image_too_large,
  // calls
  invalid_argument,
  buffer_too_small,
};

/// A short English phrase for a status, e.g. "not an ocellus file". Static storage.
constexpr const char* to_string(status s) noexcept {
  switch (s) {
    case status::ok: return "ok";
    case status::file_not_found: return "no such file";
    case status::cannot_read: return "cannot be read";
    case status::cannot_write: return "cannot be written";
    case status::not_a_regular_file: return "not a regular file";
    case status::empty_file: return "the file is empty";
    case status::too_large: return "too large";
    case status::out_of_memory: return "out of memory";
    case status::bad_magic: return "not an ocellus file";
    case status::unsupported_version: return "made for another version of ocellus: convert the model again";
    case status::unknown_required_feature: return "needs a feature that this version does not know";
    case status::truncated: return "the file ends too early";
    case status::bad_offset: return "an offset or a size in the file is out of range";
    case status::bad_alignment: return "the buffer or a section of the file is not aligned to 64 bytes";
    case status::bad_header: return "a header of the file is damaged";
    case status::bad_name: return "a name in the file is damaged";
    case status::bad_config: return "the configuration in the file makes no sense";
    case status::different_config: return "the file holds another model than the one compiled in";
    case status::bad_checksum: return "a checksum does not match: the file is damaged";
    case status::missing_tensor: return "a tensor is missing";
    case status::wrong_shape: return "a tensor or an input has another shape than the model's";
    case status::unsupported_dtype: return "weights of a data type that is not supported here";
    case status::unsupported_layout: return "a weight layout is not supported by this kernel set";
    case status::unsupported_isa: return "this CPU or build does not have that instruction set";
    case status::no_vision_tower: return "the model has no vision tower";
    case status::no_text_tower: return "the model has no text tower";
    case status::no_tokenizer:
      return "the model has no tokenizer: convert it again with --tokenizer, or give ids";
    case status::no_classes: return "the model has no classifier head";
    case status::bad_tokenizer: return "the tokenizer data is damaged";
    case status::unsupported_tokenizer: return "this kind of tokenizer is not supported";
    case status::token_out_of_range: return "a token id lies outside the vocabulary";
    case status::different_embedding_space: return "the embeddings come from different models";
    case status::bad_image: return "the image is damaged or not an image";
    case status::unsupported_image:
      return "this image format is not supported; decode it yourself and pass pixels";
    case status::image_too_large: return "the image has too many pixels";
    case status::invalid_argument: return "an argument is out of range";
    case status::buffer_too_small: return "the buffer given is too small";
  }
  return "unknown status";
}

/// A T, or the status that says why there is none. Dereference only after testing it.
template <class T>
class [[nodiscard]] result {
 public:
  result(T value) noexcept : value_(std::move(value)) {}               // NOLINT: implicit by design
  result(status error) noexcept : status_(error) {                      // NOLINT
    OCELLUS_ASSERT(error != status::ok);
  }

  explicit operator bool() const noexcept { return value_.has_value(); }
  /// status::ok when a value is held.
  status error() const noexcept { return status_; }

  T& operator*() & noexcept { return *value_; }
  const T& operator*() const& noexcept { return *value_; }
  T&& operator*() && noexcept { return std::move(*value_); }
  T* operator->() noexcept { return &*value_; }
  const T* operator->() const noexcept { return &*value_; }

 private:
  std::optional<T> value_;
  status status_ = status::ok;
};

OCELLUS_END
