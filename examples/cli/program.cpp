#include "program.hpp"

#include "command_line.hpp"

#include <ocellus/image/load.hpp>
#include <ocellus/text/unicode.hpp>

#include <nlohmann/json.hpp>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <cstdio>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <iterator>
#include <memory>
#include <unistd.h>

namespace cli {

using namespace ocellus;

void fail(const std::string& what, status why) { throw failure(what + ": " + to_string(why)); }

void compute_options::add_to(CLI::App& app) {
  app.add_option("--threads", threads, "Threads to use (default: all cores, or as many as a container may use)")
      ->check(CLI::Range(1, 1024));
  app.add_option("--isa", isa, "Kernel set to use instead of the best one of this CPU, e.g. avx2 or scalar");
}

kernel_table compute_options::kernels() const {
  if (isa.empty()) return best_kernels();
  const cpu_features cpu = detect_cpu();
  std::string all;
  bool known = false;
#define OCELLUS_KERNEL_SET(name, available)              \
  known = known || isa == #name;                         \
  all += std::string(all.empty() ? "" : ", ") + #name + ((available) ? "" : " (not on this CPU)");
#include <ocellus/list.def>
#undef OCELLUS_KERNEL_SET
  if (!known) throw usage("--isa " + isa + ": no such kernel set; this build has " + all);
  const result<kernel_table> table = kernels_for(isa, cpu);
  if (!table) fail("--isa " + isa, table.error());
  return *table;
}

int compute_options::thread_count() const { return threads > 0 ? threads : thread_pool::cores(); }

executor compute_options::executor() {
  if (thread_count() <= 1) return {};
  if (pool_ == nullptr) pool_ = std::make_unique<thread_pool>(thread_count());
  return pool_->executor();
}

std::size_t compute_options::chunk() const {
  const std::size_t threads = static_cast<std::size_t>(thread_count());
  return std::max(threads, std::min(8 * threads, std::size_t{256}));
}

model open_model(const std::string& path, const compute_options& options) {
  const kernel_table kernels = options.kernels();
  result<model> m = model::open(path.c_str(), kernels);
  std::error_code ignored;
  if (!m && (m.error() == status::bad_magic || std::filesystem::is_directory(path, ignored))) {
    throw failure(path + ": " + to_string(m.error()) +
                  "; a checkpoint has to be converted first: ocellus-convert " + path + " -o model.oc");
  }
  if (!m) fail(path, m.error());
  return std::move(*m);
}

std::string read_file(const std::string& path) {
  errno = 0;
  if (path == "-") {
    const std::unique_ptr<std::FILE, int (*)(std::FILE*)> in(convert::open_stream(STDIN_FILENO, "rb"),
                                                             [](std::FILE* f) { return std::fclose(f); });
    std::string text;
    char part[1 << 16];
    for (std::size_t got; in && (got = std::fread(part, 1, sizeof(part), in.get())) > 0;) text.append(part, got);
    if (!in || std::ferror(in.get()) != 0) throw failure("standard input: " + std::string(std::strerror(errno)));
    return text;
  }
  std::ifstream in(path, std::ios::binary);
  if (!in) throw failure(path + ": " + (errno == ENOENT ? "no such file" : std::strerror(errno)));
  std::string text((std::istreambuf_iterator<char>(in)), std::istreambuf_iterator<char>());
  if (in.bad() || errno == EISDIR) throw failure(path + ": cannot be read");
  return text;
}

namespace {

std::vector<std::string> lines_of(const std::string& text) {
  std::vector<std::string> lines;
  for (std::size_t begin = 0; begin < text.size();) {
    std::size_t end = text.find('\n', begin);
    if (end == std::string::npos) end = text.size();
    std::size_t last = end;
    if (last > begin && text[last - 1] == '\r') last--;
    lines.push_back(text.substr(begin, last - begin));
    begin = end + 1;
  }
  return lines;
}

bool ends_with(const std::string& s, const char* end) {
  const std::size_t n = std::strlen(end);
  return s.size() >= n && s.compare(s.size() - n, n, end) == 0;
}

/// A line of JSON in which broken UTF-8 and escapes of half a surrogate pair stand for U+FFFD, as in plain text.
std::string with_replacements(std::string_view line) {
  std::string out;
  for (std::size_t i = 0; i < line.size();) {
    unsigned char utf8[4];
    const int n = unicode::encode_utf8(unicode::decode_one(line, i), utf8);
    out.append(reinterpret_cast<const char*>(utf8), static_cast<std::size_t>(n));
  }
  const auto unit = [&out](std::size_t at) {  // of an escape \uXXXX that begins there, else 0
    unsigned value = 0;
    if (at + 6 > out.size() || out[at] != '\\' || out[at + 1] != 'u') return 0u;
    const char* const end = out.data() + at + 6;
    return std::from_chars(out.data() + at + 2, end, value, 16).ptr == end ? value : 0u;
  };
  for (std::size_t at = out.find('\\'); at != std::string::npos && at + 1 < out.size(); at = out.find('\\', at)) {
    const unsigned first = unit(at);
    const bool high = first >= 0xD800 && first < 0xDC00;
    if (high && unit(at + 6) >= 0xDC00 && unit(at + 6) < 0xE000) {
      at += 12;
    } else {
      if (first >= 0xD800 && first < 0xE000) out.replace(at, 6, "\\uFFFD");
      at += first != 0 ? 6 : 2;  // another escape is two characters long: of "\\\\" the second begins none
    }
  }
  return out;
}

}  // namespace

std::vector<std::string> read_texts(const std::string& path) {
  std::vector<std::string> lines = lines_of(read_file(path));
  if (!ends_with(path, ".jsonl")) return lines;
  for (std::size_t i = 0; i < lines.size(); i++) {
    const auto bad = [&](const std::string& why) {
      return failure(path + ": line " + std::to_string(i + 1) + ": " + why);
    };
    int depth = 0;
    const auto shallow = [&depth](int d, nlohmann::json::parse_event_t, nlohmann::json&) {
      depth = d > depth ? d : depth;
      return d < 16;
    };
    const nlohmann::json object = nlohmann::json::parse(with_replacements(lines[i]), shallow, false);
    if (object.is_discarded() || !object.is_object()) throw bad("not a JSON object");
    const auto text = object.find("text");
    if (text == object.end() || !text->is_string()) throw bad("no \"text\"");
    lines[i] = text->get<std::string>();
  }
  return lines;
}

std::vector<std::string> read_lines(const std::string& path) {
  const std::string text = read_file(path);
  // editors of Windows begin a file with a byte order mark, which is no part of the first label
  std::vector<std::string> lines = lines_of(text.starts_with("\xef\xbb\xbf") ? text.substr(3) : text);
  std::erase(lines, "");
  return lines;
}

void add_paths(const std::string& list, std::vector<std::string>& paths) {
  if (list.empty()) return;
  const std::string text = read_file(list);
  std::vector<std::string> named;
  if (text.find('\0') == std::string::npos) {
    named = lines_of(text);
  } else {
    for (std::size_t begin = 0, end = 0; begin < text.size(); begin = end + 1) {
      end = std::min(text.find('\0', begin), text.size());
      named.push_back(text.substr(begin, end - begin));
    }
  }
  std::erase(named, "");
  if (named.empty()) throw failure(list + ": names no files");
  paths.insert(paths.end(), named.begin(), named.end());
}

result<image> prepare_picture(const std::string& path, const preprocess_config& config, const resample_kernels& kernels,
                              const load_options& options) {
  if (path != "-") return preprocess_file(path.c_str(), config, kernels, options);
  try {
    const std::string bytes = read_file(path);
    return preprocess_file({reinterpret_cast<const std::uint8_t*>(bytes.data()), bytes.size()}, config, kernels, options);
  } catch (const failure&) {  // which must not leave a thread of the pool
    return status::cannot_read;
  }
}

picture_chunk load_pictures(const model& model, const std::vector<std::string>& files, std::size_t begin,
                            std::size_t end, bool upright, const ocellus::executor& threads) {
  const preprocess_config& prepare = model.config().preprocess;
  const vision_config& v = model.config().vision;
  picture_chunk chunk;
  chunk.pictures.resize(end - begin);
  chunk.grids.resize(2 * (end - begin));
  chunk.errors.resize(end - begin);
  load_options options;
  options.exif_orientation = upright || model.config().apply_orientation != 0;
  const auto size = [](int h, int w) { return std::to_string(h) + " x " + std::to_string(w); };
  const auto load = [&](std::size_t i) -> std::string {
    result<image> ready = prepare_picture(files[begin + i], prepare, model.kernels().resample, options);
    if (ready.error() == status::invalid_argument)
      return "too small for the crop of " + size(prepare.crop_h, prepare.crop_w) + " pixels";
    if (!ready) return to_string(ready.error());
    const int h = ready->height(), w = ready->width();
    if (v.naflex == 0 && (h != v.image_h || w != v.image_w))
      return "prepared as the model's preprocessor says it has " + size(h, w) + " pixels, the model reads " +
             size(v.image_h, v.image_w);
    chunk.pictures[i] = std::move(*ready);
    if (v.naflex != 0) chunk.grids[2 * i] = h / v.patch, chunk.grids[2 * i + 1] = w / v.patch;
    return {};
  };
  threads.for_each(static_cast<int>(end - begin), [&](int i) {
    chunk.errors[static_cast<std::size_t>(i)] = load(static_cast<std::size_t>(i));
  });
  return chunk;
}

void encode_chunk(const model& model, const picture_chunk& chunk, float* features, float* logits, workspace& work,
                  const ocellus::executor& threads) {
  const vision_config& v = model.config().vision;
  std::vector<std::size_t> rows;
  for (std::size_t i = 0; i < chunk.pictures.size(); i++)
    if (chunk.errors[i].empty()) rows.push_back(i);
  const auto width = static_cast<std::size_t>(model.embed()), classes = static_cast<std::size_t>(v.classes);
  const std::size_t batch = static_cast<std::size_t>(std::max(threads.concurrency, 8));
  std::vector<const std::uint8_t*> pictures;
  std::vector<std::uint8_t> pixels;  // of all, where they have one size
  std::vector<int> grids;
  for (std::size_t begin = 0; begin < rows.size(); begin += batch) {
    const std::size_t count = std::min(batch, rows.size() - begin);
    pictures.clear();
    pixels.clear();
    grids.clear();
    for (std::size_t r = begin; r < begin + count; r++) {
      const std::size_t i = rows[r];
      const image& p = chunk.pictures[i];
      pictures.push_back(p.pixels());
      if (v.naflex == 0) pixels.insert(pixels.end(), p.pixels(), p.pixels() + p.stride() * p.height());
      grids.insert(grids.end(), {chunk.grids[2 * i], chunk.grids[2 * i + 1]});
    }
    const std::uint8_t* const together = pixels.data();
    const nn::image_batch in = nn::image_batch::of(v, static_cast<int>(count), v.naflex != 0 ? pictures.data() : &together,
                                                   grids.data());
    std::vector<float> packed(count * width), packed_logits(logits == nullptr ? 0 : count * classes);
    const status s =
        model.encode_batch(in, packed.data(), work, threads, logits == nullptr ? nullptr : packed_logits.data());
    if (s != status::ok) throw failure("the image tower: " + std::string(to_string(s)));
    for (std::size_t r = 0; r < count; r++) {
      const std::size_t i = rows[begin + r];
      std::memcpy(features + i * width, packed.data() + r * width, width * sizeof(float));
      if (logits != nullptr)
        std::memcpy(logits + i * classes, packed_logits.data() + r * classes, classes * sizeof(float));
    }
  }
}

counter::counter(const char* what, std::size_t total) : what_(what), total_(total) {
  shown_ = total > 32 && isatty(STDERR_FILENO) != 0;
}
void counter::clear() {
  if (shown_) std::fprintf(stderr, "\r\033[K");
}
void counter::at(std::size_t done) {
  if (!shown_) return;
  constexpr std::size_t width = 30;
  const std::size_t full = width * done / total_;
  std::fprintf(stderr, "\r%s [%s%s] %zu/%zu", what_, std::string(full, '#').c_str(),
               std::string(width - full, ' ').c_str(), done, total_);
  std::fflush(stderr);
}

}  // namespace cli
