#include "runtime/passes/plan_memory.h"

#include <algorithm>
#include <map>
#include <numeric>

#include "runtime/error.h"
#include "runtime/passes/place_blocks.h"
#include "runtime/storage.h"

namespace caravan {
namespace {

int64_t aligned(int64_t bytes) {
  return (bytes + kArenaAlignment - 1) / kArenaAlignment * kArenaAlignment;
}

MemoryCategory category_of(ValueKind kind) {
  switch (kind) {
    case ValueKind::parameter:
      return MemoryCategory::weights;
    case ValueKind::state:
      return MemoryCategory::optimizer;
    case ValueKind::accumulator:
      return MemoryCategory::gradients;
    case ValueKind::gradient:
      return MemoryCategory::gradients;
    case ValueKind::input:
      return MemoryCategory::activations;
    case ValueKind::activation:
      return MemoryCategory::activations;
  }
  throw internal_error("unknown kind of value");
}

// Inclusive range of steps.
struct Lifetime {
  int first = -1;
  int last = -1;

  void cover(int from, int to) {
    first = first < 0 ? from : std::min(first, from);
    last = std::max(last, to);
  }
};

int repeat_of(const Graph& graph, const Step& step) { return graph.nodes[index(step.node)].repeat; }

// For each step, the last step during which it may still be running. Nobody can count on a wait of
// nodes that repeat, and perhaps do not run at all, but they themselves.
std::vector<int> ends_of(const Graph& graph, const std::vector<Step>& steps) {
  std::vector<int> ends(steps.size());
  std::iota(ends.begin(), ends.end(), 0);
  const int end = static_cast<int>(steps.size()) - 1;
  for (int i = end; i >= 0; --i) {
    const Step& step = steps[static_cast<size_t>(i)];
    if (graph.nodes[index(step.node)].stream != Stream::communication) continue;
    ends[static_cast<size_t>(i)] = end;
    // A later wait may name an earlier step only; find the first wait that covers this one.
    for (int j = i + 1; j <= end; ++j) {
      const Step& later = steps[static_cast<size_t>(j)];
      const int repeat = repeat_of(graph, later);
      if (later.wait_for < i || (repeat >= 0 && repeat != repeat_of(graph, step))) continue;
      ends[static_cast<size_t>(i)] = j;
      break;
    }
  }
  return ends;
}

// What nodes that repeat find there, they find there each time: until the last of them is done.
void keep_while_repeating(const Graph& graph, const std::vector<Step>& steps,
                          const std::vector<Storage>& storage, std::vector<Lifetime>& lifetimes) {
  for (const RepeatedSteps& repeated : repeated_steps(graph, steps)) {
    const int first = static_cast<int>(repeated.first), last = static_cast<int>(repeated.end) - 1;
    for (size_t i = repeated.first; i < repeated.end; ++i) {
      const Node& node = graph.nodes[index(steps[i].node)];
      for (const auto* ids : {&node.inputs, &node.outputs}) {
        for (const ValueId id : *ids) {
          Lifetime& life = lifetimes[index(storage[index(id)].root)];
          if (life.first < first) life.cover(life.first, last);
        }
      }
    }
  }
}

std::vector<Lifetime> lifetimes_of(const Graph& graph, const std::vector<Step>& steps,
                                   const std::vector<Storage>& storage,
                                   const std::vector<int>& ends) {
  std::vector<Lifetime> lifetimes(graph.values.size());
  for (size_t i = 0; i < steps.size(); ++i) {
    const Node& node = graph.nodes[index(steps[i].node)];
    const std::vector<ValueId> inputs = reads(graph, node);
    for (const auto* ids : {&inputs, &node.outputs}) {
      for (const ValueId id : *ids) {
        lifetimes[index(storage[index(id)].root)].cover(static_cast<int>(i), ends[i]);
      }
    }
  }
  for (size_t i = 0; i < graph.values.size(); ++i) {  // written by the caller before the first step
    if (graph.values[i].kind == ValueKind::input) lifetimes[i].cover(0, 0);
  }
  keep_while_repeating(graph, steps, storage, lifetimes);
  const int last = static_cast<int>(steps.size()) - 1;
  for (const auto& [name, id] : graph.outputs) {
    lifetimes[index(storage[index(id)].root)].cover(last, last);
  }
  return lifetimes;
}

int64_t place_without_reuse(std::vector<Block>& blocks) {
  int64_t total = 0;
  for (Block& block : blocks) {
    block.offset = total;
    total += block.bytes;
  }
  return total;
}

std::vector<const Node*> producers_of(const Graph& graph) {
  std::vector<const Node*> producers(graph.values.size(), nullptr);
  for (const Node& node : graph.nodes) {
    for (const ValueId id : node.outputs) producers[index(id)] = &node;
  }
  return producers;
}

// "layers.3.mlp swiglu f32[2048,1024]": who made it, and what it is.
std::string label_of(const Graph& graph, ValueId id, const Node* producer) {
  const Value& value = graph.value(id);
  std::string label = value.name;
  if (producer != nullptr) label = caravan::label(*producer);
  return absl::StrFormat("%s %s%s", label, name(value.dtype), to_string(value.shape));
}

class Planner {
 public:
  Planner(const Graph& graph, const std::vector<Step>& steps, const Mesh& mesh,
          const PersistentLayout& persistent, const PlanOptions& options)
      : graph_(graph),
        steps_(steps),
        persistent_(persistent),
        options_(options),
        storage_(find_storage(graph)),
        bytes_(storage_bytes(graph, storage_, mesh)),
        ends_(ends_of(graph, steps)),
        lifetimes_(lifetimes_of(graph, steps, storage_, ends_)),
        producers_(producers_of(graph)),
        group_of_(graph.values.size(), -1) {}

