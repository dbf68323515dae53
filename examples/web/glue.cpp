// What the page's JavaScript calls: one model and one picture at a time, in this module's memory. No imports: the
// module is given bytes and gives numbers. ocellus.js is the other side.
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <cstdlib>
#include <new>
#include <optional>
#include <string_view>
#include <utility>

// The standard library's own would print first, and so import a file to print to.
void std::__libcpp_verbose_abort(const char*, ...) { __builtin_trap(); }
void* operator new[](std::size_t bytes, const std::nothrow_t&) noexcept { return std::malloc(bytes); }
void operator delete[](void* p) noexcept { std::free(p); }

#define EXPORT(name) extern "C" __attribute__((export_name(#name)))

namespace {

using namespace ocellus;

std::byte* file = nullptr;
std::optional<model> opened;
image picture;
workspace work;

}  // namespace

/// Memory for what JavaScript writes, aligned as a packed file must be; null if there is none.
EXPORT(allocate) void* allocate(std::size_t bytes) {
  return bytes > SIZE_MAX - 64 ? nullptr : std::aligned_alloc(64, (bytes + 64) / 64 * 64);
}
EXPORT(release) void release(void* p) { std::free(p); }

/// A short English phrase for what the other functions return; 0 is success.
EXPORT(message) const char* message(int code) { return to_string(static_cast<status>(code)); }

/// The kernel set that runs.
EXPORT(kernels) const char* kernels_name() { return to_string(best_kernels().id).data(); }

/// Opens a packed file. Takes `bytes` over (from `allocate`), whether or not it can be opened.
EXPORT(open) int open_model(std::byte* bytes, std::size_t size) {
  opened.reset();
  release(std::exchange(file, bytes));
  result<model> m = model::open({bytes, size});
  if (!m) return static_cast<int>(m.error());
  if (!m->has_vision()) return static_cast<int>(status::no_vision_tower);
  opened = std::move(*m);
  return 0;
}

/// Values of an embedding; 0 while no model is open.
EXPORT(width) int width() { return opened ? opened->embed() : 0; }
/// Whether the scores of labels are independent (sigmoid) rather than shares of one (softmax).
EXPORT(independent) int independent() { return opened && opened->config().score == score_kind::sigmoid; }

/// Takes the pixels of a picture file, turned upright: JPEG, PNG, BMP, GIF, TGA, PNM.
EXPORT(take_file) int take_file(const std::uint8_t* bytes, std::size_t size) {
  load_options options;
  options.exif_orientation = true;
  result<image> decoded = decode_image({bytes, size}, options);
  if (!decoded) return static_cast<int>(decoded.error());
  picture = std::move(*decoded);
  return 0;
}

/// Takes pixels R, G, B, A, as a canvas has them; A is dropped.
EXPORT(take_pixels) int take_pixels(const std::uint8_t* rgba, int w, int h) {
  result<image> made = image::make(w, h);
  if (!made) return static_cast<int>(made.error());
  std::uint8_t* out = made->pixels();
  for (std::size_t i = 0; i < made->size_bytes(); i += 3, out += 3, rgba += 4)
    out[0] = rgba[0], out[1] = rgba[1], out[2] = rgba[2];
  picture = std::move(*made);
  return 0;
}

/// The embedding [width] of the picture taken last, unit length.
EXPORT(see) int see(float* embedding) {
  if (!opened) return static_cast<int>(status::invalid_argument);
  const image_view view = picture;
  const status s = opened->encode_pictures({&view, 1}, embedding, work);
  if (s == status::ok) opened->normalize(embedding, 1, opened->embed());
  return static_cast<int>(s);
}

/// The embeddings [count, width] of `count` texts in UTF-8, each ended by a zero byte.
EXPORT(read) int read_texts(const char* texts, int count, float* embeddings) {
  if (!opened) return static_cast<int>(status::invalid_argument);
  if (opened->text_embed() != opened->embed()) return static_cast<int>(status::no_text_tower);
  result<array<std::string_view>> views = array<std::string_view>::make(static_cast<std::size_t>(count));
  if (!views) return static_cast<int>(views.error());
  for (std::string_view& view : *views) {
    view = texts;
    texts += view.size() + 1;
  }
  const status s = opened->encode_texts({views->data(), views->size()}, embeddings, work);
  if (s == status::ok) opened->normalize(embeddings, count, opened->embed());
  return static_cast<int>(s);
}

/// Probabilities [count] of `count` texts' embeddings for one picture's, by the model's rule.
EXPORT(score) void score(const float* image, const float* texts, int count, float* out) {
  if (!opened) return;
  for (int i = 0; i < count; i++) {
    out[i] = 0;
    for (int c = 0; c < opened->embed(); c++) out[i] += image[c] * *texts++;
  }
  opened->probabilities(out, out, count);
}
