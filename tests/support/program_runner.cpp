#include "tests/support/program_runner.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>
#include <mutex>

#include "parallel/host_staged_communicator.h"
#include "runtime/builder.h"
#include "runtime/error.h"
#include "runtime/passes/plan_memory.h"
#include "runtime/passes/schedule.h"
#include "runtime/rng.h"
#include "tests/support/reference_backend.h"
#include "tests/support/virtual_ranks.h"

namespace caravan {

float HostTensor::at(int64_t i) const {
  return std::bit_cast<float>(words[static_cast<size_t>(i)]);
}

void HostTensor::set(int64_t i, float value) {
  words[static_cast<size_t>(i)] = std::bit_cast<uint32_t>(value);
}

void PrintTo(const HostTensor& tensor, std::ostream* out) {
  *out << name(tensor.dtype) << to_string(tensor.shape) << " {";
  for (int64_t i = 0; i < std::min<int64_t>(tensor.size(), 8); ++i) {
    if (tensor.dtype == DType::i32)
      *out << static_cast<int32_t>(tensor.words[static_cast<size_t>(i)]) << " ";
    else
      *out << tensor.at(i) << " ";
  }
  *out << (tensor.size() > 8 ? "...}" : "}");
}

HostTensor zeros(const Shape& shape, DType dtype) {
  return {shape, dtype, std::vector<uint32_t>(static_cast<size_t>(num_elements(shape)), 0)};
}

HostTensor scalar_tensor(float value) { return {{}, DType::f32, {std::bit_cast<uint32_t>(value)}}; }

HostTensor int_tensor(const std::vector<int32_t>& values) {
  return {{std::ssize(values)}, DType::i32, {values.begin(), values.end()}};
}

HostTensor normal_tensor(const Shape& shape, uint64_t index, double std) {
  const RandomStream stream(7, RandomPurpose::test, index);
  HostTensor tensor = zeros(shape);
  for (int64_t i = 0; i < tensor.size(); ++i) {
    tensor.set(i, static_cast<float>(std * stream.normal(static_cast<uint64_t>(i))));
  }
  return tensor;
}

double relative_difference(const HostTensor& a, const HostTensor& b) {
  if (a.shape != b.shape) return std::numeric_limits<double>::infinity();
  double squares = 0;
  for (int64_t i = 0; i < b.size(); ++i) squares += double{b.at(i)} * b.at(i);
  const double mean = std::sqrt(squares / std::max<double>(1, static_cast<double>(b.size())));
  double largest = 0;
  for (int64_t i = 0; i < b.size(); ++i) {
    const double difference = std::abs(double{a.at(i)} - b.at(i));
    if (std::isnan(difference)) return std::numeric_limits<double>::infinity();
    if (difference > 0) largest = std::max(largest, difference / (std::abs(b.at(i)) + mean));
  }
  return largest;
}

namespace {

// Calls visit(index in the global tensor, index in the box) for every element of the box.
template <typename Visit>
void for_each_element(const Shape& global, const Box& box, Visit visit) {
  const int64_t count = num_elements(box.extent);
  for (int64_t local = 0; local < count; ++local) {
    int64_t rest = local, at = 0, stride = 1;
    for (size_t dim = global.size(); dim-- > 0;) {
      at += (box.offset[dim] + rest % box.extent[dim]) * stride;
      rest /= box.extent[dim];
      stride *= global[dim];
    }
    visit(at, local);
  }
}

// What rank `coordinate` of `size` gets of a partial value: 2, -1, then 1, -1, ... and 0 for an odd
// one. Added in rank order every sum on the way is the value or its double: without rounding.
float partial_factor(int coordinate, int size) {
  if (size == 1) return 1.0f;
  if (coordinate == 0) return 2.0f;
  if (coordinate % 2 == 0 && coordinate + 1 == size) return 0.0f;
  return coordinate % 2 == 0 ? 1.0f : -1.0f;
}

HostTensor cut(const HostTensor& global, const Placement& placement, const Mesh& mesh) {
  const Box box = local_box(global.shape, placement, mesh);
  HostTensor local = zeros(box.extent, global.dtype);
  float factor = 1.0f;
  for (const Axis axis : kAxes) {
    if (placement[axis] == kPartial)
      factor *= partial_factor(mesh.coordinate(axis), mesh.size(axis));
  }
  for_each_element(global.shape, box, [&](int64_t from, int64_t to) {
    local.words[static_cast<size_t>(to)] = global.words[static_cast<size_t>(from)];
    if (factor != 1.0f) local.set(to, factor * local.at(to));
  });
  return local;
}

// Puts a part into its tensor; `written` remembers which elements are there.
void paste(const ProgramRunner::Part& part, HostTensor& global, std::vector<bool>& written) {
  for_each_element(part.global_shape, part.box, [&](int64_t to, int64_t from) {
    const size_t at = static_cast<size_t>(to);
    const uint32_t word = part.local.words[static_cast<size_t>(from)];
    check(!written[at] || global.words[at] == word, "ranks disagree on element %d of '%s'", to,
          part.label);
    global.words[at] = word;
    written[at] = true;
  });
}

HostTensors assemble(const std::vector<ProgramRunner::Part>& parts) {
  HostTensors tensors;
  std::map<std::string, std::vector<bool>> written;
  for (const auto& part : parts) {
    const auto [at, is_new] = tensors.try_emplace(part.label);
    if (is_new) at->second = zeros(part.global_shape, part.local.dtype);
    check(at->second.shape == part.global_shape, "'%s' has two shapes", part.label);
    written[part.label].resize(static_cast<size_t>(at->second.size()), false);
    paste(part, at->second, written[part.label]);
  }
  for (const auto& [label, elements] : written) {
    check(std::ranges::count(elements, false) == 0, "no rank holds some elements of '%s'", label);
  }
  return tensors;
}

}  // namespace

PlannedPrograms plan_programs(const std::vector<NamedGraph>& graphs, const Mesh& mesh,
                              const Backend& backend, bool keep_all) {
  PlannedPrograms planned;
  std::vector<const Graph*> pointers;
  for (const NamedGraph& graph : graphs) pointers.push_back(&graph.graph);
  planned.layout = plan_persistent(pointers, mesh);
  const PlanOptions options{.keep_all = keep_all,
                            .workspace_bytes = [&](const Graph& graph, const Node& node) {
                              return backend.workspace_bytes(node.op, specs_of(graph, node.inputs),
                                                             specs_of(graph, node.outputs));
                            }};
  for (const auto& [name, graph] : graphs) {
    Program program{name, graph, mesh, schedule(graph), {}};
    program.plan = plan_memory(program.graph, program.steps, mesh, planned.layout, options);
    verify_plan(program);
    planned.programs.push_back(std::move(program));
  }
  return planned;
}

std::unique_ptr<Backend> make_backend(const RunnerOptions& options) {
  if (options.make_backend) return options.make_backend();
  if (options.reference) return make_reference_backend();
  return make_cpu_backend({options.num_threads, options.overlap});
}

constexpr int64_t kStagedBytes = 4096;  // so that tensors travel in rounds

ProgramRunner::ProgramRunner(const std::vector<NamedGraph>& graphs, const Mesh& mesh,
                             Communicator& world, const RunnerOptions& options)
    : mesh_(mesh),
      backend_(make_backend(options)),
      groups_(make_groups(world, mesh)),
      planned_(plan_programs(graphs, mesh, *backend_, options.keep_all)) {
  int64_t transient_bytes = 0;
  for (const Program& program : planned_.programs) {
    transient_bytes = std::max(transient_bytes, program.plan.transient_bytes);
  }
  arena_ = std::make_unique<Arena>(*backend_, planned_.layout, transient_bytes);
  if (options.poison_freed) backend_->fill(arena_->transient(), 0x7fc00000, transient_bytes);
  if (!backend_->is_host_memory()) {
    for (auto& group : groups_.by_axis) {
      group = make_host_staged_communicator(std::move(group), *backend_, kStagedBytes);
    }
  }
  AxisCommunicators communicators{};
  for (const Axis axis : kAxes) communicators[static_cast<size_t>(axis)] = &groups_.axis(axis);
  for (const Program& program : planned_.programs) {
    executors_.push_back(std::make_unique<Executor>(program, *backend_, *arena_, mesh_,
                                                    communicators,
                                                    ExecutorOptions{options.poison_freed, {}}));
  }
}

Executor& ProgramRunner::executor(const std::string& program) {
  const auto found = std::ranges::find(
      executors_, program, [](const auto& executor) { return executor->program().name; });
  check(found != executors_.end(), "there is no program '%s'", program);
  return **found;
}

const Value& ProgramRunner::persistent_value(const std::string& name) const {
  for (const Program& program : planned_.programs) {
    const ValueId id = program.graph.find(name);
    if (id != ValueId::none && is_persistent(program.graph.value(id).kind))
      return program.graph.value(id);
  }
  throw internal_error(absl::StrFormat("there is no persistent value '%s'", name));
}

void ProgramRunner::write(const Value& value, void* data, const HostTensor& global) {
  check(global.shape == value.global_shape && global.dtype == value.dtype,
        "'%s' is %s, the tensor %s", value.name, to_string(value.global_shape),
        to_string(global.shape));
  const HostTensor local = cut(global, value.placement, mesh_);
  if (local.size() == 0) return;  // nothing of it is here
  backend_->copy_in(data, local.words.data(), 4 * local.size());
}

void ProgramRunner::set(const std::string& name, const HostTensor& global) {
  write(persistent_value(name), arena_->persistent(name), global);
}

void ProgramRunner::run(const std::string& program, const HostTensors& global_inputs) {
  Executor& found = executor(program);
  for (const Value& value : found.program().graph.values) {
    if (value.kind != ValueKind::input) continue;
    const auto tensor = global_inputs.find(value.name);
    check(tensor != global_inputs.end(), "input '%s' is not given", value.name);
    write(value, found.input(value.name).data, tensor->second);
  }
  found.run();
}

void ProgramRunner::record(const std::string& label, const Value& value, const void* data) {
  Part part{label, value.global_shape, local_box(value.global_shape, value.placement, mesh_), {}};
  part.local = zeros(part.box.extent, value.dtype);
  if (part.local.size() > 0) {
    backend_->copy_out(part.local.words.data(), data, 4 * part.local.size());
  }
  parts_.push_back(std::move(part));
}

void ProgramRunner::record_persistent(const std::string& name) {
  record(name, persistent_value(name), arena_->persistent(name));
}

void ProgramRunner::record_output(const std::string& label, const std::string& program,
                                  const std::string& name) {
  const Executor& found = executor(program);
  const ValueId id = found.program().graph.output(name);
  record(label, found.program().graph.value(id), found.view(id).data);
}

void ProgramRunner::record_here(const std::string& label, const std::string& program,
                                const std::string& name) {
  const Executor& found = executor(program);
  const ValueId id = found.program().graph.output(name);
  Value here = found.program().graph.value(id);
  here.placement = {};
  here.global_shape = here.shape;
  record(absl::StrFormat("%s@%d", label, mesh_.rank), here, found.view(id).data);
}

HostTensors run_on_ranks(const std::vector<NamedGraph>& graphs, const Mesh& mesh,
                         const RunnerOptions& options,
                         const std::function<void(ProgramRunner&)>& script) {
  std::mutex mutex;
  std::vector<ProgramRunner::Part> parts;
  run_ranks(mesh.num_ranks(), [&](Communicator& world) {
    ProgramRunner runner(graphs, mesh.with_rank(world.rank()), world, options);
    script(runner);
    const std::lock_guard lock(mutex);
    parts.insert(parts.end(), runner.parts().begin(), runner.parts().end());
  });
  return assemble(parts);
}

}  // namespace caravan
