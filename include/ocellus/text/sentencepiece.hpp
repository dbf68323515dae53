// SentencePiece tokenizers: unigram (SigLIP, XLM-R) and BPE (Gemma, SigLIP 2), with the cleaning that each
// family puts before them. The encoder (unigram or BPE) and the cleaning (the blob's style) are independent.
//
// The tables lie in the blob (see tokenizer_blob.hpp) and are read in place:
//   section 0  spm_info[1]
//   section 1  std::uint32_t[]   the normaliser's map, a double array: bytes -> offset in section 2
//   section 2  char[]            its replacements, each closed by a NUL
//   section 3  std::int32_t[256] ids of the byte pieces; absent without byte fallback
//   section 4  std::uint32_t[]   special texts, a double array: text -> id
//   unigram
//   section 5  std::uint32_t[]   user-defined pieces, a double array; the normaliser leaves them alone
//   section 6  std::uint32_t[]   all pieces, a double array: piece -> id, or id | spm_user_defined
//   section 7  float[]           log probability by id; as many as the vocabulary has ids
//              xlm-roberta-openclip follows the tokenizers library: no user-defined pieces, all texts of the
//              vocabulary in section 6, sums in double
//   BPE
//   section 5  spm_letter[2^k]   pieces of one letter; open addressing, linear probing
//   section 6  std::uint64_t[2^k]  merges by pair: left << 44 | right << 24 | rank; likewise
//   section 7  std::uint32_t[]   the merged piece by rank
//
// Opening looks at the small tables only, whatever the vocabulary's size: 256,000 pieces need 10 MB that stay
// unread until a text needs them. Encoding checks each value that it reads from the large ones.
//
// Time: a unigram run of n bytes costs O(n L), L the longest piece; a BPE run O(n log n). References: Kudo
// 2018 (unigram), Sennrich et al. 2016 (BPE), Kudo and Richardson 2018 (SentencePiece); the library's
// unigram_model.cc (EncodeOptimized), normalizer.cc and bpe_model.cc decide ties and rounding.
#pragma once

#include <ocellus/core/fp_env.hpp>
#include <ocellus/text/buffer.hpp>
#include <ocellus/text/double_array.hpp>
#include <ocellus/text/sentencepiece_text.hpp>
#include <ocellus/text/tokenizer_blob.hpp>
#include <ocellus/text/unicode.hpp>

#include <algorithm>
#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <utility>

OCELLUS_BEGIN

