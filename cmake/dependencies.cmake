# SPDX-License-Identifier: Apache-2.0
# Where the libraries come from that tokenmix stands on.
#
#   tokenmix_dependency(xsimd | Eigen3 | nlohmann_json | GTest | benchmark | dnnl [OPTIONAL | IF_INSTALLED])
#
# tries TOKENMIX_DEPENDENCY_SOURCES in turn and defines tokenmix::<name>; an OPTIONAL one may stay undefined, and one
# wanted IF_INSTALLED is not obtained. The sources are
#   installed          find_package, as anything installed or named in CMAKE_PREFIX_PATH is found
#   system-packages    the system's own package, unpacked beside the build (cmake/system_packages.cmake)
#   download           the release archive, by its hash (FetchContent)
include_guard(GLOBAL)
include(FetchContent)
include(${CMAKE_CURRENT_LIST_DIR}/system_packages.cmake)

# Each library: the oldest version that works, its targets (the first that exists is taken), its packages.
# Versions are compared by hand: neither a range nor a minimum passes through xsimd's and Eigen's version files.
set(TOKENMIX_xsimd_MINIMUM 8.1)
set(TOKENMIX_xsimd_TARGETS xsimd xsimd::xsimd)
set(TOKENMIX_xsimd_PACKAGES libxsimd-dev)
set(TOKENMIX_xsimd_HEADER xsimd/xsimd.hpp)
set(TOKENMIX_xsimd_ARCHIVE
    URL https://github.com/xtensor-stack/xsimd/archive/refs/tags/14.3.0.tar.gz #
    URL_HASH SHA256=b3d50e7a73fbf4642ceef30131c93414901d69eee41c2a5302db650b03e2c792)
set(TOKENMIX_xsimd_FOLDER include)

set(TOKENMIX_Eigen3_MINIMUM 3.4)
set(TOKENMIX_Eigen3_TARGETS Eigen3::Eigen)
set(TOKENMIX_Eigen3_PACKAGES libeigen3-dev)
set(TOKENMIX_Eigen3_HEADER Eigen/Core)
set(TOKENMIX_Eigen3_ARCHIVE
    URL https://gitlab.com/libeigen/eigen/-/archive/3.4.0/eigen-3.4.0.tar.gz #
    URL_HASH SHA256=8586084f71f9bde545ee7fa6d00288b264a2b7ac3607b974e54d13e7162c1c72)
set(TOKENMIX_Eigen3_FOLDER .)

set(TOKENMIX_nlohmann_json_MINIMUM 3.10)
set(TOKENMIX_nlohmann_json_TARGETS nlohmann_json::nlohmann_json)
set(TOKENMIX_nlohmann_json_PACKAGES nlohmann-json3-dev)
set(TOKENMIX_nlohmann_json_HEADER nlohmann/json.hpp)
set(TOKENMIX_nlohmann_json_ARCHIVE
    URL https://github.com/nlohmann/json/releases/download/v3.11.2/json.tar.xz #
    URL_HASH SHA256=8c4b26bf4b422252e13f332bc5e388ec0ab5c3443d24399acb675e68278d341f)
set(TOKENMIX_nlohmann_json_FOLDER include)

set(TOKENMIX_GTest_MINIMUM 1.12)
set(TOKENMIX_GTest_TARGETS GTest::gtest gtest)
set(TOKENMIX_GTest_PACKAGES libgtest-dev)
set(TOKENMIX_GTest_ARCHIVE
    URL https://github.com/google/googletest/archive/refs/tags/release-1.12.1.tar.gz #
    URL_HASH SHA256=81964fe578e9bd7c94dfdb09c8e4d6e6759e19967e397dbea48d1c10e45d0df2)
set(TOKENMIX_GTest_SOURCE /usr/src/googletest)

