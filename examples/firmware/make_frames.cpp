// Runs on the host: pictures -> the frames that the firmware's camera "sees", and the embeddings that the host's best
// kernels give for them.
// Usage: make_frames MODEL.oc FRAMES.hpp EXPECTED.txt PICTURE...
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <cstdio>
#include <cstring>
#include <string>
#include <vector>

namespace {

int fail(const char* what, ocellus::status why) {
  std::fprintf(stderr, "make_frames: %s: %s\n", what, ocellus::to_string(why));
  return 1;
}

bool write(const char* path, const std::string& text) {
  std::FILE* f = std::fopen(path, "wb");
  return f != nullptr && (std::fwrite(text.data(), 1, text.size(), f) == text.size()) + (std::fclose(f) == 0) == 2;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 5) return 2;
  const ocellus::result<ocellus::model> model = ocellus::model::open(argv[1]);
  if (!model) return fail(argv[1], model.error());
  const int count = argc - 4;
  std::string names, pixels, expected;
  for (int i = 0; i < count; i++) {
    const char* path = argv[i + 4];
    const ocellus::result<ocellus::image> picture = ocellus::load_image(path);
    if (!picture) return fail(path, picture.error());
    const ocellus::result<ocellus::image> frame =
        ocellus::preprocess(*picture, model->config().preprocess, model->kernels().resample);
    if (!frame) return fail(path, frame.error());
    const std::string file = path;
    names += "    \"" + file.substr(file.rfind('/') + 1) + "\",\n";
    pixels += "    {";
    const ocellus::image_view view = *frame;
    for (int y = 0; y < view.height; y++)
      for (int x = 0; x < view.width * 3; x++) pixels += std::to_string(view.pixels[y * view.stride + x]) + ",";
    pixels += "},\n";
    const ocellus::result<ocellus::embeddings> e = model->encode_image(*picture);
    if (!e) return fail(path, e.error());
    expected += "embedding " + std::to_string(i) + " ";
    for (const float value : (*e)[0]) {
      unsigned char bytes[4];
      std::memcpy(bytes, &value, 4);
      for (const unsigned char b : bytes) {
        char hex[3];
        std::snprintf(hex, sizeof(hex), "%02x", b);
        expected += hex;
      }
    }
    expected += "\n";
  }
  const ocellus::vision_config& v = model->config().vision;
  const std::string text = "// Made by make_frames.\n#pragma once\n\nnamespace frames {\n\ninline constexpr int count = " +
                           std::to_string(count) + ";\ninline constexpr const char* names[] = {\n" + names +
                           "};\ninline constexpr unsigned char pixels[][" + std::to_string(v.image_h * v.image_w * 3) +
                           "] = {\n" + pixels + "};\n\n}  // namespace frames\n";
  if (!write(argv[2], text) || !write(argv[3], expected)) return fail(argv[2], ocellus::status::cannot_write);
  return 0;
}
