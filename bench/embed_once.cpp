// One process, one embedding: what bench/callgrind.py counts the instructions of and bench/sizes.py takes the time and
// memory of. Fixed inputs: a picture of ramps, eight token ids.
//   embed-once MODEL.oc image|text [KERNEL_SET]     prints the sum of the embedding, and on Linux its memory in KiB
#include <ocellus/models/model.hpp>

#include <cstdio>
#include <cstring>
#include <fstream>
#include <string>
#include <vector>

namespace {

using namespace ocellus;

/// callgrind collects inside these functions alone: not what opens the file.
extern "C" __attribute__((noinline)) status measured_image(const model& m, const std::uint8_t* rgb, float* out,
                                                           workspace& work) {
  nn::image_batch in;
  in.count = 1;
  in.height = m.config().vision.image_h;
  in.width = m.config().vision.image_w;
  in.rgb = rgb;
  return m.encode_batch(in, out, work);
}
extern "C" __attribute__((noinline)) status measured_text(const model& m, const std::int32_t* ids, float* out,
                                                          workspace& work) {
  return m.encode_ids(ids, 1, m.config().text.context, out, work);
}

/// KiB of `field` in the lines of a file of /proc that follow one with `section`; 0 if there is none.
long kib(const char* file, const std::string& section, const char* field) {
  std::ifstream in(file);
  std::string line;
  bool inside = section.empty();
  long sum = 0;
  while (std::getline(in, line)) {
    if (!section.empty() && line.find('-') < line.find(' ')) inside = line.find(section) != std::string::npos;
    if (inside && line.rfind(field, 0) == 0) sum += std::atol(line.c_str() + std::strlen(field));
  }
  return sum;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc < 3) return std::fputs("usage: embed-once MODEL.oc image|text [KERNEL_SET]\n", stderr), 2;
  result<kernel_table> kernels = argc > 3 ? kernels_for(argv[3]) : result<kernel_table>(best_kernels());
  if (!kernels) return std::fprintf(stderr, "%s: %s\n", argv[3], to_string(kernels.error())), 1;
  const result<model> m = model::open(argv[1], *kernels);
  if (!m) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(m.error())), 1;
  std::vector<float> out(static_cast<std::size_t>(m->embed()));
  workspace work;
  status s = status::ok;
  if (std::strcmp(argv[2], "image") == 0) {
    const vision_config& v = m->config().vision;
    std::vector<std::uint8_t> rgb(static_cast<std::size_t>(v.image_h * v.image_w * 3));
    for (std::size_t i = 0; i < rgb.size(); i++) rgb[i] = static_cast<std::uint8_t>(i / 48 + i % 3 * 40);
    s = measured_image(*m, rgb.data(), out.data(), work);
  } else {
    const text_config& t = m->config().text;
    std::vector<std::int32_t> ids(static_cast<std::size_t>(t.context), 0);
    for (int i = 0; i < 7; i++) ids[static_cast<std::size_t>(i)] = i == 0 ? t.vocab - 2 : 100 + i;
    ids[7] = t.vocab - 1;
    s = measured_text(*m, ids.data(), out.data(), work);
  }
  if (s != status::ok) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(s)), 1;
  double sum = 0;
  for (const float x : out) sum += static_cast<double>(x);
  const std::string name(argv[1]);
  std::printf("{\"sum\": %.6g, \"peak_rss_kib\": %ld, \"model_mapped_kib\": %ld, \"files_mapped_kib\": %ld}\n", sum,
              kib("/proc/self/status", "", "VmHWM:"),
              kib("/proc/self/smaps", name.substr(name.rfind('/') + 1), "Rss:"),
              kib("/proc/self/status", "", "RssFile:"));
}
