# SPDX-License-Identifier: Apache-2.0
# Packages of the running Debian or Ubuntu, downloaded with apt and unpacked beside the build: no root, nothing installed.
#
#   tokenmix_system_packages(<variable> <package>...)
#
# sets <variable> to a folder that looks like / with the packages in it, or to nothing where that is not possible.
# apt resolves what is missing on this machine, so the packages' own dependencies come along. Its lists and downloads
# live in TOKENMIX_PACKAGE_DIR: the system's are neither needed (a fresh container has none) nor touched.
include_guard(GLOBAL)

set(TOKENMIX_PACKAGE_DIR "${CMAKE_BINARY_DIR}/_packages"
    CACHE PATH "Where packages are unpacked; build trees that name the same folder share it")

function(tokenmix_run_apt log)
  set(home "${TOKENMIX_PACKAGE_DIR}/apt")
  file(MAKE_DIRECTORY "${home}/state" "${home}/lists/partial" "${home}/cache/archives/partial")
  execute_process(
    COMMAND
      ${CMAKE_COMMAND} -E env LC_ALL=C DEBIAN_FRONTEND=noninteractive #
      ${TOKENMIX_APT_GET} -q -o Dir::State=${home}/state -o Dir::State::lists=${home}/lists -o Dir::Cache=${home}/cache
      -o Dir::State::status=/var/lib/dpkg/status -o Debug::NoLocking=true -o APT::Sandbox::User=root
      -o Acquire::Retries=3 -o Acquire::Languages=none ${ARGN}
    WORKING_DIRECTORY "${home}"
    OUTPUT_FILE "${home}/${log}.log"
    ERROR_FILE "${home}/${log}.log"
    RESULT_VARIABLE result)
  set(result ${result} PARENT_SCOPE)
endfunction()

function(tokenmix_system_packages variable)
  set(${variable} "" PARENT_SCOPE)
  find_program(TOKENMIX_APT_GET apt-get NO_CMAKE_FIND_ROOT_PATH)
  find_program(TOKENMIX_DPKG_DEB dpkg-deb NO_CMAKE_FIND_ROOT_PATH)
  mark_as_advanced(TOKENMIX_APT_GET TOKENMIX_DPKG_DEB)
  if(NOT TOKENMIX_APT_GET OR NOT TOKENMIX_DPKG_DEB)
    return()
  endif()

  set(root "${TOKENMIX_PACKAGE_DIR}/root")
  set(stamps "${TOKENMIX_PACKAGE_DIR}/unpacked")
  set(apt "${TOKENMIX_PACKAGE_DIR}/apt")
  file(MAKE_DIRECTORY "${root}" "${stamps}" "${apt}")
  file(LOCK "${TOKENMIX_PACKAGE_DIR}/lock" GUARD FUNCTION TIMEOUT 900)

  set(missing "")
  foreach(package IN LISTS ARGN)
    if(NOT EXISTS "${stamps}/${package}")
      list(APPEND missing ${package})
    endif()
  endforeach()
  if(missing)
    list(JOIN missing " " names)
    message(STATUS "Unpacking ${names} below ${TOKENMIX_PACKAGE_DIR}; nothing is installed")
    # An update may fail in a hook of the system's that has nothing to do with us: the download tells what matters.
    if(NOT EXISTS "${apt}/updated")
      tokenmix_run_apt(update update)
    endif()
    tokenmix_run_apt(download --yes --no-install-recommends --download-only install ${missing})
    if(NOT result EQUAL 0 AND EXISTS "${apt}/updated")
      tokenmix_run_apt(update update) # the lists have grown old
      tokenmix_run_apt(download --yes --no-install-recommends --download-only install ${missing})
    endif()
    if(NOT result EQUAL 0)
      file(STRINGS "${apt}/download.log" reasons REGEX "^[EW]:")
      list(JOIN reasons "\n   " reasons)
      message(STATUS "apt has no ${names}:\n   ${reasons}")
      return()
    endif()
    file(TOUCH "${apt}/updated")
    file(GLOB archives "${apt}/cache/archives/*.deb")
    foreach(archive IN LISTS archives)
      execute_process(COMMAND ${TOKENMIX_DPKG_DEB} -x ${archive} ${root} RESULT_VARIABLE result ERROR_VARIABLE error)
      if(NOT result EQUAL 0)
        message(STATUS "dpkg-deb cannot unpack ${archive}: ${error}")
        return()
      endif()
    endforeach()
    file(REMOVE ${archives})
    # The cross compilers' linker scripts name files in /usr: by file name alone they are found beside the script.
    file(GLOB scripts "${root}/usr/*-linux-gnu/lib/lib[cm].so" "${root}/usr/*-linux-gnu/lib/libm.a")
    foreach(script IN LISTS scripts)
      file(READ "${script}" head LIMIT 64)
      if(head MATCHES "GNU ld script")
        file(READ "${script}" text)
        string(REGEX REPLACE "/usr/[a-z0-9_]+-linux-gnu/lib/" "" text "${text}")
        file(WRITE "${script}" "${text}")
      endif()
    endforeach()
    foreach(package IN LISTS missing)
      file(TOUCH "${stamps}/${package}")
    endforeach()
  endif()
  set(${variable} "${root}" PARENT_SCOPE)
endfunction()

# A program: the installed one, else the one in <packages>. Unpacked programs are started by a small script that lets
# them find the libraries unpacked with them.
#
#   tokenmix_system_program(<variable> NAMES <name>... PACKAGES <package>...)
function(tokenmix_system_program variable)
  cmake_parse_arguments(PARSE_ARGV 1 arg "" "" "NAMES;PACKAGES")
  set(wrappers "${TOKENMIX_PACKAGE_DIR}/bin")
  unset(found)
  if("installed" IN_LIST TOKENMIX_DEPENDENCY_SOURCES)
    find_program(found NAMES ${arg_NAMES} NO_CACHE NO_CMAKE_FIND_ROOT_PATH)
  endif()
  if(NOT found AND arg_PACKAGES AND "system-packages" IN_LIST TOKENMIX_DEPENDENCY_SOURCES)
    tokenmix_system_packages(root ${arg_PACKAGES})
    if(root)
      find_program(unpacked NAMES ${arg_NAMES} PATHS "${root}/usr/bin" NO_DEFAULT_PATH NO_CACHE)
      if(unpacked)
        get_filename_component(name "${unpacked}" NAME)
        set(found "${wrappers}/${name}")
        if(NOT EXISTS "${found}")
          file(GLOB libraries LIST_DIRECTORIES true "${root}/usr/lib/*-linux-gnu" "${root}/lib/*-linux-gnu")
          list(JOIN libraries ":" libraries)
          file(MAKE_DIRECTORY "${wrappers}")
          file(WRITE "${found}.part" "#!/bin/sh\n"
               "LD_LIBRARY_PATH=\"${libraries}\${LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}\"\n" "export LD_LIBRARY_PATH\n"
               "exec \"${unpacked}\" \"$@\"\n")
          file(CHMOD "${found}.part" PERMISSIONS OWNER_READ OWNER_WRITE OWNER_EXECUTE GROUP_READ GROUP_EXECUTE WORLD_READ
                                                 WORLD_EXECUTE)
          file(RENAME "${found}.part" "${found}")
        endif()
      endif()
    endif()
  endif()
  set(${variable} "${found}" PARENT_SCOPE)
endfunction()

set(TOKENMIX_DEPENDENCY_SOURCES "installed;system-packages;download"
    CACHE STRING "Where dependencies may come from, in this order")
