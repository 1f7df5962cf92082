// Runs graphs in tests: plans them, gives every virtual rank an arena and a CPU backend, scatters
// global tensors to the ranks, runs, and puts the parts together again. Not for speed.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <ostream>
#include <string>
#include <vector>

#include "parallel/process_groups.h"
#include "runtime/executor.h"

namespace caravan {

// A tensor on the host. Both element types of kernels, f32 and i32, are words of 32 bits.
struct HostTensor {
  Shape shape = {};
  DType dtype = DType::f32;
  std::vector<uint32_t> words = {};

  int64_t size() const { return num_elements(shape); }
  float at(int64_t i) const;
  void set(int64_t i, float value);
  bool operator==(const HostTensor&) const = default;  // bit for bit
};
void PrintTo(const HostTensor& tensor, std::ostream* out);  // for GoogleTest
using HostTensors = std::map<std::string, HostTensor>;

HostTensor zeros(const Shape& shape, DType dtype = DType::f32);
HostTensor scalar_tensor(float value);
HostTensor int_tensor(const std::vector<int32_t>& values);
// Element e is number e of the random stream `index`.
HostTensor normal_tensor(const Shape& shape, uint64_t index, double std = 1.0);

// The largest |a - b| / (|b| + root mean square of b); infinite when the shapes differ.
double relative_difference(const HostTensor& a, const HostTensor& b);

// A graph of one rank, in the order in which it shall run.
struct NamedGraph {
  std::string name;
  Graph graph;
};

struct RunnerOptions {
  bool keep_all = false;
  bool poison_freed = true;
  bool overlap = true;
  int num_threads = 1;
  bool reference = false;  // computes with the specification of the ops: slow, knows bf16
  // Another backend for each rank. Where device memory is not the host's, ranks exchange bytes
  // through the host.
  std::function<std::unique_ptr<Backend>()> make_backend = {};
};

// The programs of a run and the persistent region that they share.
struct PlannedPrograms {
  PersistentLayout layout;
  std::vector<Program> programs;
};
PlannedPrograms plan_programs(const std::vector<NamedGraph>& graphs, const Mesh& mesh,
                              const Backend& backend, bool keep_all);

// One rank. All methods are called by that rank's thread; `run` is collective.
class ProgramRunner {
 public:
  ProgramRunner(const std::vector<NamedGraph>& graphs, const Mesh& mesh, Communicator& world,
                const RunnerOptions& options);

  // This rank's part of a global tensor becomes the persistent value of that name. Where the
  // value is partial, the ranks get multiples of the tensor that add up to it exactly.
  void set(const std::string& name, const HostTensor& global);
  void run(const std::string& program, const HostTensors& global_inputs);

  // Notes this rank's part of a value for the result of run_on_ranks.
  void record_persistent(const std::string& name);
  void record_output(const std::string& label, const std::string& program, const std::string& name);
  // The same for what differs between the ranks; the label gets "@<rank>".
  void record_here(const std::string& label, const std::string& program, const std::string& name);

  Executor& executor(const std::string& program);
  const Arena& arena() const { return *arena_; }
  int rank() const { return mesh_.rank; }

  struct Part {
    std::string label;
    Shape global_shape;
    Box box;
    HostTensor local;
  };
  const std::vector<Part>& parts() const { return parts_; }

 private:
  void write(const Value& value, void* data, const HostTensor& global);
  void record(const std::string& label, const Value& value, const void* data);
  const Value& persistent_value(const std::string& name) const;

  Mesh mesh_;
  std::unique_ptr<Backend> backend_;  // before the groups: they may hold memory of it
  ProcessGroups groups_;
  PlannedPrograms planned_;
  std::unique_ptr<Arena> arena_;
  std::vector<std::unique_ptr<Executor>> executors_;
  std::vector<Part> parts_;
};

// Runs `script` with a runner on every rank of the mesh and returns what it recorded, put
// together. Throws when parts of different ranks that shall be equal are not, or leave holes.
HostTensors run_on_ranks(const std::vector<NamedGraph>& graphs, const Mesh& mesh,
                         const RunnerOptions& options,
                         const std::function<void(ProgramRunner&)>& script);

}  // namespace caravan
