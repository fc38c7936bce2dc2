# SPDX-License-Identifier: Apache-2.0
# Stands for an xsimd that is too old for tokenmix.
add_library(xsimd INTERFACE IMPORTED)
set(xsimd_VERSION 7.6.0)
