#include "runtime/builder.h"

#include "runtime/error.h"
#include "runtime/ops/rules.h"

namespace caravan {

Builder::Scope::Scope(Builder& builder, const std::string& name, int layer)
    : builder_(builder), old_size_(builder.scope_.size()), old_layer_(builder.layer_) {
  if (!builder.scope_.empty()) builder.scope_ += ".";
  builder.scope_ += name;
  builder.layer_ = layer;
}

Builder::Scope::~Scope() {
  builder_.scope_.resize(old_size_);
  builder_.layer_ = old_layer_;
}

Val Builder::parameter(const std::string& name, const Shape& shape, Initializer init,
                       const Placement& placement) {
  const Val id = persistent(ValueKind::parameter, name, shape, placement);
  graph_.value(id).init = init;
  return id;
}

Val Builder::persistent(ValueKind kind, const std::string& name, const Shape& shape,
                        const Placement& placement) {
  check(is_persistent(kind), "'%s' is declared persistent but is an %s", name, caravan::name(kind));
  check(graph_.find(name) == Val::none, "'%s' is declared twice", name);
  return graph_.add_value(
      {.name = name, .shape = shape, .global_shape = shape, .kind = kind, .placement = placement});
}

Val Builder::input(const std::string& name, const Shape& shape, DType dtype,
                   const Placement& placement) {
  check(graph_.find(name) == Val::none, "'%s' is declared twice", name);
  return graph_.add_value({.name = name,
                           .shape = shape,
                           .global_shape = shape,
                           .dtype = dtype,
                           .kind = ValueKind::input,
                           .placement = placement});
}

Val Builder::linear(Val x, Val weight, Val bias) {
  const Val y = matmul(x, cast(weight, dtype(x)), {.transpose_b = true});
  return bias == Val::none ? y : one(AddBias{}, {y, bias});
}

Val Builder::logits(Val x, Val weight) {
  const DType type = dtype(x);
  return matmul(x, cast(weight, type), {.transpose_b = true, .f32_output = type != DType::f32});
}

std::vector<Val> Builder::experts(std::vector<Val> inputs, const Experts& op) {
  for (size_t i = 3; i < inputs.size(); ++i) inputs[i] = cast(inputs[i], dtype(inputs[0]));
  return emit(op, std::move(inputs));
}

std::vector<Val> Builder::route(Val logits, Val bias, const Route& op) {
  std::vector<Val> inputs = {logits};
  if (bias != Val::none) inputs.push_back(bias);
  return emit(op, inputs);
}

std::vector<Val> Builder::emit(Op op, std::vector<Val> inputs) {
  std::vector<Val> outputs;
  for (TensorSpec& spec : infer(op, specs_of(graph_, inputs))) {
    outputs.push_back(graph_.add_value({.name = {},
                                        .shape = spec.shape,
                                        .global_shape = spec.shape,
                                        .dtype = spec.dtype,
                                        .kind = result_kind_}));
  }
  graph_.add_node({.op = std::move(op),
                   .inputs = std::move(inputs),
                   .outputs = outputs,
                   .layer = layer_,
                   .scope = scope_});
  return outputs;
}

Val Builder::one(Op op, std::vector<Val> inputs) {
  const std::vector<Val> outputs = emit(std::move(op), std::move(inputs));
  check(outputs.size() == 1, "the op gives %d values where one is wanted", outputs.size());
  return outputs[0];
}

std::vector<TensorSpec> specs_of(const Graph& graph, const std::vector<ValueId>& ids) {
  std::vector<TensorSpec> specs;
  specs.reserve(ids.size());
  for (const ValueId id : ids) specs.push_back({graph.value(id).shape, graph.value(id).dtype});
  return specs;
}

}  // namespace caravan
