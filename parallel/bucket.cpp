#include "parallel/bucket.h"

#include <algorithm>
#include <map>
#include <utility>

namespace caravan {
namespace {

// Reductions that may share a call.
using BucketKey = std::pair<size_t, std::string>;  // index of the op in the variant, attributes

BucketKey key_of(const Node& node) { return {node.op.index(), attributes(node.op)}; }

// Whether everybody who reads the values belongs to the update, which comes after backward: then
// the reduction may wait for others. A slice (ZeRO) only looks at a part: its readers count.
bool only_updates_read(const Graph& graph, const std::vector<ValueId>& ids) {
  for (const Node& reader : graph.nodes) {
    const bool reads = std::ranges::find_first_of(reader.inputs, ids) != reader.inputs.end();
    if (!reads) continue;
    const bool is_slice = std::holds_alternative<Slice>(reader.op);
    const bool is_update = family(reader.op) == "update";
    if (!is_update && !(is_slice && only_updates_read(graph, reader.outputs))) return false;
  }
  return true;
}

bool is_gradient_reduction(const Graph& graph, const Node& node) {
  const bool reduces =
      std::holds_alternative<AllReduce>(node.op) || std::holds_alternative<ReduceScatter>(node.op);
  return reduces && graph.value(node.inputs[0]).kind == ValueKind::gradient &&
         only_updates_read(graph, node.outputs);
}

int64_t input_bytes(const Graph& graph, const Node& node) {
  int64_t bytes = 0;
  for (const ValueId id : node.inputs) bytes += graph.value(id).bytes();
  return bytes;
}

// Nodes in their new order; readers of a bucket that is still open wait for it.
class Sequence {
 public:
  explicit Sequence(size_t num_values) : pending_(num_values, false) {}

  void promise(ValueId id) { pending_[index(id)] = true; }

  bool waits(const Node& node) const {
    return std::ranges::any_of(node.inputs, [&](ValueId id) { return pending_[index(id)]; });
  }

  void append(Node node) {
    const bool waits = this->waits(node);
    for (const ValueId id : node.outputs) pending_[index(id)] = waits;
    (waits ? held_ : nodes_).push_back(std::move(node));
  }

  void append_bucket(Node bucket) {
    for (const ValueId id : bucket.outputs) pending_[index(id)] = false;
    nodes_.push_back(std::move(bucket));
    for (Node& node : std::exchange(held_, {})) append(std::move(node));
  }

  std::vector<Node> take() { return std::move(nodes_); }

 private:
  std::vector<bool> pending_;  // by value: made by an open bucket, or from what one makes
  std::vector<Node> nodes_;
  std::vector<Node> held_;
};

}  // namespace

Graph bucket_gradients(Graph graph, int64_t bucket_bytes) {
  std::map<BucketKey, Node> open;
  Sequence sequence(graph.values.size());
  const auto close = [&](Node bucket) {
    const bool in_place = std::holds_alternative<AllReduce>(bucket.op);
    if (in_place && bucket.inputs.size() > 1) graph.contiguous.push_back(bucket.inputs);
    sequence.append_bucket(std::move(bucket));
  };
  std::vector<bool> merges(graph.nodes.size());
  for (size_t i = 0; i < merges.size(); ++i) {
    merges[i] = is_gradient_reduction(graph, graph.nodes[i]);
  }
  for (size_t i = 0; i < graph.nodes.size(); ++i) {
    const Node& node = graph.nodes[i];
    // A sum over what a bucket makes, as that of squared norms, cannot be a member beside it.
    if (!merges[i] || sequence.waits(node)) {
      sequence.append(node);
      continue;
    }
    const auto [bucket, is_new] = open.try_emplace(key_of(node), node);
    if (!is_new) {
      bucket->second.inputs.push_back(node.inputs[0]);
      bucket->second.outputs.push_back(node.outputs[0]);
      bucket->second.scope = "bucket";
      bucket->second.layer = -1;
    }
    sequence.promise(node.outputs[0]);
    if (input_bytes(graph, bucket->second) < bucket_bytes) continue;
    close(std::move(bucket->second));
    open.erase(bucket);
  }
  for (auto& [key, rest] : open) close(std::move(rest));
  graph.nodes = sequence.take();
  return graph;
}

}  // namespace caravan
