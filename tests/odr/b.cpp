#include "probe.hpp"

unsigned half_in_b(float x);
unsigned half_in_b(float x) { return half_of(x); }
