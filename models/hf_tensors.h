// Which tensors Hugging Face's transformers keeps for a model, and which of our parameters lie
// where in them. Names and shapes are those of the graph that model_loss builds; only experts
// differ: their gate and up are one tensor there, side by side.
#pragma once

#include <string>
#include <vector>

#include "models/config.h"
#include "runtime/types.h"

namespace caravan {

// A parameter of ours, whole, and the box of the tensor that holds it; both have the same dims.
struct HfPart {
  std::string parameter;
  Box box;
  bool operator==(const HfPart&) const = default;
};

struct HfTensor {
  std::string name;
  Shape shape;
  std::vector<HfPart> parts;  // cover it exactly
  bool operator==(const HfTensor&) const = default;
};

// Ordered by name. `model` has its derived sizes and vocabulary; `prefix` is HfConfig's
// tensor_prefix. Of a tied model there is no head. A config error when transformers has no such
// model (llama with experts).
std::vector<HfTensor> hf_tensors(const ModelConfig& model, const std::string& prefix);

}  // namespace caravan
