#include "tokenizer_sentencepiece.hpp"

#include "byte_source.hpp"
#include "double_array_builder.hpp"

#include <ocellus/text/sentencepiece_text.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <unordered_map>
#include <unordered_set>

namespace ocellus::convert {

namespace {

using vocabulary = sentencepiece_vocabulary;
using piece_type = vocabulary::piece_type;

constexpr std::string_view blank = ocellus::detail::spm_blank;

error fail(std::string what) { return error{std::move(what)}; }

using id_map = std::unordered_map<std::string_view, std::uint32_t>;

/// Everything that goes into the blob's sections.
struct tables {
  spm_info info{};
  std::vector<std::uint32_t> charsmap;
  std::string replacements;
  std::vector<std::int32_t> bytes;
  std::vector<std::uint32_t> specials;
  // unigram
  std::vector<std::uint32_t> user_defined;
  std::vector<std::uint32_t> pieces;
  std::vector<float> scores;
  // BPE
  std::vector<spm_letter> letters;
  std::vector<std::uint64_t> merges;
  std::vector<std::uint32_t> merged;
};

outcome<void> check_pieces(const vocabulary& v) {
  if (v.pieces.empty()) return fail("it holds no pieces");
  if (v.pieces.size() > sentencepiece_most_pieces) return fail("it has too many pieces");
  std::unordered_set<std::string_view> seen(v.pieces.size());
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const vocabulary::piece& p = v.pieces[id];
    const std::string where = "piece " + std::to_string(id) + " " + in_quotes(p.text);
    if (!is_utf8(p.text)) return fail(where + " is not UTF-8");
    if (p.text.size() > spm_max_special) return fail(where + " is too long");
    if (!std::isfinite(p.score)) return fail(where + " has no finite score");
    if (!p.text.empty() && !seen.insert(p.text).second) return fail(where + " occurs twice");
  }
  return {};
}

/// SentencePiece's packed map: the size of the double array in bytes, the array, the replacements.
outcome<void> add_charsmap(const std::string& packed, tables& t) {
  if (packed.empty()) return {};
  const error damaged = {"its precompiled_charsmap is damaged"};
  if (packed.size() < 4) return damaged;
  const std::size_t size = load_u32(reinterpret_cast<const std::byte*>(packed.data()));
  if (size == 0 || size % 4 != 0 || size >= packed.size() - 4) return damaged;
  t.charsmap.resize(size / 4);
  for (std::size_t i = 0; i < t.charsmap.size(); ++i) {
    t.charsmap[i] = load_u32(reinterpret_cast<const std::byte*>(packed.data()) + 4 + 4 * i);
  }
  t.replacements = packed.substr(4 + size);
  if (t.replacements.back() != '\0' || !is_utf8(t.replacements)) return damaged;
  for (std::size_t at = 0; at < t.replacements.size();) {
    const std::size_t end = t.replacements.find('\0', at);
    if (end - at > spm_max_replacement) return damaged;
    at = end + 1;
  }
  return {};
}

/// Ids of the 256 bytes. Gemma's list has a tab in the place of byte 9.
outcome<void> add_bytes(const vocabulary& v, tables& t) {
  if (!v.byte_fallback) return {};
  std::vector<std::int32_t> ids(256, -1);
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const int byte = v.pieces[id].type == piece_type::byte ? sentencepiece_byte(v.pieces[id].text) : -1;
    if (byte >= 0) ids[static_cast<std::size_t>(byte)] = static_cast<std::int32_t>(id);
  }
  for (std::size_t b = 0; b < 256; ++b) {
    if (ids[b] >= 0) continue;
    const bool in_order = b > 0 && b < 255 && ids[b - 1] >= 0 && ids[b + 1] == ids[b - 1] + 2;
    if (!in_order ||
        v.pieces[static_cast<std::size_t>(ids[b - 1] + 1)].text != std::string(1, static_cast<char>(b))) {
      return fail("it lacks the piece of byte " + std::to_string(b) + " although it falls back to bytes");
    }
    ids[b] = ids[b - 1] + 1;
  }
  t.bytes = std::move(ids);
  return {};
}

