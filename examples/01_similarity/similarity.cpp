// How alike are these pictures? Prints the cosine of each pair's embeddings.
//   01_similarity model.oc a.jpg b.jpg ...
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <cstdio>
#include <numeric>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 4) return std::fputs("usage: 01_similarity MODEL.oc PICTURE PICTURE...\n", stderr), 2;
  const auto model = ocellus::model::open(argv[1]);
  if (!model) return std::fprintf(stderr, "%s: %s\n", argv[1], ocellus::to_string(model.error())), 1;

  std::vector<ocellus::image> pictures;
  for (int i = 2; i < argc; i++) {
    auto picture = ocellus::load_image(argv[i]);
    if (!picture) return std::fprintf(stderr, "%s: %s\n", argv[i], ocellus::to_string(picture.error())), 1;
    pictures.push_back(std::move(*picture));
  }
  // One call for all of them: the weights are read once.
  const std::vector<ocellus::image_view> views(pictures.begin(), pictures.end());
  const auto e = model->encode_images(views);
  if (!e) return std::fprintf(stderr, "%s\n", ocellus::to_string(e.error())), 1;

  for (int i = 0; i < e->rows(); i++)
    for (int j = i + 1; j < e->rows(); j++) {
      const auto a = (*e)[i], b = (*e)[j];  // unit length: their dot product is the cosine
      const float cosine = std::inner_product(a.begin(), a.end(), b.begin(), 0.f);
      std::printf("%6.3f  %s  %s\n", static_cast<double>(cosine), argv[i + 2], argv[j + 2]);
    }
}