  MemoryPlan plan() {
    for (size_t i = 0; i < graph_.contiguous.size(); ++i) add_group(static_cast<int>(i));
    for (size_t i = 0; i < graph_.values.size(); ++i) add_root(static_cast<ValueId>(i));
    for (size_t i = 0; i < steps_.size(); ++i) add_workspace(i);
    MemoryPlan& plan = plan_;
    for (const int64_t live : live_bytes(plan, steps_.size())) {
      plan.max_live_bytes = std::max(plan.max_live_bytes, live);
    }
    plan.transient_bytes = options_.keep_all ? place_without_reuse(plan.blocks)
                                             : place_blocks(plan.blocks, plan.max_live_bytes);
    locate_values();
    locate_workspaces();
    return std::move(plan_);
  }

 private:
  struct Member {
    size_t block;
    int64_t offset;  // inside the block
  };

  std::string label(ValueId id) const { return label_of(graph_, id, producers_[index(id)]); }

  bool is_transient(ValueId root) const { return !is_persistent(graph_.value(root).kind); }

  void add_block(std::string name, MemoryCategory category, int64_t bytes, Lifetime life) {
    plan_.blocks.push_back({.name = std::move(name),
                            .category = category,
                            .bytes = aligned(bytes),
                            .first_step = life.first,
                            .last_step = life.last});
  }

  void add_group(int group) {
    const auto& members = graph_.contiguous[static_cast<size_t>(group)];
    Lifetime life;
    int64_t bytes = 0;
    for (const ValueId id : members) {
      const ValueId root = storage_[index(id)].root;
      if (!is_transient(root)) return;  // the persistent layout has them in order
      check(group_of_[index(root)] < 0, "'%s' is in two contiguous groups", label(id));
      group_of_[index(root)] = group;
      member_[root] = {plan_.blocks.size(), bytes};
      bytes += aligned(bytes_[index(root)]);
      life.cover(lifetimes_[index(root)].first, lifetimes_[index(root)].last);
    }
    add_block(absl::StrFormat("bucket %d: %d gradients", group, members.size()),
              MemoryCategory::gradients, bytes, life);
  }

  void add_root(ValueId id) {
    if (storage_[index(id)].root != id || !is_transient(id) || group_of_[index(id)] >= 0) return;
    if (lifetimes_[index(id)].first < 0) return;  // pruned away
    member_[id] = {plan_.blocks.size(), 0};
    const ValueKind kind = holds_weights(id) ? ValueKind::parameter : graph_.value(id).kind;
    add_block(label(id), category_of(kind), bytes_[index(id)], lifetimes_[index(id)]);
  }

  // Gathered from shards (ZeRO 3) or cast, to be read.
  bool holds_weights(ValueId id) const {
    const Node* producer = producers_[index(id)];
    const bool copies = producer != nullptr && (std::holds_alternative<AllGather>(producer->op) ||
                                                std::holds_alternative<Cast>(producer->op));
    if (!copies) return false;
    const ValueId from = producer->inputs[0];
    return graph_.value(from).kind == ValueKind::parameter || holds_weights(from);
  }

  void add_workspace(size_t step) {
    const Node& node = graph_.nodes[index(steps_[step].node)];
    const int64_t bytes = options_.workspace_bytes ? options_.workspace_bytes(graph_, node) : 0;
    plan_.workspace_bytes.push_back(bytes);
    plan_.workspace_offsets.push_back(-1);
    if (bytes == 0) return;
    workspace_block_[step] = plan_.blocks.size();
    const MemoryCategory category =
        is_collective(node.op) ? MemoryCategory::communication : MemoryCategory::workspace;
    add_block(caravan::label(node) + " workspace", category, bytes,
              {static_cast<int>(step), ends_[step]});
  }

