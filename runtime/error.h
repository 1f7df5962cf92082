// Errors and exit codes.
//
// A user's mistake is an `Error` with the exit code that the process ends with and a message that
// says what, where and how to mend it. A programmer's mistake fails a `check`.
// Neither is used for control flow.
#pragma once

#include <stdexcept>
#include <string>

#include "absl/strings/str_format.h"

namespace caravan {

// Debug builds check plans and overwrite freed memory (runtime/executor.h).
#ifdef NDEBUG
inline constexpr bool kDebugBuild = false;
#else
inline constexpr bool kDebugBuild = true;
#endif

enum class ExitCode : int {
  done = 0,
  internal = 1,
  config = 2,      // configuration or usage
  data = 3,        // training data, tokenizers
  checkpoint = 4,  // checkpoints, files of weights
  diverged = 5,
  peer_lost = 6,     // another rank died or hangs
  interrupted = 75,  // stopped after a commit: start me again
};

class Error : public std::runtime_error {
 public:
  Error(ExitCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ExitCode code() const { return code_; }

 private:
  ExitCode code_;
};

// throw config_error("configs/a.yaml:3: ...") and so on; the message is one line.
Error config_error(const std::string& message);
Error data_error(const std::string& message);
Error checkpoint_error(const std::string& message);
Error internal_error(const std::string& message);

// Fails with ExitCode::internal when `ok` is false: for what only a bug can cause.
template <typename... Args>
void check(bool ok, const absl::FormatSpec<Args...>& format, const Args&... args) {
  if (!ok) throw internal_error(absl::StrFormat(format, args...));
}

}  // namespace caravan
