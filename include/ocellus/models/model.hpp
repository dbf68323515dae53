// A model opened at run time: maps a packed file, checks it, and turns pictures and texts into embeddings.
//
//   auto model = ocellus::model::open("vit-b-32.oc");                 // mmap; the best kernels of this CPU
//   if (!model) { std::puts(ocellus::to_string(model.error())); return 1; }
//   auto image = model->encode_image(photo);                          // embeddings, one unit-length row
//   auto texts = model->encode_text({"a cat", "a dog"});
//   auto p = model->scores(*image, *texts);                           // softmax (CLIP) or sigmoid (SigLIP)
//
// Guarantees: an open model never changes, so any number of threads may use it at once. Nothing throws,
// prints or aborts; no thread is started (pass an executor to use several). encode_batch allocates only to grow its
// `workspace`; the other functions that take one also allocate ids, resized pictures and small arrays, a dozen blocks
// at most; those that return `embeddings` allocate these and a workspace. A call runs to its end: what may have to be
// cancelled goes picture by picture.
#pragma once

#include <ocellus/core/executor.hpp>
#include <ocellus/core/memory.hpp>
#include <ocellus/format/reader.hpp>
#include <ocellus/image/preprocess.hpp>
#include <ocellus/isa/dispatch.hpp>
#include <ocellus/models/config.hpp>
#include <ocellus/models/weights.hpp>
#include <ocellus/nn/fastvit.hpp>
#include <ocellus/nn/resnet.hpp>
#include <ocellus/nn/tower.hpp>
#include <ocellus/text/tokenizer.hpp>
#if defined(_WIN32) || (__has_include(<sys/mman.h>) && !defined(__wasi__))
#include <ocellus/format/mmap.hpp>
#define OCELLUS_HAS_MMAP 1
#else
#define OCELLUS_HAS_MMAP 0
#endif

#include <algorithm>
#include <cmath>
#include <initializer_list>
#include <span>
#include <string_view>

OCELLUS_BEGIN

/// Memory for the activations of a call. Keep one per thread: calls stop allocating those once it has grown.
class workspace {
 public:
  /// Room for `bytes`; the contents are not kept. out_of_memory.
  status reserve(std::size_t bytes) noexcept {
    if (bytes <= memory_.size()) return status::ok;
    result<array<unsigned char>> grown = array<unsigned char>::make(bytes);
    if (!grown) return grown.error();
    memory_ = std::move(*grown);
    return status::ok;
  }
  unsigned char* data() noexcept { return memory_.data(); }
  std::size_t size() const noexcept { return memory_.size(); }

 private:
  array<unsigned char> memory_;
};

/// Rows of features, with the id of the embedding space that they live in.
class embeddings {
 public:
  /// `rows` rows of `width` zeros. Errors: out_of_memory.
  static result<embeddings> make(int rows, int width, std::uint64_t space) noexcept {
    result<array<float>> values =
        array<float>::make(static_cast<std::size_t>(rows) * static_cast<std::size_t>(width));
    if (!values) return values.error();
    embeddings e;
    e.values_ = std::move(*values);
    e.rows_ = rows;
    e.width_ = width;
    e.space_ = space;
    return e;
  }
  int rows() const noexcept { return rows_; }
  int width() const noexcept { return width_; }
  std::uint64_t space() const noexcept { return space_; }
  float* data() noexcept { return values_.data(); }
  const float* data() const noexcept { return values_.data(); }
  std::span<const float> operator[](int row) const noexcept {
    return {values_.data() + static_cast<std::ptrdiff_t>(row) * width_, static_cast<std::size_t>(width_)};
  }
  std::span<float> operator[](int row) noexcept {
    return {values_.data() + static_cast<std::ptrdiff_t>(row) * width_, static_cast<std::size_t>(width_)};
  }

 private:
  array<float> values_;
  int rows_ = 0, width_ = 0;
  std::uint64_t space_ = 0;
};

