#include "parallel/parallelize.h"

#include <algorithm>
#include <map>
#include <tuple>
#include <utility>

#include "absl/strings/str_format.h"
#include "parallel/expand_loss.h"
#include "parallel/reshard.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

class Parallelizer {
 public:
  Parallelizer(const Graph& logical, const Mesh& mesh)
      : logical_(logical),
        mesh_(mesh),
        home_(logical.values.size(), ValueId::none),
        is_weight_(logical.values.size(), false) {
    for (size_t i = 0; i < is_weight_.size(); ++i) {
      is_weight_[i] = logical.values[i].kind == ValueKind::parameter;
    }
    for (const Node& node : logical.nodes) {
      if (!std::holds_alternative<Cast>(node.op)) continue;
      is_weight_[index(node.outputs[0])] = is_weight(node.inputs[0]);
    }
  }

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
  using Axes = std::array<Axis, kNumAxes>;
  using Move = std::tuple<ValueId, std::string, bool>;  // what, where to, for backward

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

  ValueId add(const Value& like, const Placement& placement, bool is_weight = false) {
    Value value = like;
    value.placement = placement;
    value.shape = local_shape(like.global_shape, placement, mesh_);
    check_divisible(value, is_weight);
    return graph_.add_value(std::move(value));
  }

  void check_divisible(const Value& value, bool is_weight) const {
    for (const Axis axis : kAxes) {
      const AxisPlacement p = value.placement[axis];
      if (p.kind != AxisPlacement::Kind::shard) continue;
      if (axis == Axis::tp && p.dim == 0 && value.name.empty()) check_tokens_divide(value);
      const bool may_be_uneven = axis == Axis::dp && p.dim == 0 &&
                                 (value.kind == ValueKind::state || is_gradient(value.kind) ||
                                  value.kind == ValueKind::parameter || is_weight);
      const int64_t size = value.global_shape[static_cast<size_t>(p.dim)];
      if (may_be_uneven || size % mesh_.size(axis) == 0) continue;
      throw config_error(absl::StrFormat(
          "dim %d of '%s' %s does not divide by %s = %d; choose %s so that it does", p.dim,
          value.name, to_string(value.global_shape), name(axis), mesh_.size(axis), name(axis)));
    }
  }

  // Weights and what is like them have been looked at before: these are tokens.
  void check_tokens_divide(const Value& value) const {
    int64_t size = value.global_shape[0];
    if (value.placement.tp_is_last) {
      Placement batch = value.placement.with(Axis::tp, kReplicate);
      batch.tp_is_last = false;
      size = local_shape(value.global_shape, batch, mesh_)[0];
    }
    if (size % mesh_.size(Axis::tp) == 0) return;
    throw config_error(absl::StrFormat(
        "%d tokens of a micro-batch do not divide by tp = %d, as sequence parallelism needs; "
        "choose tp, the sequence length or the micro-batch so that they do",
        size, mesh_.size(Axis::tp)));
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
    nest(node, needed, given);
    Node placed = node;
    for (size_t i = 0; i < needed.size(); ++i) {
      placed.inputs[i] =
          is_left(node, i) ? home_[index(node.inputs[i])] : moved(node.inputs[i], needed[i], node);
    }
    for (size_t i = 0; i < given.size(); ++i) {
      placed.outputs[i] =
          add(logical_.value(node.outputs[i]), given[i], is_weight(node.outputs[i]));
      home_[index(node.outputs[i])] = placed.outputs[i];
    }
    graph_.add_node(std::move(placed));
    for (const ValueId id : node.outputs) follow_declaration(id, node);
  }

  bool is_parameter(ValueId logical) const {
    return logical_.value(logical).kind == ValueKind::parameter;
  }

  // A parameter, or what was cast from one.
  bool is_weight(ValueId logical) const { return is_weight_[index(logical)]; }

  // What rules see. Shards of a weight along dp (ZeRO 3) are only where it is kept: but for the
  // update and a cast, so that what is gathered is small, everybody computes with all of it. And tp
  // cuts tokens anywhere.
  AxisPlacement shown(ValueId logical, Axis axis, const Node& reader) const {
    const AxisPlacement now = home(logical).placement[axis];
    const bool is_kept_so = axis == Axis::dp && is_weight(logical);
    const bool takes_shards =
        family(reader.op) == "update" || std::holds_alternative<Cast>(reader.op);
    if (is_kept_so && !takes_shards) return kReplicate;
    const bool cuts_sequences = axis == Axis::tp && now == shard(0);
    return cuts_sequences && takes_whole_sequences(reader.op) ? kReplicate : now;
  }

  // Nothing is gathered of a weight that is not read.
  bool is_left(const Node& node, size_t input) const {
    return !is_read(node.op, input) && is_parameter(node.inputs[input]);
  }

