# Runs a firmware in QEMU and compares the embeddings that it prints with the host's, bit for bit; without `expected`,
# only runs it.
# Usage: cmake -Dqemu=.. -Dmachine=.. -Dprogram=.. [-Dexpected=..] -P run.cmake
# -icount shift=0: one instruction is one nanosecond of the board's time, so that its tick timer counts instructions.
execute_process(
  COMMAND ${qemu} -machine ${machine} -kernel ${program} -icount shift=0 -semihosting-config enable=on,target=native
    -nographic -serial none -monitor none
  OUTPUT_VARIABLE printed ERROR_VARIABLE printed RESULT_VARIABLE code TIMEOUT 500)  # semihosting prints to stderr
string(REGEX REPLACE "embedding [0-9]+ [0-9a-f]+\n" "" report "${printed}")
message(STATUS "${machine}\n${report}")
if(NOT code STREQUAL "0")
  message(FATAL_ERROR "the firmware ended with ${code}")
endif()
if(NOT expected)
  return()
endif()
file(STRINGS ${expected} lines)
list(LENGTH lines count)
if(count EQUAL 0)
  message(FATAL_ERROR "no embeddings to compare with")
endif()
foreach(line IN LISTS lines)
  string(FIND "${printed}" "${line}\n" at)
  if(at EQUAL -1)
    string(SUBSTRING "${line}" 0 32 start)
    message(FATAL_ERROR "the device's embedding differs from the host's: ${start}...")
  endif()
endforeach()
message(STATUS "${count} embeddings equal the host's, bit for bit")

# One megabyte of flash for the whole image; RAM is the activations that arena_size promised and little more.
if(NOT printed MATCHES "flash: ([0-9]+) bytes" OR CMAKE_MATCH_1 GREATER 1048576)
  message(FATAL_ERROR "the image takes more than 1 MB of flash")
endif()
string(REGEX MATCH "RAM: ([0-9]+) bytes" _ "${printed}")
set(ram ${CMAKE_MATCH_1})
string(REGEX MATCH "activations: ([0-9]+) bytes" _ "${printed}")
math(EXPR beside "${ram} - ${CMAKE_MATCH_1}")
if(beside LESS 0 OR beside GREATER 32768)
  message(FATAL_ERROR "RAM beside the activations, data and stack: ${beside} bytes")
endif()
message(STATUS "flash at most 1 MB; RAM is the activations and ${beside} bytes of data and stack")