/// The encoder of kind unigram: the most probable segmentation. Use it through ocellus::tokenizer.
class spm_unigram {
 public:
  /// Checks the small tables; see the head of this file.
  status open(const tokenizer_blob& blob) noexcept {
    if (const status s = text_.open(blob); s != status::ok) return s;
    text_.keep(double_array(blob.section<std::uint32_t>(5)));
    pieces_ = double_array(blob.section<std::uint32_t>(6));
    scores_ = blob.section<float>(7);
    if (pieces_.empty() || scores_.size() != text_.vocab_size()) return status::bad_tokenizer;
    return text_.info().longest_piece > 0 ? status::ok : status::bad_tokenizer;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory,
  /// too_large.
  status encode(std::string_view text, token_sink& out) const noexcept {
    const fp_env guard;  // the library's ties are those of sums rounded to nearest
    const auto cut = [this](std::string_view run, detail::spm_emit put) {
      return text_.is_xlm_roberta() ? segment<double>(run, put) : segment<float>(run, put);
    };
    return text_.encode(text, out, cut);
  }

 private:
  /// The best way to the end of a piece: its score, and the piece as length << 24 | id; 0: no way yet.
  template <class Score>
  struct way {
    Score score;
    std::uint32_t piece;
  };
  static constexpr std::uint32_t id_mask = (1u << 24) - 1;
  static constexpr std::uint32_t unknown_id = id_mask;

  /// Viterbi's algorithm. Where no piece reaches over a position, every path goes through it: what lies
  /// before is decided and emitted, and only the score is kept, so that memory and time go to what the sink
  /// can take.
  template <class Score>
  status segment(std::string_view run, detail::spm_emit put) const noexcept {
    text_buffer<way<Score>> ways;  // ways[i]: to run[base + i]
    ways.push_back({0, 0});
    std::size_t base = 0;
    std::size_t reach = 0;
    bool was_unknown = false;
    for (std::size_t at = 0; at < run.size(); at += detail::letter_size(run, at)) {
      if (at > base && at >= reach) {
        if (!emit_best(run.substr(base, at - base), ways, was_unknown, put)) return status::ok;
        ways[0] = {ways[at - base].score, 0};
        ways.truncate(1);
        base = at;
      }
      const std::size_t window = std::min<std::size_t>(text_.info().longest_piece, run.size() - at);
      const std::size_t single = detail::letter_size(run, at);
      if (!ways.resize(at - base + std::max(window, single) + 1, way<Score>{0, 0}))
        return status::out_of_memory;
      reach = std::max(reach, at + extend(run.substr(at, window), single, ways.data() + (at - base)));
    }
    if (ways.failed()) return status::out_of_memory;
    emit_best(run.substr(base), ways, was_unknown, put);
    return status::ok;
  }

  /// Offers all pieces that `text` begins with to the positions that they reach from ways[0]; returns the
  /// farthest. Scores are summed from the left and the first of equals wins, as in the libraries:
  /// SentencePiece's sums are floats, those of the tokenizers library doubles.
  template <class Score>
  std::size_t extend(std::string_view text, std::size_t single, way<Score>* ways) const noexcept {
    const auto offer = [ways](std::size_t length, Score score, std::uint32_t id) {
      way<Score>& w = ways[length];
      const Score sum = score + ways[0].score;
      if (w.piece == 0 || sum > w.score) w = {sum, static_cast<std::uint32_t>(length) << 24 | id};
    };
    std::size_t farthest = 0;
    bool has_single = false;
    double_array::cursor at = pieces_.root();
    for (std::size_t i = 0; i < text.size();) {
      if (!pieces_.step(at, static_cast<unsigned char>(text[i]))) break;
      ++i;
      const std::uint32_t value = pieces_.value(at);
      const std::uint32_t id = value & id_mask;
      if (value == double_array::no_value || id >= scores_.size()) continue;
      // The library rates user-defined pieces by their length alone, so that they nearly always win.
      const float score = value & spm_user_defined ? 0.1f * static_cast<float>(i - 1) : scores_[id];
      offer(i, static_cast<Score>(score), id);
      farthest = i;
      has_single = has_single || i == single;
    }
    if (has_single) return farthest;
    offer(single, text_.unknown_score<Score>(), unknown_id);
    return std::max(farthest, single);
  }

  /// Emits the best pieces of `text`, which ends at a letter's end. The links of the path are turned round in
  /// place. False: the sink is full.
  template <class Score>
  bool emit_best(std::string_view text, text_buffer<way<Score>>& ways, bool& was_unknown,
                 detail::spm_emit put) const noexcept {
    std::uint32_t following = 0;
    for (std::size_t at = text.size();;) {
      const std::uint32_t piece = std::exchange(ways[at].piece, following);
      const std::size_t length = piece >> 24;
      if (at == 0 || length == 0 || length > at) break;
      following = piece;
      at -= length;
    }
    for (std::size_t at = 0; at < text.size();) {
      const std::uint32_t piece = ways[at].piece;
      const std::size_t length = piece >> 24;
      if (length == 0) break;
      const bool is_unknown = (piece & id_mask) == unknown_id || text_.is_unknown(piece & id_mask);
      if (is_unknown) {
        if (!text_.unknown(text.substr(at, length), was_unknown, put)) return false;
      } else if (!put(static_cast<std::int32_t>(piece & id_mask))) {
        return false;
      }
      was_unknown = is_unknown;
      at += length;
    }
    return true;
  }

  detail::spm_text text_;
  double_array pieces_;
  std::span<const float> scores_;
};

/// The encoder of kind spm_bpe: letters are joined by merges, the lowest rank first, then the leftmost. Use
/// it through ocellus::tokenizer.
class spm_bpe {
 public:
  /// Checks the small tables; see the head of this file.
  status open(const tokenizer_blob& blob) noexcept {
    if (const status s = text_.open(blob); s != status::ok) return s;
    letters_ = blob.section<spm_letter>(5);
    merges_ = blob.section<std::uint64_t>(6);
    merged_ = blob.section<std::uint32_t>(7);
    letter_bits_ = detail::table_bits(letters_.size());
    merge_bits_ = detail::table_bits(merges_.size());
    const spm_info& info = text_.info();
    const bool good = letter_bits_ > 0 && merge_bits_ > 0 && !merged_.empty() &&
                      text_.vocab_size() <= spm_max_bpe_ids && info.letter_probes <= spm_max_probes &&
                      info.merge_probes <= spm_max_probes;
    return good ? status::ok : status::bad_tokenizer;
  }

