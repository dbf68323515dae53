// Which of these words fits the picture? Any words will do: nothing was trained on them.
//   02_zero_shot model.oc photo.jpg "a cat" "a dog" "a tram"
#include <ocellus/image/load.hpp>
#include <ocellus/models/model.hpp>

#include <cstdio>
#include <string>
#include <string_view>
#include <vector>

int main(int argc, char** argv) {
  if (argc < 4) return std::fputs("usage: 02_zero_shot MODEL.oc PICTURE LABEL...\n", stderr), 2;
  const auto model = ocellus::model::open(argv[1]);
  if (!model) return std::fprintf(stderr, "%s: %s\n", argv[1], ocellus::to_string(model.error())), 1;
  const auto photo = ocellus::load_image(argv[2]);
  if (!photo) return std::fprintf(stderr, "%s: %s\n", argv[2], ocellus::to_string(photo.error())), 1;

  std::vector<std::string> prompts;  // CLIP was trained on captions, so a label becomes one
  for (int i = 3; i < argc; i++) prompts.push_back("a photo of " + std::string(argv[i]) + ".");
  const std::vector<std::string_view> views(prompts.begin(), prompts.end());

  const auto image = model->encode_image(*photo);
  const auto texts = model->encode_text(views);
  if (!image) return std::fprintf(stderr, "%s: %s\n", argv[2], ocellus::to_string(image.error())), 1;
  if (!texts) return std::fprintf(stderr, "%s: %s\n", argv[1], ocellus::to_string(texts.error())), 1;
  const auto p = model->scores(*image, *texts);  // softmax (CLIP) or sigmoid (SigLIP)
  if (!p) return std::fprintf(stderr, "%s\n", ocellus::to_string(p.error())), 1;
  for (std::size_t i = 0; i < p->size(); i++)
    std::printf("%6.2f %%  %s\n", 100 * static_cast<double>((*p)[i]), argv[i + 3]);
}
