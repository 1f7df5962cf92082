// Where the time of training steps goes: seconds by kind of node. Nodes are of one kind when op,
// attributes and shapes are the same. Not thread-safe; on_node of an executor calls it.
#pragma once

#include <map>
#include <nlohmann/json.hpp>
#include <string>
#include <vector>

#include "launch/pipeline.h"

namespace caravan {

class StepProfile {
 public:
  explicit StepProfile(const RunPlan& plan);  // whose nodes it will be told

  void add(const Node& node, double seconds);
  void end_step();

  // A list: op, family, label (attributes and shapes), calls a step, milliseconds a step (the
  // median), flops and bytes of a call as the op's rules count them, and the matrix products that
  // a call is made of: [m, n, k, transpose_a, transpose_b].
  nlohmann::json kinds() const;

 private:
  struct Kind {
    const Node* example;
    const Graph* graph;
    double step_ms = 0;  // of this step so far
    int64_t num_calls = 0;
    std::vector<double> steps_ms = {};
  };
  nlohmann::json to_json(const Kind& kind) const;

  std::map<const Node*, size_t> kind_of_;
  std::vector<Kind> kinds_;
};

double median(std::vector<double> values);  // of an even number: the upper of the two

}  // namespace caravan
