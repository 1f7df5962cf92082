// Which rank hangs? A pure judgement over the beats that arrived: no threads, no clock of its own,
// no messages. launch/watchdog.h runs it.
#pragma once

#include <array>
#include <optional>
#include <vector>

#include "parallel/heartbeat.h"

namespace caravan {

struct Verdict {
  enum class Kind : uint8_t {
    silent,    // no beat arrives: the process is stopped, or its machine is gone
    stuck,     // beats arrive, but nothing moves, and it waits for nobody
    deadlock,  // all wait for each other: for different things
  };
  Kind kind = Kind::silent;
  int rank = 0;        // of a deadlock: the first of the fewest that wait for the same
  double seconds = 0;  // for so long
};

struct JudgeOptions {
  int num_ranks = 1;
  // Rank 0 judges everybody. The others hear of rank 0 alone and judge that it is silent, later
  // than rank 0 would find out about one of them.
  int self = 0;
  double limit_seconds = 60;  // at least; the limit is 10 median steps when they are longer
};

// A disk may take long, and nothing shows how far it is: while a rank loads or saves, being stuck
// takes so many times as long.
inline constexpr int kDiskFactor = 10;

// Times are seconds of a clock that never goes backwards; `now` never decreases between calls.
class Judge {
 public:
  Judge(const JudgeOptions& options, double now);

  void hear(int from, const Beat& beat, double now);  // also of this rank itself
  // Called often, after all beats that arrived were heard. After a long pause between two calls
  // this process did not run, as in a job that was suspended: all times begin anew.
  std::optional<Verdict> judge(double now);

  const Beat& last(int rank) const { return ranks_[static_cast<size_t>(rank)].beat; }
  // The step that the job is in: of a rank that is lost, the others know it better than its last
  // beat, since they wait for it.
  int64_t step() const;
  bool all_are_leaving() const;  // the other ranks
  double limit() const;

 private:
  struct Rank {
    Beat beat;
    double heard = 0;  // when
    double moved = 0;  // when its counter was last seen to grow
    bool is_waiting() const;
    bool is_fresh(double now) const;
    bool is_at_disk() const;
  };
  void note_steps(const Position& position, double now);
  std::optional<Verdict> find_silent(double now) const;
  std::optional<Verdict> find_stuck(double now) const;
  std::optional<Verdict> find_deadlock(double now) const;

  JudgeOptions options_;
  std::vector<Rank> ranks_;
  double last_judged_;
  // Seconds of the latest steps of this rank, from when it was seen to begin them: step i lies at
  // i % size.
  std::array<double, 101> step_seconds_{};
  size_t num_step_seconds_ = 0;  // ever
  int64_t step_ = 0;
  double step_began_ = 0;
};

}  // namespace caravan
