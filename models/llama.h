// The Llama family (Llama 2 and 3; Touvron et al., Grattafiori et al.): pre-norm blocks of grouped
// query attention with rope and SwiGLU. Parameters have Hugging Face's names and shapes.
#pragma once

#include "models/model.h"

namespace caravan {

DecoderOutput llama(Builder& b, const ModelConfig& config, const BatchInputs& batch,
                    const ModelOptions& options = {});

}  // namespace caravan
