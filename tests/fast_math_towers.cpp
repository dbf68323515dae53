// The demo model's towers in a unit whose author chose -ffast-math for a CPU with FMA: clang fuses whatever product meets
// a sum there. test_static.cpp compares the bits with those of the other units.
#include <ocellus/generic/scalar.hpp>
#include <ocellus/micro.hpp>

#include <cstdint>
#include <cstring>
#include <span>

namespace {

using namespace ocellus;

constexpr model_config demo =
    clip_model(vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64),
               text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2));

template <dtype Type>
bool embed(std::span<const std::byte> file, const std::uint8_t* rgb, std::span<const std::int32_t> ids, float* image,
           float* text) {
  static vision_tower<demo, pinned<kernels::scalar>, Type> eye;
  static text_tower<demo, pinned<kernels::scalar>, Type> reader;
  static static_arena<decltype(eye)::arena_size> memory;
  if (eye.bind(file) != status::ok || reader.bind(file) != status::ok) return false;
  eye(rgb, image, memory);
  return reader(ids, text, memory) == status::ok;
}

}  // namespace

/// Embeddings of a picture of 64 x 64 and of ids; false if the towers do not take the file, s8 or f32.
bool fast_math_embed(const std::byte* file, std::size_t bytes, bool s8, const std::uint8_t* rgb, const std::int32_t* ids,
                     std::size_t count, float* image, float* text) {
  return s8 ? embed<dtype::s8>({file, bytes}, rgb, {ids, count}, image, text)
            : embed<dtype::f32>({file, bytes}, rgb, {ids, count}, image, text);
}

/// A position table of 3 x 3 for 5 x 4 patches, [20, c].
void fast_math_positions(const float* table, int c, int filter, float* out, float* line) {
  const fp_env strict;
  nn::resample_positions(out, c, 5, 4, table, 3, 3, c, static_cast<position_resize>(filter), 0.1, line);
}
