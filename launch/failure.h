// error.json in the folder of a run: which rank failed first, where and why. The ranks of a job
// race for it, and the one that makes it speaks: one line on the console per job, not one per rank.
#pragma once

#include <cstdint>
#include <string>

#include "runtime/error.h"

namespace caravan {

struct Failure {
  int rank = 0;
  std::string host = {};
  int64_t step = 0;
  std::string phase = {};
  std::string message = {};  // one line
  ExitCode exit_code = ExitCode::internal;
};

std::string one_line(std::string text);  // its line breaks become spaces

std::string failure_path(const std::string& output_dir);

// Before a run, by the rank that holds the folder's lock: what the run before left is gone.
void remove_failure(const std::string& output_dir);

enum class Claim : uint8_t {
  first,       // the file is this one's
  later,       // another rank was first: say nothing
  unwritable,  // nobody can know: the folder is read-only or gone
};
// Makes error.json unless it exists: whole, or empty where the disk is full. Any thread of any
// rank; never throws.
Claim claim_failure(const std::string& output_dir, const Failure& failure) noexcept;

bool has_failure(const std::string& output_dir);

// "caravan: error: message" on standard error, in one write: standard streams may be locked.
void print_failure(const std::string& message) noexcept;

// What `error` says, as one line, and the exit code it asks for.
struct ErrorText {
  ExitCode code = ExitCode::internal;
  std::string message;
};
ErrorText describe_error(const std::exception_ptr& error);

}  // namespace caravan
