// Where tests read and write: the data of the reference implementations, and folders that go away with their test.
#pragma once

#include <doctest/doctest.h>
#include <unistd.h>

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <string>
#include <string_view>
#include <system_error>

namespace test_files {
namespace {

namespace fs = std::filesystem;

/// OCELLUS_SHARED, or ../shared beside the source.
inline fs::path shared() {
  const char* folder = std::getenv("OCELLUS_SHARED");
  return folder != nullptr ? fs::path(folder) : fs::path(OCELLUS_SOURCE_DIR) / ".." / "shared";
}

/// False, with a message, where the data is not there.
inline bool have(const fs::path& path) {
  if (fs::exists(path)) return true;
  MESSAGE("skipped: no " << path.string() << " (set OCELLUS_SHARED)");
  return false;
}

/// A folder of its own, whatever else runs at the same time; removed with the object.
struct scratch_folder {
  fs::path path;
  scratch_folder() {
    std::string name = (fs::temp_directory_path() / "ocellus-test-XXXXXX").string();
    const char* made = ::mkdtemp(name.data());
    REQUIRE(made != nullptr);
    path = made;
  }
  scratch_folder(const scratch_folder&) = delete;
  scratch_folder& operator=(const scratch_folder&) = delete;
  ~scratch_folder() {
    std::error_code ignored;
    fs::remove_all(path, ignored);
  }
  /// The file's path. Folders in `name` are made.
  fs::path write(const fs::path& name, std::string_view content) const {
    fs::create_directories((path / name).parent_path());
    std::ofstream(path / name, std::ios::binary) << content;
    return path / name;
  }
};

}  // namespace
}  // namespace test_files
