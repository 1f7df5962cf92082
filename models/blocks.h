// The parts that decoders share: projections, attention, MLP, mixture of experts, and what stands
// before and behind the layers. Placements are declared here and nowhere else in a model.
#pragma once

#include <functional>
#include <string>
#include <vector>

#include "models/model.h"

namespace caravan {

// What every part of a model needs while it is built. Names of parameters are Hugging Face's: a
// `prefix` is what stands before the part's own, "model.layers.3.self_attn.".
struct ModelContext {
  Builder& b;
  const ModelConfig& config;
  const BatchInputs& batch;
  const ModelOptions& options;
  std::vector<RouterSums>& routers;  // mixture() adds its own
};

// RMSNorm: x (T, hidden) -> (T, hidden)
Val norm(const ModelContext& c, const std::string& name, Val x);

struct Heads {
  Val q;  // (T, H*h)
  Val k;  // (T, KV*h)
  Val v;  // (T, KV*h)
};
// x (T, hidden) -> q, k and v as they are projected.
Heads project_heads(const ModelContext& c, const std::string& prefix, Val x);
// Turns q and k by their positions.
Heads turn_heads(const ModelContext& c, const Heads& heads, bool interleaved);
// Attention and the projection of its output -> (T, hidden)
Val mix_heads(const ModelContext& c, const std::string& prefix, const Heads& heads,
              Val document_start);

// SwiGLU of that width: x (T, hidden) -> (T, hidden)
Val mlp(const ModelContext& c, const std::string& prefix, Val x, int64_t width);
// Routed experts and the shared one: x (T, hidden) -> (T, hidden)
Val mixture(const ModelContext& c, const std::string& prefix, Val x, int layer);

// The residual stream with what a part made of it.
Val add_to_residual(const ModelContext& c, Val x, Val y);

// From ids to what logits are made of. `layer` builds a layer: (T, hidden), its number -> (T,
// hidden)
DecoderOutput decoder(const ModelContext& c, const std::function<Val(Val, int)>& layer);

}  // namespace caravan
