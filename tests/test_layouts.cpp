// The layouts: each published form of a checkpoint converts, with the switches that its reference has.
#include "calibration.hpp"
#include "convert.hpp"
#include "golden_data.hpp"
#include "layouts.hpp"
#include "plan.hpp"
#include "rounding.hpp"
#include "test_files.hpp"
#include "timm_trunk.hpp"

#include <ocellus/format/mmap.hpp>
#include <ocellus/format/reader.hpp>
#include <ocellus/models/weights.hpp>

#include <doctest/doctest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <limits>
#include <map>
#include <string>
#include <vector>

namespace {

using namespace ocellus;
using namespace ocellus::convert;
namespace fs = std::filesystem;
using test_files::have;
using test_files::shared;

fs::path scratch(const std::string& name) {
  static const test_files::scratch_folder folder;
  return folder.path / name;
}

/// A checkpoint made here: safetensors bytes of named tensors with values 0, 1, 2, ... plus an offset.
class small_checkpoint {
 public:
  void add(const std::string& name, const shape_list& shape, float first = 0, const char* type = "F32") {
    std::size_t n = 1;
    for (const std::int64_t d : shape) n *= static_cast<std::size_t>(d);
    header_[name] = {
        {"dtype", type}, {"shape", shape}, {"data_offsets", {data_.size() * 4, (data_.size() + n) * 4}}};
    for (std::size_t i = 0; i < n; i++) data_.push_back(first + static_cast<float>(i));
  }
  void remove(const std::string& name) {  // leaves its bytes to a tensor of another name
    const nlohmann::json t = header_[name];
    header_.erase(name);
    header_["unused." + name] = t;
  }
  checkpoint open() {
    std::string text = header_.dump();
    text.resize((text.size() + 7) / 8 * 8, ' ');
    const std::uint64_t length = text.size();
    bytes_.resize(8 + text.size() + data_.size() * 4);
    std::memcpy(bytes_.data(), &length, 8);
    std::memcpy(bytes_.data() + 8, text.data(), text.size());
    std::memcpy(bytes_.data() + 8 + text.size(), data_.data(), data_.size() * 4);
    auto file = checkpoint::open_memory(bytes_);
    REQUIRE_MESSAGE(file, (file ? "" : file.failure().what));
    return *file;
  }

