// The same code in two translation units of one program, which odr.sh compiles with different flags.
#pragma once

#include <ocellus/core/float16.hpp>
#if __has_include(<ocellus/isa/dispatch.hpp>)
#include <ocellus/isa/dispatch.hpp>
#endif

namespace {

// Through a pointer, so that the compiler emits the library's inline function instead of folding it away.
unsigned half_of(float x) {
  ocellus::f16 (*volatile convert)(float) = &ocellus::to_f16;
  return convert(x).bits;
}

}  // namespace
