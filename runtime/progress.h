// Where this rank stands, published for whoever watches it: relaxed atomics that the step loop sets
// as it goes. Names of ops and programs are not in it: all ranks have the same plan, so the reader
// looks them up. Nothing here judges (launch/judge.h) or sends (parallel/heartbeat.h).
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string_view>

#include "runtime/communicator.h"

namespace caravan {

enum class Phase : uint8_t {
  planning,  // until all ranks have agreed on the plan
  starting,
  loading,  // weights: from a checkpoint, or drawn
  waiting_for_data,
  computing,
  evaluating,
  saving,
  agreeing,  // with the other ranks, on what a signal asks for
  done,
};
std::string_view name(Phase phase);  // "waiting for data"

// What a rank waits for, beside the index of a collective's step in its program.
inline constexpr int32_t kWaitsForNothing = -1;
inline constexpr int32_t kWaitsForControlPlane = -2;  // barriers and the like of the main thread
inline constexpr int32_t kWaitsForProgram = -3;  // what was started as a whole, with collectives

// Instead of the index of a step: a part of the program that was recorded, and started as a whole.
inline constexpr int32_t kRecordedOps = -2;

// What a Progress held at one moment. Plain bytes: it travels as they are.
struct Position {
  int64_t step = 0;      // being trained, from 1; 0 before the first
  uint64_t moves = 0;    // grows with whatever happens
  int32_t program = -1;  // index in the plan's programs; -1: none ran yet
  int32_t op = -1;       // index in Program::steps, or kRecordedOps
  int32_t waits_for = kWaitsForNothing;
  Phase phase = Phase::planning;
};

// One thread, the one that trains, calls everything but moved() and read(); those are for any.
class Progress {
 public:
  void enter(Phase phase) {
    phase_.store(phase, std::memory_order_relaxed);
    moved();
  }
  void begin_step(int64_t step) { step_.store(step, std::memory_order_relaxed); }
  void begin_program(int program) { program_.store(program, std::memory_order_relaxed); }
  void begin_op(int op) {
    op_.store(op, std::memory_order_relaxed);
    moved();
  }
  // Something went on that has no op: a tensor was read, a chunk written.
  void moved() { moves_.fetch_add(1, std::memory_order_relaxed); }
  int32_t wait_for(int32_t what) {  // returns what was waited for before
    const int32_t before = waits_for_.load(std::memory_order_relaxed);
    waits_for_.store(what, std::memory_order_relaxed);
    return before;
  }

  Position read() const;

 private:
  std::atomic<int64_t> step_{0};
  std::atomic<uint64_t> moves_{0};
  std::atomic<int32_t> program_{-1};
  std::atomic<int32_t> op_{-1};
  std::atomic<int32_t> waits_for_{kWaitsForNothing};
  std::atomic<Phase> phase_{Phase::planning};
};

// While it lives, the rank waits for `what`.
class WaitGuard {
 public:
  WaitGuard(Progress& progress, int32_t what)
      : progress_(progress), before_(progress.wait_for(what)) {}
  ~WaitGuard() {
    progress_.wait_for(before_);
    progress_.moved();
  }
  WaitGuard(const WaitGuard&) = delete;
  WaitGuard& operator=(const WaitGuard&) = delete;

 private:
  Progress& progress_;
  int32_t before_;
};

// The same communicator; whoever is inside one of its calls waits for the control plane.
std::unique_ptr<Communicator> make_watched_communicator(std::unique_ptr<Communicator> communicator,
                                                        Progress& progress);

}  // namespace caravan
