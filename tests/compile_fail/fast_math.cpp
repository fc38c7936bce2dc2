// SPDX-License-Identifier: Apache-2.0
// With -ffast-math there are no infinities and no order of operations: refused at the first header.
// expected: without -ffast-math
#ifdef MUST_NOT_COMPILE
#define __FAST_MATH__ 1
#endif
#include <tokenmix/config.hpp>