  // Where tp and another axis shard one dim of what a node reads or makes, they nest alike in all
  // of it: as in an input that is so already, or else in the order in which the axes come.
  void nest(const Node& node, std::vector<Placement>& needed, std::vector<Placement>& given) const {
    std::optional<bool> tp_is_last;
    for (size_t i = 0; i < needed.size() && !tp_is_last; ++i) {
      const Placement& now = home(node.inputs[i]).placement;
      if (now.is_nested() && needed[i].is_nested()) tp_is_last = now.tp_is_last;
    }
    for (size_t i = 0; i < needed.size() && !tp_is_last; ++i) {
      const Placement& now = home(node.inputs[i]).placement;
      if (needed[i].is_nested()) tp_is_last = joined(now, needed[i]).tp_is_last;
    }
    for (auto* placements : {&needed, &given}) {
      for (Placement& p : *placements) p.tp_is_last = p.is_nested() && tp_is_last.value_or(false);
    }
  }

  // `wanted`, with axes that join in a dim behind those that shard it already.
  static Placement joined(const Placement& now, Placement wanted) {
    const AxisPlacement dim = wanted[Axis::tp];
    const bool is_cut = now[Axis::dp] == dim || now[Axis::ep] == dim;
    wanted.tp_is_last =
        wanted.is_nested() && (now.is_nested() ? now.tp_is_last : is_cut && now[Axis::tp] != dim);
    return wanted;
  }

  // Where somebody wants a value sharded (Builder::place), `otherwise` for the other axes.
  Placement declared_shards(ValueId logical, Placement otherwise = {}) const {
    const Placement declared = effective(logical_.value(logical).placement);
    for (const Axis axis : kAxes) {
      if (declared[axis].kind == AxisPlacement::Kind::shard) otherwise[axis] = declared[axis];
    }
    return otherwise;
  }

  // It is so for all its readers.
  void follow_declaration(ValueId logical, const Node& maker) {
    const Placement wanted = declared_shards(logical, home(logical).placement);
    home_[index(logical)] = moved(logical, joined(home(logical).placement, wanted), maker);
  }

  const Value& home(ValueId logical) const { return graph_.value(home_[index(logical)]); }

  // The logical value, placed as wanted; `reader` lends its scope to what is inserted.
  ValueId moved(ValueId logical, const Placement& wanted, const Node& reader,
                bool in_place = false) {
    const ValueId from = home_[index(logical)];
    if (graph_.value(from).placement == wanted) return from;
    auto& known = is_weight(logical) ? gathered_ : moved_;
    const Move move{logical, to_string(wanted), is_backward(reader)};
    const auto [entry, is_new] = known.try_emplace(move, ValueId::none);
    if (is_new) entry->second = move_to(from, wanted, reader, in_place);
    return entry->second;
  }

  // Forward and backward gather for themselves, so that nothing whole stays alive in between.
  bool is_backward(const Node& reader) const {
    return std::ranges::any_of(
        reader.outputs, [&](ValueId id) { return logical_.value(id).kind == ValueKind::gradient; });
  }

  // From the axis that cuts last to the one that cuts first (local_box).
  static Axes inner_first(bool tp_is_last) {
    if (tp_is_last) return {Axis::tp, Axis::dp, Axis::ep};
    return {Axis::dp, Axis::ep, Axis::tp};
  }

  // Gathers and sums from the inner axes outward, then slices from the outer ones inward.
  ValueId move_to(ValueId at, const Placement& wanted, const Node& reader, bool in_place) {
    const Placement now = graph_.value(at).placement;
    const bool turns = now.is_nested() && wanted.is_nested() && now.tp_is_last != wanted.tp_is_last;
    const Axes order = inner_first(now.is_nested() ? now.tp_is_last : wanted.tp_is_last);
    const auto move = [&](Axis axis, AxisPlacement to) {
      const Placement& held = graph_.value(at).placement;
      const bool tp_is_last = held.is_nested() ? held.tp_is_last : wanted.tp_is_last;
      at = free_inner_axes(axis, at, to, inner_first(tp_is_last), reader);
      at = move_along(axis, at, to, reader, in_place);
    };
    for (const Axis axis : order) {
      if (graph_.value(at).placement[axis] == kReplicate) continue;
      move(axis, turns ? kReplicate : wanted[axis]);
    }
    const Axes last = inner_first(wanted.tp_is_last);
    for (size_t i = last.size(); i-- > 0;) move(last[i], wanted[last[i]]);
    return at;
  }

  // An axis joins or leaves a dim that several split only while none that cuts after it does so.
  ValueId free_inner_axes(Axis axis, ValueId at, AxisPlacement to, const Axes& inner_first,
                          const Node& reader) {
    const AxisPlacement now = graph_.value(at).placement[axis];
    if (now == to) return at;
    for (const Axis inner : inner_first) {
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
    const ValueId result = add(like, joined(like.placement, like.placement.with(axis, to)));
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
      graph_.outputs.emplace_back(name, moved(id, declared_shards(id), end));
    }
  }

  const Graph& logical_;
  const Mesh& mesh_;
  Graph graph_;
  std::vector<ValueId> home_;    // by logical value: where it was made, or its sum
  std::vector<bool> is_weight_;  // by logical value
  std::map<Move, ValueId> moved_;
  std::map<Move, ValueId> gathered_;  // weights: of the layer that is being placed
  int layer_ = -1;
};

}  // namespace

Graph parallelize(const Graph& logical, const Mesh& mesh) {
  return expand_loss(Parallelizer(logical, mesh).run(), mesh);
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
    for (size_t i = 0; i < node.outputs.size(); ++i) {  // other inputs are counts
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
