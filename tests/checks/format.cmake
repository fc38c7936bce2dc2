# SPDX-License-Identifier: Apache-2.0
# Every C++ file is as clang-format leaves it.   cmake -D ROOT=<repository> -D CLANG_FORMAT=<program> -P format.cmake
cmake_minimum_required(VERSION 3.25)

file(GLOB_RECURSE files ${ROOT}/include/*.hpp ${ROOT}/tests/*.[ch]pp ${ROOT}/bench/*.[ch]pp ${ROOT}/examples/*.[ch]pp)
execute_process(COMMAND ${CLANG_FORMAT} --dry-run --Werror ${files} RESULT_VARIABLE result ERROR_VARIABLE said)
if(NOT result EQUAL 0)
  string(SUBSTRING "${said}" 0 6000 said)
  message(FATAL_ERROR "format: run ${CLANG_FORMAT} -i on these:\n${said}")
endif()