  /// Pushes the content ids of `text` (any bytes) until the sink is full. May return out_of_memory,
  /// too_large.
  status encode(std::string_view text, token_sink& out) const noexcept {
    const auto cut = [this](std::string_view run, detail::spm_emit put) { return segment(run, put); };
    return text_.encode(text, out, cut);
  }

 private:
  static constexpr std::uint32_t no_rank = 0xFFFFFFFF;
  static constexpr std::uint32_t joined = 0xFFFFFFFF;  // a symbol that became part of its left neighbour

  /// Where no piece reaches over the beginning of a word, words can be encoded one by one.
  status segment(std::string_view run, detail::spm_emit put) const noexcept {
    text_buffer<std::uint32_t> symbols;
    const bool by_words = text_.info().flags & spm_whole_words;
    bool goes_on = true;
    for (std::size_t at = 0; at < run.size() && goes_on;) {
      const std::size_t end = by_words ? word_end(run, at) : run.size();
      symbols.clear();
      read_letters(run.substr(at, end - at), symbols);
      if (symbols.failed() || !merge(symbols)) return status::out_of_memory;
      for (std::size_t i = 0; i < symbols.size() && goes_on; ++i) {
        if (symbols[i] != joined) goes_on = put(static_cast<std::int32_t>(symbols[i]));
      }
      at = end;
    }
    return status::ok;
  }

  /// End of the word at run[at]: blanks, and what follows them up to the next blank.
  static std::size_t word_end(std::string_view run, std::size_t at) noexcept {
    while (run.substr(at).starts_with(detail::spm_blank)) at += detail::spm_blank.size();
    return std::min(run.find(detail::spm_blank, at), run.size());
  }

  void read_letters(std::string_view word, text_buffer<std::uint32_t>& symbols) const noexcept {
    bool was_unknown = false;
    for (std::size_t at = 0; at < word.size();) {
      const std::size_t from = at;
      const std::int32_t id = find_letter(unicode::decode_one(word, at));
      const bool is_unknown = id < 0;
      if (is_unknown) {
        const auto add = [&symbols](std::int32_t byte) {
          symbols.push_back(static_cast<std::uint32_t>(byte));
          return true;
        };
        text_.unknown(word.substr(from, at - from), was_unknown, add);
      } else {
        symbols.push_back(static_cast<std::uint32_t>(id));
      }
      was_unknown = is_unknown;
    }
  }

  /// Id of a letter, or -1.
  std::int32_t find_letter(char32_t letter) const noexcept {
    const std::size_t mask = letters_.size() - 1;
    std::size_t slot = spm_slot(letter, letter_bits_);
    for (std::uint32_t n = 0; n < text_.info().letter_probes; ++n, slot = (slot + 1) & mask) {
      const spm_letter& l = letters_[slot];
      if (l.id < 0) return -1;
      if (l.letter == letter) return static_cast<std::uint32_t>(l.id) < text_.vocab_size() ? l.id : -1;
    }
    return -1;
  }

  /// Rank of the merge of two symbols, or no_rank. A rank has an entry in merged_, and that is an id.
  std::uint32_t find_merge(std::uint32_t left, std::uint32_t right) const noexcept {
    const std::size_t mask = merges_.size() - 1;
    const std::uint64_t key = spm_merge_key(left, right);
    std::size_t slot = spm_slot(key, merge_bits_);
    for (std::uint32_t n = 0; n < text_.info().merge_probes; ++n, slot = (slot + 1) & mask) {
      const std::uint64_t m = merges_[slot];
      if (m == spm_free_merge) return no_rank;
      if (m >> 24 != key) continue;
      const auto rank = static_cast<std::uint32_t>(m & 0xFFFFFF);
      return rank < merged_.size() && merged_[rank] < text_.vocab_size() ? rank : no_rank;
    }
    return no_rank;
  }

