#include "runtime/executor.h"

#include <algorithm>
#include <chrono>
#include <optional>
#include <set>

#include "absl/strings/str_format.h"
#include "runtime/error.h"

namespace caravan {
namespace {

constexpr uint32_t kNaN = 0x7fc00000;

double seconds_since(std::chrono::steady_clock::time_point start) {
  return std::chrono::duration<double>(std::chrono::steady_clock::now() - start).count();
}

// Whether the host takes part in the node: it reads counts, or exchanges bytes itself.
bool needs_host(const Node& node, const KernelArgs& args) {
  if (!is_collective(node.op)) return false;
  if (!args.communicator->is_asynchronous()) return true;
  return std::holds_alternative<ExchangeRows>(node.op) ||
         std::holds_alternative<ReturnRows>(node.op) ||
         std::holds_alternative<AllReduceMax>(node.op);
}

}  // namespace

Executor::Executor(const Program& program, Backend& backend, const Arena& arena, const Mesh& mesh,
                   const AxisCommunicators& communicators, ExecutorOptions options)
    : program_(program),
      backend_(backend),
      arena_(arena),
      mesh_(mesh),
      communicators_(communicators),
      options_(std::move(options)),
      progress_(options_.progress != nullptr ? *options_.progress : unwatched_) {
  if (kDebugBuild) verify_plan(program);
  nodes_.reserve(program.steps.size());  // KernelArgs point into the elements
  issued_.resize(program.steps.size(), 0);
  for (size_t i = 0; i < program.steps.size(); ++i) {
    bind(i);
    if (nodes_.back().node->stream == Stream::communication) {
      last_communication_ = static_cast<int>(i);
    }
  }
  bind_repeats();
  for (const Block& block : program.plan.blocks) {
    nodes_[static_cast<size_t>(block.last_step)].freed.push_back(&block);
  }
  first_update_ = find_first_update();
  cut_segments();
  bind_named();
}

bool Executor::may_record() const {
  return backend_.records() && !options_.poison_freed && !options_.on_node && !options_.after_node;
}

// The host also reads how often a repeat runs, and does what it likes before the update.
void Executor::cut_segments() {
  std::set<size_t> cuts = {0, first_update_, nodes_.size()};
  for (const BoundRepeat& repeat : repeats_) cuts.insert({repeat.first, repeat.end});
  std::vector<bool> is_host_node;
  for (size_t i = 0; i < nodes_.size(); ++i) {
    is_host_node.push_back(needs_host(*nodes_[i].node, nodes_[i].args));
    if (is_host_node.back()) cuts.insert({i, i + 1});
  }
  for (auto first = cuts.begin(), end = std::next(first); end != cuts.end(); ++first, ++end) {
    segments_.push_back({*first, *end, may_record() && !is_host_node[*first]});
  }
}

// Once: a step that looks for them allocates nothing.
void Executor::bind_named() {
  const Graph& graph = program_.graph;
  for (size_t i = 0; i < graph.values.size(); ++i) {
    const Value& value = graph.values[i];
    if (value.kind != ValueKind::input) continue;
    inputs_.push_back({value.name, view(static_cast<ValueId>(i))});
  }
  for (const auto& [name, id] : graph.outputs) outputs_.push_back({name, view(id)});
}

// An update of a parameter may be a gather of what an earlier node changed in place (ZeRO), but
// that node changes the moments as well: what counts is the first update of any of them.
size_t Executor::find_first_update() const {
  const Graph& graph = program_.graph;
  std::vector<bool> is_update(graph.values.size());
  for (const auto& [persistent, updated] : graph.updates) {
    const bool is_saved = graph.value(persistent).kind != ValueKind::accumulator;
    if (is_saved) is_update[index(updated)] = true;
  }
  const auto first = std::ranges::find_if(nodes_, [&](const BoundNode& bound) {
    return std::ranges::any_of(bound.node->outputs,
                               [&](ValueId output) { return is_update[index(output)]; });
  });
  return static_cast<size_t>(first - nodes_.begin());
}

void Executor::bind(size_t i) {
  const Step& step = program_.steps[i];
  const Node& node = program_.graph.nodes[index(step.node)];
  BoundNode& bound = nodes_.emplace_back();
  bound.node = &node;
  bound.index = static_cast<int>(i);
  bound.waits_for_step = step.wait_for;
  bound.is_collective = is_collective(node.op);
  for (const ValueId id : node.inputs) bound.inputs.push_back(view(id));
  for (const ValueId id : node.outputs) bound.outputs.push_back(view(id));
  bound.args.inputs = bound.inputs;
  bound.args.outputs = bound.outputs;
  const int64_t workspace = program_.plan.workspace_offsets[i];
  if (workspace >= 0) bound.args.workspace = arena_.transient() + workspace;
  bound.args.workspace_bytes = program_.plan.workspace_bytes[i];
  if (const auto axis = collective_axis(node.op)) {
    bound.args.communicator = communicators_[static_cast<size_t>(*axis)];
    check(bound.args.communicator != nullptr || !is_collective(node.op),
          "no communicator for axis %s", name(*axis));
  }
}

void Executor::bind_repeats() {
  const Graph& graph = program_.graph;
  for (const auto& [repeat, first, end] : repeated_steps(graph, program_.steps)) {
    BoundRepeat bound{first, end, view(graph.repeats[static_cast<size_t>(repeat)].count)};
    for (size_t i = first; i < end; ++i) {
      if (nodes_[i].node->stream == Stream::communication)
        bound.last_communication = nodes_[i].index;
    }
    repeats_.push_back(std::move(bound));
  }
}

TensorView Executor::view(ValueId id) const {
  const Value& value = program_.graph.value(id);
  const Box box = local_box(value.global_shape, value.placement, mesh_);
  return {.data = arena_.at(program_.plan.locations[index(id)], mesh_),
          .shape = box.extent,
          .dtype = value.dtype,
          .offset = box.offset,
          .whole = value.global_shape};
}

const TensorView& Executor::input(std::string_view name) const {
  const auto found = std::ranges::find(inputs_, name, &NamedView::name);
  check(found != inputs_.end(), "program '%s' has no input '%s'", program_.name, name);
  return found->view;
}

void Executor::set_input(std::string_view name, float value) {
  backend_.copy_in(input(name).data, &value, sizeof(value));
}

const TensorView& Executor::output_view(std::string_view name) const {
  const auto found = std::ranges::find(outputs_, name, &NamedView::name);
  check(found != outputs_.end(), "program '%s' has no output '%s'", program_.name, name);
  return found->view;
}

float Executor::output(std::string_view name) const {
  float value = 0;
  backend_.copy_out(&value, output_view(name).data, sizeof(value));
  return value;
}

void Executor::output(std::string_view name, std::span<float> values) const {
  const TensorView& view = output_view(name);
  check(view.dtype == DType::f32 && view.size() == std::ssize(values),
        "output '%s' of program '%s' has %d elements, not %d", name, program_.name, view.size(),
        values.size());
  backend_.copy_out(values.data(), view.data, static_cast<int64_t>(values.size_bytes()));
}

void Executor::run() {
  std::ranges::fill(issued_, 0);
  launches_ = false;
  progress_.begin_program(options_.program_index);
  size_t next = 0;
  for (const BoundRepeat& repeat : repeats_) {
    run_steps(next, repeat.first);
    run_repeat(repeat);
    next = repeat.end;
  }
  run_steps(next, nodes_.size());
  const bool waits_for_peers = last_communication_ >= 0;
  const WaitGuard waits(progress_,
                        launches_ && waits_for_peers ? kWaitsForProgram : last_communication_);
  backend_.synchronize();
}

void Executor::run_steps(size_t first, size_t end, bool again) {
  for (Segment& segment : segments_) {
    if (segment.first >= first && segment.end <= end) run_segment(segment, again, first);
  }
}

void Executor::run_segment(Segment& segment, bool again, size_t repeated_from) {
  if (segment.first == first_update_ && options_.before_update) options_.before_update();
  if (segment.is_recordable && segment.has_run) return launch(segment);
  for (size_t i = segment.first; i < segment.end; ++i) {
    run_node(nodes_[i]);
    if (!options_.poison_freed || i + 1 == nodes_.size()) continue;
    for (const Block* block : nodes_[i].freed) {
      if (!again || block->first_step >= static_cast<int>(repeated_from)) poison(*block);
    }
  }
  segment.has_run = true;
}

// A recording waits for nothing inside it that was issued before it, so all of that comes first.
void Executor::launch(Segment& segment) {
  progress_.begin_op(kRecordedOps);
  launches_ = true;
  {
    const WaitGuard waits(progress_,
                          last_communication_ >= 0 ? kWaitsForProgram : kWaitsForNothing);
    backend_.wait_for_communication(backend_.communication_count());
  }
  if (!segment.recording) {
    segment.recording = backend_.record([&] {
      for (size_t i = segment.first; i < segment.end; ++i) issue(nodes_[i]);
    });
  }
  segment.recording->launch();
}

// The next time begins when the communication of this one is done: it writes the same bytes.
void Executor::run_repeat(const BoundRepeat& repeat) {
  wait_for_communication(nodes_[repeat.first].waits_for_step);
  float count = 0;
  backend_.copy_out(&count, repeat.count.data, sizeof(count));
  for (float done = 0; done < count; ++done) {
    const bool again = done + 1 < count;
    run_steps(repeat.first, repeat.end, again);
    if (again) wait_for_communication(repeat.last_communication);
  }
}

void Executor::wait_for_communication(int step) {
  if (step < 0) return;
  const WaitGuard waits(progress_, step);
  const int64_t issued = issued_[static_cast<size_t>(step)];
  // A step of a repeat that did not run: what it would have come after is waited for, with the
  // rest.
  backend_.wait_for_communication(issued > 0 ? issued : backend_.communication_count());
}

void Executor::run_node(BoundNode& bound) {
  const auto start = std::chrono::steady_clock::now();
  progress_.begin_op(bound.index);
  issue(bound);
  if (options_.after_node) options_.after_node(*bound.node, bound.outputs);
  if (!options_.on_node) return;
  if (!backend_.is_host_memory()) backend_.synchronize();  // or it has only been started
  options_.on_node(*bound.node, seconds_since(start));
}

void Executor::issue(BoundNode& bound) {
  wait_for_communication(bound.waits_for_step);
  try {
    // Without overlap the collective runs in here; with it, a full queue may have to be waited for.
    std::optional<WaitGuard> waits;
    if (bound.is_collective) waits.emplace(progress_, bound.index);
    backend_.run(bound.node->op, bound.args, bound.node->stream);
    if (bound.node->stream == Stream::communication) {
      issued_[static_cast<size_t>(bound.index)] = backend_.communication_count();
    }
  } catch (const Error& error) {
    throw Error(error.code(),
                absl::StrFormat("%s in program '%s', node %s (%s)", error.what(), program_.name,
                                name(bound.node->op), bound.node->scope));
  }
}

void Executor::poison(const Block& block) const {
  backend_.fill(arena_.transient() + block.offset, kNaN, block.bytes);
}

}  // namespace caravan
