// Memory that runs out: each allocation of a call fails once, the first, the second and so on. The call says so or gives
// the answer that it gives otherwise, and keeps nothing.
#include "golden_data.hpp"

#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <doctest/doctest.h>

#include <cstddef>
#include <new>
#include <optional>
#include <string>
#include <vector>

namespace {
thread_local int allowed = -1;  ///< allocations before the one that fails; -1: none does
thread_local int blocks = 0;    ///< that are held

bool fails() { return allowed >= 0 && allowed-- == 0; }
void* counted(void* block) {
  blocks += block != nullptr;
  return block;
}
}  // namespace

#if __SIZEOF_SIZE_T__ == 8  // operator new[](std::size_t, const std::nothrow_t&)
#define OCELLUS_REAL_NEW __real__ZnamRKSt9nothrow_t
#define OCELLUS_WRAPPED_NEW __wrap__ZnamRKSt9nothrow_t
#else
#define OCELLUS_REAL_NEW __real__ZnajRKSt9nothrow_t
#define OCELLUS_WRAPPED_NEW __wrap__ZnajRKSt9nothrow_t
#endif

// The linker's --wrap (CMakeLists.txt) sends the calls of this program's own code here, those of libraries not.
extern "C" {
void* __real_malloc(std::size_t bytes);
void* __real_realloc(void* block, std::size_t bytes);
void* __real_aligned_alloc(std::size_t alignment, std::size_t bytes);
void __real_free(void* block);
void* OCELLUS_REAL_NEW(std::size_t bytes, const std::nothrow_t& tag);

void* __wrap_malloc(std::size_t bytes) { return fails() ? nullptr : counted(__real_malloc(bytes)); }
void* __wrap_realloc(void* block, std::size_t bytes) {
  if (fails()) return nullptr;
  return block == nullptr ? counted(__real_realloc(block, bytes)) : __real_realloc(block, bytes);
}
void* __wrap_aligned_alloc(std::size_t alignment, std::size_t bytes) {
  return fails() ? nullptr : counted(__real_aligned_alloc(alignment, bytes));
}
void __wrap_free(void* block) {
  blocks -= block != nullptr;
  __real_free(block);
}
void* OCELLUS_WRAPPED_NEW(std::size_t bytes, const std::nothrow_t& tag) {
  return fails() ? nullptr : OCELLUS_REAL_NEW(bytes, tag);
}
}

namespace {

using namespace ocellus;
using namespace golden_data;

/// call(answer) fills `answer` and returns a status. Returns how many of its allocations failed, one after the other.
template <class Call>
int starve(const std::string& what, const Call& call) {
  std::vector<float> right, got;
  REQUIRE_MESSAGE(call(right) == status::ok, what);
  for (int n = 0;; n++) {
    REQUIRE_MESSAGE(n < 10000, what);
    got.assign(right.size(), 0.f);
    const int before = blocks;
    allowed = n;
    const status s = call(got);
    const bool failed = allowed < 0;
    allowed = -1;
    CHECK_MESSAGE(blocks == before, what << ", allocation " << n);
    const bool expected = s == status::out_of_memory || (s == status::ok && got == right);
    CHECK_MESSAGE(expected, what << ", allocation " << n << ": " << to_string(s));
    if (!failed) return n;
  }
}

TEST_CASE("memory: a call whose allocation fails says so, and keeps nothing") {
  const fs::path demo = demo_checkpoint().parent_path();
  const converted_file file(demo_checkpoint(), dtype::s8, demo / "bpe_demo.txt.gz");
  REQUIRE_MESSAGE(file.error == "", file.error);
  const std::string path = file.path.string();
  const result<model> m = model::open(path.c_str());
  REQUIRE(m);
  const auto keep = [](const result<embeddings>& e, std::vector<float>& answer) {
    if (e) answer.assign(e->data(), e->data() + e->rows() * e->width());
    return e.error();
  };
  CHECK(starve("open", [&](std::vector<float>&) { return model::open(path.c_str()).error(); }) >= 2);

  std::ifstream in(fs::directory_iterator(demo / "pictures")->path(), std::ios::binary);
  const std::vector<char> png((std::istreambuf_iterator<char>(in)), {});
  std::optional<image> picture;
  const int decoding = starve("decode_image", [&](std::vector<float>&) {
    result<image> made = decode_image({reinterpret_cast<const std::uint8_t*>(png.data()), png.size()});
    if (made) picture = std::move(*made);
    return made.error();
  });
  CHECK(decoding >= 2);
  REQUIRE(picture);
  preprocess_config small;
  small.resize = resize_mode::squash;
  small.size_w = small.size_h = small.crop_w = small.crop_h = 17;
  CHECK(starve("preprocess_file", [&](std::vector<float>&) {
          return preprocess_file({reinterpret_cast<const std::uint8_t*>(png.data()), png.size()}, small,
                                 m->kernels().resample).error();
        }) >= 4);
  const image_view views[] = {*picture, *picture};
  CHECK(starve("encode_images", [&](std::vector<float>& a) { return keep(m->encode_images(views), a); }) >= 8);

  const std::string accents = "l\xc3\xa0 \xe4\xbd\xa0\xe5\xa5\xbd \xef\xac\x81", damaged = "caf\xc3\x83\xc2\xa9 \xc3\xa2\xe2\x82\xac\xe2\x84\xa2s";
  const std::string references = "\xc3\xa9 &amp;lt; &#233; &EACUTE;";
  for (const std::string& text : {std::string("a red circle"), accents, damaged, references, std::string(2000, 'a')})
    CHECK(starve(text.substr(0, 20), [&](std::vector<float>& a) { return keep(m->encode_text({text}), a); }) >= 6);
  const result<embeddings> image = m->encode_images(views), texts = m->encode_text({"a", "b"});
  REQUIRE((image && texts));
  CHECK(starve("scores", [&](std::vector<float>& answer) {
          const result<array<float>> p = m->scores(*image, *texts);
          if (p) answer.assign(p->begin(), p->end());  // memory that nobody reads a compiler need not allocate
          return p.error();
        }) == 1);
}

}  // namespace