  /// Joins what can be joined; symbols that are gone become `joined` or are taken out. False: out of memory.
  bool merge(text_buffer<std::uint32_t>& symbols) const noexcept {
    constexpr std::size_t few = 48;
    if (symbols.size() > few) return merge_many(symbols);
    // Searching the best pair anew each time is quicker than any structure.
    std::uint32_t ranks[few];  // ranks[i]: of symbols i and i + 1
    std::size_t n = symbols.size();
    for (std::size_t i = 0; i + 1 < n; ++i) ranks[i] = find_merge(symbols[i], symbols[i + 1]);
    while (n > 1) {
      const std::uint32_t* best = std::min_element(ranks, ranks + n - 1);
      if (*best == no_rank) break;
      const auto at = static_cast<std::size_t>(best - ranks);
      symbols[at] = merged_[*best];
      std::copy(symbols.begin() + at + 2, symbols.begin() + n, symbols.begin() + at + 1);
      std::copy(ranks + at + 1, ranks + n - 1, ranks + at);
      --n;
      if (at + 1 < n) ranks[at] = find_merge(symbols[at], symbols[at + 1]);
      if (at > 0) ranks[at - 1] = find_merge(symbols[at - 1], symbols[at]);
    }
    symbols.truncate(n);
    return true;
  }

  struct links {
    std::uint32_t previous;
    std::uint32_t next;
  };

  /// The same with a linked list and a heap of candidates: rank << 32 | position, the smallest on top. A
  /// candidate is stale if the pair at its position has another rank by then.
  bool merge_many(text_buffer<std::uint32_t>& symbols) const noexcept {
    const auto n = static_cast<std::uint32_t>(symbols.size());
    text_buffer<links> list;
    text_buffer<std::uint64_t> heap;
    if (!list.reserve(n) || !heap.reserve(n)) return false;
    for (std::uint32_t i = 0; i < n; ++i) list.push_back({i - 1, i + 1});
    const auto rank_at = [&](std::uint32_t at) {
      const std::uint32_t next = list[at].next;
      return next < n ? find_merge(symbols[at], symbols[next]) : no_rank;
    };
    for (std::uint32_t i = 0; i + 1 < n; ++i) {
      if (const std::uint32_t rank = rank_at(i); rank != no_rank)
        heap.push_back(std::uint64_t{rank} << 32 | i);
    }
    // std::greater is in <functional>, and that is a tenth of what this header's includes take to compile
    const auto later = [](std::uint64_t a, std::uint64_t b) { return a > b; };
    std::make_heap(heap.begin(), heap.end(), later);
    const auto add = [&](std::uint32_t at) {
      const std::uint32_t rank = rank_at(at);
      if (rank == no_rank) return;
      heap.push_back(std::uint64_t{rank} << 32 | at);
      std::push_heap(heap.begin(), heap.end(), later);
    };
    while (!heap.empty()) {
      std::pop_heap(heap.begin(), heap.end(), later);
      const auto at = static_cast<std::uint32_t>(heap.back());
      const auto rank = static_cast<std::uint32_t>(heap.back() >> 32);
      heap.pop_back();
      if (symbols[at] == joined || rank_at(at) != rank) continue;
      const std::uint32_t right = list[at].next;
      symbols[at] = merged_[rank];
      symbols[right] = joined;
      list[at].next = list[right].next;
      if (list[at].next < n) list[list[at].next].previous = at;
      add(at);
      if (list[at].previous < n) add(list[at].previous);
    }
    return !heap.failed();
  }

  detail::spm_text text_;
  std::span<const spm_letter> letters_;
  std::span<const std::uint64_t> merges_;
  std::span<const std::uint32_t> merged_;
  int letter_bits_ = 0;
  int merge_bits_ = 0;
};

OCELLUS_END