outcome<void> add_specials(const vocabulary& v, text_style style, const id_map& ids, bool strip_sep,
                           tables& t) {
  std::vector<double_array_entry> entries;
  std::unordered_set<std::string_view> seen;
  const auto add = [&](std::string_view text, std::uint32_t id) {
    if (!text.empty() && seen.insert(text).second) entries.emplace_back(text, id);
  };
  if (style == text_style::siglip_hf) {
    for (const std::string* name : {&v.eos, &v.unk, &v.pad}) {
      if (const auto at = ids.find(*name); at != ids.end()) add(*name, at->second);
    }
  } else if (style != text_style::siglip_openclip) {
    for (const auto& [text, id] : v.specials)
      add(text, strip_sep && text == v.eos ? 0 : static_cast<std::uint32_t>(id));
  }
  auto built = build_double_array(std::move(entries));
  if (!built) return fail("special tokens: " + built.failure().what);
  t.specials = std::move(*built);
  return {};
}

/// The trie and the scores as the tokenizers library has them: control pieces are found in a text too.
outcome<void> add_fast_unigram(const vocabulary& v, tables& t) {
  std::vector<double_array_entry> entries;
  t.info.lowest_score = std::numeric_limits<float>::max();
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const vocabulary::piece& p = v.pieces[id];
    t.scores.push_back(p.score);
    if (p.text.empty() || p.type == piece_type::unused) continue;
    if (p.text.size() > spm_max_piece) return fail("the piece " + in_quotes(p.text) + " is too long");
    t.info.longest_piece = std::max(t.info.longest_piece, static_cast<std::uint32_t>(p.text.size()));
    t.info.lowest_score = std::min(t.info.lowest_score, p.score);
    entries.emplace_back(p.text, static_cast<std::uint32_t>(id));
  }
  auto pieces = build_double_array(std::move(entries));
  if (!pieces) return pieces.failure();
  t.pieces = std::move(*pieces);
  return {};
}

outcome<void> add_unigram(const vocabulary& v, tables& t) {
  std::vector<double_array_entry> entries;
  std::vector<double_array_entry> user_defined;
  float lowest = std::numeric_limits<float>::max();
  for (std::size_t i = 0; i < v.pieces.size(); ++i) {
    const vocabulary::piece& p = v.pieces[i];
    const auto id = static_cast<std::uint32_t>(i);
    t.scores.push_back(p.score);
    if (p.text.empty()) continue;
    if (p.type == piece_type::normal) {
      lowest = std::min(lowest, p.score);
      entries.emplace_back(p.text, id);
    } else if (p.type == piece_type::user_defined) {
      entries.emplace_back(p.text, id | spm_user_defined);
      user_defined.emplace_back(p.text, id);
    } else {
      continue;
    }
    if (p.text.size() > spm_max_piece) return fail("the piece " + in_quotes(p.text) + " is too long");
    t.info.longest_piece = std::max(t.info.longest_piece, static_cast<std::uint32_t>(p.text.size()));
  }
  if (entries.empty()) return fail("it holds no pieces but special ones");
  t.info.unknown_score = lowest - 10.0f;  // the library's kUnkPenalty
  auto pieces = build_double_array(std::move(entries));
  if (!pieces) return pieces.failure();
  auto kept = build_double_array(std::move(user_defined));
  if (!kept) return kept.failure();
  t.pieces = std::move(*pieces);
  t.user_defined = std::move(*kept);
  return {};
}

/// Puts items into an open-addressing table of at most 60 % load; returns the most slots that a search looks
/// at.
template <class T, class Key, class IsFree>
std::uint32_t fill_table(const std::vector<T>& items, T free, Key&& key, IsFree&& is_free,
                         std::vector<T>& table) {
  table.assign(std::bit_ceil(std::max<std::size_t>(items.size() * 5 / 3, 2)), free);
  const int bits = std::countr_zero(table.size());
  std::uint32_t most = 0;
  for (const T& item : items) {
    std::size_t slot = spm_slot(key(item), bits);
    std::uint32_t probes = 1;
    for (; !is_free(table[slot]) && key(table[slot]) != key(item); ++probes) slot = (slot + 1) % table.size();
    table[slot] = item;
    most = std::max(most, probes);
  }
  return most;
}

/// A merge to be: the pieces it joins, and its place in the order.
struct merge_rule {
  std::uint32_t left;
  std::uint32_t right;
  std::uint32_t rank;
};

/// The merges that the file lists.
outcome<std::vector<merge_rule>> listed_merges(const vocabulary& v, const id_map& ids, tables& t) {
  std::vector<merge_rule> rules;
  for (const auto& [left, right] : v.merges) {
    const auto rank = static_cast<std::uint32_t>(rules.size());
    const auto l = ids.find(left);
    const auto r = ids.find(right);
    const std::string whole = left + right;
    const auto m = ids.find(whole);
    if (l == ids.end() || r == ids.end() || m == ids.end()) {
      const std::string& missing = l == ids.end() ? left : r == ids.end() ? right : whole;
      return fail("merge " + std::to_string(rank + 1) + ": the vocabulary lacks " + in_quotes(missing));
    }
    rules.push_back({l->second, r->second, rank});
    t.merged.push_back(m->second);
  }
  return rules;
}

