#include "parallel/expand_experts.h"

#include <algorithm>
#include <optional>
#include <utility>

#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {
namespace {

// The axis along which both tokens and experts are dealt out: there rows must travel.
std::optional<Axis> exchange_axis(const Value& x, const Value& weights) {
  std::optional<Axis> found;
  for (const Axis axis : kAxes) {
    if (weights.placement[axis] != shard(0)) continue;
    check(!found && x.placement[axis] == shard(0),
          "experts are dealt out along %s, but tokens are not, or experts along two axes",
          name(axis));
    found = axis;
  }
  return found;
}

// Emits what one node becomes. Values that it makes are of this rank alone: their shapes are local.
class Expansion {
 public:
  Expansion(Graph& graph, const Mesh& mesh, const Node& node, const Slots& slots, ValueId gate)
      : graph_(graph),
        mesh_(mesh),
        node_(node),
        slots_(slots),
        x_(node.inputs[0]),
        scores_(node.inputs[1]),
        gate_(gate),
        axis_(exchange_axis(graph.value(node.inputs[0]), graph.value(gate))) {}

  void forward();
  void backward();

 private:
  struct Rows {
    ValueId rows;    // (S,D) for the experts of this rank
    ValueId counts;  // how many from each rank for each expert
    ValueId sent;    // how many this rank sent, by expert
  };
  // What a pass computes on the way in.
  struct Projected {
    Rows rows;
    ValueId gate;  // (S,F)
    ValueId up;    // (S,F)
  };
  struct Weights {
    ValueId gate, up, down;
  };
  struct Gradients {
    ValueId dx, dscores, dgate, dup, ddown;
  };

  std::vector<ValueId> emit(Op op, std::vector<ValueId> inputs, std::vector<ValueId> outputs = {});
  ValueId one(Op op, std::vector<ValueId> inputs, ValueId output = ValueId::none) {
    return emit(std::move(op), std::move(inputs),
                output == ValueId::none ? std::vector<ValueId>{} : std::vector<ValueId>{output})[0];
  }
  ValueId like(ValueId id) {
    Value copy = graph_.value(id);
    return graph_.add_value(std::move(copy));
  }

  bool may_repeat() const;
  ValueId begin_repeat(ValueId further);
  Rows dispatch(ValueId x, bool weighted, ValueId pass, std::optional<Rows> to = {});
  ValueId send_back(ValueId rows, const Rows& dispatched);
  void assign();
  Projected project(ValueId pass, std::optional<Projected> to = {});
  ValueId combine(const Projected& in, ValueId pass, ValueId addend, ValueId out);
  void gradients(const Projected& in, ValueId pass, const std::optional<Gradients>& addends,
                 const Gradients& to);

  int64_t num_tokens() const { return graph_.value(x_).shape[0]; }
  int64_t top_k() const { return graph_.value(scores_).shape[1]; }

