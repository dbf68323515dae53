// Finds photos by words. The first call embeds the folder and keeps the vectors beside the photos; later calls read
// them and compute one text each. (Delete FOLDER/ocellus.vectors when the photos changed.)
//   03_folder_search model.oc photos/ "a dog on the beach"
#include <ocellus/core/thread_pool.hpp>
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>
#include <ocellus/ops/similarity.hpp>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <filesystem>
#include <fstream>
#include <string>
#include <vector>

namespace fs = std::filesystem;
using namespace ocellus;

namespace {

/// The vectors of a folder's pictures: row i of `vectors` [n, width] belongs to names[i].
struct photo_index {
  std::uint64_t space = 0;  // vectors of another model must not be compared
  std::vector<std::string> names;
  std::vector<float> vectors;
};

void save(const photo_index& index, const fs::path& path) {
  std::ofstream out(path, std::ios::binary);
  out << index.space << ' ' << index.names.size() << '\n';
  for (const std::string& name : index.names) out << name << '\n';
  out.write(reinterpret_cast<const char*>(index.vectors.data()),
            static_cast<std::streamsize>(index.vectors.size() * sizeof(float)));
}

/// False where there is none, or one of another model.
bool load(photo_index& index, const fs::path& path, const model& m) {
  std::ifstream in(path, std::ios::binary);
  std::size_t count = 0;
  if (!(in >> index.space >> count) || index.space != m.file().embedding_space()) return false;
  in.ignore();
  std::string name;
  while (index.names.size() < count && std::getline(in, name)) index.names.push_back(name);
  index.vectors.resize(index.names.size() * static_cast<std::size_t>(m.embed()));
  in.read(reinterpret_cast<char*>(index.vectors.data()),
          static_cast<std::streamsize>(index.vectors.size() * sizeof(float)));
  return static_cast<bool>(in) && index.names.size() == count;
}

photo_index build(const fs::path& folder, const model& m) {
  photo_index index;
  index.space = m.file().embedding_space();
  std::vector<fs::path> files;
  for (const auto& entry : fs::directory_iterator(folder))
    if (entry.is_regular_file() && entry.path().extension() != ".vectors") files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  thread_pool pool;  // all cores, for one picture after the other
  for (const fs::path& file : files) {
    const auto photo = load_image(file.string().c_str());
    const auto e = photo ? m.encode_image(*photo, pool.executor()) : result<embeddings>(photo.error());
    if (!e) {
      std::fprintf(stderr, "%s: %s\n", file.string().c_str(), to_string(e.error()));
      continue;
    }
    index.names.push_back(file.filename().string());
    index.vectors.insert(index.vectors.end(), e->data(), e->data() + e->width());
  }
  return index;
}

}  // namespace

int main(int argc, char** argv) {
  if (argc != 4) return std::fputs("usage: 03_folder_search MODEL.oc FOLDER TEXT\n", stderr), 2;
  const auto m = model::open(argv[1]);
  if (!m) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(m.error())), 1;
  const fs::path folder = argv[2], store = folder / "ocellus.vectors";
  if (!fs::is_directory(folder)) return std::fprintf(stderr, "%s: not a folder\n", argv[2]), 1;
  photo_index index;
  if (!load(index, store, *m)) {
    index = build(folder, *m);
    save(index, store);
  }
  const auto text = m->encode_text({argv[3]});
  if (!text) return std::fprintf(stderr, "%s: %s\n", argv[1], to_string(text.error())), 1;

  std::vector<float> scores(index.names.size());
  dot_rows_args a;
  a.query = text->data();
  a.rows = index.vectors.data();
  a.ld = a.c = m->embed();
  a.n = static_cast<int>(scores.size());
  a.scores = scores.data();
  m->kernels().dot_rows_f32(a);
  ranked best[5];
  const int found = top_k(scores.data(), a.n, best, 5);
  for (int i = 0; i < found; i++)
    std::printf("%6.3f  %s\n", static_cast<double>(best[i].score), index.names[static_cast<std::size_t>(best[i].index)].c_str());
}
