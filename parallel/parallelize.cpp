#include "parallel/parallelize.h"

#include <algorithm>
#include <map>
#include <utility>

#include "absl/strings/str_format.h"
#include "parallel/reshard.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

class Parallelizer {
 public:
  Parallelizer(const Graph& logical, const Mesh& mesh)
      : logical_(logical), mesh_(mesh), home_(logical.values.size(), ValueId::none) {}

  Graph run() {
    for (size_t i = 0; i < logical_.values.size(); ++i) {
      const Value& value = logical_.values[i];
      if (is_given(value)) home_[i] = add(value, effective(value.placement));
    }
    for (const Node& node : logical_.nodes) place(node);
    finish();
    return std::move(graph_);
  }

 private:
  // There before the first node runs; all other values are made by one.
  static bool is_given(const Value& value) {
    return is_persistent(value.kind) || value.kind == ValueKind::input;
  }

  // Axes of size 1 do nothing.
  Placement effective(Placement placement) const {
    for (const Axis axis : kAxes) {
      if (mesh_.size(axis) == 1) placement[axis] = kReplicate;
    }
    return placement;
  }

  ValueId add(const Value& like, const Placement& placement) {
    Value value = like;
    value.placement = placement;
    value.shape = local_shape(like.global_shape, placement, mesh_);
    check_divisible(value);
    return graph_.add_value(std::move(value));
  }

  void check_divisible(const Value& value) const {
    for (const Axis axis : kAxes) {
      const AxisPlacement p = value.placement[axis];
      if (p.kind != AxisPlacement::Kind::shard) continue;
      const bool may_be_uneven = axis == Axis::dp && p.dim == 0 &&
                                 (value.kind == ValueKind::state || is_gradient(value.kind) ||
                                  value.kind == ValueKind::parameter);
      const int64_t size = value.global_shape[static_cast<size_t>(p.dim)];
      if (may_be_uneven || size % mesh_.size(axis) == 0) continue;
      throw config_error(absl::StrFormat(
          "dim %d of '%s' %s does not divide by %s = %d; choose %s so that it does", p.dim,
          value.name, to_string(value.global_shape), name(axis), mesh_.size(axis), name(axis)));
    }
  }

  static bool is_gradient(ValueKind kind) {
    return kind == ValueKind::gradient || kind == ValueKind::accumulator;
  }

  void place(const Node& node) {
    if (node.layer != layer_) gathered_.clear();
    layer_ = node.layer;
    std::vector<Placement> needed(node.inputs.size());
    std::vector<Placement> given(node.outputs.size());
    for (const Axis axis : kAxes) {
      if (mesh_.size(axis) == 1) continue;
      std::vector<AxisPlacement> now;
      for (const ValueId id : node.inputs) now.push_back(shown(id, axis, node));
      const ShardRule rule = shard(node.op, now);
      check(rule.inputs.size() == needed.size() && rule.outputs.size() == given.size(),
            "the placement rule of %s speaks of other tensors than it has", name(node.op));
      for (size_t i = 0; i < needed.size(); ++i) needed[i][axis] = rule.inputs[i];
      for (size_t i = 0; i < given.size(); ++i) given[i][axis] = rule.outputs[i];
    }
    Node placed = node;
    for (size_t i = 0; i < needed.size(); ++i) {
      const bool is_read = !names_only_a_shape(node, i);
      placed.inputs[i] =
          is_read ? moved(node.inputs[i], needed[i], node) : home_[index(node.inputs[i])];
    }
    for (size_t i = 0; i < given.size(); ++i) {
      placed.outputs[i] = add(logical_.value(node.outputs[i]), given[i]);
      home_[index(node.outputs[i])] = placed.outputs[i];
    }
    graph_.add_node(std::move(placed));
    for (const ValueId id : node.outputs) follow_declaration(id, node);
  }

  bool is_parameter(ValueId logical) const {
    return logical_.value(logical).kind == ValueKind::parameter;
  }

  // What rules see. Shards of a weight along dp (ZeRO 3) are only where it is kept: but for the
  // update, everybody computes with all of it.
  AxisPlacement shown(ValueId logical, Axis axis, const Node& reader) const {
    const bool is_kept_so = axis == Axis::dp && is_parameter(logical);
    return is_kept_so && family(reader.op) != "update" ? kReplicate : home(logical).placement[axis];
  }

  // The table of a gradient of an embedding is not read: nothing is gathered for it.
  bool names_only_a_shape(const Node& node, size_t input) const {
    return std::holds_alternative<EmbeddingGrad>(node.op) && is_parameter(node.inputs[input]);
  }

  // A value that somebody wants sharded (Builder::place) is so for all its readers.
  void follow_declaration(ValueId logical, const Node& maker) {
    const Placement declared = effective(logical_.value(logical).placement);
    Placement wanted = home(logical).placement;
    for (const Axis axis : kAxes) {
      if (declared[axis].kind == AxisPlacement::Kind::shard) wanted[axis] = declared[axis];
    }
    home_[index(logical)] = moved(logical, wanted, maker);
  }

  const Value& home(ValueId logical) const { return graph_.value(home_[index(logical)]); }

