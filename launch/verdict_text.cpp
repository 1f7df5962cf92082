#include "launch/verdict_text.h"

#include <algorithm>
#include <map>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"

namespace caravan {
namespace {

constexpr char kRemedy[] = "; start again to go on from the last checkpoint";

std::string program_text(const VerdictContext& context, int program) {
  if (program < 0 || program >= std::ssize(context.programs)) return "";
  return absl::StrFormat("program '%s'", context.programs[static_cast<size_t>(program)].name);
}

// "all_reduce [layers.0.mlp] of program 'update'"; "" when the plan has no such step.
std::string op_text(const VerdictContext& context, int program, int op) {
  if (program < 0 || program >= std::ssize(context.programs)) return "";
  const Program& found = context.programs[static_cast<size_t>(program)];
  if (op < 0 || op >= std::ssize(found.steps)) return "";
  const Node& node = found.graph.nodes[index(found.steps[static_cast<size_t>(op)].node)];
  const std::string scope = node.scope.empty() ? "" : absl::StrFormat(" [%s]", node.scope);
  return absl::StrFormat("%s%s of program '%s'", name(node.op), scope, found.name);
}

// What a rank waits for; "" when it waits for nothing.
std::string awaited_text(const VerdictContext& context, const Beat& beat) {
  if (beat.life != Beat::Life::running) return "the end of the run";
  const Position& at = beat.position;
  if (at.waits_for == kWaitsForNothing) return "";
  if (at.waits_for == kWaitsForControlPlane) {
    return absl::StrFormat("a barrier or gather of the phase '%s'", name(at.phase));
  }
  if (at.waits_for == kWaitsForProgram) {
    return "a collective of " + program_text(context, at.program);
  }
  return op_text(context, at.program, at.waits_for);
}

std::string rank_text(const VerdictContext& context, int rank) {
  return absl::StrFormat("rank %d (%s)", rank, describe(context.places[static_cast<size_t>(rank)]));
}

bool was_heard(const Beat& beat) { return beat.position.moves > 0; }

// "step 17, phase computing, op 41: matmul [layers.1.mlp] of program 'update'"
std::string place_text(const VerdictContext& context, const Beat& beat) {
  const Position& at = beat.position;
  std::string text = absl::StrFormat("step %d", context.judge.step());
  if (!was_heard(beat)) return text;
  if (at.step != context.judge.step())
    text += absl::StrFormat(", last heard of in step %d", at.step);
  text += absl::StrFormat(", phase %s", name(at.phase));
  const bool runs_ops = at.phase == Phase::computing || at.phase == Phase::evaluating;
  if (runs_ops && at.op == kRecordedOps)
    return text + ", " + program_text(context, at.program);  // which of its ops, no one knows
  const std::string op = runs_ops ? op_text(context, at.program, at.op) : "";
  return op.empty() ? text : text + absl::StrFormat(", op %d: %s", at.op, op);
}

// "ranks 0, 1 and 3"
std::string ranks_text(const std::vector<int>& ranks) {
  if (ranks.size() == 1) return absl::StrFormat("rank %d", ranks[0]);
  constexpr size_t kNamed = 8;
  if (ranks.size() > kNamed) return absl::StrFormat("%d ranks", ranks.size());
  return absl::StrFormat("ranks %s and %d", absl::StrJoin(ranks.begin(), ranks.end() - 1, ", "),
                         ranks.back());
}

// Who waits for what, without `except`.
std::map<std::string, std::vector<int>> waiting_ranks(const VerdictContext& context, int except) {
  std::map<std::string, std::vector<int>> waiting;
  for (int rank = 0; rank < std::ssize(context.places); ++rank) {
    const Beat& beat = context.judge.last(rank);
    if (rank == except || !was_heard(beat)) continue;
    const std::string text = awaited_text(context, beat);
    if (!text.empty()) waiting[text].push_back(rank);
  }
  return waiting;
}

// "; ranks 0, 1 and 3 wait in all_reduce ...": what most of the others wait for.
std::string others_text(const VerdictContext& context, int except) {
  const auto waiting = waiting_ranks(context, except);
  if (waiting.empty()) return "";
  const auto most =
      std::ranges::max_element(waiting, {}, [](const auto& one) { return one.second.size(); });
  const auto& [what, ranks] = *most;
  return absl::StrFormat("; %s wait%s in %s", ranks_text(ranks), ranks.size() == 1 ? "s" : "",
                         what);
}

std::string deadlock_text(const Verdict& verdict, const VerdictContext& context) {
  auto waiting = waiting_ranks(context, -1);
  std::vector<std::pair<std::string, std::vector<int>>> groups(waiting.begin(), waiting.end());
  const auto has_first = [&](const auto& group) {
    return std::ranges::find(group.second, verdict.rank) == group.second.end();
  };
  std::ranges::stable_sort(groups, {}, has_first);  // the odd one out comes first
  std::vector<std::string> parts;
  for (const auto& [what, ranks] : groups) {
    const std::string who = ranks.size() == 1 ? rank_text(context, ranks[0]) : ranks_text(ranks);
    parts.push_back(absl::StrFormat("%s in %s", who, what));
  }
  const char* const why = groups.size() == 1 ? "all ranks wait and no message arrives"
                                             : "the ranks wait for different things";
  return absl::StrFormat("%s, step %d, for %.0f s: %s%s", why, context.judge.step(),
                         verdict.seconds, absl::StrJoin(parts, ", "), kRemedy);
}

}  // namespace

std::string verdict_text(const Verdict& verdict, const VerdictContext& context) {
  if (verdict.kind == Verdict::Kind::deadlock) return deadlock_text(verdict, context);
  const char* const what = verdict.kind == Verdict::Kind::silent
                               ? "gives no sign of life (stopped, or its machine is gone)"
                               : "hangs: it does nothing and waits for nobody,";
  return absl::StrFormat("%s %s for %.0f s in %s%s%s", rank_text(context, verdict.rank), what,
                         verdict.seconds, place_text(context, context.judge.last(verdict.rank)),
                         others_text(context, verdict.rank), kRemedy);
}

std::string death_text(int rank, const VerdictContext& context) {
  return absl::StrFormat("%s died in %s%s%s", rank_text(context, rank),
                         place_text(context, context.judge.last(rank)), others_text(context, rank),
                         kRemedy);
}

}  // namespace caravan
