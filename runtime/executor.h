// Runs a Program on a backend: binds every value to its address once, then walks the steps.
// A run allocates nothing.
//
// Where the backend records (CUDA graphs) and nobody wants to see single nodes, the steps between
// those that need the host are recorded in the second run and started as a whole from then on.
#pragma once

#include <array>
#include <functional>
#include <memory>
#include <string_view>
#include <vector>

#include "runtime/arena.h"
#include "runtime/backend.h"
#include "runtime/error.h"
#include "runtime/program.h"
#include "runtime/progress.h"

namespace caravan {

// One communicator per axis, for the communication stream alone; null where the axis has size 1.
using AxisCommunicators = std::array<Communicator*, kNumAxes>;

struct ExecutorOptions {
  bool poison_freed = kDebugBuild;  // bytes that nobody needs any more become NaN
  // Called after each node with the seconds it took; communication counts where it is waited for.
  std::function<void(const Node&, double seconds)> on_node = {};
  // Called once in a run, before the first node that changes a parameter or optimizer state.
  std::function<void()> before_update = {};
  // Called after each node with its outputs, when those of the compute stream are there; may change
  // them and may throw. For faults that somebody asks for.
  std::function<void(const Node&, std::span<const TensorView> outputs)> after_node = {};
  Progress* progress = nullptr;  // told which op runs, and which collective it waits for
  int program_index = 0;         // what it calls this program
};

class Executor {
 public:
  // `program`, `backend` and `arena` outlive the executor. `mesh` is the program's, with this rank.
  Executor(const Program& program, Backend& backend, const Arena& arena, const Mesh& mesh,
           const AxisCommunicators& communicators, ExecutorOptions options = {});

  // A value's memory, as this rank holds it. Inputs are written before each run.
  TensorView view(ValueId id) const;
  const TensorView& input(std::string_view name) const;
  void set_input(std::string_view name, float value);                 // a scalar
  float output(std::string_view name) const;                          // a scalar, after run()
  void output(std::string_view name, std::span<float> values) const;  // all of a tensor

  void run();

  const Program& program() const { return program_; }

 private:
  struct BoundNode {
    const Node* node;
    std::vector<TensorView> inputs;
    std::vector<TensorView> outputs;
    KernelArgs args;
    int index = 0;  // of its step
    bool is_collective = false;
    int waits_for_step = -1;          // of communication, and all before it; -1: none
    std::vector<const Block*> freed;  // last used here
  };

  // Steps [first, end) that run as often as the count says.
  struct BoundRepeat {
    size_t first;
    size_t end;
    TensorView count;
    int last_communication = -1;  // step; -1: none of them
  };

  // Steps [first, end) between which the host has nothing to do.
  struct Segment {
    size_t first;
    size_t end;
    bool is_recordable = false;
    bool has_run = false;                            // step by step
    std::unique_ptr<Recording> recording = nullptr;  // once it has run again
  };

  // An input or output as the caller names it.
  struct NamedView {
    std::string_view name;  // in the program
    TensorView view;
  };

  const TensorView& output_view(std::string_view name) const;
  size_t find_first_update() const;
  void bind_named();
  void bind(size_t step);
  void bind_repeats();
  bool may_record() const;
  void cut_segments();
  // When the steps run `again`, what was there before them is kept for the next time.
  void run_steps(size_t first, size_t end, bool again = false);
  void run_repeat(const BoundRepeat& repeat);
  void run_segment(Segment& segment, bool again, size_t repeated_from);
  void launch(Segment& segment);
  void run_node(BoundNode& bound);
  void issue(BoundNode& bound);
  void wait_for_communication(int step);
  void poison(const Block& block) const;

  const Program& program_;
  Backend& backend_;
  const Arena& arena_;
  Mesh mesh_;
  AxisCommunicators communicators_;
  ExecutorOptions options_;
  std::vector<BoundNode> nodes_;
  std::vector<BoundRepeat> repeats_;  // in order
  std::vector<Segment> segments_;     // in order, cover all nodes
  // By step, when it is one of communication: how many ops there were on the communication stream
  // with its last one. 0: has not run in this run.
  std::vector<int64_t> issued_;
  std::vector<NamedView> inputs_;
  std::vector<NamedView> outputs_;
  size_t first_update_;          // of nodes_; their number when none changes parameters or state
  int last_communication_ = -1;  // step
  bool launches_ = false;        // this run has started a recording
  Progress unwatched_;           // what is told when nobody asked
  Progress& progress_;
};

}  // namespace caravan
