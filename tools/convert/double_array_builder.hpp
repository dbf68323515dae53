// Builds the tries that <ocellus/text/double_array.hpp> reads.
#pragma once

#include "outcome.hpp"

#include <cstdint>
#include <string_view>
#include <utility>
#include <vector>

namespace ocellus::convert {

/// A string and its value, below 2^31.
using double_array_entry = std::pair<std::string_view, std::uint32_t>;

/// The units of a double array that holds `entries`, in any order. Errors: an empty string, a NUL in one, one
/// given twice, more units than the format can address. No entries: no units.
outcome<std::vector<std::uint32_t>> build_double_array(std::vector<double_array_entry> entries);

}  // namespace ocellus::convert
