#include "launch/judge.h"

#include <algorithm>
#include <map>
#include <tuple>

namespace caravan {
namespace {

constexpr double kStepsToWait = 10;
// A rank other than 0 judges this much later: rank 0 knows more. Then one after the other.
constexpr double kBackupSeconds = 0.5;
// A rank that was heard of later than this is silent rather than stuck.
constexpr double kFreshSeconds = 1;
// Between two calls of judge(), which should be a fraction of a second, and of the limit.
constexpr double kPauseSeconds = 1;
constexpr double kPauseOfLimit = 0.25;

}  // namespace

// A rank that is leaving waits for the others too.
bool Judge::Rank::is_waiting() const {
  return beat.position.waits_for != kWaitsForNothing || beat.life != Beat::Life::running;
}

bool Judge::Rank::is_fresh(double now) const { return now - heard < kFreshSeconds; }

bool Judge::Rank::is_at_disk() const {
  return beat.position.phase == Phase::loading || beat.position.phase == Phase::saving;
}

Judge::Judge(const JudgeOptions& options, double now)
    : options_(options),
      ranks_(static_cast<size_t>(options.num_ranks), Rank{.beat = {}, .heard = now, .moved = now}),
      last_judged_(now),
      step_began_(now) {}

void Judge::hear(int from, const Beat& beat, double now) {
  Rank& rank = ranks_[static_cast<size_t>(from)];
  if (beat.position.moves != rank.beat.position.moves) rank.moved = now;
  rank.beat = beat;
  rank.heard = now;
  if (from == options_.self) note_steps(beat.position, now);
}

// Beats are rarer than short steps: several may have passed since the last one.
void Judge::note_steps(const Position& position, double now) {
  const int64_t passed = position.step - step_;
  if (passed == 0) return;
  if (step_ > 0) {
    step_seconds_[num_step_seconds_++ % step_seconds_.size()] =
        (now - step_began_) / static_cast<double>(passed);
  }
  step_ = position.step;
  step_began_ = now;
}

double Judge::limit() const {
  const size_t count = std::min(num_step_seconds_, step_seconds_.size());
  if (count == 0) return options_.limit_seconds;
  std::array sorted = step_seconds_;
  const auto middle = sorted.begin() + count / 2;
  std::nth_element(sorted.begin(), middle, sorted.begin() + count);
  return std::max(options_.limit_seconds, kStepsToWait * *middle);
}

int64_t Judge::step() const {
  int64_t latest = 0;
  for (const Rank& rank : ranks_) latest = std::max(latest, rank.beat.position.step);
  return latest;
}

bool Judge::all_are_leaving() const {
  for (size_t i = 0; i < ranks_.size(); ++i) {
    if (static_cast<int>(i) == options_.self) continue;
    if (ranks_[i].beat.life == Beat::Life::running) return false;
  }
  return true;
}

std::optional<Verdict> Judge::judge(double now) {
  const double pause = now - last_judged_;
  last_judged_ = now;
  if (pause > std::max(kPauseSeconds, kPauseOfLimit * limit())) {
    for (Rank& rank : ranks_) rank.heard = rank.moved = now;
    step_began_ = now;
    return {};
  }
  if (auto verdict = find_silent(now)) return verdict;
  if (options_.self != 0) return {};
  if (auto verdict = find_stuck(now)) return verdict;
  return find_deadlock(now);
}

// The one that has been silent for longest.
std::optional<Verdict> Judge::find_silent(double now) const {
  const int self = options_.self;
  const double allowed = limit() + kBackupSeconds * std::min(self, 4);
  std::optional<Verdict> worst;
  for (int i = 0; i < options_.num_ranks; ++i) {
    const double silence = now - ranks_[static_cast<size_t>(i)].heard;
    if (i == self || (self != 0 && i != 0) || silence < allowed) continue;
    if (worst && worst->seconds >= silence) continue;
    worst = Verdict{Verdict::Kind::silent, i, silence};
  }
  return worst;
}

std::optional<Verdict> Judge::find_stuck(double now) const {
  std::optional<Verdict> worst;
  for (int i = 0; i < options_.num_ranks; ++i) {
    const Rank& rank = ranks_[static_cast<size_t>(i)];
    const double still = now - rank.moved;
    const double allowed = limit() * (rank.is_at_disk() ? kDiskFactor : 1);
    if (rank.is_waiting() || still < allowed || !rank.is_fresh(now)) continue;
    if (worst && worst->seconds >= still) continue;
    worst = Verdict{Verdict::Kind::stuck, i, still};
  }
  return worst;
}

std::optional<Verdict> Judge::find_deadlock(double now) const {
  using Awaited = std::tuple<Beat::Life, int32_t, int32_t>;  // what a rank waits for
  std::map<Awaited, std::vector<int>> groups;
  double shortest = now;
  for (int i = 0; i < options_.num_ranks; ++i) {
    const Rank& rank = ranks_[static_cast<size_t>(i)];
    if (!rank.is_waiting() || now - rank.moved < limit() || !rank.is_fresh(now)) return {};
    shortest = std::min(shortest, now - rank.moved);
    const Position& at = rank.beat.position;
    groups[{rank.beat.life, at.waits_for == kWaitsForControlPlane ? -1 : at.program, at.waits_for}]
        .push_back(i);
  }
  const auto fewest = std::ranges::min_element(groups, {}, [](const auto& group) {
    return std::pair(group.second.size(), group.second[0]);
  });
  // All leaving, and still here: rank 0's last word will come.
  if (groups.size() == 1 && std::get<0>(fewest->first) != Beat::Life::running) return {};
  return Verdict{Verdict::Kind::deadlock, fewest->second[0], shortest};
}

}  // namespace caravan
