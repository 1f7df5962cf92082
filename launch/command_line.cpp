#include "launch/command_line.h"

#include <mpi.h>
#include <unistd.h>
#include <CLI/CLI.hpp>

#include <cstdio>
#include <cstdlib>
#include <iostream>
#include <string>
#include <vector>

#include "launch/failure.h"
#include "launch/nearest_name.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// This process among those of mpirun or srun, 0 when it is alone.
int launched_rank() {
  constexpr const char* kVariables[] = {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "SLURM_PROCID"};
  for (const char* variable : kVariables) {
    if (const char* text = std::getenv(variable)) return std::atoi(text);
  }
  return 0;
}

// All ranks of a job make the same mistake at the same time. The first one speaks at once; by the
// time that another would, the launcher has ended it, unless its mistake is its own.
void print_error(const std::string& message) {
  const int rank = launched_rank();
  const std::string place = rank == 0 ? "" : absl::StrFormat("rank %d: ", rank);
  if (rank != 0) sleep(1);
  std::fflush(stdout);
  absl::FPrintF(stderr, "caravan: error: %s%s\n", place, message);
}

int fail(ExitCode code, const std::string& message) {
  if (code == ExitCode::interrupted) {  // no mistake, and all ranks return together
    if (launched_rank() == 0) absl::FPrintF(stderr, "caravan: %s\n", message);
    return static_cast<int>(code);
  }
  print_error(message);
  int initialized = 0, finalized = 0;
  MPI_Initialized(&initialized);
  MPI_Finalized(&finalized);
  // Returning would wait in MPI_Finalize for ranks that wait for this one.
  if (initialized && !finalized) MPI_Abort(MPI_COMM_WORLD, static_cast<int>(code));
  return static_cast<int>(code);
}

std::string help_command(const CLI::App& app) {
  const auto chosen = app.get_subcommands();
  return chosen.empty() ? app.get_name() + " --help"
                        : app.get_name() + " " + chosen[0]->get_name() + " --help";
}

// CLI11 would call an unknown command an unexpected argument.
void check_command(const CLI::App& app, int argc, const char* const* argv) {
  if (argc < 2 || argv[1][0] == '-') return;
  std::vector<std::string> names;
  for (const CLI::App* command : app.get_subcommands([](const CLI::App*) { return true; })) {
    if (command->get_name() == argv[1]) return;
    names.push_back(command->get_name());
  }
  const auto nearest = nearest_name(argv[1], names);
  const std::string fix = nearest ? absl::StrFormat("did you mean '%s'?", *nearest)
                                  : absl::StrFormat("see %s --help", app.get_name());
  throw config_error(absl::StrFormat("unknown command '%s'; %s", printable(argv[1]), fix));
}

// The exit code.
int parse(CLI::App& app, int argc, const char* const* argv) {
  try {
    check_command(app, argc, argv);
    app.parse(argc, argv);
    return static_cast<int>(ExitCode::done);
  } catch (const CLI::Success& request) {  // --help, --version
    return app.exit(request);
  } catch (const CLI::RuntimeError& ended) {  // a command that has said everything itself
    return ended.get_exit_code();
  } catch (const CLI::ParseError& error) {
    throw config_error(absl::StrFormat("%s; see %s", one_line(error.what()), help_command(app)));
  }
}

}  // namespace

int run_command_line(CLI::App& app, int argc, const char* const* argv) {
  try {
    const int code = parse(app, argc, argv);
    if (std::fflush(stdout) != 0 || !std::cout.flush()) {
      throw internal_error("cannot write to standard output; is the disk full?");
    }
    return code;
  } catch (const std::exception&) {
    const ErrorText error = describe_error(std::current_exception());
    return fail(error.code, error.message);
  }
}

}  // namespace caravan
