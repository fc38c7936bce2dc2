// SPDX-License-Identifier: Apache-2.0
/// @file What bad input gets: shape_error and value_error, or a handler where exceptions are off.
#pragma once

#include <tokenmix/core/types.hpp>

#include <atomic>
#include <concepts>
#include <cstdio>   // std::fputs, std::snprintf
#include <cstdlib>  // std::abort
#include <stdexcept>
#include <string>

/// What a process has one of, whatever instruction sets its objects are compiled for: data only, so that no code of
/// one instruction set is ever shared with another.
namespace tokenmix::process {

/// Null: the default handler.
inline std::atomic<void (*)(const char*)> failure_handler{nullptr};

}  // namespace tokenmix::process

namespace tokenmix::inline TOKENMIX_ABI {

// The classes carry the instruction set in their names, as everything here: what crosses from an object compiled with
// other flags is caught as std::invalid_argument.

/// An argument's extents, strides or overlap are not what the function needs; the message names the argument.
class shape_error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// An argument's value (an option, an offset, an index) is outside its domain; the message names the argument.
class value_error : public std::invalid_argument {
 public:
  using std::invalid_argument::invalid_argument;
};

/// Called with the message instead of a throw where exceptions are off. It must not return; if it does, the library aborts.
using failure_handler_t = void (*)(const char* message);

namespace detail {

inline void print_and_abort(const char* message) {
  std::fputs("tokenmix: ", stderr);
  std::fputs(message, stderr);
  std::fputs("\n", stderr);
  std::abort();
}

template <class Error>
[[noreturn]] TOKENMIX_COLD inline void fail(const std::string& message) {
#if TOKENMIX_EXCEPTIONS
  throw Error(message);
#else
  const failure_handler_t handler = process::failure_handler.load();
  (handler != nullptr ? handler : &print_and_abort)(message.c_str());
  std::abort();
#endif
}

inline std::string text(const char* part) { return part; }
inline std::string text(const std::string& part) { return part; }
template <std::integral Number>
std::string text(Number part) {
  return std::to_string(part);
}
inline std::string text(double part) {
  char digits[32];
  std::snprintf(digits, sizeof digits, "%.9g", part);
  return digits;
}
inline std::string text(float part) { return text(static_cast<double>(part)); }

template <class... Parts>
[[noreturn]] TOKENMIX_COLD void fail_shape(const Parts&... parts) {
  fail<shape_error>((std::string{} + ... + text(parts)));
}

template <class... Parts>
[[noreturn]] TOKENMIX_COLD void fail_value(const Parts&... parts) {
  fail<value_error>((std::string{} + ... + text(parts)));
}

}  // namespace detail

/// The handler in force where exceptions are off; the default prints the message and aborts. One for the process.
inline failure_handler_t failure_handler() {
  const failure_handler_t handler = process::failure_handler.load();
  return handler != nullptr ? handler : &detail::print_and_abort;
}

/// Replaces the handler (null: by the default) and returns the one before. Thread-safe.
inline failure_handler_t set_failure_handler(failure_handler_t handler) {
  const failure_handler_t before = process::failure_handler.exchange(handler);
  return before != nullptr ? before : &detail::print_and_abort;
}

}  // namespace tokenmix::inline TOKENMIX_ABI
