// Five inputs in one, chosen by the first byte: bytes as a tokenizer blob that is opened and used; a sound blob with
// bytes changed; text through a small vocabulary in both CLIP styles and through all cleaning functions; a merge list
// that is built, opened and used; a WordPiece list likewise.
#include "tokenizer.hpp"
#include "tokenizer_wordpiece.hpp"

#include <ocellus/text/clean.hpp>
#include <ocellus/text/tokenizer.hpp>

#include <algorithm>
#include <array>
#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string>
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

/// `data` aligned as blobs must be.
void fuzz_blob(std::string_view data) {
  std::vector<std::uint64_t> aligned((data.size() + 7) / 8);
  if (!data.empty()) std::memcpy(aligned.data(), data.data(), data.size());
  const auto t = tokenizer::open(std::as_bytes(std::span(aligned)).first(data.size()));
  if (t)
    use(*t,
        "the aab's \xE2\x80\x9C"
        "abc &amp; 12<|endoftext|> <end_of_text>");
}

/// Changes a sound blob at the places that `patches` names: two bytes of offset, one of new value.
void fuzz_patched_blob(std::string_view patches) {
  const text_style style = patches.size() % 2 ? text_style::clip_hf : text_style::clip_openclip;
  const std::vector<std::byte> sound = build("#\na a\nb a\naa aa\na b\nt h\nth e</w>\n", style);
  std::string bytes(reinterpret_cast<const char*>(sound.data()), sound.size());
  for (std::size_t i = 0; i + 2 < patches.size(); i += 3) {
    const std::size_t at =
        static_cast<unsigned char>(patches[i]) * 256u + static_cast<unsigned char>(patches[i + 1]);
    bytes[at % bytes.size()] = patches[i + 2];
  }
  fuzz_blob(bytes);
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

void fuzz_wordpiece(std::string_view list) {
  const auto sound = convert::parse_wordpiece_list("[PAD]\n[UNK]\n[CLS]\n[SEP]\na\n##a\nab\n##b\n.");
  static const auto blob = convert::build_wordpiece(*sound, {});
  use(*tokenizer::open(*blob), list);
  const auto v = convert::parse_wordpiece_list(list);
  if (!v) return;
  const auto built = convert::build_wordpiece(*v, {});
  if (!built) return;
  const auto t = tokenizer::open(*built);
  if (!t) __builtin_trap();  // what the builder makes must open
  use(*t, list);
}

void fuzz_merges(std::string_view list) {
  const std::vector<std::byte> blob = build(list, text_style::clip_openclip);
  if (blob.empty()) return;
  const auto t = tokenizer::open(blob);
  if (!t) __builtin_trap();  // what the builder makes must open
  use(*t, list);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  switch (data[0] % 5) {
    case 0: fuzz_blob(rest); break;
    case 1: fuzz_text(rest); break;
    case 2: fuzz_patched_blob(rest); break;
    case 3: fuzz_merges(rest); break;
    default: fuzz_wordpiece(rest); break;
  }
  return 0;
}
