# SPDX-License-Identifier: Apache-2.0
# 64-bit Arm with NEON on another machine: Debian's cross g++, programs run by qemu's user emulation. Both are the
# installed ones, else the system's packages unpacked beside the build. Programs are static, so that the emulator needs
# no Arm system to find libraries in.
set(CMAKE_SYSTEM_NAME Linux)
set(CMAKE_SYSTEM_PROCESSOR aarch64)
get_filename_component(tokenmix_cmake "${CMAKE_CURRENT_LIST_DIR}" DIRECTORY)
list(APPEND CMAKE_TRY_COMPILE_PLATFORM_VARIABLES TOKENMIX_PACKAGE_DIR TOKENMIX_DEPENDENCY_SOURCES)
include("${tokenmix_cmake}/system_packages.cmake")
tokenmix_system_program(CMAKE_CXX_COMPILER NAMES aarch64-linux-gnu-g++ aarch64-linux-gnu-g++-12 PACKAGES g++-aarch64-linux-gnu)
tokenmix_system_program(tokenmix_qemu NAMES qemu-aarch64 qemu-aarch64-static PACKAGES qemu-user)
if(NOT CMAKE_CXX_COMPILER OR NOT tokenmix_qemu)
  message(FATAL_ERROR "No aarch64-linux-gnu-g++ or qemu-aarch64 here, and no packages to unpack them from: see the lines above.")
endif()
set(CMAKE_CROSSCOMPILING_EMULATOR "${tokenmix_qemu}")
set(CMAKE_EXE_LINKER_FLAGS_INIT -static)
set(CMAKE_LIBRARY_ARCHITECTURE aarch64-linux-gnu)
