// The checkpoint readers: hand-made files of each container, the reference packages' own files, and damaged
// ones.
#include <doctest/doctest.h>

#include "byte_source.hpp"
#include "checkpoint.hpp"
#include "json.hpp"
#include "pickle.hpp"
#include "test_files.hpp"
#include "zip.hpp"

#include <unistd.h>
#include <zlib.h>

#include <algorithm>
#include <bit>
#include <chrono>
#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <set>
#include <string>
#include <string_view>
#include <vector>

namespace {

using namespace ocellus::convert;
namespace fs = std::filesystem;
using test_files::scratch_folder;
using test_files::shared;

// ------------------------------------------------------------------------------------------------ files made
// by hand

std::string little(std::uint64_t value, int bytes) {
  std::string out;
  for (int i = 0; i < bytes; ++i, value >>= 8) out += static_cast<char>(value);
  return out;
}

/// A zip archive of stored entries. `zip64` writes sizes and offsets into the 64-bit fields, as for large
/// archives.
std::string make_zip(const std::vector<std::pair<std::string, std::string>>& entries, bool zip64 = false) {
  std::string out, directory;
  for (const auto& [name, data] : entries) {
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()));
    const std::string facts =
        little(crc, 4) + little(data.size(), 4) + little(data.size(), 4) + little(name.size(), 2);
    const std::uint64_t offset = out.size();
    out += "PK\x03\x04" + little(20, 2) + little(0, 8) + facts + little(0, 2) + name + data;
    if (zip64) {
      const std::string extra =
          little(1, 2) + little(24, 2) + little(data.size(), 8) + little(data.size(), 8) + little(offset, 8);
      directory += "PK\x01\x02" + little(45, 2) + little(45, 2) + little(0, 8) + little(crc, 4) +
                   little(0xffffffff, 4) + little(0xffffffff, 4) + little(name.size(), 2) +
                   little(extra.size(), 2) + little(0, 10) + little(0xffffffff, 4) + name + extra;
    } else {
      directory += "PK\x01\x02" + little(20, 2) + little(20, 2) + little(0, 8) + facts + little(0, 12) +
                   little(offset, 4) + name;
    }
  }
  const std::uint64_t begin = out.size();
  out += directory;
  if (zip64) {
    const std::uint64_t end = out.size();
    out += "PK\x06\x06" + little(44, 8) + little(45, 2) + little(45, 2) + little(0, 8) +
           little(entries.size(), 8) + little(entries.size(), 8) + little(directory.size(), 8) +
           little(begin, 8);
    out += "PK\x06\x07" + little(0, 4) + little(end, 8) + little(1, 4);
  }
  const std::uint64_t mask = zip64 ? ~std::uint64_t{0} : 0;
  return out + "PK\x05\x06" + little(0, 4) + little(entries.size() | mask, 2) +
         little(entries.size() | mask, 2) + little(directory.size() | mask, 4) + little(begin | mask, 4) +
         little(0, 2);
}

std::string make_safetensors(const std::string& header, const std::string& data) {
  return little(header.size(), 8) + header + data;
}

std::string make_npy(const std::string& header, const std::string& data) {
  return std::string("\x93NUMPY\x01\x00", 8) + little(header.size(), 2) + header + data;
}

// Pieces of a pickle: a text, a storage's persistent id, a tensor of a given shape and strides.
std::string text(const std::string& s) { return 'X' + little(s.size(), 4) + s; }
std::string number(std::int64_t n) { return "\x8a\x08" + little(static_cast<std::uint64_t>(n), 8); }
std::string storage(const std::string& type, const std::string& key, std::int64_t elements) {
  return '(' + text("storage") + "ctorch\n" + type + "\n" + text(key) + text("cpu") + number(elements) + "tQ";
}
std::string numbers(const std::vector<std::int64_t>& all) {
  std::string out = "(";
  for (const std::int64_t n : all) out += number(n);
  return out + 't';
}
std::string tensor(const std::string& from, std::int64_t offset, const std::vector<std::int64_t>& shape,
                   const std::vector<std::int64_t>& strides) {
  return "ctorch._utils\n_rebuild_tensor_v2\n(" + from + number(offset) + numbers(shape) + numbers(strides) +
         "\x89"
         "ccollections\nOrderedDict\n)RtR";
}
std::string pickle(const std::string& body) { return "\x80\x02" + body + '.'; }

std::string floats(const std::vector<float>& values) {
  return {reinterpret_cast<const char*>(values.data()), 4 * values.size()};
}

outcome<checkpoint> open(const std::string& bytes) {
  return checkpoint::open_memory(std::as_bytes(std::span(bytes)));
}

std::vector<float> values(const checkpoint& file, std::string_view name) {
  const tensor_info* const found = file.find(name);
  REQUIRE_MESSAGE(found != nullptr, name);
  std::vector<float> out;
  const outcome<void> read = file.read_f32(*found, out);
  REQUIRE_MESSAGE(read, read.failure().what);
  return out;
}

std::string why(const std::string& bytes) {
  const outcome<checkpoint> file = open(bytes);
  return file ? "opened" : file.failure().what;
}

std::string digest(std::span<const float> all) {
  sha256 sum;
  sum.add(std::as_bytes(all));
  return sum.finish();
}

}  // namespace