class model {
 public:
#if OCELLUS_HAS_MMAP
  /// Opens a packed file by mmap; only where the system has it (POSIX, Windows). Configuration and tables are checked
  /// by their checksums, weights and tokenizer only by file().verify(), which reads the whole file: call it after a
  /// download. A file that is open must not be overwritten or cut short in place (SIGBUS): write beside it and rename
  /// (which Windows refuses while it is open). Errors: those of mapped_file, packed_file and tokenizer, bad_config,
  /// missing_tensor, wrong_shape, unsupported_dtype, unsupported_layout, out_of_memory.
  static result<model> open(const char* path, const kernel_table& kernels = best_kernels()) noexcept {
    result<mapped_file> file = mapped_file::open(path);
    if (!file) return file.error();
    result<model> m = open(file->bytes(), kernels);
    if (m) m->mapping_ = std::move(*file);
    return m;
  }
#endif

  /// The same from a buffer or from flash, aligned to 64 bytes, which must outlive the model.
  [[gnu::cold]] static result<model> open(std::span<const std::byte> bytes,
                            const kernel_table& kernels = best_kernels()) noexcept {
    const result<packed_file> file = packed_file::open(bytes);
    if (!file) return file.error();
    model m;
    m.file_ = *file;
    m.kernels_ = dynamic(kernels);
    const result<model_config> config = detail::stored_config(*file);
    if (!config) return config.error();
    m.config_ = *config;
    const status bound = m.bind();
    if (bound != status::ok) return bound;
    const std::span<const std::byte> blob = file->section(format::section::tokenizer);
    if (!blob.empty() && m.config_.text.present != 0) {
      const result<ocellus::tokenizer> t = tokenizer::open(blob);
      if (!t) return t.error();
      m.tokenizer_ = *t;
    }
    return m;
  }

  const model_config& config() const noexcept { return config_; }
  const packed_file& file() const noexcept { return file_; }
  const kernel_table& kernels() const noexcept { return kernels_; }
  bool has_vision() const noexcept { return config_.vision.kind != vision_kind::none; }
  bool has_text() const noexcept { return config_.text.present != 0; }
  /// Null if the file holds none.
  const ocellus::tokenizer* tokenizer() const noexcept { return tokenizer_ ? &*tokenizer_ : nullptr; }
  /// E, the width of image embeddings (and of text embeddings, where there are both towers).
  int embed() const noexcept { return has_vision() ? config_.vision.embed : config_.text.embed; }
  int text_embed() const noexcept { return config_.text.embed; }

  // Features into memory of the caller, before normalisation

  /// Image features [in.count, E] of a batch in one of image_batch's forms; `logits` [in.count, classes] too,
  /// for a classifier. Errors: no_vision_tower, no_classes (logits of a model without a classifier), invalid_argument
  /// (no pixels, a negative count, grids beside pixels or none beside patches), wrong_shape (another size than the
  /// model's, unless it resizes its position table; more patches than patch_stride), out_of_memory.
  status encode_batch(const nn::image_batch& in, float* out, workspace& work, const executor& threads = {},
                      float* logits = nullptr, const nn::stage_observer& observe = {}) const noexcept {
    if (!has_vision()) return status::no_vision_tower;
    const vision_config& v = config_.vision;
    if (logits != nullptr && v.classes == 0) return status::no_classes;
    if (in.count < 0) return status::invalid_argument;
    if (in.count == 0) return status::ok;
    const bool planes = in.pixels != nullptr || in.rgb != nullptr;  // of height x width
    if (!planes && in.rgbs == nullptr && in.patches == nullptr) return status::invalid_argument;
    if (planes ? in.grids != nullptr : in.grids == nullptr) return status::invalid_argument;
    const fp_env guard;
    const nn::runner<dynamic> run{kernels_, threads};
    if (v.kind != vision_kind::vit) return encode_maps(run, in, out, work, observe);
    if (const status checked = check_grids(in); checked != status::ok) return checked;
    for (int first = 0, end = 0; first < in.count; first = end) {
      end = std::min(first + batch_images, in.count);
      image_group most;
      for (int i = first; i < end;) {
        const image_group g = group_from(in, i, end);
        most = {std::max(most.images, g.images), std::max(most.rows, g.rows), std::max(most.longest, g.longest)};
        i += g.images;
      }
      nn::vision_buffers b;
      const status placed = lay_out(work, [&](unsigned char* base) {
        return b.carve(base, v, end - first, most.images, most.rows, most.longest, parts_of(threads), vision_form_);
      });
      if (placed != status::ok) return placed;
      for (int i = first; i < end;) {
        const nn::image_batch group = in.part(i, group_from(in, i, end).images, v.patch);
        nn::vision_tokens(run, config_, vision_, group, i - first, b, observe);
        i += group.count;
      }
      nn::vision_pooled(run, config_, vision_, end - first, b, out + static_cast<std::ptrdiff_t>(first) * v.embed,
                        v.embed, logits == nullptr ? nullptr : logits + static_cast<std::ptrdiff_t>(first) * v.classes,
                        observe);
    }
    return status::ok;
  }

