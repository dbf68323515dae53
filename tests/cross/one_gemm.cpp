// one_gemm SET f32|f16|bf16|s8|none: one product of 50 x 768 x 768 (an attention projection of ViT-B/32), for
// count_instructions.sh; "none" makes the operands only.
#include <ocellus/isa/dispatch.hpp>

#include <cstdint>
#include <cstring>
#include <string_view>
#include <vector>

using namespace ocellus;

int main(int argc, char** argv) {
  if (argc != 3) return 2;
  const result<kernel_table> kernels = kernels_for(argv[1]);
  if (!kernels) return 1;
  constexpr int m = 50, n = 768, k = 768;
  const std::vector<float> a(m * k, 1.f), w(n * k, 0.f), scale(n, 1.f);
  const std::vector<std::uint8_t> q(m * k, 3);
  const std::vector<std::int8_t> b(n * k, 1);
  const std::vector<std::int32_t> sum(n, k), zero(m, 1);
  std::vector<float> c(m * n);
  gemm_args g;
  g.a = a.data();
  g.b = w.data();
  g.c = c.data();
  g.lda = k;
  g.ldc = n;
  g.m = m;
  g.n = n;
  g.k = k;
  g.panel_end = n / panel_width;
  const std::string_view op = argv[2];
  if (op == "f32") kernels->gemm_f32(g);
  if (op == "f16") kernels->gemm_f16(g);
  if (op == "bf16") kernels->gemm_bf16(g);
  g.a = q.data();
  g.b = b.data();
  g.a_scale = g.b_scale = scale.data();
  g.a_zero = zero.data();
  g.b_sum = sum.data();
  if (op == "s8") kernels->gemm_s8(g);
  return 0;
}