  void locate_values() {
    plan_.locations.resize(graph_.values.size());
    for (size_t i = 0; i < graph_.values.size(); ++i) {
      const Storage& s = storage_[i];
      Location& location = plan_.locations[i];
      location.slice_axis = s.slice_axis;
      location.slice_stride = s.is_slice ? s.slice_stride : 0;
      if (is_transient(s.root)) {
        const auto member = member_.find(s.root);
        if (member == member_.end()) continue;  // pruned away
        location.offset = plan_.blocks[member->second.block].offset + member->second.offset;
      } else {
        const auto entry = persistent_.by_name.find(graph_.value(s.root).name);
        check(entry != persistent_.by_name.end(), "'%s' is not in the persistent layout",
              graph_.value(s.root).name);
        location.region = Region::persistent;
        location.offset = persistent_.entries[entry->second].offset;
      }
    }
  }

  void locate_workspaces() {
    for (const auto& [step, block] : workspace_block_) {
      plan_.workspace_offsets[step] = plan_.blocks[block].offset;
    }
  }

  const Graph& graph_;
  const std::vector<Step>& steps_;
  const PersistentLayout& persistent_;
  const PlanOptions& options_;
  std::vector<Storage> storage_;
  std::vector<int64_t> bytes_;
  std::vector<int> ends_;
  std::vector<Lifetime> lifetimes_;
  std::vector<const Node*> producers_;  // by value; null: written by the caller
  std::vector<int> group_of_;           // by root
  std::map<ValueId, Member> member_;
  std::map<size_t, size_t> workspace_block_;  // step -> block
  MemoryPlan plan_;
};

}  // namespace

std::string label(const Node& node) {
  const std::string scope = node.scope.substr(node.scope.starts_with('.') ? 1 : 0);
  return absl::StrFormat("%s%s%s", scope, scope.empty() ? "" : " ", name(node.op));
}

std::vector<int64_t> live_bytes(const MemoryPlan& plan, size_t num_steps) {
  std::vector<int64_t> live(num_steps + 1, 0);
  for (const Block& block : plan.blocks) {
    live[static_cast<size_t>(block.first_step)] += block.bytes;
    live[static_cast<size_t>(block.last_step) + 1] -= block.bytes;
  }
  std::partial_sum(live.begin(), live.end(), live.begin());
  live.pop_back();
  return live;
}

MemoryPlan plan_memory(const Graph& graph, const std::vector<Step>& steps, const Mesh& mesh,
                       const PersistentLayout& persistent, const PlanOptions& options) {
  return Planner(graph, steps, mesh, persistent, options).plan();
}

PersistentLayout plan_persistent(std::span<const Graph* const> graphs, const Mesh& mesh) {
  std::map<std::string, std::vector<std::string>> group_of;  // member -> its group, in order
  std::map<std::string, int64_t> bytes_of;
  for (const Graph* graph : graphs) {
    const std::vector<Storage> storage = find_storage(*graph);
    const std::vector<int64_t> bytes = storage_bytes(*graph, storage, mesh);
    for (size_t i = 0; i < graph->values.size(); ++i) {
      if (!is_persistent(graph->values[i].kind)) continue;
      int64_t& most = bytes_of[graph->values[i].name];
      most = std::max(most, bytes[i]);
    }
    for (const auto& members : graph->contiguous) {
      std::vector<std::string> names;
      for (const ValueId id : members) {
        const Value& root = graph->value(storage[index(id)].root);
        if (is_persistent(root.kind)) names.push_back(root.name);
      }
      for (const std::string& name : names) group_of[name] = names;
    }
  }
  PersistentLayout layout;
  const auto place = [&](const std::string& name, ValueKind kind) {
    if (layout.by_name.contains(name)) return;
    layout.by_name[name] = layout.entries.size();
    layout.entries.push_back({name, category_of(kind), layout.bytes, bytes_of[name]});
    layout.bytes += aligned(bytes_of[name]);
  };
  for (const Graph* graph : graphs) {
    for (const Value& value : graph->values) {
      if (!is_persistent(value.kind)) continue;
      const auto group = group_of.find(value.name);
      if (group == group_of.end())
        place(value.name, value.kind);
      else
        for (const std::string& name : group->second) place(name, value.kind);
    }
  }
  return layout;
}

}  // namespace caravan