/// The merges that follow from the scores: any two pieces that join into a third, the highest score first.
outcome<std::vector<merge_rule>> merges_by_score(const vocabulary& v, const id_map& ids, tables& t) {
  std::vector<std::uint32_t> order;
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    const piece_type type = v.pieces[id].type;
    if (type == piece_type::normal || type == piece_type::user_defined)
      order.push_back(static_cast<std::uint32_t>(id));
  }
  std::stable_sort(order.begin(), order.end(),
                   [&v](std::uint32_t a, std::uint32_t b) { return v.pieces[a].score > v.pieces[b].score; });
  std::vector<merge_rule> rules;
  for (const std::uint32_t id : order) {
    const std::string_view text = v.pieces[id].text;
    const auto rank = static_cast<std::uint32_t>(t.merged.size());
    const std::size_t before = rules.size();
    for (std::size_t cut = 0; cut < text.size();) {
      unicode::decode_one(text, cut);
      const auto left = ids.find(text.substr(0, cut));
      const auto right = ids.find(text.substr(cut));
      if (cut < text.size() && left != ids.end() && right != ids.end()) {
        rules.push_back({left->second, right->second, rank});
      }
    }
    if (rules.size() > before) t.merged.push_back(id);
  }
  return rules;
}

/// True if no merge joins a blank behind another letter.
bool keeps_words_apart(const vocabulary& v, const tables& t) {
  return std::all_of(t.merged.begin(), t.merged.end(), [&v](std::uint32_t id) {
    std::string_view text = v.pieces[id].text;
    while (text.starts_with(blank)) text.remove_prefix(blank.size());
    return text.find(blank) == std::string_view::npos;
  });
}

outcome<void> add_bpe(const vocabulary& v, const id_map& ids, tables& t) {
  if (v.pieces.size() > spm_max_bpe_ids) return fail("it has too many pieces");
  std::vector<spm_letter> letters;
  for (const auto& [text, id] : ids) {
    if (!is_one_letter(text)) continue;
    std::size_t at = 0;
    letters.push_back(
        {static_cast<std::uint32_t>(unicode::decode_one(text, at)), static_cast<std::int32_t>(id)});
  }
  std::sort(letters.begin(), letters.end(),
            [](const spm_letter& a, const spm_letter& b) { return a.letter < b.letter; });
  auto rules = v.merges.empty() ? merges_by_score(v, ids, t) : listed_merges(v, ids, t);
  if (!rules) return rules.failure();
  if (t.merged.empty()) return fail("it has no merges");
  if (t.merged.size() > spm_max_merges) return fail("it has too many merges");
  std::vector<std::uint64_t> merges;
  merges.reserve(rules->size());
  for (const merge_rule& r : *rules) merges.push_back(spm_merge_key(r.left, r.right) << 24 | r.rank);
  t.info.letter_probes = fill_table(
      letters, spm_letter{0, -1}, [](const spm_letter& l) { return std::uint64_t{l.letter}; },
      [](const spm_letter& l) { return l.id < 0; }, t.letters);
  t.info.merge_probes = fill_table(
      merges, spm_free_merge, [](std::uint64_t m) { return m >> 24; },
      [](std::uint64_t m) { return m == spm_free_merge; }, t.merges);
  if (std::max(t.info.letter_probes, t.info.merge_probes) > spm_max_probes) {
    return fail("its merges cannot be put into a table");
  }
  if (keeps_words_apart(v, t)) t.info.flags |= spm_whole_words;
  return {};
}

std::vector<std::byte> write_blob(const tokenizer_header& header, const tables& t, bool is_bpe) {
  tokenizer_blob_writer writer;
  writer.header = header;
  writer.add(0, std::span<const spm_info>(&t.info, 1));
  writer.add<std::uint32_t>(1, t.charsmap);
  writer.add<char>(2, t.replacements);
  writer.add<std::int32_t>(3, t.bytes);
  writer.add<std::uint32_t>(4, t.specials);
  if (is_bpe) {
    writer.add<spm_letter>(5, t.letters);
    writer.add<std::uint64_t>(6, t.merges);
    writer.add<std::uint32_t>(7, t.merged);
  } else {
    writer.add<std::uint32_t>(5, t.user_defined);
    writer.add<std::uint32_t>(6, t.pieces);
    writer.add<float>(7, t.scores);
  }
  return writer.finish();
}

}  // namespace

