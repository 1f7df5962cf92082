#include "runtime/graph.h"

#include <unordered_map>

#include "absl/strings/str_format.h"
#include "absl/strings/str_join.h"
#include "runtime/error.h"

namespace caravan {

std::string_view name(ValueKind kind) {
  switch (kind) {
    case ValueKind::parameter:
      return "parameter";
    case ValueKind::state:
      return "state";
    case ValueKind::accumulator:
      return "accumulator";
    case ValueKind::input:
      return "input";
    case ValueKind::activation:
      return "activation";
    case ValueKind::gradient:
      return "gradient";
  }
  throw internal_error("unknown kind of value");
}

ValueId Graph::find(std::string_view wanted) const {
  for (size_t i = 0; i < values.size(); ++i) {
    if (values[i].name == wanted) return static_cast<ValueId>(i);
  }
  return ValueId::none;
}

ValueId Graph::output(std::string_view wanted) const {
  for (const auto& [name, id] : outputs) {
    if (name == wanted) return id;
  }
  throw internal_error(absl::StrFormat("the graph has no output '%s'", wanted));
}

ValueId Graph::add_value(Value value) {
  values.push_back(std::move(value));
  return static_cast<ValueId>(values.size() - 1);
}

NodeId Graph::add_node(Node node) {
  nodes.push_back(std::move(node));
  return static_cast<NodeId>(nodes.size() - 1);
}

namespace {

struct AliasesOf {
  const Node& node;

  std::vector<Alias> each() const {
    std::vector<Alias> all;
    for (int i = 0; i < static_cast<int>(node.inputs.size()); ++i) all.push_back({i, i});
    return all;
  }
  std::vector<Alias> operator()(const Accumulate&) const { return {{0, 0}}; }
  std::vector<Alias> operator()(const AdamW&) const { return {{0, 0}, {1, 2}, {2, 3}}; }
  std::vector<Alias> operator()(const AllReduce&) const { return each(); }
  std::vector<Alias> operator()(const AllReduceMax&) const { return each(); }
  std::vector<Alias> operator()(const UpdateRouterBias&) const { return {{0, 0}}; }
  std::vector<Alias> operator()(const DispatchGrad& op) const {
    if (!op.adds_in_place) return {};
    return {{0, 6}, {1, 7}};
  }
  std::vector<Alias> operator()(const Slice& op) const {
    if (op.dim != 0) return {};
    return {{0, 0, Alias::Kind::slice}};
  }
  std::vector<Alias> operator()(const AllGather& op) const {
    if (!op.in_place) return {};
    return {{0, 0, Alias::Kind::whole}};
  }
  template <typename OtherOp>
  std::vector<Alias> operator()(const OtherOp&) const {
    return {};
  }
};

}  // namespace

std::vector<ValueId> reads(const Graph& graph, const Node& node) {
  std::vector<ValueId> all = node.inputs;
  if (node.repeat >= 0) all.push_back(graph.repeats[static_cast<size_t>(node.repeat)].count);
  return all;
}

std::vector<Alias> aliases(const Node& node) {
  if (addend(node.op) == Addend::in_place) return {{0, static_cast<int>(node.inputs.size()) - 1}};
  return std::visit(AliasesOf{node}, node.op);
}

namespace {

std::string value_label(const Graph& graph, ValueId id) {
  const Value& value = graph.value(id);
  std::string label = absl::StrFormat("%%%d", index(id));
  if (!value.name.empty()) label += absl::StrFormat("(%s)", value.name);
  return label;
}

std::string value_type(const Value& value) {
  std::string type = absl::StrFormat("%s%s", name(value.dtype), to_string(value.shape));
  const std::string placement = to_string(value.placement);
  return placement.empty() ? type : type + " " + placement;
}

std::string join_labels(const Graph& graph, const std::vector<ValueId>& ids) {
  return absl::StrJoin(ids, ", ",
                       [&](std::string* out, ValueId id) { *out += value_label(graph, id); });
}

std::string dump_node(const Graph& graph, const Node& node) {
  std::string line = absl::StrFormat("%s = %s(%s)", join_labels(graph, node.outputs), name(node.op),
                                     join_labels(graph, node.inputs));
  if (const std::string text = attributes(node.op); !text.empty()) line += " " + text;
  line += " : " + absl::StrJoin(node.outputs, ", ", [&](std::string* out, ValueId id) {
            *out += value_type(graph.value(id));
          });
  if (node.stream == Stream::communication) line += " @communication";
  if (node.repeat >= 0) {
    const Repeat& repeat = graph.repeats[static_cast<size_t>(node.repeat)];
    line += absl::StrFormat(" @repeat(%d, %s)", node.repeat, value_label(graph, repeat.count));
  }
  if (!node.scope.empty()) line += "  # " + node.scope;
  return line;
}

}  // namespace

std::string dump(const Graph& graph) {
  std::string text;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const Value& value = graph.values[i];
    if (!is_persistent(value.kind) && value.kind != ValueKind::input) continue;
    text += absl::StrFormat("%s = %s : %s\n", value_label(graph, static_cast<ValueId>(i)),
                            name(value.kind), value_type(value));
  }
  for (const Node& node : graph.nodes) text += dump_node(graph, node) + "\n";
  for (const auto& [name, id] : graph.outputs) {
    text += absl::StrFormat("output %s = %s\n", name, value_label(graph, id));
  }
  for (const auto& [target, source] : graph.updates) {
    text += absl::StrFormat("update %s <- %s\n", value_label(graph, target),
                            value_label(graph, source));
  }
  for (const auto& group : graph.contiguous) {
    text += absl::StrFormat("contiguous %s\n", join_labels(graph, group));
  }
  return text;
}

}  // namespace caravan