  /// Text features [count, E] from ids [count, context] (any padding). Computes each text up to its pooled
  /// token, and prefixes that texts share once. Errors: no_text_tower, wrong_shape (context longer than the
  /// model's), token_out_of_range, invalid_argument (a negative count), out_of_memory.
  status encode_ids(const std::int32_t* ids, int count, int context, float* out, workspace& work,
                    const executor& threads = {}, const nn::stage_observer& observe = {}) const noexcept {
    if (!has_text()) return status::no_text_tower;
    const text_config& t = config_.text;
    if (count < 0) return status::invalid_argument;
    if (context < 1 || context > t.context) return status::wrong_shape;
    for (std::ptrdiff_t i = 0; i < static_cast<std::ptrdiff_t>(count) * context; i++)
      if (ids[i] < 0 || ids[i] >= t.vocab) return status::token_out_of_range;
    sorted_texts texts;
    if (const status sorted = texts.sort(t, ids, count, context); sorted != status::ok) return sorted;
    const fp_env guard;
    const nn::runner<dynamic> run{kernels_, threads};
    while (texts.next_batch(t, out, kernels_.batch_rows)) {
      nn::text_buffers b;
      const status placed = lay_out(work, [&](unsigned char* base) {
        return b.carve(base, t, texts.distinct, texts.rows, parts_of(threads), text_form_);
      });
      if (placed != status::ok) return placed;
      nn::text_forward(run, config_, text_, texts.batch.data(), texts.distinct, b, texts.targets.data(), observe);
      texts.copy_to_equal(t, out);
    }
    return status::ok;
  }

  /// Divides each of `rows` rows of `width` values by its Euclidean norm.
  void normalize(float* values, int rows, int width) const noexcept {
    const fp_env guard;
    for (int r = 0; r < rows; r++) {
      float* x = values + static_cast<std::ptrdiff_t>(r) * width;
      kernels_.l2_normalize(x, x, width);
    }
  }

  // Embeddings, unit length

  /// One picture of any size: resized and cropped as the model's reference does it. Errors: as encode_images.
  result<embeddings> encode_image(image_view picture, const executor& threads = {}) const noexcept {
    return encode_images({&picture, 1}, threads);
  }

  /// Several pictures of any sizes. Errors: those of preprocess and encode_batch.
  result<embeddings> encode_images(std::span<const image_view> pictures,
                                   const executor& threads = {}) const noexcept {
    if (!has_vision()) return status::no_vision_tower;
    result<embeddings> e =
        embeddings::make(static_cast<int>(pictures.size()), embed(), file_.embedding_space());
    workspace work;
    if (!e) return e;
    const status s = encode_pictures(pictures, e->data(), work, threads);
    if (s != status::ok) return s;
    normalize(e->data(), e->rows(), e->width());
    return e;
  }

  /// A picture that preprocess() or preprocess_file() made with config().preprocess. Errors: wrong_shape (another size
  /// than the model's, or no whole patches), those of encode_batch.
  result<embeddings> encode_preprocessed(const image& picture, const executor& threads = {}) const noexcept {
    if (!has_vision()) return status::no_vision_tower;
    result<embeddings> e = embeddings::make(1, embed(), file_.embedding_space());
    workspace work;
    if (!e) return e;
    const status s = encode_preprocessed(picture, e->data(), work, threads);
    if (s != status::ok) return s;
    normalize(e->data(), 1, e->width());
    return e;
  }

