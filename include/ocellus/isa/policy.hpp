// The policy of programs that are for one instruction set: direct calls, and kernels that a tower does not use vanish.
// The other policy, `dynamic`, is in dispatch.hpp, which knows all kernel sets; this header knows none.
//
//   #include <ocellus/generic/scalar.hpp>
//   ocellus::pinned<ocellus::kernels::scalar> kernels;
#pragma once

#include <ocellus/config.hpp>

OCELLUS_BEGIN

/// Kernels chosen when the program is compiled.
template <class Set>
struct pinned : Set {};

OCELLUS_END
