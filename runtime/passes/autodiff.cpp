#include "runtime/passes/autodiff.h"

#include <algorithm>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

// Values that a parameter flows into: only those need a gradient.
std::vector<bool> depends_on_parameter(const Graph& graph) {
  std::vector<bool> depends(graph.values.size(), false);
  for (size_t i = 0; i < graph.values.size(); ++i) {
    depends[i] = graph.values[i].kind == ValueKind::parameter;
  }
  for (const Node& node : graph.nodes) {
    const bool any =
        std::ranges::any_of(node.inputs, [&](ValueId id) { return depends[index(id)]; });
    if (!any) continue;
    for (const ValueId id : node.outputs) depends[index(id)] = true;
  }
  return depends;
}

class Tape {
 public:
  Tape(Graph& graph, ValueId loss)
      : graph_(graph), builder_(graph), depends_(depends_on_parameter(graph)) {
    gradient_.resize(graph.values.size(), ValueId::none);
    builder_.set_result_kind(ValueKind::gradient);
    gradient_[index(loss)] = builder_.fill(1.0f);
  }

  void backward(const Node& node) {
    std::vector<ValueId> output_gradients;
    for (const ValueId id : node.outputs) output_gradients.push_back(gradient_[index(id)]);
    if (std::ranges::count(output_gradients, ValueId::none) == std::ssize(output_gradients)) return;
    const auto scope = builder_.scope_of(node, ".backward");
    const std::vector<ValueId> input_gradients =
        caravan::backward(node.op, {builder_, node.inputs, node.outputs, output_gradients});
    for (size_t i = 0; i < input_gradients.size(); ++i) {
      if (input_gradients[i] != ValueId::none) add(node.inputs[i], input_gradients[i]);
    }
  }

  ValueId gradient(ValueId id) const { return gradient_[index(id)]; }

 private:
  void add(ValueId id, ValueId more) {
    if (!depends_[index(id)]) return;
    ValueId& sum = gradient_[index(id)];
    sum = sum == ValueId::none ? more : builder_.add(sum, more);
  }

  Graph& graph_;
  Builder builder_;
  std::vector<bool> depends_;
  std::vector<ValueId> gradient_;  // by forward value
};

}  // namespace

Differentiated differentiate(Graph graph, ValueId loss) {
  check(graph.value(loss).shape.empty(), "the loss is no scalar but %s",
        to_string(graph.value(loss).shape));
  Differentiated result{std::move(graph), {}};
  Graph& g = result.graph;
  const std::vector<Node> forward = g.nodes;
  const size_t num_forward_values = g.values.size();
  Tape tape(g, loss);
  for (auto node = forward.rbegin(); node != forward.rend(); ++node) tape.backward(*node);
  for (size_t i = 0; i < num_forward_values; ++i) {
    const ValueId id = static_cast<ValueId>(i);
    if (g.values[i].kind != ValueKind::parameter || tape.gradient(id) == ValueId::none) continue;
    result.gradients.emplace_back(id, tape.gradient(id));
  }
  return result;
}

}  // namespace caravan
