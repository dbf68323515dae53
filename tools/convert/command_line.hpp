// What both programs owe to their command line: arguments as they were given, and an answer that arrived.
#pragma once

#include <CLI/CLI.hpp>

#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

namespace ocellus::convert {

/// As app.parse(argc, argv), but CLI11 would take "[a, b]" for a list of two texts and "[a]" for "a". Arguments that end
/// in such a bracket carry a NUL, which no argument can hold, until they are told apart.
inline void parse_as_given(CLI::App& app, int argc, char** argv) {
  const auto without_nul = [](std::string& value) {
    if (!value.empty() && value.back() == '\0') value.pop_back();
    return std::string();
  };
  const auto restore_in = [&](CLI::App& one) {
    for (CLI::Option* o : one.get_options()) o->transform(CLI::Validator(without_nul, ""));
  };
  restore_in(app);
  for (CLI::App* sub : app.get_subcommands({})) restore_in(*sub);
  std::vector<std::string> last_first;
  for (int i = argc - 1; i > 0; i--) {
    last_first.emplace_back(argv[i]);
    if (last_first.back().ends_with(']')) last_first.back() += '\0';
  }
  app.parse(std::move(last_first));
}

/// The exit code: `code`, or 1 with a line on stderr where stdout did not take all that was printed (a full disk).
inline int after_printing(const char* program, int code) {
  errno = 0;
  if (std::fflush(stdout) == 0 && std::ferror(stdout) == 0) return code;
  std::fprintf(stderr, "%s: standard output cannot be written%s%s\n", program, errno != 0 ? ": " : "",
               errno != 0 ? std::strerror(errno) : "");
  return 1;
}

}  // namespace ocellus::convert
