// Firmware that says what a camera frame shows: the demo model's image tower in 8-bit integers, weights, configuration
// and label embeddings in flash, no heap. Prints each frame's label, its embedding's bits (the test compares them with
// the host's), and what all this took.
#if defined(OCELLUS_FIRMWARE_SCALAR)
#define OCELLUS_SET scalar
#elif defined(__ARM_FEATURE_MVE)
#define OCELLUS_SET mve
#include <ocellus/arm/mve.hpp>
#elif defined(__ARM_FEATURE_DSP)
#define OCELLUS_SET dsp
#include <ocellus/arm/dsp.hpp>
#else
#define OCELLUS_SET scalar
#endif
#include <ocellus/generic/scalar.hpp>
#include <ocellus/micro.hpp>

#include "board.hpp"
#include "demo.hpp"    // ocellus-convert --emit-header
#include "frames.hpp"  // make_frames

#include <bit>

namespace {

using tower = ocellus::vision_tower<demo::config, ocellus::pinned<ocellus::kernels::OCELLUS_SET>, demo::weights>;
constinit tower eye;
constinit ocellus::static_arena<tower::arena_size> memory{};

void print_number(std::uint64_t n) {
  char text[24];
  char* p = text + sizeof(text);
  *--p = 0;
  do *--p = static_cast<char>('0' + n % 10);
  while ((n /= 10) != 0);
  board::print(p);
}

void print_line(const char* name, std::uint64_t n, const char* unit) {
  board::print(name);
  print_number(n);
  board::print(unit);
  board::print("\n");
}

/// The bytes of a float as they lie in memory.
void print_bits(float x) {
  char text[9] = {};
  std::uint32_t bits = std::bit_cast<std::uint32_t>(x);
  for (int i = 0; i < 8; i += 2, bits >>= 8) {
    text[i] = "0123456789abcdef"[bits >> 4 & 15];
    text[i + 1] = "0123456789abcdef"[bits & 15];
  }
  board::print(text);
}

/// The label whose embedding is nearest.
int best_label(const float (&embedding)[tower::embed]) {
  int best = 0;
  float most = -2.f;
  for (int label = 0; label < demo::label_count; label++) {
    float score = 0;
    for (int i = 0; i < tower::embed; i++) score += embedding[i] * demo::label_embeddings[label][i];
    if (score > most) {
      most = score;
      best = label;
    }
  }
  return best;
}

}  // namespace

int main() {
  std::uint64_t start = board::ticks();
  const ocellus::status sound = ocellus::verify(demo::bytes());  // the image in flash; an updater may do it instead
  const std::uint64_t checking = board::ticks() - start;
  const ocellus::status bound = sound != ocellus::status::ok ? sound : eye.bind(demo::bytes());
  if (bound != ocellus::status::ok) {
    board::print(ocellus::to_string(bound));
    board::print("\n");
    return 1;
  }
  std::uint64_t spent = 0;
  for (int frame = 0; frame < frames::count; frame++) {
    float embedding[tower::embed];
    start = board::ticks();
    eye(frames::pixels[frame], embedding, memory);
    spent += board::ticks() - start;
    board::print(frames::names[frame]);
    board::print(": ");
    board::print(demo::labels[best_label(embedding)]);
    board::print("\nembedding ");
    print_number(static_cast<std::uint64_t>(frame));
    board::print(" ");
    for (const float x : embedding) print_bits(x);
    board::print("\n");
  }
  const auto kernels = ocellus::to_string(ocellus::kernels::OCELLUS_SET::id);
  board::print("kernels: ");
  board::print(kernels.data());
  const auto instructions = [](std::uint64_t ticks) {
    return static_cast<std::uint64_t>(static_cast<double>(ticks) * OCELLUS_TICK_NS);
  };
  print_line("\ninstructions for a frame: ", instructions(spent / frames::count), "");
  print_line("instructions to verify the weights: ", instructions(checking), "");
  print_line("flash: ", board::flash_bytes(), " bytes, the image with everything");
  print_line("  of it weights: ", tower::flash_size, " bytes, as flash_size says");
  print_line("  of it frames of this example: ", sizeof(frames::pixels), " bytes");
  print_line("RAM: ", board::data_bytes() + board::stack_bytes(), " bytes");
  print_line("  of it activations: ", sizeof(memory), " bytes, as arena_size says");
  print_line("  of it stack: ", board::stack_bytes(), " bytes");
  return 0;
}
