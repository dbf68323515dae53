#include "double_array_builder.hpp"

#include <ocellus/text/double_array.hpp>

#include <algorithm>
#include <cstddef>

namespace ocellus::convert {

namespace {

constexpr std::uint32_t block_size = 256;  // the children of a node lie in one block
constexpr std::uint32_t open_blocks = 16;  // older blocks are nearly full and no longer searched
constexpr std::uint32_t most_units = 1u << 29;
constexpr std::uint32_t free_unit = ocellus::double_array::value_bit;  // its label equals no byte

/// The units, with the free ones of the last blocks in a linked list.
class unit_pool {
 public:
  unit_pool() { add_block(); }

  std::vector<std::uint32_t> units;

  /// A base for the children of `node`: base ^ label is free for all labels, no other node has that base, and
  /// node ^ base can be written as an offset. 0 if the array would become too large; 0 itself is never a
  /// base.
  std::uint32_t find_base(std::uint32_t node, const std::vector<std::uint8_t>& labels) {
    for (std::uint32_t slot = next_[0]; slot != 0; slot = next_[slot]) {
      const std::uint32_t base = slot ^ labels[0];
      if (fits(node, base, labels)) return base;
    }
    const auto first = static_cast<std::uint32_t>(units.size());
    if (first + block_size > most_units) return 0;
    add_block();
    for (std::uint32_t base = first; base < first + block_size; ++base) {
      if (fits(node, base, labels)) return base;
    }
    return 0;
  }

  void use_base(std::uint32_t base) { is_base_[base] = true; }

  void use(std::uint32_t slot) {
    is_used_[slot] = true;
    unlink(slot);
  }

 private:
  static bool can_be_offset(std::uint32_t offset) {
    return offset < (1u << 21) || ((offset & 0xFF) == 0 && offset < (1u << 29));
  }

  bool fits(std::uint32_t node, std::uint32_t base, const std::vector<std::uint8_t>& labels) const {
    if (base == 0 || is_base_[base] || !can_be_offset(node ^ base)) return false;
    return std::none_of(labels.begin(), labels.end(), [&](std::uint8_t l) { return is_used_[base ^ l]; });
  }

  void unlink(std::uint32_t slot) {
    next_[previous_[slot]] = next_[slot];
    previous_[next_[slot]] = previous_[slot];
  }

  // Slot 0 is the root and at the same time the head of the circular list.
  void add_block() {
    const auto first = static_cast<std::uint32_t>(units.size());
    const std::uint32_t end = first + block_size;
    units.resize(end, free_unit);
    is_used_.resize(end);
    is_base_.resize(end);
    next_.resize(end);
    previous_.resize(end);
    if (first == 0) is_used_[0] = true;
    for (std::uint32_t slot = first == 0 ? 1 : first; slot < end; ++slot) {
      previous_[slot] = previous_[0];
      next_[slot] = 0;
      next_[previous_[0]] = slot;
      previous_[0] = slot;
    }
    if (first < open_blocks * block_size) return;
    const std::uint32_t closed = first - open_blocks * block_size;
    for (std::uint32_t slot = closed; slot < closed + block_size; ++slot) {
      if (!is_used_[slot]) unlink(slot);
      is_used_[slot] = true;
    }
  }

  std::vector<bool> is_used_;
  std::vector<bool> is_base_;
  std::vector<std::uint32_t> next_;
  std::vector<std::uint32_t> previous_;
};

/// Entries [begin, end) share their first `depth` bytes, which lead to `node`.
struct subtree {
  std::size_t begin;
  std::size_t end;
  std::size_t depth;
  std::uint32_t node;
};

}  // namespace

outcome<std::vector<std::uint32_t>> build_double_array(std::vector<double_array_entry> entries) {
  std::sort(entries.begin(), entries.end());
  for (std::size_t i = 0; i < entries.size(); ++i) {
    const std::string_view key = entries[i].first;
    if (key.empty()) return error{"an empty piece"};
    if (key.find('\0') != std::string_view::npos)
      return error{"a piece holds a NUL: " + in_quotes(key)};
    if (i > 0 && entries[i - 1].first == key)
      return error{"a piece occurs twice: " + in_quotes(key)};
  }
  if (entries.empty()) return std::vector<std::uint32_t>();

  unit_pool pool;
  pool.units[0] = 0;
  std::vector<subtree> todo = {{0, entries.size(), 0, 0}};
  std::vector<std::uint8_t> labels;
  while (!todo.empty()) {
    const subtree t = todo.back();
    todo.pop_back();
    const bool ends_here = entries[t.begin].first.size() == t.depth;
    const auto label = [&](std::size_t i) { return static_cast<std::uint8_t>(entries[i].first[t.depth]); };
    labels.clear();
    if (ends_here) labels.push_back(0);
    const std::size_t first = t.begin + (ends_here ? 1 : 0);
    for (std::size_t i = first; i < t.end; ++i) {
      if (i == first || label(i) != label(i - 1)) labels.push_back(label(i));
    }

    const std::uint32_t base = pool.find_base(t.node, labels);
    if (base == 0) return error{"too many pieces for a double array"};
    pool.use_base(base);
    const std::uint32_t offset = t.node ^ base;
    pool.units[t.node] |= offset < (1u << 21) ? offset << 10 : (offset << 2) | (1u << 9);
    for (const std::uint8_t l : labels) {
      pool.use(base ^ l);
      pool.units[base ^ l] = l;
    }
    if (ends_here) {
      pool.units[t.node] |= ocellus::double_array::leaf_bit;
      pool.units[base] = ocellus::double_array::value_bit | entries[t.begin].second;
    }
    for (std::size_t i = first; i < t.end;) {
      std::size_t end = i + 1;
      while (end < t.end && label(end) == label(i)) ++end;
      todo.push_back({i, end, t.depth + 1, base ^ label(i)});
      i = end;
    }
  }
  return std::move(pool.units);
}

}  // namespace ocellus::convert
