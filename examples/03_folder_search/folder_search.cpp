// Finds photos by words. The first call embeds all pictures below the folder and keeps the vectors beside them, in
// FOLDER/ocellus.vectors; later calls embed what is new or changed, forget what is gone, and compute one text. A call
// that was interrupted lost a minute of work at most.
//   03_folder_search model.oc photos/ "a dog on the beach"
#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>
#include <ocellus/ops/similarity.hpp>

#include <chrono>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <map>
#include <string>
#include <unistd.h>
#include <utility>
#include <vector>

namespace fs = std::filesystem;
using namespace ocellus;

namespace {

struct photo {
  std::int64_t size = 0, time = 0;  // of the file: others mean another picture
  std::vector<float> vector;        // empty where the file is no picture: not tried again until it changes
};
using photo_index = std::map<std::string, photo>;  // by path below the folder

constexpr const char* store_name = "ocellus.vectors";

/// What the index begins with: vectors of another model must not be compared.
std::string heading(const model& m) {
  return "ocellus.vectors 2 " + std::to_string(m.file().embedding_space()) + " " + std::to_string(m.embed());
}

/// Written beside it and renamed: an interrupted call leaves the index as it was before or after, never half of it.
void save(const photo_index& index, const fs::path& path, const model& m) {
  const fs::path temporary = path.string() + ".tmp" + std::to_string(getpid());
  std::ofstream out(temporary, std::ios::binary);
  out << heading(m) << '\n';
  for (const auto& [name, p] : index) {
    const std::int64_t numbers[] = {static_cast<std::int64_t>(name.size()), p.size, p.time,
                                    static_cast<std::int64_t>(p.vector.size())};
    out.write(reinterpret_cast<const char*>(numbers), sizeof(numbers)) << name;  // any name, with line breaks too
    out.write(reinterpret_cast<const char*>(p.vector.data()),
              static_cast<std::streamsize>(p.vector.size() * sizeof(float)));
  }
  out.close();
  std::error_code failed;
  if (out) fs::rename(temporary, path, failed);
  if (out && !failed) return;
  fs::remove(temporary, failed);
  std::fprintf(stderr, "%s: cannot be written: the next call embeds again\n", path.string().c_str());
}

/// Empty where there is none, or one of another model; what is damaged is left out, and so embedded again.
photo_index load(const fs::path& path, const model& m) {
  photo_index index;
  std::ifstream in(path, std::ios::binary);
  std::string name;
  if (!std::getline(in, name) || name != heading(m)) return index;
  std::int64_t numbers[4];
  while (in.read(reinterpret_cast<char*>(numbers), sizeof(numbers)) && numbers[0] > 0 && numbers[0] < 65536 &&
         (numbers[3] == 0 || numbers[3] == m.embed())) {
    photo p = {numbers[1], numbers[2], std::vector<float>(static_cast<std::size_t>(numbers[3]))};
    name.resize(static_cast<std::size_t>(numbers[0]));
    in.read(name.data(), static_cast<std::streamsize>(name.size()));
    in.read(reinterpret_cast<char*>(p.vector.data()), static_cast<std::streamsize>(p.vector.size() * sizeof(float)));
    if (in) index.insert_or_assign(index.end(), name, std::move(p));  // they come in order
  }
  return index;
}

/// Reads the index, brings it up to date and keeps it.
photo_index updated(const fs::path& folder, const model& m) {
  using clock = std::chrono::steady_clock;
  const fs::path store = folder / store_name;
  photo_index before = load(store, m), index;
  const std::size_t known = before.size();
  std::vector<std::pair<std::string, photo>> missing;
  std::error_code failed;  // folders that may not be read are left out
  fs::recursive_directory_iterator entry(folder, fs::directory_options::skip_permission_denied, failed), end;
  for (; !failed && entry != end; entry.increment(failed)) {
    std::error_code gone;
    if (!entry->is_regular_file(gone) || entry->path().filename().string().starts_with(store_name)) continue;
    photo p;
    p.size = static_cast<std::int64_t>(entry->file_size(gone));
    p.time = static_cast<std::int64_t>(entry->last_write_time(gone).time_since_epoch().count());
    const std::string name = entry->path().lexically_relative(folder).string();
    const auto old = before.find(name);
    if (old != before.end() && old->second.size == p.size && old->second.time == p.time)
      index.insert(before.extract(old));
    else
      missing.emplace_back(name, p);
  }
  if (failed) std::fprintf(stderr, "%s: %s\n", folder.string().c_str(), failed.message().c_str());
  if (missing.empty() && index.size() == known) return index;

  thread_pool pool;  // all cores, for one picture after the other
  const bool watched = isatty(STDERR_FILENO) != 0;
  auto saved = clock::now();
  for (std::size_t i = 0; i < missing.size(); i++) {
    auto& [name, p] = missing[i];
    const std::string file = (folder / name).string();
    const auto picture = preprocess_file(file.c_str(), m.config().preprocess, m.kernels().resample);
    const auto e = picture ? m.encode_preprocessed(*picture, pool.executor()) : result<embeddings>(picture.error());
    if (watched) std::fprintf(stderr, "\r\033[K");
    if (e) p.vector.assign(e->data(), e->data() + e->width());
    if (!e) std::fprintf(stderr, "%s: %s\n", file.c_str(), to_string(e.error()));
    if (watched) std::fprintf(stderr, "embedded %zu of %zu pictures", i + 1, missing.size());
    const bool may_pass = e.error() == status::cannot_read || e.error() == status::file_not_found ||
                          e.error() == status::out_of_memory;  // tried again by the next call
    if (!may_pass) index.emplace(name, std::move(p));
    if (clock::now() - saved < std::chrono::minutes(1)) continue;
    save(index, store, m);
    saved = clock::now();
  }
  if (watched) std::fprintf(stderr, "\r\033[K");
  save(index, store, m);
  return index;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fputs("usage: 03_folder_search MODEL.oc FOLDER TEXT\n", stderr), 2;
  const auto m = model::open(argv[1]);
  if (!m) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(m.error())), 1;
  std::error_code ignored;
  if (!fs::is_directory(argv[2], ignored)) return std::fprintf(stderr, "%s: not a folder\n", argv[2]), 1;
  const auto text = m->encode_text({argv[3]});
  if (!text) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(text.error())), 1;

  const photo_index index = updated(argv[2], *m);
  std::vector<std::string> names;
  std::vector<float> scores;  // scores[i] belongs to names[i]
  dot_rows_args a;            // a row at a time, where it lies: a copy that has them in one piece takes longer than this
  a.query = text->data();
  a.c = m->embed();
  a.n = 1;
  for (const auto& [name, p] : index) {
    if (p.vector.empty()) continue;
    names.push_back(name);
    scores.push_back(0);
    a.rows = p.vector.data();
    a.scores = &scores.back();
    m->kernels().dot_rows_f32(a);
  }
  ranked best[5];
  const int found = top_k(scores.data(), static_cast<int>(scores.size()), best, 5);
  for (int i = 0; i < found; i++) {
    const std::string& name = names[static_cast<std::size_t>(best[i].index)];
    std::printf("%6.3f  %s\n", static_cast<double>(best[i].score), name.c_str());
  }
}
