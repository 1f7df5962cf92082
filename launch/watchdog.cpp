#include "launch/watchdog.h"

#include <chrono>

namespace caravan {
namespace {

using std::chrono::milliseconds;

constexpr double kBeatSeconds = 0.25;
constexpr int kTickMilliseconds = 100;
constexpr int kLeavingTickMilliseconds = 2;  // somebody waits for the end
constexpr double kOverSeconds = 5;           // for the last word to go
// After a death, for this process to be ended too: then all were told to. The launcher leaves it
// 0.3 s (signals.h). The lowest rank knows most and speaks first.
constexpr milliseconds kSpeaker{40};
constexpr milliseconds kBackup{180};

double seconds_now() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

}  // namespace

Watchdog::Watchdog(WatchdogSetup setup)
    : setup_(std::move(setup)),
      peers_(setup_.places, setup_.heartbeat->rank()),
      judge_({.num_ranks = setup_.heartbeat->size(),
              .self = setup_.heartbeat->rank(),
              .limit_seconds = setup_.limit_seconds},
             seconds_now()),
      thread_([this](const std::stop_token& stop) { watch(stop); }) {}

Watchdog::~Watchdog() {
  thread_.request_stop();
  peers_.wake();
}

void Watchdog::finish() {
  is_leaving_ = true;
  peers_.wake();
  thread_.join();
}

void Watchdog::watch(const std::stop_token& stop) {
  while (!stop.stop_requested()) {
    // Asked before looking: who died before the signal came is still news.
    const bool is_last_look = setup_.is_ending();
    if (const auto dead = peers_.wait(is_leaving_ ? kLeavingTickMilliseconds : kTickMilliseconds)) {
      return report_death(*dead);
    }
    if (is_last_look || !exchange(seconds_now()) || !look(seconds_now())) return;
  }
}

bool Watchdog::exchange(double now) {
  Heartbeat& heartbeat = *setup_.heartbeat;
  const bool is_leaving = is_leaving_;
  const auto life = is_leaving ? Beat::Life::leaving : Beat::Life::running;
  const Beat mine{setup_.progress.read(), life};
  if (is_leaving && judge_.last(self()).life == Beat::Life::running) next_beat_ = now;
  judge_.hear(self(), mine, now);
  while (const auto received = heartbeat.receive()) {
    judge_.hear(received->from, received->beat, now);
  }
  if (now >= next_beat_) send_beats(now);
  if (!is_leaving) return true;
  if (self() != 0) return judge_.last(0).life != Beat::Life::over;
  if (!judge_.all_are_leaving()) return true;
  say_over();
  return false;
}

void Watchdog::send_beats(double now) {
  Heartbeat& heartbeat = *setup_.heartbeat;
  const Beat& mine = judge_.last(self());
  next_beat_ = now + kBeatSeconds;
  if (self() != 0) {
    if (!heartbeat.send(mine, 0)) next_beat_ = now;
    return;
  }
  for (int rank = 1; rank < heartbeat.size(); ++rank) heartbeat.send(mine, rank);
}

// To all, for certain: they wait for it.
void Watchdog::say_over() {
  Heartbeat& heartbeat = *setup_.heartbeat;
  const double until = seconds_now() + kOverSeconds;
  const auto wait = [&] {
    std::this_thread::sleep_for(milliseconds(1));
    return seconds_now() < until;
  };
  const Beat last{judge_.last(self()).position, Beat::Life::over};
  for (int rank = 1; rank < heartbeat.size(); ++rank) {
    while (!heartbeat.send(last, rank) && wait()) continue;
  }
  while (!heartbeat.flush() && wait()) continue;
}

bool Watchdog::look(double now) {
  const auto verdict = judge_.judge(now);
  if (!verdict) return true;
  setup_.on_failure(failure_of(verdict->rank, verdict_text(*verdict, context())));
  return false;
}

void Watchdog::report_death(int rank) {
  const int speaker = rank == 0 ? 1 : 0;
  std::this_thread::sleep_for(self() == speaker ? kSpeaker : kBackup);
  exchange(seconds_now());  // the last beats that arrived
  setup_.on_failure(failure_of(rank, death_text(rank, context())));
}

Failure Watchdog::failure_of(int rank, std::string message) const {
  const Position& at = judge_.last(rank).position;
  return {.rank = rank,
          .host = setup_.places[static_cast<size_t>(rank)].host,
          .step = judge_.step(),
          .phase = at.moves > 0 ? std::string(name(at.phase)) : "unknown",
          .message = std::move(message),
          .exit_code = ExitCode::peer_lost};
}

}  // namespace caravan
