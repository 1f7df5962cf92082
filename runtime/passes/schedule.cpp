#include "runtime/passes/schedule.h"

#include <algorithm>
#include <set>

#include "runtime/error.h"
#include "runtime/storage.h"

namespace caravan {
namespace {

// Nodes that repeat together keep their order and are moved as one, named by the first of them.
std::vector<size_t> units_of(const Graph& graph) {
  std::vector<size_t> units(graph.nodes.size());
  std::vector<size_t> first(graph.repeats.size(), graph.nodes.size());
  for (size_t i = 0; i < units.size(); ++i) {
    units[i] = i;
    if (graph.nodes[i].repeat < 0) continue;
    size_t& unit = first[static_cast<size_t>(graph.nodes[i].repeat)];
    units[i] = unit = std::min(unit, i);
  }
  return units;
}

// Which units must come before which: edges of the dependency graph, by position.
class Dependencies {
 public:
  explicit Dependencies(const Graph& graph)
      : units_(units_of(graph)),
        successors_(graph.nodes.size()),
        num_before_(graph.nodes.size(), 0) {
    const std::vector<Storage> storage = find_storage(graph);
    std::vector<int> producer(graph.values.size(), -1);
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const ValueId id : graph.nodes[i].outputs) producer[index(id)] = static_cast<int>(i);
    }
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const ValueId id : reads(graph, graph.nodes[i])) add(producer[index(id)], i);
    }
    add_overwrites(graph, storage, producer);
  }

  const std::vector<size_t>& units() const { return units_; }  // by node
  const std::vector<size_t>& successors(size_t unit) const { return successors_[unit]; }
  const std::vector<int>& num_before() const { return num_before_; }

 private:
  void add(int node_before, size_t node_after) {
    if (node_before < 0) return;
    const size_t before = units_[static_cast<size_t>(node_before)], after = units_[node_after];
    if (before == after) return;
    successors_[before].push_back(after);
    ++num_before_[after];
  }

  // A node that overwrites bytes comes after every node that reads them as they were: the readers
  // of the values that it replaces.
  void add_overwrites(const Graph& graph, const std::vector<Storage>& storage,
                      const std::vector<int>& producer) {
    std::vector<std::vector<size_t>> readers(graph.values.size());  // by root, in order
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const ValueId id : reads(graph, graph.nodes[i])) {
        readers[index(storage[index(id)].root)].push_back(i);
      }
    }
    for (size_t i = 0; i < graph.nodes.size(); ++i) {
      for (const ValueId root : written_roots(graph.nodes[i], storage)) {
        if (readers[index(root)].empty()) continue;
        for (const size_t reader : readers[index(root)]) {
          if (!reads_result_of(graph, reader, i, root, storage, producer)) {
            add(static_cast<int>(reader), i);
          }
        }
      }
    }
  }

  // Whether what `reader` reads of the storage was written by `writer` or after it.
  static bool reads_result_of(const Graph& graph, size_t reader, size_t writer, ValueId root,
                              const std::vector<Storage>& storage,
                              const std::vector<int>& producer) {
    std::vector<ValueId> open = reads(graph, graph.nodes[reader]);
    std::erase_if(open, [&](ValueId id) { return storage[index(id)].root != root; });
    while (!open.empty()) {  // walk the versions of the storage backwards
      const int made_by = producer[index(open.back())];
      open.pop_back();
      if (made_by < 0) continue;
      if (static_cast<size_t>(made_by) == writer) return true;
      for (const ValueId id : graph.nodes[static_cast<size_t>(made_by)].inputs) {
        if (storage[index(id)].root == root) open.push_back(id);
      }
    }
    return false;
  }

  std::vector<size_t> units_;
  std::vector<std::vector<size_t>> successors_;
  std::vector<int> num_before_;
};

bool reads_only_persistent(const Graph& graph, const Node& node) {
  return std::ranges::all_of(node.inputs,
                             [&](ValueId id) { return is_persistent(graph.value(id).kind); });
}

bool runs_early(const Graph& graph, const Node& node) {
  if (std::holds_alternative<Accumulate>(node.op)) return true;
  return is_collective(node.op) && !reads_only_persistent(graph, node);
}

// What is on its way on the communication stream while an order is made.
class InFlight {
 public:
  explicit InFlight(const Graph& graph)
      : graph_(graph), storage_(find_storage(graph)), sent_(graph.values.size(), 0) {}

  void add(const Node& node) {
    if (is_collective(node.op)) {
      ++num_sent_;
      for (const ValueId root : written_roots(node, storage_)) sent_[index(root)] = num_sent_;
    } else {
      num_done_ = std::max(num_done_, needs(node));
    }
  }

  bool is_waited_for_by(const Node& node) const {
    return !is_collective(node.op) && needs(node) > num_done_;
  }

 private:
  // The last communication whose result the node reads.
  int needs(const Node& node) const {
    int last = 0;
    for (const ValueId id : reads(graph_, node)) {
      last = std::max(last, sent_[index(storage_[index(id)].root)]);
    }
    return last;
  }

  const Graph& graph_;
  std::vector<Storage> storage_;
  std::vector<int> sent_;  // by root: the number of the communication that wrote it last
  int num_sent_ = 0;
  int num_done_ = 0;
};

