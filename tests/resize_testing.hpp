// What the tests of the resize passes share: each set's passes, and pictures of noise.
#pragma once

#include "kernel_testing.hpp"

#include <ocellus/image/image.hpp>

#include <doctest/doctest.h>

#include <random>
#include <string>
#include <utility>
#include <vector>

namespace resize_testing {
namespace {

using namespace ocellus;

inline image noise(int width, int height, unsigned seed) {
  std::mt19937 random(seed);
  result<image> made = image::make(width, height);
  REQUIRE(made);
  for (std::size_t i = 0; i < made->size_bytes(); i++) {
    // Extremes as often as not: they drive bicubic's overshoot into the clip.
    const auto v = static_cast<unsigned>(random());
    made->pixels()[i] = static_cast<std::uint8_t>((v & 0x300) == 0 ? v & 0xff : (v & 0x100) != 0 ? 255 : 0);
  }
  return std::move(*made);
}

/// The resize passes of the sets of list.def that this CPU can run (scalar last), and SSE4.1's.
struct resample_set {
  std::string name;
  resample_kernels kernels;
};

inline std::vector<resample_set> resample_sets() {
  std::vector<resample_set> sets;
#if defined(__x86_64__)
  if (detect_cpu().sse41) sets.push_back({"sse41", resample_kernels_of<kernels::resample_sse41>()});
#elif defined(__aarch64__)
  sets.push_back({"neon", resample_kernels_of<kernels::resample_neon>()});
#endif
  for (const kernel_testing::kernel_set& set : kernel_testing::kernel_sets()) {
    if (set.available && set.name != "sse41") sets.push_back({set.name, set.table.resample});
  }
  return sets;
}

}  // namespace
}  // namespace resize_testing
