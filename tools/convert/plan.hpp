// Builds a model_source: checks a checkpoint's tensors against the configuration and notes how each tensor of
// the packed file is made from them.
//
//   plan p(file, "openai");
//   p.matrix("vision.proj.weight", {embed, width}, piece{"visual.proj", {width, embed}}.transposed());
//   return p.finish();
//
// The first mistake is kept and everything after it does nothing, so that layouts read as lists of what they
// expect; finish() reports it. Tensors of the checkpoint that no plan uses are refused if they lie within the
// model's own names (an architecture that we do not know would give wrong answers) and noted otherwise.
#pragma once

#include "checkpoint.hpp"
#include "model_source.hpp"

#include <array>
#include <cstdint>
#include <optional>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace ocellus::convert {

using shape_list = std::vector<std::int64_t>;

/// Rows of a planned tensor that come from one tensor of the checkpoint.
struct piece {
  enum class order : std::uint8_t {
    rows,        ///< as it lies
    transposed,  ///< [in..., out...] to [out, in]: right-multiplied matrices, flax kernels
    conv,        ///< [out, channels, h, w] to [out, (y * w + x) * channels + channel]
  };

  std::string name = {};   ///< empty: zeros
  shape_list shape = {};   ///< expected; leading dimensions of 1 do not count
  order how = order::rows;
  int block = -1;      ///< >= 0: the tensor is a stack [blocks, shape...], of which this one is taken
  int blocks = 0;
  std::int64_t first = 0;  ///< first row taken, and how many (0: all): parts of fused matrices
  std::int64_t count = 0;
  std::string gain = {};   ///< name of a tensor [rows] that multiplies the rows: LayerScale
  float factor = 1.f;  ///< multiplies everything
  int heads_of = 0;    ///< > 0: of each so many rows first those with even numbers, then the odd ones

  piece transposed() const { return with([](piece& p) { p.how = order::transposed; }); }
  piece convolution() const { return with([](piece& p) { p.how = order::conv; }); }
  piece rows(std::int64_t begin, std::int64_t n) const {
    return with([&](piece& p) { p.first = begin, p.count = n; });
  }
  piece times(std::string name_of_gain) const {
    return with([&](piece& p) { p.gain = std::move(name_of_gain); });
  }
  /// Brings the pairs that rotary positions turn, neighbours in the reference, into the two halves of each head of `d`
  /// rows: of q and of k alike, so that their products stay what they are.
  piece halved(int d) const { return with([&](piece& p) { p.heads_of = d; }); }
  piece of_stack(int index, int n) const { return with([&](piece& p) { p.block = index, p.blocks = n; }); }

 private:
  template <class F>
  piece with(F change) const {
    piece p = *this;
    change(p);
    return p;
  }
};

class plan {
 public:
  plan(const checkpoint& file, std::string layout);

  model_source& model() noexcept { return model_; }
  ocellus::model_config& config() noexcept { return model_.config; }
  const checkpoint& file() const noexcept { return file_; }

  bool ok() const noexcept { return !problem_; }
  /// Keeps the first failure.
  void fail(std::string what);

  /// Tells where a switch's value comes from.
  void note_switch(std::string name, std::string value, std::string origin);
  void note(std::string text) { model_.notes.push_back(std::move(text)); }

  bool has(std::string_view name) const noexcept { return file_.find(name) != nullptr; }
  /// Whether any tensor's name begins so.
  bool has_prefix(std::string_view prefix) const noexcept;
  /// Size of a tensor along `axis` (negative: from the end). A failure if there is no such tensor or axis.
  std::int64_t dim(std::string_view name, int axis);
  /// How many of prefix + "0" + suffix, prefix + "1" + suffix, ... there are in sequence, at most 256.
  int count(std::string_view prefix, std::string_view suffix) const;

  /// Names that begin with `prefix` belong to the model: those left over are a failure.
  void own(std::string prefix) { owned_.push_back(std::move(prefix)); }
  /// Left alone without a word: buffers that follow from the configuration.
  void ignore(std::string name) { ignored_.insert(std::move(name)); }
  void ignore_suffix(std::string suffix) { ignored_suffixes_.push_back(std::move(suffix)); }
  /// Marks tensors that something else than a piece has read.
  void use(std::string name) { used_.insert(std::move(name)); }

  void matrix(std::string name, shape_list shape, std::vector<piece> pieces) {
    add(std::move(name), storage::matrix, std::move(shape), std::move(pieces));
  }
  void table(std::string name, shape_list shape, std::vector<piece> pieces) {
    add(std::move(name), storage::table, std::move(shape), std::move(pieces));
  }
  void exact(std::string name, shape_list shape, std::vector<piece> pieces) {
    add(std::move(name), storage::exact, std::move(shape), std::move(pieces));
  }
  void matrix(std::string name, shape_list shape, piece only) {
    matrix(name, shape, std::vector{std::move(only)});
  }
  void table(std::string name, shape_list shape, piece only) {
    table(name, shape, std::vector{std::move(only)});
  }
  void exact(std::string name, shape_list shape, piece only) {
    exact(name, shape, std::vector{std::move(only)});
  }

  /// name + ".weight" and name + ".bias" of [width], from source + the same.
  void norm(const std::string& name, const std::string& source, std::int64_t width);
  /// The same of a linear layer [n, k], its outputs multiplied by the tensor `gain` [n] (LayerScale) unless its name is
  /// empty; without the bias when `bias` is false.
  void linear(const std::string& name, const std::string& source, std::int64_t n, std::int64_t k, bool bias = true,
              const std::string& gain = {});
  /// Linear layers [n, k] of the same input as one, the outputs of one source after those of the one before.
  void stacked_linear(const std::string& name, const std::vector<std::string>& sources, std::int64_t n, std::int64_t k,
                      bool bias = true);

  /// A tensor that takes more than rearranging. `sources` are read in full, checked and handed over.
  using recipe = std::function<void(const std::vector<std::vector<float>>& sources, std::vector<float>& out)>;
  void computed(std::string name, storage kind, shape_list shape, std::vector<piece> sources, recipe make);

  /// One number, read now. Shape [] or [1]. A failure if it is missing or not finite.
  double scalar(const std::string& name);

  /// The plan, or the first failure. Looks for leftovers.
  outcome<model_source> finish();

 private:
  void add(std::string name, storage kind, shape_list shape, std::vector<piece> pieces);
  /// Says so where the preprocessor's pictures have not the size that the model reads.
  void note_pictures();
  /// The last block's attn.keys_t from its attn.qkv.
  void transpose_last_keys();
  bool check(const piece& p);
  bool ignorable(const std::string& name) const;

  checkpoint file_;  // a handle: the plan's readers keep copies
  model_source model_;
  std::optional<std::string> problem_;
  std::set<std::string> used_, ignored_;
  std::vector<std::string> owned_, ignored_suffixes_;
  std::shared_ptr<class tensor_cache> cache_;
};

}  // namespace ocellus::convert
