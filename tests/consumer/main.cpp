// The smallest user of ocellus: includes the umbrella header, calls it, needs nothing else.
#if __has_include(<ocellus/ocellus.hpp>)
#include <ocellus/ocellus.hpp>
#endif
#include <ocellus/core/status.hpp>
#include <ocellus/core/scalar.hpp>

int main() {
  return ocellus::to_f32(ocellus::to_f16(1.5f)) == 1.5f ? 0 : 1;
}
