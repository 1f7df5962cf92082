// The shell around the commands: parses arguments, runs the command, and turns whatever it throws
// into one line on standard error and an exit code.
#pragma once

namespace CLI {
class App;
}

namespace caravan {

// Parses and runs the chosen subcommand of `app` (its callback). Returns the exit code.
// A command that has an exit code of its own and nothing to add throws CLI::RuntimeError(code).
// A rank that fails inside MPI ends the whole job with that code, so that no rank waits for it.
int run_command_line(CLI::App& app, int argc, const char* const* argv);

}  // namespace caravan
