// Three inputs in one, chosen by the first byte: a small good blob with some bytes changed, and a text for
// it; bytes as a SentencePiece model file that is read, built and used; bytes as a blob.
#include "tokenizer_sentencepiece.hpp"

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
using vocabulary = convert::sentencepiece_vocabulary;
using type = vocabulary::piece_type;

constexpr std::array styles = {text_style::siglip_hf, text_style::siglip_openclip, text_style::siglip2};

vocabulary small_xlm_roberta() {
  vocabulary v;
  v.is_xlm_roberta = true;
  v.flags = spm_escape_blanks | spm_dummy_prefix | spm_single_blanks;
  v.pieces = {{"<s>", 0, type::control}, {"<pad>", 0, type::control}, {"</s>", 0, type::control},
              {"<unk>", 0, type::unknown}};
  for (const char* text : {"a", "b", "\xE2\x96\x81", "\xE2\x96\x81" "a", "ab", "\xC3\xA9"}) {
    v.pieces.push_back({text, -static_cast<float>(v.pieces.size()), type::normal});
  }
  v.specials = {{"<s>", 0}, {"</s>", 2}};
  return v;
}

vocabulary small_vocabulary(bool bpe, bool bytes) {
  vocabulary v;
  v.is_bpe = bpe;
  v.byte_fallback = bytes;
  v.flags = bpe ? spm_escape_blanks : spm_escape_blanks | spm_dummy_prefix | spm_single_blanks;
  v.pieces = {{"<pad>", 0, type::control}, {"</s>", 0, type::control}, {"<unk>", 0, type::unknown}};
  for (const char* text : {"a", "b", "\xE2\x96\x81", "ab", "aa", "abab", "\xC3\xA9"}) {
    v.pieces.push_back({text, -static_cast<float>(v.pieces.size()), type::normal});
  }
  v.pieces.push_back({"<x>", 0, type::user_defined});
  v.specials = {{"</s>", 1}, {"<x>", 10}};
  constexpr std::string_view digits = "0123456789ABCDEF";
  for (std::size_t b = 0; bytes && b < 256; ++b) {
    v.pieces.push_back({std::string("<0x") + digits[b / 16] + digits[b % 16] + ">", 0, type::byte});
  }
  return v;
}

std::vector<std::vector<std::byte>> small_blobs() {
  std::vector<std::vector<std::byte>> blobs;
  for (unsigned i = 0; i < 4; ++i) {
    for (const text_style style : styles) {
      convert::tokenizer_options options;
      options.style = style;
      auto blob = convert::build_sentencepiece(small_vocabulary(i & 1, i & 2), options);
      if (!blob) __builtin_trap();
      blobs.push_back(std::move(*blob));
    }
  }
  auto xlm_roberta = convert::build_sentencepiece(small_xlm_roberta(), {});
  if (!xlm_roberta) __builtin_trap();
  blobs.push_back(std::move(*xlm_roberta));
  return blobs;
}

void use(std::span<const std::byte> bytes, std::string_view text) {
  // The same bytes at an aligned place whose end is guarded.
  std::vector<std::uint64_t> aligned((bytes.size() + 7) / 8);
  if (!bytes.empty()) std::memcpy(aligned.data(), bytes.data(), bytes.size());
  const auto t = tokenizer::open(std::as_bytes(std::span(aligned)).first(bytes.size()));
  if (!t) return;
  std::array<std::int32_t, 40> ids;
  if (!t->encode(text, ids)) return;
  for (const std::int32_t id : ids) {
    if (id < 0 || id >= t->vocab_size()) __builtin_trap();
  }
}

/// [blob] [n] n times [offset, low][offset, high][value], then the text.
void use_changed(std::string_view input) {
  static const auto blobs = small_blobs();
  if (input.size() < 2) return;
  std::vector<std::byte> blob = blobs[static_cast<unsigned char>(input[0]) % blobs.size()];
  const std::size_t changes =
      std::min<std::size_t>(static_cast<unsigned char>(input[1]), (input.size() - 2) / 3);
  for (std::size_t i = 0; i < changes; ++i) {
    const auto at = [&](std::size_t k) { return static_cast<unsigned char>(input[2 + 3 * i + k]); };
    blob[(at(0) + 256u * at(1)) % blob.size()] = static_cast<std::byte>(at(2));
  }
  use(blob, input.substr(2 + 3 * changes));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
  if (size == 0) return 0;
  const std::string_view rest(reinterpret_cast<const char*>(data + 1), size - 1);
  if (data[0] % 3 == 0) {
    use_changed(rest);
  } else if (data[0] % 3 == 1) {
    auto model = convert::parse_sentencepiece_model(rest);
    if (!model) return 0;
    convert::tokenizer_options options;
    options.style = styles[size % styles.size()];
    const auto blob = convert::build_sentencepiece(std::move(*model), options);
    if (!blob) return 0;
    if (!tokenizer::open(*blob)) __builtin_trap();  // what the builder makes must open
    use(*blob, rest);
  } else {
    use(std::as_bytes(std::span(rest)), "ab aab\xC3\xA9<x> \xE2\x96\x81</s> 12");
  }
  return 0;
}
