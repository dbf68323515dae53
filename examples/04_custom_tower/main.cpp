// A tower of one's own by composition: the demo model's image tower, layer by layer. Prints the embedding of a grey
// picture, memory and flash.
// Usage: 04_custom_tower MODEL.oc      (build/ocellus-convert examples/demo/demo.pt --dtype s8 -o MODEL.oc ...)
#include <ocellus/format/mmap.hpp>
#include <ocellus/isa/dispatch.hpp>
#include <ocellus/models/compose.hpp>

#include <cstdio>
#include <vector>

namespace c = ocellus::compose;

template <int C, int H, class Attention = c::attention<C, H>>  // a pre-norm block [Vaswani 2017; Dosovitskiy 2021]
using block = c::seq<c::residual<c::named<"norm1", c::layer_norm<C>>, c::named<"attn", Attention>>,
                     c::residual<c::named<"norm2", c::layer_norm<C>>, c::named<"mlp.fc1", c::linear<C, 4 * C>>,
                                 c::quick_gelu<4 * C>, c::named<"mlp.fc2", c::linear<4 * C, C>>>>;
using layers = c::seq<c::patch_embed<64, 8, 128, true>, c::named<"pre_norm", c::layer_norm<128>>,
                      c::named<"blocks", c::repeat<2, block<128, 2>>>,
                      c::named<"blocks.2", block<128, 2, c::class_attention<128, 2>>>,
                      c::named<"norm", c::layer_norm<128>>, c::named<"proj", c::projection<128, 64>>>;
using tower = c::tower<layers, ocellus::dynamic>;  // or ocellus::pinned<ocellus::kernels::avx2>: no table

int main(int argc, char** argv) {
  if (argc < 2) return 2;
  const auto file = ocellus::mapped_file::open(argv[1]);
  if (!file) return std::puts(ocellus::to_string(file.error())), 1;
  tower eye;
  const ocellus::status bound = eye.bind(file->bytes());
  if (bound != ocellus::status::ok) return std::puts(ocellus::to_string(bound)), 1;

  static ocellus::static_arena<tower::arena_size> memory;
  const std::vector<std::uint8_t> grey(64 * 64 * 3, 128);
  float embedding[tower::embed];
  eye(grey.data(), embedding, memory);
  for (const float x : embedding) std::printf("%.4f ", static_cast<double>(x));
  std::printf("\n%zu bytes of activations, %zu bytes of weights\n", tower::arena_size, tower::flash_size);
}
