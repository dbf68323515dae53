// What the commands of the program `ocellus` share: options, errors as one line, reading of text files.
#pragma once

#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/decode.hpp>
#include <ocellus/models/model.hpp>

#include <CLI/CLI.hpp>

#include <memory>
#include <stdexcept>
#include <string>
#include <vector>

namespace cli {

/// A failure with its one line for stderr; exit 1.
struct failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};
/// Wrong usage that CLI11 cannot see; exit 2.
struct usage : std::runtime_error {
  using std::runtime_error::runtime_error;
};

/// Something failed and stderr says what; exit 1.
struct already_said {};

/// "cat.jpg: no such file".
[[noreturn]] void fail(const std::string& what, ocellus::status why);

/// The options of all commands that compute.
struct compute_options {
  int threads = 0;
  std::string isa;
  void add_to(CLI::App& app);
  /// The named kernel set, or the best one.
  ocellus::kernel_table kernels() const;
  /// Made at the first call.
  ocellus::executor executor();
  int thread_count() const;
  /// Pictures to decode at once: several for each thread, so that none waits long for the last one.
  std::size_t chunk() const;

 private:
  std::unique_ptr<ocellus::thread_pool> pool_;
};

ocellus::model open_model(const std::string& path, const compute_options& options);

/// One text a line (empty lines count), or of a .jsonl file the "text" of each line's object.
std::vector<std::string> read_texts(const std::string& path);

/// One label or template a line, empty lines left out.
std::vector<std::string> read_lines(const std::string& path);

/// Adds the paths that the file `list` names, one a line, or each ended by NUL as `find -print0` does it. "": none.
void add_paths(const std::string& list, std::vector<std::string>& paths);

/// The whole file, or standard input where the path is "-". Errors name it.
std::string read_file(const std::string& path);

/// A picture file decoded, resized and cropped, "-" as above.
ocellus::result<ocellus::image> prepare_picture(const std::string& path, const ocellus::preprocess_config& config,
                                                const ocellus::resample_kernels& kernels,
                                                const ocellus::load_options& options);

/// Pictures of one chunk, decoded, resized and cropped: ready for a tower.
struct picture_chunk {
  std::vector<ocellus::image> pictures;  ///< empty where it failed
  std::vector<int> grids;                ///< [n, 2]: patches down and across (NaFlex)
  std::vector<std::string> errors;       ///< "" where it worked
};

/// Decodes and prepares files[begin, end), several at once.
picture_chunk load_pictures(const ocellus::model& model, const std::vector<std::string>& files, std::size_t begin,
                            std::size_t end, bool upright, const ocellus::executor& threads);

/// The features of the pictures of a chunk that could be prepared, [n, width], `logits` [n, classes] with them; the
/// others' rows stay zero. Computes eight pictures at a time, or one for each thread.
void encode_chunk(const ocellus::model& model, const picture_chunk& chunk, float* features, float* logits,
                  ocellus::workspace& work, const ocellus::executor& threads);

/// Counts up on a terminal's stderr; silent elsewhere.
class counter {
 public:
  counter(const char* what, std::size_t total);
  ~counter() { clear(); }
  void at(std::size_t done);
  /// Makes room for another line, until the next call of at().
  void clear();

 private:
  const char* what_;
  std::size_t total_;
  bool shown_ = false;
};

void add_info(CLI::App& app);
void add_embed(CLI::App& app);
void add_classify(CLI::App& app);
void add_tokenize(CLI::App& app);
void add_preprocess(CLI::App& app);
void add_bench(CLI::App& app);

}  // namespace cli
