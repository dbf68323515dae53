// ocellus preprocess: what the vision tower will see, as a picture: resized and cropped byte for byte as
// Pillow does.
#include "program.hpp"

#include "command_line.hpp"

#include <ocellus/image/save.hpp>

namespace cli {

using namespace ocellus;

namespace {

struct options : compute_options {
  std::vector<std::string> paths;
  std::string resize, filter = "bicubic", crop_offset = "round", out;
  int size = 0, crop = 0, patch = 16, max_patches = 256, pillow = 12;
  bool upright = false;
};

preprocess_config config_of(const options& o) {
  preprocess_config c;
  c.resize = o.resize == "none"       ? resize_mode::none
             : o.resize == "shortest" ? resize_mode::shortest
             : o.resize == "squash"   ? resize_mode::squash
                                      : resize_mode::naflex;
  if (o.size == 0 && (c.resize == resize_mode::shortest || c.resize == resize_mode::squash))
    throw usage("preprocess: --resize " + o.resize + " needs --size");
  if (o.size > 0) c.size_h = c.size_w = o.size;
  c.crop_h = c.crop_w = o.crop;
  c.crop_offset = o.crop_offset == "floor" ? crop_rounding::floor : crop_rounding::round;
  c.filter = o.filter == "bilinear" ? resize_filter::bilinear : resize_filter::bicubic;
  c.patch = o.patch;
  c.max_patches = o.max_patches;
  return c;
}

void run(options& o) {
  const std::size_t expected = o.resize.empty() ? 2 : 1;
  if (o.paths.size() != expected)
    throw usage(expected == 2 ? "preprocess: give a model and an image, or --resize and an image"
                              : "preprocess: give one image");
  preprocess_config c;
  kernel_table kernels = o.kernels();
  if (o.resize.empty()) {
    const model m = open_model(o.paths[0], o);
    if (!m.has_vision()) fail(o.paths[0], status::no_vision_tower);
    c = m.config().preprocess;
  } else {
    c = config_of(o);
  }
  if (o.pillow >= 13) c.order = resize_order::pillow13;
  load_options load;
  load.exif_orientation = o.upright;
  const std::string& file = o.paths.back();
  const result<image> made = prepare_picture(file, c, kernels.resample, load);
  if (!made) fail(file, made.error());
  if (o.out == "-") {
    const result<array<std::uint8_t>> png = encode_png(*made);
    if (!png) fail(o.out, png.error());
    std::FILE* const out = convert::open_stream(STDOUT_FILENO, "wb");
    const bool written = out != nullptr && std::fwrite(png->data(), 1, png->size(), out) == png->size();
    if (out == nullptr || std::fclose(out) != 0 || !written) fail(o.out, status::cannot_write);
    return;
  }
  const status saved = save_png(o.out.c_str(), *made);
  if (saved != status::ok) fail(o.out, saved);
}

}  // namespace

void add_preprocess(CLI::App& app) {
  CLI::App* c = app.add_subcommand(
      "preprocess", "Resize and crop a picture as the model's reference does; write it as PNG");
  const auto o = std::make_shared<options>();
  c->add_option("paths", o->paths, "A model (.oc) and an image; or, with --resize, just an image")
      ->required();
  c->add_option("--resize", o->resize,
                "none, shortest (side to --size), squash (to --size x --size) or naflex")
      ->check(CLI::IsMember({"none", "shortest", "squash", "naflex"}));
  c->add_option("--size", o->size, "Pixels")->check(CLI::Range(1, 65536));
  c->add_option("--crop", o->crop, "Centre crop of this many pixels (default: none)")
      ->check(CLI::Range(1, 65536));
  c->add_option("--crop-offset", o->crop_offset, "round (torchvision) or floor (transformers)")
      ->check(CLI::IsMember({"round", "floor"}));
  c->add_option("--filter", o->filter, "bicubic or bilinear")->check(CLI::IsMember({"bicubic", "bilinear"}));
  c->add_option("--patch", o->patch, "naflex: side of a patch")->check(CLI::Range(1, 256));
  c->add_option("--max-patches", o->max_patches, "naflex: at most so many patches")
      ->check(CLI::Range(1, 65536));
  c->add_option("--pillow", o->pillow,
                "Order of the passes: 12 (horizontal first, default; 12.2 and 12.3 differ for pictures over 100 times "
                "as tall as wide) or 13")
      ->check(CLI::Range(9, 99));
  c->add_flag("--upright", o->upright,
              "Turn the picture by its EXIF orientation first (the references do not)");
  c->add_option("-o,--output", o->out, "Where to write the picture (.png)")->required();
  o->add_to(*c);
  c->get_option("--threads")->description("Taken as everywhere; a picture is prepared on one thread, as its rows come");
  c->callback([o] { run(*o); });
}

}  // namespace cli