// By node: nodes of one layer that follow one another, forward or backward; -1 outside the layers.
std::vector<int> layer_runs(const Graph& graph) {
  std::vector<int> runs(graph.nodes.size(), -1);
  for (size_t i = 0; i < runs.size(); ++i) {
    if (graph.nodes[i].layer < 0) continue;
    const bool goes_on = i > 0 && graph.nodes[i - 1].layer == graph.nodes[i].layer;
    runs[i] = goes_on ? runs[i - 1] : static_cast<int>(i);
  }
  return runs;
}

// Takes units when all before them are taken.
class Order {
 public:
  explicit Order(const Graph& graph)
      : graph_(graph),
        dependencies_(graph),
        missing_(dependencies_.num_before()),
        members_(missing_.size()),
        layer_runs_(layer_runs(graph)),
        in_flight_(graph) {
    for (size_t i = 0; i < missing_.size(); ++i) members_[dependencies_.units()[i]].push_back(i);
    for (size_t i = 0; i < missing_.size(); ++i) {
      if (!members_[i].empty() && missing_[i] == 0) make_ready(i);
    }
  }

  std::vector<Node> take_all() {
    while (!early_.empty() || !ready_.empty()) {
      std::set<size_t>& from = early_.empty() ? ready_ : early_;
      const size_t next = early_.empty() ? choose() : *early_.begin();
      from.erase(next);
      take(next);
    }
    return std::move(ordered_);
  }

 private:
  void make_ready(size_t unit) {
    (runs_early(graph_, graph_.nodes[unit]) ? early_ : ready_).insert(unit);
  }

  // The first, unless it would wait for communication while another of its layer need not. What
  // backward makes again is made as late as it can be.
  size_t choose() const {
    const size_t first = *ready_.begin();
    if (!in_flight_.is_waited_for_by(graph_.nodes[first]) || layer_runs_[first] < 0) return first;
    for (const size_t other : ready_) {
      if (layer_runs_[other] != layer_runs_[first]) break;
      const bool alike = kind_of_results(other) == kind_of_results(first);
      if (alike && !in_flight_.is_waited_for_by(graph_.nodes[other])) return other;
    }
    return first;
  }

  ValueKind kind_of_results(size_t node) const {
    return graph_.value(graph_.nodes[node].outputs[0]).kind;
  }

  void take(size_t unit) {
    for (const size_t successor : dependencies_.successors(unit)) {
      if (--missing_[successor] == 0) make_ready(successor);
    }
    for (const size_t member : members_[unit]) {
      ordered_.push_back(graph_.nodes[member]);
      in_flight_.add(ordered_.back());
      if (is_collective(ordered_.back().op)) ordered_.back().stream = Stream::communication;
    }
  }

  const Graph& graph_;
  Dependencies dependencies_;
  std::vector<int> missing_;                  // by unit: units that must come before it
  std::vector<std::vector<size_t>> members_;  // by unit
  std::vector<int> layer_runs_;
  InFlight in_flight_;
  std::set<size_t> early_, ready_;
  std::vector<Node> ordered_;
};

}  // namespace

Graph reorder(Graph graph) {
  std::vector<Node> ordered = Order(graph).take_all();
  check(ordered.size() == graph.nodes.size(), "the graph has a cycle through %d nodes",
        graph.nodes.size() - ordered.size());
  graph.nodes = std::move(ordered);
  return graph;
}

std::vector<Step> schedule(const Graph& graph) {
  const std::vector<Storage> storage = find_storage(graph);
  // By root: the last communication step that wrote it, and the last that touched it.
  std::vector<int> written(graph.values.size(), -1), touched(graph.values.size(), -1);
  std::vector<Step> steps;
  int waited = -1;                // all communication up to here is done
  int waited_before_repeat = -1;  // nodes that repeat may not run at all, and then nobody waits
  int repeat = -1;
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    Step step{.node = static_cast<NodeId>(i)};
    if (node.repeat != repeat) {
      if (repeat >= 0) waited = waited_before_repeat;
      repeat = node.repeat;
      waited_before_repeat = waited;
      if (repeat >= 0) {  // the caller reads the count before the first of them
        const ValueId count = graph.repeats[static_cast<size_t>(repeat)].count;
        step.wait_for = written[index(storage[index(count)].root)];
      }
    }
    const std::vector<ValueId> writes = written_roots(node, storage);
    if (node.stream == Stream::communication) {  // in order among themselves: no wait
      for (const ValueId id : node.inputs) touched[index(storage[index(id)].root)] = int(i);
      for (const ValueId root : writes) written[index(root)] = touched[index(root)] = int(i);
    } else {
      for (const ValueId id : node.inputs) {
        step.wait_for = std::max(step.wait_for, written[index(storage[index(id)].root)]);
      }
      for (const ValueId root : writes) {
        step.wait_for = std::max(step.wait_for, touched[index(root)]);
      }
      if (step.wait_for <= waited) step.wait_for = -1;
      waited = std::max(waited, step.wait_for);
    }
    steps.push_back(step);
  }
  return steps;
}

}  // namespace caravan
