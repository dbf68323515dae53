# Windows (x86-64) by clang and mingw-w64, run by Wine (tools/install_deps.sh cross). gcc will not do: ocellus/config.hpp.
set(CMAKE_SYSTEM_NAME Windows)
set(CMAKE_SYSTEM_PROCESSOR AMD64)
find_program(CMAKE_CXX_COMPILER NAMES clang++-19 clang++)
set(CMAKE_CXX_COMPILER_TARGET x86_64-w64-mingw32)
find_program(CMAKE_RC_COMPILER x86_64-w64-mingw32-windres)
# libstdc++ was built by gcc, whose thread-local variables std::async shares; and its stable_sort calls what C++17
# deprecates.
set(CMAKE_CXX_FLAGS_INIT "-femulated-tls -Wno-deprecated-declarations")
set(CMAKE_EXE_LINKER_FLAGS_INIT "-fuse-ld=lld -static -pthread")
set(CMAKE_FIND_ROOT_PATH /usr/x86_64-w64-mingw32)
set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)

find_program(WINE NAMES wine64 wine wine-stable PATHS /usr/lib/wine)
if(WINE)
  set(CMAKE_CROSSCOMPILING_EMULATOR "${CMAKE_COMMAND};-E;env;WINEDEBUG=-all;WINEPREFIX=${CMAKE_BINARY_DIR}/wine;${WINE}")
endif()
