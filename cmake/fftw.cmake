# SPDX-License-Identifier: Apache-2.0
# FFTW, for the tests and benchmarks of interop/fft_fftw.hpp: the installed one, else, if asked for, the system's package.
# Debian's has no package files for CMake, so its parts are looked for one by one.
include_guard(GLOBAL)
include(${CMAKE_CURRENT_LIST_DIR}/system_packages.cmake)

option(TOKENMIX_FFTW "Obtain FFTW for the tests and benchmarks of its adapter; it is used anyway where it is installed" OFF)

# tokenmix::fftw, in float and double, where it is to be had.
function(tokenmix_fftw)
  if(TARGET tokenmix::fftw OR CMAKE_CROSSCOMPILING)
    return()
  endif()
  if("installed" IN_LIST TOKENMIX_DEPENDENCY_SOURCES)
    find_path(folder fftw3.h NO_CACHE)
    find_library(single fftw3f NO_CACHE)
    find_library(double fftw3 NO_CACHE)
  endif()
  if(TOKENMIX_FFTW AND NOT (folder AND single AND double) AND "system-packages" IN_LIST TOKENMIX_DEPENDENCY_SOURCES)
    tokenmix_system_packages(root libfftw3-dev)
    if(root)
      file(GLOB libraries LIST_DIRECTORIES true "${root}/usr/lib/*-linux-gnu")
      find_path(folder fftw3.h PATHS "${root}/usr/include" NO_DEFAULT_PATH NO_CACHE)
      find_library(single fftw3f PATHS ${libraries} NO_DEFAULT_PATH NO_CACHE)
      find_library(double fftw3 PATHS ${libraries} NO_DEFAULT_PATH NO_CACHE)
    endif()
  endif()
  if(folder AND single AND double)
    add_library(tokenmix::fftw INTERFACE IMPORTED GLOBAL)
    set_target_properties(tokenmix::fftw PROPERTIES INTERFACE_INCLUDE_DIRECTORIES "${folder}"
                                                    INTERFACE_LINK_LIBRARIES "${single};${double}")
  endif()
endfunction()