  Graph& graph_;
  const Mesh& mesh_;
  const Node& node_;
  Slots slots_;
  ValueId x_, scores_, gate_;
  ValueId order_ = ValueId::none, ends_ = ValueId::none;
  Weights weights_ = {};
  ValueId dout_ = ValueId::none;
  std::optional<Axis> axis_;
  int repeat_ = -1;
};

std::vector<ValueId> Expansion::emit(Op op, std::vector<ValueId> inputs,
                                     std::vector<ValueId> outputs) {
  if (outputs.empty()) {
    for (TensorSpec& spec : infer(op, specs_of(graph_, inputs))) {
      outputs.push_back(graph_.add_value({.shape = spec.shape,
                                          .global_shape = spec.shape,
                                          .dtype = spec.dtype,
                                          .kind = graph_.value(node_.outputs[0]).kind}));
    }
  }
  graph_.add_node({.op = std::move(op),
                   .inputs = std::move(inputs),
                   .outputs = outputs,
                   .layer = node_.layer,
                   .scope = node_.scope + (repeat_ < 0 ? "" : ".further"),
                   .repeat = repeat_});
  return outputs;
}

// Whether a rank can have more picks for the experts of one rank than a pass takes. A token picks
// an expert once.
bool Expansion::may_repeat() const {
  const int64_t ranks = axis_ ? mesh_.size(*axis_) : 1;
  const int64_t rows = num_rows(slots_, num_tokens());
  const int64_t experts = graph_.value(gate_).shape[0];  // of one rank
  return !slots_.drops && rows / ranks < num_tokens() * std::min(top_k(), experts);
}

ValueId Expansion::begin_repeat(ValueId further) {
  const ValueId pass = one(Fill{0}, {});
  const ValueId step = one(Fill{1}, {});
  repeat_ = static_cast<int>(graph_.repeats.size());
  graph_.repeats.push_back({further});
  return one(Accumulate{}, {pass, step, step});  // one more each time
}

Expansion::Rows Expansion::dispatch(ValueId x, bool weighted, ValueId pass,
                                    std::optional<Rows> to) {
  const Dispatch op{slots_, weighted, axis_};
  const std::vector<ValueId> inputs = {x, scores_, order_, ends_, pass};
  const std::vector<ValueId> wanted =
      to ? std::vector<ValueId>{to->rows, to->counts} : std::vector<ValueId>{};
  if (!axis_) {
    const std::vector<ValueId> made = emit(op, inputs, wanted);
    return {made[0], made[1], made[1]};
  }
  const std::vector<ValueId> sent = emit(op, inputs);
  const std::vector<ValueId> received = emit(ExchangeRows{*axis_}, sent, wanted);
  return {received[0], received[1], sent[1]};
}

ValueId Expansion::send_back(ValueId rows, const Rows& dispatched) {
  if (!axis_) return rows;
  return one(ReturnRows{*axis_}, {rows, dispatched.sent, dispatched.counts});
}

Expansion::Projected Expansion::project(ValueId pass, std::optional<Projected> to) {
  const Rows rows = dispatch(x_, true, pass, to ? std::optional(to->rows) : std::nullopt);
  const auto through = [&](ValueId weight, ValueId output) {
    return one(GroupedMatMul{}, {rows.rows, weight, rows.counts}, output);
  };
  return {rows, through(weights_.gate, to ? to->gate : ValueId::none),
          through(weights_.up, to ? to->up : ValueId::none)};
}

ValueId Expansion::combine(const Projected& in, ValueId pass, ValueId addend, ValueId out) {
  const ValueId hidden = one(SwiGlu{}, {in.gate, in.up});
  const ValueId y = one(GroupedMatMul{}, {hidden, weights_.down, in.rows.counts});
  Combine op{top_k(), axis_};
  std::vector<ValueId> inputs = {send_back(y, in.rows), order_, ends_, pass};
  if (addend != ValueId::none) {
    op.addend = Addend::in_place;
    inputs.push_back(addend);
  }
  return one(op, inputs, out);
}

void Expansion::assign() {
  const auto& out = node_.outputs;
  const ValueId picked = node_.inputs[2];
  const Assign op{slots_, graph_.value(out[4]).shape[0], axis_};
  const ValueId further = axis_ ? like(out[2]) : out[2];
  emit(op, {picked}, {out[3], out[4], further, out[1]});
  if (axis_) one(AllReduceMax{*axis_}, {further}, out[2]);
}

void Expansion::forward() {
  const auto& in = node_.inputs;
  const auto& out = node_.outputs;
  weights_ = {in[3], in[4], in[5]};
  order_ = out[3];
  ends_ = out[4];
  assign();
  const bool repeats = may_repeat();
  const ValueId first = one(Fill{0}, {});
  const Projected kept = project(first, Projected{{out[5], out[6], ValueId::none}, out[7], out[8]});
  const ValueId sum = combine(kept, first, ValueId::none, repeats ? like(out[0]) : out[0]);
  if (!repeats) return;
  const ValueId pass = begin_repeat(out[2]);
  combine(project(pass), pass, sum, out[0]);
}

void Expansion::gradients(const Projected& in, ValueId pass,
                          const std::optional<Gradients>& addends, const Gradients& to) {
  const Rows& rows = in.rows;
  const auto weight_gradient = [&](ValueId a, ValueId dy, ValueId addend, ValueId sum) {
    GroupedMatMulGrad op{graph_.value(gate_).shape[0]};
    std::vector<ValueId> inputs = {a, dy, rows.counts};
    if (addends) {
      op.addend = Addend::in_place;
      inputs.push_back(addend);
    }
    return one(op, inputs, sum);
  };
  const Gradients add = addends.value_or(Gradients{});
  const Rows dy = dispatch(dout_, false, pass);
  const ValueId hidden = one(SwiGlu{}, {in.gate, in.up});
  weight_gradient(hidden, dy.rows, add.ddown, to.ddown);
  const ValueId dhidden = one(GroupedMatMul{true}, {dy.rows, weights_.down, rows.counts});
  const std::vector<ValueId> d = emit(SwiGluGrad{}, {in.gate, in.up, dhidden});
  weight_gradient(rows.rows, d[0], add.dgate, to.dgate);
  weight_gradient(rows.rows, d[1], add.dup, to.dup);
  const ValueId through_gate = one(GroupedMatMul{true}, {d[0], weights_.gate, rows.counts});
  const ValueId drows =
      one(GroupedMatMul{true, Addend::in_place}, {d[1], weights_.up, rows.counts, through_gate});
  std::vector<ValueId> inputs = {x_, scores_, order_, ends_, pass, send_back(drows, dy)};
  if (addends) inputs.insert(inputs.end(), {add.dx, add.dscores});
  emit(DispatchGrad{addends.has_value(), axis_}, inputs, {to.dx, to.dscores});
}

void Expansion::backward() {
  const auto& in = node_.inputs;
  const auto& out = node_.outputs;
  weights_ = {in[2], in[3], in[4]};
  order_ = in[6];
  ends_ = in[7];
  dout_ = in[12];
  const bool repeats = may_repeat();
  const Gradients result = {out[0], out[1], out[2], out[3], out[4]};
  const Gradients first =
      repeats ? Gradients{like(out[0]), like(out[1]), like(out[2]), like(out[3]), like(out[4])}
              : result;
  const ValueId zero = one(Fill{0}, {});
  gradients({{in[8], in[9], ValueId::none}, in[10], in[11]}, zero, std::nullopt, first);
  if (!repeats) return;
  const ValueId pass = begin_repeat(in[5]);
  gradients(project(pass), pass, first, result);
}

}  // namespace

Graph expand_experts(Graph graph, const Mesh& mesh) {
  const std::vector<Node> nodes = std::exchange(graph.nodes, {});
  for (const Node& node : nodes) {
    if (const auto* experts = std::get_if<Experts>(&node.op)) {
      Expansion(graph, mesh, node, experts->slots, node.inputs[3]).forward();
    } else if (const auto* grad = std::get_if<ExpertsGrad>(&node.op)) {
      Expansion(graph, mesh, node, grad->slots, node.inputs[2]).backward();
    } else {
      graph.add_node(node);
    }
  }
  return graph;
}

}  // namespace caravan
