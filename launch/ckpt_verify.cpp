// `caravan ckpt verify`: all damage of one checkpoint, or of all those of a run.
#include <chrono>
#include <filesystem>
#include <ostream>

#include "absl/strings/str_format.h"
#include "checkpoint/verify.h"
#include "launch/ckpt_command.h"
#include "launch/log.h"
#include "runtime/error.h"

namespace caravan {
namespace {

std::string count(int64_t number, const std::string& noun) {
  return absl::StrFormat("%s %s%s", format_count(number), noun, number == 1 ? "" : "s");
}

}  // namespace

void verify_checkpoints(const std::string& run_or_folder, std::ostream& out) {
  const std::vector<StepFolder> found = find_checkpoints(run_or_folder);
  if (found.empty()) throw checkpoint_error(run_or_folder + ": no checkpoints to verify");
  const auto start = std::chrono::steady_clock::now();
  int64_t num_checkpoints = 0, num_damaged = 0, num_tensors = 0, num_bytes = 0;
  for (const StepFolder& entry : found) {
    const Verification result = verify_checkpoint(entry.path);
    // A run that goes on deletes its oldest meanwhile.
    if (!result.ok() && !std::filesystem::exists(entry.path)) {
      out << entry.path << ": deleted while it was read" << std::endl;
      continue;
    }
    ++num_checkpoints;
    for (const std::string& line : result.damage) out << line << std::endl;  // seen while it runs
    num_damaged += result.ok() ? 0 : 1;
    num_tensors += result.num_tensors;
    num_bytes += result.size_bytes;
  }
  if (num_checkpoints == 0) {
    throw checkpoint_error(run_or_folder + ": all were deleted while they were read; try again");
  }
  if (num_damaged > 0) {
    throw checkpoint_error(absl::StrFormat("%s: %d of %s damaged", run_or_folder, num_damaged,
                                           count(num_checkpoints, "checkpoint")));
  }
  const double seconds =
      std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
  out << absl::StrFormat("ok: %s, %s, %s, %.2f GB/s\n", count(num_checkpoints, "checkpoint"),
                         count(num_tensors, "tensor"), format_bytes(num_bytes),
                         static_cast<double>(num_bytes) * 1e-9 / seconds);
}

}  // namespace caravan