 private:
  nlohmann::json header_;
  std::vector<float> data_;
  std::vector<std::byte> bytes_;
};

using values = std::vector<float>;

values read(const model_source& m, const std::string& name) {
  for (const planned_tensor& t : m.tensors) {
    if (t.name != name) continue;
    values out;
    const auto done = t.read(out);
    REQUIRE_MESSAGE(done, (done ? "" : done.failure().what));
    return out;
  }
  FAIL("no tensor ", name);
  return {};
}

TEST_CASE("a plan rearranges tensors as it says") {
  small_checkpoint c;
  c.add("w", {2, 3});
  c.add("conv", {1, 3, 2, 2});
  c.add("stack", {2, 2, 3});
  c.add("heads", {4, 3});
  c.add("gain", {2}, 2);
  const checkpoint file = c.open();
  plan p(file, "test");
  p.matrix("rows", {2, 3}, piece{"w", {2, 3}});
  p.matrix("transposed", {3, 2}, piece{"w", {2, 3}}.transposed());
  p.matrix("conv", {1, 12}, piece{"conv", {1, 3, 2, 2}}.convolution());
  p.matrix("second block", {2, 3}, piece{"stack", {2, 3}}.of_stack(1, 2));
  p.matrix("second block transposed", {3, 2}, piece{"stack", {2, 3}}.of_stack(1, 2).transposed());
  p.matrix("second row", {1, 3}, piece{"w", {2, 3}}.rows(1, 1));
  p.matrix("scaled", {2, 3}, piece{"w", {2, 3}}.times("gain"));
  p.matrix("halved", {4, 3}, piece{"heads", {4, 3}}.halved(4));
  p.exact("joined", {4}, {piece{"gain", {2}}, piece{"", {2}}});
  REQUIRE(p.ok());
  const model_source& m = p.model();
  CHECK(read(m, "rows") == values{0, 1, 2, 3, 4, 5});
  CHECK(read(m, "transposed") == values{0, 3, 1, 4, 2, 5});
  CHECK(read(m, "conv") == values{0, 4, 8, 1, 5, 9, 2, 6, 10, 3, 7, 11});
  CHECK(read(m, "second block") == values{6, 7, 8, 9, 10, 11});
  CHECK(read(m, "second block transposed") == values{6, 9, 7, 10, 8, 11});
  CHECK(read(m, "second row") == values{3, 4, 5});
  CHECK(read(m, "scaled") == values{0, 2, 4, 9, 12, 15});
  CHECK(read(m, "halved") == values{0, 1, 2, 6, 7, 8, 3, 4, 5, 9, 10, 11});
  CHECK(read(m, "joined") == values{2, 3, 0, 0});
}

TEST_CASE("a plan refuses missing tensors, other shapes and leftovers, and says which") {
  small_checkpoint c;
  c.add("model.w", {2, 3});
  c.add("model.extra", {2});
  c.add("model.odd", {3, 3});
  c.add("model.count", {2, 3}, 0, "I32");
  c.add("model.scale", {}, std::numeric_limits<float>::infinity());
  const checkpoint file = c.open();
  const auto failure = [&](auto build) {
    plan p(file, "test");
    p.config().text = {};
    build(p);
    const auto done = p.finish();
    return done ? std::string() : done.failure().what;
  };
  CHECK(failure([](plan& p) {
          p.matrix("a", {2, 3}, piece{"model.v", {2, 3}});
        }) == "tensor model.v is missing");
  CHECK(failure([](plan& p) {
          p.matrix("a", {3, 2}, piece{"model.w", {3, 2}});
        }) == "tensor model.w has shape [2, 3], expected [3, 2]");
  CHECK(failure([](plan& p) {
          p.matrix("a", {2, 3}, piece{"model.count", {2, 3}});
        }) == "tensor model.count has type i32, weights are floating-point");
  CHECK(failure([](plan& p) {
          p.matrix("a", {3, 3}, piece{"model.odd", {3, 3}}.halved(3));
        }) == "the rows of a make no heads of 3");
  CHECK(failure([](plan& p) { p.config().vision.kind = vision_kind::none; }).find("the configuration is not one") == 0);
  CHECK(failure([](plan& p) { p.scalar("model.scale"); }) == "tensor model.scale is not a finite number");
  CHECK(failure([](plan& p) {
          p.own("model.");
          p.matrix("a", {2, 3}, piece{"model.w", {2, 3}});
        }).find("tensor model.extra [2] has no place") == 0);
}

TEST_CASE("timm's names stand for their heads, activations and pooling") {
  const auto is = [](const char* name, int heads, activation act, float eps, pooling pool) {
    const timm_model m = find_timm_model(name);
    CHECK_MESSAGE(m.supported, name);
    CHECK_MESSAGE((m.heads == heads && m.act == act && m.eps == eps && m.pool == pool), name);
  };
  is("vit_tiny_patch16_224", 3, activation::gelu, 1e-6f, pooling::cls);
  is("vit_base_patch16_224.augreg_in21k", 12, activation::gelu, 1e-6f, pooling::cls);
  is("deit_small_patch16_224", 6, activation::gelu, 1e-6f, pooling::cls);
  is("vit_base_patch16_siglip_224", 12, activation::gelu, 1e-6f, pooling::map);
  is("vit_base_patch32_siglip_256", 12, activation::gelu_tanh, 1e-6f, pooling::map);
  is("vit_large_patch16_siglip_384", 16, activation::gelu, 1e-6f, pooling::map);
  is("vit_large_patch16_siglip_512", 16, activation::gelu_tanh, 1e-6f, pooling::map);
  is("vit_so400m_patch14_siglip_384", 16, activation::gelu, 1e-6f, pooling::map);
  is("vit_so400m_patch16_siglip_256", 16, activation::gelu_tanh, 1e-6f, pooling::map);
  is("vit_giantopt_patch16_siglip_384", 16, activation::gelu_tanh, 1e-6f, pooling::map);
  is("vit_so400m_patch14_siglip_gap_224", 16, activation::gelu, 1e-6f, pooling::avg);
  is("vit_large_patch14_clip_224", 16, activation::gelu, 1e-5f, pooling::cls);
  is("vit_large_patch14_clip_quickgelu_336", 16, activation::quick_gelu, 1e-5f, pooling::cls);
  is("vit_medium_patch16_gap_256", 8, activation::gelu, 1e-6f, pooling::avg);
  is("vit_giant_patch14_dinov2", 24, activation::gelu, 1e-6f, pooling::cls);
  is("vit_base_patch16_plus_240", 14, activation::gelu, 1e-6f, pooling::cls);
  is("eva_giant_patch14_224", 16, activation::gelu, 1e-6f, pooling::avg);
  is("eva_giant_patch14_clip_224", 16, activation::gelu, 1e-6f, pooling::cls);
  is("test_vit2", 2, activation::gelu, 1e-6f, pooling::avg);
  is("test_vit3", 3, activation::gelu, 1e-6f, pooling::map);
  for (const char* name :
       {"convnext_base", "resnet50", "swin_base_patch4_window7_224", "vit_relpos_medium_patch16_cls_224",
        "vitamin_small_224", "fastvit_t8", "vit_pe_lang_large_patch14_448", "vit_base_resnet50d_224",
        "vit_base_patch16_lingbot", "vit_base_patch16_sapiens2"})
    CHECK_MESSAGE(!find_timm_model(name).supported, name);
}

TEST_CASE("open_clip's configurations with other towers are refused in one line that names them") {
  small_checkpoint c;
  c.add("visual.none", {1});
  const checkpoint file = c.open();
  const auto refusal = [&](nlohmann::json vision, nlohmann::json text) {
    const auto done = read_open_clip(
        file, {{"embed_dim", 64}, {"vision_cfg", std::move(vision)}, {"text_cfg", std::move(text)}}, "c.json");
    return done ? std::string() : done.failure().what;
  };
  CHECK(refusal({{"layers", 2}}, {{"hf_model_name", "roberta-base"}}) ==
        "c.json: text_cfg.hf_model_name is \"roberta-base\": text towers of transformers are not supported");
  CHECK(refusal({{"timm_model_name", "convnext_base"}}, {{"width", 64}}).find("a ConvNeXt") != std::string::npos);
  // fields of open_clip 4, and of open_clip before 2.24
  CHECK(refusal({{"layers", 2}}, {{"text_arch", "modern"}}) ==
        "c.json: text_cfg.text_arch is \"modern\": ocellus knows open_clip's first one, \"clip\"");
  CHECK(refusal({{"timm_model_name", "vit_tiny_patch16_224"}, {"timm_model_kwargs", {{"swiglu_mlp", true}}}},
                {{"width", 64}}) ==
        "c.json: vision_cfg.timm_model_kwargs.swiglu_mlp is set, which ocellus does not do");
  CHECK(refusal({{"layers", 2}, {"global_average_pool", true}}, {{"width", 64}}) ==
        "c.json: vision_cfg.global_average_pool is true, which ocellus does not do");
  const auto sounds = read_open_clip(
      file, {{"embed_dim", 64}, {"audio_cfg", {{"mel_bins", 64}}}, {"text_cfg", {{"width", 64}}}}, "c.json");
  REQUIRE_FALSE(sounds);
  CHECK(sounds.failure().what == "c.json: audio_cfg is set: CLAP, which embeds sounds, is not supported");
  // a TinyCLIP that is not pruned yet: its masks would be lost
  c.add("_image_encoder.l0_module.lambda_1", {1});
  c.add("visual.conv1.weight", {64, 3, 8, 8});
  const auto done = read_open_clip(c.open(),
                                   {{"embed_dim", 64},
                                    {"mask_image", true},
                                    {"vision_cfg", {{"layers", 1}, {"width", 64}, {"patch_size", 8}, {"image_size", 8}}},
                                    {"text_cfg", {{"width", 64}}}},
                                   "c.json");
  REQUIRE_FALSE(done);
  CHECK(done.failure().what ==
        "the vision tower has TinyCLIP's masks (l0_module) and its full width: prune it first");
}

struct converted {
  model_config config;
  std::map<std::string, std::string> switches, origins;
  std::uint64_t space = 0;
};

/// Converts a golden checkpoint and reads the result back.
void convert_case(const fs::path& source, converted& out, ocellus::dtype type = ocellus::dtype::f32) {
  const golden_data::converted_file made(source, type);
  REQUIRE_MESSAGE(made.error == "", source.string(), ": ", made.error);
  const auto map = mapped_file::open(made.path.c_str());
  REQUIRE(map);
  const auto file = packed_file::open(map->bytes());
  REQUIRE(file);
  CHECK(file->verify() == status::ok);
  const auto config = file->section(format::section::config);
  REQUIRE(config.size() == sizeof(model_config));
  std::memcpy(&out.config, config.data(), sizeof(model_config));
  CHECK(valid(out.config));
  const auto text = file->section(format::section::provenance);
  const auto json = nlohmann::json::parse(reinterpret_cast<const char*>(text.data()),
                                          reinterpret_cast<const char*>(text.data()) + text.size());
  for (const auto& s : json.at("switches")) {
    out.switches[s.at("name")] = s.at("value");
    out.origins[s.at("name")] = s.at("origin");
  }
  out.space = file->embedding_space();
}

TEST_CASE("OpenAI's checkpoints convert, bare, wrapped and as TorchScript") {
  const fs::path goldens = shared() / "goldens";
  if (!have(goldens / "openai-statedict")) return;
  converted bare, wrapped, jit, resnet;
  convert_case(goldens / "openai-statedict/model.pt", bare);
  convert_case(goldens / "openai-statedict/epoch_3.pt", wrapped);
  convert_case(goldens / "openai-jit-vit/ViT-T-8.pt", jit);
  convert_case(goldens / "openai-jit-rn/RN-T.pt", resnet);
  CHECK(bare.space == wrapped.space);  // the same weights, whatever is around them
  CHECK(bare.space != jit.space);
  CHECK(bare.config.vision.encoder.heads == 1);
  CHECK(bare.config.vision.encoder.act == activation::quick_gelu);
  CHECK(bare.config.text.pool == pooling::argmax);
  CHECK(bare.config.text.encoder.causal == 1);
  CHECK(bare.switches["vision.act"] == "quick_gelu");
  CHECK(bare.origins["vision.act"] == "fixed by OpenAI's layout");
  CHECK(jit.config.vision.encoder.heads == 2);
  CHECK(jit.config.vision.image_h == 40);
  CHECK(jit.config.preprocess.crop_offset == crop_rounding::round);
  CHECK(resnet.config.vision.kind == vision_kind::resnet);
  CHECK(resnet.config.vision.encoder.heads == 4);
  CHECK(resnet.config.vision.image_h == 64);
}

TEST_CASE("transformers' folders convert with the switches of their configurations") {
  const fs::path goldens = shared() / "goldens";
  if (!have(goldens / "hf-clip")) return;
  converted c, sharded, bin, bf16, gelu, siglip, naflex, dino, registers;
  convert_case(goldens / "hf-clip/model", c);
  convert_case(goldens / "hf-clip/sharded", sharded);
  convert_case(goldens / "hf-clip/bin", bin);
  convert_case(goldens / "hf-clip/bf16", bf16);
  CHECK(c.space == sharded.space);
  CHECK(c.space != bf16.space);
  CHECK(c.config.text.pool == pooling::argmax);  // eos_token_id 2, the old convention
  CHECK(c.switches["text.pool"] == "at the highest id");
  CHECK(c.origins["text.pool"] == "config.json: text_config.eos_token_id");
  CHECK(c.config.vision.encoder.act == activation::quick_gelu);
  CHECK(c.config.preprocess.crop_offset == crop_rounding::floor);
  CHECK(c.config.preprocess.size_h == 32);
  convert_case(goldens / "hf-clip-gelu/model", gelu);
  CHECK(gelu.config.text.pool == pooling::eos);
  CHECK(gelu.config.text.eos_id == 399);
  CHECK(gelu.config.vision.encoder.act == activation::gelu);
  CHECK(gelu.config.vision.encoder.head_width == 40);
  convert_case(goldens / "hf-siglip/model", siglip);
  CHECK(siglip.config.vision.pool == pooling::map);
  CHECK(siglip.config.vision.encoder.act == activation::gelu_tanh);
  CHECK(siglip.config.text.pool == pooling::last);
  CHECK(siglip.config.text.encoder.causal == 0);
  CHECK(siglip.config.score == score_kind::sigmoid);
  CHECK(siglip.config.preprocess.resize == resize_mode::squash);
  convert_case(goldens / "hf-siglip2-naflex/model", naflex);
  CHECK(naflex.config.vision.naflex == 1);
  CHECK(naflex.config.vision.grid_h == 8);
  CHECK(naflex.config.preprocess.resize == resize_mode::naflex);
  CHECK(naflex.config.preprocess.filter == resize_filter::bilinear);
  CHECK(naflex.config.preprocess.max_patches == 48);
  convert_case(goldens / "hf-dinov2/model", dino);
  CHECK(dino.config.vision.positions == position_resize::bicubic);
  CHECK(dino.config.text.present == 0);
  convert_case(goldens / "hf-dinov2-registers/model", registers);
  CHECK(registers.config.vision.positions == position_resize::bicubic_antialias);
  CHECK(registers.config.vision.registers == 4);
}

/// The vision tower of transformers' CLIP: one block, 8 wide, 8 x 8 pixels in patches of 4.
small_checkpoint clip_vision_tower(const std::string& from) {
  small_checkpoint c;
  c.add(from + "embeddings.class_embedding", {8});
  c.add(from + "embeddings.patch_embedding.weight", {8, 3, 4, 4});
  c.add(from + "embeddings.position_embedding.weight", {5, 8});
  const auto linear = [&](const std::string& name, std::int64_t n, std::int64_t k) {
    c.add(name + ".weight", {n, k});
    c.add(name + ".bias", {n});
  };
  const auto norm = [&](const std::string& name) {
    c.add(name + ".weight", {8}, 1);
    c.add(name + ".bias", {8});
  };
  const std::string block = from + "encoder.layers.0.";
  for (const char* part : {"q_proj", "k_proj", "v_proj", "out_proj"}) linear(block + "self_attn." + part, 8, 8);
  linear(block + "mlp.fc1", 16, 8);
  linear(block + "mlp.fc2", 8, 16);
  for (const char* part : {"encoder.layers.0.layer_norm1", "encoder.layers.0.layer_norm2", "pre_layrnorm", "post_layernorm"})
    norm(from + part);
  return c;
}

TEST_CASE("a tower that transformers 5 saves without its name converts as the one with it") {
  const nlohmann::json config = {{"model_type", "clip_vision_model"}, {"hidden_size", 8},       {"intermediate_size", 16},
                                 {"num_hidden_layers", 1},            {"num_attention_heads", 2}, {"image_size", 8},
                                 {"patch_size", 4}};
  std::vector<values> first;
  for (const char* from : {"vision_model.", ""}) {
    small_checkpoint c = clip_vision_tower(from);
    const checkpoint file = c.open();
    const auto m = read_hugging_face(file, config, "config.json", nullptr, "");
    REQUIRE_MESSAGE(m, (m ? "" : m.failure().what));
    CHECK(m->config.vision.encoder.layers == 1);
    std::vector<values> all;
    for (const planned_tensor& t : m->tensors) all.push_back(read(*m, t.name));
    if (first.empty()) first = all;
    CHECK(all == first);
    c.add(std::string(from) + "encoder.layers.1.layer_norm1.weight", {8});
    CHECK_FALSE(read_hugging_face(c.open(), config, "config.json", nullptr, ""));  // a block too many
  }
}

TEST_CASE("a preprocessor whose pictures the model cannot read is told when it is converted") {
  const nlohmann::json config = {{"model_type", "clip_vision_model"}, {"hidden_size", 8},       {"intermediate_size", 16},
                                 {"num_hidden_layers", 1},            {"num_attention_heads", 2}, {"image_size", {8, 8}},
                                 {"patch_size", 4}};
  small_checkpoint c = clip_vision_tower("");
  const checkpoint file = c.open();
  const auto note_of = [&](const nlohmann::json& pre) {
    const auto m = read_hugging_face(file, config, "config.json", &pre, "preprocessor_config.json");
    REQUIRE_MESSAGE(m, (m ? "" : m.failure().what));
    for (const std::string& note : m->notes)
      if (note.starts_with("pictures ")) return note;
    return std::string();
  };
  CHECK(note_of({{"size", {{"shortest_edge", 10}}}, {"crop_size", 8}}).empty());
  CHECK(note_of({{"size", {{"shortest_edge", 10}}}, {"crop_size", 9}}).find("9 x 9, the model reads 8 x 8") != std::string::npos);
  CHECK(note_of({{"size", {{"height", 8}, {"width", 9}}}, {"do_center_crop", false}}).find("8 x 9") != std::string::npos);
  CHECK(note_of({{"size", {{"shortest_edge", 6}}}, {"crop_size", 8}}).find("does not pad") != std::string::npos);
  CHECK(note_of({{"do_resize", false}, {"crop_size", 8}}).find("does not pad") != std::string::npos);
  CHECK(note_of({{"do_resize", false}, {"do_center_crop", false}}).find("at another size") != std::string::npos);
}

TEST_CASE("one number as the size is the shortest side or both, as the processor's class in transformers 5 has it") {
  const nlohmann::json config = {{"model_type", "clip_vision_model"}, {"hidden_size", 8},         {"intermediate_size", 16},
                                 {"num_hidden_layers", 1},            {"num_attention_heads", 2}, {"image_size", 8},
                                 {"patch_size", 4}};
  small_checkpoint c = clip_vision_tower("");
  const checkpoint file = c.open();
  const auto resize = [&](const char* type, const nlohmann::json& size) {
    const nlohmann::json pre = {{"image_processor_type", type}, {"size", size}};
    const auto m = read_hugging_face(file, config, "config.json", &pre, "preprocessor_config.json");
    REQUIRE_MESSAGE(m, (m ? "" : m.failure().what));
    return m->config.preprocess.resize;
  };
  CHECK(resize("CLIPImageProcessor", 8) == resize_mode::shortest);
  CHECK(resize("SiglipImageProcessor", 8) == resize_mode::shortest);
  CHECK(resize("SiglipImageProcessor", {{"height", 8}, {"width", 8}}) == resize_mode::squash);
  CHECK(resize("ViTImageProcessor", 8) == resize_mode::squash);
}

TEST_CASE("open_clip, big_vision and timm checkpoints convert with the switches of their references") {
  const fs::path goldens = shared() / "goldens";
  if (!have(goldens / "openclip-clip")) return;
  converted c, siglip, npz, scan, timm, deit;
  convert_case(goldens / "openclip-clip/open_clip_model.safetensors", c);
  CHECK(c.config.vision.encoder.head_width == 24);
  CHECK(c.config.vision.encoder.mlp == 120);
  CHECK(c.config.vision.encoder.act == activation::gelu);
  CHECK(c.origins["vision.act"] == "default of open_clip's CLIP");
  convert_case(goldens / "openclip-siglip/open_clip_model.safetensors", siglip);
  CHECK(siglip.config.vision.pool == pooling::map);
  CHECK(siglip.config.vision.encoder.act == activation::gelu);  // timm's for SigLIP 1
  CHECK(siglip.config.text.encoder.act == activation::gelu);
  CHECK(siglip.config.text.encoder.eps == 1e-6f);
  CHECK(siglip.config.score == score_kind::sigmoid);
  convert_case(goldens / "bigvision-siglip/siglip_gold.npz", npz);
  convert_case(goldens / "bigvision-siglip/siglip_gold_scan.npz", scan);
  CHECK(npz.space == scan.space);  // one entry per block, or all stacked: the same weights
  CHECK(npz.config.vision.encoder.act == activation::gelu_tanh);
  CHECK(npz.config.vision.encoder.heads == 3);
  convert_case(goldens / "timm-vit/model.safetensors", timm);
  CHECK(timm.config.vision.encoder.heads == 3);
  CHECK(timm.config.vision.classes == 20);
  CHECK(timm.config.score == score_kind::logits);
  CHECK(timm.config.preprocess.size_h == 53);  // floor(48 / 0.9)
  CHECK(timm.config.preprocess.crop_h == 48);
  if (!have(shared() / "models/deit-clip")) return;
  convert_case(shared() / "models/deit-clip", deit);
  CHECK(deit.config.vision.encoder.heads == 3);
  CHECK(deit.config.vision.encoder.eps == 1e-6f);
  CHECK(deit.config.text.encoder.eps == 1e-5f);
}

/// Whether one of the notes has `part` in it.
bool noted(const model_source& m, const std::string& part) {
  return std::any_of(m.notes.begin(), m.notes.end(), [&](const std::string& n) { return n.find(part) != n.npos; });
}

TEST_CASE("an open_clip configuration is read as open_clip evaluates it, or refused") {
  const fs::path folder = shared() / "goldens/openclip-clip";
  if (!have(folder)) return;
  const auto file = checkpoint::open(folder / "open_clip_model.safetensors");
  const auto config = read_json(folder / "open_clip_config.json");
  REQUIRE(file);
  REQUIRE(config);
  nlohmann::json j = *config;
  j["preprocess_cfg"]["size"] = 999;  // open_clip writes the model's image size over it
  j["preprocess_cfg"]["interpolation"] = "random";
  j["model_cfg"]["vision_cfg"]["of_a_fork"] = 2;
  const auto m = read_open_clip(*file, j, "c.json");
  REQUIRE_MESSAGE(m, (m ? "" : m.failure().what));
  CHECK(m->config.preprocess.size_h == m->config.vision.image_h);
  CHECK(m->config.preprocess.crop_w == m->config.vision.image_w);
  CHECK(m->config.preprocess.filter == resize_filter::bicubic);
  CHECK(noted(*m, "preprocess_cfg.size is another than the model's"));
  CHECK(noted(*m, "fields that ocellus does not know: model_cfg.vision_cfg.of_a_fork"));
  const auto refusal = [&](const char* key, const nlohmann::json& value) {
    nlohmann::json with = *config;
    with["model_cfg"]["text_cfg"][key] = value;
    const auto done = read_open_clip(*file, with, "c.json");
    return done ? std::string() : done.failure().what;
  };
  CHECK(refusal("variable_text", true) ==
        "c.json: model_cfg.text_cfg.variable_text is true, which ocellus does not do");
  CHECK(refusal("text_arch", "clip").empty());
}

TEST_CASE("open_clip's own models have OpenAI's names: without a configuration their activation is not guessed silently") {
  const fs::path source = shared() / "goldens/openclip-clip/open_clip_model.safetensors";
  if (!have(source)) return;
  const fs::path folder = scratch("no-configuration");
  fs::create_directories(folder);
  const auto read_as = [&](const char* name) {
    fs::copy_file(source, folder / name, fs::copy_options::overwrite_existing);
    const auto file = checkpoint::open(folder / name);
    REQUIRE(file);
    const auto done = read_model(*file, {.folder = folder, .config = {}});
    fs::remove(folder / name);
    return done ? std::string() : done.failure().what;
  };
  CHECK(read_as("open_clip_model.safetensors") ==
        "open_clip_config.json is missing, which tells activation and heads: give it by --config");
  CHECK(read_as("vit.safetensors").find("the number of heads cannot be told") != std::string::npos);
  const fs::path statedict = shared() / "goldens/openai-statedict/model.pt";
  if (!have(statedict)) return;
  const auto file = checkpoint::open(statedict);
  REQUIRE(file);
  const auto m = read_openai(*file);
  REQUIRE(m);
  CHECK(noted(*m, "read as OpenAI's, with quick_gelu") == (file->find("input_resolution") == nullptr));
}

TEST_CASE("a norm behind timm's MAP head is refused: fc_norm beside global_pool map") {
  small_checkpoint c;
  const std::int64_t width = 64, patch = 4;
  for (const char* norm : {"blocks.0.norm1", "blocks.0.norm2", "fc_norm"})
    for (const char* part : {".weight", ".bias"}) c.add(std::string(norm) + part, {width});
  c.add("patch_embed.proj.weight", {width, 3, patch, patch});
  c.add("patch_embed.proj.bias", {width});
  c.add("pos_embed", {1, 4, width});
  c.add("blocks.0.attn.qkv.weight", {3 * width, width});
  c.add("blocks.0.attn.proj.weight", {width, width});
  c.add("blocks.0.attn.proj.bias", {width});
  c.add("blocks.0.mlp.fc1.weight", {width, width});
  c.add("blocks.0.mlp.fc1.bias", {width});
  c.add("blocks.0.mlp.fc2.weight", {width, width});
  c.add("blocks.0.mlp.fc2.bias", {width});
  const nlohmann::json config = {{"architecture", "vit_base_patch16_siglip_224"},
                                 {"model_args", {{"num_heads", 1}, {"img_size", 8}, {"fc_norm", true}}}};
  const checkpoint file = c.open();
  const auto refused = read_timm(file, config, "config.json");
  REQUIRE_FALSE(refused);
  CHECK(refused.failure().what == "a MAP head with a norm behind it (fc_norm) is not supported");
}

TEST_CASE("timm's model_args decide before the registered model, and those that choose parts are refused") {
  const fs::path folder = shared() / "goldens/timm-vit";
  if (!have(folder)) return;
  const auto file = checkpoint::open(folder / "model.safetensors");
  const auto config = read_json(folder / "config.json");
  REQUIRE(file);
  REQUIRE(config);
  nlohmann::json j = *config;
  j["architecture"] = "vit_base_patch16_clip_224";  // eps 1e-5, but timm's LayerNorm has 1e-6
  const auto registered = read_timm(*file, j, "config.json");
  REQUIRE_MESSAGE(registered, (registered ? "" : registered.failure().what));
  CHECK(registered->config.vision.encoder.eps == 1e-5f);
  j["model_args"]["norm_layer"] = "layernorm";
  j.erase("pretrained_cfg");
  const auto named = read_timm(*file, j, "config.json");
  REQUIRE_MESSAGE(named, (named ? "" : named.failure().what));
  CHECK(named->config.vision.encoder.eps == 1e-6f);
  CHECK(noted(*named, "no pretrained_cfg in config.json"));
  j["model_args"]["attn_layer"] = "diff";
  const auto other = read_timm(*file, j, "config.json");
  REQUIRE_FALSE(other);
  CHECK(other.failure().what == "config.json: model_args.attn_layer is set, which ocellus does not do");
}

TEST_CASE("one checkpoint has one embedding space, in whatever data type it is stored") {
  const fs::path source = shared() / "goldens/hf-clip/model";
  if (!have(source)) return;
  converted f32, f16, s8;
  convert_case(source, f32);
  convert_case(source, f16, ocellus::dtype::f16);
  convert_case(source, s8, ocellus::dtype::s8);
  CHECK(f32.space == f16.space);
  CHECK(f32.space == s8.space);
}

TEST_CASE("weights are rounded for their inputs") {
  // inputs of 1100 channels (two blocks) that follow six hidden ones, and a matrix with smoothed columns
  constexpr int n = 19, k = 1100, inputs = 3000;
  std::uint32_t state = 7;
  const auto random = [&state] {
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(state >> 8) / 8388608.f - 1.f;
  };
  std::vector<float> mix(static_cast<std::size_t>(k) * 6), w(static_cast<std::size_t>(n) * k), x(k);
  for (float& v : mix) v = random();
  for (float& v : w) v = random();
  for (int c = 0; c < k; c += 2) w[static_cast<std::size_t>(c)] = -1;  // the row's least, which errors of others may lower
  w[3] = 0;
  input_moments seen(k);
  REQUIRE(seen.blocks() == 2);
  for (int b = 0; b < 2; b++) seen.second.emplace_back(static_cast<std::size_t>(seen.size(b)) * static_cast<std::size_t>(seen.size(b)));
  for (int i = 0; i < inputs; i++) {
    float hidden[6];
    for (float& h : hidden) h = random();
    for (int c = 0; c < k; c++) {
      x[static_cast<std::size_t>(c)] = 0.05f * random();
      for (int h = 0; h < 6; h++) x[static_cast<std::size_t>(c)] += mix[static_cast<std::size_t>(6 * c + h)] * hidden[h];
    }
    for (int b = 0; b < 2; b++) {
      const int size = seen.size(b);
      const float* part = x.data() + b * seen.width;
      for (int r = 0; r < size; r++) {
        float* row = seen.second[static_cast<std::size_t>(b)].data() + r * size;
        for (int c = r; c < size; c++) row[c] += part[r] * part[c];
      }
    }
  }
  seen.rows = inputs;
  model_source model;
  planned_tensor& t = model.tensors.emplace_back();
  t.name = "m.weight";
  t.kind = storage::matrix;
  t.shape = {n, k};
  t.read = [&w](std::vector<float>& out) -> outcome<void> { return out = w, outcome<void>(); };
  t.columns.assign(k, 1.f);
  t.columns[3] = 2.f;
  const auto run = [&](const input_moments& moments, double damp) {
    moments_by_matrix all = {{t.name, moments}};
    progress bar(1, false);
    REQUIRE(round_for_inputs(model, all, [](const planned_tensor&) { return true; },
                             [damp](const std::string&) { return damp; }, bar));
    CHECK(all.empty());
  };
  // (w - q)^T H (w - q), H of inputs divided by the smoothing, over all rows
  const auto loss = [&] {
    double sum = 0;
    for (int r = 0; r < n; r++)
      for (int b = 0; b < 2; b++)
        for (int i = 0; i < seen.size(b); i++)
          for (int j = 0; j < seen.size(b); j++) {
            const auto off = [&](int c) {
              const auto at = static_cast<std::size_t>(r * k + c), column = static_cast<std::size_t>(c);
              return static_cast<double>(w[at]) - static_cast<double>(static_cast<float>(t.rounded.values[at]) *
                                                                      t.rounded.scales[static_cast<std::size_t>(r)] / t.columns[column]);
            };
            const float h = seen.second[static_cast<std::size_t>(b)][static_cast<std::size_t>(std::min(i, j) * seen.size(b) + std::max(i, j))];
            sum += off(b * seen.width + i) * off(b * seen.width + j) * static_cast<double>(h);
          }
    return sum;
  };
  input_moments nothing(k);
  for (int b = 0; b < 2; b++) nothing.second.emplace_back(seen.second[static_cast<std::size_t>(b)].size());
  run(nothing, 1);
  const rounded_matrix nearest = t.rounded;
  const double before = loss();
  for (int r = 0; r < n; r++) {
    float most = 0;
    for (int c = 0; c < k; c++)
      most = std::max(most, std::fabs(w[static_cast<std::size_t>(r * k + c)]) * t.columns[static_cast<std::size_t>(c)]);
    CHECK(nearest.scales[static_cast<std::size_t>(r)] == most / 127.f);
    for (int c = 0; c < k; c++) {
      const float off = static_cast<float>(nearest.values[static_cast<std::size_t>(r * k + c)]) * most / 127.f -
                        w[static_cast<std::size_t>(r * k + c)] * t.columns[static_cast<std::size_t>(c)];
      REQUIRE(std::fabs(off) <= 0.5001f * most / 127.f);
    }
  }
  run(seen, 1);
  const double damped = loss();
  const rounded_matrix first = t.rounded;
  CHECK(first.scales == nearest.scales);
  CHECK(damped < 0.3 * before);
  run(seen, 0.01);
  CHECK(loss() < damped);
  CHECK(*std::min_element(t.rounded.values.begin(), t.rounded.values.end()) == -127);
  run(seen, 1);
  CHECK(t.rounded.values == first.values);
}

/// An open_clip folder whose image tower loses so much in int8 that --calibrate keeps as many blocks as it may.
void write_sensitive_checkpoint(const fs::path& folder) {
  constexpr int width = 32, layers = 9, mlp = 64, patches = 16;
  std::uint32_t state = 5;
  const auto random = [&state] {  // in (-1, 1)
    state = state * 1664525u + 1013904223u;
    return static_cast<float>(static_cast<std::int32_t>(state)) / 2147483648.f;
  };
  nlohmann::json header;
  std::vector<float> data;
  const auto add = [&](const std::string& name, const std::vector<int>& shape, float spread, float around = 0) {
    std::size_t n = 1;
    for (const int d : shape) n *= static_cast<std::size_t>(d);
    header[name] = {{"dtype", "F32"}, {"shape", shape}, {"data_offsets", {data.size() * 4, (data.size() + n) * 4}}};
    for (std::size_t i = 0; i < n; i++) data.push_back(around + spread * random());
  };
  const auto norm = [&](const std::string& name) {
    add(name + ".weight", {width}, 0.1f, 1);
    add(name + ".bias", {width}, 0.1f);
  };
  const auto linear = [&](const std::string& weight, const std::string& bias, int n, int k, float spread) {
    add(weight, {n, k}, spread);
    add(bias, {n}, 0.1f);
  };
  const auto tower = [&](const std::string& prefix, int count, float spread) {
    for (int l = 0; l < count; l++) {
      const std::string block = prefix + "transformer.resblocks." + std::to_string(l) + ".";
      norm(block + "ln_1");
      norm(block + "ln_2");
      linear(block + "attn.in_proj_weight", block + "attn.in_proj_bias", 3 * width, width, 3 * spread);
      linear(block + "attn.out_proj.weight", block + "attn.out_proj.bias", width, width, spread);
      linear(block + "mlp.c_fc.weight", block + "mlp.c_fc.bias", mlp, width, spread);
      linear(block + "mlp.c_proj.weight", block + "mlp.c_proj.bias", width, mlp, spread);
    }
  };
  tower("visual.", layers, 1);
  tower("", 1, 0.2f);
  add("visual.conv1.weight", {width, 3, 8, 8}, 0.1f);
  add("visual.class_embedding", {width}, 0.1f);
  add("visual.positional_embedding", {patches + 1, width}, 0.1f);
  norm("visual.ln_pre");
  norm("visual.ln_post");
  add("visual.proj", {width, 24}, 0.2f);
  add("token_embedding.weight", {40, width}, 0.1f);
  add("positional_embedding", {6, width}, 0.1f);
  norm("ln_final");
  add("text_projection", {width, 24}, 0.2f);
  add("logit_scale", {}, 0, 3);
  std::string text = header.dump();
  text.resize((text.size() + 7) / 8 * 8, ' ');
  const std::uint64_t length = text.size();
  fs::create_directories(folder);
  std::ofstream out(folder / "open_clip_model.safetensors", std::ios::binary);
  out.write(reinterpret_cast<const char*>(&length), 8) << text;
  out.write(reinterpret_cast<const char*>(data.data()), static_cast<std::streamsize>(data.size() * 4));
  std::ofstream(folder / "open_clip_config.json") << R"({"model_cfg": {"embed_dim": 24, "vision_cfg": {"image_size": 32,
    "layers": 9, "width": 32, "head_width": 16, "patch_size": 8, "mlp_ratio": 2.0}, "text_cfg": {"context_length": 6,
    "vocab_size": 40, "width": 32, "heads": 2, "layers": 1, "mlp_ratio": 2.0}}})";
}

