#include "launch/resume.h"

#include <algorithm>
#include <functional>
#include <memory>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "absl/strings/str_split.h"
#include "launch/run_state.h"
#include "optim/lr_schedule.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// Whether a step that both configurations have would be made at another rate. Other keys of the
// schedule are compared as such. Rates that differ differ at most steps, so of very many steps some
// are looked at, and the last.
bool changes_schedule(const Config& before, const Config& after, int64_t step) {
  const LrSchedule old_schedule = lr_schedule(before), new_schedule = lr_schedule(after);
  const int64_t end = std::min(before.train.max_steps, after.train.max_steps);
  const auto differ = [&](int64_t at) {
    return learning_rate(old_schedule, at) != learning_rate(new_schedule, at);
  };
  constexpr int64_t kLooks = 100'000;
  const int64_t stride = std::max<int64_t>(1, (end - step) / kLooks);
  for (int64_t next = step + 1; next <= end; next += stride) {
    if (differ(next)) return true;
  }
  return end > step && differ(end);
}

// What a change of a key means for a run that goes on.
enum class Effect { none, rounding, another_run, another_model };

Effect effect_of(const std::string& path, const Config& before, const Config& after, int64_t step) {
  const auto in = [&](std::string_view prefix) { return path.starts_with(prefix); };
  const bool is_of_start =
      path == "model.initializer_range" || path == "model.max_position_embeddings";
  if (in("model.") && !is_of_start) return Effect::another_model;
  if (in("optimizer.") || (in("data.") && !in("data.validation")) || path == "train.seed" ||
      path == "train.global_batch_size" || (in("moe.") && path != "moe.slots")) {
    return Effect::another_run;
  }
  if (path == "train.max_steps" && changes_schedule(before, after, step)) {
    return Effect::another_run;
  }
  const bool is_rounding =
      path == "train.micro_batch_size" || path == "moe.slots" || path == "runtime.dtype";
  return is_rounding ? Effect::rounding : Effect::none;
}

void check_changes(const CheckpointHeader& header, const Config& config, Console* console,
                   const ResumeOptions& options) {
  const auto saved = header.texts.find("config");
  if (saved == header.texts.end()) return;
  const Config before = parse_config(saved->second, "the checkpoint's configuration");
  for (const ConfigChange& change : changed_keys(before, config)) {
    const std::string what =
        absl::StrFormat("%s was %s when the checkpoint was saved and is %s now", change.path,
                        change.before, change.after);
    switch (effect_of(change.path, before, config, header.step)) {
      case Effect::none:
        break;
      case Effect::rounding:
        if (console)
          console->warn(change.path, what + (change.path == "runtime.dtype"
                                                 ? ": results are rounded otherwise"
                                                 : ": sums are rounded in another order"));
        break;
      case Effect::another_run:
        if (!options.allow_config_change) {
          throw config_error(what +
                             ", which makes it another run; change it back, or pass "
                             "--allow-config-change");
        }
        if (console) console->warn(change.path, what);
        break;
      case Effect::another_model:
        throw checkpoint_error(
            what + "; that is another model: change it back, or choose another output_dir");
    }
  }
}

// The paths of the data are compared as keys are; this is what lies there.
void check_data(const CheckpointHeader& header, Console* console, const ResumeOptions& options) {
  const auto saved = header.texts.find(kDataIdentity);
  if (saved == header.texts.end() || saved->second == options.data_identity) return;
  const std::string what =
      absl::StrFormat("data.train held other data when the checkpoint was saved (%s; now %s)",
                      saved->second, options.data_identity);
  if (!options.allow_config_change) {
    throw data_error(what +
                     ", which makes it another run; bring the data back, or pass "
                     "--allow-config-change");
  }
  if (console) console->warn("data.train", what);
}

void note_layout(const CheckpointHeader& header, const Mesh& mesh, Console* console) {
  if (!console) return;
  for (const Axis axis : kAxes) {
    const auto saved = header.layout.find(std::string(name(axis)));
    if (saved == header.layout.end() || saved->second == mesh.size(axis)) continue;
    console->line(absl::StrFormat(
        "the checkpoint was saved with %s %d, this run has %d: sums are rounded in another order",
        name(axis), saved->second, mesh.size(axis)));
  }
}

// Collective. The checkpoint error that `attempt` throws on some rank, the same text on all; ""
// when all succeed. Other errors pass.
std::string common_error(Communicator& world, const std::function<void()>& attempt) {
  std::string mine;
  try {
    attempt();
  } catch (const Error& error) {
    if (error.code() != ExitCode::checkpoint) throw;
    mine = error.what();
  }
  for (const std::string& error : gather_strings(world, mine)) {
    if (!error.empty()) return error;
  }
  return "";
}

}  // namespace

std::optional<ResumedRun> resume_run(const ResumeChoice& choice, Session& session, Console* console,
                                     const ResumeOptions& options) {
  Communicator& world = session.world();
  const std::string list = gather_strings(world, absl::StrJoin(choice.paths, "\n"))[0];
  const std::vector<std::string> paths = absl::StrSplit(list, '\n', absl::SkipEmpty());
  for (size_t i = 0; i < paths.size(); ++i) {
    std::unique_ptr<CheckpointReader> reader;
    std::string error =
        common_error(world, [&] { reader = std::make_unique<CheckpointReader>(paths[i]); });
    if (error.empty()) {
      const CheckpointHeader& header = reader->manifest().header;
      check_changes(header, session.config(), console, options);
      check_data(header, console, options);
      if (console) console->line(absl::StrFormat("resuming from %s", paths[i]));
      note_layout(header, session.mesh(), console);
      error = common_error(world, [&] {
        load_persistent(session.plan(), session.mesh(), session.backend(), session.arena(), *reader,
                        session.progress());
      });
      if (error.empty()) return ResumedRun{paths[i], restore(header)};
    }
    if (i + 1 == paths.size()) throw checkpoint_error(error);
    const std::string what = error + "; going on from the checkpoint before it";
    if (console) console->warn(what, what);
  }
  return std::nullopt;
}

}  // namespace caravan
