#include "launch/compare_plans.h"

#include <algorithm>
#include <cstring>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/error.h"
#include "runtime/rng.h"

namespace caravan {
namespace {

constexpr char kQuestion[] = "do all ranks run the same binary with the same configuration?";

// The first rank whose text is not that of rank 0; -1: all are the same.
int first_other(const std::vector<std::string>& all) {
  const auto found = std::ranges::find_if(all, [&](const auto& one) { return one != all[0]; });
  return found == all.end() ? -1 : static_cast<int>(found - all.begin());
}

std::string shapes(const Graph& graph, const std::vector<ValueId>& ids) {
  return absl::StrJoin(ids, " x ", [&](std::string* out, ValueId id) {
    *out += absl::StrFormat("(%s)", absl::StrJoin(graph.value(id).shape, ", "));
    if (graph.value(id).dtype != DType::f32) *out += name(graph.value(id).dtype);
  });
}

// "matmul transpose_b (128, 384) x (384, 64) -> (128, 64) [layers.3.mlp]"
std::string describe(const Program& program, size_t step) {
  if (step >= program.steps.size()) return "nothing: it has no more ops";
  const Node& node = program.graph.nodes[index(program.steps[step].node)];
  std::string text(name(node.op));
  if (const std::string more = attributes(node.op); !more.empty()) text += " " + more;
  text += absl::StrFormat(" %s -> %s", shapes(program.graph, node.inputs),
                          shapes(program.graph, node.outputs));
  if (node.stream == Stream::communication) text += " on the communication stream";
  if (!node.scope.empty()) text += absl::StrFormat(" [%s]", node.scope);
  if (const int other = program.steps[step].wait_for; other >= 0) {
    text += absl::StrFormat(", which waits for op %d", other);
  }
  return text;
}

// Eight bytes per step.
std::string step_hashes(const Program& program) {
  std::string bytes;
  for (size_t i = 0; i < program.steps.size(); ++i) {
    const uint64_t hash = stable_hash(describe(program, i));
    bytes.append(reinterpret_cast<const char*>(&hash), sizeof(hash));
  }
  return bytes;
}

// The first step that differs, or the number of steps when none does.
size_t first_difference(const std::string& a, const std::string& b) {
  const size_t common = std::min(a.size(), b.size());
  const auto at = std::mismatch(a.begin(), a.begin() + static_cast<ptrdiff_t>(common), b.begin());
  return static_cast<size_t>(at.first - a.begin()) / sizeof(uint64_t);
}

// Collective: all ranks know that `other` has another `program` than rank 0.
[[noreturn]] void name_difference(Communicator& world, const Program& program, int other) {
  const std::vector<std::string> hashes = gather_strings(world, step_hashes(program));
  const std::string& theirs = hashes[static_cast<size_t>(other)];
  const size_t step = first_difference(hashes[0], theirs);
  if (hashes[0] == theirs) {
    throw internal_error(absl::StrFormat(
        "rank %d planned the same ops of program '%s' as rank 0, but with other values or other "
        "places in memory; %s",
        other, program.name, kQuestion));
  }
  const std::vector<std::string> ops = gather_strings(world, describe(program, step));
  throw internal_error(
      absl::StrFormat("rank %d planned op %d of program '%s' as %s, rank 0 as %s; %s", other, step,
                      program.name, ops[static_cast<size_t>(other)], ops[0], kQuestion));
}

// Ranks with other programs would not even compare the same number of times.
void compare_names(Communicator& world, std::span<const Program> programs) {
  const std::string mine =
      absl::StrJoin(programs, ", ", [](std::string* out, const Program& one) { *out += one.name; });
  const std::vector<std::string> all = gather_strings(world, mine);
  const int other = first_other(all);
  check(other < 0, "rank %d planned the programs %s, rank 0 %s; %s", other,
        all[static_cast<size_t>(std::max(other, 0))], all[0], kQuestion);
}

}  // namespace

void compare_plans(Communicator& world, std::span<const Program> programs) {
  compare_names(world, programs);
  for (const Program& program : programs) {
    const int other = first_other(gather_strings(world, absl::StrFormat("%016x", hash(program))));
    if (other >= 0) name_difference(world, program, other);
  }
}

}  // namespace caravan
