// The text model of Llama 4 (Meta, "The Llama 4 herd", 2025): mixtures of experts beside a shared
// one; layers with rope that see a chunk of the document, and between them layers without
// positions that see all of it. Parameters have Hugging Face's names; routed experts are stored as
// gate_proj and up_proj (E,D,F) where Hugging Face has both in one tensor.
#pragma once

#include "models/model.h"

namespace caravan {

DecoderOutput llama4(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                     const ModelOptions& options);

}  // namespace caravan
