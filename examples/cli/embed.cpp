// ocellus embed: pictures, texts, ready-made pixels or ids to an array of embeddings.
#include "npy.hpp"
#include "program.hpp"

#include <cstdio>
#include <limits>

namespace cli {

using namespace ocellus;

namespace {

struct options : compute_options {
  std::string model, images_file, texts_file, pixels, shapes, ids, out;
  std::vector<std::string> images, texts;
  bool raw = false, upright = false, keep_going = false;
};

/// `bad` counts pictures without an embedding, which keep a row of zeros.
std::vector<float> embed_images(const model& m, options& o, std::size_t& bad) {
  const auto width = static_cast<std::size_t>(m.embed());
  std::vector<float> e(o.images.size() * width);
  const ocellus::executor threads = o.executor();
  const std::size_t chunk = o.chunk();
  workspace work;
  counter progress("pictures", o.images.size());
  for (std::size_t i = 0; i < o.images.size(); i += chunk) {
    const std::size_t end = std::min(i + chunk, o.images.size());
    const picture_chunk pictures = load_pictures(m, o.images, i, end, o.upright, threads);
    encode_chunk(m, pictures, e.data() + i * width, nullptr, work, threads);
    for (std::size_t j = i; j < end; j++) {
      const std::string& error = pictures.errors[j - i];
      if (error.empty()) continue;
      if (!o.keep_going) throw failure(o.images[j] + ": " + error);
      progress.clear();
      std::fprintf(stderr, "ocellus: %s: %s\n", o.images[j].c_str(), error.c_str());
      bad++;
    }
    progress.at(end);
  }
  return e;
}

std::vector<float> embed_texts(const model& m, options& o) {
  const std::vector<std::string> texts = o.texts_file.empty() ? o.texts : read_texts(o.texts_file);
  std::vector<float> e(texts.size() * static_cast<std::size_t>(m.text_embed()));
  const std::vector<std::string_view> views(texts.begin(), texts.end());
  workspace work;
  counter progress("texts", texts.size());
  constexpr std::size_t chunk = 8192;  // sorted and shared within a chunk
  for (std::size_t i = 0; i < texts.size(); i += chunk) {
    const std::size_t n = std::min(chunk, texts.size() - i);
    const status s = m.encode_texts(
        {views.data() + i, n}, e.data() + i * static_cast<std::size_t>(m.text_embed()), work, o.executor());
    if (s != status::ok) fail(o.model, s);
    progress.at(i + n);
  }
  return e;
}

std::vector<float> embed_pixels(const model& m, options& o) {
  if (!m.has_vision()) fail(o.model, status::no_vision_tower);
  const npy<float> p = read_npy_f32(o.pixels);
  const auto& s = p.shape;
  const vision_config& v = m.config().vision;
  nn::image_batch in;
  std::vector<int> grids;
  if (!o.shapes.empty()) {
    const npy<std::int64_t> g = read_npy_i64(o.shapes);
    if (v.naflex == 0) throw failure(o.model + ": --shapes is for models with variable resolution (NaFlex)");
    if (s.size() != 3 || s[2] != v.patch * v.patch * 3)
      throw failure(o.pixels + ": patches [B, patches, " + std::to_string(v.patch * v.patch * 3) +
                    "] are needed with --shapes");
    if (g.shape.size() != 2 || g.shape[0] != s[0] || g.shape[1] != 2)
      throw failure(o.shapes + ": shape [B, 2] is needed");
    for (std::int64_t i = 0; i < s[0]; i++) {
      const std::int64_t h = g.values[static_cast<std::size_t>(2 * i)],
                         w = g.values[static_cast<std::size_t>(2 * i + 1)];
      if (h < 1 || w < 1 || h > s[1] || w > s[1] || h * w > s[1])
        throw failure(o.shapes + ": row " + std::to_string(i) + " asks for more patches than there are");
      grids.push_back(static_cast<int>(h));
      grids.push_back(static_cast<int>(w));
    }
    in.patches = p.values.data();
    in.patch_stride = static_cast<int>(s[1]);
    in.grids = grids.data();
  } else {
    if (v.naflex != 0) throw failure(o.model + ": a model with variable resolution (NaFlex) needs --shapes");
    if (s.size() != 4 || s[1] != 3) throw failure(o.pixels + ": shape [B, 3, H, W] is needed");
    if (s[2] > 8192 || s[3] > 8192) throw failure(o.pixels + ": too many pixels");
    in.pixels = p.values.data();
    in.height = static_cast<int>(s[2]);
    in.width = static_cast<int>(s[3]);
  }
  if (s[0] > 1 << 24) throw failure(o.pixels + ": too many pictures");
  in.count = static_cast<int>(s[0]);
  std::vector<float> e(static_cast<std::size_t>(s[0]) * static_cast<std::size_t>(m.embed()));
  workspace work;
  const status done = m.encode_batch(in, e.data(), work, o.executor());
  if (done == status::wrong_shape && v.positions != position_resize::none)
    throw failure(o.pixels + ": the model reads at least one patch of " + std::to_string(v.patch) + " x " +
                  std::to_string(v.patch) + " pixels, and at most " + std::to_string(model::max_tokens) + " patches");
  if (done == status::wrong_shape)
    throw failure(o.pixels + ": the model reads " + std::to_string(v.image_h) + " x " +
                  std::to_string(v.image_w) + " pixels");
  if (done != status::ok) fail(o.model, done);
  return e;
}

std::vector<float> embed_ids(const model& m, options& o) {
  if (!m.has_text()) fail(o.model, status::no_text_tower);
  const npy<std::int64_t> a = read_npy_i64(o.ids);
  if (a.shape.size() != 2) throw failure(o.ids + ": shape [B, T] is needed");
  if (a.shape[1] < 1 || a.shape[1] > m.config().text.context)
    throw failure(o.ids + ": the model takes at most " + std::to_string(m.config().text.context) +
                  " ids a text");
  std::vector<std::int32_t> ids;
  for (const std::int64_t id : a.values)
    ids.push_back(id < 0 || id > std::numeric_limits<std::int32_t>::max() ? -1
                                                                          : static_cast<std::int32_t>(id));
  std::vector<float> e(static_cast<std::size_t>(a.shape[0]) * static_cast<std::size_t>(m.text_embed()));
  workspace work;
  const status s = m.encode_ids(ids.data(), static_cast<int>(a.shape[0]), static_cast<int>(a.shape[1]),
                                e.data(), work, o.executor());
  if (s != status::ok) fail(o.ids, s);
  return e;
}

void embed(options& o) {
  const bool pictures = !o.images.empty() || !o.images_file.empty();
  const int kinds =
      pictures + !o.texts.empty() + !o.texts_file.empty() + !o.pixels.empty() + !o.ids.empty();
  if (kinds != 1) throw usage("embed: give exactly one of --image (or --images), --text, --texts, --pixels, --ids");
  if (!o.shapes.empty() && o.pixels.empty()) throw usage("embed: --shapes goes with --pixels");
  if (o.keep_going && !pictures) throw usage("embed: --keep-going goes with --image");
  const model m = open_model(o.model, o);
  const bool text = !o.texts.empty() || !o.texts_file.empty() || !o.ids.empty();
  if (text ? !m.has_text() : !m.has_vision())
    fail(o.model, text ? status::no_text_tower : status::no_vision_tower);
  if (text && o.ids.empty() && m.tokenizer() == nullptr)
    throw failure(o.model +
                  ": the model has no tokenizer; convert it again with --tokenizer PATH, or give --ids");
  check_writable(o.out);
  add_paths(o.images_file, o.images);
  std::size_t bad = 0;
  std::vector<float> e = pictures                                      ? embed_images(m, o, bad)
                         : !o.pixels.empty()                           ? embed_pixels(m, o)
                         : !o.ids.empty()                              ? embed_ids(m, o)
                                                                       : embed_texts(m, o);
  const int width = text ? m.text_embed() : m.embed();
  const int rows = static_cast<int>(e.size() / static_cast<std::size_t>(width));
  if (!o.raw) m.normalize(e.data(), rows, width);
  write_npy(o.out, e.data(), {rows, width});
  if (bad != 0) throw already_said();
}

}  // namespace

void add_embed(CLI::App& app) {
  CLI::App* c =
      app.add_subcommand("embed", "Pictures or texts to embeddings: a float32 array [N, E] in a .npy file");
  const auto o = std::make_shared<options>();
  c->add_option("model", o->model, "The packed model (.oc)")->required();
  c->add_option("--image", o->images, "Picture files: JPEG, PNG, BMP, GIF, TGA, PNM");
  c->add_option("--images", o->images_file, "File with one path of a picture a line, or NUL behind each; -: standard input");
  c->add_option("--text", o->texts, "Texts");
  c->add_option("--texts", o->texts_file,
                "File with one text a line, or .jsonl with {\"text\": ...} a line; -: standard input");
  c->add_option("--pixels", o->pixels,
                "Normalised pixels, float32 [B, 3, H, W] .npy (NaFlex: patches [B, n, P*P*3])");
  c->add_option("--shapes", o->shapes, "NaFlex, with --pixels: int64 [B, 2] .npy, patches down and across");
  c->add_option("--ids", o->ids, "Token ids, int64 [B, T] .npy");
  c->add_option("-o,--output", o->out, "Where to write the embeddings (.npy; -: standard output)")->required();
  c->add_flag("--raw", o->raw, "Before normalisation; by default each row has length 1");
  c->add_flag("--upright", o->upright,
              "Turn pictures by their EXIF orientation first (the references do not)");
  c->add_flag("--keep-going", o->keep_going,
              "Pictures that cannot be read get a row of zeros, a line on stderr and exit code 1, the others their\n"
              "embeddings; by default the first such picture ends it");
  o->add_to(*c);
  c->callback([o] { embed(*o); });
}

}  // namespace cli
