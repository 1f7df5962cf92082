// The logits of a model, without training it: weights alone are kept, spread over the processes of
// the job, and come from wherever a WeightSource has them. Import and export compute with it what
// files of weights mean.
#pragma once

#include <span>
#include <string>
#include <vector>

#include "checkpoint/weight_source.h"
#include "launch/config.h"
#include "launch/session.h"

namespace caravan {

struct LogitsRequest {
  ModelConfig model;
  int64_t num_tokens = 0;                   // most that are computed at a time
  std::vector<std::string> overrides = {};  // "parallel.tp=2": of parallel and runtime only
};

// The configuration of a session that gives logits. Of several processes each keeps an equal part
// of the weights (ZeRO 3) where the overrides do not say otherwise. Config errors.
Config logits_config(const LogitsRequest& request, int num_processes);

// Collective: construction and all calls.
class LogitsRun {
 public:
  LogitsRun(const Config& config, MpiSession& mpi);

  Session& session() { return session_; }
  // Reads this rank's part, and no more.
  void load(WeightSource& weights);
  // Logits of at most num_tokens tokens, one document: row t predicts token t + 1. Of each row this
  // rank's columns [first_column, first_column + num_columns).
  std::vector<float> compute(std::span<const int32_t> tokens);
  int64_t first_column() const { return columns_.offset[0]; }
  int64_t num_columns() const { return columns_.extent[0]; }

 private:
  Session session_;
  Box columns_;
};

// The largest absolute difference over all ranks, and the largest absolute value in `b`. A NaN on
// one side only, or an infinite difference, counts as infinitely different.
struct LogitsDifference {
  double largest = 0;
  double largest_logit = 0;
  int64_t token = 0;  // where it is
};
// Collective. Both (T, num_columns), as compute() gives them.
LogitsDifference compare_logits(Communicator& world, std::span<const float> a,
                                std::span<const float> b, int64_t num_columns);

// Tokens to compare logits on, drawn evenly from the vocabulary; always the same ones.
std::vector<int32_t> probe_tokens(int64_t vocab_size, int64_t count);

}  // namespace caravan
