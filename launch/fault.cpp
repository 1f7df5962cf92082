#include "launch/fault.h"

#include <array>
#include <chrono>
#include <csignal>
#include <limits>
#include <memory>
#include <optional>
#include <thread>

#include "absl/strings/numbers.h"
#include "absl/strings/str_split.h"
#include "runtime/error.h"

namespace caravan {
namespace {

using Kind = FaultRequest::Kind;

constexpr std::array<std::pair<std::string_view, Kind>, 6> kKinds = {
    {{"stop", Kind::stop},
     {"hang", Kind::hang},
     {"kill", Kind::kill},
     {"error", Kind::error},
     {"nan", Kind::nan},
     {"nan-gradient", Kind::nan_gradient}}};

std::optional<Kind> find_kind(std::string_view name) {
  for (const auto& [known, kind] : kKinds) {
    if (known == name) return kind;
  }
  return {};
}

void write_nan(Backend& backend, const TensorView& output) {
  const float nan = std::numeric_limits<float>::quiet_NaN();
  backend.copy_in(output.data, &nan, sizeof(nan));
}

// Which kinds wait for a certain op; the others take the first of the step.
bool happens_after(Kind kind, const Node& node) {
  const bool is_whole = std::holds_alternative<LinearCrossEntropyGrad>(node.op);
  const bool is_gradient = is_whole || std::holds_alternative<CrossEntropyPartGrad>(node.op);
  const bool is_loss = is_whole || std::holds_alternative<LinearCrossEntropy>(node.op) ||
                       std::holds_alternative<CrossEntropyPart>(node.op);
  if (kind == Kind::nan) return is_loss;
  return kind != Kind::nan_gradient || is_gradient;
}

void fail(const FaultRequest& request, Backend& backend, std::span<const TensorView> outputs) {
  switch (request.kind) {
    case Kind::stop:
      raise(SIGSTOP);
      return;
    case Kind::kill:
      raise(SIGKILL);
      return;
    case Kind::hang:
      for (;;) std::this_thread::sleep_for(std::chrono::seconds(1));
    case Kind::error:
      throw internal_error(absl::StrFormat("a fault that was asked for, in step %d", request.step));
    case Kind::nan:
      return write_nan(backend, outputs[0]);
    case Kind::nan_gradient:
      return write_nan(backend, outputs[outputs.size() - 2]);  // dx, before dweight
  }
}

}  // namespace

FaultRequest parse_fault(std::string_view text, int num_ranks) {
  const std::string all(text);
  const auto wrong = [&](const std::string& why) {
    return config_error(absl::StrFormat(
        "--fault '%s': %s; write KIND@STEP:RANK such as stop@10:0, where KIND is stop, hang, kill, "
        "error, nan or nan-gradient",
        all, why));
  };
  const std::vector<std::string> at = absl::StrSplit(all, '@');
  if (at.size() != 2) throw wrong("there must be one @");
  const std::vector<std::string> place = absl::StrSplit(at[1], ':');
  if (place.size() != 2) throw wrong("there must be one : after the @");
  FaultRequest request;
  const auto kind = find_kind(at[0]);
  if (!kind) throw wrong("no such kind");
  request.kind = *kind;
  if (!absl::SimpleAtoi(place[0], &request.step) || request.step < 1) {
    throw wrong("steps count from 1");
  }
  if (!absl::SimpleAtoi(place[1], &request.rank) || request.rank < 0 || request.rank >= num_ranks) {
    throw wrong(absl::StrFormat("ranks are 0 to %d", num_ranks - 1));
  }
  return request;
}

std::function<void(Backend&, const Node&, std::span<const TensorView>)> make_fault(
    const FaultRequest& request, const Progress& progress) {
  auto has_happened = std::make_shared<bool>(false);  // one for all executors
  return [request, &progress, has_happened](Backend& backend, const Node& node,
                                            std::span<const TensorView> outputs) {
    if (*has_happened || !happens_after(request.kind, node)) return;
    const Position at = progress.read();
    if (at.step != request.step || at.phase != Phase::computing) return;
    *has_happened = true;
    fail(request, backend, outputs);
  };
}

}  // namespace caravan
