# SPDX-License-Identifier: Apache-2.0
# Compiles FILE with and without its bad line.   cmake -D COMPILER=... -D FILE=... -D INCLUDE=<a:b> -P compile_fail.cmake
cmake_minimum_required(VERSION 3.25)

string(REPLACE ":" ";" includes "${INCLUDE}")
list(REMOVE_ITEM includes "" /usr/include)
list(TRANSFORM includes PREPEND -I)
set(compile ${COMPILER} -std=c++20 -fsyntax-only ${includes})

file(STRINGS "${FILE}" expected REGEX "^// expected: ")
string(REGEX REPLACE "^// expected: " "" expected "${expected}")
if(expected STREQUAL "")
  message(FATAL_ERROR "${FILE} has no line `// expected: <regular expression>`")
endif()

execute_process(COMMAND ${compile} "${FILE}" RESULT_VARIABLE result ERROR_VARIABLE said)
if(NOT result EQUAL 0)
  message(FATAL_ERROR "${FILE} must compile without its bad line:\n${said}")
endif()
execute_process(COMMAND ${compile} -DMUST_NOT_COMPILE "${FILE}" RESULT_VARIABLE result ERROR_VARIABLE said)
if(result EQUAL 0)
  message(FATAL_ERROR "${FILE} compiles with its bad line")
endif()
if(NOT said MATCHES "${expected}")
  message(FATAL_ERROR "${FILE}: the compiler does not say ${expected}:\n${said}")
endif()
