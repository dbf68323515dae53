# Toolchain for Cortex-M by arm-none-eabi-gcc; -DOCELLUS_CPU=cortex-m55 (or m85, m7, m4, m33, m0plus, ...).
set(CMAKE_SYSTEM_NAME Generic)
set(CMAKE_SYSTEM_PROCESSOR arm)
set(OCELLUS_CPU cortex-m55 CACHE STRING "The core that the firmware is for")
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES OCELLUS_CPU)

set(CMAKE_C_COMPILER arm-none-eabi-gcc)
set(CMAKE_CXX_COMPILER arm-none-eabi-g++)
set(CMAKE_ASM_COMPILER arm-none-eabi-gcc)
set(CMAKE_TRY_COMPILE_TARGET_TYPE STATIC_LIBRARY)

set(flags "-mcpu=${OCELLUS_CPU} -mthumb")
if(OCELLUS_CPU MATCHES "m55|m85|m7|m4|m33")
  string(APPEND flags " -mfloat-abi=hard")
  if(OCELLUS_CPU STREQUAL cortex-m7)
    string(APPEND flags " -mfpu=fpv5-sp-d16")  # as most M7 have it; the double-precision unit is an option
  elseif(NOT OCELLUS_CPU MATCHES "m55|m85")
    string(APPEND flags " -mfpu=auto")
  endif()
endif()
set(CMAKE_CXX_FLAGS_INIT "${flags} -fno-exceptions -fno-rtti -fno-threadsafe-statics -ffunction-sections -fdata-sections")
set(CMAKE_CXX_FLAGS_RELEASE "-O2 -DNDEBUG" CACHE STRING "CMake would add -O3: twice the code")

set(CMAKE_FIND_ROOT_PATH_MODE_PROGRAM NEVER)
set(CMAKE_FIND_ROOT_PATH_MODE_LIBRARY ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_INCLUDE ONLY)
set(CMAKE_FIND_ROOT_PATH_MODE_PACKAGE ONLY)
