#include "rounding.hpp"

#include <algorithm>
#include <cmath>
#include <numeric>

namespace ocellus::convert {

namespace {

/// Rows of floats in sixteens, so that loops over them have constant trips and become vectors at -O2.
constexpr int lanes = 16;

/// y += f * x over whole sixteens.
void add_scaled(float* __restrict y, const float* __restrict x, float f, int sixteens) {
  for (int i = 0; i < sixteens; i++, x += lanes, y += lanes)
    for (int j = 0; j < lanes; j++) y[j] += f * x[j];
}

constexpr int rows_at_once = 4;  // they share each row of the feedback that comes from memory

/// The same for several y, [sixteens][rows_at_once][16], with a factor each.
void add_scaled(float* __restrict y, const float* __restrict x, const float* __restrict f, int sixteens) {
  for (int i = 0; i < sixteens; i++, x += lanes, y += rows_at_once * lanes)
    for (int r = 0; r < rows_at_once; r++)
      for (int j = 0; j < lanes; j++) y[r * lanes + j] += f[r] * x[j];
}

/// How errors are handed on within one block: with H = L L^T in the order of rounding (from the last to the first),
///   target[i] = w[i] + sum over j > i of feedback[j][i] (w[j] - q[j]),  feedback[j][i] = L[j][i] / L[i][i].
struct plan_of_block {
  std::vector<int> order;       ///< channel at each place
  std::vector<float> feedback;  ///< [size, ld], zero from the diagonal on
  int ld = 0;
};

plan_of_block plan_block(const input_moments& seen, int b, const std::vector<float>& columns, double damp) {
  const int n = seen.size(b), first = b * seen.width, ld = round_up(n, lanes);
  const std::vector<float>& second = seen.second[static_cast<std::size_t>(b)];
  const auto scale = [&](int i) {
    return columns.empty() ? 1.f : 1.f / columns[static_cast<std::size_t>(first + i)];
  };
  const auto moment = [&](int i, int j) {
    return second[static_cast<std::size_t>(std::min(i, j) * n + std::max(i, j))] * scale(i) * scale(j);
  };
  double trace = 0;
  for (int i = 0; i < n; i++) trace += static_cast<double>(moment(i, i));
  // few inputs say little about the directions that they do not span
  const auto added = static_cast<float>((damp + n / std::max(seen.rows, 1.0)) * trace / n);
  plan_of_block p;
  p.ld = ld;
  p.order.resize(static_cast<std::size_t>(n));
  std::iota(p.order.begin(), p.order.end(), 0);
  std::stable_sort(p.order.begin(), p.order.end(), [&](int i, int j) { return moment(i, i) < moment(j, j); });
  p.feedback.assign(static_cast<std::size_t>(n) * static_cast<std::size_t>(ld), 0.f);
  if (!(added > 0) || !std::isfinite(added)) return p;  // nothing is known: plain rounding

  // Cholesky, row by row of U = L^T: right-looking, so that all work is on contiguous rows
  std::vector<float> u(static_cast<std::size_t>(n) * static_cast<std::size_t>(ld), 0.f);
  const auto row = [&](std::vector<float>& m, int i) { return m.data() + static_cast<std::ptrdiff_t>(i) * ld; };
  for (int i = 0; i < n; i++)
    for (int j = i; j < n; j++)
      row(u, i)[j] = moment(p.order[static_cast<std::size_t>(i)], p.order[static_cast<std::size_t>(j)]) + (i == j ? added : 0.f);
  for (int i = 0; i < n; i++) {
    float* r = row(u, i);
    const float pivot = std::sqrt(std::max(r[i], 0.5f * added));  // at least `added` but for rounding
    for (int j = i; j < n; j++) r[j] /= pivot;
    for (int j = i + 1; j < n; j++) {
      const int from = j / lanes * lanes;
      if (r[j] != 0.f) add_scaled(row(u, j) + from, r + from, -r[j], (ld - from) / lanes);
    }
  }
  for (int j = 0; j < n; j++)
    for (int i = 0; i < j; i++) row(p.feedback, j)[i] = row(u, i)[j] / row(u, i)[i];
  return p;
}

/// Rounds the part of `rows` rows, k apart, that lies in a block; w and q at the block's first channel.
void round_rows(const plan_of_block& p, const float* w, const float* scales, int rows, int k, std::int8_t* q,
                std::vector<float>& target) {
  const int n = static_cast<int>(p.order.size());
  target.assign(static_cast<std::size_t>(p.ld) * rows_at_once, 0.f);  // [ld / 16][rows_at_once][16]
  const auto at = [&](int row, int i) -> float& {
    return target[static_cast<std::size_t>((i / lanes * rows_at_once + row) * lanes + i % lanes)];
  };
  for (int r = 0; r < rows; r++)
    for (int i = 0; i < n; i++) at(r, i) = w[r * k + p.order[static_cast<std::size_t>(i)]];
  for (int i = n - 1; i >= 0; i--) {
    const int channel = p.order[static_cast<std::size_t>(i)];
    float off[rows_at_once] = {};
    for (int r = 0; r < rows; r++) {
      const float inverse = scales[r] > 1e-37f ? 1.f / scales[r] : 0.f;
      const float value = std::nearbyint(std::clamp(at(r, i) * inverse, -127.f, 127.f));
      q[r * k + channel] = static_cast<std::int8_t>(value);
      off[r] = w[r * k + channel] - value * scales[r];
    }
    add_scaled(target.data(), p.feedback.data() + static_cast<std::ptrdiff_t>(i) * p.ld, off, ceil_div(i, lanes));
  }
}

}  // namespace

outcome<void> round_for_inputs(model_source& model, moments_by_matrix& seen,
                               const std::function<bool(const planned_tensor&)>& wanted,
                               const std::function<double(const std::string&)>& damp, progress& bar) {
  thread_pool pool;
  std::vector<float> w;
  for (planned_tensor& t : model.tensors) {
    const auto at = seen.find(t.name);
    if (at == seen.end() || !wanted(t)) continue;
    if (auto read = t.read(w); !read) return read;
    const auto n = static_cast<int>(t.shape[0]);
    const int k = at->second.k;
    if (w.size() != static_cast<std::size_t>(n) * static_cast<std::size_t>(k)) continue;
    for (std::size_t i = 0, c = t.columns.size(); c != 0 && i < w.size(); i++) w[i] *= t.columns[i % c];
    t.rounded.scales.assign(static_cast<std::size_t>(n), 0.f);
    t.rounded.values.resize(w.size());
    for (std::size_t i = 0; i < w.size(); i++) {
      float& scale = t.rounded.scales[i / static_cast<std::size_t>(k)];
      scale = std::max(scale, std::fabs(w[i]));
    }
    for (float& scale : t.rounded.scales) scale /= 127.f;
    const double added = damp(t.name);
    // factors of the inputs; more than k are factors of rows (attn.keys_t), which inputs do not see
    const std::vector<float> columns = t.columns.size() == static_cast<std::size_t>(k) ? t.columns : std::vector<float>();
    std::vector<plan_of_block> plans(static_cast<std::size_t>(at->second.blocks()));
    pool.executor().for_each(at->second.blocks(), [&](int b) {
      plans[static_cast<std::size_t>(b)] = plan_block(at->second, b, columns, added);
    });
    pool.executor().for_each(ceil_div(n, rows_at_once), [&](int part) {
      std::vector<float> target;
      const int r = part * rows_at_once;
      for (int b = 0; b < at->second.blocks(); b++) {
        const std::ptrdiff_t first = static_cast<std::ptrdiff_t>(r) * k + b * at->second.width;
        round_rows(plans[static_cast<std::size_t>(b)], w.data() + first, t.rounded.scales.data() + r,
                   std::min(rows_at_once, n - r), k, t.rounded.values.data() + first, target);
      }
    });
    seen.erase(at);
    bar.step(t.name, w.size() * sizeof(float));
  }
  return {};
}

}  // namespace ocellus::convert