set(TOKENMIX_benchmark_MINIMUM 1.7)
set(TOKENMIX_benchmark_TARGETS benchmark::benchmark benchmark)
set(TOKENMIX_benchmark_PACKAGES libbenchmark-dev)
set(TOKENMIX_benchmark_ARCHIVE
    URL https://github.com/google/benchmark/archive/refs/tags/v1.7.1.tar.gz #
    URL_HASH SHA256=6430e4092653380d9dc4ccb45a1e2dc9259d581f4866dc0759713126056bc1d7)

set(TOKENMIX_dnnl_MINIMUM 2.6)
set(TOKENMIX_dnnl_TARGETS DNNL::dnnl dnnl::dnnl)
set(TOKENMIX_dnnl_PACKAGES libdnnl-dev ocl-icd-opencl-dev)
set(TOKENMIX_dnnl_NEEDS CL/cl.h) # Debian's package files end the configuration where OpenCL's headers are missing

# tokenmix::<name> for headers that lie in <folder>.
function(tokenmix_header_target name folder)
  add_library(tokenmix::${name} INTERFACE IMPORTED GLOBAL)
  set_target_properties(tokenmix::${name} PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folder}")
endfunction()

# tokenmix::<name> for a package that find_package has found; refuses one that is too old.
function(tokenmix_package_target name)
  if(${name}_VERSION AND ${name}_VERSION VERSION_LESS TOKENMIX_${name}_MINIMUM)
    message(FATAL_ERROR "tokenmix needs ${name} ${TOKENMIX_${name}_MINIMUM} or later; ${${name}_DIR} is ${${name}_VERSION}. "
                        "Set ${name}_ROOT to a later one.")
  endif()
  foreach(target IN LISTS TOKENMIX_${name}_TARGETS)
    if(TARGET ${target})
      if(name STREQUAL "xsimd") # its folders only: Debian's xsimd 8.1 asks to be linked with libxtl, which does not exist
        get_target_property(folders ${target} INTERFACE_INCLUDE_DIRECTORIES)
        tokenmix_header_target(xsimd "${folders}")
      else()
        add_library(tokenmix::${name} INTERFACE IMPORTED GLOBAL)
        target_link_libraries(tokenmix::${name} INTERFACE ${target})
      endif()
      return()
    endif()
  endforeach()
  message(FATAL_ERROR "${${name}_DIR} defines none of the targets ${TOKENMIX_${name}_TARGETS}")
endfunction()

# GoogleTest and Google Benchmark from source, quietly.
function(tokenmix_add_source name folder)
  set(BUILD_GMOCK OFF)
  set(INSTALL_GTEST OFF)
  set(BENCHMARK_ENABLE_TESTING OFF)
  set(BENCHMARK_ENABLE_GTEST_TESTS OFF)
  set(BENCHMARK_ENABLE_INSTALL OFF)
  set(BENCHMARK_ENABLE_WERROR OFF)
  set(CMAKE_POLICY_DEFAULT_CMP0077 NEW)
  set(CMAKE_MESSAGE_LOG_LEVEL WARNING)
  add_subdirectory("${folder}" "${CMAKE_BINARY_DIR}/_deps/${name}-build" EXCLUDE_FROM_ALL SYSTEM)
  tokenmix_package_target(${name})
endfunction()