  /// The features of such a picture into `out` [E], before normalisation.
  status encode_preprocessed(const image& picture, float* out, workspace& work, const executor& threads = {},
                             const nn::stage_observer& observe = {}) const noexcept {
    if (!has_vision()) return status::no_vision_tower;
    const vision_config& v = config_.vision;
    const int h = picture.height(), w = picture.width(), patch = v.naflex != 0 ? v.patch : 1;
    if (v.naflex != 0 ? h % patch != 0 || w % patch != 0 : h != v.image_h || w != v.image_w) return status::wrong_shape;
    const std::uint8_t* const pixels = picture.pixels();
    const int grid[2] = {h / patch, w / patch};
    return encode_batch(nn::image_batch::of(v, 1, &pixels, grid), out, work, threads, nullptr, observe);
  }

  /// The features of several pictures of any sizes into `out` [n, E], before normalisation; `logits` as
  /// encode_batch.
  status encode_pictures(std::span<const image_view> pictures, float* out, workspace& work,
                         const executor& threads = {}, float* logits = nullptr) const noexcept {
    if (!has_vision()) return status::no_vision_tower;
    const fp_env guard;
    const preprocess_config& p = config_.preprocess;
    const std::size_t n = pictures.size();
    result<array<std::uint8_t*>> rgb = array<std::uint8_t*>::make(n);
    result<array<int>> grids = array<int>::make(2 * n);
    result<array<std::size_t>> offsets = array<std::size_t>::make(n + 1);
    if (!rgb || !grids || !offsets) return status::out_of_memory;
    for (std::size_t i = 0; i < n; i++) {
      if (pictures[i].empty()) return status::invalid_argument;
      const result<preprocess_shape> s = preprocess_shape_of(p, pictures[i].width, pictures[i].height);
      if (!s) return s.error();
      if (config_.vision.naflex == 0 &&
          (s->window.w != config_.vision.image_w || s->window.h != config_.vision.image_h))
        return status::wrong_shape;
      (*grids)[2 * i] = s->grid_h;
      (*grids)[2 * i + 1] = s->grid_w;
      (*offsets)[i + 1] =
          (*offsets)[i] + static_cast<std::size_t>(s->window.w) * static_cast<std::size_t>(s->window.h) * 3;
    }
    result<array<std::uint8_t>> pixels = array<std::uint8_t>::make((*offsets)[n]);
    if (!pixels) return pixels.error();
    for (std::size_t i = 0; i < n; i++) {
      (*rgb)[i] = pixels->data() + (*offsets)[i];
      const result<preprocess_shape> s = preprocess_shape_of(p, pictures[i].width, pictures[i].height);
      const status done = preprocess_into((*rgb)[i], pictures[i], p, *s, kernels_.resample, threads);
      if (done != status::ok) return done;
    }
    return encode_batch(nn::image_batch::of(config_.vision, static_cast<int>(n), rgb->data(), grids->data()), out, work,
                        threads, logits);
  }

  /// Texts in UTF-8; those beyond the context are cut as the reference does, which tokenizer::encode tells. Errors:
  /// no_text_tower, no_tokenizer, those of tokenizer::encode and encode_ids.
  result<embeddings> encode_text(std::span<const std::string_view> texts,
                                 const executor& threads = {}) const noexcept {
    if (!has_text()) return status::no_text_tower;
    result<embeddings> e =
        embeddings::make(static_cast<int>(texts.size()), text_embed(), file_.embedding_space());
    workspace work;
    if (!e) return e;
    const status s = encode_texts(texts, e->data(), work, threads);
    if (s != status::ok) return s;
    normalize(e->data(), e->rows(), e->width());
    return e;
  }
  result<embeddings> encode_text(std::initializer_list<std::string_view> texts,
                                 const executor& threads = {}) const noexcept {
    return encode_text(std::span<const std::string_view>(texts.begin(), texts.size()), threads);
  }

  /// Text features into `out` [n, E], before normalisation. Errors: as encode_text.
  status encode_texts(std::span<const std::string_view> texts, float* out, workspace& work,
                      const executor& threads = {}) const noexcept {
    if (!has_text()) return status::no_text_tower;
    if (!tokenizer_) return status::no_tokenizer;
    const int context = config_.text.context;
    result<array<std::int32_t>> ids =
        array<std::int32_t>::make(texts.size() * static_cast<std::size_t>(context));
    if (!ids) return ids.error();
    for (std::size_t i = 0; i < texts.size(); i++) {
      const auto encoded = tokenizer_->encode(
          texts[i], {ids->data() + i * static_cast<std::size_t>(context), static_cast<std::size_t>(context)});
      if (!encoded) return encoded.error();
    }
    return encode_ids(ids->data(), static_cast<int>(texts.size()), context, out, work, threads);
  }

