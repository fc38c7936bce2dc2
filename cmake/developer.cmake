# SPDX-License-Identifier: Apache-2.0
# What our own tests, benchmarks and examples are compiled with. None of it reaches users of tokenmix::tokenmix.
include_guard(GLOBAL)
include(CheckCXXSourceCompiles)
include(CheckCXXSourceRuns)
include(${CMAKE_CURRENT_LIST_DIR}/system_packages.cmake)

set(TOKENMIX_ARCH "" CACHE STRING "Instruction set of our own targets, as for -march: native, x86-64-v3, ...; empty: the compiler's default")
set(TOKENMIX_SANITIZE "" CACHE STRING "Sanitizers of our own targets: address,undefined")
option(TOKENMIX_WERROR "Warnings in our own targets are errors" OFF)

if(PROJECT_IS_TOP_LEVEL AND NOT CMAKE_BUILD_TYPE AND NOT CMAKE_CONFIGURATION_TYPES)
  set(CMAKE_BUILD_TYPE Release CACHE STRING "Debug, Release, RelWithDebInfo or MinSizeRel" FORCE)
endif()

find_package(Threads REQUIRED)

add_library(tokenmix_build_settings INTERFACE)
target_compile_options(tokenmix_build_settings INTERFACE -Wall -Wextra -Wconversion -Wsign-conversion -Wshadow -Wdouble-promotion)
if(CMAKE_CXX_COMPILER_ID STREQUAL "GNU" AND CMAKE_CXX_COMPILER_VERSION VERSION_LESS 13)
  # g++ 12 warns of its own std::string's operator+ from -O2 on (GCC bug 105651).
  target_compile_options(tokenmix_build_settings INTERFACE -Wno-array-bounds -Wno-restrict -Wno-stringop-overflow
                                                           -Wno-stringop-overread)
endif()
if(TOKENMIX_WERROR)
  target_compile_options(tokenmix_build_settings INTERFACE -Werror)
endif()
if(TOKENMIX_SANITIZE)
  # A null pointer is met by the address sanitizer as well, and there are no virtual functions: without these two checks
  # kernels compile in two thirds of the time.
  set(sanitize -fsanitize=${TOKENMIX_SANITIZE} -fno-sanitize=null,vptr -fno-sanitize-recover=all -fno-omit-frame-pointer)
  target_compile_options(tokenmix_build_settings INTERFACE ${sanitize})
  target_link_options(tokenmix_build_settings INTERFACE ${sanitize})
  target_compile_definitions(tokenmix_build_settings INTERFACE _GLIBCXX_ASSERTIONS)
endif()
if(TOKENMIX_ARCH)
  target_compile_options(tokenmix_build_settings INTERFACE -march=${TOKENMIX_ARCH})
  set(CMAKE_REQUIRED_FLAGS -march=${TOKENMIX_ARCH})
endif()

string(MAKE_C_IDENTIFIER "TOKENMIX_AVX512_IN_${TOKENMIX_ARCH}" tokenmix_avx512)
check_cxx_source_compiles("#ifndef __AVX512F__\n#error\n#endif\nint main() {}" ${tokenmix_avx512})
if(${tokenmix_avx512} AND CMAKE_CXX_COMPILER_ID STREQUAL "GNU")
  # g++'s own AVX-512 headers use a variable uninitialised on purpose (GCC bug 105593).
  target_compile_options(tokenmix_build_settings INTERFACE -Wno-uninitialized -Wno-maybe-uninitialized)
endif()

# Whether programs compiled so can run here: tests for another instruction set are compiled and not run.
set(TOKENMIX_CAN_RUN TRUE)
if(TOKENMIX_ARCH AND NOT TOKENMIX_ARCH STREQUAL "native" AND NOT CMAKE_CROSSCOMPILING)
  string(MAKE_C_IDENTIFIER "TOKENMIX_RUNS_${TOKENMIX_ARCH}" tokenmix_runs)
  file(READ ${CMAKE_CURRENT_LIST_DIR}/runs_here.cpp tokenmix_probe)
  check_cxx_source_runs("${tokenmix_probe}" ${tokenmix_runs})
  set(TOKENMIX_CAN_RUN ${${tokenmix_runs}})
  if(NOT TOKENMIX_CAN_RUN)
    message(STATUS "This machine cannot run ${TOKENMIX_ARCH}: its tests are compiled only")
  endif()
endif()
unset(CMAKE_REQUIRED_FLAGS)

# --- Steps of the demonstration, added by the folders that have something to show -------------------------------------

#   tokenmix_add_demo_step(<order> <target> [arguments...])
function(tokenmix_add_demo_step order target)
  set_property(GLOBAL APPEND PROPERTY TOKENMIX_DEMO_TARGETS ${target})
  list(JOIN ARGN "]==] [==[" arguments)
  if(ARGN)
    set(arguments "[==[${arguments}]==]")
  endif()
  set_property(GLOBAL APPEND PROPERTY TOKENMIX_DEMO_STEPS
               "${order}|execute_process(COMMAND [==[$<TARGET_FILE:${target}>]==] ${arguments} COMMAND_ERROR_IS_FATAL ANY)")
