// Law 2 across machines: prints the bits of embeddings of made pictures and texts, or compares them with what
// another machine printed. Needs the library alone, so that it builds for any target that has a file system.
//   embed_bits MODEL.oc > bits        on the host
//   embed_bits MODEL.oc bits          on the target: exit code 0 if every kernel set gives those bits
// Each set runs as the model opened at run time and, for the demo model, as a tower fixed at compile time.
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
  m->normalise(e.data(), pictures, m->embed());
  print_bits(out, "image", e.data(), pictures, m->embed());
  if (m->has_text() && m->tokenizer() != nullptr) {
    const result<embeddings> t =
        m->encode_text({"a red circle", "two small blue squares on a striped background", ""});
    if (!t) return {};
    print_bits(out, "text", t->data(), t->rows(), t->width());
  }
  return out;
}

/// The images' bits by a tower that was fixed when this program was compiled; empty if the file is another
/// model.
template <class Set, dtype Type>
std::string run_static(std::span<const std::byte> file) {
  using tower = vision_tower<demo, pinned<Set>, Type>;
  static tower eye;
  static static_arena<tower::arena_size> memory;
  if (eye.bind(file) != status::ok) return {};
  constexpr int width = demo.vision.embed;
  const std::vector<std::uint8_t> rgb = make_pictures(64, 64);
  std::vector<float> e(static_cast<std::size_t>(pictures * width));
  for (int i = 0; i < pictures; i++) eye(rgb.data() + i * 64 * 64 * 3, e.data() + i * width, memory);
  std::string out;
  print_bits(out, "image", e.data(), pictures, width);
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
  bool same = true;
  std::string ran, skipped;
  [[maybe_unused]] const cpu_features cpu = detect_cpu();
  const auto check = [&](const char* set, const char* how, const std::string& got) {
    if (expected.compare(0, got.size(), got) == 0) return;
    std::fprintf(stderr, "%s, %s: other bits than expected\n", set, how);
    same = false;
  };
#define OCELLUS_KERNEL_SET(name, available)                                              \
  if (available) {                                                                       \
    const std::string got = run(file, make_table<kernels::name>());                   \
    check(#name, "at run time", got.empty() ? "failed" : got);                           \
    const std::string s8 = run_static<kernels::name, dtype::s8>(file),                \
                      f32 = run_static<kernels::name, dtype::f32>(file);              \
    check(#name, "at compile time", s8 + f32);                                           \
    ran += s8.empty() && f32.empty() ? " " #name " (dynamic only)" : " " #name;          \
  } else {                                                                               \
    skipped += " " #name;                                                                \
  }
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
  if (argc == 2) std::fputs(expected.c_str(), stdout);
  std::fprintf(stderr, "kernel sets ran:%s%s%s%s\n", ran.c_str(), skipped.empty() ? "" : "; skipped:",
               skipped.c_str(), skipped.empty() ? "" : " (not in this CPU)");
  return same ? 0 : 1;
}
