// A progress bar of one line on stderr, shown only when stderr is a terminal and only for work of more than
// half a second.
#pragma once

#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <string>
#include <string_view>

namespace ocellus::convert {

/// Draws "[=====>    ]  52%  312 / 600 MB  240 MB/s  name of the tensor" and wipes it when done.
///
///   progress bar(total_bytes);
///   bar.step(name, bytes_of_this_piece);
class progress {
 public:
  /// `total` in bytes. The name shown is cut to what fits into 100 columns.
  explicit progress(std::uint64_t total, bool wanted = ::isatty(STDERR_FILENO) == 1)
      : total_(std::max<std::uint64_t>(total, 1)), wanted_(wanted) {}
  progress(const progress&) = delete;
  progress& operator=(const progress&) = delete;
  ~progress() { finish(); }

  /// Says that `bytes` more are done, and what is being worked at.
  void step(std::string_view name, std::uint64_t bytes) {
    done_ = std::min(done_ + bytes, total_);
    const auto now = clock::now();
    if (!wanted_ || now - start_ < std::chrono::milliseconds(500) ||
        now - drawn_ < std::chrono::milliseconds(80))
      return;
    drawn_ = now;
    draw(name, std::chrono::duration<double>(now - start_).count());
  }

  /// Wipes the line, so that what is printed next stands alone. The destructor does it too.
  void finish() {
    if (drawn_ != clock::time_point{}) std::fputs("\r\x1b[K", stderr);
    drawn_ = {};
    wanted_ = false;
  }

 private:
  using clock = std::chrono::steady_clock;

  void draw(std::string_view name, double seconds) const {
    constexpr int width = 24;
    const double share = static_cast<double>(done_) / static_cast<double>(total_);
    const int full = static_cast<int>(share * width);
    std::string bar(static_cast<std::size_t>(full), '=');
    if (full < width) bar += '>';
    bar.resize(width, ' ');
    const double mb = static_cast<double>(done_) / 1e6;
    std::fprintf(stderr, "\r\x1b[K[%s] %3d%%  %.0f / %.0f MB  %.0f MB/s  %.*s", bar.c_str(),
                 static_cast<int>(share * 100), mb, static_cast<double>(total_) / 1e6, mb / seconds,
                 static_cast<int>(std::min<std::size_t>(name.size(), 36)), name.data());
    std::fflush(stderr);
  }

  std::uint64_t total_;
  std::uint64_t done_ = 0;
  bool wanted_;
  clock::time_point start_ = clock::now();
  clock::time_point drawn_{};
};

}  // namespace ocellus::convert
