// What the routers of a mixture of experts did in a step, from the sums that the update program
// gives (optim/optimizer.h): how evenly experts were picked, how often their rows had to be filled
// again, what was dropped. By groups of consecutive layers, so that a model of any depth has a few
// numbers. One thread; a step allocates nothing.
#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "runtime/graph.h"

namespace caravan {

class Executor;

inline constexpr size_t kMostRouterGroups = 4;

// Of consecutive layers that have a router, or of all of them.
struct RouterGroup {
  int first_layer = 0;
  int last_layer = 0;        // inclusive; layers between them may have no router
  double load_max_mean = 0;  // picks of the busiest expert / mean over experts; of the worst layer
  double passes = 0;         // over the rows of experts: mean over layers, micro-batches, ranks
  double dropped = 0;        // picks that found no room
  double dropped_share = 0;  // of all picks
  int64_t dead_experts = 0;  // that nobody picked, summed over the layers
};

class RouterMetrics {
 public:
  RouterMetrics() = default;  // of a model without routers
  // Of the outputs "router.<layer>.load", ".dropped" and ".further" of a graph, in order of layers.
  // `num_batches`: micro-batches of a step, over all ranks that have tokens of their own.
  RouterMetrics(const Graph& graph, int64_t num_batches);

  bool empty() const { return routers_.empty(); }

  // The sums of a step, of the i-th router.
  struct Sums {
    int layer;
    std::string name;         // "router.<layer>"
    std::vector<float> load;  // picks of each expert
    float dropped = 0;
    float further = 0;  // passes after the first
    std::string load_name = name + ".load", dropped_name = name + ".dropped",
                further_name = name + ".further";
  };
  std::span<Sums> sums() { return routers_; }
  void read(const Executor& executor);  // fills them from the outputs of its last run

  // From what the sums hold now.
  void update();
  std::span<const RouterGroup> groups() const { return groups_; }  // at most kMostRouterGroups
  const RouterGroup& all() const { return all_; }

 private:
  RouterGroup group_of(std::span<const Sums> routers) const;

  std::vector<Sums> routers_;
  double num_batches_ = 1;
  std::vector<RouterGroup> groups_;
  RouterGroup all_;
};

}  // namespace caravan
