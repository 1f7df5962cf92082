// Trains as `caravan train` does and looks at steps that have run in. For so many pieces of COUNT
// steps from step FIRST on it counts page faults, then for one more what its steps ask for, and
// writes both to FOLDER, a file per rank:
//   steady_state_program FOLDER FIRST COUNT WASTE CONFIG [key=value ...]
// WASTE 1 makes each step ask for memory, to see that it is found.
#include <sys/mman.h>
#include <sys/resource.h>

#include <cstdlib>
#include <fstream>
#include <iostream>
#include <nlohmann/json.hpp>

#include "launch/train_command.h"
#include "runtime/error.h"
#include "tests/e2e/steady_state/memory_use.h"

namespace caravan {
namespace {

constexpr int64_t kPieces = 3;

int64_t page_faults() {
  rusage usage;
  getrusage(RUSAGE_SELF, &usage);
  return usage.ru_minflt + usage.ru_majflt;
}

// An allocation, two system calls and a page fault.
void ask_for_memory() {
  constexpr size_t kBytes = 4096;
  std::vector<void*> kept = {
      mmap(nullptr, kBytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0)};
  *static_cast<volatile char*>(kept.front()) = 1;
  munmap(kept.front(), kBytes);
}

// Called once in every step, in the middle of it: what is counted goes from the middle of one step
// to that of another.
class Observer {
 public:
  Observer(std::string folder, int64_t first, int64_t count)
      : folder_(std::move(folder)), first_(first), count_(count) {
    faults_.reserve(kPieces + 1);
  }

  void observe() {
    const int64_t step = ++step_ - first_;
    if (step < 0 || step % count_ != 0) return;
    if (step <= kPieces * count_) faults_.push_back(page_faults());
    if (step == kPieces * count_) begin_memory_use();
    if (step == (kPieces + 1) * count_) write(end_memory_use());
  }

 private:
  void write(const MemoryUse& use) {
    std::vector<int64_t> faults;  // of each piece
    for (size_t i = 1; i < faults_.size(); ++i) faults.push_back(faults_[i] - faults_[i - 1]);
    const char* rank = std::getenv("OMPI_COMM_WORLD_RANK");
    std::ofstream(folder_ + "/rank-" + (rank == nullptr ? "0" : rank) + ".json")
        << nlohmann::json{{"allocations", use.allocations},
                          {"memory_calls", use.memory_calls},
                          {"own_places", use.own_places},
                          {"page_faults", faults}};
  }

  std::string folder_;
  int64_t first_;
  int64_t count_;
  int64_t step_ = 0;
  std::vector<int64_t> faults_;  // so far, at the ends of pieces
};

void train_and_observe(const std::vector<std::string>& arguments) {
  check(arguments.size() >= 5, "usage: FOLDER FIRST COUNT WASTE CONFIG [key=value ...]");
  Observer observer(arguments[0], std::stoll(arguments[1]), std::stoll(arguments[2]));
  const bool wastes = arguments[3] == "1";
  TrainRequest request{.config_path = arguments[4],
                       .overrides = {arguments.begin() + 5, arguments.end()}};
  request.after_node = [&](Backend&, const Node& node, std::span<const TensorView>) {
    if (!std::holds_alternative<ClipScale>(node.op)) return;  // which a step does once
    if (wastes) ask_for_memory();
    observer.observe();
  };
  train(request);
}

}  // namespace
}  // namespace caravan

int main(int argc, char** argv) {
  try {
    caravan::train_and_observe({argv + 1, argv + argc});
  } catch (const std::exception& error) {
    std::cerr << error.what() << '\n';
    std::_Exit(1);
  }
}
