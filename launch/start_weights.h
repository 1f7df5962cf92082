// What a run that does not resume begins with: its weights, drawn or taken from a model that exists
// (model.init_from), and the files that go with the model.
#pragma once

#include <string>
#include <vector>

#include "checkpoint/assets.h"
#include "launch/config.h"
#include "launch/log.h"
#include "launch/session.h"

namespace caravan {

// Collective. Fills the weights of the session; optimizer state is as at step 1. `console` (rank 0)
// is told where they come from. Checkpoint errors.
void load_start_weights(Session& session, Console* console);

// What goes into every checkpoint of the run beside the tensors: the assets of the checkpoint that
// it resumes ("": none), of the model that it starts from, or else the tokenizer of its data.
std::vector<Asset> start_assets(const Config& config, const std::string& resumed_path);

// What is wrong with data that another tokenizer has made than the one among the assets, if both
// are known; "" when nothing is.
std::string tokenizer_warning(const std::string& data_hash, const std::vector<Asset>& assets);

}  // namespace caravan
