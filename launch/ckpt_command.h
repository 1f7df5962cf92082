// `caravan ckpt ls|show|verify|diff|prune`: looks at checkpoints. ls and show read manifests only,
// verify every byte, diff the tensors of two; prune deletes old ones.
// Output goes to stdout; a user's mistake is thrown as Error.
#pragma once

#include <cstdint>
#include <iosfwd>
#include <string>
#include <vector>

#include "checkpoint/directory.h"

namespace CLI {
class App;
}

namespace caravan {

// Adds `ckpt` with its subcommands to `app`; parsing runs them.
void add_ckpt_command(CLI::App& app);

// What the subcommands print. `run_or_folder` is a run's output folder, its checkpoints folder or
// one checkpoint; `unix_time` is now, for the ages.
void list_checkpoints(const std::string& run_or_folder, int64_t unix_time, std::ostream& out);
void show_checkpoint(const std::string& checkpoint, bool with_tensors, std::ostream& out);

// A line for each damaged file and tensor, then a checkpoint error with the number of damaged
// checkpoints; or one line that begins with "ok".
void verify_checkpoints(const std::string& run_or_folder, std::ostream& out);

// Everything in which two checkpoints differ; "identical" when all tensors have the same bits.
void diff_checkpoints(const std::string& a, const std::string& b, std::ostream& out);

// Deletes the committed checkpoints of a run beyond the `keep` (>= 1) newest ones, and what killed
// saves left when no process trains there. A dry run only says so.
void prune_checkpoints(const std::string& run, int64_t keep, bool dry_run, std::ostream& out);

// Shared by the subcommands.
std::vector<StepFolder> find_checkpoints(const std::string& run_or_folder);  // oldest first
void require_checkpoint(const std::string& folder);  // an error when it has no manifest

}  // namespace caravan