outcome<std::vector<std::byte>> build_sentencepiece(sentencepiece_vocabulary v,
                                                    const tokenizer_options& options) {
  text_style style = options.style.value_or(v.is_bpe ? text_style::siglip2 : text_style::siglip_hf);
  // open_clip's configuration names the cleaning only; the vocabulary tells SigLIP from SigLIP 2.
  if (style == text_style::siglip_openclip && v.is_bpe) style = text_style::siglip2_openclip;
  if (v.is_xlm_roberta && (!options.style || style == text_style::siglip_openclip))
    style = text_style::xlm_roberta_openclip;
  const bool xlm_roberta = style == text_style::xlm_roberta_openclip;
  if (style == text_style::clip_openclip || style == text_style::clip_hf ||
      style == text_style::bert_openclip || xlm_roberta != v.is_xlm_roberta) {
    return fail(std::string("a SentencePiece vocabulary cannot be used in the style ") + to_string(style));
  }
  if (auto good = check_pieces(v); !good) return good.failure();
  if (options.vocab_size && v.pieces.size() > static_cast<std::size_t>(*options.vocab_size)) {
    return fail("has ids up to " + std::to_string(v.pieces.size() - 1) + ", the model only " +
                std::to_string(*options.vocab_size) + " rows");
  }
  id_map ids(v.pieces.size());
  for (std::size_t id = 0; id < v.pieces.size(); ++id) {
    if (!v.pieces[id].text.empty()) ids.emplace(v.pieces[id].text, static_cast<std::uint32_t>(id));
  }
  const auto find = [&ids](const std::string& text) -> std::optional<int> {
    const auto at = ids.find(text);
    return at == ids.end() ? std::nullopt : std::optional(static_cast<int>(at->second));
  };
  for (const char* name : {"</s>", "<eos>"}) {
    // Gemma has "</s>" as an HTML tag.
    if ((!find(v.eos) || (v.is_bpe && find("<eos>"))) && find(name)) v.eos = name;
  }
  if (xlm_roberta) {
    v.byte_fallback = false;  // XLMRobertaTokenizerFast never falls back
    if (v.pad.empty()) v.pad = "<pad>";
  }
  const std::optional<int> sos = xlm_roberta ? find("<s>") : std::nullopt;
  const std::optional<int> eos = find(v.eos);
  if (!eos) return fail("it lacks the end of text, \"</s>\" or \"<eos>\"");
  if (v.pad.empty()) v.pad = v.is_bpe ? "<pad>" : v.eos;

  tables t;
  t.info.flags = v.flags;
  if (auto added = add_charsmap(v.charsmap, t); !added) return added.failure();
  if (auto added = add_bytes(v, t); !added) return added.failure();
  if (auto added = add_specials(v, style, ids, options.strip_sep, t); !added) return added.failure();
  auto added = v.is_bpe ? add_bpe(v, ids, t) : xlm_roberta ? add_fast_unigram(v, t) : add_unigram(v, t);
  if (!added) return added.failure();

  tokenizer_header h{};
  const bool openclip = style == text_style::siglip_openclip || style == text_style::siglip2_openclip;
  h.kind = static_cast<std::uint32_t>(v.is_bpe ? tokenizer_kind::spm_bpe : tokenizer_kind::unigram);
  h.style = static_cast<std::uint32_t>(style);
  const text_cleaning usual = openclip       ? text_cleaning::canonicalize
                              : xlm_roberta  ? text_cleaning::whitespace
                              : v.lower_case ? text_cleaning::lower
                                             : text_cleaning::none;
  h.cleaning = static_cast<std::uint32_t>(options.cleaning.value_or(usual));
  h.flags =
      tokenizer_add_eot | (sos ? tokenizer_add_sot : 0) | (t.bytes.empty() ? 0 : tokenizer_byte_fallback);
  h.context = options.context.value_or(v.context.value_or(64));
  h.vocab_size = static_cast<std::int32_t>(v.pieces.size());
  h.sot = sos.value_or(-1);
  h.eot = options.strip_sep ? 0 : *eos;
  h.pad = options.pad.value_or(find(v.pad).value_or(*eos));
  h.unk = find(v.unk).value_or(-1);
  if (t.bytes.empty() && h.unk < 0) return fail("it lacks the unknown piece " + in_quotes(v.unk));
  return write_blob(h, t, v.is_bpe);
}

}  // namespace ocellus::convert