TEST_CASE("sha256: the vectors of FIPS 180-4, in one piece and in many") {
  CHECK(sha256().finish() == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
  sha256 abc;
  abc.add(std::as_bytes(std::span("abc", 3)));
  CHECK(abc.finish() == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
  const std::string a(1'000'000, 'a');
  sha256 million;
  for (std::size_t at = 0, piece = 1; at < a.size(); at += piece, piece = piece % 300 + 1) {
    million.add(std::as_bytes(std::span(a).subspan(at, std::min(piece, a.size() - at))));
  }
  CHECK(million.finish() == "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("is_utf8 refuses overlong forms, surrogates, cut sequences and what lies above U+10FFFF") {
  for (const char* good :
       {"", "a", "\xc3\xa9", "\xe2\x82\xac", "\xf0\x9f\x98\x80", "\xf4\x8f\xbf\xbf", "\xed\x9f\xbf"})
    CHECK(is_utf8(good));
  for (const char* bad : {"\x80", "\xc3", "\xc0\xaf", "\xe0\x9f\xbf", "\xed\xa0\x80", "\xf4\x90\x80\x80",
                          "\xf5\x80\x80\x80", "\xe2\x82"}) {
    CHECK_FALSE(is_utf8(bad));
  }
}

TEST_CASE("parse_json: depth, size, count, keys that come twice, and what JSON does not allow") {
  CHECK(parse_json("{\"a\": [1, -2, 3.5, null, true, \"\\u00e9\"]}"));
  CHECK(parse_json("\xef\xbb\xbf{}"));
  CHECK((*parse_json("{\"a\": 1, \"a\": 2}"))["a"] == 2);
  CHECK_FALSE(parse_json("{\"a\": 1, \"a\": 2}", {.unique_keys = true}));
  CHECK(parse_json(std::string(64, '[') + std::string(64, ']')));
  CHECK_FALSE(parse_json(std::string(65, '[') + std::string(65, ']')));
  CHECK_FALSE(parse_json(std::string(1'000'000, '[')));
  CHECK_FALSE(parse_json("[1,2,3]", {.values = 3}));
  CHECK_FALSE(parse_json("[1,2,3]", {.bytes = 6}));
  for (const char* bad : {"", "{", "{} x", "NaN", "[Infinity]", "1e400", "\"\xff\"", "\"\\ud800\"", "[01]",
                          "{'a': 1}", "[1,]"}) {
    CHECK_FALSE(parse_json(bad));
  }
}

TEST_CASE("outcome texts from a file are one line of printable ASCII") {
  CHECK(printable("a\n\xff\x1b[31m") == "a\\x0a\\xff\\x1b[31m");
  CHECK(printable(std::string(1000, 'x')).size() < 120);
}

TEST_CASE("safetensors: every type that we read arrives as f32 or as integers") {
  const std::string header =
      R"({"d":{"dtype":"F64","shape":[2],"data_offsets":[0,16]},"f":{"dtype":"F32","shape":[],"data_offsets":[16,20]},)"
      R"("h":{"dtype":"F16","shape":[1,4],"data_offsets":[20,28]},"b":{"dtype":"BF16","shape":[2],"data_offsets":[28,32]},)"
      R"("i":{"dtype":"I64","shape":[1],"data_offsets":[32,40]},"t":{"dtype":"BOOL","shape":[2],"data_offsets":[40,42]},)"
      R"("x":{"dtype":"F8_E4M3","shape":[2],"data_offsets":[42,44]},"__metadata__":{"format":"pt"}})";
  const double doubles[] = {1.0 / 3, 1e300};
  std::string data(reinterpret_cast<const char*>(doubles), 16);
  data += floats({0.1f}) + little(0x3c00, 2) + little(0x8001, 2) + little(0x7c00, 2) + little(0x7bff, 2);
  data += little(0x3f80, 2) + little(0xc049, 2) + little(static_cast<std::uint64_t>(-5), 8) +
          std::string("\x01\x00\x00\x00", 4);
  const std::string bytes = make_safetensors(header, data);
  const outcome<checkpoint> file = open(bytes);
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(file->kind() == container::safetensors);
  CHECK(file->metadata().at("format") == "pt");
  CHECK(values(*file, "d") == std::vector<float>{1.0f / 3, INFINITY});
  CHECK(values(*file, "f") == std::vector<float>{0.1f});
  CHECK(values(*file, "h") == std::vector<float>{1.0f, -0x1p-24f, INFINITY, 65504.0f});
  CHECK(values(*file, "b") == std::vector<float>{1.0f, -3.140625f});
  CHECK(file->find("h")->shape == std::vector<std::int64_t>{1, 4});
  CHECK_FALSE(check_finite("d", values(*file, "d")));
  CHECK(check_finite("b", values(*file, "b")));
  std::vector<std::int64_t> integers;
  REQUIRE(file->read_i64(*file->find("i"), integers));
  CHECK(integers == std::vector<std::int64_t>{-5});
  REQUIRE(file->read_i64(*file->find("t"), integers));
  CHECK(integers == std::vector<std::int64_t>{1, 0});
  std::vector<float> weights;
  CHECK_FALSE(file->read_f32(*file->find("i"), weights));
  CHECK_FALSE(file->read_f32(*file->find("x"), weights));
  CHECK(file->find("y") == nullptr);
}

TEST_CASE("safetensors: a header that its data does not bear out is refused, and how is told") {
  const auto refused = [](const std::string& tensors, std::size_t bytes, std::string_view what) {
    const std::string got = why(make_safetensors("{" + tensors + "}", std::string(bytes, '\0')));
    CHECK_MESSAGE(got.find(what) != std::string::npos, got);
  };
  const auto tensor = [](const std::string& name, int shape, int begin, int end) {
    return "\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[" + std::to_string(shape) + "],\"data_offsets\":[" +
           std::to_string(begin) + "," + std::to_string(end) + "]}";
  };
  refused(tensor("a", 1, 8, 4), 8, "lie outside of the file");
  refused(tensor("a", 1, 0, 8), 8, "disagree");
  refused(tensor("a", 1, 0, 4) + "," + tensor("b", 1, 8, 12), 12, "leaves a hole or overlaps");
  refused(tensor("a", 2, 0, 8) + "," + tensor("b", 1, 4, 8), 8, "leaves a hole or overlaps");
  refused(tensor("a", 1, 0, 4), 8, "bytes after the last tensor");
  refused(tensor("a", 1, 0, 4) + "," + tensor("a", 1, 4, 8), 8, "twice");
}

TEST_CASE("safetensors: every half-precision number widens exactly") {
  std::string data;
  for (std::uint32_t h = 0; h < 65536; ++h) data += little(h, 2);
  const std::string bytes =
      make_safetensors(R"({"h":{"dtype":"F16","shape":[65536],"data_offsets":[0,131072]}})", data);
  const outcome<checkpoint> file = open(bytes);
  REQUIRE(file);
  const std::vector<float> all = values(*file, "h");
  int wrong = 0;
  for (std::uint32_t h = 0; h < 65536; ++h) {
    const int exponent = h >> 10 & 31, mantissa = h & 0x3ff;
    const double magnitude =
        exponent == 31 ? (mantissa == 0 ? INFINITY : NAN)
                       : std::ldexp(exponent == 0 ? mantissa : mantissa + 1024, std::max(exponent, 1) - 25);
    const double expected = h & 0x8000 ? -magnitude : magnitude;
    wrong += std::isnan(expected) ? !std::isnan(all[h])
                                  : !(all[h] == expected && std::signbit(all[h]) == std::signbit(expected));
  }
  CHECK(wrong == 0);
}

TEST_CASE(
    "PyTorch zip: offsets, transposed and expanded views, a key that comes again, wrappers and prefixes") {
  const std::string base = storage("FloatStorage", "0", 7);
  const std::string dict = "}(" + text("module.t") + tensor(base, 1, {3, 2}, {1, 3}) + text("module.e") +
                           tensor(base, 6, {2, 2}, {0, 0}) + text("module.s") + tensor(base, 2, {}, {}) +
                           text("module.s") + tensor(base, 3, {}, {}) + 'u';
  const std::string body =
      "}(" + text("epoch") + number(7) + text("optimizer") + "}" + text("state_dict") + dict + 'u';
  const std::string data = floats({0, 1, 2, 3, 4, 5, 6});
  for (const bool zip64 : {false, true}) {
    const std::string bytes = make_zip({{"x/data.pkl", pickle(body)}, {"x/data/0", data}}, zip64);
    const outcome<checkpoint> file = open(bytes);
    REQUIRE_MESSAGE(file, file.failure().what);
    CHECK(file->kind() == container::pytorch_zip);
    REQUIRE(file->tensors().size() == 3);
    CHECK(values(*file, "t") == std::vector<float>{1, 4, 2, 5, 3, 6});
    CHECK(values(*file, "e") == std::vector<float>{6, 6, 6, 6});
    CHECK(values(*file, "s") == std::vector<float>{3});
    CHECK(file->metadata().at("epoch") == "7");
    CHECK(file->notes().size() == 2);
  }
  std::string swapped;
  for (std::size_t i = 0; i < data.size(); i += 4)
    swapped += {data[i + 3], data[i + 2], data[i + 1], data[i]};
  const std::string big =
      make_zip({{"x/data.pkl", pickle(body)}, {"x/byteorder", "big"}, {"x/data/0", swapped}});
  const outcome<checkpoint> file = open(big);
  REQUIRE(file);
  CHECK(values(*file, "t") == std::vector<float>{1, 4, 2, 5, 3, 6});
}

TEST_CASE("PyTorch zip: the opcodes of pickle protocol 4, as torch.save(pickle_protocol=4) writes them") {
  const auto brief = [](const std::string& s) {
    return std::string("\x8c").append(little(s.size(), 1)).append(s).append("\x94");
  };
  const std::string id = "(" + brief("storage") + brief("torch") + brief("HalfStorage") + "\x93" +
                         brief("0") + brief("cpu") + "K\x02tQ";
  const std::string one =
      brief("torch._utils") + brief("_rebuild_tensor_v2") + "\x93(" + id + "K\x01))\x89}tR";
  const std::string body =
      brief("collections") + brief("OrderedDict") + "\x93)R\x94" + brief("w") + one + "s.";
  const std::string bytes = make_zip({{"a/data.pkl", "\x80\x04\x95" + little(body.size(), 8) + body},
                                      {"a/data/0", little(0x3c00, 2) + little(0x4000, 2)}});
  const outcome<checkpoint> file = open(bytes);
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(values(*file, "w") == std::vector<float>{2});
}

TEST_CASE("PyTorch zip: a view that negates its data is refused, as its values are not those stored") {
  const std::string from = storage("FloatStorage", "0", 2);
  const auto saved = [&](const std::string& call, const std::string& type, const std::string& views) {
    const std::string built = "ctorch._utils\n" + call + "\n(" + from + number(0) + numbers({2}) + numbers({1}) +
                              "\x89" + "ccollections\nOrderedDict\n)R" + type + views + "tR";
    return make_zip({{"x/data.pkl", pickle("}" + text("w") + built + 's')}, {"x/data/0", floats({1, 2})}});
  };
  const std::string negated = "}" + text("neg") + "\x88s";
  const std::string call = "_rebuild_tensor_v", type = "ctorch\nfloat32\n";
  for (const std::string& plain : {saved(call + "2", "", "}"), saved(call + "3", type, "}")}) {
    const outcome<checkpoint> file = open(plain);
    REQUIRE_MESSAGE(file, file.failure().what);
    CHECK(values(*file, "w") == std::vector<float>{1, 2});
  }
  for (const std::string& bytes : {saved(call + "2", "", negated), saved(call + "3", type, negated)})
    CHECK(why(bytes).find("a negated or conjugated view") != std::string::npos);
}

TEST_CASE("PyTorch before 1.6: five pickles, then the storages in the order of the last") {
  const std::string magic = pickle("\x8a\x0a" + std::string("\x6c\xfc\x9c\x46\xf9\x20\x6a\xa8\x50\x19", 10));
  const std::string front = magic + pickle(number(1001)) + pickle("}" + text("little_endian") + "\x88s");
  const std::string dict = pickle("}(" + text("a") + tensor(storage("FloatStorage", "11", 2), 1, {1}, {1}) +
                                  text("b") + tensor(storage("HalfStorage", "12", 1), 0, {}, {}) + 'u');
  const std::string keys = pickle("](" + text("12") + text("11") + 'e');
  const std::string data = little(1, 8) + little(0x3c00, 2) + little(2, 8) + floats({5, 6});
  const std::string bytes = front + dict + keys + data;
  const outcome<checkpoint> file = open(bytes);
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(file->kind() == container::pytorch_legacy);
  CHECK(values(*file, "a") == std::vector<float>{6});
  CHECK(values(*file, "b") == std::vector<float>{1});
  for (std::size_t size = 0; size < bytes.size(); ++size) CHECK(why(bytes.substr(0, size)) != "opened");
  CHECK(why(front + dict + pickle("](" + text("12") + text("13") + 'e') + data) != "opened");
  CHECK(why(front + dict + keys + little(1, 8) + little(0x3c00, 2) + little(3, 8) + floats({5, 6, 7})) !=
        "opened");
  CHECK(why(pickle(number(1)) + dict) != "opened");
}

TEST_CASE("PyTorch zip: tensors that leave their storage are refused by name") {
  const auto with = [](const std::string& one) {
    return why(make_zip(
        {{"x/data.pkl", pickle("}(" + text("w") + one + 'u')}, {"x/data/0", std::string(16, '\0')}}));
  };
  const std::string base = storage("FloatStorage", "0", 4);
  CHECK(with(tensor(base, 0, {4}, {1})) == "opened");
  for (const std::string& bad :
       {tensor(base, 1, {4}, {1}), tensor(base, 0, {2, 3}, {3, 1}), tensor(base, 0, {2}, {INT64_MAX}),
        tensor(base, 0, {INT64_MAX, INT64_MAX}, {0, 0}), tensor(base, 0, {1 << 30}, {0}),
        tensor(base, INT64_MAX, {1}, {1}),
        tensor(base, 0, std::vector<std::int64_t>(9, 1), std::vector<std::int64_t>(9, 1)),
        tensor(storage("FloatStorage", "0", 5), 0, {4}, {1}),
        tensor(storage("FloatStorage", "1", 4), 0, {4}, {1}),
        tensor(storage("FloatStorage", "0", INT64_MAX), 0, {4}, {1})}) {
    const std::string what = with(bad);
    CHECK_MESSAGE(what.starts_with("tensor \"w\""), what);
  }
  CHECK(with(tensor(base, -1, {4}, {1})) != "opened");
  CHECK(with(tensor(base, 0, {-4}, {1})) != "opened");
  CHECK(with(tensor(base, 0, {4}, {1, 1})) != "opened");
}

TEST_CASE("TorchScript: modules become dotted names, and their classes are allowed in such archives only") {
  const std::string base = storage("FloatStorage", "0", 2);
  const std::string inner = "c__torch__.torch.nn.modules.conv\nConv2d\n)\x81}(" + text("weight") +
                            tensor(base, 0, {2}, {1}) + text("training") + "\x89" + "ub";
  const std::string root = "c__torch__.model\nCLIP\n)\x81}(" + text("visual") + inner + text("layers") +
                           number(12) + text("scale") + tensor(base, 1, {}, {}) + "ub";
  const std::string data = floats({1, 2});
  const std::string script =
      make_zip({{"m/data.pkl", pickle(root)}, {"m/constants.pkl", pickle(")")}, {"m/data/0", data}});
  const outcome<checkpoint> file = open(script);
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(file->kind() == container::torchscript);
  CHECK(values(*file, "visual.weight") == std::vector<float>{1, 2});
  CHECK(values(*file, "scale") == std::vector<float>{2});
  CHECK(file->metadata().at("layers") == "12");
  const std::string plain = why(make_zip({{"m/data.pkl", pickle(root)}, {"m/data/0", data}}));
  CHECK_MESSAGE(plain.find("__torch__.model.CLIP") != plain.npos, plain);
}

TEST_CASE("pickle: nothing is called, and what is asked for is named") {
  const auto asked = [](const std::string& body) { return why(make_zip({{"x/data.pkl", pickle(body)}})); };
  CHECK(asked("cos\nsystem\n" + text("touch OCELLUS_PWNED") + "\x85R").find("os.system") !=
        std::string::npos);
  CHECK(asked(text("os") + text("system") + "\x93" + text("true") + "\x85R").find("os.system") !=
        std::string::npos);
  CHECK(asked("cbuiltins\neval\n").find("builtins.eval") != std::string::npos);
  for (const std::string& body :
       {std::string("h\x05"), std::string("t"), std::string("(]u"), std::string("}]Ns"), std::string("NR"),
        std::string("ccollections\nOrderedDict\n)"), "X" + little(0xffffffff, 4) + "abc",
        "\x8d" + little(~std::uint64_t{0}, 8) + "abc", std::string("\x95") + little(1000, 8),
        std::string("i"), std::string("\x82\x01"), std::string("r\xff\xff\xff\x7f"), std::string(),
        std::string("(."), std::string("N0")}) {
    CHECK(asked(body) != "opened");
  }
}

TEST_CASE("pickle: deep, cyclic and shared structures end quickly") {
  std::string laughs = ")";
  for (int i = 0; i < 60; ++i) laughs += std::string("q\x01") + "h\x01\x86";
  std::string modules = "c__torch__\nM\n)\x81";  // each module holds the one before twice
  for (int i = 0; i < 60; ++i) {
    modules +=
        "q\x01"
        "0c__torch__\nM\n)\x81}(" +
        text("a") + "h\x01" + text("b") +
        "h\x01"
        "ub";
  }
  const std::string cycle = "}q\x01" + text("state_dict") + "h\x01s";
  const std::string deep = std::string(3'000'000, ']') + std::string(2'999'999, 'a');
  const auto begin = std::chrono::steady_clock::now();
  for (const std::string& body : {laughs, modules, cycle, deep, std::string(20'000'000, '('),
                                  std::string(30'000'000, '}'), std::string(30'000'000, ')')}) {
    CHECK(why(make_zip({{"x/data.pkl", pickle(body)}, {"x/constants.pkl", pickle("N")}})) != "opened");
  }
  CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(20));
}

TEST_CASE("zip: overlaps, names twice, disagreement, wrong checksums and cut files are refused") {
  const std::string good = make_zip(
      {{"a.npy", make_npy("{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", floats({1, 2}))}});
  const outcome<checkpoint> file = open(good);
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(values(*file, "a") == std::vector<float>{1, 2});
  CHECK(why(make_zip({{"a.npy", ""}, {"a.npy", ""}})).find("twice") != std::string::npos);
  CHECK(why(make_zip({{"../a.npy", ""}})).find("out of the archive") != std::string::npos);
  CHECK(why(make_zip({})) != "opened");
  for (std::size_t size = 0; size < good.size(); ++size) CHECK(why(good.substr(0, size)) != "opened");

  // Any byte changed: refused, or read with the checksum verified.
  int survived = 0;
  for (std::size_t at = 0; at < good.size(); ++at) {
    std::string changed = good;
    changed[at] = static_cast<char>(changed[at] ^ 0x41);
    const outcome<checkpoint> odd = open(changed);
    if (!odd || odd->find("a") == nullptr) continue;
    std::vector<float> out;
    if (odd->read_f32(*odd->find("a"), out)) {
      CHECK(out == std::vector<float>{1, 2});
      ++survived;
    }
  }
  CHECK(survived < 60);  // versions, times, attributes

  // Two directory entries for one local header.
  std::string twice = make_zip({{"a", "xxxx"}, {"b", "yyyy"}});
  const std::size_t second = twice.rfind("PK\x01\x02");
  twice.replace(second + 42, 4, little(0, 4));
  CHECK(why(twice) != "opened");
  // An entry with its header inside of another's data.
  const std::string inner = make_zip({{"b", "yyyy"}}).substr(0, 30 + 1 + 4);
  std::string nested = make_zip({{"a", "xx" + inner}, {"b", "yyyy"}});
  nested.replace(nested.rfind("PK\x01\x02") + 42, 4, little(30 + 1 + 2, 4));
  CHECK(why(nested).find("overlaps another entry") != std::string::npos);
  // An entry longer than what lies before the directory.
  std::string longer = make_zip({{"a", "xxxx"}});
  for (const std::size_t sizes : {std::size_t{18}, longer.find("PK\x01\x02") + 20})
    longer.replace(sizes, 8, little(14, 4) + little(14, 4));
  CHECK(why(longer).find("runs into the directory") != std::string::npos);
  std::string other = good;
  other[14] = static_cast<char>(other[14] ^ 1);  // the checksum in the local header alone
  CHECK(why(other).find("disagrees") != std::string::npos);
  std::string more = good;
  more.replace(more.rfind("PK\x05\x06") + 8, 4, "\xff\xff\xff\xff");
  CHECK(why(more).find("fewer entries") != std::string::npos);
  more = make_zip({{std::string(50, 'n'), ""}});
  more.replace(more.rfind("PK\x05\x06") + 8, 4, little(2, 2) + little(2, 2));
  CHECK(why(more).find("another number of entries") != std::string::npos);
}

TEST_CASE("zip: compressed entries unpack to what they announce, or are refused") {
  const std::string data = "twelve bytes";
  const auto read = [&](std::size_t announced) {
    const std::string block = "\x01" + little(data.size(), 2) + little(~data.size(), 2) + data;  // of deflate, as it is
    std::string zip = make_zip({{"a", block}});
    const auto crc = crc32(0, reinterpret_cast<const Bytef*>(data.data()), static_cast<uInt>(data.size()));
    for (const std::size_t method : {std::size_t{8}, zip.find("PK\x01\x02") + 10}) {
      zip.replace(method, 2, little(8, 2));
      zip.replace(method + 6, 4, little(crc, 4));
      zip.replace(method + 14, 4, little(announced, 4));
    }
    const auto archive = zip_archive::open(byte_source(std::as_bytes(std::span(zip))));
    if (!archive) return archive.failure().what;
    const auto bytes = archive->read_all(archive->entries().front(), 1 << 20);
    if (!bytes) return bytes.failure().what;
    return std::string(reinterpret_cast<const char*>(bytes->data()), bytes->size());
  };
  CHECK(read(12) == data);
  CHECK(read(13).find("to less than it announces") != std::string::npos);
  CHECK(read(11).find("to more than it announces") != std::string::npos);
  CHECK(read(18 * 1032).find("impossible size") != std::string::npos);
}

TEST_CASE("npz: Fortran order, bfloat16, big-endian and the forms of the header") {
  const auto one = [](const std::string& header, const std::string& data) {
    return make_zip({{"p/a.npy", make_npy(header, data)}});
  };
  const auto read = [&](const std::string& header, const std::string& data) {
    const std::string bytes = one(header, data);
    const outcome<checkpoint> file = open(bytes);
    REQUIRE_MESSAGE(file, file.failure().what);
    CHECK(file->kind() == container::npz);
    return values(*file, "p/a");
  };
  CHECK(read("{'descr': '<f4', 'fortran_order': True, 'shape': (2, 3), }\n", floats({1, 4, 2, 5, 3, 6})) ==
        std::vector<float>{1, 2, 3, 4, 5, 6});
  CHECK(read("{\"shape\": (1L,), 'descr': '|V2', 'fortran_order': False}", little(0x3fc0, 2)) ==
        std::vector<float>{1.5f});
  CHECK(read("{'descr': '>f2', 'fortran_order': False, 'shape': ()}", std::string("\x3c\x00", 2)) ==
        std::vector<float>{1});
  CHECK(read("{'descr': '<f4', 'fortran_order': False, 'shape': (0, 3)}", "").empty());
  for (const char* bad :
       {"{'descr': '<f4', 'fortran_order': False, 'shape': (1)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (-1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (2,)}", "{'descr': '<f4', 'shape': (1,)}",
        "{'descr': '|O', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': [('a', '<f4')], 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)",
        "{'descr': '<f4', 'fortran_order': False, 'shape': (1,)} x",
        "{'descr': '<f4', 'fortran_order': __import__('os'), 'shape': (1,)}", "", "{", "{}",
        "{'descr': '<f4', 'descr': '<f4', 'fortran_order': False, 'shape': (1,)}",
        "{'descr': '<f4', 'fortran_order': True, 'shape': (4294967296, 4294967296, 1)}"}) {
    CHECK_MESSAGE(why(one(bad, floats({1}))) != "opened", bad);
  }
}

TEST_CASE("a folder: what is looked for, in which order, and shards that must lie in it") {
  const auto tensor_file = [](const std::string& name, float value) {
    return make_safetensors("{\"" + name + "\":{\"dtype\":\"F32\",\"shape\":[1],\"data_offsets\":[0,4]}}",
                            floats({value}));
  };
  const scratch_folder up;
  const fs::path folder = up.path / "model";
  fs::create_directory(folder);
  outcome<checkpoint> file = checkpoint::open(folder);
  REQUIRE_FALSE(file);
  CHECK(file.failure().what.find("model.safetensors") != std::string::npos);

  up.write("model/odd.safetensors", tensor_file("odd", 1));
  file = checkpoint::open(folder);
  REQUIRE(file);
  CHECK(file->find("odd") != nullptr);
  up.write("model/second.safetensors", tensor_file("second", 1));
  CHECK_FALSE(checkpoint::open(folder));

  const auto index = [&](const std::string& map) {
    up.write("model/model.safetensors.index.json", "{\"metadata\": {}, \"weight_map\": {" + map + "}}");
    return checkpoint::open(folder);
  };
  file = index(R"("odd": "odd.safetensors", "second": "second.safetensors")");
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(file->kind() == container::safetensors_sharded);
  CHECK(file->tensors().size() == 2);
  CHECK(file->files().size() == 3);
  CHECK(values(*file, "second") == std::vector<float>{1});
  CHECK(
      index(R"("odd": "second.safetensors", "second": "odd.safetensors")"));  // the shards themselves decide
  up.write("outside.safetensors", tensor_file("out", 1));
  fs::create_symlink("../outside.safetensors", folder / "link.safetensors");
  for (const char* bad : {R"("out": "../outside.safetensors")", R"("out": "/etc/passwd")",
                          R"("out": "..\\outside.safetensors")", R"("out": "link.safetensors")",
                          R"("out": "odd.safetensors\u0000")", R"("out": "")", R"("out": "..")",
                          R"("out": 7)", R"("out": "gone.safetensors")", R"("out": "odd.safetensors")",
                          R"("odd": "model.safetensors.index.json")"}) {
    CHECK_MESSAGE(!index(bad), bad);
  }
  file = index(R"("out": "gone.safetensors")");
  REQUIRE_FALSE(file);
  CHECK(file.failure().what ==
        "the index names the shard \"gone.safetensors\", which is missing: download it into the same folder");
  up.write("flax/config.json", "{}");
  up.write("flax/flax_model.msgpack", "\x81\xa1");
  file = checkpoint::open(up.path / "flax");
  REQUIRE_FALSE(file);
  CHECK(file.failure().what.find("another framework only (flax_model.msgpack)") != std::string::npos);

  // Hugging Face's cache: snapshots/<revision>/ holds links into blobs/.
  up.write("hub/blobs/1234", tensor_file("cached", 2));
  up.write("hub/snapshots/abc/model.safetensors.index.json",
           R"({"weight_map": {"cached": "model-00001-of-00001.safetensors"}})");
  fs::create_symlink("../../blobs/1234", up.path / "hub/snapshots/abc/model-00001-of-00001.safetensors");
  file = checkpoint::open(up.path / "hub/snapshots/abc");
  REQUIRE_MESSAGE(file, file.failure().what);
  CHECK(values(*file, "cached") == std::vector<float>{2});

  up.write("model/model.safetensors", tensor_file("whole", 3));
  file = checkpoint::open(folder);
  REQUIRE(file);
  CHECK(file->find("whole") != nullptr);
  CHECK_FALSE(checkpoint::open(up.path / "nothing"));
  CHECK_FALSE(checkpoint::open("/dev/null"));
}

TEST_CASE("files that are no checkpoints are told for what they are") {
  CHECK(why("").find("empty") != std::string::npos);
  CHECK(why("<!DOCTYPE html><html></html>").find("web page") != std::string::npos);
  CHECK(why("version https://git-lfs.github.com/spec/v1\noid sha256:00\n").find("LFS") != std::string::npos);
  CHECK(why(std::string(3000, '\0')).find("not a checkpoint") != std::string::npos);

  // Each says what it is and what to do.
  const auto says = [](const std::string& bytes, std::initializer_list<const char*> parts) {
    const std::string line = why(bytes);
    for (const char* part : parts) CHECK_MESSAGE(line.find(part) != std::string::npos, line);
    CHECK(line.find('\n') == std::string::npos);
  };
  says("version https://git-lfs.github.com/spec/v1\noid sha256:a630\nsize 605247071\n",
       {"LFS pointer", "605247071 bytes", "git lfs pull"});
  says("\xef\xbb\xbf\r\n <html><body>Access denied</body></html>", {"web page", "fetch it again"});
  says("{\"error\":\"Repository not found\"}\n", {"text, not a checkpoint", "Repository not found"});
  says("Entry not found", {"text, not a checkpoint", "Entry not found"});
  says(std::string("\x08\x08\x12\x07pytorch\x1a\x05" "2.1.0:", 18) + std::string(200, '\1'), {"ONNX", "PyTorch"});
  says(std::string("\x08\x01\x12\xf0\x22meta", 9), {"SavedModel", "PyTorch"});
  says(std::string("\x1c\0\0\0TFL3", 8) + std::string(100, '\0'), {"TensorFlow Lite", "PyTorch"});
  says("GGUF" + little(3, 4) + little(1, 8) + little(1, 8), {"GGUF", "safetensors"});
  says("\x89HDF\r\n\x1a\n" + std::string(100, '\0'), {"HDF5", "safetensors"});
  says(std::string("\x82\xa6params\x81\xa4text", 15), {"MessagePack", "Flax", "safetensors"});
  says(std::string("\xde\x00\x20\xa6params", 10), {"MessagePack", "Flax"});
}

TEST_CASE("a broken download is told with the bytes that are there and those that should be") {
  const auto says = [](const std::string& bytes, std::initializer_list<std::string> parts) {
    const std::string line = why(bytes);
    for (const std::string& part : parts) CHECK_MESSAGE(line.find(part) != std::string::npos, line);
    CHECK(line.find("download it again") != std::string::npos);
  };
  const std::string whole = make_safetensors(
      R"({"a":{"dtype":"F32","shape":[100],"data_offsets":[0,400]},"b":{"dtype":"F32","shape":[100],"data_offsets":[400,800]}})",
      std::string(800, '\0'));
  CHECK(why(whole) == "opened");
  const std::string size = std::to_string(whole.size());
  says(whole.substr(0, whole.size() - 1), {std::to_string(whole.size() - 1) + " bytes of " + size});
  says(whole.substr(0, whole.size() - 801), {"bytes of at least " + std::to_string(whole.size() - 800)});
  says(whole.substr(0, 4), {"only 4 bytes"});
  says(whole.substr(0, 20), {"20 bytes of at least " + std::to_string(whole.size() - 800)});

  // torch.save writes data.pkl first, which lists the storages.
  const std::string dict = "}(" + text("w") + tensor(storage("FloatStorage", "0", 100), 0, {100}, {1}) + 'u';
  const std::string zip = make_zip({{"m/data.pkl", pickle(dict)}, {"m/data/0", std::string(400, '\0')}});
  CHECK(why(zip) == "opened");
  for (const std::size_t rest : {200u, 350u}) {
    const std::string part = zip.substr(0, rest);
    says(part, {std::to_string(rest) + " bytes", rest == 350u ? "at least " : ""});
  }
  says(zip.substr(0, zip.size() - 30), {std::to_string(zip.size() - 30) + " bytes", "end of the zip archive"});
}

TEST_CASE("every checkpoint of the reference packages opens, and all of its tensors read") {
  if (!fs::exists(shared() / "goldens")) {
    MESSAGE("skipped: no goldens in OCELLUS_SHARED");
    return;
  }
  int files = 0;
  for (const char* root : {"goldens", "models"}) {
    for (const auto& at : fs::recursive_directory_iterator(shared() / root)) {
      const std::string name = at.path().filename().string();
      const auto ends = [&](std::string_view ending) { return name.ends_with(ending); };
      if (!ends(".pt") && !ends(".bin") && !ends(".safetensors") && !ends(".npz") && !ends(".index.json"))
        continue;
      const outcome<checkpoint> file = checkpoint::open(at.path());
      REQUIRE_MESSAGE(file, at.path() << ": " << file.failure().what);
      CHECK(file->tensors().size() > 10);
      std::vector<float> weights;
      std::vector<std::int64_t> integers;
      for (const tensor_info& one : file->tensors()) {
        const outcome<void> read =
            one.floating() ? file->read_f32(one, weights) : file->read_i64(one, integers);
        REQUIRE_MESSAGE(read, at.path() << ": " << read.failure().what);
        CHECK(static_cast<std::int64_t>(one.floating() ? weights.size() : integers.size()) == one.elements);
        if (one.floating()) CHECK(check_finite(one.name, weights));
      }
      ++files;
    }
  }
  CHECK(files > 20);
}

TEST_CASE("one model in several containers gives the same tensors") {
  const fs::path folder = shared() / "goldens" / "hf-clip";
  if (!fs::exists(folder)) {
    MESSAGE("skipped: no goldens in OCELLUS_SHARED");
    return;
  }
  const outcome<checkpoint> single = checkpoint::open(folder / "model");
  REQUIRE(single);
  for (const char* other : {"sharded", "bin"}) {
    const outcome<checkpoint> file = checkpoint::open(folder / other);
    REQUIRE(file);
    for (const tensor_info& one : single->tensors())
      CHECK(values(*single, one.name) == values(*file, one.name));
  }
  const fs::path openai = shared() / "goldens" / "openai-statedict";
  const outcome<checkpoint> bare = checkpoint::open(openai / "model.pt"),
                            training = checkpoint::open(openai / "epoch_3.pt");
  REQUIRE(bare);
  REQUIRE(training);
  CHECK(bare->tensors().size() == training->tensors().size());
  for (const tensor_info& one : bare->tensors())
    CHECK(values(*bare, one.name) == values(*training, one.name));
}

TEST_CASE("damaged checkpoints: the good ones read exactly, the bad ones are refused in one line") {
  const fs::path packed = shared() / "badinput" / "checkpoints.tar.xz";
  const scratch_folder folder;
  if (!fs::exists(packed) ||
      std::system(
          ("tar -C '" + folder.path.string() + "' -xf '" + packed.string() + "' 2>/dev/null").c_str()) != 0) {
    MESSAGE("skipped: no badinput in OCELLUS_SHARED, or no tar and xz to unpack it");
    return;
  }
  const fs::path root = folder.path / "checkpoints";
  const outcome<nlohmann::json> index = read_json(root / "index.json"),
                                expected = read_json(root / "expected-base.json");
  REQUIRE(index);
  REQUIRE(expected);
  // Whole containers whose tensors make no model, or whose configuration is wrong: the layouts refuse them.
  const std::set<std::string> no_model = {"pickle/after-stop.pt",
                                          "pickle/cyclic-dict.pt",
                                          "safetensors/many-tensors.safetensors",
                                          "safetensors/nul-escape.safetensors",
                                          "tensor/embed-mismatch.pt",
                                          "tensor/empty-tensor.pt",
                                          "tensor/layer-gap.pt",
                                          "tensor/missing-token_embedding_weight.pt",
                                          "tensor/missing-visual_transformer_resblocks_0_mlp_c_fc_weight.pt",
                                          "tensor/pos-not-square.pt",
                                          "tensor/width-not-64k.pt",
                                          "tensor/wrong-shape.pt",
                                          "tensor/zero-dim.pt"};
  // Integers where the model has weights: read_f32 refuses, reading them as integers does not.
  const std::set<std::string> no_weights = {"tensor/dtype-int.pt"};

  for (const nlohmann::json& item : (*index)["files"]) {
    const auto name = item["file"].get<std::string>(), verdict = item["verdict"].get<std::string>();
    CAPTURE(name);
    const fs::path path = root / name;
    if (item.contains("add")) {
      for (const auto& [target, from] : item["add"].items())
        fs::copy_file(root / from.get<std::string>(), path / target);
    }
    const auto begin = std::chrono::steady_clock::now();
    const outcome<checkpoint> file = checkpoint::open(path);
    bool readable = static_cast<bool>(file);
    std::string what = file ? "" : file.failure().what;
    std::map<std::string, std::pair<std::vector<std::int64_t>, std::string>> found;
    std::vector<float> weights;
    std::vector<std::int64_t> integers;
    for (const tensor_info& one : file ? file->tensors() : std::vector<tensor_info>{}) {
      const outcome<void> read =
          one.floating() ? file->read_f32(one, weights) : file->read_i64(one, integers);
      readable = readable && read;
      if (!read) what = read.failure().what;
      if (read && one.floating()) found[one.name] = {one.shape, digest(weights)};
    }
    CHECK(std::chrono::steady_clock::now() - begin < std::chrono::seconds(5));
    if (!readable) {
      CHECK(!what.empty());
      CHECK(what.size() < 500);
      CHECK(std::all_of(what.begin(), what.end(), [](char c) { return c >= 0x20 && c < 0x7f; }));
    }
    if (verdict == "valid") CHECK_MESSAGE(readable, what);
    const bool models_concern =
        name.starts_with("hf/bad-") || no_model.contains(name) || no_weights.contains(name);
    if (verdict == "refuse" && !models_concern) CHECK_FALSE(readable);
    if (readable && item.contains("expect")) {
      for (const auto& entry : (*expected)[item["expect"].get<std::string>()].items()) {
        const std::string& key = entry.key();  // no structured binding: clang 14's lambdas cannot capture one
        const auto& value = entry.value();
        CAPTURE(key);
        CHECK(found[key].first == value["shape"].get<std::vector<std::int64_t>>());
        CHECK(found[key].second == value["sha256_f32"].get<std::string>());
      }
    }
  }
  for (const auto& at : fs::recursive_directory_iterator(folder.path)) {
    CHECK(at.path().filename().string().find("PWNED") == std::string::npos);
  }
}
