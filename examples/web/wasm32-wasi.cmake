# WebAssembly by clang with Debian's wasi-libc and libc++ (tools/install_deps.sh web). Programs run in node by WASI;
# modules for the page import nothing.
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR wasm32)
find_program(CMAKE_CXX_COMPILER NAMES clang++-19 clang++)
set(CMAKE_CXX_COMPILER_TARGET wasm32-wasi)
set(CMAKE_CXX_FLAGS_INIT "-fno-exceptions -fno-rtti")
# -O0 of a link keeps clang from running wasm-opt where that is on PATH: Debian's does not know relaxed SIMD.
set(CMAKE_EXE_LINKER_FLAGS_INIT "-O0 -Wl,--strip-all")
set(CMAKE_EXECUTABLE_SUFFIX_CXX .wasm)

find_program(NODE NAMES node nodejs)
if(NODE)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${NODE};--no-warnings;${CMAKE_CURRENT_LIST_DIR}/wasi.mjs")
endif()
