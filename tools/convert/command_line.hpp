// What both programs owe to their command line: arguments as they were given, and an answer that arrived.
#pragma once

#include <CLI/CLI.hpp>

#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <string>
#include <utility>
#include <vector>
#if defined(_WIN32)
#include <fcntl.h>
#include <io.h>

#include <windows.h>

/// mingw-w64: *.jpg names files, for the shells of Windows do not look.
extern "C" [[gnu::used]] inline int _dowildcard = -1;
#endif

namespace ocellus::convert {

/// Names are printed in UTF-8, and progress by the terminal's escape sequences, which Windows has to be asked for.
inline void prepare_console() {
#if defined(_WIN32)
  static const UINT page_before = GetConsoleOutputCP();
  SetConsoleOutputCP(CP_UTF8);
  std::atexit([] { SetConsoleOutputCP(page_before); });
  const HANDLE console = GetStdHandle(STD_ERROR_HANDLE);
  DWORD mode = 0;
  if (GetConsoleMode(console, &mode) != 0) SetConsoleMode(console, mode | ENABLE_VIRTUAL_TERMINAL_PROCESSING);
#endif
}

/// As app.parse(argc, argv), but CLI11 would take "[a, b]" for a list of two texts and "[a]" for "a". Arguments that end
/// in such a bracket carry a NUL, which no argument can hold, until they are told apart.
inline void parse_as_given(CLI::App& app, int argc, char** argv) {
  const auto without_nul = [](std::string& value) {
    if (!value.empty() && value.back() == '\0') value.pop_back();
    return std::string();
  };
  const auto restore_in = [&](CLI::App& one) {
    one.allow_windows_style_options(false);  // /home is a path
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

/// Bytes to or from a standard stream, by a FILE of its own, which may be closed: Windows would change line ends.
inline std::FILE* open_stream(int stream, const char* mode) {
  const int copy = ::dup(stream);
#if defined(_WIN32)
  if (copy >= 0) ::_setmode(copy, _O_BINARY);
#endif
  return copy < 0 ? nullptr : ::fdopen(copy, mode);
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