  /// Probabilities [images.rows(), texts.rows()]: CLIP's softmax over the texts of scale * cos, or SigLIP's
  /// sigmoid of scale * cos + bias for each pair alone. Errors: different_embedding_space (rows of other models),
  /// out_of_memory.
  result<array<float>> scores(const embeddings& images, const embeddings& texts) const noexcept {
    if (images.space() != texts.space() || images.width() != texts.width())
      return status::different_embedding_space;
    const auto n = static_cast<std::size_t>(texts.rows());
    result<array<float>> p = array<float>::make(static_cast<std::size_t>(images.rows()) * n);
    if (!p) return p;
    const fp_env guard;
    for (int i = 0; i < images.rows(); i++) {
      float* row = p->data() + static_cast<std::size_t>(i) * n;
      for (std::size_t j = 0; j < n; j++) {
        double dot = 0;
        for (int c = 0; c < images.width(); c++)
          dot += static_cast<double>(images[i][static_cast<std::size_t>(c)]) *
                 static_cast<double>(texts[static_cast<int>(j)][static_cast<std::size_t>(c)]);
        row[j] = static_cast<float>(dot);
      }
      probabilities(row, row, static_cast<int>(n));
    }
    return p;
  }

  /// Cosines [n] of one image with n labels to probabilities, by this model's rule; `out` may be `cosines`.
  void probabilities(const float* cosines, float* out, int n) const noexcept {
    const auto scale = static_cast<double>(config_.logit_scale), bias = static_cast<double>(config_.logit_bias);
    if (config_.score == score_kind::sigmoid) {
      for (int j = 0; j < n; j++)
        out[j] = static_cast<float>(1 / (1 + std::exp(-(scale * static_cast<double>(cosines[j]) + bias))));
      return;
    }
    softmax(cosines, out, n, scale);
  }

  /// softmax(scale * x); `out` may be `x`.
  static void softmax(const float* x, float* out, int n, double scale) noexcept {
    double most = -1e300, sum = 0;
    for (int j = 0; j < n; j++) most = std::max(most, scale * static_cast<double>(x[j]));
    for (int j = 0; j < n; j++) {
      const double e = std::exp(scale * static_cast<double>(x[j]) - most);
      out[j] = static_cast<float>(e);
      sum += e;
    }
    for (int j = 0; j < n; j++) out[j] = static_cast<float>(static_cast<double>(out[j]) / sum);
  }

  static constexpr int max_tokens = most_image_tokens;  ///< most patches of one image
  /// Images whose pooled rows are carried on together: enough to hide those weights.
  static constexpr int batch_images = 32;

 private:
  /// Images that run through the tower together: how many, their tokens, those of the longest.
  struct image_group {
    int images = 0, rows = 0, longest = 0;
  };

  /// Texts in the order of their ids, so that those with a common beginning are neighbours and equal ones are computed
  /// once; and those of them that are at hand.
  struct sorted_texts {
    array<nn::token_sequence> texts;  ///< as given
    array<int> order;
    int first = 0, next = 0;          ///< at hand: order[first..next)
    array<nn::token_sequence> batch;  ///< [distinct] the same without repetitions
    array<float*> targets;            ///< [distinct] where their features go
    int distinct = 0, rows = 0;       ///< rows: tokens to compute

