// ocellus: embeddings and zero-shot answers from a packed model, at the command line.
#include "program.hpp"

#include <cstdio>
#include <exception>

int main(int argc, char** argv) {
  CLI::App app{
      "ocellus " OCELLUS_VERSION_STRING
      ": CLIP and SigLIP on any CPU.\n"
      "Models are packed files (.oc) that ocellus-convert makes from PyTorch checkpoints.\n\n"
      "  ocellus classify model.oc --image cat.jpg --labels \"a cat,a dog,a tram\"\n"
      "  ocellus embed model.oc --image *.jpg -o photos.npy\n"
      "  ocellus info model.oc\n",
      "ocellus"};
  app.require_subcommand(1);
  app.set_version_flag("--version", OCELLUS_VERSION_STRING);
  cli::add_classify(app);
  cli::add_embed(app);
  cli::add_tokenize(app);
  cli::add_preprocess(app);
  cli::add_info(app);
  cli::add_bench(app);
  try {
    app.parse(argc, argv);
    return 0;
  } catch (const CLI::Success& e) {  // --help, --version
    return app.exit(e);
  } catch (const CLI::ParseError& e) {
    std::fprintf(stderr, "ocellus: %s (see ocellus --help)\n", e.what());
    return 2;
  } catch (const cli::already_said&) {
    return 1;
  } catch (const cli::usage& e) {
    std::fprintf(stderr, "ocellus: %s\n", e.what());
    return 2;
  } catch (const std::bad_alloc&) {
    std::fprintf(stderr, "ocellus: out of memory\n");
    return 1;
  } catch (const std::exception& e) {
    std::fprintf(stderr, "ocellus: %s\n", e.what());
    return 1;
  }
}
