#include "models/hf_tensors.h"

#include <algorithm>
#include <map>
#include <string_view>

#include "models/model.h"
#include "runtime/error.h"

namespace caravan {
namespace {

// The parameters of the model, by name.
std::map<std::string, Shape> parameters_of(const ModelConfig& model) {
  constexpr int64_t kLength = 8;  // of the batch that the graph is for; it is never run
  Graph graph;
  Builder b(graph);
  const ModelOptions options = {.training = false,
                                .slots = {kLength, kLength * model.num_experts_per_tok}};
  model_loss(b, model, declare_batch(b, 1, kLength), options);
  std::map<std::string, Shape> parameters;
  for (const Value& value : graph.values) {
    if (value.kind == ValueKind::parameter) parameters.emplace(value.name, value.shape);
  }
  return parameters;
}

constexpr std::string_view kGate = ".experts.gate_proj", kUp = ".experts.up_proj";

HfTensor whole_tensor(const std::string& prefix, const std::string& name, const Shape& shape) {
  return {prefix + name, shape, {{name, {Shape(shape.size(), 0), shape}}}};
}

// Gate (E, D, F) and up (E, D, F) of a layer -> (E, D, 2F), gate first.
HfTensor fused_tensor(const std::string& prefix, const std::string& gate, const Shape& shape) {
  const std::string layer = gate.substr(0, gate.size() - kGate.size());
  const int64_t width = shape.back();
  Shape fused = shape;
  fused.back() = 2 * width;
  return {prefix + layer + ".experts.gate_up_proj",
          fused,
          {{gate, {{0, 0, 0}, shape}}, {layer + std::string(kUp), {{0, 0, width}, shape}}}};
}

}  // namespace

std::vector<HfTensor> hf_tensors(const ModelConfig& model, const std::string& prefix) {
  if (model.family == ModelFamily::llama && model.num_local_experts > 0) {
    throw config_error(
        "model: transformers has no family llama with experts; use family llama4_text for models "
        "that go to or come from Hugging Face");
  }
  check(model.vocab_size > 0 && model.head_dim > 0, "the model lacks derived sizes");
  const std::map<std::string, Shape> parameters = parameters_of(model);
  std::vector<HfTensor> tensors;
  for (const auto& [name, shape] : parameters) {
    if (name.ends_with(kUp)) continue;  // comes with its gate
    tensors.push_back(name.ends_with(kGate) ? fused_tensor(prefix, name, shape)
                                            : whole_tensor(prefix, name, shape));
  }
  std::ranges::sort(tensors, {}, &HfTensor::name);
  return tensors;
}

}  // namespace caravan
