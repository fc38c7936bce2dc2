# SPDX-License-Identifier: Apache-2.0
# clang 19: the installed one, else the system's package unpacked beside the build.
get_filename_component(tokenmix_cmake "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TOKENMIX_PACKAGE_DIR TOKENMIX_DEPENDENCY_SOURCES)
include("${tokenmix_cmake}/system_packages.cmake")
tokenmix_system_program(CMAKE_CXX_COMPILER NAMES clang++-19 PACKAGES clang-19 libclang-rt-19-dev)
if(NOT CMAKE_CXX_COMPILER)
  message(FATAL_ERROR "No clang++-19 here, and no package to unpack it from: see the lines above.")
endif()
