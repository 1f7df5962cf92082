#include "optim/optimizer.h"

#include <algorithm>
#include <array>

#include "absl/strings/str_format.h"
#include "runtime/builder.h"

namespace caravan {
namespace {

// The batch is sharded over these axes, so a gradient of what is replicated on one is partial.
constexpr std::array kBatchAxes = {Axis::dp, Axis::ep};

// What is kept of a gradient between micro-batches: this rank's part of the sum, unless it is
// sharded (ZeRO 2).
Placement accumulator_placement(const Value& parameter, int zero_stage) {
  Placement placement = parameter.placement;
  for (const Axis axis : kBatchAxes) {
    if (placement[axis] == kReplicate) placement[axis] = kPartial;
  }
  if (zero_stage >= 2 && placement[Axis::dp] == kPartial) placement[Axis::dp] = shard(0);
  return placement;
}

// Of what every rank counts for its own tokens.
Placement token_sum_placement() {
  Placement placement;
  for (const Axis axis : kBatchAxes) placement[axis] = kPartial;
  return placement;
}

Placement state_placement(const Value& parameter, int zero_stage) {
  const bool shards = zero_stage >= 1 && parameter.placement[Axis::dp] == kReplicate;
  return shards ? parameter.placement.with(Axis::dp, shard(0)) : parameter.placement;
}

constexpr std::array<std::pair<const char*, Val RouterSums::*>, 3> kRouterSums = {
    {{"load", &RouterSums::load},
     {"dropped", &RouterSums::dropped},
     {"further", &RouterSums::further}}};

std::string router_name(const RouterSums& router, const char* sum) {
  return absl::StrFormat("router.%d.%s", router.layer, sum);
}

// Adds the result to the accumulators and returns the sums.
MicroBatchResult accumulate(Builder& b, const MicroBatchResult& result, int zero_stage) {
  const Val keep = b.input("keep", {}, DType::f32);
  MicroBatchResult sums;
  for (const auto& [parameter, gradient] : result.gradients) {
    const Value value = b.graph().value(parameter);
    const Val sum = b.persistent(ValueKind::accumulator, "accumulator." + value.name, value.shape,
                                 accumulator_placement(value, zero_stage));
    sums.gradients.emplace_back(parameter, b.accumulate(sum, gradient, keep));
  }
  const auto add = [&](const std::string& name, Val more) {
    const Shape shape = b.shape(more);
    const Val sum = b.persistent(ValueKind::accumulator, "accumulator." + name, shape,
                                 token_sum_placement());
    return b.accumulate(sum, more, keep);
  };
  sums.loss_sum = add("loss_sum", result.loss_sum);
  sums.num_valid = add("num_valid", result.num_valid);
  for (RouterSums router : result.routers) {
    for (const auto& [name, member] : kRouterSums) {
      router.*member = add(router_name(router, name), router.*member);
    }
    sums.routers.push_back(router);
  }
  return sums;
}

// Over all gradients. Those of parameters that lie alike make a sum of their own: there none has to
// be cut to shards only because others are.
Val squared_norm(Builder& b, const MicroBatchResult& sums) {
  std::vector<std::pair<Placement, std::vector<Val>>> groups;
  for (const auto& [parameter, gradient] : sums.gradients) {
    const Placement& placement = b.graph().value(parameter).placement;
    auto group = std::ranges::find(groups, placement, &decltype(groups)::value_type::first);
    if (group == groups.end()) group = groups.insert(group, {placement, {}});
    group->second.push_back(gradient);
  }
  Val total = Val::none;
  for (const auto& [placement, gradients] : groups) {
    const Val sum = b.one(SquaredNorm{}, gradients);
    total = total == Val::none ? sum : b.add(total, sum);
  }
  return total;
}

// The accumulator that an accumulate node wrote to.
Val accumulator_of(const Graph& graph, Val sum) {
  for (const Node& node : graph.nodes) {
    if (node.outputs[0] == sum) return node.inputs[0];
  }
  return Val::none;
}

}  // namespace

void append_accumulate(Graph& graph, const MicroBatchResult& result,
                       const OptimizerSettings& settings) {
  Builder b(graph);
  const auto scope = b.scope("accumulate");
  b.set_result_kind(ValueKind::gradient);
  const MicroBatchResult sums = accumulate(b, result, settings.zero_stage);
  const auto keep = [&](Val sum) { b.update(accumulator_of(graph, sum), sum); };
  for (const auto& [parameter, sum] : sums.gradients) keep(sum);
  for (const Val sum : {sums.loss_sum, sums.num_valid}) keep(sum);
  for (const RouterSums& router : sums.routers) {
    for (const auto& [name, member] : kRouterSums) keep(router.*member);
  }
}

namespace {

// Balances the experts, and shows how they were used. The sums wait for those of gradients.
void append_routers(Builder& b, Graph& graph, const std::vector<RouterSums>& routers, Val scale,
                    float rate) {
  for (const RouterSums& router : routers) {
    for (const auto& [name, member] : kRouterSums) {
      graph.value(router.*member).kind = ValueKind::gradient;
      b.output(router_name(router, name), router.*member);
    }
    if (router.bias == Val::none) continue;
    b.update(router.bias, b.one(UpdateRouterBias{rate}, {router.bias, router.load, scale}));
  }
}

}  // namespace

void append_update(Graph& graph, const MicroBatchResult& result, bool accumulated,
                   const OptimizerSettings& settings) {
  Builder b(graph);
  const auto scope = b.scope("optimizer");
  b.set_result_kind(ValueKind::gradient);
  const MicroBatchResult sums = accumulated ? accumulate(b, result, settings.zero_stage) : result;
  const Val learning_rate = b.input("learning_rate", {}, DType::f32);
  const Val step = b.input("step", {}, DType::f32);

  for (const auto& [parameter, gradient] : sums.gradients) {
    // Reduced to where the moments are, before the norm reads it.
    if (settings.zero_stage >= 1) {
      b.place(gradient, state_placement(b.graph().value(parameter), settings.zero_stage));
    }
  }
  const std::vector<Val> clip = b.emit(ClipScale{settings.max_grad_norm},
                                       {squared_norm(b, sums), sums.num_valid, sums.loss_sum});

  for (const auto& [parameter, gradient] : sums.gradients) {
    const Value value = b.graph().value(parameter);
    const Placement placement = state_placement(value, settings.zero_stage);
    const Val m =
        b.persistent(ValueKind::state, "optimizer.m." + value.name, value.shape, placement);
    const Val v =
        b.persistent(ValueKind::state, "optimizer.v." + value.name, value.shape, placement);
    const bool decays = value.shape.size() >= 2;
    const AdamW op{settings.beta1, settings.beta2, settings.eps,
                   decays ? settings.weight_decay : 0.0f};
    const std::vector<Val> updated =
        b.emit(op, {parameter, gradient, m, v, clip[0], learning_rate, step});
    b.update(parameter, updated[0]);
    b.update(m, updated[1]);
    b.update(v, updated[2]);
  }
  append_routers(b, graph, sums.routers, clip[0], settings.router_bias_rate);
  b.output("loss", b.divide(sums.loss_sum, sums.num_valid));
  b.output("grad_norm", clip[1]);
  b.output("num_valid", sums.num_valid);
}

}  // namespace caravan
