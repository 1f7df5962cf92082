// Builds a graph in code that reads like eager code. One method per op that models, autodiff and
// optimizers use; shapes are inferred and checked at once.
#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "runtime/graph.h"

namespace caravan {

using Val = ValueId;

class Builder {
 public:
  // `compute`: the type of activations, which the embedding gives and all that follows keeps.
  // Parameters and everything else that outlives a step are f32; a matrix is cast where it meets
  // activations of another type.
  explicit Builder(Graph& graph, DType compute = DType::f32) : graph_(graph), compute_(compute) {}
  Builder(const Builder&) = delete;
  Builder& operator=(const Builder&) = delete;

  // Names what is built while the result lives: "layers.3.attention".
  class Scope {
   public:
    Scope(Builder& builder, const std::string& name, int layer);
    ~Scope();
    Scope(const Scope&) = delete;
    Scope& operator=(const Scope&) = delete;

   private:
    Builder& builder_;
    size_t old_size_;
    int old_layer_;
  };
  [[nodiscard]] Scope scope(const std::string& name) { return Scope(*this, name, layer_); }
  [[nodiscard]] Scope scope(const std::string& name, int layer) {
    return Scope(*this, name + "." + std::to_string(layer), layer);
  }
  // The scope of another node, for what is derived from it.
  [[nodiscard]] Scope scope_of(const Node& node, const std::string& suffix) {
    return Scope(*this, node.scope + suffix, node.layer);
  }

  // What new nodes give: activations (default) or gradients.
  void set_result_kind(ValueKind kind) { result_kind_ = kind; }

  // Placements are declared here and nowhere else; parallelize derives the rest.
  Val parameter(const std::string& name, const Shape& shape, Initializer init,
                const Placement& placement = {});
  Val persistent(ValueKind kind, const std::string& name, const Shape& shape,
                 const Placement& placement);
  Val input(const std::string& name, const Shape& shape, DType dtype,
            const Placement& placement = {});
  // Asks for a value that is made here to lie sharded along the axes that `placement` shards; its
  // readers take it from there. (Gradients under ZeRO, tokens under sequence parallelism.)
  void place(Val value, const Placement& placement) { graph_.value(value).placement = placement; }
  void output(const std::string& name, Val value) { graph_.outputs.emplace_back(name, value); }
  void update(Val persistent, Val becomes) { graph_.updates.emplace_back(persistent, becomes); }

  // table (V,D), ids (T) -> (T,D)
  Val embedding(Val table, Val ids) { return one(Embedding{compute_}, {table, ids}); }
  // x (T,K), weight (N,K) -> (T,N); bias (N), or Val::none
  Val linear(Val x, Val weight, Val bias = Val::none);
  // The same, f32 whatever the type of x: what scores are made of. No bias.
  Val logits(Val x, Val weight);
  Val matmul(Val a, Val b, MatMul op) { return one(op, {a, b}); }
  Val add(Val a, Val b) { return one(Add{}, {a, b}); }
  // The value itself where it has that type already.
  Val cast(Val x, DType to) { return dtype(x) == to ? x : one(Cast{to}, {x}); }
  // x (T,D), weight (D) -> (T,D)
  Val rms_norm(Val x, Val weight, float eps) { return emit(RmsNorm{eps}, {x, weight})[0]; }
  // x (T,n*h), positions (T) -> (T,n*h)
  Val rope(Val x, Val positions, const Rope& op) { return one(op, {x, positions}); }
  // x (T,n*h) -> (T,n*h)
  Val head_norm(Val x, const HeadNorm& op) { return emit(op, {x})[0]; }
  // x (T,N), positions (T) -> (T,N)
  Val temperature_scale(Val x, Val positions, const TemperatureScale& op) {
    return one(op, {x, positions});
  }
  // document_start (T) -> (T)
  Val chunk_start(Val document_start, const ChunkStart& op) { return one(op, {document_start}); }
  // q (T,H*h), k, v (T,KV*h), document_start (T) -> (T,H*h)
  Val attention(Val q, Val k, Val v, Val document_start, Attention op) {
    // Of logical shapes: a rank may hold other numbers of heads.
    op.group = shape(q)[1] / shape(k)[1];
    return emit(op, {q, k, v, document_start})[0];
  }
  // gate, up (T,I) -> (T,I)
  Val swiglu(Val gate, Val up) { return one(SwiGlu{}, {gate, up}); }
  // logits (T,E), bias (E) or Val::none -> scores (T,k), experts (T,k) i32, load (E)
  std::vector<Val> route(Val logits, Val bias, const Route& op);
  // x (T,D), scores (T,k), experts (T,k), gate, up (E,D,F), down (E,F,D) -> out (T,D),
  // dropped (), further () and what the gradient needs
  std::vector<Val> experts(std::vector<Val> inputs, const Experts& op);
  // -> loss_sum (), num_valid ()
  std::vector<Val> linear_cross_entropy(Val x, Val weight, Val targets) {
    return emit(LinearCrossEntropy{}, {x, cast(weight, dtype(x)), targets});
  }
  Val fill(float value) { return one(Fill{value}, {}); }
  Val divide(Val a, Val b) { return one(Divide{}, {a, b}); }
  Val accumulate(Val sum, Val value, Val keep) { return one(Accumulate{}, {sum, value, keep}); }

  // Any op: infers the outputs and appends the node.
  std::vector<Val> emit(Op op, std::vector<Val> inputs);
  Val one(Op op, std::vector<Val> inputs);  // for ops with one output

  const Graph& graph() const { return graph_; }
  const Shape& shape(Val value) const { return graph_.value(value).shape; }
  DType dtype(Val value) const { return graph_.value(value).dtype; }

 private:
  Graph& graph_;
  DType compute_;
  std::string scope_;
  int layer_ = -1;
  ValueKind result_kind_ = ValueKind::activation;
};

// The specs of values, for the rules.
std::vector<TensorSpec> specs_of(const Graph& graph, const std::vector<ValueId>& ids);

}  // namespace caravan
