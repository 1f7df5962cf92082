// Notices a rank that hangs, is stopped or died, names it, and ends the job. A thread of this rank
// that sends and hears beats; the judgement is in launch/judge.h, the words in verdict_text.h.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <span>
#include <thread>
#include <vector>

#include "launch/failure.h"
#include "launch/judge.h"
#include "launch/local_peers.h"
#include "launch/verdict_text.h"
#include "runtime/program.h"

namespace caravan {

struct WatchdogSetup {
  std::unique_ptr<Heartbeat> heartbeat;
  std::vector<RankPlace> places;  // by rank
  const Progress& progress;       // of this rank
  std::span<const Program> programs;
  double limit_seconds = 60;
  // A signal asks this process to end: what happens to the others is no failure any more.
  std::function<bool()> is_ending = {};
  // On the watchdog's thread, at most once; in the product it does not return. `failure` is about
  // the rank that was lost, its message is the line to show.
  std::function<void(const Failure&)> on_failure = {};
};

class Watchdog {
 public:
  // Begins to watch. What `setup` refers to outlives it. On all ranks at about the same time.
  explicit Watchdog(WatchdogSetup setup);
  ~Watchdog();
  Watchdog(const Watchdog&) = delete;
  Watchdog& operator=(const Watchdog&) = delete;

  // The clean end, on every rank: says goodbye and returns when all have said it, and so before any
  // of them ends. A rank that never does is found to hang.
  void finish();

 private:
  void watch(const std::stop_token& stop);
  bool exchange(double now);  // false: all ranks are leaving, nothing is left to watch
  void send_beats(double now);
  void say_over();
  bool look(double now);  // false: found something, and said so
  void report_death(int rank);
  Failure failure_of(int rank, std::string message) const;
  VerdictContext context() const { return {judge_, setup_.places, setup_.programs}; }
  int self() const { return setup_.heartbeat->rank(); }

  WatchdogSetup setup_;
  LocalPeers peers_;
  Judge judge_;
  double next_beat_ = 0;
  std::atomic<bool> is_leaving_{false};
  std::jthread thread_;  // last: it uses the others
};

}  // namespace caravan
