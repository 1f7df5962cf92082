#include "bench/profile.h"

#include <algorithm>

#include "absl/strings/str_format.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

std::string shapes(const Graph& graph, const std::vector<ValueId>& ids) {
  constexpr size_t kShown = 8;  // the norm of all gradients has hundreds of inputs
  std::string text;
  for (size_t i = 0; i < std::min(ids.size(), kShown); ++i) {
    text += to_string(graph.value(ids[i]).shape);
  }
  return ids.size() > kShown ? absl::StrFormat("%s and %d more", text, ids.size() - kShown) : text;
}

std::string label_of(const Graph& graph, const Node& node) {
  return absl::StrFormat("%s %s -> %s", attributes(node.op), shapes(graph, node.inputs),
                         shapes(graph, node.outputs));
}

using Product = std::array<int64_t, 5>;

// Of attention nothing: its products are of blocks, half of which the mask may cut.
std::vector<Product> products_of(const Graph& graph, const Node& node) {
  const auto dim = [&](size_t input, size_t i) { return graph.value(node.inputs[input]).shape[i]; };
  if (const auto* matmul = std::get_if<MatMul>(&node.op)) {
    const Shape& out = graph.value(node.outputs[0]).shape;
    const int64_t inner = dim(0, matmul->transpose_a ? 0 : 1);
    return {{out[0], out[1], inner, matmul->transpose_a, matmul->transpose_b}};
  }
  const bool is_loss_grad = std::holds_alternative<LinearCrossEntropyGrad>(node.op) ||
                            std::holds_alternative<CrossEntropyPartGrad>(node.op);
  const bool is_loss = std::holds_alternative<LinearCrossEntropy>(node.op) ||
                       std::holds_alternative<CrossEntropyPart>(node.op);
  if (!is_loss_grad && !is_loss) return {};
  const int64_t tokens = dim(0, 0), width = dim(0, 1), vocabulary = dim(1, 0);
  std::vector<Product> products = {{tokens, vocabulary, width, 0, 1}};
  if (is_loss_grad) {
    products.push_back({tokens, width, vocabulary, 0, 0});
    products.push_back({vocabulary, width, tokens, 1, 0});
  }
  return products;
}

}  // namespace

StepProfile::StepProfile(const RunPlan& plan) {
  std::map<std::string, size_t> by_name;
  for (const Program& program : plan.programs) {
    for (const Node& node : program.graph.nodes) {
      const std::string key =
          absl::StrFormat("%s %s", name(node.op), label_of(program.graph, node));
      const auto [found, is_new] = by_name.emplace(key, kinds_.size());
      if (is_new) kinds_.push_back({&node, &program.graph});
      kind_of_[&node] = found->second;
    }
  }
}

void StepProfile::add(const Node& node, double seconds) {
  Kind& kind = kinds_[kind_of_.at(&node)];
  kind.step_ms += 1e3 * seconds;
  ++kind.num_calls;
}

void StepProfile::end_step() {
  for (Kind& kind : kinds_) {
    kind.steps_ms.push_back(kind.step_ms);
    kind.step_ms = 0;
  }
}

nlohmann::json StepProfile::to_json(const Kind& kind) const {
  const Node& node = *kind.example;
  const Cost one =
      cost(node.op, specs_of(*kind.graph, node.inputs), specs_of(*kind.graph, node.outputs));
  return {{"op", name(node.op)},
          {"family", family(node.op)},
          {"label", label_of(*kind.graph, node)},
          {"calls", kind.num_calls / std::ssize(kind.steps_ms)},
          {"ms", median(kind.steps_ms)},
          {"flops", one.flops},
          {"bytes", one.bytes},
          {"products", products_of(*kind.graph, node)}};
}

nlohmann::json StepProfile::kinds() const {
  nlohmann::json list = nlohmann::json::array();
  for (const Kind& kind : kinds_) {
    if (kind.num_calls > 0) list.push_back(to_json(kind));
  }
  return list;
}

double median(std::vector<double> values) {
  check(!values.empty(), "a median of nothing");
  const auto middle = values.begin() + std::ssize(values) / 2;
  std::ranges::nth_element(values, middle);
  return *middle;
}

}  // namespace caravan
