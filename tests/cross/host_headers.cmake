# Libraries that are headers alone are the host's in a cross build to Windows, by links: /usr/include itself would bring
# the host's C library along. Their packages are made here, with the names of their own.
set(links ${CMAKE_BINARY_DIR}/host-headers)
file(MAKE_DIRECTORY ${links})
foreach(folder nlohmann CLI stb doctest)
  if(EXISTS /usr/include/${folder})
    file(CREATE_LINK /usr/include/${folder} ${links}/${folder} SYMBOLIC)
  endif()
endforeach()
foreach(package nlohmann_json CLI11)
  file(WRITE ${links}/${package}Config.cmake "add_library(${package}::${package} INTERFACE IMPORTED)\n"
    "set_target_properties(${package}::${package} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES \"${links}\")\n")
  set(${package}_DIR ${links})
endforeach()
set(STB_INCLUDE_DIR ${links})
include_directories(SYSTEM ${links})