    status sort(const text_config& t, const std::int32_t* ids, int count, int context) noexcept {
      const auto n = static_cast<std::size_t>(count);
      result<array<nn::token_sequence>> given = array<nn::token_sequence>::make(n),
                                        some = array<nn::token_sequence>::make(n);
      result<array<int>> sorted = array<int>::make(n);
      result<array<float*>> rows_of_out = array<float*>::make(n);
      if (!given || !some || !sorted || !rows_of_out) return status::out_of_memory;
      texts = std::move(*given), batch = std::move(*some);
      order = std::move(*sorted), targets = std::move(*rows_of_out);
      for (std::size_t i = 0; i < n; i++) {
        texts[i] = nn::sequence_of(t, ids + i * static_cast<std::size_t>(context), context);
        order[i] = static_cast<int>(i);
      }
      std::sort(order.begin(), order.end(), [&](int a, int b) {
        const nn::token_sequence &x = texts[at(a)], &y = texts[at(b)];
        const int shared = nn::shared_prefix(x, y);
        if (shared < x.count && shared < y.count) return x.ids[shared] < y.ids[shared];
        return x.count != y.count ? x.count < y.count : a < b;
      });
      return status::ok;
    }

    /// Goes on to the next texts whose rows number `most_rows` at most (but to one in any case); false after the last.
    bool next_batch(const text_config& t, float* out, int most_rows) noexcept {
      distinct = rows = 0;
      for (first = next; next < static_cast<int>(order.size()); next++) {
        const nn::token_sequence& x = texts[at(order[at(next)])];
        const int shared = distinct > 0 ? nn::shared_prefix(batch[at(distinct - 1)], x) : 0;
        if (distinct > 0 && shared == x.count && shared == batch[at(distinct - 1)].count) continue;  // the same again
        const int own = x.count - (t.encoder.causal != 0 ? shared : 0);
        if (distinct > 0 && rows + own > most_rows) break;
        rows += own;
        targets[at(distinct)] = features(t, out, next);
        batch[at(distinct++)] = x;
      }
      return distinct > 0;
    }

    /// The features of the texts at hand to their repetitions, which follow them in the order.
    void copy_to_equal(const text_config& t, float* out) const noexcept {
      const float* previous = nullptr;
      for (int i = first, k = 0; i < next; i++) {
        float* const target = features(t, out, i);
        if (k < distinct && targets[at(k)] == target) {
          previous = target;
          k++;
        } else {
          std::memcpy(target, previous, sizeof(float) * static_cast<std::size_t>(t.embed));
        }
      }
    }

   private:
    static constexpr std::size_t at(int i) noexcept { return static_cast<std::size_t>(i); }
    float* features(const text_config& t, float* out, int i) const noexcept {
      return out + static_cast<std::ptrdiff_t>(order[at(i)]) * t.embed;
    }
  };

  /// Lays buffers out in `work`: carve(base) does so and gives the bytes, with null these alone.
  template <class Carve>
  static status lay_out(workspace& work, const Carve& carve) noexcept {
    const status grown = work.reserve(carve(nullptr));
    if (grown == status::ok) carve(work.data());
    return grown;
  }

  static int parts_of(const executor& threads) noexcept { return threads.concurrency < 1 ? 1 : threads.concurrency; }

  status check_grids(const nn::image_batch& in) const noexcept {
    const vision_config& v = config_.vision;
    for (int i = 0; i < in.count; i++) {
      const int gh = in.grid_h(i, v.patch), gw = in.grid_w(i, v.patch);
      const bool sized = in.grids != nullptr || (in.height == v.image_h && in.width == v.image_w);
      const bool fits = v.positions != position_resize::none || (gh == v.grid_h && gw == v.grid_w && sized);
      if (gh < 1 || gw < 1 || gh > 4096 || gw > 4096 || gh * gw > max_tokens || !fits) return status::wrong_shape;
      if (in.patches != nullptr && gh * gw > in.patch_stride) return status::wrong_shape;
    }
    return status::ok;
  }

  /// The group that begins with image i, of images before `end`.
  image_group group_from(const nn::image_batch& in, int i, int end) const noexcept {
    const vision_config& v = config_.vision;
    image_group g;
    for (; i < end; i++, g.images++) {
      const int tokens = in.grid_h(i, v.patch) * in.grid_w(i, v.patch) + nn::prefix_rows(v);
      if (g.images > 0 && g.rows + tokens > kernels_.batch_rows) break;
      g.rows += tokens;
      g.longest = std::max(g.longest, tokens);
    }
    return g;
  }

  dtype form_of(const array<nn::block_weights>& blocks) const noexcept {
    if (detail::all_of_type(blocks, dtype::s8)) return dtype::s8;
    if (kernels_.round_bf16 != nullptr && detail::any_of_type(blocks, dtype::bf16)) return dtype::bf16;
    if (kernels_.split_bf16 != nullptr && detail::any_of_type(blocks, dtype::f16)) return dtype::f16;
    return dtype::f32;
  }

