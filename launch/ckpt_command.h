// `caravan ckpt ls|show`: looks at checkpoints through their manifests, without reading tensors.
// Output goes to stdout; a user's mistake is thrown as Error.
#pragma once

#include <CLI/CLI.hpp>
#include <iosfwd>
#include <string>

namespace caravan {

// Adds `ckpt` with its subcommands to `app`; parsing runs them.
void add_ckpt_command(CLI::App& app);

// What the subcommands print. `run_or_folder` is a run's output folder, its checkpoints folder or
// one checkpoint; `unix_time` is now, for the ages.
void list_checkpoints(const std::string& run_or_folder, int64_t unix_time, std::ostream& out);
void show_checkpoint(const std::string& checkpoint, bool with_tensors, std::ostream& out);

}  // namespace caravan
