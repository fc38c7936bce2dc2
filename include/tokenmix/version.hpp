// SPDX-License-Identifier: Apache-2.0
/// @file The library's version, the same as in CMakeLists.txt.
#pragma once

#define TOKENMIX_VERSION_MAJOR 0
#define TOKENMIX_VERSION_MINOR 1
#define TOKENMIX_VERSION_PATCH 0
