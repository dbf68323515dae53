// ocellus-convert: a checkpoint of any framework in, one packed file out. See README.md beside this file.
#include "convert.hpp"

#include <CLI/CLI.hpp>

#include <cstdio>
#include <exception>

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
    "  ocellus-convert model.safetensors -o model.oc --config open_clip_config.json\n\n"
    "Exit codes: 0 done, 1 the input or the output is at fault (one line says why), 2 wrong usage.";

int run(int argc, char** argv) {
  CLI::App app(description, "ocellus-convert");
  app.footer(examples);
  ocellus::convert::convert_options options;
  std::string source, output, tokenizer, config, calibrate, type = "f32";
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
                 "With --dtype s8: a folder of pictures like those that the model will see. Outlying channels are\n"
                 "smoothed by what is seen, and blocks that lose too much keep 16 bits")
      ->type_name("DIR");
  app.add_option("--licence", options.licence, "A note on the licence of the weights, kept in the file")
      ->type_name("TEXT");
  app.add_flag("-q,--quiet", quiet, "No progress bar and no summary");
  app.set_version_flag("--version", ocellus::convert::converter_version);
  try {
    app.parse(argc, argv);
  } catch (const CLI::ParseError& e) {
    return app.exit(e) == 0 ? 0 : 2;
  }
  options.source = source;
  options.output = output;
  if (!tokenizer.empty()) options.tokenizer = tokenizer;
  if (!config.empty()) options.config = config;
  if (!calibrate.empty() && type != "s8") {
    std::fputs("ocellus-convert: --calibrate goes with --dtype s8\n", stderr);
    return 2;
  }
  if (!calibrate.empty()) options.calibrate = calibrate;
  options.type = type == "f16" ? ocellus::dtype::f16 : type == "bf16" ? ocellus::dtype::bf16
                 : type == "s8" ? ocellus::dtype::s8 : ocellus::dtype::f32;
  options.show_progress = !quiet;

  const auto done = ocellus::convert::convert(options);
  if (!done) {
    std::fprintf(stderr, "ocellus-convert: %s\n", done.failure().what.c_str());
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
  return 0;
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
