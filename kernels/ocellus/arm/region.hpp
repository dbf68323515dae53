// How the compilers spell "and this Arm extension too" for OCELLUS_TARGET_BEGIN.
//
// clang adds a feature to those of the command line. gcc does so with "+x", but its arm_neon.h holds the intrinsics in
// arch=armv8.2-a, so a unit for Armv8.0 or 8.1 must raise its architecture as well; a unit that has an extension of 8.2
// already must not lower it, or what it compiles for its own architecture could not be inlined. +crypto is there for
// units that have it.
//
// A compiler that cannot build a region says so here: OCELLUS_HAS_DOTPROD and the others (clang from 16 on).
#pragma once

#include <ocellus/isa/target.hpp>

#if defined(__aarch64__)
#if defined(__clang__)
#define OCELLUS_TARGET_DOTPROD "dotprod"
#define OCELLUS_TARGET_FP16 "dotprod,fullfp16"
#define OCELLUS_TARGET_I8MM "dotprod,i8mm,bf16"
#define OCELLUS_TARGET_SVE "sve"
#define OCELLUS_HAS_DOTPROD (__clang_major__ >= 16)
#define OCELLUS_HAS_FP16 (__clang_major__ >= 16)
#define OCELLUS_HAS_I8MM (__clang_major__ >= 16)
#define OCELLUS_HAS_SVE (__clang_major__ >= 16)
#else
#if defined(__ARM_FEATURE_DOTPROD) || defined(__ARM_FEATURE_FP16_VECTOR_ARITHMETIC) || defined(__ARM_FEATURE_SVE)
#define OCELLUS_TARGET_DOTPROD "+dotprod"
#define OCELLUS_TARGET_FP16 "+dotprod+fp16"
#define OCELLUS_TARGET_I8MM "+dotprod+i8mm+bf16"
#define OCELLUS_TARGET_SVE "+sve"
#else
#define OCELLUS_TARGET_DOTPROD "arch=armv8.2-a+crypto+dotprod"
#define OCELLUS_TARGET_FP16 "arch=armv8.2-a+crypto+dotprod+fp16"
#define OCELLUS_TARGET_I8MM "arch=armv8.2-a+crypto+dotprod+i8mm+bf16"
#define OCELLUS_TARGET_SVE "arch=armv8.2-a+crypto+sve"
#endif
#define OCELLUS_HAS_DOTPROD 1
#define OCELLUS_HAS_FP16 1
#define OCELLUS_HAS_I8MM 1
#define OCELLUS_HAS_SVE 1
#endif
#endif
