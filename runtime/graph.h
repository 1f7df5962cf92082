// The graph: values and nodes in two indexed vectors. Copyable plain data; the order of `nodes` is
// a valid execution order. Passes are free functions Graph -> Graph.
#pragma once

#include <string>
#include <utility>
#include <vector>

#include "runtime/ops.h"
#include "runtime/types.h"

namespace caravan {

enum class ValueId : int32_t { none = -1 };
enum class NodeId : int32_t { none = -1 };
constexpr size_t index(ValueId id) { return static_cast<size_t>(id); }
constexpr size_t index(NodeId id) { return static_cast<size_t>(id); }

enum class ValueKind : uint8_t {
  parameter,    // persistent: weights
  state,        // persistent: optimizer state
  accumulator,  // persistent: gradients summed over micro-batches
  input,        // written by the caller before each run
  activation,   // of the forward pass, and scalars
  gradient,     // of the backward pass
};
constexpr bool is_persistent(ValueKind kind) { return kind <= ValueKind::accumulator; }
std::string_view name(ValueKind kind);

// What a persistent value holds before step 1.
struct Initializer {
  enum class Kind : uint8_t { zeros, ones, normal } kind = Kind::zeros;
  float std = 0;  // of normal, mean 0
};

struct Value {
  std::string name = {};    // of a parameter: its name in checkpoints and in Hugging Face files
  Shape shape = {};         // what one rank holds; before parallelize the same as global_shape
  Shape global_shape = {};  // the logical tensor
  DType dtype = DType::f32;
  ValueKind kind = ValueKind::activation;
  Placement placement = {};
  Initializer init = {};
  // Elements allocated beyond `shape`, so that dim 0 splits evenly in collectives. Never read.
  int64_t padding_elements = 0;

  int64_t bytes() const { return (num_elements(shape) + padding_elements) * size_bytes(dtype); }
};

enum class Stream : uint8_t { compute, communication };

struct Node {
  Op op = {};
  std::vector<ValueId> inputs = {};
  std::vector<ValueId> outputs = {};
  Stream stream = Stream::compute;
  int layer = -1;          // of the model, -1 outside the layers
  std::string scope = {};  // where the builder stood: "layers.3.attention"
  int repeat = -1;         // index into Graph::repeats, -1: runs once
};

// Nodes that run one after another as often as a scalar says that is there before the first of
// them: not at all, or several times. What they pass on to the next time or to nodes behind them
// is written in place of something that was there before.
struct Repeat {
  ValueId count = ValueId::none;  // () f32
};

// An output that lies in the storage of an input.
struct Alias {
  enum class Kind : uint8_t {
    same,   // the same bytes
    slice,  // this rank's part of the input's bytes (dim 0)
    whole,  // the input is this rank's part of the output's bytes
  };
  int output;
  int input;
  Kind kind = Kind::same;
};

struct Graph {
  std::vector<Value> values;
  std::vector<Node> nodes;
  std::vector<std::pair<std::string, ValueId>> outputs;  // read by the caller after each run
  std::vector<std::pair<ValueId, ValueId>> updates;      // persistent value, what it becomes
  std::vector<std::vector<ValueId>> contiguous;          // values that lie one after another
  std::vector<Repeat> repeats;

  const Value& value(ValueId id) const { return values[index(id)]; }
  Value& value(ValueId id) { return values[index(id)]; }
  ValueId find(std::string_view name) const;    // ValueId::none when absent
  ValueId output(std::string_view name) const;  // internal error when absent
  ValueId add_value(Value value);
  NodeId add_node(Node node);
};

std::vector<Alias> aliases(const Node& node);

// What must be there before the node runs: its inputs, and the count when it repeats.
std::vector<ValueId> reads(const Graph& graph, const Node& node);

// "%17 = rms_norm(%12, %w3) eps=1e-05 : f32[8192,4096] S(0)@dp  # layers.3.attention", one a line.
std::string dump(const Graph& graph);

// Checks the grammar that every pass must leave intact: inputs are defined before use and once,
// shapes agree with the ops' rules, nothing reads a value after an op overwrote it in place,
// updates and outputs exist. An internal error names the pass, the node and what is wrong.
// After parallelize shapes are local; `local` says so (collectives are then checked as well).
void verify(const Graph& graph, std::string_view pass);

}  // namespace caravan