TEST_CASE("--calibrate reports what it measured of the file that it wrote, also where it kept as many blocks as it may") {
  const test_files::scratch_folder scratch;
  write_sensitive_checkpoint(scratch.path / "model");
  std::string picture = "P6 40 32 255\n";
  for (int i = 0; i < 40 * 32 * 3; i++) picture += static_cast<char>(i * i % 251);
  scratch.write("pictures/a.ppm", picture);
  std::reverse(picture.begin() + 13, picture.end());
  scratch.write("pictures/b.ppm", picture);
  convert_options o;
  o.source = scratch.path / "model";
  o.output = scratch.path / "f16.oc";
  o.type = dtype::f16;
  const auto half = convert::convert(o);
  REQUIRE_MESSAGE(half, (half ? "" : half.failure().what));
  o.output = scratch.path / "s8.oc";
  o.type = dtype::s8;
  o.calibrate = scratch.path / "pictures";
  const auto done = convert::convert(o);
  REQUIRE_MESSAGE(done, (done ? "" : done.failure().what));
  const result<mapped_file> file = mapped_file::open(o.output.c_str());
  REQUIRE(file);
  const result<packed_file> packed = packed_file::open(file->bytes());
  REQUIRE(packed);
  const auto section = packed->section(format::section::report);
  const auto report = nlohmann::json::parse(std::string(reinterpret_cast<const char*>(section.data()), section.size()));
  CHECK(report["kept_f16"].size() == 6);
  const auto inputs = read_calibration(*o.calibrate, ocellus::detail::stored_config(*packed)->preprocess);
  REQUIRE(inputs);
  const auto found = compare_models(scratch.path / "f16.oc", o.output, *inputs);
  REQUIRE(found);
  CHECK(report["image"]["worst_cos"].get<double>() == found->image.worst_cos);
  CHECK(report["image"]["mean_cos"].get<double>() == found->image.mean_cos);
}

