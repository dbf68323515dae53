#include "plan.hpp"

#include <algorithm>
#include <cmath>
#include <map>
#include <memory>
#include <span>

namespace ocellus::convert {

/// The whole tensors read last. A stack of all blocks (big_vision's scanned layers) is used by each block in
/// turn; reading it once per block would read a 2 GB file 27 times. Everything that the tensor at hand does
/// not need goes.
class tensor_cache {
 public:
  explicit tensor_cache(const checkpoint& file) : file_(file) {}

  void keep_only(const std::vector<piece>& pieces) {
    std::erase_if(kept_, [&](const auto& entry) {
      return std::none_of(pieces.begin(), pieces.end(),
                          [&](const piece& p) { return p.name == entry.first; });
    });
  }

  outcome<const std::vector<float>*> stack(const std::string& name) {
    if (const auto found = kept_.find(name); found != kept_.end()) return &found->second;
    const tensor_info* t = file_.find(name);
    std::vector<float> values;
    if (auto read = file_.read_f32(*t, values); !read) return read.failure();
    return &(kept_[name] = std::move(values));
  }

 private:
  checkpoint file_;
  std::map<std::string, std::vector<float>> kept_;
};

namespace {

std::int64_t product(std::span<const std::int64_t> shape) {
  std::int64_t n = 1;
  for (const std::int64_t d : shape) n *= d;
  return n;
}

std::span<const std::int64_t> without_leading_ones(std::span<const std::int64_t> shape) {
  while (!shape.empty() && shape.front() == 1) shape = shape.subspan(1);
  return shape;
}

/// Transposes in[k, n] to out[n, k], in tiles that stay in L1.
void transpose(const float* in, float* out, std::int64_t n, std::int64_t k) {
  constexpr std::int64_t tile = 32;
  for (std::int64_t i0 = 0; i0 < n; i0 += tile)
    for (std::int64_t j0 = 0; j0 < k; j0 += tile)
      for (std::int64_t i = i0; i < std::min(i0 + tile, n); i++)
        for (std::int64_t j = j0; j < std::min(j0 + tile, k); j++) out[i * k + j] = in[j * n + i];
}

/// Reads a piece's elements in the order of the planned tensor; k is the row length there.
outcome<void> read_piece(const checkpoint& file, tensor_cache& cache, const piece& p, std::int64_t k,
                         std::vector<float>& out) {
  const std::int64_t elements = product(p.shape);
  if (p.name.empty()) {
    out.assign(static_cast<std::size_t>(elements), 0.f);
    return {};
  }
  std::vector<float> whole;
  if (p.block >= 0) {
    auto stack = cache.stack(p.name);
    if (!stack) return stack.failure();
    const auto begin = (*stack)->begin() + static_cast<std::ptrdiff_t>(p.block) * elements;
    whole.assign(begin, begin + elements);
  } else if (auto read = file.read_f32(*file.find(p.name), whole); !read) {
    return read.failure();
  }
  switch (p.how) {
    case piece::order::rows: out = std::move(whole); break;
    case piece::order::transposed:
      out.resize(whole.size());
      transpose(whole.data(), out.data(), elements / k, k);
      break;
    case piece::order::conv: {
      const std::int64_t channels = p.shape[1], pixels = p.shape[2] * p.shape[3];
      out.resize(whole.size());
      for (std::int64_t n = 0; n < p.shape[0]; n++)
        transpose(whole.data() + n * channels * pixels, out.data() + n * channels * pixels, pixels, channels);
      break;
    }
  }
  if (p.count != 0) {
    if (p.first != 0)
      std::copy(out.begin() + p.first * k, out.begin() + (p.first + p.count) * k, out.begin());
    out.resize(static_cast<std::size_t>(p.count * k));
  }
  if (!p.gain.empty()) {
    std::vector<float> gain;
    const std::int64_t rows = static_cast<std::int64_t>(out.size()) / k;
    if (auto read = file.read_f32(*file.find(p.gain), gain); !read) return read.failure();
    for (std::int64_t i = 0; i < rows; i++)
      for (std::int64_t j = 0; j < k; j++)
        out[static_cast<std::size_t>(i * k + j)] *= gain[static_cast<std::size_t>(i)];
  }
  if (p.heads_of != 0) {
    const std::vector<float> rows = out;
    const std::int64_t d = p.heads_of, count = static_cast<std::int64_t>(rows.size()) / k;
    for (std::int64_t i = 0; i < count; i++) {
      const std::int64_t at = i % d, from = i - at + (at < d / 2 ? 2 * at : 2 * at - d + 1);
      std::copy_n(rows.begin() + from * k, k, out.begin() + i * k);
    }
  }
  if (p.factor != 1.f)
    for (float& x : out) x *= p.factor;
  return {};
}

std::string sources_of(const std::vector<piece>& pieces) {
  std::string names;
  for (const piece& p : pieces) {
    if (p.name.empty()) continue;
    if (!names.empty()) names += ", ";
    names += printable(p.name);
  }
  return names;
}

}  // namespace

plan::plan(const checkpoint& file, std::string layout)
    : file_(file), cache_(std::make_shared<tensor_cache>(file)) {
  model_.layout = std::move(layout);
}

void plan::fail(std::string what) {
  if (!problem_) problem_ = std::move(what);
}

void plan::note_switch(std::string name, std::string value, std::string origin) {
  model_.switches.push_back({std::move(name), std::move(value), std::move(origin)});
}

bool plan::has_prefix(std::string_view prefix) const noexcept {
  return std::any_of(file_.tensors().begin(), file_.tensors().end(),
                     [&](const tensor_info& t) { return t.name.starts_with(prefix); });
}

std::int64_t plan::dim(std::string_view name, int axis) {
  const tensor_info* t = file_.find(name);
  if (t == nullptr) {
    fail("tensor " + printable(name) + " is missing");
    return 0;
  }
  const int rank = static_cast<int>(t->shape.size());
  if (axis < 0) axis += rank;
  if (axis < 0 || axis >= rank) {
    fail("tensor " + printable(name) + " has shape " + to_string(t->shape) + ", too few dimensions");
    return 0;
  }
  return t->shape[static_cast<std::size_t>(axis)];
}

int plan::count(std::string_view prefix, std::string_view suffix) const {
  int n = 0;
  while (n < 256 && has(std::string(prefix) + std::to_string(n) + std::string(suffix))) n++;
  return n;
}

bool plan::check(const piece& p) {
  if (p.name.empty()) return true;
  used_.insert(p.name);
  if (!p.gain.empty()) used_.insert(p.gain);
  const tensor_info* t = file_.find(p.name);
  if (t == nullptr) {
    fail("tensor " + printable(p.name) + " is missing");
    return false;
  }
  shape_list wanted = p.shape;
  if (p.block >= 0) wanted.insert(wanted.begin(), p.blocks);
  // A stack's leading dimension counts even if it is 1.
  const bool same = p.block >= 0
                        ? t->shape == wanted
                        : std::ranges::equal(without_leading_ones(t->shape), without_leading_ones(wanted));
  if (!same) {
    fail("tensor " + printable(p.name) + " has shape " + to_string(t->shape) + ", expected " +
         to_string(wanted));
    return false;
  }
  if (!t->floating()) {
    fail("tensor " + printable(p.name) + " has type " + to_string(t->type) + ", weights are floating-point");
    return false;
  }
  return true;
}

void plan::add(std::string name, storage kind, shape_list shape, std::vector<piece> pieces) {
  if (!ok()) return;
  for (const std::int64_t d : shape)
    if (d < 1 || d > (1 << 24))
      return fail("the size " + std::to_string(d) + " of " + name + " is out of range");
  const std::int64_t k = product(std::span(shape).subspan(1)), total = product(shape);
  std::int64_t elements = 0;
  for (const piece& p : pieces) {
    if (!check(p)) return;
    elements += p.count != 0 ? p.count * k : product(p.shape);
    if (!p.gain.empty()) {
      const tensor_info* gain = file_.find(p.gain);
      const std::int64_t rows = (p.count != 0 ? p.count * k : product(p.shape)) / k;
      if (gain == nullptr) return fail("tensor " + printable(p.gain) + " is missing");
      if (!std::ranges::equal(gain->shape, shape_list{rows}) || !gain->floating())
        return fail("tensor " + printable(p.gain) + " has shape " + to_string(gain->shape) + ", expected " +
                    to_string(shape_list{rows}));
    }
  }
  for (const piece& p : pieces)
    if (p.heads_of != 0 && (p.heads_of % 2 != 0 || (p.count != 0 ? p.count : product(p.shape) / k) % p.heads_of != 0))
      return fail("the rows of " + name + " make no heads of " + std::to_string(p.heads_of));
  if (elements != total)
    return fail("the parts of " + name + " do not make up its shape " + to_string(shape));

  planned_tensor t;
  t.name = std::move(name);
  t.kind = kind;
  t.shape.assign(shape.begin(), shape.end());
  t.source = sources_of(pieces);
  t.read = [file = file_, cache = cache_, pieces = std::move(pieces), k,
            total](std::vector<float>& out) -> outcome<void> {
    cache->keep_only(pieces);
    if (pieces.size() == 1) return read_piece(file, *cache, pieces.front(), k, out);
    out.resize(static_cast<std::size_t>(total));
    auto end = out.begin();
    std::vector<float> part;
    for (const piece& p : pieces) {
      if (auto read = read_piece(file, *cache, p, k, part); !read) return read;
      end = std::copy(part.begin(), part.end(), end);
    }
    return {};
  };
  model_.tensors.push_back(std::move(t));
}

void plan::norm(const std::string& name, const std::string& source, std::int64_t width) {
  exact(name + ".weight", {width}, piece{source + ".weight", {width}});
  exact(name + ".bias", {width}, piece{source + ".bias", {width}});
}

void plan::linear(const std::string& name, const std::string& source, std::int64_t n, std::int64_t k, bool bias,
                  const std::string& gain) {
  matrix(name + ".weight", {n, k}, piece{source + ".weight", {n, k}}.times(gain));
  if (bias) exact(name + ".bias", {n}, piece{source + ".bias", {n}}.times(gain));
}

void plan::stacked_linear(const std::string& name, const std::vector<std::string>& sources, std::int64_t n,
                          std::int64_t k, bool bias) {
  std::vector<piece> weights, biases;
  for (const std::string& source : sources) {
    weights.push_back({source + ".weight", {n, k}});
    biases.push_back({source + ".bias", {n}});
  }
  const auto total = static_cast<std::int64_t>(sources.size()) * n;
  matrix(name + ".weight", {total, k}, std::move(weights));
  if (bias) exact(name + ".bias", {total}, std::move(biases));
}

void plan::computed(std::string name, storage kind, shape_list shape, std::vector<piece> sources,
                    recipe make) {
  if (!ok()) return;
  for (const piece& p : sources)
    if (!check(p)) return;
  planned_tensor t;
  t.name = std::move(name);
  t.kind = kind;
  t.shape.assign(shape.begin(), shape.end());
  t.source = sources_of(sources);
  t.read = [file = file_, cache = cache_, sources = std::move(sources), make = std::move(make),
            total = product(shape)](std::vector<float>& out) -> outcome<void> {
    cache->keep_only(sources);
    std::vector<std::vector<float>> parts(sources.size());
    for (std::size_t i = 0; i < sources.size(); i++) {
      const piece& p = sources[i];
      const std::int64_t k =
          p.how == piece::order::transposed ? p.shape.front() : product(std::span(p.shape).subspan(1));
      if (auto read = read_piece(file, *cache, p, k, parts[i]); !read) return read;
    }
    out.assign(static_cast<std::size_t>(total), 0.f);
    make(parts, out);
    return {};
  };
  model_.tensors.push_back(std::move(t));
}

double plan::scalar(const std::string& name) {
  if (!ok()) return 0;
  std::vector<float> value;
  if (!check({name, {1}})) return 0;
  if (auto read = file_.read_f32(*file_.find(name), value); !read) {
    fail(read.failure().what);
    return 0;
  }
  if (!std::isfinite(value[0])) {
    fail("tensor " + printable(name) + " is not a finite number");
    return 0;
  }
  return static_cast<double>(value[0]);
}

bool plan::ignorable(const std::string& name) const {
  return ignored_.count(name) != 0 || std::any_of(ignored_suffixes_.begin(), ignored_suffixes_.end(),
                                                  [&](const std::string& s) { return name.ends_with(s); });
}

void plan::transpose_last_keys() {
  const vision_config& v = config().vision;
  const std::string attn = "vision.blocks." + std::to_string(v.encoder.layers - 1) + ".attn.";
  const auto qkv = std::ranges::find(model_.tensors, attn + "qkv.weight", &planned_tensor::name);
  if (qkv == model_.tensors.end()) return;
  const auto c = static_cast<std::uint32_t>(v.encoder.width), heads = static_cast<std::uint32_t>(v.encoder.heads),
             d = static_cast<std::uint32_t>(v.encoder.head_width);
  planned_tensor t;
  t.name = attn + "keys_t.weight";
  t.kind = storage::matrix;
  t.shape = {heads * c, d};
  t.source = qkv->source;
  t.read = [read = qkv->read, c, heads, d](std::vector<float>& out) -> outcome<void> {
    std::vector<float> all;
    if (auto done = read(all); !done) return done;
    const std::size_t inner = std::size_t{heads} * d;
    if (all.size() != 3 * inner * c) return error{"attention of another size"};
    out.resize(inner * c);
    for (std::size_t i = 0; i < inner; i++)
      for (std::size_t j = 0; j < c; j++) out[(i / d * c + j) * d + i % d] = all[(inner + i) * c + j];
    return {};
  };
  model_.tensors.push_back(std::move(t));
}

void plan::note_pictures() {
  const vision_config& v = model_.config.vision;
  const preprocess_config& c = model_.config.preprocess;
  if (v.kind == vision_kind::none || v.naflex != 0) return;
  const auto size = [](int h, int w) { return std::to_string(h) + " x " + std::to_string(w); };
  const std::string reads = "the model reads " + size(v.image_h, v.image_w);
  const bool crops = c.crop_h != 0, squashes = c.resize == resize_mode::squash;
  const int h = crops ? c.crop_h : c.size_h, w = crops ? c.crop_w : c.size_w;
  if ((crops || squashes) && (h != v.image_h || w != v.image_w)) {
    note("pictures cannot be embedded: the preprocessor makes them " + size(h, w) + ", " + reads);
  } else if (crops && (c.resize == resize_mode::none || h > c.size_h || w > (squashes ? c.size_w : c.size_h))) {
    note("pictures may be smaller than the preprocessor's crop, and cannot be embedded then: ocellus does not pad");
  } else if (!crops && !squashes) {
    note("pictures that the preprocessor leaves at another size cannot be embedded: " + reads);
  }
}

outcome<model_source> plan::finish() {
  std::string left;
  int more = 0;
  for (const tensor_info& t : file_.tensors()) {
    if (!ok()) break;
    if (used_.count(t.name) != 0 || ignorable(t.name)) continue;
    if (std::any_of(owned_.begin(), owned_.end(), [&](const std::string& p) { return t.name.starts_with(p); })) {
      fail("tensor " + printable(t.name) + " " + to_string(t.shape) +
           " has no place in the configured model: another architecture or number of layers");
    } else if (left.size() > 160) {
      more++;
    } else {
      left += (left.empty() ? "" : ", ") + printable(t.name);
    }
  }
  if (ok() && !left.empty())
    note("tensors left out: " + left + (more != 0 ? " and " + std::to_string(more) + " more" : ""));
  if (ok() && !valid(model_.config))
    fail("the configuration is not one that ocellus can run: a size is out of range or two of them disagree");
  if (!ok()) return error{*problem_};
  note_pictures();
  if (pools_in_last_block(model_.config.vision)) transpose_last_keys();
  return std::move(model_);
}

}  // namespace ocellus::convert
