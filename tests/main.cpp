#if defined(__wasi__)  // its standard library has no files; doctest wants one for --out
#include <sstream>
template <>
class std::basic_fstream<char> : public std::ostringstream {
 public:
  void open(const char*, int) {}
  bool is_open() const { return false; }
  void close() {}
};
#endif

#define DOCTEST_CONFIG_IMPLEMENT_WITH_MAIN
#include <doctest/doctest.h>