TEST_CASE("fields that a configuration leaves out have the defaults of the reference's class") {
  small_checkpoint c;
  c.add("text_model.embeddings.token_embedding.weight", {49408, 1});
  const checkpoint file = c.open();
  // Everything left out: the first thing that does not fit is the width of 512.
  const auto text = read_hugging_face(file, {{"model_type", "clip_text_model"}}, "config.json", nullptr, "");
  REQUIRE_FALSE(text);
  CHECK(text.failure().what ==
        "tensor text_model.embeddings.token_embedding.weight has shape [49408, 1], expected [49408, 512]");
  const auto other = read_hugging_face(file, {{"model_type", "bert"}}, "config.json", nullptr, "");
  REQUIRE_FALSE(other);
  CHECK(other.failure().what.find("model_type \"bert\" is not supported") != std::string::npos);
}

TEST_CASE("a conversion that fails leaves no file, and says which file is at fault") {
  const fs::path out = scratch("fails.oc"), source = scratch("junk.pt");
  std::ofstream(source) << "<html>not found</html>";
  const auto done = convert::convert({.source = source,
                                      .output = out,
                                      .type = ocellus::dtype::f32,
                                      .tokenizer = {},
                                      .config = {},
                                      .licence = {}});
  REQUIRE_FALSE(done);
  CHECK(done.failure().what.find("junk.pt: ") == 0);
  CHECK(done.failure().what.find('\n') == std::string::npos);
  CHECK_FALSE(fs::exists(out));
  fs::remove(source);
}

}  // namespace