endfunction()

# The last thing the top level does: targets that need to know all others.
function(tokenmix_finish_developer_targets)
  get_property(steps GLOBAL PROPERTY TOKENMIX_DEMO_STEPS)
  get_property(targets GLOBAL PROPERTY TOKENMIX_DEMO_TARGETS)
  list(SORT steps)
  list(TRANSFORM steps REPLACE "^[^|]*[|]" "")
  list(JOIN steps "\n" steps)
  file(GENERATE OUTPUT "${PROJECT_BINARY_DIR}/demo.cmake" CONTENT "${steps}\n")
  add_custom_target(demo COMMAND ${CMAKE_COMMAND} -P "${PROJECT_BINARY_DIR}/demo.cmake" USES_TERMINAL VERBATIM
                         COMMENT "The demonstration")

  # `make` builds one file at a time unless told otherwise, and a preset cannot know how many cores there are. Memory
  # counts too: a translation unit full of kernels takes up to a gigabyte and a half.
  cmake_host_system_information(RESULT cores QUERY NUMBER_OF_LOGICAL_CORES)
  cmake_host_system_information(RESULT memory QUERY TOTAL_PHYSICAL_MEMORY)
  math(EXPR jobs "${memory} / 1536")
  if(jobs GREATER cores)
    set(jobs ${cores})
  elseif(jobs LESS 1)
    set(jobs 1)
  endif()
  tokenmix_programs_below(everything ${PROJECT_SOURCE_DIR})
  if(CMAKE_GENERATOR MATCHES "Makefiles")
    set(build ${CMAKE_COMMAND} -E env --unset=MAKEFLAGS --unset=MFLAGS --unset=MAKELEVEL #
              ${CMAKE_COMMAND} --build "${PROJECT_BINARY_DIR}" --parallel ${jobs} --target)
    add_custom_target(parallel_all COMMAND ${build} all USES_TERMINAL VERBATIM COMMENT "Building with ${jobs} jobs")
    add_custom_target(parallel_headers COMMAND ${build} all_verify_interface_header_sets USES_TERMINAL VERBATIM
                                       COMMENT "Compiling every header alone with ${jobs} jobs")
    if(targets)
      list(REMOVE_DUPLICATES targets)
      add_custom_target(parallel_demo COMMAND ${build} ${targets} USES_TERMINAL VERBATIM COMMENT "Building with ${jobs} jobs")
      add_dependencies(demo parallel_demo)
    endif()
  else()
    add_custom_target(parallel_headers)
    if(CMAKE_VERIFY_INTERFACE_HEADER_SETS)
      add_dependencies(parallel_headers all_verify_interface_header_sets)
    endif()
    add_custom_target(parallel_all)
    if(everything)
      add_dependencies(parallel_all ${everything})
    endif()
    if(targets)
      add_dependencies(demo ${targets})
    endif()
  endif()
endfunction()

# Every header compiled alone: CMAKE_VERIFY_INTERFACE_HEADER_SETS makes a target of it. The headers of interop/ stand in a
# target of their own here, with the libraries that they need.
if(CMAKE_VERIFY_INTERFACE_HEADER_SETS)
  find_package(OpenMP REQUIRED COMPONENTS CXX)
  include(${CMAKE_CURRENT_LIST_DIR}/fftw.cmake)
  tokenmix_fftw()
  if(NOT TARGET tokenmix::fftw)
    list(FILTER tokenmix_interop_headers EXCLUDE REGEX "/fft_fftw\\.hpp$")
  endif()
  add_library(tokenmix_interop INTERFACE)
  target_sources(tokenmix_interop INTERFACE FILE_SET HEADERS BASE_DIRS ${PROJECT_SOURCE_DIR}/include FILES ${tokenmix_interop_headers})
  target_link_libraries(tokenmix_interop INTERFACE tokenmix::tokenmix tokenmix::eigen OpenMP::OpenMP_CXX
                                                     $<TARGET_NAME_IF_EXISTS:tokenmix::fftw>)
endif()

function(tokenmix_programs_below variable folder)
  set(found "")
  get_property(targets DIRECTORY ${folder} PROPERTY BUILDSYSTEM_TARGETS)
  foreach(target IN LISTS targets)
    get_target_property(type ${target} TYPE)
    if(type MATCHES "EXECUTABLE|OBJECT_LIBRARY")
      list(APPEND found ${target})
    endif()
  endforeach()
  get_property(folders DIRECTORY ${folder} PROPERTY SUBDIRECTORIES)
  foreach(below IN LISTS folders)
    if(below MATCHES "^${PROJECT_SOURCE_DIR}/(tests|bench|examples)")
      tokenmix_programs_below(more ${below})
      list(APPEND found ${more})
    endif()
  endforeach()
  set(${variable} ${found} PARENT_SCOPE)
endfunction()
