#include "launch/router_metrics.h"

#include <algorithm>
#include <charconv>
#include <numeric>
#include <optional>

#include "runtime/error.h"
#include "runtime/executor.h"

namespace caravan {
namespace {

// 3 of "router.3.load".
std::optional<int> layer_of_load(std::string_view name) {
  constexpr std::string_view kBegin = "router.", kEnd = ".load";
  if (!name.starts_with(kBegin) || !name.ends_with(kEnd)) return {};
  name.remove_prefix(kBegin.size());
  name.remove_suffix(kEnd.size());
  int layer = -1;
  const auto [end, error] = std::from_chars(name.data(), name.data() + name.size(), layer);
  check(error == std::errc{} && end == name.data() + name.size(), "no layer in output 'router.%s'",
        name);
  return layer;
}

}  // namespace

RouterMetrics::RouterMetrics(const Graph& graph, int64_t num_batches)
    : num_batches_(static_cast<double>(num_batches)) {
  for (const auto& [name, id] : graph.outputs) {
    const std::optional<int> layer = layer_of_load(name);
    if (!layer) continue;
    const auto num_experts = static_cast<size_t>(num_elements(graph.value(id).shape));
    routers_.push_back({.layer = *layer,
                        .name = "router." + std::to_string(*layer),
                        .load = std::vector<float>(num_experts)});
  }
  std::ranges::sort(routers_, {}, &Sums::layer);
  groups_.resize(std::min(kMostRouterGroups, routers_.size()));
}

void RouterMetrics::read(const Executor& executor) {
  for (Sums& sums : routers_) {
    executor.output(sums.load_name, sums.load);
    sums.dropped = executor.output(sums.dropped_name);
    sums.further = executor.output(sums.further_name);
  }
}

RouterGroup RouterMetrics::group_of(std::span<const Sums> routers) const {
  RouterGroup group{.first_layer = routers.front().layer, .last_layer = routers.back().layer};
  double all_picks = 0, further = 0;
  for (const Sums& sums : routers) {
    const double picks = std::accumulate(sums.load.begin(), sums.load.end(), 0.0);
    const double mean = picks / static_cast<double>(sums.load.size());
    const double most = std::ranges::max(sums.load);
    if (picks > 0) group.load_max_mean = std::max(group.load_max_mean, most / mean);
    group.dead_experts += std::ranges::count(sums.load, 0.0f);
    group.dropped += sums.dropped;
    all_picks += picks;
    further += sums.further;
  }
  group.passes = 1 + further / (num_batches_ * static_cast<double>(routers.size()));
  if (all_picks > 0) group.dropped_share = group.dropped / all_picks;
  return group;
}

void RouterMetrics::update() {
  if (empty()) return;
  const std::span<const Sums> all = routers_;
  for (size_t i = 0; i < groups_.size(); ++i) {
    const size_t begin = i * all.size() / groups_.size();
    const size_t end = (i + 1) * all.size() / groups_.size();
    groups_[i] = group_of(all.subspan(begin, end - begin));
  }
  all_ = group_of(all);
}

}  // namespace caravan
