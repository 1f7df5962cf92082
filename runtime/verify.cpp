// The grammar of graphs, checked after every pass.
#include <algorithm>

#include "absl/strings/str_format.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/ops/rules.h"
#include "runtime/storage.h"

namespace caravan {
namespace {

class Verifier {
 public:
  Verifier(const Graph& graph, std::string_view pass)
      : graph_(graph),
        pass_(pass),
        defined_(graph.values.size(), false),
        stale_(graph.values.size(), false),
        made_in_(graph.values.size(), -1),
        storage_(find_storage(graph)) {}

  void run() {
    for (size_t i = 0; i < graph_.values.size(); ++i) {
      const ValueKind kind = graph_.values[i].kind;
      defined_[i] = is_persistent(kind) || kind == ValueKind::input;
    }
    for (size_t i = 0; i < graph_.nodes.size(); ++i) check_node(graph_.nodes[i], i);
    for (const auto& [name, id] : graph_.outputs) {
      expect(usable(id), absl::StrFormat("output '%s' is not there at the end", name));
    }
    for (const auto& [target, source] : graph_.updates) check_update(target, source);
  }

 private:
  void expect(bool ok, const std::string& what) const {
    if (!ok) throw internal_error(absl::StrFormat("after %s: %s", pass_, what));
  }

  bool usable(ValueId id) const {
    return index(id) < defined_.size() && defined_[index(id)] && !stale_[index(id)];
  }

  void check_node(const Node& node, size_t position) {
    const std::string where =
        absl::StrFormat("node %d, %s (%s)", position, name(node.op), node.scope);
    for (const ValueId id : node.inputs) {
      expect(index(id) < defined_.size() && defined_[index(id)],
             absl::StrFormat("%s reads %%%d before it is defined", where, index(id)));
      expect(!stale_[index(id)],
             absl::StrFormat("%s reads %%%d, which was overwritten in place", where, index(id)));
    }
    check_shapes(node, where);
    check_repeat(node, where);
    for (const ValueId root : written_roots(node, storage_)) retire(root);
    for (const ValueId id : node.outputs) {
      expect(!defined_[index(id)], absl::StrFormat("%s defines %%%d again", where, index(id)));
      defined_[index(id)] = true;
    }
  }

  // What is only there when nodes have repeated is nothing for others.
  void check_repeat(const Node& node, const std::string& where) {
    for (const ValueId id : node.inputs) {
      const int made_in = made_in_[index(storage_[index(id)].root)];
      expect(made_in < 0 || made_in == node.repeat,
             absl::StrFormat("%s reads %%%d, which only nodes make that repeat", where, index(id)));
    }
    for (const ValueId id : node.outputs) {
      if (storage_[index(id)].root == id) made_in_[index(id)] = node.repeat;
    }
    if (node.repeat < 0) return;
    expect(static_cast<size_t>(node.repeat) < graph_.repeats.size() &&
               usable(graph_.repeats[static_cast<size_t>(node.repeat)].count),
           absl::StrFormat("%s repeats, but its count is not there", where));
  }

  // Everything that shares the storage and exists now holds old contents.
  void retire(ValueId root) {
    for (size_t i = 0; i < storage_.size(); ++i) {
      if (storage_[i].root == root && defined_[i]) stale_[i] = true;
    }
  }

  void check_shapes(const Node& node, const std::string& where) const {
    if (collective_axis(node.op)) return;  // their shapes depend on the mesh
    TensorSpecs inputs = specs_of(graph_, node.inputs);
    for (size_t i = 0; i < inputs.size(); ++i) {  // parallelize gathers no weight that is not read
      const bool is_left =
          !is_read(node.op, i) && graph_.value(node.inputs[i]).kind == ValueKind::parameter;
      if (is_left) inputs[i].shape = graph_.value(node.outputs[0]).shape;
    }
    const TensorSpecs inferred = infer(node.op, inputs);
    expect(inferred == specs_of(graph_, node.outputs),
           absl::StrFormat("%s has outputs of other shapes than its rule gives", where));
  }

  void check_update(ValueId target, ValueId source) const {
    const Value& value = graph_.value(target);
    expect(is_persistent(value.kind) && usable(source),
           absl::StrFormat("the update of '%s' is not there at the end", value.name));
    expect(graph_.value(source).shape == value.shape,
           absl::StrFormat("the update of '%s' has another shape", value.name));
  }

  const Graph& graph_;
  std::string_view pass_;
  std::vector<bool> defined_;
  std::vector<bool> stale_;
  std::vector<int> made_in_;  // by value: the repeat that its storage begins in, -1: none
  std::vector<Storage> storage_;
};

}  // namespace

void verify(const Graph& graph, std::string_view pass) { Verifier(graph, pass).run(); }

}  // namespace caravan
