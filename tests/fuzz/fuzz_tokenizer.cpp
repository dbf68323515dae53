// Three inputs in one, chosen by the first byte: bytes as a tokenizer blob that is opened and used; text
// through a small vocabulary in both CLIP styles and through all cleaning functions; a merge list that is
// built, opened and used.
#include "tokenizer.hpp"

#include <ocellus/text/clean.hpp>
#include <ocellus/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

namespace {

using namespace ocellus;

std::vector<std::byte> build(std::string_view merges, text_style style) {
  auto v = convert::parse_merge_list(merges, std::nullopt);
  if (!v) return {};
  v->added = {{"<|startoftext|>", v->ids.at(v->sot), true}, {"<|endoftext|>", v->ids.at(v->eot), false}};
  convert::tokenizer_options options;
  options.style = style;
  auto built = convert::build_clip_tokenizer(*v, options);
  return built ? std::move(*built) : std::vector<std::byte>{};
}

void use(const tokenizer& t, std::string_view text) {
  std::array<std::int32_t, 40> ids;
  const auto encoded = t.encode(text, ids);
  if (!encoded) return;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= t.vocab_size()) __builtin_trap();
  }
}

void fuzz_text(std::string_view text) {
  constexpr std::string_view merges = "#\na a\nb a\naa aa\na b\nt h\nth e</w>\n";
  static const std::vector<std::byte> openclip = build(merges, text_style::clip_openclip);
  static const std::vector<std::byte> hf = build(merges, text_style::clip_hf);
  use(*tokenizer::open(openclip), text);
  use(*tokenizer::open(hf), text);
  text32 out;
  for (const text_cleaning c :
       {text_cleaning::whitespace, text_cleaning::lower, text_cleaning::canonicalize}) {
    cleaning::openclip(c, text, out);
  }
  cleaning::siglip_hf(text, out);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 3 == 0) {
    std::vector<std::uint64_t> aligned((rest.size() + 7) / 8);
    if (!rest.empty()) std::memcpy(aligned.data(), rest.data(), rest.size());
    const auto t = tokenizer::open(std::as_bytes(std::span(aligned)).first(rest.size()));
    if (t)
      use(*t,
          "the aab's \xE2\x80\x9C"
          "abc &amp; 12<|endoftext|> <end_of_text>");
  } else if (data[0] % 3 == 1) {
    fuzz_text(rest);
  } else {
    const std::vector<std::byte> blob = build(rest, text_style::clip_openclip);
    if (blob.empty()) return 0;
    const auto t = tokenizer::open(blob);
    if (!t) __builtin_trap();  // what the builder makes must open
    use(*t, rest);
  }
  return 0;
}
