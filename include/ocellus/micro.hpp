// ocellus for firmware: everything here works without a heap, exceptions, RTTI, iostream, threads, mmap and
// thread-safe statics (tests/hygiene/micro_symbols.sh proves it by the symbols of an object).
//
//   #include <ocellus/arm/mve.hpp>     // or arm/dsp.hpp, generic/scalar.hpp: the kernel set to pin
//   #include <ocellus/micro.hpp>
//
// models/static_model.hpp shows a tower, examples/firmware/ a whole program. The tokenizer
// (<ocellus/text/tokenizer.hpp>) keeps to the same rules, for devices that read texts.
#pragma once

#include <ocellus/format/reader.hpp>
#include <ocellus/isa/policy.hpp>
#include <ocellus/models/describe.hpp>
#include <ocellus/models/presets.hpp>
#include <ocellus/models/static_model.hpp>
