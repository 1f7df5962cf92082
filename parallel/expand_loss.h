// The loss over a vocabulary that several ranks share, after parallelize: what they must tell each
// other becomes a collective, so that kernels never wait for ranks.
//
// A LinearCrossEntropy or LinearCrossEntropyGrad whose weight is sharded by rows becomes: each
// rank's log-sum-exp and target logit of every token, an all_gather of these, what they are
// together, and the gradient from that. Losses on whole weights stay as they are.
#pragma once

#include "runtime/graph.h"
#include "runtime/mesh.h"

namespace caravan {

Graph expand_loss(Graph placed, const Mesh& mesh);

}  // namespace caravan
