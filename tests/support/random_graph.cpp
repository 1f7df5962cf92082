#include "tests/support/random_graph.h"

#include <algorithm>

#include "runtime/builder.h"
#include "runtime/ops/rules.h"
#include "runtime/rng.h"
#include "runtime/storage.h"

namespace caravan {
namespace {

class Generator {
 public:
  explicit Generator(const RandomGraphOptions& options)
      : options_(options), stream_(10, RandomPurpose::test, options.seed), builder_(graph_) {}

  Graph generate() {
    declare();
    for (int i = 0; i < options_.num_nodes; ++i) add_node();
    for (size_t i = 0; i < alive_.size(); ++i) {
      builder_.output("out" + std::to_string(i), alive_[i]);
    }
    return std::move(graph_);
  }

 private:
  static constexpr int64_t kRows = 8, kColumns = 16;

  uint64_t draw(uint64_t bound) { return stream_.bits(counter_++) % bound; }
  Val any() { return alive_[draw(alive_.size())]; }
  const Shape& shape(Val id) const { return graph_.value(id).shape; }

  void declare() {
    const Placement by_rank = Placement{}.with(Axis::dp, shard(0));
    for (int i = 0; i < 4; ++i) {
      const Val id = builder_.input("in" + std::to_string(i), {kRows, kColumns}, DType::f32);
      Value& value = graph_.value(id);
      value.global_shape = {kRows * options_.num_ranks, kColumns};
      value.placement = by_rank;
      alive_.push_back(id);
    }
    weight_ = builder_.parameter("weight", {kColumns}, {});
    keep_ = builder_.fill(1.0f);
    for (int i = 0; i < 3; ++i) {
      alive_.push_back(
          builder_.persistent(ValueKind::state, "sum" + std::to_string(i), {kRows, kColumns}, {}));
    }
  }

  void add_node() {
    switch (draw(9)) {
      case 0:
      case 1:
        return add_sum();
      case 2:
      case 3:
        alive_.push_back(builder_.rms_norm(any(), weight_, 1e-5f));
        return;
      case 4:
        return accumulate();
      case 5:
      case 6:
        return all_reduce();
      case 7:
        return resize();
      default:
        return view();
    }
  }

  void add_sum() {
    const Val a = any(), b = any_like(a);
    alive_.push_back(builder_.add(a, b));
  }

  Val any_like(Val id) {
    std::vector<Val> alike;
    for (const Val other : alive_) {
      if (shape(other) == shape(id)) alike.push_back(other);
    }
    return alike[draw(alike.size())];
  }

  // What shares the storage holds old contents from now on.
  void retire(Val overwritten) {
    const std::vector<Storage> storage = find_storage(graph_);
    const Val root = storage[index(overwritten)].root;
    std::erase_if(alive_, [&](Val id) { return storage[index(id)].root == root; });
  }

  bool overlap(Val a, Val b) const {
    const std::vector<Storage> storage = find_storage(graph_);
    return storage[index(a)].root == storage[index(b)].root;
  }

  void accumulate() {
    const Val sum = any(), value = any_like(sum);
    if (graph_.value(sum).kind == ValueKind::input || overlap(sum, value)) return;
    const Val result = builder_.accumulate(sum, value, keep_);
    retire(sum);
    alive_.push_back(result);
  }

  std::vector<Val> emit(const Op& op, const std::vector<Val>& inputs) {
    std::vector<Val> outputs;
    for (TensorSpec& spec : infer(op, specs_of(graph_, inputs), options_.num_ranks)) {
      Value value{.shape = spec.shape, .global_shape = spec.shape};
      outputs.push_back(graph_.add_value(value));
    }
    graph_.add_node({.op = op, .inputs = inputs, .outputs = outputs});
    return outputs;
  }

  // In place; several members when they have storages of their own and are in no other group.
  void all_reduce() {
    std::vector<Val> members;
    const uint64_t wanted = 1 + draw(3);
    for (uint64_t i = 0; i < wanted; ++i) {
      const Val id = any();
      if (graph_.value(id).kind == ValueKind::input || is_view(id)) continue;
      if (std::ranges::none_of(members, [&](Val other) { return overlap(id, other); })) {
        members.push_back(id);
      }
    }
    if (members.empty()) return;
    if (members.size() > 1 && may_be_grouped(members)) graph_.contiguous.push_back(members);
    const std::vector<Val> sums = emit(AllReduce{Axis::dp}, members);
    for (const Val id : members) retire(id);
    alive_.insert(alive_.end(), sums.begin(), sums.end());
  }

  bool is_view(Val id) const { return find_storage(graph_)[index(id)].is_slice; }

  bool may_be_grouped(const std::vector<Val>& members) {
    const std::vector<Storage> storage = find_storage(graph_);
    for (const Val id : members) {
      const Val root = storage[index(id)].root;
      const bool persistent = is_persistent(graph_.value(root).kind);
      if (persistent || std::ranges::find(grouped_, root) != grouped_.end()) return false;
    }
    for (const Val id : members) grouped_.push_back(storage[index(id)].root);
    return true;
  }

  // Gathers are kept from growing without end.
  void resize() {
    const Val id = any();
    const bool large = shape(id)[0] >= 4 * kRows;
    const Op op = large ? Op(ReduceScatter{Axis::dp, 0}) : Op(AllGather{Axis::dp, 0});
    alive_.push_back(emit(op, {id})[0]);
  }

  void view() {
    const Val id = any();
    if (is_view(id) || shape(id)[0] < 2 * options_.num_ranks) return;
    alive_.push_back(emit(Slice{Axis::dp, 0}, {id})[0]);
  }

  RandomGraphOptions options_;
  RandomStream stream_;
  uint64_t counter_ = 0;
  Graph graph_;
  Builder builder_;
  Val weight_ = Val::none, keep_ = Val::none;
  std::vector<Val> alive_;    // matrices that may still be read
  std::vector<Val> grouped_;  // roots that are in a contiguous group
};

}  // namespace

Mesh mesh_of(const RandomGraphOptions& options) { return {{options.num_ranks, 1, 1}}; }

Graph random_graph(const RandomGraphOptions& options) { return Generator(options).generate(); }

}  // namespace caravan
