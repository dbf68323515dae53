// ocellus as one more peer of peers.py: a process that computes only when it is asked to, so that runtimes can take turns.
//
//   bench-worker MODEL.oc THREADS
//
// A command a line on stdin, a JSON object a line on stdout; runtimes.py speaks the same for the others:
//   open TOWER BATCH OUT FILE   TOWER: image (FILE: RGB, u8 [N, H, W, 3]) or text (FILE: ids, i32 [N, context]). Opens the
//                               model at the first time, computes the first BATCH, writes float32 [BATCH, E] to OUT
//   open decode|prepare|tokenize BATCH OUT FILE     the same for inputs, on one thread. FILE: paths of pictures, or texts, one a
//                               line. decode: from the file's bytes in memory to RGB; prepare: to what the tower reads;
//                               tokenize: ids, i32 [BATCH, context]. OUT gets the pixels or ids of the first BATCH
//   time SECONDS CALLS          computes for so long, at least so often, each call the next BATCH of FILE; milliseconds
//                               of each call, by the wall and of the CPU
#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <sys/resource.h>

#include <chrono>
#include <cstdio>
#include <cstdlib>
#include <ctime>
#include <fstream>
#include <iostream>
#include <optional>
#include <sstream>
#include <string>
#include <vector>

using namespace ocellus;

namespace {

using wall_clock = std::chrono::steady_clock;

double ms_since(wall_clock::time_point start) {
  return std::chrono::duration<double, std::milli>(wall_clock::now() - start).count();
}

/// Milliseconds of CPU, of all threads: what the call would take on an idle machine with one thread.
double cpu_ms() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) * 1e3 + static_cast<double>(t.tv_nsec) * 1e-6;
}

[[noreturn]] void fail(const std::string& what) {
  std::fprintf(stderr, "bench-worker: %s\n", what.c_str());
  std::exit(1);
}

/// MiB resident without mapped files.
double anonymous_mib() {
  std::ifstream file("/proc/self/status");
  for (std::string line; std::getline(file, line);)
    if (line.rfind("RssAnon:", 0) == 0) return std::atof(line.c_str() + 8) / 1024;
  return 0;
}

double peak_mib() {
  rusage use{};
  getrusage(RUSAGE_SELF, &use);
  return static_cast<double>(use.ru_maxrss) / 1024;
}

class worker {
 public:
  worker(const char* path, int threads) : path_(path), pool_(threads) {}

  void open(const std::string& tower, int batch, const std::string& out, const std::string& file) {
    const auto start = wall_clock::now();
    if (!model_) {
      result<model> m = model::open(path_.c_str());
      if (!m) fail(path_ + ": " + to_string(m.error()));
      model_.emplace(std::move(*m));
    }
    const double load = ms_since(start);
    batch_ = batch;
    next_ = 0;
    inputs_ = tower == "image" || tower == "text" ? "" : tower;
    if (!inputs_.empty()) {
      open_inputs(file);
      const auto first = wall_clock::now();
      compute();
      answer(load, ms_since(first));
      next_ = 0;
      std::ofstream(out, std::ios::binary).write(made_.data(), static_cast<std::streamsize>(made_.size()));
      return;
    }
    image_ = tower == "image";
    const vision_config& v = model_->config().vision;
    const text_config& t = model_->config().text;
    row_ = image_ ? static_cast<std::size_t>(v.image_h) * static_cast<std::size_t>(v.image_w) * 3
                  : static_cast<std::size_t>(t.context) * sizeof(std::int32_t);
    std::ifstream in(file, std::ios::binary | std::ios::ate);
    const std::streamoff bytes = in.tellg();
    data_.resize(bytes > 0 ? static_cast<std::size_t>(bytes) : 0);
    // at once: a character at a time would take milliseconds of the start
    if (!in.seekg(0).read(data_.data(), static_cast<std::streamsize>(data_.size()))) fail(file + ": cannot be read");
    slices_ = data_.size() / (row_ * static_cast<std::size_t>(batch));
    if (slices_ == 0) fail(file + ": too short");
    features_.assign(static_cast<std::size_t>(batch) * static_cast<std::size_t>(image_ ? v.embed : t.embed), 0.0f);
    const auto first = wall_clock::now();
    compute();
    answer(load, ms_since(first));
    next_ = 0;
    std::ofstream(out, std::ios::binary)
        .write(reinterpret_cast<const char*>(features_.data()), static_cast<std::streamsize>(features_.size() * sizeof(float)));
  }

  void time(double seconds, std::size_t calls) {
    if (!model_) fail("time before open");
    std::vector<double> wall, cpu;
    const auto start = wall_clock::now();
    while (wall.size() < calls || ms_since(start) < seconds * 1e3) {
      const double c = cpu_ms();
      const auto w = wall_clock::now();
      compute();
      wall.push_back(ms_since(w));
      cpu.push_back(cpu_ms() - c);
    }
    std::printf("{\"wall_ms\": ");
    print(wall);
    std::printf(", \"cpu_ms\": ");
    print(cpu);
    std::printf("}\n");
  }

