// What harnesses share: what must hold ends the process when it does not, so that libFuzzer keeps
// the input.
#pragma once

#include <cstdio>
#include <cstdlib>
#include <string>

#include "runtime/error.h"

namespace caravan::fuzz {

inline void expect(bool ok, const char* what, const std::string& detail = "") {
  if (ok) return;
  std::fprintf(stderr, "expected: %s\n%s\n", what, detail.c_str());
  std::abort();
}

// Whether `action` ends without an error. Errors must be of the one kind and one short line; what
// is thrown besides reaches libFuzzer and ends the process.
template <typename Action>
bool succeeds(ExitCode code, const Action& action) {
  try {
    action();
    return true;
  } catch (const Error& error) {
    const std::string message = error.what();
    expect(error.code() == code, "the exit code of a user's mistake", message);
    expect(!message.empty() && message.find('\n') == std::string::npos, "one line", message);
    return false;
  }
}

}  // namespace caravan::fuzz
