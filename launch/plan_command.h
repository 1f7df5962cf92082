// `caravan plan`: what a run costs in memory, communication and arithmetic, for any number of
// ranks, without starting them and without data. Plans with the same passes as `caravan train`.
#pragma once

#include <iosfwd>
#include <string>
#include <vector>

#include "launch/pipeline.h"

namespace CLI {
class App;
}

namespace caravan {

struct PlanRequest {
  std::string config_path;
  std::vector<std::string> overrides = {};
  int num_ranks = 0;           // 0: parallel.dp x ep x tp, an `auto` counts as 1
  std::string svg_path = {};   // empty: no picture
  std::string program = {};    // of the picture and the graph; empty: "update"
  std::string dump_pass = {};  // not empty: prints the graph after this pass, nothing else
  bool json = false;
};

// Adds `plan` to `app`; parsing runs it.
void add_plan_command(CLI::App& app);

// What the command prints. Throws a config error, after the table, when the plan exceeds a limit
// that somebody set; what `auto` finds on this machine need not be the machine of the run.
void print_plan(const PlanRequest& request, std::ostream& out);

// Prints the graph of `program` as it is after `pass`. A config error when there is no such pass or
// program; `pass` is one of those that launch/pipeline.h names.
GraphObserver graph_dumper(const std::string& program, const std::string& pass, std::ostream& out);

// `config` with the vocabulary of its first training source when it gives none itself. A config
// error when it has none either, or has more tokens than `config` says.
Config with_vocabulary(Config config);

}  // namespace caravan
