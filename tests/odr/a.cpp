#include "probe.hpp"

#include <cstdio>

unsigned half_in_b(float x);

int main() {
  if (half_of(0.1f) != half_in_b(0.1f)) {
    std::puts("the two translation units disagree");
    return 1;
  }
  return 0;
}