  [[gnu::cold]] status bind() noexcept {
    detail::weight_binder binder(file_);
    const vision_config& v = config_.vision;
    if (v.kind == vision_kind::vit) {
      result<array<nn::block_weights>> blocks =
          array<nn::block_weights>::make(static_cast<std::size_t>(v.encoder.layers));
      if (!blocks) return blocks.error();
      vision_blocks_ = std::move(*blocks);
      binder.vision(v, vision_blocks_.data(), vision_);
      vision_form_ = form_of(vision_blocks_);
      if (vision_form_ == dtype::s8 && vision_.map.v && vision_.map.v.type != dtype::s8) vision_form_ = dtype::f32;
    } else if (v.kind == vision_kind::resnet) {
      int count = 0;
      for (const int n : v.resnet_layers) count += n;
      result<array<nn::bottleneck_weights>> blocks =
          array<nn::bottleneck_weights>::make(static_cast<std::size_t>(count));
      if (!blocks) return blocks.error();
      resnet_blocks_ = std::move(*blocks);
      binder.resnet(v, resnet_blocks_.data(), resnet_);
    } else if (v.kind == vision_kind::fastvit) {
      result<array<nn::fastvit_block>> blocks =
          array<nn::fastvit_block>::make(static_cast<std::size_t>(v.encoder.layers));
      result<array<nn::fastvit_weights>> weights = array<nn::fastvit_weights>::make(1);
      if (!blocks || !weights) return status::out_of_memory;
      fastvit_blocks_ = std::move(*blocks);
      fastvit_ = std::move(*weights);
      binder.fastvit(v, fastvit_blocks_.data(), fastvit_[0]);
    }
    if (has_text()) {
      result<array<nn::block_weights>> blocks =
          array<nn::block_weights>::make(static_cast<std::size_t>(config_.text.encoder.layers));
      if (!blocks) return blocks.error();
      text_blocks_ = std::move(*blocks);
      binder.text(config_.text, text_blocks_.data(), text_);
      text_form_ = form_of(text_blocks_);
    }
    return binder.error;
  }

  /// Pictures of the towers of feature maps, one after the other.
  status encode_maps(const nn::runner<dynamic>& run, const nn::image_batch& in, float* out, workspace& work,
                     const nn::stage_observer& observe) const noexcept {
    const vision_config& v = config_.vision;
    if (in.height != v.image_h || in.width != v.image_w || (in.pixels == nullptr && in.rgb == nullptr))
      return status::wrong_shape;
    const bool fastvit = v.kind == vision_kind::fastvit;
    nn::resnet_buffers resnet;
    nn::fastvit_buffers maps;
    const status placed = lay_out(work, [&](unsigned char* base) {
      return fastvit ? maps.carve(base, v, in.height, in.width, parts_of(run.exec))
                     : resnet.carve(base, v, in.height, in.width, parts_of(run.exec));
    });
    if (placed != status::ok) return placed;
    for (int i = 0; i < in.count; i++, out += v.embed) {
      if (fastvit) {
        nn::fastvit_forward(run, config_, fastvit_[0], in, i, maps, out, observe);
      } else {
        nn::resnet_forward(run, config_, resnet_, in, i, resnet, out, observe);
      }
    }
    return status::ok;
  }

#if OCELLUS_HAS_MMAP
  mapped_file mapping_;
#endif
  packed_file file_;
  model_config config_;
  dynamic kernels_{kernel_table{}};
  array<nn::block_weights> vision_blocks_, text_blocks_;
  dtype vision_form_ = dtype::f32, text_form_ = dtype::f32;  ///< of activations, as nn::block_buffers has it
  nn::vision_weights vision_;
  array<nn::bottleneck_weights> resnet_blocks_;
  nn::resnet_weights resnet_;
  array<nn::fastvit_block> fastvit_blocks_;
  array<nn::fastvit_weights> fastvit_;  ///< one or none: not in each model
  nn::text_weights text_;
  std::optional<ocellus::tokenizer> tokenizer_;
};

OCELLUS_END
