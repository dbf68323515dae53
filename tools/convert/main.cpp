// ocellus-convert: a checkpoint of any framework in, one packed file out. See README.md beside this file.
#include "command_line.hpp"
#include "convert.hpp"
#include "device.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>
#include <fstream>

namespace {

constexpr const char* description =
    "Converts a CLIP or SigLIP checkpoint into one packed file that ocellus maps into memory.\n\n"
    "SRC is a checkpoint (.pt, .pth, .bin, .safetensors, .npz, a shard index) or the folder that was "
    "downloaded. The\n"
    "configuration and the tokenizer are taken from beside it; nothing in the file is executed.";

constexpr const char* examples =
    "Examples:\n"
    "  ocellus-convert ViT-B-32.pt -o vit-b-32.oc --tokenizer bpe_simple_vocab_16e6.txt.gz\n"
    "  ocellus-convert siglip-base-patch16-224/ -o siglip.oc --dtype f16\n"
    "  ocellus-convert model.safetensors -o model.oc --config open_clip_config.json\n"
    "  ocellus-convert demo.pt -o demo.oc --dtype s8 --vision-only --emit-header demo.hpp --labels cat,dog\n\n"
    "Exit codes: 0 done, 1 the input or the output is at fault (one line says why), 2 wrong usage.";

int wrong_usage(const std::string& why) {
  std::fprintf(stderr, "ocellus-convert: %s\n", why.c_str());
  return 2;
}

/// The lines of a file that are not empty; none if it cannot be read.
std::vector<std::string> read_lines(const std::string& path) {
  std::vector<std::string> lines;
  std::ifstream in(path);
  for (std::string line; std::getline(in, line);) {
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (!line.empty()) lines.push_back(line);
  }
  return lines;
}

int run(int argc, char** argv) {
  CLI::App app(description, "ocellus-convert");
  app.footer(examples);
  ocellus::convert::convert_options options;
  std::string source, output, tokenizer, config, calibrate, header, labels_file, type = "f32";
  ocellus::convert::device_options device;
  bool quiet = false;
  app.add_option("SRC", source, "The checkpoint, or its folder")->required();
  app.add_option("-o,--output", output, "The packed file to write")->required()->type_name("OUT.oc");
  app.add_option("--dtype", type, "How the weights are stored: f32, f16, bf16 or s8 (8-bit integers)")
      ->check(CLI::IsMember({"f32", "f16", "bf16", "s8"}))
      ->capture_default_str();
  app.add_option(
         "--tokenizer", tokenizer,
         "A vocabulary: bpe_simple_vocab_16e6.txt.gz, tokenizer.json, spiece.model, or a folder with\n"
         "vocab.json and merges.txt; \"none\" converts without one")
      ->type_name("PATH");
  app.add_option("--config", config,
                 "The model's configuration (config.json, open_clip_config.json) when it is not beside the "
                 "checkpoint")
      ->type_name("FILE");
  app.add_option("--calibrate", calibrate,
                 "With --dtype s8: a folder of pictures like those that the model will see. Weights are smoothed and\n"
                 "rounded for them (without, for built-in ones), and blocks that lose too much keep 16 bits")
      ->type_name("DIR");
  app.add_option("--licence", options.licence, "A note on the licence of the weights, kept in the file")
      ->type_name("TEXT");
  app.add_flag("--vision-only", device.vision_only, "Keep the image tower alone (embeddings stay comparable)");
  app.add_option("--emit-header", header, "Write the packed file as a C++ array too, with its configuration: for firmware")
      ->type_name("FILE.hpp");
  app.add_option("--labels", device.labels, "With --emit-header: labels whose embeddings go into the header")
      ->delimiter(',')
      ->type_name("A,B,...");
  app.add_option("--labels-file", labels_file, "The same from a file, one label a line")->type_name("FILE");
  app.add_option("--template", device.templates, "Prompt with {} for the label; several are averaged (default: a photo of a {}.)")
      ->type_name("TEXT");
  app.add_flag("-q,--quiet", quiet, "No progress bar and no summary");
  app.set_version_flag("--version", ocellus::convert::converter_version);
  try {
    ocellus::convert::prepare_console();
    ocellus::convert::parse_as_given(app, argc, argv);
  } catch (const CLI::Success& e) {  // --help, --version
    return ocellus::convert::after_printing("ocellus-convert", app.exit(e));
  } catch (const CLI::ParseError& e) {
    return wrong_usage(std::string(e.what()) + " (see ocellus-convert --help)");
  }
  options.source = source;
  options.output = output;
  if (!tokenizer.empty()) options.tokenizer = tokenizer;
  if (!config.empty()) options.config = config;
  if (!calibrate.empty() && type != "s8") return wrong_usage("--calibrate goes with --dtype s8");
  if (!labels_file.empty()) {
    if (!device.labels.empty()) return wrong_usage("give --labels or --labels-file, not both");
    device.labels = read_lines(labels_file);
    if (device.labels.empty()) {
      std::fprintf(stderr, "ocellus-convert: %s: no labels\n", labels_file.c_str());
      return 1;
    }
  }
  if (!device.labels.empty() && header.empty()) return wrong_usage("labels go with --emit-header");
  if (!device.templates.empty() && device.labels.empty()) return wrong_usage("--template goes with labels");
  if (device.templates.empty()) device.templates = {"a photo of a {}."};
  for (const std::string& pattern : device.templates)
    if (pattern.find("{}") == std::string::npos) return wrong_usage("a template needs {} for the label");
  if (!header.empty()) device.header = header;
  if (!calibrate.empty()) options.calibrate = calibrate;
  options.type = type == "f16" ? ocellus::dtype::f16 : type == "bf16" ? ocellus::dtype::bf16
                 : type == "s8" ? ocellus::dtype::s8 : ocellus::dtype::f32;
  options.show_progress = !quiet;

  const auto done = ocellus::convert::convert(options);
  if (!done) {
    std::fprintf(stderr, "ocellus-convert: %s\n", done.failure().what.c_str());
    return 1;
  }
  if (const auto made = ocellus::convert::prepare_for_device(output, device); !made) {
    std::fprintf(stderr, "ocellus-convert: %s\n", made.failure().what.c_str());
    return 1;
  }
  if (quiet) return 0;
  std::printf(
      "%s\n  layout     %s (%s)\n  towers     %s\n  tensors    %s\n  tokenizer  %s\n  size       %.1f MB "
      "from %.1f MB\n"
      "  time       %.1f s\n",
      output.c_str(), done->layout.c_str(), done->container.c_str(), done->towers.c_str(),
      done->types.c_str(), done->tokenizer.c_str(), static_cast<double>(done->bytes) / 1e6,
      static_cast<double>(done->source_bytes) / 1e6, done->seconds);
  for (const std::string& line : done->report) std::printf("  int8       %s\n", line.c_str());
  for (const std::string& note : done->notes) std::printf("  note       %s\n", note.c_str());
  return ocellus::convert::after_printing("ocellus-convert", 0);
}

}  // namespace

int main(int argc, char** argv) {
  try {
    return run(argc, argv);
  } catch (const std::bad_alloc&) {
    std::fputs("ocellus-convert: not enough memory\n", stderr);
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ocellus-convert: %s\n", e.what());
  }
  return 1;
}
