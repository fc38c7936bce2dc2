# SPDX-License-Identifier: Apache-2.0
# No weak symbol of ours stands in two objects that were compiled for different instruction sets: the linker keeps one of
# each name, and a baseline caller would be handed AVX-512 code.
#   cmake -D COMPILER=... -D NM=... -D SOURCE=<repository> -D INCLUDE=<a:b> -D WORK=<folder> -P symbols.cmake
cmake_minimum_required(VERSION 3.25)

file(REMOVE_RECURSE "${WORK}")
file(MAKE_DIRECTORY "${WORK}")
string(REPLACE ":" ";" includes "${INCLUDE}")
list(REMOVE_ITEM includes "" /usr/include)
list(TRANSFORM includes PREPEND -isystem)

file(GLOB_RECURSE headers RELATIVE "${SOURCE}/include" "${SOURCE}/include/tokenmix/*.hpp")
list(FILTER headers EXCLUDE REGEX "/interop/")
list(TRANSFORM headers REPLACE "(.+)" "#include <\\1>")
list(JOIN headers "\n" headers)
file(WRITE "${WORK}/all_headers.hpp" "${headers}\n")

set(sets x86-64 x86-64-v2 x86-64-v3 x86-64-v4 sapphirerapids no-exceptions)
set(all "")
foreach(set IN LISTS sets)
  set(flags -march=${set})
  if(set STREQUAL "no-exceptions")
    set(flags -march=x86-64-v3 -fno-exceptions)
  endif()
  # Not optimised: a function that is inlined leaves no symbol to compare.
  execute_process(
    COMMAND ${COMPILER} -std=c++20 -O0 ${flags} -w -I${SOURCE}/include -I${WORK} ${includes} -c
            ${SOURCE}/tests/consumer/project/other.cpp -o ${WORK}/${set}.o COMMAND_ERROR_IS_FATAL ANY)
  execute_process(COMMAND ${NM} -C ${WORK}/${set}.o OUTPUT_VARIABLE symbols COMMAND_ERROR_IS_FATAL ANY)
  string(REPLACE ";" "," symbols "${symbols}")
  string(REPLACE "[" "(" symbols "${symbols}")
  string(REPLACE "]" ")" symbols "${symbols}")
  string(REPLACE "\n" ";" symbols "${symbols}")
  list(FILTER symbols INCLUDE REGEX "^[0-9a-f]+ [WVu] .*tokenmix::")
  list(TRANSFORM symbols REPLACE "^[0-9a-f]+ [WVu] " "")
  list(FILTER symbols EXCLUDE REGEX "^tokenmix::process::") # data that a process has one of, on purpose
  list(LENGTH symbols count)
  if(count LESS 20)
    message(FATAL_ERROR "${set}: only ${count} symbols of ours, so there is nothing to compare")
  endif()
  list(REMOVE_DUPLICATES symbols)
  foreach(other IN LISTS all)
    set(shared ${symbols})
    set(fresh ${symbols})
    list(REMOVE_ITEM fresh ${symbols_${other}})
    if(fresh)
      list(REMOVE_ITEM shared ${fresh})
    endif()
    if(shared)
      list(LENGTH shared number)
      list(SUBLIST shared 0 10 shared)
      list(JOIN shared "\n  " shared)
      message(SEND_ERROR "${number} symbols are the same in ${other} and ${set}:\n  ${shared}")
    endif()
  endforeach()
  set(symbols_${set} ${symbols})
  list(APPEND all ${set})
endforeach()