# When cross-compiling, an installed library is for another machine: headers are linked into a folder of their own (so
# that the rest of /usr/include stays out of reach), GoogleTest is built from its source.
function(tokenmix_dependency_for_target_machine name root)
  if(DEFINED TOKENMIX_${name}_HEADER)
    find_path(folder ${TOKENMIX_${name}_HEADER} PATHS "${root}/usr/include" "${root}/usr/include/eigen3" NO_DEFAULT_PATH
                                                      NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
    if(folder)
      get_filename_component(top "${TOKENMIX_${name}_HEADER}" DIRECTORY)
      set(private "${CMAKE_BINARY_DIR}/_deps/${name}-headers")
      file(MAKE_DIRECTORY "${private}")
      foreach(entry ${top} unsupported)
        if(EXISTS "${folder}/${entry}")
          file(CREATE_LINK "${folder}/${entry}" "${private}/${entry}" SYMBOLIC)
        endif()
      endforeach()
      tokenmix_header_target(${name} "${private}")
    endif()
  elseif(DEFINED TOKENMIX_${name}_SOURCE AND EXISTS "${root}${TOKENMIX_${name}_SOURCE}/CMakeLists.txt")
    tokenmix_add_source(${name} "${root}${TOKENMIX_${name}_SOURCE}")
  endif()
endfunction()

function(tokenmix_dependency name)
  cmake_parse_arguments(PARSE_ARGV 1 arg "OPTIONAL;IF_INSTALLED" "" "")
  if(TARGET tokenmix::${name})
    return()
  endif()
  foreach(target IN LISTS TOKENMIX_${name}_TARGETS)
    if(TARGET ${target}) # the project around us has it already
      tokenmix_package_target(${name})
      return()
    endif()
  endforeach()

  set(sources ${TOKENMIX_DEPENDENCY_SOURCES})
  if(arg_IF_INSTALLED)
    set(sources installed)
  endif()
  string(TOUPPER "FETCHCONTENT_SOURCE_DIR_TOKENMIX_${name}" given)
  if(${given}) # a checkout of another version, to try it
    set(sources download)
  endif()
  foreach(source IN LISTS sources)
    if(source STREQUAL "download")
      if(DEFINED TOKENMIX_${name}_ARCHIVE)
        if(NOT ${given})
          message(STATUS "Downloading ${name}")
        endif()
        if(POLICY CMP0135)
          cmake_policy(SET CMP0135 NEW)
        endif()
        # SOURCE_SUBDIR names no folder: the archive is unpacked, its own build is not entered.
        FetchContent_Declare(tokenmix_${name} ${TOKENMIX_${name}_ARCHIVE} SOURCE_SUBDIR no-build-of-its-own)
        FetchContent_MakeAvailable(tokenmix_${name})
        FetchContent_GetProperties(tokenmix_${name} SOURCE_DIR folder)
        if(DEFINED TOKENMIX_${name}_FOLDER)
          tokenmix_header_target(${name} "${folder}/${TOKENMIX_${name}_FOLDER}")
        else()
          tokenmix_add_source(${name} "${folder}")
        endif()
      endif()
    else()
      set(root "")
      if(source STREQUAL "system-packages")
        tokenmix_system_packages(root ${TOKENMIX_${name}_PACKAGES})
        if(NOT root)
          continue()
        endif()
        list(PREPEND CMAKE_PREFIX_PATH "${root}/usr")
        unset(${name}_DIR CACHE)
      endif()
      if(CMAKE_CROSSCOMPILING)
        tokenmix_dependency_for_target_machine(${name} "${root}")
      else()
        if(DEFINED TOKENMIX_${name}_NEEDS)
          find_path(needs ${TOKENMIX_${name}_NEEDS} NO_CACHE)
          if(NOT needs)
            continue()
          endif()
        endif()
        find_package(${name} CONFIG QUIET GLOBAL)
        if(${name}_FOUND)
          tokenmix_package_target(${name})
        endif()
      endif()
    endif()
    if(TARGET tokenmix::${name})
      set(version "")
      if(${name}_VERSION)
        set(version " ${${name}_VERSION}")
      endif()
      message(STATUS "${name}${version}: ${source}")
      return()
    endif()
  endforeach()
  if(NOT arg_OPTIONAL AND NOT arg_IF_INSTALLED)
    list(JOIN TOKENMIX_${name}_PACKAGES " " packages)
    list(JOIN TOKENMIX_DEPENDENCY_SOURCES ", " sources)
    message(FATAL_ERROR "tokenmix needs ${name} ${TOKENMIX_${name}_MINIMUM} or later and found none in: ${sources}.\n"
                        "On Debian or Ubuntu: apt install ${packages}. Elsewhere: set ${name}_ROOT to where it is installed.")
  endif()
endfunction()
