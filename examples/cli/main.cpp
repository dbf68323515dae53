// ocellus: embeddings and zero-shot answers from a packed model, at the command line.
#include "program.hpp"

#include "command_line.hpp"

#include <cstdio>
#include <exception>
#include <string>
#include <vector>

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
    ocellus::convert::prepare_console();
    ocellus::convert::parse_as_given(app, argc, argv);
    return ocellus::convert::after_printing("ocellus", 0);
  } catch (const CLI::Success& e) {  // --help, --version
    return ocellus::convert::after_printing("ocellus", app.exit(e));
  } catch (const CLI::ParseError& e) {
    const std::vector<std::string> rest = app.remaining();
    std::string why = e.what();
    if (app.get_subcommands().empty() && !rest.empty()) why = rest.front() + ": no such command";
    if (why == "model is required") why += ": it stands before options of many values, as --image and --text are";
    std::fprintf(stderr, "ocellus: %s (see ocellus --help)\n", why.c_str());
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
