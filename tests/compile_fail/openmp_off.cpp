// SPDX-License-Identifier: Apache-2.0
// OpenMP's executor is not compiled without OpenMP: tasks would quietly run one after the other.
// expected: needs OpenMP
#include <tokenmix/core/execution.hpp>
#ifdef MUST_NOT_COMPILE
#include <tokenmix/interop/openmp.hpp>
#endif

static_assert(tokenmix::executor<tokenmix::calling_thread>);
