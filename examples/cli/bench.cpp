// ocellus bench: milliseconds per picture and per text on this machine.
#include "program.hpp"

#include <nlohmann/json.hpp>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <cstdio>
#include <random>

namespace cli {

using namespace ocellus;

namespace {

struct options : compute_options {
  std::string model;
  int batch = 1, tokens = 8;
  double seconds = 2;
  bool json = false;
};

struct timing {
  double median_ms = 0, min_ms = 0;
};

/// Milliseconds per item of f, which does `items` at a call: warm-up, then calls until the time is over.
template <class F>
timing measure(int items, double seconds, F&& f) {
  using clock = std::chrono::steady_clock;
  f();
  f();
  std::vector<double> ms;
  const auto end = clock::now() + std::chrono::duration<double>(seconds);
  do {
    const auto start = clock::now();
    f();
    ms.push_back(std::chrono::duration<double, std::milli>(clock::now() - start).count() / items);
  } while (clock::now() < end || ms.size() < 5);
  std::sort(ms.begin(), ms.end());
  return {ms[ms.size() / 2], ms.front()};
}

void bench(options& o) {
  if (std::isnan(o.seconds)) throw usage("bench: --seconds is not a number");  // which CLI11's range lets through
  const model m = open_model(o.model, o);
  const model_config& c = m.config();
  const ocellus::executor threads = o.executor();
  workspace work;
  std::mt19937 random(1);
  nlohmann::json j = {{"isa", to_string(m.kernels().id)}, {"threads", o.thread_count()}, {"batch", o.batch}};
  const auto check = [&](status s) {
    if (s != status::ok) fail(o.model, s);
  };
  if (m.has_vision()) {
    const vision_config& v = c.vision;
    nn::image_batch in;
    in.count = o.batch;
    in.height = v.image_h;
    in.width = v.image_w;
    std::vector<std::uint8_t> rgb(static_cast<std::size_t>(o.batch) *
                                  static_cast<std::size_t>(v.image_h * v.image_w) * 3);
    for (std::uint8_t& x : rgb) x = static_cast<std::uint8_t>(random() >> 24);
    in.rgb = rgb.data();
    std::vector<float> e(static_cast<std::size_t>(o.batch) * static_cast<std::size_t>(m.embed()));
    const timing t = measure(o.batch, o.seconds, [&] { check(m.encode_batch(in, e.data(), work, threads)); });
    j["image"] = {{"median_ms", t.median_ms}, {"min_ms", t.min_ms}};
  }
  if (m.has_text()) {
    const text_config& t = c.text;
    const int n = std::min(o.tokens, t.context);
    std::vector<std::int32_t> ids(static_cast<std::size_t>(o.batch) * static_cast<std::size_t>(t.context), 0);
    const int last = t.pool == pooling::eos && t.eos_id >= 0 && t.eos_id < t.vocab ? t.eos_id : t.vocab - 1;
    for (int b = 0; b < o.batch; b++) {
      std::int32_t* row = ids.data() + static_cast<std::ptrdiff_t>(b) * t.context;
      for (int i = 0; i + 1 < n; i++)
        row[i] =
            i == 0
                ? 0
                : static_cast<std::int32_t>(random() % static_cast<std::uint32_t>(std::max(1, t.vocab - 2)));
      row[n - 1] = last;
    }
    std::vector<float> e(static_cast<std::size_t>(o.batch) * static_cast<std::size_t>(t.embed));
    const timing r = measure(o.batch, o.seconds, [&] {
      check(m.encode_ids(ids.data(), o.batch, t.context, e.data(), work, threads));
    });
    j["text"] = {{"median_ms", r.median_ms}, {"min_ms", r.min_ms}, {"tokens", n}};
  }
  if (o.json) {
    std::printf("%s\n", j.dump().c_str());
    return;
  }
  std::printf("%s: %s, %d thread%s, batch %d\n", o.model.c_str(),
              std::string(to_string(m.kernels().id)).c_str(), o.thread_count(),
              o.thread_count() == 1 ? "" : "s", o.batch);
  for (const char* what : {"image", "text"})
    if (j.contains(what))
      std::printf("  %-5s  median %9.3f ms   min %9.3f ms   %9.1f per second\n", what,
                  j[what]["median_ms"].get<double>(), j[what]["min_ms"].get<double>(),
                  1000.0 / j[what]["median_ms"].get<double>());
}

}  // namespace

void add_bench(CLI::App& app) {
  CLI::App* c = app.add_subcommand(
      "bench", "Milliseconds per picture (from pixels) and per text (from ids) on this machine");
  const auto o = std::make_shared<options>();
  c->add_option("model", o->model, "The packed model (.oc)")->required();
  c->add_option("--batch", o->batch, "Pictures or texts at a call (default 1)")->check(CLI::Range(1, 4096));
  c->add_option("--tokens", o->tokens, "Real tokens of a text, as \"a photo of a cat.\" has 8 (default 8)")
      ->check(CLI::Range(2, 8192));
  c->add_option("--seconds", o->seconds, "How long to measure each tower (default 2)")
      ->check(CLI::Range(0.01, 600.0));
  c->add_flag("--json", o->json, "Machine-readable");
  o->add_to(*c);
  c->callback([o] { bench(*o); });
}

}  // namespace cli