 private:
  void answer(double load, double first) const {
    std::printf("{\"load_ms\": %.4f, \"first_ms\": %.4f, \"peak_mib\": %.2f, \"anonymous_mib\": %.2f, \"isa\": \"%s\"}\n", load,
                first, peak_mib(), anonymous_mib(), std::string(to_string(model_->kernels().id)).c_str());
  }

  /// Texts, or the bytes of the pictures, that the lines of `file` are or name.
  void open_inputs(const std::string& file) {
    items_.clear();
    std::ifstream lines(file);
    for (std::string line; std::getline(lines, line);) {
      if (inputs_ == "tokenize") {
        items_.push_back(line);
        continue;
      }
      std::ifstream picture(line, std::ios::binary);
      std::ostringstream bytes;
      if (!(bytes << picture.rdbuf())) fail(line + ": cannot be read");
      items_.push_back(bytes.str());
    }
    slices_ = items_.size() / static_cast<std::size_t>(batch_);
    if (slices_ == 0) fail(file + ": too short");
    if (inputs_ == "tokenize" && model_->tokenizer() == nullptr) fail(path_ + ": no tokenizer");
    if (inputs_ != "tokenize" && inputs_ != "decode" && inputs_ != "prepare") fail("cannot open " + inputs_);
  }

  void keep(const void* bytes, std::size_t n) { made_.append(static_cast<const char*>(bytes), n); }

  void compute_inputs() {
    const std::size_t batch = static_cast<std::size_t>(batch_), begin = batch * next_;
    next_ = (next_ + 1) % slices_;
    made_.clear();
    for (std::size_t i = begin; i < begin + batch; i++) {
      if (inputs_ == "tokenize") {
        std::vector<std::int32_t> ids(static_cast<std::size_t>(model_->tokenizer()->context()));
        if (!model_->tokenizer()->encode(items_[i], ids)) fail("cannot encode: " + items_[i]);
        keep(ids.data(), ids.size() * sizeof(ids[0]));
        continue;
      }
      const std::span<const std::uint8_t> file(reinterpret_cast<const std::uint8_t*>(items_[i].data()), items_[i].size());
      const result<image> picture =
          inputs_ == "decode" ? decode_image(file)
                              : preprocess_file(file, model_->config().preprocess, model_->kernels().resample);
      if (!picture) fail(std::string("a picture: ") + to_string(picture.error()));
      if (begin == 0) keep(picture->pixels(), picture->size_bytes());  // to be compared; else the copy would count
    }
  }

  void compute() {
    if (!inputs_.empty()) return compute_inputs();
    const char* from = data_.data() + row_ * static_cast<std::size_t>(batch_) * next_;
    next_ = (next_ + 1) % slices_;
    status s = status::ok;
    if (image_) {
      nn::image_batch in;
      in.count = batch_;
      in.height = model_->config().vision.image_h;
      in.width = model_->config().vision.image_w;
      in.rgb = reinterpret_cast<const std::uint8_t*>(from);
      s = model_->encode_batch(in, features_.data(), work_, pool_.executor());
    } else {
      s = model_->encode_ids(reinterpret_cast<const std::int32_t*>(from), batch_, model_->config().text.context, features_.data(),
                             work_, pool_.executor());
    }
    if (s != status::ok) fail(std::string("cannot compute: ") + to_string(s));
  }

  static void print(const std::vector<double>& values) {
    for (std::size_t i = 0; i < values.size(); i++) std::printf("%s%.4f", i == 0 ? "[" : ", ", values[i]);
    std::printf("]");
  }

  std::string path_;
  thread_pool pool_;
  std::optional<model> model_;
  workspace work_;
  std::string inputs_;  // decode, prepare, tokenize; else empty
  std::vector<std::string> items_;
  std::string made_;
  std::vector<char> data_;
  std::vector<float> features_;
  std::size_t row_ = 0, slices_ = 0, next_ = 0;
  int batch_ = 1;
  bool image_ = true;
};

}  // namespace

int main(int argc, char** argv) {
  if (argc != 3) fail("usage: bench-worker MODEL.oc THREADS");
  worker w(argv[1], std::atoi(argv[2]));
  for (std::string line; std::getline(std::cin, line);) {
    std::istringstream words(line);
    std::string command, tower, out, file;
    words >> command;
    if (command == "open") {
      int batch = 0;
      if (!(words >> tower >> batch >> out >> file) || batch < 1) fail("cannot read: " + line);
      w.open(tower, batch, out, file);
    } else {
      double seconds = 0;
      std::size_t calls = 0;
      if (command != "time" || !(words >> seconds >> calls)) fail("cannot read: " + line);
      w.time(seconds, calls);
    }
    std::fflush(stdout);
  }
}
