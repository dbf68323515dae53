// Law 2 across machines: prints the bits of embeddings of made pictures and texts, or compares them with what
// another machine printed. Needs the library alone, so that it builds for any target that has a file system.
//   embed_bits MODEL.oc > bits        on the host
//   embed_bits MODEL.oc bits          on the target: exit code 0 if every kernel set gives those bits
// Each set runs as the model opened at run time and, for the demo model in s8 or f32, as a tower fixed at compile
// time: one that cannot be bound has failed.
#include <ocellus/core/memory.hpp>
#include <ocellus/micro.hpp>
#include <ocellus/models/model.hpp>

#include <cinttypes>
#include <cstdio>
#include <cstring>
#include <span>
#include <string>
#include <vector>

namespace {

using namespace ocellus;

constexpr int pictures = 4;

constexpr model_config demo =
    clip_model(vit{}.image(64).patch(8).width(128).layers(3).heads(2).embed(64),
               text_transformer{}.vocab(772).context(32).width(128).layers(3).heads(2));

/// A whole file, aligned as a packed file must be; empty if it cannot be read.
array<unsigned char> read_file(const char* path) {
  array<unsigned char> bytes;
  std::FILE* f = std::fopen(path, "rb");
  if (f == nullptr) return bytes;
  std::fseek(f, 0, SEEK_END);
  const long size = std::ftell(f);
  std::rewind(f);
  result<array<unsigned char>> memory = array<unsigned char>::make(size > 0 ? static_cast<std::size_t>(size) : 0);
  if (memory && std::fread(memory->data(), 1, memory->size(), f) == memory->size()) bytes = std::move(*memory);
  std::fclose(f);
  return bytes;
}

/// Noise, ramps, one colour: [pictures, height, width, 3].
std::vector<std::uint8_t> make_pictures(int height, int width) {
  std::vector<std::uint8_t> rgb;
  std::uint32_t state = 1;
  for (int i = 0; i < pictures; i++)
    for (int p = 0; p < height * width * 3; p++) {
      state = state * 1664525u + 1013904223u;
      const int value = i % 3 == 0 ? static_cast<int>(state >> 24) : i % 3 == 1 ? p / 48 : 77;
      rgb.push_back(static_cast<std::uint8_t>(value));
    }
  return rgb;
}

void print_bits(std::string& out, const char* what, const float* v, int rows, int width) {
  char text[16];
  for (int r = 0; r < rows; r++) {
    out += what;
    for (int i = 0; i < width; i++) {
      std::uint32_t bits;
      std::memcpy(&bits, v + r * width + i, 4);
      std::snprintf(text, sizeof(text), " %08" PRIx32, bits);
      out += text;
    }
    out += '\n';
  }
}

/// The bits by one kernel set, with the tower opened at run time; empty if that fails.
std::string run(std::span<const std::byte> file, const kernel_table& kernels) {
  const result<model> m = model::open(file, kernels);
  if (!m) {
    std::fprintf(stderr, "embed_bits: %s\n", to_string(m.error()));
    return {};
  }
  std::string out;
  const int height = m->config().vision.image_h, width = m->config().vision.image_w;
  const std::vector<std::uint8_t> rgb = make_pictures(height, width);
  std::vector<float> e(static_cast<std::size_t>(pictures * m->embed()));
  nn::image_batch in;
  in.count = pictures;
  in.height = height;
  in.width = width;
  in.rgb = rgb.data();
  workspace work;
  if (m->encode_batch(in, e.data(), work) != status::ok) return {};
  m->normalize(e.data(), pictures, m->embed());
  print_bits(out, "image", e.data(), pictures, m->embed());
  if (m->has_text() && m->tokenizer() != nullptr) {
    const result<embeddings> t =
        m->encode_text({"a red circle", "two small blue squares on a striped background", ""});
    if (!t) return {};
    print_bits(out, "text", t->data(), t->rows(), t->width());
  }
  return out;
}

/// Whether the towers of this program are for the file's model at all. By its size alone: a demo model that a tower
/// takes for another one is a failure.
bool is_demo(std::span<const std::byte> file) {
  const result<model> m = model::open(file, make_table<kernels::scalar>());
  return m && m->config().vision.image_h == demo.vision.image_h &&
         m->config().vision.encoder.width == demo.vision.encoder.width &&
         m->config().vision.encoder.layers == demo.vision.encoder.layers;
}

/// The images' bits by a tower that was fixed when this program was compiled; empty, and why in `bound`, if it does
/// not take the file.
template <class Set, dtype Type>
std::string run_static(std::span<const std::byte> file, status& bound) {
  using tower = vision_tower<demo, pinned<Set>, Type>;
  static tower eye;
  static static_arena<tower::arena_size> memory;
  bound = eye.bind(file);
  if (bound != status::ok) return {};
  constexpr int width = demo.vision.embed;
  const std::vector<std::uint8_t> rgb = make_pictures(64, 64);
  std::vector<float> e(static_cast<std::size_t>(pictures * width));
  for (int i = 0; i < pictures; i++) eye(rgb.data() + i * 64 * 64 * 3, e.data() + i * width, memory);
  std::string out;
  print_bits(out, "image", e.data(), pictures, width);
  return out;
}

/// The same by the tower for the file's weights, of which there is one; without it, says why not.
template <class Set>
std::string run_static(std::span<const std::byte> file, const char* set) {
  status s8, f32;
  const std::string out = run_static<Set, dtype::s8>(file, s8) + run_static<Set, dtype::f32>(file, f32);
  if (out.empty())
    std::fprintf(stderr, "%s: no tower fixed at compile time takes the file: s8: %s; f32: %s\n", set, to_string(s8),
                 to_string(f32));
  return out;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 2 || argc > 3) {
    std::fputs("usage: embed_bits MODEL.oc [BITS]\n", stderr);
    return 2;
  }
  const array<unsigned char> bytes = read_file(argv[1]), bits = read_file(argv[argc - 1]);
  const std::span<const std::byte> file = std::as_bytes(std::span(bytes.data(), bytes.size()));
  const std::string expected = argc < 3 ? run(file, make_table<kernels::scalar>())
                                        : std::string(reinterpret_cast<const char*>(bits.data()), bits.size());
  if (expected.empty()) {
    std::fprintf(stderr, "%s: nothing to compare with\n", argv[argc - 1]);
    return 1;
  }
  const bool fixed = is_demo(file);
  bool same = true;
  std::string ran, skipped;
  [[maybe_unused]] const cpu_features cpu = detect_cpu();
  // `images`: the tower fixed at compile time has no texts, whose bits follow the images'.
  const auto check = [&](const char* set, const char* how, const std::string& got, bool images) {
    const std::size_t texts = expected.find("text");
    if (!got.empty() && got == (images ? expected.substr(0, texts) : expected)) return;
    std::fprintf(stderr, "%s, %s: %s\n", set, how, got.empty() ? "failed" : "other bits than expected");
    same = false;
  };
#define OCELLUS_KERNEL_SET(name, available)                                                           \
  if (available) {                                                                                    \
    check(#name, "at run time", run(file, make_table<kernels::name>()), false);                       \
    if (fixed) check(#name, "at compile time", run_static<kernels::name>(file, #name), true);         \
    ran += " " #name;                                                                                 \
  } else {                                                                                            \
    skipped += " " #name;                                                                             \
  }
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
  if (argc == 2) std::fputs(expected.c_str(), stdout);
  if (!fixed) std::fputs("skipped: towers fixed at compile time, for the file is not the demo model\n", stderr);
  std::fprintf(stderr, "kernel sets ran:%s%s%s%s\n", ran.c_str(), skipped.empty() ? "" : "; skipped:",
               skipped.c_str(), skipped.empty() ? "" : " (not in this CPU)");
  return same ? 0 : 1;
}