  // The logical value, placed as wanted; `reader` lends its scope to what is inserted.
  ValueId moved(ValueId logical, const Placement& wanted, const Node& reader,
                bool in_place = false) {
    const ValueId from = home_[index(logical)];
    if (graph_.value(from).placement == wanted) return from;
    auto& known = is_parameter(logical) ? gathered_ : moved_;
    const auto [entry, is_new] = known.try_emplace({logical, to_string(wanted)}, ValueId::none);
    if (is_new) entry->second = move_to(from, wanted, reader, in_place);
    return entry->second;
  }

  // Gathers and sums from the inner axes outward, then slices from the outer ones inward.
  ValueId move_to(ValueId at, const Placement& wanted, const Node& reader, bool in_place) {
    const auto move = [&](Axis axis) {
      at = free_inner_axes(axis, at, wanted[axis], reader);
      at = move_along(axis, at, wanted[axis], reader, in_place);
    };
    for (const Axis axis : kAxes) {
      if (graph_.value(at).placement[axis] != kReplicate) move(axis);
    }
    for (size_t i = kAxes.size(); i-- > 0;) move(kAxes[i]);
    return at;
  }

  // A dim that several axes split is split by the last of kAxes first (local_box). An axis joins
  // or leaves such a dim only while none that comes after it in that order splits it.
  ValueId free_inner_axes(Axis axis, ValueId at, AxisPlacement to, const Node& reader) {
    const AxisPlacement now = graph_.value(at).placement[axis];
    if (now == to) return at;
    for (const Axis inner : kAxes) {
      if (inner == axis) break;
      const AxisPlacement held = graph_.value(at).placement[inner];
      const bool is_shard = held.kind == AxisPlacement::Kind::shard;
      if (is_shard && (held == now || held == to)) {
        at = move_along(inner, at, kReplicate, reader, false);
      }
    }
    return at;
  }

  ValueId move_along(Axis axis, ValueId from, AxisPlacement to, const Node& reader, bool in_place) {
    const AxisPlacement now = graph_.value(from).placement[axis];
    std::optional<Op> op = reshard(axis, now, to);
    if (!op) return from;
    if (auto* gather = std::get_if<AllGather>(&*op)) gather->in_place = in_place;
    const Value like = graph_.value(from);
    const ValueId result = add(like, like.placement.with(axis, to));
    graph_.value(result).name.clear();
    if (is_given(like)) graph_.value(result).kind = ValueKind::activation;
    pad(*op, from, result);
    graph_.add_node({.op = *std::move(op),
                     .inputs = {from},
                     .outputs = {result},
                     .layer = reader.layer,
                     .scope = reader.scope});
    if (now == kPartial) rehome(from, result);  // the sum serves every later reader
    return result;
  }

  // Room behind tensors whose dim 0 is dealt out in equal parts, rounded up.
  void pad(const Op& op, ValueId from, ValueId to) {
    const auto* scatter = std::get_if<ReduceScatter>(&op);
    const auto* gather = std::get_if<AllGather>(&op);
    const bool pads = (scatter && scatter->dim == 0) || (gather && gather->dim == 0);
    if (!pads) return;
    Value& whole = graph_.value(scatter ? from : to);
    const Value& part = graph_.value(scatter ? to : from);
    const int64_t dealt = num_elements(part.shape) * mesh_.size(*collective_axis(op));
    whole.padding_elements = dealt - num_elements(whole.shape);
  }

  void rehome(ValueId from, ValueId to) { std::ranges::replace(home_, from, to); }

  void finish() {
    const Node end{.op = Fill{}, .inputs = {}, .outputs = {}, .scope = "end"};
    for (const auto& [target, source] : logical_.updates) {
      const ValueId persistent = home_[index(target)];
      const Placement wanted = graph_.value(persistent).placement;
      graph_.updates.emplace_back(persistent, moved(source, wanted, end, true));
    }
    for (const auto& [name, id] : logical_.outputs) {
      graph_.outputs.emplace_back(name, moved(id, Placement{}, end));
    }
  }

  const Graph& logical_;
  const Mesh& mesh_;
  Graph graph_;
  std::vector<ValueId> home_;  // by logical value: where it was made, or its sum
  using Moves = std::map<std::pair<ValueId, std::string>, ValueId>;
  Moves moved_;
  Moves gathered_;  // parameters: only for the layer that is being placed, then they are dropped
  int layer_ = -1;
};

}  // namespace

Graph parallelize(const Graph& logical, const Mesh& mesh) {
  return Parallelizer(logical, mesh).run();
}

std::vector<CollectiveSummary> summarize_collectives(const Graph& graph) {
  std::vector<CollectiveSummary> summary;
  for (const Node& node : graph.nodes) {
    if (!is_collective(node.op)) continue;
    const std::string label =
        absl::StrFormat("%s@%s", name(node.op), name(*collective_axis(node.op)));
    auto at = std::ranges::find(summary, label, &CollectiveSummary::name);
    if (at == summary.end()) at = summary.insert(at, {.name = label});
    ++at->calls;
    for (size_t i = 0; i < node.inputs.size(); ++i) {
      const Value& from = graph.value(node.inputs[i]);
      const Value& to = graph.value(node.outputs[i]);
      ++at->tensors;
      at->bytes += static_cast<double>(std::max(num_elements(from.shape), num_elements(to.shape)) *
                                       size_bytes(from.dtype));
    }
  }
  return summary;
}

}  // namespace caravan
