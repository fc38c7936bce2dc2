# SPDX-License-Identifier: Apache-2.0
# Stands for an xsimd that is too old for tokenmix.
set(PACKAGE_VERSION 7.6.0)
if(PACKAGE_FIND_VERSION VERSION_LESS_EQUAL PACKAGE_VERSION)
  set(PACKAGE_VERSION_COMPATIBLE TRUE)
endif()
