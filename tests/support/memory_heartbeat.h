// Heartbeats between threads of one process, to test who watches without MPI.
#pragma once

#include <deque>
#include <memory>
#include <mutex>
#include <vector>

#include "parallel/heartbeat.h"

namespace caravan {

// What all of them share. It outlives them.
class HeartbeatSwitchboard {
 public:
  explicit HeartbeatSwitchboard(int num_ranks) : mail_(static_cast<size_t>(num_ranks)) {}
  std::unique_ptr<Heartbeat> connect(int rank);

 private:
  friend class MemoryHeartbeat;
  std::mutex mutex_;
  std::vector<std::deque<Heartbeat::Received>> mail_;  // by receiver
};

}  // namespace caravan
